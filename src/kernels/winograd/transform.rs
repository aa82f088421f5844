//! The three transforms of Winograd's convolution, a vector of channels at a time.
//!
//! A tile of `OUT + 2` by `OUT + 2` inputs is evaluated at as many points as it has lines, in both directions; so is a window
//! of 3x3 weights. The products of the two, point by point, are interpolated to `OUT` by `OUT` outputs. With the points 0,
//! -1/sqrt 2, 1/sqrt 2, -sqrt 2, sqrt 2 and infinity the matrices of `OUT = 4` have no element above 2.5: the largest error is
//! about twice that of a direct convolution, a fourth of what the usual points 0, -1, 1, -2, 2 give. Those of
//! `OUT = 2` are 0, -1, 1 and infinity, with an error below the direct one's.

use crate::kernels::isa::{Isa, MAX_LANES};
use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

/// Lines of the largest tile of inputs.
pub(super) const MAX_TILE: usize = 6;
/// Lines of the largest tile of outputs.
const MAX_OUT: usize = 4;

/// A size of tile. Of the arrays, the first elements count.
pub(crate) trait Form {
    /// Lines of a tile of outputs.
    const OUT: usize;
    /// Lines of a tile of inputs.
    const TILE: usize = Self::OUT + 2;

    /// `TILE` inputs to as many points.
    fn inputs<I: Isa>(isa: I, x: [I::F32; MAX_TILE]) -> [I::F32; MAX_TILE];
    /// Three weights to `TILE` points.
    fn weights<I: Isa>(isa: I, w: [I::F32; 3]) -> [I::F32; MAX_TILE];
    /// Products at `TILE` points to `OUT` outputs.
    fn outputs<I: Isa>(isa: I, p: [I::F32; MAX_TILE]) -> [I::F32; MAX_OUT];
}

/// 2x2 outputs of 4x4 inputs: 16 products instead of 36.
pub(crate) struct Two;

impl Form for Two {
    const OUT: usize = 2;

    #[inline(always)]
    fn inputs<I: Isa>(isa: I, x: [I::F32; MAX_TILE]) -> [I::F32; MAX_TILE] {
        let none = x[4];
        [isa.sub(x[0], x[2]), isa.add(x[1], x[2]), isa.sub(x[2], x[1]), isa.sub(x[3], x[1]), none, none]
    }

    #[inline(always)]
    fn weights<I: Isa>(isa: I, w: [I::F32; 3]) -> [I::F32; MAX_TILE] {
        let half = isa.splat(0.5);
        let outer = isa.mul(half, isa.add(w[0], w[2]));
        let inner = isa.mul(half, w[1]);
        [w[0], isa.add(outer, inner), isa.sub(outer, inner), w[2], w[0], w[0]]
    }

    #[inline(always)]
    fn outputs<I: Isa>(isa: I, p: [I::F32; MAX_TILE]) -> [I::F32; MAX_OUT] {
        let first = isa.add(p[0], isa.add(p[1], p[2]));
        let second = isa.add(p[3], isa.sub(p[1], p[2]));
        [first, second, first, first]
    }
}

/// 4x4 outputs of 6x6 inputs: 36 products instead of 144.
pub(crate) struct Four;

impl Form for Four {
    const OUT: usize = 4;

    #[inline(always)]
    fn inputs<I: Isa>(isa: I, x: [I::F32; MAX_TILE]) -> [I::F32; MAX_TILE] {
        let times = |factor: f32, a, b| isa.mul_add(isa.splat(factor), a, b);
        let near = [times(-2.0, x[2], x[4]), times(-2.0, x[1], x[3])];
        let far = [times(-0.5, x[2], x[4]), times(-0.5, x[1], x[3])];
        [
            times(-2.5, x[2], isa.add(x[0], x[4])),
            times(FRAC_1_SQRT_2, near[1], near[0]),
            times(-FRAC_1_SQRT_2, near[1], near[0]),
            times(SQRT_2, far[1], far[0]),
            times(-SQRT_2, far[1], far[0]),
            times(-2.5, x[3], isa.add(x[1], x[5])),
        ]
    }

    #[inline(always)]
    fn weights<I: Isa>(isa: I, w: [I::F32; 3]) -> [I::F32; MAX_TILE] {
        let times = |factor: f32, a| isa.mul(isa.splat(factor), a);
        let near =
            [isa.mul_add(isa.splat(-2.0 / 3.0), w[0], times(-1.0 / 3.0, w[2])), times(-SQRT_2 / 3.0, w[1])];
        let far =
            [isa.mul_add(isa.splat(1.0 / 6.0), w[0], times(1.0 / 3.0, w[2])), times(SQRT_2 / 6.0, w[1])];
        [
            w[0],
            isa.add(near[0], near[1]),
            isa.sub(near[0], near[1]),
            isa.add(far[0], far[1]),
            isa.sub(far[0], far[1]),
            w[2],
        ]
    }

    #[inline(always)]
    fn outputs<I: Isa>(isa: I, p: [I::F32; MAX_TILE]) -> [I::F32; MAX_OUT] {
        let times = |factor: f32, a, b| isa.mul_add(isa.splat(factor), a, b);
        let scaled = |factor: f32, a| isa.mul(isa.splat(factor), a);
        let near = [isa.add(p[1], p[2]), isa.sub(p[1], p[2])];
        let far = [isa.add(p[3], p[4]), isa.sub(p[3], p[4])];
        [
            isa.add(p[0], isa.add(near[0], far[0])),
            times(FRAC_1_SQRT_2, near[1], scaled(SQRT_2, far[1])),
            times(0.5, near[0], scaled(2.0, far[0])),
            times(FRAC_1_SQRT_2 / 2.0, near[1], times(2.0 * SQRT_2, far[1], p[5])),
        ]
    }
}

