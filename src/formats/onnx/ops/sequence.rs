//! Sequences and optional values. How long a sequence is must be known while importing, so that it
//! is no value of the graph but a list of some.

use super::{Outputs, arrays, many, one};
use crate::{
    formats::onnx::{
        import::Import,
        node::{Node, Stop, Value},
    },
    graph::ValueId,
    ops::{
        join::{Split, SplitSizes},
        shape::{ExpandDims, Squeeze},
    },
    tensor::Tensor,
};

/// Tensors that a sequence may have.
const MAX_LENGTH: usize = 1 << 12;

pub(super) fn construct<'a>(_: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    Ok(vec![Value::Sequence(n.tensors(0)?)])
}

pub(super) fn empty<'a>(_: &mut Import<'a>, _: &Node<'a>) -> Outputs {
    Ok(vec![Value::Sequence(Vec::new())])
}

/// A position in a sequence; negative from the back.
fn position<'a>(i: &mut Import<'a>, n: &Node<'a>, input: usize, length: usize) -> Result<usize, Stop> {
    let position = n.integer(i, input)?;
    let from_front = if position < 0 { position.saturating_add(length as i64) } else { position };
    usize::try_from(from_front).map_err(|_| format!("position {position} of {length} tensors").into())
}

pub(super) fn at<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let values = n.sequence(0)?;
    let at = position(i, n, 1, values.len())?;
    one(*values.get(at).ok_or_else(|| format!("position {at} of {} tensors", values.len()))?)
}

pub(super) fn insert<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let mut values = n.sequence(0)?.to_vec();
    let at = if n.optional(2)?.is_some() { position(i, n, 2, values.len())? } else { values.len() };
    if at > values.len() || values.len() >= MAX_LENGTH {
        return Err(format!("position {at} of {} tensors", values.len()).into());
    }
    values.insert(at, n.tensor(1)?);
    Ok(vec![Value::Sequence(values)])
}

pub(super) fn erase<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let mut values = n.sequence(0)?.to_vec();
    let last = values.len().checked_sub(1).ok_or("the sequence is empty")?;
    let at = if n.optional(1)?.is_some() { position(i, n, 1, values.len())? } else { last };
    if at > last {
        return Err(format!("position {at} of {} tensors", values.len()).into());
    }
    values.remove(at);
    Ok(vec![Value::Sequence(values)])
}

pub(super) fn length<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let length = n.sequence(0)?.len() as i64;
    one(i.b.constant(Tensor::scalar(length)))
}

/// Joined along an axis, which is new if `new_axis` is set.
pub(super) fn concat<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let axis = n.attributes.int("axis", 0);
    let mut values = n.sequence(0)?.to_vec();
    if n.attributes.flag("new_axis") {
        for value in &mut values {
            *value = i.b.push(ExpandDims { axes: vec![axis] }, &[*value]);
        }
    }
    arrays::joined(i, &values, axis)
}

/// Parts of length 1, of one given length, or of given lengths, along an axis of fixed size.
pub(super) fn split<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (x, axis) = (n.tensor(0)?, n.attributes.int("axis", 0));
    let dims = i.dims(x).ok_or("the shape of the input cannot be told")?;
    let at = if axis < 0 { axis + dims.len() as i64 } else { axis };
    let dim = usize::try_from(at).ok().and_then(|at| dims.get(at).copied().flatten());
    let dim = dim.ok_or("the length of the split axis depends on the request")?;
    let lengths: Vec<i64> = match n.optional(1)? {
        None => vec![1; dim.min(MAX_LENGTH + 1)],
        Some(split) => {
            let scalar = i.dims(split).is_some_and(|dims| dims.is_empty());
            let given = n.integers(i, 1)?.unwrap_or_default();
            match (scalar, given.as_slice()) {
                (true, &[length]) if length > 0 => {
                    let (whole, length) = (dim as i64, length);
                    let parts = (whole as u64).div_ceil(length as u64).min(MAX_LENGTH as u64 + 1) as i64;
                    (0..parts).map(|part| length.min(whole - part * length)).collect()
                }
                (true, _) => return Err("the length of parts is not positive".into()),
                (false, _) => given,
            }
        }
    };
    if lengths.is_empty() || lengths.len() > MAX_LENGTH {
        return Err(format!("{} parts", lengths.len()).into());
    }
    let sizes = i.b.integers(&lengths);
    let mut parts = i.b.push_many(Split { axis, sizes: SplitSizes::Input }, &[x, sizes], lengths.len());
    if n.optional(1)?.is_none() && n.attributes.int("keepdims", 1) == 0 {
        for part in &mut parts {
            *part = i.b.push(Squeeze { axes: vec![axis] }, &[*part]);
        }
    }
    Ok(vec![Value::Sequence(parts)])
}

/// An optional is its value, or absent.
pub(super) fn optional<'a>(_: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    Ok(vec![n.inputs.first().cloned().unwrap_or(Value::Absent)])
}

pub(super) fn has_element<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let has = match n.inputs.first() {
        Some(Value::Missing) => return Err(Stop::Missing),
        Some(Value::Absent) | None => false,
        Some(Value::Tensor(_) | Value::Sequence(_)) => true,
    };
    one(i.b.constant(Tensor::scalar(has)))
}

pub(super) fn get_element<'a>(_: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    match n.inputs.first() {
        Some(Value::Sequence(values)) => Ok(vec![Value::Sequence(values.clone())]),
        _ => many([n.tensor(0)?] as [ValueId; 1]),
    }
}
