//! Einstein sums: the dimensions of `...`, whose number may not be known, become one; the rest is [`crate::formats::einsum`].

use super::{Outputs, arrays, one};
use crate::{
    formats::{
        einsum::{self, Labels},
        saved_model::import::{Import, Node, Stop},
    },
    graph::ValueId,
    ops::{
        join::Concat,
        shape::{Reshape, ShapeOf},
        slice::StridedSlice,
    },
    tensor::DType,
};

/// Stands for all dimensions that an ellipsis stands for, as one.
const ELLIPSIS: char = '.';

/// The labels of an operand; nothing where an ellipsis is not in front.
fn labels(text: &str) -> Option<Labels> {
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

pub(super) fn einsum(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let equation = n.attributes.text("equation").replace(' ', "");
    let unsupported = || Stop::from(format!("equation \"{equation}\" is not supported"));
    let (operands, output) = equation.split_once("->").ok_or_else(unsupported)?;
    let terms: Option<Vec<Labels>> = operands.split(',').map(labels).collect();
    let (terms, output) = (terms.ok_or_else(unsupported)?, labels(output).ok_or_else(unsupported)?);
    let known = |(at, label): (usize, &char)| label.is_ascii_alphabetic() || (at == 0 && *label == ELLIPSIS);
    if terms.len() != n.inputs.len()
        || !terms.iter().chain([&output]).all(|labels| labels.iter().enumerate().all(known))
    {
        return Err(unsupported());
    }
    let mut leading = None;
    let mut operands = Vec::with_capacity(terms.len());
    for (position, labels) in terms.into_iter().enumerate() {
        let x = n.tensor(i, position)?;
        operands.push((flattened(i, x, &labels, &mut leading), labels));
    }
    let result = einsum::sum_of_products(&mut i.b, &operands, &output).ok_or_else(unsupported)?;
    let Some(leading) = leading.filter(|_| output.first() == Some(&ELLIPSIS)) else { return one(result) };
    // The ellipsis' dimensions again.
    let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[result]);
    let rest = einsum::part(&mut i.b, shape, 1, output.len());
    let shape = i.b.push(Concat { axis: 0 }, &[leading, rest]);
    one(i.b.push(Reshape { zero_copies: false }, &[result, shape]))
}
