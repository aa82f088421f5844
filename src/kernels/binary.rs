//! Functions of two arguments with broadcasting, comparisons, logic and selection.

use super::broadcast::{BroadcastPlan, SelectPlan};
use super::element::{Number, Truth};
use super::error::{KernelError, expect_length};
use super::isa::Isa;
use super::table::Kernels;
use super::threads::Threads;
use serde::{Deserialize, Serialize};

/// A function of two numbers of one type.
///
/// Integers wrap; their division by zero is [`KernelError::DivisionByZero`]; `MIN / -1` wraps to `MIN`. The bitwise
/// functions are for integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say what the variants compute")]
pub enum Binary {
    Add,
    Sub,
    Mul,
    /// Integers truncate towards zero.
    Div,
    /// `a / b`, or 0 where `b` is 0, also for integers.
    DivNoNan,
    /// NaN if either is.
    Max,
    /// NaN if either is.
    Min,
    /// An integer to a negative power is the truncated quotient.
    Pow,
    SquaredDifference,
    /// The quotient rounded down.
    FloorDiv,
    /// The remainder with the sign of the divisor, as in Python.
    FloorMod,
    /// The remainder with the sign of the dividend, as in C.
    TruncMod,
    Atan2,
    /// `a` where it is not negative, else `a b`.
    Prelu,
    BitwiseAnd,
    BitwiseOr,
    BitwiseXor,
    /// Zero when the count reaches the width of the type.
    ShiftLeft,
    /// Zero (or the sign) when the count reaches the width of the type.
    ShiftRight,
}

/// A comparison; all but `NotEqual` are false for NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say what the variants compute")]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// A function of two truth values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say what the variants compute")]
pub enum Logical {
    And,
    Or,
    Xor,
}

impl Kernels {
    /// `out = op(a, b)` over the plan's shapes. Fails when lengths do not fit them, for integer division by zero
    /// and for bitwise functions of floats.
    pub fn binary<T: Number>(
        &self,
        op: Binary,
        plan: &BroadcastPlan,
        a: &[T],
        b: &[T],
        out: &mut [T],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        plan.check("binary", [a.len(), b.len()], out.len())?;
        plan.run_pairs([a, b], out, threads, |a, b, piece| T::binary_row(self, op, a, b, piece))
    }

    /// `out = op(a, b)` over the plan's shapes.
    pub fn compare<T: PartialOrd + Copy + Sync, B: Truth>(
        &self,
        op: Compare,
        plan: &BroadcastPlan,
        a: &[T],
        b: &[T],
        out: &mut [B],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        plan.check("compare", [a.len(), b.len()], out.len())?;
        plan.run(out, threads, |[i, j], piece| {
            let (a, b) = (&a[i], &b[j]);
            match op {
                Compare::Equal => zip(a, b, piece, |a, b| B::of(a == b)),
                Compare::NotEqual => zip(a, b, piece, |a, b| B::of(a != b)),
                Compare::Less => zip(a, b, piece, |a, b| B::of(a < b)),
                Compare::LessEqual => zip(a, b, piece, |a, b| B::of(a <= b)),
                Compare::Greater => zip(a, b, piece, |a, b| B::of(a > b)),
                Compare::GreaterEqual => zip(a, b, piece, |a, b| B::of(a >= b)),
            }
            Ok(())
        })
    }

    /// `out = op(a, b)` over the plan's shapes.
    pub fn logical<B: Truth>(
        &self,
        op: Logical,
        plan: &BroadcastPlan,
        a: &[B],
        b: &[B],
        out: &mut [B],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        plan.check("logical", [a.len(), b.len()], out.len())?;
        plan.run(out, threads, |[i, j], piece| {
            let (a, b) = (&a[i], &b[j]);
            match op {
                Logical::And => zip(a, b, piece, |a, b| B::of(a.get() & b.get())),
                Logical::Or => zip(a, b, piece, |a, b| B::of(a.get() | b.get())),
                Logical::Xor => zip(a, b, piece, |a, b| B::of(a.get() ^ b.get())),
            }
            Ok(())
        })
    }

