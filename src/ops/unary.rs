//! Functions of one argument, element by element.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs, function::one_function};
use crate::{
    kernels::{self, unary_f64},
    tensor::DType,
};
use half::{bf16, f16};

/// `y = f(x)`; shape and dtype stay. Floats have every function, signed integers `Abs`, `Neg`,
/// `Sign`, `Square`, `Relu`, `Clip`, `Identity`.
#[derive(Clone, Debug, PartialEq)]
pub struct Unary(pub kernels::Unary);

one_function!(Unary(kernels::Unary));

impl Unary {
    /// `max(x, 0)`
    pub fn relu() -> Self {
        Self(kernels::Unary::Relu)
    }
}

impl Operator for Unary {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        let Fact { dtype, shape, .. } = &inputs[0];
        let known = dtype.is_float() || (dtype.is_integer() && integer_function(self.0).is_some());
        if !known {
            return Err(OpError::unsupported(format!("{:?} of {dtype} is not supported", self.0)));
        }
        Ok(Inferred::one(*dtype, shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let op = self.0;
        macro_rules! integers {
            ($t:ty) => {{
                let function = integer_function(op)
                    .ok_or_else(|| OpError::unsupported(format!("{op:?} of integers is not supported")))?;
                Step::arena(move |io| {
                    let (x, y) = (io.input::<$t>(0)?, io.next_output::<$t>()?);
                    for (y, &x) in y.iter_mut().zip(x) {
                        // The functions of this set never leave the type's range but by wrapping.
                        *y = function(x as i128) as $t;
                    }
                    Ok(())
                })
            }};
        }
        macro_rules! narrow_floats {
            ($t:ty) => {
                Step::arena(move |io| {
                    let (x, y) = (io.input::<$t>(0)?, io.next_output::<$t>()?);
                    let threads = io.context().threads;
                    let kernels = io.context().kernels;
                    let mut block = [0.0f32; 256];
                    for (x, y) in x.chunks(block.len()).zip(y.chunks_mut(block.len())) {
                        let wide = &mut block[..x.len()];
                        for (wide, x) in wide.iter_mut().zip(x) {
                            *wide = x.to_f32();
                        }
                        kernels.unary_in_place(op, wide, threads);
                        for (y, wide) in y.iter_mut().zip(wide) {
                            *y = <$t>::from_f32(*wide);
                        }
                    }
                    Ok(())
                })
            };
        }
        Ok(match cx.inputs[0].dtype {
            DType::F32 => Step::arena(move |io| {
                let (x, y) = (io.input(0)?, io.next_output()?);
                Ok(io.context().kernels.unary(op, x, y, io.context().threads)?)
            }),
            DType::F64 => Step::arena(move |io| Ok(unary_f64(op, io.input(0)?, io.next_output()?)?)),
            DType::F16 => narrow_floats!(f16),
            DType::BF16 => narrow_floats!(bf16),
            DType::U8 => integers!(u8),
            DType::U16 => integers!(u16),
            DType::U32 => integers!(u32),
            DType::U64 => integers!(u64),
            DType::I8 => integers!(i8),
            DType::I16 => integers!(i16),
            DType::I32 => integers!(i32),
            DType::I64 => integers!(i64),
            other => return Err(OpError::unsupported(format!("{op:?} of {other} is not supported"))),
        })
    }
}

/// What a function does on integers; `None` where it is not defined.
fn integer_function(op: kernels::Unary) -> Option<fn(i128) -> i128> {
    use kernels::Unary as U;
    Some(match op {
        U::Identity | U::Floor | U::Ceil | U::Round | U::Trunc => |x| x,
        U::Abs => |x| x.abs(),
        U::Neg => |x| -x,
        U::Square => |x| x.wrapping_mul(x),
        U::Sign => |x| x.signum(),
        U::Relu => |x| x.max(0),
        U::Relu6 => |x| x.clamp(0, 6),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::kernels::Unary as U;
    use crate::{graph::testing::run_op, ops::unary::Unary, tensor::Tensor};

    #[test]
    fn every_float_type_computes() {
        let x = [-1.5f32, 0.0, 2.0, 7.0];
        let expected = [0.0f32, 0.0, 2.0, 6.0];
        let y = run_op(Unary(U::Relu6), &[Tensor::from_slice([4], &x).unwrap()]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), expected);
        let half = x.map(half::f16::from_f32);
        let y = run_op(Unary(U::Relu6), &[Tensor::from_slice([2, 2], &half).unwrap()]).unwrap();
        assert_eq!(y[0].as_slice::<half::f16>().unwrap(), expected.map(half::f16::from_f32));
        let double = x.map(f64::from);
        let y = run_op(Unary(U::Relu6), &[Tensor::from_slice([4], &double).unwrap()]).unwrap();
        assert_eq!(y[0].as_slice::<f64>().unwrap(), expected.map(f64::from));
    }

    #[test]
    fn integers_wrap_and_refuse_what_they_lack() {
        let x = Tensor::from_slice([3], &[i8::MIN, -3, 20]).unwrap();
        let y = run_op(Unary(U::Square), &[x.clone()]).unwrap();
        assert_eq!(y[0].as_slice::<i8>().unwrap(), [0, 9, 400u16 as i8]);
        let y = run_op(Unary(U::Neg), &[x.clone()]).unwrap();
        assert_eq!(y[0].as_slice::<i8>().unwrap(), [i8::MIN, 3, -20]);
        assert!(run_op(Unary(U::Exp), &[x]).is_err());
    }
}
