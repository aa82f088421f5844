//! Convolutions in groups of few channels, and those that make several output channels of every input channel.
//!
//! As matrix products they would be many small ones, each of which fetches the cache lines of all pixels for a few
//! floats of them. Here all groups run in one loop: vectors run over output channels, those of several groups where
//! they fit, and every lane multiplies the input of its own group ([`Spread`]). A vector within one group takes one
//! float at a time for all lanes ([`Common`]). Loops, from the outside: blocks of lines that stay in the second-level
//! cache, vectors of output channels ([`Chunk`]), lines, tiles of neighbouring pixels, which share the weights.

use super::aligned::AlignedFloats;
use super::conv::Conv2d;
use super::depthwise::{for_numbers, rows_inside};
use super::error::{KernelError, expect_length, product as size_of_product};
use super::filter::{Filter, FilterOrder};
use super::isa::{Isa, MAX_LANES};
use super::math;
use super::product::{Epilogue, part};
use super::table::Kernels;
use super::threads::{SendPtr, Threads};
use std::mem::MaybeUninit;
use std::ops::Range;

const KERNEL: &str = "grouped conv2d";
/// Multiply-adds below which a second thread costs more than it brings.
const PARALLEL_WORK: usize = 32 * 1024;
/// What the input of a block of lines may take of the second-level cache, in bytes.
const BLOCK: usize = 1 << 19;

/// Weights and bias, packed for one instruction set.
#[derive(Clone, Debug)]
pub(super) struct PackedGrouped {
    /// For every chunk, kernel row, input channel of a group and kernel column: a vector.
    weights: AlignedFloats,
    /// A vector for every chunk.
    bias: AlignedFloats,
    chunks: Vec<Chunk>,
    /// For every lane of every chunk, the input channel of its group's first, counted from that of the chunk. Empty where all
    /// lanes of a chunk are of one group.
    spread: Vec<i32>,
    /// What a tap in the padding reads.
    zeros: AlignedFloats,
    lanes: usize,
}

/// Output channels that are computed in one vector.
#[derive(Clone, Debug)]
struct Chunk {
    /// The first of them.
    first: usize,
    /// At most the lanes of a vector.
    count: usize,
    /// The input channel from which on they read.
    from: usize,
}

/// Whether this is the faster way to run a convolution: one in groups that are no wider than a vector, but wider than one channel.
pub(super) fn pays(kernels: &Kernels, conv: &Conv2d) -> bool {
    if conv.groups < 2 || conv.in_channels == 0 || conv.out_channels == 0 {
        return false;
    }
    let (depth, width) = (conv.depth(), conv.out_channels / conv.groups);
    // The weights of a vector stay in the first-level cache.
    if depth == 1 { width > 1 } else { width <= kernels.lanes && depth <= 2 * kernels.lanes }
}

/// Vectors of output channels, and whether lanes of one are of several groups.
fn chunks_of(conv: &Conv2d, lanes: usize) -> (Vec<Chunk>, bool) {
    let (depth, width) = (conv.depth(), conv.out_channels / conv.groups);
    // Groups of a vector, whose input is one vector, too.
    let together = lanes / width.max(depth);
    let across = depth == 1 && !width.is_multiple_of(lanes);
    let spread = across || together > 1;
    let (pieces, piece) = match (across, spread) {
        (true, _) => (1, conv.out_channels),
        (_, true) => (conv.groups.div_ceil(together), together * width),
        _ => (conv.groups, width),
    };
    let mut chunks = Vec::new();
    for start in (0..pieces).map(|index| index * piece) {
        let end = conv.out_channels.min(start + piece);
        for first in (start..end).step_by(lanes) {
            let mut from = first / width * depth;
            if spread {
                // A whole vector is read, so it must not begin behind the last one of a pixel.
                from = from.min(conv.in_channels.saturating_sub(lanes));
            }
            chunks.push(Chunk { first, count: lanes.min(end - first), from });
        }
    }
    (chunks, spread)
}

