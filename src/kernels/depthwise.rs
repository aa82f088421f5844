//! Convolution with one group per channel: vectors over channels, no product to speak of, bound by loads.
//!
//! For the usual kernels, seven (or four) neighbouring output pixels are computed together, so that
//! weights and overlapping input columns are loaded once; all others take one pixel and the taps that exist.

use super::conv::Conv2d;
use super::isa::Isa;
use super::math;
use super::pack::AlignedFloats;
use super::product::{Epilogue, part};
use super::table::Kernels;
use super::threads::{SendPtr, Threads};
use std::ops::Range;

/// Weights `[taps, out_channels]` and bias.
#[derive(Clone, Debug)]
pub(super) struct PackedDepthwise {
    weights: AlignedFloats,
    bias: Option<AlignedFloats>,
}

impl PackedDepthwise {
    pub(super) fn pack(weights: &[f32], bias: Option<&[f32]>) -> PackedDepthwise {
        let copy = |from: &[f32]| {
            let mut to = AlignedFloats::zeroed(from.len());
            to.as_mut_slice().copy_from_slice(from);
            to
        };
        PackedDepthwise { weights: copy(weights), bias: bias.map(copy) }
    }

    pub(super) fn bytes(&self) -> usize {
        let bias = self.bias.as_ref().map_or(0, |bias| bias.as_slice().len());
        (self.weights.as_slice().len() + bias) * size_of::<f32>()
    }
}

/// Multiply-adds below which a second thread costs more than it brings.
const PARALLEL_WORK: usize = 32 * 1024;

/// Runs a checked geometry: the slices have its lengths and `packed` its weights.
pub(super) fn run(
    kernels: &Kernels,
    conv: &Conv2d,
    packed: &PackedDepthwise,
    x: &[f32],
    out: &mut [f32],
    epilogue: &Epilogue<'_>,
    threads: &Threads,
) {
    let lines = conv.batch * conv.out_height;
    let line = conv.out_width * conv.out_channels;
    let work = out.len().saturating_mul(conv.kernel_height * conv.kernel_width);
    let tasks = if threads.count() == 1 {
        1
    } else {
        (work / PARALLEL_WORK).clamp(1, threads.count() * 4).min(lines)
    };
    let data = SendPtr(out.as_mut_ptr());
    threads.for_each(tasks, |task| {
        for index in part(lines, tasks, task) {
            // SAFETY: index < lines, and every line belongs to one task.
            let to = unsafe { std::slice::from_raw_parts_mut(data.get().add(index * line), line) };
            let residual = epilogue.residual.map(|residual| &residual[index * line..][..line]);
            run_line(kernels, conv, packed, x, index, to, residual, epilogue);
            if let Some(activation) = epilogue.activation {
                // SAFETY: in place over the line.
                unsafe { kernels.unary_run(activation, to.as_ptr(), to.as_mut_ptr(), to.len()) };
            }
        }
    });
}

#[allow(clippy::too_many_arguments, reason = "the body of one caller's loop")]
fn run_line(
    kernels: &Kernels,
    conv: &Conv2d,
    packed: &PackedDepthwise,
    x: &[f32],
    index: usize,
    out: &mut [f32],
    residual: Option<&[f32]>,
    epilogue: &Epilogue<'_>,
) {
    let (image, y) = (index / conv.out_height, index % conv.out_height);
    let size = conv.in_height * conv.in_width * conv.in_channels;
    let x = &x[image * size..][..size];
    let rows = inside(y * conv.stride[0], conv.pad_top, conv.kernel_height, conv.dilation[0], conv.in_height);
    if conv.out_channels != conv.in_channels {
        return multiplied(conv, packed, x, y, rows, out, residual, epilogue);
    }
    let line = Line {
        x: x.as_ptr(),
        weights: packed.weights.as_slice().as_ptr(),
        bias: packed.bias.as_ref().map_or(std::ptr::null(), |bias| bias.as_slice().as_ptr()),
        out: out.as_mut_ptr(),
        residual: residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
        conv,
        top: y * conv.stride[0],
        rows,
        min: epilogue.min,
        max: epilogue.max,
    };
    // SAFETY: x is one image, weights and bias have the geometry's lengths, out and residual are one line.
    unsafe { (kernels.depthwise)(&line) };
}

