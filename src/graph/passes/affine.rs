//! Folds products and sums with constants per channel into the weights and bias of the convolution or matrix product
//! before them: batch normalisation costs nothing then.

use super::{edit::Index, shapes::Shapes};
use crate::{
    graph::{Graph, ValueId, evaluate::Machine},
    kernels::Binary as B,
    ops::{Fused, Op},
    tensor::{AlignedVec, DType, Tensor},
};

/// The same graph with fewer products and sums.
pub(super) fn fuse_affine(mut graph: Graph, machine: &Machine<'_>) -> Graph {
    if !graph.nodes.iter().any(|node| matches!(node.op, Op::Conv(_) | Op::MatMul(_))) {
        return graph;
    }
    let shapes = Shapes::of(&graph, machine);
    let mut index = Index::of(&graph);
    for position in 0..graph.nodes.len() {
        if let Some(Folded { op, name, inputs, weights, bias }) = fold(&graph, &index, &shapes, position) {
            let mut inputs = inputs;
            if let Some(weights) = weights {
                inputs[1] = graph.new_constant(weights);
            }
            if let Some(bias) = bias {
                let bias = graph.new_constant(bias);
                inputs.truncate(2);
                inputs.push(bias);
            }
            graph.replace(&mut index, position, op, inputs);
            graph.nodes[position].name = name;
        }
    }
    graph
}

struct Folded {
    op: Op,
    name: String,
    inputs: Vec<ValueId>,
    weights: Option<Tensor>,
    bias: Option<Tensor>,
}

/// What the node at `position` becomes when it is a product or sum with constants after weights that are constant.
fn fold(graph: &Graph, index: &Index, shapes: &Shapes, position: usize) -> Option<Folded> {
    let node = &graph.nodes[position];
    let Op::Binary(function) = &node.op else { return None };
    let (&[a, b], &[output]) = (node.inputs.as_slice(), node.outputs.as_slice()) else { return None };
    let (x, constant, swapped) = if graph.constants.contains_key(&b) { (a, b, false) } else { (b, a, true) };
    let before = graph.only_for(index, x)?;
    let fused = fused(&before.op)?;
    if fused.residual || fused.activation.is_some() || shapes.dtype(x) != Some(DType::F32) {
        return None;
    }
    let weights = graph.constants.get(before.inputs.get(1)?)?;
    let old_bias = match before.inputs.get(2) {
        Some(bias) => Some(graph.constants.get(bias)?.as_slice::<f32>().ok()?),
        None => None,
    };
    // Neither may the sum be larger than the product was.
    let dims = shapes.dims(x)?;
    if shapes.rank(output)? != dims.len() {
        return None;
    }
    let channels = dims.last().copied().flatten()?;
    let values = per_channel(graph.constants.get(&constant)?, channels)?;
    let bias_of = |combine: &dyn Fn(f32, f32) -> f32| -> Vec<f32> {
        let old = |channel: usize| old_bias.and_then(|bias| bias.get(channel).copied()).unwrap_or(0.0);
        values.iter().enumerate().map(|(channel, &value)| combine(old(channel), value)).collect()
    };
    let (factors, bias) = match (function.0, swapped) {
        (B::Add, _) => (None, Some(bias_of(&|old, value| old + value))),
        (B::Sub, false) => (None, Some(bias_of(&|old, value| old - value))),
        (B::Mul, _) => (Some(values.clone()), old_bias.map(|_| bias_of(&|old, factor| old * factor))),
        (B::Div, false) if values.iter().all(|&value| value != 0.0) => {
            let factors = values.iter().map(|value| value.recip()).collect();
            (Some(factors), old_bias.map(|_| bias_of(&|old, divisor| old / divisor)))
        }
        _ => return None,
    };
    let transposed = matches!(&before.op, Op::MatMul(product) if product.transpose_b);
    let weights = match factors {
        // Weights per matrix of a batch have no bias or factor in common with kernels' one vector; they do in theory.
        Some(_) if matches!(before.op, Op::MatMul(_)) && weights.shape().len() != 2 => return None,
        Some(factors) => Some(scaled(weights, &factors, transposed)?),
        None => None,
    };
    let mut op = before.op.clone();
    fused_mut(&mut op)?.bias = bias.is_some() || fused.bias;
    let bias = match bias {
        Some(bias) => Some(Tensor::from_slice([bias.len()], &bias).ok()?),
        None => None,
    };
    Some(Folded { op, name: before.name.clone(), inputs: before.inputs.clone(), weights, bias })
}

