//! Weights at the points of Winograd's convolution, as panels of matrix products.

use super::{KERNEL, Weights, WinogradTile, apart, is_possible};
use crate::kernels::aligned::AlignedFloats;
use crate::kernels::conv::Conv2d;
use crate::kernels::error::{KernelError, expect_length, product as size_of_product};
use crate::kernels::filter::{Elements, StoredFilter};
use crate::kernels::isa::MAX_LANES;
use crate::kernels::pack::{PackedView, PanelWidth, packed_len, padded_bias};
use crate::kernels::product::part;
use crate::kernels::table::Kernels;
use crate::kernels::threads::{SendPtr, Threads};
use std::ops::Range;

/// Windows of some input channels, [`TOGETHER`] at most, for the output channels `columns`: nine vectors for each.
fn windows(
    elements: &Elements<'_>,
    kernels: &Kernels,
    channels: Range<usize>,
    columns: Range<usize>,
) -> [[f32; MAX_LANES]; 9 * TOGETHER] {
    let mut windows = [[0.0f32; MAX_LANES]; 9 * TOGETHER];
    if elements.by_output {
        let (first, _) = (elements.taps_of)(channels.start, columns.start);
        let (next, _) = (elements.taps_of)(channels.start, columns.start + 1);
        let (stride, length) = (next - first, channels.len() * 9);
        let rows = &elements.floats[first..first + (columns.len() - 1) * stride + length];
        let to = windows.as_flattened_mut();
        assert!(length * MAX_LANES <= to.len() && columns.len() <= MAX_LANES, "the windows have room");
        // SAFETY: `rows` reaches from the first to the last of the rows, and every element of one has a row in `to`. Any
        // four bytes are a float, and no alignment is asked for.
        unsafe {
            let from = rows.as_ptr().cast();
            (kernels.turn)(from, stride, columns.len(), length, to.as_mut_ptr(), MAX_LANES);
        }
        return windows;
    }
    for (channel, window) in channels.zip(windows.as_chunks_mut::<9>().0) {
        for (lane, column) in columns.clone().enumerate() {
            let (start, step) = (elements.taps_of)(channel, column);
            let taps = &elements.floats[start..=start + 8 * step];
            for tap in 0..9 {
                window[tap][lane] = f32::from_le_bytes(taps[tap * step]);
            }
        }
    }
    windows
}

/// Input channels that a thread does at a time.
const TOGETHER: usize = 16;

/// What sums at a point begin with. Products of values that an activation left all but zero would be denormal, and adding such
/// ones to zero is slow; added to this they are nothing.
const START: f32 = 1e-36;

/// Weights transformed and packed for one instruction set and tile, with the bias; good for every batch and image size.
#[derive(Clone, Debug)]
pub struct PackedWinograd {
    tile: WinogradTile,
    /// For every point the panels of a matrix `[in_channels, out_channels]`.
    panels: AlignedFloats,
    /// Floats from one point to the next.
    point: usize,
    /// [`START`] for every column.
    start: AlignedFloats,
    bias: Option<AlignedFloats>,
    k: usize,
    n: usize,
    width: PanelWidth,
}

impl PackedWinograd {
    /// Packs the floats of a filter as they are stored, and a bias of `out_channels`. Of `conv`, only channels and the window
    /// matter.
    pub fn pack(
        kernels: &Kernels,
        conv: &Conv2d,
        tile: WinogradTile,
        filter: StoredFilter<'_>,
        bias: Option<&[f32]>,
        threads: &Threads,
    ) -> Result<PackedWinograd, KernelError> {
        conv.check()?;
        if !is_possible(conv) {
            let problem = "is not one of 3x3 without strides, dilations and groups";
            return Err(KernelError::Descriptor { kernel: KERNEL, argument: "window", problem });
        }
        if let Some(bias) = bias {
            expect_length(KERNEL, "bias", conv.out_channels, bias.len())?;
        }
        let elements = filter.elements(KERNEL, conv)?;
        let (k, n) = (conv.in_channels, conv.out_channels);
        let point = apart(packed_len(kernels, k, n)?);
        let panels = AlignedFloats::zeroed(size_of_product(KERNEL, "weights", &[point, tile.points()])?);
        let width = PanelWidth::of(kernels);
        let mut start = AlignedFloats::zeroed(n.next_multiple_of(kernels.lanes));
        start.as_mut_slice().fill(START);
        let bias = padded_bias(kernels, n, bias)?;
        let mut packed = PackedWinograd { tile, panels, point, start, bias, k, n, width };
        packed.fill(kernels, &elements, threads);
        Ok(packed)
    }

    /// Bytes that weights of `conv` take beyond those of the filter, about.
    pub fn growth(conv: &Conv2d, tile: WinogradTile) -> usize {
        let weights = conv.in_channels.saturating_mul(conv.out_channels);
        weights.saturating_mul((tile.points() - conv.taps()) * size_of::<f32>())
    }

    fn fill(&mut self, kernels: &Kernels, elements: &Elements<'_>, threads: &Threads) {
        let PackedWinograd { k, n, point, .. } = *self;
        let (panels, lanes) = (self.width.over(n), kernels.lanes);
        let transform = kernels.winograd_weights[self.tile.index()];
        let to = SendPtr(self.panels.as_mut_slice().as_mut_ptr());
        let (parts, vectors) = (k.div_ceil(TOGETHER), n.div_ceil(lanes));
        threads.for_each(parts * vectors, |task| {
            let columns = task / parts * lanes..n.min((task / parts + 1) * lanes);
            let (start, row) = panels.column(k, columns.start);
            let channels = part(k, parts, task % parts);
            let windows = windows(elements, kernels, channels.clone(), columns);
            for (channel, window) in channels.zip(windows.as_chunks::<9>().0) {
                // SAFETY: a vector of a row of a panel, at every point; no two tasks have the same. A window is nine vectors.
                unsafe {
                    let to = to.get().add(start + channel * row);
                    transform(&Weights { from: window.as_ptr().cast(), to, point });
                }
            }
        });
    }

    /// Fails unless these are the weights of `conv` for this tile.
    pub(super) fn check(
        &self,
        kernels: &Kernels,
        conv: &Conv2d,
        tile: WinogradTile,
    ) -> Result<(), KernelError> {
        let fits = (self.tile, self.k, self.n) == (tile, conv.in_channels, conv.out_channels);
        if fits && self.width == PanelWidth::of(kernels) {
            return Ok(());
        }
        let problem = "are packed for another geometry or instruction set";
        Err(KernelError::Descriptor { kernel: KERNEL, argument: "weights", problem })
    }

    /// The matrix of a point.
    pub(super) fn point(&self, point: usize) -> PackedView<'_> {
        let PackedWinograd { k, n, width, .. } = *self;
        let panels = &self.panels.as_slice()[point * self.point..][..self.point];
        PackedView { panels, bias: Some(self.start.as_slice()), k, n, width }
    }

    /// Whole vectors; null for none.
    pub(super) fn bias(&self) -> *const f32 {
        self.bias.as_ref().map_or(std::ptr::null(), |bias| bias.as_slice().as_ptr())
    }
}
