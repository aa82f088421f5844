//! Normalisation of rows: layer norm, root-mean-square norm, and the affine map that batch norm becomes.

use super::error::{KernelError, expect_length};
use super::isa::{Isa, MAX_LANES};
use super::math;
use super::product::Epilogue;
use super::table::Kernels;
use super::threads::Threads;

/// How rows are normalised; see [`Kernels::norm_rows`].
#[derive(Clone, Copy, Debug)]
pub struct RowNorm<'a> {
    /// Whether the mean is taken away first (layer norm) or not (RMS norm).
    pub center: bool,
    /// Added to the variance.
    pub epsilon: f32,
    /// A factor per column.
    pub scale: Option<&'a [f32]>,
    /// A summand per column.
    pub shift: Option<&'a [f32]>,
}

/// Elements per task.
const GRAIN: usize = 8 * 1024;

/// What each channel is mapped by; see [`Kernels::scale_shift`]. All have one value per channel.
#[derive(Clone, Copy, Debug)]
pub struct Channels<'a> {
    /// Taken away first.
    pub center: Option<&'a [f32]>,
    /// Then the factor.
    pub scale: &'a [f32],
    /// Then the summand.
    pub shift: &'a [f32],
}

/// How often channels stand side by side in a row for [`Kernels::scale_shift`], so that it is whole groups of vectors.
pub fn repeats(channels: usize) -> usize {
    /// Columns below which channels are repeated, to a multiple of so many: a power of two.
    const COLUMNS: usize = 64;
    // What divides both is the channels' lowest bit.
    let common = channels & channels.wrapping_neg();
    if (1..COLUMNS).contains(&channels) { COLUMNS / common } else { 1 }
}

impl Kernels {
    /// For each row of `columns` elements: `out = (x - mean) / sqrt(variance + epsilon) * scale + shift`, with the variance
    /// over the row (of `x` itself when not centred).
    pub fn norm_rows(
        &self,
        norm: &RowNorm<'_>,
        columns: usize,
        x: &[f32],
        out: &mut [f32],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        expect_length("norm_rows", "out", x.len(), out.len())?;
        expect_rows("norm_rows", columns, x.len())?;
        for (argument, values) in [("scale", norm.scale), ("shift", norm.shift)] {
            if let Some(values) = values {
                expect_length("norm_rows", argument, columns, values.len())?;
            }
        }
        if x.is_empty() {
            return Ok(());
        }
        let rows = GRAIN.div_ceil(columns);
        threads.for_each_slice(out, rows * columns, |task, out| {
            let work = Rows {
                x: x[task * rows * columns..][..out.len()].as_ptr(),
                out: out.as_mut_ptr(),
                rows: out.len() / columns,
                columns,
                scale: pointer(norm.scale),
                shift: pointer(norm.shift),
                center: norm.center,
                epsilon: norm.epsilon,
            };
            // SAFETY: x and out have `rows` times `columns` elements, scale and shift `columns` or are null.
            unsafe { (self.norm_rows)(&work) };
        });
        Ok(())
    }

