//! Reshapes of transposed values: where each group of axes that is merged or split stands together in the base, the
//! base can be reshaped and what comes out is transposed.

use super::Pass;
use crate::{
    graph::Node,
    ops::shape::Reshape,
    tensor::{Shape, Tensor},
};
use std::ops::Range;

/// Neighbouring axes before and after, with as many elements.
#[derive(Debug, PartialEq)]
struct Group {
    from: Range<usize>,
    to: Range<usize>,
}

impl Pass<'_> {
    pub(super) fn reshape(&mut self, node: &Node) -> Option<()> {
        let (base, perm) = self.first(node)?;
        let (&[x, _], &[output]) = (node.inputs.as_slice(), node.outputs.as_slice()) else { return None };
        let (from, to) = (self.shapes.tried(x)?, self.shapes.tried(output)?);
        if from.iter().any(|shape| shape.len() != perm.len())
            || from.iter().chain(&to).any(|shape| shape.contains(&0))
        {
            return None;
        }
        let groups = groups(&from, &to)?;
        let order = base_order(&groups, &perm, &from)?;
        // The axes of the new base, as axes of the output.
        let axes: Vec<usize> = order.iter().flat_map(|&group| groups[group].to.clone()).collect();
        let base_dims: Vec<Vec<usize>> = (0..perm.len())
            .map(|axis| {
                let of = perm.iter().position(|&from| from == axis).unwrap_or(axis);
                from.iter().map(|shape| shape[of]).collect()
            })
            .collect();
        let mut target = Vec::with_capacity(axes.len());
        let mut open = 0;
        for (position, &axis) in axes.iter().enumerate() {
            let dims: Vec<usize> = to.iter().map(|shape| shape[axis]).collect();
            target.push(match dims.first() {
                Some(&dim) if dims.iter().all(|&other| other == dim) => i64::try_from(dim).ok()?,
                _ if base_dims.get(position) == Some(&dims) => 0,
                _ => {
                    open += 1;
                    -1
                }
            });
        }
        if open > 1 {
            return None;
        }
        let target = self.graph.new_constant(Tensor::from_slice([target.len()], &target).ok()?);
        let mut perm = vec![0; axes.len()];
        for (position, &axis) in axes.iter().enumerate() {
            perm[axis] = position;
        }
        self.apply(node, Reshape { zero_copies: true }, vec![base, target], &perm)
    }
}

/// The smallest groups of axes that correspond, the same in all tries.
fn groups(from: &[Shape], to: &[Shape]) -> Option<Vec<Group>> {
    let (from_rank, to_rank) = (from.first()?.len(), to.first()?.len());
    let (mut i, mut j) = (0, 0);
    let mut groups = Vec::new();
    while i < from_rank || j < to_rank {
        let (start_i, start_j) = (i, j);
        i += usize::from(i < from_rank);
        j += usize::from(j < to_rank);
        loop {
            let products = from.iter().zip(to).map(|(from, to)| {
                (from[start_i..i].iter().product::<usize>(), to[start_j..j].iter().product::<usize>())
            });
            let products: Vec<(usize, usize)> = products.collect();
            if products.iter().all(|(a, b)| a == b) {
                break;
            }
            if products.iter().any(|(a, b)| a < b) && i < from_rank {
                i += 1;
            } else if products.iter().any(|(a, b)| a > b) && j < to_rank {
                j += 1;
            } else {
                return None;
            }
        }
        groups.push(Group { from: start_i..i, to: start_j..j });
    }
    Some(groups)
}

/// The groups in the order of the base, when the axes of each stand together there. Axes of 1 stand anywhere.
fn base_order(groups: &[Group], perm: &[usize], from: &[Shape]) -> Option<Vec<usize>> {
    let long = |axis: usize| from.iter().any(|shape| shape[axis] != 1);
    // For each axis of the base its axis before the reshape and its group.
    let mut order = Vec::new();
    let mut short = Vec::new();
    for base_axis in 0..perm.len() {
        let axis = perm.iter().position(|&from| from == base_axis)?;
        let group = groups.iter().position(|group| group.from.contains(&axis))?;
        if long(axis) {
            order.push((axis, group));
        } else {
            short.push((order.len(), group));
        }
    }
    let mut sequence: Vec<usize> = Vec::new();
    for pair in order.windows(2) {
        let ((axis, group), (next_axis, next_group)) = (pair[0], pair[1]);
        if group == next_group && next_axis < axis {
            return None;
        }
    }
    for &(_, group) in &order {
        if sequence.last() != Some(&group) {
            if sequence.contains(&group) {
                return None;
            }
            sequence.push(group);
        }
    }
    // Groups of nothing but ones: where the first of their axes stands, else last.
    for group in 0..groups.len() {
        if sequence.contains(&group) {
            continue;
        }
        let place = short.iter().find(|(_, of)| *of == group).map(|(before, _)| *before);
        let before = place.and_then(|before| before.checked_sub(1)).and_then(|last| order.get(last));
        let position = match (place, before) {
            (Some(_), Some((_, last))) => sequence.iter().position(|of| of == last)? + 1,
            (Some(_), None) => 0,
            (None, _) => sequence.len(),
        };
        sequence.insert(position, group);
    }
    Some(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_grouped_by_their_elements() {
        let shapes = |dims: &[usize]| vec![Shape::from(dims)];
        let group = |from, to| Group { from, to };
        assert_eq!(
            groups(&shapes(&[2, 6, 5, 5]), &shapes(&[2, 2, 3, 25])),
            Some(vec![group(0..1, 0..1), group(1..2, 1..3), group(2..4, 3..4)])
        );
        assert_eq!(groups(&shapes(&[4, 1]), &shapes(&[4])), Some(vec![group(0..1, 0..1), group(1..2, 1..1)]));
        assert_eq!(groups(&shapes(&[4, 3]), &shapes(&[3, 4])), Some(vec![group(0..2, 0..2)]));
    }

    #[test]
    fn groups_must_stand_together() {
        // [n, h, w, c] seen as [n, c, h, w].
        let from = [Shape::from([2, 6, 5, 5])];
        let perm = [0, 3, 1, 2];
        let flat = groups(&from, &[Shape::from([2, 6, 25])]).unwrap();
        assert_eq!(base_order(&flat, &perm, &from), Some(vec![0, 2, 1]));
        let row = groups(&from, &[Shape::from([2, 150])]).unwrap();
        assert_eq!(base_order(&row, &perm, &from), None);
        let pixel = [Shape::from([2, 6, 1, 1])];
        let row = groups(&pixel, &[Shape::from([2, 6])]).unwrap();
        assert!(base_order(&row, &perm, &pixel).is_some());
    }
}
