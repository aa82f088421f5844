//! Normalisation of each channel of each image: means and variances down columns, then one line per channel.
//!
//! Pixels are cut into parts that the first-level cache holds; each gives its columns' means and squares around these in two
//! walks. The squares of all are those of the parts and of the parts' means around the mean (Chan, Golub and LeVeque), so
//! that nothing cancels. Few channels are repeated until a row is whole groups of vectors.

use super::error::{KernelError, expect_length, product};
use super::isa::Isa;
use super::norm::{Channels, repeats};
use super::product::Epilogue;
use super::table::Kernels;
use super::threads::Threads;

const KERNEL: &str = "instance_norm";
/// Floats of a part.
const PART: usize = 4 * 1024;
/// Rows of a part, at least: what it gives is two rows.
const ROWS: usize = 8;

/// The geometry: images of so many pixels and channels.
#[derive(Clone, Copy, Debug)]
pub struct InstanceNormPlan {
    images: usize,
    pixels: usize,
    channels: usize,
    /// Pixels side by side in a row.
    repeated: usize,
    /// Rows of a part.
    rows: usize,
}

impl InstanceNormPlan {
    /// Fails on sizes beyond what can be addressed.
    pub fn new(images: usize, pixels: usize, channels: usize) -> Result<InstanceNormPlan, KernelError> {
        product(KERNEL, "x", &[images, pixels, channels])?;
        let repeated = repeats(channels);
        let columns = product(KERNEL, "channels", &[channels, repeated, 2])? / 2;
        let rows = (PART / columns.max(1)).max(ROWS);
        Ok(InstanceNormPlan { images, pixels, channels, repeated, rows })
    }

    fn columns(&self) -> usize {
        self.channels * self.repeated
    }

    /// Parts of an image; the pixels that are left over go into the last.
    fn parts(&self) -> usize {
        (self.pixels / self.repeated).div_ceil(self.rows)
    }

    /// Floats of scratch memory that a run takes.
    pub fn scratch(&self) -> usize {
        (2 * self.parts() + 3) * self.columns()
    }
}

impl Kernels {
    /// `out = (x - mean) / sqrt(variance + epsilon) * scale + shift` with the statistics of each channel of each image; x
    /// `[images, pixels, channels]`, scale and shift `[channels]`, scratch as the plan says.
    #[allow(clippy::too_many_arguments, reason = "what the formula has")]
    pub fn instance_norm(
        &self,
        plan: &InstanceNormPlan,
        epsilon: f32,
        scale: &[f32],
        shift: &[f32],
        x: &[f32],
        out: &mut [f32],
        scratch: &mut [f32],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let image = plan.pixels * plan.channels;
        expect_length(KERNEL, "x", plan.images * image, x.len())?;
        expect_length(KERNEL, "out", x.len(), out.len())?;
        expect_length(KERNEL, "scale", plan.channels, scale.len())?;
        expect_length(KERNEL, "shift", plan.channels, shift.len())?;
        expect_length(KERNEL, "scratch", plan.scratch(), scratch.len())?;
        if x.is_empty() {
            return Ok(());
        }
        let columns = plan.columns();
        let (parts, lines) = scratch.split_at_mut(plan.parts() * 2 * columns);
        let (centers, lines) = lines.split_at_mut(columns);
        let (factors, summands) = lines.split_at_mut(columns);
        for (x, out) in x.chunks_exact(image).zip(out.chunks_exact_mut(image)) {
            threads.for_each_slice(parts, 2 * columns, |part, made| {
                let start = part * plan.rows * columns;
                let rows = plan.rows.min((image - start) / columns);
                let (means, squares) = made.split_at_mut(columns);
                let work = Moments {
                    x: x[start..start + rows * columns].as_ptr(),
                    rows,
                    columns,
                    means: means.as_mut_ptr(),
                    squares: squares.as_mut_ptr(),
                };
                // SAFETY: the rows lie within x, and both results have `columns` floats.
                unsafe { (self.moments)(&work) };
            });
            for channel in 0..plan.channels {
                let [mean, variance] = statistics(plan, x, parts, channel);
                let factor = f64::from(scale[channel]) / (variance + f64::from(epsilon)).sqrt();
                // The difference is taken first: a sum with the mean times the factor would lose what is left of it.
                for column in (channel..columns).step_by(plan.channels) {
                    (centers[column], factors[column]) = (mean as f32, factor as f32);
                    summands[column] = shift[channel];
                }
            }
            let line = Channels { center: Some(centers), scale: factors, shift: summands };
            self.scale_shift(&line, &Epilogue::default(), x, out, threads)?;
        }
        Ok(())
    }
}

/// Mean and variance of a channel of an image.
fn statistics(plan: &InstanceNormPlan, x: &[f32], parts: &[f32], channel: usize) -> [f64; 2] {
    let columns = plan.columns();
    let whole = plan.pixels / plan.repeated;
    // Of every column: the rows of its part, their mean, their squares around it.
    let each = || {
        parts.chunks_exact(2 * columns).enumerate().flat_map(move |(part, made)| {
            let rows = plan.rows.min(whole - part * plan.rows) as f64;
            let (means, squares) = made.split_at(columns);
            let columns = means.iter().zip(squares).skip(channel).step_by(plan.channels);
            columns.map(move |(&mean, &squares)| (rows, f64::from(mean), f64::from(squares)))
        })
    };
    let rest =
        || (whole * plan.repeated..plan.pixels).map(|pixel| f64::from(x[pixel * plan.channels + channel]));
    let sum: f64 = each().map(|(rows, mean, _)| rows * mean).sum::<f64>() + rest().sum::<f64>();
    let mean = sum / plan.pixels as f64;
    let squares =
        each().map(|(rows, part, squares)| squares + rows * (part - mean) * (part - mean)).sum::<f64>();
    let squares = squares + rest().map(|x| (x - mean) * (x - mean)).sum::<f64>();
    [mean, squares / plan.pixels as f64]
}

