//! What passes look things up with: who makes a value, how often it is used, what constant it is.

use super::shapes::Shapes;
use crate::{
    graph::{Graph, Node, ValueId, evaluate::Machine},
    ops::Op,
    tensor::Tensor,
};

/// Producers and uses of the values of a graph. A pass that replaces a node in place keeps it true through
/// [`Index::replaced`]; nodes whose outputs nobody uses any more stay until the next `clean`.
pub(super) struct Index {
    producers: Vec<Option<usize>>,
    uses: Vec<usize>,
}

impl Index {
    pub(super) fn of(graph: &Graph) -> Self {
        let mut index = Self { producers: vec![None; graph.values], uses: vec![0; graph.values] };
        for (position, node) in graph.nodes.iter().enumerate() {
            node.outputs.iter().for_each(|output| index.producers[output.0] = Some(position));
            node.inputs.iter().for_each(|input| index.uses[input.0] += 1);
        }
        graph.outputs.iter().for_each(|(_, value)| index.uses[value.0] += 1);
        index
    }

    /// The position of the node that makes a value.
    pub(super) fn producer(&self, value: ValueId) -> Option<usize> {
        self.producers.get(value.0).copied().flatten()
    }

    /// How often a value is read, as a graph output too.
    pub(super) fn uses(&self, value: ValueId) -> usize {
        self.uses.get(value.0).copied().unwrap_or(0)
    }

    /// Tells that a node now reads `new` instead of `old` inputs, which their own nodes may no longer be needed for.
    pub(super) fn replaced(&mut self, old: &[ValueId], new: &[ValueId]) {
        let len = new.iter().map(|value| value.0 + 1).max().unwrap_or(0).max(self.uses.len());
        self.uses.resize(len, 0);
        self.producers.resize(len, None);
        new.iter().for_each(|value| self.uses[value.0] += 1);
        old.iter().for_each(|value| self.uses[value.0] = self.uses[value.0].saturating_sub(1));
    }
}

impl Graph {
    /// The node that makes a value, when it is that value's only output.
    pub(super) fn maker(&self, index: &Index, value: ValueId) -> Option<&Node> {
        self.nodes.get(index.producer(value)?).filter(|node| node.outputs.len() == 1)
    }

    /// As [`Graph::maker`], when nothing else reads the value: the node may be absorbed.
    pub(super) fn only_for(&self, index: &Index, value: ValueId) -> Option<&Node> {
        self.maker(index, value).filter(|_| index.uses(value) == 1)
    }

    /// A constant of one `float` element, which does not give what it is combined with another rank.
    pub(super) fn constant_float(&self, value: ValueId) -> Option<f32> {
        match self.constants.get(&value).filter(|tensor| tensor.shape().len() <= 1)?.as_slice::<f32>() {
            Ok([value]) => Some(*value),
            _ => None,
        }
    }

    /// A constant vector of integers.
    pub(super) fn constant_integers(&self, value: ValueId) -> Option<Vec<i64>> {
        self.constants.get(&value)?.to_i64_vec().ok()
    }

    /// A value that nothing makes yet.
    pub(super) fn new_value(&mut self) -> ValueId {
        self.values += 1;
        ValueId(self.values - 1)
    }

    /// A new constant.
    pub(super) fn new_constant(&mut self, tensor: Tensor) -> ValueId {
        let value = self.new_value();
        self.constants.insert(value, tensor);
        value
    }

    /// The graph with what `found` gives for each position in turn, where it gives something.
    pub(super) fn rewrite<O: Into<Op>>(
        mut self,
        machine: &Machine<'_>,
        found: impl Fn(&Graph, &Index, &Shapes, usize) -> Option<(O, Vec<ValueId>)>,
    ) -> Graph {
        let shapes = Shapes::of(&self, machine);
        let mut index = Index::of(&self);
        for position in 0..self.nodes.len() {
            if let Some((op, inputs)) = found(&self, &index, &shapes, position) {
                self.replace(&mut index, position, op, inputs);
            }
        }
        self
    }

    /// Puts another operator where the node at `position` stands; it makes the same outputs.
    pub(super) fn replace(
        &mut self,
        index: &mut Index,
        position: usize,
        op: impl Into<Op>,
        inputs: Vec<ValueId>,
    ) {
        if let Some(node) = self.nodes.get_mut(position) {
            index.replaced(&node.inputs, &inputs);
            node.op = op.into();
            node.inputs = inputs;
        }
    }
}

/// For tests of passes: that a graph computes the same before and after.
#[cfg(test)]
pub(super) mod testing {
    use crate::{
        graph::{Backend, Builder, Cpu, Graph, RunOptions, ValueId, evaluate::Machine, passes::clean},
        kernels::{Threads, best},
        ops::{Op, shape::Reshape},
        tensor::{DType, Tensor},
    };
    use std::sync::Arc;

    /// Numbers that look like weights.
    pub(crate) fn wave(shape: &[usize]) -> Tensor {
        let elements: usize = shape.iter().product();
        let values: Vec<f32> = (0..elements).map(|i| ((i * 37 % 101) as f32 - 50.0) / 40.0).collect();
        Tensor::from_slice(shape, &values).unwrap()
    }

    /// A value with other dimensions.
    pub(crate) fn reshaped(b: &mut Builder, x: ValueId, dims: &[i64]) -> ValueId {
        let to = b.constant(Tensor::from_slice([dims.len()], dims).unwrap());
        b.push(Reshape { zero_copies: false }, &[x, to])
    }

    /// A graph of one input of this shape (0 for an open dimension).
    pub(crate) fn graph(shape: &[usize], make: impl Fn(&mut Builder, ValueId) -> ValueId) -> Graph {
        let mut b = Builder::new();
        let dims = shape.iter().map(|&dim| (dim > 0).then_some(dim)).collect();
        let x = b.input("x", DType::F32, Some(dims));
        let y = make(&mut b, x);
        b.finish(vec![("y".into(), y)])
    }

    /// The operators of a graph after a pass that keeps its result on `input`.
    pub(crate) fn operators_after(
        before: &Graph,
        input: &Tensor,
        pass: impl Fn(Graph, &Machine<'_>) -> Graph,
    ) -> Vec<&'static str> {
        let machine = Machine { kernels: best(), threads: &Threads::single(), memory_limit: usize::MAX };
        let after = clean(pass(before.clone(), &machine));
        let run = |graph: &Graph| {
            let cpu = Cpu::new(best(), Threads::single()).as_imported();
            let program = cpu.compile(Arc::new(graph.clone())).unwrap();
            let mut outputs = Vec::new();
            program.run(&[input.clone()], &mut outputs, &RunOptions::default()).unwrap();
            outputs.remove(0)
        };
        let (expected, found) = (run(before), run(&after));
        assert_eq!((expected.dtype(), expected.shape()), (found.dtype(), found.shape()));
        let (a, b) = (expected.as_slice::<f32>().unwrap(), found.as_slice::<f32>().unwrap());
        for (position, (a, b)) in a.iter().zip(b).enumerate() {
            assert!((a - b).abs() <= 1e-5 * (1.0 + a.abs()), "element {position}: {a} before, {b} after");
        }
        after.nodes().iter().map(|node| Op::name(&node.op)).collect()
    }
}
