//! Reductions over elements that share a number: segments, counts, bins.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, bounded, expect_inputs, with_element};
use crate::{
    kernels::Number,
    tensor::{AlignedVec, Buffer, DType, Shape, Tensor, buffer},
};
use serde::{Deserialize, Serialize};

/// What becomes of the rows of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SegmentKind {
    /// Their sum; 0 for none.
    Sum,
    /// Their mean; 0 for none.
    Mean,
    /// Their sum divided by the square root of their number; 0 for none.
    SqrtN,
    /// Their product; 1 for none.
    Product,
    /// The greatest; the type's least value for none.
    Max,
    /// The least; the type's greatest value for none.
    Min,
}

/// Rows of input 0 reduced by the segment that input 1 (`int32` or `int64`) gives each; its shape
/// are the leading dimensions of input 0. Input 2 is the number of segments where the numbers come
/// in any order; rows of negative numbers are left out. Without it they must ascend, and the last is
/// the greatest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// What becomes of a segment.
    pub kind: SegmentKind,
    /// Segments without rows are zeros, whatever the kind.
    pub empty_is_zero: bool,
}

impl Operator for Segment {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=3)?;
        let (data, ids) = (&inputs[0], &inputs[1]);
        if !data.dims().starts_with(ids.dims()) {
            return Err(OpError::invalid(format!(
                "data.shape = {} does not start with segment_ids.shape = {}",
                data.shape, ids.shape
            )));
        }
        Ok(Inferred::AtRun)
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (op, dtype) = (self.clone(), cx.inputs[0].dtype);
        with_element!(dtype, T => Ok(Step::tensors(move |inputs, _| {
            let [data, ids, count @ ..] = inputs else { return Err(OpError::Memory("segments")) };
            let numbers = ids.to_i64_vec()?;
            let count = match count.first() {
                Some(count) => count.to_i64_vec()?.first().copied().unwrap_or(0),
                None if numbers.is_sorted() => numbers.last().map_or(0, |last| last.saturating_add(1)),
                None => return Err(OpError::invalid("segment ids are not increasing")),
            };
            let rest = Shape::from(&data.shape()[ids.shape().len()..]);
            let y = reduce::<T>(&op, bytes(data)?, &numbers, count, rest.elements())?;
            let count = y.as_slice().len().checked_div(rest.elements()).unwrap_or(count as usize);
            let shape: Shape = std::iter::once(count).chain(rest.iter().copied()).collect();
            Ok(vec![Tensor::from_buffer(dtype, shape, y.freeze())?])
        })), else Err(OpError::unsupported(format!("segments of {dtype} are not supported"))))
    }
}

/// The elements of a tensor of numbers.
fn bytes<T: buffer::Plain>(tensor: &Tensor) -> Result<&[T], OpError> {
    if tensor.is_empty() {
        return Ok(&[]);
    }
    tensor.buffer().and_then(Buffer::as_slice).ok_or(OpError::Memory("segments"))
}

fn reduce<T: Number + buffer::Plain>(
    op: &Segment,
    data: &[T],
    numbers: &[i64],
    count: i64,
    run: usize,
) -> Result<AlignedVec<T>, OpError> {
    let count = usize::try_from(count).map_err(|_| OpError::invalid("num_segments is negative"))?;
    let elements = bounded(count.checked_mul(run.max(1)))? * run.min(1);
    let mut sums = vec_of(
        elements,
        match op.kind {
            SegmentKind::Product => T::Sum::ONE,
            SegmentKind::Max => T::LOWEST.widen(),
            SegmentKind::Min => T::HIGHEST.widen(),
            _ => T::Sum::ZERO,
        },
    )?;
    let mut rows = vec_of(count, 0usize)?;
    for (row, &number) in numbers.iter().enumerate() {
        let Ok(segment) = usize::try_from(number) else { continue };
        let Some(seen) = rows.get_mut(segment) else {
            return Err(OpError::invalid(format!("segment id {number} is not in [0, {count})")));
        };
        *seen += 1;
        for (sum, value) in sums[segment * run..][..run].iter_mut().zip(&data[row * run..][..run]) {
            let value = value.widen();
            *sum = match op.kind {
                SegmentKind::Product => sum.times(value),
                SegmentKind::Max => {
                    if value > *sum {
                        value
                    } else {
                        *sum
                    }
                }
                SegmentKind::Min => {
                    if value < *sum {
                        value
                    } else {
                        *sum
                    }
                }
                _ => sum.plus(value),
            };
        }
    }
    let mut out = AlignedVec::zeroed(elements)?;
    for (position, (slot, &sum)) in out.as_mut_slice().iter_mut().zip(&sums).enumerate() {
        let rows = rows[position / run.max(1)];
        *slot = match (op.kind, rows) {
            (_, 0) if op.empty_is_zero => T::ZERO,
            (SegmentKind::Mean, 1..) => T::narrow(sum.divided_by(rows)),
            (SegmentKind::SqrtN, 1..) => T::from_f64(sum.to_f64() / (rows as f64).sqrt()),
            _ => T::narrow(sum),
        };
    }
    Ok(out)
}

