//! One array in NumPy's format (numpy.lib.format, versions 1 to 3).

use crate::tensor::{Buffer, Bytes, DType, Shape, Tensor};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Headers are padded so that the data begins at a multiple of this.
const ALIGNMENT: usize = 64;
/// Dimensions that NumPy allows.
const MAX_RANK: usize = 64;

/// What stands before the elements.
struct Header {
    kind: Kind,
    column_major: bool,
    shape: Shape,
}

#[derive(Clone, Copy)]
enum Kind {
    Plain(DType),
    /// Byte strings of this length, filled up with zeros.
    Bytes(usize),
    /// UTF-32 strings of this many characters.
    Text(usize),
}

pub(super) fn parse(file: &[u8]) -> Result<Tensor, String> {
    let (text, data) = split(file).ok_or("this is not a NumPy array")?;
    let Header { kind, column_major, shape } = header(&String::from_utf8_lossy(text))?;
    let elements = shape.checked_elements().ok_or("its shape is too large")?;
    let size = match kind {
        Kind::Plain(dtype) => dtype.size().unwrap_or(1),
        Kind::Bytes(len) => len,
        Kind::Text(len) => len.checked_mul(4).ok_or("its strings are too long")?,
    };
    let expected = elements.checked_mul(size).ok_or("its shape is too large")?;
    // Strings of no bytes would make elements out of nothing.
    if data.len() != expected || (size == 0 && elements > file.len()) {
        return Err(format!("{} bytes for a shape of {shape}, expected {expected}", data.len()));
    }
    let data = match column_major && shape.len() > 1 {
        true => std::borrow::Cow::Owned(row_major(data, size, &shape)),
        false => std::borrow::Cow::Borrowed(data),
    };
    let strings = |value: &dyn Fn(&[u8]) -> Bytes| {
        let values = (0..elements).map(|index| value(&data[index * size..(index + 1) * size]));
        Tensor::from_strings(shape.clone(), values.collect()).map_err(|error| error.to_string())
    };
    match kind {
        Kind::Plain(dtype) => Buffer::copy_of(&data)
            .and_then(|buffer| Tensor::from_buffer(dtype, shape, buffer))
            .map_err(|error| error.to_string()),
        Kind::Bytes(_) => strings(&|bytes| {
            let len = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            Bytes::copy_from_slice(&bytes[..len])
        }),
        Kind::Text(_) => strings(&|bytes| {
            let characters = bytes.chunks_exact(4).filter_map(|four| {
                let code = u32::from_le_bytes(four.try_into().ok()?);
                char::from_u32(code).filter(|&character| character != '\0')
            });
            Bytes::from(characters.collect::<String>())
        }),
    }
}

/// The header's text and the elements.
fn split(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = file.strip_prefix(MAGIC)?;
    let (&[version, _], rest) = rest.split_first_chunk()?;
    let (len, rest) = match version {
        1 => rest.split_first_chunk().map(|(len, rest)| (usize::from(u16::from_le_bytes(*len)), rest))?,
        2 | 3 => rest.split_first_chunk().map(|(len, rest)| (u32::from_le_bytes(*len) as usize, rest))?,
        _ => return None,
    };
    rest.split_at_checked(len)
}

/// `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`
fn header(text: &str) -> Result<Header, String> {
    let after = |key: &str| {
        let rest = text.split_once(key).map(|(_, rest)| rest.trim_start_matches([':', ' ']));
        rest.ok_or_else(|| format!("its header has no {key}"))
    };
    let kind = after("'descr'")?;
    let kind = kind.strip_prefix('\'').and_then(|rest| rest.split_once('\'')).map(|(kind, _)| kind);
    let kind = kind.ok_or("arrays of records are not read")?;
    let dims = after("'shape'")?;
    let dims = dims.strip_prefix('(').and_then(|rest| rest.split_once(')')).map(|(dims, _)| dims);
    let dims = dims.ok_or("its header has no shape")?;
    let mut shape = Shape::scalar();
    for dim in dims.split(',').map(str::trim).filter(|dim| !dim.is_empty()) {
        shape.push(dim.parse().map_err(|_| format!("`{dim}` is not a dimension"))?);
    }
    if shape.len() > MAX_RANK {
        return Err(format!("it has {} dimensions, more than {MAX_RANK}", shape.len()));
    }
    let column_major = after("'fortran_order'")?.starts_with("True");
    Ok(Header { kind: kind_of(kind)?, column_major, shape })
}

