//! Resizing of images and selection of boxes.

use super::{Outputs, convolution, one};
use crate::{
    formats::saved_model::import::{Import, Node, Value},
    ops::{
        boxes::SelectBoxes,
        cast::Cast,
        detection::{CropAndResize, Patches, SelectBoxesByClass},
        image::DecodeImage,
        resize::{Coordinates, Resize, ResizeMode, Rounding},
    },
    tensor::{DType, Tensor},
};

/// How values between pixels are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Nearest,
    Bilinear,
    Bicubic,
    Area,
}

/// Each of TensorFlow's decoders takes the files of the others too.
pub(super) fn decode(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let channels = usize::try_from(n.attributes.int("channels")).map_err(|_| "channels is negative")?;
    let ratio = n.attributes.int("ratio");
    if n.def.op == "DecodeJpeg" && ratio != 1 {
        return Err(format!("ratio {ratio} is not supported").into());
    }
    let dtype = if n.attributes.0.attr.contains_key("dtype") { n.dtype("dtype")? } else { DType::U8 };
    super::apply(i, n, DecodeImage { channels, dtype }, 1)
}

/// Input 1 is height and width. Three conventions say where pixels stand.
pub(super) fn resize(i: &mut Import<'_, '_>, n: &Node<'_>, filter: Filter) -> Outputs {
    let (align_corners, half_pixel) =
        (n.attributes.flag("align_corners"), n.attributes.flag("half_pixel_centers"));
    let coordinates = match (align_corners, half_pixel, filter) {
        (true, _, _) => Coordinates::AlignCorners,
        (_, true, Filter::Nearest) => Coordinates::TensorflowHalfPixel,
        (_, true, _) => Coordinates::HalfPixel,
        _ => Coordinates::Asymmetric,
    };
    let mode = match filter {
        // With corners aligned the nearest pixel counts, else the one before.
        Filter::Nearest if align_corners => ResizeMode::Nearest(Rounding::PreferCeil),
        Filter::Nearest => ResizeMode::Nearest(Rounding::Floor),
        Filter::Bilinear => ResizeMode::Linear,
        Filter::Area => ResizeMode::Area,
        // Half-pixel centres come with Keys' coefficient, the older form with another.
        Filter::Bicubic => {
            ResizeMode::CubicSteps { a: if half_pixel { -0.5 } else { -0.75 }, exclude_outside: half_pixel }
        }
    };
    let (mut x, size) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    if filter != Filter::Nearest && n.attributes.dtype("T") != Some(DType::F32) {
        x = i.b.push(Cast { to: DType::F32 }, &[x]);
    }
    one(i.b.push(Resize::new(mode, coordinates, vec![1, 2]), &[x, size]))
}

/// `outputs` picks among positions, scores and their number.
pub(super) fn select_boxes(i: &mut Import<'_, '_>, n: &Node<'_>, outputs: &[usize]) -> Outputs {
    let mut inputs = vec![n.tensor(i, 0)?, n.tensor(i, 1)?, n.tensor(i, 2)?];
    inputs.push(match n.inputs.len() {
        3 => i.b.scalar(
            n.attributes.0.attr.get("iou_threshold").map_or(0.5, |_| n.attributes.float("iou_threshold")),
        ),
        _ => n.tensor(i, 3)?,
    });
    inputs.push(match n.inputs.len() {
        ..=4 => i.b.constant(Tensor::scalar(f32::NEG_INFINITY)),
        _ => n.tensor(i, 4)?,
    });
    if n.inputs.len() > 5 {
        inputs.push(n.tensor(i, 5)?);
    }
    let made = i.b.push_many(SelectBoxes { pad: n.attributes.flag("pad_to_max_output_size") }, &inputs, 3);
    Ok(outputs.iter().map(|&output| Value::Tensor(made[output])).collect())
}

pub(super) fn select_boxes_by_class(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let inputs = n.tensors(i, 0)?;
    let op = SelectBoxesByClass {
        pad_per_class: n.attributes.flag("pad_per_class"),
        clip: n.attributes.flag("clip_boxes"),
    };
    Ok(i.b.push_many(op, &inputs, 4).into_iter().map(Value::Tensor).collect())
}

/// Inputs: images, boxes, the image of each box, size.
pub(super) fn crop(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let nearest = match n.attributes.text("method") {
        "" | "bilinear" => false,
        "nearest" => true,
        other => return Err(format!("unknown method \"{other}\"").into()),
    };
    super::apply(i, n, CropAndResize { nearest, extrapolation: n.attributes.float("extrapolation_value") }, 4)
}

pub(super) fn patches(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let pair = |name: &str| -> Result<[usize; 2], super::Stop> {
        let values = convolution::spatial(n, n.attributes.ints(name))?;
        values.try_into().map_err(|_| format!("{name} has not 4 numbers").into())
    };
    let op = Patches {
        window: pair("ksizes")?,
        strides: pair("strides")?,
        dilations: pair("rates")?,
        padding: convolution::padding(n)?,
    };
    let x = super::arrays::as_float(i, n, 0)?;
    let y = i.b.push(op, &[x]);
    one(super::arrays::from_float(i, n, y)?)
}
