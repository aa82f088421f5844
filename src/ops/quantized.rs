//! Convolutions and products of numbers of 8 bits that stay in integers.
//!
//! The rules are those of ONNX: `q = saturate(round(x / scale) + zero)` with ties to even. The sums are exact; one factor per output channel,
//! `x_scale * w_scale / y_scale`, takes them to the output, as `QLinearConv` and `QLinearMatMul` have it. Weights are
//! signed with zero point 0, as quantisers make them; weights of u8 with zero point 128 become that by taking
//! away 128.

use super::{
    Fact, Inferred, Lower, OpError, Operator, Padding, Step, conv, expect_inputs, weights::stored_filter,
};
use crate::{
    kernels::{Conv2d, ConvPlanI8, OutI8, PackedConvI8, Quantisation},
    tensor::{DType, Shape, Tensor},
};
use serde::{Deserialize, Serialize};

/// What the sums of a quantised operator become.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Requantize {
    /// Zero point of x.
    pub x_zero: i32,
    /// `U8` or `I8`: `clamp(round(sum * factor) + y_zero)`; `F32`: `sum * factor`; `I32`: the sum.
    pub output: DType,
    /// Zero point of the output.
    pub y_zero: i32,
    /// Bounds of a `U8` or `I8` output, for activations that only clamp; all of the type when `None`.
    pub bounds: Option<(i32, i32)>,
}

/// A convolution in integers. Inputs: x `[n, spatial.., c]` (`U8` or `I8`), w `[spatial.., c / groups, o]` (`I8`), factors
/// (`F32`, `[1]` or `[o]`), and if `bias`, a bias `[o]` (`I32`, of scale `x_scale * w_scale`). All but x must be known
/// when the model is planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantizedConv {
    /// Distance of windows, per spatial dimension; empty means 1.
    pub strides: Vec<usize>,
    /// Distance of a window's elements; empty means 1.
    pub dilations: Vec<usize>,
    /// The border, which reads the zero point.
    pub padding: Padding,
    /// Channels are convolved in this many groups; as many as input channels is depthwise.
    pub groups: usize,
    /// Input 3 is a bias.
    pub bias: bool,
    /// What the sums become.
    pub requantize: Requantize,
}

/// `x [.., m, k]` (`U8` or `I8`) times w `[k, n]` (`I8`), otherwise as [`QuantizedConv`] with `n` for `o`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantizedMatMul {
    /// Input 3 is a bias.
    pub bias: bool,
    /// What the sums become.
    pub requantize: Requantize,
}

/// The first input whose value is not known.
fn unknown(inputs: &[Fact]) -> Option<Inferred> {
    let index = (1..inputs.len()).find(|&index| inputs[index].value.is_none())?;
    Some(Inferred::NeedsValue(index))
}

fn byte_type(what: &str, dtype: DType) -> Result<bool, OpError> {
    match dtype {
        DType::U8 => Ok(false),
        DType::I8 => Ok(true),
        other => Err(OpError::unsupported(format!("{what} of {other} is not supported"))),
    }
}

impl Requantize {
    fn check(&self, inputs: &[Fact], channels: usize, bias: bool) -> Result<(), OpError> {
        byte_type("a quantised product", inputs[0].dtype)?;
        if inputs[1].dtype != DType::I8 || inputs[2].dtype != DType::F32 {
            return Err(OpError::unsupported("a quantised product needs weights of int8 and float factors"));
        }
        let factors = inputs[2].shape.elements();
        if factors != 1 && factors != channels {
            return Err(OpError::invalid(format!("{factors} factors for {channels} channels")));
        }
        if bias && (inputs[3].dtype != DType::I32 || inputs[3].dims() != [channels]) {
            return Err(OpError::invalid("the bias must be an int32 for every channel"));
        }
        if ![DType::U8, DType::I8, DType::I32, DType::F32].contains(&self.output) {
            return Err(OpError::unsupported(format!(
                "quantised output of {} is not supported",
                self.output
            )));
        }
        Ok(())
    }

