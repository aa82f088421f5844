//! Operators that join, split and repeat tensors.

use super::{
    Fact, Inferred, Io, Lower, OpError, Operator, Step,
    elements::{Elements, Item, Move, moving},
    expect_inputs, known_integers,
    mapping::{Axis, Mapping, axis_of, planned_integers, row_major},
};
use crate::tensor::Shape;
use serde::{Deserialize, Serialize};

/// The inputs, one behind the other along an axis; the other dimensions agree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Concat {
    /// The axis; negative from the back.
    pub axis: i64,
}

impl Operator for Concat {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=usize::MAX)?;
        let first = &inputs[0];
        let axis = axis_of(&first.shape, self.axis)?;
        let mut shape = first.shape.clone();
        for (index, input) in inputs.iter().enumerate().skip(1) {
            let fits = |position: usize| position == axis || shape.get(position) == input.shape.get(position);
            if input.dtype != first.dtype || input.rank() != first.rank() || !(0..shape.len()).all(fits) {
                return Err(OpError::invalid(format!(
                    "ConcatOp : Dimension {axis} in both shapes must be equal: shape[0] = {} vs. shape[{index}] = {}",
                    first.shape, input.shape
                )));
            }
            shape[axis] = shape[axis].saturating_add(input.shape[axis]);
        }
        Ok(Inferred::one(first.dtype, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        if let [_] = cx.inputs {
            return Ok(Step::alias());
        }
        let axis = axis_of(&cx.outputs[0].shape, self.axis)?;
        let rows = rows(cx.inputs, axis);
        match cx.outputs[0].dtype.size() {
            Some(size) if rows.len() <= MOST_JOINED => {
                let bytes = |row: usize| row.checked_mul(size);
                let bytes: Option<Vec<usize>> = rows.into_iter().map(bytes).collect();
                let bytes = bytes.ok_or_else(|| OpError::invalid("a concatenation larger than memory"))?;
                Ok(Step::arena(move |io| join_rows(&bytes, io)))
            }
            _ => moving(JoinRows(rows), cx),
        }
    }
}

/// Tensors that are joined row by row; more are rare, and joined one after the other.
const MOST_JOINED: usize = 16;

/// Rows of so many bytes each, side by side, on all threads. There may be one row alone.
fn join_rows(rows: &[usize], io: &mut Io<'_>) -> Result<(), OpError> {
    /// Bytes below which a second thread costs more than it brings.
    const GRAIN: usize = 64 << 10;
    let y = io.next_output::<u8>()?;
    let mut inputs = [&[][..]; MOST_JOINED];
    for (index, input) in inputs.iter_mut().enumerate().take(rows.len()) {
        *input = io.input::<u8>(index)?;
    }
    let whole: usize = rows.iter().sum();
    let threads = io.context().threads;
    let piece = y.len().div_ceil(threads.count()).max(GRAIN);
    if whole > 0 && rows.iter().all(|&row| row == WORD) {
        let lines = piece.div_ceil(whole);
        threads.for_each_slice(y, lines * whole, |task, y| {
            interleave(&inputs[..rows.len()], task * lines, whole, y);
        });
        return Ok(());
    }
    threads.for_each_slice(y, piece, |task, y| {
        let (mut line, mut offset) = (task * piece / whole, task * piece % whole);
        let mut input = 0;
        while offset >= rows[input] {
            offset -= rows[input];
            input += 1;
        }
        let mut done = 0;
        while done < y.len() {
            let count = (rows[input] - offset).min(y.len() - done);
            let from = line * rows[input] + offset;
            y[done..done + count].copy_from_slice(&inputs[input][from..from + count]);
            (done, offset, input) = (done + count, 0, input + 1);
            if input == rows.len() {
                (line, input) = (line + 1, 0);
            }
        }
    });
    Ok(())
}

/// Bytes of most elements.
const WORD: usize = 4;

/// Lines of a word from each input, `whole` bytes together, from line number `first` on: copied without a call for each.
fn interleave(inputs: &[&[u8]], first: usize, whole: usize, y: &mut [u8]) {
    /// Lines that stay in the first-level cache until all inputs have written to them.
    const LINES: usize = 128;
    for (block, y) in y.chunks_mut(LINES * whole).enumerate() {
        for (index, input) in inputs.iter().enumerate() {
            let from = input[(first + block * LINES) * WORD..].as_chunks::<WORD>().0;
            for (line, word) in y.chunks_exact_mut(whole).zip(from) {
                line[index * WORD..][..WORD].copy_from_slice(word);
            }
        }
    }
}

