//! Floating-point numbers as TensorFlow Serving prints them: six significant digits when they read
//! back as the same value, else 9 (binary32) or 17 (binary64), in C's `%g` form; `.0` is added to
//! what would look like an integer.
//!
//! Digits come from exact integer arithmetic: significand times a power of five, shifted. Values
//! whose product does not fit 128 bits take the standard library's (exact, slower) formatting.

/// Appends a finite or non-finite binary32.
pub(super) fn write_f32(value: f32, out: &mut Vec<u8>) {
    let bits = value.to_bits();
    let (exponent, fraction) = (bits >> 23 & 0xff, bits & 0x7f_ffff);
    if exponent == 0xff || value == 0.0 {
        return write_special(f64::from(value), out);
    }
    let magnitude = value.abs();
    let exact = match exponent {
        0 => None,
        _ => Exact::<9>::of(u64::from(fraction | 1 << 23), exponent as i32 - 150),
    };
    let digits = match exact {
        // Half the distance between two neighbours is at most 2^-24 of the value.
        Some(exact) => match exact.six(exact.integer >> 23) {
            Some(six) if six.reads_as_f32(magnitude) => six,
            _ => exact.rounded(),
        },
        None => Digits::slow(magnitude.into(), 9, |six| six.reads_as_f32(magnitude)),
    };
    digits.write(value.is_sign_negative(), out);
}

/// Appends a finite or non-finite binary64.
pub(super) fn write_f64(value: f64, out: &mut Vec<u8>) {
    let bits = value.to_bits();
    let (exponent, fraction) = (bits >> 52 & 0x7ff, bits & 0xf_ffff_ffff_ffff);
    if exponent == 0x7ff || value == 0.0 {
        return write_special(value, out);
    }
    let magnitude = value.abs();
    let exact = match exponent {
        0 => None,
        _ => Exact::<17>::of(fraction | 1 << 52, exponent as i32 - 1075),
    };
    let digits = match exact {
        Some(exact) => match exact.six(exact.integer >> 50) {
            Some(six) if six.to_f64() == magnitude => six,
            _ => exact.rounded(),
        },
        None => Digits::slow(magnitude, 17, |six| six.to_f64() == magnitude),
    };
    digits.write(value.is_sign_negative(), out);
}

/// Appends a narrow float with the fewest digits that `reads_back` accepts, at most nine.
pub(super) fn write_shortest(value: f64, reads_back: impl Fn(f64) -> bool, out: &mut Vec<u8>) {
    if !value.is_finite() || value == 0.0 {
        return write_special(value, out);
    }
    let shortest = (1..=9)
        .map(|digits| Digits::formatted(value.abs(), digits))
        .find(|digits| reads_back(digits.to_f64().copysign(value)))
        .unwrap_or_else(|| Digits::formatted(value.abs(), 9));
    Digits { precision: 6, ..shortest }.write(value.is_sign_negative(), out);
}

#[cold]
fn write_special(value: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(match value {
        0.0 if value.is_sign_negative() => b"-0.0",
        0.0 => b"0.0",
        f64::INFINITY => b"Infinity",
        f64::NEG_INFINITY => b"-Infinity",
        _ => b"NaN",
    });
}

/// A value as an integer of `PRECISION` digits or one more, times 10^`power`; what lies below the
/// integer is `rest`.
struct Exact<const PRECISION: u32> {
    integer: u64,
    power: i32,
    rest: Rest,
}

/// The part of a value below its last digit, against half a unit of that digit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    None,
    BelowHalf,
    Half,
    AboveHalf,
}

impl<const PRECISION: u32> Exact<PRECISION> {
    const LIMIT: u64 = 10u64.pow(PRECISION);
    /// What six digits leave of `PRECISION`, and of one more.
    const UNIT: u64 = 10u64.pow(PRECISION - 6);
    const LONG_UNIT: u64 = 10u64.pow(PRECISION - 5);

