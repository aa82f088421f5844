//! The value lists of features, and the tensors they are written to.

use super::scanner::{Field, Scanner, varint};
use crate::{
    ops::OpError,
    tensor::{AlignedVec, Bytes, DType, Shape, Tensor, TensorError},
};
use std::ops::Range;

/// The values of one feature of one example, still encoded.
/// `Feature { oneof { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; } }`,
/// each list with `repeated value = 1`, packed or not.
#[derive(Clone, Debug)]
pub(super) struct List {
    dtype: DType,
    message: Bytes,
    len: Option<usize>,
}

impl List {
    /// The list in a `Feature` message: `None` when the message is none, `Some(None)` when no kind
    /// of list is set.
    pub(super) fn of(feature: &Bytes) -> Option<Option<Self>> {
        let mut list = None;
        let mut fields = Scanner::new(feature);
        while let Some((number, field)) = fields.next()? {
            let dtype = match number {
                1 => DType::String,
                2 => DType::F32,
                3 => DType::I64,
                _ => continue,
            };
            let Field::Delimited(message) = field else { return None };
            let mut found = Self { dtype, message, len: None };
            found.len = found.count();
            list = Some(found);
        }
        Some(list)
    }

    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    /// True when the encoding is sound.
    pub(super) fn is_valid(&self) -> bool {
        self.len.is_some()
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.len.unwrap_or(0)
    }

    fn count(&self) -> Option<usize> {
        let mut count = 0;
        let mut fields = Scanner::new(&self.message);
        while let Some((number, field)) = fields.next()? {
            if number != 1 {
                continue;
            }
            count += match (self.dtype, field) {
                (DType::F32, Field::Fixed32(_)) | (DType::String, Field::Delimited(_)) => 1,
                (DType::F32, Field::Delimited(packed)) if packed.len().is_multiple_of(4) => packed.len() / 4,
                (DType::I64, Field::Varint(_)) => 1,
                (DType::I64, Field::Delimited(packed)) => {
                    let (mut rest, mut found) = (packed.as_ref(), 0);
                    while !rest.is_empty() {
                        rest = rest.get(varint(rest)?.1..)?;
                        found += 1;
                    }
                    found
                }
                _ => return None,
            };
        }
        Some(count)
    }

    /// Writes the values from position `start` on.
    pub(super) fn write(&self, to: &mut Values, start: usize) {
        let range = start..start + self.len();
        match to {
            Values::F32(to) => {
                let slots = to.as_mut_slice().get_mut(range).unwrap_or_default().iter_mut();
                let four = |bytes: &[u8]| bytes.try_into().map_or(0.0, f32::from_le_bytes);
                put(
                    slots,
                    self.fields().flat_map(|field| match field {
                        Field::Fixed32(bytes) => vec![f32::from_le_bytes(bytes)],
                        Field::Delimited(packed) => packed.chunks_exact(4).map(four).collect(),
                        _ => Vec::new(),
                    }),
                );
            }
            Values::I64(to) => {
                let slots = to.as_mut_slice().get_mut(range).unwrap_or_default().iter_mut();
                put(
                    slots,
                    self.fields().flat_map(|field| match field {
                        Field::Varint(value) => vec![value as i64],
                        Field::Delimited(packed) => {
                            let (mut rest, mut values) = (packed.as_ref(), Vec::new());
                            while let Some((value, len)) = varint(rest) {
                                values.push(value as i64);
                                rest = rest.get(len..).unwrap_or_default();
                            }
                            values
                        }
                        _ => Vec::new(),
                    }),
                );
            }
            Values::Strings(to) => {
                let slots = to.get_mut(range).unwrap_or_default().iter_mut();
                put(
                    slots,
                    self.fields().filter_map(|field| match field {
                        Field::Delimited(bytes) => Some(bytes),
                        _ => None,
                    }),
                );
            }
        }
    }

    /// The `value` fields of a valid list.
    fn fields(&self) -> impl Iterator<Item = Field> + '_ {
        let mut fields = Scanner::new(&self.message);
        std::iter::from_fn(move || fields.next().flatten())
            .filter(|(number, _)| *number == 1)
            .map(|(_, field)| field)
    }
}

fn put<'a, T: 'a>(slots: impl Iterator<Item = &'a mut T>, values: impl Iterator<Item = T>) {
    for (slot, value) in slots.zip(values) {
        *slot = value;
    }
}

/// The name of a list's kind in error texts.
pub(super) fn kind(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float",
        DType::I64 => "int64",
        _ => "bytes",
    }
}

/// Elements of a tensor while it is filled.
pub(super) enum Values {
    F32(AlignedVec<f32>),
    I64(AlignedVec<i64>),
    Strings(Vec<Bytes>),
}

impl Values {
    /// Zeros or empty strings.
    pub(super) fn zeros(dtype: DType, shape: &Shape) -> Result<Self, OpError> {
        let elements = shape.checked_elements().ok_or_else(|| TensorError::TooLarge(shape.clone()))?;
        Ok(match dtype {
            DType::F32 => Self::F32(AlignedVec::zeroed(elements)?),
            DType::I64 => Self::I64(AlignedVec::zeroed(elements)?),
            _ => {
                let mut strings = Vec::new();
                strings
                    .try_reserve_exact(elements)
                    .map_err(|_| TensorError::OutOfMemory { bytes: elements })?;
                strings.resize(elements, Bytes::new());
                Self::Strings(strings)
            }
        })
    }

    /// Repeats the elements of `default`, if any, over a range.
    pub(super) fn fill(&mut self, range: Range<usize>, default: &Tensor) -> Result<(), OpError> {
        if range.is_empty() || default.is_empty() {
            return Ok(());
        }
        match self {
            Self::F32(to) => repeat(to.as_mut_slice(), range, default.as_slice()?),
            Self::I64(to) => repeat(to.as_mut_slice(), range, default.as_slice()?),
            Self::Strings(to) => repeat(to, range, default.as_strings()?),
        }
        Ok(())
    }

    pub(super) fn finish(self, shape: Shape) -> Result<Tensor, OpError> {
        Ok(match self {
            Self::F32(values) => Tensor::from_aligned(shape, values)?,
            Self::I64(values) => Tensor::from_aligned(shape, values)?,
            Self::Strings(values) => Tensor::from_strings(shape, values)?,
        })
    }
}

fn repeat<T: Clone>(to: &mut [T], range: Range<usize>, from: &[T]) {
    let slots = to.get_mut(range).unwrap_or_default();
    for (slot, value) in slots.iter_mut().zip(from.iter().cycle()) {
        slot.clone_from(value);
    }
}
