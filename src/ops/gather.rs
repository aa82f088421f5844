//! Operators that pick elements by index.

use super::{
    Fact, Inferred, Lower, OpError, Operator, Step,
    elements::{Elements, Item, Move, moving},
    expect_inputs, known_integers,
    mapping::axis_of,
    places::{Places, out_of_range, wrapped},
};
use crate::tensor::{DType, Shape};
use serde::{Deserialize, Serialize};

/// Slices of input 0 along an axis, one for each index of input 1 (`int32` or `int64`). The first
/// `batch_dims` dimensions of both agree. Result: `x[..axis] + indices[batch_dims..] + x[axis + 1..]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gather {
    /// The axis of `x`; negative from the back.
    pub axis: i64,
    /// Number of batch dimensions, at most the axis; negative from the rank of the indices.
    #[serde(default)]
    pub batch_dims: i64,
    /// Negative indices count from the back (ONNX).
    #[serde(default)]
    pub negative: bool,
}

impl Gather {
    /// The axis and the number of batch dimensions.
    fn axes(&self, x: &Shape, indices: &Shape) -> Result<(usize, usize), OpError> {
        let axis = axis_of(x, self.axis)?;
        let rank = indices.len() as i64;
        let batches = if self.batch_dims < 0 { self.batch_dims + rank } else { self.batch_dims };
        let batches = usize::try_from(batches).ok().filter(|&batches| batches <= axis.min(indices.len()));
        match batches {
            Some(batches) if x[..batches] == indices[..batches] => Ok((axis, batches)),
            _ => Err(OpError::invalid(format!(
                "{} batch dimensions do not fit shapes {x} and {indices} with axis {axis}",
                self.batch_dims
            ))),
        }
    }
}

impl Operator for Gather {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        expect_indices(&inputs[1])?;
        let (x, indices) = (&inputs[0].shape, &inputs[1].shape);
        let (axis, batches) = self.axes(x, indices)?;
        let shape: Shape = [&x[..axis], &indices[batches..], &x[axis + 1..]].concat().into();
        Ok(Inferred::one(inputs[0].dtype, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (x, indices) = (&cx.inputs[0].shape, &cx.inputs[1].shape);
        let (axis, batches) = self.axes(x, indices)?;
        let pick = Pick {
            outer: x[batches..axis].iter().product(),
            dim: x[axis],
            inner: x[axis + 1..].iter().product(),
            per_batch: indices[batches..].iter().product(),
            indices: indices.clone(),
            negative: self.negative,
        };
        moving(pick, cx)
    }
}

pub(super) fn expect_indices(fact: &Fact) -> Result<(), OpError> {
    match fact.dtype {
        DType::U8 | DType::I32 | DType::I64 => Ok(()),
        other => Err(OpError::unsupported(format!("indices of {other} are not supported"))),
    }
}

struct Pick {
    outer: usize,
    dim: usize,
    inner: usize,
    per_batch: usize,
    indices: Shape,
    negative: bool,
}

impl Move for Pick {
    fn run<'a, T: Item + 'a>(&self, elements: &mut impl Elements<'a, T>) -> Result<(), OpError> {
        let (x, indices, y) = (elements.input(0)?, elements.integers(1)?, elements.next_output()?);
        if y.is_empty() {
            return Ok(());
        }
        let picked = |position: usize| {
            let given = indices.at(position);
            wrapped(given, self.dim, self.negative)
                .ok_or_else(|| out_of_range(&self.indices, position, given, self.dim))
        };
        if self.inner == 1 && indices.len() == 1 {
            // One of neighbours, as channels that are shuffled are taken.
            let from = x[picked(0)?..].iter().step_by(self.dim);
            y.iter_mut().zip(from).for_each(|(y, x)| y.clone_from(x));
            return Ok(());
        }
        for (block, y) in y.chunks_exact_mut(self.per_batch * self.inner).enumerate() {
            let first = block / self.outer * self.per_batch;
            let x = &x[block * self.dim * self.inner..][..self.dim * self.inner];
            for (index, y) in y.chunks_exact_mut(self.inner).enumerate() {
                y.clone_from_slice(&x[picked(first + index)? * self.inner..][..self.inner]);
            }
        }
        Ok(())
    }
}

/// Slices of input 0 at the coordinates in the last axis of input 1. Result:
/// `indices[..-1] + x[batch_dims + depth..]`, where `depth` is that axis's length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GatherNd {
    /// Number of leading dimensions that both inputs share.
    pub batch_dims: usize,
    /// Negative indices count from the back (ONNX).
    pub negative: bool,
}

