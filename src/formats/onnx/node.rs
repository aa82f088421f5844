//! A node about to be imported: its inputs as values and its attributes.

use super::{attributes::Attributes, import::Import, tensor::dtype_of};
use crate::{
    graph::ValueId,
    proto::onnx::NodeProto,
    tensor::{DType, Tensor},
};

pub(super) use crate::formats::stop::Stop;

/// What a name of the source graph stands for.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A value of the graph being built.
    Tensor(ValueId),
    /// A sequence of as many tensors as are known while importing.
    Sequence(Vec<ValueId>),
    /// An input that is not given, or an optional without a value.
    Absent,
    /// Made by an operator that is not known, or from one.
    Missing,
}

/// A node.
pub(super) struct Node<'a> {
    pub(super) proto: &'a NodeProto,
    pub(super) attributes: Attributes<'a>,
    pub(super) inputs: Vec<Value>,
    /// Version of the operator set of the node's domain.
    pub(super) opset: i64,
}

impl<'a> Node<'a> {
    /// Outputs that somebody may use.
    pub(super) fn has_output(&self, index: usize) -> bool {
        self.proto.output.get(index).is_some_and(|name| !name.is_empty())
    }

    /// Input `index`, where it is given.
    pub(super) fn optional(&self, index: usize) -> Result<Option<ValueId>, Stop> {
        match self.inputs.get(index) {
            None | Some(Value::Absent) => Ok(None),
            Some(Value::Tensor(value)) => Ok(Some(*value)),
            Some(Value::Sequence(_)) => Err(format!("input {index} is a sequence, expected a tensor").into()),
            Some(Value::Missing) => Err(Stop::Missing),
        }
    }

    /// Input `index`.
    pub(super) fn tensor(&self, index: usize) -> Result<ValueId, Stop> {
        self.optional(index)?.ok_or_else(|| format!("input {index} is missing").into())
    }

    /// All inputs from `first` on.
    pub(super) fn tensors(&self, first: usize) -> Result<Vec<ValueId>, Stop> {
        (first..self.inputs.len()).map(|index| self.tensor(index)).collect()
    }

    /// Input `index` as a sequence.
    pub(super) fn sequence(&self, index: usize) -> Result<&[ValueId], Stop> {
        match self.inputs.get(index) {
            Some(Value::Sequence(values)) => Ok(values),
            Some(Value::Missing) => Err(Stop::Missing),
            _ => Err(format!("input {index} is no sequence of known length").into()),
        }
    }

    /// Input `index`, which must be known while loading.
    pub(super) fn constant(&self, import: &mut Import<'a>, index: usize) -> Result<Tensor, Stop> {
        let known = import.known_value(self.tensor(index)?);
        known.ok_or_else(|| format!("input {index} depends on the request, which is not supported").into())
    }

    /// Input `index` as integers known while loading; `None` where it is not given.
    pub(super) fn integers(&self, import: &mut Import<'a>, index: usize) -> Result<Option<Vec<i64>>, Stop> {
        match self.optional(index)? {
            None => Ok(None),
            Some(_) => self.constant(import, index)?.to_i64_vec().map(Some).map_err(|e| e.to_string().into()),
        }
    }

    /// Input `index` as one integer known while loading.
    pub(super) fn integer(&self, import: &mut Import<'a>, index: usize) -> Result<i64, Stop> {
        match self.integers(import, index)?.as_deref() {
            Some([value]) => Ok(*value),
            _ => Err(format!("input {index} is not one integer").into()),
        }
    }

    /// An element type, where the node has the attribute.
    pub(super) fn dtype(&self, attribute: &str) -> Result<Option<DType>, Stop> {
        if !self.attributes.has(attribute) {
            return Ok(None);
        }
        let tag = self.attributes.int(attribute, 0);
        dtype_of(tag)
            .map(Some)
            .ok_or_else(|| format!("element type {tag} of {attribute} is not supported").into())
    }
}

/// Positive sizes from a list of integers.
pub(super) fn sizes(name: &str, values: &[i64]) -> Result<Vec<usize>, Stop> {
    let size = |&value: &i64| {
        usize::try_from(value)
            .ok()
            .filter(|&size| size > 0)
            .ok_or_else(|| format!("{name} has {value}").into())
    };
    values.iter().map(size).collect()
}
