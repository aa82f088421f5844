//! Operators that put the same elements in another order.
//!
//! Images are NHWC. All are `Mapping`s, so every dtype works, strings included.

use super::{
    Fact, Inferred, Lower, OpError, Operator, Step,
    elements::{Elements, Item, Move, moving},
    expect_inputs,
    gather::expect_indices,
    known_integers,
    mapping::{Axis, Mapping, axis_of, planned_integers, row_major},
};
use crate::{
    kernels::{self, TransposePlan},
    tensor::{Shape, TensorError},
};
use serde::{Deserialize, Serialize};

/// `x` with its axes reordered: axis `i` of the result is axis `perm[i]` of `x`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transpose {
    /// A permutation of the axes; empty reverses them.
    pub perm: Vec<usize>,
}

impl Transpose {
    fn permutation(&self, rank: usize) -> Result<Vec<usize>, OpError> {
        if self.perm.is_empty() {
            return Ok((0..rank).rev().collect());
        }
        let mut seen = vec![false; rank];
        for &axis in &self.perm {
            match seen.get_mut(axis) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(self.misfit(rank)),
            }
        }
        if self.perm.len() == rank { Ok(self.perm.clone()) } else { Err(self.misfit(rank)) }
    }

    fn misfit(&self, rank: usize) -> OpError {
        OpError::invalid(format!("{:?} is not a permutation of the axes of a rank {rank} tensor", self.perm))
    }
}

impl Operator for Transpose {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        let from = &inputs[0].shape;
        let shape: Shape = self.permutation(from.len())?.iter().map(|&axis| from[axis]).collect();
        Ok(Inferred::one(inputs[0].dtype, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let from = &cx.inputs[0].shape;
        let permutation = self.permutation(from.len())?;
        let Some(size) = cx.inputs[0].dtype.size() else {
            return permuted(from, &permutation)?.lower(cx);
        };
        let plan = TransposePlan::new(from, &permutation)?;
        if plan.is_copy() {
            return Ok(Step::alias());
        }
        Ok(Step::arena(move |io| {
            let (x, y) = (io.input(0)?, io.next_output()?);
            Ok(kernels::transpose_bytes(&plan, size, x, y, io.context().threads)?)
        }))
    }
}

/// `x` with the order of the elements reversed along some axes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reverse {
    /// The axes; negative from the back.
    pub axes: Vec<i64>,
}

impl Operator for Reverse {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        for &axis in &self.axes {
            axis_of(&inputs[0].shape, axis)?;
        }
        Ok(Inferred::one(inputs[0].dtype, inputs[0].shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let from = &cx.inputs[0].shape;
        let mut strides = row_major(from);
        let mut base = 0;
        for &axis in &self.axes {
            let axis = axis_of(from, axis)?;
            base += (from[axis] as isize - 1) * strides[axis].abs();
            strides[axis] = -strides[axis].abs();
        }
        let axes = from.iter().zip(strides).map(|(&len, stride)| Axis::Stride { len, stride });
        Mapping::new(base, axes.collect(), from.elements())?.lower(cx)
    }
}

/// `x` with the elements moved on along some axes; what leaves at the end comes in at the start.
/// Input 1 tells how far, one number per axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roll {
    /// The axes; negative from the back. One may stand twice.
    pub axes: Vec<i64>,
}

impl Operator for Roll {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        let shifts = known_integers!(inputs, 1);
        if shifts.len() != self.axes.len() {
            return Err(OpError::invalid("shift and axis must have the same size"));
        }
        for &axis in &self.axes {
            axis_of(&inputs[0].shape, axis)?;
        }
        Ok(Inferred::one(inputs[0].dtype, inputs[0].shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let from = &cx.inputs[0].shape;
        let mut moved = vec![0i64; from.len()];
        for (&axis, shift) in self.axes.iter().zip(planned_integers(cx.inputs, 1)?) {
            let axis = axis_of(from, axis)?;
            moved[axis] =
                (moved[axis] + shift % from[axis].max(1) as i64).rem_euclid(from[axis].max(1) as i64);
        }
        let axes = from.iter().zip(row_major(from)).zip(moved).map(|((&len, stride), shift)| match shift {
            0 => Ok(Axis::Stride { len, stride }),
            _ => Axis::listed(len, |position| ((position + len - shift as usize) % len) as isize * stride),
        });
        Mapping::new(0, axes.collect::<Result<_, _>>()?, from.elements())?.lower(cx)
    }
}

/// The diagonal of matrices `[.., m, n]`, as the last axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagonal {
    /// Above the main diagonal when positive, below when negative.
    pub offset: i64,
}

