//! Surfaces: each a thin codec from wire messages to canonical requests and back.
//!
//! No surface calls another, and none knows a model format.
#![forbid(unsafe_code)]

pub mod auth;
pub mod json;
pub mod modelarts;
pub mod protobuf;
pub mod tensor_proto;
pub mod tfs_grpc;
pub mod tfs_rest;

use crate::{
    models::Patience,
    wire::{Request, Response},
};

/// An API over HTTP.
pub trait Surface: Send + Sync {
    /// Whether the request is one of this API's, be it a wrong one.
    fn takes(&self, request: &Request) -> bool;

    /// Answers the request.
    fn handle(&self, request: Request, patience: &Patience) -> Response;
}
