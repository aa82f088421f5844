//! Operators that move elements. Where candle has no such operation, this crate's operator is run once on the
//! positions of the elements, and candle picks by the result.

use super::{
    convert::upload,
    step::{Known, Step, failed, lacking, one},
};
use crate::{
    graph::evaluate::evaluate,
    ops::{
        Op, OpError,
        gather::{Gather, GatherElements, GatherNd, OneHot},
        join::{Concat, Split},
        layout::Transpose,
        pad::PadMode,
    },
    tensor::Tensor as Host,
};
use candle_core::{self as candle, DType as There, Tensor};

/// Operators that [`by_index`] is for: input 0 is moved, the others say how.
pub(super) fn has(op: &Op) -> bool {
    matches!(
        op,
        Op::StridedSlice(_)
            | Op::Slice(_)
            | Op::SliceSize(_)
            | Op::Reverse(_)
            | Op::Roll(_)
            | Op::Diagonal(_)
            | Op::DepthToSpace(_)
            | Op::SpaceToDepth(_)
            | Op::SpaceToBatch(_)
            | Op::BatchToSpace(_)
            | Op::Tile(_)
            | Op::Pad(_)
            | Op::Trilu(_)
            | Op::MatrixBandPart(_)
    )
}

/// Picks elements by positions found while planning; position 0 is what fills gaps.
pub(super) fn by_index(op: &Op, known: &Known<'_>) -> Result<Step, OpError> {
    let from = known.inputs[0].shape.clone();
    let positions: Vec<i64> = (1..=from.elements() as i64).collect();
    let mut inputs = vec![Host::from_slice(from.clone(), &positions)?];
    let constant = matches!(op, Op::Pad(op) if op.mode == PadMode::Constant);
    for (index, fact) in known.inputs.iter().enumerate().skip(1) {
        let value = fact.value.clone();
        inputs.push(match constant && index == 2 {
            true => Host::scalar(0i64).reshaped(fact.shape.clone())?,
            false => {
                value.ok_or_else(|| lacking(&format!("{} by values that only a run knows", op.name())))?
            }
        });
    }
    let made = evaluate(known.machine, op, &inputs)?;
    let positions = made.first().ok_or(OpError::Memory("an output"))?.to_i64_vec()?;
    let dims = known.dims();
    let gaps = positions.contains(&0);
    if let Some(narrow) = (!gaps).then(|| part(&from, &positions)).flatten() {
        return one(move |x| {
            let mut x = x.at(0)?;
            for (axis, &(start, len)) in narrow.iter().enumerate() {
                x = x.narrow(axis, start, len)?;
            }
            x.reshape(dims.as_slice())
        });
    }
    let first = i64::from(!gaps);
    let positions: Vec<i64> = positions.into_iter().map(|position| position - first).collect();
    let positions = upload(&Host::from_slice([positions.len()], &positions)?, known.device)?;
    let filled = constant && known.inputs.len() > 2;
    one(move |inputs| {
        let mut x = inputs.at(0)?.flatten_all()?;
        if gaps {
            let gap =
                if filled { inputs.at(2)?.reshape(1)? } else { Tensor::zeros(1, x.dtype(), x.device())? };
            x = Tensor::cat(&[&gap, &x], 0)?;
        }
        x.contiguous()?.index_select(&positions, 0)?.reshape(dims.as_slice())
    })
}

/// Start and length along each axis, where the positions (from 1) are a plain part of a tensor.
fn part(from: &[usize], positions: &[i64]) -> Option<Vec<(usize, usize)>> {
    let coordinates = |position: i64| {
        let mut rest = usize::try_from(position - 1).ok()?;
        let mut found: Vec<usize> = from
            .iter()
            .rev()
            .map(|&dim| {
                let at = rest % dim.max(1);
                rest /= dim.max(1);
                at
            })
            .collect();
        found.reverse();
        Some(found)
    };
    let (first, last) = (coordinates(*positions.first()?)?, coordinates(*positions.last()?)?);
    let ranges = first.iter().zip(&last).map(|(&first, &last)| Some((first, (last + 1).checked_sub(first)?)));
    let ranges = ranges.collect::<Option<Vec<(usize, usize)>>>()?;
    let mut expected = vec![1usize];
    let mut stride = from.iter().product::<usize>();
    for (&(start, len), &dim) in ranges.iter().zip(from) {
        stride /= dim.max(1);
        let steps: Vec<usize> = (start..start + len).map(|at| at * stride).collect();
        expected = expected.iter().flat_map(|base| steps.iter().map(move |step| base + step)).collect();
    }
    let same = expected.len() == positions.len()
        && expected.iter().zip(positions).all(|(&expected, &position)| expected as i64 == position);
    same.then_some(ranges)
}

pub(super) fn transpose(op: &Transpose, known: &Known<'_>) -> Result<Step, OpError> {
    let rank = known.inputs[0].rank();
    let perm = if op.perm.is_empty() { (0..rank).rev().collect() } else { op.perm.clone() };
    one(move |x| x.at(0)?.permute(perm.as_slice()))
}

