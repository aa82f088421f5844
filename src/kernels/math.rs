//! Transcendental functions on vectors, written once for all instruction sets.
//!
//! Each is a range reduction and a polynomial fitted (weighted least squares towards minimax, coefficients rounded one by
//! one) to a relative error below 2^-24 of the function. Largest errors against f64, over all tested arguments
//! with a fused multiply-add (one ULP more without): exp 1, log 1, expm1 2, log1p 2, tanh 3, sigmoid 3, erf 2 ULP.
//! NaN gives NaN; infinities, signed zeros and denormals are handled as the C library does, but for
//! sigmoid below -87, which stays at 1.6e-38.

use super::isa::Isa;
use std::f32::consts::LOG2_E;

/// ln 2 in two parts: the first has so few bits that its product with any exponent is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `c[0] + c[1] x + c[2] x^2 + ..` by Horner's rule.
#[inline(always)]
pub(super) fn polynomial<I: Isa, const N: usize>(isa: I, x: I::F32, coefficients: [f32; N]) -> I::F32 {
    let mut sum = isa.splat(coefficients[N - 1]);
    let mut index = N - 1;
    while index > 0 {
        index -= 1;
        sum = isa.mul_add(sum, x, isa.splat(coefficients[index]));
    }
    sum
}

/// `min(max(x, low), high)`; NaN stays NaN.
#[inline(always)]
pub(super) fn clamp<I: Isa>(isa: I, x: I::F32, low: f32, high: f32) -> I::F32 {
    isa.min(isa.splat(high), isa.max(isa.splat(low), x))
}

/// A number whose last bit counts ones: what is added to it is rounded to an integer, which then stands in the lowest bits of
/// the sum, here with the bias of an exponent.
const COUNTER: f32 = 12_582_912.0 + 127.0;

/// `(e^r - 1 - r) / r^2` for |r| <= ln 2 / 2.
const EXP_TAIL: [f32; 5] = [0.5, 0.166_665_18, 0.041_666_433, 0.008_368_968, 0.001_393_784_3];

/// `x = n ln 2 + r` with integral n and |r| <= ln 2 / 2: n on top of [`COUNTER`], and `e^r - 1`.
#[inline(always)]
fn reduce_exp<I: Isa>(isa: I, x: I::F32) -> (I::F32, I::F32) {
    let counted = isa.mul_add(x, isa.splat(LOG2_E), isa.splat(COUNTER));
    let n = isa.sub(counted, isa.splat(COUNTER));
    let r = isa.mul_add(n, isa.splat(-LN2_HIGH), x);
    let r = isa.mul_add(n, isa.splat(-LN2_LOW), r);
    let tail = polynomial(isa, r, EXP_TAIL);
    (counted, isa.mul_add(isa.mul(r, r), tail, r))
}

/// `2^n` for an integral `n` in -126..=127 on top of [`COUNTER`]: its bits become the exponent, all others leave on the left.
#[inline(always)]
fn power_of_counted<I: Isa>(isa: I, counted: I::F32) -> I::F32 {
    isa.bits_to_float(isa.shift_left::<23>(isa.to_bits(counted)))
}

/// `2^n` for an integral `n` in -126..=127.
#[inline(always)]
fn power_of_two<I: Isa>(isa: I, n: I::I32) -> I::F32 {
    isa.bits_to_float(isa.shift_left::<23>(isa.add_int(n, isa.splat_int(127))))
}

/// `e^x`; overflows to infinity above 88.72, is denormal below -87.3 and 0 below -103.97.
#[inline(always)]
pub(super) fn exp<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let x = clamp(isa, x, -104.0, 89.0);
    let (counted, tail) = reduce_exp(isa, x);
    let value = isa.add(tail, isa.splat(1.0));
    // In two steps, for 2^128 and 2^-150 are no floats.
    let n = isa.to_int(isa.sub(counted, isa.splat(COUNTER)));
    let half = isa.shift_right::<1>(n);
    let value = isa.mul(value, power_of_two(isa, half));
    isa.mul(value, power_of_two(isa, isa.sub_int(n, half)))
}

