//! Convolution with one group per channel, in and out: vectors over channels, no product to speak of, bound by loads.
//!
//! Seven (or four) neighbouring output pixels are computed together, so that weights are loaded once and, for the usual kernels,
//! so are overlapping input columns. Lines of fewer pixels take one at a time and the taps that exist.

use super::aligned::AlignedFloats;
use super::conv::Conv2d;
use super::isa::Isa;
use super::math;
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
    let cut = Cut::of(conv, size_of::<f32>(), Cut::LEAST, threads);
    let line = conv.out_width * conv.out_channels;
    let data = SendPtr(out.as_mut_ptr());
    threads.for_each(cut.tasks(), |task| {
        cut.each(task, |index, channels| {
            // SAFETY: index < lines.
            let to = unsafe { data.get().add(index * line) };
            let residual = epilogue.residual.map(|residual| &residual[index * line..][..line]);
            // SAFETY: channels of lines belong to one task each, so nobody else writes to these.
            unsafe {
                run_line(kernels, conv, packed, x, index, &cut, channels.clone(), to, residual, epilogue)
            };
            let Some(activation) = epilogue.activation else { return };
            if cut.whole() {
                // SAFETY: in place over a line of the task.
                unsafe { kernels.activate(activation, to, line) };
                return;
            }
            if cut.block_parts == 1 {
                return;
            }
            for pixel in 0..conv.out_width {
                // SAFETY: in place over the channels of a pixel.
                unsafe {
                    let at = to.add(pixel * conv.out_channels + channels.start);
                    kernels.activate(activation, at, channels.len());
                }
            }
        });
        if let Some(activation) = epilogue.activation.filter(|_| cut.block_parts == 1 && !cut.whole()) {
            let lines = part(cut.lines, cut.line_parts, task);
            // SAFETY: in place over the task's lines, whose channels are all its own.
            unsafe {
                let at = data.get().add(lines.start * line);
                kernels.activate(activation, at, lines.len() * line);
            }
        }
    });
}

/// Lines of one image, all channels, with their activation. Input line 0 stands at `x`, where only the lines under those of the
/// output have to be there.
///
/// # Safety
/// The geometry must be checked and keep its channels, with `packed` its weights; `out` (and `residual`, if not null) must hold
/// the lines, and nobody else may touch `out`.
#[allow(clippy::too_many_arguments, reason = "as a convolution has these")]
pub(super) unsafe fn lines(
    kernels: &Kernels,
    conv: &Conv2d,
    packed: &PackedDepthwise,
    x: *const f32,
    lines: Range<usize>,
    out: *mut f32,
    residual: *const f32,
    epilogue: &Epilogue<'_>,
) {
    let size = conv.out_width * conv.out_channels;
    let block = block_of(conv, size_of::<f32>(), Cut::LEAST).min(conv.out_channels);
    for first in (0..conv.out_channels).step_by(block.max(1)) {
        for (index, y) in lines.clone().enumerate() {
            let line = Line {
                x,
                weights: packed.weights.as_slice().as_ptr(),
                out: out.wrapping_add(index * size),
                conv,
                top: y * conv.stride[0],
                rows: rows_inside(conv, y),
                channels: first..conv.out_channels.min(first + block),
                ahead: false,
                format: Floats {
                    bias: packed.bias.as_ref().map_or(std::ptr::null(), |bias| bias.as_slice().as_ptr()),
                    residual: if residual.is_null() { residual } else { residual.wrapping_add(index * size) },
                    min: epilogue.min,
                    max: epilogue.max,
                },
            };
            // SAFETY: as the caller vouches.
            unsafe { (kernels.depthwise)(&line) };
        }
    }
    if let Some(activation) = epilogue.activation {
        // SAFETY: in place over lines that were just written.
        unsafe { kernels.activate(activation, out, lines.len() * size) };
    }
}

