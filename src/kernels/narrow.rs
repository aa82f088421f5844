//! Products with few columns: convolutions with few output channels, such as the heads of networks that score pixels, and
//! filters of signals.
//!
//! [`product`](super::product) puts columns into the lanes of vectors, most of which would be empty. Here vectors run along the
//! rows of both matrices instead: every lane sums up a part of a product, and the lanes are added at the end. Rows come as
//! pointers to pieces, as there. Loops, from the outside: blocks of rows, pieces whose weights stay in the first-level cache,
//! tiles of rows by all columns.

use super::aligned::AlignedFloats;
use super::error::{KernelError, expect_length, product as size_of_product};
use super::isa::Isa;
use super::math;
use super::product::{Epilogue, MAX_POINTERS, Rows, SCRATCH, filled, for_rows, part};
use super::table::Kernels;
use super::threads::{SendPtr, Threads};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Rows of a block, at most.
const BLOCK_ROWS: usize = 120;
/// Floats of weights that a block meets at a time.
const WEIGHTS: usize = 8 * 1024;
/// Taps that a block meets at a time, at most.
const MAX_TAPS: usize = 64;
/// Multiplications below which a second thread costs more than it brings, with those of empty lanes.
const PARALLEL_WORK: usize = 64 * 1024;
/// What it costs to add the lanes of a sum, in multiply-adds of vectors.
const LANES_OF_SUM: usize = 6;

/// Defines the register tiles: for an instruction set of so many lanes, columns and the rows that registers are left for.
/// There are none for more columns than half of the lanes.
macro_rules! tiles {
    ($($lanes:literal: $($columns:literal by $rows:literal),*;)*) => {
        /// Rows of a tile; 0 where there is none.
        const fn tile_rows(lanes: usize, columns: usize) -> usize {
            match (lanes, columns) {
                $($(($lanes, $columns) => $rows,)*)*
                _ => 0,
            }
        }

        /// All tiles of a block.
        ///
        /// # Safety
        /// All that [`Tiles`] describes must be there, and `out` must not overlap what is read.
        #[inline(always)]
        pub(super) unsafe fn narrow<I: Isa>(isa: I, work: &Tiles) {
            match work.columns {
                // The constant condition drops the tiles of other instruction sets.
                $($($columns if const { I::LANES == $lanes } => {
                    // SAFETY: as the caller vouches.
                    unsafe { tiles_of::<I, $columns, $rows>(isa, work) }
                })*)*
                _ => {}
            }
        }
    };
}

tiles! {
    4: 1 by 8, 2 by 6;
    8: 1 by 8, 2 by 6, 3 by 4, 4 by 3;
    16: 1 by 8, 2 by 8, 3 by 8, 4 by 6, 5 by 5, 6 by 4, 7 by 3, 8 by 3;
}

/// Sums of the largest tile.
const TILE: usize = 32;

/// Whether this is the faster way to multiply rows of `taps` pieces of `depth` floats by a matrix of `columns`.
pub(super) fn pays(kernels: &Kernels, [taps, depth]: [usize; 2], columns: usize) -> bool {
    let vectors = taps.saturating_mul(depth.div_ceil(kernels.lanes));
    let cost = vectors.saturating_add(LANES_OF_SUM).saturating_mul(columns);
    // The other way takes a multiply-add for every float of the row.
    tile_rows(kernels.lanes, columns) > 0 && cost < taps.saturating_mul(depth)
}

/// A matrix of few columns, packed for one instruction set, with the bias.
#[derive(Clone, Debug)]
pub(super) struct PackedNarrow {
    /// For every tap and vector of its depth, a vector for each column; zeros after the depth.
    weights: AlignedFloats,
    /// The bias over and over, so many vectors as there are columns.
    bias: AlignedFloats,
    taps: usize,
    depth: usize,
    columns: usize,
    lanes: usize,
}

