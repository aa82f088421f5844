//! Convolution and matrix product of bytes: unsigned activations of 8 bits, signed weights of 8 bits, sums in i32.
//!
//! The integers are exact. Zero points of the activations are folded into the bias at packing; what falls into the
//! padding reads the zero point. The sums stay in registers until they are requantised with one factor per output
//! channel: `round(float(sum) * factor) + zero`, half to even, within bounds, which is ONNX's rule for
//! `QLinearConv`. A matrix product is a 1x1 convolution of one line of pixels. One group per channel runs in the loops
//! of [`super::depthwise_i8`].

use super::aligned::AlignedFloats;
use super::conv::{Conv2d, ConvPlan, Folded, Indirect};
use super::depthwise::Cut;
use super::depthwise_i8::{self, LineI8};
use super::error::{KernelError, expect_length, product as size_of_product};
use super::filter::Filter;
use super::gemm::Plain;
use super::isa::{Coding, Isa};
use super::pack_i8;
use super::product::{BLOCK_ROWS, MAX_POINTERS, Rows, SCRATCH, cut, filled, part};
use super::table::Kernels;
use super::threads::{SendPtr, Threads};
use super::tile_i8::{Factors, Kind, Order, TileI8};
use std::mem::MaybeUninit;
use std::ops::Range;

const KERNEL: &str = "conv2d_i8";
/// Multiplications below which a second thread costs more than it brings.
const PARALLEL_WORK: usize = 256 * 1024;

/// What the numbers in a quantised convolution stand for; [`PackedConvI8::pack`] takes it with the weights.
#[derive(Clone, Copy, Debug)]
pub struct Quantisation<'a> {
    /// Zero point of the activations.
    pub zero: i32,
    /// Added to the sums of every output channel.
    pub bias: Option<&'a [i32]>,
    /// By output channel, or one for all: the scales of activations and weights, divided by that of a quantised output.
    pub factors: &'a [f32],
}

