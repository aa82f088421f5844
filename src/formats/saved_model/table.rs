//! The sorted table that indexes a variables bundle: LevelDB's table format.
//!
//! A 48-byte footer points at an index block, whose entries point at data blocks. A block is a run
//! of prefix-compressed entries with an array of restart points, stored plain or in Snappy form and
//! followed by a type byte and a masked CRC-32C. Nothing here trusts a length: blocks may not
//! overlap, so a file cannot ask for more work than its own size.

use std::ops::Range;

const FOOTER: usize = 48;
const MAGIC: [u8; 8] = [0x57, 0xfb, 0x80, 0x8b, 0x24, 0x75, 0x47, 0xdb];
/// Type byte and checksum behind each block.
const TRAILER: usize = 5;
const PLAIN: u8 = 0;
const SNAPPY: u8 = 1;
/// Snappy's best case is 64 bytes out of 3.
const MAX_EXPANSION: usize = 22;
/// All keys together; prefix compression could make more of a small file.
const MAX_KEY_BYTES: usize = 256 << 20;

/// What is wrong with a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TableError {
    #[error("the index is truncated: {0} bytes, but its footer alone has {FOOTER}")]
    TooShort(usize),
    #[error("the index does not end with the table magic; the file is not a bundle index or is truncated")]
    Magic,
    #[error("the {0} lies outside of the file or overlaps another block")]
    Handle(&'static str),
    #[error("the block at byte {0} fails its checksum")]
    Checksum(usize),
    #[error("the block at byte {offset} has compression type {kind}, expected 0 (none) or 1 (Snappy)")]
    Compression { offset: usize, kind: u8 },
    #[error("the block at byte {0} does not decompress")]
    Snappy(usize),
    #[error("the block at byte {0} has a malformed entry")]
    Entry(usize),
    #[error("the keys are not in ascending order")]
    Order,
    #[error("the keys take more than {MAX_KEY_BYTES} bytes")]
    TooLarge,
}

/// A key and its value.
pub(super) type Entry = (Vec<u8>, Vec<u8>);

/// All entries, in key order.
pub(super) fn entries(file: &[u8]) -> Result<Vec<Entry>, TableError> {
    let footer_at = file.len().checked_sub(FOOTER).ok_or(TableError::TooShort(file.len()))?;
    let footer = &file[footer_at..];
    if footer[FOOTER - MAGIC.len()..] != MAGIC {
        return Err(TableError::Magic);
    }
    let mut handles = footer;
    let _metaindex = handle(&mut handles).ok_or(TableError::Handle("metaindex handle"))?;
    let index = handle(&mut handles).ok_or(TableError::Handle("index handle"))?;
    let mut reader = Reader { file: &file[..footer_at], left: footer_at, key_bytes: 0 };
    let mut all: Vec<Entry> = Vec::new();
    for (_, value) in reader.block(index, "index block")? {
        let data = handle(&mut value.as_slice()).ok_or(TableError::Handle("data block handle"))?;
        for entry in reader.block(data, "data block")? {
            if all.last().is_some_and(|(last, _)| *last >= entry.0) {
                return Err(TableError::Order);
            }
            all.push(entry);
        }
    }
    Ok(all)
}

struct Reader<'a> {
    file: &'a [u8],
    /// Bytes of the file that no block has taken yet.
    left: usize,
    key_bytes: usize,
}

impl Reader<'_> {
    fn block(&mut self, at: Range<u64>, what: &'static str) -> Result<Vec<Entry>, TableError> {
        let outside = || TableError::Handle(what);
        let start = usize::try_from(at.start).map_err(|_| outside())?;
        let end = usize::try_from(at.end).map_err(|_| outside())?;
        let stored_end = end.checked_add(TRAILER).ok_or_else(outside)?;
        let stored = self.file.get(start..stored_end).ok_or_else(outside)?;
        self.left = self.left.checked_sub(stored.len()).ok_or_else(outside)?;
        let (content, trailer) = stored.split_at(stored.len() - TRAILER);
        let kind = trailer[0];
        let expected = u32::from_le_bytes([trailer[1], trailer[2], trailer[3], trailer[4]]);
        if mask(crc32c::crc32c(&stored[..=content.len()])) != expected {
            return Err(TableError::Checksum(start));
        }
        match kind {
            PLAIN => self.parse(content, start),
            SNAPPY => {
                let len = snap::raw::decompress_len(content).map_err(|_| TableError::Snappy(start))?;
                if len > content.len().saturating_mul(MAX_EXPANSION) {
                    return Err(TableError::Snappy(start));
                }
                let plain = snap::raw::Decoder::new().decompress_vec(content);
                self.parse(&plain.map_err(|_| TableError::Snappy(start))?, start)
            }
            kind => Err(TableError::Compression { offset: start, kind }),
        }
    }

    fn parse(&mut self, block: &[u8], start: usize) -> Result<Vec<Entry>, TableError> {
        let malformed = || TableError::Entry(start);
        let (before, count) = block.split_last_chunk::<4>().ok_or_else(malformed)?;
        let restarts =
            usize::try_from(u32::from_le_bytes(*count)).ok().and_then(|count| count.checked_mul(4));
        let end = restarts.and_then(|restarts| before.len().checked_sub(restarts)).ok_or_else(malformed)?;
        let mut rest = &before[..end];
        let mut key: Vec<u8> = Vec::new();
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let mut length = || {
                let value = varint(&mut rest)?;
                usize::try_from(value).ok()
            };
            let lengths = length().zip(length()).zip(length());
            let ((shared, unshared), value_len) = lengths.ok_or_else(malformed)?;
            if shared > key.len() || unshared > rest.len() || value_len > rest.len() - unshared {
                return Err(malformed());
            }
            key.truncate(shared);
            key.extend_from_slice(&rest[..unshared]);
            self.key_bytes += key.len();
            if self.key_bytes > MAX_KEY_BYTES {
                return Err(TableError::TooLarge);
            }
            entries.push((key.clone(), rest[unshared..unshared + value_len].to_vec()));
            rest = &rest[unshared + value_len..];
        }
        Ok(entries)
    }
}

