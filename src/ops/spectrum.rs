//! Fourier transforms of real signals, complex numbers, and the features of speech models.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, bounded, expect_inputs, known_integers};
use crate::tensor::{AlignedVec, DType, Shape, Tensor};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// Longest transform.
const MAX_LENGTH: usize = 1 << 24;
/// Longest odd factor of its length.
const MAX_ODD: usize = 1 << 13;

/// The transform of the last axis, cut or filled up with zeros to the length in input 1: from `F32`
/// to `length / 2 + 1` numbers of `Complex64`, or, `inverse`, back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RealFourier {
    /// From the spectrum to the signal.
    pub inverse: bool,
}

impl Operator for RealFourier {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        let wanted = if self.inverse { DType::Complex64 } else { DType::F32 };
        let length = known_integers!(inputs, 1);
        let length = length.last().and_then(|&length| usize::try_from(length).ok()).unwrap_or(0);
        // What is left when all twos are taken out is summed up directly.
        let odd = length >> length.trailing_zeros().min(63);
        let sound = (1..=MAX_LENGTH).contains(&length) && odd <= MAX_ODD;
        if inputs[0].dtype != wanted || inputs[0].rank() == 0 || !sound {
            return Err(OpError::invalid(format!(
                "cannot transform {} {} with length {length}",
                inputs[0].dtype, inputs[0].shape
            )));
        }
        let mut shape = inputs[0].shape.clone();
        let last = shape.len() - 1;
        shape[last] = if self.inverse { length } else { length / 2 + 1 };
        Ok(Inferred::one(if self.inverse { DType::F32 } else { DType::Complex64 }, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let last = |fact: &Fact| fact.dims().last().copied().unwrap_or(1);
        let (taken, made) = (last(&cx.inputs[0]), last(&cx.outputs[0]));
        let shape = cx.outputs[0].shape.clone();
        if self.inverse {
            let fourier = Fourier::new(made);
            return Ok(Step::tensors(move |inputs, _| {
                let [x, _] = inputs else { return Err(OpError::Memory("a spectrum")) };
                let x = x.as_slice::<[f32; 2]>()?;
                let mut out = AlignedVec::<f32>::zeroed(shape.elements())?;
                let rows = x.chunks_exact(taken.max(1)).zip(out.as_mut_slice().chunks_exact_mut(made));
                for (x, y) in rows {
                    let bin = |index: usize| x.get(index).map_or([0.0; 2], |&bin| bin.map(f64::from));
                    // The other half is the mirror image.
                    let spectrum = (0..made).map(|index| match index <= made / 2 {
                        true => bin(index),
                        false => [bin(made - index)[0], -bin(made - index)[1]],
                    });
                    // An inverse transform is a forward one of the conjugate.
                    let conjugate: Vec<[f64; 2]> = spectrum.map(|[re, im]| [re, -im]).collect();
                    for (slot, [re, _]) in y.iter_mut().zip(fourier.run(conjugate)) {
                        *slot = (re / made as f64) as f32;
                    }
                }
                Ok(vec![Tensor::from_aligned(shape.clone(), out)?])
            }));
        }
        let length = cx.value(1).map(Tensor::to_i64_vec).transpose()?;
        let length = length.and_then(|length| length.last().copied()).unwrap_or(1) as usize;
        let fourier = Fourier::new(length);
        Ok(Step::tensors(move |inputs, _| {
            let [x, _] = inputs else { return Err(OpError::Memory("a signal")) };
            let mut out = AlignedVec::<[f32; 2]>::zeroed(shape.elements())?;
            let rows = x.as_slice::<f32>()?.chunks_exact(taken.max(1));
            for (x, y) in rows.zip(out.as_mut_slice().chunks_exact_mut(made)) {
                let sample = |index| [f64::from(x.get(index).copied().unwrap_or(0.0)), 0.0];
                let spectrum = fourier.run((0..length).map(sample).collect());
                for (slot, bin) in y.iter_mut().zip(spectrum) {
                    *slot = bin.map(|value| value as f32);
                }
            }
            Ok(vec![Tensor::from_aligned(shape.clone(), out)?])
        }))
    }
}

/// A transform of one length: even lengths halve, odd ones are summed up directly.
struct Fourier {
    /// `e^(-2 pi i k / length)`
    roots: Vec<[f64; 2]>,
}

impl Fourier {
    fn new(length: usize) -> Self {
        let root = |k: usize| {
            let angle = -2.0 * PI * k as f64 / length as f64;
            [angle.cos(), angle.sin()]
        };
        Self { roots: (0..length).map(root).collect() }
    }

