//! Convolution, pooling and scaling. candle's are channels first with one padding, stride and dilation for both axes;
//! the border is made before, and what then still differs is said when the model is planned.

use super::{
    products::finish,
    step::{Known, Step, failed, lacking, one},
};
use crate::{
    graph::evaluate::evaluate,
    ops::{
        OpError,
        conv::Conv,
        conv_transpose::ConvTranspose,
        pool::{Pool, PoolKind},
        resize::Resize,
        window::Axis,
    },
    tensor::{DType, Tensor as Host},
};
use candle_core::{self as candle, Tensor};

/// A window over an image; a sequence is an image of one row.
#[derive(Clone, Copy)]
struct Window {
    rows: Axis,
    columns: Axis,
    /// The input has no rows.
    flat: bool,
}

impl Window {
    fn new(axes: &[Axis]) -> Result<Self, OpError> {
        let one = Axis { input: 1, output: 1, window: 1, stride: 1, dilation: 1, before: 0, after: 0 };
        match axes {
            [columns] => Ok(Self { rows: one, columns: *columns, flat: true }),
            [rows, columns] => Ok(Self { rows: *rows, columns: *columns, flat: false }),
            _ => Err(lacking("windows over three dimensions")),
        }
    }

    /// The one stride of both axes.
    fn stride(&self) -> Result<usize, OpError> {
        match (self.rows.stride, self.columns.stride) {
            (rows, columns) if rows == columns || self.rows.input == 1 && self.rows.window == 1 => {
                Ok(columns)
            }
            _ => Err(lacking("convolutions whose strides differ")),
        }
    }

    fn dilation(&self) -> Result<usize, OpError> {
        match (self.rows.dilation, self.columns.dilation) {
            (rows, columns) if rows == columns || self.rows.window == 1 => Ok(columns),
            (rows, _) if self.columns.window == 1 => Ok(rows),
            _ => Err(lacking("convolutions whose dilations differ")),
        }
    }

    /// `[batch, rows, columns, channels]`.
    fn image(&self, x: Tensor) -> candle::Result<Tensor> {
        if self.flat { x.unsqueeze(1) } else { Ok(x) }
    }

    /// Channels last to channels first.
    fn channels_first(&self, x: Tensor) -> candle::Result<Tensor> {
        self.image(x)?.permute((0, 3, 1, 2))
    }

    /// Channels first to the shape of the output.
    fn channels_last(&self, y: &Tensor, dims: &[usize]) -> candle::Result<Tensor> {
        y.permute((0, 2, 3, 1))?.contiguous()?.reshape(dims)
    }
}

/// `x` with `before` and `after` elements of `value` along an axis.
fn bordered(x: &Tensor, axis: usize, before: usize, after: usize, value: f64) -> candle::Result<Tensor> {
    if before == 0 && after == 0 {
        return Ok(x.clone());
    }
    if value == 0.0 {
        return x.pad_with_zeros(axis, before, after);
    }
    let border = |len: usize| {
        let mut dims = x.dims().to_vec();
        dims[axis] = len;
        Tensor::full(value as f32, dims, x.device())?.to_dtype(x.dtype())
    };
    let mut parts = Vec::with_capacity(3);
    if before > 0 {
        parts.push(border(before)?);
    }
    parts.push(x.clone());
    if after > 0 {
        parts.push(border(after)?);
    }
    Tensor::cat(&parts, axis)
}

/// Elements that windows reach behind the input.
fn reach(axis: &Axis) -> usize {
    let span = (axis.window - 1) * axis.dilation + 1;
    ((axis.output.max(1) - 1) * axis.stride + span).saturating_sub(axis.before + axis.input)
}

pub(super) fn conv(op: &Conv, known: &Known<'_>) -> Result<Step, OpError> {
    let (x, w) = (known.inputs[0].dims(), known.inputs[1].dims());
    let spatial = &x[1..x.len() - 1];
    let axes = op.padding.axes(spatial, &w[..spatial.len()], &op.strides, &op.dilations, false)?;
    let window = Window::new(&axes)?;
    let (channels, depth, filters) = (x[x.len() - 1], w[w.len() - 2], w[w.len() - 1]);
    let groups = if depth == 0 { 1 } else { channels / depth };
    let (dims, fused) = (known.dims(), op.fused);
    if depth == 1 && filters == channels && channels > 1 {
        return depthwise(window, channels, op, known);
    }
    let (stride, dilation) = (window.stride()?, window.dilation()?);
    let arrange = move |w: Tensor| {
        let w = if window.flat { w.unsqueeze(0)? } else { w };
        w.permute((3, 2, 0, 1))?.contiguous()
    };
    let prepared = known.constant(1, "convolution", &arrange)?;
    let (rows, columns) = (window.rows, window.columns);
    let even = [rows.before, rows.after, columns.before, columns.after];
    let even = even.iter().all(|pad| *pad == even[0]).then_some(even[0]);
    one(move |inputs| {
        let mut x = window.channels_first(inputs.at(0)?)?;
        if even.is_none() {
            x = bordered(&x, 2, rows.before, reach(&rows), 0.0)?;
            x = bordered(&x, 3, columns.before, reach(&columns), 0.0)?;
        }
        let w = match &prepared {
            Some(w) => w.clone(),
            None => arrange(inputs.at(1)?)?,
        };
        let y = x.contiguous()?.conv2d(&w, even.unwrap_or(0), stride, dilation, groups)?;
        finish(fused, window.channels_last(&y, &dims)?, inputs)
    })
}