/// `e^x` for `x` in -87..=88: one multiplication less than [`exp`]. Smaller arguments give about 1e-38.
#[inline(always)]
pub(super) fn exp_in_range<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let x = clamp(isa, x, -87.0, 88.0);
    let (counted, tail) = reduce_exp(isa, x);
    let scale = power_of_counted(isa, counted);
    isa.mul_add(tail, scale, scale)
}

/// `e^x - 1` for `x <= 88`.
#[inline(always)]
fn expm1_below_88<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let x = clamp(isa, x, -30.0, 88.0);
    let (counted, tail) = reduce_exp(isa, x);
    let scale = power_of_counted(isa, counted);
    isa.mul_add(tail, scale, isa.sub(scale, isa.splat(1.0)))
}

/// `e^x - 1`
#[inline(always)]
pub(super) fn expm1<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let large = isa.less(isa.splat(80.0), x);
    let value = isa.select(large, exp(isa, x), expm1_below_88(isa, x));
    isa.select(isa.equal(x, isa.splat(0.0)), x, value)
}

/// Natural logarithm; -inf for 0, NaN below.
#[inline(always)]
pub(super) fn log<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    const TAIL: [f32; 9] = [
        0.333_333_13,
        -0.250_000_12,
        0.200_020_75,
        -0.166_678_55,
        0.142_201_9,
        -0.124_081_75,
        0.118_865_5,
        -0.116_609_275,
        0.067_325_06,
    ];
    // Denormals are scaled up by 2^23 first.
    let tiny = isa.less(x, isa.splat(f32::MIN_POSITIVE));
    let scaled = isa.select(tiny, isa.mul(x, isa.splat(8_388_608.0)), x);
    let bias = isa.select(tiny, isa.splat(-23.0), isa.splat(0.0));
    // x = m 2^e with m in sqrt(1/2)..sqrt(2): the bits of sqrt(1/2) are taken as the origin of the exponent.
    let origin = isa.splat_int(0x3f35_04f3);
    let offset = isa.sub_int(isa.to_bits(scaled), origin);
    let exponent = isa.add(isa.int_to_float(isa.shift_right::<23>(offset)), bias);
    let fraction = isa.add_int(isa.and(offset, isa.splat_int(0x007f_ffff)), origin);
    let f = isa.sub(isa.bits_to_float(fraction), isa.splat(1.0));

    let square = isa.mul(f, f);
    let tail = isa.mul(isa.mul(square, f), polynomial(isa, f, TAIL));
    let tail = isa.mul_add(exponent, isa.splat(LN2_LOW), tail);
    let tail = isa.mul_add(square, isa.splat(-0.5), tail);
    let value = isa.mul_add(exponent, isa.splat(LN2_HIGH), isa.add(f, tail));

    let value = isa.select(isa.less(x, isa.splat(f32::INFINITY)), value, x);
    let value = isa.select(isa.equal(x, isa.splat(0.0)), isa.splat(f32::NEG_INFINITY), value);
    isa.select(isa.less(x, isa.splat(0.0)), isa.splat(f32::NAN), value)
}

/// `ln(1 + x)`
#[inline(always)]
pub(super) fn log1p<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let one = isa.splat(1.0);
    let sum = isa.add(x, one);
    // What the addition rounded away, to first order.
    let lost = isa.div(isa.sub(x, isa.sub(sum, one)), sum);
    let whole = log(isa, sum);
    let ordinary = isa.less(isa.abs(whole), isa.splat(f32::INFINITY));
    let value = isa.select(ordinary, isa.add(whole, lost), whole);
    isa.select(isa.equal(sum, one), x, value)
}

/// `e^x` for `x <= 0`; 0 below -87, where the results would be denormal.
#[inline(always)]
pub(super) fn exp_nonpositive<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    isa.select(isa.less(x, isa.splat(-87.0)), isa.splat(0.0), exp_in_range(isa, x))
}