/// Where the results of a quantised convolution go, shaped as [`Conv2d`] says.
#[derive(Debug)]
pub enum OutI8<'a> {
    /// Requantised: `clamp(round(sum * factor) + zero, min, max)`. For an i8 output the bytes are its
    /// two's complement, and the bounds lie within -128..=127; for u8 within 0..=255.
    Bytes {
        /// The output.
        out: &'a mut [u8],
        /// Its zero point.
        zero: i32,
        /// Least value.
        min: i32,
        /// Greatest value.
        max: i32,
    },
    /// The sums.
    Ints(&'a mut [i32]),
    /// `sum * factor`.
    Floats(&'a mut [f32]),
}

/// Weights of 8 bits, packed for one instruction set.
#[derive(Clone, Debug)]
pub struct PackedConvI8 {
    shape: [usize; 5],
    lanes: usize,
    vectors: usize,
    order: Order,
    weights: Weights,
    /// Per group, padded to whole vectors: the bias, less what the zero point adds to every sum.
    bias: Vec<i32>,
    /// As the bias.
    factors: AlignedFloats,
    /// What a tap in the padding reads.
    padding: Vec<u8>,
    /// All sums, times their factors, lie within i32.
    small: bool,
}

#[derive(Clone, Debug)]
enum Weights {
    /// Panels of one group after the other: per tap and four channels, vectors of four bytes a lane. With eight channels
    /// in a step, two lanes of one vector or of its neighbour are a column.
    Dense(Vec<AlignedFloats>),
    Depthwise {
        /// As [`depthwise_i8::pack`] makes them.
        lanes: AlignedFloats,
        /// As [`depthwise_i8::pack_blocks`] does.
        blocks: AlignedFloats,
    },
}

impl PackedConvI8 {
    /// Packs `weights` (HWIO, see [`Conv2d`]; their zero point is 0). Of `conv`, only channels, kernel and groups
    /// matter. Fails when lengths do not fit, when the zero point is no byte, when sums could leave i32, and for
    /// depthwise convolutions with more than one output channel per input channel or more than 256 taps.
    pub fn pack(
        kernels: &Kernels,
        conv: &Conv2d,
        weights: &[i8],
        quantisation: &Quantisation<'_>,
    ) -> Result<PackedConvI8, KernelError> {
        PackedConvI8::pack_stored(
            kernels,
            conv,
            Filter::taps_first(weights),
            quantisation,
            &Threads::single(),
        )
    }

    /// [`PackedConvI8::pack`] for bytes as they are stored, on these threads.
    pub fn pack_stored(
        kernels: &Kernels,
        conv: &Conv2d,
        filter: Filter<'_>,
        quantisation: &Quantisation<'_>,
        threads: &Threads,
    ) -> Result<PackedConvI8, KernelError> {
        conv.check()?;
        let error = |argument, problem| Err(KernelError::Descriptor { kernel: KERNEL, argument, problem });
        let Quantisation { zero, bias, factors } = *quantisation;
        filter.check(KERNEL, conv, size_of::<i8>())?;
        if let Some(bias) = bias {
            expect_length(KERNEL, "bias", conv.out_channels, bias.len())?;
        }
        if factors.len() != 1 {
            expect_length(KERNEL, "factors", conv.out_channels, factors.len())?;
        }
        if !(0..=255).contains(&zero) {
            return error("zero point", "is outside of the activations' type");
        }
        let (taps, depth) = (conv.taps(), conv.depth());
        let depthwise = conv.is_depthwise();
        if taps > MAX_POINTERS || size_of_product(KERNEL, "weights", &[taps, depth])? > 1 << 16 {
            return error("weights", "have more taps and channels than sums of 32 bits are sure to hold");
        }
        if depthwise && (conv.in_channels != conv.out_channels || taps > 256) {
            return error("weights", "are of a depthwise form that is not supported");
        }
        // The loops of depthwise take the bytes as they are, whatever the instruction set.
        let order = kernels.order_i8;
        let read_zero = if order.signed && !depthwise { zero - 128 } else { zero };
        let factor = |channel: usize| if factors.len() == 1 { factors[0] } else { factors[channel] };
        let groups = if depthwise { 1 } else { conv.groups };
        let n = conv.out_channels / groups;
        let padded = n.next_multiple_of(kernels.lanes);
        let (sums, magnitudes) = pack_i8::column_sums(filter, conv.out_channels);
        let mut small = true;
        let mut all_bias = vec![0i32; groups * padded];
        let mut all_factors = AlignedFloats::zeroed(groups * padded);
        for group in 0..groups {
            for column in 0..n {
                let channel = group * n + column;
                let own = bias.map_or(0, |bias| bias[channel]);
                let most = 255.0 * f64::from(magnitudes[channel])
                    + f64::from(own).abs()
                    + f64::from(sums[channel]).abs() * f64::from(zero);
                small &= most * f64::from(factor(channel)).abs() < f64::from(1 << 30);
                all_bias[group * padded + column] = own.wrapping_sub(read_zero.wrapping_mul(sums[channel]));
                all_factors.as_mut_slice()[group * padded + column] = factor(channel);
            }
        }
        let packed = if depthwise {
            let mut lanes = AlignedFloats::zeroed(depthwise_i8::packed_len(conv, padded));
            let weights: Vec<i8> = filter.sorted(conv).into_iter().map(i8::from_le_bytes).collect();
            depthwise_i8::pack(conv, &weights, padded, lanes.as_mut_slice());
            let by_lane = [kernels.lanes, order.segment];
            let factors = all_factors.as_slice();
            let blocks = depthwise_i8::pack_blocks(conv, by_lane, lanes.as_slice(), &all_bias, factors);
            Weights::Depthwise { lanes, blocks }
        } else {
            Weights::Dense(pack_i8::pack_groups(kernels, conv, filter, threads))
        };
        Ok(PackedConvI8 {
            shape: conv.weight_shape(),
            lanes: kernels.lanes,
            vectors: kernels.tile_vectors,
            order,
            weights: packed,
            bias: all_bias,
            factors: all_factors,
            // Blocks of channels may be wider than a pixel.
            padding: vec![zero as u8; conv.row_depth().max(conv.in_channels).max(4 * kernels.lanes)],
            small,
        })
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        let weights: usize = match &self.weights {
            Weights::Dense(groups) => groups.iter().map(|group| group.as_slice().len()).sum(),
            Weights::Depthwise { lanes, blocks } => lanes.as_slice().len() + blocks.as_slice().len(),
        };
        (weights + self.bias.len() + self.factors.as_slice().len()) * 4 + self.padding.len()
    }
}

/// Taps, and the channels of one. A folded kernel row is one tap, as in [`Folded`].
pub(super) fn tap_shape(conv: &Conv2d) -> (usize, usize) {
    if conv.is_folded() && !conv.is_pointwise() {
        (conv.kernel_height, conv.row_depth())
    } else {
        (conv.taps(), conv.depth())
    }
}

/// A quantised convolution of one image size.
#[derive(Clone, Debug)]
pub struct ConvPlanI8(ConvPlan);

impl ConvPlanI8 {
    /// Fails as [`Conv2d::check`] does, and when `packed` was made for other channels, kernel or groups.
    pub fn new(conv: &Conv2d, packed: &PackedConvI8) -> Result<ConvPlanI8, KernelError> {
        check_shape(conv, packed)?;
        Ok(ConvPlanI8(ConvPlan::of(conv)?))
    }
}

fn check_shape(conv: &Conv2d, packed: &PackedConvI8) -> Result<(), KernelError> {
    if packed.shape == conv.weight_shape() {
        return Ok(());
    }
    Err(KernelError::Descriptor {
        kernel: KERNEL,
        argument: "weights",
        problem: "are packed for another geometry",
    })
}

impl Kernels {
    /// Convolves `x`. Lengths are those of the plan's geometry.
    pub fn conv2d_i8(
        &self,
        plan: &ConvPlanI8,
        packed: &PackedConvI8,
        x: &[u8],
        out: OutI8<'_>,
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let plan = &plan.0;
        let conv = plan.conv();
        check_shape(conv, packed)?;
        if (packed.lanes, packed.vectors, packed.order) != (self.lanes, self.tile_vectors, self.order_i8) {
            return Err(KernelError::Descriptor {
                kernel: KERNEL,
                argument: "weights",
                problem: "are packed for another instruction set",
            });
        }
        expect_length(KERNEL, "x", plan.in_elements, x.len())?;
        let (length, data, kind, zero, min, max) = match out {
            OutI8::Bytes { out, zero, min, max } => {
                (out.len(), out.as_mut_ptr(), Kind::Bytes, zero, min, max)
            }
            OutI8::Ints(out) => (out.len(), out.as_mut_ptr().cast(), Kind::Ints, 0, 0, 0),
            OutI8::Floats(out) => (out.len(), out.as_mut_ptr().cast(), Kind::Floats, 0, 0, 0),
        };
        expect_length(KERNEL, "out", plan.out_elements, length)?;
        if min > max || zero.unsigned_abs() > 255 || min < -128 || max > 255 {
            return Err(KernelError::Descriptor {
                kernel: KERNEL,
                argument: "bounds",
                problem: "do not describe a byte",
            });
        }
        if length == 0 {
            return Ok(());
        }
        let finish = Finish { kind, coding: Coding::new(zero, min, max, packed.small) };
        match &packed.weights {
            Weights::Depthwise { lanes, blocks } => {
                let weights = [lanes.as_slice(), blocks.as_slice()];
                self.depthwise_i8(plan, packed, weights, x, data, finish, threads);
            }
            Weights::Dense(groups) => {
                let pixels = length / conv.out_channels;
                for (group, weights) in groups.iter().enumerate() {
                    let n = conv.out_channels / conv.groups;
                    let padded = n.next_multiple_of(self.lanes);
                    let job = Job {
                        kernels: self,
                        weights: weights.as_slice(),
                        n,
                        column: group * n,
                        bias: &packed.bias[group * padded..][..padded],
                        factors: &packed.factors.as_slice()[group * padded..][..padded],
                        stride: conv.out_channels,
                        finish,
                    };
                    let padding = &packed.padding[..];
                    if conv.is_pointwise() {
                        let (stride, depth) = (conv.in_channels, conv.in_channels);
                        job.run(&Plain { data: x.as_ptr(), stride, depth }, pixels, data, threads);
                    } else if x.is_empty() {
                        // Nothing but padding: an image without rows has no offsets.
                        let depth = padding.len() * tap_shape(conv).0;
                        let line = vec![padding[0]; depth];
                        let (taps, depth) = tap_shape(conv);
                        job.run(&Nothing { taps, depth, line: &line }, pixels, data, threads);
                    } else if conv.is_folded() {
                        job.run(&Folded { plan, x, padding }, pixels, data, threads);
                    } else {
                        let group_offset = group * conv.depth();
                        job.run(&Indirect { plan, x, padding, group_offset }, pixels, data, threads);
                    }
                }
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "the body of one caller")]
    fn depthwise_i8(
        &self,
        plan: &ConvPlan,
        packed: &PackedConvI8,
        [weights, blocks]: [&[f32]; 2],
        x: &[u8],
        out: *mut u8,
        finish: Finish,
        threads: &Threads,
    ) {
        let conv = plan.conv();
        let length = conv.out_width * conv.out_channels;
        // Whole blocks of channels.
        let cut = Cut::of(conv, 1, (4 * self.lanes).max(Cut::LEAST), threads);
        let data = SendPtr(out);
        let image_size = conv.in_height * conv.in_width * conv.in_channels;
        let count = depthwise_i8::count_of(conv, 4 * self.lanes);
        threads.for_each(cut.tasks(), |task| {
            cut.each(task, |index, channels| {
                let (image, y) = (index / conv.out_height, index % conv.out_height);
                let line = LineI8 {
                    x: x[image * image_size..].as_ptr(),
                    weights: weights.as_ptr().cast(),
                    blocks: blocks.as_ptr().cast(),
                    count,
                    padded: packed.bias.len(),
                    bias: packed.bias.as_ptr(),
                    factors: packed.factors.as_slice().as_ptr(),
                    padding: packed.padding.as_ptr(),
                    // SAFETY: index < lines; channels of lines belong to one task each.
                    out: unsafe { data.get().add(index * length * finish.kind.size()) },
                    conv,
                    top: y * conv.stride[0],
                    channels,
                    finish,
                };
                // SAFETY: x is one image; weights, bias and factors have an element for each channel, the line is ours.
                unsafe { (self.depthwise_i8)(&line) };
            });
        });
    }
}

/// How sums become outputs.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    pub(super) kind: Kind,
    coding: Coding,
}

/// A row of requantised bytes.
///
/// # Safety
/// `to` must be writable for `count` bytes, which `V` vectors have and one less have not.
#[inline(always)]
pub(super) unsafe fn store_bytes<I: Isa, const V: usize>(
    isa: I,
    sums: [I::I32; V],
    factors: [I::F32; V],
    to: *mut u8,
    count: usize,
    finish: &Finish,
) {
    let mut scaled = factors;
    for vector in 0..V {
        scaled[vector] = isa.mul(isa.int_to_float(sums[vector]), factors[vector]);
    }
    // SAFETY: as the caller vouches.
    unsafe { isa.store_coded(to, scaled, &finish.coding, count) }
}

/// Four vectors of requantised bytes in the order of [`Isa::load_columns`].
///
/// # Safety
/// `to` must be writable for four vectors of bytes.
#[inline(always)]
pub(super) unsafe fn store_columns<I: Isa>(
    isa: I,
    sums: [I::I32; 4],
    factors: [I::F32; 4],
    to: *mut u8,
    finish: &Finish,
) {
    let mut scaled = factors;
    for vector in 0..4 {
        scaled[vector] = isa.mul(isa.int_to_float(sums[vector]), factors[vector]);
    }
    // SAFETY: as the caller vouches.
    unsafe { isa.store_columns(to, scaled, &finish.coding) }
}

/// Sums in memory to a row of the output, of any kind; `to` is where its first element goes.
///
/// # Safety
/// `sums` and `factors` must be readable in whole vectors, and `to` writable for `count` elements of the kind.
#[inline(always)]
pub(super) unsafe fn store_row<I: Isa>(
    isa: I,
    sums: *const i32,
    factors: *const f32,
    to: *mut u8,
    count: usize,
    finish: &Finish,
) {
    for start in (0..count).step_by(I::LANES) {
        let length = (count - start).min(I::LANES);
        // SAFETY: as the caller vouches.
        unsafe {
            let (sums, factors) = (isa.load_int(sums.add(start)), isa.load(factors.add(start)));
            let to = to.add(start * finish.kind.size());
            if finish.kind == Kind::Bytes {
                store_bytes(isa, [sums], [factors], to, length, finish);
                continue;
            }
            let value = match finish.kind {
                Kind::Floats => isa.mul(isa.int_to_float(sums), factors),
                _ => isa.bits_to_float(sums),
            };
            if length == I::LANES {
                isa.store(to.cast(), value);
            } else {
                isa.store_partial(to.cast(), value, length);
            }
        }
    }
}

/// One group's product.
struct Job<'a> {
    kernels: &'a Kernels,
    weights: &'a [f32],
    n: usize,
    /// The group's first column in the output.
    column: usize,
    bias: &'a [i32],
    factors: &'a [f32],
    /// Elements from one row of the output to the next.
    stride: usize,
    finish: Finish,
}

