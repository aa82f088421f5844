//! Convolutions of 3x3 windows by Winograd's minimal filtering (Lavin and Gray, arXiv:1509.09308): a quarter, or four
//! ninths, of the multiplications.
//!
//! Tiles of the input and the weights are evaluated at points ([`transform`]), where a convolution is a product: one matrix
//! product of tiles by channels for every point, with weights that are transformed once. Some tiles at a time go through
//! all three stages, so that what stands between them stays in the second-level cache.
//!
//! A tile's outputs are sums over all of its inputs: a NaN or an infinity reaches all outputs of the tiles that it lies in.

mod pack;
mod transform;

pub use pack::PackedWinograd;
pub(super) use transform::{Four, Inputs, Outputs, Two, Weights, inputs, outputs, weights};

use super::conv::Conv2d;
use super::error::{KernelError, expect_length, product as size_of_product};
use super::gemm::Plain;
use super::product::{Epilogue, Output, part, product};
use super::table::Kernels;
use super::threads::{SendPtr, Threads};
use std::sync::atomic::{AtomicUsize, Ordering};
use transform::Form;

const KERNEL: &str = "winograd";
/// Bytes that the values at all points may take, of inputs and outputs together.
const BLOCK: usize = 384 << 10;
/// Tiles of a block, unless there are fewer: weights are read once for each block.
const TILES_OF_BLOCK: std::ops::RangeInclusive<usize> = 24..=96;

/// The size of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WinogradTile {
    /// 2x2 outputs of 4x4 inputs.
    Two,
    /// 4x4 outputs of 6x6 inputs.
    Four,
}

impl WinogradTile {
    /// Where the functions for this tile stand in the table of kernels.
    const fn index(self) -> usize {
        match self {
            WinogradTile::Two => 0,
            WinogradTile::Four => 1,
        }
    }

    /// Lines of outputs.
    const fn out(self) -> usize {
        match self {
            WinogradTile::Two => Two::OUT,
            WinogradTile::Four => Four::OUT,
        }
    }

    /// Lines of inputs.
    const fn lines(self) -> usize {
        self.out() + 2
    }

    /// The points at which tiles are multiplied.
    const fn points(self) -> usize {
        self.lines() * self.lines()
    }

    /// The tile that makes this convolution faster than the direct one; `None` where there is none.
    pub fn of(conv: &Conv2d) -> Option<WinogradTile> {
        if !is_possible(conv) || conv.in_channels < LEAST_CHANNELS || conv.out_channels < LEAST_CHANNELS {
            return None;
        }
        let pixels = conv.batch.checked_mul(conv.out_height)?.checked_mul(conv.out_width)?;
        let weights = conv.in_channels.checked_mul(conv.out_channels)?;
        let direct = pixels.checked_mul(9)?.checked_mul(weights)?;
        let channels = conv.in_channels.checked_add(conv.out_channels)?;
        let cost = |tile: WinogradTile| {
            let tiles = tile.count(conv)?;
            let elements = tiles.checked_mul(channels)?;
            let work = tiles.checked_mul(weights)?.checked_add(elements.checked_mul(ELEMENT)?)?;
            work.checked_add(weights.checked_mul(WEIGHT)?)?.checked_mul(tile.points())
        };
        let (small, large) = (cost(WinogradTile::Two)?, cost(WinogradTile::Four)?);
        let best = match large.checked_mul(WORTH)? / WORTH_OF <= small {
            true => (large, WinogradTile::Four),
            false => (small, WinogradTile::Two),
        };
        Some(best).filter(|&(cost, _)| cost < direct).map(|(_, tile)| tile)
    }

    /// Tiles of all images.
    fn count(self, conv: &Conv2d) -> Option<usize> {
        let [height, width] = [conv.out_height, conv.out_width].map(|size| size.div_ceil(self.out()));
        conv.batch.checked_mul(height)?.checked_mul(width)
    }
}

