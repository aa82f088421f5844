//! From `float` to narrow integers and back, by a scale and a zero point: one for the whole tensor,
//! one for each position along an axis, or one for each block of positions along it.

use super::{Fact, Inferred, Io, Lower, OpError, Operator, Step, expect_inputs, mapping::axis_of};
use crate::{
    kernels::Scale,
    tensor::{DType, buffer::Plain},
};
use serde::{Deserialize, Serialize};

/// `saturate(round(x / scale) + zero)`, halves to even. Inputs: `x` (`float`), the scale (`float`), and
/// optionally the zero point (of the result's type and the scale's shape).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantize {
    /// The axis of a scale that is no scalar; negative from the back.
    pub axis: i64,
    /// `U8`, `I8`, `U16` or `I16`.
    pub dtype: DType,
}

/// `(x - zero) * scale` as `float`. Inputs: `x` (`U8`, `I8`, `U16`, `I16` or `I32`), the scale (`float`),
/// and optionally the zero point (of `x`'s type and the scale's shape).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dequantize {
    /// The axis of a scale that is no scalar; negative from the back.
    pub axis: i64,
}

/// Which scale belongs to an element.
#[derive(Clone, Copy, Debug)]
struct Places {
    /// Elements behind each other with the same position along the axis.
    inner: usize,
    /// Positions along the axis.
    dim: usize,
    /// Positions that share a scale.
    block: usize,
    /// Whether every run has scales of its own, instead of one for all runs.
    blocked: bool,
}

impl Places {
    fn new(inputs: &[Fact], axis: i64) -> Result<Self, OpError> {
        let [x, scale, zero @ ..] = inputs else { return Err(OpError::Memory("a quantisation")) };
        let misfit = || {
            OpError::invalid(format!(
                "a scale of shape {} does not fit a tensor of shape {} with axis {axis}",
                scale.shape, x.shape
            ))
        };
        if zero.iter().any(|zero| zero.elements() != scale.elements()) {
            return Err(OpError::invalid(format!(
                "the zero points do not fit a scale of shape {}",
                scale.shape
            )));
        }
        if scale.elements() == 1 && scale.rank() <= 1 {
            return Ok(Self { inner: 1, dim: 1, block: 1, blocked: false });
        }
        let axis = axis_of(&x.shape, axis)?;
        let (dim, inner) = (x.dims()[axis], x.dims()[axis + 1..].iter().product());
        if scale.dims() == [dim] {
            return Ok(Self { inner, dim, block: 1, blocked: false });
        }
        let others = |fact: &Fact| {
            fact.dims().iter().enumerate().filter(|(at, _)| *at != axis).map(|(_, d)| *d).collect::<Vec<_>>()
        };
        let blocks = scale.dims().get(axis).copied().filter(|&blocks| blocks > 0 && scale.rank() == x.rank());
        match blocks {
            Some(blocks) if others(scale) == others(x) && dim >= blocks => {
                Ok(Self { inner, dim, block: dim.div_ceil(blocks), blocked: true })
            }
            _ => Err(misfit()),
        }
    }

    /// Elements behind each other that share a scale, when there are enough of them for vectors.
    fn run(&self) -> Option<usize> {
        let run = if self.dim == 1 { usize::MAX } else { self.inner };
        (!self.blocked && run >= VECTOR).then_some(run)
    }

    /// The position of the scale of element `at`.
    fn of(&self, at: usize) -> usize {
        let position = at / self.inner % self.dim;
        match self.blocked {
            false => position,
            true => {
                let blocks = self.dim.div_ceil(self.block);
                (at / (self.inner * self.dim) * blocks + position / self.block) * self.inner + at % self.inner
            }
        }
    }
}

/// Shorter runs are faster one by one.
const VECTOR: usize = 8;

trait Narrow: Plain + 'static {
    fn widen(self) -> f64;
    fn saturate(value: f64) -> Self;
}

macro_rules! narrows {
    ($($t:ty),*) => {$(
        impl Narrow for $t {
            fn widen(self) -> f64 {
                f64::from(self)
            }
            fn saturate(value: f64) -> Self {
                // A cast of a float saturates; NaN becomes 0.
                value as $t
            }
        }
    )*};
}
narrows!(u8, i8, u16, i16, i32);

