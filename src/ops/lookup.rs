//! Immutable hash tables: strings or integers to values of any type.
//!
//! The table's keys and values are inputs, constants as a rule; the index over the keys is made once
//! per model.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs, text::fingerprint64};
use crate::tensor::{Buffer, Bytes, DType, Shape, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The values of the keys in input 0, in its shape. Inputs 1 and 2 are the table's keys and values,
/// of equal length, input 3 the value of keys that the table lacks. Keys are strings, `int32` or
/// `int64`; of equal keys the first counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lookup {
    /// With buckets, a key that the table lacks gets the number of entries plus its FarmHash
    /// fingerprint modulo this (TensorFlow's `StaticVocabularyTable`); values are then `int64`.
    pub buckets: u64,
}

impl Operator for Lookup {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 4..=4)?;
        let [x, keys, values, default] = inputs else { return Err(OpError::Memory("a table")) };
        let known = matches!(x.dtype, DType::String | DType::I32 | DType::I64);
        if x.dtype != keys.dtype || !known || (self.buckets > 0 && values.dtype != DType::I64) {
            return Err(OpError::unsupported(format!(
                "looking up {} in a table from {} to {} is not supported",
                x.dtype, keys.dtype, values.dtype
            )));
        }
        if keys.elements() != values.elements() || default.dtype != values.dtype || default.elements() != 1 {
            return Err(OpError::invalid("keys, values and default of a table do not fit together"));
        }
        if keys.value.is_none() {
            return Ok(Inferred::NeedsValue(1));
        }
        Ok(Inferred::one(values.dtype, x.shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let keys = cx.value(1).ok_or(OpError::Memory("a table"))?;
        let index = cx.packed("lookup", &[1], || Index::new(keys))?;
        let buckets = self.buckets;
        Ok(Step::tensors(move |inputs, _| {
            let [x, _, values, default] = inputs else { return Err(OpError::Memory("a table")) };
            let found = index.find(x)?;
            if buckets == 0 {
                return Ok(vec![pick(&found, values, default, x.shape())?]);
            }
            let entries = values.len() as u64;
            let known = values.as_slice::<i64>()?;
            let number = |(element, found): (usize, &Option<usize>)| match found {
                Some(position) => Ok(known[*position]),
                None => {
                    let hash = fingerprint64(&key_text(x, element)?) % buckets;
                    Ok(entries.wrapping_add(hash) as i64)
                }
            };
            let numbers = found.iter().enumerate().map(number).collect::<Result<Vec<i64>, OpError>>()?;
            Ok(vec![Tensor::from_slice(x.shape().clone(), &numbers)?])
        }))
    }
}

/// From key to position.
enum Index {
    Strings(HashMap<Bytes, usize>),
    Integers(HashMap<i64, usize>),
}

impl Index {
    fn new(keys: &Tensor) -> Result<Self, OpError> {
        Ok(match keys.dtype() {
            DType::String => {
                let mut index = HashMap::with_capacity(keys.len());
                for (position, key) in keys.as_strings()?.iter().enumerate() {
                    index.entry(key.clone()).or_insert(position);
                }
                Self::Strings(index)
            }
            _ => {
                let mut index = HashMap::with_capacity(keys.len());
                for (position, key) in keys.to_i64_vec()?.into_iter().enumerate() {
                    index.entry(key).or_insert(position);
                }
                Self::Integers(index)
            }
        })
    }

    fn find(&self, x: &Tensor) -> Result<Vec<Option<usize>>, OpError> {
        Ok(match self {
            Self::Strings(index) => x.as_strings()?.iter().map(|key| index.get(key).copied()).collect(),
            Self::Integers(index) => x.to_i64_vec()?.iter().map(|key| index.get(key).copied()).collect(),
        })
    }
}

/// The key as TensorFlow hashes it: integers in decimal.
fn key_text(x: &Tensor, element: usize) -> Result<Bytes, OpError> {
    let missing = OpError::Memory("a key");
    match x.dtype() {
        DType::String => x.as_strings()?.get(element).cloned().ok_or(missing),
        DType::I32 => Ok(x.as_slice::<i32>()?.get(element).ok_or(missing)?.to_string().into()),
        _ => Ok(x.as_slice::<i64>()?.get(element).ok_or(missing)?.to_string().into()),
    }
}

fn pick(
    found: &[Option<usize>],
    values: &Tensor,
    default: &Tensor,
    shape: &Shape,
) -> Result<Tensor, OpError> {
    let Some(size) = values.dtype().size() else {
        let (values, default) = (values.as_strings()?, default.as_strings()?);
        let picked =
            found.iter().map(|found| found.map_or(&default[0], |position| &values[position]).clone());
        return Ok(Tensor::from_strings(shape.clone(), picked.collect())?);
    };
    let mut bytes = Vec::with_capacity(found.len() * size);
    for found in found {
        let from = found.map_or(default.as_bytes(), |position| &values.as_bytes()[position * size..][..size]);
        bytes.extend_from_slice(from);
    }
    Ok(Tensor::from_buffer(values.dtype(), shape.clone(), Buffer::copy_of(&bytes)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::run_op;

    fn texts(values: &[&'static str]) -> Tensor {
        Tensor::from_strings([values.len()], values.iter().map(|&value| Bytes::from(value)).collect())
            .unwrap()
    }

    #[test]
    fn any_type_to_any_type() {
        let keys = texts(&["cat", "dog", "cat"]);
        let numbers = Tensor::from_slice([3], &[1i64, 2, 3]).unwrap();
        let run = |buckets, x: &Tensor| {
            let inputs = [x.clone(), keys.clone(), numbers.clone(), Tensor::scalar(-1i64)];
            run_op(Lookup { buckets }, &inputs).unwrap()[0].as_slice::<i64>().unwrap().to_vec()
        };
        assert_eq!(run(0, &texts(&["dog", "cow", "cat"])), [2, -1, 1]);
        // "a" and "b" hash to 9 and 2 of 10 buckets, as in the tests of string hashing.
        assert_eq!(run(10, &texts(&["a", "cat", "b"])), [3 + 9, 1, 3 + 2]);
        let codes = Tensor::from_slice([2], &[7i32, 8]).unwrap();
        let x = Tensor::from_slice([2, 1], &[8i32, 9]).unwrap();
        let unknown = Tensor::from_strings([0usize; 0], vec![Bytes::from("?")]).unwrap();
        let y = run_op(Lookup::default(), &[x.clone(), codes.clone(), texts(&["x", "y"]), unknown]).unwrap();
        assert_eq!(y[0].as_strings().unwrap(), ["y", "?"]);
        assert_eq!(y[0].shape().to_vec(), [2, 1]);
        let floats = Tensor::from_slice([2], &[0.5f32, 1.5]).unwrap();
        let y = run_op(Lookup::default(), &[x.clone(), codes.clone(), floats.clone(), Tensor::scalar(0f32)]);
        assert_eq!(y.unwrap()[0].as_slice::<f32>().unwrap(), [1.5, 0.0]);
        assert!(run_op(Lookup::default(), &[x, codes, floats, Tensor::scalar(0i32)]).is_err());
    }
}
