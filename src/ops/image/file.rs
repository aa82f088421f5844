//! Image files to pixels: JPEG, PNG, BMP, WebP, and the first frame of GIF, told apart by their first bytes.
//!
//! A few bytes can claim any number of pixels, so every size is checked before anything is decoded.

use super::exif;
use crate::ops::OpError;
use std::{io::Cursor, num::NonZeroU64};
use zune_core::{colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

/// Longest edge.
const MAX_EDGE: usize = 1 << 15;

/// Rows from the top, pixels from the left, channels side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Rows.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// 1 (grey), 2 (grey, alpha), 3 (red, green, blue) or 4 (with alpha).
    pub channels: usize,
    /// `height * width * channels` values.
    pub pixels: Vec<u8>,
}

/// Decodes a file and turns the picture upright, as its EXIF orientation says. Grey stays grey.
///
/// # Errors
/// The bytes are none of the formats or damaged, or have more than `max_pixels`.
pub fn decode_upright(file: &[u8], max_pixels: usize) -> Result<Picture, OpError> {
    // The decoders are others' code: one that gives up on a hostile file fails this file and nothing else.
    let decoded = std::panic::catch_unwind(|| {
        let orientation = match file {
            [0xff, 0xd8, 0xff, ..] => exif::of_jpeg(file),
            [b'R', b'I', b'F', b'F', ..] => webp_orientation(file),
            _ => 1,
        };
        Ok(decode(file, max_pixels, true, false)?.upright(orientation))
    });
    decoded.unwrap_or_else(|_| Err(OpError::invalid("the image file is damaged")))
}

/// Decodes a file as it lies; `palettes` says whether those of BMP files count (TensorFlow ignores them), `grey` that
/// nothing but the brightness of a JPEG file is wanted.
pub(super) fn decode(file: &[u8], max_pixels: usize, palettes: bool, grey: bool) -> Result<Picture, OpError> {
    match file {
        [0xff, 0xd8, 0xff, ..] => jpeg(file, max_pixels, grey),
        [0x89, b'P', b'N', b'G', ..] => png(file, max_pixels),
        [b'B', b'M', ..] => {
            bmp(file, max_pixels, palettes)?.ok_or_else(|| OpError::invalid("Invalid BMP data"))
        }
        [b'G', b'I', b'F', ..] => gif(file, max_pixels),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => webp(file, max_pixels),
        _ => Err(OpError::invalid("Unknown image file format. One of JPEG, PNG, GIF, BMP, WebP required.")),
    }
}

fn check_size(height: usize, width: usize, max_pixels: usize) -> Result<(), OpError> {
    let fits = height.checked_mul(width).is_some_and(|pixels| (1..=max_pixels).contains(&pixels));
    match fits && height <= MAX_EDGE && width <= MAX_EDGE {
        true => Ok(()),
        false => Err(OpError::invalid(format!(
            "an image of {height} x {width} pixels is too large or empty; the limit is {max_pixels} pixels"
        ))),
    }
}

fn jpeg(file: &[u8], max_pixels: usize, grey: bool) -> Result<Picture, OpError> {
    let failed =
        |error: zune_jpeg::errors::DecodeErrors| OpError::invalid(format!("Invalid JPEG data: {error:?}"));
    let options = DecoderOptions::default().set_max_width(MAX_EDGE).set_max_height(MAX_EDGE);
    let mut decoder = JpegDecoder::new_with_options(file, options);
    decoder.decode_headers().map_err(failed)?;
    let info = decoder.info().ok_or_else(|| OpError::invalid("Invalid JPEG data: no header"))?;
    let (height, width) = (usize::from(info.height), usize::from(info.width));
    check_size(height, width, max_pixels)?;
    let grey = grey || info.components == 1;
    let space = if grey { ColorSpace::Luma } else { ColorSpace::RGB };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let pixels = decoder.decode().map_err(failed)?;
    Picture { height, width, channels: if grey { 1 } else { 3 }, pixels }.checked()
}

