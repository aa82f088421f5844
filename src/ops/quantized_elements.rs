//! Sums and functions of coded bytes, element by element, without floats in between.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs};
use crate::{
    kernels::{ByteSum, Scale},
    tensor::DType,
};
use serde::{Deserialize, Serialize};

/// One operand of a [`QuantizedAdd`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operand {
    /// Its scale, divided by that of the result.
    pub scale: f32,
    /// Its zero point.
    pub zero: i32,
}

/// `clamp(round((a - a_zero) a_scale + (b - b_zero) b_scale) + y_zero)` of two tensors of one shape, each `U8` or `I8`;
/// ties go to even.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantizedAdd {
    /// How input 0 stands for numbers.
    pub a: Operand,
    /// How input 1 does.
    pub b: Operand,
    /// `U8` or `I8`.
    pub output: DType,
    /// Zero point of the output.
    pub y_zero: i32,
    /// Bounds of the output, for activations that only clamp; all of the type when `None`.
    pub bounds: Option<(i32, i32)>,
}

/// Any function of a coded tensor: byte `b` of input 0 (`U8` or `I8`) becomes element `b`, taken as 0 to 255, of input 1
/// (`[256]`, `U8` or `I8`, which is the output's type).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantizedTable {}

fn signed(fact: &Fact) -> Result<bool, OpError> {
    match fact.dtype {
        DType::U8 => Ok(false),
        DType::I8 => Ok(true),
        other => Err(OpError::unsupported(format!("a function of bytes is given {other}"))),
    }
}

impl Operator for QuantizedAdd {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        signed(&inputs[0])?;
        signed(&inputs[1])?;
        if inputs[0].shape != inputs[1].shape || !matches!(self.output, DType::U8 | DType::I8) {
            return Err(OpError::invalid(format!(
                "a sum of bytes of shapes {} and {} to {} is not supported",
                inputs[0].shape, inputs[1].shape, self.output
            )));
        }
        Ok(Inferred::one(self.output, inputs[0].shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let scale = |index: usize, operand: Operand| {
            Ok::<_, OpError>(Scale {
                signed: signed(&cx.inputs[index])?,
                scale: operand.scale,
                zero: operand.zero,
            })
        };
        let whole = if self.output == DType::I8 { (-128, 127) } else { (0, 255) };
        let (min, max) = self.bounds.map_or(whole, |(min, max)| (min.max(whole.0), max.min(whole.1)));
        let sum = ByteSum { a: scale(0, self.a)?, b: scale(1, self.b)?, zero: self.y_zero, min, max };
        Ok(Step::arena(move |io| {
            let (a, b, out) = (io.input::<u8>(0)?, io.input::<u8>(1)?, io.next_output()?);
            let context = io.context();
            Ok(context.kernels.add_bytes(sum, a, b, out, context.threads)?)
        }))
    }
}

impl Operator for QuantizedTable {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        signed(&inputs[0])?;
        signed(&inputs[1])?;
        if inputs[1].dims() != [256] {
            return Err(OpError::invalid(format!("a table of bytes has the shape {}", inputs[1].shape)));
        }
        Ok(Inferred::one(inputs[1].dtype, inputs[0].shape.clone()))
    }

    fn lower(&self, _cx: &Lower<'_>) -> Result<Step, OpError> {
        Ok(Step::arena(move |io| {
            let (x, table, out) = (io.input::<u8>(0)?, io.input::<u8>(1)?, io.next_output()?);
            let table = table.try_into().map_err(|_| OpError::Memory("a table"))?;
            let context = io.context();
            Ok(context.kernels.look_up_bytes(table, x, out, context.threads)?)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op, tensor::Tensor};

    #[test]
    fn sums_of_different_codings() {
        let a = Tensor::from_slice([4], &[10u8, 12, 255, 0]).unwrap();
        let b = Tensor::from_slice([4], &[0i8, 1, 127, -128]).unwrap();
        let op = QuantizedAdd {
            a: Operand { scale: 0.5, zero: 10 },
            b: Operand { scale: 2.0, zero: 1 },
            output: DType::U8,
            y_zero: 100,
            bounds: None,
        };
        // 0 - 2, 1 + 0, 122.5 + 252, -5 - 258; each plus 100.
        let y = run_op(op.clone(), &[a.clone(), b.clone()]).unwrap();
        assert_eq!(y[0].as_slice::<u8>().unwrap(), [98, 101, 255, 0]);
        let op = QuantizedAdd { output: DType::I8, y_zero: -3, bounds: Some((-4, 200)), ..op };
        let y = run_op(op.clone(), &[a.clone(), b]).unwrap();
        assert_eq!(y[0].as_slice::<i8>().unwrap(), [-4, -2, 127, -4]);
        assert!(run_op(op, &[a, Tensor::scalar(1u8)]).is_err());
    }

    #[test]
    fn functions_are_tables() {
        let table: Vec<i8> = (0..=255u8).map(|byte| (byte / 2) as i8).collect();
        let table = Tensor::from_slice([256], &table).unwrap();
        let x = Tensor::from_slice([3], &[-1i8, 4, 0]).unwrap();
        let y = run_op(QuantizedTable {}, &[x.clone(), table]).unwrap();
        assert_eq!(y[0].as_slice::<i8>().unwrap(), [127, 2, 0]);
        assert!(run_op(QuantizedTable {}, &[x, Tensor::scalar(1u8)]).is_err());
    }
}
