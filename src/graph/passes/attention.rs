//! Finds attention: two products with a softmax between them, and the transposes of heads around.

use super::{edit::Index, shapes::Shapes};
use crate::{
    graph::{Graph, Node, ValueId, evaluate::Machine},
    kernels::{Binary as B, Compare},
    ops::{Fused, Op, attention::Attention, layout::Transpose, matmul::MatMul},
    tensor::DType,
};

/// `[batch, rows, heads, depth]` to `[batch, heads, rows, depth]` and back.
const HEADS: [usize; 4] = [0, 2, 1, 3];

/// The same graph with one operator for each attention.
pub(super) fn find_attention(graph: Graph, machine: &Machine<'_>) -> Graph {
    if !graph.nodes.iter().any(|node| matches!(node.op, Op::Softmax(_))) {
        return graph;
    }
    graph.rewrite(machine, |graph, index, shapes, position| {
        attention(graph, index, shapes, position).or_else(|| output_rows_first(graph, index, position))
    })
}

/// A product whose first factor is a softmax of scores.
fn attention(
    graph: &Graph,
    index: &Index,
    shapes: &Shapes,
    position: usize,
) -> Option<(Attention, Vec<ValueId>)> {
    let (weights, v) = product(&graph.nodes[position], false)?;
    let (node, zero_for_nan) = softmax(graph, index, weights)?;
    let Node { op: Op::Softmax(softmax), inputs, .. } = node else { return None };
    let &scores = inputs.first()?;
    if shapes.rank(scores)? != 4 || !(softmax.axis == -1 || softmax.axis == 3) || softmax.log {
        return None;
    }
    let mut scale = 1.0;
    let mut mask = None;
    let mut products = scores;
    // Backwards: the mask was added last, the factor comes right after the product.
    if let Some([a, b]) = binary(graph, index, products, B::Add) {
        let is_product = |value: ValueId| follow_factors(graph, index, value).is_some();
        let (scaled, added) = if is_product(a) { (a, b) } else { (b, a) };
        (products, mask) = (scaled, Some(added));
    }
    let (factor, node) = follow_factors(graph, index, products)?;
    scale *= factor;
    let (mut q, mut k) = product(node, true)?;
    for factor in [&mut q, &mut k] {
        if let Some((x, by)) = scaled(graph, index, *factor) {
            (*factor, scale) = (x, scale * by);
        }
    }
    // Each head has its own rows: nothing is broadcast.
    let tried =
        |value: ValueId| shapes.tried(value).filter(|shapes| shapes.iter().all(|shape| shape.len() == 4));
    let (q_shapes, k_shapes, v_shapes) = (tried(q)?, tried(k)?, tried(v)?);
    let heads_equal =
        q_shapes.iter().zip(&k_shapes).zip(&v_shapes).all(|((q, k), v)| q[..2] == k[..2] && q[..2] == v[..2]);
    if !heads_equal || [q, k, v].iter().any(|&value| shapes.dtype(value) != Some(DType::F32)) {
        return None;
    }
    if let Some(mask) = mask {
        let (masks, scores) = (shapes.tried(mask)?, shapes.tried(scores)?);
        let fits = masks.iter().zip(&scores).all(|(mask, scores)| {
            mask.len() <= 4
                && mask.last() == scores.last()
                && mask.iter().rev().zip(scores.iter().rev()).all(|(&mask, &full)| mask == 1 || mask == full)
        });
        if !fits {
            return None;
        }
    }
    let mut rows_first = [false; 4];
    let mut inputs = vec![q, k, v];
    for (value, rows_first) in inputs.iter_mut().zip(&mut rows_first) {
        if let Some(base) = heads_of(graph, index, *value) {
            (*value, *rows_first) = (base, true);
        }
    }
    for factor in [0, 1] {
        if let Some((x, by)) = scaled(graph, index, inputs[factor]) {
            (inputs[factor], scale) = (x, scale * by);
        }
    }
    let mut packed = 0;
    if rows_first[..3] == [true; 3]
        && let Some((whole, heads)) = thirds(graph, index, shapes, &inputs)
    {
        (inputs, packed) = (vec![whole], heads);
    }
    inputs.extend(mask);
    Some((Attention { scale, mask: mask.is_some(), rows_first, zero_for_nan, packed }, inputs))
}