/// `numerator / (1 + e^-x)`; below -87 the quotient stays what it is there, about 1e-38.
#[inline(always)]
pub(super) fn times_sigmoid<I: Isa>(isa: I, numerator: I::F32, x: I::F32) -> I::F32 {
    const TAIL: [f32; 5] = [EXP_TAIL[0], -EXP_TAIL[1], EXP_TAIL[2], -EXP_TAIL[3], EXP_TAIL[4]];
    // Beyond 87 the sum is 1, or so large that the quotient is all but nothing.
    let x = clamp(isa, x, -87.0, 87.0);
    // As `reduce_exp` of -x, with -r.
    let counted = isa.mul_add(x, isa.splat(-LOG2_E), isa.splat(COUNTER));
    let n = isa.sub(counted, isa.splat(COUNTER));
    let r = isa.mul_add(n, isa.splat(LN2_HIGH), x);
    let r = isa.mul_add(n, isa.splat(LN2_LOW), r);
    let tail = isa.mul(r, isa.mul_add(r, polynomial(isa, r, TAIL), isa.splat(-1.0)));
    let scale = power_of_counted(isa, counted);
    isa.quotient(numerator, isa.mul_add(tail, scale, isa.add(scale, isa.splat(1.0))))
}

/// Hyperbolic tangent, as `m / (m + 2)` with `m = e^2|x| - 1`, which loses nothing near zero.
#[inline(always)]
pub(super) fn tanh<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // From 9.02 on the result is 1 in f32.
    let magnitude = isa.min(isa.splat(10.0), isa.abs(x));
    let m = expm1_below_88(isa, isa.add(magnitude, magnitude));
    isa.copy_sign(isa.quotient(m, isa.add(m, isa.splat(2.0))), x)
}

/// `x (1 + erf(x / sqrt 2)) / 2`, as `relu(x) - |x| erfc(|x| / sqrt 2) / 2`: nothing cancels, and the logarithm of the
/// complement is one polynomial. Below -5.8 the result stays at -2e-8.
#[inline(always)]
pub(super) fn gelu<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    /// `ln(erfc(t)) / t` for `t` in 0..=4.1.
    const LOG_ERFC: [f32; 8] = [
        -1.128_380_3,
        -0.636_597_1,
        -0.102_922_544,
        0.019_590_283,
        -5.440_86e-4,
        -0.001_028_057_3,
        3.074_682_6e-4,
        -3.127_843e-5,
    ];
    let magnitude = isa.min(isa.splat(5.798), isa.abs(x));
    let t = isa.mul(magnitude, isa.splat(std::f32::consts::FRAC_1_SQRT_2));
    // The argument lies in -19..=0, so nothing needs a bound.
    let (counted, tail) = reduce_exp(isa, isa.mul(t, polynomial(isa, t, LOG_ERFC)));
    let scale = power_of_counted(isa, counted);
    let complement = isa.mul_add(tail, scale, scale);
    let half = isa.mul(magnitude, isa.splat(-0.5));
    isa.mul_add(half, complement, isa.max(isa.splat(0.0), x))
}

/// The error function: a polynomial in x^2 up to 0.92, from there `1 - e^P(x)`.
#[inline(always)]
pub(super) fn erf<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    const SMALL: [f32; 7] = [
        0.128_379_17,
        -0.376_126_3,
        0.112_836_26,
        -0.026_855_733,
        0.005_192_414_4,
        -8.049_918e-4,
        7.997_41e-5,
    ];
    const LARGE: [f32; 8] = [
        1.747_146_2e-4,
        -1.129_515,
        -0.633_346_74,
        -0.108_280_16,
        0.025_119_374,
        -0.004_170_995_7,
        4.344_371_3e-4,
        -2.109_168_4e-5,
    ];
    let magnitude = isa.abs(x);
    // From 3.92 on the result is 1 in f32.
    let bounded = isa.min(isa.splat(4.0), magnitude);
    let complement = exp_in_range(isa, polynomial(isa, bounded, LARGE));
    let large = isa.sub(isa.splat(1.0), complement);
    let near = isa.min(isa.splat(1.0), magnitude);
    let small = isa.mul_add(polynomial(isa, isa.mul(near, near), SMALL), near, near);
    let value = isa.select(isa.less(magnitude, isa.splat(0.92)), small, large);
    isa.copy_sign(value, x)
}
