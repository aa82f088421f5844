//! A 1x1 convolution of an image whose channels are multiplied by a gate on the way in.
//!
//! This is how a Squeeze-and-Excitation block ends (Hu et al., 2018). By itself the product with the gate reads and writes
//! the largest value of its block once more. Here some rows at a time are multiplied into scratch memory that stays
//! in the second-level cache, and the matrix product takes them from there.

use super::binary::Binary;
use super::conv::{Conv2d, PackedConv};
use super::error::{KernelError, expect_length, product as size_of_product};
use super::gemm::{Plain, check_packed};
use super::pack::PackedView;
use super::product::{Epilogue, Output, part, product};
use super::table::Kernels;
use super::threads::{SendPtr, Threads};
use std::ops::Range;

const KERNEL: &str = "gated_conv";
/// Floats of multiplied rows at a time.
const BLOCK: usize = 48 << 10;
/// Rows of a block, at most: as many as the product takes at once.
const BLOCK_ROWS: usize = 240;
/// Floats that a gate is repeated to, so that loops over few channels are not all beginnings and ends.
const TILE: usize = 256;
/// Multiplications below which a second thread costs more than it brings.
const PARALLEL_WORK: usize = 64 * 1024;
/// Rows of a task, at least: each task reads all weights.
const TASK_ROWS: usize = 12;

/// The geometry of a gated convolution and how it is cut into tasks.
#[derive(Clone, Debug)]
pub struct GatedConvPlan {
    conv: Conv2d,
    /// Rows that are multiplied at a time.
    block: usize,
    /// Copies of the gate side by side.
    copies: usize,
    tasks: usize,
}

impl GatedConvPlan {
    /// A plan for a pool of `threads`. Fails when the convolution is not 1x1 or has no channels.
    pub fn new(conv: &Conv2d, threads: usize) -> Result<GatedConvPlan, KernelError> {
        let error = |argument, problem| Err(KernelError::Descriptor { kernel: KERNEL, argument, problem });
        conv.check()?;
        if !conv.is_pointwise() {
            return error("conv", "is not a convolution of single pixels");
        }
        if conv.in_channels == 0 {
            return error("conv", "has no channels");
        }
        let rows = conv.batch * conv.in_height * conv.in_width;
        let work = conv.in_elements()?.saturating_mul(conv.out_channels);
        let most = (work / PARALLEL_WORK).min(rows / TASK_ROWS).max(1);
        let plan = GatedConvPlan {
            conv: *conv,
            block: (BLOCK / conv.in_channels).clamp(1, BLOCK_ROWS),
            copies: (TILE / conv.in_channels).max(1),
            tasks: threads.clamp(1, most),
        };
        size_of_product(KERNEL, "scratch", &[plan.tasks, plan.scratch_of_task()])?;
        Ok(plan)
    }

    /// Floats of scratch memory that a run takes.
    pub fn scratch(&self) -> usize {
        self.tasks * self.scratch_of_task()
    }

    fn tile(&self) -> usize {
        self.copies * self.conv.in_channels
    }

    fn scratch_of_task(&self) -> usize {
        self.tile().next_multiple_of(16) + (self.block * self.conv.in_channels).next_multiple_of(16)
    }
}

