//! Squeeze-and-Excitation: the product of an image and its gate goes into the 1x1 convolution behind it.

use super::{edit::Index, shapes::Shapes};
use crate::{
    graph::{Graph, ValueId, evaluate::Machine},
    kernels::Binary as B,
    ops::{GatedConv, Op, Padding, conv::Conv},
    tensor::DType,
};

/// The same graph with gated convolutions.
pub(super) fn fuse_squeeze_excite(graph: Graph, machine: &Machine<'_>) -> Graph {
    let products =
        |graph: &Graph| graph.nodes.iter().any(|node| matches!(&node.op, Op::Binary(op) if op.0 == B::Mul));
    if !products(&graph) || !graph.nodes.iter().any(|node| matches!(node.op, Op::Conv(_))) {
        return graph;
    }
    graph.rewrite(machine, gated)
}

fn gated(
    graph: &Graph,
    index: &Index,
    shapes: &Shapes,
    position: usize,
) -> Option<(GatedConv, Vec<ValueId>)> {
    let node = &graph.nodes[position];
    let Op::Conv(conv) = &node.op else { return None };
    let (&[product, ref others @ ..], &[y]) = (node.inputs.as_slice(), node.outputs.as_slice()) else {
        return None;
    };
    let constants = others.iter().take(1 + usize::from(conv.fused.bias));
    let known = constants.into_iter().all(|value| graph.constants.contains_key(value));
    if !known || shapes.dtype(y) != Some(DType::F32) || !of_single_pixels(graph, conv, others) {
        return None;
    }
    let before = graph.only_for(index, product)?;
    let (Op::Binary(function), &[a, b]) = (&before.op, before.inputs.as_slice()) else { return None };
    if function.0 != B::Mul {
        return None;
    }
    let (x, gate) = [(a, b), (b, a)].into_iter().find(|&(x, gate)| is_gate(shapes, x, gate))?;
    Some((GatedConv { conv: Box::new(conv.clone()) }, [x, gate].iter().chain(others).copied().collect()))
}

fn of_single_pixels(graph: &Graph, conv: &Conv, others: &[ValueId]) -> bool {
    let weights = others.first().and_then(|weights| graph.constants.get(weights));
    let borders = match &conv.padding {
        Padding::Explicit(pads) => pads.iter().any(|&pad| pad != (0, 0)),
        _ => false,
    };
    let single = weights.is_some_and(|weights| matches!(weights.shape()[..], [1, 1, depth, _] if depth > 0));
    single && conv.groups == 1 && conv.strides.iter().all(|&stride| stride == 1) && !borders
}

/// Whether `gate` has a number for each channel of each image of `x`.
fn is_gate(shapes: &Shapes, x: ValueId, gate: ValueId) -> bool {
    let (Some(xs), Some(gates)) = (shapes.tried(x), shapes.tried(gate)) else { return false };
    let float = shapes.dtype(gate) == Some(DType::F32);
    float
        && xs.iter().zip(&gates).all(|(x, gate)| match (&x[..], &gate[..]) {
            (&[n, _, _, c], &[m, 1, 1, d]) => n == m && c == d,
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::passes::edit::testing::{graph, operators_after, wave},
        kernels::{Reduce as R, Unary as U},
        ops::{Fused, binary::Binary, reduce::Reduce},
    };

    fn pointwise(activation: Option<U>) -> Conv {
        let fused = Fused { activation, ..Fused::default() };
        Conv { strides: vec![], dilations: vec![], padding: Padding::Valid, groups: 1, fused }
    }

    /// Mean, two small convolutions, gate, projection; `twice` reads the gated image once more.
    fn block(size: usize, twice: bool) -> Graph {
        graph(&[0, size, size, 8], |b, x| {
            let mean = b.push(Reduce { kind: R::Mean, axes: Some(vec![1, 2]), keep_dims: true }, &[x]);
            let [down, up, project] =
                [[1, 1, 8, 2], [1, 1, 2, 8], [1, 1, 8, 5]].map(|shape| b.constant(wave(&shape)));
            let squeezed = b.push(pointwise(Some(U::Silu)), &[mean, down]);
            let gate = b.push(pointwise(Some(U::Sigmoid)), &[squeezed, up]);
            let gated = b.push(Binary(B::Mul), &[gate, x]);
            let y = b.push(pointwise(None), &[gated, project]);
            if twice {
                let again = b.push(pointwise(None), &[gated, project]);
                return b.push(Binary(B::Add), &[y, again]);
            }
            y
        })
    }

    #[test]
    fn the_gate_goes_into_the_projection() {
        let after = operators_after(&block(5, false), &wave(&[2, 5, 5, 8]), fuse_squeeze_excite);
        assert_eq!(after, ["Reduce", "Conv", "Conv", "GatedConv"]);
    }

    #[test]
    fn what_is_read_twice_stays() {
        let after = operators_after(&block(5, true), &wave(&[1, 5, 5, 8]), fuse_squeeze_excite);
        assert_eq!(after, ["Reduce", "Conv", "Conv", "Binary", "Conv", "Conv", "Binary"]);
    }

    #[test]
    fn a_product_of_two_images_stays() {
        let before = graph(&[1, 3, 3, 8], |b, x| {
            let project = b.constant(wave(&[1, 1, 8, 5]));
            let square = b.push(Binary(B::Mul), &[x, x]);
            b.push(pointwise(None), &[square, project])
        });
        assert_eq!(operators_after(&before, &wave(&[1, 3, 3, 8]), fuse_squeeze_excite), ["Binary", "Conv"]);
    }
}
