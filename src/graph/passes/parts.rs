//! Parts of a value that are put together again are that value.
//!
//! Blocks that work on half of the channels slice a value in two and join the halves with what they made of one. The
//! join can read the value itself, and the half that nothing else reads is never cut out.

use super::{edit::Index, fold::fold_constants, shapes::Shapes};
use crate::{
    graph::{Graph, ValueId, evaluate::Machine},
    ops::{Op, shape::ShapeOf},
    tensor::{DType, Tensor},
};

/// The same graph with constants for numbers of channels that a model asks for and that its filters tell, whatever the
/// inputs are, and for what is computed from them: where halves begin, mostly.
pub(super) fn fold_channels(mut graph: Graph, machine: &Machine<'_>) -> Graph {
    let index = Index::of(&graph);
    let known: Vec<(ValueId, Tensor)> = graph
        .nodes
        .iter()
        .filter_map(|node| {
            let (Op::Gather(_), &[shape, at], &[output]) =
                (&node.op, node.inputs.as_slice(), node.outputs.as_slice())
            else {
                return None;
            };
            let Op::ShapeOf(ShapeOf { dtype }) = graph.maker(&index, shape)?.op else { return None };
            let value = *graph.maker(&index, shape)?.inputs.first()?;
            let (&[at], dims) = (graph.constant_integers(at)?.as_slice(), graph.constants.get(&at)?.shape())
            else {
                return None;
            };
            let channels = channels_of(&graph, &index, value, usize::try_from(at).ok()?)?;
            let tensor = match dtype {
                DType::I32 => Tensor::from_slice(dims.clone(), &[i32::try_from(channels).ok()?]),
                DType::I64 => Tensor::from_slice(dims.clone(), &[i64::try_from(channels).ok()?]),
                _ => return None,
            };
            Some((output, tensor.ok()?))
        })
        .collect();
    if known.is_empty() {
        return graph;
    }
    graph.nodes.retain(|node| !known.iter().any(|(value, _)| node.outputs.contains(value)));
    graph.constants.extend(known);
    fold_constants(graph, machine)
}

/// The size of `axis` where it is the channels that a convolution makes.
fn channels_of(graph: &Graph, index: &Index, mut value: ValueId, mut axis: usize) -> Option<usize> {
    let mut rank = 0;
    loop {
        let node = graph.maker(index, value)?;
        let first = *node.inputs.first()?;
        match &node.op {
            Op::Unary(_) => value = first,
            // A bias: more channels than one are kept by all that fits them.
            Op::Binary(_) => {
                rank = rank.max(graph.constants.get(node.inputs.get(1)?)?.shape().len());
                value = first;
            }
            Op::Transpose(transpose) => (value, axis) = (first, *transpose.perm.get(axis)?),
            Op::Conv(_) => {
                // Filters are [window.., depth, channels], images have as many dimensions.
                let filter = graph.constants.get(node.inputs.get(1)?)?.shape();
                let channels = filter.last().copied().filter(|&channels| channels > 1)?;
                return (axis + 1 == filter.len() && rank <= filter.len()).then_some(channels);
            }
            _ => return None,
        }
    }
}

/// The same graph without neighbouring parts of one value among the inputs of concatenations.
pub(super) fn join_parts(mut graph: Graph, machine: &Machine<'_>) -> Graph {
    let has = |wanted: fn(&Op) -> bool| graph.nodes.iter().any(|node| wanted(&node.op));
    if !has(|op| matches!(op, Op::Concat(_))) || !has(|op| matches!(op, Op::Slice(_) | Op::Split(_))) {
        return graph;
    }
    let shapes = Shapes::of(&graph, machine);
    let mut index = Index::of(&graph);
    for position in 0..graph.nodes.len() {
        let node = &graph.nodes[position];
        let Op::Concat(concat) = &node.op else { continue };
        let rank = node.outputs.first().and_then(|&output| shapes.rank(output));
        let Some(axis) = rank.and_then(|rank| place(concat.axis, rank)) else { continue };
        let joined = joined(&graph, &index, &shapes, &node.inputs, axis);
        if joined.len() < node.inputs.len() {
            let concat = concat.clone();
            graph.replace(&mut index, position, concat, joined);
        }
    }
    graph
}

/// The inputs, with a value in place of neighbours that are all of its parts.
fn joined(graph: &Graph, index: &Index, shapes: &Shapes, inputs: &[ValueId], axis: usize) -> Vec<ValueId> {
    let mut joined = Vec::with_capacity(inputs.len());
    let mut rest = inputs;
    while let Some((&first, after)) = rest.split_first() {
        match whole(graph, index, shapes, rest, axis) {
            Some((base, count)) => {
                joined.push(base);
                rest = &rest[count..];
            }
            None => {
                joined.push(first);
                rest = after;
            }
        }
    }
    joined
}

/// A value that the first of these inputs are all parts of, in order, and how many they are.
fn whole(
    graph: &Graph,
    index: &Index,
    shapes: &Shapes,
    inputs: &[ValueId],
    axis: usize,
) -> Option<(ValueId, usize)> {
    let (mut end, mut whole) = (Place::Start, None);
    for (count, &input) in inputs.iter().enumerate() {
        let next = part(graph, index, shapes, input, axis)?;
        if next.start != end || whole.is_some_and(|base| base != next.base) {
            return None;
        }
        if next.end == Place::End {
            return Some((next.base, count + 1));
        }
        (end, whole) = (next.end, Some(next.base));
    }
    None
}

