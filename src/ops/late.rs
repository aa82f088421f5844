//! Operators whose axes are not known before the run, or not before planning.

use super::{
    Fact, Inferred, Lower, Op, OpError, Operator, Step,
    cumulative::Cumulative,
    known_integers,
    reduce::Reduce,
    shape::{ExpandDims, Identity, Squeeze},
    unary::Unary,
};
use crate::kernels::{Reduce as R, Unary as U};
use serde::{Deserialize, Serialize};

/// `Reduce`, `Squeeze`, `ExpandDims` or `Cumulative` along the axes that are the last input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WithAxes {
    /// The operator; its own axes do not count.
    pub of: Box<Op>,
    /// Nothing is reduced when there are no axes, else everything is.
    #[serde(default)]
    pub none_keeps: bool,
}

impl WithAxes {
    /// The operator with these axes.
    pub(crate) fn concrete(&self, axes: Vec<i64>) -> Result<Op, OpError> {
        Ok(match &*self.of {
            Op::Reduce(op) if axes.is_empty() && self.none_keeps => match op.kind {
                R::SumSquare => Unary(U::Square).into(),
                R::L1 | R::L2 => Unary(U::Abs).into(),
                R::LogSum => Unary(U::Log).into(),
                _ => Identity.into(),
            },
            Op::Reduce(op) => Reduce { axes: (!axes.is_empty()).then_some(axes), ..op.clone() }.into(),
            Op::Squeeze(_) => Squeeze { axes }.into(),
            Op::ExpandDims(_) => ExpandDims { axes }.into(),
            Op::Cumulative(op) => match axes.as_slice() {
                &[axis] => Cumulative { axis, ..op.clone() }.into(),
                _ => return Err(OpError::invalid("the axis must be one number")),
            },
            other => return Err(OpError::unsupported(format!("{} with computed axes", other.name()))),
        })
    }
}

impl Operator for WithAxes {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        let last = inputs.len().checked_sub(1).ok_or_else(|| OpError::invalid("the axes are missing"))?;
        let axes = known_integers!(inputs, last);
        self.concrete(axes)?.infer(&inputs[..last])
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let last = cx.inputs.len().saturating_sub(1);
        let axes = cx.value(last).ok_or(OpError::Memory("axes"))?.to_i64_vec()?;
        let constants = cx.constants.get(..last).unwrap_or_default();
        self.concrete(axes)?.lower(&Lower { inputs: &cx.inputs[..last], constants, ..*cx })
    }
}
