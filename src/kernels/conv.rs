//! Two-dimensional convolution in f32, NHWC, without im2col.
//!
//! A convolution is the matrix product of output pixels and weights where each pixel's row lies in pieces, one
//! per kernel position (tap). [`product`](super::product) takes such rows as they are: a pointer per tap, to a row of
//! zeros where the tap falls into the padding. A 1x1 convolution is a plain product. With few input channels a
//! whole kernel row is one tap, for its pixels are neighbours in memory. One group per channel goes to
//! [`depthwise`]; other groups are products side by side.

use super::aligned::AlignedFloats;
use super::depthwise::{self, PackedDepthwise};
use super::error::{KernelError, expect_length, product as size_of_product};
use super::filter::{Filter, StoredFilter};
use super::gemm::{Plain, check_packed};
use super::grouped::{self, PackedGrouped};
use super::narrow::{self, Image, PackedNarrow, narrow_product};
use super::pack::{PackedB, PackedView};
use super::product::{Epilogue, Output, Rows, SCRATCH, product};
use super::table::Kernels;
use super::threads::Threads;
use crate::tensor::computed::Panels;
use std::ops::Range;

const KERNEL: &str = "conv2d";

/// The geometry of a convolution: x `[batch, in_height, in_width, in_channels]`, weights
/// `[kernel_height, kernel_width, in_channels / groups, out_channels]`, out `[batch, out_height, out_width, out_channels]`.
///
/// Output pixel `(y, x)` reads input rows `y * stride[0] + ky * dilation[0] - pad_top` and columns likewise; what
/// lies outside of the input is zero, so padding after the end follows from the output's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Conv2d {
    pub batch: usize,
    pub in_height: usize,
    pub in_width: usize,
    pub in_channels: usize,
    pub out_height: usize,
    pub out_width: usize,
    pub out_channels: usize,
    pub kernel_height: usize,
    pub kernel_width: usize,
    /// Height, width.
    pub stride: [usize; 2],
    /// Height, width.
    pub dilation: [usize; 2],
    pub pad_top: usize,
    pub pad_left: usize,
    pub groups: usize,
}

impl Conv2d {
    /// A convolution of single pixels: the product of `batch * height * width` rows of `from` by `[from, to]`.
    pub fn pointwise(batch: usize, [height, width]: [usize; 2], [from, to]: [usize; 2]) -> Conv2d {
        Conv2d {
            batch,
            in_height: height,
            in_width: width,
            in_channels: from,
            out_height: height,
            out_width: width,
            out_channels: to,
            kernel_height: 1,
            kernel_width: 1,
            stride: [1, 1],
            dilation: [1, 1],
            pad_top: 0,
            pad_left: 0,
            groups: 1,
        }
    }

    /// Fails when a size is zero that must not be, when the channels do not divide into the groups, or when the
    /// sizes exceed what can be addressed.
    pub fn check(&self) -> Result<(), KernelError> {
        let error = |argument, problem| Err(KernelError::Descriptor { kernel: KERNEL, argument, problem });
        if self.groups == 0
            || !self.in_channels.is_multiple_of(self.groups)
            || !self.out_channels.is_multiple_of(self.groups)
        {
            return error("groups", "does not divide the channels");
        }
        if self.kernel_height == 0 || self.kernel_width == 0 {
            return error("kernel", "is empty");
        }
        if self.stride.contains(&0) || self.dilation.contains(&0) {
            return error("stride or dilation", "is zero");
        }
        self.in_elements()?;
        self.out_elements()?;
        self.weight_elements()?;
        let spans = [
            (self.out_height, self.stride[0], self.kernel_height, self.dilation[0], self.pad_top),
            (self.out_width, self.stride[1], self.kernel_width, self.dilation[1], self.pad_left),
        ];
        for (out, stride, kernel, dilation, pad) in spans {
            let reach = out.checked_mul(stride).zip(kernel.checked_mul(dilation));
            let reach = reach.and_then(|(a, b)| a.checked_add(b)).and_then(|sum| sum.checked_add(pad));
            if reach.is_none_or(|reach| reach > isize::MAX as usize / 4) {
                return error("stride or dilation", "describes more than can be addressed");
            }
        }
        Ok(())
    }

    /// Elements of the input.
    pub fn in_elements(&self) -> Result<usize, KernelError> {
        size_of_product(KERNEL, "x", &[self.batch, self.in_height, self.in_width, self.in_channels])
    }

