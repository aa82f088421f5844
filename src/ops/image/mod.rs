//! Decoding of image files to pixels.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs};
use crate::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

mod exif;
mod file;

pub use file::{Picture, decode_upright};

/// Pixels of one image in a graph; a few bytes can claim any number.
const MAX_PIXELS: usize = 1 << 27;

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
            if file.starts_with(b"GIF") {
                return Err(OpError::unsupported("GIF images are not supported"));
            }
            let image = file::decode(file, MAX_PIXELS, false, channels == 1)?;
            let image = if channels == 1 { image.grey() } else { image.with_channels(channels) };
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
        // As TensorFlow: 76 for red, and 18 for (10, 20, 30).
        let image = run(small_png(), 1, DType::U8).unwrap();
        assert_eq!(image.as_slice::<u8>().unwrap(), [76, 18]);
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
            let _ = file::decode(&file, 1 << 20, true, at % 2 == 0);
        }
    }
}