    /// `significand` * 2^`exponent`; `None` where 128 bits do not suffice.
    #[inline]
    fn of(significand: u64, exponent: i32) -> Option<Self> {
        // floor(log10) of the value, or one less: both factors are log10(2), rounded downwards for
        // the product.
        let top = exponent + 63 - significand.leading_zeros() as i32;
        let estimate = if top >= 0 { (top * 1233) >> 12 } else { (top * 315_653) >> 20 };
        let power = estimate - (PRECISION as i32 - 1);
        let five = *FIVES.get(power.unsigned_abs() as usize)?;
        let (integer, rest) = if power <= 0 {
            // The product of a short five needs no check.
            let product = match u64::try_from(five) {
                Ok(five) => u128::from(five) * u128::from(significand),
                Err(_) => five.checked_mul(u128::from(significand))?,
            };
            match exponent - power {
                down @ -127..0 => (product >> -down, Rest::of(product << (128 + down), 1 << 127)),
                up @ 0..128 => ((product << up >> up == product).then_some(product << up)?, Rest::None),
                _ => return None,
            }
        } else {
            let up = u32::try_from(exponent - power).ok().filter(|&up| up < 128)?;
            let shifted = u128::from(significand) << up;
            if shifted >> up != u128::from(significand) {
                return None;
            }
            (shifted / five, Rest::of(shifted % five * 2, five))
        };
        Some(Self { integer: u64::try_from(integer).ok()?, power, rest })
    }

    /// The nearest number of six digits, if it is within `error` units of the integer.
    #[inline]
    fn six(&self, error: u64) -> Option<Digits> {
        let (mut integer, part, unit, power) = if self.integer < Self::LIMIT {
            (self.integer / Self::UNIT, self.integer % Self::UNIT, Self::UNIT, PRECISION - 6)
        } else {
            (self.integer / Self::LONG_UNIT, self.integer % Self::LONG_UNIT, Self::LONG_UNIT, PRECISION - 5)
        };
        if part > error {
            if unit - part > error {
                return None;
            }
            integer += 1;
        }
        Some(Digits { integer, power: self.power + power as i32, precision: 6 })
    }

    /// The nearest number of `PRECISION` digits, ties to even.
    #[inline]
    fn rounded(&self) -> Digits {
        let (mut integer, mut power, mut rest) = (self.integer, self.power, self.rest);
        if integer >= Self::LIMIT {
            rest = match (integer % 10, rest) {
                (0, Rest::None) => Rest::None,
                (0..5, _) => Rest::BelowHalf,
                (5, Rest::None) => Rest::Half,
                _ => Rest::AboveHalf,
            };
            integer /= 10;
            power += 1;
        }
        let up = match rest {
            Rest::None | Rest::BelowHalf => false,
            Rest::Half => integer % 2 == 1,
            Rest::AboveHalf => true,
        };
        Digits { integer: integer + u64::from(up), power, precision: PRECISION }
    }
}

impl Rest {
    fn of(rest: u128, half: u128) -> Self {
        match rest.cmp(&half) {
            _ if rest == 0 => Rest::None,
            std::cmp::Ordering::Less => Rest::BelowHalf,
            std::cmp::Ordering::Equal => Rest::Half,
            std::cmp::Ordering::Greater => Rest::AboveHalf,
        }
    }
}

/// `integer` times 10^`power`, to be written with `precision` significant digits.
#[derive(Clone, Copy)]
struct Digits {
    integer: u64,
    power: i32,
    precision: u32,
}

impl Digits {
    /// Six digits where those read back, else `precision`.
    #[cold]
    fn slow(magnitude: f64, precision: u32, reads_back: impl Fn(Self) -> bool) -> Self {
        let six = Self::formatted(magnitude, 6);
        if reads_back(six) { six } else { Self::formatted(magnitude, precision) }
    }

    /// Rounded to `precision` digits by the standard library.
    fn formatted(magnitude: f64, precision: u32) -> Self {
        let text = format!("{magnitude:.*e}", precision as usize - 1);
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let integer = digits.bytes().filter(u8::is_ascii_digit).fold(0, |n, d| n * 10 + u64::from(d - b'0'));
        let power = exponent.parse().unwrap_or(0) - (precision as i32 - 1);
        Self { integer, power, precision }
    }

    fn to_f64(self) -> f64 {
        let factor = TENS.get(self.power.unsigned_abs() as usize).map(|&ten| ten as f64);
        match factor {
            // Both are exact, so this rounds once.
            Some(factor) if self.integer < 1 << 53 => {
                if self.power < 0 {
                    self.integer as f64 / factor
                } else {
                    self.integer as f64 * factor
                }
            }
            _ => format!("{}e{}", self.integer, self.power).parse().unwrap_or(f64::NAN),
        }
    }

