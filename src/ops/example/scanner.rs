//! Just enough of the protobuf wire format to read an `Example`
//! (<https://protobuf.dev/programming-guides/encoding/>).
//!
//! Every function answers `None` for bytes that are no message.

use crate::tensor::Bytes;

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Field {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64,
    /// Wire type 2.
    Delimited(Bytes),
    /// Wire type 5.
    Fixed32([u8; 4]),
}

/// Reads the fields of a message one by one.
pub(super) struct Scanner<'a> {
    message: &'a Bytes,
    position: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(message: &'a Bytes) -> Self {
        Self { message, position: 0 }
    }

    /// The next field's number and value; `Some(None)` at the end.
    pub(super) fn next(&mut self) -> Option<Option<(u64, Field)>> {
        if self.position == self.message.len() {
            return Some(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Fixed64
            }
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                let start = self.position;
                self.take(len)?;
                Field::Delimited(self.message.slice(start..start + len))
            }
            5 => Field::Fixed32(self.take(4)?.try_into().ok()?),
            // Groups are not part of these messages, and 6 and 7 of none.
            _ => return None,
        };
        let number = tag >> 3;
        (number != 0).then_some(Some((number, field)))
    }

    fn varint(&mut self) -> Option<u64> {
        let (value, len) = varint(self.message.get(self.position..)?)?;
        self.position += len;
        Some(value)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.position.checked_add(len)?;
        let taken = self.message.get(self.position..end)?;
        self.position = end;
        Some(taken)
    }
}

/// A varint at the front of `bytes`, and its length.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (position, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * position as u32)?;
        if byte < 0x80 {
            return Some((value, position + 1));
        }
    }
    None
}

/// The features of an `Example` in order: names and `Feature` messages.
/// `Example { Features features = 1; }`, `Features { map<string, Feature> feature = 1; }`.
pub(super) fn features(example: &Bytes) -> Option<Vec<(Bytes, Bytes)>> {
    let mut found = Vec::new();
    let mut fields = Scanner::new(example);
    while let Some((number, field)) = fields.next()? {
        let (1, Field::Delimited(features)) = (number, field) else { continue };
        let mut entries = Scanner::new(&features);
        while let Some((number, field)) = entries.next()? {
            let (1, Field::Delimited(entry)) = (number, field) else { continue };
            let (mut key, mut value) = (Bytes::new(), Bytes::new());
            let mut parts = Scanner::new(&entry);
            while let Some(part) = parts.next()? {
                match part {
                    (1, Field::Delimited(bytes)) => key = bytes,
                    (2, Field::Delimited(bytes)) => value = bytes,
                    _ => {}
                }
            }
            found.push((key, value));
        }
    }
    Some(found)
}
