//! Operators that slide windows over images. ONNX has channels first, kinglet last.

use super::{Outputs, math, one};
use crate::{
    formats::onnx::{
        import::Import,
        node::{Node, Stop, sizes},
    },
    graph::ValueId,
    kernels::{self, Binary as B, Reduce as R, Threads, TransposePlan, Unary as U},
    ops::{
        Fused, Padding,
        binary::Binary,
        conv::Conv,
        conv_transpose::ConvTranspose,
        join::Concat,
        layout::Transpose,
        pool::{Pool, PoolKind},
        reduce::Reduce,
        shape::{Reshape, ShapeOf},
        slice::Slice,
        unary::Unary,
    },
    tensor::{AlignedVec, DType, Shape, Tensor},
};

/// The axes of `[n, c, space..]` with channels last.
fn to_channels_last(rank: usize) -> Vec<usize> {
    [0].into_iter().chain(2..rank).chain([1]).collect()
}

/// The axes of `[n, space.., c]` with channels first.
fn to_channels_first(rank: usize) -> Vec<usize> {
    [0, rank - 1].into_iter().chain(1..rank - 1).collect()
}

/// A value with its axes in another order; a constant at once.
pub(super) fn transposed(i: &mut Import<'_>, x: ValueId, perm: Vec<usize>) -> ValueId {
    if perm.iter().enumerate().all(|(axis, &from)| axis == from) {
        return x;
    }
    if let Some(tensor) = i.b.constant_value(x)
        && let Some(tensor) = transposed_tensor(tensor, &perm)
    {
        return i.b.constant(tensor);
    }
    i.b.push(Transpose { perm }, &[x])
}

fn transposed_tensor(tensor: &Tensor, perm: &[usize]) -> Option<Tensor> {
    let size = tensor.dtype().size()?;
    if perm.len() != tensor.shape().len() {
        return None;
    }
    let shape: Shape = perm.iter().map(|&axis| tensor.shape()[axis]).collect();
    let plan = TransposePlan::new(tensor.shape(), perm).ok()?;
    if plan.is_copy() {
        return tensor.reshaped(shape).ok();
    }
    let (dtype, source) = (tensor.dtype(), tensor.clone());
    Tensor::reordered(tensor, perm, move || {
        let tensor = source.fresh();
        let mut out = AlignedVec::<u8>::zeroed(tensor.memory()).ok()?;
        kernels::transpose_bytes(&plan, size, tensor.as_bytes(), out.as_mut_slice(), &Threads::single())
            .ok()?;
        tensor.release();
        Tensor::from_buffer(dtype, shape.clone(), out.freeze()).ok()
    })
}

/// Applies `make` to images with channels last.
pub(super) fn channels_last<'a>(
    i: &mut Import<'a>,
    x: ValueId,
    rank: usize,
    make: impl FnOnce(&mut Import<'a>, ValueId) -> Result<ValueId, Stop>,
) -> Result<ValueId, Stop> {
    if rank < 2 {
        return Err(format!("an input of rank {rank} has no channels").into());
    }
    let x = transposed(i, x, to_channels_last(rank));
    let y = make(i, x)?;
    Ok(transposed(i, y, to_channels_first(rank)))
}

/// The node's padding for this number of spatial dimensions.
pub(super) fn padding(n: &Node<'_>, space: usize) -> Result<Padding, Stop> {
    match n.attributes.text("auto_pad", "NOTSET") {
        "SAME_UPPER" => return Ok(Padding::SameUpper),
        "SAME_LOWER" => return Ok(Padding::SameLower),
        "VALID" => return Ok(Padding::Valid),
        "NOTSET" | "" => {}
        other => return Err(format!("unknown auto_pad \"{other}\"").into()),
    }
    let Some(pads) = n.attributes.ints("pads") else { return Ok(Padding::Valid) };
    if pads.len() != 2 * space {
        return Err(format!("{} pads for {space} spatial dimensions", pads.len()).into());
    }
    let size = |pad: i64| usize::try_from(pad).map_err(|_| Stop::Reason(format!("a padding of {pad}")));
    let (before, after) = pads.split_at(space);
    let pairs = before.iter().zip(after).map(|(&before, &after)| Ok((size(before)?, size(after)?)));
    Ok(Padding::Explicit(pairs.collect::<Result<_, Stop>>()?))
}

