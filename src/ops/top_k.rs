//! The largest or smallest elements along an axis.

use super::{
    Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs, known_integers, mapping::axis_of,
    with_element,
};
use crate::{kernels::Number, tensor::DType};
use serde::{Deserialize, Serialize};

/// The `k` (input 1) largest or smallest elements of input 0 along an axis, and their positions.
/// Equal elements come in the order of their positions; NaN counts as larger than any number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopK {
    /// The axis; negative from the back.
    pub axis: i64,
    /// The largest, else the smallest.
    pub largest: bool,
    /// From the first in rank to the last; else in the order of their positions.
    pub sorted: bool,
    /// Type of the positions, `I32` or `I64`.
    pub indices: DType,
}

impl Operator for TopK {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        let k = known_integers!(inputs, 1);
        let mut shape = inputs[0].shape.clone();
        let axis = axis_of(&shape, self.axis)?;
        let k = match k.as_slice() {
            [k] => usize::try_from(*k).map_err(|_| OpError::invalid(format!("Need k >= 0, got {k}")))?,
            _ => return Err(OpError::invalid("k must be one number")),
        };
        if k > shape[axis] {
            return Err(OpError::invalid(format!(
                "input must have at least k columns. Had {}, needed {k}",
                shape[axis]
            )));
        }
        shape[axis] = k;
        Ok(Inferred::Facts(vec![Fact::new(inputs[0].dtype, shape.clone()), Fact::new(self.indices, shape)]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let Self { largest, sorted, indices, .. } = *self;
        let (from, to) = (&cx.inputs[0].shape, &cx.outputs[0].shape);
        let axis = axis_of(from, self.axis)?;
        let inner: usize = from[axis + 1..].iter().product();
        let (dim, k, dtype) = (from[axis], to[axis], cx.inputs[0].dtype);
        // A key for each position, and the positions in rank.
        let scratch = dim.saturating_mul(2 * size_of::<u64>());
        let step = with_element!(dtype, T => Step::arena(move |io| {
            let (x, values) = (io.input::<T>(0)?, io.next_output::<T>()?);
            let mut positions = match indices {
                DType::I32 => Positions::I32(io.next_output()?),
                _ => Positions::I64(io.next_output()?),
            };
            let (keys, order) = io.scratch::<u64>()?.split_at_mut(dim);
            if values.is_empty() {
                return Ok(());
            }
            for row in 0..values.len() / k {
                let (outer, column) = (row / inner, row % inner);
                let at = |position: u64| x[(outer * dim + position as usize) * inner + column];
                for (position, key) in keys.iter_mut().enumerate() {
                    let ascending = at(position as u64).order_key();
                    *key = if largest { !ascending } else { ascending };
                }
                for (place, &position) in select(keys, order, k, sorted).iter().enumerate() {
                    let to = (outer * k + place) * inner + column;
                    values[to] = at(position);
                    positions.set(to, position);
                }
            }
            Ok(())
        }), else return Err(OpError::unsupported(format!("ranking of {dtype} is not supported"))));
        Ok(step.with_scratch(scratch))
    }
}

enum Positions<'a> {
    I32(&'a mut [i32]),
    I64(&'a mut [i64]),
}

impl Positions<'_> {
    fn set(&mut self, place: usize, position: u64) {
        match self {
            Self::I32(positions) => positions[place] = position as i32,
            Self::I64(positions) => positions[place] = position as i64,
        }
    }
}

/// The `k` positions with the least keys, ties by position.
fn select<'a>(keys: &[u64], order: &'a mut [u64], k: usize, sorted: bool) -> &'a [u64] {
    for (position, slot) in order.iter_mut().enumerate() {
        *slot = position as u64;
    }
    let rank = |&position: &u64| (keys[position as usize], position);
    if k < order.len() {
        order.select_nth_unstable_by_key(k, rank);
    }
    let best = &mut order[..k];
    match sorted {
        true => best.sort_unstable_by_key(rank),
        false => best.sort_unstable(),
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op_outputs, tensor::Tensor};
    use proptest::prelude::*;

    fn top(x: &Tensor, k: i32, axis: i64, largest: bool, sorted: bool) -> Option<Vec<Tensor>> {
        let op = TopK { axis, largest, sorted, indices: DType::I32 };
        run_op_outputs(op, &[x.clone(), Tensor::scalar(k)], 2).ok()
    }

    #[test]
    fn ranks_along_any_axis() {
        let x = Tensor::from_slice([2, 3], &[1.0f32, 5.0, 5.0, 9.0, f32::NAN, -1.0]).unwrap();
        let y = top(&x, 2, -1, true, true).unwrap();
        assert_eq!(y[1].as_slice::<i32>().unwrap(), [1, 2, 1, 0]);
        assert_eq!(y[0].as_slice::<f32>().unwrap()[..2], [5.0, 5.0]);
        let y = top(&x, 1, 0, false, true).unwrap();
        assert_eq!(y[1].as_slice::<i32>().unwrap(), [0, 0, 1]);
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [1.0, 5.0, -1.0]);
        let y = top(&x, 2, 1, true, false).unwrap();
        assert_eq!(y[1].as_slice::<i32>().unwrap(), [1, 2, 0, 1]);
        assert_eq!(top(&x, 0, 1, true, true).unwrap()[0].shape().to_vec(), [2, 0]);
        assert!(top(&x, 4, 1, true, true).is_none());
        assert!(top(&x, -1, 1, true, true).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn agrees_with_a_full_stable_sort(x in prop::collection::vec(-4i16..4, 1..40), k in 0usize..40) {
            let k = k.min(x.len());
            let y = top(&Tensor::from_slice([x.len()], &x).unwrap(), k as i32, 0, true, true).unwrap();
            let mut order: Vec<usize> = (0..x.len()).collect();
            order.sort_by_key(|&position| std::cmp::Reverse(x[position]));
            let expected: Vec<i32> = order[..k].iter().map(|&position| position as i32).collect();
            prop_assert_eq!(y[1].as_slice::<i32>().unwrap(), expected);
        }
    }
}
