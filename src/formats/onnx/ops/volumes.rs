//! Three spatial dimensions by way of two: a convolution is the sum of those of each slice of the
//! filter, and a pool over a box is one over its face and then one over its depth.

use super::{Outputs, convolution, math, one};
use crate::{
    formats::onnx::{import::Import, node::Stop},
    graph::ValueId,
    kernels::Binary as B,
    ops::{
        Padding,
        binary::Binary,
        conv::Conv,
        join::Concat,
        pad::{Pad, PadMode},
        pool::Pool,
        shape::{Reshape, ShapeOf, Squeeze},
        slice::Slice,
    },
    tensor::{DType, Tensor},
};

/// The padding of the depth, and that of height and width.
fn split(padding: Padding) -> (Padding, Padding) {
    match padding {
        Padding::Explicit(mut pads) if pads.len() == 3 => {
            let depth = pads.remove(0);
            (Padding::Explicit(vec![depth]), Padding::Explicit(pads))
        }
        other => (other.clone(), other),
    }
}

/// The first element of a list with one per dimension, and the others.
fn first(list: &[usize]) -> (usize, Vec<usize>) {
    (list.first().copied().unwrap_or(1), list.iter().skip(1).copied().collect())
}

/// The dimensions from `start` to before `end`.
fn dims(i: &mut Import<'_>, x: ValueId, start: i64, end: i64) -> ValueId {
    let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[x]);
    let (start, end) = (i.b.integers(&[start]), i.b.integers(&[end]));
    i.b.push(Slice, &[shape, start, end])
}

fn reshaped(i: &mut Import<'_>, x: ValueId, parts: &[ValueId]) -> ValueId {
    let shape = i.b.push(Concat { axis: 0 }, parts);
    i.b.push(Reshape { zero_copies: false }, &[x, shape])
}

/// `[n, d, h, w, c]` as `n d` images.
fn images(i: &mut Import<'_>, x: ValueId) -> ValueId {
    let (all, image) = (i.b.integers(&[-1]), dims(i, x, 2, 5));
    reshaped(i, x, &[all, image])
}

/// `op` has the strides, dilations and padding of three dimensions.
pub(super) fn conv<'a>(
    i: &mut Import<'a>,
    x: ValueId,
    filter: ValueId,
    bias: Option<ValueId>,
    mut op: Conv,
) -> Outputs {
    let depth = i.dims(filter).and_then(|dims| dims.get(2).copied().flatten());
    let depth =
        depth.filter(|depth| (1..=64).contains(depth)).ok_or("the filter's depth is open or too large")?;
    let filter = convolution::transposed(i, filter, vec![2, 3, 4, 1, 0]);
    let (stride, strides) = first(&op.strides);
    let (dilation, dilations) = first(&op.dilations);
    let (outer, inner) = split(op.padding);
    let (before, after) = match outer {
        Padding::Valid => (0, 0),
        Padding::Explicit(pads) => pads.first().copied().unwrap_or((0, 0)),
        Padding::SameUpper | Padding::SameLower => {
            return Err("auto_pad of three dimensions is not supported".into());
        }
    };
    (op.strides, op.dilations, op.padding, op.fused.bias) = (strides, dilations, inner, false);
    one(convolution::channels_last(i, x, 5, |i, mut x| {
        if before + after > 0 {
            let pads = [[0, 0], [before as i64, after as i64], [0, 0], [0, 0], [0, 0]];
            let pads = Tensor::from_slice([5, 2], pads.as_flattened()).map_err(|error| error.to_string())?;
            let pads = i.b.constant(pads);
            x = i.b.push(Pad { mode: PadMode::Constant }, &[x, pads]);
        }
        let mut sum = None;
        for tap in 0..depth {
            let rest = ((depth - 1 - tap) * dilation) as i64;
            let end = if rest == 0 { i64::MAX } else { -rest };
            let [start, end, axis, step] =
                [(tap * dilation) as i64, end, 1, stride as i64].map(|number| i.b.integers(&[number]));
            let part = i.b.push(Slice, &[x, start, end, axis, step]);
            let [from, to, axis] = [tap as i64, tap as i64 + 1, 0].map(|number| i.b.integers(&[number]));
            let face = i.b.push(Slice, &[filter, from, to, axis]);
            let face = i.b.push(Squeeze { axes: vec![0] }, &[face]);
            let face = i.folded(face);
            let (outer, flat) = (dims(i, part, 0, 2), images(i, part));
            let y = math::in_float(i, op.clone(), &[flat, face]);
            let image = dims(i, y, 1, 4);
            let y = reshaped(i, y, &[outer, image]);
            sum = Some(match sum {
                None => y,
                Some(sum) => i.b.push(Binary(B::Add), &[sum, y]),
            });
        }
        let y = sum.ok_or_else(|| Stop::from("an empty filter"))?;
        Ok(bias.map_or(y, |bias| i.b.push(Binary(B::Add), &[y, bias])))
    })?)
}

/// `op` has the window, strides, dilations and padding of three dimensions.
pub(super) fn pool<'a>(i: &mut Import<'a>, x: ValueId, op: Pool) -> Outputs {
    let ((depth, window), (stride, strides), (dilation, dilations)) =
        (first(&op.window), first(&op.strides), first(&op.dilations));
    let (outer, inner) = split(op.padding.clone());
    let face = Pool { window, strides, dilations, padding: inner, ..op.clone() };
    let along =
        Pool { window: vec![depth], strides: vec![stride], dilations: vec![dilation], padding: outer, ..op };
    one(convolution::channels_last(i, x, 5, |i, x| {
        let (outer, flat) = (dims(i, x, 0, 2), images(i, x));
        let y = math::in_float(i, face, &[flat]);
        let (image, all) = (dims(i, y, 1, 4), i.b.integers(&[-1]));
        let lines = reshaped(i, y, &[outer, all]);
        let z = math::in_float(i, along, &[lines]);
        let outer = dims(i, z, 0, 2);
        Ok(reshaped(i, z, &[outer, image]))
    })?)
}
