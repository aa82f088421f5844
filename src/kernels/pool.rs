//! Maximum and average over windows of an NHWC image, vectors over channels.

use super::error::{KernelError, expect_length, product};
use super::isa::Isa;
use super::table::Kernels;
use super::threads::{SendPtr, Threads};
use std::ops::Range;

const KERNEL: &str = "pool2d";

/// The geometry of pooling: x `[batch, in_height, in_width, channels]`, out `[batch, out_height, out_width, channels]`.
///
/// Output pixel `(y, x)` sees input rows `y * stride[0] + i * dilation[0] - pad_top` for `i < window[0]` and columns likewise.
/// What lies outside is left out; a window with nothing inside gives 0 for averages and the least f32 for maxima.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Pool2d {
    pub batch: usize,
    pub in_height: usize,
    pub in_width: usize,
    pub channels: usize,
    pub out_height: usize,
    pub out_width: usize,
    /// Height, width.
    pub window: [usize; 2],
    /// Height, width.
    pub stride: [usize; 2],
    /// Height, width.
    pub dilation: [usize; 2],
    pub pad_top: usize,
    pub pad_left: usize,
    pub pad_bottom: usize,
    pub pad_right: usize,
    /// Averages divide by the taps inside the padded image, not by those inside the image.
    pub count_include_pad: bool,
}

/// What is taken of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pool {
    /// The greatest element; NaN if one is.
    Max,
    /// The mean.
    Average,
}

impl Pool2d {
    /// Fails when a window, stride or dilation is zero or sizes exceed what can be addressed.
    pub fn check(&self) -> Result<(), KernelError> {
        let error = |argument, problem| Err(KernelError::Descriptor { kernel: KERNEL, argument, problem });
        if self.window.contains(&0) || self.stride.contains(&0) || self.dilation.contains(&0) {
            return error("window, stride or dilation", "is zero");
        }
        self.in_elements()?;
        self.out_elements()?;
        for axis in 0..2 {
            let out = [self.out_height, self.out_width][axis];
            let input = [self.in_height, self.in_width][axis];
            let pads = [(self.pad_top, self.pad_bottom), (self.pad_left, self.pad_right)][axis];
            let reach = out
                .checked_mul(self.stride[axis])
                .zip(self.window[axis].checked_mul(self.dilation[axis]))
                .and_then(|(a, b)| {
                    a.checked_add(b)?.checked_add(pads.0)?.checked_add(pads.1)?.checked_add(input)
                });
            if reach.is_none_or(|reach| reach > isize::MAX as usize / 4) {
                return error("window, stride or dilation", "describes more than can be addressed");
            }
        }
        Ok(())
    }

    /// Elements of the input.
    pub fn in_elements(&self) -> Result<usize, KernelError> {
        product(KERNEL, "x", &[self.batch, self.in_height, self.in_width, self.channels])
    }

    /// Elements of the output.
    pub fn out_elements(&self) -> Result<usize, KernelError> {
        product(KERNEL, "out", &[self.batch, self.out_height, self.out_width, self.channels])
    }

    /// Whether every window is the whole image.
    fn is_global(&self) -> bool {
        self.window == [self.in_height, self.in_width]
            && self.dilation == [1, 1]
            && [self.pad_top, self.pad_left] == [0, 0]
            && [self.out_height, self.out_width] == [1, 1]
    }

    /// The taps of axis 0 or 1 that lie inside the image for output position `at`, and how many lie inside the padded
    /// image.
    fn taps(&self, axis: usize, at: usize) -> (Range<usize>, usize) {
        let (pad, after, size) = match axis {
            0 => (self.pad_top, self.pad_bottom, self.in_height),
            _ => (self.pad_left, self.pad_right, self.in_width),
        };
        let start = at * self.stride[axis];
        let window = self.window[axis];
        let below = |limit: usize| limit.saturating_sub(start).div_ceil(self.dilation[axis]).min(window);
        let first = below(pad);
        (first..below(pad + size).max(first), below(pad + size + after))
    }
}