    /// Elements of the output.
    pub fn out_elements(&self) -> Result<usize, KernelError> {
        size_of_product(KERNEL, "out", &[self.batch, self.out_height, self.out_width, self.out_channels])
    }

    /// Elements of the weights.
    pub fn weight_elements(&self) -> Result<usize, KernelError> {
        let depth = self.in_channels.checked_div(self.groups).unwrap_or(0);
        size_of_product(KERNEL, "weights", &[self.kernel_height, self.kernel_width, depth, self.out_channels])
    }

    pub(super) fn taps(&self) -> usize {
        self.kernel_height * self.kernel_width
    }

    /// Input channels of a group.
    pub(super) fn depth(&self) -> usize {
        self.in_channels / self.groups
    }

    pub(super) fn is_depthwise(&self) -> bool {
        self.groups == self.in_channels && self.groups > 1
    }

    /// Whether the rows of the product are the pixels of the input.
    pub(super) fn is_pointwise(&self) -> bool {
        self.taps() == 1
            && self.groups == 1
            && self.stride == [1, 1]
            && (self.pad_top, self.pad_left) == (0, 0)
            && (self.in_height, self.in_width) == (self.out_height, self.out_width)
    }

    /// Whether a kernel row is read as one tap.
    pub(super) fn is_folded(&self) -> bool {
        /// Floats of a pixel's patch; short enough for a good number of them in the product's scratch.
        const PATCH: usize = 168;
        self.groups == 1
            && self.kernel_width > 1
            && self.dilation[1] == 1
            && self.taps().checked_mul(self.in_channels).is_some_and(|patch| patch <= PATCH)
    }

    /// Elements behind a pointer of the product's rows.
    pub(super) fn row_depth(&self) -> usize {
        self.row_depth_if(self.is_folded())
    }

    fn row_depth_if(&self, folded: bool) -> usize {
        if folded { self.kernel_width * self.depth() } else { self.depth() }
    }

    /// Whether vectors run over the input of a pixel, because its outputs would leave most of their lanes empty.
    pub fn is_narrow(&self, kernels: &Kernels) -> bool {
        self.groups == 1
            && self.in_channels > 0
            && narrow::pays(kernels, self.narrow_rows(), self.out_channels)
    }

    /// Whether a kernel row is read in one piece where [`Conv2d::is_narrow`].
    pub fn is_folded_narrow(&self) -> bool {
        /// Floats of a pixel's patch, of which the product's scratch must hold those of a tile.
        const PATCH: usize = SCRATCH / 8;
        let patch = self.kernel_height.saturating_mul(self.kernel_width).saturating_mul(self.in_channels);
        self.kernel_width > 1 && self.dilation[1] == 1 && patch <= PATCH
    }

    /// Pointers of a row of the product, and the elements behind each of them.
    fn narrow_rows(&self) -> [usize; 2] {
        let folded = self.is_folded_narrow();
        let columns = if folded { 1 } else { self.kernel_width };
        [self.kernel_height.saturating_mul(columns), self.row_depth_if(folded)]
    }

    /// What the packed weights depend on.
    pub(super) fn weight_shape(&self) -> [usize; 5] {
        [self.kernel_height, self.kernel_width, self.in_channels, self.out_channels, self.groups]
    }
}

/// Weights packed for one instruction set, with the bias; good for every batch and image size.
#[derive(Clone, Debug)]
pub struct PackedConv {
    shape: [usize; 5],
    weights: PackedWeights,
}

#[derive(Clone, Debug)]
enum PackedWeights {
    /// One matrix per group.
    Dense(Vec<PackedB>),
    Depthwise(PackedDepthwise),
    Grouped(PackedGrouped),
    /// Of kernel rows, or of single taps.
    Narrow {
        weights: PackedNarrow,
        folded: bool,
    },
}

