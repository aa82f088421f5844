//! Windows over three spatial dimensions: plain loops whose innermost runs over channels.
//!
//! Volumes are rare in served models; what counts here is that they work.

use super::{Fact, Fused, Io, Lower, OpError, Step, window::Axis};

/// Three spatial dimensions, from outermost to innermost.
pub(super) type Axes = [Axis; 3];

/// The axes of a window over three dimensions.
pub(super) fn axes(all: &[Axis]) -> Result<Axes, OpError> {
    all.try_into().map_err(|_| OpError::Memory("a volume"))
}

/// Where a window's elements lie in a volume: for each inside of it the tap's number and the number
/// of the input's position.
fn taps(axes: &Axes, at: [usize; 3], mut found: impl FnMut(usize, usize)) {
    let inside = |axis: usize, tap: usize| {
        let Axis { stride, dilation, before, input, .. } = axes[axis];
        (at[axis] * stride + tap * dilation).checked_sub(before).filter(|&position| position < input)
    };
    for z in 0..axes[0].window {
        let Some(depth) = inside(0, z) else { continue };
        for y in 0..axes[1].window {
            let Some(row) = inside(1, y) else { continue };
            for x in 0..axes[2].window {
                let Some(column) = inside(2, x) else { continue };
                found(
                    (z * axes[1].window + y) * axes[2].window + x,
                    (depth * axes[1].input + row) * axes[2].input + column,
                );
            }
        }
    }
}

/// How many of a window's elements lie in the volume or its padding.
fn padded_taps(axes: &Axes, at: [usize; 3]) -> usize {
    let along = |(axis, at): (&Axis, usize)| {
        let left = (axis.before + axis.input + axis.after).saturating_sub(at * axis.stride);
        left.div_ceil(axis.dilation).min(axis.window)
    };
    axes.iter().zip(at).map(along).product()
}

/// Calls `each` with the number of every output position and its coordinates.
fn positions(axes: &Axes, mut each: impl FnMut(usize, [usize; 3])) {
    let [depth, height, width] = [0, 1, 2].map(|axis| axes[axis].output);
    for position in 0..depth * height * width {
        each(position, [position / (height * width), position / width % height, position % width]);
    }
}

fn inputs(axes: &Axes) -> usize {
    axes.iter().map(|axis| axis.input).product()
}

fn outputs(axes: &Axes) -> usize {
    axes.iter().map(|axis| axis.output).product()
}

/// Bias, residual and activation after the sums.
fn finish(io: &mut Io<'_>, fused: Fused, out: &mut [f32], channels: usize) -> Result<(), OpError> {
    if let Some(index) = fused.bias_input() {
        let bias = io.input::<f32>(index)?;
        for pixel in out.chunks_exact_mut(channels.max(1)) {
            pixel.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
        }
    }
    if let Some(index) = fused.residual_input() {
        out.iter_mut().zip(io.input::<f32>(index)?).for_each(|(sum, residual)| *sum += residual);
    }
    fused.finish(out, io.context());
    Ok(())
}

/// `x [n, d, h, w, c] * w [kd, kh, kw, c / groups, o]`.
pub(super) fn conv(cx: &Lower<'_>, axes: Axes, groups: usize, fused: Fused) -> Result<Step, OpError> {
    let (channels, filters) = (last(&cx.inputs[0])?, last(&cx.inputs[1])?);
    let depth = channels / groups;
    Ok(Step::arena(move |io| {
        let (x, weights, out) = (io.input::<f32>(0)?, io.input::<f32>(1)?, io.next_output::<f32>()?);
        out.fill(0.0);
        let (image, made) = (inputs(&axes) * channels, outputs(&axes) * filters);
        for (x, out) in x.chunks_exact(image.max(1)).zip(out.chunks_exact_mut(made.max(1))) {
            positions(&axes, |position, at| {
                let out = &mut out[position * filters..][..filters];
                taps(&axes, at, |tap, from| {
                    for (channel, &value) in x[from * channels..][..channels].iter().enumerate() {
                        let (group, row) = (channel / depth, channel % depth);
                        let size = filters / groups;
                        let weights = &weights[(tap * depth + row) * filters + group * size..][..size];
                        let out = &mut out[group * size..][..size];
                        out.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += value * weight);
                    }
                });
            });
        }
        finish(io, fused, out, filters)
    }))
}

/// The transpose of a convolution: `axes` are those of the convolution whose output is `x`.
pub(super) fn conv_transpose(cx: &Lower<'_>, axes: Axes, groups: usize) -> Result<Step, OpError> {
    let (channels, filters) = (last(&cx.inputs[0])?, last(&cx.inputs[1])?);
    let (depth, size) = (channels / groups, filters / groups);
    Ok(Step::arena(move |io| {
        let (x, weights, out) = (io.input::<f32>(0)?, io.input::<f32>(1)?, io.next_output::<f32>()?);
        out.fill(0.0);
        let (image, made) = (outputs(&axes) * channels, inputs(&axes) * filters);
        for (x, out) in x.chunks_exact(image.max(1)).zip(out.chunks_exact_mut(made.max(1))) {
            positions(&axes, |position, at| {
                let x = &x[position * channels..][..channels];
                taps(&axes, at, |tap, to| {
                    for (channel, &value) in x.iter().enumerate() {
                        let group = channel / depth * size;
                        let weights = &weights[(tap * depth + channel % depth) * filters + group..][..size];
                        let out = &mut out[to * filters + group..][..size];
                        out.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += value * weight);
                    }
                });
            });
        }
        Ok(())
    }))
}

/// The greatest element of each window, or the mean.
pub(super) fn pool(x: &Fact, axes: Axes, max: bool, count_include_pad: bool) -> Result<Step, OpError> {
    let channels = last(x)?;
    Ok(Step::arena(move |io| {
        let (x, out) = (io.input::<f32>(0)?, io.next_output::<f32>()?);
        out.fill(if max { f32::NEG_INFINITY } else { 0.0 });
        let (image, made) = (inputs(&axes) * channels, outputs(&axes) * channels);
        for (x, out) in x.chunks_exact(image.max(1)).zip(out.chunks_exact_mut(made.max(1))) {
            positions(&axes, |position, at| {
                let out = &mut out[position * channels..][..channels];
                let mut count = 0usize;
                taps(&axes, at, |_, from| {
                    count += 1;
                    for (best, &value) in out.iter_mut().zip(&x[from * channels..]) {
                        *best = if max { best.max(value) } else { *best + value };
                    }
                });
                if !max {
                    let count = if count_include_pad { padded_taps(&axes, at) } else { count };
                    out.iter_mut().for_each(|sum| *sum /= count.max(1) as f32);
                }
            });
        }
        Ok(())
    }))
}

fn last(fact: &Fact) -> Result<usize, OpError> {
    fact.shape.last().copied().ok_or(OpError::Memory("a volume"))
}