fn vec_of<T: Clone>(len: usize, value: T) -> Result<Vec<T>, OpError> {
    let mut values = Vec::new();
    let bytes = len.saturating_mul(size_of::<T>());
    values.try_reserve_exact(len).map_err(|_| crate::tensor::TensorError::OutOfMemory { bytes })?;
    values.resize(len, value);
    Ok(values)
}

/// How often each number below the size (input 1) occurs in input 0, per row where that is a matrix,
/// or a vector with row splits (input 3); other numbers are left out. Weights (input 2, of input 0's
/// shape, or empty) count instead of ones and give the result's type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bincount {
    /// Whether a number occurs, instead of how often.
    pub binary: bool,
}

impl Operator for Bincount {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 3..=4)?;
        if inputs[0].rank() > 2 {
            return Err(OpError::invalid(format!(
                "input must be at most rank 2, but is {}",
                inputs[0].shape
            )));
        }
        Ok(Inferred::AtRun)
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        // The types that TensorFlow has.
        match cx.inputs[2].dtype {
            DType::I32 => Ok(bincount::<i32>(self.binary, DType::I32)),
            DType::I64 => Ok(bincount::<i64>(self.binary, DType::I64)),
            DType::F32 => Ok(bincount::<f32>(self.binary, DType::F32)),
            DType::F64 => Ok(bincount::<f64>(self.binary, DType::F64)),
            other => Err(OpError::unsupported(format!("counting in {other} is not supported"))),
        }
    }
}

fn bincount<T: Number + buffer::Plain>(binary: bool, dtype: DType) -> Step {
    Step::tensors(move |inputs, _| {
        let [x, size, weights, splits @ ..] = inputs else { return Err(OpError::Memory("bins")) };
        let size = size.to_i64_vec()?.first().copied().unwrap_or(0);
        let size = usize::try_from(size)
            .map_err(|_| OpError::invalid(format!("size ({size}) must be non-negative")))?;
        let (numbers, weights) = (x.to_i64_vec()?, bytes::<T>(weights)?);
        if !weights.is_empty() && weights.len() != numbers.len() {
            return Err(OpError::invalid("weights and input differ in shape"));
        }
        let splits = splits.first().map(Tensor::to_i64_vec).transpose()?;
        let rows = match &splits {
            Some(splits) => splits.len().saturating_sub(1),
            None if x.shape().len() == 2 => x.shape()[0],
            None => 1,
        };
        let columns = numbers.len().checked_div(rows).unwrap_or(0);
        let row_of = |position: usize| match &splits {
            // The last row that starts at or before the position.
            Some(splits) => splits.partition_point(|&start| start <= position as i64).checked_sub(1),
            None => Some(position / columns),
        };
        let bins = bounded(rows.checked_mul(size))?;
        let mut out = AlignedVec::<T>::zeroed(bins)?;
        let counts = out.as_mut_slice();
        for (position, &number) in numbers.iter().enumerate() {
            let Some(bin) = usize::try_from(number).ok().filter(|&bin| bin < size) else { continue };
            let row = row_of(position).filter(|&row| row < rows);
            let row = row.ok_or_else(|| OpError::invalid("the row splits do not fit the values"))?;
            let slot = &mut counts[row * size + bin];
            let weight = weights.get(position).copied().unwrap_or(T::ONE);
            *slot = if binary { T::ONE } else { slot.plus(weight) };
        }
        let rowwise = x.shape().len() == 2 || splits.is_some();
        let shape = if rowwise { Shape::from([rows, size]) } else { Shape::from([size]) };
        Ok(vec![Tensor::from_buffer(dtype, shape, out.freeze())?])
    })
}

/// Where the elements of input 1 belong among those of input 0, which ascend along the last axis:
/// the position before the first that is not less, or with `right` behind the last that is not
/// greater. Either both have the same leading dimensions, or input 0 is a vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchSorted {
    /// Behind equal elements.
    pub right: bool,
    /// Type of the positions, `I32` or `I64`.
    pub indices: DType,
}

