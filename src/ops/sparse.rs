//! Sparse and ragged tensors, as TensorFlow passes them on: indices and values, or row splits.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, Tensors, bounded, expect_inputs};
use crate::tensor::{Buffer, Bytes, DType, Shape, Tensor, TensorError};
use serde::{Deserialize, Serialize};

/// Runs whole tensors through a function; its shapes are known afterwards.
macro_rules! at_run {
    ($($op:ident, $inputs:expr, $run:expr;)*) => {$(
        impl Operator for $op {
            fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
                expect_inputs(inputs, $inputs)?;
                Ok(Inferred::AtRun)
            }

            fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
                let op = self.clone();
                let run: fn(&$op, &[Tensor]) -> Result<Tensors, OpError> = $run;
                Ok(Step::tensors(move |inputs, _| run(&op, inputs)))
            }
        }
    )*};
}

at_run! {
    FillEmptyRows, 4..=4, |_, inputs| fill_empty_rows(inputs);
    ReshapeIndices, 3..=3, |_, inputs| reshape_indices(inputs);
    RaggedToDense, 3..=usize::MAX, RaggedToDense::run;
    Ngrams, 2..=2, Ngrams::run;
    Partition, 2..=2, Partition::run;
    Stitch, 2..=usize::MAX, |_, inputs| stitch(inputs);
}

/// TensorFlow's `SparseFillEmptyRows`. Inputs: indices `[n, rank]` (`int64`, rows ascending), values
/// `[n]`, dense shape and a default. Outputs: indices and values with an entry for each row that had
/// none, which rows these are, and for each entry of the input its place in the output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FillEmptyRows;

fn fill_empty_rows(inputs: &[Tensor]) -> Result<Tensors, OpError> {
    let [indices, values, shape, default] = inputs else { return Err(OpError::Memory("a sparse tensor")) };
    let (given, dims) = (indices.as_slice::<i64>()?, shape.to_i64_vec()?);
    let (rank, count) = (dims.len().max(1), values.len());
    if given.len() != count.saturating_mul(rank) {
        return Err(OpError::invalid("indices, values and shape of a sparse tensor do not fit together"));
    }
    let rows = dims.first().and_then(|&rows| usize::try_from(rows).ok()).unwrap_or(0);
    let mut empty = vec![true; bounded(Some(rows))?];
    for entry in given.chunks_exact(rank) {
        let row = usize::try_from(entry[0]).ok().and_then(|row| empty.get_mut(row));
        *row.ok_or_else(|| OpError::invalid(format!("indices row {} is not in [0, {rows})", entry[0])))? =
            false;
    }
    // By row; within a row in the order of the input, an empty row's entry in its place.
    let mut order: Vec<(i64, Option<usize>)> =
        given.chunks_exact(rank).enumerate().map(|(at, entry)| (entry[0], Some(at))).collect();
    order.extend(empty.iter().enumerate().filter(|(_, empty)| **empty).map(|(row, _)| (row as i64, None)));
    order.sort_by_key(|&(row, _)| row);
    let mut all = Vec::with_capacity(order.len() * rank);
    let mut places = vec![0i64; count];
    for (place, &(row, from)) in order.iter().enumerate() {
        match from {
            Some(from) => {
                all.extend_from_slice(&given[from * rank..][..rank]);
                places[from] = place as i64;
            }
            None => all.extend(std::iter::once(row).chain(std::iter::repeat_n(0, rank - 1))),
        }
    }
    let picked = order.iter().map(|&(_, from)| from.map_or((default, 0), |from| (values, from)));
    Ok(vec![
        Tensor::from_slice([order.len(), rank], &all)?,
        gathered(values.dtype(), [order.len()], picked)?,
        Tensor::from_slice([rows], &empty)?,
        Tensor::from_slice([count], &places)?,
    ])
}

