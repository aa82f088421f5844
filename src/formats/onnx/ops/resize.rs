//! Scaling.

use super::{Outputs, convolution, math, one};
use crate::{
    formats::onnx::{
        import::Import,
        node::{Node, Stop},
    },
    graph::ValueId,
    ops::{
        cast::Cast,
        gather::Gather,
        grid_sample::{GridSample, Outside, Sampling},
        resize::{Coordinates, Crop, Resize, ResizeMode, Rounding},
    },
    tensor::DType,
};

/// The scaling of each axis in turn.
enum Sizes {
    Scales(Vec<f32>),
    Fixed(Vec<i64>),
    Computed(ValueId),
}

pub(super) fn resize<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    // Version 10 has scales as input 1 and one way to see positions.
    let (scales, sizes) =
        if n.opset < 11 { (n.optional(1)?, None) } else { (n.optional(2)?, n.optional(3)?) };
    let coordinates = match n.attributes.text("coordinate_transformation_mode", "half_pixel") {
        _ if n.opset < 11 => Coordinates::Asymmetric,
        "half_pixel" => Coordinates::HalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "tf_half_pixel_for_nn" => Coordinates::TensorflowHalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "tf_crop_and_resize" => Coordinates::Crop,
        other => return Err(format!("coordinate_transformation_mode \"{other}\" is not supported").into()),
    };
    let floor = if n.opset < 11 { Rounding::Floor } else { Rounding::PreferFloor };
    let op = Resize {
        antialias: n.attributes.flag("antialias"),
        crop: match coordinates {
            Coordinates::Crop => Some(crop(i, n)?),
            _ => None,
        },
        ..Resize::new(mode(n, floor)?, coordinates, Vec::new())
    };
    let scales = match scales {
        Some(scales) if i.known_value(scales).is_some() => known_scales(i, scales)?,
        Some(scales) if sizes.is_none() => return one(scaled(i, n, x, op, Sizes::Computed(scales))?),
        _ => None,
    };
    let sizes = match (scales, sizes) {
        (Some(scales), _) => Sizes::Scales(scales),
        (None, Some(sizes)) => match i.known_value(sizes).and_then(|sizes| sizes.to_i64_vec().ok()) {
            Some(sizes) => Sizes::Fixed(sizes),
            None => Sizes::Computed(sizes),
        },
        (None, None) => return Err("neither scales nor sizes are given".into()),
    };
    one(scaled(i, n, x, op, sizes)?)
}

/// Starts and ends of the axes, and the value outside.
fn crop<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Result<Crop, Stop> {
    let roi = n.tensor(1)?;
    let roi = i.known_value(roi).ok_or("a part that depends on the request is not supported")?;
    let bounds: Vec<f32> = roi.as_slice::<f32>().map_err(|_| "the part is no float")?.to_vec();
    let (starts, ends) = bounds.split_at(bounds.len() / 2);
    let ranges = starts.iter().zip(ends).map(|(&start, &end)| [start, end]).collect();
    Ok(Crop { ranges, outside: n.attributes.float("extrapolation_value", 0.0) })
}

/// One scale for all axes, so that the result fits into the sizes, or covers them.
fn kept_ratio(
    n: &Node<'_>,
    dims: &[Option<usize>],
    axes: &[i64],
    sizes: &[i64],
) -> Result<Option<f32>, Stop> {
    let smaller = match n.attributes.text("keep_aspect_ratio_policy", "stretch") {
        "stretch" => return Ok(None),
        "not_larger" => true,
        "not_smaller" => false,
        other => return Err(format!("keep_aspect_ratio_policy \"{other}\" is not supported").into()),
    };
    let mut kept: Option<f32> = None;
    for (&axis, &size) in axes.iter().zip(sizes) {
        let dim = usize::try_from(axis).ok().and_then(|axis| dims.get(axis).copied().flatten());
        let dim = dim.filter(|&dim| dim > 0).ok_or("a ratio to keep needs a known shape")?;
        let scale = size as f32 / dim as f32;
        kept = Some(match kept {
            Some(kept) if smaller => kept.min(scale),
            Some(kept) => kept.max(scale),
            None => scale,
        });
    }
    Ok(kept)
}