/// One filter per channel: a sum of shifted products, for candle would run a convolution per channel.
fn depthwise(window: Window, channels: usize, op: &Conv, known: &Known<'_>) -> Result<Step, OpError> {
    let Window { rows, columns, .. } = window;
    let (dims, fused) = (known.dims(), op.fused);
    // [taps, channels]
    let taps = rows.window * columns.window;
    let arrange = move |w: Tensor| w.reshape((taps, channels));
    let prepared = known.constant(1, "depthwise", &arrange)?;
    let shifted = |axis: Axis| {
        // Long enough for whole strides at every shift.
        let last = (axis.window - 1) * axis.dilation;
        let len = (last / axis.stride + axis.output) * axis.stride + axis.stride;
        (len, len.saturating_sub(axis.before + axis.input))
    };
    let ((height, below), (width, right)) = (shifted(rows), shifted(columns));
    one(move |inputs| {
        let x = window.image(inputs.at(0)?)?;
        let batch = x.dim(0)?;
        let x = bordered(&bordered(&x, 1, rows.before, below, 0.0)?, 2, columns.before, right, 0.0)?;
        let x = x.narrow(1, 0, height)?.narrow(2, 0, width)?.contiguous()?;
        let split =
            [batch, height / rows.stride, rows.stride, width / columns.stride, columns.stride, channels];
        let x = x.reshape(split.as_slice())?;
        let w = match &prepared {
            Some(w) => w.clone(),
            None => arrange(inputs.at(1)?)?,
        };
        let mut sum: Option<Tensor> = None;
        for tap in 0..taps {
            let (row, column) =
                (tap / columns.window * rows.dilation, tap % columns.window * columns.dilation);
            let part = x.narrow(1, row / rows.stride, rows.output)?.narrow(2, row % rows.stride, 1)?;
            let part = part.narrow(3, column / columns.stride, columns.output)?;
            let part = part.narrow(4, column % columns.stride, 1)?.squeeze(4)?.squeeze(2)?;
            let product = part.broadcast_mul(&w.get(tap)?)?;
            sum = Some(match sum {
                Some(sum) => (sum + product)?,
                None => product,
            });
        }
        let sum = sum.ok_or_else(|| candle::Error::Msg("a window without elements".into()))?;
        finish(fused, sum.reshape(dims.as_slice())?, inputs)
    })
}

pub(super) fn conv_transpose(op: &ConvTranspose, known: &Known<'_>) -> Result<Step, OpError> {
    let (x, w, y) = (known.inputs[0].dims(), known.inputs[1].dims(), known.dims());
    let spatial = &y[1..y.len() - 1];
    // The convolution whose transpose it is leads from the result to `x`.
    let axes = op.padding.axes(spatial, &w[..spatial.len()], &op.strides, &op.dilations, false)?;
    let window = Window::new(&axes)?;
    let (stride, dilation) = (window.stride()?, window.dilation()?);
    let groups = op.groups.max(1);
    let (depth, filters) = (x[x.len() - 1] / groups, w[w.len() - 1] / groups);
    let arrange = move |w: Tensor| {
        let w = if window.flat { w.unsqueeze(0)? } else { w };
        // [in, out, rows, columns]
        w.permute((2, 3, 0, 1))?.contiguous()
    };
    let prepared = known.constant(1, "transposed convolution", &arrange)?;
    let (rows, columns) = (window.rows, window.columns);
    one(move |inputs| {
        let x = window.channels_first(inputs.at(0)?)?.contiguous()?;
        let w = match &prepared {
            Some(w) => w.clone(),
            None => arrange(inputs.at(1)?)?,
        };
        let parts = (0..groups).map(|group| {
            let x = x.narrow(1, group * depth, depth)?.contiguous()?;
            let w = w.narrow(1, group * filters, filters)?.contiguous()?;
            x.conv_transpose2d(&w, 0, 0, stride, dilation)
        });
        let mut whole = Tensor::cat(&parts.collect::<candle::Result<Vec<_>>>()?, 1)?;
        for (axis, place) in [(2, rows), (3, columns)] {
            let missing = (place.before + place.input).saturating_sub(whole.dim(axis)?);
            whole = bordered(&whole, axis, 0, missing, 0.0)?.narrow(axis, place.before, place.input)?;
        }
        window.channels_last(&whole, &y)
    })
}

