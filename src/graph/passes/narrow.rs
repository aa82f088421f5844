//! Weights stored in fewer bits: a narrow constant and the operator that widens it, in place of a `float` constant.
//!
//! `F16` and `BF16` round every large constant; `I8` keeps one scale per output channel of the weights of products
//! and convolutions, and rounds what else is large to `F16`. Rows that are looked up are widened after the lookup.

use crate::{
    graph::{Graph, Node, ValueId},
    ops::{Op, cast::Cast, quant::Dequantize},
    tensor::{DType, Tensor, TensorError},
};
use half::{bf16, f16};
use std::collections::BTreeMap;

/// Smaller constants stay as they are.
const MIN_ELEMENTS: usize = 1024;

/// What weights are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Narrow {
    /// Half precision: 11 bits, to 65504.
    F16,
    /// The upper half of a `float`: 8 bits.
    Bf16,
    /// Eight bits and a scale per output channel.
    I8,
}

/// The same graph with weights that are stored narrow.
///
/// # Errors
/// Memory that is not to be had.
pub fn narrow_weights(mut graph: Graph, to: Narrow) -> Result<Graph, TensorError> {
    let nodes = std::mem::take(&mut graph.nodes);
    let mut widened: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    let mut first = Vec::new();
    let mut rest = Vec::with_capacity(nodes.len());
    for mut node in nodes {
        for position in 0..node.inputs.len() {
            let value = node.inputs[position];
            if let Some(&wide) = widened.get(&value) {
                node.inputs[position] = wide;
                continue;
            }
            let Some(tensor) = graph.constants.get(&value).filter(|tensor| is_large(tensor)).cloned() else {
                continue;
            };
            let channels = if to == Narrow::I8 { channel_axis(&node, position, &tensor) } else { None };
            if let Some(axis) = channels {
                let (values, scales) = quantised(&tensor, axis)?;
                let inputs = vec![graph.new_constant(values), graph.new_constant(scales)];
                let wide = graph.new_value();
                let op = Op::from(Dequantize { axis: axis as i64 });
                first.push(Node { op, name: node.name.clone(), inputs, outputs: vec![wide] });
                widened.insert(value, wide);
                node.inputs[position] = wide;
                continue;
            }
            let Some(rounded) = rounded(&tensor, to)? else { continue };
            let stored = graph.new_constant(rounded);
            let wide = graph.new_value();
            let op = Op::from(Cast { to: DType::F32 });
            if let (Op::Gather(_), 0, [_]) = (&node.op, position, node.outputs.as_slice()) {
                let outputs = std::mem::replace(&mut node.outputs, vec![wide]);
                node.inputs[0] = stored;
                let name = node.name.clone();
                rest.push(node);
                node = Node { op, name, inputs: vec![wide], outputs };
                break;
            }
            first.push(Node { op, name: node.name.clone(), inputs: vec![stored], outputs: vec![wide] });
            widened.insert(value, wide);
            node.inputs[position] = wide;
        }
        rest.push(node);
    }
    first.append(&mut rest);
    graph.nodes = first;
    Ok(super::clean(graph))
}

fn is_large(tensor: &Tensor) -> bool {
    // Biases and scales stay as they are.
    tensor.dtype() == DType::F32 && tensor.len() >= MIN_ELEMENTS && tensor.shape().len() > 1
}

/// The axis of output channels, where the input is a matrix or filters.
fn channel_axis(node: &Node, position: usize, tensor: &Tensor) -> Option<usize> {
    let rank = tensor.shape().len();
    match (&node.op, position) {
        (Op::MatMul(op), 1) if rank == 2 => Some(if op.transpose_b { 0 } else { 1 }),
        (Op::Conv(_), 1) if rank > 2 => Some(rank - 1),
        _ => None,
    }
}

/// `None` where a number would leave the range of the narrow type.
fn rounded(tensor: &Tensor, to: Narrow) -> Result<Option<Tensor>, TensorError> {
    let values = tensor.as_slice::<f32>()?;
    let shape = tensor.shape().clone();
    if to == Narrow::Bf16 {
        let values: Vec<bf16> = values.iter().copied().map(bf16::from_f32).collect();
        return Tensor::from_slice(shape, &values).map(Some);
    }
    if values.iter().any(|value| value.is_finite() && value.abs() > f16::MAX.to_f32()) {
        return Ok(None);
    }
    let values: Vec<f16> = values.iter().copied().map(f16::from_f32).collect();
    Tensor::from_slice(shape, &values).map(Some)
}

