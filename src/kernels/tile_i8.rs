//! The register tile of the product of bytes: four channels of a row times four rows of weights in one step.

use super::conv_i8::{Finish, store_sums};
use super::isa::{Dot, Isa};
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
    /// `taps * ceil(depth / 4)` rows of whole vectors, four bytes a lane; in the order of [`Order`].
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

/// How the tile of an instruction set takes its operands: what is packed for one is wrong for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// Most rows of the tile.
    pub(super) rows: usize,
    /// Channels of a step, 4 or 8: the bytes of a column that lie together.
    pub(super) channels: usize,
    /// Activations are numbers from -128 to 127 instead of 0 to 255.
    pub(super) signed: bool,
}

impl Order {
    /// That of [`tile_i8`] with `D`.
    pub(super) const fn of<I: Isa, D: Dot<I>>() -> Order {
        Order { rows: D::ROWS, channels: 4, signed: D::SIGNED }
    }
}

/// Rows of the tile with rows of `vectors` vectors.
pub(super) fn rows_of(kernels: &Kernels, vectors: usize) -> usize {
    kernels.tile_rows[vectors - 1].min(kernels.order_i8.rows)
}

/// The register tile of `rows` by `vectors`.
///
/// # Safety
/// All that [`TileI8`] describes must be there, `rows` pointers per tap, and `out` must not overlap what is read.
#[inline(always)]
pub(super) unsafe fn tile_i8<I: Isa, D: Dot<I>>(isa: I, work: &TileI8, rows: usize, vectors: usize) {
    macro_rules! dispatch {
        ($($vectors:literal: $($rows:literal)*;)*) => {
            match (rows, vectors) {
                // The constant condition drops the tiles that this instruction set has no registers for.
                $($(($rows, $vectors) if const { I::TILE_ROWS[$vectors - 1] >= $rows && D::ROWS >= $rows } => {
                    // SAFETY: as the caller vouches.
                    unsafe { tile_of::<I, D, $rows, $vectors>(isa, work) }
                })*)*
                _ => {}
            }
        };
    }
    dispatch!(
        1: 1 2 3 4 5 6 7 8;
        2: 1 2 3 4 5 6 7 8;
        3: 1 2 3 4 5 6;
        4: 1 2 3 4 5 6;
    );
}

#[inline(always)]
unsafe fn tile_of<I: Isa, D: Dot<I>, const R: usize, const V: usize>(isa: I, work: &TileI8) {
    // SAFETY: the caller vouches for everything that `work` describes.
    unsafe {
        let mut sums = [[D::begin(isa, isa.splat_int(0)); V]; R];
        for vector in 0..V {
            let bias = D::begin(isa, isa.load_int(work.factors.bias.add(vector * I::LANES)));
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
            while I::BY_LANE && channel + 16 <= work.depth {
                four_steps_of::<I, D, R, V>(isa, &mut sums, &from, channel, weights, work.flip);
                weights = weights.add(4 * V * I::LANES);
                channel += 16;
            }
            while channel < whole {
                let mut four = [0i32; R];
                for row in 0..R {
                    four[row] = from[row].add(channel).cast::<i32>().read_unaligned();
                }
                step_of::<I, D, R, V>(isa, &mut sums, &four, weights, work.flip);
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
                step_of::<I, D, R, V>(isa, &mut sums, &four, weights, work.flip);
                weights = weights.add(V * I::LANES);
            }
        }
        let size = work.finish.kind.size();
        for vector in 0..V {
            let factors = isa.load(work.factors.factors.add(vector * I::LANES));
            let count = (work.columns - vector * I::LANES).min(I::LANES);
            for row in 0..R {
                let to = work.out.add((row * work.stride + vector * I::LANES) * size);
                store_sums(isa, D::end(isa, sums[row][vector]), factors, to, count, &work.finish);
            }
        }
    }
}

/// Four channels.
#[inline(always)]
unsafe fn step_of<I: Isa, D: Dot<I>, const R: usize, const V: usize>(
    isa: I,
    sums: &mut [[D::Sums; V]; R],
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
            sums[row][vector] = D::add(isa, sums[row][vector], value, weight[vector]);
        }
    }
}

/// Sixteen channels, which are one vector of a row.
#[inline(always)]
unsafe fn four_steps_of<I: Isa, D: Dot<I>, const R: usize, const V: usize>(
    isa: I,
    sums: &mut [[D::Sums; V]; R],
    from: &[*const u8; R],
    channel: usize,
    weights: *const i32,
    flip: i32,
) {
    // SAFETY: as the caller vouches; sixteen bytes remain behind each pointer.
    unsafe {
        let mut values = [isa.splat_int(0); R];
        for row in 0..R {
            values[row] = isa.xor(isa.load_int(from[row].add(channel).cast()), isa.splat_int(flip));
        }
        macro_rules! step {
            ($($lane:literal)*) => { $(
                let mut weight = [isa.splat_int(0); V];
                for vector in 0..V {
                    weight[vector] = isa.load_int(weights.add(($lane * V + vector) * I::LANES));
                }
                for row in 0..R {
                    for vector in 0..V {
                        let sum = sums[row][vector];
                        sums[row][vector] = D::add_lane::<$lane>(isa, sum, values[row], weight[vector]);
                    }
                }
            )* };
        }
        step!(0 1 2 3);
    }
}