impl Operator for Quantize {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=3)?;
        let zero = inputs.get(2).map_or(self.dtype, |zero| zero.dtype);
        let known = matches!(self.dtype, DType::U8 | DType::I8 | DType::U16 | DType::I16);
        if inputs[..2].iter().any(|fact| fact.dtype != DType::F32) || zero != self.dtype || !known {
            return Err(OpError::unsupported(format!(
                "quantisation of {} to {} is not supported",
                inputs[0].dtype, self.dtype
            )));
        }
        Places::new(inputs, self.axis)?;
        Ok(Inferred::one(self.dtype, inputs[0].shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let places = Places::new(cx.inputs, self.axis)?;
        let given = cx.inputs.len() > 2;
        Ok(match self.dtype {
            DType::U8 | DType::I8 if places.run().is_some() => {
                quantize_runs(places, given, self.dtype == DType::I8)
            }
            DType::U8 => quantize::<u8>(places, given),
            DType::I8 => quantize::<i8>(places, given),
            DType::U16 => quantize::<u16>(places, given),
            DType::I16 => quantize::<i16>(places, given),
            other => return Err(OpError::unsupported(format!("quantisation to {other}"))),
        })
    }
}

fn quantize<T: Narrow>(places: Places, given: bool) -> Step {
    Step::arena(move |io: &mut Io<'_>| {
        let (x, scale) = (io.input::<f32>(0)?, io.input::<f32>(1)?);
        let zero = if given { Some(io.input::<T>(2)?) } else { None };
        for (at, (y, x)) in io.next_output::<T>()?.iter_mut().zip(x).enumerate() {
            let place = places.of(at);
            let zero = zero.map_or(0.0, |zero| zero[place].widen());
            *y = T::saturate(f64::from((x / scale[place]).round_ties_even()) + zero);
        }
        Ok(())
    })
}

/// The bytes in pieces that share a scale, with that scale.
fn each_run(
    io: &mut Io<'_>,
    places: Places,
    zero: Option<usize>,
    signed: bool,
    length: usize,
    mut body: impl FnMut(std::ops::Range<usize>, Scale) -> Result<(), OpError>,
) -> Result<(), OpError> {
    let scales = io.input::<f32>(1)?;
    let zeros = zero.map(|zero| io.input::<u8>(zero)).transpose()?;
    let run = places.run().unwrap_or(length).min(length).max(1);
    for (index, start) in (0..length).step_by(run).enumerate() {
        let place = index % places.dim;
        let zero = zeros.map_or(0, |zeros| zeros[place]);
        let zero = if signed { i32::from(zero as i8) } else { i32::from(zero) };
        body(start..(start + run).min(length), Scale { signed, scale: scales[place], zero })?;
    }
    Ok(())
}

fn quantize_runs(places: Places, given: bool, signed: bool) -> Step {
    Step::arena(move |io: &mut Io<'_>| {
        let (x, y, context) = (io.input::<f32>(0)?, io.next_output::<u8>()?, io.context());
        each_run(io, places, given.then_some(2), signed, x.len(), |run, scale| {
            Ok(context.kernels.quantise(scale, &x[run.clone()], &mut y[run], context.threads)?)
        })
    })
}

fn dequantize_runs(places: Places, given: bool, signed: bool) -> Step {
    Step::arena(move |io: &mut Io<'_>| {
        let (x, y, context) = (io.input::<u8>(0)?, io.next_output::<f32>()?, io.context());
        each_run(io, places, given.then_some(2), signed, x.len(), |run, scale| {
            Ok(context.kernels.dequantise(scale, &x[run.clone()], &mut y[run], context.threads)?)
        })
    })
}

impl Operator for Dequantize {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=3)?;
        let x = &inputs[0];
        let known = matches!(x.dtype, DType::U8 | DType::I8 | DType::U16 | DType::I16 | DType::I32);
        if !known || inputs[1].dtype != DType::F32 || inputs.get(2).is_some_and(|zero| zero.dtype != x.dtype)
        {
            return Err(OpError::unsupported(format!("dequantisation of {} is not supported", x.dtype)));
        }
        Places::new(inputs, self.axis)?;
        Ok(Inferred::one(DType::F32, x.shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let places = Places::new(cx.inputs, self.axis)?;
        let (dtype, given) = (cx.inputs[0].dtype, cx.inputs.len() > 2);
        Ok(match dtype {
            DType::U8 | DType::I8 if places.run().is_some() => {
                dequantize_runs(places, given, dtype == DType::I8)
            }
            DType::U8 => dequantize::<u8>(places, given),
            DType::I8 => dequantize::<i8>(places, given),
            DType::U16 => dequantize::<u16>(places, given),
            DType::I16 => dequantize::<i16>(places, given),
            DType::I32 => dequantize::<i32>(places, given),
            other => return Err(OpError::unsupported(format!("dequantisation of {other}"))),
        })
    }
}