fn kind_of(text: &str) -> Result<Kind, String> {
    let unknown = || format!("elements of type `{text}` are not read");
    let (order, name) = text.split_at_checked(1).ok_or_else(unknown)?;
    if order == ">" {
        return Err(format!("elements of type `{text}` are big-endian, which is not read"));
    }
    Ok(Kind::Plain(match name {
        "b1" => DType::Bool,
        "u1" => DType::U8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        "c8" => DType::Complex64,
        "c16" => DType::Complex128,
        _ => {
            let (letter, len) = name.split_at_checked(1).ok_or_else(unknown)?;
            let len = len.parse().map_err(|_| unknown())?;
            return match letter {
                "S" => Ok(Kind::Bytes(len)),
                "U" => Ok(Kind::Text(len)),
                _ => Err(unknown()),
            };
        }
    }))
}

/// Elements of `size` bytes, first dimension fastest, in the order of the last dimension fastest.
fn row_major(data: &[u8], size: usize, shape: &Shape) -> Vec<u8> {
    let mut ordered = Vec::with_capacity(data.len());
    let mut position = vec![0usize; shape.len()];
    for _ in 0..shape.elements() {
        let from = position.iter().zip(shape.iter()).rev().fold(0, |sum, (&at, &dim)| sum * dim + at);
        ordered.extend_from_slice(&data[from * size..(from + 1) * size]);
        for (at, &dim) in position.iter_mut().zip(shape.iter()).rev() {
            *at += 1;
            if *at < dim {
                break;
            }
            *at = 0;
        }
    }
    ordered
}

pub(super) fn write(tensor: &Tensor) -> Result<Vec<u8>, String> {
    let strings = tensor.as_strings().unwrap_or_default();
    let width = strings.iter().map(|value| value.len()).max().unwrap_or(0).max(1);
    let kind = match tensor.dtype() {
        DType::Bool => "|b1".to_owned(),
        DType::U8 => "|u1".to_owned(),
        DType::I8 => "|i1".to_owned(),
        DType::U16 => "<u2".to_owned(),
        DType::U32 => "<u4".to_owned(),
        DType::U64 => "<u8".to_owned(),
        DType::I16 => "<i2".to_owned(),
        DType::I32 => "<i4".to_owned(),
        DType::I64 => "<i8".to_owned(),
        DType::F16 => "<f2".to_owned(),
        DType::F32 => "<f4".to_owned(),
        DType::F64 => "<f8".to_owned(),
        DType::Complex64 => "<c8".to_owned(),
        DType::Complex128 => "<c16".to_owned(),
        DType::String => format!("|S{width}"),
        DType::BF16 => return Err("NumPy has no bfloat16".to_owned()),
    };
    let dims: String = tensor.shape().iter().map(|dim| format!("{dim},")).collect();
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({dims}), }}");
    let before = MAGIC.len() + 4;
    let padded = (before + header.len() + 1).next_multiple_of(ALIGNMENT) - before;
    header.extend(std::iter::repeat_n(' ', padded - header.len() - 1));
    header.push('\n');
    let len = u16::try_from(header.len()).map_err(|_| "its shape is too long")?;
    let mut file = MAGIC.to_vec();
    file.extend_from_slice(&[1, 0]);
    file.extend_from_slice(&len.to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(tensor.as_bytes());
    for value in strings {
        file.extend_from_slice(value);
        file.extend(std::iter::repeat_n(0, width - value.len()));
    }
    Ok(file)
}
