//! Functions of one argument, element by element.

use super::error::{KernelError, expect_length};
use super::isa::Isa;
use super::math;
use super::table::Kernels;
use super::threads::Threads;
use serde::{Deserialize, Serialize};

/// Elements below which a second thread costs more than it brings.
pub(super) const PARALLEL_GRAIN: usize = 16 * 1024;

/// A function of one argument. The names are those of ONNX.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say what the variants compute")]
pub enum Unary {
    Identity,
    Abs,
    Neg,
    Exp,
    Log,
    Log1p,
    Expm1,
    Sqrt,
    /// `1 / sqrt(x)`
    Rsqrt,
    Reciprocal,
    Square,
    Sigmoid,
    Tanh,
    Erf,
    /// `x (1 + erf(x / sqrt 2)) / 2`
    Gelu,
    /// Gelu with the error function approximated by tanh.
    GeluTanh,
    /// `x sigmoid(x)`, also called Swish.
    Silu,
    Relu,
    Relu6,
    /// `x` above 0, else `x` times the slope.
    LeakyRelu(f32),
    /// `x` above 0, else alpha `(e^x - 1)`.
    Elu(f32),
    Selu,
    /// `x` above 0, else alpha `(e^(x / alpha) - 1)`.
    Celu(f32),
    /// `ln(1 + e^x)`
    Softplus,
    /// `x / (1 + |x|)`
    Softsign,
    /// `min(max(alpha x + beta, 0), 1)`
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    /// `x min(max(x / 6 + 1/2, 0), 1)`
    HardSwish,
    /// `x tanh(softplus(x))`
    Mish,
    Floor,
    Ceil,
    /// To the nearest integer, half to even.
    Round,
    Trunc,
    /// -1, 0 or 1; NaN for NaN.
    Sign,
    /// `min(max(x, min), max)`; NaN stays NaN.
    Clip {
        #[serde(with = "super::json_float")]
        min: f32,
        #[serde(with = "super::json_float")]
        max: f32,
    },
    /// `x` above the threshold, else 0.
    ThresholdedRelu(f32),
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Asinh,
    Acosh,
    Atanh,
    /// `scale x + shift`
    Affine {
        scale: f32,
        shift: f32,
    },
}

/// What is done last to a result: a function, and an affine map of what it gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activation {
    /// The function.
    pub function: Unary,
    /// Factor and summand of what the function gives.
    pub affine: Option<[f32; 2]>,
}

impl From<Unary> for Activation {
    fn from(function: Unary) -> Activation {
        Activation { function, affine: None }
    }
}

/// Constants of Selu (Klambauer et al., 2017).
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
const SELU_GAMMA: f64 = 1.050_700_987_355_480_5;
/// `2 sqrt(2 / pi)` and that times 0.044715: the argument of GeluTanh's sigmoid.
const GELU_LINEAR: f64 = 1.595_769_121_605_731;
const GELU_CUBIC: f64 = 0.071_354_816_272_600_25;

impl Kernels {
    /// `out[i] = op(x[i])`. Fails when the lengths differ.
    pub fn unary(&self, op: Unary, x: &[f32], out: &mut [f32], threads: &Threads) -> Result<(), KernelError> {
        expect_length("unary", "out", x.len(), out.len())?;
        let chunk = chunk_of(out.len(), threads);
        threads.for_each_slice(out, chunk, |index, piece| {
            let from = &x[index * chunk..][..piece.len()];
            // SAFETY: both pieces have piece.len() elements.
            unsafe { self.unary_run(op, from.as_ptr(), piece.as_mut_ptr(), piece.len()) };
        });
        Ok(())
    }

    /// `x[i] = op(x[i])`
    pub fn unary_in_place(&self, op: Unary, x: &mut [f32], threads: &Threads) {
        self.activate_all(op.into(), x, threads);
    }

    /// An activation in place.
    pub fn activate_all(&self, activation: Activation, x: &mut [f32], threads: &Threads) {
        let chunk = chunk_of(x.len(), threads);
        threads.for_each_slice(x, chunk, |_, piece| {
            // SAFETY: the piece is this task's own.
            unsafe { self.activate(activation, piece.as_mut_ptr(), piece.len()) };
        });
    }

