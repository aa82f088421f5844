//! Joins a depthwise convolution with the 1x1 convolutions around it where what lies between them is too large for a cache.

use super::{edit::Index, shapes::Shapes};
use crate::{
    graph::{Graph, Node, ValueId, evaluate::Machine},
    ops::{InvertedResidual, Op, Padding, conv::Conv},
    tensor::DType,
};

/// Bytes from which a value between two convolutions is not worth writing: a part of a second-level cache, which it
/// shares with what is read and written beside it.
const LARGE: usize = 768 << 10;

/// The same graph with [`InvertedResidual`] blocks for one or two of their convolutions' neighbours.
pub(super) fn join_inverted_residuals(mut graph: Graph, machine: &Machine<'_>) -> Graph {
    if !graph.nodes.iter().any(|node| matches!(&node.op, Op::Conv(conv) if conv.groups != 1)) {
        return graph;
    }
    let shapes = Shapes::of(&graph, machine);
    let mut index = Index::of(&graph);
    for position in 0..graph.nodes.len() {
        let Some((at, joined)) = join(&graph, &index, &shapes, position) else { continue };
        let Joined { op, name, inputs } = joined;
        graph.replace(&mut index, at, op, inputs);
        graph.nodes[at].name = name;
    }
    graph
}

struct Joined {
    op: InvertedResidual,
    name: String,
    inputs: Vec<ValueId>,
}

/// What joins the depthwise convolution at `position` to its neighbours, and the position of the last of them.
fn join(graph: &Graph, index: &Index, shapes: &Shapes, position: usize) -> Option<(usize, Joined)> {
    let node = &graph.nodes[position];
    let depthwise = depthwise(graph, shapes, node)?;
    let (&[x, ..], &[y]) = (node.inputs.as_slice(), node.outputs.as_slice()) else { return None };
    let large = |value: ValueId| {
        shapes
            .tried(value)
            .is_some_and(|tried| tried.iter().all(|shape| shape.elements() * size_of::<f32>() >= LARGE))
    };
    let before = graph.only_for(index, x).filter(|_| large(x)).and_then(|before| {
        let conv = pointwise(graph, shapes, before).filter(|conv| !conv.fused.residual)?;
        Some((conv, before))
    });
    let after = (position + 1..graph.nodes.len())
        .find(|&after| graph.nodes[after].inputs.first() == Some(&y))
        .filter(|_| index.uses(y) == 1 && large(y) && !depthwise.fused.residual)
        .and_then(|after| Some((after, pointwise(graph, shapes, &graph.nodes[after])?)));
    if before.is_none() && after.is_none() {
        return None;
    }
    let mut inputs = vec![before.as_ref().map_or(x, |(_, before)| before.inputs[0])];
    inputs.extend(before.iter().flat_map(|(_, before)| &before.inputs[1..]));
    inputs.extend(&node.inputs[1..]);
    inputs.extend(after.iter().flat_map(|&(after, _)| &graph.nodes[after].inputs[1..]));
    let op = InvertedResidual {
        expand: before.map(|(conv, _)| Box::new(conv.clone())),
        depthwise: Box::new(depthwise.clone()),
        project: after.map(|(_, conv)| Box::new(conv.clone())),
    };
    Some((after.map_or(position, |(after, _)| after), Joined { op, name: node.name.clone(), inputs }))
}

/// A convolution of images of `float` with constant weights and bias, and the shape of its weights.
fn convolution<'a>(graph: &'a Graph, shapes: &Shapes, node: &'a Node) -> Option<(&'a Conv, [usize; 4])> {
    let Op::Conv(conv) = &node.op else { return None };
    let constant = |value: &ValueId| graph.constants.contains_key(value);
    let fits = conv.fused.bias && node.outputs.len() == 1 && node.inputs.get(1..3)?.iter().all(constant);
    let weights = graph.constants.get(node.inputs.get(1)?)?;
    let shape: [usize; 4] = weights.shape()[..].try_into().ok()?;
    (fits && shapes.dtype(node.outputs[0]) == Some(DType::F32)).then_some((conv, shape))
}

/// One output channel for each input channel, by itself.
fn depthwise<'a>(graph: &'a Graph, shapes: &Shapes, node: &'a Node) -> Option<&'a Conv> {
    let (conv, [.., depth, channels]) = convolution(graph, shapes, node)?;
    (depth == 1 && channels > 1 && conv.groups == channels).then_some(conv)
}

/// A convolution of single pixels.
fn pointwise<'a>(graph: &'a Graph, shapes: &Shapes, node: &'a Node) -> Option<&'a Conv> {
    let (conv, [height, width, ..]) = convolution(graph, shapes, node)?;
    let borders = match &conv.padding {
        Padding::Explicit(pads) => pads.iter().any(|&pad| pad != (0, 0)),
        _ => false,
    };
    let every = conv.strides.iter().all(|&stride| stride == 1);
    (height == 1 && width == 1 && conv.groups == 1 && every && !borders).then_some(conv)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::{
            Builder,
            passes::edit::testing::{graph, operators_after, wave},
        },
        kernels::Unary as U,
        ops::Fused,
    };

    fn conv(groups: usize, stride: usize, residual: bool, activation: Option<U>) -> Conv {
        Conv {
            strides: vec![stride; 2],
            dilations: vec![],
            padding: Padding::SameUpper,
            groups,
            fused: Fused { bias: true, residual, activation, ..Fused::default() },
        }
    }

    const SIZE: usize = 100;
    const WIDE: usize = 24;

    /// Expansion, depthwise convolution, projection; `twice` also reads what the second one makes.
    fn block(size: usize, stride: usize, residual: bool, twice: bool) -> Graph {
        graph(&[1, size, size, 4], |b: &mut Builder, x| {
            let constant = |b: &mut Builder, shape: &[usize]| b.constant(wave(shape));
            let [w, v, u] =
                [[1, 1, 4, WIDE], [3, 3, 1, WIDE], [1, 1, WIDE, 4]].map(|shape| constant(b, &shape));
            let [wide, narrow] = [WIDE, 4].map(|channels| constant(b, &[channels]));
            let expanded = b.push(conv(1, 1, false, Some(U::Relu6)), &[x, w, wide]);
            let convolved = b.push(conv(WIDE, stride, false, Some(U::Silu)), &[expanded, v, wide]);
            let mut inputs = vec![convolved, u, narrow];
            inputs.extend(residual.then_some(x));
            let projected = b.push(conv(1, 1, residual, None), &inputs);
            if twice {
                let again = b.push(conv(1, 1, false, None), &[convolved, u, narrow]);
                return b.push(crate::ops::binary::Binary(crate::kernels::Binary::Add), &[projected, again]);
            }
            projected
        })
    }

    fn after(before: &Graph, size: usize) -> Vec<&'static str> {
        operators_after(before, &wave(&[1, size, size, 4]), join_inverted_residuals)
    }

    #[test]
    fn blocks_are_joined_with_and_without_their_ends() {
        assert_eq!(after(&block(SIZE, 1, true, false), SIZE), ["InvertedResidual"]);
        // A quarter of the pixels is small enough to be written.
        assert_eq!(after(&block(SIZE, 2, false, false), SIZE), ["InvertedResidual", "Conv"]);
        assert_eq!(after(&block(SIZE, 1, false, true), SIZE), ["InvertedResidual", "Conv", "Conv", "Binary"]);
    }

    #[test]
    fn what_a_cache_holds_stays() {
        assert_eq!(after(&block(20, 1, true, false), 20), ["Conv", "Conv", "Conv"]);
    }
}
