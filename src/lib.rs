//! kinglet: an inference server in one static file.
//!
//! The modules are floors: a file may use only what stands on a floor below its own
//! (`tests/floors.rs` reads the imports and checks). From the ground up:
//!
//! * [`tensor`] and [`proto`]: values and generated messages; [`wire`]: HTTP/1.1, HTTP/2, gRPC frames
//! * `maps`: a helper for all
//! * [`kernels`]: loops over slices, SIMD, threads
//! * [`ops`], [`graph`]: operators, the intermediate representation, planning and running it
//! * [`formats`]: a model folder becomes a graph per signature
//! * [`models`]: versions, signatures, the canonical request
//! * [`api`]: wire messages to canonical requests and back; [`cli`]: flags to a configuration
//! * [`server`]: joins listeners, surfaces and models

pub mod api;
pub mod cli;
pub mod formats;
pub mod graph;
pub mod kernels;
mod maps;
pub mod models;
pub mod ops;
pub mod proto;
pub mod server;
pub mod tensor;
pub mod wire;
