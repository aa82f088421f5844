//! AVX2 with FMA: eight lanes, sixteen registers. Every x86-64 server and laptop since 2013 (Haswell, Zen).

use super::{Coding, Isa};
use core::arch::x86_64::*;

/// The token: AVX2 and FMA were detected.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// `MASKS[8 - n..][..8]` has its first `n` lanes set.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// The mask of the first `count` lanes.
#[inline(always)]
fn first(count: usize) -> __m256i {
    debug_assert!(count <= 8);
    // SAFETY: 8 - count..16 - count lies within the sixteen integers; AVX is there as a token is.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - count.min(8)).cast()) }
}

/// Turns a square of eight by eight floats.
///
/// # Safety
/// As [`Isa::turn_square`] for eight lanes; the CPU must have AVX.
#[inline(always)]
pub(super) unsafe fn turn_eight(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: as the caller vouches; all else happens in registers.
    unsafe {
        let row = |index: usize| _mm256_loadu_ps(from.add(index * from_stride));
        let rows = [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)];
        // Pairs of rows, then fours of rows, then the halves.
        let mut fours = [_mm256_setzero_ps(); 8];
        for half in 0..2 {
            let [a, b, c, d] = [rows[4 * half], rows[4 * half + 1], rows[4 * half + 2], rows[4 * half + 3]];
            let (low_ab, high_ab) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (low_cd, high_cd) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            fours[4 * half] = _mm256_shuffle_ps::<0x44>(low_ab, low_cd);
            fours[4 * half + 1] = _mm256_shuffle_ps::<0xee>(low_ab, low_cd);
            fours[4 * half + 2] = _mm256_shuffle_ps::<0x44>(high_ab, high_cd);
            fours[4 * half + 3] = _mm256_shuffle_ps::<0xee>(high_ab, high_cd);
        }
        for index in 0..4 {
            let (left, right) = (fours[index], fours[4 + index]);
            _mm256_storeu_ps(to.add(index * to_stride), _mm256_permute2f128_ps::<0x20>(left, right));
            _mm256_storeu_ps(to.add((4 + index) * to_stride), _mm256_permute2f128_ps::<0x31>(left, right));
        }
    }
}