/// Kernel rows over output line `y` that lie inside the image.
pub(super) fn rows_inside(conv: &Conv2d, y: usize) -> Range<usize> {
    inside(y * conv.stride[0], conv.pad_top, conv.kernel_height, conv.dilation[0], conv.in_height)
}

/// Channels of which the rows under a line stay in the first-level cache: a multiple of `least`.
fn block_of(conv: &Conv2d, size: usize, least: usize) -> usize {
    /// What the rows under a line may take of it, in bytes.
    const ROWS: usize = 24 << 10;
    let rows = (conv.kernel_height + conv.stride[0]) * conv.in_width * size;
    (ROWS / rows.max(1) / least * least).max(least)
}

/// How the work is cut: over lines, and over blocks of channels so small that the rows under a line stay in the
/// first-level cache and are fetched once. An image beyond the second-level cache is read in its order instead.
pub(super) struct Cut {
    lines: usize,
    channels: usize,
    /// Channels of a block.
    pub(super) block: usize,
    line_parts: usize,
    block_parts: usize,
}

impl Cut {
    /// Channels of a block, at least: less would read too little of each pixel.
    pub(super) const LEAST: usize = 32;

    /// For elements of `size` bytes, and blocks of a multiple of `least` channels.
    pub(super) fn of(conv: &Conv2d, size: usize, least: usize, threads: &Threads) -> Cut {
        /// What an image may take of the second-level cache, in bytes.
        const IMAGE: usize = 1 << 20;
        let channels = conv.out_channels;
        let lines = conv.batch * conv.out_height;
        let image = conv.in_height * conv.in_width * conv.in_channels * size;
        let block = if image > IMAGE { channels } else { block_of(conv, size, least).min(channels) };
        let work = lines.saturating_mul(conv.out_width * channels * conv.kernel_height * conv.kernel_width);
        let wanted =
            if threads.count() == 1 { 1 } else { (work / PARALLEL_WORK).clamp(1, threads.count() * 4) };
        // Lines first: steps before and after this one are cut over them, too, and find them in their caches.
        let line_parts = threads.count().min(wanted).clamp(1, lines.max(1));
        let block_parts = channels.div_ceil(block.max(1)).min(wanted.div_ceil(line_parts)).max(1);
        Cut { lines, channels, block, line_parts, block_parts }
    }

    pub(super) fn tasks(&self) -> usize {
        self.line_parts * self.block_parts
    }

    /// Whether lines are read in whole.
    pub(super) fn whole(&self) -> bool {
        self.block == self.channels
    }

    /// Calls `body` with the lines and channels of a task.
    pub(super) fn each(&self, task: usize, mut body: impl FnMut(usize, Range<usize>)) {
        let blocks = self.channels.div_ceil(self.block.max(1));
        for block in part(blocks, self.block_parts, task % self.block_parts) {
            let first = block * self.block;
            for line in part(self.lines, self.line_parts, task / self.block_parts) {
                body(line, first..self.channels.min(first + self.block));
            }
        }
    }
}

/// Some channels of a line.
///
/// # Safety
/// `out` must be a line whose channels nobody else touches.
#[allow(clippy::too_many_arguments, reason = "the body of one caller's loop")]
unsafe fn run_line(
    kernels: &Kernels,
    conv: &Conv2d,
    packed: &PackedDepthwise,
    x: &[f32],
    index: usize,
    cut: &Cut,
    channels: Range<usize>,
    out: *mut f32,
    residual: Option<&[f32]>,
    epilogue: &Epilogue<'_>,
) {
    let (image, y) = (index / conv.out_height, index % conv.out_height);
    let size = conv.in_height * conv.in_width * conv.in_channels;
    let x = &x[image * size..][..size];
    let rows = rows_inside(conv, y);
    let line = Line {
        x: x.as_ptr(),
        weights: packed.weights.as_slice().as_ptr(),
        out,
        conv,
        top: y * conv.stride[0],
        rows,
        channels,
        ahead: cut.whole(),
        format: Floats {
            bias: packed.bias.as_ref().map_or(std::ptr::null(), |bias| bias.as_slice().as_ptr()),
            residual: residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
            min: epilogue.min,
            max: epilogue.max,
        },
    };
    // SAFETY: x is one image, weights and bias have the geometry's lengths, out and residual are one line.
    unsafe { (kernels.depthwise)(&line) };
}

