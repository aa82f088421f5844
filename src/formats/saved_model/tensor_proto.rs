//! TensorFlow's tensor messages and element types, as constants and signatures hold them.

use crate::{
    formats,
    proto::tensorflow::{TensorProto, TensorShapeProto},
    tensor::{Buffer, Bytes, DType, Element, Shape, Tensor, TensorError},
};
use half::{bf16, f16};

/// TensorFlow adds this to the number of a type for a reference to a variable of it.
const REFERENCE: i32 = 100;
/// Bytes that one tensor without contents of its own may take: a shape of a few bytes can ask for
/// any amount of repeated values.
const MAX_REPEATED_BYTES: usize = 1 << 30;

/// Why a message is no tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorProtoError {
    /// A type that kinglet has not.
    #[error("element type {0} is not supported")]
    DType(i32),
    /// A negative dimension, an unknown rank, or more elements than a number can count.
    #[error("the shape of a constant is unknown, negative or too large")]
    Shape,
    /// `tensor_content` has another length than the shape asks for.
    #[error("tensor_content has {found} bytes, but shape {shape} of {dtype} needs {expected}")]
    Content {
        /// The shape.
        shape: Shape,
        /// The element type.
        dtype: DType,
        /// Bytes needed.
        expected: usize,
        /// Bytes there.
        found: usize,
    },
    /// No memory.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// The element type with TensorFlow's number `tag`, references to variables of it included; `None`
/// for resources, variants, quantised types and numbers that mean nothing.
pub fn dtype_of(tag: i32) -> Option<DType> {
    let tag = if tag > REFERENCE { tag - REFERENCE } else { tag };
    formats::dtype_of(tag)
}

/// Dimensions, `None` for an unknown one; `None` altogether for an unknown rank.
pub fn partial_shape(shape: &TensorShapeProto) -> Option<Vec<Option<usize>>> {
    if shape.unknown_rank {
        return None;
    }
    Some(shape.dim.iter().map(|dim| usize::try_from(dim.size).ok()).collect())
}

/// A shape without unknown dimensions.
pub fn concrete_shape(shape: &TensorShapeProto) -> Option<Shape> {
    partial_shape(shape)?.into_iter().collect::<Option<Vec<usize>>>().map(Shape::from)
}

/// The tensor of a message. Raw contents are shared, not copied; of a value list shorter than the
/// shape the last value is repeated, an empty one stands for zeros or empty strings
/// (tensor.proto, `TensorProto`).
pub fn decode(message: &TensorProto) -> Result<Tensor, TensorProtoError> {
    let dtype = dtype_of(message.dtype).ok_or(TensorProtoError::DType(message.dtype))?;
    let shape = match &message.tensor_shape {
        Some(shape) => concrete_shape(shape).ok_or(TensorProtoError::Shape)?,
        None => Shape::scalar(),
    };
    let elements = shape.checked_elements().ok_or(TensorProtoError::Shape)?;
    let size = dtype.size().unwrap_or(size_of::<Bytes>());
    let bytes = elements.checked_mul(size).ok_or(TensorProtoError::Shape)?;
    if dtype == DType::String {
        return strings(message, shape, elements, bytes);
    }
    if !message.tensor_content.is_empty() {
        let found = message.tensor_content.len();
        if found != bytes {
            return Err(TensorProtoError::Content { shape, dtype, expected: bytes, found });
        }
        let data = Buffer::from_bytes(message.tensor_content.clone());
        return Ok(Tensor::from_buffer(dtype, shape, data)?);
    }
    if bytes > MAX_REPEATED_BYTES {
        return Err(TensorError::TooLarge(shape).into());
    }
    match dtype {
        DType::Bool => fill(shape, elements, message.bool_val.iter().copied()),
        DType::U8 => fill(shape, elements, message.int_val.iter().map(|&value| value as u8)),
        DType::U16 => fill(shape, elements, message.int_val.iter().map(|&value| value as u16)),
        DType::U32 => fill(shape, elements, message.uint32_val.iter().copied()),
        DType::U64 => fill(shape, elements, message.uint64_val.iter().copied()),
        DType::I8 => fill(shape, elements, message.int_val.iter().map(|&value| value as i8)),
        DType::I16 => fill(shape, elements, message.int_val.iter().map(|&value| value as i16)),
        DType::I32 => fill(shape, elements, message.int_val.iter().copied()),
        DType::I64 => fill(shape, elements, message.int64_val.iter().copied()),
        DType::F16 => fill(shape, elements, message.half_val.iter().map(|&bits| f16::from_bits(bits as u16))),
        DType::BF16 => {
            fill(shape, elements, message.half_val.iter().map(|&bits| bf16::from_bits(bits as u16)))
        }
        DType::F32 => fill(shape, elements, message.float_val.iter().copied()),
        DType::F64 => fill(shape, elements, message.double_val.iter().copied()),
        DType::Complex64 => fill(shape, elements, pairs(&message.scomplex_val)),
        DType::Complex128 => fill(shape, elements, pairs(&message.dcomplex_val)),
        DType::String => Err(TensorProtoError::DType(message.dtype)),
    }
}

