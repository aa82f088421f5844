//! From a folder to a servable that is ready to answer.

use crate::{
    cli::Options,
    formats::{self, LoadOptions, built_in},
    graph::Cpu,
    kernels::{Threads, best},
    models::{Error, Loader, Registry, Servable},
};
use std::path::Path;

/// Loads any format for the CPU.
pub(super) struct FormatLoader {
    backend: Cpu,
    options: LoadOptions,
}

impl FormatLoader {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        Ok(Self {
            backend: Cpu::new(best(), Threads::new(options.threads)),
            options: LoadOptions { tags: options.saved_model_tags.clone() },
        })
    }
}

impl Loader for FormatLoader {
    fn load(&self, name: &str, version: i64, path: &Path) -> Result<Servable, Error> {
        let model = formats::load(path, &self.options)?;
        Servable::assemble(name, version, model, &self.backend)
    }
}

/// Publishes the models that are built into the binary.
pub(super) fn publish_built_in(registry: &Registry, loader: &FormatLoader) -> Result<(), Error> {
    for model in &built_in::MODELS {
        let servable = Servable::assemble(model.name, model.version, model.load()?, &loader.backend)?;
        registry.publish(servable);
    }
    Ok(())
}

/// Describes the model at a path, for `kinglet inspect`.
pub fn inspect(path: &Path) -> Result<String, Error> {
    Ok(formats::describe(&formats::load(path, &LoadOptions::default())?))
}