    /// An activation in place over `length` elements.
    ///
    /// # Safety
    /// `x` must be readable and writable for `length` floats.
    pub(super) unsafe fn activate(&self, activation: Activation, x: *mut f32, length: usize) {
        let Activation { function, affine } = activation;
        let affine = affine.map(|[scale, shift]| Unary::Affine { scale, shift });
        let function = Some(function).filter(|&function| function != Unary::Identity);
        for function in function.into_iter().chain(affine) {
            // SAFETY: as the caller vouches.
            unsafe { self.unary_run(function, x, x, length) };
        }
    }

    /// `op` over `length` elements from `x` to `out`, which are the same or do not overlap.
    ///
    /// # Safety
    /// `x` must be readable and `out` writable for `length` floats.
    pub(super) unsafe fn unary_run(&self, op: Unary, x: *const f32, out: *mut f32, length: usize) {
        match op.library_function() {
            Some(function) => {
                for index in 0..length {
                    // SAFETY: index < length.
                    unsafe { out.add(index).write(function(x.add(index).read())) };
                }
            }
            // SAFETY: as the caller vouches; the table holds what this CPU can run.
            None => unsafe { (self.unary)(op, x, out, length) },
        }
    }
}

/// The length of the pieces in which `length` elements are handed to threads.
pub(super) fn chunk_of(length: usize, threads: &Threads) -> usize {
    length.div_ceil(threads.count()).next_multiple_of(64).max(PARALLEL_GRAIN)
}

