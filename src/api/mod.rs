//! Surfaces: each a thin codec from wire messages to canonical requests and back.
//!
//! No surface calls another, and none knows a model format.
#![forbid(unsafe_code)]

pub mod json;
pub mod protobuf;
pub mod tensor_proto;
pub mod tfs_grpc;
pub mod tfs_rest;