impl PackedGrouped {
    /// Packs a filter and a bias for a geometry, all of which were checked.
    pub(super) fn pack(
        kernels: &Kernels,
        conv: &Conv2d,
        filter: Filter<'_>,
        bias: Option<&[f32]>,
    ) -> Result<PackedGrouped, KernelError> {
        let (lanes, taps, depth) = (kernels.lanes, conv.taps(), conv.depth());
        let width = conv.out_channels / conv.groups;
        let (chunks, is_spread) = chunks_of(conv, lanes);
        let step = size_of_product(KERNEL, "weights", &[taps, depth, lanes])?;
        let mut weights = AlignedFloats::zeroed(size_of_product(KERNEL, "weights", &[chunks.len(), step])?);
        let mut packed_bias = AlignedFloats::zeroed(chunks.len() * lanes);
        let floats = filter.bytes.as_chunks::<4>().0;
        expect_length(KERNEL, "weights", conv.out_channels * taps * depth, floats.len())?;
        let mut spread = Vec::new();
        for (index, chunk) in chunks.iter().enumerate() {
            let vectors = weights.as_mut_slice()[index * step..][..step].chunks_exact_mut(lanes);
            for (place, vector) in vectors.enumerate() {
                let (kx, rest) = (place % conv.kernel_width, place / conv.kernel_width);
                let (channel, tap) = (rest % depth, rest / depth * conv.kernel_width + kx);
                for (column, weight) in (chunk.first..chunk.first + chunk.count).zip(vector) {
                    let at = match filter.order {
                        FilterOrder::TapsFirst => (tap * depth + channel) * conv.out_channels + column,
                        FilterOrder::OutFirst => (column * depth + channel) * taps + tap,
                    };
                    *weight = f32::from_le_bytes(floats[at]);
                }
            }
            let channels = chunk.first..chunk.first + chunk.count;
            if let Some(bias) = bias {
                packed_bias.as_mut_slice()[index * lanes..][..chunk.count]
                    .copy_from_slice(&bias[channels.clone()]);
            }
            if is_spread {
                let from = |channel: usize| (channel / width * depth - chunk.from) as i32;
                spread.extend(channels.map(from));
                spread.resize((index + 1) * lanes, 0);
            }
        }
        Ok(PackedGrouped {
            weights,
            bias: packed_bias,
            chunks,
            spread,
            zeros: AlignedFloats::zeroed(lanes.max(depth)),
            lanes,
        })
    }

    /// Fails unless these were packed for `kernels`.
    pub(super) fn check(&self, kernels: &Kernels) -> Result<(), KernelError> {
        if self.lanes == kernels.lanes {
            return Ok(());
        }
        let problem = "are packed for another instruction set";
        Err(KernelError::Descriptor { kernel: KERNEL, argument: "weights", problem })
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        (self.weights.len() + self.bias.len() + self.zeros.len()) * size_of::<f32>()
            + std::mem::size_of_val(&self.chunks[..])
            + std::mem::size_of_val(&self.spread[..])
    }
}

/// Runs a checked geometry: the slices have its lengths and `packed` its weights, for these kernels.
pub(super) fn run(
    kernels: &Kernels,
    conv: &Conv2d,
    packed: &PackedGrouped,
    x: &[f32],
    out: &mut [f32],
    epilogue: &Epilogue<'_>,
    threads: &Threads,
) {
    let lines = conv.batch * conv.out_height;
    let work = lines.saturating_mul(conv.out_width).saturating_mul(packed.weights.len());
    let wanted = if threads.count() == 1 { 1 } else { (work / PARALLEL_WORK).clamp(1, threads.count() * 4) };
    // Lines first: steps before and after this one are cut over them, too, and find them in their caches.
    let line_parts = threads.count().min(wanted).clamp(1, lines.max(1));
    let chunk_parts = packed.chunks.len().min(wanted.div_ceil(line_parts)).max(1);
    let row = conv.in_width.saturating_mul(conv.in_channels).saturating_mul(size_of::<f32>());
    let rows = (BLOCK / row.max(1)).saturating_sub(conv.kernel_height);
    let most = (rows / conv.stride[0]).max(4);
    let share = Shared { kernels, conv, packed, x, epilogue };
    let data = SendPtr(out.as_mut_ptr());
    threads.for_each(line_parts * chunk_parts, |task| {
        let chunks = part(packed.chunks.len(), chunk_parts, task % chunk_parts);
        let lines = part(lines, line_parts, task / chunk_parts);
        let blocks = lines.len().div_ceil(most);
        for block in 0..blocks {
            let block = part(lines.len(), blocks, block);
            let block = lines.start + block.start..lines.start + block.end;
            // SAFETY: channels of lines belong to one task each, so nobody else writes to these.
            unsafe { share.block(block, chunks.clone(), data.get()) };
        }
    });
}

