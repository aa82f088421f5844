//! What a graph will take, before any of it is taken: a plan is made whose weights are not packed.

use super::{
    Graph, GraphError, ValueId,
    evaluate::Machine,
    plan::{End, plan},
};
use crate::{
    ops::{Fact, Op, PackCache},
    tensor::{Shape, Tensor},
};
use std::collections::BTreeSet;

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Weights, rearranged for the kernels.
    pub packed: usize,
    /// Constants that runs read as they are.
    pub kept: usize,
    /// What one run works in, with its outputs.
    pub run: usize,
    /// What packing the largest weight takes besides, for a moment.
    pub packing: usize,
    /// False where shapes depend on data, so that only a run tells what the rest of it takes.
    pub complete: bool,
}

impl Estimate {
    /// What stays in memory between runs.
    pub fn held(&self) -> usize {
        self.packed.saturating_add(self.kept)
    }

    /// The most that there is at a time, with one run.
    pub fn total(&self) -> usize {
        self.held().saturating_add(self.run.max(self.packing))
    }
}

/// As [`super::Cpu::estimate`], of a graph after all passes.
pub(super) fn estimate(
    graph: &Graph,
    machine: &Machine<'_>,
    shapes: &[Shape],
) -> Result<Estimate, GraphError> {
    if shapes.len() != graph.inputs.len() {
        return Err(GraphError::InputCount { expected: graph.inputs.len(), found: shapes.len() });
    }
    let packs = PackCache::estimating();
    let facts =
        |(input, shape): (&super::Input, &Shape)| (input.value, Fact::new(input.dtype, shape.clone()));
    let plan = plan(graph, machine, &packs, 0, graph.inputs.iter().zip(shapes).map(facts).collect(), &[])?;
    let bytes = |number: usize| graph.constants.get(&ValueId(number)).map_or(0, Tensor::memory);
    let mut estimate =
        Estimate { run: plan.bytes(), complete: matches!(plan.end, End::Finished), ..Estimate::default() };
    let mut packed = BTreeSet::new();
    for numbers in packs.asked() {
        let source: usize = numbers.iter().map(|&number| bytes(number)).sum();
        estimate.packed += source;
        estimate.packing = estimate.packing.max(source);
        packed.extend(numbers);
    }
    let later = |node: &super::Node| {
        // A plan that ends early has not asked for the weights after its end; they are packed once, too.
        matches!(
            node.op,
            Op::Conv(_) | Op::MatMul(_) | Op::Recurrent(_) | Op::QuantizedConv(_) | Op::QuantizedMatMul(_)
        )
    };
    if !estimate.complete {
        for value in graph.nodes.iter().filter(|node| later(node)).flat_map(|node| &node.inputs) {
            if graph.constants.contains_key(value) && packed.insert(value.0) {
                estimate.packed += bytes(value.0);
                estimate.packing = estimate.packing.max(bytes(value.0));
            }
        }
    }
    // Rows of a mapped table are read where they stand.
    let looked_up: BTreeSet<ValueId> = graph
        .nodes
        .iter()
        .filter(|node| matches!(node.op, Op::Gather(_)))
        .flat_map(|node| node.inputs.first())
        .copied()
        .collect();
    estimate.kept = graph
        .constants
        .iter()
        .filter(|(value, tensor)| {
            let mapped = tensor.buffer().is_some_and(|buffer| buffer.is_mapped());
            !(packed.contains(&value.0) || mapped && looked_up.contains(value))
        })
        .map(|(_, tensor)| tensor.memory())
        .sum();
    Ok(estimate)
}