impl Diagonal {
    /// Row and column of the first element, and the length.
    fn place(&self, x: &Fact) -> Result<(usize, usize, usize), OpError> {
        let (&[.., rows, columns], Ok(away)) = (x.dims(), usize::try_from(self.offset.unsigned_abs())) else {
            return Err(OpError::invalid(format!("a diagonal needs a matrix, but the input is {}", x.shape)));
        };
        let (row, column) = if self.offset < 0 { (away, 0) } else { (0, away) };
        match row <= rows && column <= columns {
            true => Ok((row, column, (rows - row).min(columns - column))),
            false => Err(OpError::invalid(format!("diagonal {} is outside of {}", self.offset, x.shape))),
        }
    }
}

impl Operator for Diagonal {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        let (_, _, length) = self.place(&inputs[0])?;
        let outer = &inputs[0].dims()[..inputs[0].rank() - 2];
        let shape: Shape = outer.iter().copied().chain([length]).collect();
        Ok(Inferred::one(inputs[0].dtype, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let from = &cx.inputs[0].shape;
        let (row, column, length) = self.place(&cx.inputs[0])?;
        let strides = row_major(from);
        let [outer @ .., step, _] = strides.as_slice() else { return Err(OpError::Memory("a diagonal")) };
        let mut axes: Vec<Axis> =
            from.iter().zip(outer).map(|(&len, &stride)| Axis::Stride { len, stride }).collect();
        axes.push(Axis::Stride { len: length, stride: step + 1 });
        Mapping::new(row as isize * step + column as isize, axes, from.elements())?.lower(cx)
    }
}

/// `x` with the first `lengths[b]` (input 1, `int32` or `int64`) elements along one axis in reversed
/// order, for each position `b` along another axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReverseSequence {
    /// The axis that the lengths go along; negative from the back.
    pub batch_axis: i64,
    /// The axis that is reversed; negative from the back.
    pub time_axis: i64,
}

impl ReverseSequence {
    fn axes(&self, x: &Shape) -> Result<(usize, usize), OpError> {
        let (batch, time) = (axis_of(x, self.batch_axis)?, axis_of(x, self.time_axis)?);
        if batch == time {
            return Err(OpError::invalid(format!("batch_dim == seq_dim == {batch}")));
        }
        Ok((batch, time))
    }
}

impl Operator for ReverseSequence {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        expect_indices(&inputs[1])?;
        let (batch, _) = self.axes(&inputs[0].shape)?;
        if inputs[1].dims() != [inputs[0].shape[batch]] {
            return Err(OpError::invalid(format!(
                "Length of seq_lengths != input.dims({batch}), shapes {} and {}",
                inputs[1].shape, inputs[0].shape
            )));
        }
        Ok(Inferred::one(inputs[0].dtype, inputs[0].shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let x = &cx.inputs[0].shape;
        let (batch, time) = self.axes(x)?;
        let strides = row_major(x);
        let run = x[batch.max(time) + 1..].iter().product();
        let axis = |axis: usize| (x[axis], strides[axis] as usize);
        moving(ReversedRows { batch: axis(batch), time: axis(time), run }, cx)
    }
}

/// Length and stride of both axes, and elements that stay together.
struct ReversedRows {
    batch: (usize, usize),
    time: (usize, usize),
    run: usize,
}

impl Move for ReversedRows {
    fn run<'a, T: Item + 'a>(&self, elements: &mut impl Elements<'a, T>) -> Result<(), OpError> {
        let (x, lengths, y) = (elements.input(0)?, elements.integers(1)?, elements.next_output()?);
        if y.is_empty() {
            return Ok(());
        }
        for (row, y) in y.chunks_exact_mut(self.run).enumerate() {
            let start = row * self.run;
            let of = |(len, stride): (usize, usize)| start / stride % len;
            let (given, time) = (lengths.at(of(self.batch)), of(self.time));
            let length = usize::try_from(given).ok().filter(|&length| length <= self.time.0);
            let length = length.ok_or_else(|| {
                OpError::invalid(format!(
                    "seq_lens({}) = {given} is not in [0, {}]",
                    of(self.batch),
                    self.time.0
                ))
            })?;
            let from = if time < length { length - 1 - time } else { time };
            y.clone_from_slice(&x[start + from * self.time.1 - time * self.time.1..][..self.run]);
        }
        Ok(())
    }
}

/// Blocks of depth become blocks of space: `[n, h, w, b * b * c]` to `[n, h * b, w * b, c]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DepthToSpace {
    /// Edge of a block.
    pub block: usize,
    /// The depth counts block row, block column, channel (TensorFlow, ONNX "DCR"); else channel,
    /// block row, block column ("CRD").
    pub dcr: bool,
}