/// What follows the operator, when it can have something follow.
pub(super) fn fused(op: &Op) -> Option<Fused> {
    match op {
        Op::Conv(conv) => Some(conv.fused),
        Op::MatMul(product) => Some(product.fused),
        _ => None,
    }
}

pub(super) fn fused_mut(op: &mut Op) -> Option<&mut Fused> {
    match op {
        Op::Conv(conv) => Some(&mut conv.fused),
        Op::MatMul(product) => Some(&mut product.fused),
        _ => None,
    }
}

/// One value per channel (the last axis) of a constant that is broadcast over the others.
/// A constant's value for each channel, when it is one number or lies along the last axis.
pub(super) fn per_channel(constant: &Tensor, channels: usize) -> Option<Vec<f32>> {
    if constant.len() != 1 && constant.len() != channels {
        return None;
    }
    let values = constant.as_slice::<f32>().ok()?;
    match values {
        [value] => Some(vec![*value; channels]),
        values if values.len() == channels && constant.shape().last() == Some(&channels) => {
            Some(values.to_vec())
        }
        _ => None,
    }
}

/// Weights whose last axis (the one before, when transposed) is multiplied by one factor each.
fn scaled(weights: &Tensor, factors: &[f32], transposed: bool) -> Option<Tensor> {
    let run = if transposed { weights.shape().last().copied()? } else { 1 };
    let (shape, weights, factors) = (weights.shape().clone(), weights.clone(), factors.to_vec());
    if weights.dtype() != DType::F32 || !weights.len().is_multiple_of(run.max(1)) || factors.is_empty() {
        return None;
    }
    Tensor::computed(DType::F32, shape, move || {
        let weights = weights.fresh();
        let mut made = AlignedVec::<f32>::for_overwrite(weights.len()).ok()?;
        let rows = weights.as_slice::<f32>().ok()?.chunks_exact(run.max(1)).enumerate();
        for ((row, values), out) in rows.zip(made.as_mut_slice().chunks_exact_mut(run.max(1))) {
            let factor = factors[row % factors.len()];
            out.iter_mut().zip(values).for_each(|(out, value)| *out = value * factor);
        }
        weights.release();
        Tensor::from_aligned(weights.shape().clone(), made).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::passes::edit::testing::{graph, operators_after, wave},
        ops::{Padding, binary::Binary, conv::Conv, matmul::MatMul},
    };

    fn conv(groups: usize) -> Conv {
        let padding = Padding::SameUpper;
        Conv { strides: vec![], dilations: vec![], padding, groups, fused: Fused::default() }
    }

    #[test]
    fn batch_normalisation_goes_into_the_weights() {
        for groups in [1, 4] {
            let before = graph(&[0, 5, 5, 4], |b, x| {
                let w = b.constant(wave(&[3, 3, 4 / groups, 8]));
                let y = b.push(conv(groups), &[x, w]);
                let [mean, factor] = [b.constant(wave(&[8])), b.constant(wave(&[1, 1, 1, 8]))];
                let y = b.push(Binary(B::Sub), &[y, mean]);
                let y = b.push(Binary(B::Mul), &[factor, y]);
                let half = b.scalar(0.5);
                b.push(Binary(B::Add), &[y, half])
            });
            assert_eq!(operators_after(&before, &wave(&[2, 5, 5, 4]), fuse_affine), ["Conv"]);
        }
    }

    #[test]
    fn products_with_transposed_weights() {
        for transpose_b in [false, true] {
            let before = graph(&[0, 3], |b, x| {
                let w = b.constant(wave(if transpose_b { &[5, 3] } else { &[3, 5] }));
                let y = b.push(MatMul { transpose_b, ..MatMul::default() }, &[x, w]);
                let [factor, bias] = [b.constant(wave(&[5])), b.constant(wave(&[5]))];
                let y = b.push(Binary(B::Mul), &[y, factor]);
                b.push(Binary(B::Add), &[bias, y])
            });
            assert_eq!(operators_after(&before, &wave(&[2, 3]), fuse_affine), ["MatMul"]);
        }
    }

    #[test]
    fn what_makes_the_result_larger_or_is_read_twice_stays() {
        let before = graph(&[1, 3], |b, x| {
            let w = b.constant(wave(&[3, 3]));
            let y = b.push(MatMul::default(), &[x, w]);
            let rows = b.constant(wave(&[3, 1]));
            let grown = b.push(Binary(B::Add), &[y, rows]);
            b.push(Binary(B::Mul), &[grown, y])
        });
        let after = operators_after(&before, &wave(&[1, 3]), fuse_affine);
        assert_eq!(after, ["MatMul", "Binary", "Binary"]);
    }
}
