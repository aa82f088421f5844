//! Sampling images at positions that another tensor gives (ONNX `GridSample`), channels last.

use super::{Fact, Inferred, Io, Lower, OpError, Operator, Step, expect_inputs};
use crate::tensor::DType;
use serde::{Deserialize, Serialize};

/// How values between pixels are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sampling {
    /// The nearest pixel; of two the even one.
    Nearest,
    /// From 2 x 2 pixels.
    Linear,
    /// From 4 x 4 pixels by Keys' cubic convolution with a = -0.75.
    Cubic,
}

/// What lies outside of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outside {
    /// Zeros.
    Zeros,
    /// The pixel at the edge.
    Border,
    /// The mirror image.
    Reflection,
}

/// `x [n, h, w, c]` at the positions `grid [n, out_h, out_w, 2]` (column, row; -1 and 1 are the ends of the
/// image), as `[n, out_h, out_w, c]`. All `float`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GridSample {
    /// Interpolation.
    pub sampling: Sampling,
    /// The surroundings.
    pub outside: Outside,
    /// -1 and 1 are the centres of the outermost pixels, else their edges.
    pub align_corners: bool,
}

impl Operator for GridSample {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        if inputs.iter().any(|fact| fact.dtype != DType::F32) {
            return Err(OpError::unsupported("GridSample works on float"));
        }
        match (inputs[0].dims(), inputs[1].dims()) {
            (&[batch, height, width, channels], &[same, rows, columns, 2])
                if batch == same && (height * width > 0 || rows * columns == 0) =>
            {
                Ok(Inferred::one(DType::F32, [batch, rows, columns, channels]))
            }
            _ => Err(OpError::invalid(format!(
                "a grid of shape {} does not fit images of shape {}",
                inputs[1].shape, inputs[0].shape
            ))),
        }
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let &[_, height, width, channels] = cx.inputs[0].dims() else {
            return Err(OpError::Memory("images"));
        };
        let positions: usize = cx.inputs[1].dims()[1..3].iter().product();
        let op = self.clone();
        Ok(Step::arena(move |io: &mut Io<'_>| {
            let (x, grid, y) = (io.input::<f32>(0)?, io.input::<f32>(1)?, io.next_output::<f32>()?);
            if y.is_empty() {
                return Ok(());
            }
            let image = height * width * channels;
            for (at, (y, place)) in y.chunks_exact_mut(channels).zip(grid.as_chunks::<2>().0).enumerate() {
                let x = &x[at / positions * image..][..image];
                op.sample([height, width], channels, x, *place, y);
            }
            Ok(())
        }))
    }
}

impl GridSample {
    fn sample(
        &self,
        [height, width]: [usize; 2],
        channels: usize,
        x: &[f32],
        [column, row]: [f32; 2],
        y: &mut [f32],
    ) {
        let (column, row) = (self.position(column, width), self.position(row, height));
        let (rows, row_weights) = self.taps(row);
        let (columns, column_weights) = self.taps(column);
        y.fill(0.0);
        for (row, row_weight) in rows.iter().zip(row_weights) {
            for (column, column_weight) in columns.iter().zip(column_weights) {
                let weight = row_weight * column_weight;
                if weight == 0.0 {
                    continue;
                }
                let place = self.pixel(*row, height).zip(self.pixel(*column, width));
                let Some((row, column)) = place else { continue };
                let pixel = &x[(row * width + column) * channels..][..channels];
                y.iter_mut().zip(pixel).for_each(|(y, x)| *y += weight * x);
            }
        }
    }

    /// From -1..1 to pixels; borders and mirrors apply to the position already, but for the cubic.
    fn position(&self, place: f32, size: usize) -> f32 {
        let size = size as f32;
        let position = match self.align_corners {
            true => (place + 1.0) / 2.0 * (size - 1.0),
            false => ((place + 1.0) * size - 1.0) / 2.0,
        };
        if !position.is_finite() || self.sampling == Sampling::Cubic {
            return position;
        }
        match self.outside {
            Outside::Zeros => position,
            Outside::Border => position.clamp(0.0, size - 1.0),
            Outside::Reflection => self.mirrored(position, size),
        }
    }

    fn mirrored(&self, position: f32, size: f32) -> f32 {
        let (first, last) = if self.align_corners { (0.0, size - 1.0) } else { (-0.5, size - 0.5) };
        let span = last - first;
        if span <= 0.0 {
            return 0.0;
        }
        let distance = (position - first).rem_euclid(2.0 * span);
        first + if distance > span { 2.0 * span - distance } else { distance }
    }

    /// Positions and weights along one axis.
    fn taps(&self, position: f32) -> ([f32; 4], [f32; 4]) {
        let first = position.floor();
        let t = position - first;
        match self.sampling {
            Sampling::Nearest => ([position.round_ties_even(); 4], [1.0, 0.0, 0.0, 0.0]),
            Sampling::Linear => ([first, first + 1.0, first, first], [1.0 - t, t, 0.0, 0.0]),
            Sampling::Cubic => {
                let a = -0.75f32;
                let near = |d: f32| ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
                let far = |d: f32| ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
                (
                    [first - 1.0, first, first + 1.0, first + 2.0],
                    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)],
                )
            }
        }
    }

    /// The pixel at a whole position.
    fn pixel(&self, position: f32, size: usize) -> Option<usize> {
        let last = size as f32 - 1.0;
        if (0.0..=last).contains(&position) {
            return Some(position as usize);
        }
        match self.outside {
            _ if !position.is_finite() => None,
            Outside::Zeros => None,
            Outside::Border => Some(position.clamp(0.0, last) as usize),
            Outside::Reflection => {
                Some(self.mirrored(position, size as f32).round().clamp(0.0, last) as usize)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op, tensor::Tensor};

    /// Without aligned corners the corners are half a pixel outside.
    #[test]
    fn corners() {
        let x = Tensor::from_slice([1, 2, 2, 1], &[1.0f32, 2.0, 3.0, 4.0]).unwrap();
        let grid = Tensor::from_slice([1, 1, 3, 2], &[-1.0f32, -1.0, 1.0, 1.0, 0.0, 0.0]).unwrap();
        let at = |align_corners| {
            let op = GridSample { sampling: Sampling::Linear, outside: Outside::Zeros, align_corners };
            run_op(op, &[x.clone(), grid.clone()]).unwrap()[0].as_slice::<f32>().unwrap().to_vec()
        };
        assert_eq!(at(true), [1.0, 4.0, 2.5]);
        assert_eq!(at(false), [0.25, 1.0, 2.5]);
    }
}
