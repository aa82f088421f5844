//! The vector instructions that kernels are written in, one implementation per instruction set.
//!
//! A kernel is one function, generic over [`Isa`], that never names an instruction. The value of an `Isa`
//! type is a token without size that can be had only where the CPU was asked for the feature, so its
//! arithmetic is safe to call. Everything here and in the kernels is `#[inline(always)]`: the code takes the
//! instruction set of the `#[target_feature]` function (see `table`) into which it is inlined.

/// Writes methods of an [`Isa`] that are one intrinsic each.
#[allow(unused_macros)]
macro_rules! intrinsics {
    ($($method:ident($($arg:ident: $type:ty),+) -> $out:ty = $body:expr;)+) => { $(
        #[inline(always)]
        fn $method(self, $($arg: $type),+) -> $out {
            // SAFETY: the intrinsic computes in registers, and the token is proof of the instruction set.
            unsafe { $body }
        }
    )+ };
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon_bytes;
pub(crate) mod portable;

/// One instruction set: f32 vectors of [`Isa::LANES`] lanes and the i32 and mask vectors of the same width.
///
/// # Safety
/// An implementation must make its value only where the CPU has the instructions, and every method must do
/// what its documentation says in every lane: kernels index memory with the results.
pub(crate) unsafe trait Isa: Copy {
    /// A vector of f32.
    type F32: Copy;
    /// A vector of i32 with as many lanes.
    type I32: Copy;
    /// One truth value per lane.
    type Mask: Copy;

    /// Lanes of a vector.
    const LANES: usize;
    /// Rows of the matrix product's register tile when its rows have one, two, three or four vectors; none beyond
    /// [`Isa::TILE_VECTORS`]. Eight at most, six for three vectors and more: a row takes a general register, too.
    const TILE_ROWS: [usize; 4];
    /// Most vectors of a row of that tile.
    const TILE_VECTORS: usize;
    /// A product can take one of its factors from a lane of a vector, so that a vector of a row's values is loaded once
    /// for as many steps. Four lanes are then understood.
    const BY_LANE: bool = false;
    /// Part of a vector is written as fast as a whole one.
    const MASKS: bool = false;
    /// Whether a panel of weights is too wide for the first-level cache, so that it is read from the second one.
    const STREAMS: bool = false;
    /// Lanes that [`Isa::load_columns`] keeps together: of `x86`, whose vectors of bytes are shuffled in parts.
    const SEGMENT: usize = Self::LANES;

    /// The token.
    ///
    /// # Safety
    /// The CPU must have the instruction set.
    unsafe fn assume() -> Self;

    /// Reads `LANES` floats; no alignment is asked for.
    ///
    /// # Safety
    /// `from` must be readable for `LANES` floats.
    unsafe fn load(self, from: *const f32) -> Self::F32;
    /// Writes `LANES` floats; no alignment is asked for.
    ///
    /// # Safety
    /// `to` must be writable for `LANES` floats.
    unsafe fn store(self, to: *mut f32, value: Self::F32);
    /// Reads `count <= LANES` floats; the other lanes are zero.
    ///
    /// # Safety
    /// `from` must be readable for `count` floats.
    unsafe fn load_partial(self, from: *const f32, count: usize) -> Self::F32;
    /// Writes the first `count <= LANES` lanes.
    ///
    /// # Safety
    /// `to` must be writable for `count` floats.
    unsafe fn store_partial(self, to: *mut f32, value: Self::F32, count: usize);

    /// [`Isa::load`] where `count` is `LANES`, else [`Isa::load_partial`].
    ///
    /// # Safety
    /// `from` must be readable for `count <= LANES` floats.
    #[inline(always)]
    unsafe fn load_up_to(self, from: *const f32, count: usize) -> Self::F32 {
        // SAFETY: as the caller vouches.
        unsafe { if count == Self::LANES { self.load(from) } else { self.load_partial(from, count) } }
    }
    /// [`Isa::store`] where `count` is `LANES`, else [`Isa::store_partial`].
    ///
    /// # Safety
    /// `to` must be writable for `count <= LANES` floats.
    #[inline(always)]
    unsafe fn store_up_to(self, to: *mut f32, value: Self::F32, count: usize) {
        // SAFETY: as the caller vouches.
        unsafe {
            if count == Self::LANES { self.store(to, value) } else { self.store_partial(to, value, count) }
        }
    }

    /// `value` in every lane.
    fn splat(self, value: f32) -> Self::F32;
    /// `a + b`
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once where the instruction set can.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `a[L] * b + c`: lane `L` of `a`, below four, for all lanes.
    #[inline(always)]
    fn mul_add_lane<const L: i32>(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        self.mul_add(self.splat(self.lanes(a)[L as usize]), b, c)
    }
    /// The smaller one. NaN if `b` is NaN; `b` or NaN if `a` is.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The greater one. NaN if `b` is NaN; `b` or NaN if `a` is.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Square root, correctly rounded.
    fn sqrt(self, a: Self::F32) -> Self::F32;
    /// The greatest integer not above `a`.
    fn floor(self, a: Self::F32) -> Self::F32;
    /// The nearest integer, half to even.
    fn round(self, a: Self::F32) -> Self::F32;

    /// `a < b`, false if either is NaN.
    fn less(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a <= b`, false if either is NaN.
    fn less_equal(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a == b`, false if either is NaN.
    fn equal(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `yes` where the mask is true, else `no`.
    fn select(self, mask: Self::Mask, yes: Self::F32, no: Self::F32) -> Self::F32;

    /// `value` in every lane.
    fn splat_int(self, value: i32) -> Self::I32;
    /// The bits of a float, unchanged.
    fn to_bits(self, a: Self::F32) -> Self::I32;
    /// The float of these bits.
    fn bits_to_float(self, a: Self::I32) -> Self::F32;
    /// Conversion of floats within i32, rounded to the nearest, half to even; other values give an unspecified integer.
    fn to_int(self, a: Self::F32) -> Self::I32;
    /// Conversion, rounded to nearest.
    fn int_to_float(self, a: Self::I32) -> Self::F32;
    /// `a + b`, wrapping.
    fn add_int(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a - b`, wrapping.
    fn sub_int(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a * b`, wrapping.
    fn mul_int(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Bitwise and.
    fn and(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Bitwise or.
    fn or(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Bitwise exclusive or.
    fn xor(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Shift left by `N` bits.
    fn shift_left<const N: i32>(self, a: Self::I32) -> Self::I32;
    /// Shift right by `N` bits, copying the sign.
    fn shift_right<const N: i32>(self, a: Self::I32) -> Self::I32;

    /// Reads `LANES` integers; no alignment is asked for.
    ///
    /// # Safety
    /// `from` must be readable for `LANES` integers.
    #[inline(always)]
    unsafe fn load_int(self, from: *const i32) -> Self::I32 {
        // SAFETY: as the caller vouches; a float has the size of an integer, and loading changes no bits.
        self.to_bits(unsafe { self.load(from.cast()) })
    }
    /// Writes `LANES` integers; no alignment is asked for.
    ///
    /// # Safety
    /// `to` must be writable for `LANES` integers.
    #[inline(always)]
    unsafe fn store_int(self, to: *mut i32, value: Self::I32) {
        // SAFETY: as the caller vouches; a float has the size of an integer, and storing changes no bits.
        unsafe { self.store(to.cast(), self.bits_to_float(value)) }
    }
    /// Reads `count <= LANES` bytes as integers from 0 to 255; the other lanes are zero.
    ///
    /// # Safety
    /// `from` must be readable for `count` bytes.
    #[inline(always)]
    unsafe fn load_bytes(self, from: *const u8, count: usize) -> Self::I32 {
        let mut lanes = [0i32; MAX_LANES];
        for (lane, value) in lanes.iter_mut().enumerate().take(count) {
            // SAFETY: lane < count.
            *value = i32::from(unsafe { from.add(lane).read() });
        }
        // SAFETY: the array holds at least LANES integers.
        unsafe { self.load_int(lanes.as_ptr()) }
    }
    /// Writes the lowest byte of the first `count <= LANES` lanes.
    ///
    /// # Safety
    /// `to` must be writable for `count` bytes.
    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8, value: Self::I32, count: usize) {
        let mut lanes = [0i32; MAX_LANES];
        // SAFETY: the array holds at least LANES integers.
        unsafe { self.store_int(lanes.as_mut_ptr(), value) };
        for (lane, value) in lanes.into_iter().enumerate().take(count) {
            // SAFETY: lane < count.
            unsafe { to.add(lane).write(value as u8) };
        }
    }
    /// Writes `count` numbers, of the lanes of one vector after the other, as bytes: rounded to the nearest, half to even, and
    /// coded.
    ///
    /// # Safety
    /// `to` must be writable for `count` bytes, which `V` vectors have and one less have not.
    #[inline(always)]
    unsafe fn store_coded<const V: usize>(
        self,
        to: *mut u8,
        values: [Self::F32; V],
        coding: &Coding,
        count: usize,
    ) {
        let (low, high) = (self.splat(coding.low), self.splat(coding.high));
        let (zero, flip) = (self.splat_int(coding.zero), self.splat_int(coding.flip));
        for vector in 0..V {
            let start = vector * Self::LANES;
            // NaN, which no finite factor makes, would be the lower bound.
            let bounded = self.min(high, self.max(low, values[vector]));
            let byte = self.xor(self.add_int(self.to_int(bounded), zero), flip);
            // SAFETY: as the caller vouches.
            unsafe { self.store_bytes(to.add(start), byte, (count - start).min(Self::LANES)) };
        }
    }
    /// The bytes of three rows below one another, and a zero, in every lane: in lane `i` of vector `v` those at
    /// [`column_of`]`(SEGMENT, v, i)`.
    ///
    /// # Safety
    /// Every row must be readable for `4 * LANES` bytes.
    #[inline(always)]
    unsafe fn load_columns(self, rows: [*const u8; 3]) -> [Self::I32; 4] {
        let mut columns = [self.splat_int(0); 4];
        for vector in 0..4 {
            let at = vector * Self::LANES;
            // SAFETY: as the caller vouches.
            let [a, b, c] = unsafe {
                [
                    self.load_bytes(rows[0].add(at), Self::LANES),
                    self.load_bytes(rows[1].add(at), Self::LANES),
                    self.load_bytes(rows[2].add(at), Self::LANES),
                ]
            };
            columns[vector] = self.or(self.or(a, self.shift_left::<8>(b)), self.shift_left::<16>(c));
        }
        columns
    }
    /// Writes `4 * LANES` numbers as [`Isa::store_coded`] does, each to its [`column_of`].
    ///
    /// # Safety
    /// `to` must be writable for `4 * LANES` bytes.
    #[inline(always)]
    unsafe fn store_columns(self, to: *mut u8, values: [Self::F32; 4], coding: &Coding) {
        // SAFETY: as the caller vouches; lanes that are not cut into segments are in their order.
        unsafe { self.store_coded(to, values, coding, 4 * Self::LANES) }
    }
    /// The four bytes at `from`, in every lane; no alignment is asked for.
    ///
    /// # Safety
    /// `from` must be readable for four bytes.
    #[inline(always)]
    unsafe fn splat_bytes(self, from: *const u8) -> Self::I32 {
        // SAFETY: as the caller vouches.
        self.splat_int(unsafe { from.cast::<i32>().read_unaligned() })
    }
    /// `sum + a0 b0 + a1 b1 + a2 b2 + a3 b3` in every lane, of the four bytes of `a` from 0 to 255 and those of `b` from
    /// -128 to 127; exact. `FAST` says that the CPU has the instruction for it (see [`Direct`]).
    #[inline(always)]
    fn dot<const FAST: bool>(self, sum: Self::I32, a: Self::I32, b: Self::I32) -> Self::I32 {
        let low = self.splat_int(255);
        let product = |a, b| self.mul_int(self.and(a, low), self.shift_right::<24>(b));
        let first = product(a, self.shift_left::<24>(b));
        let second = product(self.shift_right::<8>(a), self.shift_left::<16>(b));
        let third = product(self.shift_right::<16>(a), self.shift_left::<8>(b));
        let fourth = product(self.shift_right::<24>(a), b);
        self.add_int(sum, self.add_int(self.add_int(first, second), self.add_int(third, fourth)))
    }

    /// `a[L]` in every lane; `L` is below four.
    #[inline(always)]
    fn splat_lane<const L: i32>(self, a: Self::I32) -> Self::I32 {
        let lanes = self.lanes(self.bits_to_float(a));
        self.splat_int(lanes[L as usize].to_bits() as i32)
    }

    /// Turns a square of `LANES` by `LANES` floats: `to[j * to_stride + i] = from[i * from_stride + j]`.
    ///
    /// # Safety
    /// The rows of `from` must be readable and those of `to` writable, and they must not overlap.
    #[inline(always)]
    unsafe fn turn_square(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for row in 0..Self::LANES {
            for column in 0..Self::LANES {
                // SAFETY: as the caller vouches.
                unsafe {
                    let value = from.add(row * from_stride + column).read_unaligned();
                    to.add(column * to_stride + row).write_unaligned(value);
                };
            }
        }
    }
    /// `a / b` to within 2 ULP, for `b` from 1 to 2^126.
    #[inline(always)]
    fn quotient(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        self.div(a, b)
    }

    /// Asks for the cache line at `from`, which need not be readable, into the second-level cache.
    #[inline(always)]
    fn prefetch_far(self, from: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: part of the base instruction set; a hint that never faults.
        unsafe {
            use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(from.cast());
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: part of the base instruction set; a hint that never faults.
        unsafe {
            core::arch::asm!("prfm pldl2keep, [{from}]", from = in(reg) from, options(nostack, readonly, preserves_flags));
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = from;
    }
    /// The same into the first-level cache.
    #[inline(always)]
    fn prefetch_near(self, from: *const f32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        unsafe {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(from.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = from;
    }
    /// Lane `lanes[i]` of `a` in lane `i`; all of `lanes` must be below [`Isa::LANES`].
    #[inline(always)]
    fn permute(self, a: Self::F32, lanes: Self::I32) -> Self::F32 {
        let (from, lanes) = (self.lanes(a), self.lanes(self.bits_to_float(lanes)));
        let mut to = [0.0; MAX_LANES];
        for lane in 0..Self::LANES {
            to[lane] = from[lanes[lane].to_bits() as usize % MAX_LANES];
        }
        // SAFETY: the array holds MAX_LANES >= LANES floats.
        unsafe { self.load(to.as_ptr()) }
    }
    /// The lanes as an array, for the horizontal operations that end a reduction; lanes above `LANES` are
    /// unspecified.
    #[inline(always)]
    fn lanes(self, a: Self::F32) -> [f32; MAX_LANES] {
        let mut lanes = [0.0; MAX_LANES];
        // SAFETY: the array holds MAX_LANES >= LANES floats.
        unsafe { self.store(lanes.as_mut_ptr(), a) };
        lanes
    }
    /// The magnitude of `a`.
    #[inline(always)]
    fn abs(self, a: Self::F32) -> Self::F32 {
        self.bits_to_float(self.and(self.to_bits(a), self.splat_int(i32::MAX)))
    }
    /// `a` with its sign flipped.
    #[inline(always)]
    fn neg(self, a: Self::F32) -> Self::F32 {
        self.bits_to_float(self.xor(self.to_bits(a), self.splat_int(i32::MIN)))
    }
    /// The magnitude of `a` with the sign of `b`.
    #[inline(always)]
    fn copy_sign(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        let sign = self.and(self.to_bits(b), self.splat_int(i32::MIN));
        self.bits_to_float(self.or(self.and(self.to_bits(a), self.splat_int(i32::MAX)), sign))
    }
    /// The greatest of the lanes, none of which is NaN; otherwise any of them.
    #[inline(always)]
    fn reduce_max(self, a: Self::F32) -> f32 {
        let mut lanes = self.lanes(a);
        let mut width = Self::LANES;
        while width > 1 {
            width /= 2;
            for lane in 0..width {
                let (left, right) = (lanes[lane], lanes[lane + width]);
                lanes[lane] = if left > right { left } else { right };
            }
        }
        lanes[0]
    }
    /// The sum of the lanes, added in pairs.
    #[inline(always)]
    fn reduce_add(self, a: Self::F32) -> f32 {
        let mut lanes = self.lanes(a);
        let mut width = Self::LANES;
        while width > 1 {
            width /= 2;
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
        }
        lanes[0]
    }
    /// The sums of all lanes of four vectors.
    #[inline(always)]
    fn reduce_add_four(self, [a, b, c, d]: [Self::F32; 4]) -> [f32; 4] {
        [self.reduce_add(a), self.reduce_add(b), self.reduce_add(c), self.reduce_add(d)]
    }
}

/// Which of `4 * LANES` numbers is in lane `lane` of vector `vector` of [`Isa::load_columns`].
pub(crate) fn column_of(segment: usize, vector: usize, lane: usize) -> usize {
    (lane / segment * 4 + vector) * segment + lane % segment
}

/// How whole numbers become bytes: `clamp(number + zero, min, max)`.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "saturating packs of x86 alone need whole bounds")
)]
pub(crate) struct Coding {
    /// The zero point of unsigned bytes.
    zero: i32,
    /// Bounds less the zero point: small integers, so that nothing is lost by clamping floats before they are rounded.
    low: f32,
    high: f32,
    /// Bounds of unsigned bytes.
    least: u8,
    greatest: u8,
    /// 128 for signed bytes, which are computed as unsigned ones and turned at last.
    flip: i32,
    /// All numbers lie within i32.
    small: bool,
    /// Unsigned bytes that saturate are the result.
    whole: bool,
}

impl Coding {
    /// Bytes are signed where `min` is negative. `small` vouches that all numbers lie within i32.
    pub(crate) fn new(zero: i32, min: i32, max: i32, small: bool) -> Self {
        let flip = if min < 0 { 128 } else { 0 };
        let byte = |bound: i32| (bound + flip).clamp(0, 255) as u8;
        Coding {
            zero: zero + flip,
            low: (min - zero) as f32,
            high: (max - zero) as f32,
            least: byte(min),
            greatest: byte(max),
            flip,
            small,
            whole: (byte(min), byte(max), flip) == (0, 255, 0),
        }
    }
}

/// How the products of bytes are summed, in the vectors of an instruction set.
///
/// # Safety
/// The type may be named only in functions that have the instructions it uses.
pub(crate) unsafe trait Dot<I: Isa> {
    /// Sums of one vector of columns while they are added to.
    type Sums: Copy;
    /// Most rows of a register tile.
    const ROWS: usize;
    /// The bytes of the first factor are numbers from -128 to 127, not from 0 to 255.
    const SIGNED: bool;

    /// Sums that begin with `bias`.
    fn begin(isa: I, bias: I::I32) -> Self::Sums;
    /// In every lane `sum + a0 b0 + a1 b1 + a2 b2 + a3 b3` of the four bytes of `a` and those of `b`, which are numbers from
    /// -128 to 127; exact, wrapping.
    fn add(isa: I, sums: Self::Sums, a: I::I32, b: I::I32) -> Self::Sums;
    /// The same with lane `L` of `a`, below four, for all lanes.
    #[inline(always)]
    fn add_lane<const L: i32>(isa: I, sums: Self::Sums, a: I::I32, b: I::I32) -> Self::Sums {
        Self::add(isa, sums, isa.splat_lane::<L>(a), b)
    }
    /// The sums, a lane each.
    fn end(isa: I, sums: Self::Sums) -> I::I32;
}

/// [`Isa::dot`]; `FAST` is for tables of the name with `vnni`.
pub(crate) struct Direct<const FAST: bool>;

// SAFETY: `Isa::dot` does what is asked for; the tables use `FAST` where the CPU has the instruction.
unsafe impl<I: Isa, const FAST: bool> Dot<I> for Direct<FAST> {
    type Sums = I::I32;
    const ROWS: usize = 8;
    const SIGNED: bool = false;

    #[inline(always)]
    fn begin(_: I, bias: I::I32) -> I::I32 {
        bias
    }
    #[inline(always)]
    fn add(isa: I, sums: I::I32, a: I::I32, b: I::I32) -> I::I32 {
        isa.dot::<FAST>(sums, a, b)
    }
    #[inline(always)]
    fn end(_: I, sums: I::I32) -> I::I32 {
        sums
    }
}

/// No instruction set has more lanes.
pub(crate) const MAX_LANES: usize = 16;
