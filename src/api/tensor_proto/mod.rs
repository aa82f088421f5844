//! `tensorflow.TensorProto` to [`Tensor`](crate::tensor::Tensor) and back, by the rules of
//! TensorFlow's own tensor parser (`tensorflow/core/framework/tensor.cc`).
#![forbid(unsafe_code)]

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{Budget, DecodeError, decode};
pub use encode::{Form, TensorWriter};

/// Fields of `TensorProto`.
mod field {
    pub(super) const DTYPE: u32 = 1;
    pub(super) const SHAPE: u32 = 2;
    pub(super) const CONTENT: u32 = 4;
    pub(super) const FLOAT: u32 = 5;
    pub(super) const DOUBLE: u32 = 6;
    pub(super) const INT: u32 = 7;
    pub(super) const STRING: u32 = 8;
    pub(super) const COMPLEX64: u32 = 9;
    pub(super) const INT64: u32 = 10;
    pub(super) const BOOL: u32 = 11;
    pub(super) const COMPLEX128: u32 = 12;
    pub(super) const HALF: u32 = 13;
    pub(super) const UINT32: u32 = 16;
    pub(super) const UINT64: u32 = 17;
    /// `TensorShapeProto.dim` and `Dim.size`.
    pub(super) const DIM: u32 = 2;
    pub(super) const SIZE: u32 = 1;
}
