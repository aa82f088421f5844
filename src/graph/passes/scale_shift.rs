//! Products and sums with constants per channel that nothing before them took in, and the activation after them, become one
//! walk over the memory: networks that normalise before their convolutions, and images that are normalised at the input.

use super::{affine::per_channel, edit::Index, epilogue::worth, shapes::Shapes};
use crate::{
    graph::{Graph, Node, ValueId, evaluate::Machine},
    kernels::Binary as B,
    ops::{Op, scale_shift::ScaleShift},
    tensor::{DType, Tensor},
};

/// The same graph with [`ScaleShift`] in place of two or more operators each.
pub(super) fn join_scale_shift(mut graph: Graph, machine: &Machine<'_>) -> Graph {
    let mut index = Index::of(&graph);
    let could = |node: &Node| {
        matches!(node.op, Op::Binary(_) | Op::Unary(_))
            && node
                .inputs
                .iter()
                .any(|&x| graph.only_for(&index, x).is_some_and(|node| with_constant(&graph, node)))
    };
    if !graph.nodes.iter().any(could) {
        return graph;
    }
    let shapes = Shapes::of(&graph, machine);
    for position in 0..graph.nodes.len() {
        let Some(Joined { x, scale, shift, op }) = join(&graph, &index, &shapes, position) else { continue };
        let channels = scale.len();
        let [Ok(scale), Ok(shift)] = [scale, shift].map(|values| Tensor::from_slice([channels], &values))
        else {
            continue;
        };
        let inputs = vec![x, graph.new_constant(scale), graph.new_constant(shift)];
        graph.replace(&mut index, position, op, inputs);
    }
    graph
}

fn with_constant(graph: &Graph, node: &Node) -> bool {
    matches!(node.op, Op::Binary(_)) && node.inputs.iter().any(|input| graph.constants.contains_key(input))
}

struct Joined {
    x: ValueId,
    scale: Vec<f32>,
    shift: Vec<f32>,
    op: ScaleShift,
}

/// A value times a factor plus a summand for each of its channels, or one for all.
struct Line {
    x: ValueId,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

fn join(graph: &Graph, index: &Index, shapes: &Shapes, position: usize) -> Option<Joined> {
    let node = &graph.nodes[position];
    if let (Op::Unary(unary), &[x]) = (&node.op, node.inputs.as_slice()) {
        let Line { x, scale, shift } =
            line(graph, index, shapes, graph.only_for(index, x)?).filter(|_| worth(unary.0))?;
        return Some(Joined { x, scale, shift, op: ScaleShift { activation: Some(unary.0) } });
    }
    let Line { x, scale, shift } =
        line(graph, index, shapes, node).filter(|_| matches!(node.op, Op::Binary(_)))?;
    let before = line(graph, index, shapes, graph.only_for(index, x)?)?;
    // One number is that of every channel.
    let channels = scale.len().max(before.scale.len());
    let of = |values: &[f32], channel: usize| values.get(channel).or(values.first()).copied().unwrap_or(0.0);
    let shift = (0..channels).map(|at| of(&before.shift, at) * of(&scale, at) + of(&shift, at)).collect();
    let scale = (0..channels).map(|at| of(&before.scale, at) * of(&scale, at)).collect();
    Some(Joined { x: before.x, scale, shift, op: ScaleShift { activation: None } })
}

/// What a node computes, when it is such a line.
fn line(graph: &Graph, index: &Index, shapes: &Shapes, node: &Node) -> Option<Line> {
    let vector = |value: ValueId| Some(graph.constants.get(&value)?.as_slice::<f32>().ok()?.to_vec());
    match (&node.op, node.inputs.as_slice()) {
        (Op::ScaleShift(ScaleShift { activation: None }), &[x, scale, shift]) => {
            Some(Line { x, scale: vector(scale)?, shift: vector(shift)? })
        }
        (Op::Binary(function), &[a, b]) => {
            let (x, constant, turned) =
                if graph.constants.contains_key(&b) { (a, b, false) } else { (b, a, true) };
            let &[output] = node.outputs.as_slice() else { return None };
            let (dims, fits) = (shapes.dims(x)?, shapes.dtype(x) == Some(DType::F32));
            // The constant must not make the value larger.
            if !fits || !shapes.same(x, output) {
                return None;
            }
            // Who calls need not keep to the declared shape, so a number stays one.
            let values = match graph.constant_float(constant) {
                Some(value) => vec![value],
                None => {
                    let tensor = graph.constants.get(&constant).filter(|tensor| tensor.len() > 1)?;
                    let known = tensor.shape().len() <= 1 || index.producer(x).is_some();
                    per_channel(tensor, dims.last().copied().flatten()?).filter(|_| known)?
                }
            };
            let all = |value: f32| vec![value; values.len()];
            let negated = || values.iter().map(|value| -value).collect();
            let (scale, shift) = match (function.0, turned) {
                (B::Mul, _) => (values.clone(), all(0.0)),
                (B::Add, _) => (all(1.0), values.clone()),
                (B::Sub, false) => (all(1.0), negated()),
                (B::Sub, true) => (all(-1.0), values.clone()),
                (B::Div, false) if values.iter().all(|&value| value != 0.0) => {
                    (values.iter().map(|value| value.recip()).collect(), all(0.0))
                }
                _ => return None,
            };
            let finite = scale.iter().chain(&shift).all(|value: &f32| value.is_finite());
            finite.then_some(Line { x, scale, shift })
        }
        _ => None,
    }
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
        ops::{binary::Binary, unary::Unary},
    };