fn png(file: &[u8], max_pixels: usize) -> Result<Picture, OpError> {
    let failed = |error: png::DecodingError| OpError::invalid(format!("Invalid PNG data: {error}"));
    let limits = png::Limits { bytes: max_pixels.saturating_mul(4) };
    let mut decoder = png::Decoder::new_with_limits(file, limits);
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(failed)?;
    let (height, width) = (reader.info().height as usize, reader.info().width as usize);
    check_size(height, width, max_pixels)?;
    let mut pixels = vec![0; reader.output_buffer_size()];
    let frame = reader.next_frame(&mut pixels).map_err(failed)?;
    pixels.truncate(frame.buffer_size());
    let channels = frame.color_type.samples();
    Picture { height, width, channels, pixels }.checked()
}

fn webp(file: &[u8], max_pixels: usize) -> Result<Picture, OpError> {
    let failed = |error: image_webp::DecodingError| OpError::invalid(format!("Invalid WebP data: {error}"));
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(file)).map_err(failed)?;
    let (width, height) = decoder.dimensions();
    let (height, width) = (height as usize, width as usize);
    check_size(height, width, max_pixels)?;
    decoder.set_memory_limit(max_pixels.saturating_mul(4));
    let size =
        decoder.output_buffer_size().ok_or_else(|| OpError::invalid("Invalid WebP data: too large"))?;
    let mut pixels = vec![0; size];
    decoder.read_image(&mut pixels).map_err(failed)?;
    Picture { height, width, channels: if decoder.has_alpha() { 4 } else { 3 }, pixels }.checked()
}

fn webp_orientation(file: &[u8]) -> u8 {
    let block = image_webp::WebPDecoder::new(Cursor::new(file))
        .ok()
        .and_then(|mut decoder| decoder.exif_metadata().ok()?);
    block.map_or(1, |block| exif::of_tiff(block.strip_prefix(b"Exif\0\0").unwrap_or(&block)))
}

/// The first frame, on the whole canvas.
fn gif(file: &[u8], max_pixels: usize) -> Result<Picture, OpError> {
    let failed = |error: gif::DecodingError| OpError::invalid(format!("Invalid GIF data: {error}"));
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::RGBA);
    let limit = NonZeroU64::new((max_pixels as u64).saturating_mul(4)).unwrap_or(NonZeroU64::MIN);
    options.set_memory_limit(gif::MemoryLimit::Bytes(limit));
    let mut decoder = options.read_info(file).map_err(failed)?;
    let (height, width) = (usize::from(decoder.height()), usize::from(decoder.width()));
    check_size(height, width, max_pixels)?;
    let frame = decoder.read_next_frame().map_err(failed)?;
    let frame = frame.ok_or_else(|| OpError::invalid("Invalid GIF data: no frame"))?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let frame_width = usize::from(frame.width).max(1);
    let mut pixels = vec![0; height * width * 3];
    for (y, row) in frame.buffer.chunks_exact(frame_width * 4).enumerate().take(height.saturating_sub(top)) {
        let start = ((top + y) * width + left) * 3;
        let room = width.saturating_sub(left) * 3;
        let Some(canvas) = pixels.get_mut(start..start + room) else { break };
        for (to, from) in canvas.chunks_exact_mut(3).zip(row.chunks_exact(4)) {
            to.copy_from_slice(from.get(..3).unwrap_or(&[0; 3]));
        }
    }
    Picture { height, width, channels: 3, pixels }.checked()
}

/// Uncompressed BMP of 1, 4 or 8 (palette), 24 or 32 bits, rows from the bottom or, with a negative height, from the
/// top. `None` for damaged or other files.
fn bmp(file: &[u8], max_pixels: usize, palettes: bool) -> Result<Option<Picture>, OpError> {
    let Some(head) = BmpHead::read(file, palettes) else { return Ok(None) };
    check_size(head.height, head.width, max_pixels)?;
    Ok(head.pixels(file))
}

struct BmpHead {
    start: usize,
    height: usize,
    width: usize,
    from_top: bool,
    bits: usize,
    /// Blue, green, red and a spare byte each; empty without one.
    palette: Vec<[u8; 4]>,
}

