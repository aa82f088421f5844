//! Normalisations and softmax.

use super::{Outputs, convolution, many, math, one};
use crate::{
    formats::onnx::{
        import::Import,
        node::{Node, Stop},
    },
    graph::ValueId,
    kernels::{Binary as B, Reduce as R, Unary as U},
    ops::{
        arg_reduce::ArgReduce,
        binary::Binary,
        gather::{Gather, OneHot},
        norm::{InstanceNorm, LayerNorm, Lrn},
        reduce::Reduce,
        shape::{Reshape, ShapeOf},
        softmax::Softmax,
        unary::Unary,
    },
    tensor::DType,
};

/// `(x - mean) scale / sqrt(variance + epsilon) + offset` as one product and one sum over channels
/// last, whose factors are constants where the statistics are.
pub(super) fn batch_norm<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    if n.attributes.flag("training_mode") || (n.has_output(1) && n.opset >= 7) {
        return Err("this normalisation is for training; export the model for inference".into());
    }
    let [x, scale, offset] = [n.tensor(0)?, n.tensor(1)?, n.tensor(2)?];
    let [mean, variance] = [n.tensor(3)?, n.tensor(4)?];
    let rank = i.rank(x)?;
    let dtype = i.dtype(variance).unwrap_or(DType::F32);
    let epsilon = math::scalar(i, dtype, f64::from(n.attributes.float("epsilon", 1e-5)));
    let b = &mut i.b;
    let stabilised = b.push(Binary(B::Add), &[variance, epsilon]);
    let inverse = b.push(Unary(U::Rsqrt), &[stabilised]);
    let factor = b.push(Binary(B::Mul), &[scale, inverse]);
    let shift = b.push(Binary(B::Mul), &[mean, factor]);
    let shift = b.push(Binary(B::Sub), &[offset, shift]);
    let (factor, shift) = (i.folded(factor), i.folded(shift));
    one(convolution::channels_last(i, x, rank, |i, x| {
        let y = i.b.push(Binary(B::Mul), &[x, factor]);
        Ok(i.b.push(Binary(B::Add), &[y, shift]))
    })?)
}

pub(super) fn instance_norm<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let [x, scale, bias] = [n.tensor(0)?, n.tensor(1)?, n.tensor(2)?];
    let op = InstanceNorm { epsilon: n.attributes.float("epsilon", 1e-5) };
    let rank = i.rank(x)?;
    one(convolution::channels_last(i, x, rank, |i, x| Ok(math::in_float(i, op, &[x, scale, bias])))?)
}

pub(super) fn layer_norm<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let mut inputs = vec![n.tensor(0)?, n.tensor(1)?];
    inputs.extend(n.optional(2)?);
    let (axis, epsilon) = (n.attributes.int("axis", -1), n.attributes.float("epsilon", 1e-5));
    let op = LayerNorm { axis, epsilon, center: true };
    let y = math::in_float(i, op, &inputs);
    if !n.has_output(1) && !n.has_output(2) {
        return one(y);
    }
    let [mean, inverse] = layer_statistics(i, inputs[0], axis, epsilon)?;
    many([y, mean, inverse])
}

/// ONNX divides alpha by the size of the window, which is not centred when it is even.
pub(super) fn lrn<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let size = usize::try_from(n.attributes.int("size", 0)).ok().filter(|&size| size > 0);
    let size = size.ok_or("size is not positive")?;
    let op = Lrn {
        before: (size - 1) / 2,
        after: size / 2,
        bias: n.attributes.float("bias", 1.0),
        alpha: n.attributes.float("alpha", 1e-4) / size as f32,
        beta: n.attributes.float("beta", 0.75),
    };
    let x = n.tensor(0)?;
    let rank = i.rank(x)?;
    one(convolution::channels_last(i, x, rank, |i, x| Ok(math::in_float(i, op, &[x])))?)
}

/// Since version 13 along one axis; before over all axes from one on, as one row.
pub(super) fn softmax<'a>(i: &mut Import<'a>, n: &Node<'a>, log: bool) -> Outputs {
    let x = n.tensor(0)?;
    if n.opset >= 13 {
        let axis = n.attributes.int("axis", -1);
        return one(i.b.push(Softmax { axis, log }, &[x]));
    }
    one(over_rows(i, x, n.attributes.int("axis", 1), |i, x| i.b.push(Softmax { axis: -1, log }, &[x]))?)
}

