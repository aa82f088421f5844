//! Signed bytes between operators become unsigned ones: 128 is added to the bytes and to their zero point. CPUs multiply
//! unsigned activations with signed weights, and for others every byte would have to be turned around when it is read.

use super::moves::moves;
use crate::{
    graph::{Graph, ValueId, passes::shapes::Shapes},
    maps::Ordered,
    ops::{Op, Operator, quantized::Requantize},
    tensor::{DType, Tensor},
};
use std::collections::BTreeSet;

/// Rounds after which a graph is too tangled to be looked at further.
const MAX_ROUNDS: usize = 16;

/// The same graph with fewer signed bytes.
pub(super) fn without_signs(mut graph: Graph, shapes: &Shapes) -> Graph {
    let values = turned(&graph, shapes);
    if values.is_empty() {
        return graph;
    }
    for position in 0..graph.nodes.len() {
        let node = graph.nodes[position].clone();
        let reads = |index: usize| node.inputs.get(index).is_some_and(|input| values.contains(input));
        let makes = node.outputs.iter().any(|output| values.contains(output));
        let (x, y) = (reads(0), reads(1));
        let mut op = node.op.clone();
        let mut inputs = node.inputs.clone();
        match &mut op {
            Op::Quantize(quantize) if makes => {
                quantize.dtype = DType::U8;
                inputs.truncate(2);
                inputs.push(zero(&mut graph, node.inputs.get(2).copied()));
            }
            Op::Dequantize(_) if x => {
                inputs.truncate(2);
                inputs.push(zero(&mut graph, node.inputs.get(2).copied()));
            }
            Op::QuantizedConv(conv) => requantized(&mut conv.requantize, x, makes),
            Op::QuantizedMatMul(product) => requantized(&mut product.requantize, x, makes),
            Op::QuantizedAdd(sum) => {
                sum.a.zero += if x { 128 } else { 0 };
                sum.b.zero += if y { 128 } else { 0 };
                if makes {
                    sum.output = DType::U8;
                    sum.y_zero += 128;
                    sum.bounds = sum.bounds.map(|(min, max)| (min + 128, max + 128));
                }
            }
            Op::QuantizedTable(_) if x || makes => {
                if let Some(table) = table(&graph, inputs[1], x, makes) {
                    inputs[1] = graph.new_constant(table);
                }
            }
            _ => continue,
        }
        graph.nodes[position].op = op;
        graph.nodes[position].inputs = inputs;
    }
    graph
}

fn requantized(requantize: &mut Requantize, x: bool, makes: bool) {
    requantize.x_zero += if x { 128 } else { 0 };
    if makes {
        requantize.output = DType::U8;
        requantize.y_zero += 128;
        requantize.bounds = requantize.bounds.map(|(min, max)| (min + 128, max + 128));
    }
}

/// A zero point, turned; without one it is 0.
fn zero(graph: &mut Graph, old: Option<ValueId>) -> ValueId {
    let old = old.and_then(|old| graph.constants.get(&old)?.to_i64_vec().ok()?.first().copied()).unwrap_or(0);
    graph.new_constant(Tensor::scalar((old + 128) as u8))
}

/// A table whose index, entries or both are turned.
fn table(graph: &Graph, old: ValueId, x: bool, makes: bool) -> Option<Tensor> {
    let old = graph.constants.get(&old)?;
    let bytes = old.as_bytes();
    let turn = |yes: bool| if yes { 0x80u8 } else { 0 };
    let new = (0..=255u8).map(|byte| Some(bytes.get(usize::from(byte ^ turn(x)))? ^ turn(makes)));
    let new = new.collect::<Option<Vec<u8>>>()?;
    match old.dtype() {
        DType::I8 if !makes => {
            Tensor::from_slice([256], &new.iter().map(|&byte| byte as i8).collect::<Vec<_>>()).ok()
        }
        _ => Tensor::from_slice([256], &new).ok(),
    }
}

/// The values that can be turned: signed bytes that only operators make and read which allow for it.
fn turned(graph: &Graph, shapes: &Shapes) -> BTreeSet<ValueId> {
    let outside = graph.outputs.iter().map(|(_, output)| *output).into_set();
    let mut values = graph
        .nodes
        .iter()
        .flat_map(|node| node.outputs.iter().copied())
        .filter(|value| shapes.dtype(*value) == Some(DType::I8) && !outside.contains(value))
        .into_set();
    for _ in 0..MAX_ROUNDS {
        let before = values.len();
        // What one operator refuses is known to those before and behind it in the same round.
        for node in graph.nodes.iter().chain(graph.nodes.iter().rev()) {
            let coded = coded_inputs(graph, &node.op, &node.inputs);
            for (index, input) in node.inputs.iter().enumerate() {
                if !coded.contains(&index) {
                    values.remove(input);
                }
            }
            if !makes_coded(graph, &node.op, &node.inputs) {
                node.outputs.iter().for_each(|output| {
                    values.remove(output);
                });
            }
            // What moves bytes makes of the one kind what it reads.
            if passes(&node.op) {
                let ends =
                    || node.outputs.iter().chain(coded.iter().filter_map(|&index| node.inputs.get(index)));
                if !ends().all(|value| values.contains(value)) {
                    ends().copied().collect::<Vec<_>>().iter().for_each(|value| {
                        values.remove(value);
                    });
                }
            }
        }
        if values.len() == before {
            return values;
        }
    }
    BTreeSet::new()
}