    fn run(&self, x: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
        self.part(x, 1)
    }

    /// The transform of every `step`-th root.
    fn part(&self, x: Vec<[f64; 2]>, step: usize) -> Vec<[f64; 2]> {
        let length = x.len();
        if length <= 1 {
            return x;
        }
        if length % 2 == 1 {
            let sum = |bin: usize| {
                let term =
                    |(at, value): (usize, &[f64; 2])| times(*value, self.roots[bin * at % length * step]);
                x.iter()
                    .enumerate()
                    .map(term)
                    .fold([0.0; 2], |sum, term| [sum[0] + term[0], sum[1] + term[1]])
            };
            return (0..length).map(sum).collect();
        }
        let half = |first: usize| self.part(x.iter().skip(first).step_by(2).copied().collect(), step * 2);
        let (even, odd) = (half(0), half(1));
        let mut bins = vec![[0.0; 2]; length];
        for (bin, (a, b)) in even.iter().zip(&odd).enumerate() {
            let b = times(*b, self.roots[bin * step]);
            bins[bin] = [a[0] + b[0], a[1] + b[1]];
            bins[bin + length / 2] = [a[0] - b[0], a[1] - b[1]];
        }
        bins
    }
}

fn times(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

/// A real number of each complex one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ComplexPart {
    /// The real part.
    Real,
    /// The imaginary part.
    Imaginary,
    /// The magnitude.
    Magnitude,
    /// The angle.
    Angle,
}

/// From `Complex64` to `F32`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FromComplex {
    /// Which number.
    pub part: ComplexPart,
}

impl Operator for FromComplex {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        match inputs[0].dtype {
            DType::Complex64 => Ok(Inferred::one(DType::F32, inputs[0].shape.clone())),
            other => Err(OpError::unsupported(format!("the parts of {other} are not supported"))),
        }
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        let part = self.part;
        Ok(Step::tensors(move |inputs, _| {
            let [x] = inputs else { return Err(OpError::Memory("complex numbers")) };
            let number = |&[re, im]: &[f32; 2]| match part {
                ComplexPart::Real => re,
                ComplexPart::Imaginary => im,
                ComplexPart::Magnitude => re.hypot(im),
                ComplexPart::Angle => im.atan2(re),
            };
            let numbers: Vec<f32> = x.as_slice::<[f32; 2]>()?.iter().map(number).collect();
            Ok(vec![Tensor::from_slice(x.shape().clone(), &numbers)?])
        }))
    }
}

/// `Complex64` from real (input 0) and imaginary parts (input 1), both `F32` of one shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToComplex;

impl Operator for ToComplex {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        let fits = inputs[0].shape == inputs[1].shape && inputs.iter().all(|fact| fact.dtype == DType::F32);
        match fits {
            true => Ok(Inferred::one(DType::Complex64, inputs[0].shape.clone())),
            false => {
                Err(OpError::unsupported("complex numbers are made from two float tensors of one shape"))
            }
        }
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        Ok(Step::tensors(|inputs, _| {
            let [re, im] = inputs else { return Err(OpError::Memory("complex numbers")) };
            let pairs = re.as_slice::<f32>()?.iter().zip(im.as_slice::<f32>()?);
            let numbers: Vec<[f32; 2]> = pairs.map(|(&re, &im)| [re, im]).collect();
            Ok(vec![Tensor::from_slice(re.shape().clone(), &numbers)?])
        }))
    }
}

/// TensorFlow's `AudioSpectrogram`: samples `[length, channels]` to magnitudes
/// `[channels, windows, bins]` of Hann windows, transformed at the next power of two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AudioSpectrogram {
    /// Samples of a window.
    pub window: usize,
    /// Samples from one window to the next.
    pub stride: usize,
    /// Gives the magnitudes squared.
    pub squared: bool,
}

