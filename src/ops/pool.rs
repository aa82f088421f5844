//! Maximum and average over windows, channels last.

use super::{Fact, Inferred, Lower, OpError, Operator, Padding, Step, expect_inputs, volume, window::Axis};
use crate::{
    kernels::{Pool as Kind, Pool2d},
    tensor::{DType, Shape, buffer::Plain},
};
use serde::{Deserialize, Serialize};

/// What a window becomes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum PoolKind {
    /// Its greatest element.
    Max,
    /// The mean of its elements.
    Average {
        /// Padding counts as zeros, else it is left out.
        count_include_pad: bool,
    },
}

/// Pools `x [n, spatial.., c]` over one to three spatial dimensions: `F32`, and maxima over one or two of `U8` and `I8`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// What a window becomes.
    pub kind: PoolKind,
    /// Sizes of the window.
    pub window: Vec<usize>,
    /// Distance of windows; empty means 1.
    #[serde(default)]
    pub strides: Vec<usize>,
    /// Distance of a window's elements; empty means 1.
    #[serde(default)]
    pub dilations: Vec<usize>,
    /// The border.
    pub padding: Padding,
    /// A partial last window counts.
    #[serde(default)]
    pub ceil: bool,
}

impl Pool {
    fn geometry(&self, x: &Fact) -> Result<(Geometry, Shape), OpError> {
        let &[batch, ref spatial @ .., channels] = x.dims() else { return Err(misfit(x)) };
        let axes = self.padding.axes(spatial, &self.window, &self.strides, &self.dilations, self.ceil)?;
        let mut shape = Shape::from([batch]);
        axes.iter().for_each(|axis| shape.push(axis.output));
        shape.push(channels);
        let flat = Axis { input: 1, output: 1, window: 1, stride: 1, dilation: 1, before: 0, after: 0 };
        let (height, width) = match axes.as_slice() {
            [width] => (flat, *width),
            [height, width] => (*height, *width),
            [_, _, _] => return Ok((Geometry::Volume(volume::axes(&axes)?), shape)),
            _ => return Err(misfit(x)),
        };
        let pool = Pool2d {
            batch,
            in_height: height.input,
            in_width: width.input,
            channels,
            out_height: height.output,
            out_width: width.output,
            window: [height.window, width.window],
            stride: [height.stride, width.stride],
            dilation: [height.dilation, width.dilation],
            pad_top: height.before,
            pad_left: width.before,
            pad_bottom: height.after,
            pad_right: width.after,
            count_include_pad: self.kind == PoolKind::Average { count_include_pad: true },
        };
        pool.check()?;
        Ok((Geometry::Image(pool), shape))
    }
}

enum Geometry {
    Image(Pool2d),
    Volume(volume::Axes),
}

fn misfit(x: &Fact) -> OpError {
    OpError::invalid(format!(
        "pooling needs an input [batch, spatial.., channels] of one to three spatial dimensions, but it is {}",
        x.shape
    ))
}

impl Operator for Pool {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        let x = &inputs[0];
        let bytes = matches!(x.dtype, DType::U8 | DType::I8) && self.kind == PoolKind::Max;
        let (geometry, shape) = self.geometry(x)?;
        if x.dtype != DType::F32 && !(bytes && matches!(geometry, Geometry::Image(_))) {
            return Err(OpError::unsupported(format!("pooling of {} is not supported", x.dtype)));
        }
        Ok(Inferred::one(x.dtype, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let pool = match self.geometry(&cx.inputs[0])? {
            (Geometry::Image(pool), _) => pool,
            (Geometry::Volume(axes), _) => {
                let counted = self.kind == PoolKind::Average { count_include_pad: true };
                return volume::pool(&cx.inputs[0], axes, self.kind == PoolKind::Max, counted);
            }
        };
        let kind = match self.kind {
            PoolKind::Max => Kind::Max,
            PoolKind::Average { .. } => Kind::Average,
        };
        match cx.inputs[0].dtype {
            DType::U8 => return Ok(maxima::<u8>(pool, u8::MIN)),
            DType::I8 => return Ok(maxima::<i8>(pool, i8::MIN)),
            _ => {}
        }
        Ok(Step::arena(move |io| {
            let (x, out) = (io.input(0)?, io.next_output()?);
            let cx = io.context();
            Ok(cx.kernels.pool2d(kind, &pool, x, out, cx.threads)?)
        }))
    }
}

fn maxima<T: Plain + Ord + Send + Sync + 'static>(pool: Pool2d, least: T) -> Step {
    Step::arena(move |io| {
        let (x, out) = (io.input::<T>(0)?, io.next_output()?);
        let cx = io.context();
        Ok(cx.kernels.max_pool_integers(&pool, least, x, out, cx.threads)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op, tensor::Tensor};

    fn pool(kind: PoolKind, padding: Padding) -> Pool {
        Pool { kind, window: vec![2, 2], strides: vec![2, 2], dilations: vec![], padding, ceil: false }
    }

    #[test]
    fn borders_count_as_asked() {
        let x: Vec<f32> = (1..=9u8).map(f32::from).collect();
        let x = Tensor::from_slice([1, 3, 3, 1], &x).unwrap();
        let run = |op| run_op(op, &[x.clone()]).unwrap()[0].as_slice::<f32>().unwrap().to_vec();
        assert_eq!(run(pool(PoolKind::Max, Padding::Valid)), [5.0]);
        assert_eq!(run(pool(PoolKind::Max, Padding::SameUpper)), [5.0, 6.0, 8.0, 9.0]);
        let average = |count_include_pad| PoolKind::Average { count_include_pad };
        assert_eq!(run(pool(average(false), Padding::SameUpper)), [3.0, 4.5, 7.5, 9.0]);
        assert_eq!(run(pool(average(true), Padding::SameUpper)), [3.0, 2.25, 3.75, 2.25]);
        let signal = Tensor::from_slice([1, 4, 1], &[1.0f32, 3.0, -2.0, -4.0]).unwrap();
        let op = Pool { window: vec![2], strides: vec![], ..pool(PoolKind::Max, Padding::Valid) };
        assert_eq!(run_op(op, &[signal]).unwrap()[0].as_slice::<f32>().unwrap(), [3.0, 3.0, -2.0]);
        let bytes = Tensor::from_slice([1, 2, 3, 1], &[1i8, -3, 2, -5, -7, -6]).unwrap();
        let run = |padding| run_op(pool(PoolKind::Max, padding), &[bytes.clone()]).unwrap().remove(0);
        assert_eq!(run(Padding::SameUpper).as_slice::<i8>().unwrap(), [1, 2]);
        assert_eq!(run(Padding::Valid).as_slice::<i8>().unwrap(), [1]);
        assert!(run_op(pool(average(false), Padding::Valid), &[bytes]).is_err());
        let flat = Tensor::from_slice([2, 2], &[0.0f32; 4]).unwrap();
        assert!(run_op(pool(PoolKind::Max, Padding::Valid), &[flat]).is_err());
    }
}
