//! Parsing `tensorflow.Example` messages (TensorFlow `ParseExample`, `ParseExampleV2`,
//! `ParseSingleExample`).
//!
//! An `Example` is a map from feature names to lists of bytes, floats or integers. Only the
//! features that the model names are decoded, straight from the wire; the bytes come from clients.
//! Errors are in the words of TensorFlow's parser, which clients of classify and regress know.

mod list;
mod scanner;

use super::{Fact, Inferred, Lower, OpError, Operator, Step, Tensors, expect_inputs};
use crate::tensor::{AlignedVec, Bytes, DType, Shape, Tensor, TensorError};
use list::{List, Values};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// A feature with the same number of values in every example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DenseFeature {
    /// Name in the example.
    #[serde(with = "super::text_bytes")]
    pub key: Bytes,
    /// `F32`, `I64` or `String`.
    pub dtype: DType,
    /// Dimensions per example. The first may be `None`: as many as the longest example of the batch
    /// has; shorter ones are filled with the default.
    pub shape: Vec<Option<usize>>,
}

/// A feature with any number of values per example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SparseFeature {
    /// Name in the example.
    #[serde(with = "super::text_bytes")]
    pub key: Bytes,
    /// `F32`, `I64` or `String`.
    pub dtype: DType,
}

/// A feature with any number of values per example, as values and row splits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RaggedFeature {
    /// Name in the example.
    #[serde(with = "super::text_bytes")]
    pub key: Bytes,
    /// `F32`, `I64` or `String`.
    pub dtype: DType,
    /// Type of the row splits, `I32` or `I64`.
    pub splits: DType,
}

/// Inputs: serialized examples (strings, `[n]` or a scalar), their names (`[n]` or empty), and one
/// default per dense feature (empty: the feature is required). Outputs: the sparse features'
/// indices, then their values, then their shapes; the dense features; the ragged features' values,
/// then their row splits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ParseExample {
    /// Sparse features.
    pub sparse: Vec<SparseFeature>,
    /// Dense features.
    pub dense: Vec<DenseFeature>,
    /// Ragged features.
    pub ragged: Vec<RaggedFeature>,
}

impl Operator for ParseExample {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2 + self.dense.len()..=2 + self.dense.len())?;
        let (serialized, names) = (&inputs[0], &inputs[1]);
        if serialized.dtype != DType::String || names.dtype != DType::String || serialized.rank() > 1 {
            return Err(OpError::invalid(format!(
                "Expected serialized to be a scalar or vector of strings, got a {} of shape {}",
                serialized.dtype, serialized.shape
            )));
        }
        if names.elements() != 0 && names.elements() != serialized.elements() {
            return Err(OpError::invalid(format!(
                "Expected len(names) == len(serialized), but got: {} vs. {}",
                names.elements(),
                serialized.elements()
            )));
        }
        if serialized.rank() == 0 && !self.ragged.is_empty() {
            return Err(OpError::unsupported("ragged features of a single example are not supported"));
        }
        for (feature, default) in self.dense.iter().zip(&inputs[2..]) {
            check_default(feature, default)?;
        }
        let fixed = self.dense.iter().all(|feature| feature.shape.iter().all(Option::is_some));
        if !self.sparse.is_empty() || !self.ragged.is_empty() || !fixed {
            return Ok(Inferred::AtRun);
        }
        let facts = self.dense.iter().map(|feature| {
            let dims = feature.shape.iter().map(|dim| dim.unwrap_or(0));
            Fact::new(feature.dtype, serialized.dims().iter().copied().chain(dims).collect::<Shape>())
        });
        Ok(Inferred::Facts(facts.collect()))
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        let parser = Parser::new(self)?;
        Ok(Step::tensors(move |inputs, _| parser.parse(inputs)))
    }
}

