//! Planning: a graph and concrete input shapes become a list of steps over planned memory.
//!
//! Shapes are followed from node to node. What depends on shapes and constants only is computed
//! here and costs nothing at run time. Where the shape of a value depends on data, the plan ends;
//! the rest is planned when a run knows the facts, and cached behind the plan it follows
//! ([`End::Continue`]).

use super::{
    Graph, GraphError, Node, ValueId,
    arena::{Lifetime, place},
    evaluate::{Machine, evaluate},
    run::Memory,
};
use crate::{
    maps::Ordered,
    ops::{Fact, Inferred, Lower, OpError, Operator, PackCache, Run, Source, Step, StepShapes},
    tensor::{
        DType, Shape, Tensor, TensorError,
        buffer::{Region, StepRegions, recycle},
    },
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Values computed while planning are kept in the plan up to this many elements; larger ones are
/// computed by each run, in memory that is reused.
const MAX_FOLDED_ELEMENTS: usize = 4096;
/// Plans kept per starting point.
const MAX_CACHED_PLANS: usize = 16;

/// A straight run of steps for inputs of fixed facts.
pub(super) struct Plan {
    pub(super) inputs: Vec<(ValueId, Fact)>,
    /// The tensors of a run: inputs first, then constants (present) and outputs of tensor steps.
    pub(super) tensors: Vec<Option<Tensor>>,
    pub(super) steps: Vec<PlannedStep>,
    /// What each step was planned for, for profiles.
    pub(super) shapes: Vec<StepShapes>,
    pub(super) blocks: Vec<usize>,
    pub(super) results: Vec<PlannedResult>,
    pub(super) end: End,
    /// Memory of finished runs, for the next ones.
    pub(super) idle: Mutex<Vec<Memory>>,
    last_used: AtomicU64,
}

impl Plan {
    /// Bytes that a run works in.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().copied().fold(0, usize::saturating_add)
    }
}

/// What follows the last step.
pub(super) enum End {
    /// The results are the graph's outputs.
    Finished,
    /// The results are the values `carried`; go on at `node`, where the values of `needed` count.
    Continue {
        node: usize,
        carried: Vec<ValueId>,
        needed: Vec<ValueId>,
        known: Vec<(ValueId, Tensor)>,
        plans: Plans,
    },
}

/// A step with its memory.
pub(super) enum PlannedStep {
    Arena { node: usize, step: Step, sources: Vec<Source>, regions: StepRegions },
    Tensors { node: usize, step: Step, inputs: Vec<TensorSource>, outputs: Vec<(usize, Option<Fact>)> },
}

/// Where a tensor step finds an input.
pub(super) enum TensorSource {
    Tensor { index: usize, shape: Shape },
    Region { region: Region, dtype: DType, shape: Shape },
}

/// Where a result stands after the last step. Where only the run tells the shape, the tensor has it.
pub(super) enum PlannedResult {
    Tensor { index: usize, shape: Option<Shape> },
    Block { block: usize, dtype: DType, shape: Shape },
}

/// Plans for one starting point, by the facts of the inputs.
#[derive(Default)]
pub(super) struct Plans {
    cached: RwLock<Vec<Arc<Plan>>>,
    clock: AtomicU64,
}

impl Plans {
    /// The plan whose inputs have these shapes, dtypes and known values.
    pub(super) fn find(&self, matches: impl Fn(&Plan) -> bool) -> Option<Arc<Plan>> {
        let cached = self.cached.read().unwrap_or_else(PoisonError::into_inner);
        let plan = cached.iter().find(|plan| matches(plan))?;
        plan.last_used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(plan.clone())
    }

    /// Keeps a plan; the one not used for the longest time makes room.
    pub(super) fn keep(&self, plan: Plan) -> Arc<Plan> {
        plan.last_used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let plan = Arc::new(plan);
        let mut cached = self.cached.write().unwrap_or_else(PoisonError::into_inner);
        if cached.len() >= MAX_CACHED_PLANS
            && let Some(oldest) =
                (0..cached.len()).min_by_key(|&index| cached[index].last_used.load(Ordering::Relaxed))
        {
            cached.swap_remove(oldest);
        }
        cached.push(plan.clone());
        plan
    }
}

