//! Numbers: checking, and reading them into elements without a detour.
//!
//! Digits are taken eight at a time. A number of at most 19 digits is a 64-bit significand and a
//! power of ten; where both are exact in binary64, one multiplication or division rounds correctly
//! (W. D. Clinger, "How to Read Floating Point Numbers Accurately", 1990). Only what that leaves
//! open takes a slow path.

use super::{
    plain::{self, Plain},
    scan::{SyntaxError, peek},
};
use half::{bf16, f16};

/// How numbers become elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// To the nearest value; an integer that does not fit is refused.
    Exact,
    /// As TensorFlow Serving does: with RapidJSON's arithmetic, which can be off by some units in
    /// the last place of binary64; subnormal values become zero; integers of 8 and 16 bits wrap.
    Serving,
}

/// A number as RapidJSON classifies it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A negative integer, or `-0`.
    Negative(i64),
    /// An integer without a sign.
    Positive(u64),
    /// With a fraction or exponent, too large for 64 bits, or not finite.
    Double(f64),
}

/// An element type that JSON numbers are read into.
pub trait FromNumber: Sized {
    /// Reads the number that a checked text has at `at`; returns it and the offset behind it, or
    /// `None` where the number is none of this type.
    #[inline]
    fn from_number(text: &[u8], at: usize, conversion: Conversion) -> Option<(Self, usize)> {
        if let Some((plain, end)) = Plain::read(text, at)
            && let Some(value) = Self::from_plain(plain, conversion)
        {
            return Some((value, end));
        }
        let token = Token::scan_apart(text, at)?;
        let end = token.end;
        Self::from_token(&token, text, at, conversion).map(|value| (value, end))
    }

    /// The same for a text that is not checked yet.
    ///
    /// # Errors
    /// There is no number.
    #[inline(always)]
    fn check_number(
        text: &[u8],
        at: usize,
        conversion: Conversion,
    ) -> Result<(Option<Self>, usize), SyntaxError> {
        if let Some((plain, end)) = Plain::read(text, at)
            && let Some(value) = Self::from_plain(plain, conversion)
        {
            return Ok((Some(value), end));
        }
        Self::check_any_number(text, at, conversion)
    }

    /// The same for the numbers that are left. Apart and by values, so that the others have the registers for themselves.
    #[doc(hidden)]
    #[inline(never)]
    fn check_any_number(
        text: &[u8],
        at: usize,
        conversion: Conversion,
    ) -> Result<(Option<Self>, usize), SyntaxError> {
        let token = Token::scan(text, at)?;
        if !token.is_moderate() {
            check_any(text, at)?;
        }
        let end = token.end;
        Ok((Self::from_token(&token, text, at, conversion), end))
    }

    /// The value of a number in one of the usual forms; `None` where this takes a longer way, or has none.
    #[doc(hidden)]
    #[inline(always)]
    fn from_plain(plain: Plain, conversion: Conversion) -> Option<Self> {
        let _ = (plain, conversion);
        None
    }

    /// The value of a number that was taken apart.
    #[doc(hidden)]
    fn from_token(token: &Token, text: &[u8], at: usize, conversion: Conversion) -> Option<Self>;
}

/// Checks the number at `at`; returns the offset behind it.
#[inline]
pub(super) fn check(text: &[u8], at: usize) -> Result<usize, SyntaxError> {
    match plain_end(text, at) {
        Some(end) => Ok(end),
        None => check_any(text, at),
    }
}

