//! Concrete shapes. A scalar has rank 0 and one element; a dimension may be 0.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::{fmt, ops::Deref};

/// The dimensions of a tensor, outermost first. Up to six stand in place, so that copying the
/// shape of a real tensor costs no allocation.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<usize>", into = "Vec<usize>")]
pub struct Shape(SmallVec<[usize; 6]>);

impl Shape {
    /// The shape of one element.
    pub fn scalar() -> Self {
        Self::default()
    }

    /// Product of the dimensions; `None` when it does not fit `usize`.
    pub fn checked_elements(&self) -> Option<usize> {
        // A zero dimension makes the tensor empty, however large the others claim to be.
        if self.0.contains(&0) {
            return Some(0);
        }
        self.0.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))
    }

    /// Product of the dimensions of a tensor that exists.
    pub fn elements(&self) -> usize {
        self.checked_elements().unwrap_or(usize::MAX)
    }

    /// The dimensions as TensorFlow and ONNX count them.
    pub fn to_i64(&self) -> Vec<i64> {
        self.0.iter().map(|&dim| dim as i64).collect()
    }

    /// Appends an innermost dimension.
    pub fn push(&mut self, dim: usize) {
        self.0.push(dim);
    }

    /// Inserts a dimension before position `axis`, at most the rank.
    pub fn insert(&mut self, axis: usize, dim: usize) {
        self.0.insert(axis, dim);
    }

    /// Removes and returns the dimension at `axis`, below the rank.
    pub fn remove(&mut self, axis: usize) -> usize {
        self.0.remove(axis)
    }

    /// Position of `axis`, which may count from the end (-1 is the innermost); `None` out of range.
    pub fn axis(&self, axis: i64) -> Option<usize> {
        let rank = self.0.len() as i64;
        let position = if axis < 0 { axis + rank } else { axis };
        (0..rank).contains(&position).then_some(position as usize)
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl std::ops::DerefMut for Shape {
    fn deref_mut(&mut self) -> &mut [usize] {
        &mut self.0
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        Self(SmallVec::from_slice(dims))
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Self(SmallVec::from_slice(&dims))
    }
}

impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Self {
        Self(SmallVec::from_vec(dims))
    }
}

impl From<Shape> for Vec<usize> {
    fn from(shape: Shape) -> Self {
        shape.0.into_vec()
    }
}

impl FromIterator<usize> for Shape {
    fn from_iter<I: IntoIterator<Item = usize>>(dims: I) -> Self {
        Self(dims.into_iter().collect())
    }
}

/// `[2,3]`, as TensorFlow writes shapes.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (position, dim) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_counts() {
        assert_eq!(Shape::scalar().elements(), 1);
        assert_eq!(Shape::from([2, 3]).elements(), 6);
        assert_eq!(Shape::from([usize::MAX, 2, 0]).checked_elements(), Some(0));
        assert_eq!(Shape::from([usize::MAX, 2]).checked_elements(), None);
    }

    #[test]
    fn axes_count_from_both_ends() {
        let shape = Shape::from([4, 5, 6]);
        assert_eq!(shape.axis(-1), Some(2));
        assert_eq!(shape.axis(0), Some(0));
        assert_eq!(shape.axis(3), None);
        assert_eq!(shape.axis(-4), None);
        assert_eq!(shape.to_string(), "[4,5,6]");
    }
}
