//! Products of bytes on 64-bit ARM, in the three forms that its CPUs offer: by widening (all of them), by dot products
//! of four bytes (`dotprod`: Cortex-A55, A76 and later), and by products of 2x8 with 8x2 bytes (`i8mm`: Cortex-A510,
//! A710, Neoverse V1 and later). The latter two have no stable intrinsic, so they are written as assembly.

use super::super::conv_i8::store_row;
use super::super::product::part;
use super::super::tile_i8::{Order, TileI8};
use super::neon::Neon;
use super::{Dot, Isa};
use core::arch::aarch64::*;
use core::arch::asm;
use std::ops::Range;

/// Products of 16 bits, added in pairs to sums of 32: of the two sums of a column, one takes the first two channels of a
/// step. Two products of -128 are too much for 16 bits, so nothing is added before.
pub(crate) struct Widening;

// SAFETY: the base instruction set.
unsafe impl Dot<Neon> for Widening {
    /// Of columns 0 and 1, and of columns 2 and 3.
    type Sums = [int32x4_t; 2];
    // Two sums a vector, two vectors a row: sixteen registers.
    const ROWS: usize = 4;
    const SIGNED: bool = true;

    #[inline(always)]
    fn begin(isa: Neon, bias: int32x4_t) -> Self::Sums {
        let zero = isa.splat_int(0);
        // SAFETY: the token is proof of the instruction set.
        unsafe { [vzip1q_s32(bias, zero), vzip2q_s32(bias, zero)] }
    }
    #[inline(always)]
    fn add(_: Neon, sums: Self::Sums, a: int32x4_t, b: int32x4_t) -> Self::Sums {
        // SAFETY: the token is proof of the instruction set.
        unsafe {
            let (a, b) = (vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
            let first = vmull_s8(vget_low_s8(a), vget_low_s8(b));
            let second = vmull_high_s8(a, b);
            [vpadalq_s16(sums[0], first), vpadalq_s16(sums[1], second)]
        }
    }
    #[inline(always)]
    fn end(_: Neon, sums: Self::Sums) -> int32x4_t {
        // SAFETY: the token is proof of the instruction set.
        unsafe { vpaddq_s32(sums[0], sums[1]) }
    }
}

/// `SDOT`. To be named only in functions with `dotprod`.
pub(crate) struct DotProduct;

// SAFETY: the table uses it where the CPU has the instruction.
unsafe impl Dot<Neon> for DotProduct {
    type Sums = int32x4_t;
    const ROWS: usize = 8;
    const SIGNED: bool = true;

