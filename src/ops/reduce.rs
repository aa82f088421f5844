//! Reductions over axes.

use super::{Fact, Inferred, Io, Lower, OpError, Operator, Step, expect_inputs};
use crate::{
    kernels::{self, Number, ReducePlan},
    tensor::{DType, Shape, buffer::Plain},
};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// Reduces `axes` of `x` to one element each. Numbers; `All` and `Any` for `Bool`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reduce {
    /// What becomes of the elements.
    pub kind: kernels::Reduce,
    /// Axes, negative from the back; `None` means all.
    #[serde(default)]
    pub axes: Option<Vec<i64>>,
    /// Keeps the reduced axes with size 1.
    #[serde(default)]
    pub keep_dims: bool,
}

impl Reduce {
    fn axes(&self, x: &Fact) -> Result<Vec<usize>, OpError> {
        let Some(axes) = &self.axes else { return Ok((0..x.rank()).collect()) };
        axes.iter()
            .map(|&axis| {
                x.shape.axis(axis).ok_or_else(|| {
                    OpError::invalid(format!(
                        "Invalid reduction dimension ({axis} for input with {} dimension(s)",
                        x.rank()
                    ))
                })
            })
            .collect()
    }
}

impl Operator for Reduce {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        let x = &inputs[0];
        let logical = matches!(self.kind, kernels::Reduce::All | kernels::Reduce::Any);
        let fits = if logical { x.dtype == DType::Bool } else { x.dtype.is_float() || x.dtype.is_integer() };
        if !fits {
            return Err(OpError::unsupported(format!("{:?} of {} is not supported", self.kind, x.dtype)));
        }
        let axes = self.axes(x)?;
        let shape: Shape = x
            .dims()
            .iter()
            .enumerate()
            .filter_map(|(axis, &dim)| match (axes.contains(&axis), self.keep_dims) {
                (false, _) => Some(dim),
                (true, true) => Some(1),
                (true, false) => None,
            })
            .collect();
        Ok(Inferred::one(x.dtype, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let x = &cx.inputs[0];
        let plan = ReducePlan::new(x.dims(), &self.axes(x)?)?;
        let kind = self.kind;
        fn step<T: Number + Plain>(kind: kernels::Reduce, plan: ReducePlan) -> Step {
            Step::arena(move |io: &mut Io<'_>| {
                let (x, out) = (io.input::<T>(0)?, io.next_output::<T>()?);
                let cx = io.context();
                Ok(cx.kernels.reduce_any(kind, &plan, x, out, cx.threads)?)
            })
        }
        Ok(match x.dtype {
            DType::F32 => Step::arena(move |io| {
                let (x, out) = (io.input(0)?, io.next_output()?);
                let cx = io.context();
                Ok(cx.kernels.reduce(kind, &plan, x, out, cx.threads)?)
            }),
            DType::Bool => Step::arena(move |io| {
                let (x, out) = (io.input::<u8>(0)?, io.next_output::<u8>()?);
                Ok(io.context().kernels.reduce_truth(kind, &plan, x, out)?)
            }),
            DType::F64 => step::<f64>(kind, plan),
            DType::F16 => step::<f16>(kind, plan),
            DType::BF16 => step::<bf16>(kind, plan),
            DType::U8 => step::<u8>(kind, plan),
            DType::U16 => step::<u16>(kind, plan),
            DType::U32 => step::<u32>(kind, plan),
            DType::U64 => step::<u64>(kind, plan),
            DType::I8 => step::<i8>(kind, plan),
            DType::I16 => step::<i16>(kind, plan),
            DType::I32 => step::<i32>(kind, plan),
            DType::I64 => step::<i64>(kind, plan),
            other => return Err(OpError::unsupported(format!("{kind:?} of {other} is not supported"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op, tensor::Tensor};

    fn reduce(kind: kernels::Reduce, axes: Option<&[i64]>, keep_dims: bool) -> Reduce {
        Reduce { kind, axes: axes.map(<[i64]>::to_vec), keep_dims }
    }

    #[test]
    fn axes_and_dimensions() {
        let x = Tensor::from_slice([2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let run = |axes: Option<&[i64]>, keep| {
            let y = run_op(reduce(kernels::Reduce::Mean, axes, keep), &[x.clone()]).unwrap();
            (y[0].shape().to_vec(), y[0].as_slice::<f32>().unwrap().to_vec())
        };
        assert_eq!(run(Some(&[0]), false), (vec![3], vec![2.5, 3.5, 4.5]));
        assert_eq!(run(Some(&[-1]), true), (vec![2, 1], vec![2.0, 5.0]));
        assert_eq!(run(None, false), (vec![], vec![3.5]));
        assert_eq!(run(Some(&[]), false).0, [2, 3]);
        assert!(run_op(reduce(kernels::Reduce::Sum, Some(&[2]), false), &[x]).is_err());
    }

    #[test]
    fn integers_and_truth() {
        let x = Tensor::from_slice([3], &[3i64, -7, 5]).unwrap();
        let y = run_op(reduce(kernels::Reduce::Max, None, false), &[x.clone()]).unwrap();
        assert_eq!(y[0].as_slice::<i64>().unwrap(), [5]);
        assert!(run_op(reduce(kernels::Reduce::All, None, false), &[x]).is_err());
        let x = Tensor::from_slice([2], &[true, false]).unwrap();
        let y = run_op(reduce(kernels::Reduce::Any, None, false), &[x]).unwrap();
        assert_eq!(y[0].as_bools().unwrap(), [true]);
    }
}
