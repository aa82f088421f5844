//! TensorFlow Serving's gRPC surface: `PredictionService`, `ModelService`, and beside them the
//! standard health and reflection services.
//!
//! A table of methods, each from the bytes of one message to the bytes of one; the wire does framing
//! and compression. Texts and codes are TensorFlow Serving's.
#![forbid(unsafe_code)]

mod examples;
mod health;
mod model;
mod predict;
mod record;
mod reflection;
mod request;
#[cfg(test)]
mod tests;

pub use record::prediction_log;

use super::{protobuf::Malformed, tensor_proto::Form};
use crate::{
    models::{Code, Error, Manager, ModelsConfig, Patience, Registry, Stats},
    proto::tensorflow::serving::ModelServerConfig,
    tensor::Bytes,
    wire::{
        Body, Request, Response,
        grpc::{self, Status},
    },
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
    /// Makes `config` the set of models to serve; returns when they answer or it is refused.
    fn reload(&self, config: ModelServerConfig, patience: &Patience) -> Result<(), Error>;
}

impl ModelAdmin for Manager {
    fn reload(&self, config: ModelServerConfig, patience: &Patience) -> Result<(), Error> {
        Manager::reload(self, &ModelsConfig::from_proto(config)?, patience)
    }
}

/// How the surface answers.
#[derive(Clone, Debug)]
pub struct Options {
    /// How response tensors are written (`--enable_serialization_as_tensor_content`).
    pub form: Form,
    /// Longest request message, in bytes, after decompression.
    pub max_message: usize,
    /// Bytes of tensor memory that one request may take beyond its message.
    pub request_memory: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { form: Form::Lists, max_message: 64 << 20, request_memory: 1 << 30 }
    }
}

/// The surface.
pub struct TfsGrpc {
    registry: Arc<Registry>,
    admin: Option<Arc<dyn ModelAdmin>>,
    options: Options,
    serving: AtomicBool,
    stats: Option<Arc<Stats>>,
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
        Self { registry, admin, options, serving: AtomicBool::new(true), stats: None }
    }

    /// The counters whose increase a new configuration may ask for.
    pub fn with_stats(self, stats: Arc<Stats>) -> Self {
        Self { stats: Some(stats), ..self }
    }

    /// What health checks answer from now on; false while the server starts or drains.
    pub fn set_serving(&self, serving: bool) {
        self.serving.store(serving, Ordering::Relaxed);
    }

    /// Whether the request is a gRPC call, be it to a method that is not served.
    pub fn takes(&self, request: &Request) -> bool {
        grpc::is_grpc(request)
    }

    /// Answers a call; the earlier of its own and the given deadline holds. `observe` is told path,
    /// message and outcome of a call that could be read.
    pub fn handle(
        &self,
        request: &Request,
        patience: &Patience,
        observe: impl FnOnce(&str, &Bytes, Code),
    ) -> Response {
        let result = grpc::decode(request, self.options.max_message).and_then(|call| {
            let deadline = [call.deadline, patience.deadline].into_iter().flatten().min();
            let patience = Patience { deadline, cancelled: patience.cancelled.clone() };
            let answer = self.call(&call.path, call.message.clone(), &patience);
            observe(&call.path, &call.message, answer.as_ref().map_or_else(|error| error.code, |_| Code::Ok));
            answer.map(Body::from).map_err(|error| Status::new(error.code as u32, error.message))
        });
        grpc::encode(result, request)
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
