//! Where along an axis the greatest or least element stands.

use super::{Fact, Inferred, Io, Lower, OpError, Operator, Step, expect_inputs, mapping::axis_of};
use crate::{
    kernels::{self, Axis, Number},
    tensor::{DType, Shape, buffer::Plain},
};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// The index along an axis of the greatest or least element of numbers; NaN is never chosen over a
/// number, and an empty axis is an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArgReduce {
    /// The axis; negative from the back.
    pub axis: i64,
    /// The greatest, else the least.
    pub greatest: bool,
    /// Of equals the last, else the first.
    #[serde(default)]
    pub select_last: bool,
    /// Keeps the axis with size 1.
    #[serde(default)]
    pub keep_dims: bool,
    /// Type of the indices, `I32` or `I64`.
    #[serde(default = "i64_indices")]
    pub dtype: DType,
}

fn i64_indices() -> DType {
    DType::I64
}

impl Operator for ArgReduce {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        let x = &inputs[0];
        if !(x.dtype.is_float() || x.dtype.is_integer()) {
            return Err(OpError::unsupported(format!(
                "the index of an extreme {} is not supported",
                x.dtype
            )));
        }
        let axis = axis_of(&x.shape, self.axis)?;
        if x.shape[axis] == 0 {
            return Err(OpError::invalid(format!(
                "Reduction axis {} is empty in shape {}",
                self.axis, x.shape
            )));
        }
        let mut shape: Shape = x.shape.clone();
        match self.keep_dims {
            true => shape[axis] = 1,
            false => drop(shape.remove(axis)),
        }
        match self.dtype {
            DType::I32 | DType::I64 => Ok(Inferred::one(self.dtype, shape)),
            other => Err(OpError::unsupported(format!("indices cannot be {other}"))),
        }
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let x = &cx.inputs[0];
        let axis = Axis::of(x.dims(), axis_of(&x.shape, self.axis)?)?;
        let op = kernels::ArgReduce { greatest: self.greatest, select_last: self.select_last };
        let narrow = self.dtype == DType::I32;
        Ok(match x.dtype {
            DType::F32 => step::<f32>(op, axis, narrow),
            DType::F64 => step::<f64>(op, axis, narrow),
            DType::F16 => step::<f16>(op, axis, narrow),
            DType::BF16 => step::<bf16>(op, axis, narrow),
            DType::U8 => step::<u8>(op, axis, narrow),
            DType::U16 => step::<u16>(op, axis, narrow),
            DType::U32 => step::<u32>(op, axis, narrow),
            DType::U64 => step::<u64>(op, axis, narrow),
            DType::I8 => step::<i8>(op, axis, narrow),
            DType::I16 => step::<i16>(op, axis, narrow),
            DType::I32 => step::<i32>(op, axis, narrow),
            DType::I64 => step::<i64>(op, axis, narrow),
            other => {
                return Err(OpError::unsupported(format!(
                    "the index of an extreme {other} is not supported"
                )));
            }
        })
    }
}

fn step<T: Number + Plain>(op: kernels::ArgReduce, axis: Axis, narrow: bool) -> Step {
    if !narrow {
        return Step::arena(move |io: &mut Io<'_>| {
            Ok(kernels::arg_reduce(op, axis, io.input::<T>(0)?, io.next_output()?)?)
        });
    }
    let run = move |io: &mut Io<'_>| {
        let (x, out) = (io.input::<T>(0)?, io.next_output::<i32>()?);
        let wide = io.scratch::<i64>()?;
        kernels::arg_reduce(op, axis, x, wide)?;
        for (out, &index) in out.iter_mut().zip(wide.iter()) {
            *out = index as i32;
        }
        Ok(())
    };
    Step::arena(run).with_scratch(axis.outer * axis.inner * size_of::<i64>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op, tensor::Tensor};

    fn arg(axis: i64, greatest: bool) -> ArgReduce {
        ArgReduce { axis, greatest, select_last: false, keep_dims: false, dtype: DType::I64 }
    }

    #[test]
    fn extremes_along_an_axis() {
        let x = Tensor::from_slice([2, 3], &[1.0f32, 5.0, 5.0, -2.0, f32::NAN, -3.0]).unwrap();
        let run = |op: ArgReduce| run_op(op, std::slice::from_ref(&x)).unwrap().remove(0);
        assert_eq!(run(arg(-1, true)), Tensor::from_slice([2], &[1i64, 0]).unwrap());
        assert_eq!(run(arg(1, false)), Tensor::from_slice([2], &[0i64, 2]).unwrap());
        assert_eq!(run(arg(0, true)), Tensor::from_slice([3], &[0i64, 0, 0]).unwrap());
        let last = ArgReduce { select_last: true, keep_dims: true, dtype: DType::I32, ..arg(1, true) };
        assert_eq!(run(last), Tensor::from_slice([2, 1], &[2i32, 0]).unwrap());
    }

    #[test]
    fn empty_axes_and_strings_are_refused() {
        assert!(run_op(arg(0, true), &[Tensor::zeros(DType::F32, [0, 2]).unwrap()]).is_err());
        assert!(run_op(arg(1, true), &[Tensor::scalar(1.0f32)]).is_err());
        assert!(run_op(arg(0, true), &[Tensor::zeros(DType::String, [2]).unwrap()]).is_err());
    }
}
