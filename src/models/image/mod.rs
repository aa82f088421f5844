//! From the bytes of an image file to the tensor that a model takes, by rules that its kinglet.toml declares.
//!
//! The order of work: decode and turn upright, fit to the model's size, then per value `(v * scale - mean) / std` with v from
//! 0 to 255. An input that declares nothing gets the pixels as they are, resized to its own size.

mod resize;

pub use resize::Resample;

use super::{Error, TensorInfo};
use crate::{
    ops::image::{Picture, decode_upright},
    tensor::{Bytes, DType, Shape, Tensor, TensorError},
};
use resize::Axis;

/// Pixels of an uploaded image, unless its kinglet.toml says otherwise.
pub const MAX_PIXELS: usize = 1 << 25;
/// Images of one tensor.
const MAX_IMAGES: usize = 1024;

/// How a picture gets the size of the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fit {
    /// Both edges are scaled; the shape is distorted.
    Warp,
    /// The middle of the picture: its shorter edge, times this fraction, becomes the input's.
    Crop(f32),
    /// The whole picture, with this grey level beside it.
    Letterbox(u8),
}

/// What the channels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel of lightness.
    Grey,
}

impl Channels {
    fn count(self) -> usize {
        if self == Channels::Grey { 1 } else { 3 }
    }
}

/// Where the channels stand among the dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[batch, height, width, channels]`
    ChannelsLast,
    /// `[batch, channels, height, width]`
    ChannelsFirst,
}

/// How an input takes images.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageInput {
    /// Height and width; `None` is the input's own, or the picture's where that is open.
    pub size: Option<(usize, usize)>,
    /// How a picture gets that size.
    pub fit: Fit,
    /// How its pixels are computed.
    pub resample: Resample,
    /// What the channels are; `None` is red, green, blue, or grey for an input of one channel.
    pub channels: Option<Channels>,
    /// Where they stand; `None` looks at the input's shape.
    pub layout: Option<Layout>,
    /// Factor of a value.
    pub scale: f32,
    /// Taken off, one for all or one per channel; none is 0.
    pub mean: Vec<f32>,
    /// Divides what is left, one for all or one per channel; none is 1.
    pub std: Vec<f32>,
    /// Pixels that an image may have.
    pub max_pixels: usize,
}

impl Default for ImageInput {
    fn default() -> Self {
        Self {
            size: None,
            fit: Fit::Warp,
            resample: Resample::Bilinear,
            channels: None,
            layout: None,
            scale: 1.0,
            mean: Vec::new(),
            std: Vec::new(),
            max_pixels: MAX_PIXELS,
        }
    }
}

impl ImageInput {
    /// One of the usual ways: `imagenet`, `tf`, `caffe`, `yolo`, `ssd`, `fastestdet`, or `raw` for the pixels as they
    /// are; `None` for another name.
    pub fn preset(name: &str) -> Option<Self> {
        let byte = 1.0 / 255.0;
        Some(match name {
            "raw" => Self::default(),
            // As torchvision's models are evaluated.
            "imagenet" => Self {
                fit: Fit::Crop(0.875),
                resample: Resample::Antialias,
                scale: byte,
                mean: vec![0.485, 0.456, 0.406],
                std: vec![0.229, 0.224, 0.225],
                ..Self::default()
            },
            "tf" => Self { scale: 1.0 / 127.5, mean: vec![1.0], ..Self::default() },
            "caffe" => Self {
                channels: Some(Channels::Bgr),
                mean: vec![103.939, 116.779, 123.68],
                ..Self::default()
            },
            "yolo" => Self { fit: Fit::Letterbox(114), scale: byte, ..Self::default() },
            "ssd" => Self { mean: vec![123.0, 117.0, 104.0], ..Self::default() },
            "fastestdet" => Self { channels: Some(Channels::Bgr), scale: byte, ..Self::default() },
            _ => return None,
        })
    }
}

/// Where a picture came to lie in its input, so that places found there can be told in the picture's own pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// Height of the picture, in its own pixels.
    pub height: usize,
    /// Width of it.
    pub width: usize,
    /// Height of the input.
    pub input_height: usize,
    /// Width of it.
    pub input_width: usize,
    y: Axis,
    x: Axis,
}

impl Placement {
    /// A place in the input, in pixels from its top left corner, as `(y, x)` of the picture, within it.
    pub fn to_picture(&self, y: f32, x: f32) -> (f32, f32) {
        (self.y.back(y).clamp(0.0, self.height as f32), self.x.back(x).clamp(0.0, self.width as f32))
    }
}

