//! `grpc.health.v1.Health`.
//!
//! `Watch` is answered with UNIMPLEMENTED, which the health checking protocol foresees: clients then
//! treat the server as healthy and do not ask again.

use super::{TfsGrpc, parse};
use crate::{
    models::{Error, Patience},
    proto::grpc::health::{
        HealthCheckRequest, HealthCheckResponse, HealthListResponse, health_check_response::ServingStatus,
    },
    tensor::Bytes,
};
use prost::Message;
use std::sync::atomic::Ordering;

/// Services that can be asked for: the server as a whole, the names that TensorFlow Serving
/// registers, and the full names.
const SERVICES: [&str; 5] = [
    "",
    "ModelService",
    "PredictionService",
    "tensorflow.serving.ModelService",
    "tensorflow.serving.PredictionService",
];

pub(super) fn check(surface: &TfsGrpc, message: Bytes, _: &Patience) -> Result<Bytes, Error> {
    let service = parse::<HealthCheckRequest>(message)?.service;
    if !SERVICES.contains(&service.as_str()) {
        return Err(Error::not_found(format!("unknown service {service}")));
    }
    Ok(status(surface).encode_to_vec().into())
}

pub(super) fn list(surface: &TfsGrpc, _: Bytes, _: &Patience) -> Result<Bytes, Error> {
    let statuses = SERVICES.map(|service| (service.to_owned(), status(surface))).into();
    Ok(HealthListResponse { statuses }.encode_to_vec().into())
}

pub(super) fn watch(_: &TfsGrpc, _: Bytes, _: &Patience) -> Result<Bytes, Error> {
    Err(Error::unimplemented("Watch is not supported; call Check"))
}

fn status(surface: &TfsGrpc) -> HealthCheckResponse {
    let serving = surface.serving.load(Ordering::Relaxed);
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status as i32 }
}