impl PackedNarrow {
    /// Packs `element(tap, place, column)` of every tap and place in its depth.
    pub(super) fn pack(
        kernels: &Kernels,
        [taps, depth]: [usize; 2],
        columns: usize,
        bias: Option<&[f32]>,
        element: impl Fn(usize, usize, usize) -> f32,
    ) -> Result<PackedNarrow, KernelError> {
        const KERNEL: &str = "narrow product";
        let lanes = kernels.lanes;
        if tile_rows(lanes, columns) == 0 {
            let problem = "has no columns, or too many";
            return Err(KernelError::Descriptor { kernel: KERNEL, argument: "weights", problem });
        }
        let vectors = depth.div_ceil(lanes);
        let mut weights =
            AlignedFloats::zeroed(size_of_product(KERNEL, "weights", &[taps, vectors, columns, lanes])?);
        for (index, vector) in weights.as_mut_slice().chunks_exact_mut(lanes).enumerate() {
            let (column, piece) = (index % columns, index / columns);
            let (tap, first) = (piece / vectors, piece % vectors * lanes);
            for (place, weight) in (first..depth).zip(vector) {
                *weight = element(tap, place, column);
            }
        }
        let mut repeated = AlignedFloats::zeroed(columns * lanes);
        if let Some(bias) = bias {
            expect_length(KERNEL, "bias", columns, bias.len())?;
            let all = repeated.as_mut_slice().chunks_exact_mut(columns);
            all.for_each(|chunk| chunk.copy_from_slice(bias));
        }
        Ok(PackedNarrow { weights, bias: repeated, taps, depth, columns, lanes })
    }

    /// Fails unless these were packed for `kernels`.
    pub(super) fn check(&self, kernels: &Kernels, kernel: &'static str) -> Result<(), KernelError> {
        if self.lanes == kernels.lanes {
            return Ok(());
        }
        let problem = "are packed for another instruction set";
        Err(KernelError::Descriptor { kernel, argument: "weights", problem })
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        (self.weights.len() + self.bias.len()) * size_of::<f32>()
    }

    /// Floats of weights of a tap.
    fn tap(&self) -> usize {
        self.depth.next_multiple_of(self.lanes) * self.columns
    }
}

/// Rows that are the pixels of an image whose lines are needed again for the next ones.
#[derive(Clone, Copy)]
pub(super) struct Image {
    /// Pixels of a line.
    pub(super) line: usize,
    /// Floats that the window of a pixel has and that of its neighbour has not.
    pub(super) pixel: usize,
}

impl Image {
    /// Pixels of a line after which one goes on below: what is under them stays in the first-level cache.
    fn strip(self, tile_rows: usize) -> usize {
        /// Floats of that.
        const STRIP: usize = 6 * 1024;
        let strip = STRIP / self.pixel.max(1) / tile_rows * tile_rows;
        // The last tile of a strip may be half empty.
        if self.line < 4 * tile_rows { self.line } else { strip.clamp(2 * tile_rows, self.line) }
    }
}

/// `out = epilogue(rows * weights)`, with as many rows as `out` has.
///
/// # Safety
/// `weights` must be packed for `kernels`. The pointers that `rows` yields must be readable for the depth of the weights, for as
/// many taps, and not into `out`. A residual must be as long as `out`.
pub(super) unsafe fn narrow_product<R: Rows<f32>>(
    kernels: &Kernels,
    rows: &R,
    weights: &PackedNarrow,
    image: Option<Image>,
    out: &mut [f32],
    epilogue: &Epilogue<'_>,
    threads: &Threads,
) {
    let count = out.len() / weights.columns;
    let tile_rows = tile_rows(kernels.lanes, weights.columns);
    let work = count.saturating_mul(weights.weights.len());
    let wanted =
        if threads.count() == 1 { 1 } else { (threads.count() * 4).min(work / PARALLEL_WORK).max(1) };
    let tasks = wanted.min(count.div_ceil(2 * tile_rows));
    let most_taps = (WEIGHTS / weights.tap().max(1)).clamp(1, MAX_TAPS);
    // Nearly equal parts.
    let most_taps = weights.taps.div_ceil(weights.taps.div_ceil(most_taps).max(1));
    let share = Shared { kernels, rows, weights, epilogue, tile_rows, most_taps };
    let data = SendPtr(out.as_mut_ptr());
    threads.for_each(tasks, |task| {
        let rows = part(count, tasks, task);
        // SAFETY: as the caller vouches; the parts are disjoint.
        unsafe { share.run(rows, image, data.get()) };
    });
}

struct Shared<'a, R> {
    kernels: &'a Kernels,
    rows: &'a R,
    weights: &'a PackedNarrow,
    epilogue: &'a Epilogue<'a>,
    tile_rows: usize,
    /// Taps that a block meets at a time.
    most_taps: usize,
}

