//! A second backend: the same graphs on candle's tensors, on a CPU or an NVIDIA device.
//!
//! It stands where [`Cpu`](super::Cpu) does and reads the graph after folding and cleaning, before any of the passes
//! that make the kernels fast: what both compute the same way, neither of them has wrong. Shapes are followed by the
//! planner of this crate ([`plan::trace`]), so that what reaches candle has fixed sizes; each node becomes a closure
//! over candle's operations (`step`). Strings have no tensors there: operators on them run on the host in front.

mod convert;
mod elements;
mod moves;
mod products;
mod recurrent;
mod reductions;
mod step;
mod windows;

use self::step::{Known, Step};
use super::{
    Backend, Graph, GraphError, Node, Program, RunOptions, ValueId,
    evaluate::{Machine, evaluate},
    memory, passes,
    plan::{Facts, Traced, TracedNode, node_error, trace},
};
use crate::{
    kernels::{self, Threads},
    ops::{Fact, OpError},
    tensor::{DType, Tensor},
};
use candle_core as candle;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    str::FromStr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// The form of a constant that nothing was done to.
const AS_IT_IS: &str = "as it is";
/// Segments kept per program; the one not used for the longest time makes room.
const MAX_SEGMENTS: usize = 32;

/// Where candle computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// On the CPU, with candle's own kernels.
    Cpu,
    /// On the NVIDIA device of this number.
    Cuda(usize),
    /// On NVIDIA's first device, or on the CPU where there is none.
    Auto,
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok().map(Self::Cuda);
        let device = match text {
            "cpu" => Some(Self::Cpu),
            "auto" => Some(Self::Auto),
            "cuda" => Some(Self::Cuda(0)),
            other => other.strip_prefix("cuda:").and_then(number),
        };
        device.ok_or_else(|| format!("\"{text}\" is no device; say cpu, auto or cuda:0"))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// The backend.
pub struct Candle {
    device: candle::Device,
    threads: Threads,
}

impl Candle {
    /// Opens the device.
    ///
    /// # Errors
    /// One line that says why the device is not to be had.
    pub fn new(device: Device, threads: Threads) -> Result<Self, String> {
        let cuda = |number: usize| {
            if !candle::utils::cuda_is_available() {
                return Err(format!(
                    "there is no device cuda:{number}: this binary was built without CUDA (docs/GPU.md says how to \
                     build the one with it)"
                ));
            }
            // A missing driver, a missing device and a driver too old for the toolkit all end here.
            let opened = catch_unwind(|| candle::Device::new_cuda(number));
            let opened =
                opened.unwrap_or_else(|_| Err(candle::Error::Msg("the CUDA driver panicked".into())));
            opened.map_err(|error| {
                let reason = error.to_string();
                let reason = reason.lines().next().unwrap_or_default();
                format!(
                    "there is no device cuda:{number}: {reason}. `nvidia-smi` lists those of this machine"
                )
            })
        };
        let device = match device {
            Device::Cpu => candle::Device::Cpu,
            Device::Cuda(number) => cuda(number)?,
            Device::Auto => cuda(0).unwrap_or(candle::Device::Cpu),
        };
        Ok(Self { device, threads })
    }

    /// The device in use, as in `cuda:0`.
    pub fn device(&self) -> String {
        match self.device.location() {
            candle::DeviceLocation::Cuda { gpu_id } => Device::Cuda(gpu_id).to_string(),
            _ => Device::Cpu.to_string(),
        }
    }

    fn machine(&self) -> Machine<'_> {
        Machine { kernels: kernels::best(), threads: &self.threads, memory_limit: memory::available() }
    }
}

impl Backend for Candle {
    fn name(&self) -> &'static str {
        "candle"
    }

    fn compile(&self, graph: Arc<Graph>) -> Result<Box<dyn Program>, GraphError> {
        let graph = passes::fold_and_clean(Arc::unwrap_or_clone(graph), &self.machine());
        let mut refused: BTreeMap<&'static str, (usize, String)> = BTreeMap::new();
        for node in graph.nodes.iter().filter(|node| !step::has(&node.op)) {
            refused.entry(node.op.name()).or_insert((0, node.name.clone())).0 += 1;
        }
        if !refused.is_empty() {
            let listed =
                refused.iter().map(|(op, (count, first))| format!("{op} ({count}x, first at {first})"));
            let operators = listed.collect::<Vec<_>>().join(", ");
            return Err(GraphError::NotInBackend { backend: "candle", count: refused.len(), operators });
        }
        Ok(Box::new(CandleProgram {
            graph,
            device: self.device.clone(),
            threads: self.threads.clone(),
            constants: Mutex::default(),
            segments: Mutex::default(),
        }))
    }
}

/// A value between two nodes.
#[derive(Clone)]
enum Value {
    /// Strings, on the host.
    Text(Tensor),
    /// Follows from shapes, or has been asked for by the planner.
    Known(Arc<KnownValue>),
    /// On the device, and the type that it stands for.
    There(candle::Tensor, DType),
}

/// A value on the host, and on the device once a step has used it there.
struct KnownValue {
    tensor: Tensor,
    there: OnceLock<candle::Tensor>,
}

