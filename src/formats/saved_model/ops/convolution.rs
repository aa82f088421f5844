//! Convolution, normalisation and pooling: channels come last; graphs in the other order are
//! transposed around each operator.

use super::{Outputs, one};
use crate::{
    formats::saved_model::import::{Import, Node, Stop, Value},
    graph::ValueId,
    kernels::{Binary as B, Reduce as R, Unary as U},
    ops::{
        Fused, Padding,
        binary::Binary,
        cast::Cast,
        conv::Conv,
        conv_transpose::ConvTranspose,
        join::Concat,
        layout::Transpose,
        norm::Lrn,
        pool::{Pool, PoolKind},
        reduce::Reduce,
        shape::{ExpandDims, Reshape, ShapeOf},
        slice::SliceSize,
        unary::Unary,
    },
    tensor::DType,
};

/// Adds one number per channel.
pub(super) fn bias_add(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (x, bias) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    let bias = per_channel(i, n, bias);
    one(i.b.push(Binary(B::Add), &[x, bias]))
}

/// A vector over the channels in a form that broadcasts against the images.
fn per_channel(i: &mut Import<'_, '_>, n: &Node<'_>, vector: ValueId) -> ValueId {
    match channels_first(n) {
        true => {
            // Behind the channels stand as many dimensions as the format names: NCHW, NCDHW.
            let spatial = n.attributes.text("data_format").len() as i64 - 2;
            i.b.push(ExpandDims { axes: (1..=spatial).collect() }, &[vector])
        }
        false => vector,
    }
}

pub(super) fn channels_first(n: &Node<'_>) -> bool {
    n.attributes.text("data_format").starts_with("NC")
}

/// Dimensions of the node's images, batch and channels included.
fn rank(n: &Node<'_>) -> usize {
    n.attributes.text("data_format").len()
}

/// Input `index` with channels last, as `float`.
pub(super) fn images(i: &mut Import<'_, '_>, n: &Node<'_>, index: usize) -> Result<ValueId, Stop> {
    let x = n.tensor(i, index)?;
    Ok(match channels_first(n) {
        true => {
            let perm = [0].into_iter().chain(2..rank(n)).chain([1]).collect();
            i.b.push(Transpose { perm }, &[x])
        }
        false => x,
    })
}

/// The result in the order of the node.
pub(super) fn images_out(i: &mut Import<'_, '_>, n: &Node<'_>, y: ValueId) -> ValueId {
    match channels_first(n) {
        true => {
            let perm = [0, rank(n) - 1].into_iter().chain(1..rank(n) - 1).collect();
            i.b.push(Transpose { perm }, &[y])
        }
        false => y,
    }
}

/// The spatial dimensions of an attribute that has a number per dimension.
pub(super) fn spatial(n: &Node<'_>, values: &[i64]) -> Result<Vec<usize>, Stop> {
    let unsupported =
        || format!("{values:?} is not supported: 1 for batch and channels, positive for the others");
    // The default of volumes' dilations is that of images.
    let (batch, channels, spatial) = match values {
        [batch, spatial @ .., channels] if !channels_first(n) => (batch, channels, spatial),
        [batch, channels, spatial @ ..] => (batch, channels, spatial),
        _ => return Err(unsupported().into()),
    };
    let positive = |value: &i64| usize::try_from(*value).ok().filter(|&value| value > 0);
    let sizes = spatial.iter().map(positive).collect::<Option<Vec<usize>>>();
    match sizes {
        Some(sizes) if (*batch, *channels) == (1, 1) => Ok(sizes),
        _ => Err(unsupported().into()),
    }
}

/// The node's padding.
pub(super) fn padding(n: &Node<'_>) -> Result<Padding, Stop> {
    match n.attributes.text("padding") {
        "VALID" => Ok(Padding::Valid),
        "SAME" => Ok(Padding::SameUpper),
        "EXPLICIT" => {
            let pairs = n.attributes.ints("explicit_paddings");
            let pairs = pairs.as_chunks::<2>().0;
            let spatial = match (pairs.len().checked_sub(1), channels_first(n)) {
                (Some(last), false) => pairs.get(1..last),
                (_, _) => pairs.get(2..),
            };
            let size = |value: i64| usize::try_from(value).map_err(|_| Stop::from("a padding is negative"));
            let pair = |&[before, after]: &[i64; 2]| Ok::<_, Stop>((size(before)?, size(after)?));
            let spatial = spatial.ok_or("explicit_paddings has not two numbers per dimension")?;
            Ok(Padding::Explicit(spatial.iter().map(pair).collect::<Result<_, _>>()?))
        }
        other => Err(format!("unknown padding \"{other}\"").into()),
    }
}