/// The taps of a position (its first tap at `start - pad`) that lie inside `0..limit`.
#[inline(always)]
fn inside(start: usize, pad: usize, taps: usize, dilation: usize, limit: usize) -> Range<usize> {
    let first = pad.saturating_sub(start).div_ceil(dilation).min(taps);
    let last = (limit + pad).saturating_sub(start).div_ceil(dilation).min(taps);
    first..last.max(first)
}

/// More than one output channel per input channel: rare, so plain code.
#[allow(clippy::too_many_arguments, reason = "the body of one caller's loop")]
fn multiplied(
    conv: &Conv2d,
    packed: &PackedDepthwise,
    x: &[f32],
    y: usize,
    rows: Range<usize>,
    out: &mut [f32],
    residual: Option<&[f32]>,
    epilogue: &Epilogue<'_>,
) {
    let multiplier = conv.out_channels / conv.in_channels;
    let weights = packed.weights.as_slice();
    for (column, pixel) in out.chunks_exact_mut(conv.out_channels).enumerate() {
        let left = column * conv.stride[1];
        let columns = inside(left, conv.pad_left, conv.kernel_width, conv.dilation[1], conv.in_width);
        match &packed.bias {
            Some(bias) => pixel.copy_from_slice(bias.as_slice()),
            None => pixel.fill(0.0),
        }
        for ky in rows.clone() {
            let iy = y * conv.stride[0] + ky * conv.dilation[0] - conv.pad_top;
            for kx in columns.clone() {
                let ix = left + kx * conv.dilation[1] - conv.pad_left;
                let from = &x[(iy * conv.in_width + ix) * conv.in_channels..][..conv.in_channels];
                let weights =
                    &weights[(ky * conv.kernel_width + kx) * conv.out_channels..][..conv.out_channels];
                for ((sums, weights), &value) in
                    pixel.chunks_exact_mut(multiplier).zip(weights.chunks_exact(multiplier)).zip(from)
                {
                    for (sum, &weight) in sums.iter_mut().zip(weights) {
                        *sum += value * weight;
                    }
                }
            }
        }
        for (channel, sum) in pixel.iter_mut().enumerate() {
            if let Some(residual) = residual {
                *sum += residual[column * conv.out_channels + channel];
            }
            // Comparisons, so that NaN stays.
            if *sum < epilogue.min {
                *sum = epilogue.min;
            }
            if *sum > epilogue.max {
                *sum = epilogue.max;
            }
        }
    }
}

/// One line of output.
pub(super) struct Line<'a> {
    /// The image.
    x: *const f32,
    weights: *const f32,
    /// Null for none.
    bias: *const f32,
    out: *mut f32,
    /// Null for none.
    residual: *const f32,
    conv: &'a Conv2d,
    /// Input row of the first tap, plus the padding.
    top: usize,
    /// Kernel rows that lie inside the image.
    rows: Range<usize>,
    min: f32,
    max: f32,
}

/// A line of a depthwise convolution.
///
/// # Safety
/// What the line describes must be there, with the lengths of its geometry.
#[inline(always)]
pub(super) unsafe fn depthwise<I: Isa>(isa: I, line: &Line<'_>) {
    let conv = line.conv;
    // SAFETY: as the caller vouches.
    unsafe {
        match (conv.kernel_width, conv.stride[1], conv.dilation[1]) {
            (3, 1, 1) => tiles::<I, 3, 1>(isa, line),
            (3, 2, 1) => tiles::<I, 3, 2>(isa, line),
            (5, 1, 1) => tiles::<I, 5, 1>(isa, line),
            (5, 2, 1) => tiles::<I, 5, 2>(isa, line),
            _ => pixels(isa, line),
        }
    }
}

/// Pixels of a tile: seven accumulators, five weights and an input fit sixteen registers, and the widths of most networks
/// are multiples of seven. What is left over takes the short tile.
const LONG: usize = 7;
const SHORT: usize = 4;