/// Plans from node `start` on, for live values with these facts.
pub(super) fn plan(
    graph: &Graph,
    machine: &Machine<'_>,
    packs: &PackCache,
    start: usize,
    inputs: Vec<(ValueId, Fact)>,
    known: &[(ValueId, Tensor)],
) -> Result<Plan, GraphError> {
    let mut facts = Facts { graph, computed: BTreeMap::new() };
    for (value, fact) in &inputs {
        facts.computed.insert(*value, fact.clone());
    }
    for (value, tensor) in known {
        facts.computed.insert(*value, Fact::known(tensor.clone()));
    }
    let Traced { nodes, next, needed } = trace(graph, machine, &mut facts, start)?;
    let results = match next {
        None => graph.outputs.iter().map(|(_, value)| *value).collect(),
        Some(next) => carried(graph, &facts, next, &needed),
    };
    let nodes = drop_unused(graph, nodes, &results);
    let (results, known_on): (Vec<ValueId>, Vec<ValueId>) = match next {
        None => (results, Vec::new()),
        Some(_) => results.into_iter().partition(|value| facts.value(*value).is_none()),
    };
    let mut layout = Layout::new(&inputs);
    let lowered = lower(graph, machine, packs, &facts, nodes, &mut layout)?;
    layout.check_memory(graph, &lowered, machine.memory_limit)?;
    let known_on = known_on
        .into_iter()
        .filter(|value| !graph.constants.contains_key(value))
        .filter_map(|value| Some((value, facts.value(value)?.clone())))
        .collect();
    let end = match next {
        None => End::Finished,
        Some(node) => {
            End::Continue { node, carried: results.clone(), needed, known: known_on, plans: Plans::default() }
        }
    };
    layout.assemble(inputs, lowered, &results, &facts, end)
}

/// What is known of the values met so far.
pub(super) struct Facts<'a> {
    pub(super) graph: &'a Graph,
    pub(super) computed: BTreeMap<ValueId, Fact>,
}

impl Facts<'_> {
    fn get(&self, value: ValueId) -> Result<Fact, GraphError> {
        if let Some(fact) = self.computed.get(&value) {
            return Ok(fact.clone());
        }
        match self.graph.constants.get(&value) {
            // What is computed for lowering one node goes with that node's facts.
            Some(tensor) => Ok(Fact::known(tensor.fresh())),
            None => Err(GraphError::Undefined(value.0)),
        }
    }

    fn value(&self, value: ValueId) -> Option<&Tensor> {
        match self.computed.get(&value) {
            Some(fact) => fact.value.as_ref(),
            None => self.graph.constants.get(&value),
        }
    }
}

/// A node to be lowered.
pub(super) struct TracedNode {
    pub(super) index: usize,
    pub(super) inputs: Vec<Fact>,
    /// `None` where only the run tells.
    pub(super) outputs: Option<Vec<Fact>>,
}

/// The nodes up to where shapes depend on data: at node `next`, where the values of `needed` count.
pub(super) struct Traced {
    pub(super) nodes: Vec<TracedNode>,
    pub(super) next: Option<usize>,
    pub(super) needed: Vec<ValueId>,
}

/// Follows shapes from node `start` on; what depends on shapes alone is computed.
pub(super) fn trace(
    graph: &Graph,
    machine: &Machine<'_>,
    facts: &mut Facts<'_>,
    start: usize,
) -> Result<Traced, GraphError> {
    let mut nodes = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate().skip(start) {
        let inputs: Vec<Fact> =
            node.inputs.iter().map(|&value| facts.get(value)).collect::<Result<_, _>>()?;
        let failed = |source| node_error(node, source);
        let inferred = node.op.infer(&inputs).map_err(failed)?;
        if let Some(tensors) = fold(machine, node, &inputs, &inferred).map_err(failed)? {
            for (&value, tensor) in node.outputs.iter().zip(tensors) {
                facts.computed.insert(value, Fact::known(tensor));
            }
            continue;
        }
        match inferred {
            Inferred::Facts(outputs) => {
                if outputs.len() < node.outputs.len() {
                    return Err(failed(OpError::invalid(format!(
                        "has {} outputs, but {} are used",
                        outputs.len(),
                        node.outputs.len()
                    ))));
                }
                let found = outputs.iter().all(|fact| fact.value.is_some()) && !node.op.stateful();
                for (&value, fact) in node.outputs.iter().zip(&outputs) {
                    facts.computed.insert(value, fact.clone());
                }
                if !found {
                    nodes.push(TracedNode { index, inputs, outputs: Some(outputs) });
                }
            }
            Inferred::AtRun => {
                nodes.push(TracedNode { index, inputs, outputs: None });
                if index + 1 < graph.nodes.len() {
                    return Ok(Traced { nodes, next: Some(index + 1), needed: Vec::new() });
                }
            }
            Inferred::NeedsValue(input) => {
                let value = node.inputs.get(input).copied();
                let value =
                    value.ok_or_else(|| failed(OpError::invalid(format!("input {input} is missing"))))?;
                return Ok(Traced { nodes, next: Some(index), needed: vec![value] });
            }
        }
    }
    Ok(Traced { nodes, next: None, needed: Vec::new() })
}

