//! TensorFlow Serving's gRPC surface: `PredictionService`, `ModelService`, and beside them the
//! standard health and reflection services.
//!
//! Bytes of one message in, bytes of one message out; framing, compression and deadlines on the
//! wire are not known here. Texts and codes are TensorFlow Serving's.
#![forbid(unsafe_code)]

mod examples;
mod health;
mod model;
mod predict;
mod reflection;
mod request;
#[cfg(test)]
mod tests;

use super::{protobuf::Malformed, tensor_proto::Form};
use crate::{
    models::{Error, Patience, Registry},
    proto::tensorflow::serving::ModelServerConfig,
    tensor::Bytes,
};
use prost::Message;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Longest error text on the wire, in bytes; the rest is cut.
const MAX_ERROR_TEXT: usize = 1024;
/// Longest message of a call that carries no tensors. Such messages are decoded into structures
/// many times their size.
const MAX_CONTROL_MESSAGE: usize = 1 << 20;

/// Takes a new model configuration while the server runs.
pub trait ModelAdmin: Send + Sync {
    /// Makes `config` the set of models to serve; returns when it is applied or refused.
    fn reload(&self, config: ModelServerConfig) -> Result<(), Error>;
}

/// How the surface answers.
#[derive(Clone, Debug)]
pub struct Options {
    /// How response tensors are written (`--enable_serialization_as_tensor_content`).
    pub form: Form,
    /// Bytes of tensor memory that one request may take beyond its message.
    pub request_memory: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { form: Form::Lists, request_memory: 1 << 30 }
    }
}

/// The surface.
pub struct TfsGrpc {
    registry: Arc<Registry>,
    admin: Option<Arc<dyn ModelAdmin>>,
    options: Options,
    serving: AtomicBool,
}

struct Method {
    path: &'static str,
    max_message: usize,
    run: fn(&TfsGrpc, Bytes, &Patience) -> Result<Bytes, Error>,
}

const fn inference(
    path: &'static str,
    run: fn(&TfsGrpc, Bytes, &Patience) -> Result<Bytes, Error>,
) -> Method {
    // The wire limits these.
    Method { path, max_message: usize::MAX, run }
}

const fn control(path: &'static str, run: fn(&TfsGrpc, Bytes, &Patience) -> Result<Bytes, Error>) -> Method {
    Method { path, max_message: MAX_CONTROL_MESSAGE, run }
}

const METHODS: &[Method] = &[
    inference("/tensorflow.serving.PredictionService/Predict", predict::predict),
    inference("/tensorflow.serving.PredictionService/Classify", examples::classify),
    inference("/tensorflow.serving.PredictionService/Regress", examples::regress),
    inference("/tensorflow.serving.PredictionService/MultiInference", examples::multi_inference),
    control("/tensorflow.serving.PredictionService/GetModelMetadata", model::metadata),
    control("/tensorflow.serving.ModelService/GetModelStatus", model::status),
    control("/tensorflow.serving.ModelService/HandleReloadConfigRequest", model::reload),
    control("/grpc.health.v1.Health/Check", health::check),
    control("/grpc.health.v1.Health/List", health::list),
    control("/grpc.health.v1.Health/Watch", health::watch),
    control("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", reflection::info),
    control("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", reflection::info),
];

impl TfsGrpc {
    /// A surface over `registry`. Without `admin`, a new configuration is refused.
    pub fn new(registry: Arc<Registry>, admin: Option<Arc<dyn ModelAdmin>>, options: Options) -> Self {
        Self { registry, admin, options, serving: AtomicBool::new(true) }
    }

    /// What health checks answer from now on; false while the server starts or drains.
    pub fn set_serving(&self, serving: bool) {
        self.serving.store(serving, Ordering::Relaxed);
    }

    /// Answers one message to the method at `path`, as in `/package.Service/Method`. Methods that
    /// stream requests are answered message by message.
    ///
    /// # Errors
    /// `UNIMPLEMENTED` for a path that is not served, `RESOURCE_EXHAUSTED` for an overlong message,
    /// `INTERNAL` for one that is not the method's, and what the method refuses. Texts are cut at
    /// 1024 bytes.
    pub fn call(&self, path: &str, message: Bytes, patience: &Patience) -> Result<Bytes, Error> {
        let method = METHODS
            .iter()
            .find(|method| method.path == path)
            .ok_or_else(|| Error::unimplemented(format!("unknown method {path}")));
        method.and_then(|method| method.answer(self, message, patience)).map_err(truncated)
    }
}

impl Method {
    fn answer(&self, surface: &TfsGrpc, message: Bytes, patience: &Patience) -> Result<Bytes, Error> {
        if message.len() > self.max_message {
            return Err(Error::resource_exhausted(format!(
                "Received message larger than max ({} vs. {})",
                message.len(),
                self.max_message
            )));
        }
        (self.run)(surface, message, patience)
    }
}

fn truncated(error: Error) -> Error {
    if error.message.len() <= MAX_ERROR_TEXT {
        return error;
    }
    let end = error.message.floor_char_boundary(MAX_ERROR_TEXT);
    let (kept, _) = error.message.split_at(end);
    Error { code: error.code, message: format!("{kept}...TRUNCATED").into() }
}

impl From<Malformed> for Error {
    fn from(_: Malformed) -> Self {
        Error::internal("Failed to parse the request message")
    }
}

/// Decodes a small message; what cannot be decoded is `INTERNAL`, as gRPC says.
fn parse<M: Message + Default>(message: Bytes) -> Result<M, Error> {
    Ok(M::decode(message).map_err(Malformed::from)?)
}