/// The end of a number of moderate length without an exponent; `None` for all others.
#[inline(always)]
fn plain_end(text: &[u8], start: usize) -> Option<usize> {
    let whole = start + usize::from(peek(text, start) == b'-');
    let single = peek(text, whole).is_ascii_digit() && peek(text, whole + 1) == b'.';
    let mut end = if single { whole + 1 } else { digits_end(text, whole) };
    // None, or with a leading zero, or as many as could pass the range of binary64.
    if !(1..200).contains(&(end - whole)) || (peek(text, whole) == b'0' && end - whole > 1) {
        return None;
    }
    let mut next = peek(text, end);
    if next == b'.' {
        let fraction = end + 1;
        end = match text.get(fraction..).and_then(|rest| rest.first_chunk()).map(sixteen) {
            Some((_, count @ 0..16)) => fraction + count as usize,
            Some(_) => digits_end(text, fraction + 16),
            None => digits_end(text, fraction),
        };
        if end == fraction {
            return None;
        }
        next = peek(text, end);
    }
    (next | 0x20 != b'e').then_some(end)
}

#[cold]
#[inline(never)]
fn check_any(text: &[u8], at: usize) -> Result<usize, SyntaxError> {
    let token = Token::scan(text, at)?;
    if token.is_moderate() {
        return Ok(token.end);
    }
    match rapid_double(text, at) {
        Some(_) => Ok(token.end),
        None => Err(SyntaxError { message: "Number too big to be stored in double.", offset: at }),
    }
}

/// Reads the number of a checked text at `at`; returns it and the offset behind it. What is no
/// number reads as zero.
pub(super) fn read(text: &[u8], at: usize, conversion: Conversion) -> (Number, usize) {
    let Ok(token) = Token::scan(text, at) else { return (Number::Positive(0), at) };
    let number = if token.is_integer() {
        token.integer(text, at).unwrap_or_else(|| Number::Double(token.double(text, at, conversion)))
    } else {
        Number::Double(token.double(text, at, conversion))
    };
    (number, token.end)
}

/// What the characters of a number say.
#[doc(hidden)]
pub struct Token {
    negative: bool,
    /// All digits as one integer; wraps beyond 19 digits.
    significand: u64,
    whole_digits: usize,
    fraction_digits: usize,
    /// The written exponent, saturated.
    exponent: i32,
    form: Form,
    end: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Integer,
    Decimal,
    Infinity,
    NaN,
}

impl Token {
    /// The sign is no branch: it cannot be foreseen.
    #[inline(always)]
    fn scan(text: &[u8], start: usize) -> Result<Self, SyntaxError> {
        let negative = peek(text, start) == b'-';
        Self::scan_magnitude(text, start + usize::from(negative), negative)
    }

    /// For numbers that were checked: one copy of the code for all element types.
    #[inline(never)]
    fn scan_apart(text: &[u8], start: usize) -> Option<Self> {
        Self::scan(text, start).ok()
    }

    #[inline(always)]
    fn scan_magnitude(text: &[u8], whole: usize, negative: bool) -> Result<Self, SyntaxError> {
        let error = |message, offset| Err(SyntaxError { message, offset });
        let mut significand = 0;
        let mut at = match peek(text, whole) {
            b'0' => whole + 1,
            b'1'..=b'9' => digits(text, whole, &mut significand),
            _ => return Self::not_finite(text, whole, negative),
        };
        let mut token = Token {
            negative,
            significand,
            whole_digits: at - whole,
            fraction_digits: 0,
            exponent: 0,
            form: Form::Integer,
            end: at,
        };
        if peek(text, at) == b'.' {
            let fraction = at + 1;
            at = many_digits(text, fraction, &mut token.significand);
            if at == fraction {
                return error("Miss fraction part in number.", at);
            }
            token.fraction_digits = at - fraction;
            token.form = Form::Decimal;
        }
        token.end = at;
        if peek(text, at) | 0x20 == b'e' {
            (token.exponent, token.end) = exponent(text, at)?;
            token.form = Form::Decimal;
        }
        Ok(token)
    }