impl PackedConv {
    /// Packs `weights` (HWIO, see [`Conv2d`]) and a bias of `out_channels`. Of `conv`, only channels, kernel and
    /// groups matter.
    pub fn pack(
        kernels: &Kernels,
        conv: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<PackedConv, KernelError> {
        PackedConv::pack_stored(kernels, conv, Filter::taps_first(weights), bias, &Threads::single())
    }

    /// [`PackedConv::pack`] for floats as they are stored, on these threads.
    pub fn pack_stored(
        kernels: &Kernels,
        conv: &Conv2d,
        filter: Filter<'_>,
        bias: Option<&[f32]>,
        threads: &Threads,
    ) -> Result<PackedConv, KernelError> {
        conv.check()?;
        filter.check(KERNEL, conv, size_of::<f32>())?;
        if let Some(bias) = bias {
            expect_length(KERNEL, "bias", conv.out_channels, bias.len())?;
        }
        let weights = if grouped::pays(kernels, conv) {
            PackedWeights::Grouped(PackedGrouped::pack(kernels, conv, filter, bias)?)
        } else if conv.is_depthwise() {
            let weights: Vec<f32> = filter.sorted(conv).into_iter().map(f32::from_le_bytes).collect();
            PackedWeights::Depthwise(PackedDepthwise::pack(&weights, bias))
        } else {
            size_of_product(KERNEL, "weights", &[conv.taps(), conv.depth()])?;
            let pack = |group: usize| {
                let columns = filter.columns(conv, group);
                let bias = bias.map(|bias| &bias[group * columns.n..][..columns.n]);
                PackedB::pack_columns(kernels, filter.bytes, columns, bias, threads)
            };
            PackedWeights::Dense((0..conv.groups).map(pack).collect::<Result<_, _>>()?)
        };
        Ok(PackedConv { shape: conv.weight_shape(), weights })
    }

    /// Weights whose panels are stored already; `None` where these kernels or this convolution need others.
    pub fn of_panels(
        kernels: &Kernels,
        conv: &Conv2d,
        stored: &Panels,
        bias: Option<&[f32]>,
    ) -> Result<Option<PackedConv>, KernelError> {
        conv.check()?;
        let rows = size_of_product(KERNEL, "weights", &[conv.taps(), conv.depth()])?;
        let fits = (stored.k, stored.n, stored.transposed) == (rows, conv.out_channels, false);
        if !fits || conv.groups != 1 || conv.is_depthwise() {
            return Ok(None);
        }
        let packed = PackedB::of_panels(kernels, stored, bias)?;
        Ok(packed.map(|packed| PackedConv {
            shape: conv.weight_shape(),
            weights: PackedWeights::Dense(vec![packed]),
        }))
    }

    /// Packs the weights of a convolution that [`Conv2d::is_narrow`].
    pub fn pack_narrow(
        kernels: &Kernels,
        conv: &Conv2d,
        filter: StoredFilter<'_>,
        bias: Option<&[f32]>,
    ) -> Result<PackedConv, KernelError> {
        conv.check()?;
        if !conv.is_narrow(kernels) {
            let problem = "are not few enough";
            return Err(KernelError::Descriptor { kernel: KERNEL, argument: "output channels", problem });
        }
        let elements = filter.elements(KERNEL, conv)?;
        let folded = conv.is_folded_narrow();
        let element = |tap: usize, place: usize, column: usize| {
            let (tap, channel) = match folded {
                true => (tap * conv.kernel_width + place / conv.in_channels, place % conv.in_channels),
                false => (tap, place),
            };
            let (start, step) = (elements.taps_of)(channel, column);
            f32::from_le_bytes(elements.floats[start + tap * step])
        };
        let weights = PackedNarrow::pack(kernels, conv.narrow_rows(), conv.out_channels, bias, element)?;
        Ok(PackedConv { shape: conv.weight_shape(), weights: PackedWeights::Narrow { weights, folded } })
    }

    /// Bytes that the weights of a narrow convolution take beyond those of the filter, about.
    pub fn growth_of_narrow(kernels: &Kernels, conv: &Conv2d) -> usize {
        let [taps, depth] = conv.narrow_rows();
        let more = depth.next_multiple_of(kernels.lanes) - depth;
        taps.saturating_mul(more).saturating_mul(conv.out_channels * size_of::<f32>())
    }

    /// The one matrix of weights of a convolution without groups of this geometry.
    pub(super) fn pointwise(&self, conv: &Conv2d) -> Option<PackedView<'_>> {
        match &self.weights {
            PackedWeights::Dense(groups) if self.shape == conv.weight_shape() && groups.len() == 1 => {
                groups.first().map(PackedB::view)
            }
            _ => None,
        }
    }

    /// The weights of a depthwise convolution of this geometry.
    pub(super) fn depthwise(&self, conv: &Conv2d) -> Option<&PackedDepthwise> {
        match &self.weights {
            PackedWeights::Depthwise(packed) if self.shape == conv.weight_shape() => Some(packed),
            _ => None,
        }
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        match &self.weights {
            PackedWeights::Dense(groups) => groups.iter().map(PackedB::bytes).sum(),
            PackedWeights::Depthwise(packed) => packed.bytes(),
            PackedWeights::Grouped(packed) => packed.bytes(),
            PackedWeights::Narrow { weights, .. } => weights.bytes(),
        }
    }

