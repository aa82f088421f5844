//! Attention with all its options, put together from products and a softmax, and the rotation of
//! positions that goes with it.

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
        gather::Gather,
        generate::Range,
        join::{Concat, Split, SplitSizes, Tile},
        layout::Transpose,
        matmul::MatMul,
        reduce::Reduce,
        shape::{ExpandDims, Reshape, ShapeOf, Squeeze},
        softmax::Softmax,
        unary::Unary,
    },
    tensor::{DType, Tensor},
};

/// The size along an axis as a scalar.
fn size(i: &mut Import<'_>, x: ValueId, axis: i64) -> ValueId {
    let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[x]);
    let at = i.b.constant(Tensor::scalar(axis));
    i.b.push(Gather { axis: 0, batch_dims: 0, negative: true }, &[shape, at])
}

/// `[batch, length, heads * size]` as `[batch, heads, length, size]`.
pub(super) fn heads(i: &mut Import<'_>, x: ValueId, heads: i64) -> ValueId {
    let shape = i.b.integers(&[0, 0, heads, -1]);
    let x = i.b.push(Reshape { zero_copies: true }, &[x, shape]);
    i.b.push(Transpose { perm: vec![0, 2, 1, 3] }, &[x])
}

/// The way back.
pub(super) fn joined_heads(i: &mut Import<'_>, x: ValueId) -> ValueId {
    let x = i.b.push(Transpose { perm: vec![0, 2, 1, 3] }, &[x]);
    let shape = i.b.integers(&[0, 0, -1]);
    i.b.push(Reshape { zero_copies: true }, &[x, shape])
}

/// A vector 0, 1, .. as long as an axis.
pub(super) fn positions(i: &mut Import<'_>, x: ValueId, axis: i64) -> ValueId {
    let length = size(i, x, axis);
    let [start, step] = [0i64, 1].map(|bound| i.b.constant(Tensor::scalar(bound)));
    i.b.push(Range, &[start, length, step])
}

