//! For unit tests: runs one operator the way a plan does.

use super::{Backend, Builder, Cpu, GraphError, RunOptions};
use crate::{
    kernels::{self, Threads},
    ops::Op,
    tensor::Tensor,
};
use std::{ops::Range, sync::Arc};

/// The outputs of an operator whose inputs are graph inputs, checked to be the same for every
/// instruction set's backend within `f32` rounding, and the same on two threads and, with the inputs as constants, on one.
pub(crate) fn run_op(op: impl Into<Op>, inputs: &[Tensor]) -> Result<Vec<Tensor>, GraphError> {
    run_op_outputs(op, inputs, 1)
}

/// [`run_op`] for an operator of several outputs.
pub(crate) fn run_op_outputs(
    op: impl Into<Op>,
    inputs: &[Tensor],
    outputs: usize,
) -> Result<Vec<Tensor>, GraphError> {
    let op = op.into();
    let build = |as_constants: bool| {
        let mut b = Builder::new();
        let values: Vec<_> = inputs
            .iter()
            .map(|tensor| match as_constants {
                true => b.constant(tensor.clone()),
                false => b.input("x", tensor.dtype(), None),
            })
            .collect();
        let made = b.push_many(op.clone(), &values, outputs);
        Arc::new(b.finish(made.into_iter().map(|value| (String::new(), value)).collect()))
    };
    let mut first: Option<Vec<Tensor>> = None;
    let pool = Threads::new(2);
    for &table in kernels::available() {
        for (as_constants, threads) in [(false, pool.clone()), (true, Threads::single())] {
            let program = Cpu::new(table, threads).compile(build(as_constants))?;
            let arguments = if as_constants { &[][..] } else { inputs };
            for _ in 0..2 {
                let mut made = Vec::new();
                program.run(arguments, &mut made, &RunOptions::default())?;
                match &first {
                    None => first = Some(made),
                    Some(first) => assert_close(first, &made),
                }
            }
        }
    }
    Ok(first.unwrap_or_default())
}

/// The output of an operator that takes the inputs `known` as constants only; the others are graph inputs. Checked to be the
/// same for every instruction set's backend.
pub(crate) fn run_op_knowing(
    op: impl Into<Op>,
    inputs: &[Tensor],
    known: Range<usize>,
) -> Result<Tensor, GraphError> {
    let op = op.into();
    let mut b = Builder::new();
    let mut given = Vec::new();
    let mut values = Vec::new();
    for (index, tensor) in inputs.iter().enumerate() {
        if known.contains(&index) {
            values.push(b.constant(tensor.clone()));
        } else {
            values.push(b.input("x", tensor.dtype(), None));
            given.push(tensor.clone());
        }
    }
    let y = b.push(op, &values);
    let graph = Arc::new(b.finish(vec![("y".into(), y)]));
    let mut all = Vec::new();
    for &table in kernels::available() {
        let mut made = Vec::new();
        let program = Cpu::new(table, Threads::single()).compile(graph.clone())?;
        program.run(&given, &mut made, &RunOptions::default())?;
        all.append(&mut made);
        assert_close(&all[..1], &all[all.len() - 1..]);
    }
    Ok(all.swap_remove(0))
}

fn assert_close(a: &[Tensor], b: &[Tensor]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert_eq!((a.dtype(), a.shape()), (b.dtype(), b.shape()));
        match (a.as_slice::<f32>(), b.as_slice::<f32>()) {
            (Ok(a), Ok(b)) => {
                for (a, b) in a.iter().zip(b) {
                    let same = a == b || (a.is_nan() && b.is_nan());
                    assert!(same || (a - b).abs() <= 1e-5 * (1.0 + a.abs()), "{a} and {b}");
                }
            }
            _ => assert_eq!(a, b),
        }
    }
}
