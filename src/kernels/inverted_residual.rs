//! A depthwise convolution together with the 1x1 convolutions before and after it, strip by strip.
//!
//! The expansion of an inverted residual block (MobileNetV2 and its descendants) is the largest value of the network
//! and is read once, right after it was written. Here it is made for as many lines as stay in the second-level
//! cache, convolved, projected, and overwritten by the next strip. Lines that two strips share are moved, not made again.
//! Images with too few lines for the threads go through one convolution after the other, each cut over all threads.

use super::conv::{Conv2d, PackedConv};
use super::depthwise::{self, PackedDepthwise};
use super::error::{KernelError, expect_length, product as size_of_product};
use super::gemm::{Plain, check_packed};
use super::pack::PackedView;
use super::product::{Epilogue, Output, part, product};
use super::table::Kernels;
use super::threads::{SendPtr, Threads};
use std::ops::Range;

const KERNEL: &str = "inverted_residual";
/// Bytes of the expansion that a strip may take.
const STRIP: usize = 256 << 10;
/// Lines of output below which a task makes too many of its input lines for itself alone.
const LINES_OF_TASK: usize = 6;

/// The geometry of a block and how it is cut into strips and tasks.
#[derive(Clone, Debug)]
pub struct InvertedResidualPlan {
    expand: Option<Conv2d>,
    depthwise: Conv2d,
    project: Option<Conv2d>,
    /// Lines of the depthwise convolution's output in a strip.
    strip: usize,
    /// Lines of its input that a strip reads, at most.
    lines: usize,
    /// Strips that are made side by side; none where each convolution is made whole.
    tasks: usize,
}

/// The packed weights of one of the block's convolutions, and what is done to its sums.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    /// Weights and bias.
    pub weights: &'a PackedConv,
    /// A residual is for the last convolution only.
    pub epilogue: Epilogue<'a>,
}

impl InvertedResidualPlan {
    /// A plan for a pool of `threads`. Fails when the convolutions do not follow one another, when the outer ones are not 1x1
    /// or when the middle one is not depthwise with one output channel per input channel.
    pub fn new(
        expand: Option<&Conv2d>,
        depthwise: &Conv2d,
        project: Option<&Conv2d>,
        threads: usize,
    ) -> Result<InvertedResidualPlan, KernelError> {
        let error = |argument, problem| Err(KernelError::Descriptor { kernel: KERNEL, argument, problem });
        depthwise.check()?;
        if !depthwise.is_depthwise() || depthwise.in_channels != depthwise.out_channels {
            return error("depthwise", "does not keep its channels apart");
        }
        let image = |conv: &Conv2d| [conv.batch, conv.in_height, conv.in_width, conv.in_channels];
        let made = |conv: &Conv2d| [conv.batch, conv.out_height, conv.out_width, conv.out_channels];
        if let Some(expand) = expand {
            expand.check()?;
            if !expand.is_pointwise() || made(expand) != image(depthwise) {
                return error("expand", "does not make what the depthwise convolution reads");
            }
        }
        if let Some(project) = project {
            project.check()?;
            if !project.is_pointwise() || image(project) != made(depthwise) {
                return error("project", "does not read what the depthwise convolution makes");
            }
        }
        let reach = (depthwise.kernel_height - 1) * depthwise.dilation[0] + 1;
        let line =
            size_of_product(KERNEL, "x", &[depthwise.in_width, depthwise.in_channels, size_of::<f32>()])?;
        let room = (STRIP / line.max(1)).saturating_sub(reach) / depthwise.stride[0];
        let strip = (room + 1).min(depthwise.out_height).max(1);
        let lines = ((strip - 1) * depthwise.stride[0] + reach).min(depthwise.in_height);
        let most = (depthwise.batch * depthwise.out_height).div_ceil(LINES_OF_TASK).max(1);
        // Strips that keep no more than half of the threads busy are worse than none.
        let tasks = if most * 2 > threads { threads.clamp(1, most) } else { 0 };
        let plan = InvertedResidualPlan {
            expand: expand.copied(),
            depthwise: *depthwise,
            project: project.copied(),
            strip,
            lines,
            tasks,
        };
        for length in [plan.depthwise.in_elements()?, plan.depthwise.out_elements()?, plan.scratch_of_task()]
        {
            size_of_product(KERNEL, "scratch", &[plan.tasks.max(2), length.next_multiple_of(16)])?;
        }
        Ok(plan)
    }

