//! Constants, shapes, and the moving of elements.

use super::{Outputs, apply, convolution, many, one};
use crate::{
    formats::onnx::{
        import::Import,
        node::{Node, Stop},
    },
    graph::ValueId,
    kernels::Reduce as R,
    ops::{
        boxes::NonMaxSuppression,
        cast::Cast,
        gather::{Gather, GatherNd, OneHot},
        generate::{EyeLike, NonZero, Trilu},
        join::{BroadcastTo, Concat, Split, SplitSizes},
        late::WithAxes,
        layout::{DepthToSpace, ReverseSequence, SpaceToDepth, Transpose},
        pad::{Pad, PadMode},
        reduce::Reduce,
        scatter::{Reduction, ScatterElements, ScatterNd},
        shape::{ExpandDims, Reshape, ShapeOf, Squeeze},
        slice::Slice,
        text::{MapStrings, StringFunction, StringJoin},
        top_k::TopK,
        unique::Unique,
    },
    tensor::{Bytes, DType, Tensor},
};

/// Outputs of one node at most, as an attribute says.
const MAX_PARTS: i64 = 1 << 16;

pub(super) fn constant<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let text = |error: crate::tensor::TensorError| Stop::Reason(error.to_string());
    let a = &n.attributes;
    let tensor = if let Some(message) = a.tensor("value") {
        i.decode(message)?
    } else if let Some(message) = a.get("sparse_value").and_then(|value| value.sparse_tensor.as_ref()) {
        i.decode_sparse(message)?
    } else if a.has("value_int") {
        Tensor::scalar(a.int("value_int", 0))
    } else if a.has("value_float") {
        Tensor::scalar(a.float("value_float", 0.0))
    } else if let Some(values) = a.ints("value_ints") {
        Tensor::from_slice([values.len()], values).map_err(text)?
    } else if a.has("value_floats") {
        let values = a.floats("value_floats");
        Tensor::from_slice([values.len()], values).map_err(text)?
    } else if let Some(value) = a.get("value_string") {
        Tensor::from_strings([0usize; 0], vec![value.s.clone()]).map_err(text)?
    } else if let Some(value) = a.get("value_strings") {
        let strings: Vec<Bytes> = value.strings.clone();
        Tensor::from_strings([strings.len()], strings).map_err(text)?
    } else {
        return Err("there is no value".into());
    };
    one(i.b.constant(tensor))
}

pub(super) fn constant_of_shape<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let shape = n.tensor(0)?;
    let value = match n.attributes.tensor("value") {
        Some(message) => i.decode(message)?,
        None => Tensor::scalar(0.0f32),
    };
    let value = value.reshaped([0usize; 0]).map_err(|_| "the value is not one element")?;
    let value = i.b.constant(value);
    one(i.b.push(BroadcastTo { bidirectional: false }, &[value, shape]))
}

/// At inference nothing is dropped.
pub(super) fn dropout<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    if n.optional(2)?.is_some() {
        let training = n.constant(i, 2)?;
        let ratio = match n.optional(1)? {
            None => 0.5,
            Some(_) => {
                n.constant(i, 1)?.as_slice::<f32>().ok().and_then(|r| r.first().copied()).unwrap_or(1.0)
            }
        };
        if training.as_bools().map_err(|error| error.to_string())?.contains(&true) && ratio != 0.0 {
            return Err("this dropout is for training; export the model for inference".into());
        }
    }
    if !n.has_output(1) {
        return one(x);
    }
    // The mask has the input's type before version 10.
    let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[x]);
    let kept = i.b.constant(Tensor::scalar(true));
    let mut mask = i.b.push(BroadcastTo { bidirectional: false }, &[kept, shape]);
    if n.opset < 10 {
        let to = i.dtype(x).unwrap_or(DType::F32);
        mask = i.b.push(Cast { to }, &[mask]);
    }
    many([x, mask])
}

pub(super) fn cast<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let to = n.dtype("to")?.ok_or("the type is missing")?;
    let x = n.tensor(0)?;
    one(converted(i, x, to)?)
}

