//! Scaling along axes: nearest neighbour, linear and cubic interpolation.
//!
//! TensorFlow and ONNX differ in which source position an output position means; the formulas are
//! those of ONNX `Resize` (`coordinate_transformation_mode`) and of TensorFlow's image scaler, in
//! `f32` as there, since nearest neighbours depend on the last bit. Interpolation is separable: one
//! pass per axis, each a weighted sum of rows.

use super::{
    Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs, known_integers,
    mapping::{Axis, Mapping, axis_of, planned_integers, row_major},
};
use crate::{
    kernels::Threads,
    tensor::{DType, Shape, TensorError},
};
use serde::{Deserialize, Serialize};

/// Entries of TensorFlow's table of cubic weights (image_resizer_state.h, `kTableSize`).
const STEPS: f32 = 1024.0;

/// How values between positions are made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum ResizeMode {
    /// The value at the nearest position; any dtype.
    Nearest(Rounding),
    /// From 2 positions per axis; `float`.
    Linear,
    /// From 4 positions per axis by Keys' cubic convolution; `float`.
    Cubic {
        /// The slope parameter, -0.75 or -0.5.
        a: f32,
        /// Positions outside count for nothing instead of repeating the edge.
        exclude_outside: bool,
    },
    /// The same with weights of the nearest of 1024 steps, as TensorFlow's table has them; `float`.
    CubicSteps {
        /// The slope parameter, -0.75 or -0.5.
        a: f32,
        /// Positions outside count for nothing instead of repeating the edge.
        exclude_outside: bool,
    },
    /// The mean over the source area that the output position covers; `float`.
    Area,
}

/// Which position is the nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rounding {
    /// The one before.
    Floor,
    /// The one after.
    Ceil,
    /// The nearer; of two the one before.
    PreferFloor,
    /// The nearer; of two the one after.
    PreferCeil,
}

/// Which source position `x` an output position `i` means; `r` is the source length per output length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Coordinates {
    /// `(i + 0.5) * r - 0.5`
    HalfPixel,
    /// Both ends meet: `i * (in - 1) / (out - 1)`
    AlignCorners,
    /// `i * r`
    Asymmetric,
    /// As `HalfPixel`, but 0 where the output has one position.
    PytorchHalfPixel,
    /// `(i + 0.5) * r`: TensorFlow's nearest neighbour with half-pixel centres.
    TensorflowHalfPixel,
    /// As `HalfPixel`, moved so that the centres meet where the output length was rounded down.
    HalfPixelSymmetric,
    /// Both ends meet those of [`Resize::crop`].
    Crop,
}

/// A part of the source, for [`Coordinates::Crop`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Crop {
    /// Start and end along each scaled axis, in units of the distance between first and last position.
    pub ranges: Vec<[f32; 2]>,
    /// The value of positions that lie outside of the source.
    pub outside: f32,
}

/// `x` scaled along some axes to the sizes of input 1 (integers, one per axis) or by its scales (`float`), or
/// by `scales`. With both sizes and `scales`, these tell the positions only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resize {
    /// Interpolation.
    pub mode: ResizeMode,
    /// Positions.
    pub coordinates: Coordinates,
    /// The scaled axes; negative from the back.
    pub axes: Vec<i64>,
    /// Output length per source length of each axis.
    #[serde(default)]
    pub scales: Option<Vec<f32>>,
    /// Axes that shrink take the mean of all positions under the interpolation's kernel, which is widened; `Linear` and `Cubic`.
    #[serde(default)]
    pub antialias: bool,
    /// The part that is scaled; with it, `scales` are those of the part.
    #[serde(default)]
    pub crop: Option<Crop>,
}

impl Resize {
    /// All of the source, without antialiasing, to sizes of input 1.
    pub fn new(mode: ResizeMode, coordinates: Coordinates, axes: Vec<i64>) -> Self {
        Self { mode, coordinates, axes, scales: None, antialias: false, crop: None }
    }