impl Operator for AudioSpectrogram {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        let &[samples, channels] = inputs[0].dims() else {
            return Err(OpError::invalid(format!("input must be 2-dimensional, but is {}", inputs[0].shape)));
        };
        if self.window < 2 || self.window > MAX_LENGTH || self.stride == 0 || inputs[0].dtype != DType::F32 {
            return Err(OpError::invalid("a spectrogram needs float samples, a window and a stride"));
        }
        let windows = samples.checked_sub(self.window).map_or(0, |room| room / self.stride + 1);
        let bins = self.window.next_power_of_two() / 2 + 1;
        Ok(Inferred::one(DType::F32, [channels, windows, bins]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let Self { window, stride, squared } = *self;
        let &[channels, windows, bins] = cx.outputs[0].dims() else {
            return Err(OpError::Memory("a spectrogram"));
        };
        let length = window.next_power_of_two();
        let fourier = Fourier::new(length);
        let hann: Vec<f64> =
            (0..window).map(|at| 0.5 - 0.5 * (2.0 * PI * at as f64 / window as f64).cos()).collect();
        Ok(Step::tensors(move |inputs, _| {
            let [x] = inputs else { return Err(OpError::Memory("samples")) };
            let x = x.as_slice::<f32>()?;
            let mut out = Vec::with_capacity(channels * windows * bins);
            for (channel, first) in (0..channels).flat_map(|c| (0..windows).map(move |w| (c, w * stride))) {
                let sample = |at: usize| match hann.get(at) {
                    Some(weight) => [f64::from(x[(first + at) * channels + channel]) * weight, 0.0],
                    None => [0.0; 2],
                };
                let spectrum = fourier.run((0..length).map(sample).collect());
                out.extend(spectrum[..bins].iter().map(|&[re, im]| {
                    let power = re * re + im * im;
                    (if squared { power } else { power.sqrt() }) as f32
                }));
            }
            Ok(vec![Tensor::from_slice([channels, windows, bins], &out)?])
        }))
    }
}

/// TensorFlow's `Mfcc`: squared magnitudes `[channels, windows, bins]` and the sample rate (input 1)
/// to cepstral coefficients `[channels, windows, coefficients]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mfcc {
    /// Lower and upper end of the bands, in Hz.
    pub limits: (f64, f64),
    /// Mel bands.
    pub bands: usize,
    /// Coefficients.
    pub coefficients: usize,
}

impl Operator for Mfcc {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        let &[channels, windows, _] = inputs[0].dims() else {
            return Err(OpError::invalid(format!(
                "spectrogram must be 3-dimensional, but is {}",
                inputs[0].shape
            )));
        };
        known_integers!(inputs, 1);
        let sound = self.limits.0 >= 0.0 && self.limits.1 > self.limits.0;
        if !sound || !(1..=4096).contains(&self.bands) || !(1..=self.bands).contains(&self.coefficients) {
            return Err(OpError::invalid("the bands of the coefficients are out of range"));
        }
        Ok(Inferred::one(DType::F32, [channels, windows, self.coefficients]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let rate = cx.value(1).map(Tensor::to_i64_vec).transpose()?;
        let rate = rate.and_then(|rate| rate.first().copied()).unwrap_or(0) as f64;
        let bins = cx.inputs[0].dims().last().copied().unwrap_or(0);
        let shape: Shape = cx.outputs[0].shape.clone();
        let filters = MelFilters::new(self, bins, rate);
        let (bands, coefficients) = (self.bands, self.coefficients);
        let scale = (2.0 / bands as f64).sqrt();
        let cosines: Vec<f64> = (0..coefficients * bands)
            .map(|at| scale * (PI / bands as f64 * (at / bands) as f64 * ((at % bands) as f64 + 0.5)).cos())
            .collect();
        Ok(Step::tensors(move |inputs, _| {
            let [x, _] = inputs else { return Err(OpError::Memory("a spectrogram")) };
            let mut out = Vec::with_capacity(shape.elements());
            for row in x.as_slice::<f32>()?.chunks_exact(bins.max(1)) {
                let logs = filters.run(row);
                out.extend(cosines.chunks_exact(bands).map(|cosines| {
                    cosines.iter().zip(&logs).map(|(cosine, log)| cosine * log).sum::<f64>() as f32
                }));
            }
            Ok(vec![Tensor::from_slice(shape.clone(), &out)?])
        }))
    }
}

/// Triangles on the mel scale, each bin shared by two neighbours (TensorFlow's mfcc_mel_filterbank).
struct MelFilters {
    bands: usize,
    /// First and last bin that count.
    used: std::ops::Range<usize>,
    /// For each bin the band below it, -1 for none, and that band's share.
    shares: Vec<(isize, f64)>,
}

impl MelFilters {
    fn new(op: &Mfcc, bins: usize, rate: f64) -> Self {
        let mel = |hertz: f64| 1127.0 * (1.0 + hertz / 700.0).ln();
        let (low, high) = (mel(op.limits.0), mel(op.limits.1));
        let width = (high - low) / (op.bands + 1) as f64;
        let center = |band: usize| low + width * (band + 1) as f64;
        let hertz_per_bin = 0.5 * rate / (bins.max(2) - 1) as f64;
        let start = (1.5 + op.limits.0 / hertz_per_bin) as usize;
        let end = ((op.limits.1 / hertz_per_bin) as usize).saturating_add(1).min(bins);
        let mut shares = vec![(-2, 0.0); bins];
        let mut band = 0;
        for (bin, share) in shares.iter_mut().enumerate() {
            if bin < start || bin >= end {
                continue;
            }
            let position = mel(bin as f64 * hertz_per_bin);
            while band < op.bands && center(band) < position {
                band += 1;
            }
            let below = band as isize - 1;
            *share = match below {
                0.. => {
                    let upper = center(band);
                    (below, (upper - position) / (upper - center(below as usize)))
                }
                _ => (below, (center(0) - position) / (center(0) - low)),
            };
        }
        Self { bands: op.bands, used: start.min(end)..end, shares }
    }

