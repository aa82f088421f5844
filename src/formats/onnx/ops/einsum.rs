//! Einstein sums as transposes, sums and matrix products: operands are joined one after the other.

use super::{Outputs, convolution, one};
use crate::{
    formats::onnx::{
        import::Import,
        node::{Node, Stop},
    },
    graph::ValueId,
    kernels::Reduce as R,
    ops::{
        gather::GatherElements,
        join::{BroadcastTo, Concat},
        matmul::MatMul,
        reduce::Reduce,
        shape::{Reshape, ShapeOf, Squeeze},
        slice::Slice,
    },
    tensor::DType,
};

/// A label is a letter, or a place among the axes of `...`, counted from the back.
type Labels = Vec<char>;

pub(super) fn einsum<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let equation = n.attributes.text("equation", "").replace(' ', "");
    let inputs = n.tensors(0)?;
    one(sum(i, &equation, &inputs)?)
}

/// Labels with `...` written out for `rank` axes.
fn labels(text: &str, rank: Option<usize>, widest: &mut usize) -> Result<Labels, Stop> {
    let misfit = || Stop::Reason(format!("the term \"{text}\" is not supported"));
    let (before, after) = match text.split_once("...") {
        None => (text, None),
        Some((before, after)) => (before, Some(after)),
    };
    let letters = |text: &str| -> Result<Labels, Stop> {
        match text.chars().all(|letter| letter.is_ascii_alphabetic()) {
            true => Ok(text.chars().collect()),
            false => Err(misfit()),
        }
    };
    let mut found = letters(before)?;
    if let Some(after) = after {
        let after = letters(after)?;
        let own = match rank {
            Some(rank) => rank.checked_sub(found.len() + after.len()).ok_or_else(misfit)?,
            None => *widest,
        };
        if own > 10 {
            return Err(misfit());
        }
        *widest = own.max(*widest);
        found.extend((0..own).rev().map(|place| char::from(b'0' + place as u8)));
        found.extend(after);
    }
    match rank {
        Some(rank) if rank != found.len() => Err(misfit()),
        _ => Ok(found),
    }
}

fn sum(i: &mut Import<'_>, equation: &str, inputs: &[ValueId]) -> Result<ValueId, Stop> {
    let (terms, output) = match equation.split_once("->") {
        Some((terms, output)) => (terms, Some(output)),
        None => (equation, None),
    };
    let terms: Vec<&str> = terms.split(',').collect();
    if terms.len() != inputs.len() {
        return Err(format!("{} terms for {} inputs", terms.len(), inputs.len()).into());
    }
    let mut widest = 0;
    let mut operands = Vec::with_capacity(inputs.len());
    for (term, &x) in terms.iter().zip(inputs) {
        let rank = i.rank(x)?;
        operands.push((x, labels(term, Some(rank), &mut widest)?));
    }
    let output = match output {
        Some(output) => labels(output, None, &mut widest)?,
        // Without an output: what occurs once, in alphabetical order, after the axes of `...`.
        None => {
            let all: Labels = operands.iter().flat_map(|(_, labels)| labels.clone()).collect();
            let mut once: Labels = all
                .iter()
                .copied()
                .filter(|label| all.iter().filter(|other| *other == label).count() == 1)
                .collect();
            once.retain(char::is_ascii_alphabetic);
            once.sort_unstable();
            (0..widest).rev().map(|place| char::from(b'0' + place as u8)).chain(once).collect()
        }
    };
    let mut joined: Option<(ValueId, Labels)> = None;
    for position in 0..operands.len() {
        let (x, own) = operands[position].clone();
        let (x, own) = diagonal(i, x, own)?;
        let later: Labels = operands[position + 1..].iter().flat_map(|(_, labels)| labels.clone()).collect();
        let needed = |label: char| output.contains(&label) || later.contains(&label);
        joined = Some(match joined {
            None => sum_out(i, x, &own, &needed),
            Some((y, labels)) => {
                let (x, own) = sum_out(i, x, &own, &|label| needed(label) || labels.contains(&label));
                let (y, labels) = sum_out(i, y, &labels, &|label| needed(label) || own.contains(&label));
                contract(i, (y, &labels), (x, &own), &needed)
            }
        });
    }
    let (x, labels) = joined.ok_or("there are no inputs")?;
    let (x, labels) = sum_out(i, x, &labels, &|label| output.contains(&label));
    if !output.iter().all(|label| labels.contains(label)) || output.len() != labels.len() {
        return Err(format!("equation \"{equation}\" is not supported").into());
    }
    Ok(arrange(i, x, &labels, &output))
}