pub(super) fn cast_like<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (x, like) = (n.tensor(0)?, n.tensor(1)?);
    let to = i.dtype(like).ok_or("the type of input 1 cannot be told")?;
    one(converted(i, x, to)?)
}

fn converted(i: &mut Import<'_>, x: ValueId, to: DType) -> Result<ValueId, Stop> {
    if i.dtype(x) == Some(to) {
        return Ok(x);
    }
    if to == DType::String || i.dtype(x) == Some(DType::String) {
        return Err("conversion of strings is not supported".into());
    }
    Ok(i.b.push(Cast { to }, &[x]))
}

/// Since version 15 a part of the shape may be asked for.
pub(super) fn shape_of<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[x]);
    let (start, end) = (n.attributes.int("start", 0), n.attributes.int("end", i64::MAX));
    if (start, end) == (0, i64::MAX) {
        return one(shape);
    }
    let (start, end) = (i.b.integers(&[start]), i.b.integers(&[end]));
    one(i.b.push(Slice, &[shape, start, end]))
}

pub(super) fn reshape<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    let shape = match n.attributes.ints("shape") {
        Some(shape) => i.b.integers(shape),
        None => n.tensor(1)?,
    };
    one(i.b.push(Reshape { zero_copies: !n.attributes.flag("allowzero") }, &[x, shape]))
}

/// A matrix: the axes before `axis` are rows.
pub(super) fn flatten<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    let mut axis = n.attributes.int("axis", 1);
    if axis < 0 {
        axis += i.rank(x)? as i64;
    }
    let shape = match axis {
        0 => i.b.integers(&[1, -1]),
        1 => i.b.integers(&[0, -1]),
        _ => {
            let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[x]);
            let (start, end) = (i.b.integers(&[0]), i.b.integers(&[axis]));
            let rows = i.b.push(Slice, &[shape, start, end]);
            let rows = i.b.push(Reduce { kind: R::Prod, axes: Some(vec![0]), keep_dims: true }, &[rows]);
            let rest = i.b.integers(&[-1]);
            i.b.push(Concat { axis: 0 }, &[rows, rest])
        }
    };
    one(i.b.push(Reshape { zero_copies: true }, &[x, shape]))
}

/// Axes that an attribute or a known input tells; else the input.
pub(super) enum Axes {
    Known(Option<Vec<i64>>),
    Computed(ValueId),
}

pub(super) fn axes<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Result<Axes, Stop> {
    if let Some(axes) = n.attributes.ints("axes") {
        return Ok(Axes::Known(Some(axes.to_vec())));
    }
    let Some(input) = n.optional(1)? else { return Ok(Axes::Known(None)) };
    let known = i.known_value(input).map(|axes| axes.to_i64_vec().map_err(|error| error.to_string()));
    Ok(match known {
        Some(axes) => Axes::Known(Some(axes?)),
        None => Axes::Computed(input),
    })
}

pub(super) fn squeeze<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    one(match axes(i, n)? {
        Axes::Known(axes) => i.b.push(Squeeze { axes: axes.unwrap_or_default() }, &[x]),
        Axes::Computed(axes) => {
            let of = Box::new(Squeeze { axes: Vec::new() }.into());
            i.b.push(WithAxes { of, none_keeps: false }, &[x, axes])
        }
    })
}

pub(super) fn unsqueeze<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    match axes(i, n)? {
        Axes::Known(None) => Err("axes are missing".into()),
        Axes::Known(Some(axes)) => {
            let y = i.b.push(ExpandDims { axes }, &[x]);
            one(if i.b.constant_value(x).is_some() { i.folded(y) } else { y })
        }
        Axes::Computed(axes) => {
            let of = Box::new(ExpandDims { axes: Vec::new() }.into());
            one(i.b.push(WithAxes { of, none_keeps: false }, &[x, axes]))
        }
    }
}

pub(super) fn transpose<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    match n.attributes.ints("perm") {
        None => one(i.b.push(Transpose { perm: Vec::new() }, &[x])),
        Some([]) => one(x),
        Some(perm) => {
            let axis =
                |&axis: &i64| usize::try_from(axis).map_err(|_| Stop::Reason("perm is negative".into()));
            let perm = perm.iter().map(axis).collect::<Result<Vec<_>, _>>()?;
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            if !sorted.iter().copied().eq(0..perm.len()) {
                return Err(format!("{perm:?} is no permutation").into());
            }
            one(convolution::transposed(i, x, perm))
        }
    }
}

