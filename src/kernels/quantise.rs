//! Floats to bytes that stand for numbers, and back, by ONNX's rules: `round(x / scale) + zero` with ties to even,
//! saturated; and `(x - zero) * scale`. And sums and functions of such bytes.

use super::error::{KernelError, expect_length};
use super::isa::{Coding, Isa};
use super::map::chunk_of;
use super::math;
use super::table::Kernels;
use super::threads::Threads;

/// How bytes stand for numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// The bytes are i8 in place of u8.
    pub signed: bool,
    /// Distance of neighbouring numbers.
    pub scale: f32,
    /// The byte that stands for 0.
    pub zero: i32,
}

impl Scale {
    fn check(&self) -> Result<(), KernelError> {
        let range = if self.signed { -128..=127 } else { 0..=255 };
        if range.contains(&self.zero) {
            return Ok(());
        }
        Err(KernelError::Descriptor {
            kernel: "quantise",
            argument: "zero point",
            problem: "is outside of its type",
        })
    }
}

impl Kernels {
    /// `out = saturate(round(x / scale) + zero)`; NaN becomes the least byte. The bytes of i8 are its two's complement.
    pub fn quantise(
        &self,
        scale: Scale,
        x: &[f32],
        out: &mut [u8],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        scale.check()?;
        expect_length("quantise", "out", x.len(), out.len())?;
        let chunk = chunk_of(out.len(), threads);
        threads.for_each_slice(out, chunk, |index, piece| {
            let from = &x[index * chunk..][..piece.len()];
            // SAFETY: both pieces have piece.len() elements.
            unsafe { (self.quantise)(scale, from.as_ptr(), piece.as_mut_ptr(), piece.len()) };
        });
        Ok(())
    }

    /// `out = (x - zero) * scale`
    pub fn dequantise(
        &self,
        scale: Scale,
        x: &[u8],
        out: &mut [f32],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        scale.check()?;
        expect_length("dequantise", "out", x.len(), out.len())?;
        let chunk = chunk_of(out.len(), threads);
        threads.for_each_slice(out, chunk, |index, piece| {
            let from = &x[index * chunk..][..piece.len()];
            // SAFETY: both pieces have piece.len() elements.
            unsafe { (self.dequantise)(scale, from.as_ptr(), piece.as_mut_ptr(), piece.len()) };
        });
        Ok(())
    }
}

/// `out = clamp(round((a - a.zero) * a.scale + (b - b.zero) * b.scale) + zero, min, max)`: the sum of two coded tensors,
/// where the scales are those of the operands divided by that of the result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByteSum {
    /// The first operand.
    pub a: Scale,
    /// The second one.
    pub b: Scale,
    /// The byte of the result that stands for 0.
    pub zero: i32,
    /// Least value; within -128..=127 for i8 and 0..=255 for u8.
    pub min: i32,
    /// Greatest value.
    pub max: i32,
}

impl Kernels {
    /// The sum of two coded tensors of one shape.
    pub fn add_bytes(
        &self,
        sum: ByteSum,
        a: &[u8],
        b: &[u8],
        out: &mut [u8],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        sum.a.check()?;
        sum.b.check()?;
        if sum.min > sum.max || sum.zero.unsigned_abs() > 255 || sum.min < -128 || sum.max > 255 {
            return Err(KernelError::Descriptor {
                kernel: "add_bytes",
                argument: "bounds",
                problem: "do not describe a byte",
            });
        }
        expect_length("add_bytes", "a", out.len(), a.len())?;
        expect_length("add_bytes", "b", out.len(), b.len())?;
        let chunk = chunk_of(out.len(), threads);
        threads.for_each_slice(out, chunk, |index, piece| {
            let (a, b) = (&a[index * chunk..][..piece.len()], &b[index * chunk..][..piece.len()]);
            // SAFETY: all pieces have piece.len() elements.
            unsafe { (self.add_bytes)(&sum, a.as_ptr(), b.as_ptr(), piece.as_mut_ptr(), piece.len()) };
        });
        Ok(())
    }

    /// `out[i] = table[x[i]]`
    pub fn look_up_bytes(
        &self,
        table: &[u8; 256],
        x: &[u8],
        out: &mut [u8],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        expect_length("look_up_bytes", "out", x.len(), out.len())?;
        let chunk = chunk_of(out.len(), threads);
        threads.for_each_slice(out, chunk, |index, piece| {
            let from = &x[index * chunk..][..piece.len()];
            for (y, &x) in piece.iter_mut().zip(from) {
                *y = table[usize::from(x)];
            }
        });
        Ok(())
    }
}