/// Elements of each tensor from one step of the axes before `axis` to the next.
fn rows(facts: &[Fact], axis: usize) -> Vec<usize> {
    facts.iter().map(|fact| fact.dims()[axis..].iter().product()).collect()
}

struct JoinRows(Vec<usize>);

impl Move for JoinRows {
    fn run<'a, T: Item + 'a>(&self, elements: &mut impl Elements<'a, T>) -> Result<(), OpError> {
        let y = elements.next_output()?;
        let whole: usize = self.0.iter().sum();
        let mut start = 0;
        for (index, &row) in self.0.iter().enumerate() {
            if row == 0 {
                continue;
            }
            let x = elements.input(index)?;
            for (x, y) in x.chunks_exact(row).zip(y.chunks_exact_mut(whole)) {
                y[start..start + row].clone_from_slice(x);
            }
            start += row;
        }
        Ok(())
    }
}

/// How long the parts of a [`Split`] are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SplitSizes {
    /// So many parts of equal length.
    Parts(usize),
    /// So many parts, all of the length `ceil(dim / parts)` but the last (ONNX).
    Chunks(usize),
    /// As input 1 says; one -1 stands for what is left.
    Input,
}

/// `x` cut along an axis; one output per part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// The axis; negative from the back.
    pub axis: i64,
    /// The parts' lengths.
    pub sizes: SplitSizes,
}

impl Operator for Split {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        let from_input = self.sizes == SplitSizes::Input;
        expect_inputs(inputs, if from_input { 2..=2 } else { 1..=1 })?;
        let Fact { dtype, shape, .. } = &inputs[0];
        let axis = axis_of(shape, self.axis)?;
        let sizes = match &self.sizes {
            SplitSizes::Parts(parts) => equal_parts(shape[axis], *parts, axis)?,
            SplitSizes::Chunks(parts) => chunks(shape[axis], *parts)?,
            SplitSizes::Input => {
                let sizes = known_integers!(inputs, 1);
                given_parts(shape[axis], &sizes)?
            }
        };
        let facts = sizes.into_iter().map(|size| {
            let mut part = shape.clone();
            part[axis] = size;
            Fact::new(*dtype, part)
        });
        Ok(Inferred::Facts(facts.collect()))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        if let [_] = cx.outputs {
            return Ok(Step::alias());
        }
        let axis = axis_of(&cx.inputs[0].shape, self.axis)?;
        moving(SplitRows(rows(cx.outputs, axis)), cx)
    }
}

/// More parts than any model has; a number from a damaged file must not cost memory.
const MAX_PARTS: usize = 1 << 20;

fn equal_parts(dim: usize, parts: usize, axis: usize) -> Result<Vec<usize>, OpError> {
    if parts == 0 || parts > MAX_PARTS || !dim.is_multiple_of(parts) {
        return Err(OpError::invalid(format!(
            "Number of ways to split should evenly divide the split dimension, but got split_dim {axis} \
             (size = {dim}) and num_split {parts}"
        )));
    }
    Ok(vec![dim / parts; parts])
}

fn chunks(dim: usize, parts: usize) -> Result<Vec<usize>, OpError> {
    if parts == 0 || parts > MAX_PARTS {
        return Err(OpError::invalid(format!("cannot split into {parts} parts")));
    }
    let chunk = dim.div_ceil(parts);
    Ok((0..parts).map(|part| dim.saturating_sub(part.saturating_mul(chunk)).min(chunk)).collect())
}

fn given_parts(dim: usize, sizes: &[i64]) -> Result<Vec<usize>, OpError> {
    let misfit =
        || OpError::invalid(format!("parts of sizes {sizes:?} do not add up to a dimension of {dim}"));
    let known = sizes.iter().filter(|&&size| size != -1).map(|&size| usize::try_from(size).ok());
    let known = known
        .collect::<Option<Vec<usize>>>()
        .and_then(|known| known.into_iter().try_fold(0usize, usize::checked_add));
    let rest = known.and_then(|known| dim.checked_sub(known)).ok_or_else(misfit)?;
    match sizes.iter().filter(|&&size| size == -1).count() {
        0 if rest == 0 => {}
        1 => {}
        _ => return Err(misfit()),
    }
    Ok(sizes.iter().map(|&size| usize::try_from(size).unwrap_or(rest)).collect())
}

struct SplitRows(Vec<usize>);