    fn after(shape: &[usize], make: impl Fn(&mut Builder, ValueId) -> ValueId) -> Vec<&'static str> {
        operators_after(&graph(shape, make), &wave(&[2, 3, 5]), join_scale_shift)
    }

    fn with(b: &mut Builder, function: B, x: ValueId, constant: &[usize], turned: bool) -> ValueId {
        let c = b.constant(wave(constant));
        b.push(Binary(function), &if turned { [c, x] } else { [x, c] })
    }

    #[test]
    fn normalisation_and_activation_are_one_walk() {
        let operators = after(&[0, 3, 5], |b, x| {
            let x = with(b, B::Sub, x, &[5], false);
            let x = with(b, B::Div, x, &[1], false);
            let x = with(b, B::Mul, x, &[1, 5], true);
            let x = with(b, B::Add, x, &[1, 1, 5], false);
            let x = with(b, B::Sub, x, &[5], true);
            b.push(Unary(U::Relu), &[x])
        });
        assert_eq!(operators, ["ScaleShift"]);
    }

    #[test]
    fn numbers_fit_every_shape() {
        let made = graph(&[0, 1], |b, x| {
            let x = with(b, B::Mul, x, &[1], false);
            let x = with(b, B::Add, x, &[], false);
            b.push(Unary(U::Relu), &[x])
        });
        assert_eq!(operators_after(&made, &wave(&[7]), join_scale_shift), ["ScaleShift"]);
    }

    #[test]
    fn other_functions_and_readers_stay() {
        // A single product is left as it is; a constant over lines is not one over channels; a value that is read twice is made.
        assert_eq!(after(&[0, 3, 5], |b, x| with(b, B::Mul, x, &[5], false)), ["Binary"]);
        let lines = after(&[0, 3, 5], |b, x| {
            let x = with(b, B::Mul, x, &[3, 1], false);
            b.push(Unary(U::Relu), &[x])
        });
        assert_eq!(lines, ["Binary", "Unary"]);
        let read_twice = after(&[0, 3, 5], |b, x| {
            let x = with(b, B::Mul, x, &[5], false);
            let y = b.push(Unary(U::Relu), &[x]);
            b.push(Binary(B::Add), &[x, y])
        });
        assert_eq!(read_twice, ["Binary", "Unary", "Binary"]);
        let larger = after(&[0, 3, 5], |b, x| {
            let x = with(b, B::Add, x, &[2, 1, 1, 5], false);
            b.push(Unary(U::Relu), &[x])
        });
        assert_eq!(larger, ["Binary", "Unary"]);
        let other = after(&[0, 3, 5], |b, x| {
            let x = with(b, B::Mul, x, &[5], false);
            b.push(Unary(U::Exp), &[x])
        });
        assert_eq!(other, ["Binary", "Unary"]);
    }
}