impl Operator for SearchSorted {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        let leading = |fact: &Fact| fact.dims().split_last().map(|(_, leading)| leading.to_vec());
        let fits = inputs[0].rank() == 1 || leading(&inputs[0]) == leading(&inputs[1]);
        if !fits || inputs[0].dtype != inputs[1].dtype {
            return Err(OpError::invalid(format!(
                "cannot search {} {} in {} {}",
                inputs[1].dtype, inputs[1].shape, inputs[0].dtype, inputs[0].shape
            )));
        }
        Ok(Inferred::one(self.indices, inputs[1].shape.clone()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (right, wide, dtype) = (self.right, self.indices == DType::I64, cx.inputs[0].dtype);
        let one = cx.inputs[0].rank() == 1;
        let length = cx.inputs[0].dims().last().copied().unwrap_or(0);
        let columns = cx.inputs[1].dims().last().copied().unwrap_or(1);
        with_element!(dtype, T => Ok(Step::arena(move |io| {
            let (sorted, values) = (io.input::<T>(0)?, io.input::<T>(1)?);
            let find = |at: usize| {
                let row = if one { sorted } else { &sorted[at / columns * length..][..length] };
                let value = values[at];
                row.partition_point(|&element| if right { element <= value } else { element < value })
            };
            if wide {
                let out = io.next_output::<i64>()?;
                out.iter_mut().enumerate().for_each(|(at, slot)| *slot = find(at) as i64);
            } else {
                let out = io.next_output::<i32>()?;
                out.iter_mut().enumerate().for_each(|(at, slot)| *slot = find(at) as i32);
            }
            Ok(())
        })), else Err(OpError::unsupported(format!("searching {dtype} is not supported"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::run_op;

    /// The examples in TensorFlow's documentation of `segment_sum`, `unsorted_segment_max` and others.
    #[test]
    fn segments() {
        let data = Tensor::from_slice([3, 4], &[1i32, 2, 3, 4, 4, 3, 2, 1, 5, 6, 7, 8]).unwrap();
        let ids = |ids: [i32; 3]| Tensor::from_slice([3], &ids).unwrap();
        let run = |kind, numbers: [i32; 3], count: Option<i32>| {
            let mut inputs = vec![data.clone(), ids(numbers)];
            inputs.extend(count.map(Tensor::scalar));
            run_op(Segment { kind, empty_is_zero: false }, &inputs).map(|y| y[0].to_i64_vec().unwrap())
        };
        assert_eq!(run(SegmentKind::Sum, [0, 0, 1], None).unwrap(), [5, 5, 5, 5, 5, 6, 7, 8]);
        assert_eq!(run(SegmentKind::Mean, [0, 0, 1], None).unwrap(), [2, 2, 2, 2, 5, 6, 7, 8]);
        assert_eq!(run(SegmentKind::Max, [0, 1, 0], Some(2)).unwrap(), [5, 6, 7, 8, 4, 3, 2, 1]);
        assert_eq!(run(SegmentKind::Product, [1, -1, 1], Some(2)).unwrap(), [1, 1, 1, 1, 5, 12, 21, 32]);
        assert!(run(SegmentKind::Sum, [0, 2, 1], None).is_err());
        assert!(run(SegmentKind::Sum, [0, 2, 1], Some(2)).is_err());
        assert!(run(SegmentKind::Sum, [0, 0, 0], Some(-1)).is_err());
    }

    #[test]
    fn counts_and_positions() {
        let x = Tensor::from_slice([2, 3], &[1i64, 1, 9, 0, 2, -1]).unwrap();
        let none = Tensor::empty(DType::F32);
        let y = run_op(Bincount { binary: false }, &[x, Tensor::scalar(3i32), none]).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [0.0, 2.0, 0.0, 1.0, 0.0, 1.0]);
        let sorted = Tensor::from_slice([3], &[1i32, 3, 3]).unwrap();
        let values = Tensor::from_slice([4], &[0i32, 3, 4, 1]).unwrap();
        let search = |right| {
            let op = SearchSorted { right, indices: DType::I64 };
            run_op(op, &[sorted.clone(), values.clone()]).unwrap()[0].to_i64_vec().unwrap()
        };
        assert_eq!(search(false), [0, 1, 3, 0]);
        assert_eq!(search(true), [0, 3, 3, 1]);
    }
}