struct Shared<'a> {
    kernels: &'a Kernels,
    conv: &'a Conv2d,
    packed: &'a PackedGrouped,
    x: &'a [f32],
    epilogue: &'a Epilogue<'a>,
}

impl Shared<'_> {
    /// Some chunks of some lines, with their activation.
    ///
    /// # Safety
    /// `out` must be the whole output, and nobody else may touch these channels of these lines.
    unsafe fn block(&self, lines: Range<usize>, chunks: Range<usize>, out: *mut f32) {
        let Shared { kernels, conv, packed, epilogue, .. } = *self;
        let size = conv.out_width * conv.out_channels;
        for chunk in chunks.clone() {
            for line in lines.clone() {
                // SAFETY: as the caller vouches.
                unsafe { self.line(line, chunk, out.add(line * size)) };
            }
        }
        let (Some(activation), Some(first)) = (epilogue.activation, packed.chunks.get(chunks.start)) else {
            return;
        };
        let channels =
            first.first..packed.chunks.get(chunks.end).map_or(conv.out_channels, |next| next.first);
        // SAFETY: in place over what was just written; all channels of a line are one piece.
        unsafe {
            let to = out.add(lines.start * size);
            if channels.len() == conv.out_channels {
                return kernels.activate(activation, to, lines.len() * size);
            }
            for pixel in 0..lines.len() * conv.out_width {
                kernels.activate(
                    activation,
                    to.add(pixel * conv.out_channels + channels.start),
                    channels.len(),
                );
            }
        }
    }

    /// A chunk of a line.
    ///
    /// # Safety
    /// `out` must be the line, of which nobody else may touch these channels.
    unsafe fn line(&self, index: usize, chunk: usize, out: *mut f32) {
        let Shared { kernels, conv, packed, x, epilogue } = *self;
        let (image, y) = (index / conv.out_height, index % conv.out_height);
        let image_size = conv.in_height * conv.in_width * conv.in_channels;
        let size = conv.out_width * conv.out_channels;
        let Chunk { first, count, from } = packed.chunks[chunk];
        let step = conv.taps() * conv.depth() * packed.lanes;
        let rows = rows_inside(conv, y);
        // Where no row of the kernel lies inside, nothing is read.
        let top = (y * conv.stride[0] + rows.start * conv.dilation[0]).saturating_sub(conv.pad_top);
        let line = Line {
            // Addresses are computed without checks on the way: only taps that lie inside are read.
            x: x[image * image_size..].as_ptr().wrapping_add(top * conv.in_width * conv.in_channels + from),
            weights: packed.weights.as_slice()[chunk * step..][..step].as_ptr(),
            bias: packed.bias.as_slice()[chunk * packed.lanes..][..packed.lanes].as_ptr(),
            spread: packed
                .spread
                .get(chunk * packed.lanes..)
                .filter(|lanes| !lanes.is_empty())
                .map_or(std::ptr::null(), <[i32]>::as_ptr),
            reach: conv.in_channels.min(packed.lanes),
            zeros: packed.zeros.as_slice().as_ptr(),
            out: out.wrapping_add(first),
            residual: epilogue.residual.map_or(std::ptr::null(), |all| all[index * size + first..].as_ptr()),
            count,
            rows,
            conv,
            min: epilogue.min,
            max: epilogue.max,
        };
        // SAFETY: image, weights and output have the lengths of the geometry, and chunks lie within its channels.
        unsafe { (kernels.grouped)(&line) };
    }
}