/// Strides or dilations; empty where the node has none.
pub(super) fn steps(n: &Node<'_>, name: &str) -> Result<Vec<usize>, Stop> {
    sizes(name, n.attributes.ints(name).unwrap_or_default())
}

/// The rank that the filter, the node's window or the input tells.
pub(super) fn image_rank<'a>(
    i: &mut Import<'a>,
    n: &Node<'a>,
    filter: Option<ValueId>,
) -> Result<usize, Stop> {
    if let Some(window) = n.attributes.ints("kernel_shape") {
        return Ok(window.len() + 2);
    }
    if let Some(dims) = filter.and_then(|filter| i.dims(filter)) {
        return Ok(dims.len());
    }
    i.rank(n.tensor(0)?)
}

pub(super) fn conv<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (x, filter, bias) = (n.tensor(0)?, n.tensor(1)?, n.optional(2)?);
    let rank = image_rank(i, n, Some(filter))?;
    if rank < 3 {
        return Err(format!("a convolution of rank {rank}").into());
    }
    let groups = usize::try_from(n.attributes.int("group", 1)).ok().filter(|&groups| groups > 0);
    let op = Conv {
        strides: steps(n, "strides")?,
        dilations: steps(n, "dilations")?,
        padding: padding(n, rank - 2)?,
        groups: groups.ok_or("group is not positive")?,
        fused: Fused { bias: bias.is_some(), ..Fused::default() },
    };
    // [o, c, space..] to [space.., c, o]
    let filter = transposed(i, filter, (2..rank).chain([1, 0]).collect());
    one(channels_last(i, x, rank, |i, x| {
        let inputs: Vec<ValueId> = [x, filter].into_iter().chain(bias).collect();
        Ok(math::in_float(i, op, &inputs))
    })?)
}

pub(super) fn pool<'a>(i: &mut Import<'a>, n: &Node<'a>, kind: PoolKind) -> Outputs {
    let x = n.tensor(0)?;
    let window = n.attributes.ints("kernel_shape").ok_or("kernel_shape is missing")?;
    if n.has_output(1) {
        return Err("the positions of maxima are not supported".into());
    }
    let rank = window.len() + 2;
    let op = Pool {
        kind,
        window: sizes("kernel_shape", window)?,
        strides: steps(n, "strides")?,
        dilations: steps(n, "dilations")?,
        padding: padding(n, window.len())?,
        ceil: n.attributes.flag("ceil_mode"),
    };
    one(channels_last(i, x, rank, |i, x| Ok(math::in_float(i, op, &[x])))?)
}

/// Over all of the space.
pub(super) fn global_pool<'a>(i: &mut Import<'a>, n: &Node<'a>, kind: R) -> Outputs {
    let x = n.tensor(0)?;
    let rank = i.rank(x)?;
    let axes = (1..rank as i64 - 1).collect();
    one(channels_last(i, x, rank, |i, x| {
        Ok(i.b.push(Reduce { kind, axes: Some(axes), keep_dims: true }, &[x]))
    })?)
}

