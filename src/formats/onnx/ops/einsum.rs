//! Einstein sums: the labels of `...` are written out here, the rest is [`crate::formats::einsum`].

use super::{Outputs, one};
use crate::{
    formats::{
        einsum::{self, Labels},
        onnx::{
            import::Import,
            node::{Node, Stop},
        },
    },
    graph::ValueId,
};

pub(super) fn einsum<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let equation = n.attributes.text("equation", "").replace(' ', "");
    let inputs = n.tensors(0)?;
    one(sum(i, &equation, &inputs)?)
}

/// Labels with `...` written out for `rank` axes: each of them is its place, counted from the back.
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
    einsum::sum_of_products(&mut i.b, &operands, &output)
        .ok_or_else(|| format!("equation \"{equation}\" is not supported").into())
}
