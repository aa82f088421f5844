//! Convolution over one to three spatial dimensions, channels last.

use super::{
    Fact, Fused, Inferred, Lower, OpError, Operator, Padding, Step, expect_inputs,
    matmul::in_brain_floats,
    step::PackedSize,
    volume,
    weights::{any_filter, packed_conv},
    window::Axis,
};
use crate::{
    kernels::{BLayout, Conv2d, ConvPlan, PackedConv, PackedWinograd, WinogradPlan, WinogradTile},
    tensor::{DType, Shape, Tensor},
};
use serde::{Deserialize, Serialize};

/// `x [n, spatial.., c] * w [spatial.., c / groups, o] (+ bias [o]) (+ residual)`. `F32`; up to
/// three spatial dimensions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conv {
    /// Distance of windows, per spatial dimension; empty means 1.
    #[serde(default)]
    pub strides: Vec<usize>,
    /// Distance of a window's elements; empty means 1.
    #[serde(default)]
    pub dilations: Vec<usize>,
    /// The border.
    pub padding: Padding,
    /// Channels are convolved in this many groups; as many as input channels is depthwise. 0 means as
    /// many as the filter's depth asks for.
    #[serde(default = "one")]
    pub groups: usize,
    /// What follows the sums.
    #[serde(flatten)]
    pub fused: Fused,
}

fn one() -> usize {
    1
}

impl Conv {
    /// The kernel's geometry and the output's shape.
    pub(super) fn geometry(&self, inputs: &[Fact]) -> Result<(Conv2d, Shape), OpError> {
        match self.any_geometry(inputs)? {
            (Geometry::Image(conv), shape) => Ok((conv, shape)),
            (Geometry::Volume(..), _) => Err(misfit(&inputs[0], &inputs[1])),
        }
    }

    /// The same, volumes included.
    fn any_geometry(&self, inputs: &[Fact]) -> Result<(Geometry, Shape), OpError> {
        let [x, w] = [&inputs[0], &inputs[1]];
        let (&[batch, ref spatial @ .., channels], &[ref window @ .., depth, out_channels]) =
            (x.dims(), w.dims())
        else {
            return Err(misfit(x, w));
        };
        if spatial.len() != window.len() || !(1..=3).contains(&spatial.len()) {
            return Err(misfit(x, w));
        }
        let groups = match self.groups {
            0 => channels.checked_div(depth).unwrap_or(1).max(1),
            groups => groups,
        };
        if depth * groups != channels || !out_channels.is_multiple_of(groups) {
            return Err(OpError::invalid(format!(
                "input depth must be evenly divisible by filter depth: {channels} vs {depth}"
            )));
        }
        let axes = self.padding.axes(spatial, window, &self.strides, &self.dilations, false)?;
        let mut shape = Shape::from([batch]);
        axes.iter().for_each(|axis| shape.push(axis.output));
        shape.push(out_channels);
        let flat = Axis { input: 1, output: 1, window: 1, stride: 1, dilation: 1, before: 0, after: 0 };
        let (height, width) = match axes.as_slice() {
            [width] => (flat, *width),
            [height, width] => (*height, *width),
            axes => return Ok((Geometry::Volume(volume::axes(axes)?, groups), shape)),
        };
        let conv = Conv2d {
            batch,
            in_height: height.input,
            in_width: width.input,
            in_channels: channels,
            out_height: height.output,
            out_width: width.output,
            out_channels,
            kernel_height: height.window,
            kernel_width: width.window,
            stride: [height.stride, width.stride],
            dilation: [height.dilation, width.dilation],
            pad_top: height.before,
            pad_left: width.before,
            groups,
        };
        conv.check()?;
        Ok((Geometry::Image(conv), shape))
    }
}

/// True for a convolution that is a matrix product of the image as it lies.
fn is_product(conv: &Conv2d) -> bool {
    let window = [conv.kernel_height, conv.kernel_width];
    let same = (conv.in_height, conv.in_width) == (conv.out_height, conv.out_width);
    conv.groups == 1
        && window == [1, 1]
        && conv.stride == [1, 1]
        && same
        && (conv.pad_top, conv.pad_left) == (0, 0)
}

