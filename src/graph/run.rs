//! The CPU backend: finds or makes the plan for the inputs' shapes and walks through its steps.

use super::{
    Backend, Graph, GraphError, Node, Program,
    estimate::{Estimate, estimate},
    evaluate::Machine,
    memory::{self, Budget, Reserved},
    passes,
    plan::{End, Plan, PlannedResult, PlannedStep, Plans, TensorSource, node_error, plan},
};
use crate::{
    kernels::{Kernels, Threads},
    ops::{Fact, Io, OpError, Operator, PackCache, Profile, Run, RunContext},
    tensor::{Buffer, Shape, Tensor, TensorError, buffer::Blocks},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Memory of finished runs that a plan keeps for the next ones; more are freed.
const MAX_IDLE_MEMORIES: usize = 32;

/// The hand-written kernels.
pub struct Cpu {
    kernels: &'static Kernels,
    threads: Threads,
    memory_limit: usize,
    budget: Option<Arc<Budget>>,
    optimizing: bool,
}

impl Cpu {
    /// A backend that runs on these threads. A plan may take as much memory as this process can have.
    pub fn new(kernels: &'static Kernels, threads: Threads) -> Self {
        Self { kernels, threads, memory_limit: memory::available(), budget: None, optimizing: true }
    }

    /// The same with a limit on the bytes that the values of one run may take. Inputs of shapes that
    /// need more are answered with [`GraphError::TooMuchMemory`].
    pub fn with_memory_limit(self, bytes: usize) -> Self {
        Self { memory_limit: bytes, ..self }
    }

    /// The same with a budget that the memory of all runs is taken from. A run that finds too little left is answered
    /// with [`GraphError::Exhausted`].
    pub fn with_budget(self, budget: Arc<Budget>) -> Self {
        Self { memory_limit: budget.limit(), budget: Some(budget), ..self }
    }

    /// What a graph will take, for inputs of these shapes in the order of [`Graph::inputs`]. No weights are packed for it.
    ///
    /// # Errors
    /// What is wrong with the graph for inputs of these shapes.
    pub fn estimate(&self, graph: Arc<Graph>, shapes: &[Shape]) -> Result<Estimate, GraphError> {
        let machine =
            Machine { kernels: self.kernels, threads: &self.threads, memory_limit: self.memory_limit };
        let graph = match self.optimizing {
            true => passes::optimize(Arc::unwrap_or_clone(graph), &machine),
            false => Arc::unwrap_or_clone(graph),
        };
        estimate(&graph, &machine, shapes)
    }

    /// The same, running graphs node by node as they were imported: to tell a wrong pass from a wrong kernel.
    pub fn as_imported(self) -> Self {
        Self { optimizing: false, ..self }
    }
}

impl Backend for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn compile(&self, graph: Arc<Graph>) -> Result<Box<dyn Program>, GraphError> {
        let assigns = graph.nodes.iter().any(|node| node.op.assigns());
        let stateful = graph.nodes.iter().any(|node| node.op.stateful());
        let locking = match (assigns, stateful) {
            (true, _) => Locking::Write,
            (false, true) => Locking::Read,
            (false, false) => Locking::None,
        };
        Ok(Box::new(CpuProgram { locking, ..self.body(graph) }))
    }
}

impl Cpu {
    /// The graph as it runs: folded and fused. Compiling the result gives the same program, sooner.
    pub fn fused(&self, graph: Arc<Graph>) -> Graph {
        let threads = &self.threads;
        let machine = Machine { kernels: self.kernels, threads, memory_limit: self.memory_limit };
        passes::optimize(Arc::unwrap_or_clone(graph), &machine)
    }

    /// A program that takes no lock on the variables: the graph around it holds one.
    pub(super) fn body(&self, graph: Arc<Graph>) -> CpuProgram {
        let graph = match self.optimizing {
            true => {
                let threads = &self.threads;
                let machine = Machine { kernels: self.kernels, threads, memory_limit: self.memory_limit };
                Arc::new(passes::optimize(Arc::unwrap_or_clone(graph), &machine))
            }
            false => graph,
        };
        CpuProgram {
            graph,
            kernels: self.kernels,
            threads: self.threads.clone(),
            memory_limit: self.memory_limit,
            budget: self.budget.clone(),
            packs: PackCache::default(),
            plans: Plans::default(),
            locking: Locking::None,
        }
    }
}

