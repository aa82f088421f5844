//! Models as clients know them: names, versions, signatures, canonical requests and errors.
//!
//! Nothing here knows a wire format; surfaces in `api` translate.
#![forbid(unsafe_code)]

mod assemble;
mod batch;
mod config;
pub mod convert;
mod error;
mod example;
#[cfg(test)]
pub(crate) mod fakes;
pub mod image;
mod loader;
mod manager;
mod memory;
mod multi;
pub mod postprocess;
mod predict;
mod record;
mod registry;
mod request;
mod run;
mod servable;
pub mod sidecar;
mod signature_text;
mod source;
mod stats;
pub mod textproto;
pub mod warmup;

pub use crate::formats::{data_type, dtype_of};
pub use batch::{BatchParameters, Scheduler, batched};
pub use config::{ModelConfig, ModelsConfig, VersionPolicy};
pub use error::{Code, Error};
pub use example::{Class, classify, regress};
pub use loader::Loader;
pub use manager::{ConfigSource, Manager, ManagerSettings};
pub use memory::{estimate, reserve};
pub use multi::{Inference, Task, multi_inference};
pub use predict::{check_inputs, predict};
pub use record::{Recorded, Recorder};
pub use registry::{Registry, State, VersionStatus};
pub use request::{ModelRef, Patience, Request, Response, VersionChoice};
pub use run::DEFAULT_SIGNATURE;
pub use servable::{Program, Servable, Signature, TensorInfo};
pub use source::{models_below, versions};
pub use stats::{Entrypoint, Monitoring, Stats};
