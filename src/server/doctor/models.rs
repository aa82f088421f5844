//! Whether the models can be loaded, and whether they fit.

use super::{Finding, megabytes};
use crate::{
    cli::{ModelSource, Options},
    formats::{self, LoadOptions, assumed_shape},
    graph::Cpu,
    kernels::{Threads, best},
    models::{ModelsConfig, estimate, models_below, versions},
    server::load::Finder,
};
use std::path::Path;

pub(super) fn findings(options: &Options) -> Vec<Finding> {
    let config = match &options.source {
        ModelSource::BuiltIn => return vec![Finding::good("models", "the built-in models")],
        ModelSource::Single { name, base_path } => Ok(ModelsConfig::single(name, base_path.clone())),
        ModelSource::Package { name, folder } => Ok(ModelsConfig::single(name, folder.clone())),
        ModelSource::ConfigFile(path) => ModelsConfig::from_file(path),
        ModelSource::Folder(folder) => models_below(folder, &Finder),
    };
    let config = match config {
        Ok(config) if config.models.is_empty() => {
            return vec![Finding::wrong(
                "models",
                "there is none",
                "a model is a folder with numbered version folders",
            )];
        }
        Ok(config) => config,
        Err(error) => {
            return vec![Finding::wrong("models", error.to_string(), "correct the path or the file")];
        }
    };
    let mut findings = Vec::new();
    let mut total = 0usize;
    for model in config.models.values() {
        match versions(&model.base_path, &Finder) {
            Err(error) => findings.push(Finding::wrong(
                "models",
                format!("{}: {error}", model.name),
                "correct the path, or let the user of the server read it",
            )),
            Ok(offered) if offered.is_empty() => findings.push(Finding::wrong(
                "models",
                format!("{}: no version in {}", model.name, model.base_path.display()),
                "a version is a folder with a number as its name, holding saved_model.pb or a .onnx file",
            )),
            // What is served by default.
            Ok(offered) => {
                if let Some((version, path)) = offered.last_key_value() {
                    findings.push(one(
                        &format!("{} version {version}", model.name),
                        path,
                        options,
                        &mut total,
                    ));
                }
            }
        }
    }
    if total > options.memory_limit {
        findings.push(Finding::wrong(
            "models",
            format!("together they need {} of {}", megabytes(total), megabytes(options.memory_limit)),
            "serve fewer, convert them to smaller types, or raise --memory_limit",
        ));
    }
    findings
}

fn one(name: &str, path: &Path, options: &Options, total: &mut usize) -> Finding {
    let tags = LoadOptions { tags: options.saved_model_tags.clone() };
    let model = match formats::load(path, &tags) {
        Ok(model) => model,
        Err(error) => {
            return Finding::wrong("models", format!("{name}: {error}"), "`kinglet inspect` says more of it");
        }
    };
    let backend = Cpu::new(best(), Threads::single());
    match estimate(&model, &backend, &|_, declared| assumed_shape(declared, 1)) {
        Ok(memory) => {
            *total = total.saturating_add(memory.total());
            Finding::good("models", format!("{name}: {}, {}", model.platform, megabytes(memory.total())))
        }
        Err(error) => {
            Finding::advice("models", format!("{name}: {error}"), "`kinglet run` tells what happens")
        }
    }
}
