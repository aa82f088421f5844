//! ONNX: one file with a graph and its weights, or with weights in files beside it.
//!
//! `load` maps the file and imports its graph node by node (`import`), each by a row of the table in
//! `ops`. The result has one signature, `serving_default`, from the graph's inputs to its outputs.
//! Images come channels first; operators over space are imported channels last between two
//! transposes, which a pass of the graph cancels.

mod attributes;
mod facts;
mod import;
mod load;
mod node;
mod ops;
mod tensor;

pub(super) use load::load;

use std::path::{Path, PathBuf};

/// The file of a model folder that wins where there are several.
const MODEL_FILE: &str = "model.onnx";
const EXTENSION: &str = "onnx";

/// True for a path that is an ONNX file itself.
pub(super) fn is_model_file(path: &Path) -> bool {
    has_extension(path) && path.is_file()
}

/// The model in a folder: `model.onnx`, or the only `.onnx` file.
pub(super) fn model_in(folder: &Path) -> Option<PathBuf> {
    let preferred = folder.join(MODEL_FILE);
    if preferred.is_file() {
        return Some(preferred);
    }
    let entries = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files = entries.filter(|path| is_model_file(path));
    match (files.next(), files.next()) {
        (Some(file), None) => Some(file),
        _ => None,
    }
}

fn has_extension(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(EXTENSION))
}

/// Names of ONNX's operators that can be imported, in alphabetical order; those of other domains
/// with the domain in front.
pub fn operator_names() -> Vec<String> {
    let mut names: Vec<String> = ops::names().collect();
    names.sort_unstable();
    names
}
