//! Expansion, depthwise convolution and projection in one step; see the kernel for why.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, conv::Conv, weights::packed_conv};
use crate::kernels::{Conv2d, InvertedResidualPlan, PackedConv, Stage};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// `project(depthwise(expand(x)))`, where `expand` and `project` are 1x1 convolutions and may be missing. Inputs: x
/// `[n, height, width, c]`, weights and bias of each convolution in turn, and the last one's residual if it has one. `F32`;
/// weights and biases must be known when it is planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InvertedResidual {
    /// The convolution before.
    pub expand: Option<Box<Conv>>,
    /// As many groups as channels.
    pub depthwise: Box<Conv>,
    /// The convolution after.
    pub project: Option<Box<Conv>>,
}

/// One of the convolutions: its position among the three, the number of its weights' input, the facts of its inputs.
struct Part<'a> {
    conv: &'a Conv,
    weights: usize,
    facts: Vec<Fact>,
}

impl InvertedResidual {
    pub(super) fn convolutions(&self) -> impl Iterator<Item = &Conv> {
        [self.expand.as_deref(), Some(&*self.depthwise), self.project.as_deref()].into_iter().flatten()
    }

    /// The convolutions with the facts of their inputs, and the fact of the output.
    fn parts(&self, inputs: &[Fact]) -> Result<(Vec<Part<'_>>, Fact), OpError> {
        let residual = self.convolutions().any(|conv| conv.fused.residual);
        let expected = 1 + 2 * self.convolutions().count() + usize::from(residual);
        let (true, Some(x)) = (inputs.len() == expected, inputs.first()) else {
            return Err(OpError::invalid(format!(
                "expected {expected} inputs, but {} are given",
                inputs.len()
            )));
        };
        let mut x = x.clone();
        let mut parts = Vec::new();
        for (position, conv) in self.convolutions().enumerate() {
            let weights = 1 + 2 * position;
            let mut facts = vec![x, inputs[weights].clone(), inputs[weights + 1].clone()];
            if conv.fused.residual {
                facts.push(inputs[expected - 1].clone());
            }
            x = match conv.infer(&facts)? {
                Inferred::Facts(mut made) if made.len() == 1 => made.remove(0),
                _ => return Err(OpError::Memory("a convolution")),
            };
            parts.push(Part { conv, weights, facts });
        }
        Ok((parts, x))
    }
}

/// A convolution that is ready.
#[derive(Clone)]
struct Ready {
    geometry: Conv2d,
    packed: Arc<PackedConv>,
    conv: Conv,
}

impl Part<'_> {
    fn ready(&self, cx: &Lower<'_>) -> Result<Ready, OpError> {
        let (geometry, _) = self.conv.geometry(&self.facts)?;
        let (Some(weights), Some(bias)) = (cx.value(self.weights), cx.value(self.weights + 1)) else {
            return Err(OpError::unsupported("an inverted residual block whose weights are computed"));
        };
        let kind = if geometry.groups == 1 { "conv" } else { "grouped conv" };
        let packed = cx.packed(kind, &[self.weights, self.weights + 1], || {
            packed_conv(cx, &geometry, weights, Some(bias.as_slice()?))
        })?;
        Ok(Ready { geometry, packed, conv: self.conv.clone() })
    }
}

impl Ready {
    fn stage<'a>(&'a self, residual: Option<&'a [f32]>) -> Stage<'a> {
        let mut epilogue = self.conv.fused.epilogue();
        epilogue.residual = residual.filter(|_| self.conv.fused.residual);
        Stage { weights: &self.packed, epilogue }
    }
}

impl Operator for InvertedResidual {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        Ok(Inferred::Facts(vec![self.parts(inputs)?.1]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (parts, _) = self.parts(cx.inputs)?;
        // All are asked for before one may fail: what they take is counted.
        let ready: Vec<Result<Ready, OpError>> = parts.iter().map(|part| part.ready(cx)).collect();
        let mut ready = ready.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter();
        let expand = self.expand.as_ref().and_then(|_| ready.next());
        let (Some(depthwise), project) = (ready.next(), ready.next()) else {
            return Err(OpError::Memory("a convolution"));
        };
        let geometry = |part: &Option<Ready>| part.as_ref().map(|part| part.geometry);
        let plan = InvertedResidualPlan::new(
            geometry(&expand).as_ref(),
            &depthwise.geometry,
            geometry(&project).as_ref(),
            cx.threads.count(),
        )?;
        let residual_input = self.convolutions().any(|conv| conv.fused.residual).then(|| cx.inputs.len() - 1);
        let scratch = plan.scratch() * size_of::<f32>();
        let step = Step::arena(move |io| {
            let (x, out, scratch) = (io.input(0)?, io.next_output()?, io.scratch()?);
            let residual = residual_input.map(|index| io.input(index)).transpose()?;
            let context = io.context();
            Ok(context.kernels.inverted_residual(
                &plan,
                expand.as_ref().map(|part| part.stage(None)),
                depthwise.stage(residual),
                project.as_ref().map(|part| part.stage(residual)),
                x,
                out,
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
        graph::testing::{run_op, run_op_knowing},
        kernels::Unary,
        ops::{Fused, Padding},
        tensor::Tensor,
    };

    /// Ones everywhere: expansion gives 2 x + 1, clipped at 6; a window of 3x3 counts neighbours; the projection adds two
    /// channels and the residual.
    #[test]
    fn a_block_by_hand() {
        let conv = |groups: usize, padding: Padding, residual: bool, activation: Option<Unary>| {
            let fused = Fused { bias: true, residual, activation, ..Fused::default() };
            Box::new(Conv { strides: vec![], dilations: vec![], padding, groups, fused })
        };
        let op = InvertedResidual {
            expand: Some(conv(1, Padding::Valid, false, Some(Unary::Relu6))),
            depthwise: conv(2, Padding::SameUpper, false, None),
            project: Some(conv(1, Padding::Valid, true, None)),
        };
        let tensor = |shape: &[usize], values: &[f32]| Tensor::from_slice(shape, values).unwrap();
        let ones = |shape: &[usize]| tensor(shape, &vec![1.0; shape.iter().product()]);
        let x = tensor(&[1, 2, 2, 2], &[1.0, 1.0, 4.0, 4.0, 0.0, 0.0, 2.0, 2.0]);
        let inputs = [
            x,
            ones(&[1, 1, 2, 2]),
            ones(&[2]),
            ones(&[3, 3, 1, 2]),
            ones(&[2]),
            ones(&[1, 1, 2, 1]),
            ones(&[1]),
            tensor(&[1, 2, 2, 1], &[0.5, 0.25, 0.0, 0.0]),
        ];
        // Expanded: 3, 6 (9 clipped), 1, 5; each window sees all of them: 15, plus 1; twice, plus 1.
        let y = run_op_knowing(op.clone(), &inputs, 1..7).unwrap();
        assert_eq!(y.as_slice::<f32>().unwrap(), [33.5, 33.25, 33.0, 33.0]);
        assert!(run_op_knowing(op.clone(), &inputs[..7], 1..7).is_err());
        let error = run_op(op, &inputs).unwrap_err();
        assert!(error.to_string().contains("weights are computed"), "{error}");
    }
}