/// `Attention` of the standard operators.
pub(super) fn attention<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let [mut q, mut k, mut v] = [n.tensor(0)?, n.tensor(1)?, n.tensor(2)?];
    let flat = i.rank(q)? == 3;
    let dtype = i.dtype(q).ok_or("the type of the queries cannot be told")?;
    let (q_heads, kv_heads) = (n.attributes.int("q_num_heads", 0), n.attributes.int("kv_num_heads", 0));
    if flat {
        if q_heads <= 0 || kv_heads <= 0 {
            return Err("q_num_heads and kv_num_heads are missing".into());
        }
        (q, k, v) = (heads(i, q, q_heads), heads(i, k, kv_heads), heads(i, v, kv_heads));
    }
    let past = n.optional(4)?;
    if let (Some(past_k), Some(past_v)) = (past, n.optional(5)?) {
        k = i.b.push(Concat { axis: 2 }, &[past_k, k]);
        v = i.b.push(Concat { axis: 2 }, &[past_v, v]);
    }
    let present = [k, v];
    let counts = [q, k].map(|x| i.dims(x).and_then(|dims| dims.get(1).copied().flatten()));
    let repeats = match (q_heads, kv_heads, counts) {
        (q_heads @ 1.., kv_heads @ 1.., _) => q_heads / kv_heads,
        (_, _, [Some(q_heads), Some(kv_heads @ 1..)]) => (q_heads / kv_heads) as i64,
        _ => return Err("the number of heads cannot be told".into()),
    };
    (k, v) = (repeated(i, k, repeats), repeated(i, v, repeats));
    // The scale goes half to either side, as its square root.
    let head = i.dims(q).and_then(|dims| dims.last().copied().flatten());
    let scale = match (n.attributes.has("scale"), head) {
        (true, _) => n.attributes.float("scale", 1.0),
        (false, Some(head)) => 1.0 / (head as f32).sqrt(),
        (false, None) => return Err("the size of a head depends on the request".into()),
    };
    let root = math::scalar(i, dtype, f64::from(scale).sqrt());
    let q = i.b.push(Binary(B::Mul), &[q, root]);
    let k = i.b.push(Binary(B::Mul), &[k, root]);
    let scores = i.b.push(MatMul { transpose_b: true, ..MatMul::default() }, &[q, k]);
    let mut stages = [scores; 4];
    let cap = n.attributes.float("softcap", 0.0);
    let mut masked = scores;
    if cap > 0.0 {
        let cap = math::scalar(i, dtype, f64::from(cap));
        let ratio = i.b.push(Binary(B::Div), &[masked, cap]);
        let bent = i.b.push(Unary(U::Tanh), &[ratio]);
        masked = i.b.push(Binary(B::Mul), &[bent, cap]);
    }
    stages[1] = masked;
    let none = math::scalar(i, dtype, f64::NEG_INFINITY);
    if let Some(mask) = n.optional(3)? {
        masked = match i.dtype(mask) {
            Some(DType::Bool) => i.b.push(Select, &[mask, masked, none]),
            _ => i.b.push(Binary(B::Add), &[masked, mask]),
        };
    }
    let seen = seen(i, n, scores, past)?;
    for seen in &seen {
        masked = i.b.push(Select, &[*seen, masked, none]);
    }
    stages[2] = masked;
    let probabilities = match n.dtype("softmax_precision")? {
        Some(precision) if precision != dtype => {
            let wide = i.b.push(Cast { to: precision }, &[masked]);
            let wide = i.b.push(Softmax { axis: -1, log: false }, &[wide]);
            i.b.push(Cast { to: dtype }, &[wide])
        }
        _ => i.b.push(Softmax { axis: -1, log: false }, &[masked]),
    };
    let probabilities = match n.optional(3)?.is_some() || !seen.is_empty() {
        false => probabilities,
        // Who sees nothing gets zeros.
        true => {
            let best = i.b.push(Reduce { kind: R::Max, axes: Some(vec![-1]), keep_dims: true }, &[masked]);
            let blind = i.b.push(Compare(C::Equal), &[best, none]);
            let zero = math::scalar(i, dtype, 0.0);
            i.b.push(Select, &[blind, zero, probabilities])
        }
    };
    stages[3] = probabilities;
    let y = i.b.push(MatMul::default(), &[probabilities, v]);
    let y = if flat { joined_heads(i, y) } else { y };
    let mode = n.attributes.int("qk_matmul_output_mode", 0);
    if n.has_output(3) && n.opset < 24 && matches!(mode, 1 | 2) {
        return Err("scores between cap and mask are defined since operator set 24".into());
    }
    let stage = usize::try_from(mode).ok().and_then(|mode| stages.get(mode).copied());
    let stage = stage.ok_or_else(|| format!("qk_matmul_output_mode {mode}"))?;
    many([y, present[0], present[1], stage])
}

/// For each limit on what a query sees: where it holds, next to `[batch, heads, queries, keys]`.
fn seen<'a>(
    i: &mut Import<'a>,
    n: &Node<'a>,
    scores: ValueId,
    past: Option<ValueId>,
) -> Result<Vec<ValueId>, Stop> {
    let causal = n.attributes.flag("is_causal");
    let (left, right) = (n.attributes.int("left_window_size", -1), n.attributes.int("right_window_size", -1));
    let filled = n.optional(6)?;
    let mut limits = Vec::new();
    if !causal && left < 0 && right < 0 && filled.is_none() {
        return Ok(limits);
    }
    let (rows, keys) = (positions(i, scores, -2), positions(i, scores, -1));
    let mut rows = i.b.push(ExpandDims { axes: vec![1] }, &[rows]);
    if let Some(past) = past {
        let before = size(i, past, 2);
        rows = i.b.push(Binary(B::Add), &[rows, before]);
    }
    if let Some(filled) = filled {
        let filled = i.b.push(Cast { to: DType::I64 }, &[filled]);
        let filled = i.b.push(ExpandDims { axes: vec![1, 2, 3] }, &[filled]);
        limits.push(i.b.push(Compare(C::Less), &[keys, filled]));
        if past.is_none() {
            let queries = size(i, scores, -2);
            let before = i.b.push(Binary(B::Sub), &[filled, queries]);
            rows = i.b.push(Binary(B::Add), &[rows, before]);
        }
    }
    if causal {
        limits.push(i.b.push(Compare(C::LessEqual), &[keys, rows]));
    }
    if left >= 0 {
        let width = i.b.constant(Tensor::scalar(left));
        let first = i.b.push(Binary(B::Sub), &[rows, width]);
        limits.push(i.b.push(Compare(C::GreaterEqual), &[keys, first]));
    }
    if right >= 0 {
        let width = i.b.constant(Tensor::scalar(right));
        let last = i.b.push(Binary(B::Add), &[rows, width]);
        limits.push(i.b.push(Compare(C::LessEqual), &[keys, last]));
    }
    Ok(limits)
}

