//! The CPU backend: finds or makes the plan for the inputs' shapes and walks through its steps.

use super::{
    Backend, Graph, GraphError, Program,
    evaluate::Machine,
    plan::{End, Plan, PlannedResult, PlannedStep, Plans, TensorSource, node_error, plan},
};
use crate::{
    kernels::{Kernels, Threads},
    ops::{Fact, Io, OpError, Operator, PackCache, Run, RunContext},
    tensor::{Buffer, Shape, Tensor, TensorError, buffer::Blocks},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError},
    time::Instant,
};

/// Memory of finished runs that a plan keeps for the next ones; more are freed.
const MAX_IDLE_MEMORIES: usize = 32;

/// The hand-written kernels.
pub struct Cpu {
    kernels: &'static Kernels,
    threads: Threads,
}

impl Cpu {
    /// A backend that runs on these threads.
    pub fn new(kernels: &'static Kernels, threads: Threads) -> Self {
        Self { kernels, threads }
    }
}

impl Backend for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn compile(&self, graph: Arc<Graph>) -> Result<Box<dyn Program>, GraphError> {
        let assigns = graph.nodes.iter().any(|node| matches!(node.op, crate::ops::Op::AssignState(_)));
        let stateful = graph.nodes.iter().any(|node| node.op.stateful());
        let locking = match (assigns, stateful) {
            (true, _) => Locking::Write,
            (false, true) => Locking::Read,
            (false, false) => Locking::None,
        };
        Ok(Box::new(CpuProgram {
            graph,
            kernels: self.kernels,
            threads: self.threads.clone(),
            packs: PackCache::default(),
            plans: Plans::default(),
            locking,
        }))
    }
}

/// Options of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// The run ends with [`GraphError::Deadline`] after this moment.
    pub deadline: Option<Instant>,
}

/// Memory of one run of one plan.
pub(super) struct Memory {
    blocks: Blocks,
    tensors: Vec<Option<Tensor>>,
    arguments: Vec<Tensor>,
}

enum Locking {
    None,
    Read,
    Write,
}

struct CpuProgram {
    graph: Arc<Graph>,
    kernels: &'static Kernels,
    threads: Threads,
    packs: PackCache,
    plans: Plans,
    locking: Locking,
}

impl Program for CpuProgram {
    fn run(
        &self,
        inputs: &[Tensor],
        outputs: &mut Vec<Tensor>,
        options: &RunOptions,
    ) -> Result<(), GraphError> {
        self.check(inputs)?;
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
    fn check(&self, inputs: &[Tensor]) -> Result<(), GraphError> {
        let expected = &self.graph.inputs;
        if expected.len() != inputs.len() {
            return Err(GraphError::InputCount { expected: expected.len(), found: inputs.len() });
        }
        for (input, tensor) in expected.iter().zip(inputs) {
            if input.dtype != tensor.dtype() {
                return Err(GraphError::InputDType {
                    name: input.name.clone(),
                    expected: input.dtype,
                    found: tensor.dtype(),
                });
            }
        }
        Ok(())
    }

    fn run_plans(
        &self,
        inputs: &[Tensor],
        outputs: &mut Vec<Tensor>,
        options: &RunOptions,
    ) -> Result<(), GraphError> {
        let shapes_match = |plan: &Plan| {
            plan.inputs.iter().zip(inputs).all(|((_, fact), tensor)| fact.shape == *tensor.shape())
        };
        let mut current = match self.plans.find(shapes_match) {
            Some(plan) => plan,
            None => {
                let facts = self.graph.inputs.iter().zip(inputs);
                let facts = facts
                    .map(|(input, tensor)| (input.value, Fact::new(tensor.dtype(), tensor.shape().clone())))
                    .collect();
                self.plans.keep(self.plan(0, facts, &[])?)
            }
        };
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
        let machine = Machine { kernels: self.kernels, threads: &self.threads };
        plan(&self.graph, &machine, &self.packs, start, facts, known)
    }

    fn run_plan(
        &self,
        plan: &Plan,
        inputs: &[Tensor],
        outputs: &mut Vec<Tensor>,
        options: &RunOptions,
    ) -> Result<(), GraphError> {
        let idle = plan.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut memory = idle.unwrap_or_else(|| Memory {
            blocks: Blocks::default(),
            tensors: plan.tensors.clone(),
            arguments: Vec::new(),
        });
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
        if idle.len() < MAX_IDLE_MEMORIES {
            idle.push(memory);
        }
        Ok(())
    }

    fn run_steps(&self, plan: &Plan, memory: &mut Memory, options: &RunOptions) -> Result<(), GraphError> {
        let context =
            RunContext { kernels: self.kernels, threads: &self.threads, states: &self.graph.states };
        for planned in &plan.steps {
            if options.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(GraphError::Deadline);
            }
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