/// Operators whose output has the bytes of their inputs.
fn passes(op: &Op) -> bool {
    moves(op) || matches!(op, Op::Concat(_) | Op::Pool(_))
}

/// The inputs that may be turned.
fn coded_inputs(graph: &Graph, op: &Op, inputs: &[ValueId]) -> Vec<usize> {
    match op {
        Op::Dequantize(_) if of_one_scale(graph, inputs) => vec![0],
        Op::QuantizedConv(_) | Op::QuantizedMatMul(_) | Op::QuantizedTable(_) | Op::Pool(_) => vec![0],
        Op::QuantizedAdd(_) => vec![0, 1],
        Op::Concat(_) => (0..inputs.len()).collect(),
        op if moves(op) => vec![0],
        _ => Vec::new(),
    }
}

fn makes_coded(graph: &Graph, op: &Op, inputs: &[ValueId]) -> bool {
    match op {
        Op::Quantize(_) => of_one_scale(graph, inputs),
        Op::QuantizedConv(_) | Op::QuantizedMatMul(_) | Op::QuantizedTable(_) | Op::QuantizedAdd(_) => true,
        op => passes(op) && !op.stateful(),
    }
}

/// Scale and zero point are one constant each.
fn of_one_scale(graph: &Graph, inputs: &[ValueId]) -> bool {
    inputs.len() >= 2
        && inputs[1..].iter().all(|value| {
            graph.constants.get(value).is_some_and(|tensor| tensor.len() == 1 && tensor.shape().len() <= 1)
        })
}

#[cfg(test)]
mod tests {
    use super::super::{find_quantized, testing::*};
    use crate::{
        graph::passes::edit::testing::{graph, operators_after, wave},
        kernels::Binary as B,
        ops::{Op, binary::Binary, layout::Transpose, matmul::MatMul, quant::Quantize},
        tensor::DType,
    };

    #[test]
    fn signed_bytes_vanish() {
        let before = graph(&[3, 3], |b, x| {
            let x = coded(b, x, DType::I8, 1.0 / 32.0, -3);
            let w = weights(b, &[3, 3], 1);
            let y = b.push(MatMul::default(), &[x, w]);
            let y = coded(b, y, DType::I8, 0.5, 3);
            let z = b.push(Transpose { perm: vec![1, 0] }, &[y]);
            let z = b.push(Binary(B::Add), &[z, y]);
            coded(b, z, DType::I8, 1.0, -7)
        });
        let operators = operators_after(&before, &wave(&[3, 3]), |graph, machine| {
            let graph = find_quantized(graph, machine);
            let unsigned = |op: &Op| match op {
                Op::Quantize(Quantize { dtype, .. }) => *dtype == DType::U8,
                Op::QuantizedMatMul(product) => product.requantize.output == DType::U8,
                Op::QuantizedAdd(sum) => sum.output == DType::U8,
                _ => true,
            };
            assert!(graph.nodes().iter().all(|node| unsigned(&node.op)));
            graph
        });
        let expected = ["Quantize", "QuantizedMatMul", "Transpose", "QuantizedAdd", "Dequantize"];
        assert_eq!(operators, expected);
    }

    /// The bytes themselves are an output.
    #[test]
    fn outputs_keep_their_signs() {
        let before = graph(&[3, 3], |b, x| {
            let (scale, zero) = (b.scalar(0.25), zero_of(b, DType::I8, -3));
            let x = b.push(Quantize { axis: 1, dtype: DType::I8 }, &[x, scale, zero]);
            b.push(crate::ops::cast::Cast { to: DType::F32 }, &[x])
        });
        let operators = operators_after(&before, &wave(&[3, 3]), |graph, machine| {
            let graph = find_quantized(graph, machine);
            let Op::Quantize(quantize) = &graph.nodes()[0].op else { panic!() };
            assert_eq!(quantize.dtype, DType::I8);
            graph
        });
        assert_eq!(operators, ["Quantize", "Cast"]);
    }
}
