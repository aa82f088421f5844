//! Numbers in the forms that nearly all have: a few instructions each, whose results stay in registers.
//!
//! All of such a number, and the byte behind it, lies within one look of [`LOOK`] bytes: an integer of at most seven
//! digits, or a decimal without an exponent. Anything else, well formed or not, is left to the
//! longer way of [`super::number`].

use super::number::{TENS, eight_digits, sixteen, up_to_sixteen};

/// How many bytes are looked at.
const LOOK: usize = 32;

/// A number of at most 19 digits without an exponent.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Plain {
    pub(super) negative: bool,
    /// All digits as one integer.
    pub(super) significand: u64,
    /// How many digits there are.
    pub(super) digits: u32,
    /// How many of them are behind the point; none is an integer.
    pub(super) fraction_digits: u32,
}

impl Plain {
    /// The number at `at`, and the offset behind it.
    #[inline(always)]
    pub(super) fn read(text: &[u8], at: usize) -> Option<(Self, usize)> {
        let look: &[u8; LOOK] = text.get(at..)?.first_chunk()?;
        // The sign is no branch: it cannot be foreseen.
        let negative = look[0] == b'-';
        let whole = usize::from(negative);
        let rest = look[whole..].first_chunk()?;
        let plain = if rest[1] == b'.' { Self::after_one_digit(rest) } else { Self::whole_first(rest) }?;
        let length = plain.digits as usize + usize::from(plain.fraction_digits > 0);
        Some((Self { negative, ..plain }, at + whole + length))
    }

    /// One digit, a point, up to 18 digits. All of it is seen at once, so nothing waits for where a part ends.
    #[inline(always)]
    fn after_one_digit(look: &[u8; LOOK - 1]) -> Option<Self> {
        let digit = look[0].wrapping_sub(b'0');
        let rest: &[u8; 24] = look[2..].first_chunk()?;
        let (values, count) = sixteen(rest.first_chunk()?);
        if digit > 9 || count == 0 {
            return None;
        }
        let mut significand = u64::from(digit) * TENS[count as usize] + up_to_sixteen(values, count);
        let mut fraction_digits = count;
        if count == 16 {
            let (values, more) = eight(rest.last_chunk()?);
            if more > 2 {
                return None;
            }
            // No branch for none: whether there are more than sixteen cannot be foreseen.
            significand = significand * TENS[more as usize] + eight_digits((values << 8) << (56 - 8 * more));
            fraction_digits += more;
        }
        if rest[fraction_digits as usize] | 0x20 == b'e' {
            return None;
        }
        Some(Self { negative: false, significand, digits: 1 + fraction_digits, fraction_digits })
    }

    /// One to seven digits, and perhaps a point and up to twelve more.
    #[inline(always)]
    fn whole_first(look: &[u8; LOOK - 1]) -> Option<Self> {
        let (values, digits) = eight(look.first_chunk()?);
        // None or too many; or a leading zero.
        if digits.wrapping_sub(1) > 6 || (look[0] == b'0' && digits > 1) {
            return None;
        }
        let whole = eight_digits(values << (64 - 8 * digits));
        let behind = digits as usize;
        if look[behind] == b'.' {
            let rest: &[u8; 16] = look[behind + 1..].first_chunk()?;
            let (values, count) = sixteen(rest);
            if count.wrapping_sub(1) > 11 || rest[count as usize] | 0x20 == b'e' {
                return None;
            }
            let significand = whole * TENS[count as usize] + up_to_sixteen(values, count);
            return Some(Self {
                negative: false,
                significand,
                digits: digits + count,
                fraction_digits: count,
            });
        }
        (look[behind] | 0x20 != b'e').then_some(Self {
            negative: false,
            significand: whole,
            digits,
            fraction_digits: 0,
        })
    }

    /// The number of so many bytes, an integer of up to eight digits or a decimal of up to seven. How it is separated
    /// from what follows was checked.
    #[inline(always)]
    pub(super) fn read_short(look: &[u8; 16], length: u32) -> Option<Self> {
        let negative = look[0] == b'-';
        let whole = usize::from(negative);
        let length = length.wrapping_sub(u32::from(negative));
        if length.wrapping_sub(1) > 7 {
            return None;
        }
        if look[whole + 1] == b'.' {
            // The most frequent decimals, in fewer steps than the others take.
            let fraction_digits = length.wrapping_sub(2);
            let digit = look[whole].wrapping_sub(b'0');
            if digit > 9 || fraction_digits.wrapping_sub(1) > 5 {
                return None;
            }
            let values = digit_values(look[whole + 2..].first_chunk()?) << (64 - 8 * fraction_digits);
            let significand = u64::from(digit) * TENS[fraction_digits as usize] + eight_digits(values);
            let plain = Self { negative, significand, digits: length - 1, fraction_digits };
            return (others(values) == 0).then_some(plain);
        }
        // The last digit in the highest byte; below the first there are zeros.
        let values = digit_values(look[whole..].first_chunk()?) << (64 - 8 * length);
        let rest = others(values);
        if rest == 0 {
            let significand = eight_digits(values);
            return (look[whole] != b'0' || length == 1).then_some(Self {
                negative,
                significand,
                digits: length,
                fraction_digits: 0,
            });
        }
        // The byte that is no digit has to be the point; what is before it moves up to its place.
        let shift = rest.trailing_zeros() & !7;
        let before = !(u64::MAX << shift);
        let fraction_digits = 7 - shift / 8;
        let whole_digits = (length - 1).wrapping_sub(fraction_digits);
        let digits = (values & before) << 8 | values & (u64::MAX << shift << 8);
        if (values >> shift) as u8 != b'.' ^ b'0'
            || fraction_digits == 0
            || whole_digits.wrapping_sub(1) > 6
            || (look[whole] == b'0' && whole_digits > 1)
            || others(digits) != 0
        {
            return None;
        }
        Some(Self { negative, significand: eight_digits(digits), digits: length - 1, fraction_digits })
    }

    /// An integer with its sign.
    #[inline(always)]
    pub(super) fn integer(&self) -> Option<i64> {
        let magnitude = self.significand as i64;
        (self.fraction_digits == 0).then_some(if self.negative { -magnitude } else { magnitude })
    }
}

/// Eight bytes as digit values, the first in the lowest byte, and how many of them are digits before the first that is
/// none.
#[inline(always)]
pub(super) fn eight(chunk: &[u8; 8]) -> (u64, u32) {
    let values = digit_values(chunk);
    (values, others(values).trailing_zeros() / 8)
}

#[inline(always)]
fn digit_values(chunk: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*chunk) ^ 0x3030_3030_3030_3030
}

/// The high bits of the values that are no digits; they are only right up to the first of these.
#[inline(always)]
fn others(values: u64) -> u64 {
    // The high bit of a byte is set when it is above 9; carries only touch bytes behind such.
    (values.wrapping_add(0x7676_7676_7676_7676) | values) & 0x8080_8080_8080_8080
}
