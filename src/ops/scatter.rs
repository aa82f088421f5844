//! Operators that write elements by index into a copy of a tensor.

use super::{
    Fact, Inferred, Lower, OpError, Operator, Step,
    elements::{Elements, Item, Move, integers, moving},
    expect_inputs,
    gather::expect_indices,
    mapping::axis_of,
    places::Places,
    with_element,
};
use crate::kernels::Number;
use serde::{Deserialize, Serialize};

/// How an update joins what stands at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reduction {
    /// It replaces it; of several for one place the last.
    Set,
    /// Sum.
    Add,
    /// Difference.
    Sub,
    /// Product.
    Mul,
    /// The smaller.
    Min,
    /// The larger.
    Max,
}

/// Input 0 with the runs at the coordinates in the last axis of input 1 updated from input 2, of
/// shape `indices[..-1] + data[depth..]`. TensorFlow's `ScatterNd` is this on zeros with `Add`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScatterNd {
    /// How updates are applied.
    pub reduction: Reduction,
    /// Negative indices count from the back (ONNX).
    pub negative: bool,
}

impl Operator for ScatterNd {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 3..=3)?;
        expect_indices(&inputs[1])?;
        let places = Places::coordinates(&inputs[0], &inputs[1], 0, self.negative)?;
        updated(inputs, &places)
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        scatter(Places::coordinates(&cx.inputs[0], &cx.inputs[1], 0, self.negative)?, self.reduction, cx)
    }
}

/// Input 0 with, for each index of input 1, the element at its position, the coordinate along
/// `axis` replaced by the index, updated from input 2, of the indices' shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScatterElements {
    /// The axis; negative from the back.
    pub axis: i64,
    /// How updates are applied.
    pub reduction: Reduction,
}

impl Operator for ScatterElements {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 3..=3)?;
        expect_indices(&inputs[1])?;
        let places = Places::elements(&inputs[0], &inputs[1], axis_of(&inputs[0].shape, self.axis)?)?;
        updated(inputs, &places)
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let axis = axis_of(&cx.inputs[0].shape, self.axis)?;
        scatter(Places::elements(&cx.inputs[0], &cx.inputs[1], axis)?, self.reduction, cx)
    }
}

fn updated(inputs: &[Fact], places: &Places) -> Result<Inferred, OpError> {
    let [data, indices, updates] = inputs else { return Err(OpError::Memory("a scatter")) };
    if data.dtype != updates.dtype || places.rows().checked_mul(places.run()) != Some(updates.elements()) {
        return Err(OpError::invalid(format!(
            "updates of {} of shape {} do not fit indices of shape {} into a {} of shape {}",
            updates.dtype, updates.shape, indices.shape, data.dtype, data.shape
        )));
    }
    Ok(Inferred::one(data.dtype, data.shape.clone()))
}

fn scatter(places: Places, reduction: Reduction, cx: &Lower<'_>) -> Result<Step, OpError> {
    if reduction == Reduction::Set {
        return moving(Put(places), cx);
    }
    let dtype = cx.inputs[0].dtype;
    let indices = cx.inputs[1].dtype;
    with_element!(dtype, T => {
        let combine = combination::<T>(reduction);
        Ok(Step::arena(move |io| {
            let (data, given, updates) = (io.input::<T>(0)?, integers(io, 1, indices)?, io.input::<T>(2)?);
            let y = io.next_output::<T>()?;
            y.copy_from_slice(data);
            update(&places, given, updates, y, |old, new| combine(*old, *new))
        }))
    }, else Err(OpError::unsupported(format!("{reduction:?} of {dtype} is not supported"))))
}

fn combination<T: Number>(reduction: Reduction) -> fn(T, T) -> T {
    match reduction {
        Reduction::Set => |_, new| new,
        Reduction::Add => T::plus,
        Reduction::Sub => |old, new| old.plus(new.times(minus_one())),
        Reduction::Mul => T::times,
        Reduction::Min => |old, new| if new < old { new } else { old },
        Reduction::Max => |old, new| if new > old { new } else { old },
    }
}

