//! Padding: more elements before and after a tensor along each axis.

use super::{
    Fact, Inferred, Lower, OpError, Operator, Step,
    elements::{Elements, Item, Move, moving},
    expect_inputs, known_integers,
    mapping::{Axis, Mapping, planned_integers, row_major},
};
use crate::tensor::Shape;
use serde::{Deserialize, Serialize};

/// What the padding holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PadMode {
    /// One value.
    Constant,
    /// The mirror image without the edge element: `c b | a b c | b a`.
    Reflect,
    /// The mirror image with the edge element: `b a | a b c | c b`.
    Symmetric,
    /// The edge element: `a a | a b c | c c`.
    Edge,
}

/// Input 0 with `pads[i][0]` elements before and `pads[i][1]` after along axis `i`; input 1 holds
/// the pads as integers `[rank, 2]`. Negative pads of `Constant` cut off elements. Input 2, when
/// given, is the scalar that `Constant` pads with; zero else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pad {
    /// What the padding holds.
    pub mode: PadMode,
}

impl Pad {
    fn padded(&self, from: &Shape, pads: &[i64]) -> Result<Shape, OpError> {
        let misfit = || {
            OpError::invalid(format!(
                "paddings {pads:?} ({:?}) do not fit a tensor of shape {from}",
                self.mode
            ))
        };
        if pads.len() != from.len() * 2 {
            return Err(misfit());
        }
        let mut shape = from.clone();
        for (dim, pad) in shape.iter_mut().zip(pads.chunks_exact(2)) {
            let have = *dim as i64;
            let most = match self.mode {
                PadMode::Constant => i64::MAX,
                PadMode::Reflect => have - 1,
                PadMode::Symmetric => have,
                PadMode::Edge if have == 0 => 0,
                PadMode::Edge => i64::MAX,
            };
            let least = if self.mode == PadMode::Constant { i64::MIN } else { 0 };
            // A pad of 0 is always fine, on an empty dimension too.
            if pad.iter().any(|&pad| pad != 0 && !(least..=most).contains(&pad)) {
                return Err(misfit());
            }
            let wanted = pad.iter().try_fold(have, |dim, &pad| dim.checked_add(pad));
            *dim = wanted.and_then(|dim| usize::try_from(dim).ok()).ok_or_else(misfit)?;
        }
        match shape.checked_elements() {
            Some(elements) if isize::try_from(elements).is_ok() => Ok(shape),
            _ => Err(misfit()),
        }
    }
}

impl Operator for Pad {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=3)?;
        let pads = known_integers!(inputs, 1);
        let fits = |value: &Fact| value.dtype == inputs[0].dtype && value.elements() == 1;
        if !inputs.get(2).is_none_or(fits) {
            return Err(OpError::invalid(format!("the padding value must be one {}", inputs[0].dtype)));
        }
        Ok(Inferred::one(inputs[0].dtype, self.padded(&inputs[0].shape, &pads)?))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let pads = planned_integers(cx.inputs, 1)?;
        let (from, to) = (&cx.inputs[0].shape, &cx.outputs[0].shape);
        if from == to && pads.iter().all(|&pad| pad == 0) {
            return Ok(Step::alias());
        }
        if self.mode == PadMode::Constant {
            return moving(Surround::new(from, to, &pads, cx.inputs.len() > 2), cx);
        }
        let axes = from.iter().zip(to.iter()).zip(row_major(from)).zip(pads.chunks_exact(2));
        let axes = axes.map(|(((&have, &len), stride), pad)| {
            Axis::listed(len, |position| self.source(position as i64 - pad[0], have as i64) as isize * stride)
        });
        Mapping::new(0, axes.collect::<Result<_, _>>()?, from.elements())?.lower(cx)
    }
}

impl Pad {
    /// The position that shows at `position`, which may lie before or after the dimension.
    fn source(&self, position: i64, dim: i64) -> i64 {
        match self.mode {
            _ if (0..dim).contains(&position) => position,
            PadMode::Edge | PadMode::Constant => position.clamp(0, (dim - 1).max(0)),
            PadMode::Reflect if position < 0 => -position,
            PadMode::Reflect => 2 * (dim - 1) - position,
            PadMode::Symmetric if position < 0 => -position - 1,
            PadMode::Symmetric => 2 * dim - 1 - position,
        }
    }
}

/// Constant padding: fills, then copies the part of `x` that stays.
struct Surround {
    axes: Vec<Kept>,
    from: usize,
    to: usize,
    given: bool,
}

/// Positions along an axis that stay, and elements between neighbours on both sides.
struct Kept {
    len: usize,
    from: usize,
    to: usize,
}

