//! The digits that RapidJSON 1.1 prints for a double: Grisu2 (F. Loitsch, "Printing Floating-Point
//! Numbers Quickly and Accurately with Integers", 2010). They always read back, but are not always
//! the nearest or fewest; error messages that show a double show these.

/// The decimal digits of a positive finite `value`, and the power of ten of the last one.
pub(super) fn digits(value: f64) -> (Vec<u8>, i32) {
    let bits = value.to_bits();
    let (field, fraction) = (bits >> 52 & 0x7ff, bits & 0xf_ffff_ffff_ffff);
    let exact = match field {
        0 => Scaled { significand: fraction, exponent: -1074 },
        _ => Scaled { significand: fraction | 1 << 52, exponent: field as i32 - 1075 },
    };
    let upper = Scaled { significand: exact.significand * 2 + 1, exponent: exact.exponent - 1 }.normalized();
    // Below a power of two the neighbour is only half as far.
    let lower = if exact.significand == 1 << 52 {
        Scaled { significand: exact.significand * 4 - 1, exponent: exact.exponent - 2 }
    } else {
        Scaled { significand: exact.significand * 2 - 1, exponent: exact.exponent - 1 }
    };
    let lower = lower.significand << (lower.exponent - upper.exponent);
    let (power_of_ten, power) = power_for(upper.exponent);
    let high = upper.times(power);
    let high = Scaled { significand: high.significand - 1, ..high };
    let low = Scaled { significand: lower, ..upper }.times(power).significand + 1;
    let middle = exact.normalized().times(power).significand;
    let (digits, dropped) = generate(high, high.significand - low, high.significand.wrapping_sub(middle));
    (digits, dropped - power_of_ten)
}

/// `significand` * 2^`exponent`.
#[derive(Clone, Copy)]
struct Scaled {
    significand: u64,
    exponent: i32,
}

impl Scaled {
    fn normalized(self) -> Self {
        let shift = self.significand.leading_zeros();
        Self { significand: self.significand << shift, exponent: self.exponent - shift as i32 }
    }

    fn times(self, other: Self) -> Self {
        let product = u128::from(self.significand) * u128::from(other.significand) + (1 << 63);
        Self { significand: (product >> 64) as u64, exponent: self.exponent + other.exponent + 64 }
    }
}

/// The power of ten that brings an exponent into -60..=-32, and that power.
fn power_for(exponent: i32) -> (i32, Scaled) {
    let wanted = (f64::from(-61 - exponent) * std::f64::consts::LOG10_2 + 347.0).ceil() as i32;
    let index = (wanted >> 3) + 1;
    let power_of_ten = index * 8 - 348;
    let significand = usize::try_from(index).ok().and_then(|at| POWERS.get(at)).copied().unwrap_or(1 << 63);
    (power_of_ten, Scaled { significand, exponent: ((power_of_ten * 217_706) >> 16) - 63 })
}

/// The fewest digits of `high` that leave less than `delta`, moved towards the value, which lies
/// `distance` below; with the power of ten of the last digit.
fn generate(high: Scaled, mut delta: u64, mut distance: u64) -> (Vec<u8>, i32) {
    let shift = -high.exponent as u32;
    let one = 1u64 << shift;
    let mut digits = Vec::with_capacity(20);
    let mut whole = high.significand >> shift;
    let mut fraction = high.significand & (one - 1);
    let mut place = whole.checked_ilog10().map_or(0, |log| log as i32 + 1);
    while place > 0 {
        place -= 1;
        let ten = 10u64.pow(place as u32);
        digits.push(b'0' + (whole / ten) as u8);
        whole %= ten;
        let rest = (whole << shift) + fraction;
        if rest <= delta {
            approach(&mut digits, delta, rest, ten << shift, distance);
            return (digits, place);
        }
    }
    loop {
        fraction = fraction.wrapping_mul(10);
        delta = delta.wrapping_mul(10);
        // From the ninth place on RapidJSON 1.1 takes the distance for zero and moves no more.
        distance = if place > -8 { distance.wrapping_mul(10) } else { 0 };
        let digit = (fraction >> shift) as u8;
        if digit > 0 || !digits.is_empty() {
            digits.push(b'0' + digit);
        }
        fraction &= one - 1;
        place -= 1;
        if fraction < delta {
            approach(&mut digits, delta, fraction, one, distance);
            return (digits, place);
        }
    }
}

fn approach(digits: &mut [u8], delta: u64, mut rest: u64, unit: u64, distance: u64) {
    let Some(last) = digits.last_mut() else { return };
    while rest < distance
        && delta - rest >= unit
        && (rest + unit < distance || distance - rest > rest + unit - distance)
    {
        *last -= 1;
        rest += unit;
    }
}

