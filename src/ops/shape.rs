//! Operators that change or tell the shape and leave the elements alone.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs, known_integers};
use crate::tensor::{DType, Shape, Tensor};
use serde::{Deserialize, Serialize};

/// `y = x`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity;

impl Operator for Identity {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        Ok(Inferred::Facts(vec![inputs[0].clone()]))
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        Ok(Step::alias())
    }
}

/// `x` under the shape given by input 1 (integers); one -1 stands for what is left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reshape {
    /// A 0 copies the dimension of `x` at its place (ONNX) instead of meaning none (TensorFlow).
    #[serde(default)]
    pub zero_copies: bool,
}

impl Operator for Reshape {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        let wanted = known_integers!(inputs, 1);
        let shape = reshape(&inputs[0].shape, &wanted, self.zero_copies)?;
        reshaped(&inputs[0], shape)
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        Ok(Step::alias())
    }
}

/// The shape that `wanted` means for a tensor of shape `from`.
fn reshape(from: &Shape, wanted: &[i64], zero_copies: bool) -> Result<Shape, OpError> {
    let mut shape = Shape::scalar();
    let mut unknown = None;
    for (axis, &dim) in wanted.iter().enumerate() {
        match dim {
            -1 if unknown.is_some() => {
                return Err(OpError::invalid("only one dimension of a reshape may be -1"));
            }
            -1 => {
                unknown = Some(axis);
                shape.push(1);
            }
            0 if zero_copies => match from.get(axis) {
                Some(&dim) => shape.push(dim),
                None => return Err(OpError::invalid(format!("reshape copies dimension {axis} of {from}"))),
            },
            dim => match usize::try_from(dim) {
                Ok(dim) => shape.push(dim),
                Err(_) => return Err(OpError::invalid(format!("reshape to a dimension of {dim}"))),
            },
        }
    }
    let have = from.elements();
    let fixed = shape.checked_elements();
    let misfit = || {
        let wanted: Vec<String> = wanted.iter().map(i64::to_string).collect();
        OpError::invalid(format!(
            "Input to reshape is a tensor with {have} values, but the requested shape is [{}]",
            wanted.join(",")
        ))
    };
    match (unknown, fixed) {
        (None, Some(fixed)) if fixed == have => Ok(shape),
        (Some(axis), Some(fixed)) if fixed > 0 && have.is_multiple_of(fixed) => {
            shape[axis] = have / fixed;
            Ok(shape)
        }
        _ => Err(misfit()),
    }
}

/// `x` without dimensions of size 1: those named, or all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Squeeze {
    /// Axes to remove, counted from the front or, negative, from the back; empty means all of size 1.
    #[serde(default)]
    pub axes: Vec<i64>,
}

impl Operator for Squeeze {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        let from = &inputs[0].shape;
        let mut removed = vec![false; from.len()];
        for &axis in &self.axes {
            let position = position(from.axis(axis), axis, from)?;
            if from[position] != 1 {
                return Err(OpError::invalid(format!(
                    "Can not squeeze dim[{position}], expected a dimension of 1, got {}",
                    from[position]
                )));
            }
            removed[position] = true;
        }
        let keep = |axis: usize, dim: usize| if self.axes.is_empty() { dim != 1 } else { !removed[axis] };
        let shape = from.iter().enumerate().filter(|&(axis, &dim)| keep(axis, dim)).map(|(_, &dim)| dim);
        reshaped(&inputs[0], shape.collect())
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        Ok(Step::alias())
    }
}

/// `x` with dimensions of size 1 inserted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpandDims {
    /// Where the new dimensions stand in the result; negative from its back.
    pub axes: Vec<i64>,
}

