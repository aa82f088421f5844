//! Model folders: what is in one is found out from the files' contents, never from the folder's name.
//! Whatever the format, loading gives one graph per signature.
#![forbid(unsafe_code)]

mod definition;
mod error;
pub mod safetensors;
pub mod saved_model;

pub use error::{FormatError, MissingOperator, MissingOperators};

use crate::{
    graph::Graph,
    proto::tensorflow::SignatureDef,
    tensor::{DType, Tensor},
};
use std::{collections::BTreeMap, sync::Arc};

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
    /// Computes the outputs from the inputs, both in the order above.
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
