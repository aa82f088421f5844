//! AVX-512 F, BW, VL and DQ: sixteen lanes, thirty-two registers, masks. Servers since 2017, desktops since Zen 4.

use super::{Coding, Isa};
use core::arch::x86_64::*;

/// The token: AVX-512 F, BW, VL and DQ were detected.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// The mask of the first `count` lanes.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    debug_assert!(count <= 16);
    ((1u32 << count.min(16)) - 1) as __mmask16
}

/// Numbers whose distance from 0 is below 2^16, and so beyond what bytes hold where it was larger; NaN is the lower bound.
#[inline(always)]
fn beyond_bytes(value: __m512) -> __m512 {
    // SAFETY: computes in registers; called by methods of the token.
    unsafe {
        let value = _mm512_max_ps(value, _mm512_set1_ps(-65536.0));
        _mm512_min_ps(value, _mm512_set1_ps(65536.0))
    }
}

/// Whole numbers; beyond i32 the conversion has one answer for both ends.
#[inline(always)]
fn rounded(value: __m512, coding: &Coding) -> __m512i {
    let value = if coding.small { value } else { beyond_bytes(value) };
    // SAFETY: computes in registers; called by methods of the token.
    unsafe { _mm512_cvtps_epi32(value) }
}

/// Four vectors of whole numbers as coded bytes, in the order of quarters, then vectors. Packing saturates.
#[inline(always)]
fn packed(whole: [__m512i; 4], coding: &Coding) -> __m512i {
    // SAFETY: computes in registers; called by methods of the token.
    unsafe {
        let zero = _mm512_set1_epi16(coding.zero as i16);
        let low = _mm512_adds_epi16(_mm512_packs_epi32(whole[0], whole[1]), zero);
        let high = _mm512_adds_epi16(_mm512_packs_epi32(whole[2], whole[3]), zero);
        let bytes = _mm512_packus_epi16(low, high);
        if coding.whole {
            return bytes;
        }
        let bytes = _mm512_max_epu8(bytes, _mm512_set1_epi8(coding.least as i8));
        let bytes = _mm512_min_epu8(bytes, _mm512_set1_epi8(coding.greatest as i8));
        _mm512_xor_si512(bytes, _mm512_set1_epi8(coding.flip as i8))
    }
}