/// How an input takes images: as declared, or, for a shape such as `[?, 224, 224, 3]`, as the pixels are. `None` for
/// inputs that are no images, and for string inputs, whose model decodes the file itself.
pub fn image_input(info: &TensorInfo) -> Option<ImageInput> {
    if info.dtype == Some(DType::String) {
        return None;
    }
    let looks_like_one =
        || shape_of(info, None).is_some() && matches!(info.dtype, Some(DType::F32 | DType::F16 | DType::U8));
    match &info.image {
        Some(declared) => Some((**declared).clone()),
        None => looks_like_one().then(ImageInput::default),
    }
}

/// Whether an input takes image files for its pixels.
pub fn takes_images(info: &TensorInfo) -> bool {
    image_input(info).is_some()
}

/// What the shape of an input says about images.
struct InputShape {
    batched: bool,
    layout: Layout,
    height: Option<usize>,
    width: Option<usize>,
    channels: Option<usize>,
}

/// `None` where the shape is no image's.
fn shape_of(info: &TensorInfo, declared: Option<Layout>) -> Option<InputShape> {
    let dims = info.shape.as_deref();
    let (batched, dims) = match dims {
        Some([_, rest @ ..]) if rest.len() == 3 => (true, rest),
        Some(rest) if rest.len() == 3 => (false, rest),
        None if info.image.is_some() => (true, &[None; 3][..]),
        _ => return None,
    };
    let &[first, second, third] = dims else { return None };
    let is_channels = |dim: Option<usize>| matches!(dim, Some(1 | 3));
    let layout = match declared {
        Some(layout) => layout,
        None if is_channels(third) => Layout::ChannelsLast,
        None if is_channels(first) => Layout::ChannelsFirst,
        None if info.image.is_some() => Layout::ChannelsLast,
        None => return None,
    };
    Some(match layout {
        Layout::ChannelsLast => InputShape { batched, layout, height: first, width: second, channels: third },
        Layout::ChannelsFirst => {
            InputShape { batched, layout, height: second, width: third, channels: first }
        }
    })
}

/// Makes the tensor of an input from image files, and says where each picture lies.
///
/// # Errors
/// `INVALID_ARGUMENT` for a file that is no image or is too large, for pictures of different sizes where the input has no
/// size of its own, and for more than one where it has no batch.
pub fn images_to_tensor(
    info: &TensorInfo,
    how: &ImageInput,
    files: &[Bytes],
) -> Result<(Tensor, Vec<Placement>), Error> {
    let name = &info.name;
    let shape = shape_of(info, how.layout)
        .ok_or_else(|| Error::invalid_argument(format!("input {name} does not take images")))?;
    if files.is_empty() || files.len() > MAX_IMAGES || (!shape.batched && files.len() > 1) {
        return Err(Error::invalid_argument(format!(
            "input {name} does not take {} images at once",
            files.len()
        )));
    }
    let channels =
        how.channels.unwrap_or(if shape.channels == Some(1) { Channels::Grey } else { Channels::Rgb });
    let count = channels.count();
    if shape.channels.is_some_and(|declared| declared != count) {
        return Err(Error::failed_precondition(format!(
            "input {name} has another number of channels than declared"
        )));
    }
    let tables = Tables::new(how, channels);
    let mut values: Vec<f32> = Vec::new();
    let mut placements: Vec<Placement> = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let refused = |error: &dyn std::fmt::Display| {
            Error::invalid_argument(format!("image {number} of input {name}: {error}"))
        };
        let picture =
            decode_upright(file, how.max_pixels).map_err(|error| refused(&error))?.with_channels(count);
        let size = how
            .size
            .unwrap_or((shape.height.unwrap_or(picture.height), shape.width.unwrap_or(picture.width)));
        let placement = place(&picture, size, how.fit);
        if let Some(first) = placements.first()
            && (first.input_height, first.input_width) != size
        {
            return Err(refused(&"the pictures of one request have different sizes"));
        }
        let fitted = fit(&picture, &placement, how);
        drop(picture);
        values.try_reserve(fitted.len()).map_err(|_| Error::internal("out of memory for an image"))?;
        tables.append(&fitted, shape.layout, channels, &mut values);
        placements.push(placement);
    }
    let (height, width) = placements.first().map_or((0, 0), |first| (first.input_height, first.input_width));
    let mut dims = Shape::scalar();
    if shape.batched {
        dims.push(files.len());
    }
    let one = match shape.layout {
        Layout::ChannelsLast => [height, width, count],
        Layout::ChannelsFirst => [count, height, width],
    };
    one.into_iter().for_each(|dim| dims.push(dim));
    let tensor = cast(&values, dims, info.dtype.unwrap_or(DType::F32))
        .map_err(|error| Error::internal(error.to_string()))?;
    let tensor = tensor
        .ok_or_else(|| Error::unimplemented(format!("images for input {name} of this element type")))?;
    Ok((tensor, placements))
}

