//! Moves transposes towards the outputs until they meet their inverses.
//!
//! Importers of formats with channels first wrap what works on images in transposes. This pass walks through the
//! graph once and keeps a transposed value as what it was made from and a permutation ([`Lazy`]). Operators that do
//! not care for the order of axes (`rules`, `reshape`) are applied to the value before; all others get their transpose
//! where they need it.

mod grown;
mod reshape;
mod rules;

use super::shapes::Shapes;
use crate::{
    graph::{Graph, Node, ValueId, evaluate::Machine, evaluate::evaluate},
    ops::{Op, layout::Transpose, shape::ExpandDims},
    tensor::{Shape, Tensor},
};
use std::collections::HashMap;

/// The same graph with fewer transposes.
pub(super) fn sink_transposes(mut graph: Graph, machine: &Machine<'_>) -> Graph {
    if !graph.nodes.iter().any(|node| matches!(node.op, Op::Transpose(_))) {
        return graph;
    }
    let shapes = Shapes::of(&graph, machine);
    let nodes = std::mem::take(&mut graph.nodes);
    let mut pass = Pass { graph, shapes: &shapes, machine, lazy: HashMap::new(), operands: HashMap::new() };
    for node in nodes {
        pass.node(node);
    }
    for position in 0..pass.graph.outputs.len() {
        let value = pass.read(pass.graph.outputs[position].1);
        pass.graph.outputs[position].1 = value;
    }
    grown::turn_before_growth(pass.graph, machine)
}

/// A value that is `base` with its axes in another order: axis `i` is axis `perm[i]` of `base`.
#[derive(Clone, Debug, PartialEq)]
struct Lazy {
    base: ValueId,
    perm: Vec<usize>,
    /// The transpose exists: something needed it.
    made: bool,
}

struct Pass<'a> {
    /// Its nodes are those already walked over.
    graph: Graph,
    /// Facts of the values of the graph as it was.
    shapes: &'a Shapes,
    machine: &'a Machine<'a>,
    lazy: HashMap<ValueId, Lazy>,
    /// Other operands in the order of a base, by value and permutation.
    operands: HashMap<(ValueId, Vec<usize>), ValueId>,
}

fn is_identity(perm: &[usize]) -> bool {
    perm.iter().enumerate().all(|(axis, &from)| axis == from)
}

fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; perm.len()];
    for (axis, &from) in perm.iter().enumerate() {
        inverse[from] = axis;
    }
    inverse
}

/// Channels first, seen from channels last.
fn is_channels_first(perm: &[usize]) -> bool {
    let rank = perm.len();
    rank >= 3 && perm[0] == 0 && perm[1] == rank - 1 && (2..rank).all(|axis| perm[axis] == axis - 1)
}