    fn resized(&self, from: &Shape, sizes: &[i64]) -> Result<Shape, OpError> {
        let misfit =
            || OpError::invalid(format!("sizes {sizes:?} do not fit axes {:?} of shape {from}", self.axes));
        if sizes.len() != self.axes.len() {
            return Err(misfit());
        }
        let mut shape = from.clone();
        let mut seen = vec![false; from.len()];
        for (&axis, &size) in self.axes.iter().zip(sizes) {
            let axis = axis_of(from, axis)?;
            if std::mem::replace(&mut seen[axis], true) {
                return Err(misfit());
            }
            shape[axis] = usize::try_from(size).map_err(|_| misfit())?;
            if (from[axis] == 0) != (size == 0) {
                return Err(misfit());
            }
        }
        Ok(shape)
    }

    fn scaled(&self, from: &Shape, scales: &[f32]) -> Result<Vec<i64>, OpError> {
        if scales.len() != self.axes.len() {
            return Err(OpError::invalid(format!("scales {scales:?} do not fit axes {:?}", self.axes)));
        }
        let sizes = self.axes.iter().zip(scales).enumerate().map(|(position, (&axis, &scale))| {
            if scale > 0.0 && scale.is_finite() {
                let part = self.range(position).map_or(1.0, |[start, end]| end - start);
                return Ok((from[axis_of(from, axis)?] as f32 * part * scale).floor() as i64);
            }
            Err(OpError::invalid(format!("cannot scale by {scale}")))
        });
        sizes.collect()
    }

    fn range(&self, position: usize) -> Option<[f32; 2]> {
        self.crop.as_ref()?.ranges.get(position).copied()
    }

    /// The scales, where they and not the sizes are given; `None` in place of a value that is not known.
    fn scales(&self, inputs: &[Fact]) -> Result<Option<Option<Vec<f32>>>, OpError> {
        match (&self.scales, inputs.get(1)) {
            (Some(scales), None) => Ok(Some(Some(scales.clone()))),
            (None, Some(given)) if given.dtype == DType::F32 => {
                let known = given.value.as_ref().map(|value| value.as_slice::<f32>().map(<[f32]>::to_vec));
                Ok(Some(known.transpose()?))
            }
            _ => Ok(None),
        }
    }

    /// The taps of each axis that changes, by axis.
    fn taps(&self, from: &Shape, to: &Shape, scales: Option<&[f32]>) -> Result<Vec<(usize, Taps)>, OpError> {
        let mut taps = Vec::new();
        for (position, &axis) in self.axes.iter().enumerate() {
            let axis = axis_of(from, axis)?;
            let scale = scales.and_then(|scales| scales.get(position)).copied();
            let range = self.range(position).unwrap_or([0.0, 1.0]);
            let line = Line { from: from[axis], to: to[axis], scale, range };
            let shrinks = scale.unwrap_or(line.to as f32 / line.from as f32);
            let kernel =
                Kernel { mode: self.mode, scale: if self.antialias { shrinks.min(1.0) } else { 1.0 } };
            let source = |position| line.source(self.coordinates, position);
            let mut made = Taps::new(kernel, source, line.from, line.to)?;
            if self.coordinates == Coordinates::Crop {
                let edge = line.from.saturating_sub(1) as f32;
                made.outside = (0..line.to).map(|at| !(0.0..=edge).contains(&source(at))).collect();
            }
            if line.from != line.to || !made.is_identity() {
                taps.push((axis, made));
            }
        }
        Ok(taps)
    }
}