/// A depthwise filter `[h, w, c, m]` is one of `c` groups, `[h, w, 1, c m]`.
pub(super) fn conv(i: &mut Import<'_, '_>, n: &Node<'_>, depthwise: bool) -> Outputs {
    let x = images(i, n, 0)?;
    let x = as_float(i, n, x);
    let filter = n.tensor(i, 1)?;
    let mut filter = as_float(i, n, filter);
    // 0: as many groups as the filter's depth asks for.
    let mut groups = 0;
    if depthwise {
        (filter, groups) = depthwise_filter(i, filter)?;
    }
    let spatial_rank = rank(n) - 2;
    let op = Conv {
        strides: spatial(n, n.attributes.ints("strides"))?,
        dilations: dilations(n, spatial_rank)?,
        padding: padding(n)?,
        groups,
        fused: Fused::default(),
    };
    let y = i.b.push(op, &[x, filter]);
    let y = images_out(i, n, y);
    one(super::arrays::from_float(i, n, y)?)
}

/// Half precision and `double` are computed in `float`.
fn as_float(i: &mut Import<'_, '_>, n: &Node<'_>, x: ValueId) -> ValueId {
    match n.attributes.dtype("T") {
        Some(DType::F32) | None => x,
        Some(_) => i.b.push(Cast { to: DType::F32 }, &[x]),
    }
}

fn dilations(n: &Node<'_>, rank: usize) -> Result<Vec<usize>, Stop> {
    let dilations = spatial(n, n.attributes.ints("dilations"))?;
    // Stripped, they are 1 whatever the rank.
    Ok(if dilations.len() == rank { dilations } else { Vec::new() })
}

/// `[h, w, c, m]` to `[h, w, 1, c m]`, and the number of groups where it is known: else it follows
/// from the depth.
fn depthwise_filter(i: &mut Import<'_, '_>, filter: ValueId) -> Result<(ValueId, usize), Stop> {
    let reshape = Reshape { zero_copies: false };
    let Some(known) = i.b.known_value(filter) else {
        let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[filter]);
        let (start, length) = (i.b.integers(&[0]), i.b.integers(&[2]));
        let window = i.b.push(SliceSize, &[shape, start, length]);
        let rest = i.b.integers(&[1, -1]);
        let shape = i.b.push(Concat { axis: 0 }, &[window, rest]);
        return Ok((i.b.push(reshape, &[filter, shape]), 0));
    };
    let &[height, width, channels, multiplier] = &known.shape()[..] else {
        return Err("the filter has not 4 dimensions".into());
    };
    let wanted = [height, width, 1, channels * multiplier].map(|dim| dim as i64);
    let wanted = i.b.integers(&wanted);
    Ok((i.b.push(reshape, &[filter, wanted]), channels))
}

/// Inputs: the sizes of the result, the filter of the convolution, and what it would have made.
pub(super) fn conv_transpose(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let x = images(i, n, 2)?;
    let x = as_float(i, n, x);
    let filter = n.tensor(i, 1)?;
    let mut filter = as_float(i, n, filter);
    let mut groups = 1;
    let spatial_rank = rank(n) - 2;
    if n.def.op.starts_with("Depthwise") {
        (filter, groups) = depthwise_filter(i, filter)?;
        // Each group has its m inputs as depth and one output: [h, w, 1, c m] to [h, w, m, c].
        let multiplier = n.constant(i, 1)?.shape()[3] as i64;
        let shape = n.constant(i, 1)?.shape().to_vec();
        let split = [shape[0] as i64, shape[1] as i64, groups as i64, multiplier];
        let split = i.b.integers(&split);
        filter = i.b.push(Reshape { zero_copies: false }, &[filter, split]);
    }
    // From [.., outputs, inputs] to [.., inputs, outputs].
    let mut perm: Vec<usize> = (0..spatial_rank + 2).collect();
    perm.swap(spatial_rank, spatial_rank + 1);
    let filter = i.b.push(Transpose { perm }, &[filter]);
    let sizes = n.tensor(i, 0)?;
    let first = if channels_first(n) { 2 } else { 1 };
    let (start, length) = (i.b.integers(&[first]), i.b.integers(&[spatial_rank as i64]));
    let sizes = i.b.push(SliceSize, &[sizes, start, length]);
    let op = ConvTranspose {
        strides: spatial(n, n.attributes.ints("strides"))?,
        dilations: dilations(n, spatial_rank)?,
        padding: padding(n)?,
        extra: Vec::new(),
        groups,
        sized: true,
    };
    let y = i.b.push(op, &[x, filter, sizes]);
    let y = images_out(i, n, y);
    one(super::arrays::from_float(i, n, y)?)
}

