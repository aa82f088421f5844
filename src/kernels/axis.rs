//! Kernels along one axis of a shape: position of the extreme, running sums.

use super::element::Number;
use super::error::{KernelError, expect_length, product};

/// A shape seen from one axis: `outer` blocks of `size` rows of `inner` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Product of the sizes before the axis.
    pub outer: usize,
    /// Size of the axis.
    pub size: usize,
    /// Product of the sizes after it.
    pub inner: usize,
}

impl Axis {
    /// Axis number `axis` of `shape`. Fails when it is not there or the shape is too large.
    pub fn of(shape: &[usize], axis: usize) -> Result<Axis, KernelError> {
        let Some(&size) = shape.get(axis) else {
            return Err(KernelError::Descriptor {
                kernel: "axis",
                argument: "axis",
                problem: "is not there",
            });
        };
        product("axis", "shape", shape)?;
        let outer = product("axis", "shape", &shape[..axis])?;
        Ok(Axis { outer, size, inner: product("axis", "shape", &shape[axis + 1..])? })
    }

    /// Elements of the shape.
    pub fn length(&self) -> Result<usize, KernelError> {
        product("axis", "shape", &[self.outer, self.size, self.inner])
    }
}

/// Which element an arg reduction names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgReduce {
    /// The greatest, else the least.
    pub greatest: bool,
    /// Of equals the last, else the first.
    pub select_last: bool,
}

/// The index of the greatest or least element along the axis, for each `outer * inner`. NaN is never better than a number. Fails for
/// an empty axis.
pub fn arg_reduce<T: Number>(op: ArgReduce, axis: Axis, x: &[T], out: &mut [i64]) -> Result<(), KernelError> {
    expect_length("arg_reduce", "x", axis.length()?, x.len())?;
    expect_length("arg_reduce", "out", product("arg_reduce", "out", &[axis.outer, axis.inner])?, out.len())?;
    if out.is_empty() {
        return Ok(());
    }
    if axis.size == 0 {
        return Err(KernelError::Descriptor { kernel: "arg_reduce", argument: "axis", problem: "is empty" });
    }
    let better = |new: T, best: T| {
        let strict = if op.greatest { new > best } else { new < best };
        strict || op.select_last && new == best || best.is_nan() && !new.is_nan()
    };
    for (block, out) in x.chunks_exact(axis.size * axis.inner).zip(out.chunks_exact_mut(axis.inner)) {
        for (column, to) in out.iter_mut().enumerate() {
            let mut best = (0, block[column]);
            for (index, row) in block.chunks_exact(axis.inner).enumerate().skip(1) {
                if better(row[column], best.1) {
                    best = (index, row[column]);
                }
            }
            *to = best.0 as i64;
        }
    }
    Ok(())
}

/// Running sums or products along an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cumulative {
    /// Leaves an element out of its own sum.
    pub exclusive: bool,
    /// Sums from the end.
    pub reverse: bool,
    /// Multiplies instead.
    pub product: bool,
}

/// `out[i] = x[0] + .. + x[i]` along the axis, as `op` says; integers wrap.
pub fn cumulative<T: Number>(op: Cumulative, axis: Axis, x: &[T], out: &mut [T]) -> Result<(), KernelError> {
    expect_length("cumulative", "x", axis.length()?, x.len())?;
    expect_length("cumulative", "out", x.len(), out.len())?;
    if x.is_empty() {
        return Ok(());
    }
    let block = axis.size * axis.inner;
    for (x, out) in x.chunks_exact(block).zip(out.chunks_exact_mut(block)) {
        for column in 0..axis.inner {
            let mut sum = if op.product { T::Sum::ONE } else { T::Sum::ZERO };
            for step in 0..axis.size {
                let row = if op.reverse { axis.size - 1 - step } else { step };
                let at = row * axis.inner + column;
                let value = x[at].widen();
                let next = if op.product { sum.times(value) } else { sum.plus(value) };
                out[at] = T::narrow(if op.exclusive { sum } else { next });
                sum = next;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_wins_unless_asked() {
        let axis = Axis::of(&[2, 4], 1).unwrap();
        let x = [1, 5, 5, 0, 7, 7, 7, 7];
        let mut out = [9; 2];
        let mut run = |greatest, select_last| {
            arg_reduce(ArgReduce { greatest, select_last }, axis, &x, &mut out).unwrap();
            out
        };
        assert_eq!(run(true, false), [1, 0]);
        assert_eq!(run(true, true), [2, 3]);
        assert_eq!(run(false, false), [3, 0]);
        assert_eq!(run(false, true), [3, 3]);
    }

    #[test]
    fn inner_axes_and_not_a_number() {
        let axis = Axis::of(&[3, 2], 0).unwrap();
        let x = [f32::NAN, 4.0, -1.0, 9.0, 3.0, f32::NAN];
        let mut out = [9; 2];
        arg_reduce(ArgReduce { greatest: true, select_last: false }, axis, &x, &mut out).unwrap();
        assert_eq!(out, [2, 1]);
        let none = Axis::of(&[0, 2], 0).unwrap();
        assert!(
            arg_reduce(ArgReduce { greatest: true, select_last: false }, none, &[0.0f32; 0], &mut out)
                .is_err()
        );
        assert!(Axis::of(&[3], 1).is_err());
        assert!(
            arg_reduce(ArgReduce { greatest: true, select_last: false }, axis, &x[1..], &mut out).is_err()
        );
    }

    #[test]
    fn running_sums() {
        let axis = Axis::of(&[2, 3, 1], 1).unwrap();
        let x = [1, 2, 3, 4, 5, 6];
        let mut out = [0; 6];
        let mut run = |op| {
            cumulative(op, axis, &x, &mut out).unwrap();
            out
        };
        let plain = Cumulative::default();
        assert_eq!(run(plain), [1, 3, 6, 4, 9, 15]);
        assert_eq!(run(Cumulative { exclusive: true, ..plain }), [0, 1, 3, 0, 4, 9]);
        assert_eq!(run(Cumulative { reverse: true, ..plain }), [6, 5, 3, 15, 11, 6]);
        assert_eq!(run(Cumulative { exclusive: true, reverse: true, product: false }), [5, 3, 0, 11, 6, 0]);
        assert_eq!(run(Cumulative { product: true, ..plain }), [1, 2, 6, 4, 20, 120]);
        assert!(cumulative(plain, axis, &x, &mut out[1..]).is_err());
    }
}
