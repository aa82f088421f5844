//! The matrix product `C = act(clamp(A B + bias + residual))` in f32.

use super::error::{KernelError, expect_length};
use super::pack::{PackedB, PackedView, PanelWidth};
use super::product::{Epilogue, Output, Rows, product};
use super::table::Kernels;
use super::threads::Threads;
use std::ops::Range;

impl Kernels {
    /// `out[m, n] = epilogue(a[m, k] * b[k, n])`, with `k` and `n` of `b`.
    ///
    /// Row `i` of A begins at `a[i * row_stride]` and may overlap the next one; row `i` of the output begins at
    /// `out[i * out_stride]`, with `out_stride >= n`. The slices must end with (or after) their last row; a residual
    /// must be as long as `out`.
    #[allow(clippy::too_many_arguments, reason = "a matrix product has these")]
    pub fn gemm(
        &self,
        a: &[f32],
        row_stride: usize,
        m: usize,
        b: &PackedB,
        out: &mut [f32],
        out_stride: usize,
        epilogue: &Epilogue<'_>,
        threads: &Threads,
    ) -> Result<(), KernelError> {
        self.gemm_view(a, row_stride, m, b.view(), out, out_stride, epilogue, threads)
    }

    /// [`Kernels::gemm`] with B in borrowed memory.
    #[allow(clippy::too_many_arguments, reason = "a matrix product has these")]
    pub fn gemm_view(
        &self,
        a: &[f32],
        row_stride: usize,
        m: usize,
        b: PackedView<'_>,
        out: &mut [f32],
        out_stride: usize,
        epilogue: &Epilogue<'_>,
        threads: &Threads,
    ) -> Result<(), KernelError> {
        check_packed(self, "gemm", b)?;
        at_least("gemm", "a", strided(m, row_stride, b.k), a.len())?;
        check_output("gemm", m, b.n, out, out_stride, epilogue)?;
        let rows = Plain { data: a.as_ptr(), stride: row_stride, depth: b.k };
        let output = output_of(out, out_stride, epilogue);
        // SAFETY: the lengths were checked; `out` is borrowed uniquely, so it overlaps nothing.
        unsafe { product(self, &rows, m, b, output, threads) };
        Ok(())
    }
}

/// Weights packed for another instruction set would be read beyond their end.
pub(super) fn check_packed(
    kernels: &Kernels,
    kernel: &'static str,
    weights: PackedView<'_>,
) -> Result<(), KernelError> {
    if weights.width == PanelWidth::of(kernels) {
        Ok(())
    } else {
        Err(KernelError::Descriptor {
            kernel,
            argument: "weights",
            problem: "are packed for another instruction set",
        })
    }
}

/// Checks that `out` and the residual hold `rows` rows of `n`, `stride` apart.
pub(super) fn check_output(
    kernel: &'static str,
    rows: usize,
    n: usize,
    out: &[f32],
    stride: usize,
    epilogue: &Epilogue<'_>,
) -> Result<(), KernelError> {
    if stride < n {
        return Err(KernelError::Descriptor { kernel, argument: "out_stride", problem: "is less than n" });
    }
    at_least(kernel, "out", strided(rows, stride, n), out.len())?;
    match epilogue.residual {
        Some(residual) => expect_length(kernel, "residual", out.len(), residual.len()),
        None => Ok(()),
    }
}

pub(super) fn output_of<'a>(out: &mut [f32], stride: usize, epilogue: &'a Epilogue<'a>) -> Output<'a> {
    let residual = epilogue.residual.map_or(std::ptr::null(), <[f32]>::as_ptr);
    Output { data: out.as_mut_ptr(), stride, residual, epilogue }
}

/// Elements from the first to the last of `rows` rows of `width`, `stride` apart; `usize::MAX` if that overflows.
fn strided(rows: usize, stride: usize, width: usize) -> usize {
    match rows.checked_sub(1) {
        None => 0,
        Some(before) => before.saturating_mul(stride).saturating_add(width),
    }
}

fn at_least(
    kernel: &'static str,
    argument: &'static str,
    expected: usize,
    actual: usize,
) -> Result<(), KernelError> {
    if actual >= expected { Ok(()) } else { Err(KernelError::Length { kernel, argument, expected, actual }) }
}

/// Rows of a matrix in memory.
pub(super) struct Plain<T> {
    pub(super) data: *const T,
    pub(super) stride: usize,
    pub(super) depth: usize,
}
// SAFETY: the data is only read.
unsafe impl<T: Sync> Sync for Plain<T> {}