    fn run(&self, row: &[f32]) -> Vec<f64> {
        let mut sums = vec![0.0; self.bands];
        for bin in self.used.clone() {
            let magnitude = f64::from(row[bin]).sqrt();
            let (below, share) = self.shares[bin];
            if below >= 0 {
                sums[below as usize] += magnitude * share;
            }
            let above = below + 1;
            if (above as usize) < self.bands {
                sums[above as usize] += magnitude * (1.0 - share);
            }
        }
        sums.into_iter().map(|sum: f64| sum.max(1e-12).ln()).collect()
    }
}

/// TensorFlow's `DecodeWav`: 16-bit PCM to samples `[length, channels]` in -1 to 1, and the sample
/// rate. Cut or filled up with zeros to the length and channels asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecodeWav {
    /// Channels; 0 for those of the file.
    pub channels: usize,
    /// Samples; 0 for those of the file.
    pub samples: usize,
}

impl Operator for DecodeWav {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        match (inputs[0].dtype, inputs[0].elements()) {
            (DType::String, 1) => Ok(Inferred::AtRun),
            _ => Err(OpError::invalid("a WAV file is one string")),
        }
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        let op = self.clone();
        Ok(Step::tensors(move |inputs, _| {
            let file = inputs.first().map(Tensor::as_strings).transpose()?.and_then(<[_]>::first);
            let file = file.ok_or(OpError::Memory("a file"))?;
            let (rate, channels, data) =
                wav(file).ok_or_else(|| OpError::invalid("the file is no 16-bit PCM WAV"))?;
            let there = data.len() / 2 / channels;
            let wanted = if op.channels == 0 { channels } else { op.channels };
            let samples = if op.samples == 0 { there } else { op.samples };
            let total = bounded(samples.checked_mul(wanted))?;
            let mut out = AlignedVec::<f32>::zeroed(total)?;
            for (at, slot) in out.as_mut_slice().iter_mut().enumerate() {
                let (sample, channel) = (at / wanted, at % wanted);
                if sample < there {
                    let from = (sample * channels + channel.min(channels - 1)) * 2;
                    *slot = f32::from(i16::from_le_bytes([data[from], data[from + 1]])) / 32768.0;
                }
            }
            Ok(vec![Tensor::from_aligned([samples, wanted], out)?, Tensor::scalar(rate as i32)])
        }))
    }
}

