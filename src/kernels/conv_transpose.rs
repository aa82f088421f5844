//! Transposed convolution (the gradient of a convolution) in f32, NHWC.
//!
//! Along an axis, output position `p` receives from the input where `p + pad - k * dilation` is a multiple of the stride. Which
//! kernel positions `k` those are depends only on `p mod stride`, so the output falls into `stride` phases per
//! axis, each an ordinary convolution of stride 1 with a part of the kernel. No zeros are multiplied and nothing is
//! scattered: every output pixel is written once.

use super::aligned::AlignedFloats;
use super::conv::OUTSIDE;
use super::error::{KernelError, expect_length, product as size_of_product};
use super::gemm::check_packed;
use super::pack::{Columns, PackedB};
use super::product::{Epilogue, Output, Rows, product};
use super::table::Kernels;
use super::threads::{SendPtr, Threads};
use crate::tensor::buffer::bytes_of;
use std::ops::Range;

const KERNEL: &str = "conv_transpose2d";

/// The geometry of a transposed convolution: x `[batch, in_height, in_width, in_channels]`, weights
/// `[kernel_height, kernel_width, in_channels / groups, out_channels]`, out `[batch, out_height, out_width, out_channels]`.
///
/// Input pixel `(y, x)` adds to output rows `y * stride[0] + ky * dilation[0] - pad_top` and columns likewise; what falls outside
/// of the output is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub struct ConvTranspose2d {
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

impl ConvTranspose2d {
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
            (
                self.in_height,
                self.out_height,
                self.stride[0],
                self.kernel_height,
                self.dilation[0],
                self.pad_top,
            ),
            (
                self.in_width,
                self.out_width,
                self.stride[1],
                self.kernel_width,
                self.dilation[1],
                self.pad_left,
            ),
        ];
        for (input, out, stride, kernel, dilation, pad) in spans {
            let reach = input.checked_mul(stride).zip(kernel.checked_mul(dilation));
            let reach = reach.and_then(|(a, b)| a.checked_add(b)?.checked_add(pad)?.checked_add(out));
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

    fn axis(&self, axis: usize) -> Along {
        Along {
            stride: self.stride[axis],
            dilation: self.dilation[axis],
            pad: [self.pad_top, self.pad_left][axis],
            kernel: [self.kernel_height, self.kernel_width][axis],
            input: [self.in_height, self.in_width][axis],
            out: [self.out_height, self.out_width][axis],
        }
    }

    fn weight_shape(&self) -> [usize; 11] {
        [
            self.kernel_height,
            self.kernel_width,
            self.in_channels,
            self.out_channels,
            self.groups,
            self.stride[0],
            self.stride[1],
            self.dilation[0],
            self.dilation[1],
            self.pad_top,
            self.pad_left,
        ]
    }
}

/// One axis of the geometry.
#[derive(Clone, Copy)]
struct Along {
    stride: usize,
    dilation: usize,
    pad: usize,
    kernel: usize,
    input: usize,
    out: usize,
}

impl Along {
    /// The kernel positions that output positions `phase`, `phase + stride`, .. receive through.
    fn taps(self, phase: usize) -> Vec<usize> {
        let start = (phase + self.pad) % self.stride;
        (0..self.kernel).filter(|tap| tap * self.dilation % self.stride == start).collect()
    }

    /// For every output position of the phase and each of its taps: the input position times `scale`, or [`OUTSIDE`].
    fn offsets(self, phase: usize, taps: &[usize], scale: usize) -> Vec<usize> {
        let mut offsets = Vec::new();
        for position in (phase..self.out).step_by(self.stride) {
            for tap in taps {
                let from = (position + self.pad).checked_sub(tap * self.dilation).map(|at| at / self.stride);
                let inside = from.filter(|&from| from < self.input);
                offsets.push(inside.map_or(OUTSIDE, |from| from * scale));
            }
        }
        offsets
    }
}

/// Weights packed for one instruction set, with the bias; good for every batch and image size.
#[derive(Clone, Debug)]
pub struct PackedConvTranspose {
    shape: [usize; 11],
    /// For phase `(y, x)` and group `g`: at `(y * stride[1] + x) * groups + g`.
    weights: Vec<PackedB>,
}

