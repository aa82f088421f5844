//! What detectors do besides selecting boxes: crops of feature maps, selection over classes,
//! patches of images.

use super::{
    Fact, Inferred, Lower, OpError, Operator, Padding, Step, boxes, expect_inputs, known_integers,
    window::Axis, with_element,
};
use crate::tensor::{AlignedVec, DType, Shape, Tensor};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// TensorFlow's `CropAndResize`: images `[n, h, w, c]` (numbers), boxes `[m, 4]` (y, x, y, x from 0 to
/// 1), the image of each box, and the crops' height and width. Result: `float`, `[m, .., c]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CropAndResize {
    /// Takes the nearest pixel instead of interpolating.
    pub nearest: bool,
    /// What lies outside of the image.
    pub extrapolation: f32,
}

impl Operator for CropAndResize {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 4..=4)?;
        let size = known_integers!(inputs, 3);
        let misfit = || OpError::invalid("image, boxes and crop size do not fit together");
        let (&[_, _, _, channels], &[count, 4], &[height, width]) =
            (inputs[0].dims(), inputs[1].dims(), size.as_slice())
        else {
            return Err(misfit());
        };
        let positive = |size: i64| usize::try_from(size).ok().filter(|&size| size > 0).ok_or_else(misfit);
        if inputs[1].dtype != DType::F32 || inputs[2].elements() != count {
            return Err(misfit());
        }
        Ok(Inferred::one(DType::F32, [count, positive(height)?, positive(width)?, channels]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let op = self.clone();
        let shape = cx.outputs[0].shape.clone();
        let dtype = cx.inputs[0].dtype;
        if !dtype.is_float() && !dtype.is_integer() {
            return Err(OpError::unsupported(format!("crops of {dtype} are not supported")));
        }
        Ok(Step::tensors(move |inputs, _| {
            let [images, boxes, numbers, _] = inputs else { return Err(OpError::Memory("crops")) };
            let pixels = floats(images)?;
            let mut out = AlignedVec::zeroed(shape.checked_elements().unwrap_or(usize::MAX))?;
            let numbers = numbers.to_i64_vec()?;
            let crop = shape[1..].iter().product::<usize>().max(1);
            let areas = boxes.as_slice::<f32>()?.as_chunks::<4>().0.iter().zip(numbers);
            for ((area, number), out) in areas.zip(out.as_mut_slice().chunks_exact_mut(crop)) {
                let image = usize::try_from(number).ok().filter(|&number| number < images.shape()[0]);
                let image = image.ok_or_else(|| {
                    OpError::invalid(format!(
                        "box_index has value {number}, expected one in [0, {})",
                        images.shape()[0]
                    ))
                })?;
                op.crop(&pixels, images.shape(), image, area, &shape, out);
            }
            Ok(vec![Tensor::from_aligned(shape.clone(), out)?])
        }))
    }
}

/// A tensor's numbers as floats; without a copy where they are.
fn floats(tensor: &Tensor) -> Result<Cow<'_, [f32]>, OpError> {
    if tensor.dtype() == DType::F32 {
        return Ok(Cow::Borrowed(tensor.as_slice()?));
    }
    let memory = || OpError::Memory("crops");
    let bytes = tensor.buffer().ok_or_else(memory)?;
    let mut floats = Vec::new();
    floats.try_reserve_exact(tensor.len()).map_err(|_| memory())?;
    with_element!(tensor.dtype(), T => {
        let numbers: &[T] = if tensor.is_empty() { &[] } else { bytes.as_slice().ok_or_else(memory)? };
        floats.extend(numbers.iter().map(|&number| crate::kernels::Number::to_f64(number) as f32));
    }, else return Err(memory()));
    Ok(Cow::Owned(floats))
}

