//! What becomes of whole axes: reductions, softmax, normalisation, running sums, ranks.

use super::step::{Known, Step, lacking, one};
use crate::{
    kernels::Reduce as R,
    ops::{
        OpError,
        arg_reduce::ArgReduce,
        cumulative::Cumulative,
        norm::{InstanceNorm, LayerNorm},
        reduce::Reduce,
        softmax::Softmax,
        top_k::TopK,
    },
    tensor::Shape,
};
use candle_core::{self as candle, D, DType as There, Tensor};

fn axis_of(shape: &Shape, axis: i64) -> Result<usize, OpError> {
    shape.axis(axis).ok_or(OpError::Memory("an axis"))
}

pub(super) fn reduce(op: &Reduce, known: &Known<'_>) -> Result<Step, OpError> {
    let shape = &known.inputs[0].shape;
    let axes = match &op.axes {
        Some(axes) => axes.iter().map(|&axis| axis_of(shape, axis)).collect::<Result<Vec<_>, _>>()?,
        None => (0..shape.len()).collect(),
    };
    let integer = known.inputs[0].dtype.is_integer();
    if integer && !matches!(op.kind, R::Sum | R::Max | R::Min) {
        return Err(lacking(&format!("{:?} of integers", op.kind)));
    }
    let (kind, dims) = (op.kind, known.dims());
    one(move |x| {
        let x = x.at(0)?;
        let axes = axes.as_slice();
        let each = |x: Tensor, reduce: fn(&Tensor, usize) -> candle::Result<Tensor>| {
            axes.iter().try_fold(x, |x, &axis| reduce(&x, axis))
        };
        let y = match kind {
            R::Sum => x.sum_keepdim(axes)?,
            R::Mean => x.mean_keepdim(axes)?,
            R::Max | R::Any => each(x, |x, axis| x.max_keepdim(axis))?,
            R::Min | R::All => each(x, |x, axis| x.min_keepdim(axis))?,
            R::SumSquare => x.sqr()?.sum_keepdim(axes)?,
            R::L1 => x.abs()?.sum_keepdim(axes)?,
            R::L2 => x.sqr()?.sum_keepdim(axes)?.sqrt()?,
            R::LogSum => x.sum_keepdim(axes)?.log()?,
            R::LogSumExp => {
                let most = each(x.clone(), |x, axis| x.max_keepdim(axis))?;
                (x.broadcast_sub(&most)?.exp()?.sum_keepdim(axes)?.log()? + most)?
            }
            R::Prod => each(x, |x, axis| {
                let len = x.dim(axis)?;
                (1..len).try_fold(x.narrow(axis, 0, 1)?, |y, at| y * x.narrow(axis, at, 1)?)
            })?,
        };
        y.reshape(dims.as_slice())
    })
}

pub(super) fn arg_reduce(op: &ArgReduce, known: &Known<'_>) -> Result<Step, OpError> {
    let axis = axis_of(&known.inputs[0].shape, op.axis)?;
    let (greatest, dims) = (op.greatest, known.dims());
    one(move |x| {
        let x = x.at(0)?.contiguous()?;
        let y = if greatest { x.argmax_keepdim(axis)? } else { x.argmin_keepdim(axis)? };
        y.to_dtype(There::I64)?.reshape(dims.as_slice())
    })
}

pub(super) fn softmax(op: &Softmax, known: &Known<'_>) -> Result<Step, OpError> {
    let shape = &known.inputs[0].shape;
    let (axis, log) = (axis_of(shape, op.axis)?, op.log);
    let last = axis + 1 == shape.len();
    one(move |x| match (log, last) {
        (true, _) => candle_nn::ops::log_softmax(&x.at(0)?, axis),
        (false, true) => candle_nn::ops::softmax_last_dim(&x.at(0)?.contiguous()?),
        (false, false) => candle_nn::ops::softmax(&x.at(0)?, axis),
    })
}

pub(super) fn cumulative(op: &Cumulative, known: &Known<'_>) -> Result<Step, OpError> {
    let axis = axis_of(&known.inputs[0].shape, op.axis)?;
    let (exclusive, reverse) = (op.exclusive, op.reverse);
    if !known.inputs[0].dtype.is_float() {
        return Err(lacking("running sums of integers"));
    }
    one(move |x| {
        let x = x.at(0)?;
        let turn = |x: &Tensor| if reverse { x.flip(&[axis]) } else { Ok(x.clone()) };
        let sums = turn(&turn(&x)?.cumsum(axis)?)?;
        if exclusive { sums - x } else { Ok(sums) }
    })
}

pub(super) fn top_k(op: &TopK, known: &Known<'_>) -> Result<Step, OpError> {
    let axis = axis_of(&known.inputs[0].shape, op.axis)?;
    let (largest, k) = (op.largest, known.dims()[axis]);
    if !known.inputs[0].dtype.is_float() {
        return Err(lacking("ranks of integers"));
    }
    Ok(Step::There(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let last = x.rank() - 1;
        let x = x.transpose(axis, last)?.contiguous()?;
        let order = x.arg_sort_last_dim(!largest)?.narrow(D::Minus1, 0, k)?.contiguous()?;
        let values = x.gather(&order, last)?.transpose(axis, last)?.contiguous()?;
        Ok(vec![values, order.to_dtype(There::I64)?.transpose(axis, last)?.contiguous()?])
    })))
}

pub(super) fn layer_norm(op: &LayerNorm, known: &Known<'_>) -> Result<Step, OpError> {
    let shape = &known.inputs[0].shape;
    let axis = axis_of(shape, op.axis)?;
    let columns: usize = shape[axis..].iter().product();
    let (dims, epsilon, center) = (known.dims(), op.epsilon, op.center);
    one(move |inputs| {
        let x = inputs.at(0)?.contiguous()?.reshape(((), columns))?;
        if center && inputs.count == 3 {
            let (scale, shift) = (inputs.at(1)?.flatten_all()?, inputs.at(2)?.flatten_all()?);
            return candle_nn::ops::layer_norm(&x, &scale, &shift, epsilon)?.reshape(dims.as_slice());
        }
        let x = if center { x.broadcast_sub(&x.mean_keepdim(1)?)? } else { x };
        let deviation = (x.sqr()?.mean_keepdim(1)? + f64::from(epsilon))?.sqrt()?;
        let mut y = x.broadcast_div(&deviation)?;
        if inputs.count > 1 {
            y = y.broadcast_mul(&inputs.at(1)?.flatten_all()?)?;
        }
        if inputs.count > 2 {
            y = y.broadcast_add(&inputs.at(2)?.flatten_all()?)?;
        }
        y.reshape(dims.as_slice())
    })
}

pub(super) fn instance_norm(op: &InstanceNorm, known: &Known<'_>) -> Result<Step, OpError> {
    let axes: Vec<usize> = (1..known.inputs[0].rank().saturating_sub(1)).collect();
    let epsilon = f64::from(op.epsilon);
    one(move |inputs| {
        let x = inputs.at(0)?;
        let x = x.broadcast_sub(&x.mean_keepdim(axes.as_slice())?)?;
        let deviation = (x.sqr()?.mean_keepdim(axes.as_slice())? + epsilon)?.sqrt()?;
        x.broadcast_div(&deviation)?.broadcast_mul(&inputs.at(1)?)?.broadcast_add(&inputs.at(2)?)
    })
}
