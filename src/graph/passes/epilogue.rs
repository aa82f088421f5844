//! Sums and activations after a convolution or matrix product are computed where its result is stored.

use super::{
    affine::{fused, fused_mut},
    edit::Index,
    shapes::Shapes,
};
use crate::{
    graph::{Graph, Node, ValueId, evaluate::Machine},
    kernels::{Binary as B, Unary as U},
    ops::Op,
    tensor::DType,
};

/// The same graph with residuals and activations inside of products and convolutions.
pub(super) fn fuse_epilogues(mut graph: Graph, machine: &Machine<'_>) -> Graph {
    if !graph.nodes.iter().any(|node| fused(&node.op).is_some()) {
        return graph;
    }
    let shapes = Shapes::of(&graph, machine);
    let mut index = Index::of(&graph);
    for position in 0..graph.nodes.len() {
        if let Some((op, name, inputs)) = absorbed(&graph, &index, &shapes, position) {
            graph.replace(&mut index, position, op, inputs);
            graph.nodes[position].name = name;
        }
    }
    graph
}

fn absorbed(
    graph: &Graph,
    index: &Index,
    shapes: &Shapes,
    position: usize,
) -> Option<(Op, String, Vec<ValueId>)> {
    let node = &graph.nodes[position];
    match (&node.op, node.inputs.as_slice()) {
        (Op::Unary(unary), &[x]) => {
            let before = product(graph, index, shapes, x)?;
            let mut op = before.op.clone();
            let fused = fused_mut(&mut op)?;
            if fused.activation.is_some() || !worth(unary.0) {
                return None;
            }
            fused.activation = Some(unary.0);
            Some((op, before.name.clone(), before.inputs.clone()))
        }
        (Op::Binary(function), &[a, b]) => {
            if let Some((x, map)) = scaled(graph, shapes, function.0, a, b) {
                let before = product(graph, index, shapes, x)?;
                let mut op = before.op.clone();
                let fused = fused_mut(&mut op)?;
                fused.activation?;
                let [scale, shift] = fused.affine.unwrap_or([1.0, 0.0]);
                fused.affine = Some([scale * map[0], shift * map[0] + map[1]]);
                return Some((op, before.name.clone(), before.inputs.clone()));
            }
            if function.0 != B::Add || a == b {
                return None;
            }
            // The later of two products takes the other as it is.
            let order = |value| index.producer(value);
            let pairs = if order(a) > order(b) { [(a, b), (b, a)] } else { [(b, a), (a, b)] };
            pairs.into_iter().find_map(|(x, residual)| {
                let before = product(graph, index, shapes, x)?;
                let mut op = before.op.clone();
                let fused = fused_mut(&mut op)?;
                if fused.activation.is_some() || fused.residual || !shapes.same(x, residual) {
                    return None;
                }
                fused.residual = true;
                let inputs = before.inputs.iter().copied().chain([residual]).collect();
                Some((op, before.name.clone(), inputs))
            })
        }
        _ => None,
    }
}

/// What is multiplied with a number or has one added: scale and shift.
fn scaled(
    graph: &Graph,
    shapes: &Shapes,
    function: B,
    a: ValueId,
    b: ValueId,
) -> Option<(ValueId, [f32; 2])> {
    // Ranks of constants of one element are at most 1, so that the result has the shape of the other.
    let (x, number) = match (graph.constant_float(a), graph.constant_float(b)) {
        (None, Some(number)) => (a, number),
        (Some(number), None) => (b, number),
        _ => return None,
    };
    let map = match function {
        B::Mul => [number, 0.0],
        B::Add => [1.0, number],
        _ => return None,
    };
    (number.is_finite() && shapes.rank(x)? > 0).then_some((x, map))
}

