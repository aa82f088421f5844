//! Floating-point numbers as TensorFlow Serving prints them: six significant digits when they read
//! back as the same value, else 9 (binary32) or 17 (binary64), in C's `%g` form; `.0` is added to
//! what would look like an integer.
//!
//! Digits come from exact integer arithmetic: significand times a power of five, shifted. Values
//! whose product does not fit 128 bits take the standard library's (exact, slower) formatting.

/// Appends a finite or non-finite binary32.
pub(super) fn write_f32(value: f32, out: &mut Vec<u8>) {
    const DIGITS: u32 = 9;
    let bits = value.to_bits();
    let (exponent, fraction) = (bits >> 23 & 0xff, bits & 0x7f_ffff);
    if exponent == 0xff || value == 0.0 {
        return write_special(f64::from(value), out);
    }
    let exact = match exponent {
        0 => None,
        _ => Digits::exact(u64::from(fraction | 1 << 23), exponent as i32 - 150, DIGITS),
    };
    let digits = match exact {
        // Half the distance between two neighbours is at most 2^-24 of the value.
        Some(exact) => match exact.six(DIGITS) {
            Some((six, error)) if error <= exact.integer >> 23 && six.reads_as_f32(value.abs()) => six,
            _ => exact.rounded(DIGITS),
        },
        None => Digits::slow(value.abs().into(), DIGITS, |six| six.reads_as_f32(value.abs())),
    };
    digits.write(value.is_sign_negative(), out);
}

/// Appends a finite or non-finite binary64.
pub(super) fn write_f64(value: f64, out: &mut Vec<u8>) {
    const DIGITS: u32 = 17;
    let bits = value.to_bits();
    let (exponent, fraction) = (bits >> 52 & 0x7ff, bits & 0xf_ffff_ffff_ffff);
    if exponent == 0x7ff || value == 0.0 {
        return write_special(value, out);
    }
    let exact = match exponent {
        0 => None,
        _ => Digits::exact(fraction | 1 << 52, exponent as i32 - 1075, DIGITS),
    };
    let digits = match exact {
        Some(exact) => match exact.six(DIGITS) {
            Some((six, error)) if error <= exact.integer >> 50 && six.to_f64() == value.abs() => six,
            _ => exact.rounded(DIGITS),
        },
        None => Digits::slow(value.abs(), DIGITS, |six| six.to_f64() == value.abs()),
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
        zero if zero == 0.0 && zero.is_sign_negative() => b"-0.0",
        zero if zero == 0.0 => b"0.0",
        infinity if infinity == f64::INFINITY => b"Infinity",
        infinity if infinity == f64::NEG_INFINITY => b"-Infinity",
        _ => b"NaN",
    });
}

/// `integer` times 10^`power`, and a non-zero part below the integer where `more` says so.
#[derive(Clone, Copy)]
struct Digits {
    integer: u64,
    power: i32,
    more: Part,
    /// The number of digits that `%g` counts with.
    precision: u32,
}

/// The part of a value below its last digit, against half a unit of that digit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    None,
    BelowHalf,
    Half,
    AboveHalf,
}

