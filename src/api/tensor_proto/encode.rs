//! Writing, straight into the response's buffer.

use super::field;
use crate::{
    api::protobuf::{delimited_len, integer_len, put_delimited, put_integer},
    models::data_type,
    tensor::{DType, Tensor},
};
use bytes::{BufMut, BytesMut};
use half::{bf16, f16};
use prost::encoding::{encode_varint, encoded_len_varint};

/// How a tensor's elements are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As the list of their type (`float_val`, ...), which all clients read.
    #[default]
    Lists,
    /// As raw bytes in `tensor_content`.
    Content,
}

/// A tensor that is about to be written; knows its length first, so that one buffer holds a whole
/// response.
pub struct TensorWriter<'a> {
    tensor: &'a Tensor,
    form: Form,
    shape_len: usize,
    payload_len: usize,
}

impl<'a> TensorWriter<'a> {
    /// Measures `tensor`.
    pub fn new(tensor: &'a Tensor, form: Form) -> Self {
        let shape_len = tensor.shape().iter().map(|&dim| delimited_len(field::DIM, dim_len(dim))).sum();
        let payload_len = match (form, tensor.as_strings()) {
            (Form::Content, Ok(strings)) => {
                strings.iter().map(|value| encoded_len_varint(value.len() as u64) + value.len()).sum()
            }
            (Form::Lists, Ok(strings)) => {
                strings.iter().map(|value| delimited_len(field::STRING, value.len())).sum()
            }
            (Form::Lists, Err(_)) if !raw_in_lists(tensor.dtype()) => {
                let mut len = 0;
                each_varint(tensor, |value| len += encoded_len_varint(value));
                len
            }
            _ => tensor.as_bytes().len(),
        };
        Self { tensor, form, shape_len, payload_len }
    }

    /// Bytes of the message.
    pub fn len(&self) -> usize {
        let payload = match self.list_tag() {
            Some(_) if self.payload_len == 0 => 0,
            Some(tag) => delimited_len(tag, self.payload_len),
            // Strings in lists are fields of their own.
            None => self.payload_len,
        };
        integer_len(field::DTYPE, self.dtype_tag()) + delimited_len(field::SHAPE, self.shape_len) + payload
    }

    /// True when the message has no byte, which no tensor's has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the message, [`Self::len`] bytes.
    pub fn write(&self, out: &mut BytesMut) {
        put_integer(out, field::DTYPE, self.dtype_tag());
        put_delimited(out, field::SHAPE, self.shape_len);
        for &dim in self.tensor.shape().iter() {
            put_delimited(out, field::DIM, dim_len(dim));
            put_integer(out, field::SIZE, dim as u64);
        }
        match (self.list_tag(), self.tensor.as_strings()) {
            (Some(_), _) if self.payload_len == 0 => {}
            (Some(tag), Ok(strings)) => {
                put_delimited(out, tag, self.payload_len);
                strings.iter().for_each(|value| encode_varint(value.len() as u64, out));
                strings.iter().for_each(|value| out.put_slice(value));
            }
            (Some(tag), Err(_)) => {
                put_delimited(out, tag, self.payload_len);
                if self.form == Form::Content || raw_in_lists(self.tensor.dtype()) {
                    out.put_slice(self.tensor.as_bytes());
                } else {
                    each_varint(self.tensor, |value| encode_varint(value, out));
                }
            }
            (None, Ok(strings)) => {
                for value in strings {
                    put_delimited(out, field::STRING, value.len());
                    out.put_slice(value);
                }
            }
            (None, Err(_)) => {}
        }
    }

    fn dtype_tag(&self) -> u64 {
        data_type(self.tensor.dtype()) as u64
    }

    /// The one field of the payload; `None` for strings, one field each.
    fn list_tag(&self) -> Option<u32> {
        if self.form == Form::Content {
            return Some(field::CONTENT);
        }
        Some(match self.tensor.dtype() {
            DType::F32 => field::FLOAT,
            DType::F64 => field::DOUBLE,
            DType::I32 | DType::I16 | DType::I8 | DType::U16 | DType::U8 => field::INT,
            DType::I64 => field::INT64,
            DType::U32 => field::UINT32,
            DType::U64 => field::UINT64,
            DType::F16 | DType::BF16 => field::HALF,
            DType::Bool => field::BOOL,
            DType::Complex64 => field::COMPLEX64,
            DType::Complex128 => field::COMPLEX128,
            DType::String => return None,
        })
    }
}

fn dim_len(dim: usize) -> usize {
    integer_len(field::SIZE, dim as u64)
}

/// True where the packed list is the tensor's memory, byte for byte.
fn raw_in_lists(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::Complex64 | DType::Complex128 | DType::Bool)
}

/// The varints that the elements of an integer or 16-bit float tensor become.
fn each_varint(tensor: &Tensor, mut each: impl FnMut(u64)) {
    macro_rules! elements {
        ($t:ty, $convert:expr) => {
            if let Ok(values) = tensor.as_slice::<$t>() {
                values.iter().for_each(|&value| each($convert(value)));
            }
        };
    }
    // Negative numbers are sign-extended to 64 bits.
    match tensor.dtype() {
        DType::I8 => elements!(i8, |value| i64::from(value) as u64),
        DType::I16 => elements!(i16, |value| i64::from(value) as u64),
        DType::I32 => elements!(i32, |value| i64::from(value) as u64),
        DType::I64 => elements!(i64, |value| value as u64),
        DType::U8 => elements!(u8, u64::from),
        DType::U16 => elements!(u16, u64::from),
        DType::U32 => elements!(u32, u64::from),
        DType::U64 => elements!(u64, u64::from),
        DType::F16 => elements!(f16, |value: f16| u64::from(value.to_bits())),
        DType::BF16 => elements!(bf16, |value: bf16| u64::from(value.to_bits())),
        _ => {}
    }
}