/// Applies `make` with all axes from `axis` on as one.
pub(super) fn over_rows<'a>(
    i: &mut Import<'a>,
    x: ValueId,
    axis: i64,
    make: impl FnOnce(&mut Import<'a>, ValueId) -> ValueId,
) -> Result<ValueId, Stop> {
    let rank = i.rank(x)? as i64;
    let axis = if axis < 0 { axis + rank } else { axis };
    if axis == rank - 1 {
        return Ok(make(i, x));
    }
    let kept =
        usize::try_from(axis).ok().filter(|&kept| kept as i64 <= rank).ok_or("axis is out of range")?;
    let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[x]);
    let flat: Vec<i64> = vec![0; kept].into_iter().chain([-1]).collect();
    let flat = i.b.integers(&flat);
    let rows = i.b.push(Reshape { zero_copies: true }, &[x, flat]);
    let y = make(i, rows);
    Ok(i.b.push(Reshape { zero_copies: false }, &[y, shape]))
}

/// The axes of a value from `axis` on.
fn axes_from(i: &mut Import<'_>, x: ValueId, axis: i64) -> Result<Vec<i64>, Stop> {
    let rank = i.rank(x)? as i64;
    let first = if axis < 0 { axis + rank } else { axis };
    match (0..rank).contains(&first) {
        true => Ok((first..rank).collect()),
        false => Err(format!("axis {axis} is out of range for rank {rank}").into()),
    }
}

/// Mean and inverse deviation over these axes, which are kept with size 1.
fn statistics(i: &mut Import<'_>, x: ValueId, axes: &[i64], epsilon: f32) -> (ValueId, ValueId) {
    let mean = |i: &mut Import<'_>, x| {
        i.b.push(Reduce { kind: R::Mean, axes: Some(axes.to_vec()), keep_dims: true }, &[x])
    };
    let centre = mean(i, x);
    let squared = i.b.push(Binary(B::SquaredDifference), &[x, centre]);
    let variance = mean(i, squared);
    let dtype = i.dtype(x).unwrap_or(DType::F32);
    let epsilon = math::scalar(i, dtype, f64::from(epsilon));
    let variance = i.b.push(Binary(B::Add), &[variance, epsilon]);
    (centre, i.b.push(Unary(U::Rsqrt), &[variance]))
}

/// The mean and the inverse deviation that training asks for.
fn layer_statistics(i: &mut Import<'_>, x: ValueId, axis: i64, epsilon: f32) -> Result<[ValueId; 2], Stop> {
    let axes = axes_from(i, x, axis)?;
    let (mean, inverse) = statistics(i, x, &axes, epsilon);
    Ok([mean, inverse])
}

/// `x / sqrt(mean(x^2) + epsilon) * scale`
pub(super) fn rms_norm<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (x, scale) = (n.tensor(0)?, n.tensor(1)?);
    let (axis, epsilon) = (n.attributes.int("axis", -1), n.attributes.float("epsilon", 1e-5));
    let axes = axes_from(i, x, axis)?.len();
    let fits = i.dims(scale).is_some_and(|dims| dims.len() == axes && !dims.contains(&Some(1)));
    if fits {
        return one(math::in_float(i, LayerNorm { axis, epsilon, center: false }, &[x, scale]));
    }
    // A scale that broadcasts.
    let dtype = i.dtype(x).unwrap_or(DType::F32);
    let axes = axes_from(i, x, axis)?;
    let squared = i.b.push(Unary(U::Square), &[x]);
    let mean = i.b.push(Reduce { kind: R::Mean, axes: Some(axes), keep_dims: true }, &[squared]);
    let epsilon = math::scalar(i, dtype, f64::from(epsilon));
    let mean = i.b.push(Binary(B::Add), &[mean, epsilon]);
    let inverse = i.b.push(Unary(U::Rsqrt), &[mean]);
    let y = i.b.push(Binary(B::Mul), &[x, inverse]);
    one(i.b.push(Binary(B::Mul), &[y, scale]))
}