/// Sample rate, channels and data of a RIFF file.
fn wav(file: &[u8]) -> Option<(u32, usize, &[u8])> {
    let word = |bytes: &[u8], at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let half = |bytes: &[u8], at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    if file.get(..4)? != b"RIFF" || file.get(8..12)? != b"WAVE" {
        return None;
    }
    let (mut rest, mut format) = (&file[12..], None);
    while rest.len() >= 8 {
        let size = usize::try_from(word(rest, 4)?).ok()?;
        let body = &rest[8..rest.len().min(size.checked_add(8)?)];
        match &rest[..4] {
            b"fmt " if half(body, 0)? == 1 && half(body, 14)? == 16 => {
                format = Some((word(body, 4)?, usize::from(half(body, 2)?)));
            }
            b"data" => {
                let (rate, channels) = format.filter(|&(_, channels)| channels > 0)?;
                return Some((rate, channels, body));
            }
            _ => {}
        }
        rest = rest.get(size.checked_add(8)?.next_multiple_of(2)..)?;
    }
    None
}

/// Strings of equal length as the little-endian numbers that they hold: `[.., length / size]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecodeRaw {
    /// The numbers' type.
    pub dtype: DType,
    /// The bytes of a number come in the other order.
    pub big_endian: bool,
}

impl Operator for DecodeRaw {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        match (inputs[0].dtype, self.dtype.size()) {
            (DType::String, Some(_)) => Ok(Inferred::AtRun),
            _ => Err(OpError::unsupported(format!(
                "decoding {} as {} is not supported",
                inputs[0].dtype, self.dtype
            ))),
        }
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        let Self { dtype, big_endian } = *self;
        Ok(Step::tensors(move |inputs, _| {
            let [x] = inputs else { return Err(OpError::Memory("strings")) };
            let (texts, size) = (x.as_strings()?, dtype.size().unwrap_or(1));
            let length = texts.first().map_or(0, bytes::Bytes::len);
            if !length.is_multiple_of(size) || texts.iter().any(|text| text.len() != length) {
                return Err(OpError::invalid(format!(
                    "the strings must have one length that is a multiple of {size}, the size of {dtype}"
                )));
            }
            let mut all: Vec<u8> = texts.concat();
            if big_endian {
                all.chunks_exact_mut(size).for_each(<[u8]>::reverse);
            }
            let shape: Shape = x.shape().iter().copied().chain([length / size]).collect();
            Ok(vec![Tensor::from_buffer(dtype, shape, crate::tensor::Buffer::copy_of(&all)?)?])
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::{run_op, run_op_outputs};

    /// Against the sum that defines the transform.
    #[test]
    fn transforms_and_back() {
        for length in [1usize, 2, 7, 12, 16] {
            let x: Vec<f32> = (0..length).map(|at| (at * at % 7) as f32 - 2.0).collect();
            let size = Tensor::from_slice([1], &[length as i32]).unwrap();
            let signal = Tensor::from_slice([length], &x).unwrap();
            let y = run_op(RealFourier { inverse: false }, &[signal, size.clone()]).unwrap().remove(0);
            for (bin, found) in y.as_slice::<[f32; 2]>().unwrap().iter().enumerate() {
                let term = |(at, &value): (usize, &f32)| {
                    let angle = -2.0 * PI * (bin * at) as f64 / length as f64;
                    [f64::from(value) * angle.cos(), f64::from(value) * angle.sin()]
                };
                let sum = x.iter().enumerate().map(term).fold([0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
                assert!(
                    (0..2).all(|part| (sum[part] - f64::from(found[part])).abs() < 1e-4),
                    "{length} {bin}"
                );
            }
            let back = run_op(RealFourier { inverse: true }, &[y, size]).unwrap().remove(0);
            let back = back.as_slice::<f32>().unwrap();
            assert!(back.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-5), "{back:?}");
        }
    }

    #[test]
    fn any_bytes_as_sound() {
        let mut file =
            b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\0\0\0\0\0\0\x10\0data\x04\0\0\0"
                .to_vec();
        file.extend_from_slice(&[0, 0x40, 0, 0xc0]);
        let run = |file: &[u8]| {
            let file = Tensor::from_strings([], vec![bytes::Bytes::copy_from_slice(file)]).unwrap();
            run_op_outputs(DecodeWav { channels: 0, samples: 0 }, &[file], 2)
        };
        let y = run(&file).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [0.5, -0.5]);
        assert_eq!(y[1].as_slice::<i32>().unwrap(), [8000]);
        for at in 0..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 0xff;
            let _ = run(&bad);
            let _ = run(&file[..at]);
        }
    }
}
