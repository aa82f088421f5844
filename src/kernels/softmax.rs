//! Softmax and its logarithm along one axis.
//!
//! The greatest element is taken away first, so nothing overflows. A row is passed over three times while it is
//! in cache. When the axis is not the innermost, vectors run across it and each lane is a row of its own.

use super::axis::Axis;
use super::error::{KernelError, expect_length};
use super::isa::Isa;
use super::math;
use super::table::Kernels;
use super::threads::{SendPtr, Threads};

/// Elements per task.
const GRAIN: usize = 8 * 1024;

impl Kernels {
    /// `out = e^x / sum(e^x)` along the axis.
    pub fn softmax(
        &self,
        axis: Axis,
        x: &[f32],
        out: &mut [f32],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        self.softmax_checked(axis, x, out, threads, false)
    }

    /// `out = x - ln(sum(e^x))` along the axis.
    pub fn log_softmax(
        &self,
        axis: Axis,
        x: &[f32],
        out: &mut [f32],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        self.softmax_checked(axis, x, out, threads, true)
    }

    fn softmax_checked(
        &self,
        axis: Axis,
        x: &[f32],
        out: &mut [f32],
        threads: &Threads,
        log: bool,
    ) -> Result<(), KernelError> {
        expect_length("softmax", "x", axis.length()?, x.len())?;
        expect_length("softmax", "out", x.len(), out.len())?;
        if x.is_empty() {
            return Ok(());
        }
        let Axis { size, inner, .. } = axis;
        let block = size * inner;
        if inner == 1 {
            let rows = GRAIN.div_ceil(size);
            threads.for_each_slice(out, rows * size, |task, out| {
                let x = &x[task * rows * size..][..out.len()];
                for (x, out) in x.chunks_exact(size).zip(out.chunks_exact_mut(size)) {
                    // SAFETY: both rows have `size` elements.
                    unsafe { (self.softmax_row)(x.as_ptr(), out.as_mut_ptr(), size, log) };
                }
            });
            return Ok(());
        }
        let strips = inner.div_ceil(self.lanes);
        let to = SendPtr(out.as_mut_ptr());
        let strips_per_task = GRAIN.div_ceil(size * self.lanes);
        let total = axis.outer * strips;
        threads.for_each(total.div_ceil(strips_per_task), |task| {
            let first = task * strips_per_task;
            for strip in first..total.min(first + strips_per_task) {
                let column = strip % strips * self.lanes;
                let at = strip / strips * block + column;
                let count = self.lanes.min(inner - column);
                // SAFETY: `count` columns of one block, which belong to this task alone.
                unsafe {
                    (self.softmax_columns)(x[at..].as_ptr(), to.get().add(at), size, inner, count, log)
                };
            }
        });
        Ok(())
    }
}

/// One contiguous row.
///
/// # Safety
/// `x` must be readable and `out` writable for `length` floats; they are the same or do not overlap.
#[inline(always)]
pub(super) unsafe fn softmax_row<I: Isa>(isa: I, x: *const f32, out: *mut f32, length: usize, log: bool) {
    // SAFETY: `count` elements remain at `index` in every step below.
    unsafe {
        let whole = length / I::LANES * I::LANES;
        let mut largest = isa.splat(f32::NEG_INFINITY);
        let mut index = 0;
        while index < whole {
            largest = isa.max(largest, isa.load(x.add(index)));
            index += I::LANES;
        }
        let mut greatest = isa.reduce_max(largest);
        while index < length {
            let value = *x.add(index);
            greatest = if greatest > value { greatest } else { value };
            index += 1;
        }

        let shift = isa.splat(greatest);
        let mut sums = isa.splat(0.0);
        index = 0;
        while index < whole {
            let e = math::exp_nonpositive(isa, isa.sub(isa.load(x.add(index)), shift));
            if !log {
                isa.store(out.add(index), e);
            }
            sums = isa.add(sums, e);
            index += I::LANES;
        }
        let mut sum = isa.reduce_add(sums);
        if index < length {
            let count = length - index;
            let e = math::exp_nonpositive(isa, isa.sub(isa.load_partial(x.add(index), count), shift));
            if !log {
                isa.store_partial(out.add(index), e, count);
            }
            for &lane in &isa.lanes(e)[..count] {
                sum += lane;
            }
        }

        let (scale, offset) = if log { (1.0, greatest + sum.ln()) } else { (1.0 / sum, 0.0) };
        let source = if log { x } else { out.cast_const() };
        let (scale, offset) = (isa.splat(scale), isa.splat(offset));
        index = 0;
        while index < whole {
            isa.store(out.add(index), isa.mul(isa.sub(isa.load(source.add(index)), offset), scale));
            index += I::LANES;
        }
        if index < length {
            let count = length - index;
            let value = isa.load_partial(source.add(index), count);
            isa.store_partial(out.add(index), isa.mul(isa.sub(value, offset), scale), count);
        }
    }
}

