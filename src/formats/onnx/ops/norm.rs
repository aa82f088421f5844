//! Normalisations and softmax.

use super::{Outputs, convolution, math, one};
use crate::{
    formats::onnx::{import::Import, node::Node},
    graph::ValueId,
    kernels::{Binary as B, Unary as U},
    ops::{
        binary::Binary,
        norm::{InstanceNorm, LayerNorm, Lrn},
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
    if n.has_output(1) || n.has_output(2) {
        return Err("mean and deviation as outputs are not supported".into());
    }
    let mut inputs = vec![n.tensor(0)?, n.tensor(1)?];
    inputs.extend(n.optional(2)?);
    let op = LayerNorm {
        axis: n.attributes.int("axis", -1),
        epsilon: n.attributes.float("epsilon", 1e-5),
        center: true,
    };
    one(math::in_float(i, op, &inputs))
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
) -> Result<ValueId, crate::formats::onnx::node::Stop> {
    let rank = i.rank(x)? as i64;
    let axis = if axis < 0 { axis + rank } else { axis };
    if axis == rank - 1 {
        return Ok(make(i, x));
    }
    let kept = usize::try_from(axis).map_err(|_| "axis is out of range")?;
    let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[x]);
    let flat: Vec<i64> = vec![0; kept].into_iter().chain([-1]).collect();
    let flat = i.b.integers(&flat);
    let rows = i.b.push(Reshape { zero_copies: true }, &[x, flat]);
    let y = make(i, rows);
    Ok(i.b.push(Reshape { zero_copies: false }, &[y, shape]))
}