    #[cold]
    fn not_finite(text: &[u8], start: usize, negative: bool) -> Result<Self, SyntaxError> {
        let mut at = start;
        let mut word = |letters: &[u8]| {
            letters.iter().all(|&letter| {
                let same = peek(text, at) == letter;
                at += usize::from(same);
                same
            })
        };
        let form = match peek(text, start) {
            b'N' => word(b"NaN").then_some(Form::NaN),
            b'I' => {
                (word(b"Inf") && (peek(text, start + 3) != b'i' || word(b"inity"))).then_some(Form::Infinity)
            }
            _ => None,
        };
        match form {
            None => Err(SyntaxError { message: "Invalid value.", offset: at }),
            Some(form) => Ok(Token {
                negative,
                significand: 0,
                whole_digits: 0,
                fraction_digits: 0,
                exponent: 0,
                form,
                end: at,
            }),
        }
    }

    #[inline]
    fn is_integer(&self) -> bool {
        self.form == Form::Integer
    }

    #[inline]
    fn is_number(&self) -> bool {
        matches!(self.form, Form::Integer | Form::Decimal)
    }

    /// True when it is too small for RapidJSON to find it too big.
    #[inline]
    fn is_moderate(&self) -> bool {
        self.exponent.unsigned_abs() < 100 && self.whole_digits < 200
    }

    /// True when `significand` holds all digits.
    #[inline]
    fn is_whole(&self) -> bool {
        self.whole_digits + self.fraction_digits <= 19
    }

    /// An integer that fits 64 bits.
    #[inline]
    fn integer(&self, text: &[u8], start: usize) -> Option<Number> {
        let magnitude = if self.is_whole() {
            self.significand
        } else {
            std::str::from_utf8(text.get(start + usize::from(self.negative)..self.end)?).ok()?.parse().ok()?
        };
        match (self.negative, magnitude) {
            (false, _) => Some(Number::Positive(magnitude)),
            (true, 0..=0x8000_0000_0000_0000) => Some(Number::Negative((magnitude as i64).wrapping_neg())),
            _ => None,
        }
    }

    /// The power of ten that the significand stands for.
    #[inline]
    fn power(&self) -> i32 {
        self.exponent.saturating_sub(i32::try_from(self.fraction_digits).unwrap_or(i32::MAX))
    }

    #[inline]
    fn double(&self, text: &[u8], start: usize, conversion: Conversion) -> f64 {
        let power = self.power();
        if self.is_number() && self.significand < 1 << 53 && self.is_whole() && (-22..=22).contains(&power) {
            return self.signed(scale(self.significand as f64, power));
        }
        self.slow_double(text, start, conversion)
    }

    #[cold]
    fn slow_double(&self, text: &[u8], start: usize, conversion: Conversion) -> f64 {
        match (self.form, conversion) {
            (Form::NaN, _) => f64::NAN,
            (Form::Infinity, _) => self.signed(f64::INFINITY),
            (_, Conversion::Exact) => text
                .get(start..self.end)
                .and_then(|token| std::str::from_utf8(token).ok()?.parse().ok())
                .unwrap_or(f64::NAN),
            (_, Conversion::Serving) => {
                let double = rapid_double(text, start).unwrap_or(f64::INFINITY);
                self.signed(if double.is_subnormal() { 0.0 } else { double })
            }
        }
    }

    /// The nearest binary32 of the nearest binary64, unless an approximation leaves it open.
    #[inline(always)]
    fn quick_f32(&self) -> Option<f32> {
        // Most numbers: few enough digits that one division gives the nearest binary64. By their count, which is the same
        // for most numbers of a text; whether 16 digits are below 2^53 could not be foreseen.
        let divisor = self.power().checked_neg().and_then(|at| POWERS.get(usize::try_from(at).ok()?));
        if let Some(divisor) = divisor
            && self.is_number()
            && self.whole_digits + self.fraction_digits <= 15
        {
            let value = (self.significand as i64 as f64 / divisor) as f32;
            return Some(self.signed_f32(value));
        }
        let scale =
            usize::try_from(self.power().saturating_add(SCALES_FROM)).ok().and_then(|at| SCALES.get(at))?;
        if !(self.is_number() && self.is_whole() && self.significand <= i64::MAX as u64) {
            return None;
        }
        between(self.significand as i64 as f64 * scale).map(|value| self.signed_f32(value))
    }