impl Operator for DepthToSpace {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        let [n, h, w, c] = image(&inputs[0])?;
        let square = self.block.saturating_mul(self.block);
        if square == 0 || c % square != 0 {
            return Err(OpError::invalid(format!(
                "depth {c} is not divisible by the square of block {}",
                self.block
            )));
        }
        let [h, w] = [h, w].map(|dim| dim.saturating_mul(self.block));
        Ok(Inferred::one(inputs[0].dtype, [n, h, w, c / square]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let [n, h, w, c] = image(&cx.inputs[0])?;
        let (block, channels) = (self.block, c / self.block.saturating_mul(self.block).max(1));
        let from =
            if self.dcr { [n, h, w, block, block, channels] } else { [n, h, w, channels, block, block] };
        let order = if self.dcr { [0, 1, 3, 2, 4, 5] } else { [0, 1, 4, 2, 5, 3] };
        permuted(&from, &order)?.lower(cx)
    }
}

/// Blocks of space become depth: `[n, h * b, w * b, c]` to `[n, h, w, b * b * c]`, the depth
/// counting block row, block column, channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpaceToDepth {
    /// Edge of a block.
    pub block: usize,
}

impl Operator for SpaceToDepth {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        let [n, h, w, c] = image(&inputs[0])?;
        let block = self.block;
        if block == 0 || h % block != 0 || w % block != 0 {
            return Err(OpError::invalid(format!(
                "an image of {h} x {w} does not split into blocks of {block}"
            )));
        }
        let depth = c.saturating_mul(block).saturating_mul(block);
        Ok(Inferred::one(inputs[0].dtype, [n, h / block, w / block, depth]))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let [n, h, w, c] = image(&cx.inputs[0])?;
        let block = self.block.max(1);
        permuted(&[n, h / block, block, w / block, block, c], &[0, 1, 3, 2, 4, 5])?.lower(cx)
    }
}

fn image(fact: &Fact) -> Result<[usize; 4], OpError> {
    let shape = fact.dims();
    shape.try_into().map_err(|_| OpError::invalid(format!("expected an image of rank 4, got {}", fact.shape)))
}

fn permuted(from: &[usize], order: &[usize]) -> Result<Mapping, OpError> {
    let strides = row_major(from);
    let axes = order.iter().map(|&axis| Axis::Stride { len: from[axis], stride: strides[axis] });
    Mapping::new(0, axes.collect(), from.iter().product())
}

/// Blocks of space become batches (TensorFlow `SpaceToBatchND`). Inputs: `x` of
/// `[n, space.., rest..]`, block shape `[m]`, paddings `[m, 2]`; the `m` space dimensions are padded
/// with zeros and must then divide by the block. Result: `[prod(block) * n, space / block.., rest..]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpaceToBatch;

impl Operator for SpaceToBatch {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 3..=3)?;
        let (block, pads) = (known_integers!(inputs, 1), known_integers!(inputs, 2));
        let spaces = spaces(&inputs[0].shape, &block, &pads)?;
        let mut shape = inputs[0].shape.clone();
        for (axis, space) in spaces.iter().enumerate() {
            let padded = shape[axis + 1].saturating_add(space.before).saturating_add(space.after);
            if padded % space.block != 0 {
                return Err(OpError::invalid(format!(
                    "padded_shape[{axis}]={padded} is not divisible by block_shape[{axis}]={}",
                    space.block
                )));
            }
            shape[axis + 1] = padded / space.block;
            shape[0] = shape[0].saturating_mul(space.block);
        }
        if shape.checked_elements().is_none_or(|elements| isize::try_from(elements).is_err()) {
            return Err(TensorError::TooLarge(shape).into());
        }
        Ok(Inferred::one(inputs[0].dtype, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (block, pads) = (planned_integers(cx.inputs, 1)?, planned_integers(cx.inputs, 2)?);
        let (from, to) = (&cx.inputs[0].shape, &cx.outputs[0].shape);
        // Each element of x has its place in the result; what is left is padding.
        let axes = batch_axes(from, to, &spaces(from, &block, &pads)?)?;
        moving(ZerosAndScatter(Mapping::new(0, axes, to.elements())?), cx)
    }
}