/// `(x - mean) scale / sqrt(variance + epsilon) + offset` as one product and one sum, whose
/// factors are constants where the statistics are.
pub(super) fn batch_norm(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let x = n.tensor(i, 0)?;
    let x = as_float(i, n, x);
    let [scale, offset] = [n.tensor(i, 1)?, n.tensor(i, 2)?];
    let [mean, variance] = match n.attributes.flag("is_training") {
        false => [n.tensor(i, 3)?, n.tensor(i, 4)?],
        true => moments(i, n, x),
    };
    let epsilon = i.b.scalar(n.attributes.float("epsilon"));
    let b = &mut i.b;
    let stabilised = b.push(Binary(B::Add), &[variance, epsilon]);
    let inverse = b.push(Unary(U::Rsqrt), &[stabilised]);
    let factor = b.push(Binary(B::Mul), &[scale, inverse]);
    let shift = b.push(Binary(B::Mul), &[mean, factor]);
    let shift = b.push(Binary(B::Sub), &[offset, shift]);
    let (factor, shift) = (per_channel(i, n, factor), per_channel(i, n, shift));
    let y = i.b.push(Binary(B::Mul), &[x, factor]);
    let y = i.b.push(Binary(B::Add), &[y, shift]);
    let y = super::arrays::from_float(i, n, y)?;
    Ok(vec![Value::Tensor(y), Value::Tensor(mean), Value::Tensor(variance)])
}

/// Mean and variance of each channel over the batch and the images, for models that normalise by
/// what they are given.
fn moments(i: &mut Import<'_, '_>, n: &Node<'_>, x: ValueId) -> [ValueId; 2] {
    let others =
        (0..rank(n) as i64).filter(|&axis| axis != if channels_first(n) { 1 } else { rank(n) as i64 - 1 });
    let axes: Option<Vec<i64>> = Some(others.collect());
    let mean_over = |i: &mut Import<'_, '_>, value, keep_dims| {
        i.b.push(Reduce { kind: R::Mean, axes: axes.clone(), keep_dims }, &[value])
    };
    let mean = mean_over(i, x, true);
    let distance = i.b.push(Binary(B::SquaredDifference), &[x, mean]);
    [mean_over(i, x, false), mean_over(i, distance, false)]
}

/// Window and strides are attributes, or inputs in the second version of the operator.
pub(super) fn pool(i: &mut Import<'_, '_>, n: &Node<'_>, kind: PoolKind) -> Outputs {
    let (window, strides) = match n.inputs.len() {
        0 | 1 => (n.attributes.ints("ksize").to_vec(), n.attributes.ints("strides").to_vec()),
        _ => (n.integers(i, 1)?, n.integers(i, 2)?),
    };
    let x = images(i, n, 0)?;
    let x = as_float(i, n, x);
    let op = Pool {
        kind,
        window: spatial(n, &window)?,
        strides: spatial(n, &strides)?,
        dilations: Vec::new(),
        padding: padding(n)?,
        ceil: false,
    };
    let y = i.b.push(op, &[x]);
    let y = images_out(i, n, y);
    one(super::arrays::from_float(i, n, y)?)
}

pub(super) fn lrn(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let radius = usize::try_from(n.attributes.int("depth_radius")).map_err(|_| "depth_radius is negative")?;
    let [bias, alpha, beta] = ["bias", "alpha", "beta"].map(|name| n.attributes.float(name));
    super::apply(i, n, Lrn { before: radius, after: radius, bias, alpha, beta }, 1)
}