impl Surround {
    fn new(from: &Shape, to: &Shape, pads: &[i64], given: bool) -> Self {
        let mut surround = Self { axes: Vec::with_capacity(from.len()), from: 0, to: 0, given };
        let strides = row_major(from).into_iter().zip(row_major(to));
        for ((&have, pad), (stride_from, stride_to)) in from.iter().zip(pads.chunks_exact(2)).zip(strides) {
            let cut = |pad: i64| usize::try_from(pad.min(0).unsigned_abs()).unwrap_or(usize::MAX).min(have);
            let kept = Kept {
                len: have.saturating_sub(cut(pad[0])).saturating_sub(cut(pad[1])),
                from: stride_from as usize,
                to: stride_to as usize,
            };
            surround.from += cut(pad[0]) * kept.from;
            surround.to += pad[0].max(0) as usize * kept.to;
            match surround.axes.last_mut() {
                // Both sides go on where the previous axis's next position is: one longer run.
                Some(outer) if outer.from == kept.len * kept.from && outer.to == kept.len * kept.to => {
                    *outer = Kept { len: outer.len * kept.len, ..kept };
                }
                _ => surround.axes.push(kept),
            }
        }
        surround
    }
}

impl Move for Surround {
    fn run<'a, T: Item + 'a>(&self, elements: &mut impl Elements<'a, T>) -> Result<(), OpError> {
        let (x, y) = (elements.input(0)?, elements.next_output()?);
        let value = if self.given { elements.input(2)?.first().cloned() } else { None };
        y.fill(value.unwrap_or_default());
        if self.axes.iter().all(|kept| kept.len > 0) {
            copy(&self.axes, &x[self.from..], &mut y[self.to..]);
        }
        Ok(())
    }
}

fn copy<T: Clone>(axes: &[Kept], x: &[T], y: &mut [T]) {
    match axes {
        [] => y[0] = x[0].clone(),
        [Kept { len, from: 1, to: 1 }] => y[..*len].clone_from_slice(&x[..*len]),
        [kept, rest @ ..] => {
            for position in 0..kept.len {
                copy(rest, &x[position * kept.from..], &mut y[position * kept.to..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op, tensor::Tensor};

    fn padded(mode: PadMode, shape: &[usize], pads: &[i64]) -> Option<Vec<i32>> {
        let values: Vec<i32> = (1..=shape.iter().product::<usize>() as i32).collect();
        let inputs = [
            Tensor::from_slice(shape, &values).unwrap(),
            Tensor::from_slice([shape.len(), 2], pads).unwrap(),
        ];
        Some(run_op(Pad { mode }, &inputs).ok()?[0].as_slice::<i32>().unwrap().to_vec())
    }

    #[test]
    fn constant_padding_adds_and_cuts() {
        let y = padded(PadMode::Constant, &[2, 2], &[1, 0, 0, 1]).unwrap();
        assert_eq!(y, [0, 0, 0, 1, 2, 0, 3, 4, 0]);
        let y = padded(PadMode::Constant, &[2, 3], &[-1, 1, 1, -1]).unwrap();
        assert_eq!(y, [0, 4, 5, 0, 0, 0]);
        assert_eq!(padded(PadMode::Constant, &[2], &[1, -2]).unwrap(), [0]);
        let x = Tensor::from_slice([1, 1, 2, 1], &[1.5f32, 2.5]).unwrap();
        let pads = Tensor::from_slice([4, 2], &[0i32, 0, 0, 1, 1, 0, 0, 0]).unwrap();
        let y = run_op(Pad { mode: PadMode::Constant }, &[x.clone(), pads.clone(), Tensor::scalar(9f32)]);
        assert_eq!(y.unwrap()[0].as_slice::<f32>().unwrap(), [9.0, 1.5, 2.5, 9.0, 9.0, 9.0]);
        assert!(run_op(Pad { mode: PadMode::Constant }, &[x, pads, Tensor::scalar(9i32)]).is_err());
        for pads in [[i64::MAX, i64::MAX], [-3, 0], [i64::MIN, 0], [i64::MAX / 2, 0]] {
            assert_eq!(padded(PadMode::Constant, &[2], &pads), None);
        }
    }

    #[test]
    fn mirrors_and_edges() {
        assert_eq!(padded(PadMode::Reflect, &[3], &[2, 2]).unwrap(), [3, 2, 1, 2, 3, 2, 1]);
        assert_eq!(padded(PadMode::Symmetric, &[3], &[3, 2]).unwrap(), [3, 2, 1, 1, 2, 3, 3, 2]);
        assert_eq!(padded(PadMode::Edge, &[3], &[2, 4]).unwrap(), [1, 1, 1, 2, 3, 3, 3, 3, 3]);
        // numpy.pad([[1, 2], [3, 4]], [[1, 0], [0, 1]], "reflect")
        assert_eq!(padded(PadMode::Reflect, &[2, 2], &[1, 0, 0, 1]).unwrap(), [3, 4, 3, 1, 2, 1, 3, 4, 3]);
        assert_eq!(padded(PadMode::Reflect, &[3], &[3, 0]), None);
        assert_eq!(padded(PadMode::Symmetric, &[3], &[0, 4]), None);
        assert_eq!(padded(PadMode::Edge, &[3], &[-1, 0]), None);
    }
}