impl Job<'_> {
    fn run<R: Rows<u8>>(&self, rows: &R, count: usize, out: *mut u8, threads: &Threads) {
        let width = self.kernels.lanes * self.kernels.tile_vectors;
        let panels = self.n.div_ceil(width);
        let k = rows.taps() * rows.depth();
        let work = count.saturating_mul(self.n).saturating_mul(k);
        let wanted =
            if threads.count() == 1 { 1 } else { (threads.count() * 4).min(work / PARALLEL_WORK).max(1) };
        let (row_tasks, panel_tasks) = cut(self.kernels, count, rows.depth(), [k, self.n], panels, wanted);
        let data = SendPtr(out);
        threads.for_each(row_tasks * panel_tasks, |task| {
            let task_rows = part(count, row_tasks, task % row_tasks);
            let task_panels = part(panels, panel_tasks, task / row_tasks);
            self.part(rows, task_rows, task_panels, data.get());
        });
    }

    fn part<R: Rows<u8>>(&self, source: &R, rows: Range<usize>, panels: Range<usize>, out: *mut u8) {
        let (taps, depth) = (source.taps(), source.depth());
        let per_row = source.scratch_per_row();
        let by_scratch = SCRATCH.checked_div(per_row).unwrap_or(BLOCK_ROWS);
        let limit = BLOCK_ROWS.min(MAX_POINTERS / taps.max(1)).min(by_scratch).max(1);
        let mut memory = [const { MaybeUninit::<u8>::uninit() }; SCRATCH];
        let scratch = filled(&mut memory, if per_row == 0 { 0 } else { SCRATCH }, 0);
        let mut memory = [const { MaybeUninit::<*const u8>::uninit() }; MAX_POINTERS];
        let pointers = filled(&mut memory, limit.min(rows.len()) * taps, std::ptr::null());
        let blocks = rows.len().div_ceil(limit);
        let (lanes, size) = (self.kernels.lanes, self.finish.kind.size());
        let width = lanes * self.kernels.tile_vectors;
        let channels = self.kernels.order_i8.channels;
        let fours = taps * depth.div_ceil(channels) * (channels / 4);
        for block in 0..blocks {
            let block = part(rows.len(), blocks, block);
            let first = rows.start + block.start;
            let count = block.len();
            source.point(first..first + count, 0..taps, 0, &mut pointers[..count * taps], scratch);
            for panel in panels.clone() {
                let column = panel * width;
                let columns = width.min(self.n - column);
                let vectors = columns.div_ceil(lanes);
                let weights = &self.weights[column * fours..][..fours * vectors * lanes];
                // The next panel is fetched meanwhile.
                let next =
                    if panel + 1 < panels.end { (column + columns) * fours } else { self.weights.len() };
                let ahead = &self.weights[next..];
                let at = first * self.stride + self.column + column;
                let work = TileI8 {
                    pointers: pointers.as_ptr(),
                    pointer_stride: count,
                    taps,
                    depth,
                    weights: weights.as_ptr().cast(),
                    ahead: ahead.as_ptr().cast(),
                    ahead_count: ahead.len().min(weights.len()),
                    factors: Factors {
                        bias: self.bias[column..].as_ptr(),
                        factors: self.factors[column..].as_ptr(),
                    },
                    // SAFETY: row and column lie within the output.
                    out: unsafe { out.add(at * size) },
                    stride: self.stride,
                    columns,
                    finish: self.finish,
                };
                // SAFETY: the lengths were checked at the entry, the pointers were filled for this block, and the
                // rows and panels belong to this task alone.
                unsafe { (self.kernels.tile_i8)(&work, count, vectors) };
            }
        }
    }
}

