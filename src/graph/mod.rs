//! The intermediate representation: values and nodes in execution order, from any format.
//!
//! A [`Graph`] is plain data, made by an importer through [`Builder`], simplified by [`passes`],
//! and handed to a [`Backend`]. The backend of this crate plans it per input shapes (`plan`) and
//! runs the plans (`run`).
#![forbid(unsafe_code)]

mod arena;
mod builder;
#[cfg(feature = "candle")]
pub mod candle;
mod estimate;
mod evaluate;
mod memory;
pub mod passes;
mod plan;
mod run;
mod select;
mod subgraph;
#[cfg(test)]
pub(crate) mod testing;

pub use builder::Builder;
pub use estimate::Estimate;
pub use evaluate::fold_small;
pub use memory::{Budget, ProcessMemory, Reserved, SystemMemory};
pub use run::{Cpu, RunOptions};
pub use select::Selection;

use crate::{
    ops::{Op, OpError, state::States},
    tensor::{DType, Tensor, TensorError},
};
use std::{collections::BTreeMap, sync::Arc};

/// Names a value of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub(crate) usize);

/// An operator applied to values.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The operator.
    pub op: Op,
    /// Name in the source model, for errors and profiles.
    pub name: String,
    /// Values read.
    pub inputs: Vec<ValueId>,
    /// Values written.
    pub outputs: Vec<ValueId>,
}

/// An input of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Name that callers use.
    pub name: String,
    /// The value it feeds.
    pub value: ValueId,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, `None` for one that may differ between calls; `None` altogether for any rank.
    pub shape: Option<Vec<Option<usize>>>,
}

/// A computation from named inputs to named outputs.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) constants: BTreeMap<ValueId, Tensor>,
    pub(crate) inputs: Vec<Input>,
    pub(crate) outputs: Vec<(String, ValueId)>,
    pub(crate) values: usize,
    pub(crate) states: Arc<States>,
}

impl Graph {
    /// Inputs, in the order in which [`Program::run`] takes them.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Outputs, in the order in which [`Program::run`] gives them.
    pub fn outputs(&self) -> &[(String, ValueId)] {
        &self.outputs
    }

    /// Fails unless these are as many tensors, of the types, that a run takes.
    fn check_inputs(&self, inputs: &[Tensor]) -> Result<(), GraphError> {
        let expected = &self.inputs;
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

    /// Nodes, in execution order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Constants by the value that they are.
    pub fn constants(&self) -> &BTreeMap<ValueId, Tensor> {
        &self.constants
    }

    /// Puts the first `count` inputs behind the others.
    pub fn rotate_inputs(&mut self, count: usize) {
        let count = count.min(self.inputs.len());
        self.inputs.rotate_left(count);
    }

    /// Values of the model's variables now, in the order of their numbers.
    pub fn variables(&self) -> Vec<Tensor> {
        self.states.values()
    }

    /// Bytes of all constants.
    pub fn constant_bytes(&self) -> usize {
        self.constants.values().map(Tensor::memory).sum()
    }

    /// How often each operator occurs.
    pub fn operator_counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for node in &self.nodes {
            *counts.entry(node.op.name()).or_default() += 1;
        }
        counts
    }
}

/// What can go wrong while compiling or running a graph.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GraphError {
    /// An operator failed.
    #[error("{source}\n\t [[{{{{node {node}}}}}]]")]
    Node {
        /// The node's name in the source model.
        node: String,
        /// The operator's name.
        op: &'static str,
        /// What it says.
        source: OpError,
    },
    /// The run was given another number of inputs than the graph has.
    #[error("the graph has {expected} inputs, but {found} are given")]
    InputCount {
        /// Inputs of the graph.
        expected: usize,
        /// Inputs given.
        found: usize,
    },
    /// An input has another dtype than the graph was built for.
    #[error("input \"{name}\" must be {expected}, but {found} is given")]
    InputDType {
        /// The input.
        name: String,
        /// Its dtype.
        expected: DType,
        /// The dtype given.
        found: DType,
    },
    /// A value is used that nothing produces; the importer is wrong or the file is.
    #[error("value {0} of the graph is used but never computed")]
    Undefined(usize),
    /// Memory.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The inputs ask for more memory than a run may have.
    #[error(
        "the model needs {needed} bytes of memory for inputs of these shapes; the limit is {limit} \
         (\"{node}\" alone takes {largest})"
    )]
    TooMuchMemory {
        /// Bytes of the plan.
        needed: usize,
        /// Bytes allowed.
        limit: usize,
        /// The node that needs most.
        node: String,
        /// Bytes it needs.
        largest: usize,
    },
    /// Other runs and models hold too much of the memory.
    #[error(
        "the run needs {needed} bytes of memory, but of the limit of {limit} bytes only {left} are left: models and \
         other requests hold the rest"
    )]
    Exhausted {
        /// Bytes of the run.
        needed: usize,
        /// Bytes left.
        left: usize,
        /// Bytes that there are for all.
        limit: usize,
    },
    /// The model has operators that a backend other than the kernels has not.
    #[error("the {backend} backend has not {count} of the model's operators: {operators}")]
    NotInBackend {
        /// The backend.
        backend: &'static str,
        /// How many operators.
        count: usize,
        /// Which, how often, and where the first of them stands.
        operators: String,
    },
    /// The deadline passed between two steps.
    #[error("the deadline passed while the model was running")]
    Deadline,
    /// The caller gave up between two steps.
    #[error("the call was cancelled while the model was running")]
    Cancelled,
    /// A step panicked; a bug, kept from the other requests.
    #[error("internal: a step of the model panicked")]
    Panicked,
}

/// Something that can turn graphs into programs.
pub trait Backend: Send + Sync {
    /// Its name, as in `cpu`.
    fn name(&self) -> &'static str;

    /// Prepares a graph for runs of any input shapes.
    fn compile(&self, graph: Arc<Graph>) -> Result<Box<dyn Program>, GraphError>;
}

/// A compiled graph. Shared by threads; each run has its own memory.
pub trait Program: Send + Sync {
    /// Does what the first run on inputs of these shapes would do once, as far as it depends on shapes alone: weights are
    /// packed for it.
    ///
    /// # Errors
    /// What is wrong with the graph for inputs of these shapes.
    fn prepare(&self, _inputs: &[Tensor]) -> Result<(), GraphError> {
        Ok(())
    }

    /// Runs on one tensor per graph input and appends one tensor per graph output to `outputs`.
    fn run(
        &self,
        inputs: &[Tensor],
        outputs: &mut Vec<Tensor>,
        options: &RunOptions<'_>,
    ) -> Result<(), GraphError>;
}