/// Options of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions<'a> {
    /// The run ends with [`GraphError::Deadline`] after this moment.
    pub deadline: Option<Instant>,
    /// The run ends with [`GraphError::Cancelled`] once this is set.
    pub cancelled: Option<&'a AtomicBool>,
    /// Takes the time of every step; nothing is measured without it.
    pub profile: Option<&'a Profile>,
}

impl RunOptions<'_> {
    /// Whether a run has to end between two steps.
    pub(super) fn check(&self) -> Result<(), GraphError> {
        if self.cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
            return Err(GraphError::Cancelled);
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(GraphError::Deadline);
        }
        Ok(())
    }
}

/// Memory of one run of one plan.
pub(super) struct Memory {
    blocks: Blocks,
    tensors: Vec<Option<Tensor>>,
    arguments: Vec<Tensor>,
    /// Its part of the budget.
    _reserved: Option<Reserved>,
}

enum Locking {
    None,
    Read,
    Write,
}

/// A graph and its plans.
pub(super) struct CpuProgram {
    graph: Arc<Graph>,
    kernels: &'static Kernels,
    threads: Threads,
    memory_limit: usize,
    budget: Option<Arc<Budget>>,
    packs: PackCache,
    plans: Plans,
    locking: Locking,
}

impl Program for CpuProgram {
    fn prepare(&self, inputs: &[Tensor]) -> Result<(), GraphError> {
        self.graph.check_inputs(inputs)?;
        let _running = self.threads.enter();
        catch_unwind(AssertUnwindSafe(|| self.first_plan(inputs))).unwrap_or(Err(GraphError::Panicked))?;
        Ok(())
    }

    fn run(
        &self,
        inputs: &[Tensor],
        outputs: &mut Vec<Tensor>,
        options: &RunOptions<'_>,
    ) -> Result<(), GraphError> {
        self.graph.check_inputs(inputs)?;
        let _running = self.threads.enter();
        let states = &self.graph.states.runs;
        let (mut reads, mut writes) = (None, None);
        match self.locking {
            Locking::None => {}
            Locking::Read => reads = Some(states.read().unwrap_or_else(PoisonError::into_inner)),
            Locking::Write => writes = Some(states.write().unwrap_or_else(PoisonError::into_inner)),
        }
        // A panic in a kernel is a bug, but it must cost one request only.
        let result = catch_unwind(AssertUnwindSafe(|| self.run_plans(inputs, outputs, options)))
            .unwrap_or(Err(GraphError::Panicked));
        drop((reads.take(), writes.take()));
        result
    }
}

impl CpuProgram {
    /// A run as part of another run.
    pub(super) fn run_body(
        &self,
        inputs: &[Tensor],
        outputs: &mut Vec<Tensor>,
        options: &RunOptions<'_>,
    ) -> Result<(), GraphError> {
        self.graph.check_inputs(inputs)?;
        self.run_plans(inputs, outputs, options)
    }

    /// The plan that runs on inputs of these shapes begin with.
    fn first_plan(&self, inputs: &[Tensor]) -> Result<Arc<Plan>, GraphError> {
        let shapes_match = |plan: &Plan| {
            plan.inputs.iter().zip(inputs).all(|((_, fact), tensor)| fact.shape == *tensor.shape())
        };
        if let Some(plan) = self.plans.find(shapes_match) {
            return Ok(plan);
        }
        let fact = |tensor: &Tensor| Fact::new(tensor.dtype(), tensor.shape().clone());
        let inputs = self.graph.inputs.iter().zip(inputs);
        let facts = inputs.map(|(input, tensor)| (input.value, fact(tensor))).collect();
        Ok(self.plans.keep(self.plan(0, facts, &[])?))
    }

    fn run_plans(
        &self,
        inputs: &[Tensor],
        outputs: &mut Vec<Tensor>,
        options: &RunOptions<'_>,
    ) -> Result<(), GraphError> {
        let mut current = self.first_plan(inputs)?;
        // Only graphs with data-dependent shapes carry values from plan to plan.
        let mut held: Vec<Tensor> = Vec::new();
        loop {
            let given = if held.is_empty() { inputs } else { &held };
            let End::Continue { node, carried, needed, known, plans } = &current.end else {
                return self.run_plan(&current, given, outputs, options);
            };
            let mut results = Vec::with_capacity(carried.len());
            self.run_plan(&current, given, &mut results, options)?;
            let matches = |plan: &Plan| {
                plan.inputs.iter().zip(&results).all(|((_, fact), tensor)| {
                    fact.shape == *tensor.shape() && fact.value.as_ref().is_none_or(|value| value == tensor)
                })
            };
            let next = match plans.find(matches) {
                Some(plan) => plan,
                None => {
                    let facts = carried.iter().zip(&results).map(|(value, tensor)| {
                        let fact = match needed.contains(value) {
                            true => Fact::known(tensor.clone()),
                            false => Fact::new(tensor.dtype(), tensor.shape().clone()),
                        };
                        (*value, fact)
                    });
                    plans.keep(self.plan(*node, facts.collect(), known)?)
                }
            };
            held = results;
            current = next;
        }
    }