/// Channels below which products are too short.
const LEAST_CHANNELS: usize = 24;
/// What an element costs on its way into a product or out of it, in multiplications.
const ELEMENT: usize = 8;
/// What it costs to fetch a transformed weight, in multiplications.
const WEIGHT: usize = 16;
/// How much cheaper large tiles have to be, as a fraction: their weights take more than twice the memory of the small ones',
/// and loading a model is for the most part making and touching them.
const WORTH: usize = 4;
const WORTH_OF: usize = 3;

/// Whether the windows are those that the transforms are made for.
fn is_possible(conv: &Conv2d) -> bool {
    let window = [conv.kernel_height, conv.kernel_width];
    window == [3, 3] && conv.stride == [1, 1] && conv.dilation == [1, 1] && conv.groups == 1
}

/// A convolution of one image size, cut into tiles and blocks of them.
#[derive(Clone, Debug)]
pub struct WinogradPlan {
    conv: Conv2d,
    tile: WinogradTile,
    /// Down and across an image.
    tiles: [usize; 2],
    count: usize,
    blocks: usize,
    tasks: usize,
    in_elements: usize,
    out_elements: usize,
}

impl WinogradPlan {
    /// A plan for a pool of `threads`. Fails for windows other than 3x3 or with strides, dilations or groups, and as
    /// [`Conv2d::check`] does.
    pub fn new(conv: &Conv2d, tile: WinogradTile, threads: usize) -> Result<WinogradPlan, KernelError> {
        conv.check()?;
        if !is_possible(conv) {
            let problem = "is not one of 3x3 without strides, dilations and groups";
            return Err(KernelError::Descriptor { kernel: KERNEL, argument: "window", problem });
        }
        let too_large = KernelError::Descriptor {
            kernel: KERNEL,
            argument: "x",
            problem: "describes more than can be addressed",
        };
        let count = tile.count(conv).ok_or(too_large)?;
        let channels = conv.in_channels.saturating_add(conv.out_channels);
        let bytes = channels.saturating_mul(tile.points() * size_of::<f32>()).max(1);
        let block = (BLOCK / bytes).clamp(*TILES_OF_BLOCK.start(), *TILES_OF_BLOCK.end());
        let tasks = threads.clamp(1, count.max(1));
        let plan = WinogradPlan {
            conv: *conv,
            tile,
            tiles: [conv.out_height, conv.out_width].map(|size| size.div_ceil(tile.out())),
            count,
            blocks: count.div_ceil(block).next_multiple_of(tasks).min(count),
            tasks,
            in_elements: conv.in_elements()?,
            out_elements: conv.out_elements()?,
        };
        let values = size_of_product(KERNEL, "scratch", &[channels + 2, tile.points()])?;
        size_of_product(KERNEL, "scratch", &[plan.tasks, plan.most_tiles() + 1, values])?;
        Ok(plan)
    }

    /// Floats of scratch memory that a run takes.
    pub fn scratch(&self) -> usize {
        self.tasks * self.scratch_of_task()
    }

    /// Tiles of the largest block.
    fn most_tiles(&self) -> usize {
        self.count.div_ceil(self.blocks.max(1))
    }

    /// Floats from one tile to the next, whose values at all points are side by side.
    fn tile(&self, channels: usize) -> usize {
        apart(self.tile.points() * channels)
    }

    fn patch(&self) -> usize {
        (self.tile.points() * self.conv.in_channels).next_multiple_of(LINE)
    }

    fn scratch_of_task(&self) -> usize {
        let tile = self.tile(self.conv.in_channels) + self.tile(self.conv.out_channels);
        self.most_tiles() * tile + self.patch()
    }

    /// Image, and the first line and column of outputs, of a tile.
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let [down, across] = self.tiles;
        let (line, column) = (tile / across, tile % across);
        (line / down, line % down * self.tile.out(), column * self.tile.out())
    }
}

/// Floats of a cache line.
const LINE: usize = 16;

/// `floats` or a little more, an odd number of cache lines: what is so far apart does not share its place in a cache.
fn apart(floats: usize) -> usize {
    floats.next_multiple_of(LINE) | LINE
}

