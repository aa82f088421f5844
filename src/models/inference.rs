//! The calls that a servable answers: predict on named tensors, classify and regress on Examples.

use super::{Error, Patience, Request, Response, Servable};
use crate::tensor::Bytes;

/// One class of one example.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Class {
    /// Its label; empty when the signature has no `classes` output.
    pub label: Bytes,
    /// Its score; 0 when the signature has no `scores` output.
    pub score: f32,
}

/// Runs a signature on named tensors.
pub fn predict(servable: &Servable, request: Request) -> Result<Response, Error> {
    let _ = (servable, request);
    Err(Error::unimplemented("predict"))
}

/// Classifies serialized `tf.Example`s: the classes of each.
pub fn classify(
    servable: &Servable,
    signature: Option<&str>,
    examples: Vec<Bytes>,
    patience: &Patience,
) -> Result<Vec<Vec<Class>>, Error> {
    let _ = (servable, signature, examples, patience);
    Err(Error::unimplemented("classify"))
}

/// Regresses serialized `tf.Example`s: one value each.
pub fn regress(
    servable: &Servable,
    signature: Option<&str>,
    examples: Vec<Bytes>,
    patience: &Patience,
) -> Result<Vec<f32>, Error> {
    let _ = (servable, signature, examples, patience);
    Err(Error::unimplemented("regress"))
}
