//! Control flow: operators that run other graphs.
//!
//! Operators stand below graphs, so a body is a [`Subprogram`], which the graph floor implements.
//! TensorFlow's tensor lists need nothing more: a list of equally shaped tensors is their stack.

use super::{Fact, Inferred, Lower, Op, OpError, Operator, RunContext, Step, Tensors, expect_inputs};
use crate::tensor::{Buffer, Bytes, DType, Shape, Tensor, TensorError};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};
use std::{
    any::Any,
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

/// A graph that an operator can run.
pub trait Subprogram: fmt::Debug + Send + Sync {
    /// The outputs for these inputs.
    fn run(&self, inputs: &[Tensor], context: &RunContext<'_>) -> Result<Tensors, OpError>;

    /// True when a node of it depends on more than the inputs.
    fn stateful(&self) -> bool;

    /// True when a node of it assigns a variable.
    fn assigns(&self) -> bool;

    /// What it is, for the floor that made it.
    fn as_any(&self) -> &dyn Any;
}

/// The body of a branch or a loop. In a model file it is the name of a graph that stands beside; reading one
/// gives a body that knows this name only, until the reader exchanges it for the graph. Equal to itself, and
/// to a body that knows the same name.
#[derive(Clone, Debug)]
pub struct Body(pub Arc<dyn Subprogram>);

/// The name of a body in a model file.
#[derive(Debug)]
struct Named(String);

impl Subprogram for Named {
    fn run(&self, _: &[Tensor], _: &RunContext<'_>) -> Result<Tensors, OpError> {
        Err(OpError::invalid(format!("the graph \"{}\" is not there", self.0)))
    }

    fn stateful(&self) -> bool {
        false
    }

    fn assigns(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Body {
    /// A body of which only the name is known.
    pub fn named(name: impl Into<String>) -> Self {
        Self(Arc::new(Named(name.into())))
    }

    /// The name, where that is all that is known.
    pub fn name(&self) -> Option<&str> {
        self.0.as_any().downcast_ref::<Named>().map(|named| named.0.as_str())
    }

    fn run(&self, inputs: &[Tensor], least: usize, context: &RunContext<'_>) -> Result<Tensors, OpError> {
        if context.cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
            return Err(OpError::Cancelled);
        }
        if context.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(OpError::Deadline);
        }
        let outputs = self.0.run(inputs, context)?;
        if outputs.len() < least {
            return Err(OpError::invalid(format!(
                "a body has {} outputs, but {least} are needed",
                outputs.len()
            )));
        }
        Ok(outputs)
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.name().is_some() && self.name() == other.name())
    }
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.name() {
            Some(name) => serializer.serialize_str(name),
            None => Err(ser::Error::custom("a body is written by its name")),
        }
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::named)
    }
}

impl Op {
    /// The bodies of a branch or a loop; none of other operators.
    pub fn bodies(&self) -> Vec<&Body> {
        match self {
            Op::If(op) => vec![&op.then_branch, &op.else_branch],
            Op::While(op) => vec![&op.condition, &op.body],
            Op::Loop(op) => vec![&op.body],
            Op::Scan(op) => vec![&op.body],
            _ => Vec::new(),
        }
    }

    /// The same, to be exchanged.
    pub fn bodies_mut(&mut self) -> Vec<&mut Body> {
        match self {
            Op::If(op) => vec![&mut op.then_branch, &mut op.else_branch],
            Op::While(op) => vec![&mut op.condition, &mut op.body],
            Op::Loop(op) => vec![&mut op.body],
            Op::Scan(op) => vec![&mut op.body],
            _ => Vec::new(),
        }
    }
}

macro_rules! operators {
    ($($op:ident($($body:ident),*) least $least:expr;)*) => {$(
        impl Operator for $op {
            fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
                let least: fn(&$op) -> usize = $least;
                expect_inputs(inputs, least(self)..=usize::MAX)?;
                Ok(Inferred::AtRun)
            }

            fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
                let op = self.clone();
                Ok(Step::tensors(move |inputs, context| op.run(inputs, context)))
            }

            fn stateful(&self) -> bool {
                $(self.$body.0.stateful())||*
            }

            fn assigns(&self) -> bool {
                $(self.$body.0.assigns())||*
            }
        }
    )*};
}

operators! {
    If(then_branch, else_branch) least |_| 1;
    While(condition, body) least |_| 0;
    Loop(body) least |op| op.carried + usize::from(op.limited) + usize::from(op.conditional);
    Scan(body) least |op| op.states + op.scanned.len();
}

