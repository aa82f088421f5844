//! Transposed convolution over one to three spatial dimensions, channels last.

use super::{
    Fact, Inferred, Lower, OpError, Operator, Padding, Step, expect_inputs, known_integers, volume,
    window::Axis,
};
use crate::{
    kernels::{ConvTranspose2d, ConvTransposePlan, Epilogue, PackedConvTranspose},
    tensor::{AlignedVec, DType, Shape, Tensor},
};
use serde::{Deserialize, Serialize};

/// `x [n, spatial.., c]` spread by `w [spatial.., c / groups, o]`: what the gradient of a convolution
/// with this geometry makes of `x`. `F32`.
///
/// The size of the result is input 2 (integers, one per spatial dimension) when `sized`, else
/// `stride * (in - 1) + dilation * (window - 1) + 1 + extra - padding`, and with `SAME` padding
/// `stride * in + extra`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvTranspose {
    /// Distance of windows, per spatial dimension; empty means 1.
    #[serde(default)]
    pub strides: Vec<usize>,
    /// Distance of a window's elements; empty means 1.
    #[serde(default)]
    pub dilations: Vec<usize>,
    /// The border of the convolution.
    pub padding: Padding,
    /// Added to the sizes at their end (ONNX `output_padding`); empty means 0.
    #[serde(default)]
    pub extra: Vec<usize>,
    /// Channels fall into this many groups.
    #[serde(default = "one")]
    pub groups: usize,
    /// Input 2 has the result's size.
    #[serde(default)]
    pub sized: bool,
}

fn one() -> usize {
    1
}

/// What a plan needs: the axes of the convolution from the result to `x`, and the result's shape.
struct Geometry {
    axes: Vec<Axis>,
    shape: Shape,
}

impl ConvTranspose {
    fn geometry(&self, x: &Fact, w: &Fact, sizes: Option<&[i64]>) -> Result<Geometry, OpError> {
        let misfit = || {
            OpError::invalid(format!(
                "a transposed convolution of {} by a filter of {} does not fit",
                x.shape, w.shape
            ))
        };
        let (&[batch, ref spatial @ .., channels], &[ref window @ .., depth, filters]) = (x.dims(), w.dims())
        else {
            return Err(misfit());
        };
        let groups = self.groups.max(1);
        let fits = depth.checked_mul(groups) == Some(channels) && filters.is_multiple_of(groups);
        if !fits || spatial.len() != window.len() || !(1..=3).contains(&spatial.len()) {
            return Err(misfit());
        }
        let sizes = match sizes {
            Some(sizes) => sizes.iter().map(|&size| usize::try_from(size).map_err(|_| misfit())).collect(),
            None => self.sizes(spatial, window).ok_or_else(misfit),
        }?;
        if sizes.len() != spatial.len() {
            return Err(misfit());
        }
        let axes = self.padding.axes(&sizes, window, &self.strides, &self.dilations, false)?;
        // A size that the convolution would have rounded away belongs to the same input.
        if axes.iter().zip(spatial).any(|(axis, &size)| axis.output != size) {
            return Err(OpError::invalid(format!(
                "a transposed convolution of {} cannot make spatial dimensions {sizes:?}",
                x.shape
            )));
        }
        let mut shape = Shape::from([batch]);
        axes.iter().for_each(|axis| shape.push(axis.input));
        shape.push(filters);
        Ok(Geometry { axes, shape })
    }

    fn sizes(&self, spatial: &[usize], window: &[usize]) -> Option<Vec<usize>> {
        let of = |values: &[usize], axis: usize, default| values.get(axis).copied().unwrap_or(default);
        (0..spatial.len())
            .map(|axis| {
                let (stride, extra) = (of(&self.strides, axis, 1), of(&self.extra, axis, 0));
                let reach = (window[axis].checked_sub(1)?).checked_mul(of(&self.dilations, axis, 1))? + 1;
                let whole = spatial[axis].checked_sub(1)?.checked_mul(stride)?.checked_add(reach)?;
                match &self.padding {
                    Padding::Valid => whole.checked_add(extra),
                    Padding::Explicit(pads) => {
                        let (before, after) = pads.get(axis).copied().unwrap_or((0, 0));
                        whole.checked_add(extra)?.checked_sub(before)?.checked_sub(after)
                    }
                    _ => spatial[axis].checked_mul(stride)?.checked_add(extra),
                }
            })
            .collect()
    }

    /// The kernel's geometry for one or two dimensions.
    fn planar(&self, x: &Fact, geometry: &Geometry) -> Result<ConvTranspose2d, OpError> {
        let flat = Axis { input: 1, output: 1, window: 1, stride: 1, dilation: 1, before: 0, after: 0 };
        let (height, width) = match geometry.axes.as_slice() {
            [width] => (flat, *width),
            [height, width] => (*height, *width),
            _ => return Err(OpError::Memory("a transposed convolution")),
        };
        let ends = |dims: &[usize]| (dims.first().copied().unwrap_or(0), dims.last().copied().unwrap_or(0));
        let (batch, in_channels) = ends(x.dims());
        let conv = ConvTranspose2d {
            batch,
            in_height: height.output,
            in_width: width.output,
            in_channels,
            out_height: height.input,
            out_width: width.input,
            out_channels: ends(&geometry.shape).1,
            kernel_height: height.window,
            kernel_width: width.window,
            stride: [height.stride, width.stride],
            dilation: [height.dilation, width.dilation],
            pad_top: height.before,
            pad_left: width.before,
            groups: self.groups.max(1),
        };
        conv.check()?;
        Ok(conv)
    }
}

