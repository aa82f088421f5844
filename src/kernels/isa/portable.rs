//! Four lanes in plain Rust: what the compiler makes of arrays with the target's base instructions
//! (SSE2, or scalar code). It is the reference for the other sets and runs everywhere.

use super::Isa;

/// The token of the portable set; any CPU has it.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

const LANES: usize = 4;

/// Four floats that the compiler may keep in one register.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub(crate) struct F32x4([f32; LANES]);
/// Four integers.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub(crate) struct I32x4([i32; LANES]);
/// Four truth values, all bits set or none.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub(crate) struct Mask4([u32; LANES]);

macro_rules! lanewise {
    ($make:expr, |$($name:ident = $value:ident),+| $body:expr) => {{
        let mut out = [Default::default(); LANES];
        for lane in 0..LANES {
            $(let $name = $value.0[lane];)+
            out[lane] = $body;
        }
        $make(out)
    }};
}

// SAFETY: plain Rust, every lane computed; the pointer methods touch what their contracts allow.
unsafe impl Isa for Portable {
    type F32 = F32x4;
    type I32 = I32x4;
    type Mask = Mask4;
    const LANES: usize = LANES;
    const TILE_ROWS: [usize; 4] = [6, 4, 0, 0];
    const TILE_VECTORS: usize = 2;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Portable
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> F32x4 {
        // SAFETY: the caller vouches for LANES floats.
        F32x4(unsafe { from.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: F32x4) {
        // SAFETY: the caller vouches for LANES floats.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(value.0) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, from: *const f32, count: usize) -> F32x4 {
        let mut lanes = [0.0; LANES];
        for (lane, value) in lanes.iter_mut().enumerate().take(count) {
            // SAFETY: lane < count.
            *value = unsafe { from.add(lane).read() };
        }
        F32x4(lanes)
    }
    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, value: F32x4, count: usize) {
        for (lane, value) in value.0.into_iter().enumerate().take(count) {
            // SAFETY: lane < count.
            unsafe { to.add(lane).write(value) };
        }
    }
    #[inline(always)]
    fn splat(self, value: f32) -> F32x4 {
        F32x4([value; LANES])
    }
    #[inline(always)]
    fn add(self, a: F32x4, b: F32x4) -> F32x4 {
        lanewise!(F32x4, |a = a, b = b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: F32x4, b: F32x4) -> F32x4 {
        lanewise!(F32x4, |a = a, b = b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: F32x4, b: F32x4) -> F32x4 {
        lanewise!(F32x4, |a = a, b = b| a * b)
    }
    #[inline(always)]
    fn div(self, a: F32x4, b: F32x4) -> F32x4 {
        lanewise!(F32x4, |a = a, b = b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, a: F32x4, b: F32x4, c: F32x4) -> F32x4 {
        // `f32::mul_add` would be a library call without a fused instruction.
        lanewise!(F32x4, |a = a, b = b, c = c| a * b + c)
    }
    #[inline(always)]
    fn min(self, a: F32x4, b: F32x4) -> F32x4 {
        lanewise!(F32x4, |a = a, b = b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, a: F32x4, b: F32x4) -> F32x4 {
        lanewise!(F32x4, |a = a, b = b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(self, a: F32x4) -> F32x4 {
        lanewise!(F32x4, |a = a| a.sqrt())
    }
    #[inline(always)]
    fn floor(self, a: F32x4) -> F32x4 {
        lanewise!(F32x4, |a = a| {
            let near = nearest(a);
            let floor = if near > a { near - 1.0 } else { near };
            floor.copysign(a)
        })
    }
    #[inline(always)]
    fn round(self, a: F32x4) -> F32x4 {
        lanewise!(F32x4, |a = a| nearest(a))
    }
    #[inline(always)]
    fn less(self, a: F32x4, b: F32x4) -> Mask4 {
        lanewise!(Mask4, |a = a, b = b| if a < b { u32::MAX } else { 0 })
    }
    #[inline(always)]
    fn less_equal(self, a: F32x4, b: F32x4) -> Mask4 {
        lanewise!(Mask4, |a = a, b = b| if a <= b { u32::MAX } else { 0 })
    }
    #[inline(always)]
    fn equal(self, a: F32x4, b: F32x4) -> Mask4 {
        lanewise!(Mask4, |a = a, b = b| if a == b { u32::MAX } else { 0 })
    }
    #[inline(always)]
    fn select(self, mask: Mask4, yes: F32x4, no: F32x4) -> F32x4 {
        lanewise!(F32x4, |m = mask, yes = yes, no = no| f32::from_bits(
            (yes.to_bits() & m) | (no.to_bits() & !m)
        ))
    }
    #[inline(always)]
    fn splat_int(self, value: i32) -> I32x4 {
        I32x4([value; LANES])
    }
    #[inline(always)]
    fn to_bits(self, a: F32x4) -> I32x4 {
        lanewise!(I32x4, |a = a| a.to_bits() as i32)
    }
    #[inline(always)]
    fn bits_to_float(self, a: I32x4) -> F32x4 {
        lanewise!(F32x4, |a = a| f32::from_bits(a as u32))
    }
    #[inline(always)]
    fn to_int(self, a: F32x4) -> I32x4 {
        lanewise!(I32x4, |a = a| nearest(a) as i32)
    }
    #[inline(always)]
    fn int_to_float(self, a: I32x4) -> F32x4 {
        lanewise!(F32x4, |a = a| a as f32)
    }
    #[inline(always)]
    fn add_int(self, a: I32x4, b: I32x4) -> I32x4 {
        lanewise!(I32x4, |a = a, b = b| a.wrapping_add(b))
    }
    #[inline(always)]
    fn sub_int(self, a: I32x4, b: I32x4) -> I32x4 {
        lanewise!(I32x4, |a = a, b = b| a.wrapping_sub(b))
    }
    #[inline(always)]
    fn mul_int(self, a: I32x4, b: I32x4) -> I32x4 {
        lanewise!(I32x4, |a = a, b = b| a.wrapping_mul(b))
    }
    #[inline(always)]
    fn and(self, a: I32x4, b: I32x4) -> I32x4 {
        lanewise!(I32x4, |a = a, b = b| a & b)
    }
    #[inline(always)]
    fn or(self, a: I32x4, b: I32x4) -> I32x4 {
        lanewise!(I32x4, |a = a, b = b| a | b)
    }
    #[inline(always)]
    fn xor(self, a: I32x4, b: I32x4) -> I32x4 {
        lanewise!(I32x4, |a = a, b = b| a ^ b)
    }
    #[inline(always)]
    fn shift_left<const N: i32>(self, a: I32x4) -> I32x4 {
        lanewise!(I32x4, |a = a| a << N)
    }
    #[inline(always)]
    fn shift_right<const N: i32>(self, a: I32x4) -> I32x4 {
        lanewise!(I32x4, |a = a| a >> N)
    }
}

/// Rounds half to even without the library call that SSE2 lacks an instruction for: above 2^23 every float is
/// an integer, below it adding and taking away 2^23 leaves the rounding to the adder.
#[inline(always)]
fn nearest(value: f32) -> f32 {
    const INTEGERS_FROM: f32 = 8_388_608.0;
    let magnitude = value.abs();
    let rounded = (magnitude + INTEGERS_FROM) - INTEGERS_FROM;
    let near = if magnitude < INTEGERS_FROM { rounded } else { magnitude };
    near.copysign(value)
}