/// One of two bodies: input 0 is the condition, the others are inputs of both bodies, whose outputs
/// are those of the operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct If {
    /// Runs when the condition holds.
    pub then_branch: Body,
    /// Runs when it does not.
    pub else_branch: Body,
}

impl If {
    fn run(&self, inputs: &[Tensor], context: &RunContext<'_>) -> Result<Tensors, OpError> {
        let Some((condition, rest)) = inputs.split_first() else { return Err(OpError::Memory("a branch")) };
        let branch = if truth(condition)? { &self.then_branch } else { &self.else_branch };
        branch.run(rest, 0, context)
    }
}

/// Input 1 where input 0 holds, else input 2; they may differ in shape. Both have been computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choose;

impl Operator for Choose {
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
        expect_inputs(inputs, 3..=3)?;
        Ok(Inferred::AtRun)
    }

    fn lower(&self, _: &Lower<'_>) -> Result<Step, OpError> {
        Ok(Step::tensors(|inputs, _| match inputs {
            [condition, a, b] => Ok(vec![if truth(condition)? { a.clone() } else { b.clone() }]),
            _ => Err(OpError::Memory("a choice")),
        }))
    }
}

/// TensorFlow's rule: a number that is not 0, a string that is not empty, a tensor with an element.
fn truth(condition: &Tensor) -> Result<bool, OpError> {
    if condition.shape().is_empty() {
        return Ok(match condition.dtype() {
            DType::String => condition.as_strings()?.iter().any(|text| !text.is_empty()),
            DType::F32 => condition.as_slice::<f32>()?.iter().any(|&value| value != 0.0),
            DType::F64 => condition.as_slice::<f64>()?.iter().any(|&value| value != 0.0),
            _ => condition.as_bytes().iter().any(|&byte| byte != 0),
        });
    }
    // A condition of one element is the same in ONNX, whatever its rank.
    match (condition.dtype(), condition.len()) {
        (DType::Bool, 1) => Ok(condition.as_bools()? == [true]),
        (_, len) => Ok(len > 0),
    }
}

/// TensorFlow's `While`: the inputs are the loop variables, inputs and outputs of the body; the
/// first output of the condition tells whether to go on. The outputs are the last loop variables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct While {
    /// From the loop variables to the condition.
    pub condition: Body,
    /// From the loop variables to the next ones.
    pub body: Body,
}

impl While {
    fn run(&self, inputs: &[Tensor], context: &RunContext<'_>) -> Result<Tensors, OpError> {
        let mut variables = inputs.to_vec();
        loop {
            let condition = self.condition.run(&variables, 1, context)?;
            if !condition.first().map_or(Ok(false), truth)? {
                return Ok(variables);
            }
            let count = variables.len();
            variables = self.body.run(&variables, count, context)?;
            variables.truncate(count);
        }
    }
}

/// ONNX `Loop`. Inputs: the most rounds if `limited`, the first condition if `conditional`, the
/// carried values, and what else the body uses. Inputs of the body: round (`int64`), condition,
/// carried values, and what else it uses; outputs: condition, carried values, and one round's part
/// of each scan output. Outputs: the last carried values, and the scan outputs' parts stacked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loop {
    /// The body.
    pub body: Body,
    /// Number of carried values.
    pub carried: usize,
    /// Element types of the scan outputs, which are empty vectors when no round runs.
    pub scans: Vec<DType>,
    /// There is a most number of rounds.
    pub limited: bool,
    /// There is a first condition; it holds if not.
    pub conditional: bool,
}

impl Loop {
    fn run(&self, inputs: &[Tensor], context: &RunContext<'_>) -> Result<Tensors, OpError> {
        let mut inputs = inputs.iter();
        let mut next = |given: bool| if given { inputs.next() } else { None };
        let limit = match next(self.limited) {
            Some(limit) => limit.to_i64_vec()?.first().copied().unwrap_or(0),
            None => i64::MAX,
        };
        let mut going = next(self.conditional).map_or(Ok(true), truth)?;
        let mut carried: Tensors = inputs.by_ref().take(self.carried).cloned().collect();
        let outer: Tensors = inputs.cloned().collect();
        let mut parts: Vec<Tensors> = Vec::new();
        let mut round = 0;
        while going && round < limit {
            let mut arguments = vec![Tensor::scalar(round), Tensor::scalar(going)];
            arguments.append(&mut carried);
            arguments.extend(outer.iter().cloned());
            let mut outputs = self.body.run(&arguments, 1 + self.carried, context)?.into_iter();
            going = outputs.next().as_ref().map_or(Ok(false), truth)?;
            carried.extend(outputs.by_ref().take(self.carried));
            parts.push(outputs.collect());
            round += 1;
        }
        match parts.is_empty() {
            true => carried.extend(self.scans.iter().map(|&dtype| Tensor::empty(dtype))),
            false => carried.extend(stacked(&parts, &[])?),
        }
        Ok(carried)
    }
}