    /// Whether rows for these weights are those of [`Folded`].
    fn is_folded(&self, conv: &Conv2d) -> bool {
        match self.weights {
            PackedWeights::Narrow { folded, .. } => folded,
            _ => conv.is_folded(),
        }
    }
}

/// A convolution of one image size: where the taps of an output row and column lie.
#[derive(Clone, Debug)]
pub struct ConvPlan {
    conv: Conv2d,
    pub(super) in_elements: usize,
    pub(super) out_elements: usize,
    /// For output row `y` and kernel row `ky`, at `y * kernel_height + ky`: offset of the input row, or [`OUTSIDE`].
    rows: Vec<usize>,
    /// The same for columns.
    columns: Vec<usize>,
    /// For every kernel column, the output columns whose tap lies inside of the input.
    inside: Vec<Range<usize>>,
    /// Whether a kernel row is read as one tap.
    folded: bool,
    zeros: AlignedFloats,
}

/// The tap falls into the padding.
pub(super) const OUTSIDE: usize = usize::MAX;

impl ConvPlan {
    /// Fails as [`Conv2d::check`] does, and when `packed` was made for other channels, kernel or groups.
    pub fn new(conv: &Conv2d, packed: &PackedConv) -> Result<ConvPlan, KernelError> {
        let folded = packed.is_folded(conv);
        if packed.shape != conv.weight_shape() || folded && conv.dilation[1] != 1 {
            return Err(other_geometry());
        }
        ConvPlan::with_rows(conv, folded)
    }

    /// A plan for weights of whatever kind that are not narrow.
    pub(super) fn of(conv: &Conv2d) -> Result<ConvPlan, KernelError> {
        ConvPlan::with_rows(conv, conv.is_folded())
    }

    fn with_rows(conv: &Conv2d, folded: bool) -> Result<ConvPlan, KernelError> {
        conv.check()?;
        let in_elements = conv.in_elements()?;
        let out_elements = conv.out_elements()?;
        let mut plan = ConvPlan {
            conv: *conv,
            in_elements,
            out_elements,
            rows: Vec::new(),
            columns: Vec::new(),
            inside: Vec::new(),
            folded,
            zeros: AlignedFloats::zeroed(0),
        };
        let indirect = !conv.is_depthwise() && !conv.is_pointwise();
        if indirect && in_elements > 0 && out_elements > 0 {
            let pixel = conv.in_channels;
            let line = conv.in_width * pixel;
            plan.rows = offsets(
                conv.out_height,
                conv.kernel_height,
                conv.stride[0],
                conv.dilation[0],
                conv.pad_top,
                conv.in_height,
                line,
            );
            plan.columns = offsets(
                conv.out_width,
                conv.kernel_width,
                conv.stride[1],
                conv.dilation[1],
                conv.pad_left,
                conv.in_width,
                pixel,
            );
            plan.inside = (0..conv.kernel_width)
                .map(|kx| {
                    let tap = kx * conv.dilation[1];
                    let first = conv.pad_left.saturating_sub(tap).div_ceil(conv.stride[1]);
                    let limit = (conv.in_width + conv.pad_left).saturating_sub(tap);
                    let last = limit.div_ceil(conv.stride[1]).min(conv.out_width);
                    first.min(last)..last
                })
                .collect();
            plan.zeros = AlignedFloats::zeroed(conv.row_depth_if(folded));
        }
        Ok(plan)
    }

    /// The geometry.
    pub fn conv(&self) -> &Conv2d {
        &self.conv
    }
}

fn other_geometry() -> KernelError {
    let problem = "are packed for another geometry";
    KernelError::Descriptor { kernel: KERNEL, argument: "weights", problem }
}

/// For every output position and tap: the input position times `scale`, or [`OUTSIDE`].
fn offsets(
    out: usize,
    taps: usize,
    stride: usize,
    dilation: usize,
    pad: usize,
    limit: usize,
    scale: usize,
) -> Vec<usize> {
    let mut offsets = Vec::with_capacity(out.saturating_mul(taps).min(1 << 20));
    for position in 0..out {
        for tap in 0..taps {
            let at = (position * stride + tap * dilation).checked_sub(pad).filter(|&at| at < limit);
            offsets.push(at.map_or(OUTSIDE, |at| at * scale));
        }
    }
    offsets
}

