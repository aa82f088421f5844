//! Small models of every kind of kernel that shares its work among threads. Included by path, from the product's tests
//! and from tests/race: `super` has `graph`, `kernels`, `ops` and `tensor`.

use super::{
    graph::{Builder, Graph, ValueId},
    kernels::{self, Binary as B, Unary as U},
    ops::{
        Fused, Padding,
        binary::Binary,
        conv::Conv,
        matmul::MatMul,
        quant::{Dequantize, Quantize},
        recurrent::{Cell, Direction, GivenInputs, Recurrent},
        reduce::Reduce,
        softmax::Softmax,
        unary::Unary,
    },
    tensor::{DType, Tensor},
};

/// Name, graph and inputs.
pub(crate) fn all() -> Vec<(&'static str, Graph, Vec<Tensor>)> {
    vec![
        ("convolutions", convolutions(false), vec![wave(&[1, 20, 20, 16])]),
        ("quantised", convolutions(true), vec![wave(&[1, 20, 20, 16])]),
        ("recurrent", recurrent(), vec![wave(&[6, 1, 40])]),
        ("products", products(), vec![wave(&[64, 96])]),
    ]
}

/// Numbers from -1 to 1.
fn wave(shape: &[usize]) -> Tensor {
    let elements: usize = shape.iter().product();
    let values: Vec<f32> = (0..elements).map(|i| ((i * 37 + 11) % 201) as f32 / 100.0 - 1.0).collect();
    Tensor::from_slice(shape, &values).unwrap()
}

/// There and back, if the model is a quantised one.
fn coded(b: &mut Builder, x: ValueId, quantised: bool) -> ValueId {
    if !quantised {
        return x;
    }
    let (scale, zero) = (b.scalar(1.0 / 16.0), b.constant(Tensor::scalar(128u8)));
    let bytes = b.push(Quantize { axis: 1, dtype: DType::U8 }, &[x, scale, zero]);
    b.push(Dequantize { axis: 1 }, &[bytes, scale, zero])
}

fn weights(b: &mut Builder, shape: &[usize], quantised: bool) -> ValueId {
    if !quantised {
        return b.constant(wave(shape));
    }
    let elements: usize = shape.iter().product();
    let bytes: Vec<i8> = (0..elements).map(|i| (i * 37 % 255) as i8).collect();
    let bytes = b.constant(Tensor::from_slice(shape, &bytes).unwrap());
    let scale = b.scalar(1.0 / 1024.0);
    b.push(Dequantize { axis: 0 }, &[bytes, scale])
}

/// Dense, depthwise and pointwise, with a residual, a mean and a product behind them.
fn convolutions(quantised: bool) -> Graph {
    let mut b = Builder::new();
    let shape = [1, 20, 20, 16].map(Some).to_vec();
    let x = b.input("x", DType::F32, Some(shape));
    let x = coded(&mut b, x, quantised);
    let conv = |b: &mut Builder, x: ValueId, shape: &[usize], groups: usize| {
        let w = weights(b, shape, quantised);
        let bias = b.constant(wave(&[shape[3]]));
        let fused = Fused { bias: true, ..Fused::default() };
        let conv = Conv { strides: vec![], dilations: vec![], padding: Padding::SameUpper, groups, fused };
        b.push(conv, &[x, w, bias])
    };
    let relu = |b: &mut Builder, x: ValueId| {
        let x = b.push(Unary(U::Relu6), &[x]);
        coded(b, x, quantised)
    };
    let y = conv(&mut b, x, &[3, 3, 16, 32], 1);
    let y = relu(&mut b, y);
    let y = conv(&mut b, y, &[3, 3, 1, 32], 32);
    let y = relu(&mut b, y);
    let y = conv(&mut b, y, &[1, 1, 32, 16], 1);
    let y = coded(&mut b, y, quantised);
    let y = b.push(Binary(B::Add), &[x, y]);
    let y = coded(&mut b, y, quantised);
    let mean = Reduce { kind: kernels::Reduce::Mean, axes: Some(vec![1, 2]), keep_dims: false };
    let y = b.push(mean, &[y]);
    let y = coded(&mut b, y, quantised);
    let w = weights(&mut b, &[16, 10], quantised);
    let y = b.push(MatMul::default(), &[y, w]);
    b.finish(vec![("y".into(), y)])
}

fn recurrent() -> Graph {
    let mut b = Builder::new();
    let x = b.input("x", DType::F32, Some([6, 1, 40].map(Some).to_vec()));
    let (w, r) = (b.constant(wave(&[1, 256, 40])), b.constant(wave(&[1, 256, 64])));
    let lstm = Recurrent {
        cell: Cell::Lstm,
        hidden: 64,
        direction: Direction::Forward,
        activations: vec![],
        clip: None,
        given: GivenInputs::default(),
    };
    let outputs = b.push_many(lstm, &[x, w, r], 3);
    b.finish(vec![("y".into(), outputs[0]), ("state".into(), outputs[2])])
}

fn products() -> Graph {
    let mut b = Builder::new();
    let x = b.input("x", DType::F32, Some([64, 96].map(Some).to_vec()));
    let w = b.constant(wave(&[96, 128]));
    let y = b.push(MatMul::default(), &[x, w]);
    let y = b.push(Unary(U::Tanh), &[y]);
    let y = b.push(Softmax { axis: -1, log: false }, &[y]);
    let w = b.constant(wave(&[128, 96]));
    let y = b.push(MatMul::default(), &[y, w]);
    let y = b.push(Binary(B::Add), &[x, y]);
    b.finish(vec![("y".into(), y)])
}