/// A place along an axis, where it holds for every size of it.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Start,
    /// Before this element, or the end if there are fewer.
    Element(i64),
    /// Before this output of a `Split`.
    Part(usize),
    End,
}

/// From `start` to `end` along an axis of `base`.
struct Part {
    base: ValueId,
    start: Place,
    end: Place,
}

fn part(graph: &Graph, index: &Index, shapes: &Shapes, value: ValueId, axis: usize) -> Option<Part> {
    let node = graph.nodes.get(index.producer(value)?)?;
    let base = *node.inputs.first()?;
    let rank = shapes.rank(base)?;
    match &node.op {
        Op::Slice(_) => {
            let one = |index: usize| match graph.constant_integers(*node.inputs.get(index)?)?.as_slice() {
                [one] => Some(*one),
                _ => None,
            };
            let step = if node.inputs.len() > 4 { one(4)? } else { 1 };
            let along = if node.inputs.len() > 3 { one(3)? } else { 0 };
            if step != 1 || place(along, rank)? != axis {
                return None;
            }
            let (start, end) = (one(1)?, one(2)?);
            let size = channels_of(graph, index, base, axis).map_or(i64::from(i32::MAX), |size| size as i64);
            let place = |at: i64| match at {
                0 => Some(Place::Start),
                _ if at >= size => Some(Place::End),
                1.. => Some(Place::Element(at)),
                _ => None,
            };
            Some(Part { base, start: place(start)?, end: place(end)? })
        }
        Op::Split(split) => {
            if place(split.axis, rank)? != axis {
                return None;
            }
            let at = node.outputs.iter().position(|&output| output == value)?;
            let start = if at == 0 { Place::Start } else { Place::Part(at) };
            let last = at + 1 == node.outputs.len();
            Some(Part { base, start, end: if last { Place::End } else { Place::Part(at + 1) } })
        }
        _ => None,
    }
}

/// An axis counted from either end, from the front.
fn place(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::{
            Builder,
            passes::clean,
            passes::edit::testing::{graph, operators_after, wave},
        },
        kernels::{Binary as B, Threads, Unary as U, best},
        ops::{
            Fused, Padding,
            binary::Binary,
            conv::Conv,
            gather::Gather,
            join::{Concat, Split, SplitSizes},
            layout::Transpose,
            slice::Slice,
            unary::Unary,
        },
    };

    fn slice(b: &mut Builder, x: ValueId, from: i64, to: i64) -> ValueId {
        let [from, to, axes] = [from, to, -1].map(|number| b.integers(&[number]));
        b.push(Slice, &[x, from, to, axes])
    }

    #[test]
    fn halves_that_are_joined_are_the_whole() {
        for (middle, count) in [(2, 4), (3, 3)] {
            let before = graph(&[0, 5], |b, x| {
                let (left, right) = (slice(b, x, 0, 3), slice(b, x, middle, i64::MAX));
                let y = b.push(Unary(U::Exp), &[right]);
                b.push(Concat { axis: 1 }, &[left, right, y])
            });
            let found = operators_after(&before, &wave(&[2, 5]), join_parts);
            assert_eq!(found.len(), count, "{found:?}");
        }
    }

    #[test]
    fn parts_in_order_are_the_whole() {
        for (order, expected) in
            [([0, 1], vec!["Split", "Unary", "Concat"]), ([1, 0], vec!["Split", "Unary", "Concat"])]
        {
            let before = graph(&[0, 4], |b, x| {
                let parts = b.push_many(Split { axis: -1, sizes: SplitSizes::Parts(2) }, &[x], 2);
                let y = b.push(Unary(U::Exp), &[parts[0]]);
                b.push(Concat { axis: -1 }, &[y, parts[order[0]], parts[order[1]]])
            });
            assert_eq!(operators_after(&before, &wave(&[2, 4]), join_parts), expected);
            let machine = Machine { kernels: best(), threads: &Threads::single(), memory_limit: usize::MAX };
            let after = join_parts(before, &machine);
            let joined = after.nodes.last().unwrap().inputs.len();
            assert_eq!(joined, if order == [0, 1] { 2 } else { 3 });
        }
    }

    /// As exporters write a block of half of the channels.
    #[test]
    fn halves_of_channels_are_found_from_the_filter() {
        let before = graph(&[0, 4, 4, 3], |b, x| {
            let w = b.constant(wave(&[1, 1, 3, 6]));
            let padding = Padding::Valid;
            let fused = Fused::default();
            let y = b.push(Conv { strides: vec![], dilations: vec![], padding, groups: 1, fused }, &[x, w]);
            let y = b.push(Transpose { perm: vec![0, 3, 1, 2] }, &[y]);
            let shape = b.push(ShapeOf { dtype: DType::I64 }, &[y]);
            let one = b.integers(&[1]);
            let channels = b.push(Gather { axis: 0, batch_dims: 0, negative: true }, &[shape, one]);
            let two = b.integers(&[2]);
            let half = b.push(Binary(B::Div), &[channels, two]);
            let zero = b.integers(&[0]);
            let left = b.push(Slice, &[y, zero, half, one]);
            let right = b.push(Slice, &[y, half, channels, one]);
            let z = b.push(Unary(U::Exp), &[right]);
            b.push(Concat { axis: 1 }, &[left, right, z])
        });
        let found = operators_after(&before, &wave(&[1, 4, 4, 3]), |graph, machine| {
            join_parts(clean(fold_channels(graph, machine)), machine)
        });
        assert_eq!(found, ["Conv", "Transpose", "Slice", "Unary", "Concat"]);
    }
}