    #[inline(always)]
    fn signed_f32(&self, magnitude: f32) -> f32 {
        f32::from_bits(magnitude.to_bits() | u32::from(self.negative) << 31)
    }

    #[inline]
    fn signed(&self, magnitude: f64) -> f64 {
        if self.negative { -magnitude } else { magnitude }
    }
}

/// The nearest binary32 of a value that was rounded three times, unless that leaves it open. This and RapidJSON's value
/// lie within 8 units in the last place of the true one.
#[inline(always)]
fn between(near: f64) -> Option<f32> {
    const SLACK: f64 = 1.0 / (1u64 << 50) as f64;
    let (low, high) = ((near - near * SLACK) as f32, (near + near * SLACK) as f32);
    (low == high).then_some(low)
}

/// An integer of at most 15 digits. By its bits: the instruction that converts integers waits, on x86, for what was in its
/// register before, the quotient of the last number.
#[inline(always)]
fn few_digits(value: u64) -> f64 {
    const LIMIT: f64 = (1u64 << 52) as f64;
    f64::from_bits(LIMIT.to_bits() | value) - LIMIT
}

/// Powers of ten that binary64 holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// The nearest binary64 to the powers of ten that most binary32 need, from 10^-44 on.
static SCALES: [f64; 67] = [
    1e-44, 1e-43, 1e-42, 1e-41, 1e-40, 1e-39, 1e-38, 1e-37, 1e-36, 1e-35, 1e-34, 1e-33, 1e-32, 1e-31, 1e-30,
    1e-29, 1e-28, 1e-27, 1e-26, 1e-25, 1e-24, 1e-23, 1e-22, 1e-21, 1e-20, 1e-19, 1e-18, 1e-17, 1e-16, 1e-15,
    1e-14, 1e-13, 1e-12, 1e-11, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2,
    1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
const SCALES_FROM: i32 = 44;

/// `value` times 10^`power`, `power` within -22..=22, rounded once.
#[inline]
fn scale(value: f64, power: i32) -> f64 {
    let factor = POWERS.get(power.unsigned_abs() as usize).copied().unwrap_or(f64::NAN);
    if power < 0 { value / factor } else { value * factor }
}

/// Eight bytes as digit values, the first in the lowest byte, and how many of them are digits
/// before the first that is none; `None` near the end of the text.
#[inline(always)]
fn eight(text: &[u8], at: usize) -> Option<(u64, u32)> {
    Some(plain::eight(text.get(at..)?.first_chunk()?))
}

/// The exponent whose `e` is at `at`, and the offset behind it. Apart, so that the many numbers without one have the
/// registers for themselves.
#[inline(never)]
fn exponent(text: &[u8], at: usize) -> Result<(i32, usize), SyntaxError> {
    let sign = peek(text, at + 1);
    let first = at + 1 + usize::from(sign == b'+' || sign == b'-');
    let mut at = first;
    let mut exponent = 0i32;
    while let digit @ b'0'..=b'9' = peek(text, at) {
        exponent = exponent.saturating_mul(10).saturating_add(i32::from(digit - b'0'));
        at += 1;
    }
    if at == first {
        return Err(SyntaxError { message: "Miss exponent in number.", offset: at });
    }
    Ok((if sign == b'-' { -exponent } else { exponent }, at))
}

/// The offset behind a run of digits.
#[inline(always)]
fn digits_end(text: &[u8], mut at: usize) -> usize {
    while let Some((_, count)) = eight(text, at) {
        at += count as usize;
        if count < 8 {
            return at;
        }
    }
    while peek(text, at).is_ascii_digit() {
        at += 1;
    }
    at
}

/// Appends a run of digits to `significand`; returns the offset behind it.
#[inline(always)]
fn digits(text: &[u8], mut at: usize, significand: &mut u64) -> usize {
    while let Some((values, count)) = eight(text, at) {
        if count == 8 {
            *significand = significand.wrapping_mul(100_000_000).wrapping_add(eight_digits(values));
            at += 8;
            continue;
        }
        if count > 0 {
            *significand = significand
                .wrapping_mul(TENS[count as usize & 7])
                .wrapping_add(eight_digits(values << (64 - 8 * count)));
        }
        return at + count as usize;
    }
    while let digit @ b'0'..=b'9' = peek(text, at) {
        *significand = significand.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        at += 1;
    }
    at
}

/// As [`digits`] where there are often more than eight, without a branch that depends on how many.
#[inline(always)]
fn many_digits(text: &[u8], at: usize, significand: &mut u64) -> usize {
    let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk()) else {
        return digits(text, at, significand);
    };
    let (values, count) = sixteen(chunk);
    if count == 0 {
        return at;
    }
    let ten = TENS.get(count as usize).copied().unwrap_or(0);
    *significand = significand.wrapping_mul(ten).wrapping_add(up_to_sixteen(values, count));
    let behind = at + count as usize;
    if count == 16 { digits(text, behind, significand) } else { behind }
}

