//! kinglet's own model folder: `model.json` says what is computed, `model.safetensors` holds the
//! weights. docs/FORMAT.md describes both.
//!
//! The text is short enough to write by hand for a small network, and loading is the cheapest there
//! is: weights are used where the file is mapped (or where they stand in the binary).

mod bodies;
mod constant;
mod document;
mod export;
mod import;
mod layout;
mod operator;
mod panels;
mod weights;

pub use export::save;

use super::{FormatError, LoadedModel};
use crate::tensor::{Buffer, Tensor};
use std::{collections::BTreeMap, fs, io::ErrorKind, path::Path, thread};

/// What is computed.
pub const MODEL_FILE: &str = "model.json";
/// The weights; a model without any needs no such file.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// True for a folder of this format.
pub fn is_model(folder: &Path) -> bool {
    folder.join(MODEL_FILE).is_file()
}

/// The tensors of a file that any tool may have written; an error is one line without the file's name.
pub(super) fn tensors(file: &Buffer) -> Result<BTreeMap<String, Tensor>, String> {
    weights::read(file).map(|(tensors, _)| tensors)
}

/// Reads a version folder.
pub fn load(folder: &Path) -> Result<LoadedModel, FormatError> {
    let model_file = folder.join(MODEL_FILE);
    let text = match fs::read_to_string(&model_file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(FormatError::NotFound(folder.to_path_buf()));
        }
        Err(error) => return Err(FormatError::io(model_file, &error)),
    };
    let weights_file = folder.join(WEIGHTS_FILE);
    let weights = match Buffer::map_file(&weights_file) {
        Ok(weights) => Some(weights),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(FormatError::io(weights_file, &error)),
    };
    load_parts(folder, &text, weights)
}

/// Reads a model whose files are in memory; `folder` is their place in errors.
pub fn load_parts(folder: &Path, text: &str, weights: Option<Buffer>) -> Result<LoadedModel, FormatError> {
    let model_file = folder.join(MODEL_FILE);
    let weights_file = folder.join(WEIGHTS_FILE);
    let Some(weights) = weights else { return read(&model_file, text, BTreeMap::new()) };
    let in_weights = |reason: String| FormatError::invalid(&weights_file, reason);
    let (tensors, sums) = weights::read(&weights).map_err(in_weights)?;
    let Some(sums) = sums else { return read(&model_file, text, tensors) };
    sums.check_graph(text).map_err(|reason| FormatError::invalid(&model_file, reason))?;
    // Reading all of the weights takes longer than reading the graph; then both threads sum them up.
    let data = sums.data_of(&weights);
    let model = thread::scope(|scope| {
        let helper = thread::Builder::new().spawn_scoped(scope, || data.work());
        let model = read(&model_file, text, tensors);
        data.work();
        // A part that it did not finish is summed up below.
        let _ = helper.map(|helper| helper.join());
        model
    });
    sums.check_data(&data).map_err(in_weights)?;
    model
}

fn read(
    model_file: &Path,
    text: &str,
    tensors: BTreeMap<String, Tensor>,
) -> Result<LoadedModel, FormatError> {
    let document = serde_json::from_str(text)
        .map_err(|error| FormatError::invalid(model_file, format!("no valid model: {error}")))?;
    import::model(model_file, &document, tensors)
}

#[cfg(test)]
mod tests;
