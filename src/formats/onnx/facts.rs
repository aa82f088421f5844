//! What is known of values while importing: element types, ranks, and what does not depend on the
//! request.
//!
//! The operators' own shape rules want concrete shapes. So a dimension that is open is tried with
//! two sizes, and small values such as shapes are computed with both. Ranks are the same both times.
//! Dimensions and values are told only where no open dimension had a part in them: a clamped or
//! compared size may agree for two sizes and differ for a third. The sizes have many divisors, for
//! reshapes, and are large, for windows.

use super::tensor::Declared;
use crate::{
    graph::{Builder, Node, ValueId, fold_small},
    ops::{Fact, Inferred, Op, Operator},
    tensor::{DType, Shape, Tensor},
};
use std::collections::HashMap;

const STAND_INS: [usize; 2] = [480, 960];
/// Elements of a tensor that shape rules are tried with.
const MAX_TRIED: usize = 1 << 62;

/// What is known of one value.
#[derive(Clone, Debug)]
struct Known {
    tries: [Fact; 2],
    /// No open dimension had a part in it.
    exact: bool,
}

/// Facts by value, for the first nodes of a builder.
#[derive(Debug, Default)]
pub(super) struct Facts {
    seen: usize,
    known: HashMap<ValueId, Known>,
    /// Where the shape is not known.
    dtypes: HashMap<ValueId, DType>,
}

impl Facts {
    /// Takes over what a file declares, unless more is known.
    pub(super) fn declare(&mut self, b: &Builder, value: ValueId, declared: &Declared) {
        self.update(b);
        if b.constant_value(value).is_some() || self.known.contains_key(&value) {
            return;
        }
        let Some(dtype) = declared.dtype else { return };
        match &declared.dims {
            Some(dims) => {
                let exact = dims.iter().all(Option::is_some);
                let tries = STAND_INS.map(|size| {
                    let shape: Shape = dims.iter().map(|dim| dim.unwrap_or(size)).collect();
                    Fact::new(dtype, shape)
                });
                self.known.insert(value, Known { tries, exact });
            }
            None => drop(self.dtypes.insert(value, dtype)),
        }
    }

    /// The element type.
    pub(super) fn dtype(&mut self, b: &Builder, value: ValueId) -> Option<DType> {
        self.update(b);
        self.dtype_so_far(b, value)
    }

    fn dtype_so_far(&self, b: &Builder, value: ValueId) -> Option<DType> {
        let constant = b.constant_value(value).map(Tensor::dtype);
        let known = self.known.get(&value).map(|known| known.tries[0].dtype);
        constant.or(known).or_else(|| self.dtypes.get(&value).copied())
    }

    /// The dimensions, `None` for one that may be open; `None` altogether when the rank is not known.
    pub(super) fn dims(&mut self, b: &Builder, value: ValueId) -> Option<Vec<Option<usize>>> {
        self.update(b);
        if let Some(tensor) = b.constant_value(value) {
            return Some(tensor.shape().iter().map(|&dim| Some(dim)).collect());
        }
        let known = self.known.get(&value)?;
        Some(known.tries[0].dims().iter().map(|&dim| known.exact.then_some(dim)).collect())
    }

    /// The value itself.
    pub(super) fn value(&mut self, b: &Builder, value: ValueId) -> Option<Tensor> {
        self.update(b);
        self.known.get(&value).filter(|known| known.exact)?.tries[0].value.clone()
    }

    /// True when element `position` of `sizes` is the length of `axis` of `value`, whatever it is.
    pub(super) fn is_size_of(
        &mut self,
        b: &Builder,
        sizes: ValueId,
        position: usize,
        value: ValueId,
        axis: usize,
    ) -> bool {
        self.update(b);
        let (Some(sizes), Some(value)) = (self.known.get(&sizes), self.known.get(&value)) else {
            return false;
        };
        sizes.tries.iter().zip(&value.tries).all(|(sizes, value)| {
            let sizes = sizes.value.as_ref().and_then(|sizes| sizes.to_i64_vec().ok());
            let dim = value.dims().get(axis).map(|&dim| dim as i64);
            dim.is_some() && sizes.and_then(|sizes| sizes.get(position).copied()) == dim
        })
    }

    /// Follows the nodes that were added.
    fn update(&mut self, b: &Builder) {
        for node in b.nodes().iter().skip(self.seen) {
            let Some((tries, exact)) = self.infer(b, node) else {
                self.guess_dtypes(b, node);
                continue;
            };
            let [first, second] = tries;
            for ((&value, first), second) in node.outputs.iter().zip(first).zip(second) {
                if first.rank() == second.rank() && first.dtype == second.dtype {
                    self.known.insert(value, Known { tries: [first, second], exact });
                }
            }
        }
        self.seen = b.nodes().len();
    }

