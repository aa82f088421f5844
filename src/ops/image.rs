//! Decoding of image files to pixels.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs};
use crate::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};
use zune_core::{colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

/// Pixels of one image; a few bytes can claim any number.
const MAX_PIXELS: usize = 1 << 27;
/// Longest edge.
const MAX_EDGE: usize = 1 << 15;

/// A JPEG, PNG or BMP file (a scalar string; told apart by its first bytes) as `[height, width,
/// channels]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecodeImage {
    /// 1 (grey), 3 (red, green, blue) or 4 (with alpha); 0 means what the file has.
    pub channels: usize,
    /// `U8`; `U16` and `F32` are scaled to 0..65535 and 0..1.
    pub dtype: DType,
}

impl Operator for DecodeImage {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        if inputs[0].dtype != DType::String || inputs[0].elements() != 1 {
            return Err(OpError::invalid("contents must be a scalar string"));
        }
        match (self.channels, self.dtype) {
            (0 | 1 | 3 | 4, DType::U8 | DType::U16 | DType::F32) => Ok(Inferred::AtRun),
            (channels, dtype) => Err(OpError::unsupported(format!(
                "decoding an image to {channels} channels of {dtype} is not supported"
            ))),
        }
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        let Self { channels, dtype } = *self;
        Ok(Step::tensors(move |inputs, _| {
            let file = inputs.first().ok_or(OpError::Memory("an image"))?.as_strings()?;
            let file = file.first().ok_or(OpError::Memory("an image"))?;
            let image = decode(file)?.with_channels(channels);
            let shape = [image.height, image.width, image.channels];
            Ok(vec![match dtype {
                DType::U16 => {
                    let wide: Vec<u16> = image.pixels.iter().map(|&value| u16::from(value) * 257).collect();
                    Tensor::from_slice(shape, &wide)?
                }
                DType::F32 => {
                    let scaled: Vec<f32> =
                        image.pixels.iter().map(|&value| f32::from(value) / 255.0).collect();
                    Tensor::from_slice(shape, &scaled)?
                }
                _ => Tensor::from_slice(shape, &image.pixels)?,
            }])
        }))
    }
}

/// Rows from the top, pixels from the left, channels side by side.
struct Image {
    height: usize,
    width: usize,
    channels: usize,
    pixels: Vec<u8>,
}

fn decode(file: &[u8]) -> Result<Image, OpError> {
    match file {
        [0xff, 0xd8, 0xff, ..] => jpeg(file),
        [0x89, b'P', b'N', b'G', ..] => png(file),
        [b'B', b'M', ..] => bmp(file).ok_or_else(|| OpError::invalid("Invalid BMP data")),
        [b'G', b'I', b'F', ..] => Err(OpError::unsupported("GIF images are not supported")),
        _ => Err(OpError::invalid("Unknown image file format. One of JPEG, PNG, BMP required.")),
    }
}

fn check_size(height: usize, width: usize) -> Result<(), OpError> {
    let fits = height.checked_mul(width).is_some_and(|pixels| (1..=MAX_PIXELS).contains(&pixels));
    match fits && height <= MAX_EDGE && width <= MAX_EDGE {
        true => Ok(()),
        false => {
            Err(OpError::invalid(format!("an image of {height} x {width} pixels is too large or empty")))
        }
    }
}

fn jpeg(file: &[u8]) -> Result<Image, OpError> {
    let failed =
        |error: zune_jpeg::errors::DecodeErrors| OpError::invalid(format!("Invalid JPEG data: {error:?}"));
    let options = DecoderOptions::default().set_max_width(MAX_EDGE).set_max_height(MAX_EDGE);
    let mut decoder = JpegDecoder::new_with_options(file, options);
    decoder.decode_headers().map_err(failed)?;
    let info = decoder.info().ok_or_else(|| OpError::invalid("Invalid JPEG data: no header"))?;
    let (height, width) = (usize::from(info.height), usize::from(info.width));
    check_size(height, width)?;
    let grey = info.components == 1;
    let space = if grey { ColorSpace::Luma } else { ColorSpace::RGB };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let pixels = decoder.decode().map_err(failed)?;
    Image { height, width, channels: if grey { 1 } else { 3 }, pixels }.checked()
}

fn png(file: &[u8]) -> Result<Image, OpError> {
    let failed = |error: png::DecodingError| OpError::invalid(format!("Invalid PNG data: {error}"));
    let limits = png::Limits { bytes: 4 * MAX_PIXELS };
    let mut decoder = png::Decoder::new_with_limits(file, limits);
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(failed)?;
    let (height, width) = (reader.info().height as usize, reader.info().width as usize);
    check_size(height, width)?;
    let mut pixels = vec![0; reader.output_buffer_size()];
    let frame = reader.next_frame(&mut pixels).map_err(failed)?;
    pixels.truncate(frame.buffer_size());
    let channels = frame.color_type.samples();
    Image { height, width, channels, pixels }.checked()
}

