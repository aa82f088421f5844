//! The HPACK decoder (RFC 7541, 3 and 6).
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use thiserror::Error;

use crate::wire::headers::Headers;

use super::{huffman, static_table::ENTRIES};

/// What an entry counts beside its name and value (RFC 7541, 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// Why a block cannot be decoded; the connection is lost, as the peers' tables differ from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HpackError {
    /// The block ends inside a field.
    #[error("the header block is cut short")]
    Truncated,
    /// An index that neither table has (RFC 7541, 2.3.3).
    #[error("a header field refers to an index that does not exist")]
    Index,
    /// An integer that is too large or too long (RFC 7541, 5.1).
    #[error("an integer of the header block is out of range")]
    Integer,
    /// A string with bad padding or with EOS (RFC 7541, 5.2).
    #[error("a string of the header block is not valid Huffman code")]
    Huffman,
    /// A table size above the limit, or not at the start of a block (RFC 7541, 4.2).
    #[error("the header block changes the table size where or as it may not")]
    TableSize,
}

/// A decoded block.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The fields, in order; incomplete if `too_large`.
    pub headers: Headers,
    /// Whether the list exceeded a limit, in size or in number.
    pub too_large: bool,
}

/// Decodes the header blocks of one connection, in order.
#[derive(Debug)]
pub struct Decoder {
    entries: VecDeque<Entry>,
    size: usize,
    capacity: usize,
    /// The capacity that the peer may choose at most: what SETTINGS_HEADER_TABLE_SIZE said.
    max_capacity: usize,
    list_limit: usize,
    count_limit: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    text: Box<[u8]>,
    name: usize,
}

impl Entry {
    fn parts(&self) -> (&[u8], &[u8]) {
        self.text.split_at_checked(self.name).unwrap_or_default()
    }

    fn size(&self) -> usize {
        self.text.len() + ENTRY_OVERHEAD
    }
}

impl Decoder {
    /// A decoder with a table of at most `max_capacity` bytes, for lists of at most `list_limit`
    /// bytes (RFC 9113, 6.5.2) and `count_limit` fields.
    pub fn new(max_capacity: usize, list_limit: usize, count_limit: usize) -> Decoder {
        let entries = VecDeque::new();
        Decoder { entries, size: 0, capacity: max_capacity, max_capacity, list_limit, count_limit }
    }

    /// The size of the dynamic table now (RFC 7541, 4.1).
    pub fn table_size(&self) -> usize {
        self.size
    }

    /// Decodes one complete block.
    pub fn decode(&mut self, block: &[u8]) -> Result<Decoded, HpackError> {
        let mut reader = Reader { bytes: block };
        let mut list = List { headers: Headers::with_capacity(12, 256), size: 0, too_large: false };
        let mut fields = false;
        while let Some(first) = reader.peek() {
            if first & 0xe0 == 0x20 {
                if fields {
                    return Err(HpackError::TableSize);
                }
                let capacity = reader.integer(5)?;
                if capacity > self.max_capacity {
                    return Err(HpackError::TableSize);
                }
                self.capacity = capacity;
                self.evict(capacity);
                continue;
            }
            fields = true;
            if first & 0x80 != 0 {
                let index = reader.integer(7)?;
                let (name, value) = self.entry(index)?;
                self.add(&mut list, name, value);
                continue;
            }
            let indexed = first & 0x40 != 0;
            let index = reader.integer(if indexed { 6 } else { 4 })?;
            let mut text = Vec::new();
            // What neither the list nor the table could hold is counted and not kept.
            let keep = self.list_limit.max(self.capacity);
            let mut name = if index == 0 {
                reader.string(&mut text, keep)?
            } else {
                text.extend_from_slice(self.entry(index)?.0);
                text.len()
            };
            let value = reader.string(&mut text, keep.saturating_sub(name))?;
            let length = name.saturating_add(value);
            if length > text.len() {
                name = name.min(text.len());
                list.too_large = true;
            }
            let (name_text, value_text) = text.split_at_checked(name).unwrap_or_default();
            self.add(&mut list, name_text, value_text);
            if indexed {
                self.insert(text, name, length);
            }
        }
        Ok(Decoded { headers: list.headers, too_large: list.too_large })
    }

    fn add(&self, list: &mut List, name: &[u8], value: &[u8]) {
        list.size = list.size.saturating_add(name.len() + value.len() + ENTRY_OVERHEAD);
        list.too_large |= list.size > self.list_limit || list.headers.len() >= self.count_limit;
        if !list.too_large {
            list.headers.push(name, value);
        }
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
        let index = index.checked_sub(1).ok_or(HpackError::Index)?;
        match ENTRIES.get(index) {
            Some(entry) => Ok(*entry),
            None => self.entries.get(index - ENTRIES.len()).map(Entry::parts).ok_or(HpackError::Index),
        }
    }

    /// Adds an entry of `length` bytes; one that is larger than the table empties it (RFC 7541, 4.4).
    fn insert(&mut self, text: Vec<u8>, name: usize, length: usize) {
        let size = length.saturating_add(ENTRY_OVERHEAD);
        let Some(room) = self.capacity.checked_sub(size) else { return self.evict(0) };
        self.evict(room);
        self.size += size;
        self.entries.push_front(Entry { text: text.into(), name });
    }

    fn evict(&mut self, limit: usize) {
        while self.size > limit {
            let Some(entry) = self.entries.pop_back() else { return };
            self.size -= entry.size();
        }
    }
}

struct List {
    headers: Headers,
    size: usize,
    too_large: bool,
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.first().copied()
    }

    fn byte(&mut self) -> Result<u8, HpackError> {
        let (first, rest) = self.bytes.split_first().ok_or(HpackError::Truncated)?;
        self.bytes = rest;
        Ok(*first)
    }

    /// An integer with a prefix of `bits` bits (RFC 7541, 5.1); at most four bytes follow the prefix.
    fn integer(&mut self, bits: u32) -> Result<usize, HpackError> {
        let mask = (1_u8 << bits) - 1;
        let mut value = usize::from(self.byte()? & mask);
        if value < usize::from(mask) {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(HpackError::Integer)
    }

    /// Appends a string to `text`, up to `keep` bytes of it; returns its whole length.
    fn string(&mut self, text: &mut Vec<u8>, keep: usize) -> Result<usize, HpackError> {
        let huffman = self.peek().ok_or(HpackError::Truncated)? & 0x80 != 0;
        let length = self.integer(7)?;
        let (raw, rest) = self.bytes.split_at_checked(length).ok_or(HpackError::Truncated)?;
        self.bytes = rest;
        if huffman {
            return huffman::decode(raw, text, keep).map_err(|_| HpackError::Huffman);
        }
        text.extend_from_slice(raw.get(..length.min(keep)).unwrap_or_default());
        Ok(length)
    }
}