    fn plan(
        &self,
        start: usize,
        facts: Vec<(super::ValueId, Fact)>,
        known: &[(super::ValueId, Tensor)],
    ) -> Result<Plan, GraphError> {
        let machine =
            Machine { kernels: self.kernels, threads: &self.threads, memory_limit: self.memory_limit };
        let planned = plan(&self.graph, &machine, &self.packs, start, facts, known);
        self.packs.tidy(1);
        planned
    }

    fn run_plan(
        &self,
        plan: &Plan,
        inputs: &[Tensor],
        outputs: &mut Vec<Tensor>,
        options: &RunOptions<'_>,
    ) -> Result<(), GraphError> {
        let idle = plan.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut memory = match idle {
            Some(memory) => memory,
            None => Memory {
                _reserved: self.reserve(plan)?,
                blocks: Blocks::default(),
                tensors: plan.tensors.clone(),
                arguments: Vec::new(),
            },
        };
        memory.blocks.prepare(&plan.blocks)?;
        for (slot, tensor) in memory.tensors.iter_mut().zip(inputs) {
            *slot = Some(tensor.clone());
        }
        self.run_steps(plan, &mut memory, options)?;
        for result in &plan.results {
            outputs.push(memory.result(result).map_err(GraphError::from)?);
        }
        for (slot, planned) in memory.tensors.iter_mut().zip(&plan.tensors) {
            if planned.is_none() {
                *slot = None;
            }
        }
        let mut idle = plan.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // What is kept for one plan must not be what another cannot have.
        let scarce = self.budget.as_ref().is_some_and(|budget| budget.left() < budget.limit() / 4);
        if idle.len() < MAX_IDLE_MEMORIES && !scarce {
            idle.push(memory);
        }
        Ok(())
    }

    /// The memory of one run of a plan.
    fn reserve(&self, plan: &Plan) -> Result<Option<Reserved>, GraphError> {
        let Some(budget) = &self.budget else { return Ok(None) };
        let needed = plan.bytes();
        let exhausted = || GraphError::Exhausted { needed, left: budget.left(), limit: budget.limit() };
        budget.reserve(needed).map(Some).ok_or_else(exhausted)
    }

    fn run_steps(
        &self,
        plan: &Plan,
        memory: &mut Memory,
        options: &RunOptions<'_>,
    ) -> Result<(), GraphError> {
        let context = RunContext {
            kernels: self.kernels,
            threads: &self.threads,
            states: &self.graph.states,
            deadline: options.deadline,
            cancelled: options.cancelled,
            profile: options.profile,
            memory_limit: self.memory_limit,
        };
        for (index, planned) in plan.steps.iter().enumerate() {
            options.check()?;
            let started = options.profile.map(|profile| (profile, Instant::now()));
            let (node, result) = match planned {
                PlannedStep::Arena { node, step, sources, regions } => {
                    let Run::Arena(run) = &step.run else { continue };
                    let mut io = Io {
                        views: memory.blocks.views(regions)?,
                        sources,
                        tensors: &memory.tensors,
                        context: &context,
                    };
                    (*node, run(&mut io))
                }
                PlannedStep::Tensors { node, step, inputs, outputs } => {
                    let Run::Tensors(run) = &step.run else { continue };
                    memory.gather(inputs)?;
                    let result =
                        run(&memory.arguments, &context).and_then(|tensors| memory.keep(tensors, outputs));
                    memory.arguments.clear();
                    (*node, result)
                }
            };
            result.map_err(|source| node_error(&self.graph.nodes[node], source))?;
            if let (Some((profile, started)), Some(shapes)) = (started, plan.shapes.get(index)) {
                let Node { name, op, .. } = &self.graph.nodes[node];
                let graph = Arc::as_ptr(&self.graph) as usize;
                profile.add((graph, node), name, op, shapes, started.elapsed());
            }
        }
        Ok(())
    }
}

