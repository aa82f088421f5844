//! Einstein sums as transposes, sums and matrix products: operands are joined one after the other.
//!
//! Importers write out what `...` stands for, each in its way; what is left are operands with one label per axis.

use crate::{
    graph::{Builder, ValueId},
    kernels::Reduce as R,
    ops::{
        join::Concat,
        layout::{Diagonal, Transpose},
        matmul::MatMul,
        reduce::Reduce,
        shape::{Reshape, ShapeOf},
        slice::Slice,
    },
    tensor::DType,
};

/// One label per axis; a letter, or whatever else the importer uses for the axes of `...`.
pub(super) type Labels = Vec<char>;

/// The sum over all labels that `output` has not of the product of the operands; axes of different operands with one label
/// have one size, or broadcast where the result keeps them. `None` when `output` has a label twice, or one that no operand has.
pub(super) fn sum_of_products(
    b: &mut Builder,
    operands: &[(ValueId, Labels)],
    output: &[char],
) -> Option<ValueId> {
    let mut joined: Option<(ValueId, Labels)> = None;
    for (position, (x, own)) in operands.iter().enumerate() {
        let (x, own) = diagonal(b, *x, own.clone());
        let later: Labels = operands[position + 1..].iter().flat_map(|(_, labels)| labels.clone()).collect();
        let needed = |label: char| output.contains(&label) || later.contains(&label);
        joined = Some(match joined {
            None => sum_out(b, x, &own, &needed),
            Some((y, labels)) => {
                let (x, own) = sum_out(b, x, &own, &|label| needed(label) || labels.contains(&label));
                let (y, labels) = sum_out(b, y, &labels, &|label| needed(label) || own.contains(&label));
                contract(b, (y, &labels), (x, &own), &needed)
            }
        });
    }
    let (x, labels) = joined?;
    let (x, labels) = sum_out(b, x, &labels, &|label| output.contains(&label));
    let known = output.iter().all(|label| labels.contains(label)) && output.len() == labels.len();
    known.then(|| arrange(b, x, &labels, output))
}

/// A label that occurs twice keeps the diagonal, as the last axis.
fn diagonal(b: &mut Builder, mut x: ValueId, mut labels: Labels) -> (ValueId, Labels) {
    while let Some((first, second)) = repeated(&labels) {
        let order = (0..labels.len()).filter(|axis| ![first, second].contains(axis)).chain([first, second]);
        let order: Vec<usize> = order.collect();
        x = transposed(b, x, order);
        let label = labels[first];
        labels.remove(second);
        labels.remove(first);
        labels.push(label);
        x = b.push(Diagonal { offset: 0 }, &[x]);
    }
    (x, labels)
}

fn repeated(labels: &[char]) -> Option<(usize, usize)> {
    (0..labels.len()).find_map(|second| {
        labels[..second].iter().position(|label| *label == labels[second]).map(|first| (first, second))
    })
}

/// Sums over the labels that are not kept.
fn sum_out(b: &mut Builder, x: ValueId, labels: &[char], keep: &dyn Fn(char) -> bool) -> (ValueId, Labels) {
    let axes: Vec<i64> =
        (0i64..).zip(labels).filter(|&(_, &label)| !keep(label)).map(|(axis, _)| axis).collect();
    if axes.is_empty() {
        return (x, labels.to_vec());
    }
    let sum = b.push(Reduce { kind: R::Sum, axes: Some(axes), keep_dims: false }, &[x]);
    (sum, labels.iter().copied().filter(|&label| keep(label)).collect())
}

/// The product of two operands, summed over what both have and nobody needs.
fn contract(
    builder: &mut Builder,
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
    let x = arrange(builder, x, a, &[&batch[..], &rows, &summed].concat());
    let y = arrange(builder, y, b, &[&batch[..], &summed, &columns].concat());
    let result = [&batch[..], &rows, &columns].concat();
    if rows.len() == 1 && summed.len() == 1 && columns.len() == 1 {
        return (builder.push(MatMul::default(), &[x, y]), result);
    }
    // Batch axes may broadcast, so they stay axes; the others become one each.
    let (x_shape, y_shape) = (shape(builder, x), shape(builder, y));
    let (first, second) = (batch.len(), batch.len() + rows.len());
    let x_batch = part(builder, x_shape, 0, first);
    let row_dims = part(builder, x_shape, first, second);
    let summed_dims = part(builder, x_shape, second, second + summed.len());
    let y_batch = part(builder, y_shape, 0, first);
    let column_dims = part(builder, y_shape, first + summed.len(), first + summed.len() + columns.len());
    let [m, k, n] = [row_dims, summed_dims, column_dims]
        .map(|dims| builder.push(Reduce { kind: R::Prod, axes: Some(vec![0]), keep_dims: true }, &[dims]));
    let x = reshaped(builder, x, &[x_batch, m, k]);
    let y = reshaped(builder, y, &[y_batch, k, n]);
    let z = builder.push(MatMul::default(), &[x, y]);
    let z_shape = shape(builder, z);
    let z_batch = part(builder, z_shape, 0, first);
    (reshaped(builder, z, &[z_batch, row_dims, column_dims]), result)
}

fn shape(b: &mut Builder, x: ValueId) -> ValueId {
    b.push(ShapeOf { dtype: DType::I64 }, &[x])
}

fn reshaped(b: &mut Builder, x: ValueId, parts: &[ValueId]) -> ValueId {
    let shape = b.push(Concat { axis: 0 }, parts);
    b.push(Reshape { zero_copies: false }, &[x, shape])
}

/// The elements of a vector from `start` to before `end`.
pub(super) fn part(b: &mut Builder, vector: ValueId, start: usize, end: usize) -> ValueId {
    let (start, end) = (b.integers(&[start as i64]), b.integers(&[end as i64]));
    b.push(Slice, &[vector, start, end])
}

/// The axes in another order.
fn arrange(b: &mut Builder, x: ValueId, from: &[char], to: &[char]) -> ValueId {
    let order = to.iter().filter_map(|label| from.iter().position(|other| other == label)).collect();
    transposed(b, x, order)
}

fn transposed(b: &mut Builder, x: ValueId, perm: Vec<usize>) -> ValueId {
    if perm.iter().enumerate().all(|(axis, &from)| axis == from) {
        return x;
    }
    b.push(Transpose { perm }, &[x])
}