impl Kernels {
    /// `out = epilogue(conv(x) + bias)`; a residual is shaped like `out`. Lengths are those of the plan's geometry.
    pub fn conv2d(
        &self,
        plan: &ConvPlan,
        packed: &PackedConv,
        x: &[f32],
        out: &mut [f32],
        epilogue: &Epilogue<'_>,
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let conv = &plan.conv;
        if packed.shape != conv.weight_shape() || packed.is_folded(conv) != plan.folded {
            return Err(other_geometry());
        }
        expect_length(KERNEL, "x", plan.in_elements, x.len())?;
        expect_length(KERNEL, "out", plan.out_elements, out.len())?;
        if let Some(residual) = epilogue.residual {
            expect_length(KERNEL, "residual", out.len(), residual.len())?;
        }
        if out.is_empty() {
            return Ok(());
        }
        match &packed.weights {
            PackedWeights::Depthwise(packed) => depthwise::run(self, conv, packed, x, out, epilogue, threads),
            PackedWeights::Grouped(packed) => {
                packed.check(self)?;
                grouped::run(self, conv, packed, x, out, epilogue, threads);
            }
            PackedWeights::Dense(groups) => self.conv2d_dense(plan, groups, x, out, epilogue, threads)?,
            PackedWeights::Narrow { weights, .. } => {
                weights.check(self, KERNEL)?;
                self.conv2d_narrow(plan, weights, x, out, epilogue, threads);
            }
        }
        Ok(())
    }

    fn conv2d_narrow(
        &self,
        plan: &ConvPlan,
        weights: &PackedNarrow,
        x: &[f32],
        out: &mut [f32],
        epilogue: &Epilogue<'_>,
        threads: &Threads,
    ) {
        let conv = &plan.conv;
        let padding = plan.zeros.as_slice();
        let pixel = conv.kernel_height.saturating_mul(conv.stride[1]).saturating_mul(conv.in_channels);
        let image = (conv.kernel_height > 1).then_some(Image { line: conv.out_width, pixel });
        // SAFETY: as for dense weights; these are of as many taps, as deep as the rows.
        unsafe {
            if x.is_empty() {
                let depth = conv.row_depth_if(plan.folded);
                let rows = Nothing { depth, zeros: vec![0.0; depth] };
                narrow_product(self, &rows, weights, image, out, epilogue, threads);
            } else if conv.is_pointwise() {
                let rows = Plain { data: x.as_ptr(), stride: conv.in_channels, depth: conv.in_channels };
                narrow_product(self, &rows, weights, image, out, epilogue, threads);
            } else if plan.folded {
                narrow_product(self, &Folded { plan, x, padding }, weights, image, out, epilogue, threads);
            } else {
                let rows = Indirect { plan, x, padding, group_offset: 0 };
                narrow_product(self, &rows, weights, image, out, epilogue, threads);
            }
        }
    }

    fn conv2d_dense(
        &self,
        plan: &ConvPlan,
        groups: &[PackedB],
        x: &[f32],
        out: &mut [f32],
        epilogue: &Epilogue<'_>,
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let conv = &plan.conv;
        let pixels = out.len() / conv.out_channels;
        for (group, weights) in groups.iter().enumerate() {
            check_packed(self, KERNEL, weights.view())?;
            let first = group * (conv.out_channels / conv.groups);
            let residual = epilogue.residual.map_or(std::ptr::null(), |residual| residual[first..].as_ptr());
            let output =
                Output { data: out[first..].as_mut_ptr(), stride: conv.out_channels, residual, epilogue };
            let weights = weights.view();
            if x.is_empty() {
                // Nothing but padding: every tap is left out.
                let rows = Nothing { depth: weights.k, zeros: vec![0.0; weights.k] };
                // SAFETY: as below.
                unsafe { product(self, &rows, pixels, weights, output, threads) };
            } else if conv.is_pointwise() {
                let rows = Plain { data: x.as_ptr(), stride: conv.in_channels, depth: conv.in_channels };
                // SAFETY: x has one row per output pixel; out was checked and is borrowed uniquely.
                unsafe { product(self, &rows, pixels, weights, output, threads) };
            } else if plan.folded {
                let rows = Folded { plan, x, padding: plan.zeros.as_slice() };
                // SAFETY: as above.
                unsafe { product(self, &rows, pixels, weights, output, threads) };
            } else {
                let padding = plan.zeros.as_slice();
                let rows = Indirect { plan, x, padding, group_offset: group * conv.depth() };
                // SAFETY: as above.
                unsafe { product(self, &rows, pixels, weights, output, threads) };
            }
        }
        Ok(())
    }
}