/// Batches become blocks of space (TensorFlow `BatchToSpaceND`), the inverse of [`SpaceToBatch`].
/// Inputs: `x`, block shape `[m]`, crops `[m, 2]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchToSpace;

impl Operator for BatchToSpace {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 3..=3)?;
        let (block, crops) = (known_integers!(inputs, 1), known_integers!(inputs, 2));
        let spaces = spaces(&inputs[0].shape, &block, &crops)?;
        let mut shape = inputs[0].shape.clone();
        for (axis, space) in spaces.iter().enumerate() {
            let (whole, cropped) =
                (shape[axis + 1].saturating_mul(space.block), space.before.saturating_add(space.after));
            if !shape[0].is_multiple_of(space.block) || whole < cropped {
                return Err(OpError::invalid(format!(
                    "a tensor of shape {} has no blocks of {block:?} with crops {crops:?}",
                    inputs[0].shape
                )));
            }
            shape[axis + 1] = whole - cropped;
            shape[0] /= space.block;
        }
        Ok(Inferred::one(inputs[0].dtype, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (block, crops) = (planned_integers(cx.inputs, 1)?, planned_integers(cx.inputs, 2)?);
        let (from, to) = (&cx.inputs[0].shape, &cx.outputs[0].shape);
        let axes = batch_axes(to, from, &spaces(from, &block, &crops)?)?;
        Mapping::new(0, axes, from.elements())?.lower(cx)
    }
}

struct Space {
    block: usize,
    before: usize,
    after: usize,
}

fn spaces(shape: &Shape, block: &[i64], margins: &[i64]) -> Result<Vec<Space>, OpError> {
    let misfit = || {
        OpError::invalid(format!(
            "block {block:?} with margins {margins:?} does not fit a tensor of shape {shape}"
        ))
    };
    if margins.len() != block.len() * 2 || block.len() >= shape.len() {
        return Err(misfit());
    }
    let spaces = block.iter().zip(margins.chunks_exact(2)).map(|(&block, margin)| {
        Some(Space {
            block: usize::try_from(block).ok().filter(|&block| block > 0)?,
            before: usize::try_from(margin[0]).ok()?,
            after: usize::try_from(margin[1]).ok()?,
        })
    });
    spaces.collect::<Option<Vec<Space>>>().ok_or_else(misfit)
}

/// Where each element of the tensor with whole spaces stands in the one with batched blocks.
fn batch_axes(whole: &Shape, batched: &Shape, spaces: &[Space]) -> Result<Vec<Axis>, OpError> {
    let strides = row_major(batched);
    let mut axes = vec![Axis::Stride { len: whole[0], stride: strides[0] }];
    // Batches that one step of a block's position skips; the last block axis is the innermost.
    let mut batches: Vec<usize> = vec![whole[0]; spaces.len()];
    for axis in (1..spaces.len()).rev() {
        batches[axis - 1] = batches[axis].saturating_mul(spaces[axis].block);
    }
    for (axis, space) in spaces.iter().enumerate() {
        let step = strides[0].saturating_mul(batches[axis] as isize);
        let stride = strides[axis + 1];
        axes.push(Axis::listed(whole[axis + 1], |position| {
            let position = position + space.before;
            (position % space.block) as isize * step + (position / space.block) as isize * stride
        })?);
    }
    let rest = whole.iter().zip(strides).skip(spaces.len() + 1);
    axes.extend(rest.map(|(&len, stride)| Axis::Stride { len, stride }));
    Ok(axes)
}

struct ZerosAndScatter(Mapping);