pub(super) fn concat<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let parts = n.tensors(0)?;
    let axis = n.attributes.int("axis", if n.opset < 4 { 1 } else { 0 });
    joined(i, &parts, axis)
}

pub(super) fn joined(i: &mut Import<'_>, parts: &[ValueId], axis: i64) -> Outputs {
    match parts {
        [] => Err("there is nothing to join".into()),
        [part] => one(*part),
        parts => one(i.b.push(Concat { axis }, parts)),
    }
}

/// Parts of given lengths, or as many as the node has outputs; the last of those may be shorter.
pub(super) fn split<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (x, axis) = (n.tensor(0)?, n.attributes.int("axis", 0));
    let sizes = match n.attributes.ints("split") {
        Some(sizes) => Some(i.b.integers(sizes)),
        None => n.optional(1)?,
    };
    let parts = n.proto.output.len();
    if parts == 0 || parts as i64 > MAX_PARTS {
        return Err(format!("{parts} parts").into());
    }
    let made = match sizes {
        Some(sizes) => i.b.push_many(Split { axis, sizes: SplitSizes::Input }, &[x, sizes], parts),
        None => {
            let asked = n.attributes.int("num_outputs", parts as i64);
            let sizes = match n.attributes.has("num_outputs") {
                true if asked != parts as i64 => {
                    return Err(format!("num_outputs {asked} for {parts}").into());
                }
                true => SplitSizes::Chunks(parts),
                false => SplitSizes::Parts(parts),
            };
            i.b.push_many(Split { axis, sizes }, &[x], parts)
        }
    };
    many(made)
}

/// Attributes before version 10, inputs since.
pub(super) fn slice<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    let mut inputs = vec![x];
    if let (Some(starts), Some(ends)) = (n.attributes.ints("starts"), n.attributes.ints("ends")) {
        inputs.extend([i.b.integers(starts), i.b.integers(ends)]);
        inputs.extend(n.attributes.ints("axes").map(|axes| i.b.integers(axes)));
        return one(i.b.push(Slice, &inputs));
    }
    inputs.extend([n.tensor(1)?, n.tensor(2)?]);
    match (n.optional(3)?, n.optional(4)?) {
        (Some(axes), steps) => inputs.extend([axes].into_iter().chain(steps)),
        (None, None) => {}
        (None, Some(steps)) => {
            let count = i.dims(steps).and_then(|dims| dims.first().copied().flatten());
            let count = count.filter(|&count| count < 64).ok_or("steps without axes")?;
            let axes: Vec<i64> = (0..count as i64).collect();
            inputs.extend([i.b.integers(&axes), steps]);
        }
    }
    one(i.b.push(Slice, &inputs))
}

/// ONNX lists all pads before, then all after; kinglet has pairs.
pub(super) fn pad<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    let mode = match n.attributes.text("mode", "constant") {
        "constant" => PadMode::Constant,
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Edge,
        other => return Err(format!("mode \"{other}\" is not supported").into()),
    };
    let attribute = n.attributes.ints("pads").or(n.attributes.ints("paddings"));
    let (pads, value) = match attribute {
        Some(pads) => {
            let pads = i.b.integers(pads);
            let value = n.attributes.float("value", 0.0);
            let dtype = i.dtype(x).unwrap_or(DType::F32);
            let value =
                if value == 0.0 { None } else { Some(super::math::scalar(i, dtype, f64::from(value))) };
            (pads, value)
        }
        None => (n.tensor(1)?, n.optional(2)?),
    };
    let pads = match n.optional(3)? {
        None => pads,
        Some(_) => {
            let (pads, axes) = (n.integers(i, 1)?, n.integers(i, 3)?);
            let (pads, axes) = (pads.unwrap_or_default(), axes.unwrap_or_default());
            let rank = i.rank(x)?;
            let mut all = vec![0; 2 * rank];
            for (position, &axis) in axes.iter().enumerate() {
                let axis = if axis < 0 { axis + rank as i64 } else { axis };
                let axis = usize::try_from(axis)
                    .ok()
                    .filter(|&axis| axis < rank)
                    .ok_or("an axis is out of range")?;
                let pair = (pads.get(position), pads.get(position + axes.len()));
                let (Some(before), Some(after)) = pair else { return Err("too few pads".into()) };
                (all[axis], all[axis + rank]) = (*before, *after);
            }
            i.b.integers(&all)
        }
    };
    let halves = i.b.integers(&[2, -1]);
    let pads = i.b.push(Reshape { zero_copies: false }, &[pads, halves]);
    let pads = i.b.push(Transpose { perm: vec![1, 0] }, &[pads]);
    let pads = i.folded(pads);
    let value = value.filter(|_| mode == PadMode::Constant);
    let inputs: Vec<ValueId> = [x, pads].into_iter().chain(value).collect();
    one(i.b.push(Pad { mode }, &inputs))
}

