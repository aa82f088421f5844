//! Models as clients know them: names, versions, signatures, canonical requests and errors.
//!
//! Nothing here knows a wire format; surfaces in `api` translate.
#![forbid(unsafe_code)]

mod config;
mod error;
mod inference;
mod registry;
mod request;
mod servable;
pub mod textproto;

pub use config::{ModelConfig, ModelsConfig, VersionPolicy};
pub use error::{Code, Error};
pub use inference::{Class, classify, predict, regress};
pub use registry::{Registry, State, VersionStatus};
pub use request::{ModelRef, Patience, Request, Response, VersionChoice};
pub use servable::{Program, Servable, Signature, TensorInfo};
