//! Convolution of bytes with one group per channel.
//!
//! The instruction for products of bytes adds up four of them in a lane. A lane is a channel here, and its four bytes lie
//! below each other: three kernel rows of one column and a zero. So a column of input, once put together, serves all
//! output pixels that see it, and sums are exact in 32 bits. What lies outside of the image reads the zero point,
//! which the bias makes up for.
//!
//! Four vectors of channels at once are put together by two steps of interleaving bytes, in an order that the instruction
//! set likes best ([`column_of`]): weights, bias and factors of such blocks are packed in it, and the bytes of the
//! output come out of it by packing. What is left of the channels goes through single vectors.

use super::aligned::AlignedFloats;
use super::conv::Conv2d;
use super::conv_i8::{Finish, store_bytes, store_columns, store_row};
use super::depthwise::for_numbers;
use super::isa::{Isa, MAX_LANES, column_of};
use super::tile_i8::Kind;
use std::ops::Range;

/// Kernel rows of a lane.
const ROWS: usize = 3;
/// Pixels of a tile.
const PIXELS: usize = 4;
/// Pixels of a tile of four vectors of channels, where registers are few.
const FEW: usize = 2;
/// Vectors of a block.
const VECTORS: usize = 4;

/// One line of output.
pub(super) struct LineI8<'a> {
    /// The image.
    pub(super) x: *const u8,
    /// As [`pack`] makes them.
    pub(super) weights: *const i32,
    /// As [`pack_blocks`] makes them.
    pub(super) blocks: *const i32,
    /// Blocks there.
    pub(super) count: usize,
    /// Channels from one row of weights to the next: whole vectors.
    pub(super) padded: usize,
    /// Per channel, in whole vectors.
    pub(super) bias: *const i32,
    /// As the bias.
    pub(super) factors: *const f32,
    /// The zero point for every channel.
    pub(super) padding: *const u8,
    pub(super) out: *mut u8,
    pub(super) conv: &'a Conv2d,
    /// Input row of the first tap, plus the padding.
    pub(super) top: usize,
    pub(super) channels: Range<usize>,
    pub(super) finish: Finish,
}

/// Weights `[taps, channels]` as lanes: by three kernel rows, column and channel.
pub(super) fn pack(conv: &Conv2d, weights: &[i8], padded: usize, packed: &mut [f32]) {
    let (height, width, channels) = (conv.kernel_height, conv.kernel_width, conv.out_channels);
    for (index, row) in packed.chunks_exact_mut(padded.max(1)).enumerate() {
        let (group, column) = (index / width, index % width);
        for (channel, lane) in row.iter_mut().enumerate().take(channels) {
            let byte = |row: usize| {
                let row = group * ROWS + row;
                if row < height { weights[(row * width + column) * channels + channel] as u8 } else { 0 }
            };
            *lane = f32::from_bits(u32::from_le_bytes([byte(0), byte(1), byte(2), 0]));
        }
    }
}

/// Lanes of [`pack`].
pub(super) fn packed_len(conv: &Conv2d, padded: usize) -> usize {
    conv.kernel_height.div_ceil(ROWS) * conv.kernel_width * padded
}

/// Blocks of channels, for each: bias, factors and the lanes of [`pack`]. `lanes` and `segment` are those of the
/// instruction set. Channels that are half a block are one block of two pixels; others that do not fill one have none.
pub(super) fn pack_blocks(
    conv: &Conv2d,
    [lanes, segment]: [usize; 2],
    packed: &[f32],
    bias: &[i32],
    factors: &[f32],
) -> AlignedFloats {
    let (channels, block) = (conv.out_channels, VECTORS * lanes);
    let rows = packed.len().checked_div(bias.len()).unwrap_or(0);
    let count = count_of(conv, block);
    let mut blocks = AlignedFloats::zeroed(count * (2 + rows) * block);
    for (index, to) in blocks.as_mut_slice().chunks_exact_mut(block).enumerate() {
        let (first, row) = (index / (2 + rows) * block, index % (2 + rows));
        for (place, to) in to.iter_mut().enumerate() {
            let channel = first + column_of(segment, place / lanes, place % lanes);
            let channel = channel % channels;
            *to = match row {
                0 => f32::from_bits(bias[channel] as u32),
                1 => factors[channel],
                _ => packed[(row - 2) * bias.len() + channel],
            };
        }
    }
    blocks
}