    /// For each row of as many elements as there are channels: `out = activation(clamp((x - center) * scale + shift))`, as the
    /// epilogue says; it has no residual. The last row may be shorter.
    pub fn scale_shift(
        &self,
        channels: &Channels<'_>,
        epilogue: &Epilogue<'_>,
        x: &[f32],
        out: &mut [f32],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let Channels { center, scale, shift } = *channels;
        let columns = scale.len();
        expect_length("scale_shift", "shift", columns, shift.len())?;
        expect_length("scale_shift", "center", columns, center.map_or(columns, <[f32]>::len))?;
        expect_length("scale_shift", "out", x.len(), out.len())?;
        if x.is_empty() {
            return Ok(());
        }
        if columns == 0 || epilogue.residual.is_some() {
            let (argument, problem) =
                if columns == 0 { ("scale", "is empty") } else { ("residual", "is not for this kernel") };
            return Err(KernelError::Descriptor { kernel: "scale_shift", argument, problem });
        }
        let size = GRAIN.next_multiple_of(columns);
        threads.for_each_slice(out, size, |task, out| {
            let x = &x[task * size..][..out.len()];
            let work = Scaled {
                x: x.as_ptr(),
                out: out.as_mut_ptr(),
                length: out.len(),
                center: pointer(center),
                scale: scale.as_ptr(),
                shift: shift.as_ptr(),
                columns,
                min: epilogue.min,
                max: epilogue.max,
            };
            // SAFETY: x and out have `length` elements, scale and shift `columns`; a task begins with a row.
            unsafe { (self.scale_shift)(&work) };
            if let Some(activation) = epilogue.activation {
                // SAFETY: in place over what was just written.
                unsafe { self.activate(activation, out.as_mut_ptr(), out.len()) };
            }
        });
        Ok(())
    }
}

fn pointer(values: Option<&[f32]>) -> *const f32 {
    values.map_or(std::ptr::null(), <[f32]>::as_ptr)
}

/// Fails unless `length` elements are whole rows of `columns`.
fn expect_rows(kernel: &'static str, columns: usize, length: usize) -> Result<(), KernelError> {
    if length == 0 || columns != 0 && length.is_multiple_of(columns) {
        return Ok(());
    }
    Err(KernelError::Descriptor { kernel, argument: "x", problem: "is not whole rows" })
}

/// Rows to normalise.
pub(super) struct Rows {
    x: *const f32,
    out: *mut f32,
    rows: usize,
    columns: usize,
    /// Null for none.
    scale: *const f32,
    /// Null for none.
    shift: *const f32,
    center: bool,
    epsilon: f32,
}

/// Normalises rows: four at a time, whose sums do not wait for one another.
///
/// # Safety
/// What `work` points to must be there for its rows and columns.
#[inline(always)]
pub(super) unsafe fn norm_rows<I: Isa>(isa: I, work: &Rows) {
    let mut row = 0;
    // SAFETY: as the caller vouches; the rows remain.
    unsafe {
        while row + 4 <= work.rows {
            some_rows::<I, 4, 1>(isa, work, row);
            row += 4;
        }
        while row < work.rows {
            some_rows::<I, 1, 4>(isa, work, row);
            row += 1;
        }
    }
}

/// `R` rows from `row` on: mean, variance around it, result; three passes over rows in cache, each sum in `S` streams.
#[inline(always)]
unsafe fn some_rows<I: Isa, const R: usize, const S: usize>(isa: I, work: &Rows, row: usize) {
    let columns = work.columns;
    // SAFETY: as the caller vouches; `count` elements remain at `column`.
    unsafe {
        let x = work.x.add(row * columns);
        let mut means = [0.0; R];
        if work.center {
            means = sums::<I, R, S, false>(isa, x, columns, means);
            for mean in &mut means {
                *mean /= columns as f32;
            }
        }
        let mut centers = [isa.splat(0.0); R];
        let mut factors = centers;
        let squares = sums::<I, R, S, true>(isa, x, columns, means);
        for r in 0..R {
            centers[r] = isa.splat(means[r]);
            factors[r] = isa.splat(1.0 / (squares[r] / columns as f32 + work.epsilon).sqrt());
        }
        let mut column = 0;
        while column < columns {
            let count = (columns - column).min(I::LANES);
            let (mut scale, mut shift) = (isa.splat(1.0), isa.splat(0.0));
            if !work.scale.is_null() {
                scale = isa.load_up_to(work.scale.add(column), count);
            }
            if !work.shift.is_null() {
                shift = isa.load_up_to(work.shift.add(column), count);
            }
            for r in 0..R {
                let apart = isa.sub(isa.load_up_to(x.add(r * columns + column), count), centers[r]);
                let value = isa.mul_add(isa.mul(apart, factors[r]), scale, shift);
                isa.store_up_to(work.out.add((row + r) * columns + column), value, count);
            }
            column += I::LANES;
        }
    }
}

