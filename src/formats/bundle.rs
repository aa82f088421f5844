//! Server and models in one file: a copy of the binary with model folders behind it, mapped and used in place.
//!
//! ```text
//! binary | files, each at a multiple of a page | index (JSON) | footer (64 bytes)
//! ```
//! The footer tells where the index is, the index where each file is. A mark in the binary holds the length of the
//! whole, so that a bundle that lost its end does not pass for a binary without models.

use super::{Files, FormatError, signed};
use crate::{maps::Ordered, tensor::Buffer};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 8] = b"KNGLTBDL";
const FORMAT: &str = "kinglet-bundle/1";
const FOOTER: usize = 64;
/// Files begin at a multiple of this, so that tensors lie as they do in a file of their own.
const PAGE: u64 = 4096;
/// The name of the binary itself in what is signed.
const BINARY: &str = "binary";
/// Files up to this length are checked whenever a bundle is opened; weights have a checksum of their own.
const MAX_CHECKED: usize = 1 << 20;

/// 24 bytes that are nowhere else, then the length of the bundle that this binary is part of, or 0.
static MARK: [u8; 32] = *b"kinglet: bundle of \x01\x03\x05\x07\x09\0\0\0\0\0\0\0\0";
const MARK_NAME: usize = 24;

/// A model in a bundle.
#[derive(Clone, Debug)]
pub struct BundledModel {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: i64,
    /// Its files.
    pub files: Files,
    /// Bytes of all of them.
    pub bytes: usize,
}