pub(super) fn gather_nd<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let batch_dims =
        usize::try_from(n.attributes.int("batch_dims", 0)).map_err(|_| "batch_dims is negative")?;
    apply(i, n, GatherNd { batch_dims, negative: true }, 2)
}

fn reduction(n: &Node<'_>) -> Result<Reduction, Stop> {
    Ok(match n.attributes.text("reduction", "none") {
        "none" => Reduction::Set,
        "add" => Reduction::Add,
        "mul" => Reduction::Mul,
        "min" => Reduction::Min,
        "max" => Reduction::Max,
        other => return Err(format!("reduction \"{other}\" is not supported").into()),
    })
}

pub(super) fn scatter_elements<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    apply(i, n, ScatterElements { axis: n.attributes.int("axis", 0), reduction: reduction(n)? }, 3)
}

pub(super) fn scatter_nd<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    apply(i, n, ScatterNd { reduction: reduction(n)?, negative: true }, 3)
}

/// The values off and on come as one vector; indices and depth may be of any numeric type.
pub(super) fn one_hot<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let as_integer = |i: &mut Import<'a>, x: ValueId| match i.dtype(x) {
        Some(DType::I64) => x,
        _ => i.b.push(Cast { to: DType::I64 }, &[x]),
    };
    let (indices, depth) = (n.tensor(0)?, n.tensor(1)?);
    let (indices, depth) = (as_integer(i, indices), as_integer(i, depth));
    let depth = i.folded(depth);
    let values = n.tensor(2)?;
    let sizes = SplitSizes::Parts(2);
    let halves = i.b.push_many(Split { axis: 0, sizes }, &[values], 2);
    let axis = n.attributes.int("axis", -1);
    one(i.b.push(OneHot { axis, negative: true }, &[indices, depth, halves[1], halves[0]]))
}

/// `k` is an attribute before version 10.
pub(super) fn top_k<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    let k = match n.attributes.has("k") {
        true => i.b.integers(&[n.attributes.int("k", 1)]),
        false => n.tensor(1)?,
    };
    let op = TopK {
        axis: n.attributes.int("axis", -1),
        largest: n.attributes.int("largest", 1) != 0,
        sorted: n.attributes.int("sorted", 1) != 0,
        indices: DType::I64,
    };
    many(i.b.push_many(op, &[x, k], 2))
}

pub(super) fn eye_like<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    apply(i, n, EyeLike { dtype: n.dtype("dtype")?, diagonal: n.attributes.int("k", 0) }, 1)
}

pub(super) fn trilu<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let mut inputs = vec![n.tensor(0)?];
    inputs.extend(n.optional(1)?);
    one(i.b.push(Trilu { upper: n.attributes.int("upper", 1) != 0 }, &inputs))
}

pub(super) fn reverse_sequence<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let op = ReverseSequence {
        batch_axis: n.attributes.int("batch_axis", 1),
        time_axis: n.attributes.int("time_axis", 0),
    };
    apply(i, n, op, 2)
}