/// A tensor of elements picked from others of one type.
fn gathered<'a>(
    dtype: DType,
    shape: impl Into<Shape>,
    picked: impl Iterator<Item = (&'a Tensor, usize)>,
) -> Result<Tensor, OpError> {
    let Some(size) = dtype.size() else {
        let texts =
            picked.map(|(from, at)| from.as_strings()?.get(at).cloned().ok_or(OpError::Memory("an element")));
        return Ok(Tensor::from_strings(shape, texts.collect::<Result<Vec<Bytes>, OpError>>()?)?);
    };
    let mut bytes = Vec::new();
    for (from, at) in picked {
        if from.dtype() != dtype {
            return Err(OpError::invalid(format!("{} among elements of {dtype}", from.dtype())));
        }
        bytes.extend_from_slice(
            from.as_bytes().get(at * size..(at + 1) * size).ok_or(OpError::Memory("an element"))?,
        );
    }
    Ok(Tensor::from_buffer(dtype, shape, Buffer::copy_of(&bytes)?)?)
}

/// TensorFlow's `SparseReshape`. Inputs: indices `[n, rank]`, dense shape and the new one, of which
/// one dimension may be -1. Outputs: new indices and the whole new shape, all `int64`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReshapeIndices;

fn reshape_indices(inputs: &[Tensor]) -> Result<Tensors, OpError> {
    let [indices, from, to] = inputs else { return Err(OpError::Memory("a sparse tensor")) };
    let (from, mut to) = (from.to_i64_vec()?, to.to_i64_vec()?);
    let misfit = || OpError::invalid(format!("cannot reshape a sparse tensor of shape {from:?}"));
    let product = |dims: &[i64]| dims.iter().try_fold(1i64, |product, &dim| product.checked_mul(dim));
    let elements = product(&from).ok_or_else(misfit)?;
    if let Some(open) = to.iter().position(|&dim| dim < 0) {
        to[open] = 1;
        let known = product(&to).filter(|&known| known != 0).ok_or_else(misfit)?;
        to[open] = elements / known;
    }
    if product(&to) != Some(elements) || to.iter().any(|&dim| dim < 0) {
        return Err(misfit());
    }
    let (given, rank) = (indices.as_slice::<i64>()?, from.len().max(1));
    let mut all = Vec::with_capacity(given.len() / rank * to.len());
    for entry in given.chunks_exact(rank) {
        let position = entry.iter().zip(&from).try_fold(0i64, |sum, (&index, &dim)| {
            let inside = (0..dim).contains(&index);
            inside.then(|| sum * dim + index)
        });
        let mut rest =
            position.ok_or_else(|| OpError::invalid(format!("index {entry:?} is out of bounds")))?;
        let start = all.len();
        for &dim in to.iter().rev() {
            all.push(rest % dim);
            rest /= dim;
        }
        all[start..].reverse();
    }
    Ok(vec![Tensor::from_slice([given.len() / rank, to.len()], &all)?, Tensor::from_slice([to.len()], &to)?])
}

/// How a row partition of a ragged tensor is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowPartition {
    /// Where each row starts, and where the last ends.
    Splits,
    /// The row of each value, ascending.
    RowIds,
    /// The number of rows, ahead of row ids.
    Size,
}

/// A ragged tensor as a dense one, rows cut or filled up with the default. Inputs: the shape (-1 for
/// what the rows need), values, the default, and the row partitions from the outermost on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RaggedToDense {
    /// What the partitions are.
    pub partitions: Vec<RowPartition>,
}