/// Output pixels cut into runs along an output row: image, row, columns.
struct Runs<'a> {
    conv: &'a Conv2d,
    rest: Range<usize>,
}

impl Iterator for Runs<'_> {
    type Item = (usize, usize, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let conv = self.conv;
        let first = self.rest.start;
        let left = self.rest.end.checked_sub(first).filter(|&left| left > 0)?;
        let (line, x) = (first / conv.out_width, first % conv.out_width);
        let length = left.min(conv.out_width - x);
        self.rest.start += length;
        Some((line / conv.out_height, line % conv.out_height, x..x + length))
    }
}

/// One tap per kernel position.
pub(super) struct Indirect<'a, T> {
    pub(super) plan: &'a ConvPlan,
    pub(super) x: &'a [T],
    /// What a tap in the padding reads: a group's channels.
    pub(super) padding: &'a [T],
    /// The group's first channel.
    pub(super) group_offset: usize,
}

impl<T: Sync> Rows<T> for Indirect<'_, T> {
    fn taps(&self) -> usize {
        self.plan.conv.taps()
    }

    fn depth(&self) -> usize {
        self.plan.conv.depth()
    }

    fn point(
        &self,
        rows: Range<usize>,
        taps: Range<usize>,
        channel: usize,
        pointers: &mut [*const T],
        _scratch: &mut [T],
    ) {
        let conv = &self.plan.conv;
        let image_size = conv.in_height * conv.in_width * conv.in_channels;
        let count = rows.len();
        let padding = self.padding[channel..].as_ptr();
        let step = conv.stride[1] * conv.in_channels;
        let mut at = 0;
        for (image, y, columns) in (Runs { conv, rest: rows }) {
            let lines = &self.plan.rows[y * conv.kernel_height..][..conv.kernel_height];
            // Addresses are computed without checks on the way: each lies within x, for the plan keeps only offsets that do.
            let base = self.x.as_ptr().wrapping_add(image * image_size + self.group_offset + channel);
            for (slot, tap) in taps.clone().enumerate() {
                let (ky, kx) = (tap / conv.kernel_width, tap % conv.kernel_width);
                let to = &mut pointers[slot * count + at..][..columns.len()];
                let inside = self.plan.inside[kx].clone();
                let first = inside.start.clamp(columns.start, columns.end);
                let last = inside.end.clamp(first, columns.end);
                if lines[ky] == OUTSIDE || first == last {
                    to.fill(padding);
                    continue;
                }
                to[..first - columns.start].fill(padding);
                to[last - columns.start..].fill(padding);
                let column = self.plan.columns[first * conv.kernel_width + kx];
                let start = base.wrapping_add(lines[ky] + column);
                for (index, pointer) in to[first - columns.start..last - columns.start].iter_mut().enumerate()
                {
                    *pointer = start.wrapping_add(index * step);
                }
            }
            at += columns.len();
        }
    }
}

/// One tap per kernel row: the pixels under it are contiguous. At the edges lines are assembled in scratch memory.
pub(super) struct Folded<'a, T> {
    pub(super) plan: &'a ConvPlan,
    pub(super) x: &'a [T],
    /// What a tap in the padding reads: a whole kernel row.
    pub(super) padding: &'a [T],
}

