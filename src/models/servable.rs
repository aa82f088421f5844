//! One loaded version of a model: its signatures and the programs behind them.

use super::{Error, Patience, Recorder, image::ImageInput, run::DEFAULT_SIGNATURE, sidecar::Declared};
use crate::{
    graph::Reserved,
    proto::tensorflow::SignatureDef,
    tensor::{DType, Tensor},
};
use std::{collections::BTreeMap, sync::Arc};

/// What runs a signature. The graph floor provides it; tests provide fakes.
pub trait Program: Send + Sync {
    /// Runs with one tensor per signature input, in the order of [`Signature::inputs`], and appends
    /// the tensors of the outputs whose positions in [`Signature::outputs`] are `wanted`, in that
    /// order.
    fn run(
        &self,
        inputs: &[Tensor],
        wanted: &[usize],
        patience: &Patience,
        outputs: &mut Vec<Tensor>,
    ) -> Result<(), Error>;
}

/// One input or output of a signature.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// The alias that clients use.
    pub name: String,
    /// The graph's tensor, as in `x:0`; shown in errors.
    pub tensor: String,
    /// Element type; `None` where kinglet has no such type.
    pub dtype: Option<DType>,
    /// The element type that the graph takes for an input, where that is known. Published models
    /// declare another one in places; requests are held to this one, as by TensorFlow Serving.
    pub taken: Option<DType>,
    /// Dimensions, `None` for an unknown one; `None` altogether when the rank is unknown.
    pub shape: Option<Vec<Option<usize>>>,
    /// How an input takes images, if its kinglet.toml says so.
    pub image: Option<Arc<ImageInput>>,
}

/// One callable signature.
pub struct Signature {
    /// Its name, as in `serving_default`.
    pub name: String,
    /// Inputs, alphabetically by alias.
    pub inputs: Vec<TensorInfo>,
    /// Outputs, alphabetically by alias.
    pub outputs: Vec<TensorInfo>,
    /// Values of inputs that a gRPC request may leave out.
    pub defaults: BTreeMap<String, Tensor>,
    /// The definition as metadata calls show it; made up for formats other than SavedModel.
    pub definition: SignatureDef,
    /// Runs it.
    pub program: Arc<dyn Program>,
}

impl Signature {
    /// What it was made for, as in `tensorflow/serving/predict`.
    pub fn method_name(&self) -> &str {
        &self.definition.method_name
    }
}

/// A loaded version of a model.
pub struct Servable {
    /// The model's name.
    pub name: String,
    /// Its version.
    pub version: i64,
    /// Signatures by name. Those that only initialise (`__saved_model_init_op`) are in `definitions` only.
    pub signatures: BTreeMap<String, Signature>,
    /// Every signature definition of the model, callable or not, for metadata calls.
    pub definitions: BTreeMap<String, SignatureDef>,
    /// Bytes of weights and other constants.
    pub weight_bytes: usize,
    /// What its kinglet.toml says; nothing without one.
    pub declared: Declared,
    /// Calls are refused whose signature carries another method name
    /// (`--enable_signature_method_name_check`).
    pub check_method_names: bool,
    /// Its part of the memory that there is, where that is limited.
    pub reserved: Option<Reserved>,
    /// Told of every call that succeeds.
    pub recorder: Option<Arc<dyn Recorder>>,
}

impl Servable {
    /// The signature of that name.
    pub fn signature(&self, name: &str) -> Option<&Signature> {
        self.signatures.get(name)
    }

    /// The signature that is meant where none is named: the declared one, `serving_default`, or the only one.
    pub fn main_signature(&self) -> Option<&Signature> {
        let named = self.declared.signature.as_deref().unwrap_or(DEFAULT_SIGNATURE);
        let only = || self.signatures.values().next().filter(|_| self.signatures.len() == 1);
        self.signature(named).or_else(only)
    }
}