impl PackedConvTranspose {
    /// Packs `weights` (see [`ConvTranspose2d`]) and a bias of `out_channels`. Of `conv`, sizes of batch and images do not
    /// matter.
    pub fn pack(
        kernels: &Kernels,
        conv: &ConvTranspose2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<PackedConvTranspose, KernelError> {
        conv.check()?;
        expect_length(KERNEL, "weights", conv.weight_elements()?, weights.len())?;
        if let Some(bias) = bias {
            expect_length(KERNEL, "bias", conv.out_channels, bias.len())?;
        }
        let depth = conv.in_channels / conv.groups;
        let n = conv.out_channels / conv.groups;
        let tap_size = depth * conv.out_channels;
        // More phases than kernel positions would all be empty but for a few; a limit keeps hostile strides out.
        if conv.stride[0].saturating_mul(conv.stride[1]) > 1 << 16 {
            return Err(KernelError::Descriptor {
                kernel: KERNEL,
                argument: "stride",
                problem: "is too large",
            });
        }
        let mut packed = Vec::new();
        for y in 0..conv.stride[0] {
            let rows = conv.axis(0).taps(y);
            for x in 0..conv.stride[1] {
                let columns = conv.axis(1).taps(x);
                let mut part = Vec::with_capacity(rows.len() * columns.len() * tap_size);
                for ky in &rows {
                    for kx in &columns {
                        part.extend_from_slice(
                            &weights[(ky * conv.kernel_width + kx) * tap_size..][..tap_size],
                        );
                    }
                }
                for group in 0..conv.groups {
                    let first = group * n;
                    let k = rows.len() * columns.len() * depth;
                    let columns = Columns::plain(k, n, first, conv.out_channels, 1);
                    let bias = bias.map(|bias| &bias[first..first + n]);
                    let part = bytes_of(&part);
                    packed.push(PackedB::pack_columns(kernels, part, columns, bias, &Threads::single())?);
                }
            }
        }
        Ok(PackedConvTranspose { shape: conv.weight_shape(), weights: packed })
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.weights.iter().map(PackedB::bytes).sum()
    }
}

/// A transposed convolution of one image size.
#[derive(Clone, Debug)]
pub struct ConvTransposePlan {
    conv: ConvTranspose2d,
    in_elements: usize,
    out_elements: usize,
    /// Per phase of the rows: taps, and the offsets for every output row of the phase.
    rows: Vec<(usize, Vec<usize>)>,
    /// The same for columns.
    columns: Vec<(usize, Vec<usize>)>,
    zeros: AlignedFloats,
}

impl ConvTransposePlan {
    /// Fails as [`ConvTranspose2d::check`] does, and when `packed` was made for another geometry.
    pub fn new(
        conv: &ConvTranspose2d,
        packed: &PackedConvTranspose,
    ) -> Result<ConvTransposePlan, KernelError> {
        conv.check()?;
        expect_geometry(conv, packed)?;
        let phases = |axis: usize, scale: usize| {
            let along = conv.axis(axis);
            let of = |phase| {
                let taps = along.taps(phase);
                (taps.len(), along.offsets(phase, &taps, scale))
            };
            (0..along.stride).map(of).collect::<Vec<_>>()
        };
        let out_elements = conv.out_elements()?;
        let (rows, columns) = if out_elements == 0 {
            Default::default()
        } else {
            (phases(0, conv.in_width * conv.in_channels), phases(1, conv.in_channels))
        };
        Ok(ConvTransposePlan {
            conv: *conv,
            in_elements: conv.in_elements()?,
            out_elements,
            rows,
            columns,
            zeros: AlignedFloats::zeroed(conv.in_channels / conv.groups),
        })
    }