/// The vector loop of [`Unary`].
///
/// # Safety
/// `x` must be readable and `out` writable for `length` floats; they are the same or do not overlap.
#[inline(always)]
pub(super) unsafe fn unary<I: Isa>(isa: I, op: Unary, x: *const f32, out: *mut f32, length: usize) {
    // A macro and not a closure: a closure would not take the instruction set of its caller.
    macro_rules! each {
        ($value:ident => $body:expr) => {{
            let mut index = 0;
            while index + I::LANES <= length {
                // SAFETY: index + LANES <= length.
                let $value = unsafe { isa.load(x.add(index)) };
                let result = $body;
                // SAFETY: as above.
                unsafe { isa.store(out.add(index), result) };
                index += I::LANES;
            }
            if index < length {
                // SAFETY: length - index elements remain.
                let $value = unsafe { isa.load_partial(x.add(index), length - index) };
                let result = $body;
                // SAFETY: as above.
                unsafe { isa.store_partial(out.add(index), result, length - index) };
            }
        }};
    }
    let zero = isa.splat(0.0);
    let one = isa.splat(1.0);
    match op {
        Unary::Identity => each!(x => x),
        Unary::Abs => each!(x => isa.abs(x)),
        Unary::Neg => each!(x => isa.neg(x)),
        Unary::Exp => each!(x => math::exp(isa, x)),
        Unary::Log => each!(x => math::log(isa, x)),
        Unary::Log1p => each!(x => math::log1p(isa, x)),
        Unary::Expm1 => each!(x => math::expm1(isa, x)),
        Unary::Sqrt => each!(x => isa.sqrt(x)),
        Unary::Rsqrt => each!(x => isa.div(one, isa.sqrt(x))),
        Unary::Reciprocal => each!(x => isa.div(one, x)),
        Unary::Square => each!(x => isa.mul(x, x)),
        Unary::Sigmoid => each!(x => math::times_sigmoid(isa, one, x)),
        Unary::Tanh => each!(x => math::tanh(isa, x)),
        Unary::Erf => each!(x => math::erf(isa, x)),
        Unary::Gelu => each!(x => math::gelu(isa, x)),
        Unary::GeluTanh => each!(x => {
            // (1 + tanh u) / 2 = sigmoid(2u)
            let square = isa.mul(x, x);
            let slope = isa.mul_add(square, isa.splat(GELU_CUBIC as f32), isa.splat(GELU_LINEAR as f32));
            math::times_sigmoid(isa, x, isa.mul(x, slope))
        }),
        Unary::Silu => each!(x => math::times_sigmoid(isa, x, x)),
        Unary::Relu => each!(x => isa.max(zero, x)),
        Unary::Relu6 => each!(x => math::clamp(isa, x, 0.0, 6.0)),
        Unary::LeakyRelu(slope) => {
            each!(x => isa.select(isa.less(x, zero), isa.mul(x, isa.splat(slope)), x))
        }
        Unary::Elu(alpha) => each!(x => elu(isa, x, 1.0, alpha, 1.0)),
        Unary::Selu => each!(x => elu(isa, x, SELU_GAMMA as f32, (SELU_ALPHA * SELU_GAMMA) as f32, 1.0)),
        Unary::Celu(alpha) => each!(x => elu(isa, x, 1.0, alpha, 1.0 / alpha)),
        Unary::Softplus => each!(x => {
            let tail = math::log1p(isa, math::exp_nonpositive(isa, isa.neg(isa.abs(x))));
            isa.add(isa.max(zero, x), tail)
        }),
        Unary::Softsign => each!(x => isa.div(x, isa.add(one, isa.abs(x)))),
        Unary::HardSigmoid { alpha, beta } => each!(x => {
            math::clamp(isa, isa.mul_add(x, isa.splat(alpha), isa.splat(beta)), 0.0, 1.0)
        }),
        Unary::HardSwish => each!(x => {
            let gate = isa.mul_add(x, isa.splat(1.0 / 6.0), isa.splat(0.5));
            isa.mul(x, math::clamp(isa, gate, 0.0, 1.0))
        }),
        Unary::Mish => each!(x => {
            // tanh(ln(1 + e)) = e (e + 2) / (e (e + 2) + 2); from e^20 on it is 1.
            let e = math::exp_in_range(isa, isa.min(isa.splat(20.0), x));
            let product = isa.mul(e, isa.add(e, isa.splat(2.0)));
            isa.mul(x, isa.div(product, isa.add(product, isa.splat(2.0))))
        }),
        Unary::Floor => each!(x => isa.floor(x)),
        Unary::Ceil => each!(x => isa.neg(isa.floor(isa.neg(x)))),
        Unary::Round => each!(x => isa.round(x)),
        Unary::Trunc => each!(x => isa.copy_sign(isa.floor(isa.abs(x)), x)),
        Unary::Sign => each!(x => {
            let sign = isa.select(isa.less(zero, x), one, x);
            isa.select(isa.less(x, zero), isa.splat(-1.0), sign)
        }),
        Unary::Clip { min, max } => each!(x => math::clamp(isa, x, min, max)),
        Unary::Affine { scale, shift } => each!(x => isa.mul_add(x, isa.splat(scale), isa.splat(shift))),
        Unary::ThresholdedRelu(threshold) => {
            each!(x => isa.select(isa.less_equal(x, isa.splat(threshold)), zero, x))
        }
        // Left to the C library by `unary_run`.
        Unary::Sin
        | Unary::Cos
        | Unary::Tan
        | Unary::Asin
        | Unary::Acos
        | Unary::Atan
        | Unary::Sinh
        | Unary::Cosh
        | Unary::Asinh
        | Unary::Acosh
        | Unary::Atanh => {}
    }
}

/// `scale x` above 0, else `alpha (e^(x inner) - 1)`.
#[inline(always)]
fn elu<I: Isa>(isa: I, x: I::F32, scale: f32, alpha: f32, inner: f32) -> I::F32 {
    let below = isa.mul(isa.splat(alpha), math::expm1(isa, isa.mul(x, isa.splat(inner))));
    isa.select(isa.less(x, isa.splat(0.0)), below, isa.mul(x, isa.splat(scale)))
}

