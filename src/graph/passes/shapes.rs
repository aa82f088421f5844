//! What is known of values before the request: element types, ranks, dimensions.
//!
//! The operators' shape rules want concrete shapes. So open dimensions of the inputs are tried with two sizes: what
//! comes out the same both times does not depend on them.

use crate::{
    graph::{Graph, ValueId, evaluate::Machine, evaluate::evaluate},
    ops::{Fact, Inferred, Operator},
    tensor::{DType, Shape},
};
use std::collections::HashMap;

/// Sizes by axis; those behind the first can be halved five times, for networks that scale down and up again.
const TRIES: [[usize; 5]; 2] = [[2, 352, 416, 160, 96], [3, 224, 288, 480, 128]];
/// Values up to this many elements are computed where shapes depend on them.
const MAX_ELEMENTS: usize = 1024;

/// Facts of the values of a graph, for one try or two.
pub(super) struct Shapes {
    tries: Vec<HashMap<ValueId, Fact>>,
    /// More than one input has open dimensions, so that equal sizes may be chance.
    ambiguous: bool,
}

impl Shapes {
    pub(super) fn of(graph: &Graph, machine: &Machine<'_>) -> Self {
        let open = |dims: &Option<Vec<Option<usize>>>| dims.as_ref().is_none_or(|dims| dims.contains(&None));
        let open = graph.inputs.iter().filter(|input| open(&input.shape)).count();
        let tries = if open == 0 { &TRIES[..1] } else { &TRIES[..] };
        let tries = tries.iter().map(|sizes| follow(graph, machine, sizes)).collect();
        Self { tries, ambiguous: open > 1 }
    }

    fn facts(&self, value: ValueId) -> Option<Vec<&Fact>> {
        self.tries.iter().map(|facts| facts.get(&value)).collect()
    }

    /// The element type.
    pub(super) fn dtype(&self, value: ValueId) -> Option<DType> {
        self.tries.first()?.get(&value).map(|fact| fact.dtype)
    }

    /// The number of dimensions.
    pub(super) fn rank(&self, value: ValueId) -> Option<usize> {
        let facts = self.facts(value)?;
        let rank = facts.first()?.rank();
        facts.iter().all(|fact| fact.rank() == rank).then_some(rank)
    }

    /// The dimensions, `None` for one that depends on the request; `None` altogether for an unknown rank.
    pub(super) fn dims(&self, value: ValueId) -> Option<Vec<Option<usize>>> {
        let facts = self.facts(value)?;
        let rank = self.rank(value)?;
        let dim = |axis: usize| {
            let first = facts.first()?.dims().get(axis).copied()?;
            facts.iter().all(|fact| fact.dims().get(axis) == Some(&first)).then_some(first)
        };
        Some((0..rank).map(dim).collect())
    }

    /// The shapes of all tries, when the rank is known.
    pub(super) fn tried(&self, value: ValueId) -> Option<Vec<Shape>> {
        self.rank(value)?;
        Some(self.facts(value)?.iter().map(|fact| fact.shape.clone()).collect())
    }

    /// Whether two values have the same shape in every run.
    pub(super) fn same(&self, a: ValueId, b: ValueId) -> bool {
        let (Some(a_facts), Some(b_facts)) = (self.facts(a), self.facts(b)) else { return false };
        let equal = a_facts.iter().zip(&b_facts).all(|(a, b)| a.shape == b.shape);
        let known = || self.dims(a).is_some_and(|dims| dims.iter().all(Option::is_some));
        equal && (!self.ambiguous || known())
    }
}

fn follow(graph: &Graph, machine: &Machine<'_>, sizes: &[usize; 5]) -> HashMap<ValueId, Fact> {
    let mut facts: HashMap<ValueId, Fact> =
        graph.constants.iter().map(|(value, tensor)| (*value, Fact::known(tensor.clone()))).collect();
    for input in &graph.inputs {
        let Some(dims) = &input.shape else { continue };
        let dims = dims.iter().enumerate();
        let shape: Shape = dims.map(|(axis, dim)| dim.unwrap_or(sizes[axis.min(sizes.len() - 1)])).collect();
        facts.insert(input.value, Fact::new(input.dtype, shape));
    }
    for node in &graph.nodes {
        let inputs = node.inputs.iter().map(|value| facts.get(value).cloned());
        let Some(inputs) = inputs.collect::<Option<Vec<Fact>>>() else { continue };
        // Sizes that do not fit say nothing about those that will be asked for.
        let Ok(Inferred::Facts(outputs)) = node.op.infer(&inputs) else { continue };
        let small = outputs.iter().all(|fact| fact.elements() <= MAX_ELEMENTS);
        let values = inputs.iter().map(|fact| fact.value.clone()).collect::<Option<Vec<_>>>();
        let computed = match values {
            Some(values) if small && !node.op.stateful() => evaluate(machine, &node.op, &values).ok(),
            _ => None,
        };
        let outputs = match computed {
            Some(tensors) => tensors.into_iter().map(Fact::known).collect(),
            None => outputs,
        };
        facts.extend(node.outputs.iter().copied().zip(outputs));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::{Builder, passes::edit::testing::graph},
        kernels::{Threads, best},
        ops::{
            matmul::MatMul,
            shape::{Reshape, ShapeOf},
        },
    };

    #[test]
    fn dimensions_that_depend_on_the_request_are_open() {
        let made = graph(&[0, 4], |b, x| {
            let w = b.constant(crate::graph::passes::edit::testing::wave(&[4, 6]));
            b.push(MatMul::default(), &[x, w])
        });
        let machine = Machine { kernels: best(), threads: &Threads::single(), memory_limit: usize::MAX };
        let shapes = Shapes::of(&made, &machine);
        let (x, y) = (made.inputs()[0].value, made.outputs()[0].1);
        assert_eq!(shapes.dims(y), Some(vec![None, Some(6)]));
        assert!(!shapes.same(x, y) && shapes.same(x, x));
    }

    #[test]
    fn shapes_are_computed_through_values() {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, Some(vec![None, Some(3)]));
        let y = b.input("y", DType::F32, Some(vec![None, Some(3)]));
        let shape = b.push(ShapeOf { dtype: DType::I64 }, &[x]);
        let z = b.push(Reshape { zero_copies: false }, &[y, shape]);
        let made = b.finish(vec![("z".into(), z)]);
        let machine = Machine { kernels: best(), threads: &Threads::single(), memory_limit: usize::MAX };
        let shapes = Shapes::of(&made, &machine);
        assert_eq!(shapes.rank(z), Some(2));
        assert!(!shapes.same(x, z), "two inputs may differ");
    }
}
