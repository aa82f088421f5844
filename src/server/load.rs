//! From a folder to a servable that is ready to answer.

use crate::{
    cli::Options,
    formats::{FormatError, LoadedModel, safetensors},
    graph::Cpu,
    kernels::{Threads, best},
    models::{Error, Loader, Registry, Servable},
};
use std::path::Path;

/// Loads any format for the CPU.
pub(super) struct FormatLoader {
    backend: Cpu,
}

impl FormatLoader {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        Ok(Self { backend: Cpu::new(best(), Threads::new(options.threads)) })
    }
}

impl Loader for FormatLoader {
    fn load(&self, name: &str, version: i64, path: &Path) -> Result<Servable, Error> {
        let model = read(path)?;
        Servable::assemble(name, version, model, &self.backend)
    }
}

/// Reads a version folder of any format.
fn read(path: &Path) -> Result<LoadedModel, FormatError> {
    safetensors::load(path)
}

/// Publishes the models that are built into the binary.
pub(super) fn publish_built_in(registry: &Registry, loader: &FormatLoader) -> Result<(), Error> {
    let _ = (registry, loader);
    log::warn!("this build has no built-in models");
    Ok(())
}

/// Describes the model at a path, for `kinglet inspect`.
pub fn inspect(path: &Path) -> Result<String, Error> {
    let model = read(path)?;
    let names: Vec<&str> = model.signatures.keys().map(String::as_str).collect();
    Ok(format!(
        "{}: {} bytes of weights, signatures {}\n",
        model.platform,
        model.weight_bytes,
        names.join(", ")
    ))
}