impl Operator for ConvTranspose {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        let count = 2 + usize::from(self.sized);
        expect_inputs(inputs, count..=count)?;
        if let Some(other) = inputs[..2].iter().find(|fact| fact.dtype != DType::F32) {
            return Err(OpError::unsupported(format!("ConvTranspose of {} is not supported", other.dtype)));
        }
        let sizes = if self.sized { Some(known_integers!(inputs, 2)) } else { None };
        let geometry = self.geometry(&inputs[0], &inputs[1], sizes.as_deref())?;
        if geometry.axes.len() < 3 {
            self.planar(&inputs[0], &geometry)?;
        }
        Ok(Inferred::one(DType::F32, geometry.shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (x, w) = (&cx.inputs[0], &cx.inputs[1]);
        let made = cx.outputs[0].dims();
        let sizes: Vec<i64> = made[1..made.len() - 1].iter().map(|&size| size as i64).collect();
        let geometry = self.geometry(x, w, Some(&sizes))?;
        if geometry.axes.len() == 3 {
            return volume::conv_transpose(cx, volume::axes(&geometry.axes)?, self.groups.max(1));
        }
        let conv = self.planar(x, &geometry)?;
        let Some(weights) = cx.value(1) else {
            let shape = geometry.shape;
            return Ok(Step::tensors(move |inputs, cx| {
                let [x, w, ..] = inputs else { return Err(OpError::Memory("a transposed convolution")) };
                let packed = PackedConvTranspose::pack(cx.kernels, &conv, w.as_slice()?, None)?;
                let plan = ConvTransposePlan::new(&conv, &packed)?;
                let mut out = AlignedVec::zeroed(conv.out_elements()?)?;
                let (x, y) = (x.as_slice()?, out.as_mut_slice());
                cx.kernels.conv_transpose2d(&plan, &packed, x, y, &Epilogue::default(), cx.threads)?;
                Ok(vec![Tensor::from_aligned(shape.clone(), out)?])
            }));
        };
        // Packed for the phases of this border, which depend on the image's size.
        let packed = PackedConvTranspose::pack(cx.kernels, &conv, weights.as_slice()?, None)?;
        let plan = ConvTransposePlan::new(&conv, &packed)?;
        Ok(Step::arena(move |io| {
            let (x, out, context) = (io.input(0)?, io.next_output()?, io.context());
            let epilogue = Epilogue::default();
            Ok(context.kernels.conv_transpose2d(&plan, &packed, x, out, &epilogue, context.threads)?)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::run_op;

    fn op(padding: Padding, strides: &[usize]) -> ConvTranspose {
        let (strides, dilations, extra) = (strides.to_vec(), vec![], vec![]);
        ConvTranspose { strides, dilations, padding, extra, groups: 1, sized: false }
    }

    fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_slice(shape, values).unwrap()
    }

    /// ONNX's example `convtranspose_1d` and, with `SAME`, the middle of it.
    #[test]
    fn one_dimension() {
        let (x, w) = (tensor(&[1, 3, 1], &[0.0, 1.0, 2.0]), tensor(&[3, 1, 1], &[1.0, 1.0, 1.0]));
        let y = run_op(op(Padding::Valid, &[]), &[x.clone(), w.clone()]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [0.0, 1.0, 3.0, 3.0, 2.0]);
        let y = run_op(op(Padding::SameUpper, &[]), &[x.clone(), w.clone()]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [1.0, 3.0, 3.0]);
        let sized = ConvTranspose { sized: true, ..op(Padding::Valid, &[2]) };
        let y = run_op(sized.clone(), &[x.clone(), w.clone(), Tensor::scalar(8i64).reshaped([1]).unwrap()]);
        assert_eq!(y.unwrap()[0].as_slice::<f32>().unwrap(), [0.0, 0.0, 1.0, 1.0, 3.0, 2.0, 2.0, 0.0]);
        assert!(run_op(sized, &[x, w, Tensor::scalar(12i64).reshaped([1]).unwrap()]).is_err());
    }

    /// A volume of one slice is an image.
    #[test]
    fn volumes_and_images_agree() {
        let values: Vec<f32> = (0..12u8).map(f32::from).collect();
        let filter: Vec<f32> = (0..36u8).map(|value| f32::from(value) - 9.0).collect();
        let image = [tensor(&[1, 2, 3, 2], &values), tensor(&[3, 3, 2, 2], &filter)];
        let volume = [tensor(&[1, 1, 2, 3, 2], &values), tensor(&[1, 3, 3, 2, 2], &filter)];
        let y = run_op(op(Padding::SameUpper, &[2, 2]), &image).unwrap();
        let z = run_op(op(Padding::SameUpper, &[1, 2, 2]), &volume).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), z[0].as_slice::<f32>().unwrap());
    }
}