/// Rows whose columns' moments are wanted.
pub(super) struct Moments {
    x: *const f32,
    rows: usize,
    columns: usize,
    means: *mut f32,
    squares: *mut f32,
}

/// The mean of each column, and the sum of squares around it.
///
/// # Safety
/// `x` must be there for its rows, at least one, of `columns` floats, both results for `columns`.
#[inline(always)]
pub(super) unsafe fn moments<I: Isa>(isa: I, work: &Moments) {
    let mut column = 0;
    // SAFETY: as the caller vouches; the columns remain.
    unsafe {
        while column + 4 * I::LANES <= work.columns {
            some_moments::<I, 4>(isa, work, column, I::LANES);
            column += 4 * I::LANES;
        }
        while column < work.columns {
            some_moments::<I, 1>(isa, work, column, (work.columns - column).min(I::LANES));
            column += I::LANES;
        }
    }
}

/// Those of `V` vectors of columns from `column` on, each of `count` floats.
#[inline(always)]
unsafe fn some_moments<I: Isa, const V: usize>(isa: I, work: &Moments, column: usize, count: usize) {
    let share = isa.splat(1.0 / work.rows as f32);
    let mut first = [isa.splat(0.0); V];
    let (mut means, mut sums, mut squares) = (first, first, first);
    // SAFETY: as the caller vouches.
    unsafe {
        // The first row is taken away, so that what is summed is small beside it where values are alike.
        for vector in 0..V {
            first[vector] = isa.load_up_to(work.x.add(column + vector * I::LANES), count);
        }
        for row in 1..work.rows {
            for vector in 0..V {
                let x = isa.load_up_to(work.x.add(row * work.columns + column + vector * I::LANES), count);
                sums[vector] = isa.add(sums[vector], isa.sub(x, first[vector]));
            }
        }
        for vector in 0..V {
            means[vector] = isa.mul_add(sums[vector], share, first[vector]);
        }
        for row in 0..work.rows {
            for vector in 0..V {
                let x = isa.load_up_to(work.x.add(row * work.columns + column + vector * I::LANES), count);
                let apart = isa.sub(x, means[vector]);
                squares[vector] = isa.mul_add(apart, apart, squares[vector]);
            }
        }
        for vector in 0..V {
            let at = column + vector * I::LANES;
            isa.store_up_to(work.means.add(at), means[vector], count);
            isa.store_up_to(work.squares.add(at), squares[vector], count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::available;
    use crate::kernels::testing::{assert_close, random};

    fn expected(images: &[f32], pixels: usize, scale: &[f32], shift: &[f32], epsilon: f64) -> Vec<f64> {
        let channels = scale.len();
        let mut all = vec![0.0; images.len()];
        for (x, y) in images.chunks(pixels * channels).zip(all.chunks_mut(pixels * channels)) {
            for channel in 0..channels {
                let of = || x.iter().skip(channel).step_by(channels).map(|&x| f64::from(x));
                let mean = of().sum::<f64>() / pixels as f64;
                let variance = of().map(|x| (x - mean).powi(2)).sum::<f64>() / pixels as f64;
                for (y, x) in y.iter_mut().skip(channel).step_by(channels).zip(of()) {
                    let normal = (x - mean) / (variance + epsilon).sqrt();
                    *y = normal * f64::from(scale[channel]) + f64::from(shift[channel]);
                }
            }
        }
        all
    }

    #[test]
    fn channels_of_images_of_every_size() {
        for kernels in available() {
            let sizes =
                [(1, 1, 1), (2, 7, 3), (1, 5000, 1), (2, 777, 5), (3, 300, 20), (1, 1500, 67), (1, 40, 1030)];
            for (images, pixels, channels) in sizes {
                let x: Vec<f32> =
                    random(images * pixels * channels, 1).iter().map(|x| x * 3.0 + 20.0).collect();
                let (scale, shift) = (random(channels, 2), random(channels, 3));
                let expected = expected(&x, pixels, &scale, &shift, 1e-3);
                let plan = InstanceNormPlan::new(images, pixels, channels).unwrap();
                for threads in [1, 3].map(Threads::new) {
                    let mut out = vec![f32::NAN; x.len()];
                    let mut scratch = vec![f32::NAN; plan.scratch()];
                    kernels
                        .instance_norm(&plan, 1e-3, &scale, &shift, &x, &mut out, &mut scratch, &threads)
                        .unwrap();
                    assert_close(&out, &expected, 2e-5);
                }
            }
        }
    }

    #[test]
    fn lying_lengths_are_refused() {
        let kernels = available()[0];
        let plan = InstanceNormPlan::new(1, 6, 2).unwrap();
        let (x, mut scratch) = ([1.0; 12], vec![0.0; plan.scratch()]);
        let mut run = |channels: usize, out: usize, less: usize| {
            let (scale, mut out) = (vec![1.0; channels], vec![0.0; out]);
            let scratch = &mut scratch[less..];
            let single = Threads::single();
            kernels.instance_norm(&plan, 0.0, &scale, &[0.0; 2], &x, &mut out, scratch, &single).is_ok()
        };
        assert!(run(2, 12, 0));
        assert!(!run(1, 12, 0) && !run(2, 11, 0) && !run(2, 12, 1));
        assert!(InstanceNormPlan::new(usize::MAX, 2, 3).is_err());
        let none = InstanceNormPlan::new(0, 5, 0).unwrap();
        let done = kernels.instance_norm(&none, 0.0, &[], &[], &[], &mut [], &mut [], &Threads::single());
        assert!(done.is_ok());
    }
}