/// A line of output in one vector of channels.
pub(super) struct Line<'a> {
    /// The first input row that is read, at the first channel.
    x: *const f32,
    /// The chunk's.
    weights: *const f32,
    /// A vector.
    bias: *const f32,
    /// As in [`PackedGrouped`]; null where all lanes are of one group.
    spread: *const i32,
    /// Floats that are read for the lanes: a vector's, unless a pixel has less.
    reach: usize,
    /// What a tap in the padding reads.
    zeros: *const f32,
    /// The line's first pixel, at the first channel.
    out: *mut f32,
    /// As `out`; null for none.
    residual: *const f32,
    /// Channels.
    count: usize,
    /// Kernel rows that lie inside the image.
    rows: Range<usize>,
    conv: &'a Conv2d,
    min: f32,
    max: f32,
}

/// Where the lanes of a vector take their inputs.
trait Source<I: Isa>: Copy {
    /// What finds an input channel of every lane's group.
    type Channel: Copy;
    /// The first of them.
    fn first(self) -> Self::Channel;
    /// The one after it.
    fn next(self, isa: I, channel: Self::Channel) -> Self::Channel;
    /// # Safety
    /// The channel must exist in the pixel of which `from` is the chunk's first one.
    unsafe fn load(self, isa: I, from: *const f32, channel: Self::Channel) -> I::F32;
}

/// All lanes are of one group.
#[derive(Clone, Copy)]
struct Common;

impl<I: Isa> Source<I> for Common {
    type Channel = usize;
    #[inline(always)]
    fn first(self) -> usize {
        0
    }
    #[inline(always)]
    fn next(self, _isa: I, channel: usize) -> usize {
        channel + 1
    }
    #[inline(always)]
    unsafe fn load(self, isa: I, from: *const f32, channel: usize) -> I::F32 {
        // SAFETY: as the caller vouches.
        isa.splat(unsafe { from.add(channel).read() })
    }
}

/// Every lane has its own group; their channels lie in one vector, or in less where `FULL` is false.
#[derive(Clone, Copy)]
struct Spread<I: Isa, const FULL: bool> {
    /// The first channel of each.
    lanes: I::I32,
    /// Floats to be read.
    reach: usize,
}

impl<I: Isa, const FULL: bool> Source<I> for Spread<I, FULL> {
    type Channel = I::I32;
    #[inline(always)]
    fn first(self) -> I::I32 {
        self.lanes
    }
    #[inline(always)]
    fn next(self, isa: I, channel: I::I32) -> I::I32 {
        isa.add_int(channel, isa.splat_int(1))
    }
    #[inline(always)]
    unsafe fn load(self, isa: I, from: *const f32, channel: I::I32) -> I::F32 {
        // SAFETY: as the caller vouches; a pixel has the floats that are read.
        let floats = unsafe { if FULL { isa.load(from) } else { isa.load_partial(from, self.reach) } };
        isa.permute(floats, channel)
    }
}

/// Pixels of the tiles: those of a line are cut into nearly equal parts, for each of which the next larger one is taken.
const LONG: usize = 8;
const MIDDLE: usize = 7;
const SHORT: usize = 4;

/// The sums of a tile, a vector for each pixel.
type Sums = [MaybeUninit<[f32; MAX_LANES]>; LONG];

