//! Products of rows that are merged before and split afterwards, as Keras writes dense layers on images and sequences: the
//! product takes more dimensions by itself, and what follows it is found behind it.

use super::{edit::Index, shapes::Shapes};
use crate::{
    graph::{Graph, ValueId, evaluate::Machine},
    ops::{Fused, Op, matmul::MatMul},
    tensor::Shape,
};

/// The same graph with one product in place of a reshape, a product with a constant matrix, and a reshape.
pub(super) fn join_tensordots(mut graph: Graph, machine: &Machine<'_>) -> Graph {
    if !graph.nodes.iter().any(|node| matches!(node.op, Op::MatMul(_))) {
        return graph;
    }
    let shapes = Shapes::of(&graph, machine);
    let mut index = Index::of(&graph);
    for position in 0..graph.nodes.len() {
        if let Some((product, inputs)) = product(&graph, &index, &shapes, position) {
            graph.replace(&mut index, position, product, inputs);
        }
    }
    graph
}

/// What the reshape at `position` gives, from what was merged before the product.
fn product(graph: &Graph, index: &Index, shapes: &Shapes, position: usize) -> Option<(MatMul, Vec<ValueId>)> {
    let node = graph.nodes.get(position)?;
    let Op::Reshape(_) = &node.op else { return None };
    let before = graph.only_for(index, *node.inputs.first()?)?;
    let (Op::MatMul(product), &[rows, weights]) = (&before.op, before.inputs.as_slice()) else { return None };
    if product.transpose_a || product.fused != Fused::default() || shapes.rank(weights)? != 2 {
        return None;
    }
    let merge = graph.maker(index, rows)?;
    let (Op::Reshape(_), &x) = (&merge.op, merge.inputs.first()?) else { return None };
    let (from, merged, to) = (shapes.tried(x)?, shapes.tried(rows)?, shapes.tried(*node.outputs.first()?)?);
    let fits = |((from, merged), to): ((&Shape, &Shape), &Shape)| match (&from[..], &merged[..], &to[..]) {
        ([lead @ .., k], [_, depth], [others @ .., _]) => k == depth && lead == others && lead.len() > 1,
        _ => false,
    };
    let fits = graph.constants.contains_key(&weights) && from.iter().zip(&merged).zip(&to).all(fits);
    fits.then(|| (product.clone(), vec![x, weights]))
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
            assert_eq!(operators_after(&before, &wave(&[3, 2, 3, 4]), join_tensordots), expected);
        }
    }
}