/// The scales; `None` for the empty tensor that stands for none in version 11 and 12.
fn known_scales(i: &mut Import<'_>, scales: ValueId) -> Result<Option<Vec<f32>>, Stop> {
    let tensor = i.known_value(scales).ok_or("scales that depend on the request are not supported")?;
    let scales = tensor.as_slice::<f32>().map_err(|error| error.to_string())?;
    Ok((!scales.is_empty()).then(|| scales.to_vec()))
}

fn mode(n: &Node<'_>, default: Rounding) -> Result<ResizeMode, Stop> {
    Ok(match n.attributes.text("mode", "nearest") {
        "nearest" => ResizeMode::Nearest(match n.attributes.text("nearest_mode", "") {
            "" => default,
            "round_prefer_floor" => Rounding::PreferFloor,
            "round_prefer_ceil" => Rounding::PreferCeil,
            "floor" => Rounding::Floor,
            "ceil" => Rounding::Ceil,
            other => return Err(format!("nearest_mode \"{other}\" is not supported").into()),
        }),
        "linear" | "bilinear" => ResizeMode::Linear,
        "cubic" => ResizeMode::Cubic {
            a: n.attributes.float("cubic_coeff_a", -0.75),
            exclude_outside: n.attributes.flag("exclude_outside"),
        },
        other => return Err(format!("mode \"{other}\" is not supported").into()),
    })
}

/// Scales the axes that change. Those of images are scaled with channels last.
fn scaled<'a>(
    i: &mut Import<'a>,
    n: &Node<'a>,
    x: ValueId,
    op: Resize,
    mut sizes: Sizes,
) -> Result<ValueId, Stop> {
    let rank = i.rank(x)?;
    let given = match n.attributes.ints("axes") {
        Some(axes) => axes.iter().map(|&axis| if axis < 0 { axis + rank as i64 } else { axis }).collect(),
        None => (0..rank as i64).collect::<Vec<i64>>(),
    };
    let dims = i.dims(x).unwrap_or_default();
    let keeps = n.attributes.text("keep_aspect_ratio_policy", "stretch") != "stretch";
    let kept = match &mut sizes {
        Sizes::Fixed(sizes) => {
            let kept = kept_ratio(n, &dims, &given, sizes)?;
            if let Some(scale) = kept {
                for (size, &axis) in sizes.iter_mut().zip(&given) {
                    let dim = usize::try_from(axis).ok().and_then(|axis| dims.get(axis).copied().flatten());
                    *size = (dim.unwrap_or(0) as f32 * scale + 0.5).floor() as i64;
                }
            }
            kept
        }
        Sizes::Computed(_) if keeps => return Err("a ratio to keep needs known sizes".into()),
        _ => None,
    };
    // Batch and channels of images stay as they are when their sizes are taken from the input.
    let computed: Vec<bool> = match &sizes {
        Sizes::Computed(sizes) => {
            let axis = |at: usize| given.get(at).and_then(|&axis| usize::try_from(axis).ok());
            let same = |at| axis(at).is_some_and(|axis| axis < 2 && i.is_size_of(*sizes, at, x, axis));
            (0..given.len()).map(same).collect()
        }
        _ => Vec::new(),
    };
    let stays = |position: usize| match &sizes {
        _ if op.crop.as_ref().is_some_and(|crop| crop.ranges.get(position) != Some(&[0.0, 1.0])) => false,
        Sizes::Scales(scales) => scales.get(position) == Some(&1.0),
        Sizes::Fixed(sizes) => {
            let axis = given.get(position).and_then(|&axis| usize::try_from(axis).ok());
            let dim = axis.and_then(|axis| dims.get(axis).copied().flatten());
            dim.is_some_and(|dim| sizes.get(position) == Some(&(dim as i64)))
        }
        Sizes::Computed(_) => computed.get(position) == Some(&true),
    };
    let changed: Vec<usize> = (0..given.len()).filter(|&position| !stays(position)).collect();
    let axes: Vec<i64> = changed.iter().map(|&position| given[position]).collect();
    let pick = |position: &usize| -> Option<_> {
        match &sizes {
            Sizes::Scales(scales) => scales.get(*position).map(|&scale| (scale, 0)),
            Sizes::Fixed(sizes) => sizes.get(*position).map(|&size| (0.0, size)),
            Sizes::Computed(_) => Some((0.0, 0)),
        }
    };
    let picked: Vec<(f32, i64)> = changed.iter().map(pick).collect::<Option<_>>().ok_or("too few scales")?;
    let images = rank >= 3 && axes.iter().all(|&axis| axis >= 2);
    let mut op = op;
    if let Some(crop) = &mut op.crop {
        let range = |&position: &usize| crop.ranges.get(position).copied();
        crop.ranges = changed.iter().map(range).collect::<Option<_>>().ok_or("too few bounds of a part")?;
    }
    let make = |i: &mut Import<'a>, x: ValueId, axes: Vec<i64>| match sizes {
        Sizes::Scales(_) => {
            let scales = Some(picked.iter().map(|(scale, _)| *scale).collect());
            interpolated(i, Resize { axes, scales, ..op }, &[x])
        }
        Sizes::Fixed(_) => {
            let sizes: Vec<i64> = picked.iter().map(|(_, size)| *size).collect();
            let sizes = i.b.integers(&sizes);
            let scales = kept.map(|scale| vec![scale; axes.len()]);
            interpolated(i, Resize { axes, scales, ..op }, &[x, sizes])
        }
        Sizes::Computed(sizes) => {
            let picked: Vec<i64> = changed.iter().map(|&position| position as i64).collect();
            let picked = i.b.integers(&picked);
            let sizes = i.b.push(Gather { axis: 0, batch_dims: 0, negative: false }, &[sizes, picked]);
            interpolated(i, Resize { axes, ..op }, &[x, sizes])
        }
    };
    if axes.is_empty() {
        return Ok(x);
    }
    match images {
        true => convolution::channels_last(i, x, rank, |i, x| {
            let axes = axes.iter().map(|axis| axis - 1).collect();
            Ok(make(i, x, axes))
        }),
        false => Ok(make(i, x, axes)),
    }
}

