//! The register tile of the product of bytes: four channels of a row times four rows of weights in one step.

use super::conv_i8::{Finish, store_sums};
use super::isa::Isa;
use super::table::Kernels;

/// The work of one register tile.
pub(super) struct TileI8 {
    /// Per tap, a pointer for each row.
    pub(super) pointers: *const *const u8,
    /// Pointers from one tap to the next.
    pub(super) pointer_stride: usize,
    pub(super) taps: usize,
    /// Bytes behind each pointer.
    pub(super) depth: usize,
    /// `taps * ceil(depth / 4)` rows of whole vectors, four bytes a lane.
    pub(super) weights: *const i32,
    /// Exclusive or of every four bytes of the rows.
    pub(super) flip: i32,
    pub(super) factors: Factors,
    pub(super) out: *mut u8,
    /// Elements from one row of `out` to the next.
    pub(super) stride: usize,
    /// Columns of `out` that exist.
    pub(super) columns: usize,
    pub(super) finish: Finish,
}

/// Per column, in whole vectors.
pub(super) struct Factors {
    pub(super) bias: *const i32,
    pub(super) factors: *const f32,
}

/// What an output element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bytes,
    Ints,
    Floats,
}

impl Kind {
    /// Bytes of an element.
    pub(super) fn size(self) -> usize {
        if self == Kind::Bytes { 1 } else { 4 }
    }
}

/// Rows of the tile with rows of `vectors` vectors.
pub(super) fn rows_of(kernels: &Kernels, vectors: usize) -> usize {
    kernels.tile_rows[vectors - 1].min(MAX_ROWS)
}

/// The tile has no more rows.
const MAX_ROWS: usize = 6;

/// The register tile of `rows` by `vectors`. `FAST` as in [`Isa::dot`].
///
/// # Safety
/// All that [`TileI8`] describes must be there, `rows` pointers per tap, and `out` must not overlap what is read.
#[inline(always)]
pub(super) unsafe fn tile_i8<I: Isa, const FAST: bool>(isa: I, work: &TileI8, rows: usize, vectors: usize) {
    macro_rules! dispatch {
        ($($vectors:literal: $($rows:literal)*;)*) => {
            match (rows, vectors) {
                // The constant condition drops the tiles that this instruction set has no registers for.
                $($(($rows, $vectors) if const { I::TILE_ROWS[$vectors - 1] >= $rows } => {
                    // SAFETY: as the caller vouches.
                    unsafe { tile_of::<I, FAST, $rows, $vectors>(isa, work) }
                })*)*
                _ => {}
            }
        };
    }
    dispatch!(
        1: 1 2 3 4 5 6;
        2: 1 2 3 4 5 6;
        3: 1 2 3 4 5 6;
        4: 1 2 3 4 5 6;
    );
}

#[inline(always)]
unsafe fn tile_of<I: Isa, const FAST: bool, const R: usize, const V: usize>(isa: I, work: &TileI8) {
    // SAFETY: the caller vouches for everything that `work` describes.
    unsafe {
        let mut sums = [[isa.splat_int(0); V]; R];
        for vector in 0..V {
            let bias = isa.load_int(work.factors.bias.add(vector * I::LANES));
            for row in 0..R {
                sums[row][vector] = bias;
            }
        }
        let mut weights = work.weights;
        let whole = work.depth / 4 * 4;
        for tap in 0..work.taps {
            let mut from = [std::ptr::null::<u8>(); R];
            for row in 0..R {
                from[row] = *work.pointers.add(tap * work.pointer_stride + row);
            }
            let mut channel = 0;
            while channel < whole {
                let mut four = [0i32; R];
                for row in 0..R {
                    four[row] = from[row].add(channel).cast::<i32>().read_unaligned();
                }
                step_of::<I, FAST, R, V>(isa, &mut sums, &four, weights, work.flip);
                weights = weights.add(V * I::LANES);
                channel += 4;
            }
            if channel < work.depth {
                // What is missing meets weights of zero.
                let mut four = [0i32; R];
                for row in 0..R {
                    let mut bytes = [0u8; 4];
                    for place in 0..work.depth - channel {
                        bytes[place] = *from[row].add(channel + place);
                    }
                    four[row] = i32::from_le_bytes(bytes);
                }
                step_of::<I, FAST, R, V>(isa, &mut sums, &four, weights, work.flip);
                weights = weights.add(V * I::LANES);
            }
        }
        let size = work.finish.kind.size();
        for vector in 0..V {
            let factors = isa.load(work.factors.factors.add(vector * I::LANES));
            let count = (work.columns - vector * I::LANES).min(I::LANES);
            for row in 0..R {
                let to = work.out.add((row * work.stride + vector * I::LANES) * size);
                store_sums(isa, sums[row][vector], factors, to, count, &work.finish);
            }
        }
    }
}

/// Four channels.
#[inline(always)]
unsafe fn step_of<I: Isa, const FAST: bool, const R: usize, const V: usize>(
    isa: I,
    sums: &mut [[I::I32; V]; R],
    four: &[i32; R],
    weights: *const i32,
    flip: i32,
) {
    let mut weight = [isa.splat_int(0); V];
    for vector in 0..V {
        // SAFETY: as the caller vouches.
        weight[vector] = unsafe { isa.load_int(weights.add(vector * I::LANES)) };
    }
    for row in 0..R {
        let value = isa.splat_int(four[row] ^ flip);
        for vector in 0..V {
            sums[row][vector] = isa.dot::<FAST>(sums[row][vector], value, weight[vector]);
        }
    }
}
