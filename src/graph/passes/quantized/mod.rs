//! Graphs whose floats are quantised and dequantised between operators ("QDQ", as quantisers write them) become graphs of
//! bytes.
//!
//! What only moves elements moves bytes (`moves`). Then every quantisation is looked at: what makes its input out of
//! dequantised values becomes one operator on the bytes, when there is one: a product (`products`), a sum, a function of
//! one value as a table, a maximum or a concatenation (`elements`). What is left stays as it was, floats between two
//! conversions. At last signed bytes become unsigned ones, which the instructions for products want (`signs`).

mod elements;
mod moves;
mod products;
mod signs;

use super::{clean::clean, edit::Index, shapes::Shapes};
use crate::{
    graph::{Graph, Node, ValueId, evaluate::Machine},
    kernels::Unary as U,
    ops::{Op, quant::Quantize},
    tensor::{DType, Tensor},
};
use std::collections::HashMap;

/// Whether a graph computes with coded numbers at all.
pub(super) fn is_quantized(graph: &Graph) -> bool {
    graph.nodes.iter().any(|node| {
        matches!(node.op, Op::Quantize(_) | Op::Dequantize(_) | Op::QuantizedConv(_) | Op::QuantizedMatMul(_))
    })
}

/// The same graph, in bytes where it was floats between conversions. Constants must not have been dequantised yet.
pub(super) fn find_quantized(graph: Graph, machine: &Machine<'_>) -> Graph {
    if !is_quantized(&graph) {
        return graph;
    }
    let graph = clean(moves::move_bytes(graph));
    let shapes = Shapes::of(&graph, machine);
    let graph = clean(Pass::new(graph, machine, &shapes).run(|pass, node| match &node.op {
        Op::Quantize(quantize) => pass.quantized(node, quantize),
        _ => None,
    }));
    // Products that no quantisation has taken.
    let graph = clean(Pass::new(graph, machine, &shapes).run(|pass, node| match &node.op {
        Op::Conv(_) | Op::MatMul(_) => pass.float_product(node),
        _ => None,
    }));
    let shapes = Shapes::of(&graph, machine);
    signs::without_signs(graph, &shapes)
}

/// How the bytes of a value stand for numbers: one scale for all of them, positive and finite.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Coding {
    /// `U8` or `I8`.
    dtype: DType,
    scale: f32,
    zero: i32,
}

impl Coding {
    /// Of a conversion's inputs behind the first, which must be constants.
    fn of(graph: &Graph, dtype: DType, inputs: &[ValueId]) -> Option<Self> {
        let [scale, zero @ ..] = inputs else { return None };
        let scale = graph.constant_float(*scale).filter(|scale| scale.is_finite() && *scale > 0.0)?;
        let zero = match zero {
            [] => 0,
            [zero, ..] => {
                let zero = graph.constants.get(zero).filter(|zero| zero.dtype() == dtype)?;
                let &[zero] = zero.to_i64_vec().ok()?.as_slice() else { return None };
                i32::try_from(zero).ok()?
            }
        };
        matches!(dtype, DType::U8 | DType::I8).then_some(Self { dtype, scale, zero })
    }

    /// The numbers that the bytes 0 to 255 stand for, in the order of the bytes.
    fn numbers(&self) -> Vec<f32> {
        (0..=255u8).map(|byte| (self.integer(byte) - self.zero) as f32 * self.scale).collect()
    }

    fn integer(&self, byte: u8) -> i32 {
        if self.dtype == DType::I8 { i32::from(byte as i8) } else { i32::from(byte) }
    }

    /// The integer that stands for a number.
    fn code(&self, number: f32) -> i32 {
        let (least, greatest) = if self.dtype == DType::I8 { (-128, 127) } else { (0, 255) };
        // A cast saturates; NaN becomes 0, and with it the zero point.
        ((number / self.scale).round_ties_even() as i32).saturating_add(self.zero).clamp(least, greatest)
    }
}

/// What a value is when nothing but a clamp comes after what makes it.
struct Clamped {
    value: ValueId,
    bounds: Option<(i32, i32)>,
}

struct Pass<'a> {
    /// Its nodes are those that were there before.
    graph: Graph,
    index: Index,
    machine: &'a Machine<'a>,
    shapes: &'a Shapes,
    /// What there is instead.
    nodes: Vec<Node>,
    /// Values that are a function of other bytes: those, and the table.
    tables: HashMap<ValueId, (ValueId, [u8; 256])>,
}