impl Pass<'_> {
    fn node(&mut self, mut node: Node) {
        let known = match &node.op {
            Op::Transpose(transpose) => self.transpose(&node, &transpose.perm.clone()),
            _ if node.inputs.iter().any(|&value| self.is_turned(value)) => self.rule(&node),
            _ => None,
        };
        if known.is_none() {
            node.inputs = node.inputs.iter().map(|&value| self.read(value)).collect();
            self.graph.nodes.push(node);
        }
    }

    fn is_turned(&self, value: ValueId) -> bool {
        self.lazy.get(&value).is_some_and(|lazy| !is_identity(&lazy.perm))
    }

    /// A transpose is only noted.
    fn transpose(&mut self, node: &Node, perm: &[usize]) -> Option<()> {
        let (&[x], &[output]) = (node.inputs.as_slice(), node.outputs.as_slice()) else { return None };
        let perm = match perm {
            [] => (0..self.shapes.rank(x)?).rev().collect(),
            perm => perm.to_vec(),
        };
        // What is no permutation, or not of this rank, is an error that the run reports.
        let mut sorted: Vec<usize> = perm.clone();
        sorted.sort_unstable();
        if !is_identity(&sorted) || self.shapes.rank(x).is_some_and(|rank| rank != perm.len()) {
            return None;
        }
        let (base, perm) = match self.lazy.get(&x) {
            Some(lazy) if lazy.perm.len() == perm.len() => {
                (lazy.base, perm.iter().map(|&axis| lazy.perm.get(axis).copied()).collect::<Option<_>>()?)
            }
            Some(_) => return None,
            None => (x, perm),
        };
        self.note(output, base, perm);
        Some(())
    }

    fn note(&mut self, value: ValueId, base: ValueId, perm: Vec<usize>) {
        self.lazy.insert(value, Lazy { base, perm, made: false });
    }

    /// The value itself: its transpose is made where it has not been yet.
    fn read(&mut self, value: ValueId) -> ValueId {
        let Some(lazy) = self.lazy.get_mut(&value) else { return value };
        if is_identity(&lazy.perm) {
            return lazy.base;
        }
        if !std::mem::replace(&mut lazy.made, true) {
            let Lazy { base, perm, .. } = lazy.clone();
            self.push_to(Transpose { perm }, "transpose", vec![base], vec![value]);
        }
        value
    }

    fn push_to(&mut self, op: impl Into<Op>, name: &str, inputs: Vec<ValueId>, outputs: Vec<ValueId>) {
        self.graph.nodes.push(Node { op: op.into(), name: name.to_owned(), inputs, outputs });
    }

    /// Applies the operator `op` in place of a node: to `inputs`, for outputs that are noted under `perm`.
    fn apply(&mut self, node: &Node, op: impl Into<Op>, inputs: Vec<ValueId>, perm: &[usize]) -> Option<()> {
        let bases: Vec<ValueId> = node.outputs.iter().map(|_| self.graph.new_value()).collect();
        self.push_to(op, &node.name, inputs, bases.clone());
        for (&output, base) in node.outputs.iter().zip(bases) {
            self.note(output, base, perm.to_vec());
        }
        Some(())
    }

    /// The first input that is transposed, with its permutation.
    fn first(&self, node: &Node) -> Option<(ValueId, Vec<usize>)> {
        let lazy = self.lazy.get(node.inputs.first()?)?;
        Some((lazy.base, lazy.perm.clone()))
    }

    /// A value whose axes correspond to those of a transposed one, in the order of that one's base.
    /// `None` where turning it costs more than it brings.
    fn operand(&mut self, value: ValueId, perm: &[usize]) -> Option<ValueId> {
        if self.is_turned(value) {
            return self.lazy.get(&value).filter(|lazy| lazy.perm == perm).map(|lazy| lazy.base);
        }
        let key = (value, perm.to_vec());
        if let Some(&operand) = self.operands.get(&key) {
            return Some(operand);
        }
        let rank = self.shapes.rank(value)?;
        let operand = if rank > perm.len() {
            return None;
        } else if let Some(tensor) = self.graph.constants.get(&value).cloned() {
            match tensor.len() {
                1 if rank == 0 => value,
                _ => {
                    let tensor = self.transposed(&tensor, perm)?;
                    self.graph.new_constant(tensor)
                }
            }
        } else if is_channels_first(perm) {
            let value = self.read(value);
            self.turned(value, rank, perm)
        } else {
            return None;
        };
        self.operands.insert(key, operand);
        Some(operand)
    }

    /// A constant in the order of the base, without leading dimensions of 1.
    fn transposed(&self, tensor: &Tensor, perm: &[usize]) -> Option<Tensor> {
        let missing = perm.len() - tensor.shape().len();
        let shape: Shape = std::iter::repeat_n(1, missing).chain(tensor.shape().iter().copied()).collect();
        let full = tensor.reshaped(shape).ok()?;
        let transpose = Op::Transpose(Transpose { perm: inverse(perm) });
        let turned = evaluate(self.machine, &transpose, &[full]).ok()?.pop()?;
        let ones = turned.shape().iter().take_while(|&&dim| dim == 1).count();
        let shape: Shape = turned.shape().iter().skip(ones).copied().collect();
        turned.reshaped(shape).ok()
    }

    /// A value that is computed, turned into the order of the base.
    fn turned(&mut self, mut value: ValueId, rank: usize, perm: &[usize]) -> ValueId {
        if rank < perm.len() {
            let axes = (0..(perm.len() - rank) as i64).collect();
            let grown = self.graph.new_value();
            self.push_to(ExpandDims { axes }, "transpose", vec![value], vec![grown]);
            value = grown;
        }
        let turned = self.graph.new_value();
        self.push_to(Transpose { perm: inverse(perm) }, "transpose", vec![value], vec![turned]);
        turned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::{
            Builder,
            passes::edit::testing::{graph, operators_after, wave},
        },
        kernels::{Binary as B, Reduce as R, Unary as U},
        ops::{
            Fused, Padding,
            binary::Binary,
            conv::Conv,
            join::{Concat, Split, SplitSizes},
            matmul::MatMul,
            pad::{Pad, PadMode},
            reduce::Reduce,
            shape::{Reshape, Squeeze},
            slice::Slice,
            softmax::Softmax,
            unary::Unary,
        },
    };

    const TO_LAST: [usize; 4] = [0, 2, 3, 1];
    const TO_FIRST: [usize; 4] = [0, 3, 1, 2];

    fn turn(b: &mut Builder, x: ValueId, perm: &[usize]) -> ValueId {
        b.push(Transpose { perm: perm.to_vec() }, &[x])
    }

    /// A convolution as importers with channels first make it.
    fn conv(b: &mut Builder, x: ValueId, weights: &[usize]) -> ValueId {
        let x = turn(b, x, &TO_LAST);
        let w = b.constant(wave(weights));
        let op = Conv {
            strides: vec![],
            dilations: vec![],
            padding: Padding::SameUpper,
            groups: 1,
            fused: Fused::default(),
        };
        let y = b.push(op, &[x, w]);
        turn(b, y, &TO_FIRST)
    }

    fn after(shape: &[usize], make: impl Fn(&mut Builder, ValueId) -> ValueId) -> Vec<&'static str> {
        let full: Vec<usize> = shape.iter().map(|&dim| if dim == 0 { 2 } else { dim }).collect();
        operators_after(&graph(shape, make), &wave(&full), sink_transposes)
    }

    fn transposes(operators: &[&str]) -> usize {
        operators.iter().filter(|&&op| op == "Transpose").count()
    }

    #[test]
    fn between_convolutions_nothing_is_transposed() {
        let operators = after(&[0, 3, 6, 5], |b, x| {
            let y = conv(b, x, &[3, 3, 3, 4]);
            let y = b.push(Unary(U::Relu), &[y]);
            let bias = b.constant(wave(&[4, 1, 1]));
            let y = b.push(Binary(B::Add), &[y, bias]);
            let z = conv(b, y, &[3, 3, 4, 4]);
            let z = b.push(Binary(B::Add), &[z, y]);
            let z = b.push(Concat { axis: 1 }, &[z, y]);
            let pads = b.constant(Tensor::from_slice([4, 2], &[0i64, 0, 0, 0, 1, 0, 2, 1]).unwrap());
            let z = b.push(Pad { mode: PadMode::Edge }, &[z, pads]);
            let [start, end, axes] = [[1i64], [7], [-3]].map(|one| b.integers(&one));
            let z = b.push(Slice, &[z, start, end, axes]);
            let parts = b.push_many(Split { axis: 1, sizes: SplitSizes::Parts(2) }, &[z], 2);
            let z = b.push(Binary(B::Mul), &parts);
            let z = b.push(Softmax { axis: 1, log: false }, &[z]);
            let gate = b.push(Reduce { kind: R::Mean, axes: Some(vec![2, 3]), keep_dims: true }, &[z]);
            let z = b.push(Binary(B::Mul), &[z, gate]);
            conv(b, z, &[1, 1, 3, 2])
        });
        assert_eq!(transposes(&operators), 2, "{operators:?}");
    }

    #[test]
    fn a_pooled_value_becomes_a_row() {
        for keep_dims in [true, false] {
            let operators = after(&[0, 3, 4, 4], |b, x| {
                let y = conv(b, x, &[3, 3, 3, 5]);
                let y = b.push(Reduce { kind: R::Mean, axes: Some(vec![-1, -2]), keep_dims }, &[y]);
                let y = match keep_dims {
                    true => b.push(Squeeze { axes: vec![2, 3] }, &[y]),
                    false => y,
                };
                let w = b.constant(wave(&[5, 2]));
                b.push(MatMul::default(), &[y, w])
            });
            assert_eq!(transposes(&operators), 1, "{operators:?}");
        }
    }

    #[test]
    fn flattening_one_pixel_needs_no_transpose() {
        let operators = after(&[0, 3, 4, 4], |b, x| {
            let y = conv(b, x, &[3, 3, 3, 5]);
            let y = b.push(Reduce { kind: R::Mean, axes: Some(vec![-1, -2]), keep_dims: true }, &[y]);
            let rows = b.integers(&[0, -1]);
            b.push(Reshape { zero_copies: true }, &[y, rows])
        });
        assert_eq!(transposes(&operators), 1, "{operators:?}");
    }

    #[test]
    fn channels_are_split_in_place_for_a_shuffle() {
        let operators = after(&[0, 3, 6, 5], |b, x| {
            let y = conv(b, x, &[1, 1, 3, 4]);
            let groups = b.integers(&[-1, 2, 2, 6, 5]);
            let y = b.push(Reshape { zero_copies: false }, &[y, groups]);
            let y = turn(b, y, &[0, 2, 1, 3, 4]);
            let whole = b.integers(&[-1, 4, 6, 5]);
            let y = b.push(Reshape { zero_copies: false }, &[y, whole]);
            conv(b, y, &[1, 1, 4, 2])
        });
        // The first, the last, and two around the second reshape, whose axes do not stand in its order.
        assert_eq!(transposes(&operators), 4, "{operators:?}");
    }

    #[test]
    fn patches_become_rows() {
        let operators = after(&[0, 3, 4, 4], |b, x| {
            let y = conv(b, x, &[1, 1, 3, 8]);
            let flat = b.integers(&[-1, 8, 16]);
            let y = b.push(Reshape { zero_copies: false }, &[y, flat]);
            turn(b, y, &[0, 2, 1])
        });
        assert_eq!(transposes(&operators), 1, "{operators:?}");
    }

    #[test]
    fn a_transposed_factor_is_a_flag() {
        let operators = after(&[2, 3, 4], |b, x| {
            let k = turn(b, x, &[0, 2, 1]);
            b.push(MatMul::default(), &[x, k])
        });
        assert_eq!(operators, ["MatMul"]);
    }
}
