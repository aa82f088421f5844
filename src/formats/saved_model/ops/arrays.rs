//! Shapes, axes and the moving of elements.

use super::{Outputs, apply, convolution, one};
use crate::{
    formats::saved_model::import::{Import, Node, Stop, Value},
    graph::ValueId,
    kernels::Reduce as R,
    ops::{
        cast::Cast,
        gather::Gather,
        join::{BroadcastTo, Concat, Split, SplitSizes},
        layout::{DepthToSpace, Reverse, SpaceToDepth, Transpose},
        pad::{Pad, PadMode},
        reduce::Reduce,
        scatter::{Reduction, ScatterNd},
        shape::{ExpandDims, ShapeOf, Squeeze},
        slice::StridedSlice,
    },
    tensor::{DType, Tensor},
};

pub(super) fn cast(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    apply(i, n, Cast { to: n.dtype("DstT")? }, 1)
}

pub(super) fn reduce(i: &mut Import<'_, '_>, n: &Node<'_>, kind: R) -> Outputs {
    let axes = Some(n.integers(i, 1)?);
    apply(i, n, Reduce { kind, axes, keep_dims: n.attributes.flag("keep_dims") }, 1)
}

pub(super) fn shape_of(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    apply(i, n, ShapeOf { dtype: n.dtype("out_type")? }, 1)
}

pub(super) fn shape_n(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let dtype = n.dtype("out_type")?;
    let inputs = n.tensors(i, 0)?;
    Ok(inputs.into_iter().map(|x| Value::Tensor(i.b.push(ShapeOf { dtype }, &[x]))).collect())
}

/// The product of a vector's elements.
pub(super) fn product(i: &mut Import<'_, '_>, vector: ValueId, keep_dims: bool) -> ValueId {
    i.b.push(Reduce { kind: R::Prod, axes: Some(vec![0]), keep_dims }, &[vector])
}

pub(super) fn expand_dims(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let axis = n.integer(i, 1)?;
    apply(i, n, ExpandDims { axes: vec![axis] }, 1)
}

/// A tensor of the input's shape that is 0 or 1 everywhere.
pub(super) fn filled_like(i: &mut Import<'_, '_>, n: &Node<'_>, value: u8) -> Outputs {
    let dtype = n.dtype("T")?;
    let x = n.tensor(i, 0)?;
    let value = scalar(i, dtype, value);
    let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[x]);
    one(i.b.push(BroadcastTo { bidirectional: false }, &[value, shape]))
}

/// A small number of any dtype; strings are empty.
pub(super) fn scalar(i: &mut Import<'_, '_>, dtype: DType, value: u8) -> ValueId {
    if dtype == DType::String {
        let empty = Tensor::zeros(dtype, []).unwrap_or_else(|_| Tensor::empty(dtype));
        return i.b.constant(empty);
    }
    let number = i.b.constant(Tensor::scalar(value));
    if dtype == DType::U8 { number } else { i.b.push(Cast { to: dtype }, &[number]) }
}

pub(super) fn fill(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (dims, value) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    one(i.b.push(BroadcastTo { bidirectional: false }, &[value, dims]))
}

pub(super) fn transpose(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let perm = n.integers(i, 1)?;
    let rank = perm.len() as i64;
    let axis = |axis: i64| usize::try_from(if axis < 0 { axis + rank } else { axis });
    let perm = perm.into_iter().map(axis).collect::<Result<Vec<_>, _>>();
    let perm = perm.map_err(|_| Stop::from("perm has an axis out of range"))?;
    if perm.is_empty() {
        return one(n.tensor(i, 0)?);
    }
    apply(i, n, Transpose { perm }, 1)
}

pub(super) fn reverse(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let axes = n.integers(i, 1)?;
    apply(i, n, Reverse { axes }, 1)
}

fn block(n: &Node<'_>) -> Result<usize, Stop> {
    let block = usize::try_from(n.attributes.int("block_size")).ok().filter(|&block| block > 0);
    block.ok_or_else(|| "block_size is not positive".into())
}

pub(super) fn depth_to_space(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let x = convolution::images(i, n, 0)?;
    let y = i.b.push(DepthToSpace { block: block(n)?, dcr: true }, &[x]);
    one(convolution::images_out(i, n, y))
}

pub(super) fn space_to_depth(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let x = convolution::images(i, n, 0)?;
    let y = i.b.push(SpaceToDepth { block: block(n)? }, &[x]);
    one(convolution::images_out(i, n, y))
}