/// Blocks of [`pack_blocks`] when one is so many channels.
pub(super) fn count_of(conv: &Conv2d, block: usize) -> usize {
    if is_doubled(conv, block) { 1 } else { conv.out_channels / block }
}

/// Whether a block is two neighbouring pixels.
fn is_doubled(conv: &Conv2d, block: usize) -> bool {
    conv.out_channels * 2 == block && conv.stride[1] == 1
}

/// Lanes of a block of [`pack_blocks`].
fn block_len(conv: &Conv2d, block: usize) -> usize {
    (2 + conv.kernel_height.div_ceil(ROWS) * conv.kernel_width) * block
}

/// Rows of the image below each other; a row outside of it is the padding, whatever the column.
struct Rows {
    rows: [*const u8; ROWS],
    /// Bytes from one column to the next.
    steps: [usize; ROWS],
}

impl Rows {
    /// Three kernel rows from `first` on.
    #[inline(always)]
    fn of(line: &LineI8<'_>, first: usize) -> Self {
        let conv = line.conv;
        let mut found = Self { rows: [line.padding; ROWS], steps: [0; ROWS] };
        for row in 0..ROWS {
            let ky = first + row;
            let iy = (line.top + ky * conv.dilation[0]).wrapping_sub(conv.pad_top);
            if ky < conv.kernel_height && iy < conv.in_height {
                found.rows[row] = line.x.wrapping_add(iy * conv.in_width * conv.in_channels);
                found.steps[row] = conv.in_channels;
            }
        }
        found
    }

    #[inline(always)]
    fn outside(line: &LineI8<'_>) -> Self {
        Self { rows: [line.padding; ROWS], steps: [0; ROWS] }
    }

    /// The pointers to `channel` of column `ix`.
    #[inline(always)]
    fn at(&self, ix: usize, channel: usize) -> [*const u8; ROWS] {
        let at = |row: usize| self.rows[row].wrapping_add(ix * self.steps[row] + channel);
        [at(0), at(1), at(2)]
    }

    /// `count` channels of column `ix`, a column in each lane.
    ///
    /// # Safety
    /// They must exist.
    #[inline(always)]
    unsafe fn column<I: Isa>(&self, isa: I, ix: usize, channel: usize, count: usize) -> I::I32 {
        // No closure: a vector is handed to one through memory where it is not inlined.
        let mut parts = [isa.splat_int(0); ROWS];
        for row in 0..ROWS {
            // SAFETY: as the caller vouches.
            parts[row] = unsafe { isa.load_bytes(self.rows[row].add(ix * self.steps[row] + channel), count) };
        }
        isa.or(isa.or(parts[0], isa.shift_left::<8>(parts[1])), isa.shift_left::<16>(parts[2]))
    }
}

