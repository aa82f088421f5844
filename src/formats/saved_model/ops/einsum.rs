//! Einstein sums of one or two operands as transposes, sums and one matrix product.

use super::{Outputs, arrays, one};
use crate::{
    formats::saved_model::import::{Import, Node, Stop},
    graph::ValueId,
    kernels::Reduce as R,
    ops::{
        Fused,
        join::Concat,
        layout::{Diagonal, Transpose},
        matmul::MatMul,
        reduce::Reduce,
        shape::{Reshape, ShapeOf},
        slice::{SliceSize, StridedSlice},
    },
    tensor::DType,
};

/// Stands for all dimensions that an ellipsis stands for, as one.
const ELLIPSIS: char = '.';

/// The labels of an operand; nothing where an ellipsis is not in front.
fn labels(text: &str) -> Option<Vec<char>> {
    match text.strip_prefix("...") {
        Some(rest) => Some([ELLIPSIS].into_iter().chain(rest.chars()).collect()),
        None => Some(text.chars().collect()),
    }
}

/// An operand with the dimensions of an ellipsis as one, and what these are.
fn flattened(i: &mut Import<'_, '_>, x: ValueId, labels: &[char], leading: &mut Option<ValueId>) -> ValueId {
    if labels.first() != Some(&ELLIPSIS) {
        return x;
    }
    let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[x]);
    let behind = 1 - labels.len() as i64;
    let [none, end, stride] = [0, behind, 1].map(|bound| i.b.integers(&[bound]));
    let cut = |begin_mask, end_mask| StridedSlice {
        begin_mask,
        end_mask,
        ellipsis_mask: 0,
        new_axis_mask: 0,
        shrink_axis_mask: 0,
    };
    let (front, back) = match behind {
        0 => (shape, i.b.integers(&[])),
        _ => (
            i.b.push(cut(1, 0), &[shape, none, end, stride]),
            i.b.push(cut(0, 1), &[shape, end, none, stride]),
        ),
    };
    leading.get_or_insert(front);
    let front = arrays::product(i, front, true);
    let whole = i.b.push(Concat { axis: 0 }, &[front, back]);
    i.b.push(Reshape { zero_copies: false }, &[x, whole])
}

/// An operand whose last two labels are the same, as its diagonal.
fn diagonal(i: &mut Import<'_, '_>, x: ValueId, labels: &mut Vec<char>) -> ValueId {
    match labels.as_slice() {
        [.., a, b] if a == b => {
            labels.pop();
            i.b.push(Diagonal { offset: 0 }, &[x])
        }
        _ => x,
    }
}

pub(super) fn einsum(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let equation = n.attributes.text("equation").replace(' ', "");
    let unsupported = || Stop::from(format!("equation \"{equation}\" is not supported"));
    let (operands, output) = equation.split_once("->").ok_or_else(unsupported)?;
    let operands: Option<Vec<Vec<char>>> = operands.split(',').map(labels).collect();
    let (mut operands, output) = (operands.ok_or_else(unsupported)?, labels(output).ok_or_else(unsupported)?);
    if operands.len() != n.inputs.len() {
        return Err(unsupported());
    }
    let mut leading = None;
    let mut values = Vec::new();
    for (position, labels) in operands.iter_mut().enumerate() {
        let x = n.tensor(i, position)?;
        let x = flattened(i, x, labels, &mut leading);
        values.push(diagonal(i, x, labels));
    }
    let distinct =
        |labels: &[char]| labels.iter().enumerate().all(|(at, label)| !labels[..at].contains(label));
    let plain = |labels: &Vec<char>| {
        let known =
            |(at, label): (usize, &char)| label.is_ascii_alphabetic() || (at == 0 && *label == ELLIPSIS);
        labels.iter().enumerate().all(known) && distinct(labels)
    };
    if !operands.iter().chain([&output]).all(plain) {
        return Err(unsupported());
    }
    let result = match operands.as_slice() {
        [a] if output.iter().all(|label| a.contains(label)) => {
            let (x, left) = sum_out(i, values[0], a, &|label| output.contains(&label));
            arrange(i, x, &left, &output)
        }
        [a, b] if output.iter().all(|label| a.contains(label) || b.contains(label)) => {
            let (x, y) = (values[0], values[1]);
            let (x, a) = sum_out(i, x, a, &|label| b.contains(&label) || output.contains(&label));
            let (y, b) = sum_out(i, y, b, &|label| a.contains(&label) || output.contains(&label));
            contract(i, (x, &a), (y, &b), &output)
        }
        _ => return Err(unsupported()),
    };
    let Some(leading) = leading.filter(|_| output.first() == Some(&ELLIPSIS)) else { return one(result) };
    // The ellipsis' dimensions again.
    let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[result]);
    let rest = part(i, shape, 1, output.len() - 1);
    let shape = i.b.push(Concat { axis: 0 }, &[leading, rest]);
    one(i.b.push(Reshape { zero_copies: false }, &[result, shape]))
}