impl Operator for Resize {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        let from = &inputs.first().ok_or_else(|| OpError::invalid("nothing to resize"))?.shape;
        expect_inputs(inputs, if self.scales.is_some() { 1..=2 } else { 2..=2 })?;
        let counts = [self.scales.as_ref().map(Vec::len), self.crop.as_ref().map(|crop| crop.ranges.len())];
        if counts.into_iter().flatten().any(|count| count != self.axes.len()) {
            return Err(OpError::invalid(format!("scales or ranges do not fit axes {:?}", self.axes)));
        }
        let sizes = match self.scales(inputs)? {
            Some(Some(scales)) => self.scaled(from, &scales)?,
            Some(None) => return Ok(Inferred::NeedsValue(1)),
            None => known_integers!(inputs, 1),
        };
        // Only the passes over floats know of another value than those of the source.
        let interpolates = !matches!(self.mode, ResizeMode::Nearest(_)) || self.crop.is_some();
        if interpolates && inputs[0].dtype != DType::F32 {
            return Err(OpError::unsupported(format!(
                "interpolation of {} is not supported",
                inputs[0].dtype
            )));
        }
        Ok(Inferred::one(inputs[0].dtype, self.resized(from, &sizes)?))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let from = &cx.inputs[0].shape;
        let scales = self.scales(cx.inputs)?.flatten();
        let sizes = match &scales {
            Some(scales) => self.scaled(from, scales)?,
            None => planned_integers(cx.inputs, 1)?,
        };
        let to = self.resized(from, &sizes)?;
        let mut taps = self.taps(from, &to, scales.as_deref().or(self.scales.as_deref()))?;
        if taps.is_empty() {
            return Ok(Step::alias());
        }
        if matches!(self.mode, ResizeMode::Nearest(_)) && self.crop.is_none() {
            let strides = row_major(from);
            let axes = (0..from.len()).map(|axis| match taps.iter().find(|(tapped, _)| *tapped == axis) {
                Some((_, taps)) => {
                    Axis::listed(to[axis], |position| taps.indices[position] as isize * strides[axis])
                }
                None => Ok(Axis::Stride { len: from[axis], stride: strides[axis] }),
            });
            return Mapping::new(0, axes.collect::<Result<_, _>>()?, from.elements())?.lower(cx);
        }
        // What shrinks goes first, so that the later passes have less to do; and long rows are for the larger values.
        taps.sort_by_key(|&(axis, _)| match to[axis] > from[axis] {
            false => (false, axis),
            true => (true, from.len() - axis),
        });
        passes(from, taps, self.crop.as_ref().map_or(0.0, |crop| crop.outside))
    }
}

/// One axis before and after.
struct Line {
    from: usize,
    to: usize,
    scale: Option<f32>,
    range: [f32; 2],
}

impl Line {
    fn source(&self, coordinates: Coordinates, position: usize) -> f32 {
        let (i, from, to) = (position as f32, self.from as f32, self.to as f32);
        let stretched = |x: f32| match self.scale {
            Some(scale) => x / scale,
            None => x * (from / to),
        };
        match coordinates {
            Coordinates::PytorchHalfPixel if self.to == 1 => 0.0,
            Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => stretched(i + 0.5) - 0.5,
            Coordinates::AlignCorners if self.to == 1 => 0.0,
            // ONNX: the length by the scale before it is rounded down.
            Coordinates::AlignCorners => {
                let to = self.scale.map_or(to, |scale| from * scale);
                i * ((from - 1.0) / (to - 1.0))
            }
            Coordinates::Asymmetric => stretched(i),
            Coordinates::TensorflowHalfPixel => stretched(i + 0.5),
            Coordinates::HalfPixelSymmetric => {
                let kept = self.scale.map_or(1.0, |scale| to / (from * scale));
                from / 2.0 * (1.0 - kept) + stretched(i + 0.5) - 0.5
            }
            Coordinates::Crop => {
                let [start, end] = self.range.map(|bound| bound * (from - 1.0));
                if self.to > 1 { start + i * ((end - start) / (to - 1.0)) } else { 0.5 * (start + end) }
            }
        }
    }
}

/// For each output position the same number of source positions, and their weights.
#[derive(Clone, Debug, PartialEq)]
struct Taps {
    count: usize,
    indices: Vec<usize>,
    weights: Vec<f32>,
    /// The output positions that are not computed; none when empty.
    outside: Vec<bool>,
}

