//! Any model becomes a version folder of kinglet's own format: the graphs as they run, weights in any precision,
//! and what stands beside the model: kinglet.toml with its labels, warm-up requests, batching parameters.

use super::{Error, sidecar, warmup::WARMUP_FILE};
use crate::{
    formats::{Files, FormatError, LoadOptions, LoadedModel, safetensors, signed},
    graph::{
        Cpu,
        passes::{Narrow, narrow_weights},
    },
    kernels::PanelWidth,
    tensor::Buffer,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Beside a model for `--enable_per_model_batching_parameters`.
pub const BATCHING_FILE: &str = "batching_params.pbtxt";

/// How to convert.
#[derive(Clone, Debug, Default)]
pub struct Conversion {
    /// What weights are stored as; `None` keeps every bit.
    pub narrow: Option<Narrow>,
    /// The panels that weights of products are written as; `None` keeps their own order.
    pub panels: Option<PanelWidth>,
    /// Signs the folder.
    pub key: Option<Arc<signed::PrivateKey>>,
}

/// A folder that was written beside its destination, and is not there yet.
#[derive(Debug)]
pub struct Written {
    /// The model as it was loaded.
    pub source: LoadedModel,
    /// The model as it is loaded from the new folder.
    pub copy: LoadedModel,
    /// Bytes of all new files.
    pub bytes: u64,
    temporary: PathBuf,
    destination: PathBuf,
}

/// The folder that a model is converted to: `destination`, where its name is a version, else version 1 below it.
pub fn version_folder(destination: &Path) -> PathBuf {
    let name = destination.file_name().and_then(|name| name.to_str());
    match name.is_some_and(|name| name.parse::<u64>().is_ok()) {
        true => destination.to_owned(),
        false => destination.join("1"),
    }
}

/// The version folder that is meant by a path: the highest where it holds some, else the path itself.
pub fn meant(source: &Path) -> PathBuf {
    let entries = fs::read_dir(source).into_iter().flatten().flatten();
    let version = |path: PathBuf| Some((path.file_name()?.to_str()?.parse::<u64>().ok()?, path));
    let versions = entries.filter_map(|entry| version(entry.path())).filter(|(_, path)| path.is_dir());
    versions.max().map_or_else(|| source.to_owned(), |(_, path)| path)
}

impl Conversion {
    /// Converts the model at `source` into a new folder that stands hidden beside `destination`, until
    /// [`Written::publish`] renames it or [`Written::discard`] removes it.
    ///
    /// # Errors
    /// The model cannot be loaded or written, or its kinglet.toml has a mistake; `ALREADY_EXISTS` where there is
    /// such a version.
    pub fn write(&self, source: &Path, destination: &Path, cpu: &Cpu) -> Result<Written, Error> {
        let source = meant(source);
        let destination = version_folder(destination);
        if destination.exists() {
            let place = destination.display();
            return Err(Error::already_exists(format!("{place} is there already; choose another version")));
        }
        let model = formats_load(&source)?;
        let fused = self.fused(&model, cpu)?;
        let parent = destination.parent().unwrap_or(Path::new("."));
        let name = destination.file_name().and_then(|name| name.to_str()).unwrap_or("1");
        let temporary = parent.join(format!(".{name}.new-{}", std::process::id()));
        let written = self.fill(&fused, &Files::of_folder(&source), &temporary).and_then(|bytes| {
            let copy = formats_load(&temporary)?;
            Ok((bytes, copy))
        });
        match written {
            Ok((bytes, copy)) => Ok(Written { source: model, copy, bytes, temporary, destination }),
            Err(error) => {
                // The first error counts.
                let _ = fs::remove_dir_all(&temporary);
                Err(error)
            }
        }
    }

    /// The same model with graphs as they run.
    fn fused(&self, model: &LoadedModel, cpu: &Cpu) -> Result<LoadedModel, Error> {
        let mut model = model.clone();
        for signature in model.signatures.values_mut() {
            let mut graph = cpu.fused(signature.graph.clone());
            if let Some(narrow) = self.narrow {
                graph = narrow_weights(graph, narrow).map_err(|error| Error::internal(error.to_string()))?;
            }
            signature.graph = Arc::new(graph);
        }
        Ok(model)
    }

    fn fill(&self, model: &LoadedModel, source: &Files, folder: &Path) -> Result<u64, Error> {
        safetensors::save(model, folder, self.panels)?;
        if let Some((text, files)) = sidecar::portable(source)? {
            put(&folder.join(sidecar::FILE), text.as_bytes())?;
            for (name, content) in files {
                put(&folder.join(name), content.as_bytes())?;
            }
        }
        for name in [WARMUP_FILE, BATCHING_FILE] {
            let unreadable = |error| FormatError::io(source.place(Path::new(name)), &error);
            if let Some(content) = source.find(Path::new(name)).map_err(unreadable)? {
                put(&folder.join(name), content.as_bytes())?;
            }
        }
        if let Some(key) = &self.key {
            signed::sign_folder(folder, key)?;
        }
        let files = signed::files_below(folder)?;
        Ok(files.values().map(|file: &Buffer| file.len() as u64).sum())
    }
}

impl Written {
    /// The folder that it becomes.
    pub fn destination(&self) -> &Path {
        &self.destination
    }

    /// The folder that it is in now.
    pub fn folder(&self) -> &Path {
        &self.temporary
    }

    /// Puts the folder in its place, in one step.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn publish(self) -> Result<PathBuf, Error> {
        let renamed = fs::rename(&self.temporary, &self.destination);
        renamed.map_err(|error| FormatError::io(&self.destination, &error))?;
        Ok(self.destination)
    }

    /// Removes the folder again.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn discard(self) -> Result<(), Error> {
        fs::remove_dir_all(&self.temporary).map_err(|error| FormatError::io(&self.temporary, &error).into())
    }
}

fn formats_load(path: &Path) -> Result<LoadedModel, FormatError> {
    crate::formats::load(path, &LoadOptions::default())
}

/// Writes a file, and the folder that it stands in.
fn put(path: &Path, content: &[u8]) -> Result<(), FormatError> {
    let written =
        fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).and_then(|()| fs::write(path, content));
    written.map_err(|error| FormatError::io(path, &error))
}
