//! TensorFlow's lists of tensors, as stacks: `[length, element..]`. Elements whose shape is not
//! known yet have no size, `[length, 0]`, until the first of them is set.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, bounded, expect_inputs};
use crate::tensor::{Buffer, DType, Shape, Tensor};
use serde::{Deserialize, Serialize};

/// A list of zeros. Inputs: the shape of an element (-1 where unknown; a scalar for an unknown rank)
/// and the length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reserve {
    /// Element type.
    pub dtype: DType,
}

impl Operator for Reserve {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        Ok(Inferred::AtRun)
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        let dtype = self.dtype;
        Ok(Step::tensors(move |inputs, _| {
            let [shape, length] = inputs else { return Err(OpError::Memory("a list")) };
            let length = length.to_i64_vec()?.first().and_then(|&length| usize::try_from(length).ok());
            let length = length.ok_or_else(|| OpError::invalid("the length of a list is negative"))?;
            let element: Result<Vec<usize>, _> =
                shape.to_i64_vec()?.into_iter().map(usize::try_from).collect();
            let mut stack = vec![length];
            match element {
                Ok(element) if !shape.shape().is_empty() => stack.extend(element),
                _ => stack.push(0),
            }
            Ok(vec![Tensor::zeros(dtype, stack)?])
        }))
    }
}

/// Input 0, a list, with the element at input 1 replaced by input 2.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SetItem {
    /// The list grows to a place beyond its end.
    pub grow: bool,
}

impl Operator for SetItem {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 3..=3)?;
        Ok(Inferred::AtRun)
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        let grow = self.grow;
        Ok(Step::tensors(move |inputs, _| {
            let [list, index, item] = inputs else { return Err(OpError::Memory("a list")) };
            let mut length = list.shape().first().copied().unwrap_or(0);
            let index = index.to_i64_vec()?.first().copied().unwrap_or(-1);
            let place = usize::try_from(index).ok();
            if let Some(place) = place.filter(|&place| grow && place >= length) {
                bounded((place + 1).checked_mul(item.len().max(1)))?;
                length = place + 1;
            }
            let place = place.filter(|&place| place < length).ok_or_else(|| {
                OpError::invalid(format!(
                    "Trying to modify element {index} in a list with {length} elements."
                ))
            })?;
            Ok(vec![replaced(list, length, place, item)?])
        }))
    }
}

/// Input 0, a list, with input 1 behind its last element.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PushBack;

impl Operator for PushBack {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 2..=2)?;
        Ok(Inferred::AtRun)
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        Ok(Step::tensors(|inputs, _| {
            let [list, item] = inputs else { return Err(OpError::Memory("a list")) };
            let length = list.shape().first().copied().unwrap_or(0);
            Ok(vec![replaced(list, length + 1, length, item)?])
        }))
    }
}

/// The list, `length` long, with `item` at `place`; a place that the list has not is zeros.
fn replaced(list: &Tensor, length: usize, place: usize, item: &Tensor) -> Result<Tensor, OpError> {
    let shape: Shape = std::iter::once(length).chain(item.shape().iter().copied()).collect();
    let unset = list.is_empty();
    if !unset && (list.dtype() != item.dtype() || list.shape()[1..] != item.shape()[..]) {
        return Err(OpError::invalid(format!(
            "a list of {} tensors of shape {} cannot take a {} of shape {}",
            list.dtype(),
            Shape::from(&list.shape()[1..]),
            item.dtype(),
            item.shape()
        )));
    }
    let elements = item.len();
    let zeros = Tensor::zeros(item.dtype(), shape.clone())?;
    if let Ok(values) = item.as_strings() {
        let mut all = zeros.as_strings()?.to_vec();
        if !unset {
            let old = list.as_strings()?;
            all[..old.len()].clone_from_slice(old);
        }
        all[place * elements..(place + 1) * elements].clone_from_slice(values);
        return Ok(Tensor::from_strings(shape, all)?);
    }
    let bytes = item.as_bytes();
    let mut all = zeros.as_bytes().to_vec();
    if !unset {
        let old = list.as_bytes();
        all[..old.len()].copy_from_slice(old);
    }
    all[place * bytes.len()..(place + 1) * bytes.len()].copy_from_slice(bytes);
    Ok(Tensor::from_buffer(item.dtype(), shape, Buffer::copy_of(&all)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::run_op;

    #[test]
    fn the_first_item_gives_elements_their_shape() {
        let unknown = Tensor::scalar(-1i32);
        let list = run_op(Reserve { dtype: DType::F32 }, &[unknown, Tensor::scalar(2i32)]).unwrap().remove(0);
        assert_eq!(list.shape().to_vec(), [2, 0]);
        let item = Tensor::from_slice([2], &[1.0f32, 2.0]).unwrap();
        let list = run_op(SetItem::default(), &[list, Tensor::scalar(1i32), item.clone()]).unwrap().remove(0);
        assert_eq!(list.as_slice::<f32>().unwrap(), [0.0, 0.0, 1.0, 2.0]);
        let list = run_op(PushBack, &[list, item]).unwrap().remove(0);
        assert_eq!(list.shape().to_vec(), [3, 2]);
        assert_eq!(list.as_slice::<f32>().unwrap(), [0.0, 0.0, 1.0, 2.0, 1.0, 2.0]);
        let other = Tensor::from_slice([1], &[1.0f32]).unwrap();
        assert!(run_op(SetItem::default(), &[list.clone(), Tensor::scalar(0i32), other.clone()]).is_err());
        let grown = [list.clone(), Tensor::scalar(4i32), Tensor::from_slice([2], &[7.0f32, 8.0]).unwrap()];
        assert_eq!(run_op(SetItem { grow: true }, &grown).unwrap()[0].shape().to_vec(), [5, 2]);
        assert!(run_op(SetItem::default(), &[list, Tensor::scalar(3i32), other]).is_err());
    }

    #[test]
    fn known_elements_are_zeros_until_set() {
        let shape = Tensor::from_slice([1], &[3i32]).unwrap();
        let list = run_op(Reserve { dtype: DType::I32 }, &[shape, Tensor::scalar(2i32)]).unwrap();
        assert_eq!(list[0], Tensor::zeros(DType::I32, [2, 3]).unwrap());
    }
}
