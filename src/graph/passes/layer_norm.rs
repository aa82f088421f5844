//! Finds layer normalisation that exporters spell out in means, differences and a root.

use super::{edit::Index, shapes::Shapes};
use crate::{
    graph::{Graph, Node, ValueId, evaluate::Machine},
    kernels::{Binary as B, Reduce as R, Unary as U},
    ops::{Op, norm::LayerNorm, reduce::Reduce},
};

/// The same graph with one operator for each normalisation of rows. Scale and bias that are vectors are taken in.
pub(super) fn find_layer_norms(graph: Graph, machine: &Machine<'_>) -> Graph {
    let roots = |node: &Node| matches!(node.op, Op::Unary(ref op) if op.0 == U::Sqrt || op.0 == U::Rsqrt);
    if !graph.nodes.iter().any(roots) {
        return graph;
    }
    graph.rewrite(machine, |graph, index, shapes, position| {
        let output = *graph.nodes[position].outputs.first()?;
        let plain = plain(graph, index, shapes, output)
            .map(|(x, epsilon)| (LayerNorm { axis: -1, epsilon, center: true }, vec![x]));
        plain.or_else(|| with_factor(graph, index, output)).or_else(|| folded(graph, index, shapes, output))
    })
}

fn binary(graph: &Graph, index: &Index, value: ValueId, function: B) -> Option<[ValueId; 2]> {
    match graph.maker(index, value)? {
        Node { op: Op::Binary(op), inputs, .. } if op.0 == function => inputs.as_slice().try_into().ok(),
        _ => None,
    }
}

fn unary(graph: &Graph, index: &Index, value: ValueId, function: U) -> Option<ValueId> {
    match graph.maker(index, value)? {
        Node { op: Op::Unary(op), inputs, .. } if op.0 == function => inputs.first().copied(),
        _ => None,
    }
}

/// The mean over the last axis, which stays with size 1.
fn row_mean(graph: &Graph, index: &Index, shapes: &Shapes, value: ValueId) -> Option<ValueId> {
    match graph.maker(index, value)? {
        Node {
            op: Op::Reduce(Reduce { kind: R::Mean, axes: Some(axes), keep_dims: true }), inputs, ..
        } => {
            let &x = inputs.first()?;
            let last = shapes.rank(x).map(|rank| rank as i64 - 1);
            let &[axis] = axes.as_slice() else { return None };
            (axis == -1 || Some(axis) == last).then_some(x)
        }
        _ => None,
    }
}

/// `(x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon)`; exporters repeat the difference or share it.
fn plain(graph: &Graph, index: &Index, shapes: &Shapes, value: ValueId) -> Option<(ValueId, f32)> {
    let (difference, stabilised) = match binary(graph, index, value, B::Div) {
        Some([difference, root]) => (difference, unary(graph, index, root, U::Sqrt)?),
        None => {
            let [a, b] = binary(graph, index, value, B::Mul)?;
            match unary(graph, index, b, U::Rsqrt) {
                Some(stabilised) => (a, stabilised),
                None => (b, unary(graph, index, a, U::Rsqrt)?),
            }
        }
    };
    let (variance, epsilon) = with_number(graph, binary(graph, index, stabilised, B::Add)?)?;
    let square = row_mean(graph, index, shapes, variance)?;
    let squared = match unary(graph, index, square, U::Square) {
        Some(squared) => squared,
        None => match binary(graph, index, square, B::Pow) {
            Some([base, power]) if graph.constant_float(power) == Some(2.0) => base,
            _ => {
                let [a, b] = binary(graph, index, square, B::Mul)?;
                (a == b).then_some(a)?
            }
        },
    };
    let centred = |value: ValueId| {
        let [x, mean] = binary(graph, index, value, B::Sub)?;
        (row_mean(graph, index, shapes, mean)? == x).then_some(x)
    };
    let x = centred(difference)?;
    (centred(squared)? == x).then_some((x, epsilon))
}

/// The other one of two summands of which one is a number.
fn with_number(graph: &Graph, [a, b]: [ValueId; 2]) -> Option<(ValueId, f32)> {
    match graph.constant_float(b) {
        Some(number) => Some((a, number)),
        None => Some((b, graph.constant_float(a)?)),
    }
}

/// `x factor + (bias - mean(x) factor)`, where the factor is `scale / sqrt(variance + epsilon)`, as TensorFlow's moments and
/// Keras have it. Scale and bias may be missing.
fn folded(
    graph: &Graph,
    index: &Index,
    shapes: &Shapes,
    value: ValueId,
) -> Option<(LayerNorm, Vec<ValueId>)> {
    orders(binary(graph, index, value, B::Add)?).into_iter().find_map(|[scaled, rest]| {
        orders(binary(graph, index, scaled, B::Mul)?).into_iter().find_map(|[x, factor]| {
            let root = |value| unary(graph, index, value, U::Rsqrt);
            let (scale, stabilised) = match root(factor) {
                Some(stabilised) => (None, stabilised),
                None => {
                    let factors = orders(binary(graph, index, factor, B::Mul)?);
                    factors.into_iter().find_map(|[of, scale]| Some((Some(scale), root(of)?)))?
                }
            };
            let (variance, epsilon) = with_number(graph, binary(graph, index, stabilised, B::Add)?)?;
            let squared = row_mean(graph, index, shapes, variance)?;
            let differences = orders(binary(graph, index, squared, B::SquaredDifference)?);
            let [_, mean] = differences
                .into_iter()
                .find(|&[of, mean]| of == x && row_mean(graph, index, shapes, mean) == Some(x))?;
            let bias = bias(graph, index, rest, [mean, factor])?;
            let columns = shapes.dims(x)?.last().copied()??;
            let vector =
                |value: &ValueId| graph.constants.get(value).is_some_and(|tensor| tensor.len() == columns);
            let fits = scale.iter().chain(&bias).all(vector) && (scale.is_some() || bias.is_none());
            let inputs = [x].into_iter().chain(scale).chain(bias).collect();
            fits.then_some((LayerNorm { axis: -1, epsilon, center: true }, inputs))
        })
    })
}