/// # Safety
/// `a` and `b` must be readable and `out` writable for `length` elements.
#[inline(always)]
pub(super) unsafe fn add_bytes<I: Isa>(
    isa: I,
    sum: &ByteSum,
    a: *const u8,
    b: *const u8,
    out: *mut u8,
    length: usize,
) {
    // Of finite numbers that do not leave i32, which all but absurd scales make.
    let small = 512.0 * (sum.a.scale.abs() + sum.b.scale.abs()) < (1 << 30) as f32;
    let coding = Coding::new(sum.zero, sum.min, sum.max, small);
    let mut index = 0;
    // SAFETY: as many elements remain at `index`.
    unsafe {
        while index + BLOCK * I::LANES <= length {
            let mut values = [isa.splat(0.0); BLOCK];
            for vector in 0..BLOCK {
                let at = index + vector * I::LANES;
                values[vector] = sum_of(isa, sum, a.add(at), b.add(at), I::LANES);
            }
            isa.store_coded(out.add(index), values, &coding, BLOCK * I::LANES);
            index += BLOCK * I::LANES;
        }
        while index < length {
            let count = (length - index).min(I::LANES);
            let value = sum_of(isa, sum, a.add(index), b.add(index), count);
            isa.store_coded(out.add(index), [value], &coding, count);
            index += I::LANES;
        }
    }
}

/// Vectors that are coded together.
const BLOCK: usize = 4;

/// The sum of `count` elements, in units of the result's scale.
///
/// # Safety
/// `a` and `b` must be readable for `count` elements.
#[inline(always)]
unsafe fn sum_of<I: Isa>(isa: I, sum: &ByteSum, a: *const u8, b: *const u8, count: usize) -> I::F32 {
    // SAFETY: as the caller vouches.
    let (a, b) = unsafe { (isa.load_bytes(a, count), isa.load_bytes(b, count)) };
    // As in `dequantise`.
    let flip = |scale: &Scale| if scale.signed { 128 } else { 0 };
    let (a_flip, b_flip) = (flip(&sum.a), flip(&sum.b));
    let a = isa.sub_int(isa.xor(a, isa.splat_int(a_flip)), isa.splat_int(sum.a.zero + a_flip));
    let b = isa.sub_int(isa.xor(b, isa.splat_int(b_flip)), isa.splat_int(sum.b.zero + b_flip));
    let b = isa.mul(isa.int_to_float(b), isa.splat(sum.b.scale));
    isa.add(isa.mul(isa.int_to_float(a), isa.splat(sum.a.scale)), b)
}

/// # Safety
/// `x` must be readable and `out` writable for `length` elements.
#[inline(always)]
pub(super) unsafe fn quantise<I: Isa>(isa: I, scale: Scale, x: *const f32, out: *mut u8, length: usize) {
    let (least, greatest) = if scale.signed { (-128, 127) } else { (0, 255) };
    let (low, high) = ((least - scale.zero) as f32, (greatest - scale.zero) as f32);
    let (divisor, zero) = (isa.splat(scale.scale), isa.splat_int(scale.zero));
    let mut index = 0;
    while index < length {
        let count = (length - index).min(I::LANES);
        // SAFETY: `count` elements remain at `index`.
        unsafe {
            let from = x.add(index);
            let value = isa.load_up_to(from, count);
            let exact = isa.div(value, divisor);
            // NaN becomes the lower bound. Bounds are whole, so that rounding may come after them.
            let bounded = isa.select(isa.less_equal(exact, exact), exact, isa.splat(low));
            let bounded = math::clamp(isa, bounded, low, high);
            isa.store_bytes(out.add(index), isa.add_int(isa.to_int(bounded), zero), count);
        }
        index += I::LANES;
    }
}