/// The first `count` of sixteen digit values, 1 to 16, as one number.
#[inline(always)]
pub(super) fn up_to_sixteen(values: u128, count: u32) -> u64 {
    // Texts with so few are rounded all alike, so this is guessed well; around eight it would not be.
    if count <= 4 {
        return eight_digits((values as u64) << (64 - 8 * count));
    }
    let values = values << (128 - 8 * count);
    let (front, back) = (eight_digits(values as u64), eight_digits((values >> 64) as u64));
    front.wrapping_mul(100_000_000).wrapping_add(back)
}

/// As [`eight`] for sixteen.
#[inline(always)]
pub(super) fn sixteen(chunk: &[u8; 16]) -> (u128, u32) {
    const ZEROS: u128 = u128::from_le_bytes([b'0'; 16]);
    const TO_HIGH_BIT: u128 = u128::from_le_bytes([0x76; 16]);
    const HIGH_BITS: u128 = u128::from_le_bytes([0x80; 16]);
    let values = u128::from_le_bytes(*chunk) ^ ZEROS;
    let others = (values.wrapping_add(TO_HIGH_BIT) | values) & HIGH_BITS;
    (values, others.trailing_zeros() / 8)
}

pub(super) const TENS: [u64; 17] = {
    let mut tens = [1; 17];
    let mut at = 1;
    while at < 17 {
        tens[at] = tens[at - 1] * 10;
        at += 1;
    }
    tens
};

/// Eight digit values, the first in the lowest byte, as one number: pairs, then fours, then eight.
#[inline(always)]
pub(super) fn eight_digits(values: u64) -> u64 {
    const PAIRS: u64 = 0x0000_00ff_0000_00ff;
    let pairs = values.wrapping_mul(10).wrapping_add(values >> 8);
    let high = (pairs & PAIRS).wrapping_mul(100 + (1_000_000 << 32));
    let low = (pairs >> 16 & PAIRS).wrapping_mul(1 + (10_000 << 32));
    high.wrapping_add(low) >> 32
}