/// The outputs of a node that depends on nothing unknown, when they are small.
fn fold(
    machine: &Machine<'_>,
    node: &Node,
    inputs: &[Fact],
    inferred: &Inferred,
) -> Result<Option<Vec<Tensor>>, OpError> {
    if node.op.stateful() {
        return Ok(None);
    }
    let Some(tensors) = inputs.iter().map(|fact| fact.value.clone()).collect::<Option<Vec<Tensor>>>() else {
        return Ok(None);
    };
    let small = match inferred {
        Inferred::Facts(facts) => facts.iter().all(|fact| fact.elements() <= MAX_FOLDED_ELEMENTS),
        Inferred::AtRun => tensors.iter().all(|tensor| tensor.len() <= MAX_FOLDED_ELEMENTS),
        Inferred::NeedsValue(_) => false,
    };
    if !small {
        return Ok(None);
    }
    match evaluate(machine, &node.op, &tensors) {
        Err(OpError::Deadline) => Ok(None),
        evaluated => evaluated.map(Some),
    }
}

/// Values that are alive before node `next`: computed or given so far and used later.
fn carried(graph: &Graph, facts: &Facts<'_>, next: usize, needed: &[ValueId]) -> Vec<ValueId> {
    let used = graph.nodes[next..]
        .iter()
        .flat_map(|node| &node.inputs)
        .chain(graph.outputs.iter().map(|(_, value)| value))
        .chain(needed)
        .copied()
        .into_set();
    let made_later = graph.nodes[next..].iter().flat_map(|node| &node.outputs).copied().into_set();
    used.into_iter()
        .filter(|value| !made_later.contains(value))
        .filter(|value| facts.computed.contains_key(value) || !graph.constants.contains_key(value))
        .collect()
}

fn drop_unused(graph: &Graph, nodes: Vec<TracedNode>, results: &[ValueId]) -> Vec<TracedNode> {
    let mut needed = results.iter().copied().into_set();
    let mut kept: Vec<TracedNode> = Vec::with_capacity(nodes.len());
    for traced in nodes.into_iter().rev() {
        let node = &graph.nodes[traced.index];
        if node.op.stateful() || node.outputs.iter().any(|value| needed.contains(value)) {
            needed.extend(node.inputs.iter().copied());
            kept.push(traced);
        }
    }
    kept.reverse();
    kept
}

/// Where a value is stored.
#[derive(Clone, Copy)]
enum Place {
    Tensor(usize),
    Span(usize),
}

struct Lowered {
    node: usize,
    step: Step,
    shapes: StepShapes,
    inputs: Vec<(Place, Fact)>,
    outputs: Vec<(Place, Option<Fact>)>,
}

/// Storage of values while steps are laid out.
struct Layout {
    tensors: Vec<Option<Tensor>>,
    places: BTreeMap<ValueId, Place>,
    spans: Vec<Lifetime>,
}

impl Layout {
    fn new(inputs: &[(ValueId, Fact)]) -> Self {
        let places = inputs.iter().enumerate().map(|(index, (value, _))| (*value, Place::Tensor(index)));
        Self { tensors: vec![None; inputs.len()], places: places.collect(), spans: Vec::new() }
    }

    fn tensor(&mut self, tensor: Option<Tensor>) -> Place {
        self.tensors.push(tensor);
        Place::Tensor(self.tensors.len() - 1)
    }

    /// The place of a value, used at `step`.
    fn locate(&mut self, value: ValueId, facts: &Facts<'_>, step: usize) -> Result<Place, GraphError> {
        let place = match (self.places.get(&value), facts.value(value)) {
            (Some(place), _) => *place,
            (None, Some(tensor)) => {
                let place = self.tensor(Some(tensor.clone()));
                self.places.insert(value, place);
                place
            }
            (None, None) => return Err(GraphError::Undefined(value.0)),
        };
        if let Place::Span(span) = place {
            self.spans[span].last = self.spans[span].last.max(step);
        }
        Ok(place)
    }

