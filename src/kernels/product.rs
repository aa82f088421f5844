//! The matrix product's loops around the register tile, shared by [`gemm`](super::gemm) and
//! [`conv`](super::conv).
//!
//! A row of the first matrix is given by pointers, one per tap: a plain matrix has one tap, a convolution
//! one per kernel position. So activations are never packed. The loops, from the outside: blocks of rows whose
//! activations stay in the second-level cache; blocks of the depth so short that a panel of weights stays in the
//! first; panels; tiles. Partial sums wait in the output.

use super::isa::Isa;
use super::map::Activation;
use super::pack::{PackedView, Panels};
use super::table::Kernels;
use super::threads::{SendPtr, Threads};
use std::mem::MaybeUninit;
use std::ops::Range;

/// What is done to the sums before they are stored: `act(min(max(sum + residual, min), max))`.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// Lower bound; minus infinity for none.
    pub min: f32,
    /// Upper bound; infinity for none.
    pub max: f32,
    /// Added to the sums, shaped and strided like the output.
    pub residual: Option<&'a [f32]>,
    /// Applied last, in a second pass over rows that are still in cache.
    pub activation: Option<Activation>,
}

impl Default for Epilogue<'_> {
    fn default() -> Self {
        Epilogue { min: f32::NEG_INFINITY, max: f32::INFINITY, residual: None, activation: None }
    }
}

/// The rows of the first matrix.
pub(super) trait Rows<T>: Sync {
    /// Pointers per row.
    fn taps(&self) -> usize;
    /// Elements behind each pointer.
    fn depth(&self) -> usize;
    /// Writes the pointer to `channel` of tap `taps.start + t` of row `rows.start + r` to
    /// `pointers[t * rows.len() + r]`. `scratch` is memory for rows that have to be assembled.
    fn point(
        &self,
        rows: Range<usize>,
        taps: Range<usize>,
        channel: usize,
        pointers: &mut [*const T],
        scratch: &mut [T],
    );
    /// Elements of `scratch` that a row may take, for all taps.
    fn scratch_per_row(&self) -> usize {
        0
    }
}

/// Where the product goes.
#[derive(Clone, Copy)]
pub(super) struct Output<'a> {
    pub(super) data: *mut f32,
    /// Floats from one row to the next.
    pub(super) stride: usize,
    /// As strided as `data`; null for none.
    pub(super) residual: *const f32,
    pub(super) epilogue: &'a Epilogue<'a>,
}

/// Rows of a block, at most.
pub(super) const BLOCK_ROWS: usize = 240;
/// Rows of a block when the weights are small: activations that stay in the first-level cache are worth more than
/// weights that are fetched less often.
const BLOCK_ROWS_OF_SMALL: usize = 120;
/// Weights of no more floats are small: a quarter of a second-level cache.
const SMALL: usize = 128 * 1024;
/// Pointers for a block's rows.
pub(super) const MAX_POINTERS: usize = 2400;
/// Taps of a block of depth, at most.
const MAX_TAPS: usize = 64;
/// Floats for rows that have to be assembled.
pub(super) const SCRATCH: usize = 16 * 1024;
/// Floats that weights are asked for ahead of their use where they are read once.
const FAR: usize = 4096;
/// Multiplications below which a second thread costs more than it brings.
const PARALLEL_WORK: usize = 64 * 1024;