/// The magnitude that RapidJSON's normal precision gives; `None` where it finds the number too big.
fn rapid_double(text: &[u8], start: usize) -> Option<f64> {
    const EXACT: u64 = (1 << 53) - 1;
    let negative = peek(text, start) == b'-';
    let mut at = start + usize::from(negative);
    let take = |at: &mut usize| match peek(text, *at) {
        digit @ b'0'..=b'9' => {
            *at += 1;
            Some(digit - b'0')
        }
        _ => None,
    };
    let (limit, last) = if negative { (1u64 << 63, 8) } else { (u64::MAX, 5) };
    let mut integer = 0u64;
    let mut double = None;
    let mut significant = -1i32;
    while let Some(digit) = take(&mut at) {
        match &mut double {
            None if integer > limit / 10 || (integer == limit / 10 && digit > last) => {
                double = Some(integer as f64 * 10.0 + f64::from(digit));
            }
            None => {
                integer = integer * 10 + u64::from(digit);
                significant += 1;
            }
            Some(double) => {
                if *double >= f64::MAX / 10.0 {
                    return None;
                }
                *double = *double * 10.0 + f64::from(digit);
            }
        }
    }
    let mut power = 0i32;
    if peek(text, at) == b'.' {
        at += 1;
        if double.is_none() {
            while integer <= EXACT {
                let Some(digit) = take(&mut at) else { break };
                integer = integer * 10 + u64::from(digit);
                power = power.saturating_sub(1);
                significant += i32::from(integer != 0);
            }
        }
        let mut value = double.unwrap_or(integer as f64);
        while let Some(digit) = take(&mut at) {
            if significant < 17 {
                value = value * 10.0 + f64::from(digit);
                power = power.saturating_sub(1);
                significant += i32::from(value > 0.0);
            }
        }
        double = Some(value);
    }
    let value = double.unwrap_or(integer as f64);
    if peek(text, at) | 0x20 == b'e' {
        let sign = peek(text, at + 1);
        at += 1 + usize::from(sign == b'+' || sign == b'-');
        let mut exponent = 0i32;
        let mut first = true;
        while let Some(digit) = take(&mut at) {
            exponent = exponent.saturating_mul(10).saturating_add(i32::from(digit));
            if !first && sign != b'-' && exponent > 308 - power {
                return None;
            }
            first = false;
        }
        power = power.saturating_add(if sign == b'-' { -exponent } else { exponent });
    }
    let ten = |power: i32| match power {
        0..=22 => scale(1.0, power),
        _ => format!("1e{power}").parse().unwrap_or(f64::INFINITY),
    };
    Some(match power {
        ..=-617 => 0.0,
        -616..=-309 => value / ten(308) / ten(-308 - power),
        -308..=-1 => value / ten(-power),
        _ => value * ten(power),
    })
}

impl FromNumber for f32 {
    #[inline(always)]
    fn from_token(token: &Token, text: &[u8], at: usize, conversion: Conversion) -> Option<Self> {
        let value = token.quick_f32().unwrap_or_else(|| token.double(text, at, conversion) as f32);
        let flush = conversion == Conversion::Serving && value.is_subnormal();
        Some(if flush { 0f32.copysign(value) } else { value })
    }

    /// Not one of these is subnormal.
    #[inline(always)]
    fn from_plain(plain: Plain, _: Conversion) -> Option<Self> {
        let magnitude = if plain.digits <= 15 {
            (few_digits(plain.significand) / POWERS.get(plain.fraction_digits as usize)?) as f32
        } else {
            let scale = SCALES.get((SCALES_FROM as u32 - plain.fraction_digits) as usize)?;
            between(plain.significand as f64 * scale)?
        };
        Some(f32::from_bits(magnitude.to_bits() | u32::from(plain.negative) << 31))
    }
}

impl FromNumber for f64 {
    #[inline(always)]
    fn from_token(token: &Token, text: &[u8], at: usize, conversion: Conversion) -> Option<Self> {
        Some(token.double(text, at, conversion))
    }

    #[inline(always)]
    fn from_plain(plain: Plain, _: Conversion) -> Option<Self> {
        if plain.digits > 15 {
            return None;
        }
        let magnitude = few_digits(plain.significand) / POWERS.get(plain.fraction_digits as usize)?;
        Some(f64::from_bits(magnitude.to_bits() | u64::from(plain.negative) << 63))
    }
}

macro_rules! half_floats {
    ($($float:ty),*) => {$(
        impl FromNumber for $float {
            fn from_token(token: &Token, text: &[u8], at: usize, conversion: Conversion) -> Option<Self> {
                Some(<$float>::from_f64(token.double(text, at, conversion)))
            }
        }
    )*};
}
half_floats!(f16, bf16);