    fn reads_as_f32(self, magnitude: f32) -> bool {
        let double = self.to_f64();
        // Halfway between two binary32, the first rounding may have decided the second.
        if double.to_bits() & 0x1fff_ffff == 0x1000_0000 || magnitude.is_subnormal() {
            return format!("{}e{}", self.integer, self.power).parse() == Ok(magnitude);
        }
        double as f32 == magnitude
    }

    /// In `%g` form.
    fn write(self, negative: bool, out: &mut Vec<u8>) {
        let Self { mut integer, mut power, precision } = self;
        while integer.is_multiple_of(1000) && integer > 0 {
            integer /= 1000;
            power += 3;
        }
        while integer.is_multiple_of(10) && integer > 0 {
            integer /= 10;
            power += 1;
        }
        let mut buffer = [b'0'; 20];
        let digits = decimal(integer, &mut buffer);
        let exponent = power + digits.len() as i32 - 1;
        let mut text = Text::default();
        if negative {
            text.push(b'-');
        }
        if exponent < -4 || exponent >= precision as i32 {
            text.with_point(digits, 1);
            text.push(b'e');
            text.push(if exponent < 0 { b'-' } else { b'+' });
            let exponent = u64::from(exponent.unsigned_abs());
            if exponent < 10 {
                text.push(b'0');
            }
            let mut buffer = [b'0'; 20];
            decimal(exponent, &mut buffer).iter().for_each(|&digit| text.push(digit));
        } else if exponent < 0 {
            text.push(b'0');
            text.push(b'.');
            (1..-exponent).for_each(|_| text.push(b'0'));
            digits.iter().for_each(|&digit| text.push(digit));
        } else {
            text.with_point(digits, exponent as usize + 1);
            if power >= 0 {
                (0..power).for_each(|_| text.push(b'0'));
                text.push(b'.');
                text.push(b'0');
            }
        }
        out.extend_from_slice(text.as_bytes());
    }
}

/// The text of one number, to be appended in one piece.
#[derive(Default)]
struct Text {
    bytes: [u8; 32],
    len: usize,
}

