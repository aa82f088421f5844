//! Runs a version's recorded requests through the gRPC surface before anyone else can call it.

use crate::{
    api::tfs_grpc::{self, TfsGrpc},
    formats::Files,
    models::{Code, Error, Patience, Registry, Servable, Stats, warmup},
    proto::tensorflow::serving::{ModelSpec, prediction_log::LogType},
};
use prost::Message;
use std::{sync::Arc, time::Instant};

const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";
const CLASSIFY: &str = "/tensorflow.serving.PredictionService/Classify";
const REGRESS: &str = "/tensorflow.serving.PredictionService/Regress";
const MULTI_INFERENCE: &str = "/tensorflow.serving.PredictionService/MultiInference";

/// Runs each warm-up request of the version so many times; one that fails fails the load.
pub(super) fn run(
    servable: Servable,
    version: &Files,
    iterations: usize,
    stats: &Stats,
) -> Result<Servable, Error> {
    let requests = warmup::requests(version)?;
    if requests.is_empty() {
        return Ok(servable);
    }
    let started = Instant::now();
    let servable = Arc::new(servable);
    let staging = Arc::new(Registry::new());
    staging.publish_shared(servable.clone());
    let surface = TfsGrpc::new(staging, None, tfs_grpc::Options::default());
    let count = requests.len();
    let shown = version.root().display().to_string();
    for request in requests {
        let (path, message) = call(request, &servable.name)?;
        for _ in 0..iterations {
            let started = Instant::now();
            let result = surface.call(path, message.clone().into(), &Patience::default());
            let code = result.as_ref().map_or_else(|error| error.code, |_| Code::Ok);
            stats.warmup(&shown, code, started.elapsed());
            result.map_err(|error| Error {
                message: format!("a warm-up request failed: {}", error.message).into(),
                ..error
            })?;
        }
    }
    drop(surface);
    log::info!(
        "{} version {}: {count} warm-up requests took {:.0} ms",
        servable.name,
        servable.version,
        started.elapsed().as_secs_f64() * 1e3
    );
    Arc::try_unwrap(servable).map_err(|_| Error::internal("a warm-up request still holds the model"))
}

/// The method and message of a recorded request, addressed to the version that is being loaded.
pub(super) fn call(request: LogType, model: &str) -> Result<(&'static str, Vec<u8>), Error> {
    let missing = || Error::invalid_argument("a warm-up record holds no request");
    let address = |spec: &mut Option<ModelSpec>| {
        let spec = spec.get_or_insert_default();
        spec.name = model.to_owned();
        spec.version_choice = None;
    };
    match request {
        LogType::PredictLog(log) => {
            let mut request = log.request.ok_or_else(missing)?;
            address(&mut request.model_spec);
            Ok((PREDICT, request.encode_to_vec()))
        }
        LogType::ClassifyLog(log) => {
            let mut request = log.request.ok_or_else(missing)?;
            address(&mut request.model_spec);
            Ok((CLASSIFY, request.encode_to_vec()))
        }
        LogType::RegressLog(log) => {
            let mut request = log.request.ok_or_else(missing)?;
            address(&mut request.model_spec);
            Ok((REGRESS, request.encode_to_vec()))
        }
        LogType::MultiInferenceLog(log) => {
            let mut request = log.request.ok_or_else(missing)?;
            request.tasks.iter_mut().for_each(|task| address(&mut task.model_spec));
            Ok((MULTI_INFERENCE, request.encode_to_vec()))
        }
        LogType::PredictStreamedLog(_) => Err(Error::unimplemented("streamed warm-up records")),
    }
}
