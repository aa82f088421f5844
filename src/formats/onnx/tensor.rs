//! Tensors as ONNX files hold them, and ONNX's numbers for element types.

use crate::{
    proto::onnx::{
        SparseTensorProto, TensorProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
    },
    tensor::{AlignedVec, Buffer, Bytes, DType, Element, Shape, Tensor, TensorError},
};
use half::{bf16, f16};
use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Component, Path, PathBuf},
};

const TYPES: [(i32, DType); 16] = [
    (1, DType::F32),
    (2, DType::U8),
    (3, DType::I8),
    (4, DType::U16),
    (5, DType::I16),
    (6, DType::I32),
    (7, DType::I64),
    (8, DType::String),
    (9, DType::Bool),
    (10, DType::F16),
    (11, DType::F64),
    (12, DType::U32),
    (13, DType::U64),
    (14, DType::Complex64),
    (15, DType::Complex128),
    (16, DType::BF16),
];

/// `TensorProto.DataLocation.EXTERNAL`
const EXTERNAL: i32 = 1;

/// The most bytes that a sparse tensor may stand for: its size is a claim that costs the file nothing.
const MAX_SPARSE_BYTES: usize = 1 << 30;

/// The element type with ONNX's number; `None` for 8-bit floats, 4-bit integers and the unknown.
pub(super) fn dtype_of(tag: i64) -> Option<DType> {
    TYPES.iter().find(|(number, _)| i64::from(*number) == tag).map(|(_, dtype)| *dtype)
}

/// What a value is declared to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Declared {
    /// Element type.
    pub(super) dtype: Option<DType>,
    /// Dimensions, `None` for one that is a name.
    pub(super) dims: Option<Vec<Option<usize>>>,
    /// The value is a sequence or optional.
    pub(super) nested: bool,
}

impl Declared {
    /// The same without the sizes of dimensions.
    pub(super) fn open(mut self) -> Self {
        self.dims.iter_mut().flatten().for_each(|dim| *dim = None);
        self
    }
}

/// Reads a declaration.
pub(super) fn declared(info: &ValueInfoProto) -> Declared {
    match info.r#type.as_ref() {
        Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)) }) => {
            let dims = tensor.shape.as_ref().map(|shape| {
                let dim = |dim: &tensor_shape_proto::Dimension| match dim.value {
                    Some(tensor_shape_proto::dimension::Value::DimValue(size)) => usize::try_from(size).ok(),
                    _ => None,
                };
                shape.dim.iter().map(dim).collect()
            });
            Declared { dtype: dtype_of(i64::from(tensor.elem_type)), dims, nested: false }
        }
        Some(TypeProto { value: Some(_) }) => Declared { nested: true, ..Declared::default() },
        _ => Declared::default(),
    }
}

/// Files with weights beside the model, each mapped once.
pub(super) struct ExternalFiles {
    folder: PathBuf,
    mapped: RefCell<HashMap<PathBuf, Buffer>>,
    /// The model's own file.
    own: Buffer,
}

impl ExternalFiles {
    /// Those in a folder, beside the model's own file.
    pub(super) fn new(folder: &Path, own: Buffer) -> Self {
        Self { folder: folder.to_owned(), mapped: RefCell::default(), own }
    }

    /// Bytes of a message: a part of the file where it was not copied while it was parsed.
    fn inside(&self, bytes: &Bytes) -> Buffer {
        self.own.part(bytes).unwrap_or_else(|| Buffer::from_bytes(bytes.clone()))
    }

    /// The bytes that a tensor refers to; what it says is never trusted.
    fn read(&self, message: &TensorProto, bytes: usize) -> Result<Buffer, String> {
        let entry = |key: &str| {
            message.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
        };
        let number = |key: &str, default: usize| match entry(key) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("external data: {key} \"{text}\" is no size")),
        };
        let location = entry("location").ok_or("external data has no location")?;
        let relative = Path::new(location);
        let inside =
            relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside || location.is_empty() {
            return Err(format!("external data at \"{location}\" is not beside the model"));
        }
        let path = self.folder.join(relative);
        let mut mapped = self.mapped.borrow_mut();
        let file = match mapped.get(&path) {
            Some(file) => file.clone(),
            None => {
                let file =
                    Buffer::map_file(&path).map_err(|error| format!("external data {location}: {error}"))?;
                mapped.insert(path, file.clone());
                file
            }
        };
        let (offset, length) = (number("offset", 0)?, number("length", bytes)?);
        if length != bytes {
            return Err(format!("external data of {length} bytes, but the shape needs {bytes}"));
        }
        file.slice(offset, length).ok_or_else(|| {
            format!(
                "external data at {offset}, {length} bytes, reaches beyond the {} of {location}",
                file.len()
            )
        })
    }
}