/// The sum of each of `R` rows, or that of the squares of what stands apart from the rows' means. No closures here: the
/// instruction set's functions are not inlined into them.
#[inline(always)]
unsafe fn sums<I: Isa, const R: usize, const S: usize, const SQUARES: bool>(
    isa: I,
    x: *const f32,
    columns: usize,
    means: [f32; R],
) -> [f32; R] {
    let whole = columns / I::LANES * I::LANES;
    // SAFETY: as the caller vouches.
    unsafe {
        let mut centers = [isa.splat(0.0); R];
        for r in 0..R {
            centers[r] = isa.splat(means[r]);
        }
        let mut sums = [[isa.splat(0.0); S]; R];
        let mut column = 0;
        while column + S * I::LANES <= whole {
            for r in 0..R {
                for s in 0..S {
                    let value = isa.load(x.add(r * columns + column + s * I::LANES));
                    sums[r][s] = add::<I, SQUARES>(isa, sums[r][s], value, centers[r]);
                }
            }
            column += S * I::LANES;
        }
        while column < whole {
            for r in 0..R {
                let value = isa.load(x.add(r * columns + column));
                sums[r][0] = add::<I, SQUARES>(isa, sums[r][0], value, centers[r]);
            }
            column += I::LANES;
        }
        if column < columns {
            let count = columns - column;
            for r in 0..R {
                // Lanes behind the row are 0 in both.
                let value = isa.load_partial(x.add(r * columns + column), count);
                let center = isa.load_partial([means[r]; MAX_LANES].as_ptr(), count);
                sums[r][0] = add::<I, SQUARES>(isa, sums[r][0], value, center);
            }
        }
        let mut made = [0.0; R];
        if R == 4 {
            let mut four = [isa.splat(0.0); 4];
            for r in 0..R {
                four[r] = sums[r][0];
            }
            made.copy_from_slice(&isa.reduce_add_four(four)[..R]);
            return made;
        }
        for r in 0..R {
            for s in 1..S {
                sums[r][0] = isa.add(sums[r][0], sums[r][s]);
            }
            made[r] = isa.reduce_add(sums[r][0]);
        }
        made
    }
}

#[inline(always)]
fn add<I: Isa, const SQUARES: bool>(isa: I, sum: I::F32, value: I::F32, center: I::F32) -> I::F32 {
    if !SQUARES {
        return isa.add(sum, value);
    }
    let apart = isa.sub(value, center);
    isa.mul_add(apart, apart, sum)
}

/// Rows to scale and shift; the last may be shorter.
pub(super) struct Scaled {
    x: *const f32,
    out: *mut f32,
    length: usize,
    /// Null for none.
    center: *const f32,
    scale: *const f32,
    shift: *const f32,
    columns: usize,
    min: f32,
    max: f32,
}