impl RaggedToDense {
    fn run(&self, inputs: &[Tensor]) -> Result<Tensors, OpError> {
        let [wanted, values, default, partitions @ ..] = inputs else {
            return Err(OpError::Memory("a ragged tensor"));
        };
        if partitions.len() != self.partitions.len() {
            return Err(OpError::invalid("a ragged tensor has another number of partitions than said"));
        }
        let levels = self.splits(partitions, values)?;
        let inner = values.shape().get(1..).unwrap_or_default();
        let ragged = levels.len() + 1;
        let needed = |axis: usize| match axis.checked_sub(1) {
            None => levels[0].len() - 1,
            Some(level) if level < levels.len() => {
                levels[level].windows(2).map(|row| row[1] - row[0]).max().unwrap_or(0)
            }
            Some(_) => inner[axis - ragged],
        };
        let wanted = wanted.to_i64_vec()?;
        let rank = ragged + inner.len();
        let shape: Shape = (0..rank)
            .map(|axis| match wanted.get(axis).map(|&size| usize::try_from(size)) {
                Some(Ok(size)) if wanted.len() == rank => size,
                _ => needed(axis),
            })
            .collect();
        if shape[ragged..] != *inner || default.len() != 1 {
            return Err(OpError::invalid(format!("the rows of a ragged tensor do not fit shape {shape}")));
        }
        let elements = bounded(shape.checked_elements())?;
        let run: usize = inner.iter().product();
        let mut places: Vec<Option<usize>> = Vec::new();
        let bytes = elements.saturating_mul(size_of::<Option<usize>>());
        places.try_reserve_exact(elements).map_err(|_| TensorError::OutOfMemory { bytes })?;
        for cell in 0..elements.checked_div(run).unwrap_or(0) {
            let (mut rest, mut at) = (cell, [0usize; 16]);
            for axis in (0..ragged).rev() {
                at[axis] = rest % shape[axis];
                rest /= shape[axis];
            }
            let row = levels.iter().enumerate().try_fold(at[0], |row, (level, splits)| {
                let (start, end) = (*splits.get(row)?, *splits.get(row + 1)?);
                (at[level + 1] < end - start).then(|| start + at[level + 1])
            });
            places.extend((0..run).map(|step| row.map(|row| row * run + step)));
        }
        let picked = places.iter().map(|place| place.map_or((default, 0), |place| (values, place)));
        Ok(vec![gathered(values.dtype(), shape.clone(), picked)?])
    }

    /// All partitions as splits.
    fn splits(&self, partitions: &[Tensor], values: &Tensor) -> Result<Vec<Vec<usize>>, OpError> {
        let wrong = || OpError::invalid("a row partition is not ascending or does not fit the values");
        let given: Vec<Vec<usize>> = partitions
            .iter()
            .map(|tensor| {
                let numbers = tensor.to_i64_vec()?.into_iter().map(usize::try_from);
                numbers.collect::<Result<_, _>>().map_err(|_| wrong())
            })
            .collect::<Result<_, OpError>>()?;
        let mut levels: Vec<Vec<usize>> = Vec::new();
        let mut rows = None;
        for (kind, numbers) in self.partitions.iter().zip(given) {
            match kind {
                RowPartition::Size => rows = numbers.first().copied(),
                RowPartition::Splits => levels.push(numbers),
                RowPartition::RowIds => {
                    let least = numbers.last().map_or(0, |last| last + 1);
                    let count = match levels.last() {
                        Some(outer) => outer.last().copied().unwrap_or(0),
                        None => rows.unwrap_or(least),
                    };
                    if count < least || !numbers.is_sorted() || count > numbers.len() + (1 << 24) {
                        return Err(wrong());
                    }
                    levels.push((0..=count).map(|row| numbers.partition_point(|&id| id < row)).collect());
                }
            }
        }
        let sound = |(level, splits): (usize, &Vec<usize>)| {
            let below = match levels.get(level + 1) {
                Some(next) => next.len().checked_sub(1),
                None => Some(values.shape().first().copied().unwrap_or(0)),
            };
            splits.first() == Some(&0) && splits.is_sorted() && splits.last().copied() <= below
        };
        match (1..=15).contains(&levels.len()) && levels.iter().enumerate().all(sound) {
            true => Ok(levels),
            false => Err(wrong()),
        }
    }
}

