//! Small tensors written out in `model.json`: `{"dtype": "int64", "data": [[1, 2], [3, 4]]}`.
//!
//! Strings stand here always, because safetensors files have none. Bytes that are not UTF-8 are
//! `{"b64": "..."}`; infinities and NaN are `"inf"`, `"-inf"` and `"nan"`.

use super::document::ConstantDocument;
use crate::tensor::{Bytes, DType, Element, Shape, Tensor, TensorError};
use base64::{Engine, prelude::BASE64_STANDARD};
use half::{bf16, f16};
use serde_json::{Number, Value, json};

/// The tensor, or what is wrong with the text.
pub(super) fn read(document: &ConstantDocument) -> Result<Tensor, String> {
    let nesting = nesting(&document.data);
    let mut leaves = Vec::new();
    flatten(&document.data, &nesting, &mut leaves)?;
    let shape = match &document.shape {
        None => Shape::from(nesting),
        Some(shape) => Shape::from(shape.clone()),
    };
    tensor(document.dtype, shape, &leaves)
}

/// The dimensions, as the first element of each level has them.
fn nesting(mut data: &Value) -> Vec<usize> {
    let mut dims = Vec::new();
    while let Value::Array(items) = data {
        dims.push(items.len());
        match items.first() {
            Some(first) => data = first,
            None => break,
        }
    }
    dims
}

fn flatten<'a>(data: &'a Value, dims: &[usize], leaves: &mut Vec<&'a Value>) -> Result<(), String> {
    match (data, dims) {
        (Value::Array(items), [length, inner @ ..]) if items.len() == *length => {
            items.iter().try_for_each(|item| flatten(item, inner, leaves))
        }
        (Value::Array(_), _) | (_, [_, ..]) => Err("\"data\" is nested unevenly".into()),
        (leaf, []) => {
            leaves.push(leaf);
            Ok(())
        }
    }
}

fn tensor(dtype: DType, shape: Shape, leaves: &[&Value]) -> Result<Tensor, String> {
    fn numbers<T: Element>(
        shape: Shape,
        leaves: &[&Value],
        convert: impl Fn(&Value) -> Option<T>,
    ) -> Result<Tensor, String> {
        let values: Vec<T> = leaves
            .iter()
            .map(|leaf| convert(leaf).ok_or_else(|| format!("{leaf} is no {}", T::DTYPE)))
            .collect::<Result<_, String>>()?;
        Tensor::from_slice(shape, &values).map_err(|error| error.to_string())
    }
    macro_rules! integers {
        ($t:ty) => {
            numbers::<$t>(shape, leaves, |leaf| match leaf.as_i64() {
                Some(value) => value.try_into().ok(),
                None => leaf.as_u64()?.try_into().ok(),
            })
        };
    }
    match dtype {
        DType::Bool => numbers::<bool>(shape, leaves, Value::as_bool),
        DType::U8 => integers!(u8),
        DType::U16 => integers!(u16),
        DType::U32 => integers!(u32),
        DType::U64 => integers!(u64),
        DType::I8 => integers!(i8),
        DType::I16 => integers!(i16),
        DType::I32 => integers!(i32),
        DType::I64 => integers!(i64),
        DType::F16 => numbers(shape, leaves, |leaf| float(leaf).map(f16::from_f64)),
        DType::BF16 => numbers(shape, leaves, |leaf| float(leaf).map(bf16::from_f64)),
        DType::F32 => numbers(shape, leaves, |leaf| float(leaf).map(|value| value as f32)),
        DType::F64 => numbers(shape, leaves, float),
        DType::String => {
            let values = leaves.iter().map(|leaf| string(leaf)).collect::<Result<_, _>>()?;
            Tensor::from_strings(shape, values).map_err(|error| error.to_string())
        }
        DType::Complex64 | DType::Complex128 => Err(format!("constants of {dtype} are not supported")),
    }
}

fn float(leaf: &Value) -> Option<f64> {
    match leaf.as_str() {
        None => leaf.as_f64(),
        Some("inf") => Some(f64::INFINITY),
        Some("-inf") => Some(f64::NEG_INFINITY),
        Some("nan") => Some(f64::NAN),
        Some(_) => None,
    }
}

