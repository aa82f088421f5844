//! The matrix product in brain floats: both matrices are rounded to the upper half of an f32 (eight bits of mantissa),
//! products are exact and summed in f32. An opt-in (`--precision bf16`): twice the products per instruction and half
//! the bytes of weights, for two to three digits.
//!
//! Two numbers that follow each other along the depth are one lane of 32 bits. AVX-512 BF16 has the instruction for the
//! pair of products; elsewhere the same sums are computed in f32, which is right but not fast.

use super::error::{KernelError, expect_length, product};
use super::pack::BLayout;
use super::product::{Epilogue, part};
use super::table::Kernels;
use super::threads::{SendPtr, Threads};

/// Columns of a panel: two vectors.
const COLUMNS: usize = 32;
/// Rows of the register tile.
const ROWS: usize = 12;
/// Multiplications below which a second thread costs more than it brings.
const PARALLEL_WORK: usize = 128 * 1024;

/// The second matrix of a product in brain floats, packed, with its bias in f32.
#[derive(Clone, Debug)]
pub struct PackedBf16 {
    /// Panels of `pairs` rows of [`COLUMNS`] pairs.
    panels: Vec<u32>,
    bias: Option<Vec<f32>>,
    k: usize,
    n: usize,
}

/// The nearest brain float, halves to even; NaN stays NaN.
#[inline(always)]
fn rounded(value: f32) -> u32 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) | 0x40;
    }
    bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16
}

#[inline(always)]
fn pair(low: f32, high: f32) -> u32 {
    rounded(low) | (rounded(high) << 16)
}

impl PackedBf16 {
    /// Rounds and packs `b` (`k * n` elements in `layout`) and a bias of `n` elements.
    pub fn pack(
        k: usize,
        n: usize,
        b: &[f32],
        layout: BLayout,
        bias: Option<&[f32]>,
    ) -> Result<Self, KernelError> {
        expect_length("pack bf16", "b", product("pack bf16", "b", &[k, n])?, b.len())?;
        if let Some(bias) = bias {
            expect_length("pack bf16", "bias", n, bias.len())?;
        }
        let pairs = k.div_ceil(2);
        let panels = n.div_ceil(COLUMNS);
        let mut packed = vec![0; product("pack bf16", "b", &[panels, pairs, COLUMNS])?];
        let at = |row: usize, column: usize| match layout {
            _ if row >= k => 0.0,
            BLayout::RowMajorKxN => b[row * n + column],
            BLayout::RowMajorNxK => b[column * k + row],
        };
        for (panel, to) in packed.chunks_exact_mut((pairs * COLUMNS).max(1)).enumerate() {
            let first = panel * COLUMNS;
            for (row, to) in to.chunks_exact_mut(COLUMNS).enumerate() {
                for (column, to) in (first..n.min(first + COLUMNS)).zip(to) {
                    *to = pair(at(2 * row, column), at(2 * row + 1, column));
                }
            }
        }
        Ok(Self { panels: packed, bias: bias.map(<[f32]>::to_vec), k, n })
    }

    /// Elements of memory that a product of `rows` rows works in; `None` where that cannot be addressed.
    pub fn scratch(&self, rows: usize) -> Option<usize> {
        rows.checked_mul(self.k.div_ceil(2))
    }
}

