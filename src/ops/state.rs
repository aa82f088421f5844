//! Variables that outlive a run: reading and assigning them.

use super::{Fact, Inferred, Lower, OpError, Operator, Step, expect_inputs};
use crate::tensor::{DType, Shape, Tensor};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError, RwLock};

/// The variables of a model, shared by all its signatures.
#[derive(Debug, Default)]
pub struct States {
    cells: Vec<Mutex<Tensor>>,
    /// Held for reading by runs that only read variables and for writing by those that assign, so
    /// that each run sees one consistent state.
    pub(crate) runs: RwLock<()>,
}

impl States {
    /// Variables with these values, numbered in this order.
    pub fn new(initial: Vec<Tensor>) -> Self {
        Self { cells: initial.into_iter().map(Mutex::new).collect(), runs: RwLock::new(()) }
    }

    /// Number of variables.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// True when there are no variables.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The variables' values now, in the order of their numbers.
    pub fn values(&self) -> Vec<Tensor> {
        let value = |cell: &Mutex<Tensor>| cell.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.cells.iter().map(value).collect()
    }

    fn cell(&self, index: usize) -> Result<&Mutex<Tensor>, OpError> {
        self.cells.get(index).ok_or(OpError::Memory("a variable that does not exist"))
    }
}

/// The value of a variable when the node runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadState {
    /// Number of the variable.
    pub cell: usize,
    /// Its dtype.
    pub dtype: DType,
    /// Its shape.
    pub shape: Shape,
}

impl Operator for ReadState {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 0..=0)?;
        Ok(Inferred::one(self.dtype, self.shape.clone()))
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        let index = self.cell;
        Ok(Step::tensors(move |_, cx| {
            let cell = cx.states.cell(index)?;
            Ok(vec![cell.lock().unwrap_or_else(PoisonError::into_inner).clone()])
        }))
    }

    fn stateful(&self) -> bool {
        true
    }
}

/// What an assignment does with the old value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Assignment {
    /// Replaces it.
    Set,
    /// Adds the input to it.
    Add,
    /// Subtracts the input from it.
    Sub,
}

/// Assigns input 0, of the variable's dtype and shape, and gives the new value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssignState {
    /// Number of the variable.
    pub cell: usize,
    /// What to do.
    pub assignment: Assignment,
}

impl Operator for AssignState {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 1..=1)?;
        Ok(Inferred::one(inputs[0].dtype, inputs[0].shape.clone()))
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        let Self { cell, assignment } = *self;
        Ok(Step::tensors(move |inputs, cx| {
            let [input] = inputs else { return Err(OpError::Memory("an assignment")) };
            let mut value = cx.states.cell(cell)?.lock().unwrap_or_else(PoisonError::into_inner);
            if value.dtype() != input.dtype() || value.shape() != input.shape() {
                return Err(OpError::invalid(format!(
                    "cannot assign a {} of shape {} to a variable that is a {} of shape {}",
                    input.dtype(),
                    input.shape(),
                    value.dtype(),
                    value.shape()
                )));
            }
            *value = match assignment {
                Assignment::Set => input.clone(),
                Assignment::Add => combine(&value, input, false)?,
                Assignment::Sub => combine(&value, input, true)?,
            };
            Ok(vec![value.clone()])
        }))
    }

    fn stateful(&self) -> bool {
        true
    }

    fn assigns(&self) -> bool {
        true
    }
}

fn combine(old: &Tensor, change: &Tensor, subtract: bool) -> Result<Tensor, OpError> {
    macro_rules! numbers {
        ($t:ty, $add:expr, $sub:expr) => {{
            let function: fn($t, $t) -> $t = if subtract { $sub } else { $add };
            let pairs = old.as_slice::<$t>()?.iter().zip(change.as_slice::<$t>()?);
            let values: Vec<$t> = pairs.map(|(&a, &b)| function(a, b)).collect();
            Ok(Tensor::from_slice(old.shape().clone(), &values)?)
        }};
    }
    match old.dtype() {
        DType::F32 => numbers!(f32, |a, b| a + b, |a, b| a - b),
        DType::F64 => numbers!(f64, |a, b| a + b, |a, b| a - b),
        DType::I32 => numbers!(i32, i32::wrapping_add, i32::wrapping_sub),
        DType::I64 => numbers!(i64, i64::wrapping_add, i64::wrapping_sub),
        other => Err(OpError::unsupported(format!("adding to a variable of {other} is not supported"))),
    }
}