/// Interpolation works on `float`.
fn interpolated(i: &mut Import<'_>, op: Resize, inputs: &[ValueId]) -> ValueId {
    match (op.mode, inputs) {
        (ResizeMode::Nearest(_), _) if op.crop.is_none() => i.b.push(op, inputs),
        (_, [x]) => math::in_float(i, op, &[*x]),
        (_, _) if i.dtype(inputs[0]) == Some(DType::F32) => i.b.push(op, inputs),
        _ => {
            let dtype = i.dtype(inputs[0]).unwrap_or(DType::F32);
            let mut inputs = inputs.to_vec();
            inputs[0] = i.b.push(Cast { to: DType::F32 }, &[inputs[0]]);
            let y = i.b.push(op, &inputs);
            i.b.push(Cast { to: dtype }, &[y])
        }
    }
}

/// The operator before `Resize`: scales as input 1 since version 9, as an attribute before.
pub(super) fn upsample<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    let scales = match n.optional(1)? {
        Some(scales) if i.known_value(scales).is_none() => Sizes::Computed(scales),
        Some(scales) => Sizes::Scales(known_scales(i, scales)?.ok_or("scales are missing")?),
        None => Sizes::Scales(n.attributes.floats("scales").to_vec()),
    };
    let op = Resize::new(mode(n, Rounding::Floor)?, Coordinates::Asymmetric, Vec::new());
    one(scaled(i, n, x, op, scales)?)
}

/// Images at the positions of a grid.
pub(super) fn grid_sample<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (x, grid) = (n.tensor(0)?, n.tensor(1)?);
    if i.rank(x)? != 4 {
        return Err("only images are supported".into());
    }
    let op = GridSample {
        sampling: match n.attributes.text("mode", "linear") {
            "linear" | "bilinear" => Sampling::Linear,
            "nearest" => Sampling::Nearest,
            "cubic" | "bicubic" => Sampling::Cubic,
            other => return Err(format!("mode \"{other}\" is not supported").into()),
        },
        outside: match n.attributes.text("padding_mode", "zeros") {
            "zeros" => Outside::Zeros,
            "border" => Outside::Border,
            "reflection" => Outside::Reflection,
            other => return Err(format!("padding_mode \"{other}\" is not supported").into()),
        },
        align_corners: n.attributes.flag("align_corners"),
    };
    one(convolution::channels_last(i, x, 4, |i, x| Ok(math::in_float(i, op, &[x, grid])))?)
}