/// # Safety
/// As [`depthwise`].
#[inline(always)]
unsafe fn tiles<I: Isa, const WIDTH: usize, const STRIDE: usize>(isa: I, line: &Line<'_>) {
    let width = line.conv.out_width;
    // SAFETY: the columns of every tile lie in the line: one that would reach beyond its end is moved back,
    // and computes some pixels again.
    unsafe {
        if width < SHORT {
            return pixels(isa, line);
        }
        let mut column = 0;
        while column < width {
            let left = width - column;
            // Five weights leave too few registers for seven sums.
            if WIDTH < 5 && left > SHORT && width >= LONG {
                tile::<I, WIDTH, STRIDE, LONG>(isa, line, column.min(width - LONG));
                column += LONG;
            } else {
                tile::<I, WIDTH, STRIDE, SHORT>(isa, line, column.min(width - SHORT));
                column += SHORT;
            }
        }
    }
}

/// All channels of `PIXELS` pixels.
///
/// # Safety
/// As [`depthwise`]; the pixels must lie in the line.
#[inline(always)]
unsafe fn tile<I: Isa, const WIDTH: usize, const STRIDE: usize, const PIXELS: usize>(
    isa: I,
    line: &Line<'_>,
    column: usize,
) {
    let conv = line.conv;
    let channels = conv.in_channels;
    let whole = channels / I::LANES * I::LANES;
    // Input columns that exist, counted from the first that the tile could read.
    let positions = (PIXELS - 1) * STRIDE + WIDTH;
    let left = column * STRIDE;
    let first = conv.pad_left.saturating_sub(left).min(positions);
    let last = (conv.in_width + conv.pad_left).saturating_sub(left).min(positions).max(first);
    let inside = first..last;
    let complete = inside == (0..positions);
    let mut channel = 0;
    // SAFETY: `LANES` channels, then those that remain; `complete` says that no column is missing.
    unsafe {
        if complete {
            while channel < whole {
                tile_channels::<I, WIDTH, STRIDE, PIXELS, true, true>(
                    isa,
                    line,
                    column,
                    &inside,
                    channel,
                    I::LANES,
                );
                channel += I::LANES;
            }
        } else {
            while channel < whole {
                tile_channels::<I, WIDTH, STRIDE, PIXELS, true, false>(
                    isa,
                    line,
                    column,
                    &inside,
                    channel,
                    I::LANES,
                );
                channel += I::LANES;
            }
        }
        if channel < channels {
            let count = channels - channel;
            tile_channels::<I, WIDTH, STRIDE, PIXELS, false, false>(
                isa, line, column, &inside, channel, count,
            );
        }
    }
}

/// `count` channels of `PIXELS` pixels. `FULL` says that `count` is a whole vector, `COMPLETE` that all input columns exist.
#[inline(always)]
unsafe fn tile_channels<
    I: Isa,
    const WIDTH: usize,
    const STRIDE: usize,
    const PIXELS: usize,
    const FULL: bool,
    const COMPLETE: bool,
>(
    isa: I,
    line: &Line<'_>,
    column: usize,
    inside: &Range<usize>,
    channel: usize,
    count: usize,
) {
    let conv = line.conv;
    let channels = conv.in_channels;
    // SAFETY: as the callers vouch: columns and channels lie inside image, weights and line. The pointer to the first column
    // may lie outside, and is not read then.
    unsafe {
        let mut sums = [bias::<I, FULL>(isa, line, channel, count); PIXELS];
        for ky in line.rows.clone() {
            let iy = line.top + ky * conv.dilation[0] - conv.pad_top;
            let pixel = (iy * conv.in_width + column * STRIDE) * channels + channel;
            let mut from = line.x.wrapping_add(pixel).wrapping_sub(conv.pad_left * channels);
            let weights = line.weights.add(ky * WIDTH * channels + channel);
            let mut weight = [isa.splat(0.0); WIDTH];
            for kx in 0..WIDTH {
                weight[kx] = load::<I, FULL>(isa, weights.add(kx * channels), count);
            }
            for position in 0..(PIXELS - 1) * STRIDE + WIDTH {
                if COMPLETE || inside.contains(&position) {
                    let value = load::<I, FULL>(isa, from, count);
                    for pixel in 0..PIXELS {
                        let kx = position.wrapping_sub(pixel * STRIDE);
                        if kx < WIDTH {
                            sums[pixel] = isa.mul_add(value, weight[kx], sums[pixel]);
                        }
                    }
                }
                from = from.wrapping_add(channels);
            }
        }
        if COMPLETE && channel.is_multiple_of(16) {
            let next = line.top + line.rows.end * conv.dilation[0] - conv.pad_top;
            let pixel = (next * conv.in_width + column * STRIDE) * channels + channel;
            let mut from = line.x.wrapping_add(pixel).wrapping_add((WIDTH - conv.pad_left) * channels);
            for _ in 0..PIXELS * STRIDE {
                isa.prefetch(from);
                from = from.wrapping_add(channels);
            }
        }
        for pixel in 0..PIXELS {
            finish::<I, FULL>(isa, line, sums[pixel], (column + pixel) * channels + channel, count);
        }
    }
}

