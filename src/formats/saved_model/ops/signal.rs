//! Spectra, complex numbers and sound.

use super::{Outputs, apply, one};
use crate::{
    formats::saved_model::import::{Import, Node, Stop, Value},
    ops::{
        generate::BroadcastShapes,
        join::BroadcastTo,
        shape::ShapeOf,
        spectrum::{AudioSpectrogram, DecodeRaw, DecodeWav, Mfcc, ToComplex},
    },
    tensor::DType,
};

fn size(n: &Node<'_>, name: &str) -> Result<usize, Stop> {
    usize::try_from(n.attributes.int(name)).map_err(|_| format!("{name} is negative").into())
}

/// From real and imaginary parts, which broadcast.
pub(super) fn complex(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let parts = [n.tensor(i, 0)?, n.tensor(i, 1)?];
    let [a, b] = parts.map(|part| i.b.push(ShapeOf { dtype: DType::I64 }, &[part]));
    let shape = i.b.push(BroadcastShapes, &[a, b]);
    let parts = parts.map(|part| i.b.push(BroadcastTo { bidirectional: false }, &[part, shape]));
    one(i.b.push(ToComplex, &parts))
}

pub(super) fn spectrogram(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let op = AudioSpectrogram {
        window: size(n, "window_size")?,
        stride: size(n, "stride")?,
        squared: n.attributes.flag("magnitude_squared"),
    };
    apply(i, n, op, 1)
}

pub(super) fn mfcc(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let hertz = |name: &str| f64::from(n.attributes.float(name));
    let op = Mfcc {
        limits: (hertz("lower_frequency_limit"), hertz("upper_frequency_limit")),
        bands: size(n, "filterbank_channel_count")?,
        coefficients: size(n, "dct_coefficient_count")?,
    };
    apply(i, n, op, 2)
}

/// -1 channels or samples are those of the file.
pub(super) fn decode_wav(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let asked = |name: &str| usize::try_from(n.attributes.int(name)).unwrap_or(0);
    let file = n.tensor(i, 0)?;
    let op = DecodeWav { channels: asked("desired_channels"), samples: asked("desired_samples") };
    Ok(i.b.push_many(op, &[file], 2).into_iter().map(Value::Tensor).collect())
}

pub(super) fn decode_raw(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    apply(i, n, DecodeRaw { dtype: n.dtype("out_type")?, big_endian: !n.attributes.flag("little_endian") }, 1)
}