/// Elements of one example's dense feature, or of one step along its open first dimension.
fn stride(feature: &DenseFeature) -> Result<usize, OpError> {
    let shape: Shape = feature.shape.iter().map(|dim| dim.unwrap_or(1)).collect();
    Ok(shape.checked_elements().ok_or(TensorError::TooLarge(shape))?)
}

fn is_open(feature: &DenseFeature) -> bool {
    matches!(feature.shape.first(), Some(None))
}

fn check_default(feature: &DenseFeature, default: &Fact) -> Result<(), OpError> {
    let key = String::from_utf8_lossy(&feature.key);
    if feature.shape.iter().skip(1).any(Option::is_none) {
        return Err(OpError::invalid(format!(
            "only the first dimension of the dense feature {key} may be open"
        )));
    }
    let wanted = if is_open(feature) { 1 } else { stride(feature)? };
    if default.dtype != feature.dtype || ![0, wanted].contains(&default.elements()) {
        return Err(OpError::invalid(format!(
            "the default of the dense feature {key} is a {} of shape {}, but {wanted} values of {} are needed",
            default.dtype, default.shape, feature.dtype
        )));
    }
    Ok(())
}

struct Parser {
    op: ParseExample,
    /// Number of each named feature: sparse, dense, ragged, counted through.
    slots: HashMap<Bytes, Vec<usize>>,
    dtypes: Vec<DType>,
}

/// The lists of one feature, example by example.
type Column = Vec<Option<List>>;

impl Parser {
    fn new(op: &ParseExample) -> Result<Self, OpError> {
        let sparse = op.sparse.iter().map(|feature| (&feature.key, feature.dtype));
        let dense = op.dense.iter().map(|feature| (&feature.key, feature.dtype));
        let ragged = op.ragged.iter().map(|feature| (&feature.key, feature.dtype));
        let mut slots: HashMap<Bytes, Vec<usize>> = HashMap::new();
        let mut dtypes = Vec::new();
        for (slot, (key, dtype)) in sparse.chain(dense).chain(ragged).enumerate() {
            if !matches!(dtype, DType::F32 | DType::I64 | DType::String) {
                return Err(OpError::unsupported(format!("features of {dtype} are not supported")));
            }
            slots.entry(key.clone()).or_default().push(slot);
            dtypes.push(dtype);
        }
        Ok(Self { op: op.clone(), slots, dtypes })
    }

    fn parse(&self, inputs: &[Tensor]) -> Result<Tensors, OpError> {
        let [serialized, names, defaults @ ..] = inputs else { return Err(OpError::Memory("examples")) };
        let batch = Batch { names: names.as_strings()?, shape: serialized.shape().clone() };
        let mut columns: Vec<Column> = self.dtypes.iter().map(|_| Column::new()).collect();
        for (example, bytes) in serialized.as_strings()?.iter().enumerate() {
            self.scan(bytes, example, &batch, &mut columns)?;
        }
        let (sparse, rest) = columns.split_at(self.op.sparse.len());
        let (dense, ragged) = rest.split_at(self.op.dense.len());
        let sparse = self.op.sparse.iter().zip(sparse);
        let sparse = sparse.map(|(feature, column)| batch.sparse(feature, column));
        let sparse = sparse.collect::<Result<Vec<_>, OpError>>()?;
        let mut outputs: Tensors = Vec::new();
        outputs.extend(sparse.iter().map(|[indices, _, _]| indices.clone()));
        outputs.extend(sparse.iter().map(|[_, values, _]| values.clone()));
        outputs.extend(sparse.iter().map(|[_, _, shape]| shape.clone()));
        for ((feature, column), default) in self.op.dense.iter().zip(dense).zip(defaults) {
            outputs.push(batch.dense(feature, column, default)?);
        }
        let ragged = self.op.ragged.iter().zip(ragged);
        let ragged = ragged.map(|(feature, column)| batch.ragged(feature, column));
        let ragged = ragged.collect::<Result<Vec<_>, OpError>>()?;
        outputs.extend(ragged.iter().map(|(values, _)| values.clone()));
        outputs.extend(ragged.into_iter().map(|(_, splits)| splits));
        Ok(outputs)
    }