/// Significands of 10^-348, 10^-340 .. 10^340, rounded to 64 bits.
#[rustfmt::skip]
static POWERS: [u64; 87] = [
    0xfa8f_d5a0_081c_0288, 0xbaae_e17f_a23e_bf76, 0x8b16_fb20_3055_ac76, 0xcf42_894a_5dce_35ea,
    0x9a6b_b0aa_5565_3b2d, 0xe61a_cf03_3d1a_45df, 0xab70_fe17_c79a_c6ca, 0xff77_b1fc_bebc_dc4f,
    0xbe56_91ef_416b_d60c, 0x8dd0_1fad_907f_fc3c, 0xd351_5c28_3155_9a83, 0x9d71_ac8f_ada6_c9b5,
    0xea9c_2277_23ee_8bcb, 0xaecc_4991_4078_536d, 0x823c_1279_5db6_ce57, 0xc210_9436_4dfb_5637,
    0x9096_ea6f_3848_984f, 0xd774_85cb_2582_3ac7, 0xa086_cfcd_97bf_97f4, 0xef34_0a98_172a_ace5,
    0xb238_67fb_2a35_b28e, 0x84c8_d4df_d2c6_3f3b, 0xc5dd_4427_1ad3_cdba, 0x936b_9fce_bb25_c996,
    0xdbac_6c24_7d62_a584, 0xa3ab_6658_0d5f_daf6, 0xf3e2_f893_dec3_f126, 0xb5b5_ada8_aaff_80b8,
    0x8762_5f05_6c7c_4a8b, 0xc9bc_ff60_34c1_3053, 0x964e_858c_91ba_2655, 0xdff9_7724_7029_7ebd,
    0xa6df_bd9f_b8e5_b88f, 0xf8a9_5fcf_8874_7d94, 0xb944_7093_8fa8_9bcf, 0x8a08_f0f8_bf0f_156b,
    0xcdb0_2555_6531_31b6, 0x993f_e2c6_d07b_7fac, 0xe45c_10c4_2a2b_3b06, 0xaa24_2499_6973_92d3,
    0xfd87_b5f2_8300_ca0e, 0xbce5_0864_9211_1aeb, 0x8cbc_cc09_6f50_88cc, 0xd1b7_1758_e219_652c,
    0x9c40_0000_0000_0000, 0xe8d4_a510_0000_0000, 0xad78_ebc5_ac62_0000, 0x813f_3978_f894_0984,
    0xc097_ce7b_c907_15b3, 0x8f7e_32ce_7bea_5c70, 0xd5d2_38a4_abe9_8068, 0x9f4f_2726_179a_2245,
    0xed63_a231_d4c4_fb27, 0xb0de_6538_8cc8_ada8, 0x83c7_088e_1aab_65db, 0xc45d_1df9_4271_1d9a,
    0x924d_692c_a61b_e758, 0xda01_ee64_1a70_8dea, 0xa26d_a399_9aef_774a, 0xf209_787b_b47d_6b85,
    0xb454_e4a1_79dd_1877, 0x865b_8692_5b9b_c5c2, 0xc835_53c5_c896_5d3d, 0x952a_b45c_fa97_a0b3,
    0xde46_9fbd_99a0_5fe3, 0xa59b_c234_db39_8c25, 0xf6c6_9a72_a398_9f5c, 0xb7dc_bf53_54e9_bece,
    0x88fc_f317_f222_41e2, 0xcc20_ce9b_d35c_78a5, 0x9816_5af3_7b21_53df, 0xe2a0_b5dc_971f_303a,
    0xa8d9_d153_5ce3_b396, 0xfb9b_7cd9_a4a7_443c, 0xbb76_4c4c_a7a4_4410, 0x8bab_8eef_b640_9c1a,
    0xd01f_ef10_a657_842c, 0x9b10_a4e5_e991_3129, 0xe710_9bfb_a19c_0c9d, 0xac28_20d9_623b_f429,
    0x8044_4b5e_7aa7_cf85, 0xbf21_e440_03ac_dd2d, 0x8e67_9c2f_5e44_ff8f, 0xd433_179d_9c8c_b841,
    0x9e19_db92_b4e3_1ba9, 0xeb96_bf6e_badf_77d9, 0xaf87_023b_9bf0_ee6b,
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: f64) -> String {
        let (digits, power) = digits(value);
        format!("{}e{power}", String::from_utf8(digits).unwrap())
    }

    #[test]
    fn as_rapid_json() {
        // Recorded from TensorFlow Serving: neither nearest nor rounded.
        assert_eq!(text(18446744073709551616.0), "18446744073709553e3");
        assert_eq!(text(1.5), "15e-1");
        assert_eq!(text(0.1), "1e-1");
        assert_eq!(text(1e22), "1e22");
        assert_eq!(text(5e-324), "5e-324");
    }

    proptest! {
        #[test]
        fn digits_read_back(bits: u64) {
            let value = f64::from_bits(bits).abs();
            prop_assume!(value.is_finite() && value > 0.0);
            prop_assert_eq!(text(value).parse::<f64>().unwrap(), value);
        }
    }
}
