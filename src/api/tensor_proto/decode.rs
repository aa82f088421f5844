//! Reading. A message is walked twice and never turned into lists: first for its type, shape and
//! `tensor_content`, then for the one typed list that counts, which goes straight into the tensor's
//! memory. Where the bytes of the wire are the bytes of the tensor, they are shared and not copied.

use super::field;
use crate::{
    api::protobuf::{Fields, Malformed, Number, Value, each_number},
    models::dtype_of,
    tensor::{AlignedVec, Buffer, Bytes, DType, Element, Shape, Tensor, TensorError},
};
use half::{bf16, f16};
use prost::encoding::decode_varint;

/// TensorFlow's limit on the rank of a shape.
const MAX_RANK: usize = 254;

/// Why a message is no tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not protobuf at all.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// `DT_INVALID`, a reference, or a type that kinglet has not.
    #[error("element type {0} is not supported")]
    DType(i32),
    /// A negative dimension, too many dimensions, or more elements than a number can count.
    #[error("the shape is not valid")]
    Shape,
    /// `tensor_content` has another length than the shape asks for.
    #[error("tensor_content does not fit the shape")]
    Content,
    /// The tensors of this request would take more memory than one may.
    #[error("the tensors need more than the {limit} bytes that a request may take")]
    TooLarge {
        /// Bytes that a request may take.
        limit: usize,
    },
    /// No memory.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// Bytes of tensor memory that one request may still take. A shape of a few bytes can ask for any
/// amount, so what is allocated beyond the message itself is counted.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    left: usize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, left: limit }
    }

    /// Takes `count` times `size` bytes out of the budget.
    pub fn take(&mut self, count: usize, size: usize) -> Result<(), DecodeError> {
        let left = count.checked_mul(size).and_then(|bytes| self.left.checked_sub(bytes));
        self.left = left.ok_or(DecodeError::TooLarge { limit: self.limit })?;
        Ok(())
    }
}

/// Reads a `TensorProto`.
///
/// A non-empty `tensor_content` must have exactly the bytes of the shape; without one, the list for
/// the element type is used: missing values repeat the last one, an empty list is zeros or empty
/// strings, surplus values and lists for other types are ignored.
///
/// # Errors
/// See [`DecodeError`]; nothing is allocated before the shape has passed `budget`.
pub fn decode(message: &Bytes, budget: &mut Budget) -> Result<Tensor, DecodeError> {
    let head = Head::read(message)?;
    let dtype = dtype_of(head.dtype).ok_or(DecodeError::DType(head.dtype))?;
    let (shape, elements) = concrete_shape(&head.dims)?;
    if elements == 0 {
        return Ok(Tensor::zeros(dtype, shape)?);
    }
    let Some(size) = dtype.size() else {
        return strings(message, head.content, shape, elements, budget);
    };
    if !head.content.is_empty() {
        if elements.checked_mul(size) != Some(head.content.len()) {
            return Err(DecodeError::Content);
        }
        return Ok(Tensor::from_buffer(dtype, shape, Buffer::from_bytes(head.content))?);
    }
    if let Some(packed) = shareable_list(message, dtype, elements, size)? {
        return Ok(Tensor::from_buffer(dtype, shape, Buffer::from_bytes(packed))?);
    }
    budget.take(elements, size)?;
    typed_list(message, dtype, shape, elements)
}

/// The fields that say what a tensor is.
#[derive(Default)]
struct Head {
    dtype: i32,
    dims: Vec<i64>,
    content: Bytes,
}

impl Head {
    fn read(message: &Bytes) -> Result<Self, DecodeError> {
        let mut head = Self::default();
        for field in Fields::new(message.clone()) {
            match field? {
                (field::DTYPE, Value::Varint(tag)) => head.dtype = tag as i32,
                (field::SHAPE, Value::Bytes(shape)) => head.read_shape(shape)?,
                (field::CONTENT, Value::Bytes(content)) => head.content = content,
                _ => {}
            }
        }
        Ok(head)
    }

    fn read_shape(&mut self, shape: Bytes) -> Result<(), DecodeError> {
        for field in Fields::new(shape) {
            if let (field::DIM, Value::Bytes(dim)) = field? {
                let mut size = 0;
                for field in Fields::new(dim) {
                    if let (field::SIZE, Value::Varint(value)) = field? {
                        size = value as i64;
                    }
                }
                if self.dims.len() == MAX_RANK {
                    return Err(DecodeError::Shape);
                }
                self.dims.push(size);
            }
        }
        Ok(())
    }
}

/// The shape and its number of elements, which must fit `i64` at every step as in TensorFlow.
fn concrete_shape(dims: &[i64]) -> Result<(Shape, usize), DecodeError> {
    let mut elements = 1i64;
    for &dim in dims {
        if dim < 0 {
            return Err(DecodeError::Shape);
        }
        elements = elements.checked_mul(dim).ok_or(DecodeError::Shape)?;
    }
    let dims: Result<Vec<usize>, _> = dims.iter().map(|&dim| usize::try_from(dim)).collect();
    let shape = Shape::from(dims.map_err(|_| DecodeError::Shape)?);
    Ok((shape, usize::try_from(elements).map_err(|_| DecodeError::Shape)?))
}