/// The softmax that makes the weights, and whether what is not a number in them is replaced by 0, as PyTorch does where
/// masks hide all keys.
fn softmax<'a>(graph: &'a Graph, index: &Index, weights: ValueId) -> Option<(&'a Node, bool)> {
    let node = graph.only_for(index, weights)?;
    let (Op::Select(_), &[condition, zero, kept]) = (&node.op, node.inputs.as_slice()) else {
        return Some((node, false));
    };
    let compare = graph.only_for(index, condition)?;
    let finds_nan = matches!(&compare.op, Op::Compare(compare) if compare.0 == Compare::NotEqual)
        && compare.inputs[..] == [kept, kept];
    let replaced = finds_nan && graph.constant_float(zero) == Some(0.0) && index.uses(kept) == 3;
    graph.maker(index, kept).filter(|_| replaced).map(|node| (node, true))
}

/// The tensor that queries, keys and values are the thirds of, row by row, and the number of heads.
fn thirds(graph: &Graph, index: &Index, shapes: &Shapes, parts: &[ValueId]) -> Option<(ValueId, usize)> {
    let heads = shapes.dims(*parts.first()?)?.get(2).copied()??;
    let rows = shapes.tried(*parts.first()?)?;
    let mut whole = None;
    for (position, &part) in parts.iter().enumerate() {
        let mut value = part;
        while let Some(Node { op: Op::Reshape(_) | Op::Squeeze(_), inputs, .. }) = graph.maker(index, value) {
            value = *inputs.first()?;
        }
        let node = graph.nodes.get(index.producer(value)?)?;
        let Op::Split(split) = &node.op else { return None };
        let &x = node.inputs.first()?;
        let (from, to) = (shapes.tried(x)?, shapes.tried(value)?);
        let fits = from.iter().zip(&to).zip(&rows).all(|((from, to), rows)| {
            let elements = |shape: &[usize]| shape.iter().product::<usize>();
            let axis = split.axis == 2 || split.axis + from.len() as i64 == 2;
            axis && from.len() > 2
                && from[..2] == rows[..2]
                && elements(from) == 3 * elements(to)
                && elements(to) == elements(rows)
        });
        if !fits || node.outputs.get(position) != Some(&value) || *whole.get_or_insert(x) != x {
            return None;
        }
    }
    Some((whole?, heads))
}

/// A transpose that puts the heads behind the rows is the attention's other way to write.
fn output_rows_first(graph: &Graph, index: &Index, position: usize) -> Option<(Attention, Vec<ValueId>)> {
    let node = &graph.nodes[position];
    let Op::Transpose(Transpose { perm }) = &node.op else { return None };
    let before = graph.only_for(index, *node.inputs.first()?)?;
    let Op::Attention(attention) = &before.op else { return None };
    if perm[..] != HEADS || attention.rows_first[3] {
        return None;
    }
    let mut attention = attention.clone();
    attention.rows_first[3] = true;
    Some((attention, before.inputs.clone()))
}

/// The factors of a plain product whose second one is transposed or not.
fn product(node: &Node, transposed: bool) -> Option<(ValueId, ValueId)> {
    match (&node.op, node.inputs.as_slice()) {
        (Op::MatMul(MatMul { transpose_a: false, transpose_b, fused }), &[a, b])
            if *transpose_b == transposed =>
        {
            (*fused == Fused::default()).then_some((a, b))
        }
        _ => None,
    }
}

/// The product behind constant factors.
fn follow_factors<'a>(graph: &'a Graph, index: &Index, value: ValueId) -> Option<(f32, &'a Node)> {
    let (value, factor) = match graph.only_for(index, value)?.op {
        Op::Binary(_) => scaled(graph, index, value)?,
        _ => (value, 1.0),
    };
    let node = graph.only_for(index, value)?;
    product(node, true).map(|_| (factor, node))
}

/// What is multiplied with, or divided by, a constant number.
fn scaled(graph: &Graph, index: &Index, value: ValueId) -> Option<(ValueId, f32)> {
    if let Some([a, b]) = binary(graph, index, value, B::Mul) {
        let number = |value| graph.constant_float(value);
        return number(b).map(|factor| (a, factor)).or_else(|| number(a).map(|factor| (b, factor)));
    }
    let [x, divisor] = binary(graph, index, value, B::Div)?;
    Some((x, 1.0 / graph.constant_float(divisor)?))
}

fn binary(graph: &Graph, index: &Index, value: ValueId, function: B) -> Option<[ValueId; 2]> {
    match graph.only_for(index, value)? {
        Node { op: Op::Binary(op), inputs, .. } if op.0 == function => inputs.as_slice().try_into().ok(),
        _ => None,
    }
}