impl Kernels {
    /// `out = op(windows of x)`
    pub fn pool2d(
        &self,
        op: Pool,
        pool: &Pool2d,
        x: &[f32],
        out: &mut [f32],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        pool.check()?;
        expect_length(KERNEL, "x", pool.in_elements()?, x.len())?;
        expect_length(KERNEL, "out", pool.out_elements()?, out.len())?;
        if out.is_empty() {
            return Ok(());
        }
        if op == Pool::Average && pool.is_global() {
            // A window is one block of rows: the reduction sums it more exactly, and in strips.
            let shape = [pool.batch, pool.in_height * pool.in_width, pool.channels];
            let plan = super::reduce::ReducePlan::new(&shape, &[1])?;
            return self.reduce(super::reduce::Reduce::Mean, &plan, x, out, threads);
        }
        let line = pool.out_width * pool.channels;
        let work = line.saturating_mul(pool.window[0] * pool.window[1]);
        let lines_per_task = (32 * 1024usize).div_ceil(work.max(1));
        let to = SendPtr(out.as_mut_ptr());
        let lines = pool.batch * pool.out_height;
        threads.for_each(lines.div_ceil(lines_per_task), |task| {
            let first = task * lines_per_task;
            for index in first..lines.min(first + lines_per_task) {
                // SAFETY: every line belongs to one task.
                let out = unsafe { std::slice::from_raw_parts_mut(to.get().add(index * line), line) };
                self.pool_line(op, pool, x, index, out);
            }
        });
        Ok(())
    }

    /// Maxima over windows of whole numbers; a window with nothing inside gives the least one.
    pub fn max_pool_integers<T: Copy + Ord + Send + Sync>(
        &self,
        pool: &Pool2d,
        least: T,
        x: &[T],
        out: &mut [T],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        pool.check()?;
        expect_length(KERNEL, "x", pool.in_elements()?, x.len())?;
        expect_length(KERNEL, "out", pool.out_elements()?, out.len())?;
        let line = pool.out_width * pool.channels;
        let size = pool.in_height * pool.in_width * pool.channels;
        let work = line.saturating_mul(pool.window[0] * pool.window[1]);
        let lines_per_task = (256 * 1024usize).div_ceil(work.max(1));
        threads.for_each_slice(out, lines_per_task.saturating_mul(line), |task, lines| {
            for (index, out) in lines.chunks_exact_mut(line).enumerate() {
                let index = task * lines_per_task + index;
                let (image, y) = (index / pool.out_height, index % pool.out_height);
                let x = &x[image * size..][..size];
                let (rows, _) = pool.taps(0, y);
                for (column, out) in out.chunks_exact_mut(pool.channels).enumerate() {
                    let (columns, _) = pool.taps(1, column);
                    out.fill(least);
                    for row in rows.clone() {
                        let iy = y * pool.stride[0] + row * pool.dilation[0] - pool.pad_top;
                        for tap in columns.clone() {
                            let ix = column * pool.stride[1] + tap * pool.dilation[1] - pool.pad_left;
                            let from = &x[(iy * pool.in_width + ix) * pool.channels..][..pool.channels];
                            for (best, &value) in out.iter_mut().zip(from) {
                                *best = (*best).max(value);
                            }
                        }
                    }
                }
            }
        });
        Ok(())
    }

    fn pool_line(&self, op: Pool, pool: &Pool2d, x: &[f32], index: usize, out: &mut [f32]) {
        let (image, y) = (index / pool.out_height, index % pool.out_height);
        let size = pool.in_height * pool.in_width * pool.channels;
        let x = &x[image * size..][..size];
        let (rows, padded_rows) = pool.taps(0, y);
        for (column, out) in out.chunks_exact_mut(pool.channels).enumerate() {
            let (columns, padded_columns) = pool.taps(1, column);
            if rows.is_empty() || columns.is_empty() {
                out.fill(if op == Pool::Max { f32::MIN } else { 0.0 });
                continue;
            }
            let count = if pool.count_include_pad {
                padded_rows * padded_columns
            } else {
                rows.len() * columns.len()
            };
            let iy = y * pool.stride[0] + rows.start * pool.dilation[0] - pool.pad_top;
            let ix = column * pool.stride[1] + columns.start * pool.dilation[1] - pool.pad_left;
            let window = Window {
                x: x[(iy * pool.in_width + ix) * pool.channels..].as_ptr(),
                out: out.as_mut_ptr(),
                rows: rows.len(),
                row_stride: pool.dilation[0] * pool.in_width * pool.channels,
                columns: columns.len(),
                column_stride: pool.dilation[1] * pool.channels,
                channels: pool.channels,
                factor: 1.0 / count.max(1) as f32,
            };
            // SAFETY: the taps lie inside the image, the output is one pixel.
            unsafe { (self.pool_window)(op, &window) };
        }
    }
}