/// Uncompressed BMP of 8 (grey), 24 or 32 bits, rows from the bottom or, with a negative height,
/// from the top.
fn bmp(file: &[u8]) -> Option<Image> {
    let int = |at: usize| Some(i32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?));
    let (start, width, height) = (usize::try_from(int(10)?).ok()?, usize::try_from(int(18)?).ok()?, int(22)?);
    let channels = match u16::from_le_bytes(file.get(28..30)?.try_into().ok()?) {
        8 => 1,
        24 => 3,
        32 => 4,
        _ => return None,
    };
    let (from_top, height) = (height < 0, height.unsigned_abs() as usize);
    check_size(height, width).ok()?;
    let stride = (width * channels).next_multiple_of(4);
    let data = file.get(start..start.checked_add(stride.checked_mul(height)?)?)?;
    let mut pixels = Vec::with_capacity(height * width * channels);
    for row in 0..height {
        let row = if from_top { row } else { height - 1 - row };
        for pixel in data[row * stride..][..width * channels].chunks_exact(channels) {
            match *pixel {
                [blue, green, red] => pixels.extend_from_slice(&[red, green, blue]),
                [blue, green, red, alpha] => pixels.extend_from_slice(&[red, green, blue, alpha]),
                _ => pixels.extend_from_slice(pixel),
            }
        }
    }
    Some(Image { height, width, channels, pixels })
}

impl Image {
    fn checked(self) -> Result<Self, OpError> {
        match self.height * self.width * self.channels == self.pixels.len() {
            true => Ok(self),
            false => Err(OpError::invalid("the image ends too early")),
        }
    }

    /// The same with another number of channels; 0 keeps it.
    fn with_channels(self, channels: usize) -> Self {
        if channels == 0 || channels == self.channels {
            return self;
        }
        let mut pixels = Vec::with_capacity(self.height * self.width * channels);
        for pixel in self.pixels.chunks_exact(self.channels) {
            let (red, green, blue, alpha) = match *pixel {
                [grey] => (grey, grey, grey, 255),
                [grey, alpha] => (grey, grey, grey, alpha),
                [red, green, blue] => (red, green, blue, 255),
                [red, green, blue, alpha, ..] => (red, green, blue, alpha),
                [] => continue,
            };
            match channels {
                1 => {
                    let [red, green, blue] = [red, green, blue].map(u32::from);
                    // ITU-R BT.601, as libjpeg and libpng weigh the channels.
                    pixels.push(((19_595 * red + 38_470 * green + 7_471 * blue + 32_768) >> 16) as u8);
                }
                3 => pixels.extend_from_slice(&[red, green, blue]),
                _ => pixels.extend_from_slice(&[red, green, blue, alpha]),
            }
        }
        Self { channels, pixels, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::run_op;
    use crate::tensor::Bytes;
    use proptest::prelude::*;

    fn run(file: Vec<u8>, channels: usize, dtype: DType) -> Result<Tensor, crate::graph::GraphError> {
        let file = Tensor::from_strings([], vec![Bytes::from(file)]).unwrap();
        Ok(run_op(DecodeImage { channels, dtype }, &[file])?.remove(0))
    }

    fn small_png() -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 2, 1);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(&[255, 0, 0, 10, 20, 30]).unwrap();
        file
    }

    fn small_bmp() -> Vec<u8> {
        let mut file = b"BM".to_vec();
        file.resize(54, 0);
        file[10] = 54;
        file[18] = 1;
        file[22] = 2;
        file[28] = 24;
        file.extend_from_slice(&[3, 2, 1, 0, 6, 5, 4, 0]);
        file
    }

    #[test]
    fn pixels_of_png_and_bmp() {
        let image = run(small_png(), 0, DType::U8).unwrap();
        assert_eq!(image.shape().to_vec(), [1, 2, 3]);
        assert_eq!(image.as_slice::<u8>().unwrap(), [255, 0, 0, 10, 20, 30]);
        let image = run(small_png(), 4, DType::F32).unwrap();
        assert_eq!(image.as_slice::<f32>().unwrap()[..4], [1.0, 0.0, 0.0, 1.0]);
        // Rows stand from the bottom, blue first.
        let image = run(small_bmp(), 3, DType::U8).unwrap();
        assert_eq!(image.shape().to_vec(), [2, 1, 3]);
        assert_eq!(image.as_slice::<u8>().unwrap(), [4, 5, 6, 1, 2, 3]);
        assert!(run(b"text".to_vec(), 0, DType::U8).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(
            kind in 0usize..3, at in 0usize..80, value: u8, rest in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            let mut file = match kind {
                0 => small_png(),
                1 => small_bmp(),
                _ => [&[0xff, 0xd8, 0xff][..], &rest].concat(),
            };
            let at = at % file.len();
            file[at] = value;
            let _ = decode(&file);
        }
    }
}