impl<T: Sync> Rows<T> for Plain<T> {
    fn taps(&self) -> usize {
        1
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn point(
        &self,
        rows: Range<usize>,
        _taps: Range<usize>,
        channel: usize,
        pointers: &mut [*const T],
        _scratch: &mut [T],
    ) {
        for (pointer, row) in pointers.iter_mut().zip(rows) {
            *pointer = self.data.wrapping_add(row * self.stride + channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::map::Unary;
    use crate::kernels::pack::{BLayout, pack_into, packed_len};
    use crate::kernels::table::available;
    use crate::kernels::testing::{assert_close, random};

    fn naive(
        a: &[f32],
        stride: usize,
        m: usize,
        k: usize,
        n: usize,
        b: &[f32],
        bias: Option<&[f32]>,
    ) -> Vec<f64> {
        let mut out = vec![0.0; m * n];
        for i in 0..m {
            for j in 0..n {
                let mut sum = bias.map_or(0.0, |bias| f64::from(bias[j]));
                for l in 0..k {
                    sum += f64::from(a[i * stride + l]) * f64::from(b[l * n + j]);
                }
                out[i * n + j] = sum;
            }
        }
        out
    }

    fn transposed(b: &[f32], k: usize, n: usize) -> Vec<f32> {
        (0..n * k).map(|i| b[i % k * n + i / k]).collect()
    }

    #[test]
    fn agrees_with_the_naive_product_for_ragged_sizes() {
        let sizes = [1, 2, 3, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 100];
        for kernels in available() {
            let threads = Threads::new(2);
            for (case, &m) in sizes.iter().enumerate() {
                for &n in &sizes {
                    let k = sizes[(case * 7 + n) % sizes.len()];
                    let stride = k + case % 3;
                    let a = random(m * stride, 1);
                    let b = random(k * n, 2);
                    let bias = random(n, 3);
                    let out_stride = n + case % 2;
                    let expected = naive(&a, stride, m, k, n, &b, Some(&bias));
                    let packed = PackedB::pack(kernels, k, n, &b, BLayout::RowMajorKxN, Some(&bias)).unwrap();
                    let mut out = vec![7.0; m * out_stride];
                    let plain = Epilogue::default();
                    kernels.gemm(&a, stride, m, &packed, &mut out, out_stride, &plain, &threads).unwrap();
                    for i in 0..m {
                        assert_close(&out[i * out_stride..][..n], &expected[i * n..][..n], 1e-5);
                        assert!(out[i * out_stride + n..(i + 1) * out_stride].iter().all(|&x| x == 7.0));
                    }
                    let turned = transposed(&b, k, n);
                    let turned =
                        PackedB::pack(kernels, k, n, &turned, BLayout::RowMajorNxK, Some(&bias)).unwrap();
                    let mut again = vec![7.0; m * out_stride];
                    kernels.gemm(&a, stride, m, &turned, &mut again, out_stride, &plain, &threads).unwrap();
                    assert_eq!(out, again);
                }
            }
        }
    }

    #[test]
    fn long_depths_many_rows_and_epilogues() {
        for kernels in available() {
            for threads in [Threads::single(), Threads::new(3)] {
                for (m, k, n) in [(1, 2000, 70), (130, 700, 50), (257, 300, 129), (3, 1025, 5)] {
                    let a = random(m * k, 4);
                    let b = random(k * n, 5);
                    let residual = random(m * n, 6);
                    let expected: Vec<f64> = naive(&a, k, m, k, n, &b, None)
                        .iter()
                        .zip(&residual)
                        .map(|(&sum, &r)| Unary::Sigmoid.apply_f64((sum + f64::from(r)).clamp(-1.5, 2.0)))
                        .collect();
                    let packed = PackedB::pack(kernels, k, n, &b, BLayout::RowMajorKxN, None).unwrap();
                    let epilogue = Epilogue {
                        min: -1.5,
                        max: 2.0,
                        residual: Some(&residual),
                        activation: Some(Unary::Sigmoid.into()),
                    };
                    let mut out = vec![0.0; m * n];
                    kernels.gemm(&a, k, m, &packed, &mut out, n, &epilogue, &threads).unwrap();
                    assert_close(&out, &expected, 1e-5);
                }
            }
        }
    }

    #[test]
    fn a_number_of_threads_gives_the_same_bits_every_time() {
        for kernels in available() {
            for threads in [Threads::single(), Threads::new(2), Threads::new(3)] {
                let (m, k, n) = (70, 300, 150);
                let (a, b) = (random(m * k, 9), random(k * n, 10));
                let packed = PackedB::pack(kernels, k, n, &b, BLayout::RowMajorKxN, None).unwrap();
                let run = || {
                    let mut out = vec![0.0; m * n];
                    kernels.gemm(&a, k, m, &packed, &mut out, n, &Epilogue::default(), &threads).unwrap();
                    out
                };
                let first = run();
                assert!((0..50).all(|_| run() == first));
            }
        }
    }

    #[test]
    fn weights_packed_at_run_time_give_the_same() {
        for kernels in available() {
            let (m, k, n) = (11, 13, 37);
            let (a, b) = (random(m * k, 7), random(k * n, 8));
            let mut memory = vec![f32::NAN; packed_len(kernels, k, n).unwrap()];
            pack_into(kernels, k, n, &b, BLayout::RowMajorKxN, &mut memory).unwrap();
            let view = PackedView::new(kernels, k, n, &memory).unwrap();
            let mut out = vec![0.0; m * n];
            kernels.gemm_view(&a, k, m, view, &mut out, n, &Epilogue::default(), &Threads::single()).unwrap();
            assert_close(&out, &naive(&a, k, m, k, n, &b, None), 1e-5);
        }
    }

    #[test]
    fn empty_products() {
        for kernels in available() {
            let plain = Epilogue::default();
            let none =
                PackedB::pack(kernels, 0, 3, &[], BLayout::RowMajorKxN, Some(&[1.0, 2.0, 3.0])).unwrap();
            let mut out = [0.0; 6];
            kernels.gemm(&[], 0, 2, &none, &mut out, 3, &plain, &Threads::single()).unwrap();
            assert_eq!(out, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
            let thin = PackedB::pack(kernels, 3, 0, &[], BLayout::RowMajorKxN, None).unwrap();
            kernels.gemm(&[0.0; 6], 3, 2, &thin, &mut [], 0, &plain, &Threads::single()).unwrap();
            kernels.gemm(&[], 3, 0, &none, &mut [], 3, &plain, &Threads::single()).unwrap();
        }
    }

    #[test]
    fn not_a_number_passes_the_bounds() {
        for kernels in available() {
            let packed = PackedB::pack(kernels, 1, 1, &[1.0], BLayout::RowMajorKxN, None).unwrap();
            let relu = Epilogue { min: 0.0, max: 6.0, ..Epilogue::default() };
            let mut out = [0.0];
            kernels.gemm(&[f32::NAN], 1, 1, &packed, &mut out, 1, &relu, &Threads::single()).unwrap();
            assert!(out[0].is_nan());
        }
    }

    #[test]
    fn lying_lengths_are_refused() {
        let kernels = available()[0];
        let single = Threads::single();
        let plain = Epilogue::default();
        let pack = |k, n, b: &[f32]| PackedB::pack(kernels, k, n, b, BLayout::RowMajorKxN, None);
        assert!(pack(3, 4, &[0.0; 11]).is_err());
        assert!(pack(usize::MAX, 2, &[0.0; 4]).is_err());
        assert!(pack(1, usize::MAX, &[]).is_err());
        assert!(packed_len(kernels, 1 << 40, 1 << 40).is_err());
        assert!(PackedB::pack(kernels, 1, 2, &[0.0; 2], BLayout::RowMajorKxN, Some(&[0.0])).is_err());
        let b = pack(3, 4, &[0.0; 12]).unwrap();
        let mut out = [0.0; 8];
        assert!(kernels.gemm(&[0.0; 5], 3, 2, &b, &mut out, 4, &plain, &single).is_err());
        assert!(kernels.gemm(&[0.0; 6], usize::MAX, 2, &b, &mut out, 4, &plain, &single).is_err());
        assert!(kernels.gemm(&[0.0; 6], 3, 2, &b, &mut out[..7], 4, &plain, &single).is_err());
        assert!(kernels.gemm(&[0.0; 6], 3, 2, &b, &mut out, 3, &plain, &single).is_err());
        assert!(kernels.gemm(&[0.0; 6], 3, usize::MAX, &b, &mut out, 4, &plain, &single).is_err());
        let short = Epilogue { residual: Some(&[0.0; 7]), ..Epilogue::default() };
        assert!(kernels.gemm(&[0.0; 6], 3, 2, &b, &mut out, 4, &short, &single).is_err());
        assert!(kernels.gemm(&[0.0; 6], 3, 2, &b, &mut out, 4, &plain, &single).is_ok());
        if let [best, .., worst] = available()
            && best.lanes != worst.lanes
        {
            assert!(worst.gemm(&[0.0; 6], 3, 2, &b, &mut out, 4, &plain, &single).is_err());
        }
    }
}