impl<R: Rows<f32>> Shared<'_, R> {
    /// # Safety
    /// As [`narrow_product`], for these rows only.
    unsafe fn run(&self, rows: Range<usize>, image: Option<Image>, data: *mut f32) {
        let per_row = self.rows.scratch_per_row();
        let by_scratch = SCRATCH.checked_div(per_row).unwrap_or(BLOCK_ROWS);
        let limit = BLOCK_ROWS.min(MAX_POINTERS / self.most_taps.max(1)).min(by_scratch);
        let limit = (limit / self.tile_rows).max(1);
        // Only what is used gets initialised.
        let most_rows = limit.min(rows.len().div_ceil(self.tile_rows)) * self.tile_rows;
        let mut memory = [const { MaybeUninit::<f32>::uninit() }; SCRATCH];
        let scratch = filled(&mut memory, (most_rows * per_row).min(SCRATCH), 0.0);
        let mut memory = [const { MaybeUninit::<*const f32>::uninit() }; MAX_POINTERS];
        let pointers = filled(&mut memory, most_rows * self.most_taps, std::ptr::null());
        let line = image.map_or(rows.end, |image| image.line).max(1);
        let strip = image.map_or(line, |image| image.strip(self.tile_rows)).max(1);
        if strip >= line {
            // SAFETY: as the caller vouches.
            return unsafe { self.blocks(rows, limit, data, pointers, scratch) };
        }
        for left in (0..line).step_by(strip) {
            for start in (rows.start / line * line..rows.end).step_by(line) {
                let pixels = start + left..start + line.min(left + strip);
                let pixels = pixels.start.max(rows.start)..pixels.end.min(rows.end);
                if !pixels.is_empty() {
                    // SAFETY: as the caller vouches.
                    unsafe { self.blocks(pixels, limit, data, pointers, scratch) };
                }
            }
        }
    }

    /// Blocks of `limit` tiles at most.
    ///
    /// # Safety
    /// As [`narrow_product`], for these rows only.
    unsafe fn blocks(
        &self,
        rows: Range<usize>,
        limit: usize,
        data: *mut f32,
        pointers: &mut [*const f32],
        scratch: &mut [f32],
    ) {
        let (tiles, rest) = (rows.len() / self.tile_rows, rows.len() % self.tile_rows);
        let blocks = tiles.div_ceil(limit);
        for block in 0..blocks {
            let tiles = part(tiles, blocks, block);
            let [start, end] = [tiles.start, tiles.end].map(|tile| rows.start + tile * self.tile_rows);
            // SAFETY: as the caller vouches.
            unsafe { self.block(start..end, data, pointers, scratch) };
        }
        if rest > 0 {
            // SAFETY: as the caller vouches.
            unsafe { self.block(rows.end - rest..rows.end, data, pointers, scratch) };
        }
    }

    /// Whole tiles, or less than one.
    ///
    /// # Safety
    /// As [`narrow_product`], for these rows only.
    unsafe fn block(
        &self,
        rows: Range<usize>,
        data: *mut f32,
        pointers: &mut [*const f32],
        scratch: &mut [f32],
    ) {
        let Shared { weights, tile_rows, epilogue, .. } = *self;
        let (first, floats) = (rows.start * weights.columns, rows.len() * weights.columns);
        // SAFETY: the first of the rows lies within the output.
        let to = unsafe { data.add(first) };
        let residual = epilogue.residual.map(|residual| &residual[first..][..floats]);
        // Less than a tile is filled up with its last row.
        let (mut sums, mut added) = ([0.0; TILE], [0.0; TILE]);
        let missing = tile_rows.saturating_sub(rows.len());
        let (out, residual) = match (residual, missing) {
            (None, 0) => (to, std::ptr::null()),
            (Some(residual), 0) => (to, residual.as_ptr()),
            (None, _) => (sums.as_mut_ptr(), std::ptr::null()),
            (Some(residual), _) => {
                added[..floats].copy_from_slice(residual);
                (sums.as_mut_ptr(), added.as_ptr())
            }
        };
        for tap in (0..weights.taps).step_by(self.most_taps.max(1)) {
            let taps = tap..weights.taps.min(tap + self.most_taps);
            let used = &mut pointers[..rows.len() * taps.len()];
            self.rows.point(rows.clone(), taps.clone(), 0, used, scratch);
            if missing > 0 {
                spread(&mut pointers[..tile_rows * taps.len()], rows.len(), tile_rows);
            }
            let work = Tiles {
                pointers: pointers.as_ptr(),
                rows: rows.len() + missing,
                taps: taps.len(),
                depth: weights.depth,
                weights: weights.weights.as_slice()[taps.start * weights.tap()..].as_ptr(),
                columns: weights.columns,
                bias: weights.bias.as_slice().as_ptr(),
                out,
                residual,
                min: epilogue.min,
                max: epilogue.max,
                first: taps.start == 0,
                last: taps.end == weights.taps,
            };
            // SAFETY: the pointers were filled, for whole tiles; the sums are as many as the output has, or one tile.
            unsafe { (self.kernels.narrow)(&work) };
        }
        if missing > 0 {
            // SAFETY: these rows are ours.
            unsafe { std::ptr::copy_nonoverlapping(sums.as_ptr(), to, floats) };
        }
        if let Some(activation) = epilogue.activation {
            // SAFETY: in place over rows that were just written.
            unsafe { self.kernels.activate(activation, to, floats) };
        }
    }
}