/// What is convolved.
enum Geometry {
    Image(Conv2d),
    /// Three spatial dimensions, and the number of groups.
    Volume(volume::Axes, usize),
}

fn misfit(x: &Fact, w: &Fact) -> OpError {
    OpError::invalid(format!(
        "a convolution needs an input [batch, spatial.., channels] and a filter of as many dimensions, \
         but the input is {} and the filter {}",
        x.shape, w.shape
    ))
}

impl Operator for Conv {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, self.fused.inputs()..=self.fused.inputs())?;
        if let Some(other) = inputs.iter().find(|fact| fact.dtype != DType::F32) {
            return Err(OpError::unsupported(format!("Conv of {} is not supported", other.dtype)));
        }
        let (_, shape) = self.any_geometry(inputs)?;
        let output = Fact::new(DType::F32, shape);
        self.fused.check(inputs, &output)?;
        Ok(Inferred::Facts(vec![output]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let fused = self.fused;
        let conv = match self.any_geometry(cx.inputs)? {
            (Geometry::Image(conv), _) => conv,
            (Geometry::Volume(axes, groups), _) => return volume::conv(cx, axes, groups, fused),
        };
        let bias_input = fused.bias_input();
        let bias_known = bias_input.is_none_or(|index| cx.value(index).is_some());
        let Some(weights) = cx.value(1).filter(|_| bias_known) else {
            // Weights that are computed by the model itself: rare, so they are packed by each run.
            return Ok(Step::tensors(move |inputs, cx| {
                let [x, w, ..] = inputs else { return Err(OpError::Memory("a convolution")) };
                let slice = |index: usize| inputs.get(index).map(Tensor::as_slice::<f32>).transpose();
                let bias = bias_input.and_then(|index| slice(index).transpose()).transpose()?;
                let packed = PackedConv::pack(cx.kernels, &conv, w.as_slice()?, bias)?;
                let plan = ConvPlan::new(&conv, &packed)?;
                let mut out = crate::tensor::AlignedVec::zeroed(conv.out_elements()?)?;
                let mut epilogue = fused.epilogue();
                epilogue.residual =
                    fused.residual_input().and_then(|index| slice(index).transpose()).transpose()?;
                cx.kernels.conv2d(
                    &plan,
                    &packed,
                    x.as_slice()?,
                    out.as_mut_slice(),
                    &epilogue,
                    cx.threads,
                )?;
                let mut shape = Shape::from([conv.batch]);
                if x.shape().len() == 4 {
                    shape.push(conv.out_height);
                }
                shape.push(conv.out_width);
                shape.push(conv.out_channels);
                Ok(vec![Tensor::from_aligned(shape, out)?])
            }));
        };
        if is_product(&conv) {
            let rows = conv.batch * conv.in_height * conv.in_width;
            let sizes = [rows, conv.in_channels, conv.out_channels];
            if let Some(step) = in_brain_floats(cx, fused, sizes, BLayout::RowMajorKxN)? {
                return Ok(step);
            }
        }
        if let Some(tile) = WinogradTile::of(&conv) {
            return in_tiles(cx, fused, &conv, tile, weights);
        }
        let from: Vec<usize> = [1].into_iter().chain(bias_input).collect();
        let packed = if conv.is_narrow(cx.kernels) {
            let size = PackedSize::Larger(PackedConv::growth_of_narrow(cx.kernels, &conv));
            let kind = if conv.is_folded_narrow() { "narrow conv" } else { "narrow conv by taps" };
            cx.packed_as(kind, &from, size, || {
                let (filter, bias) = (any_filter(weights), known_bias(cx, fused)?);
                Ok(PackedConv::pack_narrow(cx.kernels, &conv, filter, bias)?)
            })?
        } else {
            let kind = if conv.groups == 1 { "conv" } else { "grouped conv" };
            cx.packed(kind, &from, || packed_conv(cx, &conv, weights, known_bias(cx, fused)?))?
        };
        let plan = ConvPlan::new(&conv, &packed)?;
        Ok(Step::arena(move |io| {
            let (x, out) = (io.input(0)?, io.next_output()?);
            let mut epilogue = fused.epilogue();
            epilogue.residual = fused.residual_input().map(|index| io.input(index)).transpose()?;
            let context = io.context();
            Ok(context.kernels.conv2d(&plan, &packed, x, out, &epilogue, context.threads)?)
        }))
    }
}

