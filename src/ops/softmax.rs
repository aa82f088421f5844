//! Softmax along an axis.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs};
use crate::{
    kernels::Axis,
    tensor::{DType, buffer::Plain},
};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// `e^x / sum(e^x)` along an axis, or its logarithm; for floats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Softmax {
    /// The axis; negative from the back.
    #[serde(default = "last")]
    pub axis: i64,
    /// Gives the logarithm.
    #[serde(default)]
    pub log: bool,
}

fn last() -> i64 {
    -1
}

impl Softmax {
    fn axis(&self, x: &Fact) -> Result<Axis, OpError> {
        let axis = x.shape.axis(self.axis).ok_or_else(|| {
            OpError::invalid(format!("axis {} is out of range for softmax of shape {}", self.axis, x.shape))
        })?;
        Ok(Axis::of(x.dims(), axis)?)
    }
}

impl Operator for Softmax {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        let x = &inputs[0];
        if !x.dtype.is_float() {
            return Err(OpError::unsupported(format!("softmax of {} is not supported", x.dtype)));
        }
        self.axis(x)?;
        Ok(Inferred::one(x.dtype, x.shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (axis, log) = (self.axis(&cx.inputs[0])?, self.log);
        Ok(match cx.inputs[0].dtype {
            DType::F64 => rows::<f64>(axis, log, |x| x, |y| y),
            DType::F16 => rows::<f16>(axis, log, f16::to_f64, f16::from_f64),
            DType::BF16 => rows::<bf16>(axis, log, bf16::to_f64, bf16::from_f64),
            _ => Step::arena(move |io| {
                let (x, out) = (io.input(0)?, io.next_output()?);
                let cx = io.context();
                Ok(match log {
                    true => cx.kernels.log_softmax(axis, x, out, cx.threads)?,
                    false => cx.kernels.softmax(axis, x, out, cx.threads)?,
                })
            }),
        })
    }
}

/// The other float types, one row at a time in `f64`.
fn rows<T: Plain + 'static>(axis: Axis, log: bool, widen: fn(T) -> f64, narrow: fn(f64) -> T) -> Step {
    Step::arena(move |io| {
        let (x, out) = (io.input::<T>(0)?, io.next_output::<T>()?);
        for outer in 0..axis.outer {
            for inner in 0..axis.inner {
                let at = |index: usize| (outer * axis.size + index) * axis.inner + inner;
                let value = |index: usize| widen(x[at(index)]);
                let max = (0..axis.size).map(value).fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = (0..axis.size).map(|index| (value(index) - max).exp()).sum();
                for index in 0..axis.size {
                    let shifted = value(index) - max;
                    out[at(index)] = narrow(if log { shifted - sum.ln() } else { shifted.exp() / sum });
                }
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op, tensor::Tensor};

    /// Expected values from the definition: e^0 : e^ln 3 = 1 : 3.
    #[test]
    fn along_any_axis() {
        let ln3 = 3f32.ln();
        let x = Tensor::from_slice([2, 2], &[0.0, 1000.0, ln3, 1000.0]).unwrap();
        let y = run_op(Softmax { axis: 0, log: false }, &[x.clone()]).unwrap();
        for (&y, expected) in y[0].as_slice::<f32>().unwrap().iter().zip([0.25, 0.5, 0.75, 0.5]) {
            assert!((y - expected).abs() < 1e-6, "{y} {expected}");
        }
        let y = run_op(Softmax { axis: -1, log: true }, &[x]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap()[1], 0.0);
        let x = Tensor::from_slice([2], &[0.0, 3f64.ln()]).unwrap();
        let y = run_op(Softmax { axis: 0, log: false }, &[x.clone()]).unwrap();
        assert!((y[0].as_slice::<f64>().unwrap()[1] - 0.75).abs() < 1e-12);
        assert!(run_op(Softmax { axis: 1, log: false }, &[x]).is_err());
    }
}
