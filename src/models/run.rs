//! The one door to a signature's program: time is checked before, element types and the number of
//! outputs are checked around it.

use super::{Code, Error, Patience, Signature};
use crate::tensor::{DType, Tensor};

/// The signature that runs when a request names none.
pub const DEFAULT_SIGNATURE: &str = "serving_default";

/// Method names of signatures.
pub(super) const PREDICT: &str = "tensorflow/serving/predict";
pub(super) const CLASSIFY: &str = "tensorflow/serving/classify";
pub(super) const REGRESS: &str = "tensorflow/serving/regress";

/// The name meant by a request: none and empty are `serving_default`.
pub(super) fn signature_name(wanted: Option<&str>) -> &str {
    wanted.filter(|name| !name.is_empty()).unwrap_or(DEFAULT_SIGNATURE)
}

/// Runs a signature: one tensor per input in, one per `wanted` output position out.
pub(super) fn run(
    signature: &Signature,
    inputs: &[Tensor],
    wanted: &[usize],
    patience: &Patience,
) -> Result<Vec<Tensor>, Error> {
    patience.check()?;
    let mut outputs = Vec::with_capacity(wanted.len());
    signature.program.run(inputs, wanted, patience, &mut outputs)?;
    if outputs.len() != wanted.len() {
        return Err(Error { code: Code::Unknown, message: "Predict internal error".into() });
    }
    Ok(outputs)
}

/// The first input whose element type is not the one that the graph takes (else the declared one), in TensorFlow's words: it counts
/// inputs in the order of their graph tensors' names.
pub(super) fn dtype_mismatch(signature: &Signature, inputs: &[Tensor]) -> Option<Error> {
    let argument =
        |tensor: &str| signature.inputs.iter().filter(|info| info.tensor.as_str() < tensor).count();
    let wrong = |expected: DType, position: usize, found: DType| {
        Error::invalid_argument(format!("Expects arg[{position}] to be {expected} but {found} is provided"))
    };
    signature
        .inputs
        .iter()
        .zip(inputs)
        .filter_map(|(info, given)| Some((info, info.taken.or(info.dtype)?, given.dtype())))
        .filter(|(_, expected, found)| expected != found)
        .map(|(info, expected, found)| (argument(&info.tensor), expected, found))
        .min_by_key(|(position, ..)| *position)
        .map(|(position, expected, found)| wrong(expected, position, found))
}