    /// `out = condition ? a : b` over the plan's shapes, for elements of any kind.
    pub fn select<T: Clone + Send + Sync, B: Truth>(
        &self,
        plan: &SelectPlan,
        condition: &[B],
        a: &[T],
        b: &[T],
        out: &mut [T],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        plan.check("select", [condition.len(), a.len(), b.len()], out.len())?;
        plan.run(out, threads, |[i, j, k], piece| {
            let (condition, a, b) = (&condition[i], &a[j], &b[k]);
            for (index, to) in piece.iter_mut().enumerate() {
                let from = if at(condition, index).get() { at(a, index) } else { at(b, index) };
                to.clone_from(from);
            }
            Ok(())
        })
    }

    /// One row in f32.
    pub(super) fn binary_row_f32(
        &self,
        op: Binary,
        a: &[f32],
        b: &[f32],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        match op {
            // A square is by far the most frequent power.
            Binary::Pow if matches!(b, [2.0]) && a.len() == out.len() => zip(a, a, out, |a, b| a * b),
            Binary::Pow => zip(a, b, out, f32::powf),
            Binary::FloorMod => zip(a, b, out, |a, b| floor_mod(f64::from(a), f64::from(b)) as f32),
            Binary::TruncMod => zip(a, b, out, |a, b| a % b),
            Binary::Atan2 => zip(a, b, out, f32::atan2),
            Binary::BitwiseAnd
            | Binary::BitwiseOr
            | Binary::BitwiseXor
            | Binary::ShiftLeft
            | Binary::ShiftRight => return Err(unsupported("a bitwise function", "f32")),
            _ => {
                for (argument, operand) in [("a", a), ("b", b)] {
                    if operand.len() != 1 {
                        expect_length("binary", argument, out.len(), operand.len())?;
                    }
                }
                let step = |operand: &[f32]| usize::from(operand.len() == out.len());
                let (a_step, b_step) = (step(a), step(b));
                // SAFETY: each operand has as many elements as `out`, or one and stands still.
                unsafe {
                    (self.binary)(op, a.as_ptr(), a_step, b.as_ptr(), b_step, out.as_mut_ptr(), out.len())
                }
            }
        }
        Ok(())
    }
}

/// The element of a row at `index`, where one element stands for all.
#[inline(always)]
fn at<T>(row: &[T], index: usize) -> &T {
    if row.len() == 1 { &row[0] } else { &row[index] }
}

/// `out[i] = f(a[i], b[i])`; an operand of one element stands for all.
#[inline(always)]
fn zip<T: Copy, O>(a: &[T], b: &[T], out: &mut [O], f: impl Fn(T, T) -> O) {
    match (a, b) {
        (&[a], &[b]) => out.iter_mut().for_each(|out| *out = f(a, b)),
        (&[a], b) => out.iter_mut().zip(b).for_each(|(out, &b)| *out = f(a, b)),
        (a, &[b]) => out.iter_mut().zip(a).for_each(|(out, &a)| *out = f(a, b)),
        (a, b) => out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (&a, &b))| *out = f(a, b)),
    }
}

/// Like [`zip`] for functions that can fail.
fn try_zip<T: Copy>(
    a: &[T],
    b: &[T],
    out: &mut [T],
    f: impl Fn(T, T) -> Option<T>,
) -> Result<(), KernelError> {
    for (index, out) in out.iter_mut().enumerate() {
        *out = f(*at(a, index), *at(b, index)).ok_or(KernelError::DivisionByZero)?;
    }
    Ok(())
}