impl<'a> Pass<'a> {
    fn new(graph: Graph, machine: &'a Machine<'a>, shapes: &'a Shapes) -> Self {
        let index = Index::of(&graph);
        Self { graph, index, machine, shapes, nodes: Vec::new(), tables: HashMap::new() }
    }

    /// Goes through the nodes; `rule` puts others in place of one, or leaves it.
    fn run(mut self, rule: impl Fn(&mut Self, &Node) -> Option<()>) -> Graph {
        for position in 0..self.graph.nodes.len() {
            let node = self.graph.nodes[position].clone();
            if rule(&mut self, &node).is_none() {
                self.nodes.push(node);
            }
        }
        self.graph.nodes = self.nodes;
        self.graph
    }

    /// A quantisation with what makes its input.
    fn quantized(&mut self, node: &Node, quantize: &Quantize) -> Option<()> {
        let coding = Coding::of(&self.graph, quantize.dtype, node.inputs.get(1..)?)?;
        let (&x, &[output]) = (node.inputs.first()?, node.outputs.as_slice()) else { return None };
        self.recoded(node, x, coding, output).or_else(|| self.concatenated(node, x, coding, output)).or_else(
            || {
                let clamped = self.clamped(x, coding);
                self.product(clamped.value, coding, clamped.bounds, output)
                    .or_else(|| self.sum(clamped.value, coding, clamped.bounds, output))
                    .or_else(|| self.maximum(&clamped, coding, output))
            },
        )
    }

    /// The bytes behind a dequantised value.
    fn coded(&self, value: ValueId) -> Option<(ValueId, Coding)> {
        let maker = self.graph.maker(&self.index, value)?;
        let Op::Dequantize(_) = maker.op else { return None };
        let &bytes = maker.inputs.first()?;
        Some((bytes, Coding::of(&self.graph, self.shapes.dtype(bytes)?, &maker.inputs[1..])?))
    }

    /// Clamping numbers before they are quantised is clamping their codes.
    fn clamped(&self, x: ValueId, coding: Coding) -> Clamped {
        let unclamped = Clamped { value: x, bounds: None };
        let Some(node) = self.graph.only_for(&self.index, x) else { return unclamped };
        let (min, max) = match (&node.op, node.inputs.as_slice()) {
            (Op::Unary(unary), [_]) => match unary.0 {
                U::Relu => (0.0, f32::INFINITY),
                U::Relu6 => (0.0, 6.0),
                U::Clip { min, max } if min <= max => (min, max),
                _ => return unclamped,
            },
            _ => return unclamped,
        };
        Clamped { value: node.inputs[0], bounds: Some((coding.code(min), coding.code(max))) }
    }

    fn push(&mut self, op: impl Into<Op>, name: &str, inputs: Vec<ValueId>, output: ValueId) {
        self.nodes.push(Node { op: op.into(), name: name.to_owned(), inputs, outputs: vec![output] });
    }

    fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph.new_constant(tensor)
    }
}

#[cfg(test)]
mod testing {
    use super::*;
    use crate::{graph::Builder, ops::quant::Dequantize};

    pub(super) fn zero_of(b: &mut Builder, dtype: DType, zero: i32) -> ValueId {
        match dtype {
            DType::I8 => b.constant(Tensor::scalar(zero as i8)),
            _ => b.constant(Tensor::scalar(zero as u8)),
        }
    }

    /// There and back.
    pub(super) fn coded(b: &mut Builder, x: ValueId, dtype: DType, scale: f32, zero: i32) -> ValueId {
        let (scale, zero) = (b.scalar(scale), zero_of(b, dtype, zero));
        let bytes = b.push(Quantize { axis: 1, dtype }, &[x, scale, zero]);
        b.push(Dequantize { axis: 1 }, &[bytes, scale, zero])
    }

    /// Weights of whole numbers of a scale per channel of an axis, all powers of two.
    pub(super) fn weights(b: &mut Builder, shape: &[usize], axis: usize) -> ValueId {
        let elements: usize = shape.iter().product();
        let bytes: Vec<i8> = (0..elements).map(|i| (i * 37 % 255) as i8).collect();
        let bytes = b.constant(Tensor::from_slice(shape, &bytes).unwrap());
        let scales: Vec<f32> = (0..shape[axis]).map(|i| [0.5, 0.25, 1.0][i % 3] / 64.0).collect();
        let scales = b.constant(Tensor::from_slice([scales.len()], &scales).unwrap());
        b.push(Dequantize { axis: axis as i64 }, &[bytes, scales])
    }
}