/// A line of the convolution. `FAST` as in [`Isa::dot`].
///
/// # Safety
/// What the line describes must be there, with the lengths of its geometry.
#[inline(always)]
pub(super) unsafe fn depthwise_i8<I: Isa, const FAST: bool>(isa: I, line: &LineI8<'_>) {
    let conv = line.conv;
    let (kernel, stride, width) = (conv.kernel_width, conv.stride[1], conv.out_width);
    let block = VECTORS * I::LANES;
    let mut run = Blocks { channels: 0..0, columns: 0..0, stride: 1, step: conv.out_channels };
    // What is left: of the columns at both ends of the line, all channels from the first one.
    let (mut left, mut first) = ([0..width, width..width], line.channels.start);
    // Written out without vectors of bytes, all of these tiles would be a quarter of a megabyte.
    let many = const { I::TILE_ROWS[0] >= 8 };
    if many
        && line.finish.kind == Kind::Bytes
        && matches!((kernel, stride, conv.dilation[1]), (3 | 5, 1 | 2, 1))
    {
        if is_doubled(conv, block) && line.channels.len() == conv.out_channels {
            // Pixels whose columns all exist, in pairs.
            let start = conv.pad_left.min(width);
            let end = (conv.in_width + conv.pad_left + 1).saturating_sub(kernel).clamp(start, width);
            let pairs = (end - start) / 2;
            if pairs >= PIXELS {
                run = Blocks { channels: 0..1, columns: start..start + pairs, stride: 2, step: block };
                left = [0..start, start + 2 * pairs..width];
            }
        } else if first.is_multiple_of(block) && width >= PIXELS {
            let last = (line.channels.end / block).min(line.count).max(first / block);
            run =
                Blocks { channels: first / block..last, columns: 0..width, stride, step: conv.out_channels };
            first = run.channels.end * block;
        }
    }
    // SAFETY: as the caller vouches.
    unsafe {
        match (kernel, run.stride) {
            _ if run.channels.is_empty() => {}
            (3, 1) if many => blocks::<I, FAST, 3, 1>(isa, line, &run),
            (3, 2) if many => blocks::<I, FAST, 3, 2>(isa, line, &run),
            (5, 1) if many => blocks::<I, FAST, 5, 1>(isa, line, &run),
            (5, 2) if many => blocks::<I, FAST, 5, 2>(isa, line, &run),
            _ => {}
        }
        let channels = first..line.channels.end;
        for columns in left {
            if columns.is_empty() || channels.is_empty() {
                continue;
            }
            match (kernel, stride, conv.dilation[1]) {
                _ if width < PIXELS => pixels::<I, FAST>(isa, line, columns, channels.clone()),
                (3, 1, 1) => tiles::<I, FAST, 3, 1>(isa, line, columns, channels.clone()),
                (3, 2, 1) => tiles::<I, FAST, 3, 2>(isa, line, columns, channels.clone()),
                (5, 1, 1) if many => tiles::<I, FAST, 5, 1>(isa, line, columns, channels.clone()),
                (5, 2, 1) if many => tiles::<I, FAST, 5, 2>(isa, line, columns, channels.clone()),
                _ => pixels::<I, FAST>(isa, line, columns, channels.clone()),
            }
        }
    }
}

/// What of a line goes through blocks: four vectors of channels of one output pixel, or of two neighbours.
struct Blocks {
    /// Numbers of the blocks.
    channels: Range<usize>,
    /// First output column, and as many as there are blocks side by side.
    columns: Range<usize>,
    /// Input columns from one block to the next.
    stride: usize,
    /// Bytes of the output from one block to the next.
    step: usize,
}

/// # Safety
/// As [`depthwise_i8`]; there must be [`PIXELS`] blocks side by side at least. Where a block is two pixels, all of
/// their columns must exist.
#[inline(always)]
unsafe fn blocks<I: Isa, const FAST: bool, const WIDTH: usize, const STRIDE: usize>(
    isa: I,
    line: &LineI8<'_>,
    run: &Blocks,
) {
    let (block, count) = (VECTORS * I::LANES, run.columns.len());
    for channels in run.channels.clone() {
        let packed = line.blocks.wrapping_add(channels * block_len(line.conv, block));
        let mut pixel = 0;
        // SAFETY: a tile that would reach beyond the end is moved back, and computes some pixels again.
        unsafe {
            while pixel < count {
                let input = [run.columns.start * line.conv.stride[1], channels * block];
                let output = run.columns.start * line.conv.out_channels + channels * block;
                if I::TILE_VECTORS > 2 {
                    let at = pixel.min(count - PIXELS);
                    let from = [input[0] + at * STRIDE, input[1]];
                    let to = line.out.add(output + at * run.step);
                    block_tile::<I, FAST, WIDTH, STRIDE, PIXELS>(isa, line, packed, from, to, run.step);
                    pixel += PIXELS;
                } else {
                    let at = pixel.min(count - FEW);
                    let from = [input[0] + at * STRIDE, input[1]];
                    let to = line.out.add(output + at * run.step);
                    block_tile::<I, FAST, WIDTH, STRIDE, FEW>(isa, line, packed, from, to, run.step);
                    pixel += FEW;
                }
            }
        }
    }
}

/// The same pointer, of which the compiler knows nothing: else it would load all weights once, for there is no room in the
/// registers, and keep what does not fit in memory, sums among it.
#[inline(always)]
#[cfg_attr(
    any(target_arch = "x86_64", target_arch = "aarch64"),
    allow(clippy::pointers_in_nomem_asm_block, reason = "nothing is read or written there")
)]
fn opaque(pointer: *const i32) -> *const i32 {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        let mut pointer = pointer;
        // SAFETY: no instruction.
        unsafe {
            core::arch::asm!("/* {0} */", inout(reg) pointer, options(nomem, nostack, preserves_flags));
        }
        pointer
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pointer
}