/// Of `bias - mean factor`: the bias, if there is one.
fn bias(
    graph: &Graph,
    index: &Index,
    value: ValueId,
    [mean, factor]: [ValueId; 2],
) -> Option<Option<ValueId>> {
    let product = |value| binary(graph, index, value, B::Mul).map(orders);
    if let Some([bias, taken]) = binary(graph, index, value, B::Sub) {
        return product(taken)?.contains(&[mean, factor]).then_some(Some(bias));
    }
    let negative = |value| {
        product(value).is_some_and(|pairs| {
            pairs.iter().any(|&[a, b]| b == factor && unary(graph, index, a, U::Neg) == Some(mean))
        })
    };
    if negative(value) {
        return Some(None);
    }
    let sums = orders(binary(graph, index, value, B::Add)?);
    sums.into_iter().find_map(|[taken, bias]| negative(taken).then_some(Some(bias)))
}

fn orders([a, b]: [ValueId; 2]) -> [[ValueId; 2]; 2] {
    [[a, b], [b, a]]
}

/// A normalisation followed by a product, then by a sum, with a constant vector of the last axis.
fn with_factor(graph: &Graph, index: &Index, value: ValueId) -> Option<(LayerNorm, Vec<ValueId>)> {
    let attempt = |function: B, inputs_before: usize| {
        let [a, b] = binary(graph, index, value, function)?;
        let (normalised, vector) = if graph.constants.contains_key(&b) { (a, b) } else { (b, a) };
        let node = graph.only_for(index, normalised)?;
        let Op::LayerNorm(norm) = &node.op else { return None };
        let fits =
            graph.constants.get(&vector).is_some_and(|tensor| tensor.shape().len() == 1 && tensor.len() > 1);
        if !fits || norm.axis != -1 || node.inputs.len() != inputs_before {
            return None;
        }
        if let Some(scale) = node.inputs.get(1)
            && graph.constants.get(scale)?.len() != graph.constants.get(&vector)?.len()
        {
            return None;
        }
        Some((norm.clone(), node.inputs.iter().copied().chain([vector]).collect()))
    };
    attempt(B::Mul, 1).or_else(|| attempt(B::Add, 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::passes::edit::testing::{graph, operators_after, wave},
        ops::{binary::Binary, unary::Unary},
    };

    #[test]
    fn the_spelling_of_exporters() {
        for form in 0..2 {
            let before = graph(&[0, 3, 8], |b, x| {
                let mean = Reduce { kind: R::Mean, axes: Some(vec![-1]), keep_dims: true };
                let centre = b.push(mean.clone(), &[x]);
                let difference = b.push(Binary(B::Sub), &[x, centre]);
                let two = b.scalar(2.0);
                let square = match form {
                    0 => b.push(Binary(B::Pow), &[difference, two]),
                    _ => b.push(Unary(U::Square), &[difference]),
                };
                let variance = b.push(mean, &[square]);
                let epsilon = b.scalar(1e-5);
                let sum = b.push(Binary(B::Add), &[variance, epsilon]);
                let normal = if form == 0 {
                    let root = b.push(Unary(U::Sqrt), &[sum]);
                    b.push(Binary(B::Div), &[difference, root])
                } else {
                    let root = b.push(Unary(U::Rsqrt), &[sum]);
                    b.push(Binary(B::Mul), &[root, difference])
                };
                let (scale, bias) = (b.constant(wave(&[8])), b.constant(wave(&[8])));
                let scaled = b.push(Binary(B::Mul), &[normal, scale]);
                b.push(Binary(B::Add), &[scaled, bias])
            });
            let after = operators_after(&before, &wave(&[2, 3, 8]), find_layer_norms);
            assert_eq!(after, ["LayerNorm"]);
        }
    }

    #[test]
    fn the_spelling_of_keras_and_of_moments() {
        for (form, scaled) in [(0, true), (1, true), (0, false)] {
            let before = graph(&[0, 3, 8], |b, x| {
                let mean = Reduce { kind: R::Mean, axes: Some(vec![-1]), keep_dims: true };
                let centre = b.push(mean.clone(), &[x]);
                let squared = b.push(Binary(B::SquaredDifference), &[x, centre]);
                let variance = b.push(mean, &[squared]);
                let epsilon = b.scalar(1e-3);
                let sum = b.push(Binary(B::Add), &[variance, epsilon]);
                let mut factor = b.push(Unary(U::Rsqrt), &[sum]);
                let (scale, bias) = (b.constant(wave(&[1, 1, 8])), b.constant(wave(&[8])));
                if scaled {
                    factor = b.push(Binary(B::Mul), &[factor, scale]);
                }
                let mut shift = match form {
                    0 => {
                        let negative = b.push(Unary(U::Neg), &[centre]);
                        b.push(Binary(B::Mul), &[negative, factor])
                    }
                    _ => b.push(Binary(B::Mul), &[centre, factor]),
                };
                if form == 1 {
                    shift = b.push(Binary(B::Sub), &[bias, shift]);
                } else if scaled {
                    shift = b.push(Binary(B::Add), &[shift, bias]);
                }
                let product = b.push(Binary(B::Mul), &[x, factor]);
                b.push(Binary(B::Add), &[product, shift])
            });
            let after = operators_after(&before, &wave(&[2, 3, 8]), find_layer_norms);
            assert_eq!(after, ["LayerNorm"], "{form} {scaled}");
        }
    }
}
