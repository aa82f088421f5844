//! Operators on strings. Strings are bytes; nothing here needs them to be UTF-8.

mod fingerprint;
mod format;
mod join;
mod pattern;
mod tokenize;

pub(crate) use fingerprint::fingerprint64;
pub use format::AsString;
pub use join::{AnyOf, ReduceJoin, StringEqual, StringJoin, StringSplit, Substr};
pub use tokenize::{TextRules, Tokenize};

use super::{Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs};
use crate::tensor::{Bytes, DType, Element, Shape, Tensor};
use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{Deserialize, Serialize};

/// What a position or a length counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Bytes.
    #[default]
    Byte,
    /// Characters of UTF-8.
    Character,
}

/// A function of one string.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StringFunction {
    /// Lower case; of ASCII letters only, unless `unicode`.
    Lower {
        /// The string is UTF-8, and all letters count.
        unicode: bool,
    },
    /// Upper case; of ASCII letters only, unless `unicode`.
    Upper {
        /// The string is UTF-8, and all letters count.
        unicode: bool,
    },
    /// Without ASCII white space at both ends.
    Strip,
    /// Matches of a pattern in RE2's syntax rewritten, where `\1` is what group 1 matched.
    RegexReplace {
        /// The pattern.
        pattern: String,
        /// What a match becomes.
        rewrite: String,
        /// All matches, else the first.
        global: bool,
    },
    /// Whether the whole string matches a pattern in RE2's syntax, as `bool`.
    RegexFullMatch {
        /// The pattern.
        pattern: String,
    },
    /// Base64 of the web-safe alphabet.
    EncodeBase64 {
        /// Filled up with `=` to a multiple of 4.
        pad: bool,
    },
    /// What base64 of the web-safe alphabet stands for; padding is optional.
    DecodeBase64,
    /// The number that the string is, as `F32`, `F64`, `I32` or `I64`.
    ToNumber {
        /// The number's type.
        to: DType,
    },
    /// The length as `int32`.
    Length {
        /// What is counted.
        unit: Unit,
    },
    /// The FarmHash fingerprint modulo the number of buckets, as `int64`.
    HashBucket {
        /// Number of buckets, at least 1.
        buckets: u64,
    },
    /// SipHash-2-4 modulo the number of buckets, as `int64`.
    KeyedHashBucket {
        /// Number of buckets, at least 1.
        buckets: u64,
        /// The key.
        key: [u64; 2],
    },
}

impl StringFunction {
    fn result(&self) -> DType {
        match self {
            Self::RegexFullMatch { .. } => DType::Bool,
            Self::ToNumber { to } => *to,
            Self::Length { .. } => DType::I32,
            Self::HashBucket { .. } | Self::KeyedHashBucket { .. } => DType::I64,
            _ => DType::String,
        }
    }
}

/// A function of each string of the input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapStrings {
    /// The function.
    pub function: StringFunction,
}

impl Operator for MapStrings {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        expect_strings(inputs)?;
        Ok(Inferred::one(self.function.result(), inputs[0].shape.clone()))
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        use StringFunction as F;
        Ok(match &self.function {
            F::Lower { unicode: false } => strings(|text| Ok(text.to_ascii_lowercase().into())),
            F::Upper { unicode: false } => strings(|text| Ok(text.to_ascii_uppercase().into())),
            F::Lower { unicode: true } => {
                strings(|text| Ok(String::from_utf8_lossy(text).to_lowercase().into()))
            }
            F::Upper { unicode: true } => {
                strings(|text| Ok(String::from_utf8_lossy(text).to_uppercase().into()))
            }
            F::Strip => strings(|text| Ok(text.slice_ref(text.trim_ascii()))),
            F::RegexReplace { pattern, rewrite, global } => {
                let (pattern, global) = (pattern::compile(pattern, false)?, *global);
                let rewrite = pattern::Rewrite::new(rewrite, &pattern)?;
                strings(move |text| Ok(rewrite.replace(&pattern, text, global)))
            }
            F::EncodeBase64 { pad } => {
                let engine = web_safe(*pad);
                strings(move |text| Ok(engine.encode(text).into()))
            }
            F::DecodeBase64 => {
                let engine = web_safe(false);
                strings(move |text| match engine.decode(text) {
                    Ok(decoded) => Ok(decoded.into()),
                    Err(_) => Err(OpError::invalid("Invalid character found in base64.")),
                })
            }
            F::RegexFullMatch { pattern } => {
                let pattern = pattern::compile(pattern, true)?;
                numbers(move |text| Ok(pattern.is_match(text)))
            }
            F::ToNumber { to } => match to {
                DType::F32 => numbers(parse::<f32>),
                DType::F64 => numbers(parse::<f64>),
                DType::I32 => numbers(parse::<i32>),
                DType::I64 => numbers(parse::<i64>),
                other => return Err(OpError::unsupported(format!("reading a {other} is not supported"))),
            },
            F::Length { unit: Unit::Byte } => numbers(|text| Ok(text.len() as i32)),
            F::Length { unit: Unit::Character } => numbers(|text| Ok(characters(text).count() as i32)),
            F::HashBucket { buckets } => {
                let buckets = (*buckets).max(1);
                numbers(move |text| Ok((fingerprint64(text) % buckets) as i64))
            }
            F::KeyedHashBucket { buckets, key } => {
                let (buckets, key) = ((*buckets).max(1), *key);
                numbers(move |text| Ok((fingerprint::siphash(key, text) % buckets) as i64))
            }
        })
    }
}

fn expect_strings(inputs: &[Fact]) -> Result<(), OpError> {
    match inputs.iter().find(|fact| fact.dtype != DType::String) {
        Some(other) => Err(OpError::invalid(format!("expected strings, got {}", other.dtype))),
        None => Ok(()),
    }
}