impl Operator for ExpandDims {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        let from = &inputs[0].shape;
        let rank = from.len() + self.axes.len();
        let mut inserted = vec![false; rank];
        for &axis in &self.axes {
            let position = if axis < 0 { axis + rank as i64 } else { axis };
            match usize::try_from(position).ok().and_then(|position| inserted.get_mut(position)) {
                Some(slot) if !*slot => *slot = true,
                _ => {
                    return Err(OpError::invalid(format!(
                        "cannot insert a dimension at axis {axis} of a tensor of shape {from}"
                    )));
                }
            }
        }
        let mut old = from.iter().copied();
        let shape = inserted.iter().map(|&new| if new { 1 } else { old.next().unwrap_or(1) }).collect();
        reshaped(&inputs[0], shape)
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        Ok(Step::alias())
    }
}

/// The dimensions of `x` as a vector. Always known while planning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShapeOf {
    /// `I32` or `I64`.
    pub dtype: DType,
}

impl Operator for ShapeOf {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        let dims = inputs[0].shape.to_i64();
        let tensor = match self.dtype {
            DType::I32 => {
                let dims: Vec<i32> = dims.iter().map(|&dim| dim.min(i64::from(i32::MAX)) as i32).collect();
                Tensor::from_slice([dims.len()], &dims)?
            }
            _ => Tensor::from_slice([dims.len()], &dims)?,
        };
        Ok(Inferred::known(tensor))
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        Err(OpError::Memory("a shape, which is known while planning"))
    }
}

fn position(found: Option<usize>, axis: i64, shape: &Shape) -> Result<usize, OpError> {
    found.ok_or_else(|| OpError::invalid(format!("axis {axis} is out of range for shape {shape}")))
}

/// The fact of `input` under another shape, its value too where known.
fn reshaped(input: &Fact, shape: Shape) -> Result<Inferred, OpError> {
    match &input.value {
        Some(value) => Ok(Inferred::known(value.reshaped(shape)?)),
        None => Ok(Inferred::one(input.dtype, shape)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape_of(inferred: Result<Inferred, OpError>) -> Vec<usize> {
        match inferred.unwrap() {
            Inferred::Facts(facts) => facts[0].shape.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    fn to(from: &[usize], wanted: &[i64], zero_copies: bool) -> Result<Inferred, OpError> {
        let wanted = Tensor::from_slice([wanted.len()], wanted).unwrap();
        Reshape { zero_copies }.infer(&[Fact::new(DType::F32, from), Fact::known(wanted)])
    }

    #[test]
    fn reshapes() {
        assert_eq!(shape_of(to(&[2, 6], &[3, -1], false)), [3, 4]);
        assert_eq!(shape_of(to(&[2, 6], &[0, 3, -1], true)), [2, 3, 2]);
        assert_eq!(shape_of(to(&[0, 6], &[-1, 6], false)), [0, 6]);
        assert_eq!(shape_of(to(&[1], &[], false)), [0usize; 0]);
        for wanted in [&[5, -1][..], &[-1, -1], &[-2, 6], &[7], &[0, -1], &[i64::MAX, i64::MAX]] {
            assert!(to(&[2, 6], wanted, false).is_err(), "{wanted:?}");
        }
        let unknown =
            Reshape { zero_copies: false }.infer(&[Fact::new(DType::F32, [2]), Fact::new(DType::I64, [1])]);
        assert_eq!(unknown, Ok(Inferred::NeedsValue(1)));
    }

    #[test]
    fn squeezes_and_expands() {
        let fact = |dims: &[usize]| [Fact::new(DType::F32, dims)];
        assert_eq!(shape_of(Squeeze { axes: vec![] }.infer(&fact(&[1, 2, 1]))), [2]);
        assert_eq!(shape_of(Squeeze { axes: vec![-1] }.infer(&fact(&[1, 2, 1]))), [1, 2]);
        assert!(Squeeze { axes: vec![1] }.infer(&fact(&[1, 2, 1])).is_err());
        assert_eq!(shape_of(ExpandDims { axes: vec![0, -1] }.infer(&fact(&[2, 3]))), [1, 2, 3, 1]);
        assert!(ExpandDims { axes: vec![0, 0] }.infer(&fact(&[2])).is_err());
        assert!(ExpandDims { axes: vec![3] }.infer(&fact(&[2])).is_err());
    }
}
