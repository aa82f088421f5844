//! Reads the messages that carry tensors and Examples. Their bulk is sliced, not decoded, and what
//! is decoded is limited in number, so that a message takes little more memory than its bytes.

use super::parse;
use crate::{
    api::{
        protobuf::{Fields, Malformed, Value},
        tensor_proto::Budget,
    },
    models::{Error, ModelRef, VersionChoice},
    proto::tensorflow::serving::{InferenceTask, ModelSpec, model_spec},
    tensor::Bytes,
};
use prost::Message;
use std::collections::BTreeMap;

/// Names of inputs, names of outputs, and tasks that one request may carry.
const MAX_NAMES: usize = 4096;

/// A `PredictRequest`; the inputs are serialized `TensorProto`s.
#[derive(Default)]
pub(super) struct PredictMessage {
    pub(super) spec: Option<ModelSpec>,
    pub(super) inputs: BTreeMap<String, Bytes>,
    pub(super) output_filter: Vec<String>,
}

impl PredictMessage {
    pub(super) fn read(message: Bytes) -> Result<Self, Error> {
        let mut request = Self::default();
        for field in Fields::new(message) {
            match field? {
                (1, Value::Bytes(spec)) => merge(&mut request.spec, spec)?,
                (2, Value::Bytes(entry)) => {
                    let (alias, tensor) = map_entry(entry)?;
                    request.inputs.insert(alias, tensor);
                }
                (3, Value::Bytes(alias)) => request.output_filter.push(text(&alias)?),
                _ => {}
            }
            limit(request.inputs.len().max(request.output_filter.len()))?;
        }
        Ok(request)
    }
}

/// A `ClassificationRequest` or `RegressionRequest`, which are alike.
#[derive(Default)]
pub(super) struct ExamplesMessage {
    pub(super) spec: Option<ModelSpec>,
    pub(super) examples: Vec<Bytes>,
}

impl ExamplesMessage {
    pub(super) fn read(message: Bytes, budget: &mut Budget) -> Result<Self, Error> {
        let mut request = Self::default();
        let mut input = Input::default();
        for field in Fields::new(message) {
            match field? {
                (1, Value::Bytes(spec)) => merge(&mut request.spec, spec)?,
                (2, Value::Bytes(bytes)) => input.read(bytes, budget)?,
                _ => {}
            }
        }
        request.examples = input.serialized(budget)?;
        Ok(request)
    }
}

/// A `MultiInferenceRequest`.
#[derive(Default)]
pub(super) struct MultiMessage {
    pub(super) tasks: Vec<InferenceTask>,
    pub(super) examples: Vec<Bytes>,
}

impl MultiMessage {
    pub(super) fn read(message: Bytes, budget: &mut Budget) -> Result<Self, Error> {
        let mut request = Self::default();
        let mut input = Input::default();
        for field in Fields::new(message) {
            match field? {
                (1, Value::Bytes(task)) => request.tasks.push(parse(task)?),
                (2, Value::Bytes(bytes)) => input.read(bytes, budget)?,
                _ => {}
            }
            limit(request.tasks.len())?;
        }
        request.examples = input.serialized(budget)?;
        Ok(request)
    }
}

/// The model and version that a request names.
pub(super) fn model_ref(spec: Option<&ModelSpec>) -> Result<ModelRef, Error> {
    let spec = spec.ok_or_else(missing_spec)?;
    if spec.name.is_empty() {
        return Err(Error::invalid_argument("ModelSpec has no name specified."));
    }
    let version = match &spec.version_choice {
        None => VersionChoice::Latest,
        Some(model_spec::VersionChoice::Version(version)) => VersionChoice::Specific(*version),
        Some(model_spec::VersionChoice::VersionLabel(label)) => VersionChoice::Label(label.clone()),
    };
    Ok(ModelRef { name: spec.name.clone(), version })
}

pub(super) fn missing_spec() -> Error {
    Error::invalid_argument("Missing ModelSpec")
}

/// The `Input` oneof: `ExampleList`, or `ExampleListWithContext` whose context goes before each
/// example's bytes. That is a merge of messages, in which the example's features win.
#[derive(Default)]
struct Input {
    with_context: bool,
    examples: Vec<Bytes>,
    context: Vec<u8>,
}

impl Input {
    fn read(&mut self, input: Bytes, budget: &mut Budget) -> Result<(), Error> {
        for field in Fields::new(input) {
            let (kind @ (1 | 2), Value::Bytes(list)) = field? else { continue };
            if self.with_context != (kind == 2) {
                *self = Self { with_context: kind == 2, ..Self::default() };
            }
            for field in Fields::new(list) {
                match field? {
                    (1, Value::Bytes(example)) => {
                        budget.take(1, size_of::<Bytes>()).map_err(too_large)?;
                        self.examples.push(example);
                    }
                    (2, Value::Bytes(context)) if self.with_context => {
                        self.context.extend_from_slice(&context);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn serialized(self, budget: &mut Budget) -> Result<Vec<Bytes>, Error> {
        if self.context.is_empty() {
            return Ok(self.examples);
        }
        let merged = |example: Bytes| {
            budget.take(1, self.context.len() + example.len()).map_err(too_large)?;
            Ok([&self.context[..], &example].concat().into())
        };
        self.examples.into_iter().map(merged).collect()
    }
}

fn too_large(error: crate::api::tensor_proto::DecodeError) -> Error {
    Error::resource_exhausted(error.to_string())
}

fn merge(spec: &mut Option<ModelSpec>, bytes: Bytes) -> Result<(), Malformed> {
    Ok(spec.get_or_insert_default().merge(bytes)?)
}

fn map_entry(entry: Bytes) -> Result<(String, Bytes), Error> {
    let (mut key, mut value) = (Bytes::new(), Bytes::new());
    for field in Fields::new(entry) {
        match field? {
            (1, Value::Bytes(bytes)) => key = bytes,
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Ok((text(&key)?, value))
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed)
}

fn limit(names: usize) -> Result<(), Error> {
    if names > MAX_NAMES {
        return Err(Error::invalid_argument(format!(
            "The request has more than {MAX_NAMES} inputs, outputs or tasks."
        )));
    }
    Ok(())
}