    fn span(&mut self, bytes: usize, step: usize) -> Place {
        self.spans.push(Lifetime { bytes, first: step, last: step });
        Place::Span(self.spans.len() - 1)
    }

    /// Fails when everything that the steps make and use needs more than `limit` bytes even with memory
    /// shared: when the values alive at one step do.
    fn check_memory(&self, graph: &Graph, lowered: &[Lowered], limit: usize) -> Result<(), GraphError> {
        let mut changes = vec![0i128; lowered.len() + 2];
        for span in &self.spans {
            changes[span.first] += span.bytes as i128;
            changes[span.last + 1] -= span.bytes as i128;
        }
        let (mut alive, mut needed) = (0i128, 0i128);
        let mut largest = (0usize, 0usize);
        for (step, lowered) in lowered.iter().enumerate() {
            alive += changes[step];
            let tensors = lowered.outputs.iter().filter(|(place, _)| matches!(place, Place::Tensor(_)));
            let tensors =
                tensors.filter_map(|(_, fact)| fact.as_ref()).map(bytes_of).fold(0, usize::saturating_add);
            let own = lowered.step.scratch.saturating_add(tensors);
            needed = needed.max(alive + own as i128);
            let written = lowered.outputs.iter().filter_map(|(_, fact)| fact.as_ref()).map(bytes_of);
            let written = written.fold(lowered.step.scratch, usize::saturating_add);
            if written > largest.0 {
                largest = (written, lowered.node);
            }
        }
        if needed <= limit as i128 {
            return Ok(());
        }
        Err(GraphError::TooMuchMemory {
            needed: usize::try_from(needed).unwrap_or(usize::MAX),
            limit,
            node: graph.nodes.get(largest.1).map(|node| node.name.clone()).unwrap_or_default(),
            largest: largest.0,
        })
    }

    fn assemble(
        mut self,
        inputs: Vec<(ValueId, Fact)>,
        mut lowered: Vec<Lowered>,
        results: &[ValueId],
        facts: &Facts<'_>,
        end: End,
    ) -> Result<Plan, GraphError> {
        let last = lowered.len();
        let result_places: Vec<Place> =
            results.iter().map(|&value| self.locate(value, facts, last)).collect::<Result<_, _>>()?;
        // Results leave in blocks of their own, everything else shares block 0.
        let mut blocks = vec![0];
        let mut block_of: BTreeMap<usize, usize> = BTreeMap::new();
        for place in &result_places {
            if let Place::Span(span) = place {
                block_of.entry(*span).or_insert_with(|| {
                    blocks.push(self.spans[*span].bytes);
                    blocks.len() - 1
                });
            }
        }
        let scratch_base = self.spans.len();
        let mut arena_spans = self.spans.clone();
        for span in block_of.keys() {
            arena_spans[*span].bytes = 0;
        }
        for (index, step) in lowered.iter().enumerate() {
            arena_spans.push(Lifetime { bytes: step.step.scratch, first: index, last: index });
        }
        let (offsets, arena) = place(&arena_spans);
        blocks[0] = arena;
        let region = |span: usize| match block_of.get(&span) {
            Some(&block) => Region { block, offset: 0, len: self.spans[span].bytes },
            None => Region { block: 0, offset: offsets[span], len: arena_spans[span].bytes },
        };
        let shapes = lowered.iter_mut().map(|lowered| std::mem::take(&mut lowered.shapes)).collect();
        let steps = lowered
            .into_iter()
            .enumerate()
            .map(|(index, lowered)| planned(lowered, &blocks, region, scratch_base + index))
            .collect::<Result<Vec<_>, TensorError>>()?;
        let results = results
            .iter()
            .zip(result_places)
            .map(|(&value, place)| {
                let fact = facts.get(value);
                match place {
                    Place::Tensor(index) => {
                        Ok(PlannedResult::Tensor { index, shape: fact.ok().map(|fact| fact.shape) })
                    }
                    Place::Span(span) => {
                        let Fact { dtype, shape, .. } = fact?;
                        let block = region(span).block;
                        Ok(PlannedResult::Block { block, dtype, shape })
                    }
                }
            })
            .collect::<Result<Vec<_>, GraphError>>()?;
        Ok(Plan {
            inputs,
            tensors: self.tensors,
            steps,
            shapes,
            blocks,
            results,
            end,
            idle: Mutex::default(),
            last_used: AtomicU64::new(0),
        })
    }
}

