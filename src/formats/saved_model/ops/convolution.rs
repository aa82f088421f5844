//! Convolution, normalisation and pooling: channels come last; graphs in the other order are
//! transposed around each operator.

use super::{Outputs, one};
use crate::{
    formats::saved_model::import::{Import, Node, Stop, Value},
    graph::ValueId,
    kernels::{Binary as B, Unary as U},
    ops::{
        Fused, Padding,
        binary::Binary,
        conv::Conv,
        layout::Transpose,
        pool::{Pool, PoolKind},
        shape::{ExpandDims, Reshape},
        unary::Unary,
    },
};

const TO_CHANNELS_LAST: [usize; 4] = [0, 2, 3, 1];
const TO_CHANNELS_FIRST: [usize; 4] = [0, 3, 1, 2];

/// Adds one number per channel.
pub(super) fn bias_add(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (x, bias) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    let bias = per_channel(i, n, bias);
    one(i.b.push(Binary(B::Add), &[x, bias]))
}

/// A vector over the channels in a form that broadcasts against the images.
fn per_channel(i: &mut Import<'_, '_>, n: &Node<'_>, vector: ValueId) -> ValueId {
    match channels_first(n) {
        true => i.b.push(ExpandDims { axes: vec![1, 2] }, &[vector]),
        false => vector,
    }
}

pub(super) fn channels_first(n: &Node<'_>) -> bool {
    n.attributes.text("data_format").starts_with("NC")
}

/// Input `index` with channels last.
pub(super) fn images(i: &mut Import<'_, '_>, n: &Node<'_>, index: usize) -> Result<ValueId, Stop> {
    let x = n.tensor(i, index)?;
    Ok(match channels_first(n) {
        true => i.b.push(Transpose { perm: TO_CHANNELS_LAST.to_vec() }, &[x]),
        false => x,
    })
}

/// The result in the order of the node.
pub(super) fn images_out(i: &mut Import<'_, '_>, n: &Node<'_>, y: ValueId) -> ValueId {
    match channels_first(n) {
        true => i.b.push(Transpose { perm: TO_CHANNELS_FIRST.to_vec() }, &[y]),
        false => y,
    }
}

/// Height and width of an attribute that has a number per dimension.
pub(super) fn spatial(n: &Node<'_>, values: &[i64]) -> Result<Vec<usize>, Stop> {
    let [batch, second, third, fourth] = *values else {
        return Err(format!("expected 4 numbers, but {} are given", values.len()).into());
    };
    let (height, width, channels) =
        if channels_first(n) { (third, fourth, second) } else { (second, third, fourth) };
    let positive = |value: i64| usize::try_from(value).ok().filter(|&value| value > 0);
    match (positive(height), positive(width)) {
        (Some(height), Some(width)) if (batch, channels) == (1, 1) => Ok(vec![height, width]),
        _ => {
            Err(format!("{values:?} is not supported: 1 for batch and channels, positive for the others")
                .into())
        }
    }
}

/// The node's padding.
pub(super) fn padding(n: &Node<'_>) -> Result<Padding, Stop> {
    match n.attributes.text("padding") {
        "VALID" => Ok(Padding::Valid),
        "SAME" => Ok(Padding::SameUpper),
        "EXPLICIT" => {
            let pairs = n.attributes.ints("explicit_paddings");
            let &[_, _, a, b, c, d, e, f] = pairs else {
                return Err("explicit_paddings has not 8 numbers".into());
            };
            let [height, width] = if channels_first(n) { [(c, d), (e, f)] } else { [(a, b), (c, d)] };
            let size = |value: i64| usize::try_from(value).map_err(|_| Stop::from("a padding is negative"));
            let pair = |(before, after)| Ok::<_, Stop>((size(before)?, size(after)?));
            Ok(Padding::Explicit(vec![pair(height)?, pair(width)?]))
        }
        other => Err(format!("unknown padding \"{other}\"").into()),
    }
}

/// A depthwise filter `[h, w, c, m]` is one of `c` groups, `[h, w, 1, c m]`.
pub(super) fn conv(i: &mut Import<'_, '_>, n: &Node<'_>, depthwise: bool) -> Outputs {
    let x = images(i, n, 0)?;
    let mut filter = n.tensor(i, 1)?;
    // 0: as many groups as the filter's depth asks for.
    let mut groups = 0;
    if depthwise {
        let shape = n.constant(i, 1)?.shape().to_vec();
        let &[height, width, channels, multiplier] = shape.as_slice() else {
            return Err("the filter has not 4 dimensions".into());
        };
        let wanted = [height, width, 1, channels * multiplier].map(|dim| dim as i64);
        let wanted = i.b.integers(&wanted);
        filter = i.b.push(Reshape { zero_copies: false }, &[filter, wanted]);
        groups = channels;
    }
    let op = Conv {
        strides: spatial(n, n.attributes.ints("strides"))?,
        dilations: spatial(n, n.attributes.ints("dilations"))?,
        padding: padding(n)?,
        groups,
        fused: Fused::default(),
    };
    let y = i.b.push(op, &[x, filter]);
    one(images_out(i, n, y))
}

/// `(x - mean) scale / sqrt(variance + epsilon) + offset` as one product and one sum, whose
/// factors are constants where the statistics are.
pub(super) fn batch_norm(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    if n.attributes.flag("is_training") {
        return Err("is_training is set; export the model for inference".into());
    }
    let [x, scale, offset] = [n.tensor(i, 0)?, n.tensor(i, 1)?, n.tensor(i, 2)?];
    let [mean, variance] = [n.tensor(i, 3)?, n.tensor(i, 4)?];
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
    Ok(vec![Value::Tensor(y), Value::Tensor(mean), Value::Tensor(variance)])
}

/// Window and strides are attributes, or inputs in the second version of the operator.
pub(super) fn pool(i: &mut Import<'_, '_>, n: &Node<'_>, kind: PoolKind) -> Outputs {
    let (window, strides) = match n.inputs.len() {
        0 | 1 => (n.attributes.ints("ksize").to_vec(), n.attributes.ints("strides").to_vec()),
        _ => (n.integers(i, 1)?, n.integers(i, 2)?),
    };
    let x = images(i, n, 0)?;
    let op = Pool {
        kind,
        window: spatial(n, &window)?,
        strides: spatial(n, &strides)?,
        dilations: Vec::new(),
        padding: padding(n)?,
        ceil: false,
    };
    let y = i.b.push(op, &[x]);
    one(images_out(i, n, y))
}