impl Unary {
    /// The functions that are rare enough to be left to the C library.
    fn library_function(self) -> Option<fn(f32) -> f32> {
        Some(match self {
            Unary::Sin => f32::sin,
            Unary::Cos => f32::cos,
            Unary::Tan => f32::tan,
            Unary::Asin => f32::asin,
            Unary::Acos => f32::acos,
            Unary::Atan => f32::atan,
            Unary::Sinh => f32::sinh,
            Unary::Cosh => f32::cosh,
            Unary::Asinh => f32::asinh,
            Unary::Acosh => f32::acosh,
            Unary::Atanh => f32::atanh,
            _ => return None,
        })
    }

    /// The function of one f64; parameters are widened from f32.
    pub fn apply_f64(self, x: f64) -> f64 {
        let elu = |scale: f64, alpha: f64, inner: f64| {
            if x < 0.0 { alpha * (x * inner).exp_m1() } else { scale * x }
        };
        let clamp = |value: f64, low: f64, high: f64| {
            if value < low {
                low
            } else if value > high {
                high
            } else {
                value
            }
        };
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        match self {
            Unary::Identity => x,
            Unary::Abs => x.abs(),
            Unary::Neg => -x,
            Unary::Exp => x.exp(),
            Unary::Log => x.ln(),
            Unary::Log1p => x.ln_1p(),
            Unary::Expm1 => x.exp_m1(),
            Unary::Sqrt => x.sqrt(),
            Unary::Rsqrt => 1.0 / x.sqrt(),
            Unary::Reciprocal => 1.0 / x,
            Unary::Square => x * x,
            Unary::Sigmoid => sigmoid(x),
            Unary::Tanh => x.tanh(),
            Unary::Erf => erf(x),
            Unary::Gelu => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            Unary::GeluTanh => x * sigmoid(x * (GELU_LINEAR + GELU_CUBIC * x * x)),
            Unary::Silu => x / (1.0 + (-x).exp()),
            Unary::Relu => clamp(x, 0.0, f64::INFINITY),
            Unary::Relu6 => clamp(x, 0.0, 6.0),
            Unary::LeakyRelu(slope) => {
                if x < 0.0 {
                    x * f64::from(slope)
                } else {
                    x
                }
            }
            Unary::Elu(alpha) => elu(1.0, f64::from(alpha), 1.0),
            Unary::Selu => elu(SELU_GAMMA, SELU_ALPHA * SELU_GAMMA, 1.0),
            Unary::Celu(alpha) => elu(1.0, f64::from(alpha), 1.0 / f64::from(alpha)),
            Unary::Softplus => clamp(x, 0.0, f64::INFINITY) + (-x.abs()).exp().ln_1p(),
            Unary::Softsign => x / (1.0 + x.abs()),
            Unary::HardSigmoid { alpha, beta } => clamp(f64::from(alpha) * x + f64::from(beta), 0.0, 1.0),
            Unary::HardSwish => x * clamp(x / 6.0 + 0.5, 0.0, 1.0),
            Unary::Mish => x * (clamp(x, 0.0, f64::INFINITY) + (-x.abs()).exp().ln_1p()).tanh(),
            Unary::Floor => x.floor(),
            Unary::Ceil => x.ceil(),
            Unary::Round => x.round_ties_even(),
            Unary::Trunc => x.trunc(),
            Unary::Sign => {
                if x > 0.0 {
                    1.0
                } else if x < 0.0 {
                    -1.0
                } else {
                    x
                }
            }
            Unary::Affine { scale, shift } => x * f64::from(scale) + f64::from(shift),
            Unary::Clip { min, max } => clamp(x, f64::from(min), f64::from(max)),
            Unary::ThresholdedRelu(threshold) => {
                if x <= f64::from(threshold) {
                    0.0
                } else {
                    x
                }
            }
            Unary::Sin => x.sin(),
            Unary::Cos => x.cos(),
            Unary::Tan => x.tan(),
            Unary::Asin => x.asin(),
            Unary::Acos => x.acos(),
            Unary::Atan => x.atan(),
            Unary::Sinh => x.sinh(),
            Unary::Cosh => x.cosh(),
            Unary::Asinh => x.asinh(),
            Unary::Acosh => x.acosh(),
            Unary::Atanh => x.atanh(),
        }
    }
}

