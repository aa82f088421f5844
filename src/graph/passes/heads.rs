//! Turns matrices of many heads by one transpose, where they are turned by three-dimensional ones between reshapes: exporters
//! of PyTorch write attention's keys so.

use super::{edit::Index, shapes::Shapes};
use crate::{
    graph::{Graph, ValueId, evaluate::Machine},
    ops::{Op, layout::Transpose},
    tensor::Shape,
};

/// The same graph with `[a, b, c, d]` to `[a, b, d, c]` as one operator.
pub(super) fn join_heads(mut graph: Graph, machine: &Machine<'_>) -> Graph {
    let turns = |op: &Op| matches!(op, Op::Transpose(Transpose { perm }) if perm[..] == [0, 2, 1]);
    if !graph.nodes.iter().any(|node| turns(&node.op)) {
        return graph;
    }
    let shapes = Shapes::of(&graph, machine);
    let mut index = Index::of(&graph);
    for position in 0..graph.nodes.len() {
        if let Some(x) = turned(&graph, &index, &shapes, position) {
            graph.replace(&mut index, position, Transpose { perm: vec![0, 1, 3, 2] }, vec![x]);
        }
    }
    graph
}

/// What the node at `position` turns, with a reshape before the transpose and one, the node's own, behind it.
fn turned(graph: &Graph, index: &Index, shapes: &Shapes, position: usize) -> Option<ValueId> {
    let node = graph.nodes.get(position)?;
    let Op::Reshape(_) = &node.op else { return None };
    let transpose = graph.only_for(index, *node.inputs.first()?)?;
    let Op::Transpose(Transpose { perm }) = &transpose.op else { return None };
    let merged = *transpose.inputs.first()?;
    let merge = graph.only_for(index, merged)?;
    let (Op::Reshape(_), &x) = (&merge.op, merge.inputs.first()?) else { return None };
    let (from, between, to) =
        (shapes.tried(x)?, shapes.tried(merged)?, shapes.tried(*node.outputs.first()?)?);
    let fits = |((from, between), to): ((&Shape, &Shape), &Shape)| match from[..] {
        [a, b, c, d] => between[..] == [a * b, c, d] && to[..] == [a, b, d, c],
        _ => false,
    };
    (perm[..] == [0, 2, 1] && from.iter().zip(&between).zip(&to).all(fits)).then_some(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::{
            Builder,
            passes::edit::testing::{graph, operators_after, wave},
        },
        ops::shape::Reshape,
        tensor::Tensor,
    };

    fn reshaped(b: &mut Builder, x: ValueId, dims: &[i64]) -> ValueId {
        let to = b.constant(Tensor::from_slice([dims.len()], dims).unwrap());
        b.push(Reshape { zero_copies: false }, &[x, to])
    }

    #[test]
    fn heads_that_are_merged_meanwhile_are_turned_at_once() {
        for (last, expected) in [(3, &["Transpose"][..]), (6, &["Reshape", "Transpose", "Reshape"])] {
            let before = graph(&[0, 2, 3, 4], |b, x| {
                let x = reshaped(b, x, &[-1, 3, 4]);
                let x = b.push(Transpose { perm: vec![0, 2, 1] }, &[x]);
                reshaped(b, x, &[-1, 2, 12 / last, last])
            });
            assert_eq!(operators_after(&before, &wave(&[3, 2, 3, 4]), join_heads), expected);
        }
    }
}