/// `TILE` blocks side by side. `left` is the first input column, plus the padding, and `channel` the first channel.
///
/// # Safety
/// As [`blocks`]; `packed` must be the block's, and `to` writable for a block every `step` bytes.
#[inline(always)]
unsafe fn block_tile<I: Isa, const FAST: bool, const WIDTH: usize, const STRIDE: usize, const TILE: usize>(
    isa: I,
    line: &LineI8<'_>,
    packed: *const i32,
    [left, channel]: [usize; 2],
    to: *mut u8,
    step: usize,
) {
    let conv = line.conv;
    // SAFETY: as the callers vouch; columns outside of the image are replaced by the padding.
    unsafe {
        let mut sums = [[isa.splat_int(0); VECTORS]; TILE];
        for vector in 0..VECTORS {
            let bias = isa.load_int(packed.add(vector * I::LANES));
            for_numbers!(pixel below (TILE) { sums[pixel][vector] = bias; } 0 1 2 3);
        }
        for group in 0..conv.kernel_height.div_ceil(ROWS) {
            let (rows, outside) = (Rows::of(line, group * ROWS), Rows::outside(line));
            let mut weights = packed.add((2 + group * WIDTH) * VECTORS * I::LANES);
            for_numbers!(position below ((TILE - 1) * STRIDE + WIDTH) {
                weights = opaque(weights);
                let ix = (left + position).wrapping_sub(conv.pad_left);
                let from = if ix < conv.in_width { rows.at(ix, channel) } else { outside.at(0, channel) };
                let values = isa.load_columns(from);
                for_numbers!(pixel below (TILE) {
                    let kx = usize::wrapping_sub(position, pixel * STRIDE);
                    if kx < WIDTH {
                        for vector in 0..VECTORS {
                            let weight = isa.load_int(weights.add((kx * VECTORS + vector) * I::LANES));
                            sums[pixel][vector] =
                                isa.dot::<FAST>(sums[pixel][vector], values[vector], weight);
                        }
                    }
                } 0 1 2 3);
            } 0 1 2 3 4 5 6 7 8 9 10);
        }
        let mut factors = [isa.splat(0.0); VECTORS];
        for vector in 0..VECTORS {
            factors[vector] = isa.load(packed.add((VECTORS + vector) * I::LANES).cast());
        }
        for_numbers!(pixel below (TILE) {
            store_columns(isa, sums[pixel], factors, to.add(pixel * step), &line.finish);
        } 0 1 2 3);
    }
}

/// # Safety
/// As [`depthwise_i8`]; the line must have as many pixels as a tile.
#[inline(always)]
unsafe fn tiles<I: Isa, const FAST: bool, const WIDTH: usize, const STRIDE: usize>(
    isa: I,
    line: &LineI8<'_>,
    columns: Range<usize>,
    channels: Range<usize>,
) {
    let last = line.conv.out_width - PIXELS;
    let mut column = columns.start;
    while column < columns.end {
        // SAFETY: the columns of every tile lie in the line: one that would reach beyond its end is moved back,
        // and computes some pixels again.
        unsafe { tile::<I, FAST, WIDTH, STRIDE>(isa, line, column.min(last), channels.clone()) };
        column += PIXELS;
    }
}

/// All channels of `PIXELS` pixels.
///
/// # Safety
/// As [`depthwise_i8`]; the pixels must lie in the line.
#[inline(always)]
unsafe fn tile<I: Isa, const FAST: bool, const WIDTH: usize, const STRIDE: usize>(
    isa: I,
    line: &LineI8<'_>,
    column: usize,
    channels: Range<usize>,
) {
    let conv = line.conv;
    let left = column * STRIDE;
    let complete =
        left >= conv.pad_left && left + (PIXELS - 1) * STRIDE + WIDTH <= conv.in_width + conv.pad_left;
    let mut channel = channels.start;
    while channel < channels.end {
        let count = (channels.end - channel).min(I::LANES);
        // SAFETY: `count` channels remain; `complete` says that no column is missing.
        unsafe {
            if complete && count == I::LANES {
                tile_channels::<I, FAST, WIDTH, STRIDE, true>(isa, line, column, channel, I::LANES);
            } else {
                tile_channels::<I, FAST, WIDTH, STRIDE, false>(isa, line, column, channel, count);
            }
        }
        channel += I::LANES;
    }
}

