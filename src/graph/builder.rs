//! How importers make graphs.

use super::{Graph, Input, Node, ValueId};
use crate::{
    ops::{Op, state::States},
    tensor::{DType, Tensor},
};
use std::sync::Arc;

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