/// The vector loop of [`Binary`] in f32.
///
/// # Safety
/// `a` and `b` must be readable for `length` floats, or for one where their step is 0 (it is 0 or 1); `out` must be writable for
/// `length` and not overlap them.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "two strided operands")]
pub(super) unsafe fn binary<I: Isa>(
    isa: I,
    op: Binary,
    a: *const f32,
    a_step: usize,
    b: *const f32,
    b_step: usize,
    out: *mut f32,
    length: usize,
) {
    if length == 0 {
        return;
    }
    macro_rules! each {
        (|$a:ident, $b:ident| $body:expr) => {{
            // SAFETY: there is at least one element.
            let (a_all, b_all) = unsafe { (isa.splat(*a), isa.splat(*b)) };
            let mut index = 0;
            while index + I::LANES <= length {
                // SAFETY: index + LANES <= length.
                let $a = if a_step == 0 { a_all } else { unsafe { isa.load(a.add(index)) } };
                // SAFETY: as above.
                let $b = if b_step == 0 { b_all } else { unsafe { isa.load(b.add(index)) } };
                let result = $body;
                // SAFETY: as above.
                unsafe { isa.store(out.add(index), result) };
                index += I::LANES;
            }
            let count = length - index;
            if count > 0 {
                // SAFETY: `count` elements remain.
                let $a = if a_step == 0 { a_all } else { unsafe { isa.load_partial(a.add(index), count) } };
                // SAFETY: as above.
                let $b = if b_step == 0 { b_all } else { unsafe { isa.load_partial(b.add(index), count) } };
                let result = $body;
                // SAFETY: as above.
                unsafe { isa.store_partial(out.add(index), result, count) };
            }
        }};
    }
    let zero = isa.splat(0.0);
    match op {
        Binary::Add => each!(|a, b| isa.add(a, b)),
        Binary::Sub => each!(|a, b| isa.sub(a, b)),
        Binary::Mul => each!(|a, b| isa.mul(a, b)),
        Binary::Div => each!(|a, b| isa.div(a, b)),
        Binary::DivNoNan => each!(|a, b| isa.select(isa.equal(b, zero), zero, isa.div(a, b))),
        // `max` keeps the NaN of its second argument; that of the first is put back.
        Binary::Max => each!(|a, b| isa.select(isa.equal(a, a), isa.max(a, b), a)),
        Binary::Min => each!(|a, b| isa.select(isa.equal(a, a), isa.min(a, b), a)),
        Binary::SquaredDifference => each!(|a, b| {
            let difference = isa.sub(a, b);
            isa.mul(difference, difference)
        }),
        Binary::FloorDiv => each!(|a, b| isa.floor(isa.div(a, b))),
        Binary::Prelu => each!(|a, b| isa.select(isa.less(a, zero), isa.mul(a, b), a)),
        // Left to `binary_row_f32`, or not for floats.
        Binary::Pow
        | Binary::FloorMod
        | Binary::TruncMod
        | Binary::Atan2
        | Binary::BitwiseAnd
        | Binary::BitwiseOr
        | Binary::BitwiseXor
        | Binary::ShiftLeft
        | Binary::ShiftRight => {}
    }
}

fn floor_mod(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
}

/// The function in f64.
pub(super) fn f64_row(op: Binary, a: &[f64], b: &[f64], out: &mut [f64]) -> Result<(), KernelError> {
    match op {
        Binary::Add => zip(a, b, out, |a, b| a + b),
        Binary::Sub => zip(a, b, out, |a, b| a - b),
        Binary::Mul => zip(a, b, out, |a, b| a * b),
        Binary::Div => zip(a, b, out, |a, b| a / b),
        Binary::DivNoNan => zip(a, b, out, |a, b| if b == 0.0 { 0.0 } else { a / b }),
        Binary::Max => zip(a, b, out, |a, b| if a > b || a.is_nan() { a } else { b }),
        Binary::Min => zip(a, b, out, |a, b| if a < b || a.is_nan() { a } else { b }),
        Binary::Pow => zip(a, b, out, f64::powf),
        Binary::SquaredDifference => zip(a, b, out, |a, b| (a - b) * (a - b)),
        Binary::FloorDiv => zip(a, b, out, |a, b| (a / b).floor()),
        Binary::FloorMod => zip(a, b, out, floor_mod),
        Binary::TruncMod => zip(a, b, out, |a, b| a % b),
        Binary::Atan2 => zip(a, b, out, f64::atan2),
        Binary::Prelu => zip(a, b, out, |a, b| if a < 0.0 { a * b } else { a }),
        Binary::BitwiseAnd
        | Binary::BitwiseOr
        | Binary::BitwiseXor
        | Binary::ShiftLeft
        | Binary::ShiftRight => return Err(unsupported("a bitwise function", "f64")),
    }
    Ok(())
}