/// One window.
pub(super) struct Window {
    /// The first channel of the first tap.
    x: *const f32,
    out: *mut f32,
    rows: usize,
    row_stride: usize,
    columns: usize,
    column_stride: usize,
    channels: usize,
    /// Sums are multiplied by this.
    factor: f32,
}

/// All channels of one output pixel.
///
/// # Safety
/// The taps of the window must be readable and `out` writable for `channels` floats.
#[inline(always)]
pub(super) unsafe fn pool_window<I: Isa>(isa: I, op: Pool, window: &Window) {
    let mut channel = 0;
    while channel < window.channels {
        let count = (window.channels - channel).min(I::LANES);
        let full = count == I::LANES;
        // SAFETY: `count` channels remain.
        unsafe {
            let from = window.x.add(channel);
            let value = match (op, full) {
                (Pool::Max, true) => max::<I, true>(isa, window, from, count),
                (Pool::Max, false) => max::<I, false>(isa, window, from, count),
                (Pool::Average, true) => average::<I, true>(isa, window, from, count),
                (Pool::Average, false) => average::<I, false>(isa, window, from, count),
            };
            let to = window.out.add(channel);
            if full { isa.store(to, value) } else { isa.store_partial(to, value, count) }
        }
        channel += count;
    }
}

#[inline(always)]
unsafe fn max<I: Isa, const FULL: bool>(isa: I, window: &Window, from: *const f32, count: usize) -> I::F32 {
    let mut best = isa.splat(f32::NEG_INFINITY);
    for row in 0..window.rows {
        for column in 0..window.columns {
            // SAFETY: as the caller vouches.
            let value = unsafe {
                load::<I, FULL>(isa, from.add(row * window.row_stride + column * window.column_stride), count)
            };
            best = isa.select(isa.equal(best, best), isa.max(best, value), best);
        }
    }
    best
}

#[inline(always)]
unsafe fn average<I: Isa, const FULL: bool>(
    isa: I,
    window: &Window,
    from: *const f32,
    count: usize,
) -> I::F32 {
    let mut total = isa.splat(0.0);
    for row in 0..window.rows {
        let mut sum = isa.splat(0.0);
        for column in 0..window.columns {
            // SAFETY: as the caller vouches.
            let value = unsafe {
                load::<I, FULL>(isa, from.add(row * window.row_stride + column * window.column_stride), count)
            };
            sum = isa.add(sum, value);
        }
        total = isa.add(total, sum);
    }
    isa.mul(total, isa.splat(window.factor))
}

