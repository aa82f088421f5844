//! Convolution of bytes with one group per channel.
//!
//! The instruction for products of bytes adds up four of them in a lane. A lane is a channel here, and its four bytes lie
//! below each other: three kernel rows of one column and a zero. So a column of input, once put together, serves all
//! output pixels that see it, and sums are exact in 32 bits. What lies outside of the image reads the zero point,
//! which the bias makes up for.

use super::conv::Conv2d;
use super::conv_i8::{Finish, store_bytes, store_row};
use super::depthwise::for_numbers;
use super::isa::{Isa, MAX_LANES};
use super::tile_i8::Kind;
use std::ops::Range;

/// Kernel rows of a lane.
const ROWS: usize = 3;
/// Pixels of a tile, as in [`depthwise`](super::depthwise).
const LONG: usize = 7;
const SHORT: usize = 4;

/// One line of output.
pub(super) struct LineI8<'a> {
    /// The image.
    pub(super) x: *const u8,
    /// As [`pack`] makes them.
    pub(super) weights: *const i32,
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
    // SAFETY: as the caller vouches.
    unsafe {
        match (conv.kernel_width, conv.stride[1], conv.dilation[1]) {
            (3, 1, 1) => tiles::<I, FAST, 3, 1>(isa, line),
            (3, 2, 1) => tiles::<I, FAST, 3, 2>(isa, line),
            (5, 1, 1) => tiles::<I, FAST, 5, 1>(isa, line),
            (5, 2, 1) => tiles::<I, FAST, 5, 2>(isa, line),
            _ => pixels::<I, FAST>(isa, line),
        }
    }
}

/// # Safety
/// As [`depthwise_i8`].
#[inline(always)]
unsafe fn tiles<I: Isa, const FAST: bool, const WIDTH: usize, const STRIDE: usize>(
    isa: I,
    line: &LineI8<'_>,
) {
    let width = line.conv.out_width;
    // SAFETY: the columns of every tile lie in the line: one that would reach beyond its end is moved back,
    // and computes some pixels again.
    unsafe {
        if width < SHORT {
            return pixels::<I, FAST>(isa, line);
        }
        let mut column = 0;
        while column < width {
            // The long tile wants more than sixteen registers.
            if I::TILE_VECTORS > 2 && width - column > SHORT && width >= LONG {
                tile::<I, FAST, WIDTH, STRIDE, LONG>(isa, line, column.min(width - LONG));
                column += LONG;
            } else {
                tile::<I, FAST, WIDTH, STRIDE, SHORT>(isa, line, column.min(width - SHORT));
                column += SHORT;
            }
        }
    }
}

/// All channels of `PIXELS` pixels.
///
/// # Safety
/// As [`depthwise_i8`]; the pixels must lie in the line.
#[inline(always)]
unsafe fn tile<I: Isa, const FAST: bool, const WIDTH: usize, const STRIDE: usize, const PIXELS: usize>(
    isa: I,
    line: &LineI8<'_>,
    column: usize,
) {
    let conv = line.conv;
    let left = column * STRIDE;
    let complete =
        left >= conv.pad_left && left + (PIXELS - 1) * STRIDE + WIDTH <= conv.in_width + conv.pad_left;
    let mut channel = line.channels.start;
    while channel < line.channels.end {
        let count = (line.channels.end - channel).min(I::LANES);
        // SAFETY: `count` channels remain; `complete` says that no column is missing.
        unsafe {
            if complete && count == I::LANES {
                tile_channels::<I, FAST, WIDTH, STRIDE, PIXELS, true>(isa, line, column, channel, I::LANES);
            } else {
                tile_channels::<I, FAST, WIDTH, STRIDE, PIXELS, false>(isa, line, column, channel, count);
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
    const PIXELS: usize,
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
                } 0 1 2 3 4 5 6);
            } 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
        }
        let at = column * conv.out_channels + channel;
        if COMPLETE && line.finish.kind == Kind::Bytes {
            let factors = isa.load(line.factors.add(channel));
            for_numbers!(pixel below (PIXELS) {
                let to = line.out.add(at + pixel * conv.out_channels);
                store_bytes(isa, [sums[pixel]], [factors], to, count, &line.finish);
            } 0 1 2 3 4 5 6);
            return;
        }
        let mut memory = [0i32; LONG * MAX_LANES];
        for_numbers!(pixel below (PIXELS) {
            isa.store_int(memory.as_mut_ptr().add(pixel * I::LANES), sums[pixel]);
        } 0 1 2 3 4 5 6);
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
unsafe fn pixels<I: Isa, const FAST: bool>(isa: I, line: &LineI8<'_>) {
    let conv = line.conv;
    for column in 0..conv.out_width {
        let mut channel = line.channels.start;
        while channel < line.channels.end {
            let count = (line.channels.end - channel).min(I::LANES);
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
