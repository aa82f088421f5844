//! NEON: four lanes, thirty-two registers. Every 64-bit ARM CPU.
//!
//! The tile of 8 rows by 2 vectors keeps 16 sums, 8 vectors of values and the weights in registers: four multiply-adds
//! for each load, twice what a core with one load and two arithmetic units (Cortex-A72) needs.

use super::Isa;
use core::arch::aarch64::*;

/// The token: NEON was detected.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

// SAFETY: a token is made only after detection (`table`); every method is the intrinsic of its meaning.
unsafe impl Isa for Neon {
    type F32 = float32x4_t;
    type I32 = int32x4_t;
    type Mask = uint32x4_t;
    const LANES: usize = 4;
    const TILE_ROWS: [usize; 4] = [8, 8, 0, 0];
    const TILE_VECTORS: usize = 2;
    const BY_LANE: bool = true;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Neon(())
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> float32x4_t {
        // SAFETY: the caller vouches for four floats.
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: float32x4_t) {
        // SAFETY: the caller vouches for four floats.
        unsafe { vst1q_f32(to, value) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, from: *const f32, count: usize) -> float32x4_t {
        // SAFETY: `count` floats are read, as the caller vouches.
        unsafe {
            match count {
                0 => vdupq_n_f32(0.0),
                1 => vld1q_lane_f32::<0>(from, vdupq_n_f32(0.0)),
                2 => vcombine_f32(vld1_f32(from), vdup_n_f32(0.0)),
                3 => vcombine_f32(vld1_f32(from), vld1_lane_f32::<0>(from.add(2), vdup_n_f32(0.0))),
                _ => vld1q_f32(from),
            }
        }
    }
    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, value: float32x4_t, count: usize) {
        // SAFETY: `count` floats are written, as the caller vouches.
        unsafe {
            match count {
                0 => {}
                1 => vst1q_lane_f32::<0>(to, value),
                2 => vst1_f32(to, vget_low_f32(value)),
                3 => {
                    vst1_f32(to, vget_low_f32(value));
                    vst1q_lane_f32::<2>(to.add(2), value);
                }
                _ => vst1q_f32(to, value),
            }
        }
    }
    #[inline(always)]
    unsafe fn load_bytes(self, from: *const u8, count: usize) -> int32x4_t {
        let mut bytes = [0u8; 4];
        // SAFETY: `count` bytes, or all four, as the caller vouches.
        unsafe {
            if count == 4 {
                bytes = from.cast::<[u8; 4]>().read();
            } else {
                for (lane, byte) in bytes.iter_mut().enumerate().take(count) {
                    *byte = from.add(lane).read();
                }
            }
            let words = vmovl_u8(vcreate_u8(u64::from(u32::from_le_bytes(bytes))));
            vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(words)))
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8, value: int32x4_t, count: usize) {
        // SAFETY: four bytes or `count` of them, as the caller vouches; all else happens in registers.
        unsafe {
            let words = vmovn_s32(value);
            let bytes = vreinterpret_u32_s8(vmovn_s16(vcombine_s16(words, words)));
            let bytes = vget_lane_u32::<0>(bytes).to_le_bytes();
            if count == 4 {
                to.cast::<[u8; 4]>().write(bytes);
            } else {
                for (lane, byte) in bytes.into_iter().enumerate().take(count) {
                    to.add(lane).write(byte);
                }
            }
        }
    }
    #[inline(always)]
    fn mul_add_lane<const L: i32>(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: the token is proof of the instruction set.
        unsafe { vfmaq_laneq_f32::<L>(c, b, a) }
    }
    #[inline(always)]
    fn permute(self, a: float32x4_t, lanes: int32x4_t) -> float32x4_t {
        // SAFETY: the token is proof of the instruction set.
        unsafe {
            // The numbers of each lane's bytes.
            let bytes = vmlaq_n_s32(vdupq_n_s32(0x0302_0100), lanes, 0x0404_0404);
            vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(a), vreinterpretq_u8_s32(bytes)))
        }
    }
    #[inline(always)]
    fn splat_lane<const L: i32>(self, a: int32x4_t) -> int32x4_t {
        // SAFETY: the token is proof of the instruction set.
        unsafe { vdupq_laneq_s32::<L>(a) }
    }
    #[inline(always)]
    fn dot<const FAST: bool>(self, sum: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        // SAFETY: the token is proof of the instruction set.
        unsafe {
            let (a, b) = (vreinterpretq_u8_s32(a), vreinterpretq_s8_s32(b));
            // A product fits into 16 bits, the sum of two does not.
            let low = vmulq_s16(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(a))), vmovl_s8(vget_low_s8(b)));
            let high = vmulq_s16(vreinterpretq_s16_u16(vmovl_high_u8(a)), vmovl_high_s8(b));
            vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)))
        }
    }
    #[inline(always)]
    unsafe fn turn_square(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: as the caller vouches; all else happens in registers.
        unsafe {
            let row = |index: usize| vreinterpretq_f64_f32(vld1q_f32(from.add(index * from_stride)));
            // Pairs of rows by two columns, then their columns one by one.
            let (ac, bd) = ([row(0), row(2)], [row(1), row(3)]);
            for half in 0..2 {
                let pair = |rows: [float64x2_t; 2]| {
                    let [upper, lower] = rows;
                    let halves = if half == 0 { vzip1q_f64(upper, lower) } else { vzip2q_f64(upper, lower) };
                    vreinterpretq_f32_f64(halves)
                };
                let (even, odd) = (pair(ac), pair(bd));
                vst1q_f32(to.add(2 * half * to_stride), vtrn1q_f32(even, odd));
                vst1q_f32(to.add((2 * half + 1) * to_stride), vtrn2q_f32(even, odd));
            }
        }
    }
    #[inline(always)]
    fn reduce_add(self, a: float32x4_t) -> f32 {
        // SAFETY: the token is proof of the instruction set.
        unsafe { vaddvq_f32(a) }
    }
    #[inline(always)]
    fn reduce_add_four(self, [a, b, c, d]: [float32x4_t; 4]) -> [f32; 4] {
        // SAFETY: the token is proof of the instruction set; a vector is four floats.
        unsafe { core::mem::transmute(vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d))) }
    }
    #[inline(always)]
    fn reduce_max(self, a: float32x4_t) -> f32 {
        // SAFETY: the token is proof of the instruction set.
        unsafe { vmaxvq_f32(a) }
    }
    #[inline(always)]
    fn shift_left<const N: i32>(self, a: int32x4_t) -> int32x4_t {
        // SAFETY: the token is proof of the instruction set.
        unsafe { vshlq_n_s32::<N>(a) }
    }
    #[inline(always)]
    fn shift_right<const N: i32>(self, a: int32x4_t) -> int32x4_t {
        // SAFETY: the token is proof of the instruction set.
        unsafe { vshrq_n_s32::<N>(a) }
    }
    intrinsics! {
        splat(value: f32) -> float32x4_t = vdupq_n_f32(value);
        add(a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
        sub(a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
        mul(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
        div(a: float32x4_t, b: float32x4_t) -> float32x4_t = vdivq_f32(a, b);
        mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
        min(a: float32x4_t, b: float32x4_t) -> float32x4_t = vminq_f32(a, b);
        max(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmaxq_f32(a, b);
        sqrt(a: float32x4_t) -> float32x4_t = vsqrtq_f32(a);
        floor(a: float32x4_t) -> float32x4_t = vrndmq_f32(a);
        round(a: float32x4_t) -> float32x4_t = vrndnq_f32(a);
        less(a: float32x4_t, b: float32x4_t) -> uint32x4_t = vcltq_f32(a, b);
        less_equal(a: float32x4_t, b: float32x4_t) -> uint32x4_t = vcleq_f32(a, b);
        equal(a: float32x4_t, b: float32x4_t) -> uint32x4_t = vceqq_f32(a, b);
        select(mask: uint32x4_t, yes: float32x4_t, no: float32x4_t) -> float32x4_t = vbslq_f32(mask, yes, no);
        splat_int(value: i32) -> int32x4_t = vdupq_n_s32(value);
        to_bits(a: float32x4_t) -> int32x4_t = vreinterpretq_s32_f32(a);
        bits_to_float(a: int32x4_t) -> float32x4_t = vreinterpretq_f32_s32(a);
        to_int(a: float32x4_t) -> int32x4_t = vcvtnq_s32_f32(a);
        int_to_float(a: int32x4_t) -> float32x4_t = vcvtq_f32_s32(a);
        add_int(a: int32x4_t, b: int32x4_t) -> int32x4_t = vaddq_s32(a, b);
        sub_int(a: int32x4_t, b: int32x4_t) -> int32x4_t = vsubq_s32(a, b);
        mul_int(a: int32x4_t, b: int32x4_t) -> int32x4_t = vmulq_s32(a, b);
        and(a: int32x4_t, b: int32x4_t) -> int32x4_t = vandq_s32(a, b);
        or(a: int32x4_t, b: int32x4_t) -> int32x4_t = vorrq_s32(a, b);
        xor(a: int32x4_t, b: int32x4_t) -> int32x4_t = veorq_s32(a, b);
    }
}
