//! The files of one version of a model, wherever they are: in a folder, or in memory that was mapped and checked
//! before (a bundle, a signed folder).

use super::{FormatError, LoadOptions, LoadedModel, load, safetensors};
use crate::tensor::Buffer;
use std::{
    collections::BTreeMap,
    io::{Error, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Files by their names below one place.
#[derive(Clone, Debug)]
pub struct Files {
    place: PathBuf,
    held: Option<Arc<BTreeMap<String, Buffer>>>,
}

impl Files {
    /// The files of a folder, read when they are asked for. A model that is one file has none but itself.
    pub fn of_folder(path: impl Into<PathBuf>) -> Self {
        Self { place: path.into(), held: None }
    }

    /// Files in memory by their names, parts joined by slashes; `place` stands for them in errors.
    pub fn held(place: impl Into<PathBuf>, files: BTreeMap<String, Buffer>) -> Self {
        Self { place: place.into(), held: Some(Arc::new(files)) }
    }

    /// The place that they are below.
    pub fn root(&self) -> &Path {
        &self.place
    }

    /// Where a file is, or would be.
    pub fn place(&self, name: &Path) -> PathBuf {
        self.place.join(name)
    }

    /// The content of a file. [`ErrorKind::NotFound`] and [`ErrorKind::NotADirectory`] tell that there is none.
    pub fn read(&self, name: &Path) -> std::io::Result<Buffer> {
        match &self.held {
            None => Buffer::map_file(&self.place.join(name)),
            Some(files) => {
                let file = name.to_str().and_then(|name| files.get(name.strip_prefix("./").unwrap_or(name)));
                file.cloned().ok_or_else(|| Error::from(ErrorKind::NotFound))
            }
        }
    }

    /// The content of a file where there is one.
    pub fn find(&self, name: &Path) -> std::io::Result<Option<Buffer>> {
        match self.read(name) {
            Ok(content) => Ok(Some(content)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The files of the folder above a version folder, which are for all versions.
    pub fn above(&self) -> Option<Files> {
        let name = self.place.file_name().and_then(|name| name.to_str());
        let is_version = name.is_some_and(|name| name.parse::<u64>().is_ok());
        let parent = self.place.parent().filter(|_| self.held.is_none() && is_version)?;
        Some(Self::of_folder(parent))
    }

    /// Loads the model that they are.
    ///
    /// # Errors
    /// As [`load`]; files in memory are kinglet's own format.
    pub fn load(&self, options: &LoadOptions) -> Result<LoadedModel, FormatError> {
        if self.held.is_none() {
            return load(&self.place, options);
        }
        let read = |name: &str| {
            let io = |error| FormatError::io(self.place(Path::new(name)), &error);
            self.find(Path::new(name)).map_err(io)
        };
        let Some(model) = read(safetensors::MODEL_FILE)? else {
            return Err(FormatError::NotFound(self.place.clone()));
        };
        let text = std::str::from_utf8(model.as_bytes()).map_err(|error| {
            FormatError::invalid(self.place(Path::new(safetensors::MODEL_FILE)), error.to_string())
        })?;
        safetensors::load_parts(&self.place, text, read(safetensors::WEIGHTS_FILE)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_memory_are_read_as_those_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join("3");
        std::fs::create_dir(&version).unwrap();
        std::fs::write(version.join("a"), "1").unwrap();
        std::fs::write(folder.path().join("b"), "2").unwrap();
        let on_disk = Files::of_folder(&version);
        let held = Files::held("x", BTreeMap::from([("a".to_owned(), Buffer::from_static(b"1"))]));
        for files in [&on_disk, &held] {
            assert_eq!(files.read(Path::new("a")).unwrap().as_bytes(), b"1");
            assert!(files.find(Path::new("b")).unwrap().is_none());
        }
        assert_eq!(on_disk.above().unwrap().read(Path::new("b")).unwrap().as_bytes(), b"2");
        assert!(held.above().is_none() && on_disk.above().unwrap().above().is_none());
        assert!(matches!(held.load(&LoadOptions::default()), Err(FormatError::NotFound(_))));
        assert!(Files::of_folder(version.join("a")).find(Path::new("b")).unwrap().is_none());
    }
}
