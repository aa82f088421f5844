//! Floats in model files. JSON has no infinities, yet they are common bounds: those and NaN are
//! the strings `"inf"`, `"-inf"` and `"nan"`.

use serde::{Deserialize, Deserializer, Serializer, de};

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrName {
    Number(f32),
    Name(String),
}

pub(super) fn serialize<S: Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() {
        return serializer.serialize_f32(*value);
    }
    serializer.serialize_str(match *value {
        f32::INFINITY => "inf",
        f32::NEG_INFINITY => "-inf",
        _ => "nan",
    })
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    match NumberOrName::deserialize(deserializer)? {
        NumberOrName::Number(number) => Ok(number),
        NumberOrName::Name(name) => match name.as_str() {
            "inf" => Ok(f32::INFINITY),
            "-inf" => Ok(f32::NEG_INFINITY),
            "nan" => Ok(f32::NAN),
            _ => Err(de::Error::custom(format!("\"{name}\" is no number, inf, -inf or nan"))),
        },
    }
}