/// The values as another type; integers are rounded. `None` for types that no image has.
fn cast(values: &[f32], shape: Shape, dtype: DType) -> Result<Option<Tensor>, TensorError> {
    macro_rules! converted {
        ($convert:expr) => {
            Tensor::from_slice(shape, &values.iter().map($convert).collect::<Vec<_>>())?
        };
    }
    Ok(Some(match dtype {
        DType::F32 => Tensor::from_slice(shape, values)?,
        DType::F64 => converted!(|&value| f64::from(value)),
        DType::F16 => converted!(|&value| half::f16::from_f32(value)),
        DType::U8 => converted!(|&value| value.round() as u8),
        DType::I8 => converted!(|&value| value.round() as i8),
        DType::I32 => converted!(|&value| value.round() as i32),
        DType::I64 => converted!(|&value| value.round() as i64),
        _ => return Ok(None),
    }))
}

/// Decides which part of the picture goes where.
fn place(picture: &Picture, (input_height, input_width): (usize, usize), fit: Fit) -> Placement {
    let (height, width) = (picture.height, picture.width);
    let (y, x) = match fit {
        Fit::Warp => (Axis::whole(height, input_height), Axis::whole(width, input_width)),
        Fit::Crop(fraction) => {
            // As if resized first and cropped then, which rounds to whole pixels twice.
            let fraction = fraction.clamp(0.05, 1.0);
            let target = |input: usize| (input as f32 / fraction).round();
            let scale = (target(input_height) / height as f32).max(target(input_width) / width as f32);
            let axis = |size: usize, input: usize| {
                let resized = ((size as f32 * scale + 1e-3).floor() as usize).max(input);
                let cut = ((resized - input) as f32 / 2.0).round();
                Axis {
                    start: cut * size as f32 / resized as f32,
                    scale: size as f32 / resized as f32,
                    offset: 0,
                    count: input,
                }
            };
            (axis(height, input_height), axis(width, input_width))
        }
        Fit::Letterbox(_) => {
            let scale = (input_height as f32 / height as f32).min(input_width as f32 / width as f32);
            let axis = |size: usize, input: usize| {
                let count = ((size as f32 * scale).round() as usize).clamp(1, input.max(1));
                Axis { offset: input.saturating_sub(count) / 2, ..Axis::whole(size, count) }
            };
            (axis(height, input_height), axis(width, input_width))
        }
    };
    Placement { height, width, input_height, input_width, y, x }
}

/// The pixels of the input.
fn fit(picture: &Picture, placement: &Placement, how: &ImageInput) -> Vec<u8> {
    let channels = picture.channels;
    let resized = resize::resize(picture, placement.y, placement.x, how.resample);
    let (y, x) = (placement.y, placement.x);
    if (y.count, x.count) == (placement.input_height, placement.input_width) {
        return resized;
    }
    let grey = if let Fit::Letterbox(grey) = how.fit { grey } else { 0 };
    let mut canvas = vec![grey; placement.input_height * placement.input_width * channels];
    let stride = placement.input_width * channels;
    for (row, line) in resized.chunks_exact((x.count * channels).max(1)).enumerate() {
        let start = (y.offset + row) * stride + x.offset * channels;
        if let Some(to) = canvas.get_mut(start..start + line.len()) {
            to.copy_from_slice(line);
        }
    }
    canvas
}

/// What each of the 256 values of a channel becomes.
struct Tables(Vec<[f32; 256]>);

impl Tables {
    fn new(how: &ImageInput, channels: Channels) -> Self {
        let of = |values: &[f32], channel: usize, default: f32| {
            values.get(channel).or(values.first()).copied().unwrap_or(default)
        };
        let table = |channel: usize| {
            let (mean, std) = (of(&how.mean, channel, 0.0), of(&how.std, channel, 1.0));
            let mut table = [0.0; 256];
            for (value, entry) in (0u8..=255).zip(&mut table) {
                *entry = (f32::from(value) * how.scale - mean) / std;
            }
            table
        };
        Self((0..channels.count()).map(table).collect())
    }

    fn append(&self, pixels: &[u8], layout: Layout, order: Channels, values: &mut Vec<f32>) {
        let count = self.0.len();
        // The picture's channels are red, green, blue.
        let source = |channel: usize| if order == Channels::Bgr { count - 1 - channel } else { channel };
        match layout {
            Layout::ChannelsLast => {
                for pixel in pixels.chunks_exact(count) {
                    for (channel, table) in self.0.iter().enumerate() {
                        values.push(table[usize::from(pixel[source(channel)])]);
                    }
                }
            }
            Layout::ChannelsFirst => {
                for (channel, table) in self.0.iter().enumerate() {
                    values.extend(
                        pixels
                            .iter()
                            .skip(source(channel))
                            .step_by(count)
                            .map(|&value| table[usize::from(value)]),
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
