//! Ed25519 signatures over a set of files (RFC 8032; keys as RFC 8410 writes them in PEM, so that
//! `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` make them, too).
//!
//! What is signed is a text that names every file with its length and SHA-256. In a model folder that text and its
//! signature stand in `kinglet.sig`; in a bundle they are part of its index.

use super::{Files, FormatError};
use crate::tensor::Buffer;
use base64::{Engine, prelude::BASE64_STANDARD};
use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// The signature of a folder.
pub const SIGNATURE_FILE: &str = "kinglet.sig";

/// First line of what is signed: no signature for one use counts for another.
const PURPOSE: &str = "kinglet signed files 1";
const MAX_SIGNATURE: usize = 16 << 20;
const MAX_KEY: u64 = 1 << 16;
const MAX_DEPTH: usize = 8;

/// DER around the 32 bytes of a key (RFC 8410, sections 4 and 7).
const PUBLIC_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const PRIVATE_PREFIX: &[u8] =
    &[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const KEY_LEN: usize = 32;

/// Signs.
#[derive(Debug)]
pub struct PrivateKey(Ed25519KeyPair);

/// Verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; KEY_LEN]);

/// A new pair of keys, as the PEM texts of the private and of the public one.
///
/// # Errors
/// The system gives no random numbers.
pub fn new_keys() -> Result<(String, String), FormatError> {
    let place = || PathBuf::from("a new key");
    let mut seed = [0; KEY_LEN];
    let random = SystemRandom::new().fill(&mut seed);
    random.map_err(|_| FormatError::invalid(place(), "the system has no random numbers"))?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed);
    let pair = pair.map_err(|error| FormatError::invalid(place(), error.to_string()))?;
    let pem = |label: &str, prefix: &[u8], key: &[u8]| {
        let body = BASE64_STANDARD.encode([prefix, key].concat());
        format!("-----BEGIN {label} KEY-----\n{body}\n-----END {label} KEY-----\n")
    };
    Ok((pem("PRIVATE", PRIVATE_PREFIX, &seed), pem("PUBLIC", PUBLIC_PREFIX, pair.public_key().as_ref())))
}

impl PrivateKey {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// It cannot be read, or is no Ed25519 key.
    pub fn read(path: &Path) -> Result<Self, FormatError> {
        let der = pem(path, "PRIVATE KEY")?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
        pair.map(Self).map_err(|_| FormatError::invalid(path, "this is no private key of Ed25519"))
    }

    /// The signature of files, in base 64.
    pub(super) fn sign(&self, listing: &str) -> String {
        BASE64_STANDARD.encode(self.0.sign(listing.as_bytes()))
    }
}

impl PublicKey {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// It cannot be read, or is no Ed25519 key.
    pub fn read(path: &Path) -> Result<Self, FormatError> {
        let der = pem(path, "PUBLIC KEY")?;
        let key = der.strip_prefix(PUBLIC_PREFIX).and_then(|key| key.try_into().ok());
        key.map(Self).ok_or_else(|| FormatError::invalid(path, "this is no public key of Ed25519"))
    }

    /// Whether the holder of the private key signed this.
    pub(super) fn verify(&self, listing: &str, signature: &str) -> bool {
        let signature = BASE64_STANDARD.decode(signature.trim());
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        signature.is_ok_and(|signature| key.verify(listing.as_bytes(), &signature).is_ok())
    }
}

fn pem(path: &Path, label: &str) -> Result<Vec<u8>, FormatError> {
    let io = |error: std::io::Error| FormatError::io(path, &error);
    if fs::metadata(path).map_err(io)?.len() > MAX_KEY {
        return Err(FormatError::invalid(path, "the file is too long for a key"));
    }
    let text = fs::read_to_string(path).map_err(io)?;
    let inside = text.split_once(&format!("-----BEGIN {label}-----")).and_then(|(_, rest)| {
        let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
        BASE64_STANDARD.decode(body.split_whitespace().collect::<String>()).ok()
    });
    inside.ok_or_else(|| FormatError::invalid(path, format!("this is no PEM file with a {label}")))
}

/// What is signed: a line per file.
pub(super) fn listing<'a>(files: impl IntoIterator<Item = (&'a String, &'a Buffer)>) -> String {
    let mut text = format!("{PURPOSE}\n");
    for (name, content) in files {
        let mut sum = String::with_capacity(64);
        for byte in digest(&SHA256, content.as_bytes()).as_ref() {
            // Writing to a string cannot fail.
            let _ = write!(sum, "{byte:02x}");
        }
        let _ = writeln!(text, "{sum} {} {}", content.len(), name.escape_default());
    }
    text
}

/// All files of a folder by their names, except for those whose names begin with a dot.
///
/// # Errors
/// A file cannot be read, its name is no text, or folders are too deep in one another.
pub fn files_below(folder: &Path) -> Result<BTreeMap<String, Buffer>, FormatError> {
    let mut files = BTreeMap::new();
    collect(folder, "", MAX_DEPTH, &mut files)?;
    Ok(files)
}

fn collect(
    folder: &Path,
    prefix: &str,
    depth: usize,
    files: &mut BTreeMap<String, Buffer>,
) -> Result<(), FormatError> {
    let io = |error: std::io::Error| FormatError::io(folder, &error);
    if depth == 0 {
        return Err(FormatError::invalid(folder, "folders are too deep in one another"));
    }
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(FormatError::invalid(&path, "the name is not UTF-8"));
        };
        if name.starts_with('.') {
            continue;
        }
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            collect(&path, &format!("{name}/"), depth - 1, files)?;
        } else {
            let content = Buffer::map_file(&path).map_err(|error| FormatError::io(&path, &error))?;
            files.insert(name, content);
        }
    }
    Ok(())
}