fn block(n: &Node<'_>) -> Result<usize, Stop> {
    let block = usize::try_from(n.attributes.int("blocksize", 0)).ok().filter(|&block| block > 0);
    block.ok_or_else(|| "blocksize is not positive".into())
}

pub(super) fn depth_to_space<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let op = DepthToSpace { block: block(n)?, dcr: n.attributes.text("mode", "DCR") == "DCR" };
    let x = n.tensor(0)?;
    one(convolution::channels_last(i, x, 4, |i, x| Ok(i.b.push(op, &[x])))?)
}

pub(super) fn space_to_depth<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    if n.attributes.text("mode", "DCR") != "DCR" {
        return Err("only the order of depth, column, row is supported".into());
    }
    let op = SpaceToDepth { block: block(n)? };
    let x = n.tensor(0)?;
    one(convolution::channels_last(i, x, 4, |i, x| Ok(i.b.push(op, &[x])))?)
}

/// Inputs in the middle may be left out.
pub(super) fn non_max_suppression<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let mut inputs = vec![n.tensor(0)?, n.tensor(1)?];
    let options = [n.optional(2)?, n.optional(3)?, n.optional(4)?];
    let last = options.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    for (position, option) in options.into_iter().enumerate().take(last) {
        inputs.push(option.unwrap_or_else(|| match position {
            0 => i.b.integers(&[0]),
            _ => i.b.scalar(0.0),
        }));
    }
    let center = n.attributes.flag("center_point_box");
    one(i.b.push(NonMaxSuppression { center }, &inputs))
}

/// The elements, or the slices along an axis, where a condition holds.
pub(super) fn compress<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (mut x, condition) = (n.tensor(0)?, n.tensor(1)?);
    let axis = match n.attributes.has("axis") {
        true => n.attributes.int("axis", 0),
        false => {
            let flat = i.b.integers(&[-1]);
            x = i.b.push(Reshape { zero_copies: false }, &[x, flat]);
            0
        }
    };
    let places = i.b.push(NonZero { columns: true }, &[condition]);
    let places = i.b.push(Squeeze { axes: vec![0] }, &[places]);
    one(i.b.push(Gather { axis, batch_dims: 0, negative: false }, &[x, places]))
}

pub(super) fn unique<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    if n.attributes.has("axis") && i.rank(x)? != 1 {
        return Err("different slices along an axis are not supported".into());
    }
    let op = Unique { sorted: n.attributes.int("sorted", 1) != 0, indices: DType::I64 };
    many(i.b.push_many(op, &[x], 4))
}

/// Strings joined pairwise.
pub(super) fn string_concat<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    apply(i, n, StringJoin { separator: String::new() }, 2)
}

pub(super) fn regex_full_match<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let pattern = n.attributes.text("pattern", "").to_owned();
    apply(i, n, MapStrings { function: StringFunction::RegexFullMatch { pattern } }, 1)
}

/// Cut off or padded around the centre to a shape that is known while loading.
pub(super) fn center_crop_pad<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    let dims = i.dims(x).ok_or("the input's rank cannot be told")?;
    let sizes = n.integers(i, 1)?.unwrap_or_default();
    let axes = match n.attributes.ints("axes") {
        Some(axes) => axes.to_vec(),
        None => (0..dims.len() as i64).collect(),
    };
    let mut pads = vec![0; 2 * dims.len()];
    for (&axis, &size) in axes.iter().zip(&sizes) {
        let axis = if axis < 0 { axis + dims.len() as i64 } else { axis };
        let axis =
            usize::try_from(axis).ok().filter(|&axis| axis < dims.len()).ok_or("an axis is out of range")?;
        let dim = dims[axis].ok_or("the input's size depends on the request")? as i64;
        let less = (size - dim).abs() / 2;
        let more = (size - dim).abs() - less;
        let sign = (size - dim).signum();
        (pads[2 * axis], pads[2 * axis + 1]) = (sign * less, sign * more);
    }
    let pads = Tensor::from_slice([dims.len(), 2], &pads).map_err(|error| error.to_string())?;
    let pads = i.b.constant(pads);
    one(i.b.push(Pad { mode: PadMode::Constant }, &[x, pads]))
}