/// Reads a tensor.
pub(super) fn decode(message: &TensorProto, files: &ExternalFiles) -> Result<Tensor, String> {
    let tag = message.data_type;
    let dtype = dtype_of(i64::from(tag)).ok_or_else(|| format!("element type {tag} is not supported"))?;
    let shape = shape_of(&message.dims)?;
    let too_large = || TensorError::TooLarge(shape.clone()).to_string();
    let elements = shape.checked_elements().ok_or_else(too_large)?;
    let text = |error: TensorError| error.to_string();
    if dtype == DType::String {
        return Tensor::from_strings(shape, message.string_data.clone()).map_err(text);
    }
    let bytes = elements.checked_mul(dtype.size().unwrap_or(1)).ok_or_else(too_large)?;
    if message.data_location == EXTERNAL {
        return Tensor::from_buffer(dtype, shape, files.read(message, bytes)?).map_err(text);
    }
    if !message.raw_data.is_empty() || bytes == 0 {
        let found = message.raw_data.len();
        if found != bytes {
            return Err(format!("a {dtype} of shape {shape} has {bytes} bytes, but {found} are given"));
        }
        return Tensor::from_buffer(dtype, shape, files.inside(&message.raw_data)).map_err(text);
    }
    let narrow = &message.int32_data;
    match dtype {
        DType::F32 => fill(shape, message.float_data.iter().copied()),
        DType::F64 => fill(shape, message.double_data.iter().copied()),
        DType::Bool => fill(shape, narrow.iter().map(|&value| value != 0)),
        DType::U8 => fill(shape, narrow.iter().map(|&value| value as u8)),
        DType::I8 => fill(shape, narrow.iter().map(|&value| value as i8)),
        DType::U16 => fill(shape, narrow.iter().map(|&value| value as u16)),
        DType::I16 => fill(shape, narrow.iter().map(|&value| value as i16)),
        DType::I32 => fill(shape, narrow.iter().copied()),
        DType::I64 => fill(shape, message.int64_data.iter().copied()),
        DType::U32 => fill(shape, message.uint64_data.iter().map(|&value| value as u32)),
        DType::U64 => fill(shape, message.uint64_data.iter().copied()),
        DType::F16 => fill(shape, narrow.iter().map(|&bits| f16::from_bits(bits as u16))),
        DType::BF16 => fill(shape, narrow.iter().map(|&bits| bf16::from_bits(bits as u16))),
        DType::Complex64 => fill(shape, message.float_data.as_chunks::<2>().0.iter().copied()),
        DType::Complex128 => fill(shape, message.double_data.as_chunks::<2>().0.iter().copied()),
        DType::String => Err("strings".into()),
    }
}

fn shape_of(dims: &[i64]) -> Result<Shape, String> {
    let dim = |&dim: &i64| usize::try_from(dim).map_err(|_| format!("dimension {dim} is negative"));
    dims.iter().map(dim).collect()
}

/// As many elements as the message has; memory is bounded by the file's size.
fn fill<T: Element>(shape: Shape, values: impl ExactSizeIterator<Item = T>) -> Result<Tensor, String> {
    if shape.checked_elements() != Some(values.len()) {
        return Err(format!("a tensor of shape {shape} is given {} elements", values.len()));
    }
    let mut filled = AlignedVec::zeroed(values.len()).map_err(|error| error.to_string())?;
    for (slot, value) in filled.as_mut_slice().iter_mut().zip(values) {
        *slot = value;
    }
    Tensor::from_aligned(shape, filled).map_err(|error| error.to_string())
}

/// Reads a sparse tensor as a dense one; indices are positions or rows of coordinates.
pub(super) fn decode_sparse(message: &SparseTensorProto, files: &ExternalFiles) -> Result<Tensor, String> {
    let part = |part: &Option<TensorProto>| match part {
        Some(part) => decode(part, files),
        None => Err("a sparse tensor without values or indices".into()),
    };
    let (values, indices) = (part(&message.values)?, part(&message.indices)?);
    let shape = shape_of(&message.dims)?;
    let size = values.dtype().size().ok_or("sparse strings are not supported")?;
    let bytes = shape.checked_elements().and_then(|elements| elements.checked_mul(size));
    let bytes = bytes.filter(|&bytes| bytes <= MAX_SPARSE_BYTES).ok_or("a sparse tensor is too large")?;
    let mut dense = AlignedVec::<u8>::zeroed(bytes).map_err(|error| error.to_string())?;
    let places = indices.to_i64_vec().map_err(|error| error.to_string())?;
    let width = if indices.shape().len() == 2 { shape.len() } else { 1 };
    let misfit = || "the indices of a sparse tensor do not fit its values".to_owned();
    if width == 0 || places.len() != values.len().saturating_mul(width) {
        return Err(misfit());
    }
    for (place, value) in places.chunks_exact(width).zip(values.as_bytes().chunks_exact(size)) {
        let mut position = 0usize;
        let dims: &[usize] = if width == 1 && shape.len() != 1 { &[bytes / size] } else { &shape };
        for (&index, &dim) in place.iter().zip(dims) {
            let index = usize::try_from(index).ok().filter(|&index| index < dim).ok_or_else(misfit)?;
            position = position * dim + index;
        }
        let slot = dense.as_mut_slice().get_mut(position * size..(position + 1) * size);
        slot.ok_or_else(misfit)?.copy_from_slice(value);
    }
    Tensor::from_buffer(values.dtype(), shape, dense.freeze()).map_err(|error| error.to_string())
}