/// Pixels one by one, with the taps that exist.
///
/// # Safety
/// As [`depthwise`].
#[inline(always)]
unsafe fn pixels<I: Isa>(isa: I, line: &Line<'_>) {
    let channels = line.conv.in_channels;
    let whole = channels / I::LANES * I::LANES;
    for column in 0..line.conv.out_width {
        let mut channel = 0;
        while channel < whole {
            // SAFETY: channel + LANES <= channels.
            unsafe { pixel::<I, true>(isa, line, column, channel, I::LANES) };
            channel += I::LANES;
        }
        if channel < channels {
            // SAFETY: the channels that remain.
            unsafe { pixel::<I, false>(isa, line, column, channel, channels - channel) };
        }
    }
}

#[inline(always)]
unsafe fn pixel<I: Isa, const FULL: bool>(
    isa: I,
    line: &Line<'_>,
    column: usize,
    channel: usize,
    count: usize,
) {
    let conv = line.conv;
    let channels = conv.in_channels;
    let left = column * conv.stride[1];
    let taps = inside(left, conv.pad_left, conv.kernel_width, conv.dilation[1], conv.in_width);
    // SAFETY: as the caller vouches; only taps inside the image are read.
    unsafe {
        let mut sum = bias::<I, FULL>(isa, line, channel, count);
        for ky in line.rows.clone() {
            let iy = line.top + ky * conv.dilation[0] - conv.pad_top;
            for kx in taps.clone() {
                let ix = left + kx * conv.dilation[1] - conv.pad_left;
                let from = line.x.add((iy * conv.in_width + ix) * channels + channel);
                let weight = line.weights.add((ky * conv.kernel_width + kx) * channels + channel);
                let value = load::<I, FULL>(isa, from, count);
                sum = isa.mul_add(value, load::<I, FULL>(isa, weight, count), sum);
            }
        }
        finish::<I, FULL>(isa, line, sum, column * channels + channel, count);
    }
}

#[inline(always)]
unsafe fn bias<I: Isa, const FULL: bool>(isa: I, line: &Line<'_>, channel: usize, count: usize) -> I::F32 {
    if line.bias.is_null() {
        isa.splat(0.0)
    } else {
        // SAFETY: the bias has an element for each channel.
        unsafe { load::<I, FULL>(isa, line.bias.add(channel), count) }
    }
}

#[inline(always)]
unsafe fn load<I: Isa, const FULL: bool>(isa: I, from: *const f32, count: usize) -> I::F32 {
    // SAFETY: as the caller vouches.
    unsafe { if FULL { isa.load(from) } else { isa.load_partial(from, count) } }
}

/// Adds the residual, bounds the sums and stores them.
#[inline(always)]
unsafe fn finish<I: Isa, const FULL: bool>(isa: I, line: &Line<'_>, sum: I::F32, at: usize, count: usize) {
    // SAFETY: as the caller vouches.
    unsafe {
        let mut sum = sum;
        if !line.residual.is_null() {
            sum = isa.add(sum, load::<I, FULL>(isa, line.residual.add(at), count));
        }
        let sum = math::clamp(isa, sum, line.min, line.max);
        if FULL {
            isa.store(line.out.add(at), sum);
        } else {
            isa.store_partial(line.out.add(at), sum, count);
        }
    }
}