/// `out[rows, n] = epilogue(rows * weights)`.
///
/// # Safety
/// The pointers that `rows` yields must be readable for `rows.depth()` floats less the channel, for every row below `count`;
/// `weights` must be packed for `kernels` with `k = taps * depth`; `out` must be writable (and the residual
/// readable) for `count` rows of `n` floats, `stride` apart, and not overlap anything that is read.
pub(super) unsafe fn product<R: Rows<f32>>(
    kernels: &Kernels,
    rows: &R,
    count: usize,
    weights: PackedView<'_>,
    out: Output<'_>,
    threads: &Threads,
) {
    let panels = weights.width.over(weights.n);
    if count == 0 || panels.count == 0 {
        return;
    }
    let work = count.saturating_mul(weights.n).saturating_mul(weights.k.max(1));
    let wanted =
        if threads.count() == 1 { 1 } else { (threads.count() * 4).min(work / PARALLEL_WORK).max(1) };
    let (row_tasks, panel_tasks) =
        cut(kernels, count, rows.depth(), [weights.k, weights.n], panels.count, wanted);
    let share = Shared {
        kernels,
        rows,
        weights,
        panels,
        residual: out.residual,
        epilogue: out.epilogue,
        stride: out.stride,
        once: count <= kernels.widest_tile_rows(),
    };
    let data = SendPtr(out.data);
    threads.for_each(row_tasks * panel_tasks, |task| {
        let task_rows = part(count, row_tasks, task % row_tasks);
        let task_panels = part(panels.count, panel_tasks, task / row_tasks);
        // SAFETY: as the caller vouches; the parts are disjoint.
        unsafe { share.run(task_rows, task_panels, data.get()) };
    });
}

/// At least `wanted` tasks, where there are as many, of a product of `rows`, each made of `depth` elements that no other row
/// has, by weights of `[k, n]`: over the rows and over the panels.
pub(super) fn cut(
    kernels: &Kernels,
    rows: usize,
    depth: usize,
    [k, n]: [usize; 2],
    panels: usize,
    wanted: usize,
) -> (usize, usize) {
    // A thread that has rows of its own finds them in its cache and leaves its results there for the next step, but all
    // threads fetch all weights. Those of wide products are cut where they are more than what would change caches.
    let most_row_tasks = rows.div_ceil(kernels.widest_tile_rows() * 2);
    let changing = rows.saturating_mul(depth.saturating_add(n));
    if n > rows && k.saturating_mul(n) > changing {
        let panel_tasks = wanted.min(panels);
        (wanted.div_ceil(panel_tasks).clamp(1, most_row_tasks), panel_tasks)
    } else {
        let row_tasks = wanted.min(most_row_tasks);
        (row_tasks, wanted.div_ceil(row_tasks).clamp(1, panels))
    }
}

/// The `index`th of `parts` nearly equal parts of `0..total`.
pub(super) fn part(total: usize, parts: usize, index: usize) -> Range<usize> {
    let start = total / parts * index + (total % parts).min(index);
    start..start + total / parts + usize::from(index < total % parts)
}

struct Shared<'a, R> {
    kernels: &'a Kernels,
    rows: &'a R,
    weights: PackedView<'a>,
    panels: Panels,
    residual: *const f32,
    epilogue: &'a Epilogue<'a>,
    stride: usize,
    /// Every weight is read once, for the rows are one tile: it comes from memory in its order, in blocks of any depth.
    once: bool,
}
// SAFETY: the residual is only read.
unsafe impl<R: Sync> Sync for Shared<'_, R> {}

/// A block of the depth: whole taps, or a part of one.
#[derive(Clone)]
struct DepthBlock {
    taps: Range<usize>,
    channels: Range<usize>,
}

/// The first `count` elements, set to `value`.
pub(super) fn filled<T: Copy>(memory: &mut [MaybeUninit<T>], count: usize, value: T) -> &mut [T] {
    let memory = &mut memory[..count];
    memory.iter_mut().for_each(|element| {
        element.write(value);
    });
    // SAFETY: all of these elements were just written.
    unsafe { &mut *(std::ptr::from_mut(memory) as *mut [T]) }
}

