//! Losses, as models that were exported with their training's end have them.

use super::{Outputs, many, math, one};
use crate::{
    formats::onnx::{
        import::Import,
        node::{Node, Stop},
    },
    graph::ValueId,
    kernels::{Binary as B, Compare as C, Reduce as R, Unary as U},
    ops::{
        binary::{Binary, Compare, Select},
        cast::Cast,
        gather::{Gather, GatherElements},
        join::BroadcastTo,
        reduce::Reduce,
        shape::{ExpandDims, ShapeOf, Squeeze},
        softmax::Softmax,
        unary::Unary,
    },
    tensor::{DType, Tensor},
};

pub(super) fn negative_log_likelihood<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    one(loss(i, n, x)?)
}

pub(super) fn softmax_cross_entropy<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    let log = i.b.push(Softmax { axis: 1, log: true }, &[x]);
    let loss = loss(i, n, log)?;
    many([loss, log])
}

/// Of logarithms of probabilities `[n, classes, ..]`: minus those of the targets, weighted by class.
fn loss<'a>(i: &mut Import<'a>, n: &Node<'a>, x: ValueId) -> Result<ValueId, Stop> {
    let (target, weights) = (n.tensor(1)?, n.optional(2)?);
    let dtype = i.dtype(x).unwrap_or(DType::F32);
    let mut target = i.b.push(Cast { to: DType::I64 }, &[target]);
    let mut ignored = None;
    if n.attributes.has("ignore_index") {
        let index = i.b.constant(Tensor::scalar(n.attributes.int("ignore_index", 0)));
        let none = i.b.constant(Tensor::scalar(0i64));
        let mask = i.b.push(Compare(C::Equal), &[target, index]);
        target = i.b.push(Select, &[mask, none, target]);
        ignored = Some(mask);
    }
    let picked = i.b.push(ExpandDims { axes: vec![1] }, &[target]);
    let picked = i.b.push(GatherElements { axis: 1 }, &[x, picked]);
    let picked = i.b.push(Squeeze { axes: vec![1] }, &[picked]);
    let mut y = i.b.push(Unary(U::Neg), &[picked]);
    let mut weight = match weights {
        Some(weights) => i.b.push(Gather { axis: 0, batch_dims: 0, negative: false }, &[weights, target]),
        None => {
            let one = math::scalar(i, dtype, 1.0);
            let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[target]);
            i.b.push(BroadcastTo { bidirectional: false }, &[one, shape])
        }
    };
    if let Some(mask) = ignored {
        let none = math::scalar(i, dtype, 0.0);
        weight = i.b.push(Select, &[mask, none, weight]);
    }
    y = i.b.push(Binary(B::Mul), &[y, weight]);
    let sum = |i: &mut Import<'a>, x| i.b.push(Reduce { kind: R::Sum, axes: None, keep_dims: false }, &[x]);
    Ok(match n.attributes.text("reduction", "mean") {
        "none" => y,
        "sum" => sum(i, y),
        "mean" => {
            let (total, weight) = (sum(i, y), sum(i, weight));
            i.b.push(Binary(B::Div), &[total, weight])
        }
        other => return Err(format!("reduction \"{other}\" is not supported").into()),
    })
}
