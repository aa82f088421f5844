//! Tensors of several requests joined along their first dimension, and cut apart again.

use crate::{
    models::Error,
    tensor::{Buffer, Bytes, DType, Shape, Tensor, buffer::AlignedBytes},
};
use std::sync::Arc;

/// Rows of all inputs; `None` when they have no common first dimension, so that they cannot be batched.
pub(super) fn rows_of(inputs: &[Tensor]) -> Option<usize> {
    let (first, rest) = inputs.split_first()?;
    let rows = *first.shape().first()?;
    let same = rest.iter().all(|tensor| tensor.shape().first() == Some(&rows));
    (same && rows > 0).then_some(rows)
}

/// One input of a batch: the same input of every request, then copies of its first row up to `rows`.
/// Differing further dimensions are padded to the largest with each tensor's first element.
pub(super) fn join(parts: &[&Tensor], rows: usize) -> Result<Tensor, Error> {
    let Some(first) = parts.first() else { return Err(Error::internal("a batch without requests")) };
    let mut inner: Shape = first.shape().iter().skip(1).copied().collect();
    for part in parts {
        for (largest, dim) in inner.iter_mut().zip(part.shape().iter().skip(1)) {
            *largest = (*largest).max(*dim);
        }
    }
    let mut shape = inner.clone();
    shape.insert(0, rows);
    let row = inner.checked_elements().ok_or_else(too_large)?;
    let total = row.checked_mul(rows).ok_or_else(too_large)?;
    match first.dtype() {
        DType::String => join_strings(parts, &inner, shape, total),
        dtype => join_plain(parts, &inner, shape, row, total, dtype.size().unwrap_or(1)),
    }
}

fn join_plain(
    parts: &[&Tensor],
    inner: &Shape,
    shape: Shape,
    row: usize,
    total: usize,
    size: usize,
) -> Result<Tensor, Error> {
    let bytes = total.checked_mul(size).ok_or_else(too_large)?;
    let mut memory = AlignedBytes::zeroed(bytes)?;
    let mut rest = memory.as_mut_slice();
    for part in parts {
        let content = part.as_bytes();
        let of_part = part.shape().first().copied().unwrap_or(0) * row * size;
        let Some((target, next)) = std::mem::take(&mut rest).split_at_mut_checked(of_part) else {
            return Err(Error::internal("a batch has more rows than its size"));
        };
        rest = next;
        if content.len() == target.len() {
            target.copy_from_slice(content);
        } else {
            let dims: Vec<usize> = part.shape().iter().skip(1).copied().collect();
            pad_rows(content, &dims, target, inner, size);
        }
    }
    // The model may refuse zeros, but it has taken the first row already.
    let filled = bytes - rest.len();
    let row_bytes = row * size;
    if row_bytes > 0 {
        let (done, free) = memory.as_mut_slice().split_at_mut(filled);
        if let Some(first_row) = done.get(..row_bytes) {
            free.chunks_exact_mut(row_bytes).for_each(|chunk| chunk.copy_from_slice(first_row));
        }
    }
    let dtype = parts.first().map_or(DType::U8, |part| part.dtype());
    Ok(Tensor::from_buffer(dtype, shape, Buffer::from_aligned(Arc::new(memory)))?)
}

/// Copies rows of dimensions `dims` into rows of the larger dimensions `padded`.
fn pad_rows(content: &[u8], dims: &[usize], target: &mut [u8], padded: &[usize], size: usize) {
    if let Some(filler) = content.get(..size) {
        target.chunks_exact_mut(size).for_each(|element| element.copy_from_slice(filler));
    }
    let (from, to) = (dims.iter().product::<usize>() * size, padded.iter().product::<usize>() * size);
    if from == 0 || to == 0 {
        return;
    }
    for (row, target) in content.chunks_exact(from).zip(target.chunks_exact_mut(to)) {
        copy_block(row, dims, target, padded, size);
    }
}

fn copy_block(content: &[u8], dims: &[usize], target: &mut [u8], padded: &[usize], size: usize) {
    let (Some((&count, inner)), Some((_, padded_inner))) = (dims.split_first(), padded.split_first()) else {
        target.copy_from_slice(content);
        return;
    };
    let from = inner.iter().product::<usize>() * size;
    let to = padded_inner.iter().product::<usize>() * size;
    if from == 0 || to == 0 {
        return;
    }
    for (block, target) in content.chunks_exact(from).zip(target.chunks_exact_mut(to)).take(count) {
        copy_block(block, inner, target, padded_inner, size);
    }
}

