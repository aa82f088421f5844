//! Model folders: what is in one is found out from the files' contents, never from the folder's name.
//! Whatever the format, loading gives one graph per signature.
#![forbid(unsafe_code)]

pub mod built_in;
pub mod bundle;
mod data_type;
mod definition;
mod describe;
mod einsum;
mod error;
mod files;
mod hugging_face;
mod identity;
pub mod npz;
pub mod onnx;
pub mod safetensors;
pub mod saved_model;
pub mod signed;
mod stop;

pub use data_type::{data_type, dtype_of};
pub use describe::{bytes_text, describe};
pub use error::{FormatError, MissingOperator, MissingOperators};
pub use files::Files;

use crate::{
    graph::Graph,
    proto::tensorflow::SignatureDef,
    tensor::{DType, Shape, Tensor, release_free_memory},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What to load of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Tags of a SavedModel's meta graph, all of them and no others; `serve` by default.
    pub tags: Vec<String>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { tags: vec!["serve".to_owned()] }
    }
}

/// One input or output of a signature.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// The alias that clients use.
    pub name: String,
    /// The graph's tensor, as in `x:0`.
    pub tensor: String,
    /// Element type; `None` where kinglet has no such type.
    pub dtype: Option<DType>,
    /// Dimensions, `None` for an unknown one; `None` altogether when the rank is unknown.
    pub shape: Option<Vec<Option<usize>>>,
}

/// One callable signature.
#[derive(Clone, Debug)]
pub struct LoadedSignature {
    /// The definition as metadata calls show it.
    pub definition: SignatureDef,
    /// Inputs, alphabetically by alias.
    pub inputs: Vec<TensorInfo>,
    /// Outputs, alphabetically by alias.
    pub outputs: Vec<TensorInfo>,
    /// Values of inputs that a request may leave out.
    pub defaults: BTreeMap<String, Tensor>,
    /// Computes the outputs from the inputs, both in the order above. An input's dtype is the one
    /// that the graph takes, which may differ from the signature's claim.
    pub graph: Arc<Graph>,
}

/// A model read from its folder.
#[derive(Clone, Debug)]
pub struct LoadedModel {
    /// The format, as in `tensorflow`.
    pub platform: &'static str,
    /// Callable signatures by name.
    pub signatures: BTreeMap<String, LoadedSignature>,
    /// Every signature definition, callable or not.
    pub definitions: BTreeMap<String, SignatureDef>,
    /// Bytes of weights and other constants, each counted once.
    pub weight_bytes: usize,
}

/// A shape for an input that is declared so: open dimensions are the batch where they come first, else 1.
pub fn assumed_shape(declared: Option<&[Option<usize>]>, batch: usize) -> Shape {
    let Some(declared) = declared else { return Shape::from([batch]) };
    let dims = declared.iter().enumerate().map(|(axis, dim)| match (dim, axis) {
        (Some(dim), _) => *dim,
        (None, 0) => batch,
        (None, _) => 1,
    });
    dims.collect()
}

/// Loads the model in a version folder.
///
/// # Errors
/// [`FormatError::NotFound`] when there is no model; otherwise what is wrong with the one that is
/// there, in one line that names the file or the node.
pub fn load(path: &Path, options: &LoadOptions) -> Result<LoadedModel, FormatError> {
    let model = load_any(path, options);
    // The messages of a file are many small blocks; what packs the weights next takes large ones.
    release_free_memory();
    model
}

fn load_any(path: &Path, options: &LoadOptions) -> Result<LoadedModel, FormatError> {
    if onnx::is_model_file(path) {
        return onnx::load(path);
    }
    let inside = |name: &str| Some(path.join(name)).filter(|file| file.is_file());
    if inside("saved_model.pb").is_some() {
        return saved_model::load(path, options);
    }
    if safetensors::is_model(path) {
        return safetensors::load(path);
    }
    if hugging_face::is_model(path) {
        return hugging_face::load(path);
    }
    if let Some(file) = onnx::model_in(path) {
        return onnx::load(&file);
    }
    if let Some(file) = inside("saved_model.pbtxt") {
        return Err(FormatError::unsupported(
            file,
            "SavedModels as text are not supported; save it as saved_model.pb",
        ));
    }
    if let Some(file) = inside("saved_model.cpb") {
        return Err(FormatError::unsupported(file, "SavedModels in several parts are not supported"));
    }
    if let Some(file) = lite_model(path) {
        return Err(FormatError::unsupported(
            file,
            "this is a TensorFlow Lite model, which is not supported; serve the SavedModel that it was \
             converted from",
        ));
    }
    Err(FormatError::NotFound(path.to_owned()))
}

/// Whether there is a model at a path; nothing of it is read.
pub fn is_model(path: &Path) -> bool {
    const SAVED_MODELS: [&str; 3] = ["saved_model.pb", "saved_model.pbtxt", "saved_model.cpb"];
    SAVED_MODELS.iter().any(|file| path.join(file).is_file())
        || safetensors::is_model(path)
        || hugging_face::is_model(path)
        || onnx::is_model_file(path)
        || onnx::model_in(path).is_some()
}

/// A file with TensorFlow Lite's identifier (schema.fbs, `file_identifier`).
fn lite_model(directory: &Path) -> Option<PathBuf> {
    std::fs::read_dir(directory).ok()?.filter_map(|entry| Some(entry.ok()?.path())).find(|path| {
        let mut head = [0; 8];
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
        read.is_ok() && head[4..] == *b"TFL3"
    })
}
