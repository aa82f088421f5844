//! What may follow a product or a convolution before its result is stored.

use super::{Fact, OpError, RunContext};
use crate::kernels::{self, Activation, Epilogue};
use serde::{Deserialize, Serialize};

/// Optional further inputs and a function, in the order in which they apply:
/// `scale * activation(product + bias + residual) + shift`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fused {
    /// Input 2 is a vector over the output channels or columns.
    pub bias: bool,
    /// The last input has the output's shape.
    pub residual: bool,
    /// Applied to the sum.
    pub activation: Option<kernels::Unary>,
    /// Scale and shift, applied last.
    pub affine: Option<[f32; 2]>,
}

impl Fused {
    /// Index of the bias among the inputs.
    pub(super) fn bias_input(&self) -> Option<usize> {
        self.bias.then_some(2)
    }

    /// Index of the residual among the inputs.
    pub(super) fn residual_input(&self) -> Option<usize> {
        self.residual.then_some(2 + usize::from(self.bias))
    }

    /// Number of inputs of an operator of two operands with these extras.
    pub(super) fn inputs(&self) -> usize {
        2 + usize::from(self.bias) + usize::from(self.residual)
    }

    /// Checks bias and residual against the output.
    pub(super) fn check(&self, inputs: &[Fact], output: &Fact) -> Result<(), OpError> {
        let columns = output.shape.last().copied().unwrap_or(1);
        if let Some(bias) = self.bias_input().and_then(|index| inputs.get(index))
            && (bias.dims() != [columns] || bias.dtype != output.dtype)
        {
            return Err(OpError::invalid(format!(
                "the bias must be a {} of shape [{columns}], but it is a {} of shape {}",
                output.dtype, bias.dtype, bias.shape
            )));
        }
        if let Some(residual) = self.residual_input().and_then(|index| inputs.get(index))
            && (residual.shape != output.shape || residual.dtype != output.dtype)
        {
            return Err(OpError::invalid(format!(
                "the residual must be of shape {}, but it is of shape {}",
                output.shape, residual.shape
            )));
        }
        Ok(())
    }

    /// The kernel's epilogue, without the residual. Clamps cost nothing there; other functions are
    /// a second pass over rows in cache.
    pub(super) fn epilogue(&self) -> Epilogue<'static> {
        use kernels::Unary as U;
        let mut epilogue = Epilogue::default();
        match self.activation {
            Some(U::Relu) => epilogue.min = 0.0,
            Some(U::Relu6) => (epilogue.min, epilogue.max) = (0.0, 6.0),
            Some(U::Clip { min, max }) => (epilogue.min, epilogue.max) = (min, max),
            other => epilogue.activation = other.filter(|function| *function != U::Identity).map(Into::into),
        }
        if let Some(affine) = self.affine {
            let function = epilogue.activation.map_or(U::Identity, |activation| activation.function);
            epilogue.activation = Some(Activation { function, affine: Some(affine) });
        }
        epilogue
    }

    /// The activation alone, for results that no kernel finished.
    pub(super) fn finish(&self, out: &mut [f32], context: &RunContext<'_>) {
        if self.activation.is_some() || self.affine.is_some() {
            let function = self.activation.unwrap_or(kernels::Unary::Identity);
            let activation = Activation { function, affine: self.affine };
            context.kernels.activate_all(activation, out, context.threads);
        }
    }
}