pub(super) fn pool(op: &Pool, known: &Known<'_>) -> Result<Step, OpError> {
    let x = known.inputs[0].dims();
    let spatial = &x[1..x.len() - 1];
    let axes = op.padding.axes(spatial, &op.window, &op.strides, &op.dilations, op.ceil)?;
    let window = Window::new(&axes)?;
    let (rows, columns) = (window.rows, window.columns);
    if rows.dilation != 1 || columns.dilation != 1 {
        return Err(lacking("pooling with dilation"));
    }
    let (size, stride) = ((rows.window, columns.window), (rows.stride, columns.stride));
    let dims = known.dims();
    let with_border = move |x: &Tensor, value: f64| {
        let x = bordered(x, 2, rows.before, reach(&rows), value)?;
        bordered(&x, 3, columns.before, reach(&columns), value)
    };
    let counted = match op.kind {
        PoolKind::Max => {
            return one(move |inputs| {
                let x = with_border(&window.channels_first(inputs.at(0)?)?, f64::from(f32::MIN))?;
                let y = x.contiguous()?.max_pool2d_with_stride(size, stride)?;
                window.channels_last(&y, &dims)
            });
        }
        PoolKind::Average { count_include_pad } => count_include_pad,
    };
    // The share of each window that counts.
    let share = || {
        let ones = Tensor::ones((1, 1, rows.input, columns.input), candle::DType::F32, known.device)?;
        let ones = match counted {
            true => bordered(
                &bordered(&ones, 2, rows.before, rows.after, 1.0)?,
                3,
                columns.before,
                columns.after,
                1.0,
            )?,
            false => bordered(&bordered(&ones, 2, rows.before, 0, 0.0)?, 3, columns.before, 0, 0.0)?,
        };
        let missing = |axis: usize, place: &Axis| -> candle::Result<usize> {
            Ok((place.before + place.input + reach(place)).saturating_sub(ones.dim(axis)?))
        };
        let (below, right) = (missing(2, &rows)?, missing(3, &columns)?);
        let ones = bordered(&bordered(&ones, 2, 0, below, 0.0)?, 3, 0, right, 0.0)?;
        ones.avg_pool2d_with_stride(size, stride)?.narrow(2, 0, rows.output)?.narrow(3, 0, columns.output)
    };
    let share: Tensor = share().map_err(failed)?;
    one(move |inputs| {
        let x = with_border(&window.channels_first(inputs.at(0)?)?, 0.0)?;
        let y = x.contiguous()?.avg_pool2d_with_stride(size, stride)?.broadcast_div(&share)?;
        window.channels_last(&y, &dims)
    })
}

/// Scaling is linear and separable: a product with a matrix along each axis, which this crate's operator makes of the
/// unit matrix.
pub(super) fn resize(op: &Resize, known: &Known<'_>) -> Result<Step, OpError> {
    let (from, to) = (known.inputs[0].dims().to_vec(), known.dims());
    if !known.inputs[0].dtype.is_float() {
        return Err(lacking("scaling of integers"));
    }
    let given = known.inputs.get(1).and_then(|fact| fact.value.as_ref());
    let mut products = Vec::new();
    for (place, &axis) in op.axes.iter().enumerate() {
        let axis = known.inputs[0].shape.axis(axis).ok_or(OpError::Memory("an axis"))?;
        let len = from[axis];
        let mut unit = vec![0.0f32; len * len];
        unit.iter_mut().step_by(len + 1).for_each(|element| *element = 1.0);
        let unit = Host::from_slice([len, len], &unit)?;
        let scales = op.scales.as_ref().and_then(|scales| scales.get(place)).map(|&scale| vec![scale]);
        let scale = match given {
            Some(given) if given.dtype() == DType::F32 => {
                let scale = given.as_slice::<f32>()?.get(place).copied().ok_or(OpError::Memory("a scale"))?;
                Some(Host::from_slice([1], &[scale])?)
            }
            Some(_) => Some(Host::from_slice([1], &[to[axis] as i64])?),
            None => None,
        };
        let along = Resize { axes: vec![0], scales, ..op.clone() };
        let inputs: Vec<Host> = [unit].into_iter().chain(scale).collect();
        let matrix = evaluate(known.machine, &along.into(), &inputs)?;
        let matrix = matrix.first().ok_or(OpError::Memory("an output"))?;
        products.push((axis, super::convert::upload(matrix, known.device)?));
    }
    one(move |inputs| {
        let mut x = inputs.at(0)?;
        for (axis, matrix) in &products {
            let front = x.transpose(0, *axis)?.contiguous()?;
            let mut dims = front.dims().to_vec();
            let rows = front.reshape((dims[0], ()))?.to_dtype(candle::DType::F32)?;
            dims[0] = matrix.dim(0)?;
            x = matrix.matmul(&rows)?.to_dtype(x.dtype())?.reshape(dims.as_slice())?.transpose(0, *axis)?;
        }
        x.contiguous()
    })
}
