//! Resizing of images and selection of boxes.

use super::{Outputs, one};
use crate::{
    formats::saved_model::import::{Import, Node, Value},
    ops::{
        boxes::SelectBoxes,
        cast::Cast,
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
        // Half-pixel centres come with Keys' coefficient, the older form with another.
        Filter::Bicubic => {
            ResizeMode::Cubic { a: if half_pixel { -0.5 } else { -0.75 }, exclude_outside: half_pixel }
        }
    };
    let (mut x, size) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    if filter != Filter::Nearest && n.attributes.dtype("T") != Some(DType::F32) {
        x = i.b.push(Cast { to: DType::F32 }, &[x]);
    }
    one(i.b.push(Resize { mode, coordinates, axes: vec![1, 2], scales: None }, &[x, size]))
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