/// A bundle that was opened.
#[derive(Debug)]
pub struct Bundle {
    /// Its models, in the order in which they were given.
    pub models: Vec<BundledModel>,
    /// Whether it has a signature, which only [`Bundle::open`] with a key looks at.
    pub signed: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    format: String,
    models: Vec<IndexModel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexModel {
    name: String,
    version: i64,
    files: BTreeMap<String, Place>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    offset: u64,
    length: u64,
    crc32c: u32,
}

/// The length that the mark of the running binary holds; 0 where it is no bundle.
fn own_length() -> u64 {
    // The compiler must not take the bytes for those of the source: they are changed in the file.
    let mark = std::hint::black_box(&MARK);
    mark.last_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The bundle that the running binary is.
///
/// # Errors
/// It is one, but is damaged, or not signed with `key`.
pub fn own(key: Option<&signed::PublicKey>) -> Result<Option<Bundle>, FormatError> {
    let length = own_length();
    if length == 0 {
        return Ok(None);
    }
    let path = own_path()?;
    let bundle = Bundle::open(&path, key)?;
    let found = fs::metadata(&path).map_err(|error| FormatError::io(&path, &error))?.len();
    match bundle {
        Some(bundle) if found == length => Ok(Some(bundle)),
        _ => Err(FormatError::invalid(
            path,
            format!(
                "the bundle had {length} bytes when it was written, but has {found}; it is truncated or damaged"
            ),
        )),
    }
}

/// The file that is running, even where it was replaced meanwhile.
fn own_path() -> Result<PathBuf, FormatError> {
    let link = Path::new("/proc/self/exe");
    if link.exists() {
        return Ok(link.to_owned());
    }
    std::env::current_exe().map_err(|error| FormatError::io("the running binary", &error))
}

impl Bundle {
    /// Opens a file; `None` where it is no bundle.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or has not the signature of `key`.
    pub fn open(path: &Path, key: Option<&signed::PublicKey>) -> Result<Option<Self>, FormatError> {
        let file = Buffer::map_file(path).map_err(|error| FormatError::io(path, &error))?;
        let Some(footer) = Footer::read(file.as_bytes()) else { return Ok(None) };
        let invalid = |reason: &str| FormatError::invalid(path, reason);
        let index = part(&file, footer.index, footer.index_length);
        let index = index.ok_or_else(|| invalid("the index reaches beyond the end of the bundle"))?;
        if crc32c::crc32c(index.as_bytes()) != footer.index_sum {
            return Err(invalid("the index of the bundle is damaged"));
        }
        let index: Index = serde_json::from_slice(index.as_bytes())
            .map_err(|error| FormatError::invalid(path, format!("the index of the bundle: {error}")))?;
        if index.format != FORMAT {
            return Err(FormatError::invalid(
                path,
                format!("the bundle is \"{}\", but this version reads \"{FORMAT}\"", index.format),
            ));
        }
        let binary = part(&file, 0, footer.binary).ok_or_else(|| invalid("the binary is truncated"))?;
        let mut all = BTreeMap::from([(BINARY.to_owned(), binary)]);
        let mut models = Vec::with_capacity(index.models.len());
        for model in &index.models {
            let place = format!("{}/{}", model.name, model.version);
            let mut files = BTreeMap::new();
            for (name, place) in &model.files {
                let full = format!("{}/{}/{name}", model.name, model.version);
                let content =
                    part(&file, place.offset, place.length).filter(|_| place.offset >= footer.binary);
                let content = content
                    .ok_or_else(|| FormatError::invalid(path, format!("{full} reaches beyond its place")))?;
                if content.len() <= MAX_CHECKED && crc32c::crc32c(content.as_bytes()) != place.crc32c {
                    return Err(FormatError::invalid(
                        path,
                        format!("{full} is damaged: its CRC-32C is wrong"),
                    ));
                }
                all.insert(full, content.clone());
                files.insert(name.clone(), content);
            }
            let bytes = files.values().map(Buffer::len).sum();
            let files = Files::held(path.join(place), files);
            models.push(BundledModel { name: model.name.clone(), version: model.version, files, bytes });
        }
        if let Some(key) = key {
            let Some(signature) = &index.signature else {
                return Err(FormatError::unsigned(
                    path,
                    "the bundle is not signed; `kinglet bundle --sign_key` signs",
                ));
            };
            let listing = signed::listing(&all);
            signed::check(&listing, signature, &all, key).map_err(|_| {
                FormatError::unsigned(path, "the signature is not that of the given key for this bundle")
            })?;
        }
        Ok(Some(Self { models, signed: index.signature.is_some() }))
    }
}

fn part(file: &Buffer, offset: u64, length: u64) -> Option<Buffer> {
    file.slice(usize::try_from(offset).ok()?, usize::try_from(length).ok()?)
}

/// The last bytes of a bundle.
struct Footer {
    binary: u64,
    index: u64,
    index_length: u64,
    index_sum: u32,
}

impl Footer {
    fn read(file: &[u8]) -> Option<Self> {
        let footer = file.last_chunk::<FOOTER>()?;
        let number = |at: usize| Some(u64::from_le_bytes(footer.get(at..at + 8)?.try_into().ok()?));
        let (content, sum) = footer.split_last_chunk::<4>()?;
        if !footer.starts_with(MAGIC) || crc32c::crc32c(content) != u32::from_le_bytes(*sum) {
            return None;
        }
        Some(Self {
            binary: number(8)?,
            index: number(16)?,
            index_length: number(24)?,
            index_sum: u32::try_from(number(32)?).ok()?,
        })
    }

    fn bytes(&self) -> Vec<u8> {
        let numbers = [self.binary, self.index, self.index_length, u64::from(self.index_sum)];
        let mut bytes = MAGIC.to_vec();
        bytes.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
        bytes.resize(FOOTER - 4, 0);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }
}

/// Writes a bundle of the running binary and of these models, given by name, version and files.
///
/// # Errors
/// The binary cannot be read or the file not be written.
pub fn write(
    output: &Path,
    models: &[(String, i64, BTreeMap<String, Buffer>)],
    key: Option<&signed::PrivateKey>,
) -> Result<(), FormatError> {
    let io = |error: std::io::Error| FormatError::io(output, &error);
    let own = own_path()?;
    let file = Buffer::map_file(&own).map_err(|error| FormatError::io(&own, &error))?;
    let length = Footer::read(file.as_bytes()).map_or(file.len() as u64, |footer| footer.binary);
    let binary =
        part(&file, 0, length).ok_or_else(|| FormatError::invalid(&own, "the binary is truncated"))?;
    let temporary = output.with_extension(format!("new-{}", std::process::id()));
    let written = write_to(&temporary, binary.as_bytes(), models, key, own_length());
    let written = written.and_then(|()| fs::rename(&temporary, output));
    if written.is_err() {
        // The first error counts.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(io)
}

fn write_to(
    path: &Path,
    binary: &[u8],
    models: &[(String, i64, BTreeMap<String, Buffer>)],
    key: Option<&signed::PrivateKey>,
    old_length: u64,
) -> std::io::Result<()> {
    let mut index = Index { format: FORMAT.to_owned(), models: Vec::new(), signature: None };
    let mut end = binary.len() as u64;
    let mut contents = Vec::new();
    for (name, version, files) in models {
        let mut places = BTreeMap::new();
        for (file, content) in files {
            let offset = end.next_multiple_of(PAGE);
            end = offset + content.len() as u64;
            let crc32c = crc32c::crc32c(content.as_bytes());
            places.insert(file.clone(), Place { offset, length: content.len() as u64, crc32c });
            contents.push((offset, format!("{name}/{version}/{file}"), content.clone()));
        }
        index.models.push(IndexModel { name: name.clone(), version: *version, files: places });
    }
    // The mark needs the length of all, the index the signature of the marked binary: both have a fixed length.
    index.signature = key.map(|key| key.sign(""));
    let place = end.next_multiple_of(PAGE);
    let total = place + serde_json::to_vec(&index)?.len() as u64 + FOOTER as u64;
    let binary = marked(binary, old_length, total)?;
    if let Some(key) = key {
        let mut all = contents.iter().map(|(_, name, content)| (name.clone(), content.clone())).into_map();
        all.insert(BINARY.to_owned(), Buffer::from_bytes(binary.clone().into()));
        index.signature = Some(key.sign(&signed::listing(&all)));
    }
    let index = serde_json::to_vec(&index)?;
    let footer = Footer {
        binary: binary.len() as u64,
        index: place,
        index_length: index.len() as u64,
        index_sum: crc32c::crc32c(&index),
    };
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&binary)?;
    let mut written = binary.len() as u64;
    let pad = |file: &mut BufWriter<File>, from: u64, to: u64| {
        std::io::copy(&mut std::io::Read::take(std::io::repeat(0), to.saturating_sub(from)), file).map(drop)
    };
    for (offset, _, content) in &contents {
        pad(&mut file, written, *offset)?;
        file.write_all(content.as_bytes())?;
        written = offset + content.len() as u64;
    }
    pad(&mut file, written, place)?;
    file.write_all(&index)?;
    file.write_all(&footer.bytes())?;
    let file = file.into_inner()?;
    executable(&file)?;
    file.sync_all()
}

/// The binary with the length of the bundle in its mark.
fn marked(binary: &[u8], old: u64, new: u64) -> std::io::Result<Vec<u8>> {
    let mut mark = std::hint::black_box(&MARK)[..MARK_NAME].to_vec();
    mark.extend(old.to_le_bytes());
    let mut found = memchr::memmem::find_iter(binary, &mark);
    let (Some(at), None) = (found.next(), found.next()) else {
        return Err(std::io::Error::other("the binary has no place for the mark of a bundle"));
    };
    let mut binary = binary.to_vec();
    binary[at + MARK_NAME..at + mark.len()].copy_from_slice(&new.to_le_bytes());
    Ok(binary)
}

#[cfg(unix)]
fn executable(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn executable(_: &File) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A "binary" with a mark, and a model of three files.
    fn bundle(folder: &Path, key: Option<&signed::PrivateKey>) -> PathBuf {
        let binary = [&b"\x7fELF some code "[..], &MARK, b" and more"].concat();
        let files = BTreeMap::from([
            ("a".to_owned(), Buffer::from_static(b"alpha")),
            ("sub/b".to_owned(), Buffer::from_static(&[7; 5000])),
            ("empty".to_owned(), Buffer::from_static(b"")),
        ]);
        let path = folder.join("bundle");
        write_to(&path, &binary, &[("m".to_owned(), 3, files)], key, 0).unwrap();
        path
    }

    fn open(bytes: &[u8], key: Option<&signed::PublicKey>) -> Result<Option<Bundle>, FormatError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        Bundle::open(file.path(), key)
    }

    #[test]
    fn files_lie_on_pages_and_the_mark_holds_the_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = bundle(folder.path(), None);
        let bytes = fs::read(&path).unwrap();
        let opened = Bundle::open(&path, None).unwrap().unwrap();
        let model = &opened.models[0];
        assert_eq!((model.name.as_str(), model.version, model.bytes, opened.signed), ("m", 3, 5005, false));
        assert_eq!(model.files.read(Path::new("a")).unwrap().as_bytes(), b"alpha");
        let b = model.files.read(Path::new("sub/b")).unwrap();
        assert!(b.is_aligned_to(PAGE as usize) && b.as_bytes() == [7; 5000]);
        let mark = memchr::memmem::find(&bytes, &MARK[..MARK_NAME]).unwrap() + MARK_NAME;
        assert_eq!(bytes[mark..mark + 8], (bytes.len() as u64).to_le_bytes());
        assert_eq!(own_length(), 0, "a test is no bundle");
        assert!(own(None).unwrap().is_none());
    }