    /// The step of a checked geometry.
    fn lower(self, cx: &Lower<'_>, geometry: Conv2d, bias: bool) -> Result<Step, OpError> {
        let signed = byte_type("a quantised product", cx.inputs[0].dtype)?;
        let value = |index: usize| cx.value(index).ok_or(OpError::Memory("quantised weights"));
        let (weights, factors) = (value(1)?, value(2)?);
        let bias = bias.then(|| value(3)).transpose()?;
        let from: &[usize] = if bias.is_some() { &[1, 2, 3] } else { &[1, 2] };
        // Signed activations are turned into unsigned ones before the kernel reads them.
        let zero = self.x_zero + if signed { 128 } else { 0 };
        let pack = || {
            let bias = bias.map(Tensor::as_slice::<i32>).transpose()?;
            let quantisation = Quantisation { zero, bias, factors: factors.as_slice()? };
            let filter = stored_filter(weights);
            Ok((zero, PackedConvI8::pack_stored(cx.kernels, &geometry, filter, &quantisation, cx.threads)?))
        };
        // The zero point is part of what is packed, but not of the key: weights meet one input only.
        let mut packed = cx.packed("bytes", from, pack)?;
        if packed.0 != zero {
            packed = std::sync::Arc::new(pack()?);
        }
        let plan = ConvPlanI8::new(&geometry, &packed.1)?;
        let whole = if self.output == DType::I8 { (-128, 127) } else { (0, 255) };
        let (min, max) = self.bounds.map_or(whole, |(min, max)| (min.max(whole.0), max.min(whole.1)));
        let scratch = if signed { cx.inputs[0].elements() } else { 0 };
        let step = Step::arena(move |io| {
            let mut x = io.input::<u8>(0)?;
            if signed {
                let turned = io.scratch::<u8>()?;
                turned.iter_mut().zip(x).for_each(|(to, &from)| *to = from ^ 0x80);
                x = turned;
            }
            let out = match self.output {
                DType::F32 => OutI8::Floats(io.next_output()?),
                DType::I32 => OutI8::Ints(io.next_output()?),
                _ => OutI8::Bytes { out: io.next_output()?, zero: self.y_zero, min, max },
            };
            let context = io.context();
            Ok(context.kernels.conv2d_i8(&plan, &packed.1, x, out, context.threads)?)
        });
        Ok(step.with_scratch(scratch))
    }
}

impl QuantizedConv {
    fn geometry(&self, inputs: &[Fact]) -> Result<(Conv2d, Shape), OpError> {
        let float = conv::Conv {
            strides: self.strides.clone(),
            dilations: self.dilations.clone(),
            padding: self.padding.clone(),
            groups: self.groups,
            fused: super::Fused::default(),
        };
        float.geometry(inputs)
    }
}