/// The bias, which is known where it is one of the inputs.
fn known_bias<'a>(cx: &'a Lower<'_>, fused: Fused) -> Result<Option<&'a [f32]>, OpError> {
    let bias = fused.bias_input().and_then(|index| cx.value(index));
    Ok(bias.map(Tensor::as_slice).transpose()?)
}

/// A convolution of 3x3 windows by Winograd's algorithm.
fn in_tiles(
    cx: &Lower<'_>,
    fused: Fused,
    conv: &Conv2d,
    tile: WinogradTile,
    weights: &Tensor,
) -> Result<Step, OpError> {
    let plan = WinogradPlan::new(conv, tile, cx.threads.count())?;
    let kind = match tile {
        WinogradTile::Two => "tiles of 2x2",
        WinogradTile::Four => "tiles of 4x4",
    };
    let from: Vec<usize> = [1].into_iter().chain(fused.bias_input()).collect();
    let size = PackedSize::Larger(PackedWinograd::growth(conv, tile));
    let packed = cx.packed_as(kind, &from, size, || {
        let bias = known_bias(cx, fused)?;
        Ok(PackedWinograd::pack(cx.kernels, conv, tile, any_filter(weights), bias, cx.threads)?)
    })?;
    let scratch = plan.scratch() * size_of::<f32>();
    let step = Step::arena(move |io| {
        let (x, out, scratch) = (io.input(0)?, io.next_output()?, io.scratch()?);
        let mut epilogue = fused.epilogue();
        epilogue.residual = fused.residual_input().map(|index| io.input(index)).transpose()?;
        let context = io.context();
        Ok(context.kernels.winograd(&plan, &packed, x, out, scratch, &epilogue, context.threads)?)
    });
    Ok(step.with_scratch(scratch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::testing::{run_op, run_op_knowing},
        kernels,
    };

    fn conv(padding: Padding, strides: &[usize]) -> Conv {
        Conv { strides: strides.to_vec(), dilations: vec![], padding, groups: 1, fused: Fused::default() }
    }

    fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_slice(shape, values).unwrap()
    }

    /// 3x3 ones over a 3x3 image with SAME padding counts neighbours.
    #[test]
    fn same_padding() {
        let ones = tensor(&[3, 3, 1, 1], &[1.0; 9]);
        let x = tensor(&[1, 3, 3, 1], &[1.0; 9]);
        let y = run_op(conv(Padding::SameUpper, &[]), &[x.clone(), ones.clone()]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [4.0, 6.0, 4.0, 6.0, 9.0, 6.0, 4.0, 6.0, 4.0]);
        let y = run_op(conv(Padding::Valid, &[]), &[x.clone(), ones.clone()]).unwrap();
        assert_eq!((y[0].shape().to_vec(), y[0].as_slice::<f32>().unwrap()), (vec![1, 1, 1, 1], &[9.0][..]));
        let y = run_op(conv(Padding::SameUpper, &[2, 2]), &[x, ones]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [4.0, 4.0, 4.0, 4.0]);
    }

    #[test]
    fn one_dimension_with_bias_residual_and_relu() {
        let x = tensor(&[1, 3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let w = tensor(&[2, 2, 1], &[1.0, 10.0, 100.0, 1000.0]);
        let bias = tensor(&[1], &[-4000.0]);
        let residual = tensor(&[1, 2, 1], &[0.5, 0.25]);
        let fused =
            Fused { bias: true, residual: true, activation: Some(kernels::Unary::Relu), ..Fused::default() };
        let op = Conv { fused, ..conv(Padding::Valid, &[]) };
        // 1 + 20 + 300 + 4000 - 4000 + 0.5 and 3 + 40 + 500 + 6000 - 4000 + 0.25
        let y = run_op(op, &[x, w, bias, residual]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [321.5, 2543.25]);
    }

    #[test]
    fn depthwise_with_multiplier() {
        let x = tensor(&[1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let w = tensor(&[1, 1, 1, 4], &[1.0, 10.0, 100.0, 1000.0]);
        let op = Conv { groups: 2, ..conv(Padding::Valid, &[]) };
        let y = run_op(op, &[x, w]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [1.0, 10.0, 200.0, 2000.0, 3.0, 30.0, 400.0, 4000.0]);
    }

    /// Counting neighbours, of an image that is large enough for tiles; the residual is the bias once more.
    #[test]
    fn known_weights_go_through_tiles() {
        let (size, channels) = (13, 32);
        let fused =
            Fused { bias: true, residual: true, activation: Some(kernels::Unary::Relu), ..Fused::default() };
        let op = Conv { fused, ..conv(Padding::SameUpper, &[]) };
        let ones = |shape: &[usize]| tensor(shape, &vec![1.0; shape.iter().product()]);
        let image = [1, size, size, channels];
        let inputs = [ones(&image), ones(&[3, 3, channels, channels]), ones(&[channels]), ones(&image)];
        let facts: Vec<Fact> = inputs.iter().map(|x| Fact::new(DType::F32, x.shape().clone())).collect();
        assert!(WinogradTile::of(&op.geometry(&facts).unwrap().0).is_some());
        let y = run_op_knowing(op, &inputs, 1..3).unwrap();
        for (index, &actual) in y.as_slice::<f32>().unwrap().iter().enumerate() {
            let pixel = index / channels;
            let reach = |at: usize| 3 - usize::from(at == 0) - usize::from(at == size - 1);
            let expected = (reach(pixel / size) * reach(pixel % size) * channels + 2) as f32;
            assert!((actual - expected).abs() < 1e-3, "{index}: {actual}, expected {expected}");
        }
    }

    /// The same of one output channel.
    #[test]
    fn few_known_columns_are_narrow() {
        let (size, channels) = (13, 32);
        let fused =
            Fused { bias: true, residual: true, activation: Some(kernels::Unary::Relu), ..Fused::default() };
        let op = Conv { fused, ..conv(Padding::SameUpper, &[]) };
        let ones = |shape: &[usize]| tensor(shape, &vec![1.0; shape.iter().product()]);
        let inputs = [
            ones(&[1, size, size, channels]),
            ones(&[3, 3, channels, 1]),
            ones(&[1]),
            ones(&[1, size, size, 1]),
        ];
        let facts: Vec<Fact> = inputs.iter().map(|x| Fact::new(DType::F32, x.shape().clone())).collect();
        assert!(op.geometry(&facts).unwrap().0.is_narrow(kernels::best()));
        let y = run_op_knowing(op, &inputs, 1..3).unwrap();
        for (pixel, &actual) in y.as_slice::<f32>().unwrap().iter().enumerate() {
            let reach = |at: usize| 3 - usize::from(at == 0) - usize::from(at == size - 1);
            let expected = (reach(pixel / size) * reach(pixel % size) * channels + 2) as f32;
            assert_eq!(actual, expected, "{pixel}");
        }
    }

    #[test]
    fn misfits_are_errors() {
        let w = tensor(&[1, 1, 3, 1], &[1.0; 3]);
        for shape in [&[1, 2, 2, 2][..], &[2, 3], &[3], &[1, 1, 1, 1, 3], &[]] {
            let x = tensor(shape, &vec![0.0; shape.iter().product()]);
            assert!(run_op(conv(Padding::Valid, &[]), &[x, w.clone()]).is_err(), "{shape:?}");
        }
    }
}
