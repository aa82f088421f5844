//! What the tests of this floor share: repeatable numbers, a comparison that is relative to scale, convolutions.

use super::conv::{Conv2d, ConvPlan, PackedConv};
use super::map::{Activation, Unary};
use super::product::Epilogue;
use super::table::available;
use super::threads::Threads;

/// `length` numbers in -1..1, the same for the same `seed`.
pub(super) fn random(length: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Fails unless every element is within `tolerance` of `expected`, relative to its largest magnitude (at least 1).
#[track_caller]
pub(super) fn assert_close(actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len());
    let scale = expected.iter().filter(|x| x.is_finite()).fold(1.0f64, |scale, x| scale.max(x.abs()));
    for (index, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(actual) - expected).abs();
        let same = actual.is_nan() && expected.is_nan() || f64::from(actual) == expected;
        assert!(same || error <= tolerance * scale, "element {index}: {actual}, expected {expected}");
    }
}

/// A convolution, sum by sum.
fn naive_conv(conv: &Conv2d, x: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f64> {
    let mut out = Vec::new();
    let (depth, per_group) = (conv.in_channels / conv.groups, conv.out_channels / conv.groups);
    for b in 0..conv.batch {
        for y in 0..conv.out_height {
            for xx in 0..conv.out_width {
                for o in 0..conv.out_channels {
                    let mut sum = f64::from(bias[o]);
                    for ky in 0..conv.kernel_height {
                        for kx in 0..conv.kernel_width {
                            let iy = y * conv.stride[0] + ky * conv.dilation[0];
                            let ix = xx * conv.stride[1] + kx * conv.dilation[1];
                            if iy < conv.pad_top
                                || ix < conv.pad_left
                                || iy - conv.pad_top >= conv.in_height
                                || ix - conv.pad_left >= conv.in_width
                            {
                                continue;
                            }
                            let (iy, ix) = (iy - conv.pad_top, ix - conv.pad_left);
                            for c in 0..depth {
                                let channel = o / per_group * depth + c;
                                let at = ((b * conv.in_height + iy) * conv.in_width + ix) * conv.in_channels;
                                let w = ((ky * conv.kernel_width + kx) * depth + c) * conv.out_channels + o;
                                sum += f64::from(x[at + channel]) * f64::from(weights[w]);
                            }
                        }
                    }
                    out.push(sum);
                }
            }
        }
    }
    out
}

/// A convolution without strides whose output is as large as its input.
pub(super) fn same_conv(batch: usize, size: [usize; 2], channels: [usize; 2], kernel: [usize; 2]) -> Conv2d {
    Conv2d {
        batch,
        in_height: size[0],
        in_width: size[1],
        in_channels: channels[0],
        out_height: size[0],
        out_width: size[1],
        out_channels: channels[1],
        kernel_height: kernel[0],
        kernel_width: kernel[1],
        stride: [1, 1],
        dilation: [1, 1],
        pad_top: kernel[0] / 2,
        pad_left: kernel[1] / 2,
        groups: 1,
    }
}

/// A convolution of random numbers, and what must come of it.
pub(super) struct ConvCase {
    pub(super) x: Vec<f32>,
    pub(super) weights: Vec<f32>,
    pub(super) bias: Vec<f32>,
    residual: Vec<f32>,
    pub(super) plain: Vec<f64>,
    /// With [`ConvCase::epilogue`].
    pub(super) fused: Vec<f64>,
    /// The largest magnitude of `plain`, at least 1: bounds cut the scale that the rounding errors of `fused` come from.
    pub(super) scale: f64,
}

impl ConvCase {
    pub(super) fn of(conv: &Conv2d) -> ConvCase {
        let x = random(conv.in_elements().unwrap(), 1);
        let weights = random(conv.weight_elements().unwrap(), 2);
        let bias = random(conv.out_channels, 3);
        let residual = random(conv.out_elements().unwrap(), 4);
        let plain = naive_conv(conv, &x, &weights, &bias);
        let activated = |(&sum, &r): (&f64, &f32)| {
            0.5 * Unary::Silu.apply_f64((sum + f64::from(r)).clamp(-0.5, 1.5)) - 0.25
        };
        let fused = plain.iter().zip(&residual).map(activated).collect();
        let scale = plain.iter().fold(1.0f64, |scale, x| scale.max(x.abs()));
        ConvCase { x, weights, bias, residual, plain, fused, scale }
    }

    pub(super) fn epilogue(&self) -> Epilogue<'_> {
        let activation = Some(Activation { function: Unary::Silu, affine: Some([0.5, -0.25]) });
        Epilogue { min: -0.5, max: 1.5, residual: Some(&self.residual), activation }
    }
}

/// Fails unless all kernels do a convolution as it is done sum by sum, on each of these numbers of threads.
#[track_caller]
pub(super) fn check_conv(conv: &Conv2d, threads: &[usize]) {
    let case = ConvCase::of(conv);
    for kernels in available() {
        let packed = PackedConv::pack(kernels, conv, &case.weights, Some(&case.bias)).unwrap();
        let plan = ConvPlan::new(conv, &packed).unwrap();
        for threads in threads.iter().map(|&count| Threads::new(count)) {
            let mut out = vec![f32::NAN; case.plain.len()];
            kernels.conv2d(&plan, &packed, &case.x, &mut out, &Epilogue::default(), &threads).unwrap();
            assert_close(&out, &case.plain, 1e-5);
            kernels.conv2d(&plan, &packed, &case.x, &mut out, &case.epilogue(), &threads).unwrap();
            assert_close(&out, &case.fused, 1e-5 * case.scale);
        }
    }
}
