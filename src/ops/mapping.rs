//! Where the elements of one tensor stand in another, as a sum of one offset per axis.
//!
//! Transposing, slicing, reversing, tiling, broadcasting, reflecting and the block rearrangements
//! are all such sums, so one walker serves them. Axes that continue each other are merged, and the
//! innermost becomes a copy of a run wherever it is one.

use super::{
    Fact, Lower, OpError, Step,
    elements::{Elements, Item, Move, moving},
};
use crate::{
    kernels::Threads,
    tensor::{Shape, TensorError},
};
use std::ops::Range;

/// Edge of the square tiles in which a matrix is transposed: a tile's lines stay in the first cache.
const TILE: usize = 16;
/// Bytes below which a second thread costs more than it brings.
const GRAIN: usize = 64 << 10;

/// Offsets, in elements, along one axis of the dense tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Axis {
    /// `0, stride, 2 * stride, ...`
    Stride {
        /// Number of offsets.
        len: usize,
        /// Distance from one to the next.
        stride: isize,
    },
    /// Any offsets.
    Listed(Vec<isize>),
}

impl Axis {
    /// `len` offsets computed by `offset`.
    pub(crate) fn listed(len: usize, offset: impl Fn(usize) -> isize) -> Result<Self, OpError> {
        let mut offsets = Vec::new();
        offsets.try_reserve_exact(len).map_err(|_| TensorError::OutOfMemory { bytes: len })?;
        offsets.extend((0..len).map(offset));
        Ok(Self::Listed(offsets))
    }

    /// Offsets at equal distances from 0 on are a stride.
    fn plain(self) -> Self {
        let Self::Listed(offsets) = &self else { return self };
        let stride = offsets.get(1).copied().unwrap_or(0);
        let equal =
            offsets.iter().enumerate().all(|(at, &offset)| (at as isize).checked_mul(stride) == Some(offset));
        if equal { Self::Stride { len: offsets.len(), stride } } else { self }
    }

    fn len(&self) -> usize {
        match self {
            Self::Stride { len, .. } => *len,
            Self::Listed(offsets) => offsets.len(),
        }
    }

    fn at(&self, position: usize) -> isize {
        match self {
            Self::Stride { stride, .. } => position as isize * stride,
            Self::Listed(offsets) => offsets[position],
        }
    }

    /// Smallest and largest offset of an axis that is not empty.
    fn range(&self) -> (i128, i128) {
        match self {
            Self::Stride { len, stride } => {
                let end = (*len as i128 - 1) * *stride as i128;
                (end.min(0), end.max(0))
            }
            Self::Listed(offsets) => (
                offsets.iter().min().map_or(0, |&offset| offset as i128),
                offsets.iter().max().map_or(0, |&offset| offset as i128),
            ),
        }
    }
}

/// For each element of a dense tensor, in order, its place in the mapped tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mapping {
    base: usize,
    axes: Vec<Axis>,
    mapped: usize,
}

impl Mapping {
    /// The sums of `base` and one offset of each axis, the last axis running fastest; all must lie
    /// below `mapped`, the number of elements of the mapped tensor.
    pub(crate) fn new(base: isize, axes: Vec<Axis>, mapped: usize) -> Result<Self, OpError> {
        if axes.iter().any(|axis| axis.len() == 0) {
            return Ok(Self { base: 0, axes: vec![Axis::Stride { len: 0, stride: 1 }], mapped });
        }
        let (mut least, mut most) = (base as i128, base as i128);
        for axis in &axes {
            let (low, high) = axis.range();
            least += low;
            most += high;
        }
        if least < 0 || most >= mapped as i128 {
            return Err(OpError::Memory("an index map"));
        }
        Ok(Self { base: base as usize, axes: merged(axes), mapped })
    }

    /// True when the dense and the mapped tensor are the same, element by element.
    pub(crate) fn is_identity(&self) -> bool {
        match self.axes.as_slice() {
            [Axis::Stride { len, stride }] => {
                self.base == 0 && *len == self.mapped && (*stride == 1 || *len <= 1)
            }
            _ => false,
        }
    }

    /// Copies mapped elements to dense ones: each thread some of the first axis.
    pub(crate) fn gather<T: Clone + Send + Sync>(&self, mapped: &[T], dense: &mut [T], threads: &Threads) {
        let Some(first) = self.axes.first().map(Axis::len).filter(|_| !dense.is_empty()) else { return };
        let part = dense.len() / first;
        let grain = GRAIN.div_ceil((part * size_of::<T>()).max(1));
        let positions = first.div_ceil(threads.count()).max(grain).min(first);
        threads.for_each_slice(dense, positions * part, |task, dense| {
            let start = task * positions;
            let range = start..(start + positions).min(first);
            gather(&self.axes, range, self.base as isize, mapped, dense);
        });
    }