macro_rules! integers {
    ($($int:ty),*) => {$(
        impl FromNumber for $int {
            #[inline(always)]
            fn from_token(token: &Token, text: &[u8], at: usize, _: Conversion) -> Option<Self> {
                match token.is_integer().then(|| token.integer(text, at))?? {
                    Number::Negative(value) => value.try_into().ok(),
                    Number::Positive(value) => value.try_into().ok(),
                    Number::Double(_) => None,
                }
            }

            #[inline(always)]
            fn from_plain(plain: Plain, _: Conversion) -> Option<Self> {
                plain.integer()?.try_into().ok()
            }
        }
    )*};
}
integers!(u16, u32, u64, i32, i64);

macro_rules! wrapping_integers {
    ($($int:ty),*) => {$(
        impl FromNumber for $int {
            #[inline(always)]
            fn from_token(token: &Token, text: &[u8], at: usize, conversion: Conversion) -> Option<Self> {
                let value = i32::from_token(token, text, at, conversion)?;
                match conversion {
                    Conversion::Exact => value.try_into().ok(),
                    Conversion::Serving => Some(value as $int),
                }
            }

            #[inline(always)]
            fn from_plain(plain: Plain, _: Conversion) -> Option<Self> {
                plain.integer()?.try_into().ok()
            }
        }
    )*};
}
wrapping_integers!(i8, u8, i16);

#[cfg(test)]
mod tests {
    use super::*;
    use Conversion::{Exact, Serving};
    use proptest::prelude::*;

    fn f32_of(text: &str, conversion: Conversion) -> f32 {
        let (value, end) = f32::from_number(text.as_bytes(), 0, conversion).expect(text);
        assert_eq!(end, text.len(), "{text}");
        value
    }

    fn f64_of(text: &str, conversion: Conversion) -> f64 {
        f64::from_number(text.as_bytes(), 0, conversion).expect(text).0
    }

    #[test]
    fn classes() {
        let class = |text: &str| read(text.as_bytes(), 0, Exact).0;
        assert_eq!(class("0"), Number::Positive(0));
        assert_eq!(class("-0"), Number::Negative(0));
        assert_eq!(class("18446744073709551615"), Number::Positive(u64::MAX));
        assert_eq!(class("18446744073709551616"), Number::Double(18446744073709551616.0));
        assert_eq!(class("-9223372036854775808"), Number::Negative(i64::MIN));
        assert_eq!(class("-9223372036854775809"), Number::Double(-9223372036854775808.0));
        assert_eq!(class("1e2"), Number::Double(100.0));
        assert_eq!(class("-0.0"), Number::Double(-0.0));
        assert_eq!(class("-Infinity"), Number::Double(f64::NEG_INFINITY));
        assert_eq!(class("Inf"), Number::Double(f64::INFINITY));
        assert!(matches!(class("-NaN"), Number::Double(nan) if nan.is_nan()));
    }

    #[test]
    fn limits_of_magnitude() {
        for text in ["1e308", "1.7976931348623157e308", "0.001e310", "-9e-999999999999", "0e-400"] {
            assert_eq!(check(text.as_bytes(), 0), Ok(text.len()), "{text}");
        }
        for text in ["1e309", "1e400", "-1e99999999999", "0e309"] {
            assert!(check(text.as_bytes(), 0).is_err(), "{text}");
        }
        assert!(check("9".repeat(308).as_bytes(), 0).is_ok());
        assert!(check("9".repeat(310).as_bytes(), 0).is_err());
    }