impl Memory {
    /// Collects the arguments of a tensor step.
    fn gather(&mut self, sources: &[TensorSource]) -> Result<(), GraphError> {
        self.arguments.clear();
        for source in sources {
            let tensor = match source {
                TensorSource::Tensor { index, shape } => self.tensor(*index, Some(shape))?,
                TensorSource::Region { region, dtype, shape } => {
                    let bytes = self.blocks.bytes_of(*region)?;
                    Tensor::from_buffer(*dtype, shape.clone(), Buffer::copy_of(bytes)?)?
                }
            };
            self.arguments.push(tensor);
        }
        Ok(())
    }

    fn keep(&mut self, tensors: Vec<Tensor>, outputs: &[(usize, Option<Fact>)]) -> Result<(), OpError> {
        if tensors.len() < outputs.len() {
            return Err(OpError::Memory("too few outputs"));
        }
        for (tensor, (index, fact)) in tensors.into_iter().zip(outputs) {
            let as_planned = |fact: &Fact| fact.dtype == tensor.dtype() && fact.shape == *tensor.shape();
            if !fact.as_ref().is_none_or(as_planned) {
                return Err(OpError::Memory("an output of another shape"));
            }
            if let Some(slot) = self.tensors.get_mut(*index) {
                *slot = Some(tensor);
            }
        }
        Ok(())
    }

    fn tensor(&self, index: usize, shape: Option<&Shape>) -> Result<Tensor, TensorError> {
        let tensor = self.tensors.get(index).and_then(Option::as_ref);
        let tensor = tensor.ok_or(TensorError::OutOfMemory { bytes: 0 })?;
        match shape {
            Some(shape) if tensor.shape() != shape => tensor.reshaped(shape.clone()),
            _ => Ok(tensor.clone()),
        }
    }