impl Kernels {
    /// `out = epilogue(conv(x) + bias)`, as [`Kernels::conv2d`]; `packed` must be made for the plan's tile, and `scratch` has
    /// [`WinogradPlan::scratch`] floats.
    #[allow(clippy::too_many_arguments, reason = "a convolution has these, and memory to work in")]
    pub fn winograd(
        &self,
        plan: &WinogradPlan,
        packed: &PackedWinograd,
        x: &[f32],
        out: &mut [f32],
        scratch: &mut [f32],
        epilogue: &Epilogue<'_>,
        threads: &Threads,
    ) -> Result<(), KernelError> {
        packed.check(self, &plan.conv, plan.tile)?;
        expect_length(KERNEL, "x", plan.in_elements, x.len())?;
        expect_length(KERNEL, "out", plan.out_elements, out.len())?;
        expect_length(KERNEL, "scratch", plan.scratch(), scratch.len())?;
        if let Some(residual) = epilogue.residual {
            expect_length(KERNEL, "residual", out.len(), residual.len())?;
        }
        if out.is_empty() {
            return Ok(());
        }
        let run = Run {
            kernels: self,
            plan,
            packed,
            x,
            out: SendPtr(out.as_mut_ptr()),
            residual: SendPtr(epilogue.residual.map_or(std::ptr::null(), <[f32]>::as_ptr).cast_mut()),
            epilogue,
        };
        // Blocks differ in time where the machine has other work, so each is taken by whoever is free.
        let next = AtomicUsize::new(0);
        threads.for_each_slice(scratch, plan.scratch_of_task(), |_, scratch| {
            loop {
                let block = next.fetch_add(1, Ordering::Relaxed);
                if block >= plan.blocks {
                    break;
                }
                run.block(part(plan.count, plan.blocks, block), scratch);
            }
        });
        Ok(())
    }
}

/// A checked call.
struct Run<'a> {
    kernels: &'a Kernels,
    plan: &'a WinogradPlan,
    packed: &'a PackedWinograd,
    x: &'a [f32],
    out: SendPtr<f32>,
    /// Only read; null for none.
    residual: SendPtr<f32>,
    epilogue: &'a Epilogue<'a>,
}