impl Kernels {
    /// `out[m, n] = epilogue(a[m, k] * b[k, n])` with both matrices rounded to brain floats. `scratch` has
    /// [`PackedBf16::scratch`] elements or more.
    #[allow(clippy::too_many_arguments, reason = "a matrix product has these")]
    pub fn gemm_bf16(
        &self,
        a: &[f32],
        m: usize,
        b: &PackedBf16,
        out: &mut [f32],
        epilogue: &Epilogue<'_>,
        scratch: &mut [u32],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let name = "gemm bf16";
        expect_length(name, "a", product(name, "a", &[m, b.k])?, a.len())?;
        expect_length(name, "out", product(name, "out", &[m, b.n])?, out.len())?;
        if let Some(residual) = epilogue.residual {
            expect_length(name, "residual", out.len(), residual.len())?;
        }
        let pairs = b.k.div_ceil(2);
        let available = scratch.len();
        let Some(scratch) = scratch.get_mut(..m * pairs) else {
            let expected = m * pairs;
            return Err(KernelError::Length {
                kernel: name,
                argument: "scratch",
                expected,
                actual: available,
            });
        };
        if m == 0 || b.n == 0 {
            return Ok(());
        }
        let fast = is_fast();
        let work = m.saturating_mul(b.n).saturating_mul(b.k.max(1));
        let tasks =
            if threads.count() == 1 { 1 } else { (threads.count() * 4).min(work / PARALLEL_WORK).max(1) };
        let row_tasks = tasks.min(m.div_ceil(ROWS));
        let panels = b.n.div_ceil(COLUMNS);
        let panel_tasks = (tasks / row_tasks).clamp(1, panels);
        if pairs > 0 {
            let (to, rows) = (SendPtr(scratch.as_mut_ptr()), row_tasks);
            threads.for_each(rows, |task| {
                let task_rows = part(m, rows, task);
                let from = &a[task_rows.start * b.k..task_rows.end * b.k];
                // SAFETY: the rows of each task are its own part of `scratch`, which has `m` rows of `pairs`.
                let to = unsafe {
                    std::slice::from_raw_parts_mut(
                        to.get().add(task_rows.start * pairs),
                        task_rows.len() * pairs,
                    )
                };
                round_rows(fast, from, b.k, to);
            });
        }
        let scratch = &*scratch;
        let data = SendPtr(out.as_mut_ptr());
        threads.for_each(row_tasks * panel_tasks, |task| {
            for panel in part(panels, panel_tasks, task / row_tasks) {
                let mut rows = part(m, row_tasks, task % row_tasks);
                while !rows.is_empty() {
                    let count = rows.len().min(ROWS);
                    let mut sums = [[0.0; COLUMNS]; ROWS];
                    let weights = &b.panels[panel * pairs * COLUMNS..(panel + 1) * pairs * COLUMNS];
                    let from = &scratch[rows.start * pairs..(rows.start + count) * pairs];
                    multiply(fast, from, weights, pairs, &mut sums[..count]);
                    let first = panel * COLUMNS;
                    let columns = COLUMNS.min(b.n - first);
                    for (row, sums) in (rows.start..).zip(&mut sums[..count]) {
                        let start = row * b.n + first;
                        if let Some(bias) = &b.bias {
                            sums.iter_mut()
                                .zip(&bias[first..first + columns])
                                .for_each(|(sum, bias)| *sum += bias);
                        }
                        if let Some(residual) = epilogue.residual {
                            let residual = &residual[start..start + columns];
                            sums.iter_mut().zip(residual).for_each(|(sum, more)| *sum += more);
                        }
                        // SAFETY: row and columns are within `out`, and each is written by one task.
                        let to = unsafe { std::slice::from_raw_parts_mut(data.get().add(start), columns) };
                        for (to, &sum) in to.iter_mut().zip(&*sums) {
                            // NaN passes the bounds.
                            let low = if sum < epilogue.min { epilogue.min } else { sum };
                            *to = if low > epilogue.max { epilogue.max } else { low };
                        }
                    }
                    rows.start += count;
                }
            }
        });
        if let Some(activation) = epilogue.activation {
            self.activate_all(activation, out, threads);
        }
        Ok(())
    }
}

/// Whether this CPU has the instruction for pairs of products, and no other instruction set is forced.
fn is_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        super::best().name.starts_with("avx512") && is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Rounds rows of `k`; a row of odd length ends with a zero.
fn round_rows(fast: bool, from: &[f32], k: usize, to: &mut [u32]) {
    let pairs = k.div_ceil(2);
    for (from, to) in from.chunks_exact(k).zip(to.chunks_exact_mut(pairs)) {
        #[cfg(target_arch = "x86_64")]
        if fast {
            // SAFETY: `fast` is true only where the instructions were detected.
            unsafe { fast::round_row(from, to) };
            continue;
        }
        let _ = fast;
        let mut whole = from.chunks_exact(2);
        for (to, from) in to.iter_mut().zip(&mut whole) {
            *to = pair(from[0], from[1]);
        }
        if let ([last], Some(to)) = (whole.remainder(), to.last_mut()) {
            *to = pair(*last, 0.0);
        }
    }
}