/// # Safety
/// `x` must be readable and `out` writable for `length` elements.
#[inline(always)]
pub(super) unsafe fn dequantise<I: Isa>(isa: I, scale: Scale, x: *const u8, out: *mut f32, length: usize) {
    // i8 is read as u8 with the sign bit turned, which adds 128.
    let (flip, zero) = if scale.signed { (128, scale.zero + 128) } else { (0, scale.zero) };
    let (flip, zero, factor) = (isa.splat_int(flip), isa.splat_int(zero), isa.splat(scale.scale));
    let mut index = 0;
    while index < length {
        let count = (length - index).min(I::LANES);
        // SAFETY: `count` elements remain at `index`.
        unsafe {
            let value = isa.sub_int(isa.xor(isa.load_bytes(x.add(index), count), flip), zero);
            let value = isa.mul(isa.int_to_float(value), factor);
            isa.store_up_to(out.add(index), value, count);
        }
        index += I::LANES;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::available;
    use crate::kernels::testing::random;

    #[test]
    fn there_and_back_by_the_rule() {
        for kernels in available() {
            for length in [0, 1, 15, 16, 17, 100] {
                for (signed, zero) in [(false, 0), (false, 128), (true, -5), (true, 0)] {
                    let scale = Scale { signed, scale: 0.25, zero };
                    let mut x: Vec<f32> =
                        random(length, 9).iter().map(|x| (x * 400.0).round() * 0.125).collect();
                    x.iter_mut().step_by(7).for_each(|x| *x = f32::INFINITY);
                    let (least, greatest) = if signed { (-128, 127) } else { (0, 255) };
                    let mut out = vec![7; length];
                    kernels.quantise(scale, &x, &mut out, &Threads::single()).unwrap();
                    let mut back = vec![7.0; length];
                    kernels.dequantise(scale, &out, &mut back, &Threads::new(2)).unwrap();
                    for index in 0..length {
                        let wide = (x[index] / 0.25).round_ties_even() as i32;
                        let expected = wide.saturating_add(zero).clamp(least, greatest);
                        assert_eq!(out[index], expected as u8, "{}", x[index]);
                        assert_eq!(back[index], (expected - zero) as f32 * 0.25);
                    }
                }
            }
            let bad = Scale { signed: false, scale: 1.0, zero: -1 };
            assert!(kernels.quantise(bad, &[], &mut [], &Threads::single()).is_err());
            let good = Scale { zero: 0, ..bad };
            assert!(kernels.quantise(good, &[1.0], &mut [], &Threads::single()).is_err());
            let mut out = [7];
            kernels.quantise(good, &[f32::NAN], &mut out, &Threads::single()).unwrap();
            assert_eq!(out, [0]);
        }
    }

    #[test]
    fn sums_and_functions_of_bytes() {
        let bytes: Vec<u8> = (0..200u32).map(|index| (index * 89 % 256) as u8).collect();
        let table: [u8; 256] = std::array::from_fn(|index| 255 - index as u8);
        for kernels in available() {
            for length in [0, 1, 15, 16, 17, 200] {
                for (signed, zero, min, max) in
                    [(false, 3, 0, 255), (true, -5, -128, 127), (false, 0, 10, 90)]
                {
                    let a = Scale { signed, scale: 0.5, zero: 7 };
                    let b = Scale { signed: !signed, scale: 0.25, zero: 0 };
                    let wide = |scale: Scale, byte: u8| {
                        let value = if scale.signed { i32::from(byte as i8) } else { i32::from(byte) };
                        (value - scale.zero) as f32 * scale.scale
                    };
                    let (x, y) = (&bytes[..length], &bytes[200 - length..]);
                    let mut out = vec![7; length];
                    let sum = ByteSum { a, b, zero, min, max };
                    kernels.add_bytes(sum, x, y, &mut out, &Threads::new(2)).unwrap();
                    for index in 0..length {
                        let exact = wide(a, x[index]) + wide(b, y[index]);
                        let expected = (exact.round_ties_even() as i32 + zero).clamp(min, max);
                        assert_eq!(out[index], expected as u8, "{kernels:?}");
                    }
                    kernels.look_up_bytes(&table, x, &mut out, &Threads::single()).unwrap();
                    assert!(out.iter().zip(x).all(|(y, x)| *y == 255 - x));
                    let bad = ByteSum { min: 300, ..sum };
                    assert!(kernels.add_bytes(bad, x, y, &mut out, &Threads::single()).is_err());
                    let long = [0; 201];
                    assert!(kernels.add_bytes(sum, &long, y, &mut out, &Threads::single()).is_err());
                }
            }
        }
    }
}