    /// Adds one example's lists to the columns.
    fn scan(
        &self,
        bytes: &Bytes,
        example: usize,
        batch: &Batch<'_>,
        columns: &mut [Column],
    ) -> Result<(), OpError> {
        for column in columns.iter_mut() {
            column.push(None);
        }
        let unparsable = || {
            let shown = String::from_utf8_lossy(bytes.get(..bytes.len().min(256)).unwrap_or_default());
            OpError::invalid(format!("Could not parse example input, value: '{shown}'"))
        };
        let features = scanner::features(bytes).ok_or_else(unparsable)?;
        // A message appended to another replaces its features: the last of a name counts.
        for (key, feature) in features {
            let Some(slots) = self.slots.get(key.as_ref()) else { continue };
            let list = List::of(&feature).ok_or_else(unparsable)?;
            for &slot in slots {
                if let (Some(list), expected) = (&list, self.dtypes[slot])
                    && list.dtype() != expected
                {
                    return Err(batch.error(
                        &key,
                        example,
                        format!(
                            "Data types don't match. Data type: {} but expected type: {expected}",
                            list.dtype()
                        ),
                    ));
                }
                columns[slot][example] = list.clone();
            }
        }
        // What the scanner has not looked into yet is found out now, not column by column.
        match columns.iter().filter_map(|column| column[example].as_ref()).all(List::is_valid) {
            true => Ok(()),
            false => Err(unparsable()),
        }
    }
}

struct Batch<'a> {
    names: &'a [Bytes],
    shape: Shape,
}