/// Makes `count` pointers of every tap `wanted`, by repeating the last one.
fn spread(pointers: &mut [*const f32], count: usize, wanted: usize) {
    let taps = pointers.len() / wanted;
    for tap in (0..taps).rev() {
        for row in (0..wanted).rev() {
            pointers[tap * wanted + row] = pointers[tap * count + row.min(count - 1)];
        }
    }
}

/// The work on a block of rows.
pub(super) struct Tiles {
    /// Per tap, a pointer for each row.
    pointers: *const *const f32,
    /// A multiple of those of a tile.
    rows: usize,
    taps: usize,
    /// Floats behind each pointer.
    depth: usize,
    /// See [`PackedNarrow`].
    weights: *const f32,
    columns: usize,
    /// So many vectors as there are columns.
    bias: *const f32,
    /// `rows * columns` floats.
    out: *mut f32,
    /// As many; null for none.
    residual: *const f32,
    min: f32,
    max: f32,
    /// The sums begin with zero, not with what `out` holds.
    first: bool,
    /// Bias, residual and bounds are applied.
    last: bool,
}

/// # Safety
/// As [`narrow`].
#[inline(always)]
unsafe fn tiles_of<I: Isa, const N: usize, const R: usize>(isa: I, work: &Tiles) {
    // SAFETY: tiles and vectors of what the caller vouches for.
    unsafe {
        for row in (0..work.rows).step_by(R) {
            tile_of::<I, N, R>(isa, work, row);
        }
        if !work.last {
            return;
        }
        let count = work.rows * N;
        let (mut at, mut vector) = (0, 0);
        while at < count {
            let lanes = I::LANES.min(count - at);
            let mut sum = isa.load_up_to(work.out.add(at), lanes);
            sum = isa.add(sum, isa.load(work.bias.add(vector * I::LANES)));
            if !work.residual.is_null() {
                sum = isa.add(sum, isa.load_up_to(work.residual.add(at), lanes));
            }
            isa.store_up_to(work.out.add(at), math::clamp(isa, sum, work.min, work.max), lanes);
            at += lanes;
            vector = if vector + 1 == N { 0 } else { vector + 1 };
        }
    }
}