/// Sums over the labels that nobody else has.
fn sum_out(
    i: &mut Import<'_, '_>,
    x: ValueId,
    labels: &[char],
    keep: &dyn Fn(char) -> bool,
) -> (ValueId, Vec<char>) {
    let axes: Vec<i64> =
        (0i64..).zip(labels).filter(|&(_, &label)| !keep(label)).map(|(axis, _)| axis).collect();
    if axes.is_empty() {
        return (x, labels.to_vec());
    }
    let sum = i.b.push(Reduce { kind: R::Sum, axes: Some(axes), keep_dims: false }, &[x]);
    (sum, labels.iter().copied().filter(|&label| keep(label)).collect())
}

fn contract(
    i: &mut Import<'_, '_>,
    (x, a): (ValueId, &[char]),
    (y, b): (ValueId, &[char]),
    output: &[char],
) -> ValueId {
    let pick = |labels: &[char], wanted: &dyn Fn(char) -> bool| -> Vec<char> {
        labels.iter().copied().filter(|&label| wanted(label)).collect()
    };
    let batch = pick(a, &|label| b.contains(&label) && output.contains(&label));
    let summed = pick(a, &|label| b.contains(&label) && !output.contains(&label));
    let rows = pick(a, &|label| !b.contains(&label));
    let columns = pick(b, &|label| !a.contains(&label));
    let x = arrange(i, x, a, &[&batch[..], &rows, &summed].concat());
    let y = arrange(i, y, b, &[&batch[..], &summed, &columns].concat());
    let (x_shape, y_shape) =
        (i.b.push(ShapeOf { dtype: DType::I64 }, &[x]), i.b.push(ShapeOf { dtype: DType::I64 }, &[y]));
    let (first, second) = (batch.len(), batch.len() + rows.len());
    let batch_dims = part(i, x_shape, 0, batch.len());
    let row_dims = part(i, x_shape, first, rows.len());
    let summed_dims = part(i, x_shape, second, summed.len());
    let column_dims = part(i, y_shape, batch.len() + summed.len(), columns.len());
    let [m, k, n] = [row_dims, summed_dims, column_dims].map(|dims| arrays::product(i, dims, true));
    let reshape = Reshape { zero_copies: false };
    let shape = i.b.push(Concat { axis: 0 }, &[batch_dims, m, k]);
    let x = i.b.push(reshape.clone(), &[x, shape]);
    let shape = i.b.push(Concat { axis: 0 }, &[batch_dims, k, n]);
    let y = i.b.push(reshape.clone(), &[y, shape]);
    let z = i.b.push(MatMul { transpose_a: false, transpose_b: false, fused: Fused::default() }, &[x, y]);
    let shape = i.b.push(Concat { axis: 0 }, &[batch_dims, row_dims, column_dims]);
    let z = i.b.push(reshape, &[z, shape]);
    arrange(i, z, &[&batch[..], &rows, &columns].concat(), output)
}

/// `length` elements of a vector from `start` on.
fn part(i: &mut Import<'_, '_>, vector: ValueId, start: usize, length: usize) -> ValueId {
    let (start, length) = (i.b.integers(&[start as i64]), i.b.integers(&[length as i64]));
    i.b.push(SliceSize, &[vector, start, length])
}

/// The axes in another order.
fn arrange(i: &mut Import<'_, '_>, x: ValueId, from: &[char], to: &[char]) -> ValueId {
    if from == to {
        return x;
    }
    let perm = to.iter().filter_map(|label| from.iter().position(|other| other == label)).collect();
    i.b.push(Transpose { perm }, &[x])
}
