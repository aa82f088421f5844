//! `kinglet bundle`: server and models in one file. `kinglet key new`: keys to sign with.

use super::{BundleArguments, GivenModel, LocalError};
use crate::{
    formats::{bundle, bytes_text, signed},
    graph::Cpu,
    kernels::{Threads, best},
    models::convert::{Conversion, meant},
    tensor::Buffer,
};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// Writes a bundle, or lists what is in one.
///
/// # Errors
/// A model cannot be loaded or converted; the file cannot be written or read, or is damaged.
pub fn bundle(arguments: &BundleArguments, text: &mut dyn Write) -> Result<(), LocalError> {
    if arguments.list {
        return list(arguments, text);
    }
    let Some(output) = &arguments.output else {
        return Err(LocalError::Misfit(
            "say where the bundle goes: kinglet bundle MODEL... --output FILE".into(),
        ));
    };
    let key = arguments.sign_key.as_deref().map(signed::PrivateKey::read).transpose()?;
    // Beside the file that is written, so that there is room for it.
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty());
    let scratch = tempdir(parent.unwrap_or(Path::new(".")))?;
    let result = write(arguments, output, key.as_ref(), &scratch, text);
    fs::remove_dir_all(&scratch)?;
    result
}

fn write(
    arguments: &BundleArguments,
    output: &Path,
    key: Option<&signed::PrivateKey>,
    scratch: &Path,
    text: &mut dyn Write,
) -> Result<(), LocalError> {
    let conversion = Conversion { narrow: arguments.weights, panels: arguments.panels, key: None };
    let cpu = Cpu::new(best(), Threads::new(arguments.threads));
    let mut models: Vec<(String, i64, BTreeMap<String, Buffer>)> = Vec::new();
    for given in &arguments.models {
        let (name, version) = name_of(given)?;
        if models.iter().any(|(other, other_version, _)| (other, *other_version) == (&name, version)) {
            return Err(LocalError::Misfit(format!(
                "two models are called {name} version {version}; write NAME=PATH to name one of them"
            )));
        }
        let folder = scratch.join(&name).join(version.to_string());
        fs::create_dir_all(scratch.join(&name))?;
        let folder = conversion.write(&given.path, &folder, &cpu)?.publish()?;
        let files = signed::files_below(&folder)?;
        let bytes = files.values().map(Buffer::len).sum();
        writeln!(text, "{name} version {version}  {}", bytes_text(bytes))?;
        models.push((name, version, files));
    }
    bundle::write(output, &models, key)?;
    let bytes = fs::metadata(output)?.len() as usize;
    writeln!(text, "written to {}, {}; run it: it serves these models", output.display(), bytes_text(bytes))?;
    Ok(())
}

fn tempdir(parent: &Path) -> Result<PathBuf, LocalError> {
    let path = parent.join(format!(".kinglet-bundle-{}", std::process::id()));
    fs::create_dir(&path)?;
    Ok(path)
}

/// The name that is given, or that of the file or folder; the version is the version folder's, or 1.
fn name_of(given: &GivenModel) -> Result<(String, i64), LocalError> {
    let path = fs::canonicalize(meant(&given.path))
        .map_err(|error| LocalError::Misfit(format!("{}: {error}", given.path.display())))?;
    let file_name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let version = file_name(&path).and_then(|name| name.parse::<i64>().ok()).filter(|version| *version >= 0);
    let folder = if version.is_some() { path.parent().unwrap_or(&path) } else { &path };
    let own = match folder.is_file() {
        true => folder.file_stem().map(|name| name.to_string_lossy().into_owned()),
        false => file_name(folder),
    };
    let name = given.name.clone().or(own).unwrap_or_default();
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(LocalError::Misfit(format!("{name:?} is no name for a model; write NAME=PATH")));
    }
    Ok((name, version.unwrap_or(1)))
}

fn list(arguments: &BundleArguments, text: &mut dyn Write) -> Result<(), LocalError> {
    let key = arguments.verify_key.as_deref().map(signed::PublicKey::read).transpose()?;
    let given = arguments.models.first().map(|given| given.path.clone());
    let opened = match &given {
        Some(path) => bundle::Bundle::open(path, key.as_ref())?,
        None => bundle::own(key.as_ref())?,
    };
    let Some(opened) = opened else {
        let place = given.map_or_else(|| "this binary".to_owned(), |path| path.display().to_string());
        return Err(LocalError::Misfit(format!("{place} is no bundle")));
    };
    for model in &opened.models {
        writeln!(text, "{} version {}  {}", model.name, model.version, bytes_text(model.bytes))?;
    }
    let words = match (opened.signed, key) {
        (true, Some(_)) => "signed with the given key",
        (true, None) => "signed; --verify_key checks it",
        (false, _) => "not signed",
    };
    writeln!(text, "{words}")?;
    Ok(())
}

/// Writes a new private key to `path` and the public one beside it.
///
/// # Errors
/// A file is there already, or cannot be written.
pub fn new_key(path: &Path, text: &mut dyn Write) -> Result<(), LocalError> {
    let public_path = PathBuf::from(format!("{}.pub", path.display()));
    let (private, public) = signed::new_keys()?;
    for (path, content, mode) in [(path, private, 0o600), (&public_path, public, 0o644)] {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        #[cfg(not(unix))]
        let _ = mode;
        let file = options.open(path);
        let mut file = file.map_err(|error| LocalError::Misfit(format!("{}: {error}", path.display())))?;
        file.write_all(content.as_bytes())?;
    }
    writeln!(
        text,
        "{} signs (--sign_key): keep it to yourself\n{} verifies (--verify_key)",
        path.display(),
        public_path.display()
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("iris/7")).unwrap();
        fs::create_dir_all(folder.path().join("iris/12")).unwrap();
        fs::create_dir_all(folder.path().join("plain")).unwrap();
        fs::write(folder.path().join("net.onnx"), "").unwrap();
        let name = |name: Option<&str>, path: &str| {
            name_of(&GivenModel { name: name.map(str::to_owned), path: folder.path().join(path) })
        };
        assert_eq!(name(None, "iris").unwrap(), ("iris".to_owned(), 12));
        assert_eq!(name(None, "iris/7").unwrap(), ("iris".to_owned(), 7));
        assert_eq!(name(Some("x"), "plain").unwrap(), ("x".to_owned(), 1));
        assert_eq!(name(None, "net.onnx").unwrap(), ("net".to_owned(), 1));
        assert!(name(Some("a/b"), "plain").is_err() && name(None, "absent").is_err());
    }

    #[test]
    fn keys_are_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        let mut text = Vec::new();
        new_key(&path, &mut text).unwrap();
        assert!(signed::PrivateKey::read(&path).is_ok());
        assert!(signed::PublicKey::read(&folder.path().join("k.pub")).is_ok());
        assert!(new_key(&path, &mut text).is_err());
    }
}