impl CropAndResize {
    fn crop(
        &self,
        pixels: &[f32],
        dims: &[usize],
        image: usize,
        area: &[f32; 4],
        to: &[usize],
        out: &mut [f32],
    ) {
        let &[_, height, width, channels] = dims else { return };
        let &[top, left, bottom, right] = area;
        // The source position of an output position, where it is inside.
        let source = |position: usize, from: f32, to: f32, size: usize, crop: usize| {
            let edge = size as f32 - 1.0;
            let at = match crop {
                1 => 0.5 * (from + to) * edge,
                _ => from * edge + position as f32 * ((to - from) * edge / (crop as f32 - 1.0)),
            };
            (0.0..=edge).contains(&at).then_some(at)
        };
        let pixel = |y: f32, x: f32, channel: usize| {
            pixels[((image * height + y as usize) * width + x as usize) * channels + channel]
        };
        for (position, out) in out.chunks_exact_mut(channels.max(1)).enumerate() {
            let y = source(position / to[2], top, bottom, height, to[1]);
            let x = source(position % to[2], left, right, width, to[2]);
            let (Some(y), Some(x)) = (y, x) else {
                out.fill(self.extrapolation);
                continue;
            };
            for (channel, slot) in out.iter_mut().enumerate() {
                *slot = if self.nearest {
                    pixel(y.round(), x.round(), channel)
                } else {
                    let line = |y: f32| {
                        let (a, b) = (pixel(y, x.floor(), channel), pixel(y, x.ceil(), channel));
                        a + (b - a) * (x - x.floor())
                    };
                    let (a, b) = (line(y.floor()), line(y.ceil()));
                    a + (b - a) * (y - y.floor())
                };
            }
        }
    }
}

/// TensorFlow's `CombinedNonMaxSuppression`: boxes `[n, m, 1 or classes, 4]`, scores `[n, m, classes]`
/// (both `float`), the most boxes per class and in all, the overlap allowed and the least score.
/// Outputs, filled up with zeros: boxes `[n, k, 4]`, scores, classes (`float`), and the valid number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelectBoxesByClass {
    /// Gives no more than the most per class times the classes.
    pub pad_per_class: bool,
    /// Cuts the boxes off at 0 and 1.
    pub clip: bool,
}

impl Operator for SelectBoxesByClass {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 6..=6)?;
        let (per_class, total) = (known_integers!(inputs, 2), known_integers!(inputs, 3));
        let (&[batch, count, variants, 4], &[scored, scores, classes]) = (inputs[0].dims(), inputs[1].dims())
        else {
            return Err(OpError::invalid("boxes must be [n, m, q, 4] and scores [n, m, classes]"));
        };
        let fits = batch == scored && count == scores && (variants == 1 || variants == classes);
        let number = |values: &[i64]| values.first().and_then(|&value| usize::try_from(value).ok());
        let (Some(per_class), Some(total), true) = (number(&per_class), number(&total), fits) else {
            return Err(OpError::invalid("boxes, scores and limits do not fit together"));
        };
        let most = match self.pad_per_class {
            true => total.min(per_class.saturating_mul(classes)),
            false => total,
        };
        let row = Fact::new(DType::F32, [batch, most]);
        Ok(Inferred::Facts(vec![
            Fact::new(DType::F32, [batch, most, 4]),
            row.clone(),
            row,
            Fact::new(DType::I32, [batch]),
        ]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let clip = self.clip;
        let (&[_, most, _], &[_, count, variants, _]) = (cx.outputs[0].dims(), cx.inputs[0].dims()) else {
            return Err(OpError::Memory("boxes"));
        };
        let classes = cx.inputs[1].dims()[2];
        let per_class = cx.value(2).map(Tensor::to_i64_vec).transpose()?.and_then(|v| v.first().copied());
        let per_class = usize::try_from(per_class.unwrap_or(0)).unwrap_or(0);
        let shapes: Vec<Shape> = cx.outputs.iter().map(|fact| fact.shape.clone()).collect();
        Ok(Step::tensors(move |inputs, _| {
            let [all_boxes, all_scores, _, _, overlap, least] = inputs else {
                return Err(OpError::Memory("boxes"));
            };
            let single =
                |tensor: &Tensor| Ok::<_, OpError>(tensor.as_slice::<f32>()?.first().copied().unwrap_or(0.0));
            let (overlap, least) = (single(overlap)?, single(least)?);
            let mut areas = AlignedVec::<f32>::zeroed(shapes[0].elements())?;
            let mut scores = AlignedVec::<f32>::zeroed(shapes[1].elements())?;
            let mut labels = AlignedVec::<f32>::zeroed(shapes[2].elements())?;
            let mut valid = Vec::new();
            let images = all_boxes.as_slice::<f32>()?.chunks_exact((count * variants * 4).max(1));
            let rows = all_scores.as_slice::<f32>()?.chunks_exact((count * classes).max(1));
            for (image, (given, row)) in images.zip(rows).enumerate() {
                let mut found: Vec<(f32, usize, [f32; 4])> = Vec::new();
                for class in 0..classes {
                    let variant = if variants == 1 { 0 } else { class };
                    let area = |at: usize| -> [f32; 4] {
                        let start = (at * variants + variant) * 4;
                        [given[start], given[start + 1], given[start + 2], given[start + 3]]
                    };
                    let corners: Vec<f32> = (0..count).flat_map(area).collect();
                    let of_class: Vec<f32> = (0..count).map(|at| row[at * classes + class]).collect();
                    let taken = boxes::select(&corners, &of_class, per_class, overlap, least);
                    found.extend(taken.into_iter().map(|(at, score)| (score, class, area(at))));
                }
                // Stable, so that of equal scores the lower class comes first.
                found.sort_by(|a, b| b.0.total_cmp(&a.0));
                found.truncate(most);
                valid.push(found.len() as i32);
                for (place, (score, class, area)) in found.into_iter().enumerate() {
                    let at = image * most + place;
                    scores.as_mut_slice()[at] = score;
                    labels.as_mut_slice()[at] = class as f32;
                    let area = if clip { area.map(|edge| edge.clamp(0.0, 1.0)) } else { area };
                    areas.as_mut_slice()[at * 4..][..4].copy_from_slice(&area);
                }
            }
            valid.resize(shapes[3].elements(), 0);
            Ok(vec![
                Tensor::from_aligned(shapes[0].clone(), areas)?,
                Tensor::from_aligned(shapes[1].clone(), scores)?,
                Tensor::from_aligned(shapes[2].clone(), labels)?,
                Tensor::from_slice(shapes[3].clone(), &valid)?,
            ])
        }))
    }
}