/// Signs all files of a folder.
///
/// # Errors
/// A file cannot be read or written.
pub fn sign_folder(folder: &Path, key: &PrivateKey) -> Result<(), FormatError> {
    let mut files = files_below(folder)?;
    files.remove(SIGNATURE_FILE);
    let listing = listing(&files);
    let path = folder.join(SIGNATURE_FILE);
    let text = format!("{}\n{listing}", key.sign(&listing));
    fs::write(&path, text).map_err(|error| FormatError::io(path, &error))
}

/// The files of a signed folder, as they were when they were verified: they stay mapped.
///
/// # Errors
/// The folder is not signed, or not by that key; a file was changed, added or removed.
pub fn open_folder(folder: &Path, key: &PublicKey) -> Result<Files, FormatError> {
    let refused = |reason: &str| FormatError::unsigned(folder, reason);
    if !folder.is_dir() {
        return Err(refused(
            "a single file has no signature; `kinglet convert --sign_key` makes a signed folder",
        ));
    }
    let mut files = files_below(folder)?;
    let Some(signature) = files.remove(SIGNATURE_FILE) else {
        return Err(refused(
            "it is not signed: there is no kinglet.sig; `kinglet convert --sign_key` makes one",
        ));
    };
    let text = std::str::from_utf8(signature.as_bytes()).ok().filter(|text| text.len() <= MAX_SIGNATURE);
    let Some((signature, signed)) = text.and_then(|text| text.split_once('\n')) else {
        return Err(refused("kinglet.sig is no signature"));
    };
    check(signed, signature, &files, key).map_err(|reason| FormatError::unsigned(folder, reason))?;
    Ok(Files::held(folder, files))
}

/// Whether `signed` was signed and is the listing of these files.
pub(super) fn check(
    signed: &str,
    signature: &str,
    files: &BTreeMap<String, Buffer>,
    key: &PublicKey,
) -> Result<(), String> {
    if !key.verify(signed, signature) {
        return Err("the signature is not that of the given key".to_owned());
    }
    let found = listing(files);
    if found == signed {
        return Ok(());
    }
    let name = |line: &str| line.splitn(3, ' ').nth(2).unwrap_or_default().to_owned();
    let wrong = found.lines().find(|line| !signed.lines().any(|other| other == *line)).map(name);
    Err(match wrong {
        Some(name) => format!("{name} is not the file that was signed"),
        None => "a file that was signed is missing".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(folder: &Path) -> (PathBuf, PathBuf) {
        let (private, public) = new_keys().unwrap();
        let paths = (folder.join("k"), folder.join("k.pub"));
        fs::write(&paths.0, private).unwrap();
        fs::write(&paths.1, public).unwrap();
        paths
    }

    /// RFC 8032, section 7.1, test 1: an empty message, and RFC 8410's encodings of keys (section 10.3: its private
    /// key has the public key of section 10.1).
    #[test]
    fn vectors_of_the_rfcs() {
        let folder = tempfile::tempdir().unwrap();
        let public = folder.path().join("p");
        let private = folder.path().join("s");
        fs::write(
            &public,
            "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n",
        )
        .unwrap();
        fs::write(
            &private,
            "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n",
        )
        .unwrap();
        let (public, private) = (PublicKey::read(&public).unwrap(), PrivateKey::read(&private).unwrap());
        assert_eq!(private.0.public_key().as_ref(), public.0);
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        let key = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let signature = hex(concat!(
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155",
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ));
        let signature = BASE64_STANDARD.encode(signature);
        let key = PublicKey(key.try_into().unwrap());
        assert!(key.verify("", &signature) && !key.verify("x", &signature));
    }

    #[test]
    fn whatever_changes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (private, public) = keys(folder.path());
        let (private, public) = (PrivateKey::read(&private).unwrap(), PublicKey::read(&public).unwrap());
        let model = folder.path().join("m");
        fs::create_dir_all(model.join("sub")).unwrap();
        for name in ["a", "sub/b"] {
            fs::write(model.join(name), name).unwrap();
        }
        let refused = |expected: &str| {
            let error = open_folder(&model, &public).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        refused("it is not signed");
        sign_folder(&model, &private).unwrap();
        let files = open_folder(&model, &public).unwrap();
        assert_eq!(files.read(Path::new("sub/b")).unwrap().as_bytes(), b"sub/b");
        fs::write(model.join("sub/b"), "sub/c").unwrap();
        refused("sub/b is not the file that was signed");
        fs::remove_file(model.join("sub/b")).unwrap();
        refused("a file that was signed is missing");
        fs::write(model.join("sub/b"), "sub/b").unwrap();
        fs::write(model.join("kinglet.toml"), "").unwrap();
        refused("kinglet.toml is not the file");
        fs::remove_file(model.join("kinglet.toml")).unwrap();
        assert!(open_folder(&model, &public).is_ok());
        let signature = fs::read_to_string(model.join(SIGNATURE_FILE)).unwrap();
        for position in 0..signature.len() {
            let mut changed = signature.clone().into_bytes();
            changed[position] ^= 1;
            fs::write(model.join(SIGNATURE_FILE), changed).unwrap();
            assert!(open_folder(&model, &public).is_err(), "byte {position}");
        }
        let other = folder.path().join("other");
        fs::create_dir(&other).unwrap();
        let (other, _) = keys(&other);
        sign_folder(&model, &PrivateKey::read(&other).unwrap()).unwrap();
        refused("not that of the given key");
        assert!(PublicKey::read(&other).is_err() && PrivateKey::read(&model.join("a")).is_err());
    }
}