    #[test]
    fn damaged_bundles_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = fs::read(bundle(folder.path(), None)).unwrap();
        for cut in [1, 10, FOOTER, FOOTER + 1, 4000, bytes.len()] {
            assert!(open(&bytes[..bytes.len() - cut], None).unwrap().is_none(), "no footer, no bundle");
        }
        for position in (0..bytes.len()).filter(|&at| bytes[at] != 0 && bytes[at] != 7) {
            let mut changed = bytes.clone();
            changed[position] ^= 0x10;
            let in_binary = position < 100;
            let opened = open(&changed, None);
            assert!(in_binary || !matches!(opened, Ok(Some(_))), "byte {position}");
        }
    }

    #[test]
    fn signed_bundles_hold_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let (private, public) = signed::new_keys().unwrap();
        let paths = [folder.path().join("k"), folder.path().join("p")];
        fs::write(&paths[0], private).unwrap();
        fs::write(&paths[1], public).unwrap();
        let key = signed::PublicKey::read(&paths[1]).unwrap();
        let unsigned = fs::read(bundle(folder.path(), None)).unwrap();
        assert!(open(&unsigned, Some(&key)).unwrap_err().to_string().contains("not signed"));
        let private = signed::PrivateKey::read(&paths[0]).unwrap();
        let bytes = fs::read(bundle(folder.path(), Some(&private))).unwrap();
        assert!(open(&bytes, Some(&key)).unwrap().unwrap().signed);
        for position in (0..bytes.len()).filter(|&at| bytes[at] != 0 && at % 7 == 0) {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            assert!(!matches!(open(&changed, Some(&key)), Ok(Some(_))), "byte {position}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(index in "\\{\"format\":\"kinglet-bundle/1\",\"models\":\\[(\\{\"name\":\"m\",\"version\":-?[0-9]{1,20},\"files\":\\{\"a\":\\{\"offset\":[0-9]{1,20},\"length\":[0-9]{1,20},\"crc32c\":0\\}\\}\\})?\\]\\}", binary: u64, place in 0u64..80) {
            let mut bytes = vec![1; 50];
            bytes.extend(index.as_bytes());
            let footer = Footer { binary, index: place, index_length: index.len() as u64, index_sum: crc32c::crc32c(index.as_bytes()) };
            bytes.extend(footer.bytes());
            let _ = open(&bytes, None);
            let _ = open(&bytes[..bytes.len() - 1], None);
        }
    }
}