/// The taps of a position (its first tap at `start - pad`) that lie inside `0..limit`.
#[inline(always)]
pub(super) fn inside(start: usize, pad: usize, taps: usize, dilation: usize, limit: usize) -> Range<usize> {
    let first = pad.saturating_sub(start).div_ceil(dilation).min(taps);
    let last = (limit + pad).saturating_sub(start).div_ceil(dilation).min(taps);
    first..last.max(first)
}

/// One line of output.
pub(super) struct Line<'a, F: Format> {
    /// The image.
    pub(super) x: *const F::Element,
    pub(super) weights: *const f32,
    pub(super) out: *mut F::Element,
    pub(super) conv: &'a Conv2d,
    /// Input row of the first tap, plus the padding.
    pub(super) top: usize,
    /// Kernel rows that lie inside the image.
    pub(super) rows: Range<usize>,
    pub(super) channels: Range<usize>,
    /// Asks for the rows of the next line meanwhile.
    pub(super) ahead: bool,
    pub(super) format: F,
}

/// What the elements are: floats, or bytes that stand for numbers.
///
/// # Safety
/// An implementation must touch no more than the elements it is asked for.
pub(super) unsafe trait Format {
    /// The element of input and output.
    type Element: Copy;

    /// Reads `count` elements, all lanes if `FULL`.
    ///
    /// # Safety
    /// `from` must be readable for `count` elements.
    unsafe fn load<I: Isa, const FULL: bool>(
        &self,
        isa: I,
        from: *const Self::Element,
        count: usize,
    ) -> I::F32;

    /// What the sums of `count` channels begin with.
    ///
    /// # Safety
    /// The channels must exist.
    unsafe fn begin<I: Isa, const FULL: bool>(&self, isa: I, channel: usize, count: usize) -> I::F32;

    /// Finishes the sums of `count` channels and writes them to `out[at..]`.
    ///
    /// # Safety
    /// The channels and the elements must exist.
    unsafe fn finish<I: Isa, const FULL: bool>(
        &self,
        isa: I,
        sum: I::F32,
        out: *mut Self::Element,
        at: usize,
        channel: usize,
        count: usize,
    );
}

/// Floats with bias, residual and bounds.
pub(super) struct Floats {
    /// Null for none.
    bias: *const f32,
    /// As the output; null for none.
    residual: *const f32,
    min: f32,
    max: f32,
}

// SAFETY: `count` elements, or `LANES` of them if `FULL`.
unsafe impl Format for Floats {
    type Element = f32;

    #[inline(always)]
    unsafe fn load<I: Isa, const FULL: bool>(&self, isa: I, from: *const f32, count: usize) -> I::F32 {
        // SAFETY: as the caller vouches.
        unsafe { load::<I, FULL>(isa, from, count) }
    }

    #[inline(always)]
    unsafe fn begin<I: Isa, const FULL: bool>(&self, isa: I, channel: usize, count: usize) -> I::F32 {
        if self.bias.is_null() {
            isa.splat(0.0)
        } else {
            // SAFETY: the bias has an element for each channel.
            unsafe { load::<I, FULL>(isa, self.bias.add(channel), count) }
        }
    }

    #[inline(always)]
    unsafe fn finish<I: Isa, const FULL: bool>(
        &self,
        isa: I,
        sum: I::F32,
        out: *mut f32,
        at: usize,
        _channel: usize,
        count: usize,
    ) {
        // SAFETY: as the caller vouches.
        unsafe {
            let mut sum = sum;
            if !self.residual.is_null() {
                sum = isa.add(sum, load::<I, FULL>(isa, self.residual.add(at), count));
            }
            let sum = math::clamp(isa, sum, self.min, self.max);
            if FULL {
                isa.store(out.add(at), sum);
            } else {
                isa.store_partial(out.add(at), sum, count);
            }
        }
    }
}