/// A way to interpolate, with a kernel wider than one source position where `scale` is below 1.
#[derive(Clone, Copy)]
struct Kernel {
    mode: ResizeMode,
    scale: f32,
}

impl Kernel {
    /// Positions on either side that count.
    fn reach(self) -> Option<f32> {
        let reach = match self.mode {
            ResizeMode::Linear => 1.0,
            ResizeMode::Cubic { .. } => 2.0,
            _ => return None,
        };
        (self.scale < 1.0).then_some((reach / self.scale).ceil())
    }

    /// The weight of a source position at this distance.
    fn weight(self, distance: f32) -> f32 {
        let distance = (distance * self.scale).abs();
        match self.mode {
            ResizeMode::Cubic { a, .. } if distance < 1.0 => {
                ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1.0
            }
            ResizeMode::Cubic { a, .. } if distance < 2.0 => {
                ((a * distance - 5.0 * a) * distance + 8.0 * a) * distance - 4.0 * a
            }
            ResizeMode::Cubic { .. } => 0.0,
            _ => (1.0 - distance).max(0.0),
        }
    }
}

impl Taps {
    fn new(kernel: Kernel, source: impl Fn(usize) -> f32, from: usize, to: usize) -> Result<Self, OpError> {
        let mode = kernel.mode;
        let count = match mode {
            ResizeMode::Nearest(_) => 1,
            ResizeMode::Linear => 2,
            ResizeMode::Cubic { .. } | ResizeMode::CubicSteps { .. } => 4,
            ResizeMode::Area => (source(1) - source(0)).ceil().max(1.0) as usize + 1,
        };
        let count = kernel.reach().map_or(count, |reach| (reach as usize).saturating_mul(2));
        let mut taps = Self { count, indices: Vec::new(), weights: Vec::new(), outside: Vec::new() };
        let total = to.saturating_mul(count);
        let reserved =
            taps.indices.try_reserve_exact(total).and_then(|()| taps.weights.try_reserve_exact(total));
        reserved.map_err(|_| TensorError::OutOfMemory { bytes: total })?;
        let edge = from.saturating_sub(1) as f32;
        for position in 0..to {
            let x = source(position);
            if let ResizeMode::Nearest(rounding) = mode {
                let nearest = match rounding {
                    Rounding::Floor => x.floor(),
                    Rounding::Ceil => x.ceil(),
                    Rounding::PreferFloor => (x - 0.5).ceil(),
                    Rounding::PreferCeil => (x + 0.5).floor(),
                };
                taps.push(nearest.clamp(0.0, edge), 1.0);
                continue;
            }
            let (first, t) = (x.floor(), x - x.floor());
            if let Some(reach) = kernel.reach() {
                let inside = |place: f32| (0.0..=edge).contains(&place);
                let counts = |place: f32| match mode {
                    ResizeMode::Cubic { exclude_outside: true, .. } => inside(place),
                    _ => true,
                };
                let places = || (0..count).map(|step| first + 1.0 - reach + step as f32);
                let weight = |place: f32| if counts(place) { kernel.weight(place - x) } else { 0.0 };
                let sum: f32 = places().map(weight).sum();
                for place in places() {
                    taps.push(place.clamp(0.0, edge), weight(place) / sum);
                }
                continue;
            }
            match mode {
                ResizeMode::Area => {
                    let (end, length) = (source(position + 1), source(position + 1) - x);
                    for step in 0..count {
                        let at = first + step as f32;
                        let covered = ((at + 1.0).min(end) - at.max(x)).max(0.0);
                        taps.push(at.clamp(0.0, edge), covered / length);
                    }
                }
                ResizeMode::Cubic { a, exclude_outside } | ResizeMode::CubicSteps { a, exclude_outside } => {
                    let steps = matches!(mode, ResizeMode::CubicSteps { .. });
                    let t = if steps { (t * STEPS).round() / STEPS } else { t };
                    let mut weights = cubic(a, t);
                    let places = [-1.0, 0.0, 1.0, 2.0].map(|step| first + step);
                    if exclude_outside {
                        let inside =
                            places.map(|place| if (0.0..=edge).contains(&place) { 1.0 } else { 0.0 });
                        weights.iter_mut().zip(inside).for_each(|(weight, inside)| *weight *= inside);
                        let sum: f32 = weights.iter().sum();
                        weights = weights.map(|weight| weight / sum);
                    }
                    for (place, weight) in places.into_iter().zip(weights) {
                        taps.push(place.clamp(0.0, edge), weight);
                    }
                }
                _ => {
                    taps.push(first.clamp(0.0, edge), 1.0 - t);
                    taps.push((first + 1.0).clamp(0.0, edge), t);
                }
            }
        }
        Ok(taps)
    }