    /// Copies dense elements to mapped ones.
    pub(crate) fn scatter<T: Clone>(&self, dense: &[T], mapped: &mut [T]) {
        scatter(&self.axes, self.base as isize, dense, mapped);
    }

    /// The step that gathers input 0 into the output.
    pub(crate) fn lower(self, cx: &Lower<'_>) -> Result<Step, OpError> {
        if self.is_identity() {
            return Ok(Step::alias());
        }
        moving(self, cx)
    }
}

impl Move for Mapping {
    fn run<'a, T: Item + 'a>(&self, elements: &mut impl Elements<'a, T>) -> Result<(), OpError> {
        self.gather(elements.input(0)?, elements.next_output()?, elements.threads());
        Ok(())
    }
}

/// Without axes of length 1, and with those joined that continue each other.
fn merged(axes: Vec<Axis>) -> Vec<Axis> {
    let mut merged: Vec<Axis> = Vec::with_capacity(axes.len().max(1));
    for axis in axes.into_iter().map(Axis::plain) {
        if matches!(axis, Axis::Stride { len: 1, .. }) {
            continue;
        }
        if let (Some(Axis::Stride { len: outer, stride: step }), Axis::Stride { len, stride }) =
            (merged.last_mut(), &axis)
            && isize::try_from(*len).ok().and_then(|len| stride.checked_mul(len)) == Some(*step)
        {
            *outer = outer.saturating_mul(*len);
            *step = *stride;
            continue;
        }
        merged.push(axis);
    }
    if merged.is_empty() {
        merged.push(Axis::Stride { len: 1, stride: 1 });
    }
    merged
}

/// The elements of some positions of the first axis.
fn gather<T: Clone>(axes: &[Axis], range: Range<usize>, base: isize, mapped: &[T], dense: &mut [T]) {
    if dense.is_empty() {
        return;
    }
    let whole = |axis: &Axis| 0..axis.len();
    match axes {
        [] => {}
        [axis @ Axis::Stride { stride: 1, .. }] => {
            let start = (base + axis.at(range.start)) as usize;
            dense.clone_from_slice(&mapped[start..start + range.len()]);
        }
        [Axis::Stride { stride: 0, .. }] => dense.fill(mapped[base as usize].clone()),
        [axis] => {
            for (position, element) in range.zip(dense) {
                *element = mapped[(base + axis.at(position)) as usize].clone();
            }
        }
        [Axis::Listed(offsets), Axis::Stride { stride: 1, len }] => {
            // Positions that continue each other are one run.
            let mut positions = offsets[range].iter().peekable();
            let mut rest = dense;
            while let Some(&first) = positions.next() {
                let mut run = *len;
                while positions.next_if(|&&next| next == first + run as isize).is_some() {
                    run += len;
                }
                let start = (base + first) as usize;
                let to = rest.split_off_mut(..run).unwrap_or_default();
                to.clone_from_slice(&mapped[start..start + run]);
            }
        }
        [Axis::Stride { stride: 1, .. }, Axis::Stride { stride, len: columns }] => {
            let rows = range.len();
            let base = base + range.start as isize;
            for row in (0..rows).step_by(TILE) {
                for column in (0..*columns).step_by(TILE) {
                    for row in row..(row + TILE).min(rows) {
                        let line = &mut dense[row * columns..][column..(column + TILE).min(*columns)];
                        let first = base + row as isize + column as isize * stride;
                        for (step, element) in line.iter_mut().enumerate() {
                            *element = mapped[(first + step as isize * stride) as usize].clone();
                        }
                    }
                }
            }
        }
        [axis, rest @ ..] => {
            let part = dense.len() / range.len();
            for (position, dense) in range.zip(dense.chunks_exact_mut(part)) {
                gather(rest, whole(&rest[0]), base + axis.at(position), mapped, dense);
            }
        }
    }
}

fn scatter<T: Clone>(axes: &[Axis], base: isize, dense: &[T], mapped: &mut [T]) {
    if dense.is_empty() {
        return;
    }
    match axes {
        [] => {}
        [Axis::Stride { len, stride: 1 }] => {
            mapped[base as usize..base as usize + len].clone_from_slice(dense);
        }
        [axis] => {
            for (position, element) in dense.iter().enumerate() {
                mapped[(base + axis.at(position)) as usize] = element.clone();
            }
        }
        [axis, rest @ ..] => {
            let part = dense.len() / axis.len();
            for (position, dense) in dense.chunks_exact(part).enumerate() {
                scatter(rest, base + axis.at(position), dense, mapped);
            }
        }
    }
}

