//! Operators that take a regular part of a tensor.

use super::{
    Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs, known_integers,
    mapping::{Axis, Mapping, axis_of, planned_integers, row_major},
};
use crate::tensor::Shape;
use serde::{Deserialize, Serialize};

/// TensorFlow's `StridedSlice`: inputs `x`, begin, end and strides (integer vectors of one length).
/// Bit `i` of a mask speaks of entry `i` of these vectors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StridedSlice {
    /// The entry starts as early as its stride allows.
    pub begin_mask: u32,
    /// The entry ends as late as its stride allows.
    pub end_mask: u32,
    /// The entry stands for as many whole dimensions as the others leave; at most one.
    pub ellipsis_mask: u32,
    /// The entry inserts a dimension of size 1.
    pub new_axis_mask: u32,
    /// The entry picks one position, and its dimension goes away.
    pub shrink_axis_mask: u32,
}

/// The part of one dimension that is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    begin: i64,
    stride: i64,
    len: usize,
}

/// What becomes of `x`: a range per dimension, and the shape of the result.
#[derive(Clone, Debug, PartialEq)]
struct Selection {
    ranges: Vec<Range>,
    shape: Shape,
}

impl Selection {
    fn lower(self, from: &Shape, cx: &Lower<'_>) -> Result<Step, OpError> {
        let strides = row_major(from);
        let mut base = 0isize;
        let mut axes = Vec::with_capacity(self.ranges.len());
        for (range, stride) in self.ranges.iter().zip(strides) {
            base += if range.len > 0 { range.begin as isize * stride } else { 0 };
            // A stride past the end is taken at most once, so that any other does as well.
            let step = if range.len > 1 { (range.stride as isize).saturating_mul(stride) } else { 0 };
            axes.push(Axis::Stride { len: range.len, stride: step });
        }
        Mapping::new(base, axes, from.elements())?.lower(cx)
    }
}

impl StridedSlice {
    fn select(
        &self,
        from: &Shape,
        begin: &[i64],
        end: &[i64],
        strides: &[i64],
    ) -> Result<Selection, OpError> {
        let entries = begin.len();
        if end.len() != entries || strides.len() != entries || entries > 32 {
            return Err(OpError::invalid(
                "Expected begin, end, and strides to be 1D equal size tensors of at most 32 entries",
            ));
        }
        let bit = |mask: u32, entry: usize| mask >> entry & 1 == 1;
        let ellipsis = (0..entries).find(|&entry| bit(self.ellipsis_mask, entry));
        if self.ellipsis_mask.count_ones() > 1 {
            return Err(OpError::invalid("Multiple ellipses in slice spec not allowed"));
        }
        let is_new = |entry: usize| bit(self.new_axis_mask, entry) && Some(entry) != ellipsis;
        let consuming = (0..entries).filter(|&entry| !is_new(entry) && Some(entry) != ellipsis).count();
        let whole = from.len().checked_sub(consuming).ok_or_else(|| {
            OpError::invalid(format!(
                "Index out of range using input dim {}; input has only {} dims",
                from.len(),
                from.len()
            ))
        })?;
        let mut selection = Selection { ranges: Vec::with_capacity(from.len()), shape: Shape::scalar() };
        let keep_whole = |selection: &mut Selection| {
            for _ in 0..whole {
                let len = from[selection.ranges.len()];
                selection.ranges.push(Range { begin: 0, stride: 1, len });
                selection.shape.push(len);
            }
        };
        for entry in 0..entries {
            if Some(entry) == ellipsis {
                keep_whole(&mut selection);
            } else if is_new(entry) {
                selection.shape.push(1);
            } else {
                let axis = selection.ranges.len();
                let (dim, stride) = (from[axis] as i64, strides[entry]);
                if stride == 0 {
                    return Err(OpError::invalid(format!("strides[{entry}] must be non-zero")));
                }
                if bit(self.shrink_axis_mask, entry) {
                    let position = if begin[entry] < 0 { begin[entry] + dim } else { begin[entry] };
                    if stride < 0 || !(0..dim).contains(&position) {
                        return Err(OpError::invalid(format!(
                            "slice index {} of dimension {axis} out of bounds.",
                            begin[entry]
                        )));
                    }
                    selection.ranges.push(Range { begin: position, stride: 1, len: 1 });
                    continue;
                }
                let begin = (!bit(self.begin_mask, entry)).then_some(begin[entry]);
                let end = (!bit(self.end_mask, entry)).then_some(end[entry]);
                let range = clamped(dim, begin, end, stride);
                selection.ranges.push(range);
                selection.shape.push(range.len);
            }
        }
        if ellipsis.is_none() {
            keep_whole(&mut selection);
        }
        Ok(selection)
    }
}