/// `count <= LANES` neighbouring columns of `rows` elements, `stride` apart.
///
/// # Safety
/// `x` must be readable and `out` writable for those; they are the same or do not overlap.
#[inline(always)]
pub(super) unsafe fn softmax_columns<I: Isa>(
    isa: I,
    x: *const f32,
    out: *mut f32,
    rows: usize,
    stride: usize,
    count: usize,
    log: bool,
) {
    let load = Load { count };
    // SAFETY: as the caller vouches; `row < rows`.
    unsafe {
        let mut greatest = isa.splat(f32::NEG_INFINITY);
        for row in 0..rows {
            greatest = isa.max(greatest, load.load(isa, x.add(row * stride)));
        }
        let mut sum = isa.splat(0.0);
        for row in 0..rows {
            let e = math::exp_nonpositive(isa, isa.sub(load.load(isa, x.add(row * stride)), greatest));
            if !log {
                isa.store_partial(out.add(row * stride), e, count);
            }
            sum = isa.add(sum, e);
        }
        let offset = isa.add(greatest, math::log(isa, sum));
        for row in 0..rows {
            let value = if log {
                isa.sub(load.load(isa, x.add(row * stride)), offset)
            } else {
                isa.div(load.load(isa, out.add(row * stride)), sum)
            };
            isa.store_partial(out.add(row * stride), value, count);
        }
    }
}

/// Reads a whole vector where it can.
#[derive(Clone, Copy)]
struct Load {
    count: usize,
}

impl Load {
    #[inline(always)]
    unsafe fn load<I: Isa>(self, isa: I, from: *const f32) -> I::F32 {
        // SAFETY: as the caller vouches for `count`.
        unsafe { isa.load_up_to(from, self.count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::available;
    use crate::kernels::testing::{assert_close, random};

    fn naive(axis: Axis, x: &[f32], log: bool) -> Vec<f64> {
        let mut out = vec![0.0; x.len()];
        for outer in 0..axis.outer {
            for inner in 0..axis.inner {
                let at = |row| (outer * axis.size + row) * axis.inner + inner;
                let largest =
                    (0..axis.size).map(|row| f64::from(x[at(row)])).fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = (0..axis.size).map(|row| (f64::from(x[at(row)]) - largest).exp()).sum();
                for row in 0..axis.size {
                    let shifted = f64::from(x[at(row)]) - largest;
                    out[at(row)] = if log { shifted - sum.ln() } else { shifted.exp() / sum };
                }
            }
        }
        out
    }

    #[test]
    fn every_axis_and_length() {
        for kernels in available() {
            for size in [1, 2, 3, 7, 8, 9, 15, 17, 31, 33, 63, 65, 100, 1001] {
                for (outer, inner) in [(1, 1), (5, 1), (2, 3), (1, 17), (3, 33)] {
                    let axis = Axis { outer, size, inner };
                    let x: Vec<f32> =
                        random(axis.length().unwrap(), 1).iter().map(|x| x * 30.0 + 500.0).collect();
                    let mut out = vec![0.0; x.len()];
                    kernels.softmax(axis, &x, &mut out, &Threads::new(2)).unwrap();
                    assert_close(&out, &naive(axis, &x, false), 1e-6);
                    kernels.log_softmax(axis, &x, &mut out, &Threads::new(2)).unwrap();
                    assert_close(&out, &naive(axis, &x, true), 1e-6);
                }
            }
        }
    }

    #[test]
    fn special_values() {
        for kernels in available() {
            for inner in [1, 2] {
                let axis = Axis { outer: 1, size: 10, inner };
                let mut x = vec![f32::NEG_INFINITY; 10 * inner];
                x[3 * inner] = 2.0;
                let mut out = vec![0.0; x.len()];
                kernels.softmax(axis, &x, &mut out, &Threads::single()).unwrap();
                assert!((0..10).all(|row| out[row * inner] == if row == 3 { 1.0 } else { 0.0 }));
                x[5 * inner] = f32::NAN;
                kernels.softmax(axis, &x, &mut out, &Threads::single()).unwrap();
                assert!((0..10).all(|row| out[row * inner].is_nan()));
            }
        }
    }

    #[test]
    fn lying_lengths_are_refused() {
        let axis = Axis { outer: 2, size: 3, inner: 1 };
        let mut out = [0.0; 6];
        let kernels = available()[0];
        assert!(kernels.softmax(axis, &[0.0; 5], &mut out, &Threads::single()).is_err());
        assert!(kernels.softmax(axis, &[0.0; 6], &mut out[1..], &Threads::single()).is_err());
        let huge = Axis { outer: usize::MAX, size: 3, inner: 1 };
        assert!(kernels.softmax(huge, &[0.0; 6], &mut out, &Threads::single()).is_err());
        let empty = Axis { outer: 0, size: 3, inner: 1 };
        assert!(kernels.softmax(empty, &[], &mut [], &Threads::single()).is_ok());
    }
}