/// # Safety
/// What the line describes must be there, with the lengths of its geometry.
#[inline(always)]
pub(super) unsafe fn grouped<I: Isa>(isa: I, line: &Line<'_>) {
    let conv = line.conv;
    // Few registers hold the sums of few pixels.
    let longest = if I::TILE_ROWS[0] < LONG { SHORT } else { LONG };
    let count = conv.out_width.div_ceil(longest);
    let stride = match (conv.kernel_width, conv.stride[1], conv.dilation[1]) {
        (3, stride @ (1 | 2), 1) => stride,
        _ => 0,
    };
    let mut sums: Sums = [MaybeUninit::uninit(); LONG];
    for index in 0..count {
        let pixels = part(conv.out_width, count, index);
        // SAFETY: as the caller vouches; the pixels lie in the line, and are no more than those of the largest tile. There is
        // a channel for each lane, and a pixel has `reach` floats at least.
        unsafe {
            if line.spread.is_null() {
                match stride {
                    1 => sized::<I, _, 1>(isa, line, Common, &pixels, &mut sums),
                    2 => sized::<I, _, 2>(isa, line, Common, &pixels, &mut sums),
                    _ => sized::<I, _, 0>(isa, line, Common, &pixels, &mut sums),
                }
            } else {
                let (lanes, reach) = (isa.load_int(line.spread), line.reach);
                let full = Spread::<I, true> { lanes, reach };
                match stride {
                    _ if reach < I::LANES => {
                        let part = Spread::<I, false> { lanes, reach };
                        sized::<I, _, 0>(isa, line, part, &pixels, &mut sums);
                    }
                    1 => sized::<I, _, 1>(isa, line, full, &pixels, &mut sums),
                    2 => sized::<I, _, 2>(isa, line, full, &pixels, &mut sums),
                    _ => sized::<I, _, 0>(isa, line, full, &pixels, &mut sums),
                }
            }
            // Written out for every tile, this would be half of the code.
            finish(isa, line, pixels, &sums);
        }
    }
}

/// Finishes the sums of some pixels and writes them.
///
/// # Safety
/// As [`grouped`]; the pixels must lie in the line, and their sums must be there.
#[inline(always)]
unsafe fn finish<I: Isa>(isa: I, line: &Line<'_>, pixels: Range<usize>, sums: &Sums) {
    let channels = line.conv.out_channels;
    // SAFETY: as the caller vouches.
    unsafe {
        for (pixel, sums) in pixels.zip(sums) {
            let at = pixel * channels;
            let mut sum = isa.load(sums.as_ptr().cast());
            if !line.residual.is_null() {
                sum = isa.add(sum, isa.load_up_to(line.residual.add(at), line.count));
            }
            isa.store_up_to(line.out.add(at), math::clamp(isa, sum, line.min, line.max), line.count);
        }
    }
}

/// # Safety
/// As [`tile`], for [`LONG`] pixels at most, or [`SHORT`] where registers are few.
#[inline(always)]
unsafe fn sized<I: Isa, S: Source<I>, const STRIDE: usize>(
    isa: I,
    line: &Line<'_>,
    source: S,
    pixels: &Range<usize>,
    sums: &mut Sums,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        match pixels.len() {
            // The constant condition drops the tiles that there are no registers for.
            LONG if const { I::TILE_ROWS[0] >= LONG } => {
                tile::<I, S, STRIDE, LONG>(isa, line, source, pixels.start, sums);
            }
            5..=MIDDLE if const { I::TILE_ROWS[0] >= LONG } => {
                tile::<I, S, STRIDE, MIDDLE>(isa, line, source, pixels.start, sums);
            }
            _ => tile::<I, S, STRIDE, SHORT>(isa, line, source, pixels.start, sums),
        }
    }
}

/// Pointers to pixels under a row of the kernel, which step from row to row.
struct Positions<const COUNT: usize> {
    from: [*const f32; COUNT],
    /// Floats; none in the padding.
    steps: [usize; COUNT],
}