// SAFETY: a token is made only after detection (`table`); every method is the intrinsic of its meaning.
unsafe impl Isa for Avx512 {
    type F32 = __m512;
    type I32 = __m512i;
    type Mask = __mmask16;
    const LANES: usize = 16;
    const TILE_ROWS: [usize; 4] = [8, 8, 6, 6];
    const TILE_VECTORS: usize = 4;
    const MASKS: bool = true;
    const STREAMS: bool = true;
    const SEGMENT: usize = 4;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Avx512(())
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: the caller vouches for sixteen floats.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m512) {
        // SAFETY: the caller vouches for sixteen floats.
        unsafe { _mm512_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, from: *const f32, count: usize) -> __m512 {
        // SAFETY: lanes above `count` are masked off and not read.
        unsafe { _mm512_maskz_loadu_ps(first(count), from) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, value: __m512, count: usize) {
        // SAFETY: lanes above `count` are masked off and not written.
        unsafe { _mm512_mask_storeu_ps(to, first(count), value) }
    }
    #[inline(always)]
    unsafe fn load_bytes(self, from: *const u8, count: usize) -> __m512i {
        // SAFETY: lanes above `count` are masked off and not read.
        unsafe { _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first(count), from.cast())) }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8, value: __m512i, count: usize) {
        // SAFETY: lanes above `count` are masked off and not written.
        unsafe { _mm_mask_storeu_epi8(to.cast(), first(count), _mm512_cvtepi32_epi8(value)) }
    }
    #[inline(always)]
    unsafe fn store_coded<const V: usize>(
        self,
        to: *mut u8,
        values: [__m512; V],
        coding: &Coding,
        count: usize,
    ) {
        // SAFETY: `count` bytes, as the caller vouches; all else happens in registers.
        unsafe {
            let mut whole = [_mm512_setzero_si512(); 4];
            for vector in 0..V {
                whole[vector] = rounded(values[vector], coding);
            }
            if V == 1 {
                let byte = _mm512_add_epi32(whole[0], _mm512_set1_epi32(coding.zero));
                let byte = _mm512_max_epi32(byte, _mm512_set1_epi32(i32::from(coding.least)));
                let byte = _mm512_min_epi32(byte, _mm512_set1_epi32(i32::from(coding.greatest)));
                let byte = _mm512_xor_si512(byte, _mm512_set1_epi32(coding.flip));
                return _mm_mask_storeu_epi8(to.cast(), first(count), _mm512_cvtepi32_epi8(byte));
            }
            // Packing works within quarters: bytes lie in the order of quarters, then vectors.
            let bytes = packed(whole, coding);
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let bytes = _mm512_permutexvar_epi32(order, bytes);
            if count == 64 {
                return _mm512_storeu_si512(to.cast(), bytes);
            }
            _mm512_mask_storeu_epi8(to.cast(), (1u64 << count) - 1, bytes);
        }
    }
    #[inline(always)]
    unsafe fn load_columns(self, rows: [*const u8; 3]) -> [__m512i; 4] {
        // SAFETY: 64 bytes of each row, as the caller vouches; all else happens in registers.
        unsafe {
            let [a, b, c] = [
                _mm512_loadu_si512(rows[0].cast()),
                _mm512_loadu_si512(rows[1].cast()),
                _mm512_loadu_si512(rows[2].cast()),
            ];
            let none = _mm512_setzero_si512();
            let (low, high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
            let (low_c, high_c) = (_mm512_unpacklo_epi8(c, none), _mm512_unpackhi_epi8(c, none));
            [
                _mm512_unpacklo_epi16(low, low_c),
                _mm512_unpackhi_epi16(low, low_c),
                _mm512_unpacklo_epi16(high, high_c),
                _mm512_unpackhi_epi16(high, high_c),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store_columns(self, to: *mut u8, values: [__m512; 4], coding: &Coding) {
        let mut whole = [self.splat_int(0); 4];
        for vector in 0..4 {
            whole[vector] = rounded(values[vector], coding);
        }
        // SAFETY: 64 bytes, as the caller vouches.
        unsafe { _mm512_storeu_si512(to.cast(), packed(whole, coding)) }
    }
    #[inline(always)]
    fn dot<const FAST: bool>(self, sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token is proof of the instruction set, and `FAST` of VNNI.
        unsafe {
            if FAST {
                return _mm512_dpbusd_epi32(sum, a, b);
            }
            // Even and odd bytes as 16-bit numbers: sums of two products fit, unlike those of bytes in 16 bits.
            let even_a = _mm512_and_si512(a, _mm512_set1_epi32(0x00ff_00ff));
            let odd_a = _mm512_srli_epi16::<8>(a);
            let even_b = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(b));
            let odd_b = _mm512_srai_epi16::<8>(b);
            let sum = _mm512_add_epi32(sum, _mm512_madd_epi16(even_a, even_b));
            _mm512_add_epi32(sum, _mm512_madd_epi16(odd_a, odd_b))
        }
    }
    #[inline(always)]
    unsafe fn turn_square(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for row in [0, 8] {
            for column in [0, 8] {
                // SAFETY: a quarter of the square that the caller vouches for; AVX is there as a token is.
                unsafe {
                    let from = from.add(row * from_stride + column);
                    super::avx2::turn_eight(from, from_stride, to.add(column * to_stride + row), to_stride);
                }
            }
        }
    }
    #[inline(always)]
    fn reduce_add_four(self, [a, b, c, d]: [__m512; 4]) -> [f32; 4] {
        // SAFETY: the token is proof of the instruction set; a vector of four lanes is four floats.
        unsafe {
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
            // In every quarter a part of each of the four sums.
            let (low, high) = (_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd));
            let quarters = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
            let upper = _mm512_extractf32x8_ps::<1>(quarters);
            let halves = _mm256_add_ps(_mm512_castps512_ps256(quarters), upper);
            let sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
            core::mem::transmute(sums)
        }
    }
    #[inline(always)]
    fn quotient(self, a: __m512, b: __m512) -> __m512 {
        // A division of sixteen lanes takes sixteen cycles; this takes five instructions.
        // SAFETY: the token is proof of the instruction set.
        unsafe {
            let guess = _mm512_rcp14_ps(b);
            let miss = _mm512_fnmadd_ps(b, guess, _mm512_set1_ps(1.0));
            let inverse = _mm512_fmadd_ps(miss, guess, guess);
            _mm512_mul_ps(a, inverse)
        }
    }
    #[inline(always)]
    fn shift_left<const N: i32>(self, a: __m512i) -> __m512i {
        // SAFETY: the token is proof of the instruction set; the count is below 32.
        unsafe { _mm512_sllv_epi32(a, _mm512_set1_epi32(N)) }
    }
    #[inline(always)]
    fn shift_right<const N: i32>(self, a: __m512i) -> __m512i {
        // SAFETY: the token is proof of the instruction set; the count is below 32.
        unsafe { _mm512_srav_epi32(a, _mm512_set1_epi32(N)) }
    }
    intrinsics! {
        splat(value: f32) -> __m512 = _mm512_set1_ps(value);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        mul_add(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        sqrt(a: __m512) -> __m512 = _mm512_sqrt_ps(a);
        floor(a: __m512) -> __m512 = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(a);
        round(a: __m512) -> __m512 =
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        less(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b);
        less_equal(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b);
        equal(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b);
        select(mask: __mmask16, yes: __m512, no: __m512) -> __m512 = _mm512_mask_blend_ps(mask, no, yes);
        splat_int(value: i32) -> __m512i = _mm512_set1_epi32(value);
        to_bits(a: __m512) -> __m512i = _mm512_castps_si512(a);
        bits_to_float(a: __m512i) -> __m512 = _mm512_castsi512_ps(a);
        to_int(a: __m512) -> __m512i = _mm512_cvtps_epi32(a);
        int_to_float(a: __m512i) -> __m512 = _mm512_cvtepi32_ps(a);
        add_int(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        sub_int(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
        mul_int(a: __m512i, b: __m512i) -> __m512i = _mm512_mullo_epi32(a, b);
        permute(a: __m512, lanes: __m512i) -> __m512 = _mm512_permutexvar_ps(lanes, a);
        reduce_max(a: __m512) -> f32 = _mm512_reduce_max_ps(a);
        reduce_add(a: __m512) -> f32 = _mm512_reduce_add_ps(a);
        and(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        or(a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
        xor(a: __m512i, b: __m512i) -> __m512i = _mm512_xor_si512(a, b);
    }
}
