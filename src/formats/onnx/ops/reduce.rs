//! Reductions.

use super::{
    Outputs,
    arrays::{self, Axes},
    one,
};
use crate::{
    formats::onnx::{import::Import, node::Node},
    graph::ValueId,
    kernels::{Reduce as R, Unary as U},
    ops::{arg_reduce::ArgReduce, late::WithAxes, reduce::Reduce, unary::Unary},
    tensor::DType,
};

/// Axes are an attribute, or an input in newer operator sets.
pub(super) fn reduce<'a>(i: &mut Import<'a>, n: &Node<'a>, kind: R) -> Outputs {
    let x = n.tensor(0)?;
    let (keep_dims, none_keeps) =
        (n.attributes.int("keepdims", 1) != 0, n.attributes.flag("noop_with_empty_axes"));
    let logical = i.dtype(x) == Some(DType::Bool);
    let kind = match kind {
        // The greatest truth value is whether there is a true one.
        R::Max if logical => R::Any,
        R::Min if logical => R::All,
        other => other,
    };
    match arrays::axes(i, n)? {
        Axes::Known(axes) => {
            let axes = axes.filter(|axes| !axes.is_empty());
            if axes.is_none() && none_keeps {
                return none_reduced(i, x, kind);
            }
            one(i.b.push(Reduce { kind, axes, keep_dims }, &[x]))
        }
        Axes::Computed(axes) => {
            let of = Box::new(Reduce { kind, axes: None, keep_dims }.into());
            one(i.b.push(WithAxes { of, none_keeps }, &[x, axes]))
        }
    }
}

/// Each element reduced by itself.
fn none_reduced<'a>(i: &mut Import<'a>, x: ValueId, kind: R) -> Outputs {
    one(match kind {
        R::SumSquare => i.b.push(Unary(U::Square), &[x]),
        R::L1 | R::L2 => i.b.push(Unary(U::Abs), &[x]),
        R::LogSum => i.b.push(Unary(U::Log), &[x]),
        _ => x,
    })
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
