//! Operators between a reshape that merges dimensions and one that splits them again take more dimensions by themselves: products
//! of rows, as Keras writes dense layers on images and sequences, so that what follows them is found behind them; and transposes
//! of the matrices of many heads, as exporters of PyTorch write attention's keys.

use super::{edit::Index, shapes::Shapes};
use crate::{
    graph::{Graph, ValueId, evaluate::Machine},
    ops::{Fused, Op, layout::Transpose},
    tensor::Shape,
};

/// The same graph with one operator in place of a reshape, a product or transpose, and a reshape.
pub(super) fn take_apart_merged(graph: Graph, machine: &Machine<'_>) -> Graph {
    if !graph.nodes.iter().any(|node| matches!(node.op, Op::MatMul(_)) || turns_matrices(&node.op)) {
        return graph;
    }
    graph.rewrite(machine, split)
}

/// From three dimensions to three.
fn turns_matrices(op: &Op) -> bool {
    matches!(op, Op::Transpose(Transpose { perm }) if perm[..] == [0, 2, 1])
}

/// What the reshape at `position` gives, from what was merged before the operator between.
fn split(graph: &Graph, index: &Index, shapes: &Shapes, position: usize) -> Option<(Op, Vec<ValueId>)> {
    let node = graph.nodes.get(position)?;
    let Op::Reshape(_) = &node.op else { return None };
    let between = graph.only_for(index, *node.inputs.first()?)?;
    let &merged = between.inputs.first()?;
    let merge = graph.maker(index, merged)?;
    let (Op::Reshape(_), &x) = (&merge.op, merge.inputs.first()?) else { return None };
    let tried = [shapes.tried(x)?, shapes.tried(merged)?, shapes.tried(*node.outputs.first()?)?];
    let all = |fits: fn(&[usize], &[usize], &[usize]) -> bool| {
        let [from, merged, to] = &tried;
        from.iter()
            .zip(merged)
            .zip(to)
            .all(|((from, merged), to): ((&Shape, &Shape), _)| fits(from, merged, to))
    };
    match (&between.op, between.inputs.as_slice()) {
        (Op::MatMul(product), &[_, weights]) => {
            let rows = |from: &[usize], merged: &[usize], to: &[usize]| match (from, merged, to) {
                ([lead @ .., k], [_, depth], [others @ .., _]) => {
                    k == depth && lead == others && lead.len() > 1
                }
                _ => false,
            };
            let plain = !product.transpose_a && product.fused == Fused::default();
            let constant = graph.constants.contains_key(&weights) && shapes.rank(weights)? == 2;
            (plain && constant && all(rows)).then(|| (product.clone().into(), vec![x, weights]))
        }
        (op, _) if turns_matrices(op) && index.uses(merged) == 1 => {
            let heads = |from: &[usize], merged: &[usize], to: &[usize]| match *from {
                [a, b, c, d] => *merged == [a * b, c, d] && *to == [a, b, d, c],
                _ => false,
            };
            all(heads).then(|| (Transpose { perm: vec![0, 1, 3, 2] }.into(), vec![x]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::passes::edit::testing::{graph, operators_after, reshaped, wave},
        ops::matmul::MatMul,
    };

    #[test]
    fn rows_of_more_dimensions_are_multiplied_as_they_are() {
        let cases = [
            ([-1, 4], [-1, 2, 3, 5], &["MatMul"][..]),
            ([-1, 4], [-1, 3, 2, 5], &["Reshape", "MatMul", "Reshape"]),
            ([-1, 12], [-1, 2, 1, 5], &["Reshape", "MatMul", "Reshape"]),
        ];
        for (merged, split, expected) in cases {
            let before = graph(&[0, 2, 3, 4], |b, x| {
                let rows = reshaped(b, x, &merged);
                let weights = b.constant(wave(&[merged[1] as usize, 5]));
                let y = b.push(MatMul::default(), &[rows, weights]);
                reshaped(b, y, &split)
            });
            assert_eq!(operators_after(&before, &wave(&[3, 2, 3, 4]), take_apart_merged), expected);
        }
    }

    #[test]
    fn heads_that_are_merged_meanwhile_are_turned_at_once() {
        for (last, expected) in [(3, &["Transpose"][..]), (6, &["Reshape", "Transpose", "Reshape"])] {
            let before = graph(&[0, 2, 3, 4], |b, x| {
                let x = reshaped(b, x, &[-1, 3, 4]);
                let x = b.push(Transpose { perm: vec![0, 2, 1] }, &[x]);
                reshaped(b, x, &[-1, 2, 12 / last, last])
            });
            assert_eq!(operators_after(&before, &wave(&[3, 2, 3, 4]), take_apart_merged), expected);
        }
    }
}