impl BmpHead {
    fn read(file: &[u8], palettes: bool) -> Option<Self> {
        let int = |at: usize| Some(i32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?));
        let start = usize::try_from(int(10)?).ok()?;
        let (width, height) = (usize::try_from(int(18)?).ok()?, int(22)?);
        let bits = usize::from(u16::from_le_bytes(file.get(28..30)?.try_into().ok()?));
        // Bit fields (3) are read where they are the usual ones, which is what they are for 32 bits.
        let plain = matches!((bits, int(30)?), (1 | 4 | 8 | 24 | 32, 0) | (32, 3));
        let indexed = bits < 8 || (bits == 8 && palettes);
        let from = 14usize.checked_add(usize::try_from(int(14)?).ok()?)?;
        let palette = match indexed {
            true => file
                .get(from..start.min(file.len()))?
                .chunks_exact(4)
                .take(1 << bits)
                .map(|entry| [entry[0], entry[1], entry[2], entry[3]])
                .collect(),
            false => Vec::new(),
        };
        let valid = plain && (palettes || bits >= 8);
        valid.then_some(Self {
            start,
            height: height.unsigned_abs() as usize,
            width,
            from_top: height < 0,
            bits,
            palette,
        })
    }

    fn pixels(&self, file: &[u8]) -> Option<Picture> {
        let (height, width) = (self.height, self.width);
        let stride = (width * self.bits).div_ceil(8).next_multiple_of(4);
        let data = file.get(self.start..self.start.checked_add(stride.checked_mul(height)?)?)?;
        let channels = match (self.bits, self.palette.is_empty()) {
            (24, _) => 3,
            (32, _) => 4,
            (8, true) => 1,
            (_, false) => 3,
            (_, true) => return None,
        };
        let mut pixels = Vec::with_capacity(height * width * channels);
        for row in 0..height {
            let row = if self.from_top { row } else { height - 1 - row };
            let row = data.get(row * stride..)?.get(..stride)?;
            match self.bits {
                24 => row
                    .chunks_exact(3)
                    .take(width)
                    .for_each(|p| pixels.extend_from_slice(&[p[2], p[1], p[0]])),
                32 => row
                    .chunks_exact(4)
                    .take(width)
                    .for_each(|p| pixels.extend_from_slice(&[p[2], p[1], p[0], p[3]])),
                8 if self.palette.is_empty() => pixels.extend_from_slice(row.get(..width)?),
                bits => {
                    for x in 0..width {
                        let byte = usize::from(*row.get(x * bits / 8)?);
                        let index = byte >> (8 - bits - x * bits % 8) & ((1 << bits) - 1);
                        let [blue, green, red, _] = self.palette.get(index).copied().unwrap_or_default();
                        pixels.extend_from_slice(&[red, green, blue]);
                    }
                }
            }
        }
        Some(Picture { height, width, channels, pixels })
    }
}

impl Picture {
    fn checked(self) -> Result<Self, OpError> {
        match self.height * self.width * self.channels == self.pixels.len() {
            true => Ok(self),
            false => Err(OpError::invalid("the image ends too early")),
        }
    }

    /// Turned and mirrored as EXIF's orientation (1 to 8) asks for.
    fn upright(self, orientation: u8) -> Self {
        let (h, w, c) = (self.height, self.width, self.channels);
        if orientation <= 1 {
            return self;
        }
        let turned = orientation >= 5;
        let (height, width) = if turned { (w, h) } else { (h, w) };
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for y in 0..height {
            for x in 0..width {
                // Where the pixel lies in the file.
                let (row, column) = match orientation {
                    2 => (y, w - 1 - x),
                    3 => (h - 1 - y, w - 1 - x),
                    4 => (h - 1 - y, x),
                    5 => (x, y),
                    6 => (h - 1 - x, y),
                    7 => (h - 1 - x, w - 1 - y),
                    _ => (x, w - 1 - y),
                };
                let at = (row * w + column) * c;
                pixels.extend_from_slice(self.pixels.get(at..at + c).unwrap_or_default());
            }
        }
        Self { height, width, channels: c, pixels }
    }

    /// One channel, with libpng's weights: in parts of 2^15, rounded down.
    pub(super) fn grey(self) -> Self {
        if self.channels < 3 {
            return self.with_channels(1);
        }
        let weigh = |pixel: &[u8]| {
            let part =
                |channel: usize, weight: u32| weight * pixel.get(channel).copied().map_or(0, u32::from);
            ((part(0, 9_797) + part(1, 19_234) + part(2, 3_737)) >> 15) as u8
        };
        let pixels = self.pixels.chunks_exact(self.channels).map(weigh).collect();
        Self { channels: 1, pixels, ..self }
    }