    fn push(&mut self, index: f32, weight: f32) {
        self.indices.push(index as usize);
        self.weights.push(weight);
    }

    /// True when every output position is the source position of the same number.
    fn is_identity(&self) -> bool {
        let mut taps = self.indices.iter().zip(&self.weights).enumerate();
        !self.outside.contains(&true)
            && taps
                .all(|(tap, (&index, &weight))| weight == 0.0 || (weight == 1.0 && index == tap / self.count))
    }
}

/// Weights of the positions -1, 0, 1 and 2 for a point `t` after position 0.
fn cubic(a: f32, t: f32) -> [f32; 4] {
    let near = |d: f32| ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
    let far = |d: f32| ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}

/// A pass along one axis: `[outer, from, inner]` to `[outer, to, inner]`.
struct Pass {
    from: usize,
    to: usize,
    inner: usize,
    elements: usize,
    taps: Taps,
    /// The value of positions that are not computed.
    outside: f32,
}

fn passes(from: &Shape, taps: Vec<(usize, Taps)>, outside: f32) -> Result<Step, OpError> {
    let mut shape = from.clone();
    let mut passes = Vec::with_capacity(taps.len());
    for (axis, taps) in taps {
        let (before, inner) = (shape[axis], shape[axis + 1..].iter().product());
        shape[axis] = taps.indices.len() / taps.count;
        let elements = shape.checked_elements().ok_or_else(|| TensorError::TooLarge(shape.clone()))?;
        passes.push(Pass { from: before, to: shape[axis], inner, elements, taps, outside });
    }
    // All but the last pass write to scratch memory, in turns to one half and the other.
    let half = passes[..passes.len() - 1].iter().map(|pass| pass.elements).max().unwrap_or(0);
    let scratch = half.saturating_mul(2 * size_of::<f32>());
    let step = Step::arena(move |io| {
        let (x, y) = (io.input::<f32>(0)?, io.next_output::<f32>()?);
        let threads = io.context().threads;
        let Some((last, first)) = passes.split_last() else { return Ok(()) };
        if first.is_empty() {
            last.run(x, y, threads);
            return Ok(());
        }
        let (mut here, mut there) = io.scratch::<f32>()?.split_at_mut(half);
        first[0].run(x, &mut here[..first[0].elements], threads);
        let mut elements = first[0].elements;
        for pass in &first[1..] {
            pass.run(&here[..elements], &mut there[..pass.elements], threads);
            elements = pass.elements;
            std::mem::swap(&mut here, &mut there);
        }
        last.run(&here[..elements], y, threads);
        Ok(())
    });
    Ok(step.with_scratch(scratch))
}

