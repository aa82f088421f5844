//! How operators work on a value whose axes stand in another order.

use super::{Pass, inverse, is_identity};
use crate::{
    graph::{Node, ValueId},
    ops::{Op, gather::Gather, shape::ExpandDims, shape::ShapeOf, shape::Squeeze},
    tensor::{DType, Tensor},
};

impl Pass<'_> {
    /// Applies the node before the transposes of its inputs; `None` where it cannot be.
    pub(super) fn rule(&mut self, node: &Node) -> Option<()> {
        match &node.op {
            Op::Unary(_) | Op::Cast(_) | Op::Not(_) | Op::Identity(_) => {
                let (base, perm) = self.first(node)?;
                self.apply(node, node.op.clone(), vec![base], &perm)
            }
            Op::Quantize(_) | Op::Dequantize(_) | Op::QuantizedTable(_) => {
                let (base, perm) = self.first(node)?;
                let one =
                    |scale: &ValueId| self.graph.constants.get(scale).is_some_and(|scale| scale.len() == 1);
                let table = matches!(node.op, Op::QuantizedTable(_));
                if !table && !node.inputs.get(1).is_some_and(one) {
                    return None;
                }
                self.with_others(node, node.op.clone(), base, &perm)
            }
            Op::QuantizedAdd(_) => {
                let (base, perm) = self.first(node)?;
                let lazy = self.lazy.get(node.inputs.get(1)?).filter(|lazy| lazy.perm == perm)?;
                let other = lazy.base;
                self.apply(node, node.op.clone(), vec![base, other], &perm)
            }
            Op::Binary(_) | Op::Compare(_) | Op::Logical(_) | Op::Select(_) => self.element_by_element(node),
            Op::Concat(concat) => {
                let perm = self.common(&node.inputs)?;
                let axis = along(&perm, concat.axis)?;
                // Constants lose leading dimensions of 1 where they are turned.
                let whole = |value: &ValueId| {
                    self.shapes.rank(*value) == Some(perm.len()) && !self.graph.constants.contains_key(value)
                };
                if !node.inputs.iter().all(whole) {
                    return None;
                }
                let inputs = self.operands_of(&node.inputs, &perm)?;
                let mut concat = concat.clone();
                concat.axis = axis;
                self.apply(node, concat, inputs, &perm)
            }
            Op::Split(split) => {
                let (base, perm) = self.first(node)?;
                let mut split = split.clone();
                split.axis = along(&perm, split.axis)?;
                self.with_others(node, split, base, &perm)
            }
            Op::Softmax(softmax) => {
                let (base, perm) = self.first(node)?;
                let mut softmax = softmax.clone();
                softmax.axis = along(&perm, softmax.axis)?;
                self.apply(node, softmax, vec![base], &perm)
            }
            Op::LayerNorm(norm) => {
                let (base, perm) = self.first(node)?;
                let last = perm.len().checked_sub(1)?;
                let rows = (norm.axis == -1 || norm.axis == last as i64) && perm[last] == last;
                if !rows {
                    return None;
                }
                self.with_others(node, norm.clone(), base, &perm)
            }
            Op::Resize(resize) => {
                let (base, perm) = self.first(node)?;
                if resize.axes.is_empty() {
                    return None;
                }
                let mut resize = resize.clone();
                resize.axes = all_along(&perm, &resize.axes)?;
                self.with_others(node, resize, base, &perm)
            }
            Op::Reduce(reduce) => self.reduce(node, reduce),
            Op::Pad(pad) => {
                let (base, perm) = self.first(node)?;
                let pads = self.graph.constants.get(node.inputs.get(1)?)?.to_i64_vec().ok()?;
                let order = inverse(&perm);
                let pairs: Vec<i64> = order
                    .iter()
                    .filter_map(|&axis| pads.get(2 * axis..2 * axis + 2))
                    .flatten()
                    .copied()
                    .collect();
                let pairs = Tensor::from_slice([perm.len(), 2], &pairs).ok()?;
                let pairs = self.graph.new_constant(pairs);
                let mut inputs = vec![base, pairs];
                inputs.extend(node.inputs.iter().skip(2));
                self.apply(node, pad.clone(), inputs, &perm)
            }
            Op::Slice(_) => self.slice(node),
            Op::Squeeze(squeeze) => {
                let (base, perm) = self.first(node)?;
                if squeeze.axes.is_empty() {
                    return None;
                }
                let axes = all_along(&perm, &squeeze.axes)?;
                let rest = without(&perm, &axes);
                self.apply(node, Squeeze { axes }, vec![base], &rest)
            }
            Op::ExpandDims(expand) => {
                let (base, perm) = self.first(node)?;
                // The new axes stand last in the base.
                let rank = perm.len() + expand.axes.len();
                let new: Vec<usize> =
                    expand.axes.iter().map(|&axis| position(axis, rank)).collect::<Option<_>>()?;
                let (mut old, mut next) = (perm.iter().copied(), perm.len()..);
                let grown = (0..rank).map(|axis| if new.contains(&axis) { next.next() } else { old.next() });
                let grown: Vec<usize> = grown.collect::<Option<_>>()?;
                let axes = (perm.len()..rank).map(|axis| axis as i64).collect();
                self.apply(node, ExpandDims { axes }, vec![base], &grown)
            }
            Op::ShapeOf(shape) => {
                let (base, perm) = self.first(node)?;
                let raw = self.graph.new_value();
                self.push_to(ShapeOf { dtype: shape.dtype }, &node.name, vec![base], vec![raw]);
                let order: Vec<i64> = perm.iter().map(|&axis| axis as i64).collect();
                let order = self.graph.new_constant(Tensor::from_slice([order.len()], &order).ok()?);
                let gather = Gather { axis: 0, batch_dims: 0, negative: false };
                self.push_to(gather, &node.name, vec![raw, order], node.outputs.clone());
                Some(())
            }
            Op::MatMul(product) => {
                let (&a, &b) = (node.inputs.first()?, node.inputs.get(1)?);
                let lazy = self.lazy.get(&b)?;
                let (base, mut perm) = (lazy.base, lazy.perm.clone());
                let rank = perm.len();
                if rank < 2 {
                    return None;
                }
                perm.swap(rank - 2, rank - 1);
                // Rows that stay whole are cheaper to move, and products read factors either way.
                if perm[rank - 1] != rank - 1 || lazy.perm[rank - 1] == rank - 1 {
                    return None;
                }
                let mut product = product.clone();
                product.transpose_b = !product.transpose_b;
                let factor = self.graph.new_value();
                self.note(factor, base, perm);
                let mut inputs = vec![self.read(a), self.read(factor)];
                inputs.extend(
                    node.inputs[2..].iter().copied().map(|value| self.read(value)).collect::<Vec<_>>(),
                );
                self.push_to(product, &node.name, inputs, node.outputs.clone());
                Some(())
            }
            Op::Gather(gather) => {
                let (base, perm) = self.first(node)?;
                let &indices = node.inputs.get(1)?;
                if gather.batch_dims != 0 {
                    return None;
                }
                let axis = along(&perm, gather.axis)?;
                let perm = match self.shapes.rank(indices)? {
                    0 => without(&perm, &[axis]),
                    1 => perm,
                    _ => return None,
                };
                let mut gather = gather.clone();
                gather.axis = axis;
                self.with_others(node, gather, base, &perm)
            }
            Op::Reshape(_) => self.reshape(node),
            _ => None,
        }
    }

    /// The permutation that most transposed inputs have.
    fn common(&self, inputs: &[ValueId]) -> Option<Vec<usize>> {
        let perms: Vec<&Vec<usize>> =
            inputs.iter().filter_map(|value| self.lazy.get(value)).map(|lazy| &lazy.perm).collect();
        let count = |perm: &Vec<usize>| perms.iter().filter(|&&other| other == perm).count();
        let best = perms.iter().max_by_key(|perm| count(perm))?;
        // Turning several inputs to spare one transpose does not pay.
        let others = inputs.iter().filter(|value| !self.graph.constants.contains_key(value)).count();
        (2 * count(best) >= others && !is_identity(best)).then(|| (*best).clone())
    }

    fn operands_of(&mut self, inputs: &[ValueId], perm: &[usize]) -> Option<Vec<ValueId>> {
        inputs.iter().map(|&value| self.operand(value, perm)).collect()
    }

    fn element_by_element(&mut self, node: &Node) -> Option<()> {
        let perm = self.common(&node.inputs)?;
        let &output = node.outputs.first()?;
        if self.shapes.rank(output).is_some_and(|rank| rank != perm.len()) {
            return None;
        }
        let inputs = self.operands_of(&node.inputs, &perm)?;
        self.apply(node, node.op.clone(), inputs, &perm)
    }

    /// Applies an operator whose other inputs do not depend on the order of axes.
    fn with_others(&mut self, node: &Node, op: impl Into<Op>, base: ValueId, perm: &[usize]) -> Option<()> {
        let mut inputs = vec![base];
        for &value in &node.inputs[1..] {
            inputs.push(self.read(value));
        }
        self.apply(node, op, inputs, perm)
    }

    fn reduce(&mut self, node: &Node, reduce: &crate::ops::reduce::Reduce) -> Option<()> {
        let (base, perm) = self.first(node)?;
        let given: Vec<i64> = match &reduce.axes {
            Some(axes) => axes.clone(),
            None => (0..perm.len() as i64).collect(),
        };
        let mut axes = all_along(&perm, &given)?;
        axes.sort_unstable();
        let rest = if reduce.keep_dims { perm.clone() } else { without(&perm, &axes) };
        let mut reduce = reduce.clone();
        reduce.axes = Some(axes);
        self.apply(node, reduce, vec![base], &rest)
    }

    /// Input 3 are the axes; without it the first ones are meant.
    fn slice(&mut self, node: &Node) -> Option<()> {
        let (base, perm) = self.first(node)?;
        let known = |value: &ValueId| self.graph.constants.get(value);
        let (axes, dtype) = match node.inputs.get(3) {
            Some(axes) => (known(axes)?.to_i64_vec().ok()?, known(axes)?.dtype()),
            None => {
                let starts = known(node.inputs.get(1)?)?;
                ((0..starts.len() as i64).collect(), starts.dtype())
            }
        };
        let axes = all_along(&perm, &axes)?;
        let axes = match dtype {
            DType::I32 => {
                let narrow: Vec<i32> = axes.iter().map(|&axis| axis as i32).collect();
                Tensor::from_slice([narrow.len()], &narrow)
            }
            _ => Tensor::from_slice([axes.len()], &axes),
        };
        let axes = self.graph.new_constant(axes.ok()?);
        let (&starts, &ends) = (node.inputs.get(1)?, node.inputs.get(2)?);
        let mut inputs = vec![base, self.read(starts), self.read(ends), axes];
        let steps = node.inputs.get(4).map(|&steps| self.read(steps));
        inputs.extend(steps);
        self.apply(node, node.op.clone(), inputs, &perm)
    }
}

/// An axis counted from either end, from the front.
fn position(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

/// The base's axis behind an axis.
fn along(perm: &[usize], axis: i64) -> Option<i64> {
    Some(perm[position(axis, perm.len())?] as i64)
}

pub(super) fn all_along(perm: &[usize], axes: &[i64]) -> Option<Vec<i64>> {
    axes.iter().map(|&axis| along(perm, axis)).collect()
}

/// What is left of a permutation when these axes of the base go.
fn without(perm: &[usize], gone: &[i64]) -> Vec<usize> {
    let gone = |axis: usize| gone.contains(&(axis as i64));
    let left = perm.iter().copied().filter(|&axis| !gone(axis));
    left.map(|axis| axis - (0..axis).filter(|&before| gone(before)).count()).collect()
}