    /// The geometry.
    pub fn conv(&self) -> &ConvTranspose2d {
        &self.conv
    }
}

fn expect_geometry(conv: &ConvTranspose2d, packed: &PackedConvTranspose) -> Result<(), KernelError> {
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
    /// `out = epilogue(transposed conv(x) + bias)`; a residual is shaped like `out`. Lengths are those of the plan's geometry.
    pub fn conv_transpose2d(
        &self,
        plan: &ConvTransposePlan,
        packed: &PackedConvTranspose,
        x: &[f32],
        out: &mut [f32],
        epilogue: &Epilogue<'_>,
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let conv = &plan.conv;
        expect_geometry(conv, packed)?;
        expect_length(KERNEL, "x", plan.in_elements, x.len())?;
        expect_length(KERNEL, "out", plan.out_elements, out.len())?;
        if let Some(residual) = epilogue.residual {
            expect_length(KERNEL, "residual", out.len(), residual.len())?;
        }
        for weights in &packed.weights {
            check_packed(self, KERNEL, weights.view())?;
        }
        if out.is_empty() {
            return Ok(());
        }
        let data = SendPtr(out.as_mut_ptr());
        let image = conv.in_height * conv.in_width * conv.in_channels;
        let n = conv.out_channels / conv.groups;
        // A task is an output line.
        threads.for_each(conv.batch * conv.out_height, |line| {
            let (index, y) = (line / conv.out_height, line % conv.out_height);
            let (row_taps, rows) = &plan.rows[y % conv.stride[0]];
            let rows = &rows[y / conv.stride[0] * row_taps..][..*row_taps];
            for phase in 0..conv.stride[1].min(conv.out_width) {
                let (column_taps, columns) = &plan.columns[phase];
                let pixels = (conv.out_width - phase).div_ceil(conv.stride[1]);
                for group in 0..conv.groups {
                    let weights =
                        &packed.weights[(y % conv.stride[0] * conv.stride[1] + phase) * conv.groups + group];
                    let at = (line * conv.out_width + phase) * conv.out_channels + group * n;
                    let output = Output {
                        data: data.get().wrapping_add(at),
                        stride: conv.stride[1] * conv.out_channels,
                        residual: epilogue
                            .residual
                            .map_or(std::ptr::null(), |residual| residual.as_ptr().wrapping_add(at)),
                        epilogue,
                    };
                    let line = Line {
                        x: &x[index * image..][..image],
                        channel: group * (conv.in_channels / conv.groups),
                        rows,
                        columns,
                        column_taps: *column_taps,
                        zeros: plan.zeros.as_slice(),
                    };
                    // SAFETY: the pixels of this phase lie in the line, which belongs to this task; the offsets lie in
                    // the image.
                    unsafe { product(self, &line, pixels, weights.view(), output, &Threads::single()) };
                }
            }
        });
        Ok(())
    }
}

/// The pixels of one phase of one output line.
struct Line<'a> {
    /// One image.
    x: &'a [f32],
    /// The group's first channel.
    channel: usize,
    /// Offsets of the input rows of this line's taps.
    rows: &'a [usize],
    /// For every pixel, offsets of the input columns of its taps.
    columns: &'a [usize],
    column_taps: usize,
    zeros: &'a [f32],
}