/// A line of a depthwise convolution.
///
/// # Safety
/// What the line describes must be there, with the lengths of its geometry.
#[inline(always)]
pub(super) unsafe fn depthwise<I: Isa, F: Format>(isa: I, line: &Line<'_, F>) {
    let conv = line.conv;
    // SAFETY: as the caller vouches.
    unsafe {
        match (conv.kernel_width, conv.stride[1], conv.dilation[1]) {
            (3, 1, 1) => tiles::<I, F, 3, 1>(isa, line),
            (3, 2, 1) => tiles::<I, F, 3, 2>(isa, line),
            // Written out without vectors, tiles of five columns are long and no faster.
            (5, 1, 1) if const { I::TILE_ROWS[0] >= LONG } => tiles::<I, F, 5, 1>(isa, line),
            (5, 2, 1) if const { I::TILE_ROWS[0] >= LONG } => tiles::<I, F, 5, 2>(isa, line),
            _ if conv.kernel_width > 1 => any_tiles(isa, line),
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
unsafe fn tiles<I: Isa, F: Format, const WIDTH: usize, const STRIDE: usize>(isa: I, line: &Line<'_, F>) {
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
            // Five weights leave too few of sixteen registers for seven sums.
            if (WIDTH < 5 || I::TILE_VECTORS > 2) && left > SHORT && width >= LONG {
                tile::<I, F, WIDTH, STRIDE, LONG>(isa, line, column.min(width - LONG));
                column += LONG;
            } else {
                tile::<I, F, WIDTH, STRIDE, SHORT>(isa, line, column.min(width - SHORT));
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
unsafe fn tile<I: Isa, F: Format, const WIDTH: usize, const STRIDE: usize, const PIXELS: usize>(
    isa: I,
    line: &Line<'_, F>,
    column: usize,
) {
    let conv = line.conv;
    let channels = line.channels.end;
    let whole = channels - line.channels.len() % I::LANES;
    // Input columns that exist, counted from the first that the tile could read.
    let positions = (PIXELS - 1) * STRIDE + WIDTH;
    let left = column * STRIDE;
    let first = conv.pad_left.saturating_sub(left).min(positions);
    let last = (conv.in_width + conv.pad_left).saturating_sub(left).min(positions).max(first);
    let inside = first..last;
    let complete = inside == (0..positions);
    let mut channel = line.channels.start;
    // SAFETY: `LANES` channels, then those that remain; `complete` says that no column is missing.
    unsafe {
        if complete {
            while channel < whole {
                tile_channels::<I, F, WIDTH, STRIDE, PIXELS, true, true>(
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
                tile_channels::<I, F, WIDTH, STRIDE, PIXELS, true, false>(
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
            tile_channels::<I, F, WIDTH, STRIDE, PIXELS, false, false>(
                isa, line, column, &inside, channel, count,
            );
        }
    }
}

/// Runs a block for every number below a limit, each time with a constant: loops that the compiler leaves rolled would keep
/// sums and weights in memory.
macro_rules! for_numbers {
    ($number:ident below ($limit:expr) $body:block $($constant:literal)*) => { $(
        if $constant < $limit {
            let $number: usize = $constant;
            $body
        }
    )* };
}
pub(super) use for_numbers;

/// `count` channels of `PIXELS` pixels. `FULL` says that `count` is a whole vector, `COMPLETE` that all input columns exist.
#[inline(always)]
unsafe fn tile_channels<
    I: Isa,
    F: Format,
    const WIDTH: usize,
    const STRIDE: usize,
    const PIXELS: usize,
    const FULL: bool,
    const COMPLETE: bool,
>(
    isa: I,
    line: &Line<'_, F>,
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
        let mut sums = [line.format.begin::<I, FULL>(isa, channel, count); PIXELS];
        for ky in line.rows.clone() {
            let iy = line.top + ky * conv.dilation[0] - conv.pad_top;
            let pixel = (iy * conv.in_width + column * STRIDE) * channels + channel;
            let mut from = line.x.wrapping_add(pixel).wrapping_sub(conv.pad_left * channels);
            let weights = line.weights.add(ky * WIDTH * channels + channel);
            let mut weight = [isa.splat(0.0); WIDTH];
            for kx in 0..WIDTH {
                weight[kx] = load::<I, FULL>(isa, weights.add(kx * channels), count);
            }
            for_numbers!(position below ((PIXELS - 1) * STRIDE + WIDTH) {
                if COMPLETE || inside.contains(&position) {
                    let value = line.format.load::<I, FULL>(isa, from, count);
                    for_numbers!(pixel below (PIXELS) {
                        let kx = usize::wrapping_sub(position, pixel * STRIDE);
                        if kx < WIDTH {
                            sums[pixel] = isa.mul_add(value, weight[kx], sums[pixel]);
                        }
                    } 0 1 2 3 4 5 6);
                }
                from = from.wrapping_add(channels);
            } 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
        }
        let per_line = 64 / size_of::<F::Element>();
        if COMPLETE && line.ahead && channel.is_multiple_of(per_line) {
            // The rows that the next line reads and this one does not; one after the other, for memory runs ahead
            // of those who read in order.
            for row in 0..conv.stride[0] {
                let next = line.top + row + line.rows.end * conv.dilation[0] - conv.pad_top;
                let pixel = (next * conv.in_width + column * STRIDE + WIDTH - conv.pad_left) * channels;
                let mut from = line.x.wrapping_add(pixel + channel * PIXELS * STRIDE);
                for _ in 0..PIXELS * STRIDE {
                    isa.prefetch_far(from.cast());
                    from = from.wrapping_add(per_line);
                }
            }
        }
        for_numbers!(pixel below (PIXELS) {
            let at = (column + pixel) * channels + channel;
            line.format.finish::<I, FULL>(isa, sums[pixel], line.out, at, channel, count);
        } 0 1 2 3 4 5 6);
    }
}

/// [`tiles`] for kernels, strides and dilations of any size.
///
/// # Safety
/// As [`depthwise`].
#[inline(always)]
unsafe fn any_tiles<I: Isa, F: Format>(isa: I, line: &Line<'_, F>) {
    let width = line.conv.out_width;
    // SAFETY: as in `tiles`.
    unsafe {
        if width < SHORT {
            return pixels(isa, line);
        }
        let mut column = 0;
        while column < width {
            // Few registers hold the sums of few pixels.
            if I::TILE_ROWS[0] >= LONG && width - column > SHORT && width >= LONG {
                any_tile::<I, F, LONG>(isa, line, column.min(width - LONG));
                column += LONG;
            } else {
                any_tile::<I, F, SHORT>(isa, line, column.min(width - SHORT));
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
unsafe fn any_tile<I: Isa, F: Format, const PIXELS: usize>(isa: I, line: &Line<'_, F>, column: usize) {
    let conv = line.conv;
    let left = column * conv.stride[1];
    let reach = (PIXELS - 1) * conv.stride[1] + (conv.kernel_width - 1) * conv.dilation[1];
    let complete = left >= conv.pad_left && left + reach < conv.in_width + conv.pad_left;
    let channels = line.channels.end;
    let whole = channels - line.channels.len() % I::LANES;
    let mut channel = line.channels.start;
    // SAFETY: `LANES` channels, then those that remain; `complete` says that no column is missing.
    unsafe {
        while channel < whole {
            if complete {
                any_tile_channels::<I, F, PIXELS, true, true>(isa, line, column, channel, I::LANES);
            } else {
                any_tile_channels::<I, F, PIXELS, true, false>(isa, line, column, channel, I::LANES);
            }
            channel += I::LANES;
        }
        if channel < channels {
            let count = channels - channel;
            any_tile_channels::<I, F, PIXELS, false, false>(isa, line, column, channel, count);
        }
    }
}

/// As [`tile_channels`].
#[inline(always)]
unsafe fn any_tile_channels<
    I: Isa,
    F: Format,
    const PIXELS: usize,
    const FULL: bool,
    const COMPLETE: bool,
>(
    isa: I,
    line: &Line<'_, F>,
    column: usize,
    channel: usize,
    count: usize,
) {
    let conv = line.conv;
    let channels = conv.in_channels;
    let across = conv.stride[1];
    // SAFETY: as the callers vouch: columns and channels lie inside image, weights and line. Pointers to columns that are
    // missing are not read.
    unsafe {
        let mut sums = [line.format.begin::<I, FULL>(isa, channel, count); PIXELS];
        for ky in line.rows.clone() {
            let iy = line.top + ky * conv.dilation[0] - conv.pad_top;
            let row = line.x.wrapping_add(iy * conv.in_width * channels + channel);
            for kx in 0..conv.kernel_width {
                let first = (column * across + kx * conv.dilation[1]).wrapping_sub(conv.pad_left);
                let from = row.wrapping_add(first.wrapping_mul(channels));
                let weight = line.weights.add((ky * conv.kernel_width + kx) * channels + channel);
                let weight = load::<I, FULL>(isa, weight, count);
                for_numbers!(pixel below (PIXELS) {
                    if COMPLETE || first.wrapping_add(pixel * across) < conv.in_width {
                        let from = from.wrapping_add(pixel * across * channels);
                        let value = line.format.load::<I, FULL>(isa, from, count);
                        sums[pixel] = isa.mul_add(value, weight, sums[pixel]);
                    }
                } 0 1 2 3 4 5 6);
            }
        }
        for_numbers!(pixel below (PIXELS) {
            let at = (column + pixel) * channels + channel;
            line.format.finish::<I, FULL>(isa, sums[pixel], line.out, at, channel, count);
        } 0 1 2 3 4 5 6);
    }
}

/// Pixels one by one, with the taps that exist.
///
/// # Safety
/// As [`depthwise`].
#[inline(always)]
unsafe fn pixels<I: Isa, F: Format>(isa: I, line: &Line<'_, F>) {
    let channels = line.channels.end;
    let whole = channels - line.channels.len() % I::LANES;
    for column in 0..line.conv.out_width {
        let mut channel = line.channels.start;
        while channel < whole {
            // SAFETY: channel + LANES <= channels.
            unsafe { pixel::<I, F, true>(isa, line, column, channel, I::LANES) };
            channel += I::LANES;
        }
        if channel < channels {
            // SAFETY: the channels that remain.
            unsafe { pixel::<I, F, false>(isa, line, column, channel, channels - channel) };
        }
    }
}

#[inline(always)]
unsafe fn pixel<I: Isa, F: Format, const FULL: bool>(
    isa: I,
    line: &Line<'_, F>,
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
        let mut sum = line.format.begin::<I, FULL>(isa, channel, count);
        for ky in line.rows.clone() {
            let iy = line.top + ky * conv.dilation[0] - conv.pad_top;
            for kx in taps.clone() {
                let ix = left + kx * conv.dilation[1] - conv.pad_left;
                let from = line.x.wrapping_add((iy * conv.in_width + ix) * channels + channel);
                let weight = line.weights.add((ky * conv.kernel_width + kx) * channels + channel);
                let value = line.format.load::<I, FULL>(isa, from, count);
                sum = isa.mul_add(value, load::<I, FULL>(isa, weight, count), sum);
            }
        }
        line.format.finish::<I, FULL>(isa, sum, line.out, column * channels + channel, channel, count);
    }
}

#[inline(always)]
unsafe fn load<I: Isa, const FULL: bool>(isa: I, from: *const f32, count: usize) -> I::F32 {
    // SAFETY: as the caller vouches.
    unsafe { if FULL { isa.load(from) } else { isa.load_partial(from, count) } }
}