    /// Floats of scratch memory that a run takes.
    pub fn scratch(&self) -> usize {
        match self.tasks {
            0 => self.whole().iter().sum(),
            tasks => tasks * self.scratch_of_task(),
        }
    }

    /// Floats of all that the depthwise convolution reads and makes, where it is neither the block's input nor its output.
    fn whole(&self) -> [usize; 2] {
        let images = |here: bool, line: usize, height: usize| {
            if here { (self.depthwise.batch * height * line).next_multiple_of(16) } else { 0 }
        };
        [
            images(self.expand.is_some(), self.in_line(), self.depthwise.in_height),
            images(self.project.is_some(), self.out_line(), self.depthwise.out_height),
        ]
    }

    /// Floats of a line of the depthwise convolution's input.
    fn in_line(&self) -> usize {
        self.depthwise.in_width * self.depthwise.in_channels
    }

    /// Floats of a line of its output.
    fn out_line(&self) -> usize {
        self.depthwise.out_width * self.depthwise.out_channels
    }

    /// Floats of the strip that is convolved.
    fn expanded(&self) -> usize {
        if self.expand.is_some() { (self.lines * self.in_line()).next_multiple_of(16) } else { 0 }
    }

    fn scratch_of_task(&self) -> usize {
        let convolved = if self.project.is_some() { self.strip * self.out_line() } else { 0 };
        self.expanded() + convolved.next_multiple_of(16)
    }

    fn first(&self) -> &Conv2d {
        self.expand.as_ref().unwrap_or(&self.depthwise)
    }

    fn last(&self) -> &Conv2d {
        self.project.as_ref().unwrap_or(&self.depthwise)
    }
}

impl Kernels {
    /// `out = project(depthwise(expand(x)))` with each stage's bias and epilogue. The stages must be those of the plan, the
    /// lengths those of its geometry; `scratch` has [`InvertedResidualPlan::scratch`] floats.
    #[allow(clippy::too_many_arguments, reason = "three convolutions in one")]
    pub fn inverted_residual(
        &self,
        plan: &InvertedResidualPlan,
        expand: Option<Stage<'_>>,
        depthwise: Stage<'_>,
        project: Option<Stage<'_>>,
        x: &[f32],
        out: &mut [f32],
        scratch: &mut [f32],
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let error = |argument, problem| Err(KernelError::Descriptor { kernel: KERNEL, argument, problem });
        expect_length(KERNEL, "x", plan.first().in_elements()?, x.len())?;
        expect_length(KERNEL, "out", plan.last().out_elements()?, out.len())?;
        expect_length(KERNEL, "scratch", plan.scratch(), scratch.len())?;
        let inner = [expand.as_ref(), project.as_ref().map(|_| &depthwise)];
        if inner.into_iter().flatten().any(|stage| stage.epilogue.residual.is_some()) {
            return error("residual", "is added before the last convolution");
        }
        let residual = project.as_ref().unwrap_or(&depthwise).epilogue.residual;
        if let Some(residual) = residual {
            expect_length(KERNEL, "residual", out.len(), residual.len())?;
        }
        let expand_weights = self.pointwise(plan.expand.as_ref(), expand, "expand")?;
        let project_weights = self.pointwise(plan.project.as_ref(), project, "project")?;
        let Some(depthwise_weights) = depthwise.weights.depthwise(&plan.depthwise) else {
            return error("depthwise", "is packed for another geometry");
        };
        if out.is_empty() {
            return Ok(());
        }
        let [expand_epilogue, project_epilogue] =
            [expand, project].map(|stage| stage.map_or_else(Epilogue::default, |stage| stage.epilogue));
        if plan.tasks == 0 {
            let expand = expand_weights.map(|weights| (weights, expand_epilogue));
            let project = project_weights.map(|weights| (weights, project_epilogue));
            let depthwise = (depthwise_weights, depthwise.epilogue);
            self.whole_stages(plan, expand, depthwise, project, x, out, scratch, threads);
            return Ok(());
        }
        let run = Run {
            kernels: self,
            plan,
            expand: expand_weights.map(|weights| (weights, &expand_epilogue)),
            depthwise: (depthwise_weights, &depthwise.epilogue),
            project: project_weights.map(|weights| (weights, &project_epilogue)),
            x: SendPtr(x.as_ptr().cast_mut()),
            out: SendPtr(out.as_mut_ptr()),
            residual: SendPtr(residual.map_or(std::ptr::null(), <[f32]>::as_ptr).cast_mut()),
        };
        let lines = plan.depthwise.batch * plan.depthwise.out_height;
        threads.for_each_slice(scratch, plan.scratch_of_task().max(1), |task, scratch| {
            run.lines(part(lines, plan.tasks, task), scratch);
        });
        if plan.scratch() == 0 {
            run.lines(0..lines, &mut []);
        }
        Ok(())
    }