pub(super) fn concat(op: &Concat, known: &Known<'_>) -> Result<Step, OpError> {
    let axis = known.inputs[0].shape.axis(op.axis).ok_or(OpError::Memory("an axis"))?;
    one(move |x| Tensor::cat(&x.all()?, axis))
}

pub(super) fn split(op: &Split, known: &Known<'_>) -> Result<Step, OpError> {
    let axis = known.inputs[0].shape.axis(op.axis).ok_or(OpError::Memory("an axis"))?;
    let sizes: Vec<usize> = known.outputs.iter().map(|fact| fact.dims()[axis]).collect();
    Ok(Step::There(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let mut start = 0;
        sizes
            .iter()
            .map(|&size| {
                start += size;
                x.narrow(axis, start - size, size)
            })
            .collect()
    })))
}

/// Indices as `u32` or `i64` without negative ones.
fn wrapped(indices: &Tensor, dim: usize, negative: bool) -> candle::Result<Tensor> {
    let indices = indices.to_dtype(There::I64)?;
    if !negative {
        return Ok(indices);
    }
    let below = indices.lt(0i64)?.to_dtype(There::I64)?;
    let dim = Tensor::new(dim as i64, indices.device())?.broadcast_as(indices.shape())?;
    indices + (below * dim)?
}

pub(super) fn gather(op: &Gather, known: &Known<'_>) -> Result<Step, OpError> {
    let axis = known.inputs[0].shape.axis(op.axis).ok_or(OpError::Memory("an axis"))?;
    if op.batch_dims != 0 {
        return Err(lacking("Gather with batch dimensions"));
    }
    let (dim, negative, dims) = (known.inputs[0].dims()[axis], op.negative, known.dims());
    one(move |x| {
        let indices = wrapped(&x.at(1)?.flatten_all()?, dim, negative)?.contiguous()?;
        x.at(0)?.contiguous()?.index_select(&indices, axis)?.reshape(dims.as_slice())
    })
}

pub(super) fn gather_elements(op: &GatherElements, known: &Known<'_>) -> Result<Step, OpError> {
    let axis = known.inputs[0].shape.axis(op.axis).ok_or(OpError::Memory("an axis"))?;
    let dim = known.inputs[0].dims()[axis];
    one(move |x| {
        let indices = wrapped(&x.at(1)?, dim, true)?.contiguous()?;
        x.at(0)?.contiguous()?.gather(&indices, axis)
    })
}

pub(super) fn gather_nd(op: &GatherNd, known: &Known<'_>) -> Result<Step, OpError> {
    let (from, negative, dims) = (known.inputs[0].dims().to_vec(), op.negative, known.dims());
    let depth = known.inputs[1].dims().last().copied().unwrap_or(0);
    if op.batch_dims != 0 || depth == 0 {
        return Err(lacking("GatherNd with batch dimensions"));
    }
    one(move |x| {
        let indices = x.at(1)?;
        let last = indices.rank() - 1;
        let mut place: Option<Tensor> = None;
        for (axis, &dim) in from[..depth].iter().enumerate() {
            let index = wrapped(&indices.narrow(last, axis, 1)?.flatten_all()?, dim, negative)?;
            place = Some(match place {
                None => index,
                Some(before) => {
                    let dim = Tensor::new(dim as i64, before.device())?.broadcast_as(before.shape())?;
                    ((before * dim)? + index)?
                }
            });
        }
        let place = place.ok_or_else(|| candle::Error::Msg("no coordinates".into()))?.contiguous()?;
        let rows: usize = from[..depth].iter().product();
        let x = x.at(0)?.contiguous()?.reshape((rows, ()))?;
        x.index_select(&place, 0)?.reshape(dims.as_slice())
    })
}

pub(super) fn one_hot(op: &OneHot, known: &Known<'_>) -> Result<Step, OpError> {
    let dims = known.dims();
    let axis = usize::try_from(if op.axis < 0 { op.axis + dims.len() as i64 } else { op.axis });
    let axis = axis.ok().filter(|&axis| axis < dims.len()).ok_or(OpError::Memory("an axis"))?;
    let (depth, negative) = (dims[axis], op.negative);
    let mut line = vec![1; dims.len()];
    line[axis] = depth;
    let numbers =
        Tensor::arange(0i64, depth as i64, known.device).and_then(|all| all.reshape(line.as_slice()));
    let numbers = numbers.map_err(failed)?;
    one(move |x| {
        let dims = dims.as_slice();
        let indices = wrapped(&x.at(0)?, depth, negative)?.unsqueeze(axis)?;
        let here = indices.broadcast_as(dims)?.eq(&numbers.broadcast_as(dims)?)?;
        let value = |index: usize| x.at(index)?.reshape(())?.broadcast_as(dims);
        here.where_cond(&value(2)?, &value(3)?)
    })
}