/// Bytes of a value; strings count as their headers.
pub(super) fn bytes_of(fact: &Fact) -> usize {
    fact.elements().saturating_mul(fact.dtype.size().unwrap_or(size_of::<crate::tensor::Bytes>()))
}

fn lower(
    graph: &Graph,
    machine: &Machine<'_>,
    packs: &PackCache,
    facts: &Facts<'_>,
    nodes: Vec<TracedNode>,
    layout: &mut Layout,
) -> Result<Vec<Lowered>, GraphError> {
    let _recycling = recycle();
    let mut lowered = Vec::with_capacity(nodes.len());
    for traced in nodes {
        let node = &graph.nodes[traced.index];
        let outputs = traced.outputs.as_deref().unwrap_or_default();
        let constants: Vec<Option<usize>> =
            node.inputs.iter().map(|value| graph.constants.contains_key(value).then_some(value.0)).collect();
        let cx = Lower {
            inputs: &traced.inputs,
            outputs,
            kernels: machine.kernels,
            threads: machine.threads,
            packs,
            constants: &constants,
        };
        let step = match node.op.lower(&cx) {
            Err(OpError::Estimate) => Step::arena(|_| Err(OpError::Estimate)),
            lowered => lowered.map_err(|source| node_error(node, source))?,
        };
        let index = lowered.len();
        if let (Run::Alias, [source, ..]) = (&step.run, node.inputs.as_slice()) {
            let place = layout.locate(*source, facts, index)?;
            for output in &node.outputs {
                layout.places.insert(*output, place);
            }
            continue;
        }
        let mut inputs = Vec::with_capacity(node.inputs.len());
        let shapes = StepShapes::new(&traced.inputs, outputs);
        for (&value, fact) in node.inputs.iter().zip(traced.inputs) {
            inputs.push((layout.locate(value, facts, index)?, Fact::new(fact.dtype, fact.shape)));
        }
        let mut places = Vec::with_capacity(node.outputs.len());
        for (position, &value) in node.outputs.iter().enumerate() {
            let fact = outputs.get(position);
            let place = match (&step.run, fact) {
                (Run::Arena(_), Some(fact)) => {
                    let size = fact.dtype.size().ok_or(TensorError::TooLarge(fact.shape.clone()))?;
                    let bytes = fact.shape.checked_elements().and_then(|elements| elements.checked_mul(size));
                    layout.span(bytes.ok_or_else(|| TensorError::TooLarge(fact.shape.clone()))?, index)
                }
                _ => layout.tensor(None),
            };
            layout.places.insert(value, place);
            places.push((place, fact.cloned()));
        }
        lowered.push(Lowered { node: traced.index, step, shapes, inputs, outputs: places });
    }
    Ok(lowered)
}

fn planned(
    lowered: Lowered,
    blocks: &[usize],
    region: impl Fn(usize) -> Region,
    scratch: usize,
) -> Result<PlannedStep, TensorError> {
    let Lowered { node, step, inputs, outputs, shapes: _ } = lowered;
    if let Run::Arena(_) = step.run {
        let mut regions: Vec<Region> = Vec::new();
        let sources = inputs
            .iter()
            .map(|(place, _)| match place {
                Place::Tensor(index) => Source::Tensor(*index),
                Place::Span(span) => {
                    regions.push(region(*span));
                    Source::Region(regions.len() - 1)
                }
            })
            .collect();
        let written = outputs.iter().filter_map(|(place, _)| match place {
            Place::Span(span) => Some(region(*span)),
            Place::Tensor(_) => None,
        });
        let regions = StepRegions::new(blocks, regions, written.collect(), region(scratch))?;
        return Ok(PlannedStep::Arena { node, step, sources, regions });
    }
    let inputs = inputs
        .into_iter()
        .map(|(place, Fact { dtype, shape, .. })| match place {
            Place::Tensor(index) => TensorSource::Tensor { index, shape },
            Place::Span(span) => TensorSource::Region { region: region(span), dtype, shape },
        })
        .collect();
    let outputs = outputs
        .into_iter()
        .filter_map(|(place, fact)| match place {
            Place::Tensor(index) => Some((index, fact)),
            Place::Span(_) => None,
        })
        .collect();
    Ok(PlannedStep::Tensors { node, step, inputs, outputs })
}

pub(super) fn node_error(node: &Node, source: OpError) -> GraphError {
    match source {
        OpError::Deadline => return GraphError::Deadline,
        OpError::Cancelled => return GraphError::Cancelled,
        _ => {}
    }
    GraphError::Node { node: node.name.clone(), op: node.op.name(), source }
}