/// The positions `begin, begin + stride, ..` before `end`, both clamped to the dimension; a missing
/// bound is the farthest one. Negative bounds count from the back.
fn clamped(dim: i64, begin: Option<i64>, end: Option<i64>, stride: i64) -> Range {
    let (least, most) = if stride > 0 { (0, dim) } else { (-1, dim - 1) };
    let clamp = |bound: i64| {
        let bound = if bound < 0 { bound.saturating_add(dim) } else { bound };
        bound.clamp(least, most)
    };
    let (first, last) = if stride > 0 { (least, most) } else { (most, least) };
    let begin = begin.map_or(first, clamp);
    let end = end.map_or(last, clamp);
    let distance = if stride > 0 { end - begin } else { begin - end };
    let len = if distance <= 0 { 0 } else { (distance as u64).div_ceil(stride.unsigned_abs()) as usize };
    Range { begin, stride, len }
}

impl Operator for StridedSlice {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 4..=4)?;
        let (begin, end, strides) =
            (known_integers!(inputs, 1), known_integers!(inputs, 2), known_integers!(inputs, 3));
        let selection = self.select(&inputs[0].shape, &begin, &end, &strides)?;
        Ok(Inferred::one(inputs[0].dtype, selection.shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let [begin, end, strides] = [1, 2, 3].map(|index| planned_integers(cx.inputs, index));
        let from = &cx.inputs[0].shape;
        self.select(from, &begin?, &end?, &strides?)?.lower(from, cx)
    }
}

/// ONNX `Slice`: inputs `x`, starts, ends, and optionally axes (default: the first ones) and steps
/// (default 1), integer vectors of one length. Starts and ends are clamped to the dimension.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slice;

impl Slice {
    fn select(from: &Shape, given: &[Vec<i64>]) -> Result<Selection, OpError> {
        let misfit =
            || OpError::invalid(format!("a slice with {given:?} does not fit a tensor of shape {from}"));
        let (Some(starts), Some(ends)) = (given.first(), given.get(1)) else { return Err(misfit()) };
        let axes = match given.get(2) {
            Some(axes) => axes.clone(),
            None => (0..starts.len() as i64).collect(),
        };
        let steps = given.get(3).cloned().unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
            return Err(misfit());
        }
        let mut ranges: Vec<Range> = from.iter().map(|&len| Range { begin: 0, stride: 1, len }).collect();
        for (index, &axis) in axes.iter().enumerate() {
            let axis = axis_of(from, axis)?;
            if steps[index] == 0 {
                return Err(misfit());
            }
            ranges[axis] = clamped(from[axis] as i64, Some(starts[index]), Some(ends[index]), steps[index]);
        }
        let shape = ranges.iter().map(|range| range.len).collect();
        Ok(Selection { ranges, shape })
    }
}

impl Operator for Slice {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 3..=5)?;
        let mut given = Vec::with_capacity(inputs.len() - 1);
        for index in 1..inputs.len() {
            given.push(known_integers!(inputs, index));
        }
        Ok(Inferred::one(inputs[0].dtype, Self::select(&inputs[0].shape, &given)?.shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let given = (1..cx.inputs.len()).map(|index| planned_integers(cx.inputs, index));
        let given = given.collect::<Result<Vec<_>, _>>()?;
        let from = &cx.inputs[0].shape;
        Self::select(from, &given)?.lower(from, cx)
    }
}

/// TensorFlow's `Slice`: inputs `x`, begin and size (integer vectors of `x`'s rank). A size of -1
/// is what is left; the part must lie within `x`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SliceSize;

impl SliceSize {
    fn select(from: &Shape, begin: &[i64], size: &[i64]) -> Result<Selection, OpError> {
        if [begin.len(), size.len()] != [from.len(); 2] {
            return Err(OpError::invalid(format!(
                "Expected begin and size arguments to be 1-D tensors of size {}, but got shapes [{}] and [{}] instead.",
                from.len(),
                begin.len(),
                size.len()
            )));
        }
        let mut ranges = Vec::with_capacity(from.len());
        for (axis, &dim) in from.iter().enumerate() {
            let dim = dim as i64;
            let (begin, size) = (begin[axis], size[axis]);
            if !(0..=dim).contains(&begin) {
                return Err(OpError::invalid(format!(
                    "Expected begin[{axis}] in [0, {dim}], but got {begin}"
                )));
            }
            let left = dim - begin;
            let len = if size == -1 { left } else { size };
            if !(0..=left).contains(&len) {
                return Err(OpError::invalid(format!(
                    "Expected size[{axis}] in [0, {left}], but got {size}"
                )));
            }
            ranges.push(Range { begin, stride: 1, len: len as usize });
        }
        let shape = ranges.iter().map(|range| range.len).collect();
        Ok(Selection { ranges, shape })
    }
}