/// The sums of R rows by N columns.
///
/// # Safety
/// As [`narrow`].
#[inline(always)]
unsafe fn tile_of<I: Isa, const N: usize, const R: usize>(isa: I, work: &Tiles, first_row: usize) {
    let mut sums = [[isa.splat(0.0); N]; R];
    // SAFETY: the caller vouches for R pointers per tap with `depth` floats behind each, N vectors of weights for every vector
    // of them, and R rows of N floats of output.
    unsafe {
        let mut weights = work.weights;
        for tap in 0..work.taps {
            let mut from = [std::ptr::null::<f32>(); R];
            for row in 0..R {
                from[row] = *work.pointers.add(tap * work.rows + first_row + row);
            }
            let mut at = 0;
            while at + I::LANES <= work.depth {
                step_of::<I, N, R, true>(isa, &mut sums, weights, &from, at, I::LANES);
                weights = weights.add(N * I::LANES);
                at += I::LANES;
            }
            if at < work.depth {
                step_of::<I, N, R, false>(isa, &mut sums, weights, &from, at, work.depth - at);
                weights = weights.add(N * I::LANES);
            }
        }
        let out = work.out.add(first_row * N);
        let fours = (R * N).div_ceil(4);
        for_rows!(four of fours {
            let at = out.add(four * 4);
            let mut of = [isa.splat(0.0); 4];
            for index in 0..4 {
                let index_of_sum = four * 4 + index;
                if index_of_sum < R * N {
                    of[index] = sums[index_of_sum / N][index_of_sum % N];
                }
            }
            let mut added = isa.reduce_add_four(of);
            if four * 4 + 4 <= R * N {
                if !work.first {
                    let before = at.cast::<[f32; 4]>().read_unaligned();
                    for index in 0..4 {
                        added[index] += before[index];
                    }
                }
                at.cast::<[f32; 4]>().write_unaligned(added);
            } else {
                for index in 0..R * N % 4 {
                    let before = if work.first { 0.0 } else { *at.add(index) };
                    at.add(index).write(before + added[index]);
                }
            }
        });
    }
}