/// The byte range of a block: offset and size as varints.
fn handle(bytes: &mut &[u8]) -> Option<Range<u64>> {
    let offset = varint(bytes)?;
    let size = varint(bytes)?;
    Some(offset..offset.checked_add(size)?)
}

/// A base-128 number of at most 64 bits, taken off the front.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// CRCs are stored rotated and offset, so that the CRC of data that holds CRCs stays good.
pub(super) fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put_varint(out: &mut Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    fn put_block(file: &mut Vec<u8>, entries: &[Entry], snappy: bool) -> Vec<u8> {
        let mut block = Vec::new();
        let mut last: &[u8] = &[];
        for (key, value) in entries {
            let shared = key.iter().zip(last).take_while(|(a, b)| a == b).count();
            for length in [shared, key.len() - shared, value.len()] {
                put_varint(&mut block, length as u64);
            }
            block.extend_from_slice(&key[shared..]);
            block.extend_from_slice(value);
            last = key;
        }
        block.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
        if snappy {
            block = snap::raw::Encoder::new().compress_vec(&block).unwrap();
        }
        let mut handle = Vec::new();
        put_varint(&mut handle, file.len() as u64);
        put_varint(&mut handle, block.len() as u64);
        block.push(u8::from(snappy));
        let crc = mask(crc32c::crc32c(&block));
        file.extend_from_slice(&block);
        file.extend_from_slice(&crc.to_le_bytes());
        handle
    }

    /// A table as TensorFlow writes it, for tests of what reads it.
    pub(in crate::formats::saved_model) fn table(entries: &[Entry], snappy: bool) -> Vec<u8> {
        let mut file = Vec::new();
        let data = put_block(&mut file, entries, snappy);
        let meta = put_block(&mut file, &[], snappy);
        let index = put_block(&mut file, &[(vec![0xff], data)], snappy);
        let mut footer = [meta, index].concat();
        footer.resize(FOOTER - MAGIC.len(), 0);
        file.extend_from_slice(&footer);
        file.extend_from_slice(&MAGIC);
        file
    }

    fn sample() -> Vec<Entry> {
        ["", "dense/bias", "dense/kernel", "other"]
            .map(|key| (key.as_bytes().to_vec(), format!("value of {key}").into_bytes()))
            .to_vec()
    }

    #[test]
    fn plain_and_snappy_tables_are_read() {
        for snappy in [false, true] {
            assert_eq!(entries(&table(&sample(), snappy)).unwrap(), sample());
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found_or_harmless() {
        let good = table(&sample(), false);
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            if let Ok(read) = entries(&bad) {
                assert_eq!(read, sample(), "byte {position}");
            }
        }
    }

    #[test]
    fn truncation_is_an_error() {
        let good = table(&sample(), true);
        for len in 0..good.len() {
            assert!(entries(&good[..len]).is_err());
        }
    }

    #[test]
    fn overlapping_blocks_are_refused() {
        let mut file = Vec::new();
        let data = put_block(&mut file, &sample(), false);
        let index: Vec<Entry> = (0..50u8).map(|key| (vec![key], data.clone())).collect();
        let meta = put_block(&mut file, &[], false);
        let index = put_block(&mut file, &index, false);
        let mut footer = [meta, index].concat();
        footer.resize(FOOTER - MAGIC.len(), 0);
        file.extend_from_slice(&footer);
        file.extend_from_slice(&MAGIC);
        assert!(entries(&file).is_err());
    }

    #[test]
    fn varints_of_more_than_64_bits_are_refused() {
        assert_eq!(varint(&mut [0xff; 11].as_slice()), None);
        assert_eq!(varint(&mut [0xac, 0x02].as_slice()), Some(300));
        assert_eq!(varint(&mut [0x80].as_slice()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let len = bytes.len();
            if len >= FOOTER {
                bytes[len - 8..].copy_from_slice(&MAGIC);
            }
            let _ = entries(&bytes);
            let mut reader = Reader { file: &bytes, left: bytes.len(), key_bytes: 0 };
            let _ = reader.parse(&bytes, 0);
        }
    }
}
