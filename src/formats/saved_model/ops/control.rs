//! Branches and loops, whose bodies are functions, and the lists that loops pass on.
//!
//! What a body gets is sorted: handles of variables and tables are resolved, constants are built in
//! (so that shapes stay known inside), the rest are inputs of the body. A list of tensors is their
//! stack; one whose element shape is not known yet has elements of no size.

use super::{Outputs, one};
use crate::{
    formats::saved_model::{
        import::{Import, Node, Stop, Value},
        tensor_proto::{concrete_shape, dtype_of},
    },
    graph::{Builder, Graph, ValueId, passes},
    ops::{
        control::{If, While},
        gather::Gather,
        join::Concat,
        list::{PushBack, Reserve, SetItem},
        shape::{Reshape, ShapeOf, Squeeze},
        slice::StridedSlice,
        sparse::Stitch,
    },
    tensor::{DType, Tensor},
};

/// How a body gets an argument.
#[derive(Clone, Debug)]
enum Argument {
    Handle(Value),
    Constant(Tensor),
    Input(DType),
    List(DType),
}

/// A body, with its results next to the arguments they were made from.
struct Imported {
    builder: Builder,
    arguments: Vec<Value>,
    results: Vec<Value>,
}

/// Input 0 is the condition.
pub(super) fn branch(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let condition = n.tensor(i, 0)?;
    let function =
        |name: &str| n.attributes.function(name).ok_or_else(|| format!("attribute {name} is missing"));
    let (then_branch, else_branch) = (function("then_branch")?, function("else_branch")?);
    if let Some(known) = i.b.known_value(condition)
        && let Ok([known]) = known.as_bools()
    {
        return Ok(i.inline(if *known { then_branch } else { else_branch }, n.inputs[1..].to_vec())?);
    }
    let types = n.attributes.list("Tin").map(|list| list.r#type.as_slice()).unwrap_or_default();
    let mut inputs = vec![condition];
    let mut arguments = Vec::new();
    for (position, value) in n.inputs.iter().enumerate().skip(1) {
        let argument = argument(i, n, position, value, types.get(position - 1))?;
        if let Argument::Input(_) | Argument::List(_) = argument {
            inputs.push(n.tensor(i, position)?);
        }
        arguments.push(argument);
    }
    let mut graph = |function: &str| {
        let imported = import(i, function, &arguments)?;
        let results = tensors(&imported.results)?;
        Ok::<_, Stop>((results.len(), body(imported.builder, results)))
    };
    let (outputs, then_branch) = graph(then_branch)?;
    let (others, else_branch) = graph(else_branch)?;
    if outputs != others {
        return Err("the branches differ in their number of results".into());
    }
    let op = If { then_branch: then_branch.into_body(), else_branch: else_branch.into_body() };
    Ok(i.b.push_many(op, &inputs, outputs).into_iter().map(Value::Tensor).collect())
}

/// The inputs are the loop variables. What the body passes on unchanged and is a constant outside
/// is one inside.
pub(super) fn repeat(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let function =
        |name: &str| n.attributes.function(name).ok_or_else(|| format!("attribute {name} is missing"));
    let (condition, step) = (function("cond")?, function("body")?);
    let types = n.attributes.list("T").map(|list| list.r#type.as_slice()).unwrap_or_default();
    let sorted = |(position, value)| argument(i, n, position, value, types.get(position));
    let sorted = n.inputs.iter().enumerate().map(sorted).collect::<Result<Vec<_>, _>>()?;
    let all_inputs = |(argument, tag): (&Argument, Option<&i32>)| match argument {
        Argument::Constant(tensor) => Argument::Input(tag.map_or(tensor.dtype(), |_| tensor.dtype())),
        other => other.clone(),
    };
    let first: Vec<Argument> =
        sorted.iter().enumerate().map(|(at, argument)| all_inputs((argument, types.get(at)))).collect();
    let missing_before = i.missing.clone();
    let mut imported = import(i, step, &first)?;
    if imported.results.len() != first.len() {
        return Err("the body has not as many results as the loop has variables".into());
    }
    let passed_on = |(argument, result): (&Value, &Value)| match (argument, result) {
        (Value::Tensor(a), Value::Tensor(b)) => a == b,
        (Value::Variable(a), Value::Variable(b)) | (Value::Table(a), Value::Table(b)) => a == b,
        _ => false,
    };
    let unchanged: Vec<bool> = imported.arguments.iter().zip(&imported.results).map(passed_on).collect();
    let arguments: Vec<Argument> = sorted
        .into_iter()
        .zip(&first)
        .zip(&unchanged)
        .map(|((sorted, input), &unchanged)| if unchanged { sorted } else { input.clone() })
        .collect();
    if arguments.iter().any(|argument| matches!(argument, Argument::Constant(_))) {
        *i.missing = missing_before;
        imported = import(i, step, &arguments)?;
    }
    let is_variable: Vec<bool> =
        arguments.iter().map(|argument| matches!(argument, Argument::Input(_) | Argument::List(_))).collect();
    let kept: Vec<Value> = imported
        .results
        .iter()
        .zip(&is_variable)
        .filter(|(_, is_variable)| **is_variable)
        .map(|(result, _)| result.clone())
        .collect();
    let step = body(imported.builder, tensors(&kept)?);
    let imported = import(i, condition, &arguments)?;
    let condition = body(imported.builder, tensors(&imported.results)?);
    let mut inputs = Vec::new();
    for (position, _) in is_variable.iter().enumerate().filter(|(_, is_variable)| **is_variable) {
        inputs.push(n.tensor(i, position)?);
    }
    let op = While { condition: condition.into_body(), body: step.into_body() };
    let outputs = i.b.push_many(op, &inputs, inputs.len());
    for (&before, &after) in inputs.iter().zip(&outputs) {
        let element = i.lists.get(&before).copied();
        listed(i, after, element);
    }
    let mut outputs = outputs.into_iter();
    let output = |(value, &is_variable): (&Value, &bool)| match is_variable {
        true => outputs.next().map_or(Value::Missing, Value::Tensor),
        false => value.clone(),
    };
    Ok(n.inputs.iter().zip(&is_variable).map(output).collect())
}

fn argument(
    i: &mut Import<'_, '_>,
    n: &Node<'_>,
    position: usize,
    value: &Value,
    tag: Option<&i32>,
) -> Result<Argument, Stop> {
    if let Value::Variable(_) | Value::Table(_) | Value::Array = value {
        return Ok(Argument::Handle(value.clone()));
    }
    let tensor = n.tensor(i, position)?;
    if let Some(&element) = i.lists.get(&tensor) {
        return Ok(Argument::List(element));
    }
    Ok(match i.b.constant_value(tensor) {
        Some(constant) => Argument::Constant(constant.clone()),
        None => Argument::Input(tag.and_then(|&tag| dtype_of(tag)).unwrap_or(DType::F32)),
    })
}

fn import(i: &mut Import<'_, '_>, function: &str, arguments: &[Argument]) -> Result<Imported, Stop> {
    let (result, builder) = i.within(|i| {
        let values: Vec<Value> = arguments
            .iter()
            .map(|argument| match argument {
                Argument::Handle(value) => value.clone(),
                Argument::Constant(tensor) => Value::Tensor(i.b.constant(tensor.clone())),
                Argument::Input(dtype) => Value::Tensor(i.b.input("", *dtype, None)),
                Argument::List(dtype) => {
                    let list = i.b.input("", *dtype, None);
                    Value::Tensor(listed(i, list, Some(*dtype)))
                }
            })
            .collect();
        let results = i.inline(function, values.clone());
        (values, results)
    });
    let (arguments, results) = result;
    Ok(Imported { builder, arguments, results: results? })
}

fn tensors(values: &[Value]) -> Result<Vec<ValueId>, Stop> {
    let tensor = |value: &Value| match value {
        Value::Tensor(value) | Value::Assigned { value, .. } => Ok(*value),
        Value::Missing => Err(Stop::Missing),
        Value::Variable(_) | Value::Table(_) | Value::Array => {
            Err("a result of the function is a handle".into())
        }
    };
    values.iter().map(tensor).collect()
}

pub(super) fn body(builder: Builder, results: Vec<ValueId>) -> Graph {
    passes::simplify(builder.finish(results.into_iter().map(|value| (String::new(), value)).collect()))
}

/// Notes that a value is a list of elements of a type.
pub(super) fn listed(i: &mut Import<'_, '_>, list: ValueId, element: Option<DType>) -> ValueId {
    i.lists.extend(element.map(|element| (list, element)));
    list
}

/// The list that a node makes, of the type that its attribute names.
fn one_list(i: &mut Import<'_, '_>, n: &Node<'_>, list: ValueId, attribute: &str) -> Outputs {
    one(listed(i, list, n.attributes.dtype(attribute)))
}

pub(super) fn list_reserve(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (shape, count) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    let list = i.b.push(Reserve { dtype: n.dtype("element_dtype")? }, &[shape, count]);
    one_list(i, n, list, "element_dtype")
}

pub(super) fn list_empty(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let shape = n.tensor(i, 0)?;
    let none = i.b.constant(Tensor::scalar(0i32));
    let list = i.b.push(Reserve { dtype: n.dtype("element_dtype")? }, &[shape, none]);
    one_list(i, n, list, "element_dtype")
}

/// A stack of tensors as the list of them.
pub(super) fn list_from(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let stack = n.tensor(i, 0)?;
    // Another value, since the stack itself may be a constant.
    let list = i.b.push(crate::ops::shape::Identity, &[stack]);
    one_list(i, n, list, "element_dtype")
}

pub(super) fn list_set(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let [list, index, item] = [n.tensor(i, 0)?, n.tensor(i, 1)?, n.tensor(i, 2)?];
    let grow = n.attributes.flag("resize_if_index_out_of_bounds");
    let list = i.b.push(SetItem { grow }, &[list, index, item]);
    one_list(i, n, list, "element_dtype")
}

pub(super) fn list_push(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (list, item) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    let list = i.b.push(PushBack, &[list, item]);
    one_list(i, n, list, "element_dtype")
}

pub(super) fn list_stack(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    one(n.tensor(i, 0)?)
}

pub(super) fn list_get(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (list, index) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    one(i.b.push(Gather { axis: 0, batch_dims: 0, negative: false }, &[list, index]))
}

pub(super) fn list_length(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let list = n.tensor(i, 0)?;
    one(length_of(i, list))
}

fn length_of(i: &mut Import<'_, '_>, list: ValueId) -> ValueId {
    let shape = i.b.push(ShapeOf { dtype: DType::I32 }, &[list]);
    let [begin, end, stride] = [0, 1, 1].map(|bound| i.b.integers(&[bound]));
    let first =
        StridedSlice { begin_mask: 0, end_mask: 0, ellipsis_mask: 0, new_axis_mask: 0, shrink_axis_mask: 1 };
    i.b.push(first, &[shape, begin, end, stride])
}

/// Rows put at their places.
pub(super) fn list_scatter(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (rows, places) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    let list = i.b.push(Stitch, &[places, rows]);
    one_list(i, n, list, "element_dtype")
}

/// The list without its last element, and that element.
pub(super) fn list_pop(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let list = n.tensor(i, 0)?;
    let [begin, end, stride, last] = [0, -1, 1, -1].map(|bound| i.b.integers(&[bound]));
    let rest =
        StridedSlice { begin_mask: 1, end_mask: 0, ellipsis_mask: 0, new_axis_mask: 0, shrink_axis_mask: 0 };
    let rest = i.b.push(rest, &[list, begin, end, stride]);
    let last = i.b.push(Gather { axis: 0, batch_dims: 0, negative: true }, &[list, last]);
    let last = i.b.push(Squeeze { axes: vec![0] }, &[last]);
    let rest = listed(i, rest, n.attributes.dtype("element_dtype"));
    Ok(vec![Value::Tensor(rest), Value::Tensor(last)])
}

/// The elements, all of one shape, behind each other along their first axis; and their lengths.
pub(super) fn list_concat(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let list = n.tensor(i, 0)?;
    let shape = i.b.push(ShapeOf { dtype: DType::I64 }, &[list]);
    let inner = rest_of(i, shape, 2);
    let open = i.b.integers(&[-1]);
    let joined = i.b.push(Concat { axis: 0 }, &[open, inner]);
    Ok(vec![Value::Tensor(i.b.push(Reshape { zero_copies: false }, &[list, joined])), Value::Missing])
}

pub(super) fn list_element_shape(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let dtype = n.dtype("shape_type")?;
    let list = n.tensor(i, 0)?;
    let shape = i.b.push(ShapeOf { dtype }, &[list]);
    one(rest_of(i, shape, 1))
}

/// A vector from position `start` on.
fn rest_of(i: &mut Import<'_, '_>, vector: ValueId, start: i64) -> ValueId {
    let [begin, end, stride] = [start, 0, 1].map(|bound| i.b.integers(&[bound]));
    let rest =
        StridedSlice { begin_mask: 0, end_mask: 1, ellipsis_mask: 0, new_axis_mask: 0, shrink_axis_mask: 0 };
    i.b.push(rest, &[vector, begin, end, stride])
}

/// TensorFlow 1's lists: what they hold is passed on as their flow; the handle says nothing.
pub(super) fn array(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let length = n.tensor(i, 0)?;
    let shape = n.attributes.shape("element_shape").and_then(concrete_shape);
    let shape = match shape {
        Some(shape) => i.b.integers(&shape.to_i64()),
        None => i.b.constant(Tensor::scalar(-1i64)),
    };
    let flow = i.b.push(Reserve { dtype: n.dtype("dtype")? }, &[shape, length]);
    Ok(vec![Value::Array, Value::Tensor(listed(i, flow, n.attributes.dtype("dtype")))])
}

/// Inputs: handle, index, value, flow.
pub(super) fn array_write(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let [index, value, flow] = [n.tensor(i, 1)?, n.tensor(i, 2)?, n.tensor(i, 3)?];
    let list = i.b.push(SetItem { grow: true }, &[flow, index, value]);
    one_list(i, n, list, "T")
}

/// Inputs: handle, one index or several, flow.
pub(super) fn array_read(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (indices, flow) = (n.tensor(i, 1)?, n.tensor(i, 2)?);
    one(i.b.push(Gather { axis: 0, batch_dims: 0, negative: false }, &[flow, indices]))
}

/// Inputs: handle, indices, values, flow.
pub(super) fn array_scatter(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (indices, values) = (n.tensor(i, 1)?, n.tensor(i, 2)?);
    let list = i.b.push(Stitch, &[indices, values]);
    one_list(i, n, list, "T")
}

/// Inputs: handle, flow.
pub(super) fn array_size(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let flow = n.tensor(i, 1)?;
    one(length_of(i, flow))
}
