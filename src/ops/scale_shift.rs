//! A factor and a summand for each channel, and an activation: batch normalisation that no convolution took in.

use super::{Fact, Fused, Inferred, Lower, OpError, Operator, Step, expect_inputs};
use crate::{
    kernels::{self, Channels},
    tensor::{AlignedVec, DType, TensorError},
};
use serde::{Deserialize, Serialize};

/// `activation(x * scale + shift)`. Inputs: x `[.., c]`, scale and shift both `[c]` or both `[1]`, all `F32`; scale and shift must
/// be known when it is planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScaleShift {
    /// Applied to the sum.
    pub activation: Option<kernels::Unary>,
}

impl Operator for ScaleShift {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 3..=3)?;
        let x = &inputs[0];
        let channels = x.shape.last().copied();
        for factor in &inputs[1..] {
            let single = factor.dims() == [1] && inputs[1].shape == inputs[2].shape;
            if !single && (factor.rank() != 1 || factor.dims().last().copied() != channels) {
                return Err(OpError::invalid(format!(
                    "a scale or shift of shape {} does not fit the channels of shape {}",
                    factor.shape, x.shape
                )));
            }
        }
        if let Some(other) = inputs.iter().find(|fact| fact.dtype != DType::F32) {
            return Err(OpError::unsupported(format!(
                "scale and shift of {} are not supported",
                other.dtype
            )));
        }
        Ok(Inferred::one(x.dtype, x.shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (Some(scale), Some(shift)) = (cx.value(1), cx.value(2)) else {
            return Err(OpError::unsupported("a scale and shift that are computed"));
        };
        let [scale, shift] = [repeated(scale.as_slice()?)?, repeated(shift.as_slice()?)?];
        let fused = Fused { activation: self.activation, ..Fused::default() };
        Ok(Step::arena(move |io| {
            let (x, out, context) = (io.input(0)?, io.next_output()?, io.context());
            let channels = Channels { center: None, scale: scale.as_slice(), shift: shift.as_slice() };
            Ok(context.kernels.scale_shift(&channels, &fused.epilogue(), x, out, context.threads)?)
        }))
    }
}

/// The values as often as makes rows of whole vectors.
fn repeated(values: &[f32]) -> Result<AlignedVec<f32>, TensorError> {
    let mut made = AlignedVec::<f32>::for_overwrite(values.len() * kernels::repeats(values.len()))?;
    made.as_mut_slice().chunks_exact_mut(values.len().max(1)).for_each(|row| row.copy_from_slice(values));
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::testing::{run_op, run_op_knowing},
        kernels::Unary,
        tensor::Tensor,
    };

    #[test]
    fn channels_have_their_own_line() {
        for (channels, pixels) in [(1, 5), (3, 50), (17, 7), (64, 3), (130, 2)] {
            let of = |count: usize, step: usize| -> Vec<f32> {
                (0..count).map(|i| ((i * step) % 23) as f32 / 4.0 - 2.0).collect()
            };
            let (x, scale, shift) = (of(channels * pixels, 7), of(channels, 5), of(channels, 11));
            let inputs = [
                Tensor::from_slice([1, pixels, channels], &x).unwrap(),
                Tensor::from_slice([channels], &scale).unwrap(),
                Tensor::from_slice([channels], &shift).unwrap(),
            ];
            for (activation, function) in [
                (None, (|x| x) as fn(f32) -> f32),
                (Some(Unary::Relu), |x| x.max(0.0)),
                (Some(Unary::HardSwish), |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
            ] {
                let y = run_op_knowing(ScaleShift { activation }, &inputs, 1..3).unwrap();
                for (at, y) in y.as_slice::<f32>().unwrap().iter().enumerate() {
                    let expected = function(x[at] * scale[at % channels] + shift[at % channels]);
                    assert!((y - expected).abs() < 1e-5, "{channels} channels at {at}: {y}, not {expected}");
                }
            }
            assert!(run_op_knowing(ScaleShift { activation: None }, &inputs[..2], 1..2).is_err());
            assert!(run_op(ScaleShift { activation: None }, &inputs).is_err());
        }
        let numbers = [vec![1.0f32, 2.0, 3.0], vec![2.0], vec![0.5]];
        let numbers = numbers.map(|values| Tensor::from_slice([values.len()], &values).unwrap());
        let y = run_op_knowing(ScaleShift { activation: None }, &numbers, 1..3).unwrap();
        assert_eq!(y.as_slice::<f32>().unwrap(), [2.5, 4.5, 6.5]);
        let misfit = [[1, 3], [2, 1], [2, 1]]
            .map(|shape| Tensor::from_slice(shape, &[1.0f32; 3][..shape[0] * shape[1]]));
        let misfit = misfit.map(Result::unwrap);
        assert!(run_op_knowing(ScaleShift { activation: None }, &misfit, 1..3).is_err());
    }
}