impl Text {
    /// No number is longer than the text: 1 sign, 17 digits, 1 point, 5 for the exponent, or 4 zeros.
    #[inline(always)]
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    /// Digits with a point behind the first `whole`, if more follow.
    #[inline(always)]
    fn with_point(&mut self, digits: &[u8], whole: usize) {
        for (place, &digit) in digits.iter().enumerate() {
            if place == whole {
                self.push(b'.');
            }
            self.push(digit);
        }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The digits of `value` at the end of `buffer`.
pub(super) fn decimal(mut value: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut start = buffer.len();
    while value >= 100 {
        let [tens, ones] = pair(value % 100);
        value /= 100;
        start -= 2;
        if let Some([first, second]) = buffer.get_mut(start..).and_then(|rest| rest.first_chunk_mut::<2>()) {
            (*first, *second) = (tens, ones);
        }
    }
    let [tens, ones] = pair(value);
    for digit in [Some(ones), (value >= 10).then_some(tens)].into_iter().flatten() {
        start -= 1;
        if let Some(slot) = buffer.get_mut(start) {
            *slot = digit;
        }
    }
    buffer.get(start..).unwrap_or_default()
}

/// The two digits of a number below 100.
#[inline(always)]
fn pair(value: u64) -> [u8; 2] {
    let tens = value as u8 / 10;
    [b'0' + tens, b'0' + (value as u8 - tens * 10)]
}

const TENS: [u64; 20] = {
    let mut table = [1u64; 20];
    let mut at = 1;
    while at < table.len() {
        table[at] = table[at - 1] * 10;
        at += 1;
    }
    table
};

/// The powers of five that fit 128 bits.
static FIVES: [u128; 56] = {
    let mut table = [1u128; 56];
    let mut at = 1;
    while at < table.len() {
        table[at] = table[at - 1] * 5;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn f32_text(value: f32) -> String {
        let mut out = Vec::new();
        write_f32(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn f64_text(value: f64) -> String {
        let mut out = Vec::new();
        write_f64(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// C's `%.{precision}g`, from the standard library's exact `{:e}`.
    fn percent_g(value: f64, precision: usize) -> String {
        let scientific = format!("{value:.*e}", precision - 1);
        let (digits, exponent) = scientific.split_once('e').unwrap();
        let exponent: i32 = exponent.parse().unwrap();
        let strip = |text: &str| match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text.to_owned(),
        };
        if exponent < -4 || exponent >= precision as i32 {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{}e{sign}{:02}", strip(digits), exponent.abs())
        } else {
            strip(&format!("{value:.*}", (precision as i32 - 1 - exponent) as usize))
        }
    }

    fn expected<T: std::str::FromStr + PartialEq + Into<f64> + Copy>(value: T, long: usize) -> String {
        let mut text = percent_g(value.into(), 6);
        if text.parse().ok() != Some(value) {
            text = percent_g(value.into(), long);
        }
        if !text.contains(['.', 'e']) {
            text += ".0";
        }
        text
    }

    /// Recorded from TensorFlow Serving.
    #[test]
    fn recorded_f32() {
        for text in [
            "0.1",
            "0.333333343",
            "1234567.0",
            "123456792.0",
            "1e+06",
            "9e+06",
            "100000.0",
            "1e-05",
            "3e-05",
            "0.0001",
            "3.40282347e+38",
            "1.43577434e+09",
            "99999.9531",
            "-0.0",
            "1e-07",
            "123456.0",
            "12345678.0",
            "16777216.0",
            "1e+10",
            "1e+15",
            "1e+17",
            "1.17549435e-38",
            "999999.5",
            "3.14159274",
            "1.5e+06",
            "0.123456702",
            "-2.5",
            "0.0",
        ] {
            assert_eq!(f32_text(text.parse().unwrap()), text);
        }
        assert_eq!(f32_text(f32::NAN), "NaN");
        assert_eq!(f32_text(f32::NEG_INFINITY), "-Infinity");
        for text in ["0.33333333333333331", "3.1415926535897931", "123456789.0", "1.7976931348623157e+308"] {
            assert_eq!(f64_text(text.parse().unwrap()), text);
        }
    }

    #[test]
    fn ties_go_to_even() {
        assert_eq!(f32_text(1_234_567.125), "1234567.12");
        assert_eq!(f32_text(1_234_567.375), "1234567.38");
    }

    #[test]
    fn every_power_of_two() {
        for bits in (0..255u32).flat_map(|e| [e << 23, e << 23 | 1, (e << 23).wrapping_sub(1) & 0x7fff_ffff])
        {
            let value = f32::from_bits(bits);
            if value.is_finite() && value != 0.0 {
                assert_eq!(f32_text(value), expected(value, 9), "{bits:#x}");
            }
        }
        for e in 0..2047u64 {
            for bits in [e << 52, e << 52 | 1, ((e + 1) << 52) - 1] {
                let value = f64::from_bits(bits);
                if value.is_finite() && value != 0.0 {
                    assert_eq!(f64_text(value), expected(value, 17), "{bits:#x}");
                }
            }
        }
    }

    /// Every decimal of six digits in the range where binary32 is normal reads back as itself.
    #[test]
    fn six_digit_decimals() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..200_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (digits, exponent) = (random >> 40 & 0xf_ffff, (random >> 32 & 0x3f) as i32 - 36);
            let value: f32 = format!("{digits}e{exponent}").parse().unwrap();
            if value != 0.0 {
                assert_eq!(f32_text(value), expected(value, 9), "{digits}e{exponent}");
            }
            let value: f32 = f32::from_bits((random >> 32) as u32 & 0x7fff_ffff);
            if value.is_finite() && value != 0.0 {
                assert_eq!(f32_text(-value), expected(-value, 9));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn any_f64(bits: u64, digits in 0u32..10_000_000, exponent in -30i32..30) {
            for value in [f64::from_bits(bits), format!("{digits}e{exponent}").parse().unwrap()] {
                if value.is_finite() && value != 0.0 {
                    prop_assert_eq!(f64_text(value), expected(value, 17));
                }
            }
        }
    }
}
