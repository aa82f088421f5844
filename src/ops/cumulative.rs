//! Running sums and products along an axis.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs, mapping::axis_of, with_element};
use crate::{
    kernels::{self, Axis},
    tensor::DType,
};
use serde::{Deserialize, Serialize};

/// `y[i] = x[0] + .. + x[i]` along an axis; numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cumulative {
    /// The axis; negative from the back.
    pub axis: i64,
    /// Leaves an element out of its own sum.
    pub exclusive: bool,
    /// Sums from the end.
    pub reverse: bool,
    /// Multiplies instead.
    pub product: bool,
}

impl Operator for Cumulative {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        axis_of(&inputs[0].shape, self.axis)?;
        if inputs[0].dtype == DType::Bool {
            return Err(OpError::unsupported("running sums of bool are not supported"));
        }
        Ok(Inferred::one(inputs[0].dtype, inputs[0].shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let x = &cx.inputs[0];
        let axis = Axis::of(x.dims(), axis_of(&x.shape, self.axis)?)?;
        let Self { exclusive, reverse, product, .. } = *self;
        let op = kernels::Cumulative { exclusive, reverse, product };
        with_element!(x.dtype, T => Ok(Step::arena(move |io| {
            let (x, out) = (io.input::<T>(0)?, io.next_output::<T>()?);
            Ok(kernels::cumulative(op, axis, x, out)?)
        })), else Err(OpError::unsupported(format!("running sums of {} are not supported", x.dtype))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op, tensor::Tensor};

    /// The examples in TensorFlow's documentation of `cumsum` and `cumprod`.
    #[test]
    fn sums_and_products() {
        let x = Tensor::from_slice([3], &[2i32, 3, 5]).unwrap();
        let run = |op: Cumulative| run_op(op, std::slice::from_ref(&x)).unwrap()[0].to_i64_vec().unwrap();
        assert_eq!(run(Cumulative::default()), [2, 5, 10]);
        assert_eq!(run(Cumulative { exclusive: true, ..Cumulative::default() }), [0, 2, 5]);
        assert_eq!(run(Cumulative { reverse: true, ..Cumulative::default() }), [10, 8, 5]);
        assert_eq!(run(Cumulative { product: true, axis: -1, ..Cumulative::default() }), [2, 6, 30]);
        assert!(run_op(Cumulative { axis: 1, ..Cumulative::default() }, &[x]).is_err());
    }
}