    #[test]
    fn integers_by_width() {
        assert_eq!(i8::from_number(b"127,", 0, Exact), Some((127, 3)));
        assert_eq!(i8::from_number(b"300", 0, Exact), None);
        assert_eq!(i8::from_number(b"300", 0, Serving), Some((44, 3)));
        assert_eq!(i16::from_number(b"40000", 0, Serving), Some((-25536, 5)));
        assert_eq!(u8::from_number(b"-1", 0, Serving), Some((255, 2)));
        assert_eq!(u8::from_number(b"2147483648", 0, Serving), None);
        assert_eq!(u32::from_number(b"-1", 0, Serving), None);
        assert_eq!(u64::from_number(b"-0", 0, Serving), Some((0, 2)));
        assert_eq!(i64::from_number(b"1.0", 0, Exact), None);
        assert_eq!(i64::from_number(b"9223372036854775808", 0, Exact), None);
    }

    #[test]
    fn subnormals() {
        assert_eq!(f32_of("1e-45", Exact), f32::from_bits(1));
        assert_eq!(f32_of("1e-45", Serving), 0.0);
        assert_eq!(f32_of("1.17549435e-38", Serving), f32::MIN_POSITIVE);
        assert_eq!(f64_of("5e-324", Exact), f64::from_bits(1));
        assert_eq!(f64_of("5e-324", Serving), 0.0);
    }

    /// RapidJSON's own value for this text, one unit in the last place below the nearest.
    #[test]
    fn normal_precision_is_imprecise() {
        let text = "1.7976931348623157e308";
        let naive = 17976931348623157u64 as f64 * 1e292;
        assert_eq!(f64_of(text, Serving), naive);
        assert_eq!(f64_of(text, Exact), f64::MAX);
    }

    proptest! {
        #[test]
        fn f64_is_the_nearest(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            for text in [format!("{value:e}"), format!("{value:.17e}"), format!("{value:.9e}")] {
                prop_assert_eq!(f64_of(&text, Exact).to_bits(), text.parse::<f64>().unwrap().to_bits());
            }
        }

        #[test]
        fn f32_is_the_nearest_of_the_nearest(bits: u32, digits in 0usize..20) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite());
            let double = f64::from(value);
            for text in [format!("{value:e}"), format!("{double:e}"), format!("{double:.digits$e}")] {
                let expected = text.parse::<f64>().unwrap() as f32;
                prop_assert_eq!(f32_of(&text, Exact).to_bits(), expected.to_bits(), "{}", text);
            }
        }

        #[test]
        fn plain_decimals(whole in 0u64..100_000, fraction in "[0-9]{1,25}", behind in "[],} ]{0,40}") {
            let text = format!("-{whole}.{fraction}");
            let long = format!("{text}{behind}");
            let (value, end) = f64::from_number(long.as_bytes(), 0, Exact).unwrap();
            prop_assert_eq!((value, end), (text.parse::<f64>().unwrap(), text.len()));
            let short = format!("{}.{fraction}{behind}", whole % 10);
            let (value, end) = f32::from_number(short.as_bytes(), 0, Exact).unwrap();
            let alone = &short[..2 + fraction.len()];
            prop_assert_eq!((value, end), (alone.parse::<f64>().unwrap() as f32, alone.len()));
            prop_assert_eq!(check(short.as_bytes(), 0), Ok(alone.len()));
            prop_assert_eq!(f64_of(&text, Exact), text.parse::<f64>().unwrap());
            prop_assert_eq!(f32_of(&text, Exact), text.parse::<f64>().unwrap() as f32);
        }

        /// The slow and the quick way of TensorFlow Serving's arithmetic agree.
        #[test]
        fn serving_f32_is_rapid_json(mantissa: u64, exponent in -30i32..20) {
            let text = format!("{}e{exponent}", mantissa as f64 / 1e12);
            let rapid = rapid_double(text.as_bytes(), 0).unwrap() as f32;
            prop_assert_eq!(f32_of(&text, Serving), rapid, "{}", text);
        }

        #[test]
        fn any_bytes_end_somewhere(text in "[-+0-9.eEINaf]{0,12}") {
            if let Ok(end) = check(text.as_bytes(), 0) {
                prop_assert!(end <= text.len());
                let (_, read_end) = read(text.as_bytes(), 0, Serving);
                prop_assert_eq!(read_end, end);
            }
        }
    }
}