impl Operator for GatherNd {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        expect_indices(&inputs[1])?;
        Places::coordinates(&inputs[0], &inputs[1], self.batch_dims, self.negative)?;
        let (rows, depth) = (inputs[1].rank() - 1, inputs[1].dims()[inputs[1].rank() - 1]);
        let shape: Shape =
            [&inputs[1].dims()[..rows], &inputs[0].dims()[self.batch_dims + depth..]].concat().into();
        Ok(Inferred::one(inputs[0].dtype, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        moving(Places::coordinates(&cx.inputs[0], &cx.inputs[1], self.batch_dims, self.negative)?, cx)
    }
}

/// For each index of input 1 the element of input 0 at its position, with the coordinate along
/// `axis` replaced by the index. Negative indices count from the back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GatherElements {
    /// The axis; negative from the back.
    pub axis: i64,
}

impl Operator for GatherElements {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        expect_indices(&inputs[1])?;
        Places::elements(&inputs[0], &inputs[1], axis_of(&inputs[0].shape, self.axis)?)?;
        Ok(Inferred::one(inputs[0].dtype, inputs[1].shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        moving(Places::elements(&cx.inputs[0], &cx.inputs[1], axis_of(&cx.inputs[0].shape, self.axis)?)?, cx)
    }
}

impl Move for Places {
    fn run<'a, T: Item + 'a>(&self, elements: &mut impl Elements<'a, T>) -> Result<(), OpError> {
        let (x, indices, y) = (elements.input(0)?, elements.integers(1)?, elements.next_output()?);
        let run = self.run();
        if run > 0 {
            for (row, y) in y.chunks_exact_mut(run).enumerate() {
                y.clone_from_slice(&x[self.place(indices, row)?..][..run]);
            }
        }
        Ok(())
    }
}

/// For each index of input 0 a vector of `depth` (input 1) elements: input 2 at the index, input 3
/// elsewhere. An index out of range gives a vector of input 3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OneHot {
    /// Where the new dimension stands in the result; -1 is last.
    pub axis: i64,
    /// Negative indices count from the back (ONNX).
    pub negative: bool,
}

impl Operator for OneHot {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 4..=4)?;
        expect_indices(&inputs[0])?;
        let depth = known_integers!(inputs, 1);
        let depth = match depth.as_slice() {
            [depth] => usize::try_from(*depth).ok(),
            _ => None,
        };
        let depth = depth.ok_or_else(|| OpError::invalid("depth must be one number, and not negative"))?;
        if inputs[2].dtype != inputs[3].dtype || inputs[2].elements() != 1 || inputs[3].elements() != 1 {
            return Err(OpError::invalid("the on and off values must be scalars of one type"));
        }
        let mut shape = inputs[0].shape.clone();
        shape.insert(self.position(&inputs[0].shape)?, depth);
        Ok(Inferred::one(inputs[2].dtype, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let shape = &cx.outputs[0].shape;
        let axis = self.position(&cx.inputs[0].shape)?;
        let inner = shape[axis + 1..].iter().product();
        moving(HotElements { depth: shape[axis], inner, negative: self.negative }, cx)
    }
}

impl OneHot {
    fn position(&self, indices: &Shape) -> Result<usize, OpError> {
        let rank = indices.len() as i64;
        let axis = if self.axis < 0 { self.axis + rank + 1 } else { self.axis };
        if (0..=rank).contains(&axis) {
            return Ok(axis as usize);
        }
        Err(OpError::invalid(format!("axis {} is out of range for indices of shape {indices}", self.axis)))
    }
}

struct HotElements {
    depth: usize,
    inner: usize,
    negative: bool,
}