/// Elements between neighbours along each axis of a row-major tensor.
pub(crate) fn row_major(dims: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; dims.len()];
    let mut stride = 1isize;
    for (slot, &dim) in strides.iter_mut().zip(dims).rev() {
        *slot = stride;
        stride = stride.saturating_mul(dim as isize);
    }
    strides
}

/// The position of an axis that may count from the back.
pub(crate) fn axis_of(shape: &Shape, axis: i64) -> Result<usize, OpError> {
    shape.axis(axis).ok_or_else(|| OpError::invalid(format!("axis {axis} is out of range for shape {shape}")))
}

/// The integers of an input that inference has found to be known.
pub(crate) fn planned_integers(inputs: &[Fact], index: usize) -> Result<Vec<i64>, OpError> {
    let value = inputs.get(index).and_then(|fact| fact.value.as_ref());
    Ok(value.ok_or(OpError::Memory("a value that is known while planning"))?.to_i64_vec()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn axes_that_continue_each_other_are_one() {
        let stride = |len, stride| Axis::Stride { len, stride };
        let map = Mapping::new(0, vec![stride(2, 12), stride(3, 4), stride(1, 9), stride(4, 1)], 24).unwrap();
        assert!(map.is_identity());
        let reversed = Mapping::new(5, vec![stride(2, -3), stride(3, -1)], 6).unwrap();
        assert_eq!(reversed.axes, [stride(6, -1)]);
        assert!(Mapping::new(1, vec![stride(2, 3), stride(3, 1)], 6).is_err());
        assert!(Mapping::new(0, vec![stride(2, -1)], 6).is_err());
        assert!(Mapping::new(0, vec![stride(0, -1), stride(9, 9)], 0).is_ok());
    }

    /// Positions back and forth of runs of 3, more than one thread takes at once, against arithmetic of indices.
    #[test]
    fn listed_runs_on_several_threads() {
        let (lines, line, run) = (900, 40, 3);
        let x: Vec<u32> = (0..lines * line * run).map(|value| value as u32).collect();
        let places: Vec<usize> =
            (0..line + 6).map(|at| (at as isize - 3).unsigned_abs().min(2 * line - at - 1)).collect();
        let places: Vec<usize> = places.into_iter().map(|at| at.min(line - 1)).collect();
        let turned = |at: usize| lines - 1 - at;
        let axes = || {
            vec![
                Axis::listed(lines, |at| (turned(at) * line * run) as isize).unwrap(),
                Axis::listed(places.len(), |at| (places[at] * run) as isize).unwrap(),
                Axis::listed(run, |at| at as isize).unwrap(),
            ]
        };
        let map = Mapping::new(0, axes(), x.len()).unwrap();
        assert_eq!(map.axes.last(), Some(&Axis::Stride { len: run, stride: 1 }));
        let expected = (0..lines * places.len() * run).map(|flat| {
            let (pixel, channel) = (flat / run, flat % run);
            x[(turned(pixel / places.len()) * line + places[pixel % places.len()]) * run + channel]
        });
        for threads in [1, 2, 3].map(Threads::new) {
            let mut y = vec![0; lines * places.len() * run];
            map.gather(&x, &mut y, &threads);
            assert!(expected.clone().eq(y));
        }
    }

    proptest! {
        #[test]
        fn permuted_axes_agree_with_index_arithmetic(
            dims in prop::collection::vec(1usize..24, 1..4),
            turn in 0usize..3,
        ) {
            let mut order: Vec<usize> = (0..dims.len()).collect();
            order.rotate_left(turn % dims.len());
            let strides = row_major(&dims);
            let axes: Vec<Axis> =
                order.iter().map(|&a| Axis::Stride { len: dims[a], stride: strides[a] }).collect();
            let total: usize = dims.iter().product();
            let x: Vec<u32> = (0..total as u32).collect();
            let map = Mapping::new(0, axes, total).unwrap();
            let mut y = vec![0; total];
            map.gather(&x, &mut y, &Threads::new(2));
            for (flat, &value) in y.iter().enumerate() {
                let (mut rest, mut from) = (flat, 0);
                for &axis in order.iter().rev() {
                    from += (rest % dims[axis]) * strides[axis] as usize;
                    rest /= dims[axis];
                }
                prop_assert_eq!(value as usize, from);
            }
            let mut back = vec![0; total];
            map.scatter(&y, &mut back);
            prop_assert_eq!(back, x);
        }
    }
}
