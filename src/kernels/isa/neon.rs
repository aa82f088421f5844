//! NEON: four lanes, thirty-two registers. Every 64-bit ARM CPU.

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
        let mut lanes = [0.0f32; 4];
        for (lane, value) in lanes.iter_mut().enumerate().take(count) {
            // SAFETY: lane < count.
            *value = unsafe { from.add(lane).read() };
        }
        // SAFETY: the array holds four floats.
        unsafe { vld1q_f32(lanes.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, value: float32x4_t, count: usize) {
        let mut lanes = [0.0f32; 4];
        // SAFETY: the array holds four floats.
        unsafe { vst1q_f32(lanes.as_mut_ptr(), value) };
        for (lane, value) in lanes.into_iter().enumerate().take(count) {
            // SAFETY: lane < count.
            unsafe { to.add(lane).write(value) };
        }
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
