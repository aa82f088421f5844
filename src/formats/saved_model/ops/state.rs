//! Constants, variables and what a checkpoint restores.

pub(super) use crate::ops::state::Assignment;

use super::{Outputs, one};
use crate::{
    formats::saved_model::{
        import::{Import, Node, Value},
        tensor_proto,
    },
    kernels::Binary as B,
    ops::{binary::Binary, join::BroadcastTo, state::AssignState},
    proto::tensorflow::DataType,
    tensor::Tensor,
};

pub(super) fn constant(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let message = n.attributes.tensor("value").ok_or("the constant has no value")?;
    let tensor = tensor_proto::decode(message).map_err(|error| error.to_string())?;
    one(i.b.constant(tensor))
}

/// Handles pass; a reference to a variable is read here and now.
pub(super) fn identity(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let handle = n.attributes.type_tag("T") == i32::from(DataType::DtResource);
    match n.value(0)? {
        value @ Value::Variable(_) if handle => Ok(vec![value.clone()]),
        value @ (Value::Table(_) | Value::Array) => Ok(vec![value.clone()]),
        _ => one(n.tensor(i, 0)?),
    }
}

/// The operators of one `shared_name` (or, without it, one node name) are the same variable.
pub(super) fn variable(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let shared = n.attributes.text("shared_name");
    let name = if shared.is_empty() { n.def.name.as_str() } else { shared };
    let shape = n.attributes.shape("shape").and_then(tensor_proto::concrete_shape);
    let variable = i.model.variable(name, n.attributes.dtype("dtype"), shape);
    Ok(vec![Value::Variable(variable)])
}

pub(super) fn is_initialized(i: &mut Import<'_, '_>, _: &Node<'_>) -> Outputs {
    one(i.b.constant(Tensor::scalar(true)))
}

/// Tensors of the checkpoint by name; the file name that the graph computes is not needed.
pub(super) fn restore(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (names, slices) = (n.strings(i, 1)?, n.strings(i, 2)?);
    if names.len() != slices.len() {
        return Err("there are not as many slices as names".into());
    }
    let mut outputs = Vec::with_capacity(names.len());
    for (name, slice) in names.iter().zip(&slices) {
        let tensor = i.model.restore(name, slice)?;
        outputs.push(Value::Tensor(i.b.constant(tensor)));
    }
    Ok(outputs)
}

/// While loading an assignment sets the initial value; in a signature it makes the variable one
/// that runs change.
pub(super) fn assign(i: &mut Import<'_, '_>, n: &Node<'_>, assignment: Assignment) -> Outputs {
    let variable = n.variable(0)?;
    let change = n.tensor(i, 1)?;
    let value = if i.loading {
        let combine = |i: &mut Import<'_, '_>, function| {
            let old = i.read(variable)?;
            Ok::<_, super::Stop>(i.b.push(Binary(function), &[old, change]))
        };
        let value = match assignment {
            Assignment::Set => change,
            Assignment::Add => combine(i, B::Add)?,
            Assignment::Sub => combine(i, B::Sub)?,
        };
        i.assigned.insert(variable, value);
        value
    } else {
        let cell = i.model.make_state(variable);
        i.b.push(AssignState { cell, assignment }, &[change])
    };
    Ok(vec![Value::Assigned { variable, value }])
}

/// Initialisers draw random numbers that the checkpoint replaces; a served model draws none.
pub(super) fn random(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    if !i.loading {
        i.missing.add(&n.def.op, &n.path);
        return Ok(vec![Value::Missing]);
    }
    let zero = super::arrays::scalar(i, n.dtype("dtype")?, 0);
    let shape = n.tensor(i, 0)?;
    one(i.b.push(BroadcastTo { bidirectional: false }, &[zero, shape]))
}
