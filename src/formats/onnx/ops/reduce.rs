//! Reductions.

use super::{Outputs, one};
use crate::{
    formats::onnx::{import::Import, node::Node},
    kernels::Reduce as R,
    ops::{arg_reduce::ArgReduce, reduce::Reduce},
    tensor::DType,
};

/// Axes are an attribute, or an input in newer operator sets.
pub(super) fn reduce<'a>(i: &mut Import<'a>, n: &Node<'a>, kind: R) -> Outputs {
    let x = n.tensor(0)?;
    let axes = n.integers_or(i, "axes", 1)?.filter(|axes| !axes.is_empty());
    if axes.is_none() && n.attributes.flag("noop_with_empty_axes") {
        return one(x);
    }
    one(i.b.push(Reduce { kind, axes, keep_dims: n.attributes.int("keepdims", 1) != 0 }, &[x]))
}

pub(super) fn arg_reduce<'a>(i: &mut Import<'a>, n: &Node<'a>, greatest: bool) -> Outputs {
    let op = ArgReduce {
        axis: n.attributes.int("axis", 0),
        greatest,
        select_last: n.attributes.flag("select_last_index"),
        keep_dims: n.attributes.int("keepdims", 1) != 0,
        dtype: DType::I64,
    };
    let x = n.tensor(0)?;
    one(i.b.push(op, &[x]))
}