/// The error function of the C library, which `std` links.
fn erf(x: f64) -> f64 {
    // SAFETY: the signature is that of C99's erf, a pure function.
    unsafe extern "C" {
        safe fn erf(x: f64) -> f64;
    }
    erf(x)
}

/// `out[i] = op(x[i])` in f64, scalar. Fails when the lengths differ.
pub fn unary_f64(op: Unary, x: &[f64], out: &mut [f64]) -> Result<(), KernelError> {
    expect_length("unary_f64", "out", x.len(), out.len())?;
    for (out, &x) in out.iter_mut().zip(x) {
        *out = op.apply_f64(x);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::available;

    /// Distance in units in the last place of the f32 nearest to `exact`.
    fn ulps(actual: f32, exact: f64) -> f64 {
        let nearest = exact as f32;
        if actual.is_nan() && nearest.is_nan() || actual == nearest {
            return 0.0;
        }
        if !nearest.is_finite() || !actual.is_finite() {
            // Overflow in the last ULP is fine: infinity counts as the float after the greatest.
            let step = f64::from(f32::MAX) - f64::from(f32::from_bits(f32::MAX.to_bits() - 1));
            let finite = |x: f64| if x.is_finite() { x } else { x.signum() * (f64::from(f32::MAX) + step) };
            if actual.is_nan() || nearest.is_nan() {
                return f64::INFINITY;
            }
            return (finite(f64::from(actual)) - finite(exact.clamp(-1e39, 1e39))).abs() / step;
        }
        let magnitude = nearest.abs().max(f32::MIN_POSITIVE);
        let step = f64::from(f32::from_bits(magnitude.to_bits() + 1)) - f64::from(magnitude);
        (f64::from(actual) - exact).abs() / step
    }

    /// Every exponent with many fractions, both signs, and the special values.
    fn arguments() -> Vec<f32> {
        let mut bits: Vec<u32> = (0..0x7f80_0000u32).step_by(9973).collect();
        // The range in which the functions bend.
        bits.extend((0x3d00_0000..0x4300_0000u32).step_by(257));
        bits.extend([0, 1, 0x007f_ffff, 0x0080_0000, 0x3f80_0000, 0x7f7f_ffff, 0x7f80_0000, 0x7fc0_0000]);
        bits.iter().flat_map(|&b| [f32::from_bits(b), f32::from_bits(b | 1 << 31)]).collect()
    }

    fn worst(kernels: &Kernels, op: Unary, arguments: &[f32]) -> (f64, f32, f32) {
        let mut out = vec![0.0; arguments.len()];
        kernels.unary(op, arguments, &mut out, &Threads::single()).unwrap();
        let mut worst = (0.0, 0.0, 0.0);
        for (&x, &y) in arguments.iter().zip(&out) {
            let exact = op.apply_f64(f64::from(x));
            if op == Unary::Sigmoid && x < -86.0 {
                assert!((f64::from(y) - exact).abs() < 1e-37);
                continue;
            }
            let error = ulps(y, exact);
            if error > worst.0 {
                worst = (error, x, y);
            }
        }
        worst
    }

    #[test]
    fn transcendental_functions_keep_their_bounds() {
        let all = arguments();
        for kernels in available() {
            // Without a fused multiply-add the last bit of the reductions is lost.
            let slack = if kernels.name == "portable" { 1.5 } else { 0.0 };
            for (op, bound) in [
                (Unary::Exp, 1.1),
                (Unary::Log, 1.1),
                (Unary::Expm1, 2.0),
                (Unary::Log1p, 2.0),
                (Unary::Tanh, 3.0),
                (Unary::Sigmoid, 3.0),
                (Unary::Erf, 2.0),
            ] {
                let (error, x, y) = worst(kernels, op, &all);
                assert!(error <= bound + slack, "{} {op:?}({x:e}) = {y:e}: {error} ULP", kernels.name);
            }
        }
    }

    #[test]
    fn exact_functions_are_exact() {
        let all = arguments();
        for kernels in available() {
            for op in [
                Unary::Identity,
                Unary::Abs,
                Unary::Neg,
                Unary::Sqrt,
                Unary::Square,
                Unary::Reciprocal,
                Unary::Relu,
                Unary::Relu6,
                Unary::LeakyRelu(0.25),
                Unary::Floor,
                Unary::Ceil,
                Unary::Round,
                Unary::Trunc,
                Unary::Sign,
                Unary::Clip { min: -1.5, max: 2.5 },
                Unary::ThresholdedRelu(1.25),
            ] {
                let mut out = all.clone();
                kernels.unary_in_place(op, &mut out, &Threads::single());
                for (&x, &y) in all.iter().zip(&out) {
                    let exact = op.apply_f64(f64::from(x)) as f32;
                    let same = y == exact && (y != 0.0 || y.is_sign_negative() == exact.is_sign_negative())
                        || y.is_nan() && exact.is_nan();
                    // The sign of a clamped zero is not defined.
                    let zero = y == 0.0 && exact == 0.0 && matches!(op, Unary::Relu | Unary::Relu6);
                    assert!(same || zero, "{} {op:?}({x:e}) = {y:e}, not {exact:e}", kernels.name);
                }
            }
        }
    }

    #[test]
    fn composed_functions_are_close() {
        // Sums cancel where these cross zero, so the bound is relative to the argument's scale too.
        let all: Vec<f32> = (-4000..4000).map(|i| i as f32 * 0.025).collect();
        for kernels in available() {
            for op in [
                Unary::Gelu,
                Unary::GeluTanh,
                Unary::Silu,
                Unary::Elu(0.7),
                Unary::Selu,
                Unary::Celu(1.3),
                Unary::Softplus,
                Unary::Softsign,
                Unary::HardSigmoid { alpha: 0.2, beta: 0.5 },
                Unary::HardSwish,
                Unary::Affine { scale: 1.7, shift: -0.3 },
                Unary::Mish,
                Unary::Rsqrt,
                Unary::Sin,
                Unary::Cos,
                Unary::Atan,
                Unary::Asinh,
            ] {
                let mut out = vec![0.0; all.len()];
                kernels.unary(op, &all, &mut out, &Threads::single()).unwrap();
                for (&x, &y) in all.iter().zip(&out) {
                    let exact = op.apply_f64(f64::from(x));
                    if exact.is_nan() || exact.is_infinite() {
                        assert_eq!(y.is_nan(), exact.is_nan(), "{op:?}({x})");
                        continue;
                    }
                    let bound = 6e-7 * exact.abs() + 1.5e-7 * f64::from(x.abs()).min(3.0) + 1e-30;
                    let error = (f64::from(y) - exact).abs();
                    assert!(error <= bound, "{} {op:?}({x}) = {y}, not {exact}", kernels.name);
                }
            }
        }
    }

    #[test]
    fn ragged_lengths_touch_nothing_else() {
        for kernels in available() {
            for length in [0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 100] {
                let x: Vec<f32> = (0..length).map(|i| i as f32 - 5.0).collect();
                let mut out = vec![77.0; length + 8];
                kernels.unary(Unary::Relu, &x, &mut out[..length], &Threads::single()).unwrap();
                assert!(x.iter().zip(&out).all(|(&x, &y)| y == x.max(0.0)));
                assert!(out[length..].iter().all(|&y| y == 77.0));
            }
        }
    }

    #[test]
    fn threads_give_the_same_result() {
        let x: Vec<f32> = (0..100_003).map(|i| (i as f32 * 0.37).sin() * 9.0).collect();
        for kernels in available() {
            let mut one = vec![0.0; x.len()];
            let mut three = vec![0.0; x.len()];
            kernels.unary(Unary::Tanh, &x, &mut one, &Threads::single()).unwrap();
            kernels.unary(Unary::Tanh, &x, &mut three, &Threads::new(3)).unwrap();
            assert_eq!(one, three);
        }
    }

    #[test]
    fn lengths_must_agree() {
        let error = available()[0].unary(Unary::Exp, &[1.0], &mut [0.0; 2], &Threads::single());
        assert_eq!(
            error,
            Err(KernelError::Length { kernel: "unary", argument: "out", expected: 1, actual: 2 })
        );
    }
}