/// What a value that has its heads in front was before.
fn heads_of(graph: &Graph, index: &Index, value: ValueId) -> Option<ValueId> {
    match graph.maker(index, value)? {
        Node { op: Op::Transpose(Transpose { perm }), inputs, .. } if perm[..] == HEADS => {
            inputs.first().copied()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::passes::edit::testing::{graph, operators_after, reshaped, wave},
        ops::{
            binary::Binary,
            join::{Split, SplitSizes},
            softmax::Softmax,
        },
    };

    #[test]
    fn heads_scale_and_mask() {
        for masked in [false, true] {
            let before = graph(&[0, 5, 3, 4], |b, x| {
                let heads = |b: &mut crate::graph::Builder| b.push(Transpose { perm: HEADS.to_vec() }, &[x]);
                let [q, k, v] = [heads(b), heads(b), heads(b)];
                let scores = b.push(MatMul { transpose_b: true, ..MatMul::default() }, &[q, k]);
                let root = b.scalar(2.0);
                let mut scores = b.push(Binary(B::Div), &[scores, root]);
                if masked {
                    let mask = b.constant(wave(&[1, 1, 5, 5]));
                    scores = b.push(Binary(B::Add), &[scores, mask]);
                }
                let weights = b.push(Softmax { axis: -1, log: false }, &[scores]);
                let y = b.push(MatMul::default(), &[weights, v]);
                b.push(Transpose { perm: HEADS.to_vec() }, &[y])
            });
            assert_eq!(operators_after(&before, &wave(&[2, 5, 3, 4]), find_attention), ["Attention"]);
        }
    }

    #[test]
    fn masks_that_hide_everything_leave_nothing() {
        let before = graph(&[0, 5, 3, 4], |b, x| {
            let heads = |b: &mut crate::graph::Builder| b.push(Transpose { perm: HEADS.to_vec() }, &[x]);
            let [q, k, v] = [heads(b), heads(b), heads(b)];
            let scores = b.push(MatMul { transpose_b: true, ..MatMul::default() }, &[q, k]);
            let mut hidden = [0.0; 25];
            hidden[5..10].fill(f32::NEG_INFINITY);
            let mask = b.constant(crate::tensor::Tensor::from_slice([5, 5], &hidden).unwrap());
            let scores = b.push(Binary(B::Add), &[scores, mask]);
            let weights = b.push(Softmax { axis: -1, log: false }, &[scores]);
            let nan = b.push(crate::ops::binary::Compare(Compare::NotEqual), &[weights, weights]);
            let zero = b.scalar(0.0);
            let weights = b.push(crate::ops::binary::Select, &[nan, zero, weights]);
            b.push(MatMul::default(), &[weights, v])
        });
        assert_eq!(operators_after(&before, &wave(&[2, 5, 3, 4]), find_attention), ["Attention"]);
    }

    #[test]
    fn thirds_of_rows_are_read_where_they_stand() {
        for (shape, axis) in [([2, 5, 36, 1, 1], 2), ([2, 5, 3, 3, 4], -3)] {
            let before = graph(&[2, 5, 36], |b, x| {
                let x = reshaped(b, x, &shape);
                let parts = b.push_many(Split { axis, sizes: SplitSizes::Parts(3) }, &[x], 3);
                let half = b.scalar(0.5);
                let heads: Vec<ValueId> =
                    parts.iter().map(|&part| reshaped(b, part, &[2, 5, 3, 4])).collect();
                let q = b.push(Binary(B::Mul), &[heads[0], half]);
                let [q, k, v] =
                    [q, heads[1], heads[2]].map(|x| b.push(Transpose { perm: HEADS.to_vec() }, &[x]));
                let scores = b.push(MatMul { transpose_b: true, ..MatMul::default() }, &[q, k]);
                let weights = b.push(Softmax { axis: -1, log: false }, &[scores]);
                b.push(MatMul::default(), &[weights, v])
            });
            let after = operators_after(&before, &wave(&[2, 5, 36]), find_attention);
            assert_eq!(after, ["Reshape", "Attention"], "{shape:?}");
        }
    }

    #[test]
    fn keys_that_are_shared_by_heads_stay() {
        let before = graph(&[2, 3, 5, 4], |b, x| {
            let k = b.constant(wave(&[1, 1, 6, 4]));
            let scores = b.push(MatMul { transpose_b: true, ..MatMul::default() }, &[x, k]);
            let weights = b.push(Softmax { axis: -1, log: false }, &[scores]);
            b.push(MatMul::default(), &[weights, k])
        });
        let after = operators_after(&before, &wave(&[2, 3, 5, 4]), find_attention);
        assert_eq!(after, ["MatMul", "Softmax", "MatMul"]);
    }
}