/// A tile of inputs.
pub(crate) struct Inputs {
    pub(super) from: *const f32,
    /// Floats from one line to the next; pixels of a line are `channels` apart.
    pub(super) line: usize,
    pub(super) channels: usize,
    /// The channels at one point after the other.
    pub(super) to: *mut f32,
}

/// # Safety
/// The tile must be readable and all points writable.
#[inline(always)]
pub(crate) unsafe fn inputs<I: Isa, F: Form>(isa: I, work: &Inputs) {
    for channel in (0..work.channels).step_by(I::LANES) {
        let count = (work.channels - channel).min(I::LANES);
        let mut turned = [[isa.splat(0.0); MAX_TILE]; MAX_TILE];
        for column in 0..F::TILE {
            let mut x = [isa.splat(0.0); MAX_TILE];
            for line in 0..F::TILE {
                // SAFETY: within the tile; `count` channels remain.
                x[line] = unsafe {
                    isa.load_up_to(work.from.add(line * work.line + column * work.channels + channel), count)
                };
            }
            let points = F::inputs(isa, x);
            for line in 0..F::TILE {
                turned[line][column] = points[line];
            }
        }
        for line in 0..F::TILE {
            let points = F::inputs(isa, turned[line]);
            for column in 0..F::TILE {
                // SAFETY: one of the points; `count` channels remain.
                unsafe {
                    let to = work.to.add((line * F::TILE + column) * work.channels + channel);
                    isa.store_up_to(to, points[column], count);
                }
            }
        }
    }
}

/// Windows of weights for one input channel and a vector of output channels.
pub(crate) struct Weights {
    /// For each of nine taps a vector of output channels, [`MAX_LANES`] apart.
    pub(super) from: *const f32,
    /// The vector at the first point.
    pub(super) to: *mut f32,
    /// Floats from one point to the next.
    pub(super) point: usize,
}

/// # Safety
/// The vectors must be readable and writable.
#[inline(always)]
pub(crate) unsafe fn weights<I: Isa, F: Form>(isa: I, work: &Weights) {
    let mut turned = [[isa.splat(0.0); 3]; MAX_TILE];
    for column in 0..3 {
        let mut w = [isa.splat(0.0); 3];
        for line in 0..3 {
            // SAFETY: one of nine vectors.
            w[line] = unsafe { isa.load(work.from.add((line * 3 + column) * MAX_LANES)) };
        }
        let points = F::weights(isa, w);
        for line in 0..F::TILE {
            turned[line][column] = points[line];
        }
    }
    for line in 0..F::TILE {
        let points = F::weights(isa, turned[line]);
        for column in 0..F::TILE {
            // SAFETY: one of the points.
            unsafe { isa.store(work.to.add((line * F::TILE + column) * work.point), points[column]) };
        }
    }
}

/// A tile of outputs: `min(max(sum + bias + residual, min), max)`.
pub(crate) struct Outputs {
    /// The channels at one point after the other.
    pub(super) from: *const f32,
    pub(super) channels: usize,
    /// Whole vectors; null for none.
    pub(super) bias: *const f32,
    pub(super) to: *mut f32,
    /// As strided as `to`; null for none.
    pub(super) residual: *const f32,
    /// Floats from one line to the next; pixels of a line are `channels` apart.
    pub(super) line: usize,
    /// Lines of the tile that are part of the image.
    pub(super) lines: usize,
    /// Columns of the tile that are part of the image.
    pub(super) columns: usize,
    pub(super) min: f32,
    pub(super) max: f32,
}

/// # Safety
/// All points and the residual must be readable, and the lines and columns of the tile writable.
#[inline(always)]
pub(crate) unsafe fn outputs<I: Isa, F: Form>(isa: I, work: &Outputs) {
    for channel in (0..work.channels).step_by(I::LANES) {
        let count = (work.channels - channel).min(I::LANES);
        let mut turned = [[isa.splat(0.0); MAX_TILE]; MAX_OUT];
        for column in 0..F::TILE {
            let mut p = [isa.splat(0.0); MAX_TILE];
            for line in 0..F::TILE {
                // SAFETY: one of the points; `count` channels remain.
                p[line] = unsafe {
                    isa.load_up_to(work.from.add((line * F::TILE + column) * work.channels + channel), count)
                };
            }
            let sums = F::outputs(isa, p);
            for line in 0..F::OUT {
                turned[line][column] = sums[line];
            }
        }
        let bias = if work.bias.is_null() {
            isa.splat(0.0)
        } else {
            // SAFETY: a whole vector, as the caller vouches.
            unsafe { isa.load(work.bias.add(channel)) }
        };
        for line in 0..F::OUT.min(work.lines) {
            let sums = F::outputs(isa, turned[line]);
            for column in 0..F::OUT {
                if column >= work.columns {
                    break;
                }
                let at = line * work.line + column * work.channels + channel;
                let mut sum = isa.add(sums[column], bias);
                // SAFETY: part of the image; `count` channels remain.
                unsafe {
                    if !work.residual.is_null() {
                        sum = isa.add(sum, isa.load_up_to(work.residual.add(at), count));
                    }
                    let bounded = crate::kernels::math::clamp(isa, sum, work.min, work.max);
                    isa.store_up_to(work.to.add(at), bounded, count);
                }
            }
        }
    }
}