/// `count` channels of `PIXELS` pixels. `COMPLETE` says that all input columns exist.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn tile_channels<
    I: Isa,
    const FAST: bool,
    const WIDTH: usize,
    const STRIDE: usize,
    const COMPLETE: bool,
>(
    isa: I,
    line: &LineI8<'_>,
    column: usize,
    channel: usize,
    count: usize,
) {
    let conv = line.conv;
    // SAFETY: as the callers vouch; columns outside of the image are replaced by the padding.
    unsafe {
        let mut sums = [isa.load_int(line.bias.add(channel)); PIXELS];
        for group in 0..conv.kernel_height.div_ceil(ROWS) {
            let (rows, outside) = (Rows::of(line, group * ROWS), Rows::outside(line));
            let weights = line.weights.add(group * WIDTH * line.padded + channel);
            let mut weight = [isa.splat_int(0); WIDTH];
            for kx in 0..WIDTH {
                weight[kx] = isa.load_int(weights.add(kx * line.padded));
            }
            for_numbers!(position below ((PIXELS - 1) * STRIDE + WIDTH) {
                let ix = (column * STRIDE + position).wrapping_sub(conv.pad_left);
                let value = if COMPLETE || ix < conv.in_width {
                    rows.column(isa, ix, channel, count)
                } else {
                    outside.column(isa, 0, channel, count)
                };
                for_numbers!(pixel below (PIXELS) {
                    let kx = usize::wrapping_sub(position, pixel * STRIDE);
                    if kx < WIDTH {
                        sums[pixel] = isa.dot::<FAST>(sums[pixel], value, weight[kx]);
                    }
                } 0 1 2 3);
            } 0 1 2 3 4 5 6 7 8 9 10);
        }
        let at = column * conv.out_channels + channel;
        if COMPLETE && line.finish.kind == Kind::Bytes {
            let factors = isa.load(line.factors.add(channel));
            for_numbers!(pixel below (PIXELS) {
                let to = line.out.add(at + pixel * conv.out_channels);
                store_bytes(isa, [sums[pixel]], [factors], to, count, &line.finish);
            } 0 1 2 3);
            return;
        }
        let mut memory = [0i32; PIXELS * MAX_LANES];
        for_numbers!(pixel below (PIXELS) {
            isa.store_int(memory.as_mut_ptr().add(pixel * I::LANES), sums[pixel]);
        } 0 1 2 3);
        for pixel in 0..PIXELS {
            let to = line.out.add((at + pixel * conv.out_channels) * line.finish.kind.size());
            let sums = memory.as_ptr().add(pixel * I::LANES);
            store_row(isa, sums, line.factors.add(channel), to, count, &line.finish);
        }
    }
}

/// Pixels one by one, for all other kernels.
///
/// # Safety
/// As [`depthwise_i8`].
#[inline(always)]
unsafe fn pixels<I: Isa, const FAST: bool>(
    isa: I,
    line: &LineI8<'_>,
    columns: Range<usize>,
    channels: Range<usize>,
) {
    let conv = line.conv;
    for column in columns {
        let mut channel = channels.start;
        while channel < channels.end {
            let count = (channels.end - channel).min(I::LANES);
            // SAFETY: `count` channels remain; columns outside of the image are replaced by the padding.
            unsafe {
                let mut sum = isa.load_int(line.bias.add(channel));
                for group in 0..conv.kernel_height.div_ceil(ROWS) {
                    let (rows, outside) = (Rows::of(line, group * ROWS), Rows::outside(line));
                    for kx in 0..conv.kernel_width {
                        let ix =
                            (column * conv.stride[1] + kx * conv.dilation[1]).wrapping_sub(conv.pad_left);
                        let value = if ix < conv.in_width {
                            rows.column(isa, ix, channel, count)
                        } else {
                            outside.column(isa, 0, channel, count)
                        };
                        let at = (group * conv.kernel_width + kx) * line.padded + channel;
                        sum = isa.dot::<FAST>(sum, value, isa.load_int(line.weights.add(at)));
                    }
                }
                let mut memory = [0i32; MAX_LANES];
                isa.store_int(memory.as_mut_ptr(), sum);
                let to = line.out.add((column * conv.out_channels + channel) * line.finish.kind.size());
                store_row(isa, memory.as_ptr(), line.factors.add(channel), to, count, &line.finish);
            }
            channel += I::LANES;
        }
    }
}