impl Move for ZerosAndScatter {
    fn run<'a, T: Item + 'a>(&self, elements: &mut impl Elements<'a, T>) -> Result<(), OpError> {
        let (x, y) = (elements.input(0)?, elements.next_output()?);
        y.fill(T::default());
        self.0.scatter(x, y);
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

    fn counted(shape: &[usize]) -> Tensor {
        let values: Vec<i32> = (0..shape.iter().product::<usize>() as i32).collect();
        Tensor::from_slice(shape, &values).unwrap()
    }

    #[test]
    fn transposes() {
        let y = run_op(Transpose { perm: vec![2, 0, 1] }, &[counted(&[2, 1, 3])]).unwrap();
        assert_eq!(y[0].shape().to_vec(), [3, 2, 1]);
        assert_eq!(y[0].as_slice::<i32>().unwrap(), [0, 3, 1, 4, 2, 5]);
        let y = run_op(Transpose { perm: vec![] }, &[counted(&[2, 3])]).unwrap();
        assert_eq!(y[0].as_slice::<i32>().unwrap(), [0, 3, 1, 4, 2, 5]);
        let names = ["a", "b", "c", "d"].map(Bytes::from).to_vec();
        let names = Tensor::from_strings([2, 2], names).unwrap();
        let y = run_op(Transpose { perm: vec![1, 0] }, &[names]).unwrap();
        assert_eq!(y[0].as_strings().unwrap(), ["a", "c", "b", "d"]);
        for perm in [vec![0, 0], vec![0], vec![0, 2]] {
            assert!(run_op(Transpose { perm }, &[counted(&[2, 3])]).is_err());
        }
    }

    #[test]
    fn reverses() {
        let y = run_op(Reverse { axes: vec![-1] }, &[counted(&[2, 3])]).unwrap();
        assert_eq!(y[0].as_slice::<i32>().unwrap(), [2, 1, 0, 5, 4, 3]);
        let y = run_op(Reverse { axes: vec![0, 1] }, &[counted(&[2, 3])]).unwrap();
        assert_eq!(y[0].as_slice::<i32>().unwrap(), [5, 4, 3, 2, 1, 0]);
    }

    #[test]
    fn reverses_sequences() {
        // Columns are sequences of lengths 3, 1 and 2.
        let lengths = Tensor::from_slice([3], &[3i64, 1, 2]).unwrap();
        let op = ReverseSequence { batch_axis: 1, time_axis: 0 };
        let y = run_op(op.clone(), &[counted(&[3, 3]), lengths.clone()]).unwrap();
        assert_eq!(y[0].as_slice::<i32>().unwrap(), [6, 1, 5, 3, 4, 2, 0, 7, 8]);
        let rows = ReverseSequence { batch_axis: 0, time_axis: 1 };
        let y = run_op(rows, &[counted(&[3, 3, 1]), lengths]).unwrap();
        assert_eq!(y[0].as_slice::<i32>().unwrap(), [2, 1, 0, 3, 4, 5, 7, 6, 8]);
        let far = Tensor::from_slice([3], &[3i64, 1, 4]).unwrap();
        assert!(run_op(op, &[counted(&[3, 3]), far]).is_err());
    }

    #[test]
    fn depth_and_space() {
        // The examples of the TensorFlow and ONNX operator pages.
        let x = counted(&[1, 1, 2, 8]);
        let y = run_op(DepthToSpace { block: 2, dcr: true }, std::slice::from_ref(&x)).unwrap();
        assert_eq!(y[0].shape().to_vec(), [1, 2, 4, 2]);
        assert_eq!(y[0].as_slice::<i32>().unwrap(), [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15]);
        let back = run_op(SpaceToDepth { block: 2 }, &y).unwrap();
        assert_eq!(back[0], x);
        let y = run_op(DepthToSpace { block: 2, dcr: false }, &[x]).unwrap();
        assert_eq!(y[0].as_slice::<i32>().unwrap(), [0, 4, 1, 5, 8, 12, 9, 13, 2, 6, 3, 7, 10, 14, 11, 15]);
        assert!(run_op(SpaceToDepth { block: 2 }, &[counted(&[1, 3, 2, 1])]).is_err());
    }

    #[test]
    fn batches_and_space() {
        // Example 4 of TensorFlow's SpaceToBatchND: [2, 2, 4, 1], blocks 2 x 2, paddings [[0, 0], [2, 0]].
        let values: Vec<i32> = (1..17).collect();
        let x = Tensor::from_slice([2, 2, 4, 1], &values).unwrap();
        let block = Tensor::from_slice([2], &[2i32, 2]).unwrap();
        let pads = Tensor::from_slice([2, 2], &[0i32, 0, 2, 0]).unwrap();
        let y = run_op(SpaceToBatch, &[x.clone(), block.clone(), pads.clone()]).unwrap();
        assert_eq!(y[0].shape().to_vec(), [8, 1, 3, 1]);
        let expected = [0, 1, 3, 0, 9, 11, 0, 2, 4, 0, 10, 12, 0, 5, 7, 0, 13, 15, 0, 6, 8, 0, 14, 16];
        assert_eq!(y[0].as_slice::<i32>().unwrap(), expected);
        let back = run_op(BatchToSpace, &[y[0].clone(), block, pads]).unwrap();
        assert_eq!(back[0], x);
    }
}