/// TensorFlow's `StringNGrams` over the rows of a ragged vector: inputs are the strings and the
/// row splits; outputs the n-grams and their row splits (of the splits' type).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ngrams {
    /// Between the strings of an n-gram.
    pub separator: String,
    /// Numbers of strings, in the order of the result.
    pub widths: Vec<usize>,
    /// Put before and after each row.
    pub pads: (String, String),
    /// How many pads; -1 for one less than the width.
    pub pad_width: i64,
    /// A row too short for any n-gram is one n-gram.
    pub preserve_short: bool,
}

impl Ngrams {
    fn run(&self, inputs: &[Tensor]) -> Result<Tensors, OpError> {
        let [data, splits] = inputs else { return Err(OpError::Memory("strings")) };
        let (texts, given) = (data.as_strings()?, splits.to_i64_vec()?);
        let pads = |width: usize| match usize::try_from(self.pad_width) {
            Ok(pads) => pads.min(width - 1),
            Err(_) => width - 1,
        };
        let (mut grams, mut made) = (Vec::new(), vec![0i64]);
        for row in given.windows(2) {
            let range = usize::try_from(row[0]).ok().zip(usize::try_from(row[1]).ok());
            let row = range.and_then(|(start, end)| texts.get(start..end));
            let row = row.ok_or_else(|| OpError::invalid("Invalid split values in ragged strings"))?;
            let before = grams.len();
            for &width in self.widths.iter().filter(|width| **width > 0) {
                let pads = pads(width);
                let total = row.len() + 2 * pads;
                for start in 0..(total + 1).saturating_sub(width) {
                    grams.push(self.gram(row, start, width, pads));
                }
            }
            if self.preserve_short && grams.len() == before && !row.is_empty() {
                let pads = usize::try_from(self.pad_width).unwrap_or(0);
                grams.push(self.gram(row, 0, row.len() + 2 * pads, pads));
            }
            made.push(grams.len() as i64);
        }
        let splits = match splits.dtype() {
            DType::I32 => {
                let narrow: Vec<i32> = made.iter().map(|&split| split as i32).collect();
                Tensor::from_slice([narrow.len()], &narrow)?
            }
            _ => Tensor::from_slice([made.len()], &made)?,
        };
        Ok(vec![Tensor::from_strings([grams.len()], grams)?, splits])
    }

    fn gram(&self, row: &[Bytes], start: usize, width: usize, pads: usize) -> Bytes {
        let part = |at: usize| match at.checked_sub(pads) {
            None => self.pads.0.as_bytes(),
            Some(at) => row.get(at).map_or(self.pads.1.as_bytes(), |text| text),
        };
        let parts: Vec<&[u8]> = (start..start + width).map(part).collect();
        parts.join(self.separator.as_bytes()).into()
    }
}

/// Rows of input 0 dealt out by the numbers in input 1 (`int32`), whose shape are its leading
/// dimensions: one output per number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Partition {
    /// Number of outputs.
    pub parts: usize,
}

impl Partition {
    fn run(&self, inputs: &[Tensor]) -> Result<Tensors, OpError> {
        let [data, numbers] = inputs else { return Err(OpError::Memory("a partition")) };
        let given = numbers.to_i64_vec()?;
        if !data.shape().starts_with(numbers.shape()) {
            return Err(OpError::invalid("data.shape must start with partitions.shape"));
        }
        let rest = &data.shape()[numbers.shape().len()..];
        let run: usize = rest.iter().product();
        if let Some(wrong) = given.iter().find(|&&number| !(0..self.parts as i64).contains(&number)) {
            return Err(OpError::invalid(format!("partition {wrong} is not in [0, {})", self.parts)));
        }
        (0..self.parts as i64)
            .map(|part| {
                let rows = || given.iter().enumerate().filter(move |&(_, &number)| number == part);
                let shape: Shape = std::iter::once(rows().count()).chain(rest.iter().copied()).collect();
                let elements = rows().flat_map(|(row, _)| (row * run..(row + 1) * run).map(|at| (data, at)));
                gathered(data.dtype(), shape, elements)
            })
            .collect()
    }
}