impl Pass {
    fn run(&self, x: &[f32], y: &mut [f32], threads: &Threads) {
        if y.is_empty() {
            return;
        }
        let (inner, count) = (self.inner, self.taps.count);
        if inner == 1 && self.taps.outside.is_empty() {
            return self.lines(x, y, threads);
        }
        let rows = 4096usize.div_ceil(inner);
        threads.for_each_slice(y, rows * inner, |task, y| {
            for (row, y) in y.chunks_exact_mut(inner).enumerate() {
                let row = task * rows + row;
                let (outer, position) = (row / self.to, row % self.to);
                if self.taps.outside.get(position) == Some(&true) {
                    y.fill(self.outside);
                    continue;
                }
                let source = |tap: usize| {
                    let start = (outer * self.from + self.taps.indices[position * count + tap]) * inner;
                    (&x[start..start + inner], self.taps.weights[position * count + tap])
                };
                let ((first, weight), mut tap) = (source(0), 1);
                if count == 1 {
                    y.iter_mut().zip(first).for_each(|(y, x)| *y = x * weight);
                } else {
                    let (second, other) = source(1);
                    let pairs = first.iter().zip(second);
                    y.iter_mut().zip(pairs).for_each(|(y, (a, b))| *y = a * weight + b * other);
                    tap = 2;
                }
                for tap in tap..count {
                    let (next, weight) = source(tap);
                    y.iter_mut().zip(next).for_each(|(y, x)| *y += x * weight);
                }
            }
        });
    }