impl Value {
    fn known(tensor: Tensor) -> Self {
        Self::Known(Arc::new(KnownValue { tensor, there: OnceLock::new() }))
    }

    fn fact(&self) -> Fact {
        match self {
            Self::Text(tensor) => Fact::new(tensor.dtype(), tensor.shape().clone()),
            Self::Known(known) => Fact::known(known.tensor.clone()),
            Self::There(tensor, dtype) => Fact::new(*dtype, tensor.dims()),
        }
    }

    fn host(&self) -> Result<Tensor, OpError> {
        match self {
            Self::Text(tensor) => Ok(tensor.clone()),
            Self::Known(known) => Ok(known.tensor.clone()),
            Self::There(tensor, dtype) => convert::download(tensor, *dtype),
        }
    }

    fn there(&self, device: &candle::Device) -> Result<candle::Tensor, OpError> {
        match self {
            Self::Text(_) => Err(OpError::unsupported("strings cannot be on a device")),
            Self::Known(known) => match known.there.get() {
                Some(there) => Ok(there.clone()),
                None => {
                    let made = convert::upload(&known.tensor, device)?;
                    Ok(known.there.get_or_init(|| made).clone())
                }
            },
            Self::There(tensor, _) => Ok(tensor.clone()),
        }
    }
}

/// A straight run of nodes for inputs of fixed facts.
struct Segment {
    given: Vec<(ValueId, Fact)>,
    steps: Vec<PlacedStep>,
    /// What follows from shapes and is used later.
    known: Vec<(ValueId, Value)>,
    next: Option<usize>,
    needed: Vec<ValueId>,
}

struct PlacedStep {
    node: usize,
    step: Step,
    dtypes: Vec<Option<DType>>,
    /// Values that no later step or segment uses.
    last_use: Vec<ValueId>,
}

struct CandleProgram {
    graph: Graph,
    device: candle::Device,
    threads: Threads,
    /// The graph's constants on the device, in each form that steps use.
    constants: Mutex<BTreeMap<(ValueId, &'static str), candle::Tensor>>,
    /// The latest used is last.
    segments: Mutex<Vec<(usize, Arc<Segment>)>>,
}

impl Program for CandleProgram {
    fn run(
        &self,
        inputs: &[Tensor],
        outputs: &mut Vec<Tensor>,
        options: &RunOptions<'_>,
    ) -> Result<(), GraphError> {
        self.graph.check_inputs(inputs)?;
        let result = catch_unwind(AssertUnwindSafe(|| self.run_segments(inputs, options)));
        outputs.extend(result.unwrap_or(Err(GraphError::Panicked))?);
        Ok(())
    }
}

impl CandleProgram {
    fn run_segments(&self, inputs: &[Tensor], options: &RunOptions<'_>) -> Result<Vec<Tensor>, GraphError> {
        let mut values: BTreeMap<ValueId, Value> = BTreeMap::new();
        for (input, tensor) in self.graph.inputs.iter().zip(inputs) {
            let value = match tensor.dtype() {
                DType::String => Value::Text(tensor.clone()),
                dtype => Value::There(convert::upload(tensor, &self.device).map_err(unplaced)?, dtype),
            };
            values.insert(input.value, value);
        }
        let (mut start, mut needed) = (0, Vec::new());
        loop {
            for value in &needed {
                if let Some(found) = values.get_mut(value) {
                    *found = Value::known(found.host().map_err(unplaced)?);
                }
            }
            let segment = self.segment(start, &values)?;
            values.extend(segment.known.iter().cloned());
            for step in &segment.steps {
                options.check()?;
                let node = &self.graph.nodes[step.node];
                let made = self.run_step(step, node, &values).map_err(|source| node_error(node, source))?;
                values.extend(node.outputs.iter().copied().zip(made));
                step.last_use.iter().for_each(|value| drop(values.remove(value)));
            }
            match segment.next {
                Some(next) => (start, needed) = (next, segment.needed.clone()),
                None => break,
            }
        }
        let output =
            |(_, value): &(String, ValueId)| match (values.get(value), self.graph.constants.get(value)) {
                (Some(value), _) => value.host().map_err(unplaced),
                (None, Some(constant)) => Ok(constant.clone()),
                (None, None) => Err(GraphError::Undefined(value.0)),
            };
        self.graph.outputs.iter().map(output).collect()
    }