/// ONNX `Scan` along axis 0 (an importer transposes others). Inputs: the state values, the scanned
/// inputs, and what else the body uses. Inputs of the body: the states, one slice of each scanned
/// input, and what else it uses; outputs: the states, and one part of each scan output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scan {
    /// The body.
    pub body: Body,
    /// Number of state values.
    pub states: usize,
    /// For each scanned input whether it is read from the back.
    pub scanned: Vec<bool>,
    /// For each scan output whether it is written from the back.
    pub written: Vec<bool>,
}

impl Scan {
    fn run(&self, inputs: &[Tensor], context: &RunContext<'_>) -> Result<Tensors, OpError> {
        let mut inputs = inputs.iter();
        let mut states: Tensors = inputs.by_ref().take(self.states).cloned().collect();
        let scanned: Vec<&Tensor> = inputs.by_ref().take(self.scanned.len()).collect();
        let outer: Tensors = inputs.cloned().collect();
        let rounds = scanned.first().and_then(|tensor| tensor.shape().first()).copied().unwrap_or(0);
        if rounds == 0 || scanned.iter().any(|tensor| tensor.shape().first() != Some(&rounds)) {
            return Err(OpError::invalid("the scanned inputs differ in length, or have none"));
        }
        let mut parts: Vec<Tensors> = Vec::new();
        for round in 0..rounds {
            let mut arguments = std::mem::take(&mut states);
            for (tensor, &backwards) in scanned.iter().zip(&self.scanned) {
                arguments.push(slice(tensor, if backwards { rounds - 1 - round } else { round })?);
            }
            arguments.extend(outer.iter().cloned());
            let mut outputs = self.body.run(&arguments, self.states, context)?.into_iter();
            states.extend(outputs.by_ref().take(self.states));
            parts.push(outputs.collect());
        }
        states.extend(stacked(&parts, &self.written)?);
        Ok(states)
    }
}

/// One position of the first axis, without it.
fn slice(tensor: &Tensor, position: usize) -> Result<Tensor, OpError> {
    let missing = OpError::Memory("a slice");
    let Some((_, rest)) = tensor.shape().split_first() else { return Err(missing) };
    let shape = Shape::from(rest);
    let elements = shape.elements();
    match tensor.buffer() {
        None => {
            let part = tensor.as_strings()?.get(position * elements..(position + 1) * elements);
            Ok(Tensor::from_strings(shape, part.ok_or(missing)?.to_vec())?)
        }
        Some(buffer) => {
            let bytes = elements * tensor.dtype().size().unwrap_or(0);
            let part = buffer.slice(position * bytes, bytes).ok_or(missing)?;
            Ok(Tensor::from_buffer(tensor.dtype(), shape, part)?)
        }
    }
}

/// For each output the parts of all rounds, one behind the other along a new first axis.
fn stacked(rounds: &[Tensors], backwards: &[bool]) -> Result<Tensors, OpError> {
    let outputs = rounds.first().map_or(0, Vec::len);
    (0..outputs)
        .map(|output| {
            let mut parts = rounds.iter().map(|round| round.get(output)).collect::<Option<Vec<&Tensor>>>();
            if let (Some(parts), Some(true)) = (&mut parts, backwards.get(output)) {
                parts.reverse();
            }
            stack(&parts.ok_or_else(|| OpError::invalid("the rounds of a loop differ in outputs"))?)
        })
        .collect()
}

fn stack(parts: &[&Tensor]) -> Result<Tensor, OpError> {
    let Some(first) = parts.first() else { return Err(OpError::Memory("a stack")) };
    if let Some(other) =
        parts.iter().find(|part| part.shape() != first.shape() || part.dtype() != first.dtype())
    {
        return Err(OpError::invalid(format!(
            "the rounds of a loop make a {} of shape {} and a {} of shape {}",
            first.dtype(),
            first.shape(),
            other.dtype(),
            other.shape()
        )));
    }
    let mut shape = first.shape().clone();
    shape.insert(0, parts.len());
    if first.dtype() == DType::String {
        let parts =
            parts.iter().map(|part| part.as_strings()).collect::<Result<Vec<&[Bytes]>, TensorError>>()?;
        return Ok(Tensor::from_strings(shape, parts.concat())?);
    }
    let bytes: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    Ok(Tensor::from_buffer(first.dtype(), shape, Buffer::copy_of(&bytes.concat())?)?)
}