/// `sums[i] += a[i] * weights` for the rows of `a`.
fn multiply(fast: bool, a: &[u32], weights: &[u32], pairs: usize, sums: &mut [[f32; COLUMNS]]) {
    assert!(a.len() == sums.len() * pairs && weights.len() == pairs * COLUMNS);
    #[cfg(target_arch = "x86_64")]
    if fast {
        // SAFETY: `fast` is true only where the instructions were detected; the lengths were just checked.
        unsafe { fast::multiply(a, weights, pairs, sums) };
        return;
    }
    let _ = fast;
    let low = |pair: u32| f32::from_bits(pair << 16);
    let high = |pair: u32| f32::from_bits(pair & 0xffff_0000);
    for (row, sums) in sums.iter_mut().enumerate() {
        for (at, weights) in weights.chunks_exact(COLUMNS).enumerate() {
            let a = a[row * pairs + at];
            for (sum, &w) in sums.iter_mut().zip(weights) {
                *sum += high(a) * high(w);
                *sum += low(a) * low(w);
            }
        }
    }
}

/// AVX-512 BF16: servers since 2021, desktops since Zen 4.
#[cfg(target_arch = "x86_64")]
mod fast {
    use super::{COLUMNS, ROWS};
    use core::arch::x86_64::*;

    /// # Safety
    /// The CPU must have the features; `to` has half as many elements as `from`, rounded up.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn round_row(from: &[f32], to: &mut [u32]) {
        let mut at = 0;
        while at < from.len() {
            let count = (from.len() - at).min(16);
            let mask = ((1u32 << count) - 1) as __mmask16;
            let pairs = ((1u32 << count.div_ceil(2)) - 1) as __mmask8;
            // SAFETY: lanes beyond the row are masked off when reading, and pairs beyond it when writing.
            unsafe {
                let row = _mm512_maskz_loadu_ps(mask, from.as_ptr().add(at));
                let rounded = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(row));
                _mm256_mask_storeu_epi32(to.as_mut_ptr().add(at / 2).cast(), pairs, rounded);
            }
            at += 16;
        }
    }

    /// # Safety
    /// The CPU must have the features; `a` has `pairs` elements for each of the sums, `weights` as many rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn multiply(a: &[u32], weights: &[u32], pairs: usize, sums: &mut [[f32; COLUMNS]]) {
        let (mut a, mut sums) = (a, sums);
        // SAFETY: each step takes the rows that it computes from both.
        unsafe {
            while sums.len() >= ROWS {
                (a, sums) = tile::<ROWS>(a, weights, pairs, sums);
            }
            if sums.len() >= 6 {
                (a, sums) = tile::<6>(a, weights, pairs, sums);
            }
            if sums.len() >= 3 {
                (a, sums) = tile::<3>(a, weights, pairs, sums);
            }
            while !sums.is_empty() {
                (a, sums) = tile::<1>(a, weights, pairs, sums);
            }
        }
    }

    /// # Safety
    /// As [`multiply`], for at least `R` rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn tile<'a, 's, const R: usize>(
        a: &'a [u32],
        weights: &[u32],
        pairs: usize,
        sums: &'s mut [[f32; COLUMNS]],
    ) -> (&'a [u32], &'s mut [[f32; COLUMNS]]) {
        let (rows, rest) = a.split_at(R * pairs);
        let (out, sums) = sums.split_at_mut(R);
        let mut left = [_mm512_setzero_ps(); R];
        let mut right = [_mm512_setzero_ps(); R];
        for at in 0..pairs {
            // SAFETY: `at` is below `pairs`, the number of rows of weights and of elements of each row of `a`.
            unsafe {
                let panel = weights.as_ptr().add(at * COLUMNS);
                let w0 = std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(panel.cast()));
                let w1 = std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(panel.add(16).cast()));
                for row in 0..R {
                    let pair = *rows.get_unchecked(row * pairs + at);
                    let x = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair as i32));
                    left[row] = _mm512_dpbf16_ps(left[row], x, w0);
                    right[row] = _mm512_dpbf16_ps(right[row], x, w1);
                }
            }
        }
        for (row, out) in out.iter_mut().enumerate() {
            // SAFETY: a row of sums is two vectors.
            unsafe {
                _mm512_storeu_ps(out.as_mut_ptr(), left[row]);
                _mm512_storeu_ps(out.as_mut_ptr().add(16), right[row]);
            }
        }
        (rest, sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{
        Unary, available,
        testing::{assert_close, random},
    };
    use half::bf16;

    /// The product of the rounded matrices, in f64.
    fn naive(a: &[f32], m: usize, k: usize, n: usize, b: &[f32]) -> Vec<f64> {
        let round = |value: f32| f64::from(bf16::from_f32(value).to_f32());
        let sum = |i: usize, j: usize| (0..k).map(|l| round(a[i * k + l]) * round(b[l * n + j])).sum::<f64>();
        (0..m * n).map(|at| sum(at / n, at % n)).collect()
    }

    #[test]
    fn rounding_is_that_of_the_type() {
        for bits in (0..=u32::MAX).step_by(65_521) {
            let value = f32::from_bits(bits);
            let (found, expected) = (rounded(value) as u16, bf16::from_f32(value).to_bits());
            assert!(found == expected || value.is_nan(), "{bits:x}: {found:x} {expected:x}");
        }
    }

    #[test]
    fn agrees_with_the_naive_product_of_rounded_numbers() {
        let kernels = available()[0];
        for threads in [Threads::single(), Threads::new(3)] {
            for (m, k, n) in [(1, 1, 1), (2, 3, 31), (5, 16, 32), (13, 33, 65), (40, 700, 100), (25, 64, 7)] {
                let (a, b, bias) = (random(m * k, 1), random(k * n, 2), random(n, 3));
                let residual = random(m * n, 4);
                let turned: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
                let expected: Vec<f64> = naive(&a, m, k, n, &b)
                    .iter()
                    .enumerate()
                    .map(|(at, sum)| {
                        (sum + f64::from(bias[at % n]) + f64::from(residual[at])).clamp(-1.5, 2.0)
                    })
                    .map(|value| Unary::Sigmoid.apply_f64(value))
                    .collect();
                let epilogue = Epilogue {
                    min: -1.5,
                    max: 2.0,
                    residual: Some(&residual),
                    activation: Some(Unary::Sigmoid.into()),
                };
                for (layout, b) in [(BLayout::RowMajorKxN, &b), (BLayout::RowMajorNxK, &turned)] {
                    let packed = PackedBf16::pack(k, n, b, layout, Some(&bias)).unwrap();
                    let mut scratch = vec![u32::MAX; packed.scratch(m).unwrap()];
                    let mut out = vec![7.0; m * n];
                    kernels.gemm_bf16(&a, m, &packed, &mut out, &epilogue, &mut scratch, &threads).unwrap();
                    assert_close(&out, &expected, 1e-5);
                }
            }
        }
    }

    /// The portable sums and those of the instruction.
    #[test]
    fn both_ways_agree() {
        let (rows, k) = (13, 77);
        let pairs = 39;
        let (a, b) = (random(rows * k, 5), random(k * COLUMNS, 6));
        let packed = PackedBf16::pack(k, COLUMNS, &b, BLayout::RowMajorKxN, None).unwrap();
        let run = |fast: bool| {
            let mut rounded = vec![0; rows * pairs];
            round_rows(fast, &a, k, &mut rounded);
            let mut sums = vec![[0.0; COLUMNS]; rows];
            multiply(fast, &rounded, &packed.panels, pairs, &mut sums);
            (rounded, sums.concat())
        };
        let slow = run(false);
        assert_close(&slow.1, &naive(&a, rows, k, COLUMNS, &b), 1e-5);
        if !is_fast() {
            return eprintln!("SKIPPED: this CPU has no AVX-512 BF16");
        }
        let fast = run(true);
        assert_eq!(fast.0, slow.0);
        let slow: Vec<f64> = slow.1.iter().map(|&sum| f64::from(sum)).collect();
        assert_close(&fast.1, &slow, 1e-6);
    }

    #[test]
    fn lying_lengths_are_refused() {
        let kernels = available()[0];
        let b = PackedBf16::pack(3, 4, &[0.0; 12], BLayout::RowMajorKxN, None).unwrap();
        let (plain, single) = (Epilogue::default(), Threads::single());
        let mut out = [0.0; 8];
        let mut run = |a: &[f32], m, scratch: &mut [u32]| {
            kernels.gemm_bf16(a, m, &b, &mut out, &plain, scratch, &single).is_ok()
        };
        assert!(run(&[0.0; 6], 2, &mut [0; 4]) && !run(&[0.0; 5], 2, &mut [0; 4]));
        assert!(!run(&[0.0; 6], 2, &mut [0; 3]) && !run(&[0.0; 9], 3, &mut [0; 6]));
        assert!(PackedBf16::pack(3, 4, &[0.0; 11], BLayout::RowMajorKxN, None).is_err());
        assert!(PackedBf16::pack(usize::MAX, 2, &[], BLayout::RowMajorKxN, None).is_err());
    }
}