impl Move for SplitRows {
    fn run<'a, T: Item + 'a>(&self, elements: &mut impl Elements<'a, T>) -> Result<(), OpError> {
        let x = elements.input(0)?;
        let whole: usize = self.0.iter().sum();
        let mut start = 0;
        for &row in &self.0 {
            let y = elements.next_output()?;
            if row == 0 {
                continue;
            }
            for (x, y) in x.chunks_exact(whole).zip(y.chunks_exact_mut(row)) {
                y.clone_from_slice(&x[start..start + row]);
            }
            start += row;
        }
        Ok(())
    }
}

/// `x` repeated: input 1 (integers) says how often along each axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tile;

impl Operator for Tile {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        let repeats = known_integers!(inputs, 1);
        let shape = &inputs[0].shape;
        let counts = repeats.iter().map(|&count| usize::try_from(count).ok()).collect::<Option<Vec<usize>>>();
        match counts {
            Some(counts) if counts.len() == shape.len() => {
                let tiled = shape.iter().zip(counts).map(|(&dim, count)| dim.saturating_mul(count));
                Ok(Inferred::one(inputs[0].dtype, tiled.collect::<Shape>()))
            }
            _ => Err(OpError::invalid(format!(
                "Expected multiples argument to be a vector of length {} with no negative number, but got {repeats:?}",
                shape.len()
            ))),
        }
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let from = &cx.inputs[0].shape;
        let repeats = planned_integers(cx.inputs, 1)?;
        let axes = from.iter().zip(row_major(from)).zip(repeats).flat_map(|((&len, stride), count)| {
            [Axis::Stride { len: count as usize, stride: 0 }, Axis::Stride { len, stride }]
        });
        Mapping::new(0, axes.collect(), from.elements())?.lower(cx)
    }
}

/// `x` repeated along dimensions of size 1 and new outer ones, to the shape of input 1 (integers).
/// With a scalar `x` this fills a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BroadcastTo {
    /// Dimensions of the wanted shape that are 1 (or absent) give way to those of `x` (ONNX `Expand`).
    pub bidirectional: bool,
}

impl Operator for BroadcastTo {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        let wanted = known_integers!(inputs, 1);
        let from = &inputs[0].shape;
        let misfit = || OpError::invalid(format!("Incompatible shapes: {from} vs. {wanted:?}"));
        let dims = wanted.iter().map(|&dim| usize::try_from(dim).ok()).collect::<Option<Vec<usize>>>();
        let mut shape: Shape = dims.ok_or_else(misfit)?.into();
        if self.bidirectional {
            while shape.len() < from.len() {
                shape.insert(0, 1);
            }
        }
        let new = shape.len().checked_sub(from.len()).ok_or_else(misfit)?;
        for (dim, &have) in shape[new..].iter_mut().zip(from.iter()) {
            match (*dim, have) {
                (_, 1) => {}
                (wanted, have) if wanted == have => {}
                (1, have) if self.bidirectional => *dim = have,
                _ => return Err(misfit()),
            }
        }
        Ok(Inferred::one(inputs[0].dtype, shape))
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let (from, to) = (&cx.inputs[0].shape, &cx.outputs[0].shape);
        let new = to.len() - from.len();
        let strides = row_major(from);
        let axes = to.iter().enumerate().map(|(axis, &len)| {
            let source = axis.checked_sub(new).filter(|&axis| from[axis] != 1);
            Axis::Stride { len, stride: source.map_or(0, |axis| strides[axis]) }
        });
        Mapping::new(0, axes.collect(), from.elements())?.lower(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::testing::{run_op, run_op_outputs},
        tensor::{Bytes, Tensor},
    };

    fn vector(values: &[i64]) -> Tensor {
        Tensor::from_slice([values.len()], values).unwrap()
    }