/// The product of `float` that nothing else reads.
fn product<'a>(graph: &'a Graph, index: &Index, shapes: &Shapes, value: ValueId) -> Option<&'a Node> {
    graph.only_for(index, value).filter(|node| {
        let weights = node.inputs.get(1).is_some_and(|weights| graph.constants.contains_key(weights));
        let product = matches!(node.op, Op::MatMul(_)) || (matches!(node.op, Op::Conv(_)) && weights);
        product && shapes.dtype(value) == Some(DType::F32)
    })
}

/// Functions that networks have after products; others are too rare to be tested there.
pub(super) fn worth(function: U) -> bool {
    matches!(
        function,
        U::Relu
            | U::Relu6
            | U::Clip { .. }
            | U::LeakyRelu(_)
            | U::Sigmoid
            | U::Tanh
            | U::Silu
            | U::Gelu
            | U::GeluTanh
            | U::HardSigmoid { .. }
            | U::HardSwish
            | U::Mish
            | U::Elu(_)
            | U::Selu
            | U::Softplus
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::passes::edit::testing::{graph, operators_after, wave},
        ops::{Fused, Padding, binary::Binary, conv::Conv, matmul::MatMul, unary::Unary},
    };

    #[test]
    fn residuals_and_activations() {
        for function in [U::Relu, U::Relu6, U::Silu, U::HardSwish, U::Gelu] {
            let before = graph(&[0, 5, 5, 4], |b, x| {
                let [w, v] = [b.constant(wave(&[1, 1, 4, 4])), b.constant(wave(&[3, 3, 4, 4]))];
                let conv = Conv {
                    strides: vec![],
                    dilations: vec![],
                    padding: Padding::SameUpper,
                    groups: 1,
                    fused: Fused::default(),
                };
                let short = b.push(conv.clone(), &[x, w]);
                let long = b.push(conv, &[x, v]);
                let sum = b.push(Binary(B::Add), &[long, short]);
                b.push(Unary(function), &[sum])
            });
            assert_eq!(operators_after(&before, &wave(&[2, 5, 5, 4]), fuse_epilogues), ["Conv", "Conv"]);
        }
    }

    /// Factors before the activation are none of the epilogue's.
    #[test]
    fn numbers_after_the_activation() {
        for (function, activated) in [(U::HardSwish, true), (U::Relu, true), (U::Relu, false)] {
            let before = graph(&[0, 3], |b, x| {
                let w = b.constant(wave(&[3, 5]));
                let mut y = b.push(MatMul::default(), &[x, w]);
                if activated {
                    y = b.push(Unary(function), &[y]);
                }
                let (half, third) = (b.scalar(0.5), b.constant(wave(&[1])));
                let y = b.push(Binary(B::Mul), &[half, y]);
                let y = b.push(Binary(B::Add), &[y, third]);
                b.push(Binary(B::Mul), &[y, half])
            });
            let expected =
                if activated { &["MatMul"][..] } else { &["MatMul", "Binary", "Binary", "Binary"] };
            assert_eq!(operators_after(&before, &wave(&[2, 3]), fuse_epilogues), expected);
        }
    }

    #[test]
    fn a_sum_that_is_broadcast_stays() {
        let before = graph(&[0, 3], |b, x| {
            let w = b.constant(wave(&[3, 3]));
            let y = b.push(MatMul::default(), &[x, w]);
            let row = b.constant(wave(&[1, 3]));
            let sum = b.push(Binary(B::Add), &[y, row]);
            b.push(Unary(U::Relu), &[sum])
        });
        assert_eq!(operators_after(&before, &wave(&[2, 3]), fuse_epilogues), ["MatMul", "Binary", "Unary"]);
    }

    #[test]
    fn the_sum_comes_before_the_activation() {
        let before = graph(&[2, 3], |b, x| {
            let w = b.constant(wave(&[3, 3]));
            let y = b.push(MatMul::default(), &[x, w]);
            let y = b.push(Unary(U::Relu), &[y]);
            b.push(Binary(B::Add), &[y, x])
        });
        assert_eq!(operators_after(&before, &wave(&[2, 3]), fuse_epilogues), ["MatMul", "Binary"]);
    }
}