impl<R: Rows<f32>> Shared<'_, R> {
    /// The depth block at (`tap`, `channel`).
    fn depth_block(&self, tap: usize, channel: usize) -> DepthBlock {
        let (taps, depth) = (self.rows.taps(), self.rows.depth());
        let limit = if self.once { usize::MAX } else { self.kernels.depth_block };
        if taps == 0 {
            // The phases of a transposed convolution can be empty: the bias alone.
            return DepthBlock { taps: 0..0, channels: 0..depth };
        }
        if depth > limit {
            // Nearly equal parts; a short last one would be all overhead.
            let parts = depth.div_ceil(limit);
            let end = (channel + depth.div_ceil(parts)).min(depth);
            return DepthBlock { taps: tap..tap + 1, channels: channel..end };
        }
        let whole = (limit / depth.max(1)).clamp(1, MAX_TAPS);
        let parts = taps.div_ceil(whole);
        DepthBlock { taps: tap..(tap + taps.div_ceil(parts)).min(taps), channels: 0..depth }
    }

    /// # Safety
    /// As [`product`], for these rows and panels only.
    unsafe fn run(&self, rows: Range<usize>, panels: Range<usize>, data: *mut f32) {
        let most_taps = self.depth_block(0, 0).taps.len().max(1);
        let per_row = self.rows.scratch_per_row();
        let by_scratch = SCRATCH.checked_div(per_row).unwrap_or(BLOCK_ROWS);
        let small = self.weights.k * self.weights.n <= SMALL;
        let most_rows = if small { BLOCK_ROWS_OF_SMALL } else { BLOCK_ROWS };
        let limit = most_rows.min(MAX_POINTERS / most_taps).min(by_scratch).max(1);
        // Only what is used gets initialised: small products are many, and this would be a good part of them.
        let mut memory = [const { MaybeUninit::<f32>::uninit() }; SCRATCH];
        let scratch = filled(&mut memory, limit.min(rows.len()) * per_row, 0.0);
        let mut memory = [const { MaybeUninit::<*const f32>::uninit() }; MAX_POINTERS];
        let pointers = filled(&mut memory, limit.min(rows.len()) * most_taps, std::ptr::null());
        let blocks = rows.len().div_ceil(limit);
        for block in 0..blocks {
            let block = part(rows.len(), blocks, block);
            let block = rows.start + block.start..rows.start + block.end;
            // SAFETY: as the caller vouches.
            unsafe { self.row_block(block, panels.clone(), data, pointers, scratch) };
        }
    }

    /// # Safety
    /// As [`product`], for these rows and panels only.
    unsafe fn row_block(
        &self,
        rows: Range<usize>,
        panels: Range<usize>,
        data: *mut f32,
        pointers: &mut [*const f32],
        scratch: &mut [f32],
    ) {
        let (taps, depth) = (self.rows.taps(), self.rows.depth());
        let (mut tap, mut channel) = (0, 0);
        let mut first = true;
        loop {
            let block = self.depth_block(tap, channel);
            let to = &mut pointers[..rows.len() * block.taps.len()];
            self.rows.point(rows.clone(), block.taps.clone(), block.channels.start, to, scratch);
            (tap, channel) = if block.channels.end < depth {
                (block.taps.start, block.channels.end)
            } else {
                (block.taps.end, 0)
            };
            let last = tap >= taps;
            for panel in panels.clone() {
                // What is read next, so that it is fetched meanwhile.
                let ahead = if panel + 1 < panels.end {
                    self.weights_of(panel + 1, &block)
                } else if last {
                    0..0
                } else {
                    self.weights_of(panels.start, &self.depth_block(tap, channel))
                };
                // SAFETY: as the caller vouches; the pointers were filled for this block.
                unsafe { self.panel(&rows, panel, &block, pointers, (first, last), ahead, data) };
            }
            if last {
                break;
            }
            first = false;
        }
        if let Some(activation) = self.epilogue.activation {
            let columns = self.panels.columns(&panels);
            if columns.len() == self.stride {
                // Whole rows, one after the other: few columns would be too short for the loops of vectors.
                // SAFETY: the rows are written, and belong to this task.
                unsafe {
                    let at = data.add(rows.start * self.stride);
                    self.kernels.activate(activation, at, rows.len() * self.stride);
                }
                return;
            }
            for row in rows {
                // SAFETY: the row's columns are written, and belong to this task.
                unsafe {
                    let at = data.add(row * self.stride + columns.start);
                    self.kernels.activate(activation, at, columns.len());
                }
            }
        }
    }

    /// Where a panel's weights of a block of depth stand.
    fn weights_of(&self, panel: usize, block: &DepthBlock) -> Range<usize> {
        let row = self.panels.vectors(panel) * self.weights.width.lanes;
        let depth = block.taps.start * self.rows.depth() + block.channels.start;
        let start = self.panels.columns(&(panel..panel + 1)).start * self.weights.k + depth * row;
        start..start + block.taps.len() * block.channels.len() * row
    }

    /// All tiles of one panel for one block of rows and depth, while the weights at `ahead` are fetched.
    ///
    /// # Safety
    /// As [`product`]; `pointers` must be filled for the block.
    #[allow(clippy::too_many_arguments, reason = "the body of one caller's loop")]
    unsafe fn panel(
        &self,
        rows: &Range<usize>,
        panel: usize,
        block: &DepthBlock,
        pointers: &[*const f32],
        (first, last): (bool, bool),
        ahead: Range<usize>,
        data: *mut f32,
    ) {
        let PackedView { panels, bias, width, .. } = self.weights;
        let columns = self.panels.columns(&(panel..panel + 1));
        let vectors = self.panels.vectors(panel);
        let taps = block.taps.len();
        let depth = block.channels.len();
        let weights = panels[self.weights_of(panel, block)].as_ptr();
        // A narrow panel leaves registers for more rows.
        let tiles = rows.len().div_ceil(self.kernels.tile_rows[vectors - 1]);
        // Every tile asks for a vector per step of the depth, until all are asked for.
        let piece = taps * depth * width.lanes;
        for tile in 0..tiles {
            let local = part(rows.len(), tiles, tile);
            let at = (rows.start + local.start) * self.stride + columns.start;
            let asked = ahead.start + tile * piece;
            let fetch = asked < ahead.end;
            let (ahead, ahead_step) = match (self.once, fetch) {
                // The line after it comes along.
                (true, _) => (weights.wrapping_add(FAR), vectors * width.lanes),
                (false, true) => (panels[asked..].as_ptr(), width.lanes),
                (false, false) => (weights, 0),
            };
            let work = Tile {
                pointers: pointers[local.start..].as_ptr(),
                pointer_stride: rows.len(),
                taps,
                depth,
                weights,
                ahead,
                ahead_step,
                bias: bias.map_or(std::ptr::null(), |bias| bias[columns.start..].as_ptr()),
                // SAFETY: row and column lie within the output.
                out: unsafe { data.add(at) },
                stride: self.stride,
                columns: columns.len(),
                residual: if self.residual.is_null() {
                    self.residual
                } else {
                    // SAFETY: the residual is as large as the output.
                    unsafe { self.residual.add(at) }
                },
                min: self.epilogue.min,
                max: self.epilogue.max,
                first,
                last,
            };
            // SAFETY: the tile lies within the product.
            unsafe { (self.kernels.tile)(&work, local.len(), vectors) };
        }
    }
}

