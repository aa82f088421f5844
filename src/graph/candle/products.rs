//! Matrix products and attention.

use super::{
    elements::apply,
    step::{Inputs, Known, Step, one},
};
use crate::{
    ops::{Fused, OpError, attention::Attention, matmul::MatMul},
    tensor::DType,
};
use candle_core::{self as candle, D, DType as There, Tensor};

/// What follows a product: bias, residual, activation, from the inputs behind the operands.
pub(super) fn finish(fused: Fused, y: Tensor, inputs: &Inputs<'_>) -> candle::Result<Tensor> {
    let mut y = y;
    if fused.bias {
        y = y.broadcast_add(&inputs.at(2)?)?;
    }
    if fused.residual {
        y = (y + inputs.at(2 + usize::from(fused.bias))?)?;
    }
    let y = match fused.activation {
        Some(function) => apply(function, &y)?,
        None => y,
    };
    match fused.affine {
        Some([scale, shift]) => y.affine(f64::from(scale), f64::from(shift)),
        None => Ok(y),
    }
}

pub(super) fn matmul(op: &MatMul, known: &Known<'_>) -> Result<Step, OpError> {
    let MatMul { transpose_a, transpose_b, fused } = *op;
    let dims = known.dims();
    let integer = known.inputs.first().is_some_and(|fact| fact.dtype.is_integer());
    let turn = move |x: Tensor, turned: bool| if turned { x.transpose(D::Minus2, D::Minus1) } else { Ok(x) };
    let prepared = match transpose_b {
        true => known.constant(1, "matmul b", &|b| b.transpose(D::Minus2, D::Minus1)?.contiguous())?,
        false => None,
    };
    one(move |x| {
        let a = turn(x.at(0)?, transpose_a)?;
        let b = match &prepared {
            Some(b) => b.clone(),
            None => turn(x.at(1)?, transpose_b)?,
        };
        let (a, b) = if integer { (a.to_dtype(There::F64)?, b.to_dtype(There::F64)?) } else { (a, b) };
        let y = match b.rank() {
            // One product of all rows instead of one per batch.
            2 if a.rank() > 2 => a.contiguous()?.flatten_to(a.rank() - 2)?.matmul(&b)?,
            _ => a.contiguous()?.broadcast_matmul(&b.contiguous()?)?,
        };
        let y = if integer { y.to_dtype(There::I64)? } else { y };
        finish(fused, y.reshape(dims.as_slice())?, x)
    })
}

pub(super) fn attention(op: &Attention, known: &Known<'_>) -> Result<Step, OpError> {
    if known.inputs.iter().any(|fact| fact.dtype != DType::F32) {
        return Err(super::step::lacking("attention of types other than float"));
    }
    if op.packed > 0 || op.zero_for_nan {
        return Err(super::step::lacking("attention as the kernels of this crate have it"));
    }
    let op = op.clone();
    one(move |x| {
        // To [batch, heads, rows, depth].
        let heads_first = |index: usize| -> candle::Result<Tensor> {
            let x = x.at(index)?;
            if op.rows_first[index] { x.transpose(1, 2)?.contiguous() } else { x.contiguous() }
        };
        let (q, k, v) = (heads_first(0)?, heads_first(1)?, heads_first(2)?);
        let mut scores = (q.matmul(&k.t()?)? * f64::from(op.scale))?;
        if op.mask {
            scores = scores.broadcast_add(&x.at(3)?)?;
        }
        let y = candle_nn::ops::softmax_last_dim(&scores.contiguous()?)?.matmul(&v)?;
        if op.rows_first[3] { y.transpose(1, 2)?.contiguous() } else { Ok(y) }
    })
}