    fn infer(&self, b: &Builder, node: &Node) -> Option<([Vec<Fact>; 2], bool)> {
        let known = |value: &ValueId| match b.constant_value(*value) {
            Some(tensor) => {
                let fact = Fact::known(tensor.clone());
                Some(Known { tries: [fact.clone(), fact], exact: true })
            }
            None => self.known.get(value).cloned(),
        };
        let inputs: Vec<Known> = node.inputs.iter().map(known).collect::<Option<_>>()?;
        let tries = inputs.iter().flat_map(|known| &known.tries);
        if tries
            .map(|fact| fact.shape.checked_elements())
            .any(|found| found.is_none_or(|found| found > MAX_TRIED))
        {
            return None;
        }
        let mut exact = inputs.iter().all(|known| known.exact);
        if let Op::Squeeze(squeeze) = &node.op
            && squeeze.axes.is_empty()
            && !exact
        {
            return None;
        }
        let attempt = |number: usize| {
            let facts: Vec<Fact> = inputs.iter().map(|known| known.tries[number].clone()).collect();
            outputs(node, &facts, STAND_INS[number])
        };
        let (first, sure) = attempt(0)?;
        exact &= sure;
        let second = if exact { first.clone() } else { attempt(1)?.0 };
        Some(([first, second], exact))
    }

    /// Most operators keep the type of their first input.
    fn guess_dtypes(&mut self, b: &Builder, node: &Node) {
        let of = |value: &ValueId| self.dtype_so_far(b, *value);
        let dtype = match &node.op {
            Op::Cast(cast) => Some(cast.to),
            Op::Compare(_) | Op::Logical(_) | Op::Not(_) | Op::StringEqual(_) => Some(DType::Bool),
            Op::ShapeOf(op) => Some(op.dtype),
            Op::ArgReduce(op) => Some(op.dtype),
            Op::NonZero(_) | Op::NonMaxSuppression(_) => Some(DType::I64),
            Op::If(_) | Op::Loop(_) | Op::Scan(_) | Op::While(_) => None,
            Op::Select(_) => node.inputs.get(1).and_then(of),
            Op::OneHot(_) => node.inputs.get(2).and_then(of),
            _ => node.inputs.first().and_then(of),
        };
        if let Some(dtype) = dtype {
            self.dtypes.extend(node.outputs.iter().map(|&output| (output, dtype)));
        }
    }
}

/// Facts of a node's outputs, and whether they hold for these inputs for sure.
fn outputs(node: &Node, inputs: &[Fact], size: usize) -> Option<(Vec<Fact>, bool)> {
    let values: Option<Vec<Tensor>> = inputs.iter().map(|fact| fact.value.clone()).collect();
    if let Some(tensors) = values.and_then(|values| fold_small(&node.op, &values)) {
        return Some((tensors.into_iter().map(Fact::known).collect(), true));
    }
    match node.op.infer(inputs) {
        Ok(Inferred::Facts(facts)) => Some((facts, true)),
        // A size that was tried need not fit.
        Ok(Inferred::AtRun | Inferred::NeedsValue(_)) | Err(_) => Some((ranks(node, inputs, size)?, false)),
    }
}

/// Outputs of which only ranks are known.
fn ranks(node: &Node, inputs: &[Fact], size: usize) -> Option<Vec<Fact>> {
    let x = inputs.first()?;
    let length = || inputs.get(1).and_then(|fact| fact.dims().first().copied()).filter(|&rank| rank < 64);
    let open = |dtype: DType, rank: usize| Fact::new(dtype, vec![size; rank]);
    let widest = || inputs.iter().map(Fact::rank).max().unwrap_or(0);
    let fact = match &node.op {
        Op::NonZero(_) => Fact::new(DType::I64, [x.rank(), size]),
        Op::NonMaxSuppression(_) => Fact::new(DType::I64, [size, 3]),
        Op::Reshape(_) => open(x.dtype, length()?),
        Op::BroadcastTo(_) => open(x.dtype, length()?.max(x.rank())),
        Op::Range(_) => open(x.dtype, 1),
        Op::Squeeze(op) => open(x.dtype, x.rank().checked_sub(op.axes.len())?),
        Op::OneHot(_) => open(inputs.get(2)?.dtype, x.rank() + 1),
        Op::TopK(op) => return Some(vec![open(x.dtype, x.rank()), open(op.indices, x.rank())]),
        Op::Binary(_) | Op::MatMul(_) => open(x.dtype, widest()),
        Op::Compare(_) | Op::Logical(_) => open(DType::Bool, widest()),
        Op::Select(_) => open(inputs.get(1)?.dtype, widest()),
        Op::Slice(_)
        | Op::SliceSize(_)
        | Op::Tile(_)
        | Op::Pad(_)
        | Op::Resize(_)
        | Op::Split(_)
        | Op::Conv(_)
        | Op::InvertedResidual(_)
        | Op::ScaleShift(_)
        | Op::GatedConv(_)
        | Op::ConvTranspose(_)
        | Op::Pool(_)
        | Op::Softmax(_)
        | Op::LayerNorm(_)
        | Op::InstanceNorm(_)
        | Op::Lrn(_)
        | Op::GridSample(_)
        | Op::Concat(_)
        | Op::DepthToSpace(_)
        | Op::SpaceToDepth(_) => open(x.dtype, x.rank()),
        _ => return None,
    };
    Some(vec![fact; node.outputs.len()])
}