/// The filter's output channels are those of one group: `[c, o / groups, space..]`.
pub(super) fn conv_transpose<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (x, filter, bias) = (n.tensor(0)?, n.tensor(1)?, n.optional(2)?);
    let rank = image_rank(i, n, Some(filter))?;
    if !(3..=5).contains(&rank) {
        return Err(format!("a transposed convolution of rank {rank}").into());
    }
    let groups = usize::try_from(n.attributes.int("group", 1)).ok().filter(|&groups| groups > 0);
    let groups = groups.ok_or("group is not positive")?;
    let output_shape =
        n.attributes.ints("output_shape").map(|shape| &shape[shape.len().saturating_sub(rank - 2)..]);
    let extra = n.attributes.ints("output_padding").unwrap_or_default();
    let extra = extra.iter().map(|&extra| usize::try_from(extra)).collect::<Result<Vec<_>, _>>();
    // Without a word about it, what is too much for the shape is cut off at both ends.
    let padding = match (output_shape, padding(n, rank - 2)?) {
        (Some(_), Padding::Valid | Padding::Explicit(_)) => Padding::SameUpper,
        (_, padding) => padding,
    };
    let op = ConvTranspose {
        strides: steps(n, "strides")?,
        dilations: steps(n, "dilations")?,
        padding,
        extra: extra.map_err(|_| "output_padding is negative")?,
        groups,
        sized: output_shape.is_some(),
    };
    // [g c, o, space..] to [g, c, o, space..] to [space.., c, g, o] to [space.., c, g o]
    let grouped = i.b.integers(&[groups as i64, -1]);
    let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[filter]);
    let (one_axis, all) = (i.b.integers(&[1]), i.b.integers(&[i64::MAX]));
    let rest = i.b.push(Slice, &[shape, one_axis, all]);
    let grouped = i.b.push(Concat { axis: 0 }, &[grouped, rest]);
    let filter = i.b.push(Reshape { zero_copies: false }, &[filter, grouped]);
    let filter = i.folded(filter);
    let filter = transposed(i, filter, (3..rank + 1).chain([1, 0, 2]).collect());
    let flat = i.b.integers(&[vec![0; rank - 1], vec![-1]].concat());
    let filter = i.b.push(Reshape { zero_copies: true }, &[filter, flat]);
    let filter = i.folded(filter);
    one(channels_last(i, x, rank, |i, x| {
        let size = output_shape.map(|shape| i.b.integers(shape));
        let y = match size {
            Some(size) => i.b.push(op, &[x, filter, size]),
            None => math::in_float(i, op, &[x, filter]),
        };
        Ok(bias.map_or(y, |bias| i.b.push(Binary(B::Add), &[y, bias])))
    })?)
}

/// `(sum |x|^p)^(1/p)` over windows, by way of the mean with padding counted.
pub(super) fn lp_pool<'a>(i: &mut Import<'a>, n: &Node<'a>, global: bool) -> Outputs {
    let p = n.attributes.int("p", 2) as f64;
    if n.attributes.flag("ceil_mode") {
        return Err("ceil_mode is not supported".into());
    }
    let x = n.tensor(0)?;
    let dtype = i.dtype(x).unwrap_or(DType::F32);
    let [power, root] = [p, 1.0 / p].map(|exponent| math::scalar(i, dtype, exponent));
    let rank = if global { i.rank(x)? } else { image_rank(i, n, None)? };
    let window = n.attributes.ints("kernel_shape").unwrap_or_default();
    let op = Pool {
        kind: PoolKind::Average { count_include_pad: true },
        window: sizes("kernel_shape", window)?,
        strides: steps(n, "strides")?,
        dilations: steps(n, "dilations")?,
        padding: padding(n, rank.saturating_sub(2))?,
        ceil: false,
    };
    let count = math::scalar(i, dtype, window.iter().map(|&size| size as f64).product::<f64>());
    one(channels_last(i, x, rank, |i, x| {
        let x = i.b.push(Unary(U::Abs), &[x]);
        let x = i.b.push(Binary(B::Pow), &[x, power]);
        let sum = match global {
            true => {
                let axes = Some((1..rank as i64 - 1).collect());
                i.b.push(Reduce { kind: R::Sum, axes, keep_dims: true }, &[x])
            }
            false => {
                let mean = math::in_float(i, op, &[x]);
                i.b.push(Binary(B::Mul), &[mean, count])
            }
        };
        Ok(i.b.push(Binary(B::Pow), &[sum, root]))
    })?)
}
