//! Protobuf messages field by field, for those places where a generated message would copy
//! tensors or allocate many times the bytes it was sent.
//!
//! Reading yields slices of the message and allocates nothing. Source of the encoding:
//! <https://protobuf.dev/programming-guides/encoding/>.
#![forbid(unsafe_code)]

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint,
    key_len, skip_field,
};

/// The bytes are not a protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not a valid protobuf message")]
pub struct Malformed;

impl From<prost::DecodeError> for Malformed {
    fn from(_: prost::DecodeError) -> Self {
        Self
    }
}

/// What one field carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Integers, bools, enums.
    Varint(u64),
    /// `float`, `fixed32`.
    Fixed32(u32),
    /// `double`, `fixed64`.
    Fixed64(u64),
    /// Strings, bytes, messages, packed lists; shares the message's memory.
    Bytes(Bytes),
}

/// The fields of a message in the order of the wire. Groups are skipped.
pub struct Fields(Bytes);

impl Fields {
    /// Reads `message`.
    pub fn new(message: Bytes) -> Self {
        Self(message)
    }

    fn read(&mut self) -> Result<Option<(u32, Value)>, Malformed> {
        while self.0.has_remaining() {
            let (tag, wire_type) = decode_key(&mut self.0)?;
            let value = match wire_type {
                WireType::Varint => Value::Varint(decode_varint(&mut self.0)?),
                WireType::ThirtyTwoBit => Value::Fixed32(self.0.try_get_u32_le().map_err(|_| Malformed)?),
                WireType::SixtyFourBit => Value::Fixed64(self.0.try_get_u64_le().map_err(|_| Malformed)?),
                WireType::LengthDelimited => {
                    let len = usize::try_from(decode_varint(&mut self.0)?).map_err(|_| Malformed)?;
                    if len > self.0.len() {
                        return Err(Malformed);
                    }
                    Value::Bytes(self.0.split_to(len))
                }
                WireType::StartGroup | WireType::EndGroup => {
                    skip_field(wire_type, tag, &mut self.0, DecodeContext::default())?;
                    continue;
                }
            };
            return Ok(Some((tag, value)));
        }
        Ok(None)
    }
}

impl Iterator for Fields {
    type Item = Result<(u32, Value), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.read();
        if field.is_err() {
            self.0.clear();
        }
        field.transpose()
    }
}

/// How the numbers of a repeated field stand in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// Variable length.
    Varint,
    /// Four bytes.
    Fixed32,
    /// Eight bytes.
    Fixed64,
}

/// Calls `each` with the bits of every number in the repeated field `tag`, packed or not.
pub fn each_number(
    message: &Bytes,
    tag: u32,
    number: Number,
    mut each: impl FnMut(u64),
) -> Result<(), Malformed> {
    for field in Fields::new(message.clone()) {
        match field? {
            (found, _) if found != tag => {}
            (_, Value::Varint(value)) if number == Number::Varint => each(value),
            (_, Value::Fixed32(value)) if number == Number::Fixed32 => each(value.into()),
            (_, Value::Fixed64(value)) if number == Number::Fixed64 => each(value),
            (_, Value::Bytes(mut packed)) => {
                while packed.has_remaining() {
                    each(match number {
                        Number::Varint => decode_varint(&mut packed)?,
                        Number::Fixed32 => packed.try_get_u32_le().map_err(|_| Malformed)?.into(),
                        Number::Fixed64 => packed.try_get_u64_le().map_err(|_| Malformed)?,
                    });
                }
            }
            // Another wire type under this tag is an unknown field.
            _ => {}
        }
    }
    Ok(())
}

/// Bytes that a length-delimited field of `len` bytes takes, its key and length included.
pub fn delimited_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

/// Writes the key and the length of a length-delimited field.
pub fn put_delimited(out: &mut impl BufMut, tag: u32, len: usize) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

/// Bytes that an integer field takes; none for 0, which is not written.
pub fn integer_len(tag: u32, value: u64) -> usize {
    if value == 0 { 0 } else { key_len(tag) + encoded_len_varint(value) }
}

/// Writes an integer field unless it is 0, the value of an absent field.
pub fn put_integer(out: &mut impl BufMut, tag: u32, value: u64) {
    if value != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(value, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(bytes: &'static [u8]) -> Result<Vec<(u32, Value)>, Malformed> {
        Fields::new(Bytes::from_static(bytes)).collect()
    }

    // The samples of the encoding guide.
    #[test]
    fn reads_the_guides_samples() {
        assert_eq!(fields(&[0x08, 0x96, 0x01]), Ok(vec![(1, Value::Varint(150))]));
        let testing = Value::Bytes(Bytes::from_static(b"testing"));
        assert_eq!(fields(b"\x12\x07testing"), Ok(vec![(2, testing)]));
        let mut packed = Vec::new();
        let message = Bytes::from_static(&[0x32, 0x06, 0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05]);
        each_number(&message, 6, Number::Varint, |value| packed.push(value)).unwrap();
        assert_eq!(packed, [3, 270, 86942]);
    }

    #[test]
    fn groups_are_skipped() {
        assert_eq!(fields(&[0x0b, 0x10, 0x01, 0x0c, 0x08, 0x05]), Ok(vec![(1, Value::Varint(5))]));
        assert_eq!(fields(&[0x0c]), Err(Malformed));
    }

    #[test]
    fn truncation_and_absurd_lengths_are_malformed() {
        for bytes in [
            &[0x08][..],
            &[0x08, 0x80],
            &[0x0d, 1, 2, 3],
            &[0x09, 1, 2, 3],
            &[0x12, 0x05, b'a'],
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x00, 0x01],
            &[0x0f, 0x01],
        ] {
            assert_eq!(fields(bytes), Err(Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn repeated_numbers_may_be_packed_in_part() {
        // float 1.0 alone, then 2.0 and 0.5 packed, then a string field of another number.
        let message = [
            &[0x2d, 0, 0, 0x80, 0x3f][..],
            &[0x2a, 8, 0, 0, 0, 0x40, 0, 0, 0, 0x3f],
            &[0x42, 1, b'x'],
            &[0x28, 7],
        ]
        .concat();
        let mut floats = Vec::new();
        each_number(&message.into(), 5, Number::Fixed32, |bits| floats.push(f32::from_bits(bits as u32)))
            .unwrap();
        assert_eq!(floats, [1.0, 2.0, 0.5]);
        let ragged = Bytes::from_static(&[0x2a, 3, 0, 0, 0]);
        assert_eq!(each_number(&ragged, 5, Number::Fixed32, |_| {}), Err(Malformed));
    }

    #[test]
    fn lengths_agree_with_what_is_written() {
        for (tag, value) in [(1, 0u64), (1, 1), (15, 127), (16, 128), (1, u64::MAX)] {
            let mut out = Vec::new();
            put_integer(&mut out, tag, value);
            assert_eq!(out.len(), integer_len(tag, value));
            out.clear();
            put_delimited(&mut out, tag, 300);
            assert_eq!(out.len() + 300, delimited_len(tag, 300));
        }
    }
}