/// Adds the products of a vector of every row, `count` floats at `from[row][at..]`, with that of every column.
///
/// # Safety
/// These floats must be there, whole vectors if `FULL`, and N vectors of weights.
#[inline(always)]
unsafe fn step_of<I: Isa, const N: usize, const R: usize, const FULL: bool>(
    isa: I,
    sums: &mut [[I::F32; N]; R],
    weights: *const f32,
    from: &[*const f32; R],
    at: usize,
    count: usize,
) {
    // SAFETY: as the caller vouches. The fewer vectors are kept in registers.
    unsafe {
        if N < R {
            let mut weight = [isa.splat(0.0); N];
            for column in 0..N {
                weight[column] = isa.load(weights.add(column * I::LANES));
            }
            for_rows!(row of R {
                let from = from[row].add(at);
                let value = if FULL { isa.load(from) } else { isa.load_partial(from, count) };
                for column in 0..N {
                    sums[row][column] = isa.mul_add(value, weight[column], sums[row][column]);
                }
            });
        } else {
            let mut values = [isa.splat(0.0); R];
            for_rows!(row of R {
                let from = from[row].add(at);
                values[row] = if FULL { isa.load(from) } else { isa.load_partial(from, count) };
            });
            for_rows!(column of N {
                let weight = isa.load(weights.add(column * I::LANES));
                for row in 0..R {
                    sums[row][column] = isa.mul_add(values[row], weight, sums[row][column]);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::conv::{Conv2d, ConvPlan, PackedConv};
    use crate::kernels::filter::{Filter, FilterOrder, StoredFilter};
    use crate::kernels::table::available;
    use crate::kernels::testing::{ConvCase, assert_close, random, same_conv as same};
    use crate::kernels::{PANEL_WIDTHS, PanelWidth};
    use crate::tensor::{AlignedVec, buffer::bytes_of, computed::Panels};

    /// Returns for how many instruction sets the convolution is narrow.
    fn check(conv: Conv2d) -> usize {
        let case = ConvCase::of(&conv);
        let narrow = || available().iter().filter(|kernels| conv.is_narrow(kernels));
        for kernels in narrow() {
            let filter = StoredFilter::Plain(Filter::taps_first(&case.weights));
            let packed = PackedConv::pack_narrow(kernels, &conv, filter, Some(&case.bias)).unwrap();
            let plan = ConvPlan::new(&conv, &packed).unwrap();
            for threads in [Threads::single(), Threads::new(3)] {
                let mut out = vec![f32::NAN; case.plain.len()];
                kernels.conv2d(&plan, &packed, &case.x, &mut out, &Epilogue::default(), &threads).unwrap();
                assert_close(&out, &case.plain, 2e-6);
                kernels.conv2d(&plan, &packed, &case.x, &mut out, &case.epilogue(), &threads).unwrap();
                assert_close(&out, &case.fused, 2e-6 * case.scale);
            }
        }
        narrow().count()
    }

    #[test]
    fn every_number_of_columns() {
        for columns in 1..=8 {
            let wide = available().iter().filter(|kernels| kernels.lanes >= 2 * columns).count();
            assert_eq!(check(same(1, [9, 11], [33, columns], [3, 3])), wide, "{columns}");
            assert_eq!(check(same(2, [5, 3], [130, columns], [1, 1])), wide, "{columns}");
            check(same(1, [13, 30], [16, columns], [1, 1]));
            check(same(1, [40, 41], [8, columns], [5, 5]));
            check(same(1, [3, 50], [8, columns], [3, 39]));
            check(same(2, [2, 2], [20, columns], [3, 3]));
            check(same(1, [1, 1], [70, columns], [3, 3]));
            check(same(1, [30, 40], [3, columns], [7, 7]));
        }
        assert_eq!(check(same(1, [9, 11], [33, 9], [3, 3])), 0);
    }

    #[test]
    fn strides_dilations_and_padding() {
        let base = same(1, [12, 14], [18, 2], [3, 3]);
        for stride in [1, 2, 3, 5] {
            for dilation in [1, 2, 3] {
                let [out_height, out_width] = [12, 14].map(|size: usize| size.div_ceil(stride));
                let (stride, dilation) = ([stride, stride], [dilation, dilation]);
                assert!(check(Conv2d { stride, dilation, out_height, out_width, ..base }) > 0);
            }
        }
        check(Conv2d { pad_top: 0, pad_left: 0, out_height: 10, out_width: 12, ..base });
        check(Conv2d { pad_top: 9, pad_left: 12, out_height: 21, out_width: 30, ..base });
        check(Conv2d { pad_top: 9, pad_left: 12, out_height: 21, out_width: 30, dilation: [1, 2], ..base });
        // The last outputs see nothing of the input.
        check(Conv2d { out_height: 19, out_width: 19, ..base });
        check(Conv2d { in_height: 0, out_height: 4, ..base });
        check(Conv2d { in_width: 0, out_width: 4, ..base });
        check(Conv2d { batch: 0, ..base });
        check(Conv2d { stride: [2, 2], out_height: 6, out_width: 7, ..same(1, [12, 14], [64, 2], [1, 1]) });
    }

    /// A filter of a signal, imported as a convolution of one line; taps and floats that do not fit a block.
    #[test]
    fn long_rows() {
        let signal = same(1, [1, 3000], [1, 1], [1, 256]);
        check(Conv2d { pad_left: 0, stride: [1, 2], out_width: 1373, ..signal });
        check(signal);
        check(Conv2d { dilation: [1, 2], ..same(1, [4, 40], [20, 1], [3, 50]) });
        check(same(1, [3, 3], [300, 8], [3, 3]));
        check(same(1, [3, 5], [1100, 2], [2, 1]));
    }

    #[test]
    fn filters_in_any_order_give_the_same() {
        let kernels = available()[0];
        for conv in [same(1, [4, 9], [37, 2], [3, 3]), same(1, [4, 9], [300, 2], [3, 5])] {
            let case = ConvCase::of(&conv);
            let (depth, width, taps) = (conv.in_channels, conv.out_channels, conv.taps());
            let mut turned = vec![0.0; case.weights.len()];
            for (index, &weight) in case.weights.iter().enumerate() {
                let (tap, channel, column) = (index / width / depth, index / width % depth, index % width);
                turned[(column * depth + channel) * taps + tap] = weight;
            }
            let run = |filter: StoredFilter<'_>| {
                let packed = PackedConv::pack_narrow(kernels, &conv, filter, None).unwrap();
                let plan = ConvPlan::new(&conv, &packed).unwrap();
                let mut out = vec![f32::NAN; case.plain.len()];
                let single = Threads::single();
                kernels.conv2d(&plan, &packed, &case.x, &mut out, &Epilogue::default(), &single).unwrap();
                out
            };
            let expected = run(StoredFilter::Plain(Filter::taps_first(&case.weights)));
            let outward = Filter { bytes: bytes_of(&turned), order: FilterOrder::OutFirst };
            assert_eq!(run(StoredFilter::Plain(outward)), expected);
            for (_, width) in PANEL_WIDTHS {
                let panels = panels_of(&conv, &case.weights, width);
                assert_eq!(run(StoredFilter::Panels(&panels)), expected);
            }
        }
    }

    fn panels_of(conv: &Conv2d, weights: &[f32], width: PanelWidth) -> Panels {
        let (k, n) = (conv.taps() * conv.in_channels, conv.out_channels);
        let stored = width.panels_of(k, n, weights, false).unwrap();
        Panels { stored, k, n, lanes: width.lanes, vectors: width.vectors, transposed: false }
    }

    /// What stands beside a window is not part of it.
    #[test]
    fn neighbours_do_not_matter() {
        let conv = Conv2d {
            pad_left: 0,
            pad_top: 0,
            out_height: 1,
            out_width: 1,
            ..same(1, [3, 9], [9, 1], [3, 3])
        };
        for kernels in available().iter().filter(|kernels| conv.is_narrow(kernels)) {
            let mut x = vec![f32::NAN; 3 * 9 * 9];
            for line in x.chunks_exact_mut(9 * 9) {
                line[..27].fill(1.0);
            }
            let weights = [1.0f32; 81];
            let filter = StoredFilter::Plain(Filter::taps_first(&weights));
            let packed = PackedConv::pack_narrow(kernels, &conv, filter, None).unwrap();
            let plan = ConvPlan::new(&conv, &packed).unwrap();
            let (mut out, single) = ([0.0], Threads::single());
            kernels.conv2d(&plan, &packed, &x, &mut out, &Epilogue::default(), &single).unwrap();
            assert_eq!(out, [81.0]);
        }
    }

    #[test]
    fn lying_descriptors_are_refused() {
        let kernels = available()[0];
        let good = same(1, [4, 4], [40, 2], [3, 3]);
        let weights = random(9 * 40 * 2, 1);
        let pack = |conv: &Conv2d, weights: &[f32], bias: Option<&[f32]>| {
            PackedConv::pack_narrow(kernels, conv, StoredFilter::Plain(Filter::taps_first(weights)), bias)
        };
        for bad in [
            Conv2d { groups: 2, ..good },
            Conv2d { out_channels: 0, ..good },
            Conv2d { out_channels: 17, ..good },
            Conv2d { in_channels: 0, ..good },
            Conv2d { in_channels: usize::MAX / 2, ..good },
            Conv2d { kernel_width: usize::MAX / 2, ..good },
            Conv2d { kernel_height: 0, ..good },
            Conv2d { stride: [usize::MAX, 1], ..good },
        ] {
            assert!(pack(&bad, &weights, None).is_err(), "{bad:?}");
        }
        assert!(pack(&good, &weights[1..], None).is_err());
        assert!(pack(&good, &weights, Some(&[0.0; 3])).is_err());
        let whole = || panels_of(&good, &weights, PANEL_WIDTHS[0].1);
        for bad in [
            Panels { k: 9 * 40 + 1, ..whole() },
            Panels { n: 3, ..whole() },
            Panels { lanes: 0, ..whole() },
            Panels { stored: AlignedVec::<f32>::zeroed(8).unwrap().freeze(), ..whole() },
        ] {
            assert!(PackedConv::pack_narrow(kernels, &good, StoredFilter::Panels(&bad), None).is_err());
        }
        let packed = pack(&good, &weights, None).unwrap();
        // Kernel rows are in one piece, which those of a dilated window are not.
        assert!(ConvPlan::new(&Conv2d { dilation: [1, 2], ..good }, &packed).is_err());
        assert!(ConvPlan::new(&Conv2d { in_channels: 41, ..good }, &packed).is_err());
        let dense = PackedConv::pack(kernels, &good, &weights, None).unwrap();
        let plan = ConvPlan::new(&good, &dense).unwrap();
        let (x, mut out) = (random(16 * 40, 2), [0.0; 32]);
        let (plain, single) = (Epilogue::default(), Threads::single());
        assert!(kernels.conv2d(&plan, &packed, &x, &mut out, &plain, &single).is_err());
        let plan = ConvPlan::new(&good, &packed).unwrap();
        assert!(kernels.conv2d(&plan, &dense, &x, &mut out, &plain, &single).is_err());
        assert!(kernels.conv2d(&plan, &packed, &x[1..], &mut out, &plain, &single).is_err());
        assert!(kernels.conv2d(&plan, &packed, &x, &mut out[1..], &plain, &single).is_err());
        assert!(kernels.conv2d(&plan, &packed, &x, &mut out, &plain, &single).is_ok());
    }
}
