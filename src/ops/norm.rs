//! Normalisation over rows, images and neighbouring channels. All work on `float`; images are NHWC.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs, mapping::axis_of};
use crate::{
    kernels::{InstanceNormPlan, RowNorm},
    tensor::DType,
};
use serde::{Deserialize, Serialize};

/// `(x - mean) / sqrt(variance + epsilon) * scale + bias`, mean and variance over the axes from
/// `axis` on. Scale (input 1) and bias (input 2), when given, have the shape of those axes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerNorm {
    /// The first normalised axis; negative from the back.
    pub axis: i64,
    /// Added to the variance.
    pub epsilon: f32,
    /// The mean is taken away; without it this is RMS normalisation.
    pub center: bool,
}

impl Operator for LayerNorm {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=3)?;
        let axis = axis_of(&inputs[0].shape, self.axis)?;
        let columns = inputs[0].dims()[axis..].iter().product();
        same_kind(inputs, columns)
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let axis = axis_of(&cx.inputs[0].shape, self.axis)?;
        let columns = cx.inputs[0].dims()[axis..].iter().product();
        let Self { center, epsilon, .. } = *self;
        Ok(Step::arena(move |io| {
            let x = io.input(0)?;
            let scale = if io.inputs() > 1 { Some(io.input(1)?) } else { None };
            let shift = if io.inputs() > 2 { Some(io.input(2)?) } else { None };
            let norm = RowNorm { center, epsilon, scale, shift };
            let (y, cx) = (io.next_output()?, io.context());
            Ok(cx.kernels.norm_rows(&norm, columns, x, y, cx.threads)?)
        }))
    }
}

/// The fact of input 0, when it is `float` and the other inputs have `columns` such elements.
fn same_kind(inputs: &[Fact], columns: usize) -> Result<Inferred, OpError> {
    let x = &inputs[0];
    if let Some(other) = inputs.iter().find(|fact| fact.dtype != DType::F32) {
        return Err(OpError::unsupported(format!("normalisation of {} is not supported", other.dtype)));
    }
    if let Some(other) = inputs[1..].iter().find(|fact| fact.elements() != columns) {
        return Err(OpError::invalid(format!(
            "a scale or bias of shape {} does not fit the {columns} normalised elements of shape {}",
            other.shape, x.shape
        )));
    }
    Ok(Inferred::one(x.dtype, x.shape.clone()))
}

/// `(x - mean) / sqrt(variance + epsilon) * scale + bias`, mean and variance over the pixels of one
/// channel of one image. Inputs: `x` `[n, space.., c]`, scale `[c]`, bias `[c]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceNorm {
    /// Added to the variance.
    pub epsilon: f32,
}

impl Operator for InstanceNorm {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 3..=3)?;
        match inputs[0].dims() {
            [_, .., channels] => same_kind(inputs, *channels),
            _ => Err(OpError::invalid(format!("expected images, got a tensor of shape {}", inputs[0].shape))),
        }
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let dims = cx.inputs[0].dims();
        let channels = dims.last().copied().unwrap_or(1);
        let image: usize = dims.iter().skip(1).product();
        let images = dims.first().copied().unwrap_or(1);
        let plan = InstanceNormPlan::new(images, image.checked_div(channels).unwrap_or(0), channels)?;
        let epsilon = self.epsilon;
        let step = Step::arena(move |io| {
            let (x, scale, shift) = (io.input(0)?, io.input(1)?, io.input(2)?);
            let (y, scratch, cx) = (io.next_output()?, io.scratch()?, io.context());
            Ok(cx.kernels.instance_norm(&plan, epsilon, scale, shift, x, y, scratch, cx.threads)?)
        });
        Ok(step.with_scratch(plan.scratch() * size_of::<f32>()))
    }
}

/// Local response normalisation: `x / (bias + alpha * s) ^ beta`, `s` the sum of squares of the
/// channels from `before` below to `after` above. (ONNX divides its alpha by the window's size.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lrn {
    /// Channels below.
    pub before: usize,
    /// Channels above.
    pub after: usize,
    /// Summand.
    pub bias: f32,
    /// Factor.
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
}

impl Operator for Lrn {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        same_kind(inputs, 0)
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let channels = cx.inputs[0].dims().last().copied().unwrap_or(1).max(1);
        let Self { before, after, bias, alpha, beta } = *self;
        Ok(Step::arena(move |io| {
            let (x, y) = (io.input::<f32>(0)?, io.next_output::<f32>()?);
            for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
                for (channel, y) in y.iter_mut().enumerate() {
                    let window = channel.saturating_sub(before)
                        ..channels.min(channel.saturating_add(after).saturating_add(1));
                    let sum: f32 = x[window].iter().map(|x| x * x).sum();
                    *y = x[channel] / (bias + alpha * sum).powf(beta);
                }
            }
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op, tensor::Tensor};

    fn close(y: &Tensor, expected: &[f32]) {
        let y = y.as_slice::<f32>().unwrap();
        assert_eq!(y.len(), expected.len());
        assert!(y.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{y:?} and {expected:?}");
    }

    #[test]
    fn rows() {
        // Mean 3, variance 2.5 over the last two axes; mean of squares 11.5.
        let x = Tensor::from_slice([1, 2, 2], &[1.0f32, 2.0, 4.0, 5.0]).unwrap();
        let scale = Tensor::from_slice([2, 2], &[1.0f32, 1.0, 2.0, 1.0]).unwrap();
        let bias = Tensor::from_slice([2, 2], &[0.0f32, 0.0, 0.0, 10.0]).unwrap();
        let op = LayerNorm { axis: 1, epsilon: 0.0, center: true };
        let unit = 1.0 / 2.5f32.sqrt();
        let y = run_op(op.clone(), &[x.clone(), scale.clone(), bias]).unwrap();
        close(&y[0], &[-2.0 * unit, -unit, 2.0 * unit, 2.0 * unit + 10.0]);
        let y = run_op(LayerNorm { center: false, ..op.clone() }, &[x.clone(), scale]).unwrap();
        let unit = 1.0 / 11.5f32.sqrt();
        close(&y[0], &[unit, 2.0 * unit, 8.0 * unit, 5.0 * unit]);
        assert!(run_op(op, &[x, Tensor::scalar(1.0f32)]).is_err());
    }

    #[test]
    fn images() {
        // Two pixels, two channels: channel 0 has mean 2 and variance 1, channel 1 is constant.
        let x = Tensor::from_slice([1, 1, 2, 2], &[1.0f32, 7.0, 3.0, 7.0]).unwrap();
        let scale = Tensor::from_slice([2], &[2.0f32, 1.0]).unwrap();
        let bias = Tensor::from_slice([2], &[0.5f32, -1.0]).unwrap();
        let y = run_op(InstanceNorm { epsilon: 1e-9 }, &[x, scale, bias]).unwrap();
        close(&y[0], &[-1.5, -1.0, 2.5, -1.0]);
    }

    #[test]
    fn neighbouring_channels() {
        let x = Tensor::from_slice([1, 1, 1, 3], &[1.0f32, 2.0, 3.0]).unwrap();
        let op = Lrn { before: 0, after: 1, bias: 1.0, alpha: 0.5, beta: 1.0 };
        close(&run_op(op, &[x]).unwrap()[0], &[1.0 / 3.5, 2.0 / 7.5, 3.0 / 5.5]);
    }
}
