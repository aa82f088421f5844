//! Once a plan exists, a run allocates nothing: counted by the allocator itself.

#[path = "support/small_models.rs"]
mod small_models;

use graph::{Backend, Builder, Cpu, Graph, RunOptions};
use kernels::Threads;
use kinglet::{
    graph, kernels,
    ops::{
        self, Fused,
        binary::Binary,
        matmul::MatMul,
        reduce::Reduce,
        shape::{Reshape, ShapeOf},
        softmax::Softmax,
        unary::Unary,
    },
    tensor::{self, DType, Tensor},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::Arc,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the counter does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller vouches.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller vouches.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn runs_in_the_steady_state_do_not_allocate() {
    let mut b = Builder::new();
    let x = b.input("x", DType::F32, None);
    let weights = b.constant(Tensor::from_slice([4, 8], &[0.25f32; 32]).unwrap());
    let bias = b.constant(Tensor::from_slice([8], &[1.0f32; 8]).unwrap());
    let fused = Fused { bias: true, ..Fused::default() };
    let h = b.push(MatMul { fused, ..MatMul::default() }, &[x, weights, bias]);
    let h = b.push(Unary(kernels::Unary::Tanh), &[h]);
    let shape = b.push(ShapeOf { dtype: DType::I64 }, &[h]);
    let flat = b.integers(&[-1]);
    let flattened = b.push(Reshape { zero_copies: false }, &[h, flat]);
    let back = b.push(Reshape { zero_copies: false }, &[flattened, shape]);
    let twice = b.push(Binary(kernels::Binary::Add), &[back, h]);
    let y = b.push(Softmax { axis: -1, log: false }, &[twice]);
    let sum = b.push(Reduce { kind: kernels::Reduce::Sum, axes: Some(vec![-1]), keep_dims: false }, &[y]);
    let graph = b.finish(vec![("y".into(), y), ("sum".into(), sum)]);
    let inputs = [Tensor::from_slice([3, 4], &[0.5f32; 12]).unwrap()];
    let outputs = without_allocations("a product", graph, &inputs);
    for total in outputs[1].as_slice::<f32>().unwrap() {
        assert!((total - 1.0).abs() < 1e-6);
    }
}

/// Convolutions, in floats and in bytes, recurrent layers and products.
#[test]
fn small_models_do_not_allocate() {
    for (name, graph, inputs) in small_models::all() {
        without_allocations(name, graph, &inputs);
    }
}

/// The outputs.
fn without_allocations(name: &str, graph: Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    let program = Cpu::new(kernels::best(), Threads::single()).compile(Arc::new(graph)).unwrap();
    let mut outputs = Vec::with_capacity(2);
    let mut run = || {
        outputs.clear();
        program.run(inputs, &mut outputs, &RunOptions::default()).unwrap();
    };
    run();
    run();
    let before = ALLOCATIONS.with(Cell::get);
    for _ in 0..100 {
        run();
    }
    let after = ALLOCATIONS.with(Cell::get);
    assert_eq!(after - before, 0, "{name}: allocations in 100 runs");
    outputs
}
