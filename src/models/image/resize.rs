//! Resizing by separable filters: rows first, then columns, with weights computed once per axis.
//!
//! Pixel centres lie at halves, as in TensorFlow 2, OpenCV and Pillow. `Bilinear` looks at two pixels per axis however much
//! the picture shrinks (`tf.image.resize`, OpenCV's INTER_LINEAR); `Antialias` and `Bicubic` widen their filter with the
//! scale, as Pillow's BILINEAR and BICUBIC do.

use crate::ops::image::Picture;

/// How pixels are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resample {
    /// The pixel under the centre.
    Nearest,
    /// Between the two nearest per axis.
    Bilinear,
    /// A triangle as wide as the scale.
    Antialias,
    /// A cubic (a = -0.5) as wide as the scale.
    Bicubic,
    /// The mean of the area covered.
    Area,
}

/// One axis of a placement: output `i`, of `count` that begin at `offset`, covers `start + i * scale ..` of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    pub(super) start: f32,
    pub(super) scale: f32,
    pub(super) offset: usize,
    pub(super) count: usize,
}

impl Axis {
    /// All of `size` pixels onto `count`.
    pub(super) fn whole(size: usize, count: usize) -> Self {
        Self { start: 0.0, scale: size as f32 / count.max(1) as f32, offset: 0, count }
    }

    /// A place of the input in the picture.
    pub(super) fn back(&self, place: f32) -> f32 {
        self.start + (place - self.offset as f32) * self.scale
    }
}

/// What one output pixel takes: weights of the pixels from `from` on, which sum to 1.
struct Taps {
    from: Vec<usize>,
    weights: Vec<Vec<f32>>,
}

/// `y.count` rows of `x.count` pixels.
pub(super) fn resize(picture: &Picture, y: Axis, x: Axis, resample: Resample) -> Vec<u8> {
    let channels = picture.channels;
    let identity = |axis: Axis, size: usize| axis == Axis::whole(size, size);
    if identity(y, picture.height) && identity(x, picture.width) {
        return picture.pixels.clone();
    }
    let (rows, columns) = (taps(y, picture.height, resample), taps(x, picture.width, resample));
    let first = rows.from.iter().copied().min().unwrap_or(0);
    let last =
        rows.from.iter().zip(&rows.weights).map(|(from, weights)| from + weights.len()).max().unwrap_or(0);
    // Only the rows that are looked at.
    let line = x.count * channels;
    let mut narrow = vec![0f32; (last - first) * line];
    let stride = picture.width * channels;
    for (row, out) in (first..last).zip(narrow.chunks_exact_mut(line.max(1))) {
        let source = picture.pixels.get(row * stride..(row + 1) * stride).unwrap_or_default();
        for ((pixel, &from), weights) in
            out.chunks_exact_mut(channels).zip(&columns.from).zip(&columns.weights)
        {
            let taken = source.get(from * channels..).unwrap_or_default().chunks_exact(channels);
            for (input, &weight) in taken.zip(weights) {
                for (sum, &value) in pixel.iter_mut().zip(input) {
                    *sum += weight * f32::from(value);
                }
            }
        }
    }
    let mut pixels = Vec::with_capacity(y.count * line);
    let mut sums = vec![0f32; line];
    for (&from, weights) in rows.from.iter().zip(&rows.weights) {
        sums.fill(0.0);
        let lines = narrow.chunks_exact(line.max(1)).skip(from - first);
        for (input, &weight) in lines.zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(input) {
                *sum += weight * value;
            }
        }
        pixels.extend(sums.iter().map(|sum| sum.round().clamp(0.0, 255.0) as u8));
    }
    pixels
}

fn taps(axis: Axis, size: usize, resample: Resample) -> Taps {
    let widened = axis.scale.max(1.0);
    let (radius, stretch): (f32, f32) = match resample {
        Resample::Nearest => (0.0, 1.0),
        Resample::Bilinear => (1.0, 1.0),
        Resample::Antialias => (widened, widened),
        Resample::Bicubic => (2.0 * widened, widened),
        Resample::Area => (widened / 2.0, widened),
    };
    let last = size.saturating_sub(1);
    let (mut from, mut weights) = (Vec::with_capacity(axis.count), Vec::with_capacity(axis.count));
    for index in 0..axis.count {
        let centre = axis.start + (index as f32 + 0.5) * axis.scale;
        let (begin, found) = match resample {
            Resample::Nearest => ((centre.floor().max(0.0) as usize).min(last), vec![1.0]),
            Resample::Area => {
                let (low, high) = ((centre - radius).max(0.0), (centre + radius).min(size as f32));
                let begin = (low.floor() as usize).min(last);
                let end = (high.ceil() as usize).clamp(begin + 1, size);
                let covered = |pixel: usize| (high.min(pixel as f32 + 1.0) - low.max(pixel as f32)).max(0.0);
                (begin, (begin..end).map(covered).collect())
            }
            _ => {
                let begin = ((centre - radius + 0.5).floor().max(0.0) as usize).min(last);
                let end = ((centre + radius + 0.5).floor().max(0.0) as usize).clamp(begin + 1, size);
                let weight = |pixel: usize| {
                    let distance = ((pixel as f32 + 0.5 - centre) / stretch).abs();
                    if resample == Resample::Bicubic { cubic(distance) } else { (1.0 - distance).max(0.0) }
                };
                (begin, (begin..end).map(weight).collect::<Vec<f32>>())
            }
        };
        let sum: f32 = found.iter().sum();
        from.push(begin);
        weights.push(match sum.abs() > f32::EPSILON {
            true => found.iter().map(|weight| weight / sum).collect(),
            false => vec![1.0],
        });
    }
    Taps { from, weights }
}

/// Keys' cubic with a = -0.5.
fn cubic(distance: f32) -> f32 {
    let a = -0.5;
    if distance < 1.0 {
        ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1.0
    } else if distance < 2.0 {
        (((distance - 5.0) * distance + 8.0) * distance - 4.0) * a
    } else {
        0.0
    }
}