impl Batch<'_> {
    fn name(&self, example: usize) -> std::borrow::Cow<'_, str> {
        self.names.get(example).map_or("<unknown>".into(), |name| String::from_utf8_lossy(name))
    }

    fn error(&self, key: &[u8], example: usize, what: String) -> OpError {
        let (name, key) = (self.name(example), String::from_utf8_lossy(key));
        OpError::invalid(format!("Name: {name}, Key: {key}, Index: {example}.  {what}"))
    }

    fn dense(&self, feature: &DenseFeature, column: &Column, default: &Tensor) -> Result<Tensor, OpError> {
        let stride = stride(feature)?;
        let lens = column.iter().map(|list| list.as_ref().map_or(0, List::len));
        let (steps, mut shape) =
            (lens.max().unwrap_or(0).checked_div(stride).unwrap_or(0), self.shape.clone());
        for dim in &feature.shape {
            shape.push(dim.unwrap_or(steps));
        }
        let row = if is_open(feature) { steps * stride } else { stride };
        let mut values = Values::zeros(feature.dtype, &shape)?;
        for (example, list) in column.iter().enumerate() {
            let written = match list {
                Some(list) => {
                    let len = list.len();
                    self.check_len(feature, example, len, stride)?;
                    list.write(&mut values, example * row);
                    len
                }
                None if is_open(feature) => 0,
                None if default.is_empty() && stride > 0 => {
                    return Err(OpError::invalid(format!(
                        "Name: {}, Feature: {} (data type: {}) is required but could not be found.",
                        self.name(example),
                        String::from_utf8_lossy(&feature.key),
                        feature.dtype
                    )));
                }
                None => 0,
            };
            values.fill(example * row + written..(example + 1) * row, default)?;
        }
        values.finish(shape)
    }

    fn check_len(
        &self,
        feature: &DenseFeature,
        example: usize,
        len: usize,
        stride: usize,
    ) -> Result<(), OpError> {
        let shown: Vec<String> =
            feature.shape.iter().map(|dim| dim.map_or("?".into(), |dim| dim.to_string())).collect();
        let (shown, kind) = (shown.join(","), list::kind(feature.dtype));
        if is_open(feature) {
            if len != 0 && len.checked_rem(stride) != Some(0) {
                let what = format!(
                    "Number of {kind} values is not a multiple of stride length. Saw {len} values but output shape is: [{shown}]"
                );
                return Err(self.error(&feature.key, example, what));
            }
        } else if len != stride {
            let what = format!(
                "Number of {kind} values != expected.  Values size: {len} but output shape: [{shown}]"
            );
            return Err(self.error(&feature.key, example, what));
        }
        Ok(())
    }

    /// Indices `[found, 2]`, values `[found]` and dense shape `[n, longest]`; without the first
    /// column and entry for a single example.
    fn sparse(&self, feature: &SparseFeature, column: &Column) -> Result<[Tensor; 3], OpError> {
        let (values, lens) = flat(feature.dtype, column)?;
        let total: usize = lens.iter().sum();
        let rank = self.shape.len() + 1;
        let mut indices = AlignedVec::<i64>::zeroed(total.saturating_mul(rank))?;
        let mut rows = indices.as_mut_slice().chunks_exact_mut(rank);
        for (example, &len) in lens.iter().enumerate() {
            for (position, row) in (0..len).zip(&mut rows) {
                match row {
                    [first, second] => (*first, *second) = (example as i64, position as i64),
                    [only] => *only = position as i64,
                    _ => {}
                }
            }
        }
        let longest = lens.iter().copied().max().unwrap_or(0);
        let mut shape = self.shape.to_i64();
        shape.push(longest as i64);
        Ok([
            Tensor::from_aligned([total, rank], indices)?,
            values,
            Tensor::from_slice([shape.len()], &shape)?,
        ])
    }

    fn ragged(&self, feature: &RaggedFeature, column: &Column) -> Result<(Tensor, Tensor), OpError> {
        let (values, lens) = flat(feature.dtype, column)?;
        let mut ends = vec![0i64];
        let mut end = 0;
        for len in lens {
            end += len as i64;
            ends.push(end);
        }
        let splits = match feature.splits {
            DType::I32 => {
                let ends: Vec<i32> = ends.iter().map(|&end| i32::try_from(end).unwrap_or(i32::MAX)).collect();
                Tensor::from_slice([ends.len()], &ends)?
            }
            _ => Tensor::from_slice([ends.len()], &ends)?,
        };
        Ok((values, splits))
    }
}

