//! A 1x1 convolution whose input is multiplied by a gate; see the kernel for why.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, conv::Conv, weights::packed_conv};
use crate::kernels::GatedConvPlan;
use serde::{Deserialize, Serialize};

/// `conv(x * gate)` for a convolution of single pixels. Inputs: x `[n, height, width, c]`, gate `[n, 1, 1, c]`, then
/// weights, bias and residual as of [`Conv`]. `F32`; weights and bias must be known when it is planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GatedConv {
    /// The convolution.
    pub conv: Box<Conv>,
}

impl GatedConv {
    /// The facts of the convolution's own inputs.
    fn inputs_of_conv(&self, inputs: &[Fact]) -> Result<Vec<Fact>, OpError> {
        let [x, gate, others @ ..] = inputs else {
            return Err(OpError::invalid(format!("expected a gate, but {} inputs are given", inputs.len())));
        };
        let fits = matches!((x.dims(), gate.dims()), (&[n, _, _, c], &[m, 1, 1, d]) if (n, c) == (m, d));
        if !fits || gate.dtype != x.dtype {
            return Err(OpError::invalid(format!(
                "the gate of an image of shape {} is of shape {}",
                x.shape, gate.shape
            )));
        }
        Ok([x].into_iter().chain(others).cloned().collect())
    }
}

impl Operator for GatedConv {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        self.conv.infer(&self.inputs_of_conv(inputs)?)
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (geometry, _) = self.conv.geometry(&self.inputs_of_conv(cx.inputs)?)?;
        let fused = self.conv.fused;
        let bias_input = fused.bias_input().map(|index| index + 1);
        let bias = bias_input.map(|index| cx.value(index));
        let (Some(weights), false) = (cx.value(2), bias == Some(None)) else {
            return Err(OpError::unsupported("a gated convolution whose weights are computed"));
        };
        let from: Vec<usize> = [2].into_iter().chain(bias_input).collect();
        let packed = cx.packed("conv", &from, || {
            let bias = bias.flatten().map(|bias| bias.as_slice()).transpose()?;
            packed_conv(cx, &geometry, weights, bias)
        })?;
        let plan = GatedConvPlan::new(&geometry, cx.threads.count())?;
        let scratch = plan.scratch() * size_of::<f32>();
        let step = Step::arena(move |io| {
            let (x, gate, out, scratch) = (io.input(0)?, io.input(1)?, io.next_output()?, io.scratch()?);
            let mut epilogue = fused.epilogue();
            epilogue.residual = fused.residual_input().map(|index| io.input(index + 1)).transpose()?;
            let context = io.context();
            Ok(context.kernels.gated_conv(
                &plan,
                &packed,
                x,
                gate,
                out,
                &epilogue,
                scratch,
                context.threads,
            )?)
        });
        Ok(step.with_scratch(scratch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::testing::run_op_knowing,
        ops::{Fused, Padding},
        tensor::Tensor,
    };

    #[test]
    fn channels_are_gated_image_by_image() {
        let fused = Fused { bias: true, residual: true, activation: None, ..Fused::default() };
        let conv = Conv { strides: vec![], dilations: vec![], padding: Padding::Valid, groups: 1, fused };
        let op = GatedConv { conv: Box::new(conv) };
        let tensor = |shape: &[usize], values: &[f32]| Tensor::from_slice(shape, values).unwrap();
        let inputs = [
            tensor(&[2, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
            tensor(&[2, 1, 1, 2], &[1.0, 10.0, 0.0, 0.5]),
            tensor(&[1, 1, 2, 1], &[1.0, 2.0]),
            tensor(&[1], &[100.0]),
            tensor(&[2, 1, 2, 1], &[0.25, 0.0, 0.0, 0.0]),
        ];
        // 1 + 2 * 10 * 2 + 100 + 0.25, 3 + 4 * 10 * 2 + 100, 6 * 0.5 * 2 + 100, 8 * 0.5 * 2 + 100
        let y = run_op_knowing(op.clone(), &inputs, 2..4).unwrap();
        assert_eq!(y.as_slice::<f32>().unwrap(), [141.25, 183.0, 106.0, 108.0]);
        let mut wrong = inputs.clone();
        wrong[1] = tensor(&[1, 1, 1, 2], &[1.0, 1.0]);
        assert!(run_op_knowing(op.clone(), &wrong, 2..4).is_err());
        assert!(run_op_knowing(op, &inputs[..4], 2..4).is_err());
    }
}