/// The work of one register tile.
pub(super) struct Tile {
    /// Per tap, a pointer for each row.
    pointers: *const *const f32,
    /// Pointers from one tap to the next.
    pointer_stride: usize,
    taps: usize,
    /// Floats behind each pointer.
    depth: usize,
    /// `taps * depth` rows of whole vectors.
    weights: *const f32,
    /// What to ask for meanwhile, `ahead_step` floats further for each step of the depth; need not be readable.
    ahead: *const f32,
    ahead_step: usize,
    /// Whole vectors; null for zero.
    bias: *const f32,
    out: *mut f32,
    /// Floats from one row of `out` (and of the residual) to the next.
    stride: usize,
    /// Columns of `out` that exist.
    columns: usize,
    /// Null for none.
    residual: *const f32,
    min: f32,
    max: f32,
    /// The sums begin with the bias, not with what `out` holds.
    first: bool,
    /// Residual and bounds are applied.
    last: bool,
}

/// Independent sums per element: with few accumulators the additions would wait for each other.
pub(super) const fn unroll(rows: usize, vectors: usize) -> usize {
    match rows * vectors {
        0..=2 => 4,
        3..=7 => 2,
        _ => 1,
    }
}

/// The register tile of `rows` by `vectors`.
///
/// # Safety
/// All that [`Tile`] describes must be there, `rows` pointers per tap, and `out` must not overlap what is read.
#[inline(always)]
pub(super) unsafe fn tile<I: Isa>(isa: I, work: &Tile, rows: usize, vectors: usize) {
    macro_rules! dispatch {
        ($($vectors:literal: $($rows:literal)*;)*) => {
            match (rows, vectors) {
                // The constant condition drops the tiles that this instruction set has no registers for.
                $($(($rows, $vectors) if const { I::TILE_ROWS[$vectors - 1] >= $rows } => {
                    // SAFETY: as the caller vouches.
                    unsafe { tile_of::<I, $rows, $vectors, { unroll($rows, $vectors) }>(isa, work) }
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

/// Runs a block for every row of a tile, with a constant for the row: a loop that the compiler leaves rolled would keep the
/// sums in memory.
macro_rules! for_rows {
    ($row:ident of $rows:ident $body:block) => { for_rows!($row of $rows $body 0 1 2 3 4 5 6 7) };
    ($row:ident of $rows:ident $body:block $($number:literal)*) => { $(
        if $number < $rows {
            let $row = $number;
            $body
        }
    )* };
}
pub(super) use for_rows;

/// Steps of the depth that weights are asked for ahead of their use where a panel does not stay in the first-level cache.
const NEAR: usize = 4;

#[inline(always)]
unsafe fn tile_of<I: Isa, const R: usize, const V: usize, const U: usize>(isa: I, work: &Tile) {
    let mut sums = [[[isa.splat(0.0); V]; R]; U];
    // SAFETY: the caller vouches for everything that `work` describes: R pointers per tap with `depth` floats behind each,
    // `taps * depth` rows of V vectors of weights, V vectors of bias, R rows of `columns` floats of output.
    unsafe {
        if work.first {
            if !work.bias.is_null() {
                for vector in 0..V {
                    let bias = isa.load(work.bias.add(vector * I::LANES));
                    for_rows!(row of R { sums[0][row][vector] = bias; });
                }
            }
        } else {
            for_rows!(row of R {
                for vector in 0..V {
                    let at = work.out.add(row * work.stride + vector * I::LANES);
                    sums[0][row][vector] = load_columns::<I, V>(isa, at, vector, work.columns);
                }
            });
        }
        let (mut weights, mut ahead) = (work.weights, work.ahead);
        for tap in 0..work.taps {
            let mut from = [std::ptr::null::<f32>(); R];
            for row in 0..R {
                from[row] = *work.pointers.add(tap * work.pointer_stride + row);
            }
            weights =
                add_products::<I, R, V, U>(isa, &mut sums, &from, work.depth, weights, |steps, weights| {
                    // One vector a row: a load for every multiply-add is all there is room for.
                    if V > 1 || !I::STREAMS {
                        isa.prefetch_far(ahead);
                        ahead = ahead.wrapping_add(steps * work.ahead_step);
                    }
                    if I::STREAMS && V > 1 {
                        for vector in 0..V {
                            isa.prefetch_near(weights.wrapping_add((NEAR * V + vector) * I::LANES));
                        }
                    }
                });
        }
        for_rows!(row of R {
            for vector in 0..V {
                for other in 1..U {
                    sums[0][row][vector] = isa.add(sums[0][row][vector], sums[other][row][vector]);
                }
            }
        });
        if work.last {
            if !work.residual.is_null() {
                for_rows!(row of R {
                    for vector in 0..V {
                        let at = work.residual.add(row * work.stride + vector * I::LANES);
                        let residual = load_columns::<I, V>(isa, at, vector, work.columns);
                        sums[0][row][vector] = isa.add(sums[0][row][vector], residual);
                    }
                });
            }
            for_rows!(row of R {
                for vector in 0..V {
                    sums[0][row][vector] = super::math::clamp(isa, sums[0][row][vector], work.min, work.max);
                }
            });
        }
        for_rows!(row of R {
            for vector in 0..V {
                let at = work.out.add(row * work.stride + vector * I::LANES);
                if work.columns == V * I::LANES || vector + 1 < V {
                    isa.store(at, sums[0][row][vector]);
                } else {
                    isa.store_partial(at, sums[0][row][vector], work.columns - vector * I::LANES);
                }
            }
        });
    }
}

/// Adds the products of `depth` rows of weights, the first of which is at `weights`, with as many floats of every row. `fetch`
/// is told of each of these steps, or of four, before they are made, with the weights that they take. Returns what comes after
/// the weights.
///
/// # Safety
/// There must be `depth` floats behind each pointer and as many rows of V vectors of weights.
#[inline(always)]
pub(super) unsafe fn add_products<I: Isa, const R: usize, const V: usize, const U: usize>(
    isa: I,
    sums: &mut [[[I::F32; V]; R]; U],
    from: &[*const f32; R],
    depth: usize,
    mut weights: *const f32,
    mut fetch: impl FnMut(usize, *const f32),
) -> *const f32 {
    let mut channel = 0;
    // SAFETY: as the caller vouches.
    unsafe {
        while I::BY_LANE && channel + 4 <= depth {
            // A cache line of weights per vector in a row, whatever its lanes.
            fetch(4, weights);
            four_steps_of::<I, R, V, U>(isa, sums, from, channel, weights);
            weights = weights.add(4 * V * I::LANES);
            channel += 4;
        }
        while channel + U <= depth {
            for step in 0..U {
                fetch(1, weights);
                step_of::<I, R, V>(isa, &mut sums[step], from, channel + step, weights);
                weights = weights.add(V * I::LANES);
            }
            channel += U;
        }
        while U > 1 && channel < depth {
            step_of::<I, R, V>(isa, &mut sums[0], from, channel, weights);
            weights = weights.add(V * I::LANES);
            channel += 1;
        }
    }
    weights
}

/// One step of the depth: a row of weights times one float of every row.
#[inline(always)]
unsafe fn step_of<I: Isa, const R: usize, const V: usize>(
    isa: I,
    sums: &mut [[I::F32; V]; R],
    from: &[*const f32; R],
    channel: usize,
    weights: *const f32,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        let mut weight = [isa.splat(0.0); V];
        for vector in 0..V {
            weight[vector] = isa.load(weights.add(vector * I::LANES));
        }
        for row in 0..R {
            let value = isa.splat(*from[row].add(channel));
            for vector in 0..V {
                sums[row][vector] = isa.mul_add(value, weight[vector], sums[row][vector]);
            }
        }
    }
}

/// Four steps whose floats of a row are one vector.
#[inline(always)]
unsafe fn four_steps_of<I: Isa, const R: usize, const V: usize, const U: usize>(
    isa: I,
    sums: &mut [[[I::F32; V]; R]; U],
    from: &[*const f32; R],
    channel: usize,
    weights: *const f32,
) {
    // SAFETY: as the caller vouches; four floats remain behind each pointer.
    unsafe {
        let mut values = [isa.splat(0.0); R];
        for row in 0..R {
            values[row] = isa.load(from[row].add(channel));
        }
        macro_rules! step {
            ($($lane:literal)*) => { $(
                let mut weight = [isa.splat(0.0); V];
                for vector in 0..V {
                    weight[vector] = isa.load(weights.add(($lane * V + vector) * I::LANES));
                }
                for row in 0..R {
                    for vector in 0..V {
                        let sum = &mut sums[$lane % U][row][vector];
                        *sum = isa.mul_add_lane::<$lane>(values[row], weight[vector], *sum);
                    }
                }
            )* };
        }
        step!(0 1 2 3);
    }
}

/// Vector number `vector` of a row of `columns` floats in V vectors: only the last one can be short.
#[inline(always)]
unsafe fn load_columns<I: Isa, const V: usize>(
    isa: I,
    at: *const f32,
    vector: usize,
    columns: usize,
) -> I::F32 {
    // SAFETY: as the caller vouches.
    unsafe {
        if columns == V * I::LANES || vector + 1 < V {
            isa.load(at)
        } else {
            isa.load_partial(at, columns - vector * I::LANES)
        }
    }
}