    /// The same with another number of channels; 0 keeps it.
    pub fn with_channels(self, channels: usize) -> Self {
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
                    // ITU-R BT.601, as Pillow weighs the channels.
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

    /// Two by three pixels, each its own value.
    fn six() -> Picture {
        Picture { height: 2, width: 3, channels: 1, pixels: vec![1, 2, 3, 4, 5, 6] }
    }

    // The eight figures of the EXIF specification.
    #[test]
    fn orientations() {
        let expected: [(u8, [usize; 2], [u8; 6]); 8] = [
            (1, [2, 3], [1, 2, 3, 4, 5, 6]),
            (2, [2, 3], [3, 2, 1, 6, 5, 4]),
            (3, [2, 3], [6, 5, 4, 3, 2, 1]),
            (4, [2, 3], [4, 5, 6, 1, 2, 3]),
            (5, [3, 2], [1, 4, 2, 5, 3, 6]),
            (6, [3, 2], [4, 1, 5, 2, 6, 3]),
            (7, [3, 2], [6, 3, 5, 2, 4, 1]),
            (8, [3, 2], [3, 6, 2, 5, 1, 4]),
        ];
        for (orientation, [height, width], pixels) in expected {
            let turned = six().upright(orientation);
            assert_eq!(
                (turned.height, turned.width, &*turned.pixels),
                (height, width, &pixels[..]),
                "{orientation}"
            );
        }
    }

    #[test]
    fn bombs_are_refused_before_they_are_decoded() {
        // Headers that claim 60000 x 60000 pixels, with nothing behind.
        let png =
            [&b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0"[..], &[0; 4]].concat();
        let mut bmp = b"BM".to_vec();
        bmp.resize(54, 0);
        bmp[10] = 54;
        bmp[14] = 40;
        bmp[18..20].copy_from_slice(&[0x60, 0xea]);
        bmp[22..24].copy_from_slice(&[0x60, 0xea]);
        bmp[28] = 24;
        let gif = b"GIF89a\xff\xff\xff\xff\0\0\0".to_vec();
        for file in [png, bmp, gif] {
            assert!(decode_upright(&file, 1 << 25).is_err());
        }
    }

    #[test]
    fn palettes_of_bmp() {
        let mut file = b"BM".to_vec();
        file.resize(54, 0);
        file[14] = 40;
        file[18] = 3;
        file[22] = 1;
        file[28] = 4;
        file.extend_from_slice(&[9, 8, 7, 0, 6, 5, 4, 0]);
        file[10] = file.len() as u8;
        file.extend_from_slice(&[0x10, 0x10, 0, 0]);
        let picture = decode_upright(&file, 10).unwrap();
        assert_eq!(picture.pixels, [4, 5, 6, 7, 8, 9, 4, 5, 6]);
        assert!(decode_upright(&file, 2).is_err());
    }

    #[test]
    fn the_first_frame_of_a_gif() {
        let mut file = Vec::new();
        {
            let mut encoder = gif::Encoder::new(&mut file, 2, 2, &[10, 20, 30, 40, 50, 60]).unwrap();
            for pixels in [[0u8, 1, 1, 0], [1, 1, 1, 1]] {
                let frame = gif::Frame {
                    width: 2,
                    height: 2,
                    buffer: pixels.to_vec().into(),
                    ..gif::Frame::default()
                };
                encoder.write_frame(&frame).unwrap();
            }
        }
        let picture = decode_upright(&file, 4).unwrap();
        assert_eq!(picture.pixels, [10, 20, 30, 40, 50, 60, 40, 50, 60, 10, 20, 30]);
        assert!(decode_upright(&file, 3).is_err());
    }

    #[test]
    fn a_lossless_webp() {
        let mut file = Vec::new();
        let pixels = [1, 2, 3, 250, 128, 7];
        image_webp::WebPEncoder::new(&mut file).encode(&pixels, 2, 1, image_webp::ColorType::Rgb8).unwrap();
        let picture = decode_upright(&file, 2).unwrap();
        assert_eq!((picture.channels, &*picture.pixels), (3, &pixels[..]));
    }
}