/// Groups of channels are normalised together; scale and bias are per group before version 21.
pub(super) fn group_norm<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let [x, scale, bias] = [n.tensor(0)?, n.tensor(1)?, n.tensor(2)?];
    let groups = n.attributes.int("num_groups", n.attributes.int("groups", 0));
    if groups <= 0 {
        return Err("num_groups is not positive".into());
    }
    let rank = i.rank(x)?;
    if rank < 3 {
        return Err(format!("an input of rank {rank}").into());
    }
    let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[x]);
    let grouped = i.b.integers(&[0, groups, -1]);
    let rows = i.b.push(Reshape { zero_copies: true }, &[x, grouped]);
    let op = LayerNorm { axis: -1, epsilon: n.attributes.float("epsilon", 1e-5), center: true };
    let mut y = math::in_float(i, op, &[rows]);
    let per_group = n.opset < 21;
    if !per_group {
        y = i.b.push(Reshape { zero_copies: false }, &[y, shape]);
    }
    let wanted: Vec<i64> = match per_group {
        true => vec![-1, 1],
        false => [vec![-1], vec![1; rank - 2]].concat(),
    };
    let wanted = i.b.integers(&wanted);
    let [scale, bias] = [scale, bias].map(|vector| {
        let column = i.b.push(Reshape { zero_copies: false }, &[vector, wanted]);
        i.folded(column)
    });
    y = i.b.push(Binary(B::Mul), &[y, scale]);
    y = i.b.push(Binary(B::Add), &[y, bias]);
    one(if per_group { i.b.push(Reshape { zero_copies: false }, &[y, shape]) } else { y })
}

/// `x / norm(x)` along an axis; 0 where the norm is.
pub(super) fn lp_norm<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let kind = match n.attributes.int("p", 2) {
        1 => R::L1,
        2 => R::L2,
        p => return Err(format!("p {p} is not supported").into()),
    };
    let x = n.tensor(0)?;
    let axes = Some(vec![n.attributes.int("axis", -1)]);
    let norm = i.b.push(Reduce { kind, axes, keep_dims: true }, &[x]);
    one(i.b.push(Binary(B::DivNoNan), &[x, norm]))
}

/// `(x - mean) / (deviation + 1e-9)`
pub(super) fn mean_variance<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    let axes = n.attributes.ints("axes").unwrap_or(&[0, 2, 3]).to_vec();
    let mean = |i: &mut Import<'a>, x| {
        i.b.push(Reduce { kind: R::Mean, axes: Some(axes.clone()), keep_dims: true }, &[x])
    };
    let centre = mean(i, x);
    let centred = i.b.push(Binary(B::Sub), &[x, centre]);
    let squared = i.b.push(Unary(U::Square), &[centred]);
    let variance = mean(i, squared);
    let deviation = i.b.push(Unary(U::Sqrt), &[variance]);
    let dtype = i.dtype(x).unwrap_or(DType::F32);
    let least = math::scalar(i, dtype, 1e-9);
    let deviation = i.b.push(Binary(B::Add), &[deviation, least]);
    one(i.b.push(Binary(B::Div), &[centred, deviation]))
}

/// 1 at the first of the greatest elements along an axis, 0 elsewhere.
pub(super) fn hardmax<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    let dtype = i.dtype(x).unwrap_or(DType::F32);
    let hot = |i: &mut Import<'a>, x: ValueId, axis: i64| {
        let op = ArgReduce { axis, greatest: true, select_last: false, keep_dims: false, dtype: DType::I64 };
        let best = i.b.push(op, &[x]);
        let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[x]);
        let at = i.b.constant(crate::tensor::Tensor::scalar(axis));
        let depth = i.b.push(Gather { axis: 0, batch_dims: 0, negative: true }, &[shape, at]);
        let [on, off] = [1.0, 0.0].map(|value| math::scalar(i, dtype, value));
        i.b.push(OneHot { axis, negative: true }, &[best, depth, on, off])
    };
    if n.opset >= 13 {
        return one(hot(i, x, n.attributes.int("axis", -1)));
    }
    one(over_rows(i, x, n.attributes.int("axis", 1), |i, x| hot(i, x, -1))?)
}