impl<const COUNT: usize> Positions<COUNT> {
    /// `count` pixels, `step` columns apart from each other; `left` counts the padding's columns, too. Inlined, so that pointers
    /// are not read back from memory in other pieces than they were written in.
    #[inline(always)]
    fn of(line: &Line<'_>, count: usize, left: usize, step: usize) -> Self {
        let conv = line.conv;
        let below = conv.dilation[0] * conv.in_width * conv.in_channels;
        let mut positions = Positions { from: [line.zeros; COUNT], steps: [0; COUNT] };
        for index in 0..count {
            let column = (left + index * step).wrapping_sub(conv.pad_left);
            let inside = column < conv.in_width;
            let from = line.x.wrapping_add(column.wrapping_mul(conv.in_channels));
            positions.from[index] = if inside { from } else { line.zeros };
            positions.steps[index] = if inside { below } else { 0 };
        }
        positions
    }

    /// On to the next row of the kernel.
    #[inline(always)]
    fn step(&mut self, count: usize) {
        for index in 0..count {
            self.from[index] = self.from[index].wrapping_add(self.steps[index]);
        }
    }
}

/// The sums of `PIXELS` pixels from `first` on; what comes after the line takes part as padding or as whatever input is there,
/// and is not for use. `STRIDE` is that of a kernel of three columns, or 0 for whatever there is.
///
/// # Safety
/// As [`grouped`].
#[inline(always)]
unsafe fn tile<I: Isa, S: Source<I>, const STRIDE: usize, const PIXELS: usize>(
    isa: I,
    line: &Line<'_>,
    source: S,
    first: usize,
    to: &mut Sums,
) {
    let conv = line.conv;
    let depth = conv.in_channels / conv.groups;
    let left = first * conv.stride[1];
    // SAFETY: as the caller vouches: pointers step through the kernel's rows that lie inside, or stay at the zeros.
    unsafe {
        let mut sums = [isa.load(line.bias); PIXELS];
        if STRIDE > 0 {
            const WIDTH: usize = 3;
            let count = (PIXELS - 1) * STRIDE + WIDTH;
            let mut at = Positions::<{ (LONG - 1) * 2 + WIDTH }>::of(line, count, left, 1);
            let mut weights = line.weights.add(line.rows.start * depth * WIDTH * I::LANES);
            for _ in line.rows.clone() {
                let mut channel = source.first();
                for _ in 0..depth {
                    let mut weight = [isa.splat(0.0); WIDTH];
                    for kx in 0..WIDTH {
                        weight[kx] = isa.load(weights.add(kx * I::LANES));
                    }
                    weights = weights.add(WIDTH * I::LANES);
                    for_numbers!(position below ((PIXELS - 1) * STRIDE + WIDTH) {
                        let value = source.load(isa, at.from[position], channel);
                        for_numbers!(pixel below (PIXELS) {
                            let kx = usize::wrapping_sub(position, pixel * STRIDE);
                            if kx < WIDTH {
                                sums[pixel] = isa.mul_add(value, weight[kx], sums[pixel]);
                            }
                        } 0 1 2 3 4 5 6 7);
                    } 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
                    channel = source.next(isa, channel);
                }
                at.step(count);
            }
        } else {
            let width = conv.kernel_width;
            for kx in 0..width {
                let left = left + kx * conv.dilation[1];
                let mut at = Positions::<PIXELS>::of(line, PIXELS, left, conv.stride[1]);
                let mut weights = line.weights.add((line.rows.start * depth * width + kx) * I::LANES);
                for _ in line.rows.clone() {
                    let mut channel = source.first();
                    for _ in 0..depth {
                        let weight = isa.load(weights);
                        weights = weights.wrapping_add(width * I::LANES);
                        for_numbers!(pixel below (PIXELS) {
                            let value = source.load(isa, at.from[pixel], channel);
                            sums[pixel] = isa.mul_add(value, weight, sums[pixel]);
                        } 0 1 2 3 4 5 6 7);
                        channel = source.next(isa, channel);
                    }
                    at.step(PIXELS);
                }
            }
        }
        for_numbers!(pixel below (PIXELS) {
            isa.store(to[pixel].as_mut_ptr().cast(), sums[pixel]);
        } 0 1 2 3 4 5 6 7);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::conv::PackedConv;
    use crate::kernels::table::available;
    use crate::kernels::testing::{check_conv, same_conv as same};

    /// Convolutions of these channels in and out of a group: 3x3 and others, with and without strides and dilations.
    fn check([depth, width]: [usize; 2], groups: usize) {
        let channels = [groups * depth, groups * width];
        let cases = [
            same(1, [5, 9], channels, [3, 3]),
            same(2, [4, 17], channels, [3, 3]),
            Conv2d {
                pad_top: 0,
                pad_left: 0,
                out_height: 3,
                out_width: 10,
                ..same(1, [5, 12], channels, [3, 3])
            },
            Conv2d { stride: [2, 2], out_height: 4, out_width: 6, ..same(1, [7, 11], channels, [3, 3]) },
            Conv2d { stride: [2, 2], out_height: 3, out_width: 9, ..same(1, [6, 18], channels, [7, 7]) },
            Conv2d { dilation: [2, 3], pad_top: 2, pad_left: 3, ..same(1, [6, 10], channels, [3, 3]) },
            Conv2d { stride: [1, 3], out_width: 4, ..same(1, [3, 10], channels, [2, 3]) },
            same(1, [3, 5], channels, [1, 1]),
            same(1, [2, 2], channels, [5, 5]),
        ];
        for conv in cases {
            check_conv(&Conv2d { groups, ..conv }, &[1, 3]);
        }
        check_conv(&Conv2d { groups, ..same(1, [12, 14], channels, [3, 3]) }, &[2]);
    }

    #[test]
    fn several_channels_of_each() {
        for (width, groups) in [(2, 24), (2, 3), (3, 11), (4, 9), (16, 2), (17, 3), (33, 2)] {
            check([1, width], groups);
        }
    }

    #[test]
    fn groups_narrower_than_a_vector() {
        for (size, groups) in [(2, 19), (3, 7), (4, 12), (5, 2), (8, 5), (8, 2)] {
            check([size, size], groups);
        }
        check([2, 3], 9);
        check([4, 2], 9);
        check([3, 1], 20);
    }

    #[test]
    fn groups_wider_than_a_vector() {
        for size in [12, 16, 20, 33] {
            check([size, size], 2);
        }
        check([3, 20], 3);
        check([20, 3], 3);
        check([64, 24], 2);
    }

    #[test]
    fn images_beyond_a_block() {
        let wide = same(2, [13, 300], [40, 40], [3, 3]);
        check_conv(&Conv2d { groups: 10, ..wide }, &[1, 2]);
    }

    #[test]
    fn nothing_but_padding() {
        for (size, groups) in [([0, 3], 4), ([3, 0], 4), ([0, 0], 2)] {
            let conv = Conv2d { out_height: 2, out_width: 2, groups, ..same(1, size, [8, 16], [3, 3]) };
            check_conv(&conv, &[1, 2]);
        }
        // The last output rows see nothing of the input.
        let conv = same(1, [4, 4], [8, 8], [3, 3]);
        check_conv(&Conv2d { out_height: 9, out_width: 9, groups: 2, ..conv }, &[1]);
        check_conv(&Conv2d { batch: 0, groups: 2, ..conv }, &[1]);
    }

    #[test]
    fn weights_of_another_instruction_set_are_refused() {
        let conv = Conv2d { groups: 4, ..same(1, [3, 3], [8, 8], [3, 3]) };
        let packed = |kernels| PackedGrouped::pack(kernels, &conv, Filter::taps_first(&[1.0f32; 144]), None);
        for kernels in available() {
            assert!(pays(kernels, &conv));
            for other in available() {
                assert_eq!(packed(kernels).unwrap().check(other).is_ok(), kernels.lanes == other.lanes);
            }
        }
        assert!(PackedConv::pack(available()[0], &conv, &[1.0; 143], None).is_err());
    }
}
