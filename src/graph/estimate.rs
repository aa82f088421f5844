//! What a graph will take, before any of it is taken: a plan is made whose weights are not packed.

use super::{
    Graph, GraphError, ValueId,
    evaluate::Machine,
    plan::{End, bytes_of, plan},
};
use crate::{
    kernels::Kernels,
    maps::Ordered,
    ops::{Fact, Op, PackCache, PackedSize, TIDY_EVERY, left_free, used_in_place},
    tensor::{Buffer, Shape, Tensor, buffer::OWN_PAGES},
};
use std::collections::BTreeSet;

/// Memory in bytes: what a process takes for a graph and one call of it, beside what it takes already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Weights, rearranged for the kernels.
    pub packed: usize,
    /// Constants that runs read as they are.
    pub kept: usize,
    /// What one run works in, with its outputs.
    pub run: usize,
    /// Pages of tables in mapped files that one run looks at.
    pub rows: usize,
    /// The call's inputs, as received and as tensors, and its outputs as they are sent.
    pub exchanged: usize,
    /// What packing takes besides, at the moment when it takes most: the weights as they are stored or computed, and what
    /// was freed after others and not given back yet.
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
        let run = self.run.saturating_add(self.rows).max(self.packing);
        self.held().saturating_add(self.exchanged).saturating_add(run)
    }
}

/// The kernel brings in so many neighbours of a page of a file that is touched.
const FAULT_AROUND: usize = 64 << 10;

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
    let inputs: Vec<(ValueId, Fact)> = graph.inputs.iter().zip(shapes).map(facts).collect();
    let received: usize = inputs.iter().map(|(_, fact)| bytes_of(fact)).fold(0, usize::saturating_add);
    let plan = plan(graph, machine, &packs, 0, inputs, &[])?;
    let sent = plan.blocks.iter().skip(1).copied().fold(0, usize::saturating_add);
    let mut estimate = Estimate {
        run: plan.bytes(),
        exchanged: received.saturating_mul(2).saturating_add(sent),
        complete: matches!(plan.end, End::Finished),
        ..Estimate::default()
    };
    let mut packing = Packing {
        graph,
        kernels: machine.kernels,
        packed: BTreeSet::new(),
        sum: 0,
        handled: 0,
        untidy: 0,
        most: 0,
    };
    for asked in packs.asked() {
        packing.add(&asked.constants, asked.size);
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
            if graph.constants.contains_key(value) && !packing.packed.contains(&value.0) {
                packing.add(&[value.0], PackedSize::Same);
            }
        }
    }
    estimate.packed = packing.sum;
    estimate.packing = packing.most.saturating_sub(packing.sum);
    // Rows of a mapped table are read where they stand.
    let in_file = |tensor: &Tensor| tensor.buffer().is_some_and(Buffer::is_stored_in_file);
    let looked_up = graph
        .nodes
        .iter()
        .filter(|node| matches!(node.op, Op::Gather(_)))
        .filter_map(|node| Some((*node.inputs.first()?, *node.outputs.first()?)))
        .filter(|(table, _)| graph.constants.get(table).is_some_and(in_file))
        .into_map();
    for table in looked_up.keys().filter_map(|table| graph.constants.get(table)) {
        let row = table.memory() / table.shape().first().copied().unwrap_or(1).max(1);
        // One for each number that the call gives is more than there are.
        let rows = shapes.iter().map(Shape::elements).max().unwrap_or(0);
        estimate.rows += table.memory().min(rows.saturating_mul(row.max(1).next_multiple_of(FAULT_AROUND)));
    }
    let kept = graph.constants.iter();
    let kept = kept.filter(|(value, _)| !packing.packed.contains(&value.0) && !looked_up.contains_key(value));
    estimate.kept = kept.map(|(_, tensor)| tensor.memory()).sum();
    Ok(estimate)
}

/// Weights packed one after the other.
struct Packing<'a> {
    graph: &'a Graph,
    kernels: &'a Kernels,
    /// The constants that are packed, by number.
    packed: BTreeSet<usize>,
    /// Bytes of them.
    sum: usize,
    /// Bytes that were packed since free memory was given back.
    handled: usize,
    /// Bytes that are free and not given back.
    untidy: usize,
    /// The most that there is at a time.
    most: usize,
}

impl Packing<'_> {
    fn add(&mut self, numbers: &[usize], size: PackedSize) {
        let (mut besides, mut left) = (0, 0);
        if let PackedSize::Larger(bytes) = size {
            self.sum += bytes;
        }
        for number in numbers {
            let Some(tensor) = self.graph.constants.get(&ValueId(*number)) else { continue };
            if size == PackedSize::Same
                && let Some(bytes) = used_in_place(self.kernels, tensor)
            {
                self.sum += bytes;
                self.packed.insert(*number);
                continue;
            }
            let bytes = tensor.memory();
            self.sum += bytes;
            self.packed.insert(*number);
            let free = left_free(tensor);
            self.handled += bytes.max(free);
            // It is read where it is stored, or computed first. Large blocks go back by themselves.
            besides += if tensor.buffer().is_some_and(Buffer::is_of_file) { bytes.max(free) } else { free };
            left += if bytes < OWN_PAGES { free } else { 0 };
        }
        self.most = self.most.max(self.sum + self.untidy + besides);
        self.untidy += left;
        if self.handled >= TIDY_EVERY {
            (self.untidy, self.handled) = (0, 0);
        }
    }
}