impl Move for HotElements {
    fn run<'a, T: Item + 'a>(&self, elements: &mut impl Elements<'a, T>) -> Result<(), OpError> {
        let (indices, y) = (elements.integers(0)?, elements.next_output()?);
        let ([on], [off]) = (elements.input(2)?, elements.input(3)?) else {
            return Err(OpError::Memory("on and off values"));
        };
        y.fill(off.clone());
        for position in 0..if y.is_empty() { 0 } else { indices.len() } {
            if let Some(index) = wrapped(indices.at(position), self.depth, self.negative) {
                let (outer, inner) = (position / self.inner, position % self.inner);
                y[(outer * self.depth + index) * self.inner + inner] = on.clone();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::testing::run_op,
        tensor::{Bytes, Tensor},
    };

    fn tensor<const N: usize>(shape: &[usize], values: [i64; N]) -> Tensor {
        Tensor::from_slice(shape, &values).unwrap()
    }

    fn plain(axis: i64) -> Gather {
        Gather { axis, batch_dims: 0, negative: false }
    }

    #[test]
    fn gathers_slices() {
        let x = Tensor::from_slice([2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let y = run_op(plain(1), &[x.clone(), tensor(&[2, 1], [2, 0])]).unwrap();
        assert_eq!(y[0].shape().to_vec(), [2, 2, 1]);
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [3.0, 1.0, 6.0, 4.0]);
        let scalar = Tensor::from_slice([0usize; 0], &[1i32]).unwrap();
        let y = run_op(plain(0), &[x.clone(), scalar]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [4.0, 5.0, 6.0]);
        let last = Tensor::from_slice([0usize; 0], &[2i32]).unwrap();
        let y = run_op(plain(1), &[x.clone(), last]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [3.0, 6.0]);
        let beyond = Tensor::from_slice([0usize; 0], &[3i32]).unwrap();
        assert!(run_op(plain(1), &[x.clone(), beyond]).is_err());
        let batched = Gather { axis: 1, batch_dims: 1, negative: true };
        let y = run_op(batched, &[x.clone(), tensor(&[2, 2], [0, 1, -1, 0])]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [1.0, 2.0, 6.0, 4.0]);
        let error = run_op(plain(1), &[x, tensor(&[1, 4], [0, 1, 2, 7])]).unwrap_err().to_string();
        assert!(error.starts_with("indices[0,3] = 7 is not in [0, 3)"), "{error}");
        let words = Tensor::from_strings([2], vec![Bytes::from("no"), Bytes::from("yes")]).unwrap();
        let y = run_op(plain(0), &[words.clone(), tensor(&[3], [1, 1, 0])]).unwrap();
        assert_eq!(y[0].as_strings().unwrap(), ["yes", "yes", "no"]);
        let error = run_op(plain(0), &[words, tensor(&[1], [-1])]).unwrap_err().to_string();
        assert!(error.starts_with("indices[0] = -1 is not in [0, 2)"), "{error}");
    }

    #[test]
    fn gathers_at_coordinates() {
        let x = tensor(&[2, 2], [0, 1, 2, 3]);
        let nd = |batch_dims| GatherNd { batch_dims, negative: true };
        let y = run_op(nd(0), &[x.clone(), tensor(&[2, 2], [0, 0, 1, -1])]).unwrap();
        assert_eq!(y[0], tensor(&[2], [0, 3]));
        let y = run_op(nd(0), &[x.clone(), tensor(&[2, 1], [1, 0])]).unwrap();
        assert_eq!(y[0], tensor(&[2, 2], [2, 3, 0, 1]));
        // ONNX's example of batch_dims 1.
        let cube = tensor(&[2, 2, 2], [0, 1, 2, 3, 4, 5, 6, 7]);
        let y = run_op(nd(1), &[cube, tensor(&[2, 1], [1, 0])]).unwrap();
        assert_eq!(y[0], tensor(&[2, 2], [2, 3, 4, 5]));
        let error = run_op(nd(0), &[x.clone(), tensor(&[1, 2], [0, 5])]).unwrap_err().to_string();
        assert!(error.starts_with("indices[0] = [0, 5] does not index into param shape [2,2]"), "{error}");
        assert!(run_op(nd(0), &[x.clone(), tensor(&[1, 3], [0, 0, 0])]).is_err());
        let y = run_op(GatherElements { axis: 1 }, &[x.clone(), tensor(&[2, 2], [0, 0, 1, -2])]).unwrap();
        assert_eq!(y[0], tensor(&[2, 2], [0, 0, 3, 2]));
        assert!(run_op(GatherElements { axis: 0 }, &[x, tensor(&[1, 3], [0, 0, 0])]).is_err());
    }

    #[test]
    fn one_hot_vectors() {
        let on_off = [Tensor::scalar(5.0f32), Tensor::scalar(0.5f32)];
        let hot = |axis, negative| {
            let inputs =
                [tensor(&[3], [0, 2, -1]), Tensor::scalar(3i32), on_off[0].clone(), on_off[1].clone()];
            run_op(OneHot { axis, negative }, &inputs).unwrap().remove(0)
        };
        let expected = [5.0f32, 0.5, 0.5, 0.5, 0.5, 5.0, 0.5, 0.5, 0.5];
        assert_eq!(hot(-1, false).as_slice::<f32>().unwrap(), expected);
        let expected = [5.0f32, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 5.0, 5.0];
        assert_eq!(hot(0, true).as_slice::<f32>().unwrap(), expected);
    }
}