/// Rows put together by their numbers: inputs are first all indices (`int32`), then all data, whose
/// shapes start with those of their indices. Of two rows of one number the later counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stitch;

fn stitch(inputs: &[Tensor]) -> Result<Tensors, OpError> {
    let (indices, data) = inputs.split_at(inputs.len() / 2);
    let (Some(first), true) = (data.first(), indices.len() == data.len()) else {
        return Err(OpError::invalid("there are not as many indices as data"));
    };
    let rest = first.shape().get(indices[0].shape().len()..).unwrap_or_default();
    let run: usize = rest.iter().product();
    let mut rows: Vec<Option<(usize, usize)>> = Vec::new();
    let most: usize = indices.iter().map(Tensor::len).sum();
    for (part, (numbers, data)) in indices.iter().zip(data).enumerate() {
        if data.shape().get(numbers.shape().len()..) != Some(rest) || data.len() != numbers.len() * run {
            return Err(OpError::invalid("the parts of a stitch differ in the shape of their rows"));
        }
        for (row, number) in numbers.to_i64_vec()?.into_iter().enumerate() {
            // Numbers may be left out, but not without bound.
            let place = usize::try_from(number).ok().filter(|&place| place < most.saturating_mul(16) + 1024);
            let place = place
                .ok_or_else(|| OpError::invalid(format!("indices[{row}] = {number} is out of range")))?;
            if rows.len() <= place {
                rows.resize(place + 1, None);
            }
            rows[place] = Some((part, row));
        }
    }
    let blank = Tensor::zeros(first.dtype(), [1])?;
    let shape: Shape = std::iter::once(rows.len()).chain(rest.iter().copied()).collect();
    let elements = rows.iter().flat_map(|row| {
        (0..run).map(|step| row.map_or((&blank, 0), |(part, row)| (&data[part], row * run + step)))
    });
    Ok(vec![gathered(first.dtype(), shape, elements)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::{run_op, run_op_outputs};

    fn integers(shape: &[usize], values: &[i64]) -> Tensor {
        Tensor::from_slice(shape, values).unwrap()
    }

    fn texts(values: &[&'static str]) -> Tensor {
        Tensor::from_strings([values.len()], values.iter().map(|text| Bytes::from(*text)).collect()).unwrap()
    }

    /// The example in TensorFlow's documentation of `sparse.fill_empty_rows`.
    #[test]
    fn rows_without_entries_get_one() {
        let indices = integers(&[4, 2], &[0, 1, 0, 3, 2, 0, 3, 1]);
        let inputs = [indices, texts(&["a", "b", "c", "d"]), integers(&[2], &[5, 6]), texts(&["x"])];
        let y = run_op_outputs(FillEmptyRows, &inputs, 4).unwrap();
        assert_eq!(y[0], integers(&[6, 2], &[0, 1, 0, 3, 1, 0, 2, 0, 3, 1, 4, 0]));
        assert_eq!(y[1], texts(&["a", "b", "x", "c", "d", "x"]));
        assert_eq!(y[2].as_bools().unwrap(), [false, true, false, false, true]);
        assert_eq!(y[3], integers(&[4], &[0, 1, 3, 4]));
        let far = [integers(&[1, 2], &[9, 0]), texts(&["a"]), integers(&[2], &[5, 6]), texts(&["x"])];
        assert!(run_op_outputs(FillEmptyRows, &far, 4).is_err());
    }

    /// The example in TensorFlow's documentation of `sparse.reshape`.
    #[test]
    fn indices_in_another_shape() {
        let indices = integers(&[5, 3], &[0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0, 1, 2, 3]);
        let inputs = [indices.clone(), integers(&[3], &[2, 3, 6]), integers(&[2], &[9, -1])];
        let y = run_op_outputs(ReshapeIndices, &inputs, 2).unwrap();
        assert_eq!(y[0], integers(&[5, 2], &[0, 0, 0, 1, 1, 2, 4, 2, 8, 1]));
        assert_eq!(y[1], integers(&[2], &[9, 4]));
        let inputs = [indices, integers(&[3], &[2, 3, 6]), integers(&[2], &[5, 5])];
        assert!(run_op_outputs(ReshapeIndices, &inputs, 2).is_err());
    }

    #[test]
    fn ragged_rows_become_dense() {
        let run = |shape: &[i64], partitions: &[RowPartition], given: &[&[i64]]| {
            let mut inputs =
                vec![integers(&[shape.len()], shape), integers(&[4], &[1, 2, 3, 4]), integers(&[], &[9])];
            inputs.extend(given.iter().map(|given| integers(&[given.len()], given)));
            run_op(RaggedToDense { partitions: partitions.to_vec() }, &inputs).map(|mut y| y.remove(0))
        };
        let splits = [RowPartition::Splits];
        assert_eq!(
            run(&[-1, -1], &splits, &[&[0, 1, 1, 4]]).unwrap(),
            integers(&[3, 3], &[1, 9, 9, 9, 9, 9, 2, 3, 4])
        );
        assert_eq!(run(&[2, 2], &splits, &[&[0, 3, 4]]).unwrap(), integers(&[2, 2], &[1, 2, 4, 9]));
        let ids = [RowPartition::Size, RowPartition::RowIds];
        assert_eq!(
            run(&[-1, 2], &ids, &[&[3], &[0, 0, 2, 2]]).unwrap(),
            integers(&[3, 2], &[1, 2, 9, 9, 3, 4])
        );
        for wrong in [&[0, 5][..], &[1, 4], &[0, 3, 2, 4], &[], &[0, i64::MAX]] {
            assert!(run(&[-1, -1], &splits, &[wrong]).is_err(), "{wrong:?}");
        }
        assert!(run(&[i64::MAX, i64::MAX], &splits, &[&[0, 4]]).is_err());
    }

    #[test]
    fn rows_are_dealt_and_stitched() {
        let data = integers(&[3, 2], &[1, 2, 3, 4, 5, 6]);
        let numbers = Tensor::from_slice([3], &[1i32, 0, 1]).unwrap();
        let parts = run_op_outputs(Partition { parts: 2 }, &[data.clone(), numbers], 2).unwrap();
        assert_eq!(parts, [integers(&[1, 2], &[3, 4]), integers(&[2, 2], &[1, 2, 5, 6])]);
        let places =
            [Tensor::from_slice([1], &[1i32]).unwrap(), Tensor::from_slice([2], &[0i32, 2]).unwrap()];
        let [one, two] = parts.try_into().unwrap();
        let [first, second] = places;
        assert_eq!(run_op(Stitch, &[first, second, one, two]).unwrap()[0], data);
        let far = Tensor::from_slice([1], &[i32::MAX]).unwrap();
        assert!(run_op(Stitch, &[far, integers(&[1], &[1])]).is_err());
    }

    /// The example in TensorFlow's documentation of `strings.ngrams`, and short rows.
    #[test]
    fn ngrams() {
        let run = |widths: &[usize], pad_width, preserve_short| {
            let pads = ("<".to_owned(), ">".to_owned());
            let op =
                Ngrams { separator: "|".into(), widths: widths.to_vec(), pads, pad_width, preserve_short };
            let y =
                run_op_outputs(op, &[texts(&["a", "b", "c", "d"]), integers(&[3], &[0, 3, 4])], 2).unwrap();
            (y[0].clone(), y[1].to_i64_vec().unwrap())
        };
        assert_eq!(run(&[2], 0, false), (texts(&["a|b", "b|c"]), vec![0, 2, 2]));
        assert_eq!(run(&[2], 0, true), (texts(&["a|b", "b|c", "d"]), vec![0, 2, 3]));
        assert_eq!(run(&[2], -1, false), (texts(&["<|a", "a|b", "b|c", "c|>", "<|d", "d|>"]), vec![0, 4, 6]));
    }
}