    fn result(&self, result: &PlannedResult) -> Result<Tensor, TensorError> {
        match result {
            PlannedResult::Tensor { index, shape } => self.tensor(*index, shape.as_ref()),
            PlannedResult::Block { block, dtype, shape } => {
                let data = self.blocks.share(*block).unwrap_or_else(|| Buffer::from_static(&[]));
                Tensor::from_buffer(*dtype, shape.clone(), data)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::Builder,
        kernels,
        ops::{
            cast::Cast,
            shape::{Reshape, ShapeOf},
            state::{AssignState, Assignment, ReadState, States},
            unary::Unary,
        },
        tensor::{DType, Shape},
    };

    fn compile(graph: Graph) -> Box<dyn Program> {
        Cpu::new(kernels::best(), Threads::single()).compile(Arc::new(graph)).unwrap()
    }

    fn run(program: &dyn Program, inputs: &[Tensor]) -> Result<Vec<Tensor>, GraphError> {
        let mut outputs = Vec::new();
        program.run(inputs, &mut outputs, &RunOptions::default())?;
        Ok(outputs)
    }

    fn floats(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_slice(shape, values).unwrap()
    }

    /// The shape comes from an input, so the graph is planned in two parts.
    fn reshaping() -> Graph {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, None);
        let shape = b.input("shape", DType::I32, None);
        let shape = b.push(Cast { to: DType::I64 }, &[shape]);
        let early = b.push(Unary(kernels::Unary::Neg), &[x]);
        let y = b.push(Reshape { zero_copies: false }, &[early, shape]);
        let y = b.push(Unary(kernels::Unary::Abs), &[y]);
        b.finish(vec![("y".into(), y), ("early".into(), early)])
    }

    #[test]
    fn shapes_that_depend_on_data_are_planned_late() {
        let program = compile(reshaping());
        let x = floats(&[4], &[1.0, -2.0, 3.0, -4.0]);
        for shape in [&[2, 2][..], &[4, 1], &[-1], &[2, 2]] {
            let wanted = Tensor::from_slice([shape.len()], shape).unwrap();
            let y = run(program.as_ref(), &[x.clone(), wanted]).unwrap();
            assert_eq!(y[0].as_slice::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);
            assert_eq!(y[0].shape().len(), shape.len());
            assert_eq!(y[1].as_slice::<f32>().unwrap(), [-1.0, 2.0, -3.0, 4.0]);
        }
        let wrong = Tensor::from_slice([1], &[5]).unwrap();
        let error = run(program.as_ref(), &[x, wrong]).unwrap_err();
        assert!(error.to_string().contains("requested shape is [5]"), "{error}");
    }

    #[test]
    fn many_shapes_stay_correct_beyond_the_cache() {
        let program = compile(reshaping());
        for size in (1..40).chain(1..40) {
            let x = floats(&[size], &vec![1.5; size]);
            let shape = Tensor::from_slice([2], &[1, size as i32]).unwrap();
            let y = run(program.as_ref(), &[x, shape]).unwrap();
            assert_eq!(*y[0].shape(), Shape::from([1, size]));
        }
    }

    #[test]
    fn an_output_may_be_an_input_a_constant_or_twice_the_same() {
        let mut b = Builder::new();
        let x = b.input("x", DType::F32, None);
        let c = b.scalar(7.0);
        let shape = b.push(ShapeOf { dtype: DType::I64 }, &[x]);
        let y = b.push(Unary(kernels::Unary::Neg), &[x]);
        let outputs = [("x", x), ("c", c), ("shape", shape), ("y", y), ("again", y)];
        let graph = b.finish(outputs.map(|(name, value)| (name.to_owned(), value)).to_vec());
        let program = compile(graph);
        let x = floats(&[2, 1], &[1.0, 2.0]);
        let first = run(program.as_ref(), &[x.clone()]).unwrap();
        assert_eq!(first[0], x);
        assert_eq!(first[1].as_slice::<f32>().unwrap(), [7.0]);
        assert_eq!(first[2].as_slice::<i64>().unwrap(), [2, 1]);
        assert_eq!(first[3], first[4]);
        // Tensors that a caller keeps are not overwritten by the next run.
        run(program.as_ref(), &[floats(&[2, 1], &[9.0, 9.0])]).unwrap();
        assert_eq!(first[3].as_slice::<f32>().unwrap(), [-1.0, -2.0]);
    }

    #[test]
    fn inputs_are_checked() {
        let program = compile(reshaping());
        let x = floats(&[1], &[1.0]);
        let error = run(program.as_ref(), &[x.clone()]).unwrap_err();
        assert_eq!(error, GraphError::InputCount { expected: 2, found: 1 });
        let error = run(program.as_ref(), &[x.clone(), x]).unwrap_err();
        assert_eq!(error.to_string(), "input \"shape\" must be int32, but float is given");
    }

    #[test]
    fn a_deadline_in_the_past_ends_the_run() {
        let program = compile(reshaping());
        let shape = Tensor::from_slice([1], &[1]).unwrap();
        let options = RunOptions { deadline: Some(Instant::now()), ..RunOptions::default() };
        let result = program.run(&[floats(&[1], &[1.0]), shape], &mut Vec::new(), &options);
        assert_eq!(result, Err(GraphError::Deadline));
    }

    #[test]
    fn a_caller_that_gives_up_ends_the_run() {
        let program = compile(reshaping());
        let shape = Tensor::from_slice([1], &[1]).unwrap();
        let cancelled = AtomicBool::new(true);
        let options = RunOptions { cancelled: Some(&cancelled), ..RunOptions::default() };
        let result = program.run(&[floats(&[1], &[1.0]), shape], &mut Vec::new(), &options);
        assert_eq!(result, Err(GraphError::Cancelled));
    }

    #[test]
    fn variables_keep_their_value_between_runs() {
        let states = Arc::new(States::new(vec![Tensor::scalar(1.0f32)]));
        let mut b = Builder::new();
        b.set_states(states.clone());
        let by = b.input("by", DType::F32, None);
        let sum = b.push(AssignState { cell: 0, assignment: Assignment::Add }, &[by]);
        let add = compile(b.finish(vec![("sum".into(), sum)]));
        let mut b = Builder::new();
        b.set_states(states);
        let value = b.push(ReadState { cell: 0, dtype: DType::F32, shape: Shape::scalar() }, &[]);
        let get = compile(b.finish(vec![("value".into(), value)]));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        run(add.as_ref(), &[Tensor::scalar(2.0f32)]).unwrap();
                    }
                });
            }
        });
        let value = run(get.as_ref(), &[]).unwrap();
        assert_eq!(value[0].as_slice::<f32>().unwrap(), [801.0]);
        assert!(run(add.as_ref(), &[floats(&[1], &[1.0])]).is_err(), "another shape");
    }
}