impl Kernels {
    /// `out = epilogue(conv(x * gate) + bias)` with a gate `[batch, in_channels]`. Other lengths are those of the plan's
    /// geometry; `scratch` has [`GatedConvPlan::scratch`] floats.
    #[allow(clippy::too_many_arguments, reason = "a convolution with two more")]
    pub fn gated_conv(
        &self,
        plan: &GatedConvPlan,
        packed: &PackedConv,
        x: &[f32],
        gate: &[f32],
        out: &mut [f32],
        epilogue: &Epilogue<'_>,
        scratch: &mut [f32],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let conv = &plan.conv;
        expect_length(KERNEL, "x", conv.in_elements()?, x.len())?;
        expect_length(KERNEL, "gate", conv.batch * conv.in_channels, gate.len())?;
        expect_length(KERNEL, "out", conv.out_elements()?, out.len())?;
        expect_length(KERNEL, "scratch", plan.scratch(), scratch.len())?;
        if let Some(residual) = epilogue.residual {
            expect_length(KERNEL, "residual", out.len(), residual.len())?;
        }
        let Some(weights) = packed.pointwise(conv) else {
            let problem = "are packed for another geometry";
            return Err(KernelError::Descriptor { kernel: KERNEL, argument: "weights", problem });
        };
        check_packed(self, KERNEL, weights)?;
        if out.is_empty() {
            return Ok(());
        }
        let residual = epilogue.residual.map_or(std::ptr::null(), <[f32]>::as_ptr);
        let run = Run {
            kernels: self,
            plan,
            weights,
            epilogue,
            x,
            gate,
            out: SendPtr(out.as_mut_ptr()),
            residual: SendPtr(residual.cast_mut()),
        };
        let rows = conv.batch * conv.in_height * conv.in_width;
        threads.for_each_slice(scratch, plan.scratch_of_task(), |task, scratch| {
            run.rows(part(rows, plan.tasks, task), scratch);
        });
        Ok(())
    }
}

/// A checked call.
struct Run<'a> {
    kernels: &'a Kernels,
    plan: &'a GatedConvPlan,
    weights: PackedView<'a>,
    epilogue: &'a Epilogue<'a>,
    x: &'a [f32],
    gate: &'a [f32],
    out: SendPtr<f32>,
    /// Only read; null for none.
    residual: SendPtr<f32>,
}