/// The function in half precision: computed wider, rounded once.
pub(super) fn half_row<T: Number>(op: Binary, a: &[T], b: &[T], out: &mut [T]) -> Result<(), KernelError> {
    const BLOCK: usize = 64;
    // Through f64, which is exact enough that the one rounding is the right one.
    let mut wide = [[0.0f64; BLOCK]; 3];
    let [wide_a, wide_b, wide_out] = &mut wide;
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        for index in 0..out.len() {
            wide_a[index] = at(a, block * BLOCK + index).to_f64();
            wide_b[index] = at(b, block * BLOCK + index).to_f64();
        }
        let count = out.len();
        f64_row(op, &wide_a[..count], &wide_b[..count], &mut wide_out[..count])?;
        for (to, &from) in out.iter_mut().zip(wide_out.iter()) {
            *to = T::from_f64(from);
        }
    }
    Ok(())
}

/// What [`integer_row`] needs of an integer type beyond [`Number`].
pub(super) trait Integer: Number {
    fn minus(self, other: Self) -> Self;
    fn quotient(self, other: Self) -> Option<Self>;
    fn floor_quotient(self, other: Self) -> Option<Self>;
    fn remainder(self, other: Self) -> Option<Self>;
    fn floor_remainder(self, other: Self) -> Option<Self>;
    fn power(self, exponent: Self) -> Option<Self>;
    fn and(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    fn shifted_left(self, count: Self) -> Self;
    fn shifted_right(self, count: Self) -> Self;
}

macro_rules! integer {
    ($($type:ident)+) => { $(
        #[allow(unused_comparisons, reason = "the macro serves unsigned types too")]
        impl Integer for $type {
            #[inline(always)]
            fn minus(self, other: $type) -> $type {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn quotient(self, other: $type) -> Option<$type> {
                if other == 0 { None } else { Some(self.wrapping_div(other)) }
            }
            #[inline(always)]
            fn floor_quotient(self, other: $type) -> Option<$type> {
                let quotient = self.quotient(other)?;
                let inexact = self.wrapping_rem(other) != 0;
                Some(if inexact && (self < 0) != (other < 0) { quotient.wrapping_sub(1) } else { quotient })
            }
            #[inline(always)]
            fn remainder(self, other: $type) -> Option<$type> {
                if other == 0 { None } else { Some(self.wrapping_rem(other)) }
            }
            #[inline(always)]
            fn floor_remainder(self, other: $type) -> Option<$type> {
                let rest = self.remainder(other)?;
                Some(if rest != 0 && (rest < 0) != (other < 0) { rest.wrapping_add(other) } else { rest })
            }
            fn power(self, exponent: $type) -> Option<$type> {
                if exponent < 0 {
                    let odd = exponent & 1 != 0;
                    return match self {
                        0 => None,
                        1 => Some(1),
                        // Minus one, where the type has it.
                        base if base == (0 as $type).wrapping_sub(1) && base < 0 => Some(if odd { base } else { 1 }),
                        _ => Some(0),
                    };
                }
                let (mut base, mut exponent, mut result) = (self, exponent, 1 as $type);
                while exponent > 0 {
                    if exponent & 1 != 0 {
                        result = result.wrapping_mul(base);
                    }
                    base = base.wrapping_mul(base);
                    exponent >>= 1;
                }
                Some(result)
            }
            #[inline(always)]
            fn and(self, other: $type) -> $type {
                self & other
            }
            #[inline(always)]
            fn or(self, other: $type) -> $type {
                self | other
            }
            #[inline(always)]
            fn xor(self, other: $type) -> $type {
                self ^ other
            }
            #[inline(always)]
            fn shifted_left(self, count: $type) -> $type {
                u32::try_from(count).ok().and_then(|count| self.checked_shl(count)).unwrap_or(0)
            }
            #[inline(always)]
            fn shifted_right(self, count: $type) -> $type {
                let last = $type::BITS - 1;
                let beyond = if self < 0 { self >> last } else { 0 };
                u32::try_from(count).ok().and_then(|count| self.checked_shr(count)).unwrap_or(beyond)
            }
        }
    )+ };
}

integer!(i8 i16 i32 i64 u8 u16 u32 u64);

/// The function for integers.
pub(super) fn integer_row<T: Integer>(
    op: Binary,
    a: &[T],
    b: &[T],
    out: &mut [T],
) -> Result<(), KernelError> {
    match op {
        Binary::Add => zip(a, b, out, T::plus),
        Binary::Sub => zip(a, b, out, T::minus),
        Binary::Mul => zip(a, b, out, T::times),
        Binary::Div => return try_zip(a, b, out, T::quotient),
        Binary::DivNoNan => zip(a, b, out, |a, b| a.quotient(b).unwrap_or(T::ZERO)),
        Binary::Max => zip(a, b, out, |a, b| if a > b { a } else { b }),
        Binary::Min => zip(a, b, out, |a, b| if a < b { a } else { b }),
        Binary::Pow => return try_zip(a, b, out, T::power),
        Binary::SquaredDifference => zip(a, b, out, |a, b| a.minus(b).times(a.minus(b))),
        Binary::FloorDiv => return try_zip(a, b, out, T::floor_quotient),
        Binary::FloorMod => return try_zip(a, b, out, T::floor_remainder),
        Binary::TruncMod => return try_zip(a, b, out, T::remainder),
        Binary::Prelu => zip(a, b, out, |a, b| if a < T::ZERO { a.times(b) } else { a }),
        Binary::BitwiseAnd => zip(a, b, out, T::and),
        Binary::BitwiseOr => zip(a, b, out, T::or),
        Binary::BitwiseXor => zip(a, b, out, T::xor),
        Binary::ShiftLeft => zip(a, b, out, T::shifted_left),
        Binary::ShiftRight => zip(a, b, out, T::shifted_right),
        Binary::Atan2 => return Err(unsupported("Atan2", T::NAME)),
    }
    Ok(())
}

fn unsupported(operation: &'static str, element: &'static str) -> KernelError {
    KernelError::Unsupported { operation, element }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::available;
    use crate::kernels::testing::random;
    use half::f16;

    const FLOAT_OPS: [Binary; 14] = [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
        Binary::DivNoNan,
        Binary::Max,
        Binary::Min,
        Binary::Pow,
        Binary::SquaredDifference,
        Binary::FloorDiv,
        Binary::FloorMod,
        Binary::TruncMod,
        Binary::Atan2,
        Binary::Prelu,
    ];

    /// One pair in f64, by definition.
    fn naive(op: Binary, a: f64, b: f64) -> f64 {
        match op {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::DivNoNan => {
                if b == 0.0 {
                    0.0
                } else {
                    a / b
                }
            }
            Binary::Max => {
                if a.is_nan() || b.is_nan() {
                    f64::NAN
                } else {
                    a.max(b)
                }
            }
            Binary::Min => {
                if a.is_nan() || b.is_nan() {
                    f64::NAN
                } else {
                    a.min(b)
                }
            }
            Binary::Pow => a.powf(b),
            Binary::SquaredDifference => (a - b).powi(2),
            Binary::FloorDiv => f64::from((a / b) as f32).floor(),
            Binary::FloorMod => a - b * (a / b).floor(),
            Binary::TruncMod => a - b * (a / b).trunc(),
            Binary::Atan2 => a.atan2(b),
            Binary::Prelu => {
                if a >= 0.0 {
                    a
                } else {
                    a * b
                }
            }
            _ => f64::NAN,
        }
    }

    #[test]
    fn floats_of_every_shape() {
        for kernels in available() {
            for op in FLOAT_OPS {
                for length in [1usize, 3, 7, 8, 9, 17, 33, 100] {
                    for (a_shape, b_shape) in [
                        ([2, length], [2, length]),
                        ([2, length], [1, 1]),
                        ([1, 1], [1, length]),
                        ([2, 1], [1, length]),
                    ] {
                        let plan = BroadcastPlan::new(&a_shape, &b_shape).unwrap();
                        let a = random(a_shape.iter().product(), 1);
                        let b: Vec<f32> =
                            random(b_shape.iter().product(), 2).iter().map(|x| x * 3.0).collect();
                        let mut out = vec![0.0f32; plan.length()];
                        kernels.binary(op, &plan, &a, &b, &mut out, &Threads::single()).unwrap();
                        let width = plan.out_shape()[1];
                        let pick = |x: &[f32], shape: [usize; 2], i: usize| {
                            let row = if shape[0] == 1 { 0 } else { i / width };
                            let column = if shape[1] == 1 { 0 } else { i % width };
                            f64::from(x[row * shape[1] + column])
                        };
                        for (i, &y) in out.iter().enumerate() {
                            let expected = naive(op, pick(&a, a_shape, i), pick(&b, b_shape, i));
                            let error = (f64::from(y) - expected).abs();
                            let same = y.is_nan() && expected.is_nan();
                            assert!(
                                same || error <= 1e-6 * expected.abs().max(1.0),
                                "{op:?}: {y}, not {expected}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn special_values() {
        let plan = BroadcastPlan::new(&[4], &[4]).unwrap();
        let nan = f32::NAN;
        for kernels in available() {
            let mut out = [0.0f32; 4];
            for op in [Binary::Max, Binary::Min] {
                let (a, b) = ([nan, 1.0, nan, 2.0], [1.0, nan, nan, 2.0]);
                kernels.binary(op, &plan, &a, &b, &mut out, &Threads::single()).unwrap();
                assert!(out[..3].iter().all(|x| x.is_nan()) && out[3] == 2.0, "{op:?} {out:?}");
            }
            let (a, b) = ([1.0, 0.0, nan, 3.0], [0.0, 0.0, 0.0, 2.0]);
            kernels.binary(Binary::DivNoNan, &plan, &a, &b, &mut out, &Threads::single()).unwrap();
            assert_eq!(out, [0.0, 0.0, 0.0, 1.5]);
            let square = BroadcastPlan::new(&[4], &[1]).unwrap();
            kernels
                .binary(Binary::Pow, &square, &[-3.0, 0.5, 2.0, -0.0], &[2.0], &mut out, &Threads::single())
                .unwrap();
            assert_eq!(out, [9.0, 0.25, 4.0, 0.0]);
        }
    }

    #[test]
    fn integers_wrap_and_refuse_zero() {
        let kernels = available()[0];
        let plan = BroadcastPlan::new(&[4], &[4]).unwrap();
        let run = |op, a: [i32; 4], b: [i32; 4]| {
            let mut out = [0; 4];
            kernels.binary(op, &plan, &a, &b, &mut out, &Threads::single()).map(|()| out)
        };
        let a = [7, -7, 7, -7];
        let b = [2, 2, -2, -2];
        assert_eq!(run(Binary::Div, a, b).unwrap(), [3, -3, -3, 3]);
        assert_eq!(run(Binary::FloorDiv, a, b).unwrap(), [3, -4, -4, 3]);
        assert_eq!(run(Binary::FloorMod, a, b).unwrap(), [1, 1, -1, -1]);
        assert_eq!(run(Binary::TruncMod, a, b).unwrap(), [1, -1, 1, -1]);
        assert_eq!(run(Binary::Pow, [2, -3, -1, 5], [10, 3, -3, -1]).unwrap(), [1024, -27, -1, 0]);
        assert_eq!(run(Binary::Add, [i32::MAX; 4], [1; 4]).unwrap(), [i32::MIN; 4]);
        assert_eq!(run(Binary::Div, [i32::MIN; 4], [-1; 4]).unwrap(), [i32::MIN; 4]);
        assert_eq!(run(Binary::FloorMod, [i32::MIN; 4], [-1; 4]).unwrap(), [0; 4]);
        assert_eq!(run(Binary::ShiftLeft, [1; 4], [0, 31, 32, -1]).unwrap(), [1, i32::MIN, 0, 0]);
        assert_eq!(run(Binary::ShiftRight, [-8; 4], [1, 31, 32, 99]).unwrap(), [-4, -1, -1, -1]);
        assert_eq!(run(Binary::BitwiseXor, [6; 4], [3; 4]).unwrap(), [5; 4]);
        for op in [Binary::Div, Binary::FloorDiv, Binary::FloorMod, Binary::TruncMod] {
            assert_eq!(run(op, a, [1, 1, 0, 1]), Err(KernelError::DivisionByZero));
        }
        assert_eq!(run(Binary::Pow, [0; 4], [-1; 4]), Err(KernelError::DivisionByZero));
        assert_eq!(run(Binary::DivNoNan, a, [2, 0, 1, 1]).unwrap(), [3, 0, 7, -7]);
        let mut out = [0u8; 4];
        kernels.binary(Binary::Sub, &plan, &[1u8; 4], &[2; 4], &mut out, &Threads::single()).unwrap();
        assert_eq!(out, [255; 4]);
    }

    #[test]
    fn half_precision_rounds_once() {
        let kernels = available()[0];
        let plan = BroadcastPlan::new(&[100], &[1]).unwrap();
        let a: Vec<f16> = random(100, 5).into_iter().map(f16::from_f32).collect();
        let b = [f16::from_f32(0.3)];
        let mut out = vec![f16::ZERO; 100];
        kernels.binary(Binary::Mul, &plan, &a, &b, &mut out, &Threads::single()).unwrap();
        for (a, y) in a.iter().zip(&out) {
            assert_eq!(*y, f16::from_f64(f64::from(*a) * f64::from(b[0])));
        }
        let error = kernels.binary(Binary::BitwiseAnd, &plan, &a, &b, &mut out, &Threads::single());
        assert!(matches!(error, Err(KernelError::Unsupported { .. })));
    }

    #[test]
    fn comparisons_logic_and_selection() {
        let kernels = available()[0];
        let single = Threads::single();
        let plan = BroadcastPlan::new(&[3], &[1]).unwrap();
        let a = [1.0f32, f32::NAN, 3.0];
        let expected = [
            (Compare::Equal, [false, false, true]),
            (Compare::NotEqual, [true, true, false]),
            (Compare::Less, [true, false, false]),
            (Compare::LessEqual, [true, false, true]),
            (Compare::Greater, [false, false, false]),
            (Compare::GreaterEqual, [false, false, true]),
        ];
        for (op, expected) in expected {
            let mut bools = [false; 3];
            kernels.compare(op, &plan, &a, &[3.0], &mut bools, &single).unwrap();
            assert_eq!(bools, expected, "{op:?}");
            let mut bytes = [9u8; 3];
            kernels.compare(op, &plan, &a, &[3.0], &mut bytes, &single).unwrap();
            assert_eq!(bytes, expected.map(u8::from));
        }
        let plan = BroadcastPlan::new(&[4], &[4]).unwrap();
        let (p, q) = ([true, true, false, false], [true, false, true, false]);
        let mut out = [false; 4];
        kernels.logical(Logical::And, &plan, &p, &q, &mut out, &single).unwrap();
        assert_eq!(out, [true, false, false, false]);
        kernels.logical(Logical::Xor, &plan, &p, &q, &mut out, &single).unwrap();
        assert_eq!(out, [false, true, true, false]);

        let plan = SelectPlan::new(&[2, 1], &[3], &[]).unwrap();
        let mut chosen = [0i64; 6];
        kernels.select(&plan, &[true, false], &[1, 2, 3], &[9], &mut chosen, &single).unwrap();
        assert_eq!(chosen, [1, 2, 3, 9, 9, 9]);
        assert!(kernels.select(&plan, &[true], &[1, 2, 3], &[9], &mut chosen, &single).is_err());
    }

    #[test]
    fn lying_lengths_are_refused() {
        let kernels = available()[0];
        let plan = BroadcastPlan::new(&[3], &[3]).unwrap();
        let mut out = [0.0f32; 3];
        let single = Threads::single();
        assert!(kernels.binary(Binary::Add, &plan, &[0.0; 2], &[0.0; 3], &mut out, &single).is_err());
        assert!(kernels.binary(Binary::Add, &plan, &[0.0; 3], &[0.0; 4], &mut out, &single).is_err());
        assert!(kernels.binary(Binary::Add, &plan, &[0.0; 3], &[0.0; 3], &mut out[..2], &single).is_err());
    }
}