    /// A checked call with one convolution after the other.
    #[allow(clippy::too_many_arguments, reason = "three convolutions in one")]
    fn whole_stages(
        &self,
        plan: &InvertedResidualPlan,
        expand: Option<(PackedView<'_>, Epilogue<'_>)>,
        depthwise: (&PackedDepthwise, Epilogue<'_>),
        project: Option<(PackedView<'_>, Epilogue<'_>)>,
        x: &[f32],
        out: &mut [f32],
        scratch: &mut [f32],
        threads: &Threads,
    ) {
        let conv = &plan.depthwise;
        let pointwise = |x: &[f32], out: &mut [f32], weights: PackedView<'_>, epilogue: &Epilogue<'_>| {
            let rows = Plain { data: x.as_ptr(), stride: weights.k, depth: weights.k };
            let residual = epilogue.residual.map_or(std::ptr::null(), <[f32]>::as_ptr);
            let output = Output { data: out.as_mut_ptr(), stride: weights.n, residual, epilogue };
            // SAFETY: x and out (and a residual) have the lengths of the plan's geometry, which was checked; out is borrowed
            // uniquely.
            unsafe { product(self, &rows, out.len() / weights.n.max(1), weights, output, threads) };
        };
        let (expanded, convolved) = scratch.split_at_mut(plan.whole()[0]);
        let x = match expand {
            Some((weights, epilogue)) => {
                let expanded = &mut expanded[..conv.batch * conv.in_height * plan.in_line()];
                pointwise(x, expanded, weights, &epilogue);
                expanded
            }
            None => x,
        };
        let (weights, epilogue) = depthwise;
        let Some((projection, last)) = project else {
            return depthwise::run(self, conv, weights, x, out, &epilogue, threads);
        };
        let convolved = &mut convolved[..conv.batch * conv.out_height * plan.out_line()];
        depthwise::run(self, conv, weights, x, convolved, &epilogue, threads);
        pointwise(convolved, out, projection, &last);
    }

    /// The weights of a 1x1 convolution, which must be there if the plan has it, and only then.
    fn pointwise<'a>(
        &self,
        conv: Option<&Conv2d>,
        stage: Option<Stage<'a>>,
        argument: &'static str,
    ) -> Result<Option<PackedView<'a>>, KernelError> {
        let problem = match (conv, stage) {
            (None, None) => return Ok(None),
            (Some(conv), Some(stage)) => match stage.weights.pointwise(conv) {
                Some(weights) => return check_packed(self, KERNEL, weights).map(|()| Some(weights)),
                None => "is packed for another geometry",
            },
            _ => "is not that of the plan",
        };
        Err(KernelError::Descriptor { kernel: KERNEL, argument, problem })
    }
}

