//! Signature definitions for formats that have none of their own.

use super::{TensorInfo, data_type, dtype_of};
use crate::{
    maps::Ordered,
    proto::tensorflow::{self as proto, SignatureDef, tensor_info::Encoding},
};
use std::collections::BTreeMap;

/// The definition that metadata calls show.
pub(super) fn definition(method: &str, inputs: &[TensorInfo], outputs: &[TensorInfo]) -> SignatureDef {
    let infos =
        |infos: &[TensorInfo]| infos.iter().map(|info| (info.name.clone(), proto_info(info))).into_map();
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
    let shape = match &info.shape {
        Some(dims) => proto::TensorShapeProto { dim: dims.iter().map(dim).collect(), unknown_rank: false },
        None => proto::TensorShapeProto { dim: Vec::new(), unknown_rank: true },
    };
    proto::TensorInfo {
        dtype: info.dtype.map_or(proto::DataType::DtInvalid, data_type) as i32,
        tensor_shape: Some(shape),
        encoding: Some(Encoding::Name(info.tensor.clone())),
    }
}

/// An input or output of a definition; without a tensor's name where the definition has none.
pub(super) fn tensor_info(name: &str, info: &proto::TensorInfo) -> TensorInfo {
    let tensor = match &info.encoding {
        Some(Encoding::Name(tensor)) => tensor.clone(),
        _ => String::new(),
    };
    let shape = info.tensor_shape.as_ref().filter(|shape| !shape.unknown_rank);
    let dims = |shape: &proto::TensorShapeProto| {
        shape.dim.iter().map(|dim| usize::try_from(dim.size).ok()).collect::<Vec<_>>()
    };
    TensorInfo { name: name.to_owned(), tensor, dtype: dtype_of(info.dtype), shape: shape.map(dims) }
}