fn string(leaf: &Value) -> Result<Bytes, String> {
    match leaf {
        Value::String(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Value::Object(members) if members.len() == 1 => members
            .get("b64")
            .and_then(Value::as_str)
            .and_then(|text| BASE64_STANDARD.decode(text).ok())
            .map(Bytes::from)
            .ok_or_else(|| format!("{leaf} is no string")),
        _ => Err(format!("{leaf} is no string")),
    }
}

/// The tensor as text; `None` for dtypes and values that text would not bring back bit by bit.
pub(super) fn write(tensor: &Tensor) -> Result<Option<ConstantDocument>, TensorError> {
    macro_rules! integers {
        ($t:ty) => {
            tensor.as_slice::<$t>()?.iter().map(|&value| Some(json!(value))).collect()
        };
    }
    let leaves: Option<Vec<Value>> = match tensor.dtype() {
        DType::Bool => tensor.as_bools()?.iter().map(|&value| Some(json!(value))).collect(),
        DType::U8 => integers!(u8),
        DType::U16 => integers!(u16),
        DType::U32 => integers!(u32),
        DType::U64 => integers!(u64),
        DType::I8 => integers!(i8),
        DType::I16 => integers!(i16),
        DType::I32 => integers!(i32),
        DType::I64 => integers!(i64),
        DType::F32 => tensor.as_slice::<f32>()?.iter().map(|&value| short_float(value)).collect(),
        DType::F64 => {
            tensor.as_slice::<f64>()?.iter().map(|&value| Number::from_f64(value).map(Value::from)).collect()
        }
        DType::String => tensor.as_strings()?.iter().map(|value| Some(string_value(value))).collect(),
        DType::F16 | DType::BF16 | DType::Complex64 | DType::Complex128 => None,
    };
    let Some(leaves) = leaves else { return Ok(None) };
    // Nesting tells the shape, unless there is nothing to nest.
    let shape = tensor.is_empty().then(|| tensor.shape().to_vec());
    let data = nested(&mut leaves.into_iter(), if tensor.is_empty() { &[0] } else { tensor.shape() });
    Ok(Some(ConstantDocument { dtype: tensor.dtype(), shape, data }))
}

fn nested(leaves: &mut impl Iterator<Item = Value>, dims: &[usize]) -> Value {
    match dims {
        [] => leaves.next().unwrap_or(Value::Null),
        [length, inner @ ..] => Value::Array((0..*length).map(|_| nested(leaves, inner)).collect()),
    }
}

/// The fewest digits that name this float, where reading them through `f64` gives it back.
fn short_float(value: f32) -> Option<Value> {
    let short = value.to_string().parse::<f64>().ok()?;
    let exact = if (short as f32).to_bits() == value.to_bits() { short } else { f64::from(value) };
    Number::from_f64(exact).map(Value::from)
}

fn string_value(value: &Bytes) -> Value {
    match std::str::from_utf8(value) {
        Ok(text) => json!(text),
        Err(_) => json!({ "b64": BASE64_STANDARD.encode(value) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Tensor, String> {
        read(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn nesting_is_the_shape() {
        let tensor = parse(r#"{"dtype": "int32", "data": [[1, 2, 3], [4, 5, -6]]}"#).unwrap();
        assert_eq!(tensor, Tensor::from_slice([2, 3], &[1i32, 2, 3, 4, 5, -6]).unwrap());
        let scalar = parse(r#"{"dtype": "float", "data": "-inf"}"#).unwrap();
        assert_eq!(scalar, Tensor::scalar(f32::NEG_INFINITY));
        let empty = parse(r#"{"dtype": "float", "shape": [0, 3], "data": []}"#).unwrap();
        assert_eq!(empty, Tensor::zeros(DType::F32, [0, 3]).unwrap());
        let strings = parse(r#"{"dtype": "string", "data": ["a", {"b64": "/w=="}]}"#).unwrap();
        assert_eq!(strings.as_strings().unwrap(), [&b"a"[..], &b"\xff"[..]]);
    }

    #[test]
    fn wrong_text_is_refused() {
        for (text, expected) in [
            (r#"{"dtype": "int32", "data": [[1], [2, 3]]}"#, "nested unevenly"),
            (r#"{"dtype": "int32", "data": [1, [2]]}"#, "nested unevenly"),
            (r#"{"dtype": "uint8", "data": [256]}"#, "256 is no uint8"),
            (r#"{"dtype": "int32", "data": 1.5}"#, "1.5 is no int32"),
            (r#"{"dtype": "float", "data": ["one"]}"#, "\"one\" is no float"),
            (r#"{"dtype": "string", "data": [1]}"#, "1 is no string"),
            (r#"{"dtype": "float", "shape": [1000000000], "data": [1]}"#, "needs 1000000000 elements"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn text_brings_back_every_bit() {
        let floats = [0.1f32, -0.0, 1.0, f32::MIN_POSITIVE / 8.0, f32::MAX, 16777216.0, 1.0 / 3.0];
        for tensor in [
            Tensor::from_slice([7, 1], &floats).unwrap(),
            Tensor::scalar(0.1f64),
            Tensor::from_slice([2], &[u64::MAX, 1]).unwrap(),
            Tensor::from_slice([2], &[i64::MIN, -1]).unwrap(),
            Tensor::zeros(DType::String, [2, 0]).unwrap(),
            Tensor::from_strings([2], vec![Bytes::from_static(b"\xfe"), Bytes::from_static(b"e")]).unwrap(),
        ] {
            let document = write(&tensor).unwrap().unwrap();
            let text = serde_json::to_string(&document).unwrap();
            assert_eq!(parse(&text).unwrap(), tensor, "{text}");
        }
        assert!(write(&Tensor::scalar(f32::NAN)).unwrap().is_none());
    }
}
