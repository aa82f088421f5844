//! Signature definitions for formats that have none of their own.

use super::{TensorInfo, data_type};
use crate::proto::tensorflow::{self as proto, SignatureDef};
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