    fn run_step(
        &self,
        placed: &PlacedStep,
        node: &Node,
        values: &BTreeMap<ValueId, Value>,
    ) -> Result<Vec<Value>, OpError> {
        let made = match &placed.step {
            Step::Host => {
                let host = |id: &ValueId| match (values.get(id), self.graph.constants.get(id)) {
                    (Some(value), _) => value.host(),
                    (None, Some(constant)) => Ok(constant.clone()),
                    (None, None) => Err(OpError::Memory("an input")),
                };
                let inputs = node.inputs.iter().map(host).collect::<Result<Vec<_>, _>>()?;
                let machine = Machine {
                    kernels: kernels::best(),
                    threads: &self.threads,
                    memory_limit: memory::available(),
                };
                let made =
                    evaluate(&machine, &node.op, &inputs)?.into_iter().map(|tensor| match tensor.dtype() {
                        DType::String => Ok(Value::Text(tensor)),
                        dtype => Ok(Value::There(convert::upload(&tensor, &self.device)?, dtype)),
                    });
                return made.collect();
            }
            Step::There(run) => {
                let input = |index: usize| {
                    let id = node.inputs.get(index).ok_or(OpError::Memory("an input"))?;
                    match values.get(id) {
                        Some(value) => value.there(&self.device),
                        None => self.constant(*id, AS_IT_IS, &|tensor| Ok(tensor)),
                    }
                };
                run(&step::Inputs { count: node.inputs.len(), input: &input }).map_err(step::failed)?
            }
        };
        let dtype =
            |index: usize| placed.dtypes.get(index).copied().flatten().ok_or(OpError::Memory("an output"));
        made.into_iter().enumerate().map(|(index, tensor)| Ok(Value::There(tensor, dtype(index)?))).collect()
    }

    /// A constant of the graph on the device, as `prepare` makes it; `form` names what that is.
    fn constant(
        &self,
        value: ValueId,
        form: &'static str,
        prepare: &dyn Fn(candle::Tensor) -> candle::Result<candle::Tensor>,
    ) -> Result<candle::Tensor, OpError> {
        let mut constants = self.constants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = constants.get(&(value, form)) {
            return Ok(found.clone());
        }
        let tensor = self.graph.constants.get(&value).ok_or(OpError::Memory("an input"))?;
        let made = prepare(convert::upload(tensor, &self.device)?).map_err(step::failed)?;
        constants.insert((value, form), made.clone());
        Ok(made)
    }

    /// The segment from node `start` on for the values there are.
    fn segment(&self, start: usize, values: &BTreeMap<ValueId, Value>) -> Result<Arc<Segment>, GraphError> {
        let given: Vec<(ValueId, Fact)> = values.iter().map(|(id, value)| (*id, value.fact())).collect();
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let found = segments.iter().position(|(from, segment)| *from == start && segment.given == given);
        if let Some(found) = found {
            let segment = segments.remove(found);
            segments.push(segment.clone());
            return Ok(segment.1);
        }
        let segment = Arc::new(self.plan(start, given)?);
        if segments.len() >= MAX_SEGMENTS {
            segments.remove(0);
        }
        segments.push((start, segment.clone()));
        Ok(segment)
    }

    fn plan(&self, start: usize, given: Vec<(ValueId, Fact)>) -> Result<Segment, GraphError> {
        let machine =
            Machine { kernels: kernels::best(), threads: &self.threads, memory_limit: memory::available() };
        let mut facts = Facts { graph: &self.graph, computed: given.iter().cloned().collect() };
        let Traced { nodes, next, needed } = trace(&self.graph, &machine, &mut facts, start)?;
        let mut later: BTreeSet<ValueId> = self.graph.outputs.iter().map(|(_, value)| *value).collect();
        if let Some(next) = next {
            later.extend(self.graph.nodes[next..].iter().flat_map(|node| &node.inputs).copied());
        }
        let mut used = later.clone();
        let mut steps = Vec::with_capacity(nodes.len());
        for TracedNode { index, inputs, outputs } in nodes.into_iter().rev() {
            let node = &self.graph.nodes[index];
            if !node.outputs.iter().any(|output| used.contains(output)) {
                continue;
            }
            let touched = node.inputs.iter().chain(&node.outputs).copied();
            let last_use = touched.filter(|value| used.insert(*value)).collect();
            let prepared = |position: usize, form: &'static str, prepare: &step::Prepare<'_>| {
                let value = node.inputs.get(position)?;
                if self.graph.constants.contains_key(value) {
                    return Some(self.constant(*value, form, prepare));
                }
                let tensor = inputs.get(position)?.value.as_ref()?;
                let there = convert::upload(tensor, &self.device);
                Some(there.and_then(|there| prepare(there).map_err(step::failed)))
            };
            let context = Known {
                inputs: &inputs,
                outputs: outputs.as_deref().unwrap_or_default(),
                device: &self.device,
                machine: &machine,
                prepared: &prepared,
            };
            let step = step::step(&node.op, &context).map_err(|source| node_error(node, source))?;
            let dtypes = outputs.iter().flatten().map(|fact| Some(fact.dtype)).collect();
            steps.push(PlacedStep { node: index, step, dtypes, last_use });
        }
        steps.reverse();
        // Tensors that follow from shapes; large ones are sent when they are used.
        let known = facts.computed.iter().filter(|(value, _)| used.contains(value));
        let known = known.filter(|(value, _)| !given.iter().any(|(given, _)| given == *value));
        let known = known.filter_map(|(value, fact)| Some((*value, Value::known(fact.value.clone()?))));
        Ok(Segment { known: known.collect(), steps, given, next, needed })
    }
}

fn unplaced(source: OpError) -> GraphError {
    match source {
        OpError::Tensor(error) => GraphError::Tensor(error),
        source => GraphError::Node { node: "the device".to_owned(), op: "copy", source },
    }
}