/// The windows of an image `[n, h, w, c]` (`float`), each laid out in the channels:
/// `[n, rows, columns, window height * window width * c]`; what lies outside is 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Patches {
    /// Height and width of a window.
    pub window: [usize; 2],
    /// Distance of windows.
    pub strides: [usize; 2],
    /// Distance of a window's pixels.
    pub dilations: [usize; 2],
    /// The border.
    pub padding: Padding,
}

impl Patches {
    fn axes(&self, x: &Fact) -> Result<[Axis; 2], OpError> {
        let &[_, height, width, _] = x.dims() else {
            return Err(OpError::invalid(format!("images must have 4 dimensions, but are {}", x.shape)));
        };
        let axes =
            self.padding.axes(&[height, width], &self.window, &self.strides, &self.dilations, false)?;
        axes.try_into().map_err(|_| OpError::Memory("patches"))
    }
}

impl Operator for Patches {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        if inputs[0].dtype != DType::F32 {
            return Err(OpError::unsupported(format!("patches of {} are not supported", inputs[0].dtype)));
        }
        let [rows, columns] = self.axes(&inputs[0])?;
        let (batch, channels) = (inputs[0].shape[0], inputs[0].shape[3]);
        let depth = rows.window.checked_mul(columns.window).and_then(|taps| taps.checked_mul(channels));
        let depth = depth.ok_or_else(|| OpError::invalid("the windows are too large"))?;
        Ok(Inferred::one(DType::F32, [batch, rows.output, columns.output, depth]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let [rows, columns] = self.axes(&cx.inputs[0])?;
        let channels = cx.inputs[0].shape[3];
        Ok(Step::arena(move |io| {
            let (x, out) = (io.input::<f32>(0)?, io.next_output::<f32>()?);
            let taps = rows.window * columns.window;
            for (at, pixel) in out.chunks_exact_mut(channels.max(1)).enumerate() {
                let (tap, patch) = (at % taps, at / taps);
                let (column, row) = (patch % columns.output, patch / columns.output);
                let (image, row) = (row / rows.output, row % rows.output);
                let place = |axis: &Axis, position: usize, tap: usize| {
                    let place = (position * axis.stride + tap * axis.dilation).checked_sub(axis.before)?;
                    (place < axis.input).then_some(place)
                };
                let y = place(&rows, row, tap / columns.window);
                match y.zip(place(&columns, column, tap % columns.window)) {
                    Some((y, x_at)) => {
                        let from = ((image * rows.input + y) * columns.input + x_at) * channels;
                        pixel.copy_from_slice(&x[from..from + channels]);
                    }
                    None => pixel.fill(0.0),
                }
            }
            Ok(())
        }))
    }
}