/// Unsigned integers wrap, so that their greatest value does the same.
fn minus_one<T: Number>() -> T {
    if T::LOWEST == T::ZERO { T::HIGHEST } else { T::from_f64(-1.0) }
}

fn update<T>(
    places: &Places,
    indices: super::elements::Integers<'_>,
    updates: &[T],
    y: &mut [T],
    combine: impl Fn(&T, &T) -> T,
) -> Result<(), OpError> {
    let run = places.run();
    if run == 0 {
        return Ok(());
    }
    for (row, updates) in updates.chunks_exact(run).enumerate() {
        let place = places.place(indices, row)?;
        for (old, new) in y[place..place + run].iter_mut().zip(updates) {
            *old = combine(old, new);
        }
    }
    Ok(())
}

struct Put(Places);

impl Move for Put {
    fn run<'a, T: Item + 'a>(&self, elements: &mut impl Elements<'a, T>) -> Result<(), OpError> {
        let (data, indices, updates) = (elements.input(0)?, elements.integers(1)?, elements.input(2)?);
        let y = elements.next_output()?;
        y.clone_from_slice(data);
        update(&self.0, indices, updates, y, |_, new| new.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op, tensor::Tensor};

    fn tensor<const N: usize>(shape: &[usize], values: [i64; N]) -> Tensor {
        Tensor::from_slice(shape, &values).unwrap()
    }

    #[test]
    fn scatters_at_coordinates() {
        // ONNX's first example.
        let data = tensor(&[8], [1, 2, 3, 4, 5, 6, 7, 8]);
        let indices = tensor(&[4, 1], [4, 3, 1, 7]);
        let set = ScatterNd { reduction: Reduction::Set, negative: false };
        let y = run_op(set.clone(), &[data, indices, tensor(&[4], [9, 10, 11, 12])]).unwrap();
        assert_eq!(y[0], tensor(&[8], [1, 11, 3, 10, 9, 6, 7, 12]));
        let data = tensor(&[2, 2], [1, 2, 3, 4]);
        let add = ScatterNd { reduction: Reduction::Add, negative: true };
        let rows = tensor(&[2, 2], [10, 20, 30, 40]);
        let y = run_op(add, &[data.clone(), tensor(&[2, 1], [0, -2]), rows.clone()]).unwrap();
        assert_eq!(y[0], tensor(&[2, 2], [41, 62, 3, 4]));
        assert!(run_op(set.clone(), &[data.clone(), tensor(&[2, 1], [0, 2]), rows]).is_err());
        assert!(run_op(set, &[data, tensor(&[2, 1], [0, 1]), tensor(&[2], [0, 0])]).is_err());
    }

    #[test]
    fn scatters_elements() {
        let data = tensor(&[1, 5], [1, 2, 3, 4, 5]);
        let (indices, updates) = (tensor(&[1, 2], [1, -2]), tensor(&[1, 2], [11, 21]));
        let run = |reduction, indices: &Tensor| {
            run_op(ScatterElements { axis: 1, reduction }, &[data.clone(), indices.clone(), updates.clone()])
        };
        assert_eq!(run(Reduction::Set, &indices).unwrap()[0], tensor(&[1, 5], [1, 11, 3, 21, 5]));
        let twice = tensor(&[1, 2], [1, 1]);
        assert_eq!(run(Reduction::Add, &twice).unwrap()[0], tensor(&[1, 5], [1, 34, 3, 4, 5]));
        assert_eq!(run(Reduction::Sub, &twice).unwrap()[0], tensor(&[1, 5], [1, -30, 3, 4, 5]));
        assert_eq!(run(Reduction::Max, &twice).unwrap()[0], tensor(&[1, 5], [1, 21, 3, 4, 5]));
        assert_eq!(run(Reduction::Mul, &twice).unwrap()[0], tensor(&[1, 5], [1, 462, 3, 4, 5]));
        let far = tensor(&[1, 2], [1, 5]);
        let error = run(Reduction::Min, &far).unwrap_err().to_string();
        assert!(error.starts_with("indices[0,1] = 5 is not in [0, 5)"), "{error}");
    }
}