// SAFETY: a token is made only after detection (`table`); every method is the intrinsic of its meaning.
unsafe impl Isa for Avx2 {
    type F32 = __m256;
    type I32 = __m256i;
    type Mask = __m256;
    const LANES: usize = 8;
    const TILE_ROWS: [usize; 4] = [8, 6, 0, 0];
    const TILE_VECTORS: usize = 2;
    const SEGMENT: usize = 4;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Avx2(())
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: the caller vouches for eight floats.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m256) {
        // SAFETY: the caller vouches for eight floats.
        unsafe { _mm256_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, from: *const f32, count: usize) -> __m256 {
        // SAFETY: lanes above `count` are masked off and not read.
        unsafe { _mm256_maskload_ps(from, first(count)) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, value: __m256, count: usize) {
        // SAFETY: lanes above `count` are masked off and not written.
        unsafe { _mm256_maskstore_ps(to, first(count), value) }
    }
    #[inline(always)]
    unsafe fn load_bytes(self, from: *const u8, count: usize) -> __m256i {
        let mut bytes = [0u8; 8];
        // SAFETY: `count` bytes, or all eight, as the caller vouches.
        unsafe {
            if count == 8 {
                return _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()));
            }
            for (lane, byte) in bytes.iter_mut().enumerate().take(count) {
                *byte = from.add(lane).read();
            }
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.as_ptr().cast()))
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8, value: __m256i, count: usize) {
        // SAFETY: eight bytes or `count` of them, as the caller vouches; all else happens in registers.
        unsafe {
            let low = _mm256_and_si256(value, _mm256_set1_epi32(255));
            let words = _mm_packs_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
            let bytes = _mm_packus_epi16(words, words);
            if count == 8 {
                return _mm_storel_epi64(to.cast(), bytes);
            }
            for (lane, byte) in _mm_cvtsi128_si64(bytes).to_le_bytes().into_iter().enumerate().take(count) {
                to.add(lane).write(byte);
            }
        }
    }
    #[inline(always)]
    unsafe fn load_columns(self, rows: [*const u8; 3]) -> [__m256i; 4] {
        // SAFETY: 32 bytes of each row, as the caller vouches; all else happens in registers.
        unsafe {
            let [a, b, c] = [
                _mm256_loadu_si256(rows[0].cast()),
                _mm256_loadu_si256(rows[1].cast()),
                _mm256_loadu_si256(rows[2].cast()),
            ];
            let none = _mm256_setzero_si256();
            let (low, high) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
            let (low_c, high_c) = (_mm256_unpacklo_epi8(c, none), _mm256_unpackhi_epi8(c, none));
            [
                _mm256_unpacklo_epi16(low, low_c),
                _mm256_unpackhi_epi16(low, low_c),
                _mm256_unpacklo_epi16(high, high_c),
                _mm256_unpackhi_epi16(high, high_c),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store_columns(self, to: *mut u8, values: [__m256; 4], coding: &Coding) {
        // SAFETY: 32 bytes, as the caller vouches; all else happens in registers.
        unsafe {
            let (low, high) = (_mm256_set1_ps(coding.low), _mm256_set1_ps(coding.high));
            let mut whole = [_mm256_setzero_si256(); 4];
            for vector in 0..4 {
                // Within the bounds, and so within 16 bits.
                let value = _mm256_min_ps(high, _mm256_max_ps(low, values[vector]));
                whole[vector] = _mm256_cvtps_epi32(value);
            }
            let zero = _mm256_set1_epi16(coding.zero as i16);
            let low = _mm256_add_epi16(_mm256_packs_epi32(whole[0], whole[1]), zero);
            let high = _mm256_add_epi16(_mm256_packs_epi32(whole[2], whole[3]), zero);
            let bytes = _mm256_packus_epi16(low, high);
            let bytes = _mm256_xor_si256(bytes, _mm256_set1_epi8(coding.flip as i8));
            _mm256_storeu_si256(to.cast(), bytes);
        }
    }
    #[inline(always)]
    fn dot<const FAST: bool>(self, sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the token is proof of the instruction set, and `FAST` of AVX-VNNI.
        unsafe {
            if FAST {
                return _mm256_dpbusd_avx_epi32(sum, a, b);
            }
            // Even and odd bytes as 16-bit numbers: sums of two products fit, unlike those of bytes in 16 bits.
            let even_a = _mm256_and_si256(a, _mm256_set1_epi32(0x00ff_00ff));
            let odd_a = _mm256_srli_epi16::<8>(a);
            let even_b = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(b));
            let odd_b = _mm256_srai_epi16::<8>(b);
            let sum = _mm256_add_epi32(sum, _mm256_madd_epi16(even_a, even_b));
            _mm256_add_epi32(sum, _mm256_madd_epi16(odd_a, odd_b))
        }
    }
    #[inline(always)]
    unsafe fn turn_square(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: as the caller vouches; the token is proof of the instruction set.
        unsafe { turn_eight(from, from_stride, to, to_stride) }
    }
    #[inline(always)]
    fn shift_left<const N: i32>(self, a: __m256i) -> __m256i {
        // SAFETY: the token is proof of the instruction set.
        unsafe { _mm256_slli_epi32::<N>(a) }
    }
    #[inline(always)]
    fn shift_right<const N: i32>(self, a: __m256i) -> __m256i {
        // SAFETY: the token is proof of the instruction set.
        unsafe { _mm256_srai_epi32::<N>(a) }
    }
    #[inline(always)]
    fn reduce_add_four(self, [a, b, c, d]: [__m256; 4]) -> [f32; 4] {
        // SAFETY: the token is proof of the instruction set; a vector of four lanes is four floats.
        unsafe {
            let ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            let (ab, cd) = (_mm256_castps_pd(ab), _mm256_castps_pd(cd));
            // In either half a part of each of the four sums.
            let (low, high) = (_mm256_unpacklo_pd(ab, cd), _mm256_unpackhi_pd(ab, cd));
            let halves = _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high));
            let sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
            core::mem::transmute(sums)
        }
    }
    intrinsics! {
        splat(value: f32) -> __m256 = _mm256_set1_ps(value);
        permute(a: __m256, lanes: __m256i) -> __m256 = _mm256_permutevar8x32_ps(a, lanes);
        add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        div(a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
        mul_add(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        min(a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
        max(a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        sqrt(a: __m256) -> __m256 = _mm256_sqrt_ps(a);
        floor(a: __m256) -> __m256 = _mm256_floor_ps(a);
        round(a: __m256) -> __m256 = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        less(a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_LT_OQ>(a, b);
        less_equal(a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_LE_OQ>(a, b);
        equal(a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b);
        select(mask: __m256, yes: __m256, no: __m256) -> __m256 = _mm256_blendv_ps(no, yes, mask);
        splat_int(value: i32) -> __m256i = _mm256_set1_epi32(value);
        to_bits(a: __m256) -> __m256i = _mm256_castps_si256(a);
        bits_to_float(a: __m256i) -> __m256 = _mm256_castsi256_ps(a);
        to_int(a: __m256) -> __m256i = _mm256_cvtps_epi32(a);
        int_to_float(a: __m256i) -> __m256 = _mm256_cvtepi32_ps(a);
        add_int(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(a, b);
        sub_int(a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi32(a, b);
        mul_int(a: __m256i, b: __m256i) -> __m256i = _mm256_mullo_epi32(a, b);
        and(a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
        or(a: __m256i, b: __m256i) -> __m256i = _mm256_or_si256(a, b);
        xor(a: __m256i, b: __m256i) -> __m256i = _mm256_xor_si256(a, b);
    }
}
