//! Tensors to the device and back. candle has fewer types: `bool` travels as bytes, other integers as `i64`.

use crate::{
    ops::OpError,
    tensor::{DType, Element, Tensor},
};
use candle_core as candle;
use half::{bf16, f16};

/// candle's type for one of ours.
pub(super) fn type_of(dtype: DType) -> Result<candle::DType, OpError> {
    use DType as D;
    Ok(match dtype {
        D::Bool | D::U8 => candle::DType::U8,
        D::U16 | D::U32 | D::U64 | D::I8 | D::I16 | D::I32 | D::I64 => candle::DType::I64,
        D::F16 => candle::DType::F16,
        D::BF16 => candle::DType::BF16,
        D::F32 => candle::DType::F32,
        D::F64 => candle::DType::F64,
        D::Complex64 | D::Complex128 | D::String => {
            return Err(OpError::unsupported(format!("candle has no tensors of {dtype}")));
        }
    })
}

/// A copy on the device.
pub(super) fn upload(tensor: &Tensor, device: &candle::Device) -> Result<candle::Tensor, OpError> {
    let dims = tensor.shape().to_vec();
    fn plain<T: Element + candle::WithDType>(
        tensor: &Tensor,
        dims: Vec<usize>,
        device: &candle::Device,
    ) -> Result<candle::Tensor, OpError> {
        candle::Tensor::from_slice(tensor.as_slice::<T>()?, dims, device).map_err(super::step::failed)
    }
    match tensor.dtype() {
        DType::Bool => {
            let bytes = tensor.as_bytes();
            candle::Tensor::from_slice(bytes, dims, device).map_err(super::step::failed)
        }
        DType::U8 => plain::<u8>(tensor, dims, device),
        DType::F16 => plain::<f16>(tensor, dims, device),
        DType::BF16 => plain::<bf16>(tensor, dims, device),
        DType::F32 => plain::<f32>(tensor, dims, device),
        DType::F64 => plain::<f64>(tensor, dims, device),
        other => {
            type_of(other)?;
            let wide = tensor.to_i64_vec()?;
            candle::Tensor::from_slice(&wide, dims, device).map_err(super::step::failed)
        }
    }
}

/// A copy on the host, in the type that it stands for.
pub(super) fn download(tensor: &candle::Tensor, dtype: DType) -> Result<Tensor, OpError> {
    let dims = tensor.dims().to_vec();
    let read = || tensor.to_dtype(type_of(dtype).map_err(candle::Error::wrap)?)?.flatten_all();
    let flat = read().map_err(super::step::failed)?;
    macro_rules! plain {
        ($t:ty) => {
            Tensor::from_slice(dims, &flat.to_vec1::<$t>().map_err(super::step::failed)?)
        };
    }
    macro_rules! narrowed {
        ($t:ty) => {{
            let wide = flat.to_vec1::<i64>().map_err(super::step::failed)?;
            let narrow: Vec<$t> = wide.into_iter().map(|value| value as $t).collect();
            Tensor::from_slice(dims, &narrow)
        }};
    }
    Ok(match dtype {
        DType::Bool => {
            let bytes = flat.to_vec1::<u8>().map_err(super::step::failed)?;
            Tensor::from_buffer(DType::Bool, dims, crate::tensor::Buffer::copy_of(&bytes)?)
        }
        DType::U8 => plain!(u8),
        DType::F16 => plain!(f16),
        DType::BF16 => plain!(bf16),
        DType::F32 => plain!(f32),
        DType::F64 => plain!(f64),
        DType::I64 => plain!(i64),
        DType::I32 => narrowed!(i32),
        DType::I16 => narrowed!(i16),
        DType::I8 => narrowed!(i8),
        DType::U16 => narrowed!(u16),
        DType::U32 => narrowed!(u32),
        DType::U64 => narrowed!(u64),
        DType::Complex64 | DType::Complex128 | DType::String => {
            return Err(OpError::unsupported(format!("candle has no tensors of {dtype}")));
        }
    }?)
}