impl<T: Copy + Sync> Rows<T> for Folded<'_, T> {
    fn taps(&self) -> usize {
        self.plan.conv.kernel_height
    }

    fn depth(&self) -> usize {
        self.plan.conv.kernel_width * self.plan.conv.in_channels
    }

    fn scratch_per_row(&self) -> usize {
        self.taps() * self.depth()
    }

    fn point(
        &self,
        rows: Range<usize>,
        taps: Range<usize>,
        channel: usize,
        pointers: &mut [*const T],
        scratch: &mut [T],
    ) {
        let conv = &self.plan.conv;
        let image_size = conv.in_height * conv.in_width * conv.in_channels;
        let count = rows.len();
        let padding = self.padding[channel..].as_ptr();
        let step = conv.stride[1] * conv.in_channels;
        let width = conv.kernel_width;
        // Output columns whose whole kernel row lies inside.
        let (begin, end) = (self.plan.inside[0].start, self.plan.inside[width - 1].end);
        let mut free = scratch;
        let mut at = 0;
        for (image, y, columns) in (Runs { conv, rest: rows }) {
            let lines = &self.plan.rows[y * conv.kernel_height..][taps.clone()];
            let base = image * image_size;
            let first = begin.clamp(columns.start, columns.end);
            let last = end.clamp(first, columns.end);
            for (slot, &line) in lines.iter().enumerate() {
                let to = &mut pointers[slot * count + at..][..columns.len()];
                if line == OUTSIDE {
                    to.fill(padding);
                    continue;
                }
                if first < last {
                    // Addresses are computed without checks on the way: each lies within x, for the plan keeps only
                    // offsets that do.
                    let column = self.plan.columns[first * width];
                    let start = self.x.as_ptr().wrapping_add(base + line + column + channel);
                    let whole = &mut to[first - columns.start..last - columns.start];
                    for (index, pointer) in whole.iter_mut().enumerate() {
                        *pointer = start.wrapping_add(index * step);
                    }
                }
                // Windows that overlap share a strip, so that it takes no more than they do.
                let together = if conv.stride[1] < width { count } else { 1 };
                for edge in [columns.start..first, last..columns.end] {
                    for start in edge.clone().step_by(together) {
                        let windows = edge.end.min(start + together) - start;
                        let length = ((windows - 1) * conv.stride[1] + width) * conv.in_channels;
                        let Some((strip, rest)) = std::mem::take(&mut free).split_at_mut_checked(length)
                        else {
                            return;
                        };
                        free = rest;
                        self.assemble(strip, base + line, start * conv.stride[1]);
                        let to = &mut to[start - columns.start..][..windows];
                        for (index, pointer) in to.iter_mut().enumerate() {
                            *pointer = strip[index * step + channel..].as_ptr();
                        }
                    }
                }
            }
            at += columns.len();
        }
    }
}

impl<T: Copy> Folded<'_, T> {
    /// Writes the pixels of the line at `line` from column `left` on, which counts those of the padding.
    fn assemble(&self, strip: &mut [T], line: usize, left: usize) {
        let conv = &self.plan.conv;
        let channels = conv.in_channels;
        let pixels = strip.len().checked_div(channels).unwrap_or(0);
        let begin = conv.pad_left.saturating_sub(left).min(pixels);
        let end = (conv.in_width + conv.pad_left).saturating_sub(left).clamp(begin, pixels);
        let (before, rest) = strip.split_at_mut(begin * channels);
        let (inside, after) = rest.split_at_mut((end - begin) * channels);
        for outside in [before, after] {
            for piece in outside.chunks_mut(self.padding.len().max(1)) {
                piece.copy_from_slice(&self.padding[..piece.len()]);
            }
        }
        if !inside.is_empty() {
            let from = line + (left + begin - conv.pad_left) * channels;
            inside.copy_from_slice(&self.x[from..][..inside.len()]);
        }
    }
}

/// Rows of zeros.
struct Nothing {
    depth: usize,
    zeros: Vec<f32>,
}