/// Each head `count` times in a row.
fn repeated(i: &mut Import<'_>, x: ValueId, count: i64) -> ValueId {
    if count <= 1 {
        return x;
    }
    let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[x]);
    let wide = i.b.push(ExpandDims { axes: vec![2] }, &[x]);
    let repeats = i.b.integers(&[1, 1, count, 1, 1]);
    let wide = i.b.push(Tile, &[wide, repeats]);
    let factors = i.b.integers(&[1, count, 1, 1]);
    let shape = i.b.push(Binary(B::Mul), &[shape, factors]);
    i.b.push(Reshape { zero_copies: false }, &[wide, shape])
}

/// Pairs of features turned by the angles of their positions, whose cosines and sines are given.
pub(super) fn rotary<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let [x, mut cos, mut sin] = [n.tensor(0)?, n.tensor(1)?, n.tensor(2)?];
    let count = n.attributes.int("num_heads", 0);
    let flat = i.rank(x)? == 3;
    let interleaved = n.attributes.flag("interleaved");
    let mut y = if flat {
        if count <= 0 {
            return Err("num_heads is missing".into());
        }
        heads(i, x, count)
    } else {
        x
    };
    if let Some(places) = n.optional(3)? {
        let pick = Gather { axis: 0, batch_dims: 0, negative: false };
        (cos, sin) = (i.b.push(pick.clone(), &[cos, places]), i.b.push(pick, &[sin, places]));
    }
    // [batch, length, half] next to [batch, heads, length, half]
    (cos, sin) =
        (i.b.push(ExpandDims { axes: vec![1] }, &[cos]), i.b.push(ExpandDims { axes: vec![1] }, &[sin]));
    let turned = n.attributes.int("rotary_embedding_dim", 0);
    let mut rest = None;
    if turned > 0 {
        let sizes = i.b.integers(&[turned, -1]);
        let parts = i.b.push_many(Split { axis: 3, sizes: SplitSizes::Input }, &[y, sizes], 2);
        y = parts[0];
        rest = Some(parts[1]);
    }
    let (a, b) = match interleaved {
        false => {
            let parts = i.b.push_many(Split { axis: 3, sizes: SplitSizes::Parts(2) }, &[y], 2);
            (parts[0], parts[1])
        }
        true => {
            let pairs = i.b.integers(&[0, 0, 0, -1, 2]);
            let pairs = i.b.push(Reshape { zero_copies: true }, &[y, pairs]);
            let parts = i.b.push_many(Split { axis: 4, sizes: SplitSizes::Parts(2) }, &[pairs], 2);
            let squeeze = Squeeze { axes: vec![4] };
            (i.b.push(squeeze.clone(), &parts[..1]), i.b.push(squeeze, &parts[1..]))
        }
    };
    let mut product = |x, y| i.b.push(Binary(B::Mul), &[x, y]);
    let (a_cos, b_sin, a_sin, b_cos) = (product(a, cos), product(b, sin), product(a, sin), product(b, cos));
    let real = i.b.push(Binary(B::Sub), &[a_cos, b_sin]);
    let imaginary = i.b.push(Binary(B::Add), &[a_sin, b_cos]);
    let mut z = match interleaved {
        false => i.b.push(Concat { axis: 3 }, &[real, imaginary]),
        true => {
            let parts = [real, imaginary].map(|part| i.b.push(ExpandDims { axes: vec![4] }, &[part]));
            let pairs = i.b.push(Concat { axis: 4 }, &parts);
            let shape = i.b.integers(&[0, 0, 0, -1]);
            i.b.push(Reshape { zero_copies: true }, &[pairs, shape])
        }
    };
    if let Some(rest) = rest {
        z = i.b.push(Concat { axis: 3 }, &[z, rest]);
    }
    one(if flat { joined_heads(i, z) } else { z })
}