/// A label that occurs twice keeps the diagonal.
fn diagonal(i: &mut Import<'_>, mut x: ValueId, mut labels: Labels) -> Result<(ValueId, Labels), Stop> {
    while let Some((first, second)) = repeated(&labels) {
        // The two axes last; on the diagonal the last index is the row's.
        let rank = labels.len();
        let perm: Vec<usize> =
            (0..rank).filter(|axis| ![first, second].contains(axis)).chain([first, second]).collect();
        x = convolution::transposed(i, x, perm);
        let label = labels[first];
        labels.remove(second);
        labels.remove(first);
        labels.push(label);
        // Indices 0, 1, .. down the rows: a running sum of ones.
        let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[x]);
        let ones = i.b.constant(crate::tensor::Tensor::scalar(1i64));
        let [start, end] = [0, -1].map(|bound| i.b.integers(&[bound]));
        let column = i.b.push(Slice, &[shape, start, end]);
        let one = i.b.integers(&[1]);
        let column = i.b.push(Concat { axis: 0 }, &[column, one]);
        let ones = i.b.push(BroadcastTo { bidirectional: false }, &[ones, column]);
        let op =
            crate::ops::cumulative::Cumulative { axis: -2, exclusive: true, reverse: false, product: false };
        let indices = i.b.push(op, &[ones]);
        let picked = i.b.push(GatherElements { axis: -1 }, &[x, indices]);
        x = i.b.push(Squeeze { axes: vec![-1] }, &[picked]);
    }
    Ok((x, labels))
}

fn repeated(labels: &[char]) -> Option<(usize, usize)> {
    (0..labels.len()).find_map(|second| {
        labels[..second].iter().position(|label| *label == labels[second]).map(|first| (first, second))
    })
}

/// Sums over the labels that are not needed.
fn sum_out(
    i: &mut Import<'_>,
    x: ValueId,
    labels: &[char],
    keep: &dyn Fn(char) -> bool,
) -> (ValueId, Labels) {
    let axes: Vec<i64> =
        (0i64..).zip(labels).filter(|&(_, &label)| !keep(label)).map(|(axis, _)| axis).collect();
    if axes.is_empty() {
        return (x, labels.to_vec());
    }
    let sum = i.b.push(Reduce { kind: R::Sum, axes: Some(axes), keep_dims: false }, &[x]);
    (sum, labels.iter().copied().filter(|&label| keep(label)).collect())
}

/// The product of two operands, summed over what both have and nobody needs.
fn contract(
    i: &mut Import<'_>,
    (x, a): (ValueId, &[char]),
    (y, b): (ValueId, &[char]),
    needed: &dyn Fn(char) -> bool,
) -> (ValueId, Labels) {
    let pick = |labels: &[char], wanted: &dyn Fn(char) -> bool| -> Labels {
        labels.iter().copied().filter(|&label| wanted(label)).collect()
    };
    let batch = pick(a, &|label| b.contains(&label) && needed(label));
    let summed = pick(a, &|label| b.contains(&label) && !needed(label));
    let rows = pick(a, &|label| !b.contains(&label));
    let columns = pick(b, &|label| !a.contains(&label));
    let x = arrange(i, x, a, &[&batch[..], &rows, &summed].concat());
    let y = arrange(i, y, b, &[&batch[..], &summed, &columns].concat());
    let result = [&batch[..], &rows, &columns].concat();
    if rows.len() == 1 && summed.len() == 1 && columns.len() == 1 {
        return (i.b.push(MatMul::default(), &[x, y]), result);
    }
    // Batch axes may broadcast, so they stay axes; the others become one each.
    let (x_shape, y_shape) =
        (i.b.push(ShapeOf { dtype: DType::I64 }, &[x]), i.b.push(ShapeOf { dtype: DType::I64 }, &[y]));
    let (first, second) = (batch.len(), batch.len() + rows.len());
    let x_batch = part(i, x_shape, 0, first);
    let row_dims = part(i, x_shape, first, second);
    let summed_dims = part(i, x_shape, second, second + summed.len());
    let y_batch = part(i, y_shape, 0, first);
    let column_dims = part(i, y_shape, first + summed.len(), first + summed.len() + columns.len());
    let [m, k, n] = [row_dims, summed_dims, column_dims]
        .map(|dims| i.b.push(Reduce { kind: R::Prod, axes: Some(vec![0]), keep_dims: true }, &[dims]));
    let reshape = Reshape { zero_copies: false };
    let shape = i.b.push(Concat { axis: 0 }, &[x_batch, m, k]);
    let x = i.b.push(reshape.clone(), &[x, shape]);
    let shape = i.b.push(Concat { axis: 0 }, &[y_batch, k, n]);
    let y = i.b.push(reshape.clone(), &[y, shape]);
    let z = i.b.push(MatMul::default(), &[x, y]);
    let z_shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[z]);
    let z_batch = part(i, z_shape, 0, first);
    let shape = i.b.push(Concat { axis: 0 }, &[z_batch, row_dims, column_dims]);
    (i.b.push(reshape, &[z, shape]), result)
}

/// The elements of a vector from `start` to before `end`.
fn part(i: &mut Import<'_>, vector: ValueId, start: usize, end: usize) -> ValueId {
    let (start, end) = (i.b.integers(&[start as i64]), i.b.integers(&[end as i64]));
    i.b.push(Slice, &[vector, start, end])
}

/// The axes in another order.
fn arrange(i: &mut Import<'_>, x: ValueId, from: &[char], to: &[char]) -> ValueId {
    if from == to {
        return x;
    }
    let perm: Vec<usize> =
        to.iter().filter_map(|label| from.iter().position(|other| other == label)).collect();
    convolution::transposed(i, x, perm)
}