/// All values of a column, and how many each example has.
fn flat(dtype: DType, column: &Column) -> Result<(Tensor, Vec<usize>), OpError> {
    let lens: Vec<usize> = column.iter().map(|list| list.as_ref().map_or(0, List::len)).collect();
    let shape = Shape::from([lens.iter().sum::<usize>()]);
    let mut values = Values::zeros(dtype, &shape)?;
    let mut start = 0;
    for (list, len) in column.iter().zip(&lens) {
        if let Some(list) = list {
            list.write(&mut values, start);
        }
        start += len;
    }
    Ok((values.finish(shape)?, lens))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::testing::run_op_outputs,
        proto::tensorflow::{BytesList, Example, Feature, Features, FloatList, Int64List, feature::Kind},
    };
    use proptest::prelude::*;
    use prost::Message;

    fn floats(values: &[f32]) -> Option<Kind> {
        Some(Kind::FloatList(FloatList { value: values.to_vec() }))
    }

    fn integers(values: &[i64]) -> Option<Kind> {
        Some(Kind::Int64List(Int64List { value: values.to_vec() }))
    }

    fn strings(values: &[&'static str]) -> Option<Kind> {
        Some(Kind::BytesList(BytesList { value: values.iter().map(|&value| Bytes::from(value)).collect() }))
    }

    fn example(features: Vec<(&str, Option<Kind>)>) -> Bytes {
        let feature = features.into_iter().map(|(key, kind)| (key.to_string(), Feature { kind })).collect();
        Example { features: Some(Features { feature }) }.encode_to_vec().into()
    }

    fn batch(examples: &[Bytes]) -> [Tensor; 2] {
        [Tensor::from_strings([examples.len()], examples.to_vec()).unwrap(), Tensor::empty(DType::String)]
    }

    fn dense(key: &'static str, dtype: DType, shape: &[Option<usize>]) -> DenseFeature {
        DenseFeature { key: key.into(), dtype, shape: shape.to_vec() }
    }

    fn parse(op: &ParseExample, inputs: &[Tensor], outputs: usize) -> Result<Vec<Tensor>, String> {
        run_op_outputs(op.clone(), inputs, outputs).map_err(|error| error.to_string())
    }

    #[test]
    fn dense_features_and_defaults() {
        let op = ParseExample {
            dense: vec![
                dense("x", DType::F32, &[Some(2)]),
                dense("n", DType::I64, &[]),
                dense("s", DType::String, &[Some(1)]),
            ],
            ..ParseExample::default()
        };
        let a = example(vec![("x", floats(&[1.0, 2.0])), ("s", strings(&["hi"])), ("other", integers(&[1]))]);
        let b = example(vec![("x", floats(&[3.0, 4.0])), ("n", integers(&[-7]))]);
        let [serialized, names] = batch(&[a, b]);
        let no_floats = Tensor::empty(DType::F32);
        let word = Tensor::from_strings([1], vec![Bytes::from("none")]).unwrap();
        let y = parse(&op, &[serialized, names, no_floats, Tensor::scalar(5i64), word], 3).unwrap();
        assert_eq!(y[0], Tensor::from_slice([2, 2], &[1.0f32, 2.0, 3.0, 4.0]).unwrap());
        assert_eq!(y[1], Tensor::from_slice([2], &[5i64, -7]).unwrap());
        assert_eq!(y[2].shape().to_vec(), [2, 1]);
        assert_eq!(y[2].as_strings().unwrap(), ["hi", "none"]);
    }

    #[test]
    fn errors_are_those_of_tensorflow() {
        let op = ParseExample { dense: vec![dense("x", DType::F32, &[Some(3)])], ..ParseExample::default() };
        let fails = |bytes: Bytes| {
            let [serialized, names] = batch(&[bytes]);
            let error = parse(&op, &[serialized, names, Tensor::empty(DType::F32)], 1).unwrap_err();
            error.lines().next().unwrap_or_default().to_string()
        };
        assert_eq!(
            fails(example(vec![])),
            "Name: <unknown>, Feature: x (data type: float) is required but could not be found."
        );
        assert_eq!(fails(example(vec![("x", None)])), fails(Bytes::new()));
        assert_eq!(
            fails(example(vec![("x", floats(&[1.0, 2.0]))])),
            "Name: <unknown>, Key: x, Index: 0.  Number of float values != expected.  Values size: 2 but output shape: [3]"
        );
        assert_eq!(
            fails(example(vec![("x", integers(&[1]))])),
            "Name: <unknown>, Key: x, Index: 0.  Data types don't match. Data type: int64 but expected type: float"
        );
        assert_eq!(fails(Bytes::from("nonsense")), "Could not parse example input, value: 'nonsense'");
    }

    #[test]
    fn sparse_ragged_and_open_features() {
        let key = || Bytes::from("v");
        let op = ParseExample {
            sparse: vec![SparseFeature { key: key(), dtype: DType::I64 }],
            dense: vec![dense("v", DType::I64, &[None, Some(1)])],
            ragged: vec![RaggedFeature { key: key(), dtype: DType::I64, splits: DType::I32 }],
        };
        let [serialized, names] = batch(&[
            example(vec![("v", integers(&[1, 2]))]),
            example(vec![]),
            example(vec![("v", integers(&[3]))]),
        ]);
        let y = parse(&op, &[serialized, names, Tensor::scalar(-1i64)], 6).unwrap();
        assert_eq!(y[0], Tensor::from_slice([3, 2], &[0i64, 0, 0, 1, 2, 0]).unwrap());
        assert_eq!(y[1], Tensor::from_slice([3], &[1i64, 2, 3]).unwrap());
        assert_eq!(y[2], Tensor::from_slice([2], &[3i64, 2]).unwrap());
        assert_eq!(y[3], Tensor::from_slice([3, 2, 1], &[1i64, 2, -1, -1, 3, -1]).unwrap());
        assert_eq!(y[4], y[1]);
        assert_eq!(y[5], Tensor::from_slice([4], &[0i32, 2, 2, 3]).unwrap());
    }

    #[test]
    fn a_single_example_has_no_batch_dimension() {
        let op = ParseExample {
            sparse: vec![SparseFeature { key: Bytes::from("v"), dtype: DType::F32 }],
            ..ParseExample::default()
        };
        let one = Tensor::from_strings([0usize; 0], vec![example(vec![("v", floats(&[1.5, 2.5]))])]).unwrap();
        let y = parse(&op, &[one, Tensor::empty(DType::String)], 3).unwrap();
        assert_eq!(y[0], Tensor::from_slice([2, 1], &[0i64, 1]).unwrap());
        assert_eq!(y[2], Tensor::from_slice([1], &[2i64]).unwrap());
    }

    #[test]
    fn unpacked_values_and_repeated_features_are_read() {
        // Two float_list values as single fixed32 fields (tag 0x0d), then 3 as a packed run.
        let list = [&[0x0d][..], &1.0f32.to_le_bytes(), &[0x0a, 4], &3.0f32.to_le_bytes()].concat();
        let feature = [&[0x12, list.len() as u8][..], &list].concat();
        let entry = [&[0x0a, 1, b'x', 0x12, feature.len() as u8][..], &feature].concat();
        let features = [&[0x0a, entry.len() as u8][..], &entry].concat();
        let message = [&[0x0a, features.len() as u8][..], &features].concat();
        let op = ParseExample { dense: vec![dense("x", DType::F32, &[Some(2)])], ..ParseExample::default() };
        // A context in front of it with the same feature: the later one counts.
        let context = example(vec![("x", floats(&[7.0, 8.0]))]);
        let [serialized, names] = batch(&[[&context[..], &message].concat().into()]);
        let y = parse(&op, &[serialized, names, Tensor::empty(DType::F32)], 1).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [1.0, 3.0]);
    }

    proptest! {
        #[test]
        fn damaged_examples_are_refused_or_read(at in 0usize..40, byte in any::<u8>(), cut in 0usize..40) {
            let op = ParseExample {
                sparse: vec![SparseFeature { key: Bytes::from("v"), dtype: DType::I64 }],
                dense: vec![dense("x", DType::F32, &[Some(2)])],
                ..ParseExample::default()
            };
            let mut bytes = example(vec![("x", floats(&[1.0, 2.0])), ("v", integers(&[-1, 300]))]).to_vec();
            if let Some(slot) = bytes.get_mut(at) {
                *slot = byte;
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            let oracle = Example::decode(bytes.as_slice());
            let [serialized, names] = batch(&[bytes.into()]);
            let parsed = parse(&op, &[serialized, names, Tensor::from_slice([2], &[0.0f32, 0.0]).unwrap()], 4);
            // Whatever prost cannot read is refused. (The reverse is not so: types may not match.)
            if let (Ok(parsed), Ok(oracle)) = (parsed, oracle) {
                let features = oracle.features.unwrap_or_default().feature;
                if let Some(Some(Kind::Int64List(list))) = features.get("v").map(|feature| &feature.kind) {
                    prop_assert_eq!(parsed[1].as_slice::<i64>().unwrap(), list.value.as_slice());
                }
            }
        }
    }
}
