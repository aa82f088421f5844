//! The element types of kernels that are not written for f32 vectors alone.
//!
//! Arithmetic on them follows TensorFlow and ONNX: integers wrap, integer division truncates and fails for zero,
//! half precision is computed in f32 and rounded once.

use super::binary::{self, Binary};
use super::error::KernelError;
use super::table::Kernels;
use half::{bf16, f16};

/// A number that tensors hold.
pub trait Number: Copy + PartialOrd + Send + Sync + Default + std::fmt::Debug + 'static {
    /// What sums are taken in: f32 for half precision, else the type itself.
    type Sum: Number<Sum = Self::Sum>;
    /// Name for messages, as in Rust.
    const NAME: &'static str;
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// The least value, minus infinity for floats.
    const LOWEST: Self;
    /// The greatest value, infinity for floats.
    const HIGHEST: Self;

    /// Into the type of sums.
    fn widen(self) -> Self::Sum;
    /// Back from it, rounded.
    fn narrow(sum: Self::Sum) -> Self;
    /// `self + other`, wrapping.
    fn plus(self, other: Self) -> Self;
    /// `self - other`; integers wrap.
    fn less(self, other: Self) -> Self;
    /// `self * other`, wrapping.
    fn times(self, other: Self) -> Self;
    /// The magnitude, wrapping.
    fn magnitude(self) -> Self;
    /// `self / count`; integers truncate, and give zero when `count` does not fit or is zero.
    fn divided_by(self, count: usize) -> Self;
    /// Whether this is NaN.
    fn is_nan(self) -> bool;
    /// As f64, rounded.
    fn to_f64(self) -> f64;
    /// From f64: floats round, integers truncate and saturate.
    fn from_f64(value: f64) -> Self;
    /// An integer in whose order the numbers are: both zeros are equal, NaN is above all. With it one sort serves
    /// every type.
    fn order_key(self) -> u64;

    /// `out[i] = op(a[i], b[i])`, where `a` and `b` are as long as `out` or have one element that stands for all.
    #[doc(hidden)]
    fn binary_row(
        kernels: &Kernels,
        op: Binary,
        a: &[Self],
        b: &[Self],
        out: &mut [Self],
    ) -> Result<(), KernelError>;
}

