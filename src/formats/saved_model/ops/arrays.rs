//! Shapes, axes and the moving of elements.

use super::{Outputs, apply, convolution, one};
use crate::{
    formats::saved_model::import::{Import, Node, Stop, Value},
    graph::ValueId,
    kernels::{Binary as B, Reduce as R},
    ops::{
        Op,
        arg_reduce::ArgReduce,
        binary::{Binary, Select},
        cast::Cast,
        cumulative::Cumulative,
        gather::Gather,
        generate::{MatrixBandPart, Range, Size},
        join::{BroadcastTo, Concat, Split, SplitSizes},
        layout::{DepthToSpace, Diagonal, Reverse, ReverseSequence, Roll, SpaceToDepth, Transpose},
        pad::{Pad, PadMode},
        reduce::Reduce,
        scatter::{Reduction, ScatterNd},
        shape::{ExpandDims, Reshape, ShapeOf, Squeeze},
        slice::StridedSlice,
        top_k::TopK,
        unique::Unique,
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

/// The form of TensorFlow's first years, for square blocks of images.
pub(super) fn blocks(i: &mut Import<'_, '_>, n: &Node<'_>, op: impl Into<Op>) -> Outputs {
    let (x, borders) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    let edge = i64::try_from(block(n)?).map_err(|_| "block_size is too large")?;
    let block = i.b.integers(&[edge, edge]);
    one(i.b.push(op, &[x, block, borders]))
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

/// Values and positions of the largest elements along the last axis.
pub(super) fn top_k(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let x = n.tensor(i, 0)?;
    let k = match n.inputs.len() {
        1 => i.b.integers(&[n.attributes.int("k")]),
        _ => n.tensor(i, 1)?,
    };
    let op = TopK {
        axis: -1,
        largest: true,
        sorted: n.attributes.flag("sorted"),
        indices: n.dtype("index_type")?,
    };
    Ok(i.b.push_many(op, &[x, k], 2).into_iter().map(Value::Tensor).collect())
}

/// The different elements and, for each element, its position among them; and how often each occurs.
pub(super) fn unique(i: &mut Import<'_, '_>, n: &Node<'_>, outputs: &[usize]) -> Outputs {
    let x = n.tensor(i, 0)?;
    let made = i.b.push_many(Unique { sorted: false, indices: n.dtype("out_idx")? }, &[x], 4);
    Ok(outputs.iter().map(|&output| Value::Tensor(made[output])).collect())
}

/// The position of the first of the greatest or least elements along an axis.
pub(super) fn arg_reduce(i: &mut Import<'_, '_>, n: &Node<'_>, greatest: bool) -> Outputs {
    let axis = n.integer(i, 1)?;
    let dtype = n.dtype("output_type")?;
    apply(i, n, ArgReduce { axis, greatest, select_last: false, keep_dims: false, dtype }, 1)
}

pub(super) fn cumulative(i: &mut Import<'_, '_>, n: &Node<'_>, product: bool) -> Outputs {
    let axis = n.integer(i, 1)?;
    let (exclusive, reverse) = (n.attributes.flag("exclusive"), n.attributes.flag("reverse"));
    apply(i, n, Cumulative { axis, exclusive, reverse, product }, 1)
}

pub(super) fn reverse_sequence(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (batch_axis, time_axis) = (n.attributes.int("batch_dim"), n.attributes.int("seq_dim"));
    apply(i, n, ReverseSequence { batch_axis, time_axis }, 2)
}

/// Inputs: x, shifts, axes.
pub(super) fn roll(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let axes = n.integers(i, 2)?;
    apply(i, n, Roll { axes }, 2)
}

/// Numbers from 0 on, each at the place that the permutation names.
pub(super) fn invert_permutation(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let permutation = n.tensor(i, 0)?;
    let dtype = n.dtype("T")?;
    let count = i.b.push(Size { dtype }, &[permutation]);
    let (zero, step) = (scalar(i, dtype, 0), scalar(i, dtype, 1));
    let numbers = i.b.push(Range, &[zero, count, step]);
    let places = i.b.push(ExpandDims { axes: vec![1] }, &[permutation]);
    one(i.b.push(ScatterNd { reduction: Reduction::Set, negative: false }, &[numbers, places, numbers]))
}

/// One diagonal: a band is not supported.
pub(super) fn diagonal(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let offset = band(i, n)?;
    apply(i, n, Diagonal { offset }, 1)
}

fn band(i: &mut Import<'_, '_>, n: &Node<'_>) -> Result<i64, Stop> {
    match n.integers(i, 1)?.as_slice() {
        [offset] => Ok(*offset),
        [low, high] if low == high => Ok(*low),
        other => Err(format!("a band of diagonals {other:?} is not supported").into()),
    }
}

/// Square matrices of zeros with the last axis on their main diagonal.
pub(super) fn from_diagonal(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    if n.inputs.len() > 1 && (band(i, n)? != 0 || n.integer(i, 2)? != -1 || n.integer(i, 3)? != -1) {
        return Err("only square matrices with their main diagonal are supported".into());
    }
    let x = n.tensor(i, 0)?;
    let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[x]);
    let all = i.b.constant(Tensor::scalar(-1i64));
    let last = i.b.push(Gather { axis: 0, batch_dims: 0, negative: true }, &[shape, all]);
    let last = i.b.push(ExpandDims { axes: vec![0] }, &[last]);
    let shape = i.b.push(Concat { axis: 0 }, &[shape, last]);
    let row = i.b.push(ExpandDims { axes: vec![-2] }, &[x]);
    let rows = i.b.push(BroadcastTo { bidirectional: false }, &[row, shape]);
    let none = i.b.constant(Tensor::scalar(0i64));
    one(i.b.push(MatrixBandPart, &[rows, none, none]))
}

/// TensorFlow 1 lets a vector choose rows: the condition gets as many dimensions as the others.
pub(super) fn select(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let [condition, x, y] = [n.tensor(i, 0)?, n.tensor(i, 1)?, n.tensor(i, 2)?];
    let dtype = DType::I64;
    let [shape, other] = [condition, x].map(|value| i.b.push(ShapeOf { dtype }, &[value]));
    let [rank, wanted] = [shape, other].map(|value| i.b.push(ShapeOf { dtype }, &[value]));
    let lacking = i.b.push(Binary(B::Sub), &[wanted, rank]);
    let ones = scalar(i, dtype, 1);
    let ones = i.b.push(BroadcastTo { bidirectional: false }, &[ones, lacking]);
    let shape = i.b.push(Concat { axis: 0 }, &[shape, ones]);
    let condition = i.b.push(Reshape { zero_copies: false }, &[condition, shape]);
    one(i.b.push(Select, &[condition, x, y]))
}

/// Input `index` as `float` where it is another type of number: kernels of images know no other.
pub(super) fn as_float(i: &mut Import<'_, '_>, n: &Node<'_>, index: usize) -> Result<ValueId, Stop> {
    let x = n.tensor(i, index)?;
    Ok(match n.attributes.dtype("T") {
        Some(DType::F32) | None => x,
        Some(_) => i.b.push(Cast { to: DType::F32 }, &[x]),
    })
}

/// The result in the type of the node again.
pub(super) fn from_float(i: &mut Import<'_, '_>, n: &Node<'_>, y: ValueId) -> Result<ValueId, Stop> {
    Ok(match n.attributes.dtype("T") {
        Some(DType::F32) | None => y,
        Some(dtype) => i.b.push(Cast { to: dtype }, &[y]),
    })
}