impl Rows<f32> for Nothing {
    fn taps(&self) -> usize {
        1
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn point(
        &self,
        _rows: Range<usize>,
        _taps: Range<usize>,
        channel: usize,
        pointers: &mut [*const f32],
        _scratch: &mut [f32],
    ) {
        pointers.fill(self.zeros[channel..].as_ptr());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::available;
    use crate::kernels::testing::{check_conv, same_conv as same};

    fn check(conv: Conv2d) {
        check_conv(&conv, &[1, 2]);
    }

    #[test]
    fn pointwise() {
        check(same(1, [7, 7], [17, 33], [1, 1]));
        check(same(2, [5, 3], [300, 9], [1, 1]));
        check(Conv2d { stride: [2, 2], out_height: 4, out_width: 4, ..same(1, [7, 8], [20, 12], [1, 1]) });
    }

    #[test]
    fn general_kernels() {
        check(same(1, [9, 11], [64, 40], [3, 3]));
        check(same(2, [6, 5], [33, 8], [3, 3]));
        check(same(1, [8, 8], [300, 5], [3, 3]));
        check(same(1, [10, 13], [24, 16], [5, 3]));
        check(same(1, [3, 12], [70, 16], [1, 7]));
        check(Conv2d { stride: [2, 1], out_height: 5, ..same(1, [9, 11], [60, 7], [3, 3]) });
        check(Conv2d { dilation: [2, 3], pad_top: 2, pad_left: 3, ..same(1, [9, 11], [40, 7], [3, 3]) });
        check(same(1, [12, 12], [2, 3], [11, 11]));
    }

    #[test]
    fn few_channels_fold() {
        check(Conv2d { stride: [2, 2], out_height: 16, out_width: 16, ..same(1, [32, 32], [3, 32], [3, 3]) });
        check(Conv2d { stride: [2, 2], out_height: 14, out_width: 15, ..same(2, [28, 30], [3, 20], [7, 7]) });
        check(same(1, [28, 28], [1, 8], [5, 5]));
        check(same(1, [2, 2], [3, 4], [5, 5]));
        check(same(1, [1, 1], [3, 4], [3, 3]));
    }

    #[test]
    fn depthwise() {
        for channels in [2, 3, 7, 8, 9, 16, 33, 64] {
            for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (7, 2), (2, 2)] {
                for size in [[1, 1], [4, 5], [9, 12], [14, 17]] {
                    let base = same(1, size, [channels, channels], [kernel, kernel]);
                    check(Conv2d {
                        groups: channels,
                        stride: [stride, stride],
                        out_height: size[0].div_ceil(stride),
                        out_width: size[1].div_ceil(stride),
                        ..base
                    });
                }
            }
        }
        let base = same(2, [9, 12], [12, 12], [3, 3]);
        check(Conv2d { groups: 12, dilation: [2, 2], pad_top: 2, pad_left: 2, ..base });
        check(Conv2d { groups: 12, pad_top: 0, pad_left: 0, ..base });
    }

    #[test]
    fn nothing_but_padding() {
        check(Conv2d { out_height: 2, out_width: 2, ..same(1, [0, 3], [4, 5], [3, 3]) });
        check(Conv2d { out_height: 2, out_width: 2, groups: 4, ..same(1, [0, 3], [4, 4], [3, 3]) });
        check(same(0, [3, 3], [4, 5], [3, 3]));
        // The last output rows see nothing of the input.
        check(Conv2d { out_height: 9, out_width: 9, ..same(1, [4, 4], [4, 5], [3, 3]) });
        check(Conv2d { out_height: 9, out_width: 9, groups: 4, ..same(1, [4, 4], [4, 4], [3, 3]) });
    }

    #[test]
    fn lying_descriptors_are_refused() {
        let kernels = available()[0];
        let good = same(1, [4, 4], [4, 6], [3, 3]);
        for bad in [
            Conv2d { groups: 0, ..good },
            Conv2d { groups: 3, ..good },
            Conv2d { kernel_width: 0, ..good },
            Conv2d { stride: [0, 1], ..good },
            Conv2d { dilation: [1, 0], ..good },
            Conv2d { in_width: usize::MAX / 2, ..good },
            Conv2d { out_height: usize::MAX / 64, batch: 0, ..good },
            Conv2d { stride: [usize::MAX, 1], ..good },
            Conv2d { pad_left: usize::MAX, ..good },
            Conv2d { kernel_height: usize::MAX / 2, ..good },
        ] {
            assert!(bad.check().is_err() || bad.batch == 0, "{bad:?}");
            let weights = [0.0; 9 * 4 * 6];
            assert!(PackedConv::pack(kernels, &bad, &weights, None).is_err() || bad.batch == 0);
        }
        let weights = [0.0; 9 * 4 * 6];
        assert!(PackedConv::pack(kernels, &good, &weights[1..], None).is_err());
        assert!(PackedConv::pack(kernels, &good, &weights, Some(&[0.0; 5])).is_err());
        let packed = PackedConv::pack(kernels, &good, &weights, None).unwrap();
        assert!(ConvPlan::new(&Conv2d { groups: 2, ..good }, &packed).is_err());
        let plan = ConvPlan::new(&good, &packed).unwrap();
        let (x, mut out) = ([0.0; 64], [0.0; 96]);
        let single = Threads::single();
        let plain = Epilogue::default();
        assert!(kernels.conv2d(&plan, &packed, &x[1..], &mut out, &plain, &single).is_err());
        assert!(kernels.conv2d(&plan, &packed, &x, &mut out[1..], &plain, &single).is_err());
        let short = Epilogue { residual: Some(&x), ..plain };
        assert!(kernels.conv2d(&plan, &packed, &x, &mut out, &short, &single).is_err());
        assert!(kernels.conv2d(&plan, &packed, &x, &mut out, &plain, &single).is_ok());
    }
}
