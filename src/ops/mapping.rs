//! Where the elements of one tensor stand in another, as a sum of one offset per axis.
//!
//! Transposing, slicing, reversing, tiling, broadcasting, reflecting and the block rearrangements
//! are all such sums, so one walker serves them. Axes that continue each other are merged, and the
//! innermost becomes a copy of a run wherever it is one.

use super::{
    Fact, Io, Lower, OpError, Step,
    elements::{Elements, Move, moving},
};
use crate::tensor::{Shape, TensorError};

/// Edge of the square tiles in which a matrix is transposed: a tile's lines stay in the first cache.
const TILE: usize = 16;

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

    /// Copies mapped elements to dense ones.
    pub(crate) fn gather<T: Clone>(&self, mapped: &[T], dense: &mut [T]) {
        gather(&self.axes, self.base as isize, mapped, dense);
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
        if let Some(rows) = self.rows(cx.outputs[0].dtype.size()) {
            return Ok(Step::arena(move |io| rows.copy(io)));
        }
        moving(self, cx)
    }

    /// Runs of elements of so many bytes, where that is what is gathered.
    fn rows(&self, size: Option<usize>) -> Option<RunsOfBytes> {
        let size = size?;
        let bytes = |elements: usize| elements.checked_mul(size);
        match self.axes.as_slice() {
            &[Axis::Stride { stride, .. }, Axis::Stride { len, stride: 1 }] => Some(RunsOfBytes {
                base: bytes(self.base)?,
                step: bytes(usize::try_from(stride).ok()?)?,
                length: bytes(len)?,
            }),
            _ => None,
        }
    }
}

/// Runs at equal distances.
#[derive(Clone, Copy)]
struct RunsOfBytes {
    base: usize,
    step: usize,
    length: usize,
}

impl RunsOfBytes {
    /// Copies them to the output, one after the other, on all threads.
    fn copy(self, io: &mut Io<'_>) -> Result<(), OpError> {
        /// Bytes below which a second thread costs more than it brings.
        const GRAIN: usize = 64 << 10;
        let (x, y) = (io.input::<u8>(0)?, io.next_output::<u8>()?);
        let threads = io.context().threads;
        let rows = y.len() / self.length;
        let rows = rows.div_ceil(threads.count()).max(GRAIN.div_ceil(self.length));
        threads.for_each_slice(y, rows * self.length, |task, y| {
            for (row, y) in y.chunks_exact_mut(self.length).enumerate() {
                let from = self.base + (task * rows + row) * self.step;
                y.copy_from_slice(&x[from..from + self.length]);
            }
        });
        Ok(())
    }
}

impl Move for Mapping {
    fn run<'a, T: Clone + Default + 'a>(&self, elements: &mut impl Elements<'a, T>) -> Result<(), OpError> {
        self.gather(elements.input(0)?, elements.next_output()?);
        Ok(())
    }
}

/// Without axes of length 1, and with those joined that continue each other.
fn merged(axes: Vec<Axis>) -> Vec<Axis> {
    let mut merged: Vec<Axis> = Vec::with_capacity(axes.len().max(1));
    for axis in axes {
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

fn gather<T: Clone>(axes: &[Axis], base: isize, mapped: &[T], dense: &mut [T]) {
    if dense.is_empty() {
        return;
    }
    match axes {
        [] => {}
        [Axis::Stride { len, stride: 1 }] => {
            dense.clone_from_slice(&mapped[base as usize..base as usize + len]);
        }
        [Axis::Stride { stride: 0, .. }] => dense.fill(mapped[base as usize].clone()),
        [axis] => {
            for (position, element) in dense.iter_mut().enumerate() {
                *element = mapped[(base + axis.at(position)) as usize].clone();
            }
        }
        [Axis::Stride { stride: 1, len: rows }, Axis::Stride { stride, len: columns }] => {
            for row in (0..*rows).step_by(TILE) {
                for column in (0..*columns).step_by(TILE) {
                    for row in row..(row + TILE).min(*rows) {
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
            let part = dense.len() / axis.len();
            for (position, dense) in dense.chunks_exact_mut(part).enumerate() {
                gather(rest, base + axis.at(position), mapped, dense);
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
            map.gather(&x, &mut y);
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
