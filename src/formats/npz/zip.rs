//! As much of the zip format (APPNOTE 6.3.10) as NumPy writes: members found through the central directory, stored
//! or deflated, no encryption.

use flate2::{Crc, read::DeflateDecoder};
use std::{borrow::Cow, io::Read};

const END_OF_DIRECTORY: &[u8; 4] = b"PK\x05\x06";
const DIRECTORY_ENTRY: &[u8; 4] = b"PK\x01\x02";
const LOCAL_HEADER: &[u8; 4] = b"PK\x03\x04";
const END_LEN: usize = 22;
/// Deflate makes at most this much out of a byte.
const MAX_EXPANSION: usize = 1032;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// Version 2.0 of the format and 1980-01-01, the earliest date there is.
const VERSION: u16 = 20;
const DATE: u16 = 0x21;

/// A file of an archive, as the central directory tells.
pub(super) struct Member {
    pub(super) name: String,
    method: u16,
    stored_len: usize,
    len: usize,
    header: usize,
}

/// The files of an archive.
pub(super) fn members(file: &[u8]) -> Result<Vec<Member>, String> {
    // A comment may follow the end record.
    let first = file.len().saturating_sub(END_LEN + usize::from(u16::MAX));
    let end = (first..=file.len().saturating_sub(END_LEN))
        .rev()
        .find(|&at| file.get(at..at + 4) == Some(END_OF_DIRECTORY))
        .ok_or("this is not a zip file: it has no end record")?;
    let count = u16_at(file, end + 10)?;
    let mut at = u32_at(file, end + 16)?;
    let mut members = Vec::new();
    for index in 0..count {
        if file.get(at..at.saturating_add(4)) != Some(DIRECTORY_ENTRY) {
            return Err(format!("entry {index} of the archive's directory is damaged"));
        }
        let (name_len, extra_len, comment_len) =
            (u16_at(file, at + 28)?, u16_at(file, at + 30)?, u16_at(file, at + 32)?);
        let name = file.get(at + 46..at + 46 + usize::from(name_len)).ok_or_else(truncated)?;
        let name = String::from_utf8_lossy(name).into_owned();
        let member = Member {
            method: u16_at(file, at + 10)?,
            stored_len: u32_at(file, at + 20)?,
            len: u32_at(file, at + 24)?,
            header: u32_at(file, at + 42)?,
            name,
        };
        let wide = u32::MAX as usize;
        if u16_at(file, at + 8)? & 1 != 0 || [member.stored_len, member.len, member.header].contains(&wide) {
            return Err(format!("\"{}\" is encrypted or larger than 4 GB, which is not read", member.name));
        }
        members.push(member);
        at += 46 + usize::from(name_len) + usize::from(extra_len) + usize::from(comment_len);
    }
    Ok(members)
}

/// The bytes of a member.
pub(super) fn contents<'a>(file: &'a [u8], member: &Member) -> Result<Cow<'a, [u8]>, String> {
    let at = member.header;
    if file.get(at..at.saturating_add(4)) != Some(LOCAL_HEADER) {
        return Err(format!("\"{}\" does not begin where the directory says", member.name));
    }
    let data = at + 30 + usize::from(u16_at(file, at + 26)?) + usize::from(u16_at(file, at + 28)?);
    let stored = file.get(data..data.saturating_add(member.stored_len)).ok_or_else(truncated)?;
    match member.method {
        STORED if member.len == stored.len() => Ok(Cow::Borrowed(stored)),
        DEFLATED if member.len <= stored.len().saturating_mul(MAX_EXPANSION) => {
            let mut plain = Vec::new();
            plain.try_reserve_exact(member.len).map_err(|error| error.to_string())?;
            let read = DeflateDecoder::new(stored).take(member.len as u64).read_to_end(&mut plain);
            match read {
                Ok(len) if len == member.len => Ok(Cow::Owned(plain)),
                Ok(len) => Err(format!("\"{}\" has {len} bytes instead of {}", member.name, member.len)),
                Err(error) => Err(format!("\"{}\": {error}", member.name)),
            }
        }
        STORED | DEFLATED => {
            Err(format!("\"{}\" claims {} bytes out of {}", member.name, member.len, stored.len()))
        }
        other => Err(format!("\"{}\": compression method {other} is not read", member.name)),
    }
}

/// Collects members, stored.
#[derive(Default)]
pub(super) struct Writer {
    file: Vec<u8>,
    directory: Vec<u8>,
    members: u16,
}

impl Writer {
    pub(super) fn add(&mut self, name: &str, data: &[u8]) -> Result<(), String> {
        let too_large = || format!("\"{name}\" is too large for an archive (4 GB)");
        let offset = u32::try_from(self.file.len()).map_err(|_| too_large())?;
        let len = u32::try_from(data.len()).map_err(|_| too_large())?;
        let name_len = u16::try_from(name.len()).map_err(|_| too_large())?;
        self.members = self.members.checked_add(1).ok_or_else(too_large)?;
        let mut crc = Crc::new();
        crc.update(data);
        // From the version on, both headers have these fields.
        let mut common = Vec::new();
        for field in [VERSION, 0, STORED, 0, DATE] {
            common.extend_from_slice(&field.to_le_bytes());
        }
        for field in [crc.sum(), len, len] {
            common.extend_from_slice(&field.to_le_bytes());
        }
        common.extend_from_slice(&name_len.to_le_bytes());
        common.extend_from_slice(&[0; 2]);
        self.file.extend_from_slice(LOCAL_HEADER);
        self.file.extend_from_slice(&common);
        self.file.extend_from_slice(name.as_bytes());
        self.file.extend_from_slice(data);
        self.directory.extend_from_slice(DIRECTORY_ENTRY);
        self.directory.extend_from_slice(&VERSION.to_le_bytes());
        self.directory.extend_from_slice(&common);
        // No comment, disk 0, no attributes.
        self.directory.extend_from_slice(&[0; 10]);
        self.directory.extend_from_slice(&offset.to_le_bytes());
        self.directory.extend_from_slice(name.as_bytes());
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, String> {
        let Self { mut file, directory, members } = self;
        let too_large = |_| "the archive is too large (4 GB)".to_owned();
        let offset = u32::try_from(file.len()).map_err(too_large)?;
        let len = u32::try_from(directory.len()).map_err(too_large)?;
        file.extend_from_slice(&directory);
        file.extend_from_slice(END_OF_DIRECTORY);
        file.extend_from_slice(&[0; 4]);
        file.extend_from_slice(&members.to_le_bytes());
        file.extend_from_slice(&members.to_le_bytes());
        file.extend_from_slice(&len.to_le_bytes());
        file.extend_from_slice(&offset.to_le_bytes());
        file.extend_from_slice(&[0; 2]);
        Ok(file)
    }
}

fn u16_at(file: &[u8], at: usize) -> Result<u16, String> {
    let bytes = file.get(at..at.saturating_add(2)).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u16::from_le_bytes).ok_or_else(truncated)
}

fn u32_at(file: &[u8], at: usize) -> Result<usize, String> {
    let bytes = file.get(at..at.saturating_add(4)).and_then(|bytes| bytes.try_into().ok());
    bytes.map(|bytes| u32::from_le_bytes(bytes) as usize).ok_or_else(truncated)
}

fn truncated() -> String {
    "the archive is truncated".to_owned()
}