fn fill<T: Element>(
    shape: Shape,
    elements: usize,
    values: impl Iterator<Item = T>,
) -> Result<Tensor, TensorProtoError> {
    let mut filled = crate::tensor::AlignedVec::zeroed(elements)?;
    let mut slots = filled.as_mut_slice().iter_mut();
    let mut last = T::default();
    // The values first: `zip` must not take a slot that no value is left for.
    for (value, slot) in values.zip(slots.by_ref()) {
        *slot = value;
        last = value;
    }
    slots.for_each(|slot| *slot = last);
    Ok(Tensor::from_aligned(shape, filled)?)
}

fn pairs<T: Copy>(values: &[T]) -> impl Iterator<Item = [T; 2]> + '_ {
    values.as_chunks::<2>().0.iter().copied()
}

fn strings(
    message: &TensorProto,
    shape: Shape,
    elements: usize,
    bytes: usize,
) -> Result<Tensor, TensorProtoError> {
    if bytes > MAX_REPEATED_BYTES {
        return Err(TensorError::TooLarge(shape).into());
    }
    let mut values: Vec<Bytes> = message.string_val.iter().take(elements).cloned().collect();
    let last = values.last().cloned().unwrap_or_default();
    values.try_reserve_exact(elements - values.len()).map_err(|_| TensorError::OutOfMemory { bytes })?;
    values.resize(elements, last);
    Ok(Tensor::from_strings(shape, values)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::tensorflow::{DataType, tensor_shape_proto::Dim};

    fn message(dtype: DataType, dims: &[i64]) -> TensorProto {
        let dim = dims.iter().map(|&size| Dim { size, ..Dim::default() }).collect();
        let tensor_shape = Some(TensorShapeProto { dim, unknown_rank: false });
        TensorProto { dtype: dtype.into(), tensor_shape, ..TensorProto::default() }
    }

    #[test]
    fn the_last_value_repeats() {
        let tensor =
            decode(&TensorProto { float_val: vec![1.0, 2.0], ..message(DataType::DtFloat, &[2, 2]) });
        assert_eq!(tensor.unwrap().as_slice::<f32>().unwrap(), [1.0, 2.0, 2.0, 2.0]);
        let tensor = decode(&message(DataType::DtInt64, &[3])).unwrap();
        assert_eq!(tensor.as_slice::<i64>().unwrap(), [0; 3]);
        let surplus = TensorProto { int_val: vec![7, 8, 9], ..message(DataType::DtInt8, &[]) };
        assert_eq!(decode(&surplus).unwrap().as_slice::<i8>().unwrap(), [7]);
        let words = TensorProto { string_val: vec!["a".into()], ..message(DataType::DtString, &[2]) };
        assert_eq!(decode(&words).unwrap().as_strings().unwrap(), ["a", "a"]);
        let half = TensorProto { half_val: vec![0x3c00], ..message(DataType::DtHalf, &[1]) };
        assert_eq!(decode(&half).unwrap().as_slice::<f16>().unwrap(), [f16::ONE]);
        let complex =
            TensorProto { scomplex_val: vec![1.0, 2.0, 3.0], ..message(DataType::DtComplex64, &[2]) };
        assert_eq!(decode(&complex).unwrap().as_slice::<[f32; 2]>().unwrap(), [[1.0, 2.0]; 2]);
    }

    #[test]
    fn contents_must_fit_the_shape() {
        let content = Bytes::from_static(&[0, 0, 128, 63, 0, 0, 0, 64]);
        let good = TensorProto { tensor_content: content.clone(), ..message(DataType::DtFloat, &[2]) };
        assert_eq!(decode(&good).unwrap().as_slice::<f32>().unwrap(), [1.0, 2.0]);
        for dims in [&[3][..], &[], &[-1], &[i64::MAX, i64::MAX]] {
            let bad = TensorProto { tensor_content: content.clone(), ..message(DataType::DtFloat, dims) };
            assert!(decode(&bad).is_err(), "{dims:?}");
        }
        assert!(decode(&message(DataType::DtFloat, &[1 << 40])).is_err());
        assert!(decode(&message(DataType::DtString, &[1 << 40])).is_err());
        assert!(decode(&message(DataType::DtResource, &[1])).is_err());
    }

    #[test]
    fn references_are_their_base_type() {
        assert_eq!(dtype_of(101), Some(DType::F32));
        assert_eq!(dtype_of(DataType::DtFloat.into()), Some(DType::F32));
        assert_eq!(dtype_of(DataType::DtResource.into()), None);
        assert_eq!((dtype_of(0), dtype_of(100), dtype_of(-3)), (None, None, None));
    }
}