impl Rows<f32> for Line<'_> {
    fn taps(&self) -> usize {
        self.rows.len() * self.column_taps
    }

    fn depth(&self) -> usize {
        self.zeros.len()
    }

    fn point(
        &self,
        rows: Range<usize>,
        taps: Range<usize>,
        channel: usize,
        pointers: &mut [*const f32],
        _scratch: &mut [f32],
    ) {
        let count = rows.len();
        for (slot, tap) in taps.enumerate() {
            let line = self.rows[tap / self.column_taps];
            for (index, row) in rows.clone().enumerate() {
                let column = self.columns[row * self.column_taps + tap % self.column_taps];
                pointers[slot * count + index] = if line == OUTSIDE || column == OUTSIDE {
                    self.zeros[channel..].as_ptr()
                } else {
                    self.x[line + column + self.channel + channel..].as_ptr()
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::table::available;
    use crate::kernels::testing::{assert_close, random};

    /// By definition: every input pixel is scattered.
    fn naive(conv: &ConvTranspose2d, x: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f64> {
        let (depth, n) = (conv.in_channels / conv.groups, conv.out_channels / conv.groups);
        let mut out = vec![0.0; conv.out_elements().unwrap()];
        for (index, sum) in out.iter_mut().enumerate() {
            *sum = f64::from(bias[index % conv.out_channels]);
        }
        for b in 0..conv.batch {
            for iy in 0..conv.in_height {
                for ix in 0..conv.in_width {
                    for ky in 0..conv.kernel_height {
                        for kx in 0..conv.kernel_width {
                            let y = iy * conv.stride[0] + ky * conv.dilation[0];
                            let xx = ix * conv.stride[1] + kx * conv.dilation[1];
                            if y < conv.pad_top
                                || xx < conv.pad_left
                                || y - conv.pad_top >= conv.out_height
                                || xx - conv.pad_left >= conv.out_width
                            {
                                continue;
                            }
                            let pixel = (b * conv.out_height + y - conv.pad_top) * conv.out_width + xx
                                - conv.pad_left;
                            let from = (b * conv.in_height + iy) * conv.in_width + ix;
                            for o in 0..conv.out_channels {
                                for c in 0..depth {
                                    let value = x[from * conv.in_channels + o / n * depth + c];
                                    let tap = ky * conv.kernel_width + kx;
                                    let weight = weights[(tap * depth + c) * conv.out_channels + o];
                                    out[pixel * conv.out_channels + o] +=
                                        f64::from(value) * f64::from(weight);
                                }
                            }
                        }
                    }
                }
            }
        }
        out
    }

    fn base() -> ConvTranspose2d {
        ConvTranspose2d {
            batch: 2,
            in_height: 4,
            in_width: 5,
            in_channels: 6,
            out_height: 8,
            out_width: 10,
            out_channels: 18,
            kernel_height: 2,
            kernel_width: 2,
            stride: [2, 2],
            dilation: [1, 1],
            pad_top: 0,
            pad_left: 0,
            groups: 1,
        }
    }

    #[test]
    fn agrees_with_scattering() {
        let base = base();
        let padded = ConvTranspose2d { kernel_height: 4, kernel_width: 4, pad_top: 1, pad_left: 1, ..base };
        for conv in [
            base,
            padded,
            ConvTranspose2d { kernel_height: 3, kernel_width: 3, pad_top: 1, out_width: 11, ..base },
            ConvTranspose2d { stride: [1, 1], kernel_width: 3, out_height: 5, out_width: 7, ..base },
            ConvTranspose2d { stride: [3, 2], out_height: 12, ..base },
            ConvTranspose2d { dilation: [2, 3], kernel_height: 3, out_height: 11, out_width: 12, ..base },
            ConvTranspose2d { groups: 2, ..padded },
            ConvTranspose2d { groups: 6, ..padded },
            ConvTranspose2d { in_height: 0, ..base },
            ConvTranspose2d { batch: 0, ..base },
            ConvTranspose2d { in_channels: 300, ..padded },
        ] {
            let x = random(conv.in_elements().unwrap(), 1);
            let weights = random(conv.weight_elements().unwrap(), 2);
            let bias = random(conv.out_channels, 3);
            let residual = random(conv.out_elements().unwrap(), 4);
            let mut expected = naive(&conv, &x, &weights, &bias);
            expected.iter_mut().zip(&residual).for_each(|(sum, &r)| *sum = (*sum + f64::from(r)).max(-0.5));
            for kernels in available() {
                let packed = PackedConvTranspose::pack(kernels, &conv, &weights, Some(&bias)).unwrap();
                let plan = ConvTransposePlan::new(&conv, &packed).unwrap();
                let mut out = vec![f32::NAN; expected.len()];
                let epilogue = Epilogue { min: -0.5, residual: Some(&residual), ..Epilogue::default() };
                kernels.conv_transpose2d(&plan, &packed, &x, &mut out, &epilogue, &Threads::new(2)).unwrap();
                assert_close(&out, &expected, 1e-5);
            }
        }
    }

    #[test]
    fn lying_descriptors_are_refused() {
        let kernels = available()[0];
        let good = base();
        let weights = vec![0.0; good.weight_elements().unwrap()];
        for bad in [
            ConvTranspose2d { groups: 4, ..good },
            ConvTranspose2d { stride: [0, 1], ..good },
            ConvTranspose2d { stride: [1 << 20, 1 << 20], ..good },
            ConvTranspose2d { kernel_width: 0, ..good },
            ConvTranspose2d { pad_top: usize::MAX, ..good },
            ConvTranspose2d { in_channels: 12, ..good },
        ] {
            assert!(PackedConvTranspose::pack(kernels, &bad, &weights, None).is_err(), "{bad:?}");
        }
        let packed = PackedConvTranspose::pack(kernels, &good, &weights, None).unwrap();
        assert!(ConvTransposePlan::new(&ConvTranspose2d { pad_top: 1, ..good }, &packed).is_err());
        let plan = ConvTransposePlan::new(&good, &packed).unwrap();
        let x = vec![0.0; good.in_elements().unwrap()];
        let mut out = vec![0.0; good.out_elements().unwrap()];
        let (plain, single) = (Epilogue::default(), Threads::single());
        assert!(kernels.conv_transpose2d(&plan, &packed, &x[1..], &mut out, &plain, &single).is_err());
        assert!(kernels.conv_transpose2d(&plan, &packed, &x, &mut out[1..], &plain, &single).is_err());
    }
}