    #[inline(always)]
    fn begin(_: Neon, bias: int32x4_t) -> int32x4_t {
        bias
    }
    #[inline(always)]
    fn add(_: Neon, sums: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        let mut sums = sums;
        // SAFETY: computes in registers; the instruction is there as the type may be named.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {b:v}.16b, {a:v}.16b",
                sums = inlateout(vreg) sums, a = in(vreg) a, b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }
    #[inline(always)]
    fn add_lane<const L: i32>(_: Neon, sums: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        let mut sums = sums;
        // SAFETY: as above; a lane is below four.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {b:v}.16b, {a:v}.4b[{lane}]",
                sums = inlateout(vreg) sums, a = in(vreg) a, b = in(vreg) b, lane = const L,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }
    #[inline(always)]
    fn end(_: Neon, sums: int32x4_t) -> int32x4_t {
        sums
    }
}

/// What [`tile_i8_matrix`] wants.
pub(crate) const MATRIX_ORDER: Order = Order { channels: 8, signed: false, segment: 4 };

/// The register tiles with `USMMLA`, for functions with `i8mm`: rows and columns in pairs, eight channels in a step.
///
/// # Safety
/// As [`tile_i8`](crate::kernels::tile_i8::tile_i8).
#[inline(always)]
pub(crate) unsafe fn tile_i8_matrix(isa: Neon, work: &TileI8, rows: usize, vectors: usize) {
    let tiles = rows.div_ceil(8);
    for tile in 0..tiles {
        let tile = part(rows, tiles, tile);
        macro_rules! dispatch {
            ($($pairs:literal $vectors:literal;)*) => {
                match (tile.len().div_ceil(2), vectors) {
                    // SAFETY: as the caller vouches.
                    $(($pairs, $vectors) => unsafe { matrix_of::<$pairs, $vectors>(isa, work, tile) },)*
                    _ => {}
                }
            };
        }
        dispatch!(1 1; 2 1; 3 1; 4 1; 1 2; 2 2; 3 2; 4 2;);
    }
}

/// `P` pairs of the rows, the last of which may lack its second one.
#[inline(always)]
unsafe fn matrix_of<const P: usize, const V: usize>(isa: Neon, work: &TileI8, tile: Range<usize>) {
    let (first, rows) = (tile.start, tile.len());
    // SAFETY: the caller vouches for everything that `work` describes.
    unsafe {
        // Of two rows and two columns each: row by row.
        let mut sums = [[[isa.splat_int(0); 2]; V]; P];
        for vector in 0..V {
            let bias = vreinterpretq_s64_s32(isa.load_int(work.factors.bias.add(vector * Neon::LANES)));
            for pair in 0..P {
                sums[pair][vector][0] = vreinterpretq_s32_s64(vdupq_laneq_s64::<0>(bias));
                sums[pair][vector][1] = vreinterpretq_s32_s64(vdupq_laneq_s64::<1>(bias));
            }
        }
        let mut weights = work.weights;
        let whole = work.depth / 8 * 8;
        for tap in 0..work.taps {
            // A row that is missing is the first of its pair once more.
            let mut from = [[std::ptr::null::<u8>(); 2]; P];
            for pair in 0..P {
                let pointers = work.pointers.add(tap * work.pointer_stride + first);
                from[pair] = [*pointers.add(2 * pair), *pointers.add((2 * pair + 1).min(rows - 1))];
            }
            let mut channel = 0;
            while channel < whole {
                let mut values = [[0u64; 2]; P];
                for pair in 0..P {
                    for row in 0..2 {
                        values[pair][row] = from[pair][row].add(channel).cast::<u64>().read_unaligned();
                    }
                }
                matrix_step::<P, V>(isa, &mut sums, &values, weights);
                weights = weights.add(2 * V * Neon::LANES);
                channel += 8;
            }
            if channel < work.depth {
                // What is missing meets weights of zero.
                let mut values = [[0u64; 2]; P];
                for pair in 0..P {
                    for row in 0..2 {
                        let mut bytes = [0u8; 8];
                        for place in 0..work.depth - channel {
                            bytes[place] = *from[pair][row].add(channel + place);
                        }
                        values[pair][row] = u64::from_le_bytes(bytes);
                    }
                }
                matrix_step::<P, V>(isa, &mut sums, &values, weights);
                weights = weights.add(2 * V * Neon::LANES);
            }
        }
        let size = work.finish.kind.size();
        for row in 0..rows {
            let mut both = [0i32; 2 * 4];
            for vector in 0..V {
                let [left, right] = sums[row / 2][vector];
                let (left, right) = (vreinterpretq_s64_s32(left), vreinterpretq_s64_s32(right));
                let lanes = if row % 2 == 0 { vzip1q_s64(left, right) } else { vzip2q_s64(left, right) };
                isa.store_int(both.as_mut_ptr().add(vector * Neon::LANES), vreinterpretq_s32_s64(lanes));
            }
            let to = work.out.add((first + row) * work.stride * size);
            store_row(isa, both.as_ptr(), work.factors.factors, to, work.columns, &work.finish);
        }
    }
}

/// Eight channels.
#[inline(always)]
unsafe fn matrix_step<const P: usize, const V: usize>(
    isa: Neon,
    sums: &mut [[[int32x4_t; 2]; V]; P],
    values: &[[u64; 2]; P],
    weights: *const i32,
) {
    // SAFETY: as the caller vouches; the instruction is there in the functions that this is for.
    unsafe {
        let mut weight = [[isa.splat_int(0); 2]; V];
        for vector in 0..V {
            for half in 0..2 {
                weight[vector][half] = isa.load_int(weights.add((2 * vector + half) * Neon::LANES));
            }
        }
        for pair in 0..P {
            let [first, second] = values[pair].map(|value| vcreate_s64(value));
            let value = vreinterpretq_s32_s64(vcombine_s64(first, second));
            for vector in 0..V {
                for half in 0..2 {
                    asm!(
                        "usmmla {sums:v}.4s, {value:v}.16b, {weight:v}.16b",
                        sums = inlateout(vreg) sums[pair][vector][half],
                        value = in(vreg) value,
                        weight = in(vreg) weight[vector][half],
                        options(pure, nomem, nostack, preserves_flags),
                    );
                }
            }
        }
    }
}
