//! The register tiles of the product of bytes: four channels of a row times four rows of weights in one step.

use super::conv_i8::{Finish, store_bytes, store_row};
use super::isa::{Dot, Isa, MAX_LANES};
use super::product::{for_rows, part};

/// Some rows times one panel of weights.
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
    /// What to ask for meanwhile, of `ahead_count` lanes; need not be readable.
    pub(super) ahead: *const i32,
    pub(super) ahead_count: usize,
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
    /// Channels of a step, 4 or 8: the bytes of a column that lie together.
    pub(super) channels: usize,
    /// The tile takes 128 from the activations: it multiplies numbers from -128 to 127.
    pub(super) signed: bool,
    /// [`Isa::SEGMENT`], of the depthwise loops.
    pub(super) segment: usize,
}

impl Order {
    /// That of [`tile_i8`] with `D`.
    pub(super) const fn of<I: Isa, D: Dot<I>>() -> Order {
        Order { channels: 4, signed: D::SIGNED, segment: I::SEGMENT }
    }
}

/// Sums of the largest tile.
const MAX_SUMS: usize = 6 * 4 * MAX_LANES;

/// `rows` rows of `vectors` vectors, in register tiles of nearly equal height.
///
/// # Safety
/// All that [`TileI8`] describes must be there, `rows` pointers per tap, and `out` must not overlap what is read.
#[inline(always)]
pub(super) unsafe fn tile_i8<I: Isa, D: Dot<I>>(isa: I, work: &TileI8, rows: usize, vectors: usize) {
    let tiles = rows.div_ceil(I::TILE_ROWS[vectors - 1].min(D::ROWS));
    for number in 0..tiles {
        let tile = part(rows, tiles, number);
        macro_rules! dispatch {
            ($($vectors:literal: $($rows:literal)*;)*) => {
                match (tile.len(), vectors) {
                    // The constant condition drops the tiles that this instruction set has no registers for.
                    $($(($rows, $vectors) if const { I::TILE_ROWS[$vectors - 1] >= $rows && D::ROWS >= $rows } => {
                        // SAFETY: as the caller vouches.
                        unsafe { tile_of::<I, D, $rows, $vectors>(isa, work, tile.start, number) }
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
}

/// The tile of `R` rows from `first` on, which is number `tile`.
#[inline(always)]
unsafe fn tile_of<I: Isa, D: Dot<I>, const R: usize, const V: usize>(
    isa: I,
    work: &TileI8,
    first: usize,
    tile: usize,
) {
    // SAFETY: the caller vouches for everything that `work` describes.
    unsafe {
        let mut sums = [[D::begin(isa, isa.splat_int(0)); V]; R];
        for vector in 0..V {
            let bias = D::begin(isa, isa.load_int(work.factors.bias.add(vector * I::LANES)));
            for_rows!(row of R { sums[row][vector] = bias; });
        }
        let mut weights = work.weights;
        let whole = work.depth / 4 * 4;
        // Every tile asks for a vector per step of the depth, until all are asked for.
        let asked = tile * work.taps * work.depth.div_ceil(4) * I::LANES;
        let (mut ahead, ahead_step) =
            if asked < work.ahead_count { (work.ahead.wrapping_add(asked), I::LANES) } else { (weights, 0) };
        for tap in 0..work.taps {
            let mut from = [std::ptr::null::<u8>(); R];
            for row in 0..R {
                from[row] = *work.pointers.add(tap * work.pointer_stride + first + row);
            }
            let mut channel = 0;
            while I::BY_LANE && channel + 16 <= work.depth {
                four_steps_of::<I, D, R, V>(isa, &mut sums, &from, channel, weights);
                weights = weights.add(4 * V * I::LANES);
                channel += 16;
            }
            while channel < whole {
                isa.prefetch_far(ahead.cast());
                ahead = ahead.wrapping_add(ahead_step);
                step_of::<I, D, R, V, false>(isa, &mut sums, &from, channel, work.depth, weights);
                weights = weights.add(V * I::LANES);
                channel += 4;
            }
            if channel < work.depth {
                step_of::<I, D, R, V, true>(isa, &mut sums, &from, channel, work.depth, weights);
                weights = weights.add(V * I::LANES);
            }
        }
        let size = work.finish.kind.size();
        let mut factors = [isa.splat(0.0); V];
        for vector in 0..V {
            factors[vector] = isa.load(work.factors.factors.add(vector * I::LANES));
        }
        let to = work.out.add(first * work.stride * size);
        let mut ended = [[isa.splat_int(0); V]; R];
        for_rows!(row of R {
            for vector in 0..V {
                ended[row][vector] = D::end(isa, sums[row][vector]);
            }
        });
        if work.finish.kind == Kind::Bytes && (I::MASKS || work.columns == V * I::LANES) {
            for_rows!(row of R {
                store_bytes(isa, ended[row], factors, to.add(row * work.stride), work.columns, &work.finish);
            });
            return;
        }
        // All else is one copy of code that takes the sums from memory.
        let mut memory = [0i32; MAX_SUMS];
        for_rows!(row of R {
            for vector in 0..V {
                isa.store_int(memory.as_mut_ptr().add((row * V + vector) * I::LANES), ended[row][vector]);
            }
        });
        for row in 0..R {
            let row_sums = memory.as_ptr().add(row * V * I::LANES);
            let to = to.add(row * work.stride * size);
            store_row(isa, row_sums, work.factors.factors, to, work.columns, &work.finish);
        }
    }
}

/// Bytes less 128 where the products want that.
#[inline(always)]
fn turned<I: Isa, D: Dot<I>>(isa: I, bytes: I::I32) -> I::I32 {
    if D::SIGNED { isa.xor(bytes, isa.splat_int(0x8080_8080_u32 as i32)) } else { bytes }
}

/// The last bytes of a row whose length is no multiple of four, and zeros; what is missing meets weights of zero.
#[inline(always)]
unsafe fn rest(row: *const u8, depth: usize) -> i32 {
    let missing = 4 - depth % 4;
    // SAFETY: the row has `depth` bytes.
    unsafe {
        if depth >= 4 {
            return (row.add(depth - 4).cast::<u32>().read_unaligned() >> (8 * missing)) as i32;
        }
        // One by one: a copy of so few bytes would be a call.
        let byte = |place: usize| if place < depth { i32::from(*row.add(place)) << (8 * place) } else { 0 };
        byte(0) | byte(1) | byte(2)
    }
}

/// Four channels, or the last ones of `depth` where they are fewer.
#[inline(always)]
unsafe fn step_of<I: Isa, D: Dot<I>, const R: usize, const V: usize, const REST: bool>(
    isa: I,
    sums: &mut [[D::Sums; V]; R],
    from: &[*const u8; R],
    channel: usize,
    depth: usize,
    weights: *const i32,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        let mut weight = [isa.splat_int(0); V];
        for vector in 0..V {
            weight[vector] = isa.load_int(weights.add(vector * I::LANES));
        }
        for row in 0..R {
            // Row by row: all rows' values at once would leave too few registers for the sums.
            let four = if REST {
                isa.splat_int(rest(from[row], depth))
            } else {
                isa.splat_bytes(from[row].add(channel))
            };
            let four = turned::<I, D>(isa, four);
            for vector in 0..V {
                sums[row][vector] = D::add(isa, sums[row][vector], four, weight[vector]);
            }
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
) {
    // SAFETY: as the caller vouches; sixteen bytes remain behind each pointer.
    unsafe {
        let mut values = [isa.splat_int(0); R];
        for row in 0..R {
            values[row] = turned::<I, D>(isa, isa.load_int(from[row].add(channel).cast()));
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