/// `out = clamp((x - center) * scale + shift)`, row after row.
///
/// # Safety
/// `x` and `out` must be there for `length` floats, and be the same or apart; `scale` and `shift` for `columns`, more than none.
#[inline(always)]
pub(super) unsafe fn scale_shift<I: Isa>(isa: I, work: &Scaled) {
    for row in (0..work.length).step_by(work.columns) {
        let columns = work.columns.min(work.length - row);
        for column in (0..columns).step_by(I::LANES) {
            let count = (columns - column).min(I::LANES);
            // SAFETY: `count` elements remain of the row and of its factors and summands.
            unsafe {
                let out = work.out.add(row + column);
                let mut x = isa.load_up_to(work.x.add(row + column), count);
                if !work.center.is_null() {
                    x = isa.sub(x, isa.load_up_to(work.center.add(column), count));
                }
                let scale = isa.load_up_to(work.scale.add(column), count);
                let shift = isa.load_up_to(work.shift.add(column), count);
                let scaled = isa.mul_add(x, scale, shift);
                let scaled = math::clamp(isa, scaled, work.min, work.max);
                isa.store_up_to(out, scaled, count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::available;
    use crate::kernels::testing::{assert_close, random};

    #[test]
    fn rows_of_every_length() {
        for kernels in available() {
            for columns in [1, 3, 7, 8, 9, 15, 17, 31, 33, 63, 65, 100, 384] {
                for center in [true, false] {
                    let rows = 41;
                    let x: Vec<f32> = random(rows * columns, 1).iter().map(|x| x * 3.0 + 2.0).collect();
                    let [scale, shift, center_of] = [2, 3, 4].map(|seed| random(columns, seed));
                    let mut expected = Vec::new();
                    for row in x.chunks(columns) {
                        let mean: f64 = row.iter().map(|&x| f64::from(x)).sum::<f64>() / columns as f64;
                        let mean = if center { mean } else { 0.0 };
                        let variance: f64 =
                            row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / columns as f64;
                        for (column, &x) in row.iter().enumerate() {
                            let normal = (f64::from(x) - mean) / (variance + 1e-3).sqrt();
                            expected.push(normal * f64::from(scale[column]) + f64::from(shift[column]));
                        }
                    }
                    let norm = RowNorm { center, epsilon: 1e-3, scale: Some(&scale), shift: Some(&shift) };
                    let mut out = vec![0.0; x.len()];
                    kernels.norm_rows(&norm, columns, &x, &mut out, &Threads::new(2)).unwrap();
                    assert_close(&out, &expected, 3e-6);

                    let clamped = Epilogue { min: -0.5, max: 2.0, ..Epilogue::default() };
                    let channels = Channels { center: Some(&center_of), scale: &scale, shift: &shift };
                    kernels.scale_shift(&channels, &clamped, &x, &mut out, &Threads::new(2)).unwrap();
                    let expected: Vec<f64> = (0..x.len())
                        .map(|i| {
                            let line = f64::from(scale[i % columns]);
                            ((f64::from(x[i]) - f64::from(center_of[i % columns])) * line
                                + f64::from(shift[i % columns]))
                            .clamp(-0.5, 2.0)
                        })
                        .collect();
                    assert_close(&out, &expected, 1e-6);
                }
            }
        }
    }

    #[test]
    fn lying_lengths_are_refused() {
        let kernels = available()[0];
        let single = Threads::single();
        let norm = RowNorm { center: true, epsilon: 0.0, scale: None, shift: None };
        let mut out = [0.0; 6];
        assert!(kernels.norm_rows(&norm, 4, &[0.0; 6], &mut out, &single).is_err());
        assert!(kernels.norm_rows(&norm, 0, &[0.0; 6], &mut out, &single).is_err());
        assert!(kernels.norm_rows(&norm, 3, &[0.0; 5], &mut out, &single).is_err());
        let bad = RowNorm { scale: Some(&[1.0; 2]), ..norm };
        assert!(kernels.norm_rows(&bad, 3, &[0.0; 6], &mut out, &single).is_err());
        let none = Epilogue::default();
        let channels = |scale: usize, shift: usize| Channels {
            center: None,
            scale: &[1.0; 3][..scale],
            shift: &[1.0; 3][..shift],
        };
        assert!(kernels.scale_shift(&channels(3, 2), &none, &[0.0; 6], &mut out, &single).is_err());
        assert!(kernels.scale_shift(&channels(0, 0), &none, &[0.0; 6], &mut out, &single).is_err());
        assert!(kernels.scale_shift(&channels(3, 3), &none, &[0.0; 5], &mut out, &single).is_err());
        let residual = Epilogue { residual: Some(&[0.0; 6]), ..none };
        assert!(kernels.scale_shift(&channels(3, 3), &residual, &[0.0; 6], &mut out, &single).is_err());
        assert!(kernels.norm_rows(&norm, 3, &[], &mut [], &single).is_ok());
    }
}