#[inline(always)]
unsafe fn load<I: Isa, const FULL: bool>(isa: I, from: *const f32, count: usize) -> I::F32 {
    // SAFETY: as the caller vouches.
    unsafe { if FULL { isa.load(from) } else { isa.load_partial(from, count) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::available;
    use crate::kernels::testing::{assert_close, random};

    fn naive(op: Pool, pool: &Pool2d, x: &[f32]) -> Vec<f64> {
        let mut out = Vec::new();
        for b in 0..pool.batch {
            for y in 0..pool.out_height {
                for xx in 0..pool.out_width {
                    for c in 0..pool.channels {
                        let (mut seen, mut padded) = (Vec::new(), 0);
                        for i in 0..pool.window[0] {
                            for j in 0..pool.window[1] {
                                let row = (y * pool.stride[0] + i * pool.dilation[0]) as isize
                                    - pool.pad_top as isize;
                                let column = (xx * pool.stride[1] + j * pool.dilation[1]) as isize
                                    - pool.pad_left as isize;
                                if row < (pool.in_height + pool.pad_bottom) as isize
                                    && column < (pool.in_width + pool.pad_right) as isize
                                {
                                    padded += 1;
                                }
                                if (0..pool.in_height as isize).contains(&row)
                                    && (0..pool.in_width as isize).contains(&column)
                                {
                                    let pixel =
                                        (b * pool.in_height + row as usize) * pool.in_width + column as usize;
                                    seen.push(f64::from(x[pixel * pool.channels + c]));
                                }
                            }
                        }
                        out.push(match op {
                            Pool::Max if seen.is_empty() => f64::from(f32::MIN),
                            Pool::Max => seen.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                            Pool::Average if seen.is_empty() => 0.0,
                            Pool::Average => {
                                let count = if pool.count_include_pad { padded } else { seen.len() };
                                seen.iter().sum::<f64>() / count as f64
                            }
                        });
                    }
                }
            }
        }
        out
    }

    fn base() -> Pool2d {
        Pool2d {
            batch: 2,
            in_height: 9,
            in_width: 7,
            channels: 5,
            out_height: 4,
            out_width: 3,
            window: [3, 3],
            stride: [2, 2],
            dilation: [1, 1],
            pad_top: 0,
            pad_left: 0,
            pad_bottom: 0,
            pad_right: 0,
            count_include_pad: false,
        }
    }

    #[test]
    fn agrees_with_the_definition() {
        for kernels in available() {
            for channels in [1, 3, 7, 8, 9, 16, 17, 33] {
                for include in [false, true] {
                    let base = Pool2d { channels, count_include_pad: include, ..base() };
                    let padded = Pool2d {
                        pad_top: 1,
                        pad_left: 1,
                        pad_bottom: 1,
                        pad_right: 1,
                        out_height: 5,
                        out_width: 4,
                        ..base
                    };
                    let cases = [
                        base,
                        padded,
                        // The last windows reach beyond even the padding.
                        Pool2d { out_height: 6, out_width: 5, pad_bottom: 0, ..padded },
                        Pool2d { dilation: [2, 3], stride: [1, 1], out_height: 5, out_width: 1, ..base },
                        Pool2d { window: [9, 7], out_height: 1, out_width: 1, stride: [1, 1], ..base },
                        Pool2d { window: [2, 2], out_height: 40, ..base },
                    ];
                    for pool in cases {
                        let x = random(pool.in_elements().unwrap(), 1);
                        for op in [Pool::Max, Pool::Average] {
                            let mut out = vec![9.0; pool.out_elements().unwrap()];
                            kernels.pool2d(op, &pool, &x, &mut out, &Threads::new(2)).unwrap();
                            let expected = naive(op, &pool, &x);
                            if out.contains(&f32::MIN) {
                                assert!(out.iter().zip(&expected).all(|(&a, &b)| f64::from(a) == b));
                            } else {
                                assert_close(&out, &expected, 1e-6);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn lying_descriptors_are_refused() {
        let kernels = available()[0];
        let good = base();
        let x = vec![0.0; good.in_elements().unwrap()];
        let mut out = vec![0.0; good.out_elements().unwrap()];
        let single = Threads::single();
        for bad in [
            Pool2d { window: [0, 1], ..good },
            Pool2d { stride: [1, 0], ..good },
            Pool2d { dilation: [0, 1], ..good },
            Pool2d { stride: [usize::MAX, 1], ..good },
            Pool2d { pad_left: usize::MAX, ..good },
            Pool2d { channels: usize::MAX, ..good },
            Pool2d { batch: 3, ..good },
        ] {
            assert!(kernels.pool2d(Pool::Max, &bad, &x, &mut out, &single).is_err(), "{bad:?}");
        }
        assert!(kernels.pool2d(Pool::Max, &good, &x, &mut out[1..], &single).is_err());
        assert!(kernels.pool2d(Pool::Max, &good, &x, &mut out, &single).is_ok());
    }
}