macro_rules! integer {
    ($($type:ident)+) => { $(
        impl Number for $type {
            type Sum = $type;
            const NAME: &'static str = stringify!($type);
            const ZERO: $type = 0;
            const ONE: $type = 1;
            const LOWEST: $type = $type::MIN;
            const HIGHEST: $type = $type::MAX;

            #[inline(always)]
            fn widen(self) -> $type {
                self
            }
            #[inline(always)]
            fn narrow(sum: $type) -> $type {
                sum
            }
            #[inline(always)]
            fn plus(self, other: $type) -> $type {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn less(self, other: $type) -> $type {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn times(self, other: $type) -> $type {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            #[allow(unused_comparisons, reason = "the macro serves unsigned types too")]
            fn magnitude(self) -> $type {
                if self < 0 { (0 as $type).wrapping_sub(self) } else { self }
            }
            #[inline(always)]
            fn divided_by(self, count: usize) -> $type {
                $type::try_from(count).ok().and_then(|count| self.checked_div(count)).unwrap_or(0)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                false
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn from_f64(value: f64) -> $type {
                value as $type
            }
            #[inline(always)]
            fn order_key(self) -> u64 {
                // The distance from the type's least value, which is negative or zero.
                (self as u64).wrapping_sub($type::MIN as u64)
            }
            fn binary_row(
                _: &Kernels,
                op: Binary,
                a: &[$type],
                b: &[$type],
                out: &mut [$type],
            ) -> Result<(), KernelError> {
                binary::integer_row(op, a, b, out)
            }
        }
    )+ };
}

integer!(i8 i16 i32 i64 u8 u16 u32 u64);

macro_rules! float {
    ($type:ident, $sum:ident, $widen:expr, $narrow:expr, |$kernels:ident, $op:ident, $a:ident, $b:ident, $out:ident| $row:expr) => {
        impl Number for $type {
            type Sum = $sum;
            const NAME: &'static str = stringify!($type);
            const ZERO: $type = $narrow(0.0);
            const ONE: $type = $narrow(1.0);
            const LOWEST: $type = $type::NEG_INFINITY;
            const HIGHEST: $type = $type::INFINITY;

            #[inline(always)]
            fn widen(self) -> $sum {
                $widen(self)
            }
            #[inline(always)]
            fn narrow(sum: $sum) -> $type {
                $narrow(sum)
            }
            #[inline(always)]
            fn plus(self, other: $type) -> $type {
                self + other
            }
            #[inline(always)]
            fn less(self, other: $type) -> $type {
                self - other
            }
            #[inline(always)]
            fn times(self, other: $type) -> $type {
                self * other
            }
            #[inline(always)]
            fn magnitude(self) -> $type {
                $narrow(self.widen().abs())
            }
            #[inline(always)]
            fn divided_by(self, count: usize) -> $type {
                $narrow(self.widen() / count as $sum)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                <$type>::is_nan(self)
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn from_f64(value: f64) -> $type {
                <$type as FromF64>::from_f64(value)
            }
            #[inline(always)]
            fn order_key(self) -> u64 {
                // Every float type is exact in f64; adding zero makes -0 zero.
                let bits = (f64::from(self) + 0.0).to_bits();
                match bits >> 63 {
                    _ if self.is_nan() => u64::MAX,
                    0 => bits | 1 << 63,
                    _ => !bits,
                }
            }
            fn binary_row(
                $kernels: &Kernels,
                $op: Binary,
                $a: &[$type],
                $b: &[$type],
                $out: &mut [$type],
            ) -> Result<(), KernelError> {
                $row
            }
        }
    };
}

/// Rounding from f64, which `half` and the primitive types spell differently.
trait FromF64 {
    fn from_f64(value: f64) -> Self;
}
impl FromF64 for f16 {
    fn from_f64(value: f64) -> f16 {
        f16::from_f64(value)
    }
}
impl FromF64 for bf16 {
    fn from_f64(value: f64) -> bf16 {
        bf16::from_f64(value)
    }
}
impl FromF64 for f32 {
    fn from_f64(value: f64) -> f32 {
        value as f32
    }
}
impl FromF64 for f64 {
    fn from_f64(value: f64) -> f64 {
        value
    }
}

/// The identity, usable in constants.
const fn same_f32(value: f32) -> f32 {
    value
}
const fn same_f64(value: f64) -> f64 {
    value
}

float!(f64, f64, same_f64, same_f64, |_kernels, op, a, b, out| binary::f64_row(op, a, b, out));
float!(f32, f32, same_f32, same_f32, |kernels, op, a, b, out| kernels.binary_row_f32(op, a, b, out));
float!(f16, f32, f16::to_f32, f16::from_f32_const, |_kernels, op, a, b, out| {
    binary::half_row(op, a, b, out)
});
float!(bf16, f32, bf16::to_f32, bf16::from_f32_const, |_kernels, op, a, b, out| {
    binary::half_row(op, a, b, out)
});

/// A truth value: `bool`, or `u8` that is 0 or 1 (any other value reads as true).
pub trait Truth: Copy + Send + Sync + 'static {
    /// From a bool.
    fn of(value: bool) -> Self;
    /// To a bool.
    fn get(self) -> bool;
}

impl Truth for bool {
    fn of(value: bool) -> bool {
        value
    }
    fn get(self) -> bool {
        self
    }
}

impl Truth for u8 {
    fn of(value: bool) -> u8 {
        u8::from(value)
    }
    fn get(self) -> bool {
        self != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ascend<T: Number>(values: &[T]) {
        let keys: Vec<u64> = values.iter().map(|value| value.order_key()).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{}: {keys:?}", T::NAME);
    }

    #[test]
    fn order_keys_are_in_the_order_of_the_numbers() {
        ascend(&[i8::MIN, -1, 0, 1, i8::MAX]);
        ascend(&[i64::MIN, -1, 0, 1, i64::MAX]);
        ascend(&[0, 1, u8::MAX]);
        ascend(&[0, 1, 1 << 63, u64::MAX]);
        ascend(&[f32::NEG_INFINITY, -1e30, -1e-40, 0.0, 1e-40, 1.0, f32::INFINITY, f32::NAN]);
        ascend(&[f64::NEG_INFINITY, f64::MIN, -5e-324, 0.0, 5e-324, 1.0, f64::INFINITY, f64::NAN]);
        ascend(&[f16::NEG_INFINITY, f16::from_f32(-0.5), f16::ZERO, f16::MAX, f16::NAN]);
        assert_eq!((-0.0f32).order_key(), 0.0f32.order_key());
        assert_eq!((-f64::NAN).order_key(), f64::NAN.order_key());
    }
}