fn dequantize<T: Narrow>(places: Places, given: bool) -> Step {
    Step::arena(move |io: &mut Io<'_>| {
        let (x, scale) = (io.input::<T>(0)?, io.input::<f32>(1)?);
        let zero = if given { Some(io.input::<T>(2)?) } else { None };
        for (at, (y, x)) in io.next_output::<f32>()?.iter_mut().zip(x).enumerate() {
            let place = places.of(at);
            let zero = zero.map_or(0.0, |zero| zero[place].widen());
            *y = (x.widen() - zero) as f32 * scale[place];
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op, tensor::Tensor};

    /// The first examples of ONNX's QuantizeLinear and DequantizeLinear.
    #[test]
    fn onnx_examples() {
        let x = Tensor::from_slice([6], &[0.0f32, 2.0, 3.0, 1000.0, -254.0, -1000.0]).unwrap();
        let (scale, zero) = (Tensor::scalar(2.0f32), Tensor::scalar(128u8));
        let y = run_op(Quantize { axis: 1, dtype: DType::U8 }, &[x, scale.clone(), zero.clone()]).unwrap();
        assert_eq!(y[0].as_slice::<u8>().unwrap(), [128, 129, 130, 255, 1, 0]);
        let x = Tensor::from_slice([4], &[0u8, 3, 128, 255]).unwrap();
        let y = run_op(Dequantize { axis: 1 }, &[x, scale, zero]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [-256.0, -250.0, 0.0, 254.0]);
    }

    /// Rows long enough for vectors, each with a scale of its own.
    #[test]
    fn rows_of_their_own_scales() {
        let x: Vec<f32> = (0..60).map(|index| index as f32 - 30.0).collect();
        let x = Tensor::from_slice([2, 3, 10], &x).unwrap();
        let scale = Tensor::from_slice([3], &[1.0f32, 2.0, 0.5]).unwrap();
        let zero = Tensor::from_slice([3], &[0i8, -1, 5]).unwrap();
        let y = run_op(Quantize { axis: 1, dtype: DType::I8 }, &[x, scale.clone(), zero.clone()]).unwrap();
        let bytes = y[0].as_slice::<i8>().unwrap();
        for (index, &byte) in bytes.iter().enumerate() {
            let (scale, zero) = [(1.0, 0.0), (2.0, -1.0), (0.5, 5.0)][index / 10 % 3];
            let exact = ((index as f32 - 30.0) / scale).round_ties_even() + zero;
            assert_eq!(byte, exact as i8);
        }
        let back = run_op(Dequantize { axis: 1 }, &[y[0].clone(), scale, zero]).unwrap();
        assert_eq!(back[0].as_slice::<f32>().unwrap()[10..14], [-20.0, -20.0, -18.0, -16.0]);
    }

    #[test]
    fn along_an_axis_and_in_blocks() {
        let x = Tensor::from_slice([2, 4], &[1i8, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        let scale = Tensor::from_slice([2], &[1.0f32, 10.0]).unwrap();
        let y = run_op(Dequantize { axis: 0 }, &[x.clone(), scale]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0, 50.0, 60.0, 70.0, 80.0]);
        let scale = Tensor::from_slice([2, 2], &[1.0f32, 10.0, 100.0, 1000.0]).unwrap();
        let y = run_op(Dequantize { axis: 1 }, &[x.clone(), scale]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [1.0, 2.0, 30.0, 40.0, 500.0, 600.0, 7000.0, 8000.0]);
        let scale = Tensor::from_slice([3], &[1.0f32; 3]).unwrap();
        assert!(run_op(Dequantize { axis: 1 }, &[x, scale]).is_err());
    }
}