/// Rows of zero points.
struct Nothing<'a> {
    taps: usize,
    depth: usize,
    line: &'a [u8],
}

impl Rows<u8> for Nothing<'_> {
    fn taps(&self) -> usize {
        self.taps
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn point(
        &self,
        _rows: Range<usize>,
        _taps: Range<usize>,
        _channel: usize,
        pointers: &mut [*const u8],
        _scratch: &mut [u8],
    ) {
        pointers.fill(self.line.as_ptr());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::available;

    fn bytes(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as u8
            })
            .collect()
    }

    fn geometry(
        batch: usize,
        size: [usize; 2],
        channels: [usize; 2],
        kernel: [usize; 2],
        stride: usize,
        groups: usize,
    ) -> Conv2d {
        Conv2d {
            batch,
            in_height: size[0],
            in_width: size[1],
            in_channels: channels[0],
            out_height: size[0].div_ceil(stride),
            out_width: size[1].div_ceil(stride),
            out_channels: channels[1],
            kernel_height: kernel[0],
            kernel_width: kernel[1],
            stride: [stride, stride],
            dilation: [1, 1],
            pad_top: kernel[0] / 2,
            pad_left: kernel[1] / 2,
            groups,
        }
    }

    /// The sums, by the definition.
    fn naive(conv: &Conv2d, x: &[i32], zero: i32, weights: &[i8], bias: &[i32]) -> Vec<i32> {
        let mut out = Vec::new();
        let (depth, per_group) = (conv.in_channels / conv.groups, conv.out_channels / conv.groups);
        for b in 0..conv.batch {
            for y in 0..conv.out_height {
                for column in 0..conv.out_width {
                    for o in 0..conv.out_channels {
                        let mut sum = bias[o];
                        for ky in 0..conv.kernel_height {
                            for kx in 0..conv.kernel_width {
                                let iy = (y * conv.stride[0] + ky).wrapping_sub(conv.pad_top);
                                let ix = (column * conv.stride[1] + kx).wrapping_sub(conv.pad_left);
                                if iy >= conv.in_height || ix >= conv.in_width {
                                    continue;
                                }
                                for c in 0..depth {
                                    let channel = o / per_group * depth + c;
                                    let at = ((b * conv.in_height + iy) * conv.in_width + ix)
                                        * conv.in_channels
                                        + channel;
                                    let w =
                                        ((ky * conv.kernel_width + kx) * depth + c) * conv.out_channels + o;
                                    sum += (x[at] - zero) * i32::from(weights[w]);
                                }
                            }
                        }
                        out.push(sum);
                    }
                }
            }
        }
        out
    }

    /// ONNX's rule, in scalar code.
    fn requantise(sum: i32, factor: f32, zero: i32, min: i32, max: i32) -> u8 {
        let scaled = (sum as f32 * factor).round_ties_even();
        ((scaled as i32).saturating_add(zero).clamp(min, max)) as u8
    }

    fn check(conv: Conv2d) {
        let n = conv.out_channels;
        let x = bytes(conv.in_elements().unwrap(), 1);
        let mut weights: Vec<i8> =
            bytes(conv.weight_elements().unwrap(), 2).iter().map(|&b| b as i8).collect();
        // The extremes, where sums of bytes in 16 bits would saturate.
        weights.iter_mut().step_by(3).for_each(|weight| *weight = -128);
        let bias: Vec<i32> = bytes(n, 3).iter().map(|&b| i32::from(b) * 1000 - 100_000).collect();
        // Powers of two make many ties.
        let factors: Vec<f32> = (0..n).map(|o| [0.001, 1.0 / 1024.0, 0.0123][o % 3]).collect();
        for zero in [0, 131] {
            let wide: Vec<i32> = x.iter().map(|&b| i32::from(b)).collect();
            let sums = naive(&conv, &wide, zero, &weights, &bias);
            let quantisation = Quantisation { zero, bias: Some(&bias), factors: &factors };
            for kernels in available() {
                for threads in [Threads::single(), Threads::new(2)] {
                    let packed = PackedConvI8::pack(kernels, &conv, &weights, &quantisation).unwrap();
                    let plan = ConvPlanI8::new(&conv, &packed).unwrap();
                    let mut ints = vec![7; sums.len()];
                    kernels.conv2d_i8(&plan, &packed, &x, OutI8::Ints(&mut ints), &threads).unwrap();
                    assert_eq!(ints, sums, "{kernels:?} {conv:?}");
                    let mut floats = vec![7.0; sums.len()];
                    kernels.conv2d_i8(&plan, &packed, &x, OutI8::Floats(&mut floats), &threads).unwrap();
                    for (zero, min, max) in [(128, 0, 255), (-7, -128, 127), (0, 0, 100)] {
                        let mut out = vec![7; sums.len()];
                        let to = OutI8::Bytes { out: &mut out, zero, min, max };
                        kernels.conv2d_i8(&plan, &packed, &x, to, &threads).unwrap();
                        for (index, &sum) in sums.iter().enumerate() {
                            let factor = factors[index % n];
                            assert_eq!(out[index], requantise(sum, factor, zero, min, max), "{kernels:?}");
                            assert_eq!(floats[index], sum as f32 * factor);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn pointwise_and_products() {
        check(geometry(1, [1, 13], [64, 33], [1, 1], 1, 1));
        check(geometry(2, [3, 5], [7, 70], [1, 1], 1, 1));
        check(geometry(1, [1, 1], [1, 1], [1, 1], 1, 1));
        check(geometry(1, [6, 5], [9, 12], [1, 1], 2, 1));
    }

    #[test]
    fn kernels_and_groups() {
        check(geometry(1, [7, 9], [17, 20], [3, 3], 1, 1));
        check(geometry(2, [8, 6], [64, 8], [3, 3], 2, 1));
        check(geometry(1, [12, 11], [3, 19], [3, 3], 2, 1));
        check(geometry(1, [5, 5], [8, 12], [3, 3], 1, 4));
        check(geometry(1, [0, 3], [4, 5], [3, 3], 1, 1));
    }

    #[test]
    fn depthwise() {
        for channels in [2, 8, 9, 16, 32, 33, 70, 128] {
            for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (2, 1)] {
                check(geometry(1, [9, 12], [channels, channels], [kernel, kernel], stride, channels));
            }
        }
    }

    #[test]
    fn lying_descriptors_are_refused() {
        let kernels = available()[0];
        let conv = geometry(1, [4, 4], [4, 6], [3, 3], 1, 1);
        let weights = [1i8; 9 * 24];
        let good = Quantisation { zero: 0, bias: None, factors: &[1.0] };
        let pack = |weights: &[i8], q: &Quantisation<'_>| PackedConvI8::pack(kernels, &conv, weights, q);
        assert!(pack(&weights[1..], &good).is_err());
        assert!(pack(&weights, &Quantisation { zero: 256, ..good }).is_err());
        assert!(pack(&weights, &Quantisation { factors: &[1.0; 5], ..good }).is_err());
        assert!(pack(&weights, &Quantisation { bias: Some(&[1; 5]), ..good }).is_err());
        let packed = pack(&weights, &good).unwrap();
        assert!(ConvPlanI8::new(&Conv2d { groups: 2, ..conv }, &packed).is_err());
        let plan = ConvPlanI8::new(&conv, &packed).unwrap();
        let single = Threads::single();
        let (x, mut out) = ([0; 64], [0; 96]);
        assert!(kernels.conv2d_i8(&plan, &packed, &x[1..], OutI8::Ints(&mut out), &single).is_err());
        assert!(kernels.conv2d_i8(&plan, &packed, &x, OutI8::Ints(&mut out[1..]), &single).is_err());
        let mut out = [0; 96];
        let to = OutI8::Bytes { out: &mut out, zero: 0, min: 0, max: 256 };
        assert!(kernels.conv2d_i8(&plan, &packed, &x, to, &single).is_err());
        let to = OutI8::Bytes { out: &mut out, zero: 0, min: 0, max: 255 };
        assert!(kernels.conv2d_i8(&plan, &packed, &x, to, &single).is_ok());
    }
}
