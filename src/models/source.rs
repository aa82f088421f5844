//! What a file system offers: the versions below a base path, the models below a folder.
//!
//! A version is a folder whose whole name is a number, so a copy under another name (`3.tmp`) is not seen
//! until it is renamed, which is atomic. A base path that holds no such folder but is a model itself is
//! served as version 1.

use super::{Error, Loader, ModelConfig, ModelsConfig};
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The version of a model that lies in its base path without a version folder.
const UNVERSIONED: i64 = 1;

/// Files looked at to see whether a version changed.
const MAX_FINGERPRINT_FILES: usize = 1000;

/// The versions below `base_path`, with their folders.
///
/// `NOT_FOUND` when there is no such path, or when it cannot be read.
pub fn versions(base_path: &Path, loader: &dyn Loader) -> Result<BTreeMap<i64, PathBuf>, Error> {
    let missing = |error: std::io::Error| {
        Error::not_found(format!("Could not find base path {}: {error}", base_path.display()))
    };
    if std::fs::metadata(base_path).map_err(missing)?.is_file() {
        return Ok(BTreeMap::from([(UNVERSIONED, base_path.to_owned())]));
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(base_path).map_err(missing)? {
        if let Ok(name) = entry.map_err(missing)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    let mut found = BTreeMap::new();
    for name in names {
        let Some(version) = version_of(&name) else { continue };
        let path = base_path.join(&name);
        if !path.is_dir() {
            continue;
        }
        if let Some(before) = found.insert(version, path) {
            log::warn!("{} and {name} are both version {version}; {name} is taken", before.display());
        }
    }
    if found.is_empty() && loader.recognises(base_path) {
        found.insert(UNVERSIONED, base_path.to_owned());
    }
    Ok(found)
}

/// Every folder directly below `folder` that holds a model or versions, by its name.
pub fn models_below(folder: &Path, loader: &dyn Loader) -> Result<ModelsConfig, Error> {
    let missing = |error: std::io::Error| {
        Error::not_found(format!("Could not read the models folder {}: {error}", folder.display()))
    };
    let mut config = ModelsConfig::default();
    for entry in std::fs::read_dir(folder).map_err(missing)? {
        let entry = entry.map_err(missing)?;
        let (path, Ok(name)) = (entry.path(), entry.file_name().into_string()) else { continue };
        let hidden = name.starts_with('.');
        if !hidden && path.is_dir() && versions(&path, loader).is_ok_and(|found| !found.is_empty()) {
            let model = ModelConfig { name: name.clone(), base_path: path, ..ModelConfig::default() };
            config.models.insert(name, model);
        }
    }
    Ok(config)
}

/// A number that changes when files of a version are added, removed or written.
pub(super) fn fingerprint(path: &Path) -> u64 {
    let mut files = Vec::new();
    collect(path, 3, &mut files);
    files.sort();
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    hasher.finish()
}

type FileFacts = (PathBuf, u64, Option<SystemTime>);

fn collect(path: &Path, depth: usize, files: &mut Vec<FileFacts>) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    files.push((path.to_owned(), metadata.len(), metadata.modified().ok()));
    if depth == 0 || !metadata.is_dir() {
        return;
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if files.len() >= MAX_FINGERPRINT_FILES {
            return;
        }
        collect(&entry.path(), depth - 1, files);
    }
}

/// The version that a folder's name stands for: all of it is a 64-bit number; zeros may lead.
fn version_of(name: &str) -> Option<i64> {
    if name.starts_with('+') { None } else { name.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Servable;
    use std::fs::{create_dir, create_dir_all, rename, write};

    struct Never;

    impl Loader for Never {
        fn load(&self, _: &str, _: i64, _: &Path) -> Result<Servable, Error> {
            Err(Error::unimplemented("never"))
        }
    }

    #[test]
    fn a_version_is_a_folder_with_a_number_as_its_whole_name() {
        for (name, version) in [
            ("123", Some(123)),
            ("00000123", Some(123)),
            ("-4", Some(-4)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("+1", None),
            ("1.tmp", None),
            ("1a", None),
            ("", None),
            (" 1", None),
        ] {
            assert_eq!(version_of(name), version, "{name:?}");
        }
    }

    #[test]
    fn listing_versions() {
        let base = tempfile::tempdir().unwrap();
        for name in ["1", "001", "2", "3.tmp", "tmp"] {
            create_dir(base.path().join(name)).unwrap();
        }
        write(base.path().join("7"), "a file").unwrap();
        let found = versions(base.path(), &Never).unwrap();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert!(found[&1].ends_with("1") && !found[&1].ends_with("001"), "the last in sort order");
        rename(base.path().join("3.tmp"), base.path().join("3")).unwrap();
        assert!(versions(base.path(), &Never).unwrap().contains_key(&3));
        assert!(versions(&base.path().join("absent"), &Never).is_err());
    }

    #[test]
    fn a_base_path_that_is_a_model_is_version_1() {
        let base = tempfile::tempdir().unwrap();
        assert!(versions(base.path(), &Never).unwrap().is_empty());
        write(base.path().join("saved_model.pb"), "").unwrap();
        assert_eq!(versions(base.path(), &Never).unwrap(), BTreeMap::from([(1, base.path().to_owned())]));
        create_dir(base.path().join("5")).unwrap();
        assert_eq!(versions(base.path(), &Never).unwrap().keys().copied().collect::<Vec<_>>(), [5]);
        let file = base.path().join("m.onnx");
        write(&file, "").unwrap();
        assert_eq!(versions(&file, &Never).unwrap(), BTreeMap::from([(1, file)]));
    }

    #[test]
    fn a_folder_of_models() {
        let folder = tempfile::tempdir().unwrap();
        create_dir_all(folder.path().join("a/1")).unwrap();
        create_dir_all(folder.path().join("b")).unwrap();
        write(folder.path().join("b/saved_model.pb"), "").unwrap();
        create_dir_all(folder.path().join("no_model")).unwrap();
        create_dir_all(folder.path().join(".hidden/1")).unwrap();
        let config = models_below(folder.path(), &Never).unwrap();
        assert_eq!(config.models.keys().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_fingerprint_changes_with_the_files() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path().join("a"), "1").unwrap();
        let before = fingerprint(folder.path());
        assert_eq!(fingerprint(folder.path()), before);
        write(folder.path().join("a"), "12").unwrap();
        assert_ne!(fingerprint(folder.path()), before);
    }
}
