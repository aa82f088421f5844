//! The different elements of a tensor.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, Tensors, expect_inputs, with_element};
use crate::{
    kernels::Number,
    tensor::{DType, Element, Tensor, buffer},
};
use serde::{Deserialize, Serialize};
use std::{cmp::Ordering, collections::HashMap, hash::Hash};

/// The different elements of a tensor read as a vector. Outputs: the elements, the position where
/// each occurs first, for each element of the input its position in the first output, and how often
/// each occurs. Every NaN with its own bits is an element of its own; 0 and -0 are one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unique {
    /// Ascending (ONNX), else in the order of first occurrence.
    pub sorted: bool,
    /// Type of the last three outputs, `I32` or `I64`.
    pub indices: DType,
}

impl Operator for Unique {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        Ok(Inferred::AtRun)
    }

    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
        let op = self.clone();
        let dtype = cx.inputs[0].dtype;
        if dtype == DType::String {
            return Ok(Step::tensors(move |inputs, _| {
                let [x] = inputs else { return Err(OpError::Memory("elements")) };
                let x = x.as_strings()?;
                let order = |a: usize, b: usize| x[a].cmp(&x[b]);
                let found = Found::of(x, op.sorted.then_some(&order));
                let values = found.first.iter().map(|&position| x[position].clone()).collect();
                op.outputs(Tensor::from_strings([found.first.len()], values)?, &found)
            }));
        }
        with_element!(dtype, T => Ok(Step::tensors(move |inputs, _| {
            let [x] = inputs else { return Err(OpError::Memory("elements")) };
            // The bytes of a Bool are those of a U8.
            let bytes = x.buffer().ok_or(OpError::Memory("elements"))?;
            let numbers: &[T] = if x.is_empty() { &[] } else { bytes.as_slice().ok_or(OpError::Memory("elements"))? };
            let keys: Vec<u64> = numbers.iter().map(key).collect();
            let order = |a: usize, b: usize| numbers[a].order_key().cmp(&numbers[b].order_key());
            let found = Found::of(&keys, op.sorted.then_some(&order));
            let values: Vec<T> = found.first.iter().map(|&position| numbers[position]).collect();
            let bytes = buffer::Buffer::copy_of(buffer::bytes_of(&values))?;
            op.outputs(Tensor::from_buffer(dtype, [values.len()], bytes)?, &found)
        })), else Err(OpError::unsupported(format!("the unique elements of {dtype} are not supported"))))
    }
}

/// The bits of a number; those of zero for -0.
fn key<T: Element>(value: &T) -> u64 {
    let value = if *value == T::default() { T::default() } else { *value };
    let mut key = [0; 8];
    for (slot, byte) in key.iter_mut().zip(buffer::bytes_of(&[value])) {
        *slot = *byte;
    }
    u64::from_ne_bytes(key)
}

impl Unique {
    fn outputs(&self, values: Tensor, found: &Found) -> Result<Tensors, OpError> {
        let integers = |values: &[usize]| -> Result<Tensor, OpError> {
            Ok(match self.indices {
                DType::I32 => {
                    let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
                    Tensor::from_slice([values.len()], &values)?
                }
                _ => {
                    let values: Vec<i64> = values.iter().map(|&value| value as i64).collect();
                    Tensor::from_slice([values.len()], &values)?
                }
            })
        };
        Ok(vec![values, integers(&found.first)?, integers(&found.inverse)?, integers(&found.counts)?])
    }
}

struct Found {
    first: Vec<usize>,
    inverse: Vec<usize>,
    counts: Vec<usize>,
}

impl Found {
    /// `order` compares the elements at two positions.
    fn of<K: Hash + Eq>(keys: &[K], order: Option<&dyn Fn(usize, usize) -> Ordering>) -> Self {
        let mut numbers: HashMap<&K, usize> = HashMap::new();
        let mut found =
            Self { first: Vec::new(), inverse: Vec::with_capacity(keys.len()), counts: Vec::new() };
        for (position, key) in keys.iter().enumerate() {
            let number = *numbers.entry(key).or_insert_with(|| {
                found.first.push(position);
                found.counts.push(0);
                found.first.len() - 1
            });
            found.inverse.push(number);
            found.counts[number] += 1;
        }
        let Some(order) = order else { return found };
        let mut ranked: Vec<usize> = (0..found.first.len()).collect();
        ranked.sort_by(|&a, &b| order(found.first[a], found.first[b]));
        let mut ranks = vec![0; ranked.len()];
        for (rank, &number) in ranked.iter().enumerate() {
            ranks[number] = rank;
        }
        Self {
            first: ranked.iter().map(|&number| found.first[number]).collect(),
            inverse: found.inverse.iter().map(|&number| ranks[number]).collect(),
            counts: ranked.iter().map(|&number| found.counts[number]).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::testing::run_op_outputs, tensor::Bytes};

    #[test]
    fn in_either_order() {
        // ONNX's first example, and the same for TensorFlow.
        let x = Tensor::from_slice([6], &[2.0f32, 1.0, 1.0, 3.0, 4.0, 3.0]).unwrap();
        let run = |sorted| {
            let y =
                run_op_outputs(Unique { sorted, indices: DType::I64 }, std::slice::from_ref(&x), 4).unwrap();
            let integers = |index: usize| y[index].as_slice::<i64>().unwrap().to_vec();
            (y[0].as_slice::<f32>().unwrap().to_vec(), integers(1), integers(2), integers(3))
        };
        let expected = (vec![1.0, 2.0, 3.0, 4.0], vec![1, 0, 3, 4], vec![1, 0, 0, 2, 3, 2], vec![2, 1, 2, 1]);
        assert_eq!(run(true), expected);
        let expected = (vec![2.0, 1.0, 3.0, 4.0], vec![0, 1, 3, 4], vec![0, 1, 1, 2, 3, 2], vec![1, 2, 2, 1]);
        assert_eq!(run(false), expected);
    }

    #[test]
    fn strings_and_zeros() {
        let x = Tensor::from_strings([3], ["b", "a", "b"].map(Bytes::from).to_vec()).unwrap();
        let y = run_op_outputs(Unique { sorted: true, indices: DType::I32 }, &[x], 4).unwrap();
        assert_eq!(y[0].as_strings().unwrap(), ["a", "b"]);
        assert_eq!(y[2].as_slice::<i32>().unwrap(), [1, 0, 1]);
        let x = Tensor::from_slice([2], &[0.0f64, -0.0]).unwrap();
        let y = run_op_outputs(Unique { sorted: false, indices: DType::I32 }, &[x], 1).unwrap();
        assert_eq!(y[0].len(), 1);
    }
}
