//! From a tensor of indices to places in the indexed tensor, for gathering and scattering.

use super::{Fact, OpError, elements::Integers, mapping::row_major};
use crate::tensor::Shape;

/// Rows of indices; each names a run of [`Places::run`] elements.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Places {
    /// The last axis of the indices holds coordinates of the leading axes of the indexed tensor.
    Coordinates {
        /// Shape of the indices.
        indices: Shape,
        /// The indexed dimensions.
        dims: Vec<usize>,
        /// Elements between neighbours along them.
        strides: Vec<usize>,
        /// Elements per place.
        run: usize,
        /// Rows per batch, and elements of the indexed tensor per batch.
        batch: (usize, usize),
        /// Negative indices count from the back.
        negative: bool,
    },
    /// Each index replaces the coordinate of its own position along one axis.
    Elements {
        /// Shape of the indices.
        indices: Shape,
        /// Elements of the indexed tensor between neighbours along each axis.
        strides: Vec<usize>,
        /// The axis.
        axis: usize,
        /// The indexed tensor's dimension along it.
        dim: usize,
    },
}

impl Places {
    /// Coordinates for `data`, whose first `batches` dimensions are those of the indices.
    pub(crate) fn coordinates(
        data: &Fact,
        indices: &Fact,
        batches: usize,
        negative: bool,
    ) -> Result<Self, OpError> {
        let misfit = || {
            OpError::invalid(format!(
                "indices of shape {} do not index into shape {}",
                indices.shape, data.shape
            ))
        };
        let Some((&depth, rows)) = indices.dims().split_last() else { return Err(misfit()) };
        let indexed = batches.checked_add(depth).filter(|&end| end <= data.rank()).ok_or_else(misfit)?;
        if rows.len() < batches || rows[..batches] != data.dims()[..batches] {
            return Err(misfit());
        }
        let strides = row_major(data.dims());
        Ok(Self::Coordinates {
            indices: indices.shape.clone(),
            dims: data.dims()[batches..indexed].to_vec(),
            strides: strides[batches..indexed].iter().map(|&stride| stride as usize).collect(),
            run: data.dims()[indexed..].iter().product(),
            batch: (rows[batches..].iter().product(), data.dims()[batches..].iter().product()),
            negative,
        })
    }

    /// Elements along an axis: the ranks agree, and the indices reach no further than `data` along
    /// the other axes.
    pub(crate) fn elements(data: &Fact, indices: &Fact, axis: usize) -> Result<Self, OpError> {
        let within = |(position, (index, data)): (usize, (&usize, &usize))| position == axis || index <= data;
        let dims = indices.dims().iter().zip(data.dims());
        if indices.rank() != data.rank() || !dims.enumerate().all(within) {
            return Err(OpError::invalid(format!(
                "indices of shape {} do not fit a tensor of shape {} along axis {axis}",
                indices.shape, data.shape
            )));
        }
        Ok(Self::Elements {
            indices: indices.shape.clone(),
            strides: row_major(data.dims()).into_iter().map(|stride| stride as usize).collect(),
            axis,
            dim: data.dims().get(axis).copied().unwrap_or(1),
        })
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Coordinates { indices, .. } => indices[..indices.len().saturating_sub(1)].iter().product(),
            Self::Elements { indices, .. } => indices.elements(),
        }
    }

    /// Elements at each place.
    pub(crate) fn run(&self) -> usize {
        match self {
            Self::Coordinates { run, .. } => *run,
            Self::Elements { .. } => 1,
        }
    }

    /// The first element of the place that a row names.
    pub(crate) fn place(&self, given: Integers<'_>, row: usize) -> Result<usize, OpError> {
        match self {
            Self::Coordinates { indices, dims, strides, batch, negative, .. } => {
                let mut place = row.checked_div(batch.0).unwrap_or(0) * batch.1;
                for (position, (&dim, &stride)) in dims.iter().zip(strides).enumerate() {
                    let index = given.at(row * dims.len() + position);
                    let Some(index) = wrapped(index, dim, *negative) else {
                        let row_values: Vec<String> =
                            (0..dims.len()).map(|at| given.at(row * dims.len() + at).to_string()).collect();
                        return Err(OpError::invalid(format!(
                            "indices{} = [{}] does not index into param shape {}",
                            coordinates(&indices[..indices.len() - 1], row),
                            row_values.join(", "),
                            Shape::from(dims.as_slice()),
                        )));
                    };
                    place += index * stride;
                }
                Ok(place)
            }
            Self::Elements { indices, strides, axis, dim } => {
                let (mut rest, mut place) = (row, 0);
                for (position, (&len, &stride)) in indices.iter().zip(strides).enumerate().rev() {
                    if position != *axis {
                        place += rest % len * stride;
                    }
                    rest /= len;
                }
                let index = wrapped(given.at(row), *dim, true)
                    .ok_or_else(|| out_of_range(indices, row, given.at(row), *dim))?;
                Ok(place + index * strides.get(*axis).copied().unwrap_or(1))
            }
        }
    }
}

/// The index as a position below `dim`.
pub(crate) fn wrapped(index: i64, dim: usize, negative: bool) -> Option<usize> {
    let index = if negative && index < 0 { index.checked_add(dim as i64)? } else { index };
    usize::try_from(index).ok().filter(|&index| index < dim)
}

/// The error for an index of a tensor of shape `indices`, in the words of TensorFlow.
pub(crate) fn out_of_range(indices: &[usize], position: usize, index: i64, dim: usize) -> OpError {
    OpError::invalid(format!("indices{} = {index} is not in [0, {dim})", coordinates(indices, position)))
}

/// `[0,3]` for the position of an element in row-major order; nothing for a scalar.
fn coordinates(dims: &[usize], position: usize) -> String {
    let mut rest = position;
    let mut coordinates: Vec<String> = Vec::with_capacity(dims.len());
    for &dim in dims.iter().rev() {
        coordinates.push((rest % dim.max(1)).to_string());
        rest /= dim.max(1);
    }
    coordinates.reverse();
    if coordinates.is_empty() { String::new() } else { format!("[{}]", coordinates.join(",")) }
}