fn strings(function: impl Fn(&Bytes) -> Result<Bytes, OpError> + Send + Sync + 'static) -> Step {
    Step::tensors(move |inputs, _| {
        let [x] = inputs else { return Err(OpError::Memory("strings")) };
        let made = x.as_strings()?.iter().map(&function).collect::<Result<Vec<Bytes>, OpError>>()?;
        Ok(vec![Tensor::from_strings(x.shape().clone(), made)?])
    })
}

fn numbers<T: Element>(function: impl Fn(&Bytes) -> Result<T, OpError> + Send + Sync + 'static) -> Step {
    Step::tensors(move |inputs, _| {
        let [x] = inputs else { return Err(OpError::Memory("strings")) };
        let made = x.as_strings()?.iter().map(&function).collect::<Result<Vec<T>, OpError>>()?;
        Ok(vec![Tensor::from_slice(x.shape().clone(), &made)?])
    })
}

fn web_safe(pad: bool) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new()
        .with_encode_padding(pad)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&URL_SAFE, config)
}

fn parse<T: std::str::FromStr>(text: &Bytes) -> Result<T, OpError> {
    let trimmed = std::str::from_utf8(text.trim_ascii()).ok();
    // Rust reads a leading plus for all numbers, as C does.
    trimmed.and_then(|text| text.parse().ok()).ok_or_else(|| {
        let text = String::from_utf8_lossy(text);
        OpError::invalid(format!("StringToNumberOp could not correctly convert string: {text}"))
    })
}

/// Start of each character: every byte that does not continue one.
fn characters(text: &[u8]) -> impl Iterator<Item = usize> + '_ {
    text.iter().enumerate().filter(|&(_, &byte)| byte & 0xc0 != 0x80).map(|(position, _)| position)
}

/// The shape of strings joined or compared element by element: all that are not scalars agree.
fn common_shape(inputs: &[Fact]) -> Result<Shape, OpError> {
    let mut shaped = inputs.iter().filter(|fact| fact.rank() > 0);
    let Some(first) = shaped.next() else { return Ok(Shape::scalar()) };
    match shaped.find(|fact| fact.shape != first.shape) {
        Some(other) => {
            Err(OpError::invalid(format!("Input shapes do not match: {} vs. {}", first.shape, other.shape)))
        }
        None => Ok(first.shape.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::run_op;

    pub(super) fn texts(values: &[&'static str]) -> Tensor {
        Tensor::from_strings([values.len()], values.iter().map(|&value| Bytes::from(value)).collect())
            .unwrap()
    }

    fn map(function: StringFunction, values: &[&'static str]) -> Result<Tensor, String> {
        let y = run_op(MapStrings { function }, &[texts(values)]);
        y.map(|mut y| y.remove(0)).map_err(|error| error.to_string())
    }

    #[test]
    fn strings_to_strings() {
        let to = |function, value: &'static str| {
            String::from_utf8_lossy(&map(function, &[value]).unwrap().as_strings().unwrap()[0]).into_owned()
        };
        assert_eq!(to(StringFunction::Lower { unicode: false }, "A\u{c4}"), "a\u{c4}");
        assert_eq!(to(StringFunction::Lower { unicode: true }, "A\u{c4}"), "a\u{e4}");
        assert_eq!(to(StringFunction::Upper { unicode: true }, "a\u{e4}"), "A\u{c4}");
        assert_eq!(to(StringFunction::Strip, " a b\t\n"), "a b");
        assert_eq!(to(StringFunction::EncodeBase64 { pad: true }, "\u{ff}?"), "w78_");
        assert_eq!(to(StringFunction::EncodeBase64 { pad: true }, "a"), "YQ==");
        assert_eq!(to(StringFunction::EncodeBase64 { pad: false }, "a"), "YQ");
        assert_eq!(to(StringFunction::DecodeBase64, "YQ=="), "a");
        assert_eq!(to(StringFunction::DecodeBase64, "YQ"), "a");
        assert!(map(StringFunction::DecodeBase64, &["Y+"]).is_err());
        let replace =
            StringFunction::RegexReplace { pattern: "[!-/]".into(), rewrite: r" \0 ".into(), global: true };
        assert_eq!(to(replace, "a!b"), "a ! b");
    }

    #[test]
    fn strings_to_numbers() {
        let y = map(StringFunction::HashBucket { buckets: 10 }, &["a", "b", "c"]).unwrap();
        assert_eq!(y.as_slice::<i64>().unwrap(), [9, 2, 2]);
        let y = map(StringFunction::Length { unit: Unit::Character }, &["h\u{e9}", ""]).unwrap();
        assert_eq!(y.as_slice::<i32>().unwrap(), [2, 0]);
        let y = map(StringFunction::Length { unit: Unit::Byte }, &["h\u{e9}"]).unwrap();
        assert_eq!(y.as_slice::<i32>().unwrap(), [3]);
        let y = map(StringFunction::ToNumber { to: DType::F32 }, &[" 1.5 ", "-1e3", "inf"]).unwrap();
        assert_eq!(y.as_slice::<f32>().unwrap(), [1.5, -1000.0, f32::INFINITY]);
        let error = map(StringFunction::ToNumber { to: DType::I32 }, &["1.5"]).unwrap_err();
        assert!(error.starts_with("StringToNumberOp could not correctly convert string: 1.5"), "{error}");
        let y = map(StringFunction::RegexFullMatch { pattern: "a.*".into() }, &["abc", "cab"]).unwrap();
        assert_eq!(y.as_bools().unwrap(), [true, false]);
    }
}