impl Operator for QuantizedConv {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        let count = 3 + usize::from(self.bias);
        expect_inputs(inputs, count..=count)?;
        let (geometry, shape) = self.geometry(inputs)?;
        self.requantize.check(inputs, geometry.out_channels, self.bias)?;
        if let Some(unknown) = unknown(inputs) {
            return Ok(unknown);
        }
        Ok(Inferred::one(self.requantize.output, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (geometry, _) = self.geometry(cx.inputs)?;
        self.requantize.lower(cx, geometry, self.bias)
    }
}

impl QuantizedMatMul {
    /// A product is a 1x1 convolution of a line of pixels.
    fn geometry(inputs: &[Fact]) -> Result<(Conv2d, Shape), OpError> {
        let misfit = || {
            let (x, w) = (&inputs[0].shape, &inputs[1].shape);
            OpError::invalid(format!("Matrix size-incompatible: In[0]: {x}, In[1]: {w}"))
        };
        let (&[ref outer @ .., k], &[rows, n]) = (inputs[0].dims(), inputs[1].dims()) else {
            return Err(misfit());
        };
        if k != rows {
            return Err(misfit());
        }
        let m: usize = outer.iter().product();
        let mut shape = Shape::from(outer);
        shape.push(n);
        let geometry = Conv2d::pointwise(1, [1, m], [k, n]);
        geometry.check()?;
        Ok((geometry, shape))
    }
}

impl Operator for QuantizedMatMul {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        let count = 3 + usize::from(self.bias);
        expect_inputs(inputs, count..=count)?;
        let (geometry, shape) = Self::geometry(inputs)?;
        self.requantize.check(inputs, geometry.out_channels, self.bias)?;
        if let Some(unknown) = unknown(inputs) {
            return Ok(unknown);
        }
        Ok(Inferred::one(self.requantize.output, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        self.requantize.lower(cx, Self::geometry(cx.inputs)?.0, self.bias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::run_op;

    fn tensor<T: crate::tensor::Element>(shape: &[usize], values: &[T]) -> Tensor {
        Tensor::from_slice(shape, values).unwrap()
    }

    /// By hand: (x - 1) w = [[1, 2], [3, 4]] [[1, -1, 2], [0, 1, 1]] + [0, 10, 0] = [[1, 11, 4], [3, 11, 10]].
    #[test]
    fn products_in_integers() {
        let x = tensor(&[2, 2], &[2u8, 3, 4, 5]);
        let w = tensor(&[2, 3], &[1i8, -1, 2, 0, 1, 1]);
        let bias = tensor(&[3], &[0i32, 10, 0]);
        let factors = tensor(&[3], &[0.5f32, 1.0, 0.25]);
        let run = |output, y_zero, bounds| {
            let requantize = Requantize { x_zero: 1, output, y_zero, bounds };
            let inputs = [x.clone(), w.clone(), factors.clone(), bias.clone()];
            run_op(QuantizedMatMul { bias: true, requantize }, &inputs).unwrap().remove(0)
        };
        assert_eq!(run(DType::I32, 0, None).as_slice::<i32>().unwrap(), [1, 11, 4, 3, 11, 10]);
        let floats = run(DType::F32, 0, None);
        assert_eq!(floats.as_slice::<f32>().unwrap(), [0.5, 11.0, 1.0, 1.5, 11.0, 2.5]);
        // Ties go to even: 0.5 to 0, 1.5 and 2.5 to 2.
        assert_eq!(run(DType::U8, 7, None).as_slice::<u8>().unwrap(), [7, 18, 8, 9, 18, 9]);
        assert_eq!(run(DType::I8, -7, Some((-6, 1))).as_slice::<i8>().unwrap(), [-6, 1, -6, -5, 1, -5]);
    }

    /// Ones over ones count the taps inside of the image; the padding reads the zero point.
    #[test]
    fn convolutions_in_integers() {
        let x = tensor(&[1, 3, 3, 1], &[6i8; 9]);
        let w = tensor(&[3, 3, 1, 1], &[1i8; 9]);
        let op = QuantizedConv {
            strides: vec![],
            dilations: vec![],
            padding: Padding::SameUpper,
            groups: 1,
            bias: false,
            requantize: Requantize { x_zero: 5, output: DType::U8, y_zero: 1, bounds: None },
        };
        let y = run_op(op.clone(), &[x.clone(), w.clone(), Tensor::scalar(2.0f32)]).unwrap();
        assert_eq!(y[0].as_slice::<u8>().unwrap(), [9, 13, 9, 13, 19, 13, 9, 13, 9]);
        assert!(run_op(op.clone(), &[x.clone(), w.clone(), tensor(&[2], &[1.0f32, 2.0])]).is_err());
        assert!(run_op(op, &[x, tensor(&[3, 3, 1, 1], &[1u8; 9]), Tensor::scalar(2.0f32)]).is_err());
    }
}
