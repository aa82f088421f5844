//! Signature definitions for formats that have none of their own.

use super::TensorInfo;
use crate::{
    proto::tensorflow::{self as proto, SignatureDef},
    tensor::DType,
};
use std::collections::BTreeMap;

/// The definition that metadata calls show.
pub(super) fn definition(method: &str, inputs: &[TensorInfo], outputs: &[TensorInfo]) -> SignatureDef {
    let infos =
        |infos: &[TensorInfo]| infos.iter().map(|info| (info.name.clone(), proto_info(info))).collect();
    SignatureDef {
        inputs: infos(inputs),
        outputs: infos(outputs),
        method_name: method.to_owned(),
        defaults: BTreeMap::new(),
    }
}

fn proto_info(info: &TensorInfo) -> proto::TensorInfo {
    let dim = |dim: &Option<usize>| {
        let size = dim.and_then(|dim| i64::try_from(dim).ok()).unwrap_or(-1);
        proto::tensor_shape_proto::Dim { size, name: String::new() }
    };
    let shape = info
        .shape
        .as_ref()
        .map(|dims| proto::TensorShapeProto { dim: dims.iter().map(dim).collect(), unknown_rank: false });
    proto::TensorInfo {
        dtype: info.dtype.map_or(proto::DataType::DtInvalid, data_type) as i32,
        tensor_shape: shape,
        encoding: Some(proto::tensor_info::Encoding::Name(info.tensor.clone())),
    }
}

fn data_type(dtype: DType) -> proto::DataType {
    use proto::DataType as D;
    match dtype {
        DType::Bool => D::DtBool,
        DType::U8 => D::DtUint8,
        DType::U16 => D::DtUint16,
        DType::U32 => D::DtUint32,
        DType::U64 => D::DtUint64,
        DType::I8 => D::DtInt8,
        DType::I16 => D::DtInt16,
        DType::I32 => D::DtInt32,
        DType::I64 => D::DtInt64,
        DType::F16 => D::DtHalf,
        DType::BF16 => D::DtBfloat16,
        DType::F32 => D::DtFloat,
        DType::F64 => D::DtDouble,
        DType::Complex64 => D::DtComplex64,
        DType::Complex128 => D::DtComplex128,
        DType::String => D::DtString,
    }
}
