//! How importers make graphs.

use super::{Backend, Cpu, Graph, Input, Node, RunOptions, ValueId};
use crate::{
    kernels::{self, Threads},
    maps::Ordered,
    ops::{Op, Operator, state::States},
    tensor::{DType, Tensor},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// What takes longer while a model is loaded counts as not known.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);

/// Collects nodes in execution order. Every value is made by exactly one of [`Builder::input`],
/// [`Builder::constant`] and [`Builder::push`].
#[derive(Default)]
pub struct Builder {
    graph: Graph,
    scope: String,
}

impl Builder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Name given to the nodes pushed from here on: the source model's node.
    pub fn set_scope(&mut self, name: impl Into<String>) {
        self.scope = name.into();
    }

    /// The name given to nodes now.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// Declares an input.
    pub fn input(
        &mut self,
        name: impl Into<String>,
        dtype: DType,
        shape: Option<Vec<Option<usize>>>,
    ) -> ValueId {
        let value = self.value();
        self.graph.inputs.push(Input { name: name.into(), value, dtype, shape });
        value
    }

    /// A constant.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        let value = self.value();
        self.graph.constants.insert(value, tensor);
        value
    }

    /// The tensor of a value that is a constant so far.
    pub fn constant_value(&self, value: ValueId) -> Option<&Tensor> {
        self.graph.constants.get(&value)
    }

    /// The tensor of a value that depends on constants only, computed where it is not one itself.
    pub fn known_value(&self, value: ValueId) -> Option<Tensor> {
        if let Some(tensor) = self.constant_value(value) {
            return Some(tensor.clone());
        }
        let mut needed = [value].into_iter().into_set();
        let mut nodes = Vec::new();
        for node in self.graph.nodes.iter().rev() {
            if node.outputs.iter().any(|output| needed.contains(output)) {
                if node.op.stateful() {
                    return None;
                }
                needed.extend(node.inputs.iter().copied());
                nodes.push(node.clone());
            }
        }
        if self.graph.inputs.iter().any(|input| needed.contains(&input.value)) {
            return None;
        }
        nodes.reverse();
        let constants = &self.graph.constants;
        let constants = needed.iter().filter_map(|value| Some((*value, constants.get(value)?.clone())));
        let graph = Graph {
            nodes,
            constants: constants.collect(),
            outputs: vec![(String::new(), value)],
            values: self.graph.values,
            ..Graph::default()
        };
        let program = Cpu::new(kernels::best(), Threads::single()).compile(Arc::new(graph)).ok()?;
        let mut outputs = Vec::new();
        // A file may hold a loop without an end.
        let deadline = Some(Instant::now() + KNOWN_WITHIN);
        program.run(&[], &mut outputs, &RunOptions { deadline, ..RunOptions::default() }).ok()?;
        outputs.pop()
    }

    /// Applies an operator with one output.
    pub fn push(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> ValueId {
        let output = self.value();
        self.node(op.into(), inputs, vec![output]);
        output
    }

    /// Applies an operator with any number of outputs.
    pub fn push_many(&mut self, op: impl Into<Op>, inputs: &[ValueId], outputs: usize) -> Vec<ValueId> {
        let outputs: Vec<ValueId> = (0..outputs).map(|_| self.value()).collect();
        self.node(op.into(), inputs, outputs.clone());
        outputs
    }

    /// A vector of `i64` as a constant, for operators that take shapes, axes or indices as inputs.
    pub fn integers(&mut self, values: &[i64]) -> ValueId {
        let tensor = Tensor::from_slice([values.len()], values).unwrap_or_else(|_| Tensor::empty(DType::I64));
        self.constant(tensor)
    }

    /// The nodes so far.
    pub fn nodes(&self) -> &[Node] {
        &self.graph.nodes
    }

    /// A scalar `f32` constant.
    pub fn scalar(&mut self, value: f32) -> ValueId {
        self.constant(Tensor::scalar(value))
    }

    /// Shares the model's variables with this graph.
    pub fn set_states(&mut self, states: Arc<States>) {
        self.graph.states = states;
    }

    /// The graph with these outputs.
    pub fn finish(mut self, outputs: Vec<(String, ValueId)>) -> Graph {
        self.graph.outputs = outputs;
        self.graph
    }

    fn value(&mut self) -> ValueId {
        let value = ValueId(self.graph.values);
        self.graph.values += 1;
        value
    }

    fn node(&mut self, op: Op, inputs: &[ValueId], outputs: Vec<ValueId>) {
        self.graph.nodes.push(Node { op, name: self.scope.clone(), inputs: inputs.to_vec(), outputs });
    }
}