    /// The same along the last axis, whose rows have one element.
    fn lines(&self, x: &[f32], y: &mut [f32], threads: &Threads) {
        let count = self.taps.count;
        let lines = 4096usize.div_ceil(self.to);
        threads.for_each_slice(y, lines * self.to, |task, y| {
            let x = x[task * lines * self.from..].chunks_exact(self.from);
            for (x, y) in x.zip(y.chunks_exact_mut(self.to)) {
                let (indices, weights) = (&self.taps.indices, &self.taps.weights);
                let taps = indices.chunks_exact(count).zip(weights.chunks_exact(count));
                for (y, (indices, weights)) in y.iter_mut().zip(taps) {
                    *y = indices.iter().zip(weights).map(|(&at, weight)| x[at] * weight).sum();
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op, tensor::Tensor};

    fn line(mode: ResizeMode, coordinates: Coordinates, x: &[f32], size: i64) -> Vec<f32> {
        let op = Resize::new(mode, coordinates, vec![0]);
        let inputs = [Tensor::from_slice([x.len()], x).unwrap(), Tensor::from_slice([1], &[size]).unwrap()];
        run_op(op, &inputs).unwrap()[0].as_slice::<f32>().unwrap().to_vec()
    }

    fn close(a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len());
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} and {b:?}");
    }

    #[test]
    fn images_in_two_dimensions() {
        // ONNX's resize_upsample_scales_linear and its align_corners variant, as NHWC.
        let x = Tensor::from_slice([1, 2, 2, 1], &[1.0f32, 2.0, 3.0, 4.0]).unwrap();
        let op = |coordinates| Resize {
            scales: Some(vec![2.0, 2.0]),
            ..Resize::new(ResizeMode::Linear, coordinates, vec![1, 2])
        };
        let y = run_op(op(Coordinates::HalfPixel), std::slice::from_ref(&x)).unwrap();
        let expected =
            [1.0, 1.25, 1.75, 2.0, 1.5, 1.75, 2.25, 2.5, 2.5, 2.75, 3.25, 3.5, 3.0, 3.25, 3.75, 4.0];
        close(y[0].as_slice().unwrap(), &expected);
        let y = run_op(op(Coordinates::AlignCorners), std::slice::from_ref(&x)).unwrap();
        let third = 1.0 / 3.0;
        let row = |start: f32| [0.0, third, 2.0 * third, 1.0].map(|step| start + step);
        let expected = [row(1.0), row(1.0 + 2.0 * third), row(1.0 + 4.0 * third), row(3.0)].concat();
        close(y[0].as_slice().unwrap(), &expected);
    }

    #[test]
    fn coordinate_rules() {
        let linear = |coordinates, size| line(ResizeMode::Linear, coordinates, &[1.0, 2.0, 3.0, 4.0], size);
        close(&linear(Coordinates::HalfPixel, 2), &[1.5, 3.5]);
        close(&linear(Coordinates::Asymmetric, 2), &[1.0, 3.0]);
        close(&linear(Coordinates::AlignCorners, 3), &[1.0, 2.5, 4.0]);
        close(&linear(Coordinates::PytorchHalfPixel, 1), &[1.0]);
        close(&linear(Coordinates::HalfPixel, 1), &[2.5]);
        close(&linear(Coordinates::HalfPixel, 4), &[1.0, 2.0, 3.0, 4.0]);
        let nearest = |rounding, coordinates, x: &[f32], size| {
            line(ResizeMode::Nearest(rounding), coordinates, x, size)
        };
        let x = [1.0, 2.0, 3.0];
        let y = nearest(Rounding::PreferFloor, Coordinates::HalfPixel, &x, 6);
        assert_eq!(y, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
        assert_eq!(nearest(Rounding::Floor, Coordinates::TensorflowHalfPixel, &x, 2), [1.0, 3.0]);
        assert_eq!(nearest(Rounding::Floor, Coordinates::Asymmetric, &x, 2), [1.0, 2.0]);
        assert_eq!(nearest(Rounding::PreferCeil, Coordinates::AlignCorners, &x, 4), [1.0, 2.0, 2.0, 3.0]);
        assert_eq!(nearest(Rounding::Ceil, Coordinates::Asymmetric, &x, 2), [1.0, 3.0]);
    }

    #[test]
    fn cubic_weights() {
        let cubic = |exclude_outside, size| {
            let mode = ResizeMode::Cubic { a: -0.75, exclude_outside };
            line(mode, Coordinates::HalfPixel, &[1.0, 2.0, 3.0, 4.0], size)
        };
        // Keys' kernel, evaluated apart at the distances of positions 1/6, 3/2 and 17/6.
        close(&cubic(false, 3), &[1.126_157_4, 2.5, 3.873_842_6]);
        // Excluding what is outside, the weights still add up to one.
        let flat = ResizeMode::Cubic { a: -0.5, exclude_outside: true };
        close(&line(flat, Coordinates::HalfPixel, &[7.0; 5], 9), &[7.0; 9]);
        close(&cubic(false, 4), &[1.0, 2.0, 3.0, 4.0]);
    }

    /// ONNX's resize_downsample_scales_linear_antialias, and a part that reaches beyond the end.
    #[test]
    fn antialiasing_and_parts() {
        let x: Vec<f32> = (1..=16).map(|value| value as f32).collect();
        let x = Tensor::from_slice([1, 4, 4, 1], &x).unwrap();
        let op = Resize {
            scales: Some(vec![0.6, 0.6]),
            antialias: true,
            ..Resize::new(ResizeMode::Linear, Coordinates::HalfPixel, vec![1, 2])
        };
        let y = run_op(op, &[x]).unwrap();
        close(y[0].as_slice().unwrap(), &[2.875, 4.5, 9.375, 11.0]);
        let op = Resize {
            crop: Some(Crop { ranges: vec![[0.5, 1.5]], outside: 9.0 }),
            ..Resize::new(ResizeMode::Linear, Coordinates::Crop, vec![0])
        };
        let x = Tensor::from_slice([3], &[1.0f32, 2.0, 3.0]).unwrap();
        let y = run_op(op, &[x, Tensor::from_slice([1], &[5i64]).unwrap()]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [2.0, 2.5, 3.0, 9.0, 9.0]);
    }

    #[test]
    fn sizes_must_fit() {
        let op = Resize::new(ResizeMode::Nearest(Rounding::Floor), Coordinates::Asymmetric, vec![0]);
        let x = Tensor::from_slice([2], &[1u8, 2]).unwrap();
        for sizes in [&[1i64, 1][..], &[0], &[-1], &[i64::MAX]] {
            let sizes = Tensor::from_slice([sizes.len()], sizes).unwrap();
            assert!(run_op(op.clone(), &[x.clone(), sizes]).is_err());
        }
        let twice = Resize { axes: vec![0, -1], scales: Some(vec![2.0, 3.0]), ..op.clone() };
        assert!(run_op(twice, std::slice::from_ref(&x)).is_err());
        assert!(run_op(Resize { scales: Some(vec![f32::NAN]), ..op }, &[x]).is_err());
    }
}