pub(super) fn pack(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let axis = n.attributes.int("axis");
    let parts = n.tensors(i, 0)?;
    let parts: Vec<ValueId> =
        parts.into_iter().map(|part| i.b.push(ExpandDims { axes: vec![axis] }, &[part])).collect();
    joined(i, &parts, axis)
}

pub(super) fn unpack(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let axis = n.attributes.int("axis");
    let x = n.tensor(i, 0)?;
    let parts = parts(n, "num")?;
    let sizes = SplitSizes::Parts(parts);
    let parts = i.b.push_many(Split { axis, sizes }, &[x], parts);
    Ok(parts.into_iter().map(|part| Value::Tensor(i.b.push(Squeeze { axes: vec![axis] }, &[part]))).collect())
}

/// Outputs of one node, as an attribute says.
const MAX_PARTS: i64 = 1 << 20;

fn parts(n: &Node<'_>, attribute: &str) -> Result<usize, Stop> {
    match n.attributes.int(attribute) {
        parts @ 1..=MAX_PARTS => Ok(parts as usize),
        parts => Err(format!("{parts} parts, expected 1 to {MAX_PARTS}").into()),
    }
}

pub(super) fn concat(i: &mut Import<'_, '_>, n: &Node<'_>, axis_first: bool) -> Outputs {
    let last = n.inputs.len().checked_sub(1).ok_or("the axis is missing")?;
    let axis = n.integer(i, if axis_first { 0 } else { last })?;
    let mut parts = n.tensors(i, 0)?;
    parts.remove(if axis_first { 0 } else { last });
    joined(i, &parts, axis)
}

fn joined(i: &mut Import<'_, '_>, parts: &[ValueId], axis: i64) -> Outputs {
    match parts {
        [] => Err("there is nothing to join".into()),
        [part] => one(*part),
        parts => one(i.b.push(Concat { axis }, parts)),
    }
}

pub(super) fn split(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let axis = n.integer(i, 0)?;
    let x = n.tensor(i, 1)?;
    let parts = parts(n, "num_split")?;
    let outputs = i.b.push_many(Split { axis, sizes: SplitSizes::Parts(parts) }, &[x], parts);
    Ok(outputs.into_iter().map(Value::Tensor).collect())
}

pub(super) fn split_sizes(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let axis = n.integer(i, 2)?;
    let (x, sizes) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    let outputs =
        i.b.push_many(Split { axis, sizes: SplitSizes::Input }, &[x, sizes], parts(n, "num_split")?);
    Ok(outputs.into_iter().map(Value::Tensor).collect())
}

pub(super) fn strided_slice(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let mask = |name: &str| n.attributes.int(name) as u32;
    let op = StridedSlice {
        begin_mask: mask("begin_mask"),
        end_mask: mask("end_mask"),
        ellipsis_mask: mask("ellipsis_mask"),
        new_axis_mask: mask("new_axis_mask"),
        shrink_axis_mask: mask("shrink_axis_mask"),
    };
    apply(i, n, op, 4)
}

pub(super) fn mirror_pad(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let mode = match n.attributes.text("mode") {
        "REFLECT" => PadMode::Reflect,
        "SYMMETRIC" => PadMode::Symmetric,
        other => return Err(format!("unknown mode \"{other}\"").into()),
    };
    apply(i, n, Pad { mode }, 2)
}

pub(super) fn gather(i: &mut Import<'_, '_>, n: &Node<'_>, axis: i64, batch_dims: i64) -> Outputs {
    apply(i, n, Gather { axis: axis.max(batch_dims), batch_dims, negative: false }, 2)
}

pub(super) fn gather_v2(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (axis, batch_dims) = (n.integer(i, 2)?, n.attributes.int("batch_dims"));
    apply(i, n, Gather { axis, batch_dims, negative: false }, 2)
}

/// Updates added up on zeros.
pub(super) fn scatter_nd(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let dtype = n.dtype("T")?;
    let [indices, updates, shape] = [n.tensor(i, 0)?, n.tensor(i, 1)?, n.tensor(i, 2)?];
    let zero = scalar(i, dtype, 0);
    let zeros = i.b.push(BroadcastTo { bidirectional: false }, &[zero, shape]);
    one(i.b.push(ScatterNd { reduction: Reduction::Add, negative: false }, &[zeros, indices, updates]))
}
