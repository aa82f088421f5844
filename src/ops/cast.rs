//! Conversion between element types.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs};
use crate::tensor::{DType, Shape, Tensor, buffer::Plain};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// `x` converted to another dtype. Floats become integers by truncation and saturate at the
/// range's ends (NaN becomes 0); integers wrap; anything but zero becomes `true`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cast {
    /// The dtype wanted.
    pub to: DType,
}

impl Operator for Cast {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        let Fact { dtype: from, shape, .. } = &inputs[0];
        if *from == self.to {
            return Ok(Inferred::Facts(vec![inputs[0].clone()]));
        }
        if !is_number(*from) || !is_number(self.to) {
            return Err(OpError::unsupported(format!("Cast {from} to {} is not supported", self.to)));
        }
        Ok(Inferred::one(self.to, shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let from = cx.inputs[0].dtype;
        if from == self.to {
            return Ok(Step::alias());
        }
        let unsupported = || OpError::unsupported(format!("Cast {from} to {} is not supported", self.to));
        match from {
            DType::Bool => read::<Bool>(self.to),
            DType::U8 => read::<u8>(self.to),
            DType::U16 => read::<u16>(self.to),
            DType::U32 => read::<u32>(self.to),
            DType::U64 => read::<u64>(self.to),
            DType::I8 => read::<i8>(self.to),
            DType::I16 => read::<i16>(self.to),
            DType::I32 => read::<i32>(self.to),
            DType::I64 => read::<i64>(self.to),
            DType::F16 => read::<f16>(self.to),
            DType::BF16 => read::<bf16>(self.to),
            DType::F32 => read::<f32>(self.to),
            DType::F64 => read::<f64>(self.to),
            _ => None,
        }
        .ok_or_else(unsupported)
    }
}

/// The bytes of `x` read as another dtype. Where that is smaller or larger, a last axis of the parts is
/// added or taken away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bitcast {
    /// The dtype wanted.
    pub to: DType,
}

impl Operator for Bitcast {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        let Fact { dtype: from, shape, .. } = &inputs[0];
        let misfit = || OpError::invalid(format!("Cannot bitcast {from} {shape} to {}", self.to));
        let (Some(have), Some(want)) = (from.size(), self.to.size()) else { return Err(misfit()) };
        // Not every byte is a bool.
        if self.to == DType::Bool {
            return Err(misfit());
        }
        let mut shape: Shape = shape.clone();
        if have > want {
            shape.push(have / want);
        } else if have < want {
            match shape.last() {
                Some(&parts) if parts == want / have => drop(shape.remove(shape.len() - 1)),
                _ => return Err(misfit()),
            }
        }
        Ok(Inferred::one(self.to, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (to, shape) = (self.to, cx.outputs[0].shape.clone());
        Ok(Step::tensors(move |inputs, _| {
            let [x] = inputs else { return Err(OpError::Memory("a bitcast")) };
            let bytes = crate::tensor::Buffer::copy_of(x.as_bytes())?;
            Ok(vec![Tensor::from_buffer(to, shape.clone(), bytes)?])
        }))
    }
}

fn is_number(dtype: DType) -> bool {
    dtype == DType::Bool || dtype.is_float() || dtype.is_integer()
}

/// A number on its way from one type to another: integers exactly, floats as `f64`.
#[derive(Clone, Copy)]
enum Wide {
    Integer(i128),
    Float(f64),
}

trait Number: Copy + 'static {
    type Stored: Plain + 'static;
    fn widen(stored: Self::Stored) -> Wide;
    fn narrow(wide: Wide) -> Self::Stored;
}

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl Number for $t {
            type Stored = $t;
            #[inline]
            fn widen(stored: $t) -> Wide {
                Wide::Integer(i128::from(stored))
            }
            #[inline]
            fn narrow(wide: Wide) -> $t {
                match wide {
                    Wide::Integer(value) => value as $t,
                    Wide::Float(value) => value as $t,
                }
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, i8, i16, i32, i64);

macro_rules! floats {
    ($($t:ty: $to:expr, $from:expr, $from_integer:expr);* $(;)?) => {$(
        impl Number for $t {
            type Stored = $t;
            #[inline]
            fn widen(stored: $t) -> Wide {
                Wide::Float($to(stored))
            }
            #[inline]
            fn narrow(wide: Wide) -> $t {
                match wide {
                    Wide::Integer(value) => $from_integer(value),
                    Wide::Float(value) => $from(value),
                }
            }
        }
    )*};
}
floats! {
    f16: f16::to_f64, f16::from_f64, |v: i128| f16::from_f64(v as f64);
    bf16: bf16::to_f64, bf16::from_f64, |v: i128| bf16::from_f64(v as f64);
    f32: f64::from, |v| v as f32, |v| v as f32;
    f64: |v| v, |v| v, |v| v as f64;
}

#[derive(Clone, Copy)]
struct Bool;

impl Number for Bool {
    type Stored = u8;
    fn widen(stored: u8) -> Wide {
        Wide::Integer(i128::from(stored != 0))
    }
    fn narrow(wide: Wide) -> u8 {
        u8::from(match wide {
            Wide::Integer(value) => value != 0,
            Wide::Float(value) => value != 0.0,
        })
    }
}

fn read<From: Number>(to: DType) -> Option<Step> {
    Some(match to {
        DType::Bool => convert::<From, Bool>(),
        DType::U8 => convert::<From, u8>(),
        DType::U16 => convert::<From, u16>(),
        DType::U32 => convert::<From, u32>(),
        DType::U64 => convert::<From, u64>(),
        DType::I8 => convert::<From, i8>(),
        DType::I16 => convert::<From, i16>(),
        DType::I32 => convert::<From, i32>(),
        DType::I64 => convert::<From, i64>(),
        DType::F16 => convert::<From, f16>(),
        DType::BF16 => convert::<From, bf16>(),
        DType::F32 => convert::<From, f32>(),
        DType::F64 => convert::<From, f64>(),
        _ => return None,
    })
}

fn convert<From: Number, To: Number>() -> Step {
    Step::arena(|io| {
        let (x, y) = (io.input::<From::Stored>(0)?, io.next_output::<To::Stored>()?);
        for (y, &x) in y.iter_mut().zip(x) {
            *y = To::narrow(From::widen(x));
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op, tensor::Tensor};

    #[test]
    fn floats_truncate_and_saturate() {
        let x = Tensor::from_slice([5], &[1.9f32, -1.9, 300.0, f32::NAN, -1e30]).unwrap();
        let y = run_op(Cast { to: DType::I8 }, &[x.clone()]).unwrap();
        assert_eq!(y[0].as_slice::<i8>().unwrap(), [1, -1, 127, 0, -128]);
        let y = run_op(Cast { to: DType::Bool }, &[x]).unwrap();
        assert_eq!(y[0].as_bools().unwrap(), [true; 5]);
    }

    #[test]
    fn integers_wrap() {
        let x = Tensor::from_slice([2], &[300i32, -1]).unwrap();
        let y = run_op(Cast { to: DType::U8 }, &[x.clone()]).unwrap();
        assert_eq!(y[0].as_slice::<u8>().unwrap(), [44, 255]);
        let y = run_op(Cast { to: DType::F16 }, &[x.clone()]).unwrap();
        assert_eq!(y[0].as_slice::<f16>().unwrap(), [f16::from_f32(300.0), f16::from_f32(-1.0)]);
        assert!(run_op(Cast { to: DType::String }, &[x]).is_err());
    }
}