impl Digits {
    /// At least `precision` digits, at most one more, of `significand` * 2^`exponent`; `None` where
    /// 128 bits do not suffice.
    fn exact(significand: u64, exponent: i32, precision: u32) -> Option<Self> {
        // floor(log10) of the value, or one less: 1233 / 4096 is just below log10(2).
        let top = exponent + 63 - significand.leading_zeros() as i32;
        let estimate = if top >= 0 { top * 1233 >> 12 } else { (top * 1234 >> 12) - 1 };
        let power = estimate - (precision as i32 - 1);
        let (integer, more) = if power <= 0 {
            let five = *FIVES.get(power.unsigned_abs() as usize)?;
            let product = five.checked_mul(u128::from(significand))?;
            match exponent - power {
                up @ 0.. => (product.checked_shl(up as u32).filter(|p| p >> up == product)?, Part::None),
                down @ -127.. => (product >> -down, Part::of(product << (128 + down), 1 << 127)),
                _ => return None,
            }
        } else {
            let five = *FIVES.get(power as usize)?;
            let up = u32::try_from(exponent - power).ok()?;
            let shifted =
                u128::from(significand).checked_shl(up).filter(|p| p >> up == significand.into())?;
            let rest = shifted % five;
            (shifted / five, if rest == 0 { Part::None } else { Part::of(rest * 2, five) })
        };
        Some(Self { integer: u64::try_from(integer).ok()?, power, more, precision })
    }

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
        Self { integer, power, more: Part::None, precision }
    }

    /// Rounded to `precision` digits, ties to even.
    fn rounded(self, precision: u32) -> Self {
        let limit = TENS.get(precision as usize).copied().unwrap_or(u64::MAX);
        let mut digits = Self { precision, ..self };
        while digits.integer >= limit {
            let last = digits.integer % 10;
            digits.more = match (last, digits.more) {
                (0, Part::None) => Part::None,
                (0..5, _) => Part::BelowHalf,
                (5, Part::None) => Part::Half,
                _ => Part::AboveHalf,
            };
            digits.integer /= 10;
            digits.power += 1;
        }
        let up = match digits.more {
            Part::None | Part::BelowHalf => false,
            Part::Half => digits.integer % 2 == 1,
            Part::AboveHalf => true,
        };
        digits.integer += u64::from(up);
        digits.more = Part::None;
        if digits.integer == limit {
            digits.integer /= 10;
            digits.power += 1;
        }
        digits
    }

    /// The nearest number of six digits and, in units of `integer`, how far off it is.
    fn six(self, precision: u32) -> Option<(Self, u64)> {
        let limit = *TENS.get(precision as usize)?;
        let dropped = precision - 6 + u32::from(self.integer >= limit);
        let unit = *TENS.get(dropped as usize)?;
        let rest = self.integer % unit;
        let (integer, error) = if rest * 2 < unit {
            (self.integer / unit, rest)
        } else {
            (self.integer / unit + 1, unit - rest)
        };
        let six = Self { integer, power: self.power + dropped as i32, more: Part::None, precision: 6 };
        Some((six.rounded(6), error))
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

    /// In `%g` form for `precision` digits.
    fn write(self, negative: bool, out: &mut Vec<u8>) {
        let Self { mut integer, mut power, precision, .. } = self;
        while integer.is_multiple_of(10) && integer > 0 {
            integer /= 10;
            power += 1;
        }
        let mut buffer = [b'0'; 20];
        let digits = decimal(integer, &mut buffer);
        let exponent = power + digits.len() as i32 - 1;
        if negative {
            out.push(b'-');
        }
        if exponent < -4 || exponent >= precision as i32 {
            let (first, rest) = digits.split_at(1);
            out.extend_from_slice(first);
            if !rest.is_empty() {
                out.push(b'.');
                out.extend_from_slice(rest);
            }
            out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
            let mut buffer = [b'0'; 20];
            let exponent = u64::from(exponent.unsigned_abs());
            if exponent < 10 {
                out.push(b'0');
            }
            out.extend_from_slice(decimal(exponent, &mut buffer));
        } else if exponent < 0 {
            out.extend_from_slice(b"0.");
            zeros(-exponent - 1, out);
            out.extend_from_slice(digits);
        } else if let Some((whole, fraction)) =
            digits.split_at_checked(exponent as usize + 1).filter(|(_, fraction)| !fraction.is_empty())
        {
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(fraction);
        } else {
            out.extend_from_slice(digits);
            zeros(power, out);
            out.extend_from_slice(b".0");
        }
    }
}

impl Part {
    fn of(rest: u128, half: u128) -> Self {
        match rest.cmp(&half) {
            _ if rest == 0 => Part::None,
            std::cmp::Ordering::Less => Part::BelowHalf,
            std::cmp::Ordering::Equal => Part::Half,
            std::cmp::Ordering::Greater => Part::AboveHalf,
        }
    }
}

fn zeros(count: i32, out: &mut Vec<u8>) {
    out.resize(out.len() + usize::try_from(count).unwrap_or(0), b'0');
}

/// The digits of `value` at the end of `buffer`.
pub(super) fn decimal(mut value: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut start = buffer.len();
    while let Some(slot) = start.checked_sub(1).and_then(|at| buffer.get_mut(at)) {
        *slot = b'0' + (value % 10) as u8;
        value /= 10;
        start -= 1;
        if value == 0 {
            break;
        }
    }
    buffer.get(start..).unwrap_or_default()
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
