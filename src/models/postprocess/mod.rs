//! From a model's tensors to what a person asked for: a label, boxes with labels, a row of a table.
//!
//! What a model's outputs mean is declared in its kinglet.toml; without that, they are answered as tensors.

mod boxes;
mod classes;
mod heads;

pub use boxes::{Detection, Found, Nms};
pub use classes::{Activation, Classification};
pub use heads::{Anchors, BoxFormat, Head};

use super::{Error, Response};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// Names of classes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labels(pub Arc<[String]>);

impl Labels {
    /// The name of class `index` of `count`. Lists with one name more than there are classes begin with the
    /// background; a class without a name is its number.
    pub fn name(&self, index: usize, count: usize) -> String {
        let skipped = usize::from(self.0.len() == count + 1);
        self.0.get(index + skipped).cloned().unwrap_or_else(|| index.to_string())
    }
}

/// What the outputs of a model mean.
#[derive(Clone, Debug, PartialEq)]
pub enum Postprocess {
    /// One label out of several.
    Classification(Classification),
    /// Things with their boxes.
    Detection(Detection),
}

/// The output of that name, or, without one, the only output of floats.
fn output<'r>(response: &'r Response, name: Option<&str>) -> Result<(&'r [usize], Vec<f32>), Error> {
    let wanted = |given: &str, tensor: &Tensor| match name {
        Some(name) => given == name,
        None => tensor.dtype().is_float(),
    };
    let mut found = response.outputs.iter().filter(|(given, tensor)| wanted(given, tensor));
    match (found.next(), found.next()) {
        (Some((_, tensor)), None) => Ok((tensor.shape(), floats(tensor)?)),
        (None, _) => Err(Error::failed_precondition(format!(
            "kinglet.toml: the model has no output {}; it has {}",
            name.unwrap_or("of floats"),
            names(response)
        ))),
        (Some(_), Some(_)) => Err(Error::failed_precondition(format!(
            "kinglet.toml: say which output is meant (tensor = ..): the model has {}",
            names(response)
        ))),
    }
}

fn names(response: &Response) -> String {
    response.outputs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

/// A tensor of any numeric type as floats.
fn floats(tensor: &Tensor) -> Result<Vec<f32>, Error> {
    let failed = |error: crate::tensor::TensorError| Error::internal(error.to_string());
    macro_rules! converted {
        ($rust:ty, $convert:expr) => {
            tensor.as_slice::<$rust>().map_err(failed)?.iter().map($convert).collect()
        };
    }
    Ok(match tensor.dtype() {
        DType::F32 => tensor.as_slice::<f32>().map_err(failed)?.to_vec(),
        DType::F64 => converted!(f64, |&value| value as f32),
        DType::F16 => converted!(half::f16, |value| value.to_f32()),
        DType::BF16 => converted!(half::bf16, |value| value.to_f32()),
        DType::U8 => converted!(u8, |&value| f32::from(value)),
        DType::I8 => converted!(i8, |&value| f32::from(value)),
        DType::I32 => converted!(i32, |&value| value as f32),
        DType::I64 => converted!(i64, |&value| value as f32),
        other => {
            return Err(Error::failed_precondition(format!(
                "kinglet.toml: an output of type {other} holds no scores"
            )));
        }
    })
}

fn sigmoid(value: f32) -> f32 {
    1.0 / (1.0 + (-value).exp())
}

#[cfg(test)]
mod tests;
