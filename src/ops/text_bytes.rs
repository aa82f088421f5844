//! Byte strings that are text, as strings of model files.

use crate::tensor::Bytes;
use serde::{Deserialize, Deserializer, Serializer, ser};

pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    let text = str::from_utf8(bytes).map_err(|_| ser::Error::custom("the string is not UTF-8"))?;
    serializer.serialize_str(text)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    String::deserialize(deserializer).map(Bytes::from)
}
