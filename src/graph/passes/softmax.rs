//! Finds softmax that exporters spell out: `e^(x - max(x))` over its sum.

use super::{edit::Index, shapes::Shapes};
use crate::{
    graph::{Graph, Node, ValueId, evaluate::Machine},
    kernels::{Binary as B, Reduce as R, Unary as U},
    ops::{Op, reduce::Reduce, softmax::Softmax},
};

/// The same graph with one operator for each softmax along an axis.
pub(super) fn find_softmax(graph: Graph, machine: &Machine<'_>) -> Graph {
    if !graph.nodes.iter().any(|node| matches!(&node.op, Op::Unary(op) if op.0 == U::Exp)) {
        return graph;
    }
    graph.rewrite(machine, |graph, index, shapes, position| {
        let output = *graph.nodes[position].outputs.first()?;
        let (axis, x) = spelled(graph, index, shapes, output)?;
        Some((Softmax { axis, log: false }, vec![x]))
    })
}

/// `exp / sum(exp)` with `exp = e^(x - max(x))`, both along one axis that stays with size 1.
fn spelled(graph: &Graph, index: &Index, shapes: &Shapes, value: ValueId) -> Option<(i64, ValueId)> {
    let [power, sum] = binary(graph, index, value, B::Div)?;
    let (summed, axis) = along(graph, index, shapes, sum, R::Sum)?;
    if summed != power {
        return None;
    }
    let Node { op: Op::Unary(function), inputs, .. } = graph.maker(index, power)? else { return None };
    let [x, most] = binary(graph, index, *inputs.first()?, B::Sub).filter(|_| function.0 == U::Exp)?;
    let (compared, same) = along(graph, index, shapes, most, R::Max)?;
    (compared == x && same == axis).then_some((axis as i64, x))
}

fn binary(graph: &Graph, index: &Index, value: ValueId, function: B) -> Option<[ValueId; 2]> {
    match graph.maker(index, value)? {
        Node { op: Op::Binary(op), inputs, .. } if op.0 == function => inputs.as_slice().try_into().ok(),
        _ => None,
    }
}

/// What is reduced along one axis, and which.
fn along(
    graph: &Graph,
    index: &Index,
    shapes: &Shapes,
    value: ValueId,
    wanted: R,
) -> Option<(ValueId, usize)> {
    match graph.maker(index, value)? {
        Node { op: Op::Reduce(Reduce { kind, axes: Some(axes), keep_dims: true }), inputs, .. }
            if *kind == wanted =>
        {
            let &x = inputs.first()?;
            let rank = i64::try_from(shapes.rank(x)?).ok()?;
            let &[axis] = axes.as_slice() else { return None };
            let axis = if axis < 0 { axis + rank } else { axis };
            Some((x, usize::try_from(axis).ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::passes::edit::testing::{graph, operators_after, wave},
        ops::{binary::Binary, unary::Unary},
    };

    /// `axes` of the maximum and of the sum.
    fn softmax(axes: [i64; 2]) -> Graph {
        graph(&[0, 3, 7], |b, x| {
            let reduce = |kind, axis| Reduce { kind, axes: Some(vec![axis]), keep_dims: true };
            let most = b.push(reduce(R::Max, axes[0]), &[x]);
            let below = b.push(Binary(B::Sub), &[x, most]);
            let power = b.push(Unary(U::Exp), &[below]);
            let sum = b.push(reduce(R::Sum, axes[1]), &[power]);
            b.push(Binary(B::Div), &[power, sum])
        })
    }

    #[test]
    fn along_the_same_axis() {
        for axes in [[-1, -1], [2, -1], [1, 1], [-2, 1]] {
            assert_eq!(operators_after(&softmax(axes), &wave(&[2, 3, 7]), find_softmax), ["Softmax"]);
        }
    }

    #[test]
    fn along_two_axes_it_is_something_else() {
        let after = operators_after(&softmax([1, 2]), &wave(&[2, 3, 7]), find_softmax);
        assert_eq!(after, ["Reduce", "Binary", "Unary", "Reduce", "Binary"]);
    }
}