/// A checked call.
struct Run<'a> {
    kernels: &'a Kernels,
    plan: &'a InvertedResidualPlan,
    expand: Option<(PackedView<'a>, &'a Epilogue<'a>)>,
    depthwise: (&'a PackedDepthwise, &'a Epilogue<'a>),
    project: Option<(PackedView<'a>, &'a Epilogue<'a>)>,
    /// Only read.
    x: SendPtr<f32>,
    out: SendPtr<f32>,
    /// Only read; null for none.
    residual: SendPtr<f32>,
}

impl Run<'_> {
    /// Some lines of output, counted through all images.
    fn lines(&self, lines: Range<usize>, scratch: &mut [f32]) {
        let height = self.plan.depthwise.out_height;
        let mut line = lines.start;
        while line < lines.end {
            let image = line / height;
            let end = lines.end.min((image + 1) * height);
            self.image(image, line - image * height..end - image * height, scratch);
            line = end;
        }
    }

    /// Some lines of one image.
    fn image(&self, image: usize, lines: Range<usize>, scratch: &mut [f32]) {
        let (plan, conv) = (self.plan, &self.plan.depthwise);
        let (in_line, out_line) = (plan.in_line(), plan.out_line());
        let (expanded, convolved) = scratch.split_at_mut(plan.expanded());
        let depth = plan.first().in_channels * conv.in_width;
        // SAFETY: the image lies within x, whose length was checked.
        let x = unsafe { self.x.get().add(image * conv.in_height * depth) };
        let columns = plan.last().out_channels;
        // The input lines that stand at the front of `expanded`.
        let mut there = 0..0;
        for start in lines.clone().step_by(plan.strip) {
            let end = (start + plan.strip).min(lines.end);
            let reach = (conv.kernel_height - 1) * conv.dilation[0] + 1;
            let last = ((end - 1) * conv.stride[0] + reach).saturating_sub(conv.pad_top).min(conv.in_height);
            let first = (start * conv.stride[0]).saturating_sub(conv.pad_top).min(last);
            let mut base = x.cast_const();
            if let Some((weights, epilogue)) = self.expand {
                let kept = if there.contains(&first) { first..there.end.min(last) } else { first..first };
                if !kept.is_empty() {
                    let offset = (first - there.start) * in_line;
                    expanded.copy_within(offset..offset + kept.len() * in_line, 0);
                }
                let rows = (last - kept.end) * conv.in_width;
                let to = &mut expanded[kept.len() * in_line..][..rows * conv.in_channels];
                // SAFETY: the lines lie within the image; `to` has room for what they make, and is borrowed uniquely.
                unsafe {
                    let from = x.add(kept.end * depth);
                    let from = Plain { data: from.cast_const(), stride: weights.k, depth: weights.k };
                    let output = Output {
                        data: to.as_mut_ptr(),
                        stride: conv.in_channels,
                        residual: std::ptr::null(),
                        epilogue,
                    };
                    product(self.kernels, &from, rows, weights, output, &Threads::single());
                }
                there = first..last;
                // Where line 0 would be: only lines that are there get read.
                base = expanded.as_ptr().wrapping_sub(first * in_line);
            }
            let pixels = (image * conv.out_height + start) * conv.out_width;
            // SAFETY: the lines lie within the output and the residual, which are as long.
            let (out, residual) = unsafe {
                let at = pixels * columns;
                let residual = self.residual.get().cast_const();
                (self.out.get().add(at), if residual.is_null() { residual } else { residual.add(at) })
            };
            let (weights, epilogue) = self.depthwise;
            let Some((project, project_epilogue)) = self.project else {
                // SAFETY: as above; all input lines under these output lines are there.
                unsafe {
                    depthwise::lines(self.kernels, conv, weights, base, start..end, out, residual, epilogue);
                }
                continue;
            };
            let convolved = &mut convolved[..(end - start) * out_line];
            let to = convolved.as_mut_ptr();
            // SAFETY: as above; `convolved` has room for the lines, and is what the product reads.
            unsafe {
                let none = std::ptr::null();
                depthwise::lines(self.kernels, conv, weights, base, start..end, to, none, epilogue);
                let rows = Plain { data: to.cast_const(), stride: project.k, depth: project.k };
                let output = Output { data: out, stride: columns, residual, epilogue: project_epilogue };
                let count = (end - start) * conv.out_width;
                product(self.kernels, &rows, count, project, output, &Threads::single());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::conv::ConvPlan;
    use crate::kernels::map::Unary;
    use crate::kernels::table::available;
    use crate::kernels::testing::random;

    fn depthwise(
        batch: usize,
        size: [usize; 2],
        channels: usize,
        kernel: usize,
        stride: usize,
        pad: usize,
    ) -> Conv2d {
        let out = |size: usize| (size + 2 * pad - kernel) / stride + 1;
        Conv2d {
            out_height: out(size[0]),
            out_width: out(size[1]),
            kernel_height: kernel,
            kernel_width: kernel,
            stride: [stride, stride],
            pad_top: pad,
            pad_left: pad,
            groups: channels,
            ..Conv2d::pointwise(batch, size, [channels, channels])
        }
    }

    /// Weights and bias of a convolution.
    fn weights(kernels: &Kernels, conv: &Conv2d, seed: u64) -> PackedConv {
        let values = random(conv.weight_elements().unwrap(), seed);
        PackedConv::pack(kernels, conv, &values, Some(&random(conv.out_channels, seed + 1))).unwrap()
    }

    fn alone(kernels: &Kernels, conv: &Conv2d, stage: Stage<'_>, x: &[f32]) -> Vec<f32> {
        let plan = ConvPlan::new(conv, stage.weights).unwrap();
        let mut out = vec![0.0; conv.out_elements().unwrap()];
        kernels.conv2d(&plan, stage.weights, x, &mut out, &stage.epilogue, &Threads::single()).unwrap();
        out
    }

    /// Against the convolutions one by one, which are compared with plain loops elsewhere.
    #[test]
    fn strips_make_what_whole_images_make() {
        // Height and width, channels in, expanded and out, kernel, stride, padding, images.
        let cases = [
            ([40, 37], [8, 96, 16], 3, 1, 1, 1),
            ([41, 40], [5, 130, 7], 3, 2, 1, 2),
            ([37, 64], [16, 64, 20], 5, 1, 2, 1),
            ([64, 50], [3, 48, 9], 5, 2, 2, 2),
            ([7, 7], [6, 24, 6], 3, 1, 1, 3),
            ([9, 5], [4, 10, 3], 3, 1, 0, 1),
            ([60, 60], [4, 33, 3], 3, 3, 1, 1),
            ([1, 1], [3, 17, 2], 3, 1, 1, 1),
            ([5, 61], [7, 40, 9], 5, 2, 2, 2),
            ([3, 80], [4, 34, 6], 3, 1, 1, 1),
        ];
        for kernels in available() {
            for threads in [1, 2, 3].map(Threads::new) {
                for (index, &(size, [from, wide, to], kernel, stride, pad, batch)) in cases.iter().enumerate()
                {
                    let middle = depthwise(batch, size, wide, kernel, stride, pad);
                    let first = Conv2d::pointwise(batch, size, [from, wide]);
                    let last = Conv2d::pointwise(batch, [middle.out_height, middle.out_width], [wide, to]);
                    let packed = [(&first, 1), (&middle, 3), (&last, 5)]
                        .map(|(conv, seed)| weights(kernels, conv, seed));
                    let activation = [None, Some(Unary::Silu), Some(Unary::HardSwish)][index % 3];
                    let inner = Epilogue {
                        min: -0.5,
                        max: 6.0,
                        residual: None,
                        activation: activation.map(Into::into),
                    };
                    for (expanded, projected) in [(true, true), (true, false), (false, true), (false, false)]
                    {
                        let x = random(batch * size[0] * size[1] * if expanded { from } else { wide }, 7);
                        let end = if projected { &last } else { &middle };
                        let residual = random(end.out_elements().unwrap(), 8);
                        let residual = (index % 2 == 0).then_some(residual.as_slice());
                        let expand = expanded.then_some(Stage { weights: &packed[0], epilogue: inner });
                        let outer = Epilogue { residual, ..Epilogue::default() };
                        let depthwise = Stage {
                            weights: &packed[1],
                            epilogue: if projected { inner } else { Epilogue { residual, ..inner } },
                        };
                        let project = projected.then_some(Stage { weights: &packed[2], epilogue: outer });
                        let made = expand.map(|stage| alone(kernels, &first, stage, &x));
                        let made = alone(kernels, &middle, depthwise, made.as_deref().unwrap_or(&x));
                        let expected =
                            project.map(|stage| alone(kernels, &last, stage, &made)).unwrap_or(made);
                        let plan = InvertedResidualPlan::new(
                            expanded.then_some(&first),
                            &middle,
                            projected.then_some(&last),
                            threads.count(),
                        )
                        .unwrap();
                        let mut out = vec![f32::NAN; expected.len()];
                        let mut scratch = vec![f32::NAN; plan.scratch()];
                        kernels
                            .inverted_residual(
                                &plan,
                                expand,
                                depthwise,
                                project,
                                &x,
                                &mut out,
                                &mut scratch,
                                &threads,
                            )
                            .unwrap();
                        for (at, (a, b)) in out.iter().zip(&expected).enumerate() {
                            assert!(
                                (a - b).abs() <= 1e-4 * (1.0 + b.abs()),
                                "{kernels:?} case {index} at {at}: {a} {b}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_does_not_follow_is_refused() {
        let kernels = available()[0];
        let middle = depthwise(1, [8, 8], 12, 3, 1, 1);
        let first = Conv2d::pointwise(1, [8, 8], [4, 12]);
        let last = Conv2d::pointwise(1, [8, 8], [12, 5]);
        let plan = |first: &Conv2d, middle: &Conv2d, last: &Conv2d| {
            InvertedResidualPlan::new(Some(first), middle, Some(last), 1)
        };
        assert!(plan(&Conv2d::pointwise(1, [8, 8], [4, 13]), &middle, &last).is_err());
        assert!(plan(&Conv2d::pointwise(1, [8, 9], [4, 12]), &middle, &last).is_err());
        assert!(plan(&first, &first, &last).is_err());
        assert!(plan(&first, &middle, &middle).is_err());
        let plan = plan(&first, &middle, &last).unwrap();
        let packed = [(&first, 1), (&middle, 3), (&last, 5)].map(|(conv, seed)| weights(kernels, conv, seed));
        let stage = |index: usize| Stage { weights: &packed[index], epilogue: Epilogue::default() };
        let x = vec![0.0; 8 * 8 * 4];
        let mut scratch = vec![0.0; plan.scratch()];
        let mut run = |stages: [Option<usize>; 3], out: usize| {
            let [a, b, c] = stages.map(|index| index.map(stage));
            let mut out = vec![0.0; out];
            kernels.inverted_residual(&plan, a, b.unwrap(), c, &x, &mut out, &mut scratch, &Threads::single())
        };
        assert!(run([Some(0), Some(1), Some(2)], 8 * 8 * 5).is_ok());
        assert!(run([Some(0), Some(1), Some(2)], 8 * 8 * 5 - 1).is_err());
        assert!(run([None, Some(1), Some(2)], 8 * 8 * 5).is_err());
        assert!(run([Some(0), Some(1), None], 8 * 8 * 5).is_err());
        assert!(run([Some(2), Some(1), Some(2)], 8 * 8 * 5).is_err());
        assert!(run([Some(0), Some(0), Some(2)], 8 * 8 * 5).is_err());
    }
}
