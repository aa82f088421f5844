//! A model read from disk becomes a servable: each signature's graph is compiled for a backend.

use super::{Error, Patience, Program, Servable, Signature, TensorInfo, sidecar::Declared};
use crate::{
    formats::{FormatError, LoadedModel, LoadedSignature},
    graph::{self, Backend, GraphError, RunOptions},
    ops::OpError,
    tensor::{DType, Tensor, TensorError},
};
use std::{collections::BTreeMap, sync::Arc};

impl Servable {
    /// Compiles every signature of a loaded model.
    pub fn assemble(
        name: &str,
        version: i64,
        model: LoadedModel,
        backend: &dyn Backend,
    ) -> Result<Self, Error> {
        let mut signatures = BTreeMap::new();
        for (key, loaded) in model.signatures {
            signatures.insert(key.clone(), signature(key, loaded, backend)?);
        }
        Ok(Self {
            name: name.to_owned(),
            version,
            signatures,
            definitions: model.definitions,
            weight_bytes: model.weight_bytes,
            declared: Declared::default(),
            check_method_names: false,
            recorder: None,
            reserved: None,
        })
    }
}

fn signature(name: String, loaded: LoadedSignature, backend: &dyn Backend) -> Result<Signature, Error> {
    let outputs = loaded.outputs.len();
    let taken: Vec<DType> = loaded.graph.inputs().iter().map(|input| input.dtype).collect();
    let program = GraphProgram { program: backend.compile(loaded.graph)?, outputs };
    let mut inputs: Vec<TensorInfo> = loaded.inputs.into_iter().map(TensorInfo::from).collect();
    for (info, dtype) in inputs.iter_mut().zip(taken) {
        info.taken = Some(dtype);
    }
    Ok(Signature {
        name,
        inputs,
        outputs: loaded.outputs.into_iter().map(TensorInfo::from).collect(),
        defaults: loaded.defaults,
        definition: loaded.definition,
        program: Arc::new(program),
    })
}

/// A compiled graph; it computes all outputs, of which the wanted ones are handed on.
struct GraphProgram {
    program: Box<dyn graph::Program>,
    outputs: usize,
}

impl Program for GraphProgram {
    fn run(
        &self,
        inputs: &[Tensor],
        wanted: &[usize],
        patience: &Patience,
        outputs: &mut Vec<Tensor>,
    ) -> Result<(), Error> {
        let options = RunOptions {
            deadline: patience.deadline,
            cancelled: patience.cancelled.as_deref(),
            ..RunOptions::default()
        };
        if wanted.iter().copied().eq(0..self.outputs) {
            return Ok(self.program.run(inputs, outputs, &options)?);
        }
        let mut all = Vec::with_capacity(self.outputs);
        self.program.run(inputs, &mut all, &options)?;
        for &index in wanted {
            let output = all.get(index).cloned();
            outputs.push(output.ok_or_else(|| Error::internal("the signature has no such output"))?);
        }
        Ok(())
    }
}

impl From<crate::formats::TensorInfo> for TensorInfo {
    fn from(info: crate::formats::TensorInfo) -> Self {
        let crate::formats::TensorInfo { name, tensor, dtype, shape } = info;
        Self { name, tensor, dtype, taken: None, shape, image: None }
    }
}

/// Inputs that do not fit the graph are the caller's fault; the rest is ours.
impl From<GraphError> for Error {
    fn from(error: GraphError) -> Self {
        let text = error.to_string();
        match &error {
            GraphError::Deadline => Error::deadline_exceeded(text),
            GraphError::Cancelled => Error::cancelled(text),
            GraphError::NotInBackend { .. } | GraphError::Node { source: OpError::Unsupported(_), .. } => {
                Error::unimplemented(text)
            }
            GraphError::Node { source: OpError::Memory(_), .. } => Error::internal(text),
            GraphError::Node { source: OpError::Tensor(source), .. } | GraphError::Tensor(source) => {
                match source {
                    TensorError::OutOfMemory { .. } => Error::resource_exhausted(text),
                    _ => Error::invalid_argument(text),
                }
            }
            GraphError::Node { .. } | GraphError::InputCount { .. } | GraphError::InputDType { .. } => {
                Error::invalid_argument(text)
            }
            GraphError::TooMuchMemory { .. } | GraphError::Exhausted { .. } => {
                Error::resource_exhausted(text)
            }
            GraphError::Undefined(_) | GraphError::Panicked => Error::internal(text),
        }
    }
}

impl From<FormatError> for Error {
    fn from(error: FormatError) -> Self {
        let text = error.to_string();
        match error {
            FormatError::NotFound(_) | FormatError::Io { .. } => Error::not_found(text),
            FormatError::Invalid { .. } => Error::data_loss(text),
            FormatError::Unsigned { .. } => Error::permission_denied(text),
            FormatError::Unsupported { .. } | FormatError::MissingOperators(_) => Error::unimplemented(text),
            FormatError::Node { .. } => Error::invalid_argument(text),
            FormatError::Initialise(_) => Error::internal(text),
        }
    }
}
