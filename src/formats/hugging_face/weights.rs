//! `model.safetensors` by names: every tensor is asked for with the shape that the configuration implies.

use crate::{
    formats::{FormatError, safetensors},
    tensor::{AlignedVec, Buffer, DType, Element, Shape, Tensor, TensorError},
};
use half::{bf16, f16};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Names of checkpoints made with a task's head start with the encoder's.
const PREFIX: &str = "bert.";

/// The tensors of a file.
pub(super) struct Weights {
    file: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    prefix: &'static str,
}

impl Weights {
    pub(super) fn read(file: &Path) -> Result<Self, FormatError> {
        let mapped = Buffer::map_file(file).map_err(|error| FormatError::io(file, &error))?;
        let tensors = safetensors::tensors(&mapped).map_err(|reason| FormatError::invalid(file, reason))?;
        let with_head = tensors.keys().any(|name| name.starts_with("bert.embeddings."));
        Ok(Self { file: file.to_owned(), tensors, prefix: if with_head { PREFIX } else { "" } })
    }

    /// True when there is such a tensor.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(&format!("{}{name}", self.prefix))
    }

    /// The tensor as `F32` of this shape; half precision is widened.
    pub(super) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor, FormatError> {
        let invalid = |reason: String| FormatError::invalid(&self.file, reason);
        let full = format!("{}{name}", self.prefix);
        let Some(tensor) = self.tensors.get(&full).or_else(|| self.tensors.get(&older(&full))) else {
            return Err(invalid(format!("tensor \"{full}\" is missing")));
        };
        if tensor.shape()[..] != *shape {
            let expected = Shape::from(shape);
            return Err(invalid(format!(
                "tensor \"{full}\" has shape {}, but config.json makes it {expected}",
                tensor.shape()
            )));
        }
        let wide = match tensor.dtype() {
            DType::F32 => Ok(tensor.clone()),
            DType::F16 => widened(tensor, f16::to_f32),
            DType::BF16 => widened(tensor, bf16::to_f32),
            other => {
                return Err(invalid(format!(
                    "tensor \"{full}\" is {other}, but weights are float, half or bfloat16"
                )));
            }
        };
        wide.map_err(|error| invalid(format!("tensor \"{full}\": {error}")))
    }
}

fn widened<T: Element>(tensor: &Tensor, widen: fn(T) -> f32) -> Result<Tensor, TensorError> {
    let mut wide = AlignedVec::<f32>::zeroed(tensor.len())?;
    for (wide, &narrow) in wide.as_mut_slice().iter_mut().zip(tensor.as_slice::<T>()?) {
        *wide = widen(narrow);
    }
    Tensor::from_aligned(tensor.shape().clone(), wide)
}

/// What TensorFlow's checkpoints called scale and shift of a normalisation.
fn older(name: &str) -> String {
    name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
}