    #[test]
    fn concatenates_along_any_axis() {
        let a = Tensor::from_slice([2, 1], &[1.0f32, 2.0]).unwrap();
        let b = Tensor::from_slice([2, 2], &[3.0f32, 4.0, 5.0, 6.0]).unwrap();
        let y = run_op(Concat { axis: -1 }, &[a.clone(), b.clone()]).unwrap();
        assert_eq!(y[0].shape().to_vec(), [2, 3]);
        assert_eq!(y[0].as_slice::<f32>().unwrap(), [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
        assert!(run_op(Concat { axis: 0 }, &[a, b]).is_err());
        let names = Tensor::from_strings([1], vec![Bytes::from("a")]).unwrap();
        let y =
            run_op(Concat { axis: 0 }, &[names.clone(), Tensor::from_strings([0], vec![]).unwrap(), names]);
        assert_eq!(y.unwrap()[0].as_strings().unwrap(), ["a", "a"]);
    }

    /// More than a thread's share, in rows that no share ends with.
    #[test]
    fn concatenates_in_pieces() {
        for (lines, widths) in [(1, [0, 90_001, 3, 20_000]), (7001, [5, 0, 1, 7]), (30_001, [1, 1, 1, 1])] {
            let values = |input: usize, index: usize| (input * 1_000_000 + index) as f32;
            let inputs: Vec<Tensor> = widths
                .iter()
                .enumerate()
                .map(|(input, &width)| {
                    let elements: Vec<f32> = (0..lines * width).map(|index| values(input, index)).collect();
                    Tensor::from_slice([lines, width], &elements).unwrap()
                })
                .collect();
            let mut expected = Vec::new();
            for line in 0..lines {
                for (input, &width) in widths.iter().enumerate() {
                    expected.extend((line * width..(line + 1) * width).map(|index| values(input, index)));
                }
            }
            let y = run_op(Concat { axis: 1 }, &inputs).unwrap();
            assert!(y[0].as_slice::<f32>().unwrap() == expected, "{widths:?}");
        }
    }

    #[test]
    fn splits_in_each_way() {
        let x = Tensor::from_slice([2, 3], &[1u8, 2, 3, 4, 5, 6]).unwrap();
        let y = run_op_outputs(Split { axis: 1, sizes: SplitSizes::Parts(3) }, std::slice::from_ref(&x), 3)
            .unwrap();
        assert_eq!(y[1].as_slice::<u8>().unwrap(), [2, 5]);
        let op = Split { axis: 1, sizes: SplitSizes::Input };
        let y = run_op_outputs(op.clone(), &[x.clone(), vector(&[-1, 1])], 2).unwrap();
        assert_eq!(y[0].as_slice::<u8>().unwrap(), [1, 2, 4, 5]);
        assert_eq!(y[1].as_slice::<u8>().unwrap(), [3, 6]);
        for sizes in [&[1i64, 1][..], &[-1, -1], &[4, -1], &[i64::MAX, 2, 2], &[-2, 5]] {
            assert!(run_op_outputs(op.clone(), &[x.clone(), vector(sizes)], sizes.len()).is_err());
        }
        let y = run_op_outputs(Split { axis: 1, sizes: SplitSizes::Chunks(2) }, std::slice::from_ref(&x), 2)
            .unwrap();
        assert_eq!(y[1].as_slice::<u8>().unwrap(), [3, 6]);
        assert!(run_op_outputs(Split { axis: 1, sizes: SplitSizes::Parts(2) }, &[x], 2).is_err());
    }

    #[test]
    fn tiles_and_broadcasts() {
        let x = Tensor::from_slice([1, 2], &[1i16, 2]).unwrap();
        let y = run_op(Tile, &[x.clone(), vector(&[2, 2])]).unwrap();
        assert_eq!(y[0].shape().to_vec(), [2, 4]);
        assert_eq!(y[0].as_slice::<i16>().unwrap(), [1, 2, 1, 2, 1, 2, 1, 2]);
        assert!(run_op(Tile, &[x.clone(), vector(&[2])]).is_err());
        let to = |bidirectional, x: &Tensor, shape: &[i64]| {
            run_op(BroadcastTo { bidirectional }, &[x.clone(), vector(shape)])
        };
        assert_eq!(to(false, &x, &[2, 2]).unwrap()[0].as_slice::<i16>().unwrap(), [1, 2, 1, 2]);
        let column = x.reshaped([2, 1]).unwrap();
        assert_eq!(to(false, &column, &[2, 2]).unwrap()[0].as_slice::<i16>().unwrap(), [1, 1, 2, 2]);
        assert_eq!(to(true, &column, &[3]).unwrap()[0].as_slice::<i16>().unwrap(), [1, 1, 1, 2, 2, 2]);
        assert_eq!(to(false, &Tensor::scalar(7u64), &[3]).unwrap()[0].as_slice::<u64>().unwrap(), [7; 3]);
        assert_eq!(to(false, &x, &[0, 2]).unwrap()[0].shape().to_vec(), [0, 2]);
        assert!(to(false, &column, &[3]).is_err());
        assert!(to(false, &x, &[2, -1]).is_err());
        assert!(to(false, &Tensor::scalar(0u8), &[i64::MAX, i64::MAX]).is_err());
    }
}