fn join_strings(parts: &[&Tensor], inner: &Shape, shape: Shape, total: usize) -> Result<Tensor, Error> {
    let mut joined: Vec<Bytes> = Vec::new();
    for part in parts {
        if part.shape().iter().skip(1).eq(inner.iter()) {
            joined.extend_from_slice(part.as_strings()?);
        } else {
            return Err(Error::unimplemented("strings of different lengths cannot be padded to one batch"));
        }
    }
    let row = inner.elements();
    for index in joined.len()..total {
        let copy = joined.get(index % row.max(1)).cloned().unwrap_or_default();
        joined.push(copy);
    }
    Ok(Tensor::from_strings(shape, joined)?)
}

/// Rows `start..start + rows` of a batch's output.
pub(super) fn cut(output: &Tensor, start: usize, rows: usize) -> Result<Tensor, Error> {
    let mut shape = output.shape().clone();
    let Some(all) = shape.first_mut() else {
        return Err(Error::failed_precondition("Batched output tensor has 0 dimensions"));
    };
    *all = rows;
    let row: usize = output.shape().iter().skip(1).product();
    if output.dtype() == DType::String {
        let strings = output.as_strings()?.get(start * row..(start + rows) * row);
        return Ok(Tensor::from_strings(shape, strings.ok_or_else(short)?.to_vec())?);
    }
    let size = output.dtype().size().unwrap_or(1);
    let part = output.buffer().and_then(|buffer| buffer.slice(start * row * size, rows * row * size));
    Ok(Tensor::from_buffer(output.dtype(), shape, part.ok_or_else(short)?)?)
}

fn short() -> Error {
    Error::failed_precondition(
        "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the \
         input tensors",
    )
}

fn too_large() -> Error {
    Error::resource_exhausted("the batch is larger than memory can hold")
}

impl From<crate::tensor::TensorError> for Error {
    fn from(error: crate::tensor::TensorError) -> Self {
        match error {
            crate::tensor::TensorError::OutOfMemory { .. } => Error::resource_exhausted(error.to_string()),
            _ => Error::invalid_argument(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_slice(shape, values).unwrap()
    }

    #[test]
    fn joined_and_cut_apart_again() {
        let (a, b) = (tensor(&[1, 2], &[1., 2.]), tensor(&[2, 2], &[3., 4., 5., 6.]));
        let joined = join(&[&a, &b], 4).unwrap();
        assert_eq!(joined, tensor(&[4, 2], &[1., 2., 3., 4., 5., 6., 1., 2.]), "padded with the first row");
        assert_eq!(cut(&joined, 0, 1).unwrap(), a);
        assert_eq!(cut(&joined, 1, 2).unwrap(), b);
        assert!(cut(&joined, 3, 2).is_err());
        assert!(cut(&tensor(&[], &[1.]), 0, 1).is_err());
    }

    #[test]
    fn other_dimensions_are_padded_with_the_first_element() {
        let a = tensor(&[1, 1, 2], &[1., 2.]);
        let b = tensor(&[1, 2, 1], &[3., 4.]);
        let joined = join(&[&a, &b], 2).unwrap();
        assert_eq!(joined, tensor(&[2, 2, 2], &[1., 2., 1., 1., 3., 3., 4., 3.]));
    }

    #[test]
    fn strings() {
        let strings = |values: &[&'static str]| {
            let values: Vec<Bytes> =
                values.iter().map(|value| Bytes::from_static(value.as_bytes())).collect();
            Tensor::from_strings([values.len()], values).unwrap()
        };
        let joined = join(&[&strings(&["a"]), &strings(&["b", "c"])], 4).unwrap();
        assert_eq!(joined, strings(&["a", "b", "c", "a"]));
        assert_eq!(cut(&joined, 1, 2).unwrap(), strings(&["b", "c"]));
    }

    #[test]
    fn rows_need_a_common_first_dimension() {
        let (a, b) = (tensor(&[2], &[1., 2.]), tensor(&[2, 1], &[1., 2.]));
        assert_eq!(rows_of(&[a.clone(), b]), Some(2));
        assert_eq!(rows_of(&[a, tensor(&[1], &[1.])]), None);
        assert_eq!(rows_of(&[Tensor::scalar(1_f32)]), None);
        assert_eq!(rows_of(&[tensor(&[0], &[])]), None);
        assert_eq!(rows_of(&[]), None);
    }
}