impl Run<'_> {
    /// Some rows, counted through all images.
    fn rows(&self, rows: Range<usize>, scratch: &mut [f32]) {
        let (plan, conv) = (self.plan, &self.plan.conv);
        let (pixels, depth) = (conv.in_height * conv.in_width, conv.in_channels);
        let (gates, values) = scratch.split_at_mut(plan.tile().next_multiple_of(16));
        let gates = &mut gates[..plan.tile()];
        let mut row = rows.start;
        while row < rows.end {
            let image = row / pixels;
            let end = rows.end.min((image + 1) * pixels);
            let gate = &self.gate[image * depth..][..depth];
            gates.chunks_exact_mut(depth).for_each(|copy| copy.copy_from_slice(gate));
            let blocks = (end - row).div_ceil(plan.block);
            for block in 0..blocks {
                let block = part(end - row, blocks, block);
                self.block(row + block.start..row + block.end, gates, values);
            }
            row = end;
        }
    }

    /// Some rows of one image.
    fn block(&self, rows: Range<usize>, gates: &[f32], values: &mut [f32]) {
        let (depth, columns) = (self.plan.conv.in_channels, self.plan.conv.out_channels);
        let x = &self.x[rows.start * depth..rows.end * depth];
        let values = &mut values[..x.len()];
        for (to, from) in values.chunks_mut(gates.len()).zip(x.chunks(gates.len())) {
            // SAFETY: both pieces are as long, and no longer than the gates; scratch memory is nobody else's.
            unsafe {
                (self.kernels.binary)(
                    Binary::Mul,
                    from.as_ptr(),
                    1,
                    gates.as_ptr(),
                    1,
                    to.as_mut_ptr(),
                    to.len(),
                );
            }
        }
        let from = Plain { data: values.as_ptr(), stride: depth, depth };
        let at = rows.start * columns;
        // SAFETY: the rows lie within the output and the residual, whose lengths were checked; they belong to this task alone,
        // and the product reads scratch memory only.
        unsafe {
            let residual = self.residual.get().cast_const();
            let output = Output {
                data: self.out.get().add(at),
                stride: columns,
                residual: if residual.is_null() { residual } else { residual.add(at) },
                epilogue: self.epilogue,
            };
            product(self.kernels, &from, rows.len(), self.weights, output, &Threads::single());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::map::Unary;
    use crate::kernels::table::available;
    use crate::kernels::testing::{assert_close, random};

    #[test]
    fn agrees_with_plain_loops() {
        let cases = [
            (1, [37, 41], [32, 16]),
            (2, [7, 7], [130, 33]),
            (3, [5, 1], [7, 5]),
            (1, [1, 1], [3, 70]),
            (1, [3, 50], [1, 1]),
            (2, [17, 19], [240, 40]),
        ];
        for kernels in available() {
            for threads in [1, 2, 3].map(Threads::new) {
                for (case, &(batch, size, [from, to])) in cases.iter().enumerate() {
                    let conv = Conv2d::pointwise(batch, size, [from, to]);
                    let pixels = size[0] * size[1];
                    let (x, gate) = (random(batch * pixels * from, 1), random(batch * from, 2));
                    let (w, bias) = (random(from * to, 3), random(to, 4));
                    let residual = random(batch * pixels * to, 5);
                    let residual = (case % 2 == 0).then_some(residual.as_slice());
                    let activation = (case % 3 == 0).then_some(Unary::Silu);
                    let mut expected = Vec::new();
                    for row in 0..batch * pixels {
                        for column in 0..to {
                            let mut sum = f64::from(bias[column]);
                            for channel in 0..from {
                                let value = f64::from(x[row * from + channel]);
                                let gate = f64::from(gate[row / pixels * from + channel]);
                                sum += value * gate * f64::from(w[channel * to + column]);
                            }
                            sum += residual.map_or(0.0, |residual| f64::from(residual[row * to + column]));
                            expected.push(activation.map_or(sum, |function| function.apply_f64(sum)));
                        }
                    }
                    let packed = PackedConv::pack(kernels, &conv, &w, Some(&bias)).unwrap();
                    let plan = GatedConvPlan::new(&conv, threads.count()).unwrap();
                    let activation = activation.map(Into::into);
                    let epilogue = Epilogue { residual, activation, ..Epilogue::default() };
                    let mut out = vec![f32::NAN; expected.len()];
                    let mut scratch = vec![f32::NAN; plan.scratch()];
                    kernels
                        .gated_conv(&plan, &packed, &x, &gate, &mut out, &epilogue, &mut scratch, &threads)
                        .unwrap();
                    assert_close(&out, &expected, 1e-5);
                }
            }
        }
    }

    #[test]
    fn other_lengths_and_geometries_are_refused() {
        let kernels = available()[0];
        let good = Conv2d::pointwise(1, [4, 4], [6, 5]);
        assert!(GatedConvPlan::new(&Conv2d { stride: [2, 2], ..good }, 1).is_err());
        assert!(GatedConvPlan::new(&Conv2d::pointwise(1, [4, 4], [0, 5]), 1).is_err());
        let plan = GatedConvPlan::new(&good, 1).unwrap();
        let packed = PackedConv::pack(kernels, &good, &[0.0; 30], None).unwrap();
        let wrong =
            PackedConv::pack(kernels, &Conv2d::pointwise(1, [4, 4], [5, 6]), &[0.0; 30], None).unwrap();
        let mut scratch = vec![0.0; plan.scratch()];
        let mut run = |packed: &PackedConv, gate: usize, out: usize| {
            let (x, gate, mut out) = (vec![0.0; 96], vec![0.0; gate], vec![0.0; out]);
            let threads = Threads::single();
            kernels.gated_conv(
                &plan,
                packed,
                &x,
                &gate,
                &mut out,
                &Epilogue::default(),
                &mut scratch,
                &threads,
            )
        };
        assert!(run(&packed, 6, 80).is_ok());
        assert!(run(&packed, 5, 80).is_err());
        assert!(run(&packed, 6, 79).is_err());
        assert!(run(&wrong, 6, 80).is_err());
    }
}
