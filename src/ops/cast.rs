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
        if let Some(step) = direct(from, self.to) {
            return Ok(step);
        }
        let (Some(read), Some(write)) = (reader(from), writer(self.to)) else { return Err(unsupported()) };
        let (from, to) = (from.size().unwrap_or(1), self.to.size().unwrap_or(1));
        Ok(Step::arena(move |io| {
            let (x, y) = (io.input::<u8>(0)?, io.next_output::<u8>()?);
            let mut wide = [Wide::Integer(0); CHUNK];
            for (x, y) in x.chunks(CHUNK * from).zip(y.chunks_mut(CHUNK * to)) {
                read(x, &mut wide);
                write(&wide, y);
            }
            Ok(())
        }))
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

/// Numbers widened at a time.
const CHUNK: usize = 64;

type Reader = fn(&[u8], &mut [Wide; CHUNK]);
type Writer = fn(&[Wide; CHUNK], &mut [u8]);

trait Number: Copy + 'static {
    type Stored: Plain + 'static;
    fn widen(stored: Self::Stored) -> Wide;
    fn narrow(wide: Wide) -> Self::Stored;
    /// [`Number::widen`] of stored numbers in the machine's byte order.
    fn read(x: &[u8], wide: &mut [Wide; CHUNK]);
    /// [`Number::narrow`] into them.
    fn write(wide: &[Wide; CHUNK], y: &mut [u8]);
}

macro_rules! numbers {
    ($($t:ty as $stored:ty: |$value:ident| $widen:expr, |$integer:ident| $from_integer:expr, |$float:ident| $from_float:expr;)*) => {$(
        impl Number for $t {
            type Stored = $stored;
            #[inline(always)]
            fn widen($value: $stored) -> Wide {
                $widen
            }
            #[inline(always)]
            fn narrow(wide: Wide) -> $stored {
                match wide {
                    Wide::Integer($integer) => $from_integer,
                    Wide::Float($float) => $from_float,
                }
            }
            fn read(x: &[u8], wide: &mut [Wide; CHUNK]) {
                for (x, wide) in x.as_chunks().0.iter().zip(wide) {
                    *wide = Self::widen(<$stored>::from_ne_bytes(*x));
                }
            }
            fn write(wide: &[Wide; CHUNK], y: &mut [u8]) {
                for (wide, y) in wide.iter().zip(y.as_chunks_mut().0) {
                    *y = Self::narrow(*wide).to_ne_bytes();
                }
            }
        }
    )*};
}

macro_rules! integers {
    ($($t:ty),*) => {
        numbers! { $($t as $t: |v| Wide::Integer(i128::from(v)), |v| v as $t, |v| v as $t;)* }
    };
}
integers!(u8, u16, u32, u64, i8, i16, i32, i64);
numbers! {
    f16 as f16: |v| Wide::Float(v.to_f64()), |v| f16::from_f64(v as f64), |v| f16::from_f64(v);
    bf16 as bf16: |v| Wide::Float(v.to_f64()), |v| bf16::from_f64(v as f64), |v| bf16::from_f64(v);
    f32 as f32: |v| Wide::Float(f64::from(v)), |v| v as f32, |v| v as f32;
    f64 as f64: |v| Wide::Float(v), |v| v as f64, |v| v;
    Bool as u8: |v| Wide::Integer(i128::from(v != 0)), |v| u8::from(v != 0), |v| u8::from(v != 0.0);
}

#[derive(Clone, Copy)]
struct Bool;

/// Chooses an associated function by dtype.
macro_rules! by_dtype {
    ($dtype:expr, $function:ident) => {
        Some(match $dtype {
            DType::Bool => Bool::$function,
            DType::U8 => <u8 as Number>::$function,
            DType::U16 => <u16 as Number>::$function,
            DType::U32 => <u32 as Number>::$function,
            DType::U64 => <u64 as Number>::$function,
            DType::I8 => <i8 as Number>::$function,
            DType::I16 => <i16 as Number>::$function,
            DType::I32 => <i32 as Number>::$function,
            DType::I64 => <i64 as Number>::$function,
            DType::F16 => <f16 as Number>::$function,
            DType::BF16 => <bf16 as Number>::$function,
            DType::F32 => <f32 as Number>::$function,
            DType::F64 => <f64 as Number>::$function,
            _ => return None,
        })
    };
}

fn reader(from: DType) -> Option<Reader> {
    by_dtype!(from, read)
}

fn writer(to: DType) -> Option<Writer> {
    by_dtype!(to, write)
}

/// The conversions that models spend time in, each a loop of its own; all others go through [`Wide`] in chunks,
/// since a loop for every pair would be code that nobody runs.
fn direct(from: DType, to: DType) -> Option<Step> {
    use DType as D;
    Some(match (from, to) {
        (D::U8, D::F32) => convert::<u8, f32>(),
        (D::I8, D::F32) => convert::<i8, f32>(),
        (D::I32, D::F32) => convert::<i32, f32>(),
        (D::I64, D::F32) => convert::<i64, f32>(),
        (D::Bool, D::F32) => convert::<Bool, f32>(),
        (D::F16, D::F32) => convert::<f16, f32>(),
        (D::BF16, D::F32) => convert::<bf16, f32>(),
        (D::F64, D::F32) => convert::<f64, f32>(),
        (D::F32, D::U8) => convert::<f32, u8>(),
        (D::F32, D::I32) => convert::<f32, i32>(),
        (D::F32, D::I64) => convert::<f32, i64>(),
        (D::F32, D::Bool) => convert::<f32, Bool>(),
        (D::F32, D::F16) => convert::<f32, f16>(),
        (D::F32, D::BF16) => convert::<f32, bf16>(),
        (D::F32, D::F64) => convert::<f32, f64>(),
        (D::I32, D::I64) => convert::<i32, i64>(),
        (D::I64, D::I32) => convert::<i64, i32>(),
        (D::I64, D::Bool) => convert::<i64, Bool>(),
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