impl Run<'_> {
    fn block(&self, tiles: std::ops::Range<usize>, scratch: &mut [f32]) {
        let Run { kernels, plan, packed, .. } = *self;
        let (depth, width) = (plan.conv.in_channels, plan.conv.out_channels);
        let (in_tile, out_tile) = (plan.tile(depth), plan.tile(width));
        let (inputs, rest) = scratch.split_at_mut(plan.most_tiles() * in_tile);
        let (sums, patch) = rest.split_at_mut(plan.most_tiles() * out_tile);
        for (tile, to) in tiles.clone().zip(inputs.chunks_exact_mut(in_tile)) {
            self.transform_inputs(tile, to, patch);
        }
        let (plain, single) = (Epilogue::default(), Threads::single());
        for point in 0..plan.tile.points() {
            let rows = Plain { data: inputs[point * depth..].as_ptr(), stride: in_tile, depth };
            let to = sums[point * width..].as_mut_ptr();
            let output = Output { data: to, stride: out_tile, residual: std::ptr::null(), epilogue: &plain };
            // SAFETY: every tile has a row of inputs and one of sums for every point; the weights were checked.
            unsafe { product(kernels, &rows, tiles.len(), packed.point(point), output, &single) };
        }
        for (tile, from) in tiles.zip(sums.chunks_exact(out_tile)) {
            self.transform_outputs(tile, from);
        }
    }

    /// Writes a tile at all points.
    fn transform_inputs(&self, tile: usize, to: &mut [f32], patch: &mut [f32]) {
        let conv = &self.plan.conv;
        let channels = conv.in_channels;
        let lines = self.plan.tile.lines();
        let (image, y, x) = self.plan.place(tile);
        let image = &self.x[image * conv.in_height * conv.in_width * channels..];
        let (top, left) = (y.checked_sub(conv.pad_top), x.checked_sub(conv.pad_left));
        let inside = |first: Option<usize>, limit: usize| first.filter(|first| first + lines <= limit);
        let (from, line) = match (inside(top, conv.in_height), inside(left, conv.in_width)) {
            (Some(top), Some(left)) => {
                (image[(top * conv.in_width + left) * channels..].as_ptr(), conv.in_width * channels)
            }
            _ => {
                for (index, to) in patch.chunks_exact_mut(channels.max(1)).take(lines * lines).enumerate() {
                    let at = |first: usize, offset: usize, pad: usize, limit: usize| {
                        (first + offset).checked_sub(pad).filter(|&at| at < limit)
                    };
                    let line = at(y, index / lines, conv.pad_top, conv.in_height);
                    let column = at(x, index % lines, conv.pad_left, conv.in_width);
                    match line.zip(column) {
                        Some((line, column)) => {
                            let pixel = (line * conv.in_width + column) * channels;
                            to.copy_from_slice(&image[pixel..pixel + channels]);
                        }
                        None => to.fill(0.0),
                    }
                }
                (patch.as_ptr(), lines * channels)
            }
        };
        let to = to[..self.plan.tile.points() * channels].as_mut_ptr();
        let work = Inputs { from, line, channels, to };
        // SAFETY: the tile lies in the image or was assembled, and there is room for all points.
        unsafe { (self.kernels.winograd_inputs[self.plan.tile.index()])(&work) };
    }

    /// Writes the outputs of a tile from its sums at all points.
    fn transform_outputs(&self, tile: usize, from: &[f32]) {
        let conv = &self.plan.conv;
        let channels = conv.out_channels;
        let (image, y, x) = self.plan.place(tile);
        let at = ((image * conv.out_height + y) * conv.out_width + x) * channels;
        let line = conv.out_width * channels;
        let out = self.plan.tile.out();
        let (lines, columns) = (out.min(conv.out_height - y), out.min(conv.out_width - x));
        // SAFETY: the tile begins within the output, and so in the residual.
        let (to, residual) = unsafe {
            let residual = self.residual.get().cast_const();
            (self.out.get().add(at), if residual.is_null() { residual } else { residual.add(at) })
        };
        let work = Outputs {
            from: from[..self.plan.tile.points() * channels].as_ptr(),
            channels,
            bias: self.packed.bias(),
            to,
            residual,
            line,
            lines,
            columns,
            min: self.epilogue.min,
            max: self.epilogue.max,
        };
        // SAFETY: lines and columns lie within the output, and no two tiles share any; all points were counted.
        unsafe {
            (self.kernels.winograd_outputs[self.plan.tile.index()])(&work);
            if let Some(activation) = self.epilogue.activation {
                for index in 0..lines {
                    let at = to.add(index * line);
                    self.kernels.activate(activation, at, columns * channels);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::filter::{Filter, FilterOrder, StoredFilter};
    use crate::kernels::table::available;
    use crate::kernels::testing::{ConvCase, assert_close, random, same_conv};
    use crate::kernels::{PANEL_WIDTHS, PanelWidth};
    use crate::tensor::{AlignedVec, buffer::bytes_of, computed::Panels};

    fn check(conv: Conv2d) {
        let case = ConvCase::of(&conv);
        for kernels in available() {
            for (tile, tolerance) in [(WinogradTile::Two, 2e-6), (WinogradTile::Four, 4e-6)] {
                for threads in [Threads::single(), Threads::new(3)] {
                    let filter = StoredFilter::Plain(Filter::taps_first(&case.weights));
                    let bias = Some(case.bias.as_slice());
                    let packed = PackedWinograd::pack(kernels, &conv, tile, filter, bias, &threads).unwrap();
                    let plan = WinogradPlan::new(&conv, tile, threads.count()).unwrap();
                    let mut scratch = vec![f32::NAN; plan.scratch()];
                    let mut out = vec![f32::NAN; case.plain.len()];
                    let mut run = |epilogue: &Epilogue<'_>, out: &mut [f32]| {
                        let x = &case.x;
                        kernels.winograd(&plan, &packed, x, out, &mut scratch, epilogue, &threads).unwrap();
                    };
                    run(&Epilogue::default(), &mut out);
                    assert_close(&out, &case.plain, tolerance);
                    run(&case.epilogue(), &mut out);
                    assert_close(&out, &case.fused, tolerance * case.scale);
                }
            }
        }
    }

    #[test]
    fn agrees_with_the_naive_convolution() {
        check(same_conv(1, [8, 8], [16, 16], [3, 3]));
        check(same_conv(1, [7, 9], [17, 33], [3, 3]));
        check(same_conv(2, [5, 6], [33, 20], [3, 3]));
        check(same_conv(1, [1, 1], [3, 5], [3, 3]));
        check(same_conv(1, [30, 41], [24, 80], [3, 3]));
        check(same_conv(3, [2, 13], [70, 65], [3, 3]));
    }

    #[test]
    fn padding_is_what_the_geometry_says() {
        let base = same_conv(1, [9, 11], [18, 19], [3, 3]);
        check(Conv2d { pad_top: 0, pad_left: 0, out_height: 7, out_width: 9, ..base });
        check(Conv2d { pad_top: 2, pad_left: 0, out_height: 11, out_width: 9, ..base });
        check(Conv2d { pad_top: 9, pad_left: 12, out_height: 21, out_width: 30, ..base });
        check(Conv2d { in_height: 0, out_height: 4, ..base });
        check(Conv2d { batch: 0, ..base });
        check(Conv2d { in_channels: 0, ..base });
    }

    #[test]
    fn filters_in_any_order_give_the_same() {
        let conv = same_conv(1, [4, 4], [37, 75], [3, 3]);
        let weights = random(conv.weight_elements().unwrap(), 5);
        let (depth, width) = (conv.in_channels, conv.out_channels);
        let mut turned = vec![0.0; weights.len()];
        for (index, &weight) in weights.iter().enumerate() {
            let (tap, channel, column) = (index / width / depth, index / width % depth, index % width);
            turned[(column * depth + channel) * 9 + tap] = weight;
        }
        let tile = WinogradTile::Four;
        for kernels in available() {
            let pack = |filter: StoredFilter<'_>| {
                let packed =
                    PackedWinograd::pack(kernels, &conv, tile, filter, None, &Threads::new(2)).unwrap();
                (0..36).flat_map(|point| packed.point(point).panels.to_vec()).collect::<Vec<_>>()
            };
            let expected = pack(StoredFilter::Plain(Filter::taps_first(&weights)));
            let outward = Filter { bytes: bytes_of(&turned), order: FilterOrder::OutFirst };
            assert_eq!(pack(StoredFilter::Plain(outward)), expected);
            for (_, width) in PANEL_WIDTHS {
                let panels = panels_of(&conv, &weights, width);
                assert_eq!(pack(StoredFilter::Panels(&panels)), expected);
            }
        }
    }

    fn panels_of(conv: &Conv2d, weights: &[f32], width: PanelWidth) -> Panels {
        let (k, n) = (9 * conv.in_channels, conv.out_channels);
        let stored = width.panels_of(k, n, weights, false).unwrap();
        Panels { stored, k, n, lanes: width.lanes, vectors: width.vectors, transposed: false }
    }

    /// Large images of some channels are worth it; short, deep or single ones are not.
    #[test]
    fn tiles_are_chosen_by_the_work() {
        let tile =
            |size: [usize; 2], channels: [usize; 2]| WinogradTile::of(&same_conv(1, size, channels, [3, 3]));
        assert_eq!(tile([80, 80], [64, 64]), Some(WinogradTile::Four));
        assert_eq!(tile([28, 28], [128, 128]), Some(WinogradTile::Four));
        assert_eq!(tile([20, 20], [128, 128]), Some(WinogradTile::Two));
        assert_eq!(tile([1, 1], [512, 512]), None);
        assert_eq!(tile([80, 80], [3, 32]), None);
        let base = same_conv(1, [80, 80], [64, 64], [3, 3]);
        assert_eq!(WinogradTile::of(&Conv2d { stride: [2, 2], ..base }), None);
        assert_eq!(WinogradTile::of(&Conv2d { dilation: [1, 2], ..base }), None);
        assert_eq!(WinogradTile::of(&Conv2d { groups: 2, ..base }), None);
        assert_eq!(WinogradTile::of(&Conv2d { batch: usize::MAX / 2, ..base }), None);
        let endless = Conv2d { batch: 0, in_channels: usize::MAX, out_channels: usize::MAX, ..base };
        assert_eq!(WinogradTile::of(&endless), None);
    }

    #[test]
    fn lying_descriptors_are_refused() {
        let kernels = available()[0];
        let good = same_conv(1, [4, 4], [4, 6], [3, 3]);
        let tile = WinogradTile::Four;
        let single = Threads::single();
        let weights = [0.0; 9 * 4 * 6];
        let pack = |conv: &Conv2d, weights: &[f32], bias: Option<&[f32]>| {
            let filter = StoredFilter::Plain(Filter::taps_first(weights));
            PackedWinograd::pack(kernels, conv, tile, filter, bias, &single)
        };
        for bad in [
            Conv2d { groups: 2, ..good },
            Conv2d { kernel_width: 1, ..good },
            Conv2d { stride: [2, 1], ..good },
            Conv2d { in_width: usize::MAX / 2, ..good },
            Conv2d { pad_left: usize::MAX, ..good },
        ] {
            assert!(WinogradPlan::new(&bad, tile, 1).is_err());
            assert!(pack(&bad, &weights, None).is_err());
        }
        assert!(pack(&good, &weights[1..], None).is_err());
        assert!(pack(&good, &weights, Some(&[0.0; 5])).is_err());
        let whole = || panels_of(&good, &weights, PANEL_WIDTHS[0].1);
        for bad in [
            Panels { k: 9 * 4 + 1, ..whole() },
            Panels { n: 7, ..whole() },
            Panels { lanes: 0, ..whole() },
            Panels { vectors: usize::MAX, ..whole() },
            Panels { transposed: true, ..whole() },
            Panels { stored: AlignedVec::<f32>::zeroed(8).unwrap().freeze(), ..whole() },
        ] {
            let filter = StoredFilter::Panels(&bad);
            assert!(PackedWinograd::pack(kernels, &good, tile, filter, None, &single).is_err());
        }
        let packed = pack(&good, &weights, None).unwrap();
        let plan = WinogradPlan::new(&good, tile, 1).unwrap();
        let (x, mut out, mut scratch) = ([0.0; 64], [0.0; 96], vec![0.0; plan.scratch()]);
        let plain = Epilogue::default();
        let run = |plan, x: &[f32], out: &mut [f32], scratch: &mut [f32], epilogue: &Epilogue<'_>| {
            kernels.winograd(plan, &packed, x, out, scratch, epilogue, &single).is_ok()
        };
        assert!(run(&plan, &x, &mut out, &mut scratch, &plain));
        assert!(!run(&plan, &x[1..], &mut out, &mut scratch, &plain));
        assert!(!run(&plan, &x, &mut out[1..], &mut scratch, &plain));
        assert!(!run(&plan, &x, &mut out, &mut scratch[1..], &plain));
        assert!(!run(&plan, &x, &mut out, &mut scratch, &Epilogue { residual: Some(&x), ..plain }));
        let other = WinogradPlan::new(&good, WinogradTile::Two, 1).unwrap();
        let mut scratch = vec![0.0; other.scratch()];
        assert!(!run(&other, &x, &mut out, &mut scratch, &plain));
    }
}
