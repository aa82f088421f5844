//! Tensors as nested lists.

use super::write::Writer;
use crate::{
    models::Error,
    tensor::{DType, Tensor, TensorError},
};

/// Writes the values of one row of a tensor, or all of them; `strict` as TensorFlow Serving does, its shortcomings too.
/// Strings of a tensor whose name ends in `_bytes` are base64.
///
/// # Errors
/// `INVALID_ARGUMENT` for types that have no form in JSON.
pub fn write_tensor(
    name: &str,
    tensor: &Tensor,
    row: Option<usize>,
    strict: bool,
    writer: &mut Writer,
) -> Result<(), Error> {
    let part = Part { dims: tensor.shape(), row };
    macro_rules! write_as {
        ($rust:ty, $write:expr) => {
            part.write(tensor.as_slice::<$rust>().map_err(|error| unreadable(&error))?, writer, &$write)
        };
    }
    match tensor.dtype() {
        DType::U16 | DType::F16 | DType::BF16 if strict => return part.unwritable(tensor, writer),
        // TensorFlow Serving runs with subnormals flushed to zero.
        DType::F32 if strict => write_as!(f32, |writer: &mut Writer, &value: &f32| {
            writer.f32(if value.is_subnormal() { 0f32.copysign(value) } else { value });
        }),
        DType::F64 if strict => write_as!(f64, |writer: &mut Writer, &value: &f64| {
            writer.f64(if value.is_subnormal() { 0f64.copysign(value) } else { value });
        }),
        DType::F32 => write_as!(f32, |writer: &mut Writer, &value: &f32| writer.f32(value)),
        DType::F64 => write_as!(f64, |writer: &mut Writer, &value: &f64| writer.f64(value)),
        DType::F16 => write_as!(half::f16, |writer: &mut Writer, &value: &half::f16| writer.f16(value)),
        DType::BF16 => write_as!(half::bf16, |writer: &mut Writer, &value: &half::bf16| writer.bf16(value)),
        DType::I8 => write_as!(i8, |writer: &mut Writer, &value: &i8| writer.signed(value.into())),
        DType::I16 => write_as!(i16, |writer: &mut Writer, &value: &i16| writer.signed(value.into())),
        DType::I32 => write_as!(i32, |writer: &mut Writer, &value: &i32| writer.signed(value.into())),
        DType::I64 => write_as!(i64, |writer: &mut Writer, &value: &i64| writer.signed(value)),
        DType::U8 => write_as!(u8, |writer: &mut Writer, &value: &u8| writer.unsigned(value.into())),
        DType::U16 => write_as!(u16, |writer: &mut Writer, &value: &u16| writer.unsigned(value.into())),
        DType::U32 => write_as!(u32, |writer: &mut Writer, &value: &u32| writer.unsigned(value.into())),
        DType::U64 => write_as!(u64, |writer: &mut Writer, &value: &u64| writer.unsigned(value)),
        DType::Bool => {
            let bools = tensor.as_bools().map_err(|error| unreadable(&error))?;
            part.write(bools, writer, &|writer, &value| writer.boolean(value));
        }
        DType::String => {
            let strings = tensor.as_strings().map_err(|error| unreadable(&error))?;
            if name.ends_with("_bytes") {
                part.write(strings, writer, &|writer, value| writer.base64(value));
            } else {
                part.write(strings, writer, &|writer, value| writer.string(value));
            }
        }
        DType::Complex64 | DType::Complex128 => return part.unwritable(tensor, writer),
    }
    Ok(())
}

/// A tensor, or one index of its first dimension.
struct Part<'t> {
    dims: &'t [usize],
    row: Option<usize>,
}

impl Part<'_> {
    fn write<T>(&self, elements: &[T], writer: &mut Writer, one: &impl Fn(&mut Writer, &T)) {
        let (dims, elements) = match (self.row, self.dims) {
            (Some(row), [_, rest @ ..]) => (rest, slice(elements, row, stride(rest))),
            _ => (self.dims, elements),
        };
        nested(dims, elements, writer, one);
    }

    /// Brackets can be written for any dtype, elements cannot.
    fn unwritable(&self, tensor: &Tensor, writer: &mut Writer) -> Result<(), Error> {
        if !tensor.is_empty() {
            return Err(Error::invalid_argument(format!(
                "Failed to write JSON value for tensor type: {}",
                tensor.dtype()
            )));
        }
        self.write::<()>(&[], writer, &|_, ()| {});
        Ok(())
    }
}

fn nested<T>(dims: &[usize], elements: &[T], writer: &mut Writer, one: &impl Fn(&mut Writer, &T)) {
    match dims {
        [] => elements.iter().take(1).for_each(|element| one(writer, element)),
        [_] => {
            writer.begin_array();
            elements.iter().for_each(|element| one(writer, element));
            writer.end_array();
        }
        [count, rest @ ..] => {
            let stride = stride(rest);
            writer.begin_array();
            for index in 0..*count {
                nested(rest, slice(elements, index, stride), writer, one);
            }
            writer.end_array();
        }
    }
}

fn stride(dims: &[usize]) -> usize {
    dims.iter().fold(1, |product: usize, &dim| product.saturating_mul(dim))
}

fn slice<T>(elements: &[T], index: usize, stride: usize) -> &[T] {
    let start = index.saturating_mul(stride);
    elements.get(start..start.saturating_add(stride)).unwrap_or_default()
}

fn unreadable(error: &TensorError) -> Error {
    Error::internal(error.to_string())
}