/// The list's bytes when they are the tensor's: one packed run of fixed-size numbers, all there.
fn shareable_list(
    message: &Bytes,
    dtype: DType,
    elements: usize,
    size: usize,
) -> Result<Option<Bytes>, Malformed> {
    let tag = match dtype {
        DType::F32 => field::FLOAT,
        DType::F64 => field::DOUBLE,
        DType::Complex64 => field::COMPLEX64,
        DType::Complex128 => field::COMPLEX128,
        DType::Bool => field::BOOL,
        _ => return Ok(None),
    };
    let mut found = None;
    for field in Fields::new(message.clone()) {
        match field? {
            (other, _) if other != tag => {}
            (_, Value::Bytes(packed)) if found.is_none() => found = Some(packed),
            _ => return Ok(None),
        }
    }
    let whole = |packed: &Bytes| {
        elements.checked_mul(size) == Some(packed.len())
            // A bool may be written in more than one byte.
            && (dtype != DType::Bool || packed.iter().all(|&byte| byte < 0x80))
    };
    Ok(found.filter(whole))
}

fn typed_list(message: &Bytes, dtype: DType, shape: Shape, elements: usize) -> Result<Tensor, DecodeError> {
    macro_rules! list {
        ($tag:ident, $number:ident, $convert:expr) => {
            fill(message, shape, elements, field::$tag, Number::$number, $convert)
        };
    }
    match dtype {
        DType::F32 => list!(FLOAT, Fixed32, |bits| f32::from_bits(bits as u32)),
        DType::F64 => list!(DOUBLE, Fixed64, f64::from_bits),
        DType::I32 => list!(INT, Varint, |bits| bits as i32),
        DType::I16 => list!(INT, Varint, |bits| bits as i16),
        DType::I8 => list!(INT, Varint, |bits| bits as i8),
        DType::U16 => list!(INT, Varint, |bits| bits as u16),
        DType::U8 => list!(INT, Varint, |bits| bits as u8),
        DType::I64 => list!(INT64, Varint, |bits| bits as i64),
        DType::U32 => list!(UINT32, Varint, |bits| bits as u32),
        DType::U64 => list!(UINT64, Varint, |bits| bits),
        DType::F16 => list!(HALF, Varint, |bits| f16::from_bits(bits as u16)),
        DType::BF16 => list!(HALF, Varint, |bits| bf16::from_bits(bits as u16)),
        DType::Bool => list!(BOOL, Varint, |bits| bits != 0),
        DType::Complex64 => pairs(message, shape, elements, field::COMPLEX64, Number::Fixed32, |bits| {
            f32::from_bits(bits as u32)
        }),
        DType::Complex128 => {
            pairs(message, shape, elements, field::COMPLEX128, Number::Fixed64, f64::from_bits)
        }
        DType::String => Err(DecodeError::Content),
    }
}

fn fill<T: Element>(
    message: &Bytes,
    shape: Shape,
    elements: usize,
    tag: u32,
    number: Number,
    convert: impl Fn(u64) -> T,
) -> Result<Tensor, DecodeError> {
    fill_with(message, shape, elements, tag, number, |bits| Some(convert(bits)))
}

/// As [`fill`] for complex numbers; half a pair at the end of the list is ignored.
fn pairs<T: Copy>(
    message: &Bytes,
    shape: Shape,
    elements: usize,
    tag: u32,
    number: Number,
    convert: impl Fn(u64) -> T,
) -> Result<Tensor, DecodeError>
where
    [T; 2]: Element,
{
    let mut real = None;
    let pair = |bits| match real.take() {
        None => {
            real = Some(convert(bits));
            None
        }
        Some(real) => Some([real, convert(bits)]),
    };
    fill_with(message, shape, elements, tag, number, pair)
}

/// A tensor of the elements that `element` makes of the numbers of a list; the last one stands for those that are missing.
fn fill_with<T: Element>(
    message: &Bytes,
    shape: Shape,
    elements: usize,
    tag: u32,
    number: Number,
    mut element: impl FnMut(u64) -> Option<T>,
) -> Result<Tensor, DecodeError> {
    let mut values = AlignedVec::<T>::zeroed(elements)?;
    let mut slots = values.as_mut_slice().iter_mut();
    let mut last = None;
    each_number(message, tag, number, |bits| {
        if let Some(value) = element(bits)
            && let Some(slot) = slots.next()
        {
            *slot = value;
            last = Some(value);
        }
    })?;
    if let Some(last) = last {
        slots.for_each(|slot| *slot = last);
    }
    Ok(Tensor::from_aligned(shape, values)?)
}

/// Strings from `tensor_content` (the varint lengths of all, then their bytes) or `string_val`.
fn strings(
    message: &Bytes,
    content: Bytes,
    shape: Shape,
    elements: usize,
    budget: &mut Budget,
) -> Result<Tensor, DecodeError> {
    // Each element of the content form takes a byte of it at least.
    if !content.is_empty() && content.len() < elements {
        return Err(DecodeError::Content);
    }
    budget.take(elements, size_of::<Bytes>())?;
    let mut values = Vec::new();
    values
        .try_reserve_exact(elements)
        .map_err(|_| TensorError::OutOfMemory { bytes: elements * size_of::<Bytes>() })?;
    if content.is_empty() {
        for field in Fields::new(message.clone()) {
            if let (field::STRING, Value::Bytes(value)) = field?
                && values.len() < elements
            {
                values.push(value);
            }
        }
        let last = values.last().cloned().unwrap_or_default();
        values.resize(elements, last);
    } else {
        let mut lengths = content.clone();
        let mut body = content;
        for _ in 0..elements {
            decode_varint(&mut lengths).map_err(|_| DecodeError::Content)?;
        }
        let header = body.split_to(body.len() - lengths.len());
        let mut lengths = header;
        for _ in 0..elements {
            let len = decode_varint(&mut lengths).map_err(|_| DecodeError::Content)?;
            let len = usize::try_from(len).ok().filter(|&len| len <= body.len());
            values.push(body.split_to(len.ok_or(DecodeError::Content)?));
        }
        if !body.is_empty() {
            return Err(DecodeError::Content);
        }
    }
    Ok(Tensor::from_strings(shape, values)?)
}