/// Values from -127 to 127, and what to multiply those of each channel by.
fn quantised(tensor: &Tensor, axis: usize) -> Result<(Tensor, Tensor), TensorError> {
    let values = tensor.as_slice::<f32>()?;
    let channels = tensor.shape()[axis];
    let inner: usize = tensor.shape()[axis + 1..].iter().product();
    let channel = |at: usize| at / inner % channels;
    let mut scales = vec![0.0f32; channels];
    for (at, value) in values.iter().enumerate() {
        let scale = &mut scales[channel(at)];
        *scale = scale.max(value.abs());
    }
    for scale in &mut scales {
        *scale = if *scale > 0.0 { *scale / 127.0 } else { 1.0 };
    }
    // A cast saturates.
    let quantise = |(at, value): (usize, &f32)| (value / scales[channel(at)]).round_ties_even() as i8;
    let quantised: Vec<i8> = values.iter().enumerate().map(quantise).collect();
    Ok((Tensor::from_slice(tensor.shape().clone(), &quantised)?, Tensor::from_slice([channels], &scales)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::{
            Backend, Cpu, RunOptions,
            passes::edit::testing::{graph, wave},
        },
        kernels::{Threads, best},
        ops::{gather::Gather, matmul::MatMul},
    };
    use std::sync::Arc;

    fn run(graph: Graph, x: &Tensor) -> Vec<f32> {
        let program = Cpu::new(best(), Threads::single()).compile(Arc::new(graph)).unwrap();
        let mut outputs = Vec::new();
        program.run(&[x.clone()], &mut outputs, &RunOptions::default()).unwrap();
        outputs[0].as_slice::<f32>().unwrap().to_vec()
    }

    fn product() -> Graph {
        graph(&[2, 64], |b, x| {
            let w = b.constant(wave(&[64, 32]));
            b.push(MatMul::default(), &[x, w])
        })
    }

    /// The bounds are those of the types: half a unit in the last of 11, 8 and 7 bits per weight.
    #[test]
    fn products_differ_by_what_the_weights_are_rounded_by() {
        let x = wave(&[2, 64]);
        let exact = run(product(), &x);
        let sum: f32 = x.as_slice::<f32>().unwrap()[..64].iter().map(|value| value.abs()).sum();
        for (to, unit) in
            [(Narrow::F16, 1.0 / 2048.0), (Narrow::Bf16, 1.0 / 256.0), (Narrow::I8, 1.0 / 254.0)]
        {
            let narrow = narrow_weights(product(), to).unwrap();
            let stored: usize = narrow.constants.values().filter(|t| t.len() > 100).map(Tensor::memory).sum();
            assert_eq!(stored, if to == Narrow::I8 { 2048 } else { 4096 });
            for (exact, found) in exact.iter().zip(run(narrow, &x)) {
                assert!((exact - found).abs() <= sum * 1.3 * unit, "{to:?}: {exact} {found}");
            }
        }
    }

    #[test]
    fn rows_are_widened_after_the_lookup() {
        let table = wave(&[64, 32]);
        let mut b = crate::graph::Builder::new();
        let x = b.input("x", DType::I64, None);
        let table = b.constant(table);
        let rows = b.push(Gather { axis: 0, batch_dims: 0, negative: false }, &[table, x]);
        let narrow = narrow_weights(b.finish(vec![("y".into(), rows)]), Narrow::I8).unwrap();
        let names: Vec<&str> = narrow.nodes.iter().map(|node| node.op.name()).collect();
        assert_eq!(names, ["Gather", "Cast"]);
        let rows = run(narrow, &Tensor::from_slice([1], &[3i64]).unwrap());
        let expected = &wave(&[64, 32]).as_slice::<f32>().unwrap()[3 * 32..4 * 32].to_vec();
        assert!(rows.iter().zip(expected).all(|(a, b)| (a - b).abs() <= b.abs() / 2048.0));
    }

    #[test]
    fn what_does_not_fit_stays() {
        let mut values = vec![1.0f32; 2048];
        values[7] = 1e5;
        let tensor = Tensor::from_slice([2048], &values).unwrap();
        assert!(rounded(&tensor, Narrow::F16).unwrap().is_none());
        assert!(rounded(&tensor, Narrow::Bf16).unwrap().is_some());
    }
}