impl Operator for SliceSize {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 3..=3)?;
        let (begin, size) = (known_integers!(inputs, 1), known_integers!(inputs, 2));
        Ok(Inferred::one(inputs[0].dtype, Self::select(&inputs[0].shape, &begin, &size)?.shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let from = &cx.inputs[0].shape;
        Self::select(from, &planned_integers(cx.inputs, 1)?, &planned_integers(cx.inputs, 2)?)?
            .lower(from, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op, ops::Op, tensor::Tensor};

    fn sliced(op: impl Into<Op>, shape: &[usize], given: &[&[i64]]) -> Option<(Vec<usize>, Vec<i32>)> {
        let values: Vec<i32> = (0..shape.iter().product::<usize>() as i32).collect();
        let mut inputs = vec![Tensor::from_slice(shape, &values).unwrap()];
        inputs.extend(given.iter().map(|given| Tensor::from_slice([given.len()], given).unwrap()));
        let y = run_op(op, &inputs).ok()?;
        Some((y[0].shape().to_vec(), y[0].as_slice::<i32>().unwrap().to_vec()))
    }

    #[test]
    fn tensorflow_strided_slices_are_numpy_indexing() {
        let plain = StridedSlice::default();
        // x[1:-1, ::2] needs masks; the expectations are NumPy's.
        let op = StridedSlice { begin_mask: 2, end_mask: 2, ..plain.clone() };
        let y = sliced(op, &[4, 3], &[&[1, 0], &[-1, 0], &[1, 2]]);
        assert_eq!(y, Some((vec![2, 2], vec![3, 5, 6, 8])));
        // x[::-1]
        let op = StridedSlice { begin_mask: 1, end_mask: 1, ..plain.clone() };
        assert_eq!(sliced(op, &[3], &[&[0], &[0], &[-1]]), Some((vec![3], vec![2, 1, 0])));
        // x[-1]
        let op = StridedSlice { shrink_axis_mask: 1, ..plain.clone() };
        assert_eq!(sliced(op.clone(), &[3, 2], &[&[-1], &[0], &[1]]), Some((vec![2], vec![4, 5])));
        assert_eq!(sliced(op, &[3, 2], &[&[3], &[4], &[1]]), None);
        // x[..., newaxis, 1]
        let op = StridedSlice { ellipsis_mask: 1, new_axis_mask: 2, shrink_axis_mask: 4, ..plain.clone() };
        let y = sliced(op, &[2, 3], &[&[0, 0, 1], &[0, 0, 2], &[1, 1, 1]]);
        assert_eq!(y, Some((vec![2, 1], vec![1, 4])));
        // x[5:1:-2] of 0..5 and x[3:1]
        assert_eq!(sliced(plain.clone(), &[5], &[&[5], &[1], &[-2]]), Some((vec![2], vec![4, 2])));
        assert_eq!(sliced(plain.clone(), &[5], &[&[3], &[1], &[1]]), Some((vec![0], vec![])));
        let far = [i64::MIN, i64::MAX];
        assert_eq!(sliced(plain.clone(), &[2], &[&far[..1], &far[1..], &far[1..]]), Some((vec![1], vec![0])));
        assert_eq!(sliced(plain.clone(), &[2], &[&far[1..], &far[..1], &far[..1]]), Some((vec![1], vec![1])));
        assert_eq!(sliced(plain.clone(), &[5], &[&[0], &[1], &[0]]), None);
        assert_eq!(sliced(plain, &[5], &[&[0, 0], &[1, 1], &[1, 1]]), None);
    }

    #[test]
    fn onnx_slices_clamp() {
        // The examples of the operator's page.
        let y = sliced(Slice, &[2, 4], &[&[1, 0], &[2, 3], &[0, 1], &[1, 2]]);
        assert_eq!(y, Some((vec![1, 2], vec![4, 6])));
        assert_eq!(sliced(Slice, &[2, 4], &[&[0, 1], &[-1, 1000]]), Some((vec![1, 3], vec![1, 2, 3])));
        let y = sliced(Slice, &[4], &[&[-1], &[i64::MIN], &[0], &[-1]]);
        assert_eq!(y, Some((vec![4], vec![3, 2, 1, 0])));
        assert_eq!(sliced(Slice, &[4], &[&[0], &[1], &[1]]), None);
        assert_eq!(sliced(Slice, &[4], &[&[0], &[1], &[0], &[0]]), None);
    }

    #[test]
    fn sizes_must_fit() {
        let y = sliced(SliceSize, &[3, 3], &[&[1, 0], &[-1, 2]]);
        assert_eq!(y, Some((vec![2, 2], vec![3, 4, 6, 7])));
        for (begin, size) in [([0, 2], [1, 2]), ([4, 0], [0, 0]), ([-1, 0], [1, 1]), ([0, 0], [-2, 1])] {
            assert_eq!(sliced(SliceSize, &[3, 3], &[&begin, &size]), None);
        }
    }
}
