//! Computes what depends on constants only, once instead of for every plan.

use super::widen::widened;
use crate::ops::Fact;
use crate::{
    graph::{Graph, evaluate::Machine, evaluate::evaluate},
    ops::{Inferred, Op, Operator, layout::Transpose},
    tensor::Tensor,
};

/// Results of all folded nodes together may take this many bytes more than what they were made from; what a graph
/// spells out in a few operators may be huge.
const MAX_GROWTH: usize = 64 << 20;

/// The same graph with constants for nodes whose inputs are constants. Where anything is quantised, dequantised weights
/// stay as they are for the products of bytes.
pub(super) fn fold_constants(graph: Graph, machine: &Machine<'_>) -> Graph {
    let coded = graph.nodes.iter().any(|node| matches!(node.op, Op::Quantize(_)));
    fold(graph, machine, |op| !(coded && matches!(op, Op::Dequantize(_))))
}

/// The same without an exception.
pub(super) fn fold_all_constants(graph: Graph, machine: &Machine<'_>) -> Graph {
    fold(graph, machine, |_| true)
}

fn fold(mut graph: Graph, machine: &Machine<'_>, wanted: impl Fn(&Op) -> bool) -> Graph {
    let mut budget = MAX_GROWTH;
    let nodes = std::mem::take(&mut graph.nodes);
    for node in nodes {
        let inputs = node.inputs.iter().map(|value| graph.constants.get(value).cloned());
        let inputs = inputs.collect::<Option<Vec<Tensor>>>();
        let folded = inputs.filter(|_| may_fold(&node.op) && wanted(&node.op)).and_then(|inputs| {
            let facts: Vec<Fact> = inputs.iter().cloned().map(Fact::known).collect();
            let Ok(Inferred::Facts(outputs)) = node.op.infer(&facts) else { return None };
            let bytes = |fact: &Fact| {
                fact.elements().saturating_mul(fact.dtype.size().unwrap_or(size_of::<Tensor>()))
            };
            let made = outputs.iter().map(bytes).fold(0, usize::saturating_add);
            let grown = made.saturating_sub(inputs.iter().map(Tensor::memory).sum());
            budget = budget.checked_sub(grown)?;
            if let (true, [output]) = (never_fails(&node.op), outputs.as_slice())
                && output.dtype.size().is_some()
            {
                return Some(vec![later(machine, &node.op, inputs, output)?]);
            }
            // What fails here fails when a run needs it, with the node's name.
            evaluate(machine, &node.op, &inputs).ok().filter(|made| made.len() >= node.outputs.len())
        });
        match folded {
            Some(tensors) => graph.constants.extend(node.outputs.iter().copied().zip(tensors)),
            None => graph.nodes.push(node),
        }
    }
    graph
}

/// Operators that work for all inputs that `infer` lets pass.
fn never_fails(op: &Op) -> bool {
    matches!(op, Op::Transpose(_) | Op::Binary(_) | Op::Unary(_) | Op::Cast(_) | Op::Dequantize(_))
}

/// The output of an operator, computed when it is looked at: weights that are about to be packed need not be in memory
/// all at once.
fn later(machine: &Machine<'_>, op: &Op, inputs: Vec<Tensor>, output: &Fact) -> Option<Tensor> {
    let (known, sources, kernels, threads, memory_limit) =
        (op.clone(), inputs.clone(), machine.kernels, machine.threads.clone(), machine.memory_limit);
    let make = move || {
        let (op, inputs) = (&known, sources.iter().map(Tensor::fresh).collect::<Vec<_>>());
        let machine = Machine { kernels, threads: &threads, memory_limit };
        let made = match widened(op, &inputs) {
            Some(made) => Some(made),
            None => evaluate(&machine, op, &inputs).ok()?.into_iter().next(),
        };
        inputs.iter().for_each(Tensor::release);
        made
    };
    match (op, inputs.as_slice()) {
        (Op::Transpose(Transpose { perm }), [source]) => Tensor::reordered(source, perm, make),
        _ => Tensor::computed(output.dtype, output.shape.clone(), make),
    }
}

/// A constant with its axes in another order, put there when it is looked at.
pub(super) fn transposed_later(machine: &Machine<'_>, source: &Tensor, perm: &[usize]) -> Option<Tensor> {
    let op = Op::Transpose(Transpose { perm: perm.to_vec() });
    let Ok(Inferred::Facts(outputs)) = op.infer(&[Fact::known(source.clone())]) else { return None };
    later(machine, &op, vec![source.clone()], outputs.first()?)
}

/// Loops and branches may take long; decoded images and the like are not worth it.
fn may_fold(op: &Op) -> bool {
    !op.stateful()
        && !matches!(
            op,
            Op::If(_) | Op::While(_) | Op::Loop(_) | Op::Scan(_) | Op::DecodeImage(_) | Op::ParseExample(_)
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::passes::edit::testing::{graph, operators_after, wave},
        kernels::{Binary as B, Unary as U},
        ops::{binary::Binary, join::Tile, unary::Unary},
    };

    #[test]
    fn what_depends_on_constants_becomes_one() {
        let before = graph(&[2, 3], |b, x| {
            let w = b.constant(wave(&[3]));
            let w = b.push(Unary(U::Exp), &[w]);
            let w = b.push(Unary(U::Neg), &[w]);
            b.push(Binary(B::Mul), &[x, w])
        });
        assert_eq!(operators_after(&before, &wave(&[2, 3]), fold_constants), ["Binary"]);
    }

    #[test]
    fn huge_results_are_left_to_the_run() {
        let before = graph(&[1], |b, x| {
            let one = b.constant(wave(&[1]));
            let times = b.integers(&[1 << 30]);
            let huge = b.push(Tile, &[one, times]);
            b.push(Binary(B::Add), &[x, huge])
        });
        let threads = crate::kernels::Threads::single();
        let machine =
            Machine { kernels: crate::kernels::best(), threads: &threads, memory_limit: usize::MAX };
        assert_eq!(fold_constants(before, &machine).nodes().len(), 2);
    }
}
