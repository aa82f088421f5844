//! Control flow of TensorFlow 1: branches and loops without functions.
//!
//! A `Merge` takes the branch that the predicate of its `Switch` says; where that is known while
//! loading only this branch is imported, else both run and one result is kept, so that neither may assign. A loop is the nodes of
//! a frame: `Enter` -> `Merge` -> `Switch` -> body -> `NextIteration` -> `Merge`, and `Switch` ->
//! `Exit`; it becomes a `While` when the first of its exits is met.

use super::{Outputs, control, one};
use crate::{
    formats::saved_model::{
        functions::Reference,
        import::{Import, Node, Place, Stop, Value, data_input, data_inputs},
        node::Attributes,
        tensor_proto::dtype_of,
    },
    graph::ValueId,
    ops::{
        Operator,
        control::{Choose, While},
    },
    proto::tensorflow::NodeDef,
    tensor::{DType, Tensor},
};
use std::collections::HashSet;

/// Branches within branches.
const MAX_DEPTH: usize = 64;

/// Both outputs are the input: which of them lives, the `Merge` says.
pub(super) fn switch(_: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let value = n.value(0)?;
    Ok(vec![value.clone(), value.clone()])
}

pub(super) fn merge(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (scope, _) = n.place;
    let inputs: Vec<usize> = (0..data_inputs(n.def).count()).collect();
    let [first, second] = inputs.as_slice() else {
        return Err(format!("{} inputs, expected 2", inputs.len()).into());
    };
    let side = match side(i, scope, n.place, *first) {
        Some((switch, taken)) => Some((switch, if taken { (*first, *second) } else { (*second, *first) })),
        None => side(i, scope, n.place, *second)
            .map(|(switch, taken)| (switch, if taken { (*second, *first) } else { (*first, *second) })),
    };
    let (switch, (if_true, if_false)) = side.ok_or("no Switch leads to it")?;
    let predicate = tensor(i, (scope, switch), 1)?;
    if let Some(known) = i.b.known_value(predicate)
        && let Ok([known]) = known.as_bools()
    {
        return Ok(vec![i.fetch_input(n.place, if *known { if_true } else { if_false })?]);
    }
    let before = i.b.nodes().len();
    let (a, b) = (tensor(i, n.place, if_true)?, tensor(i, n.place, if_false)?);
    if i.b.nodes()[before.min(i.b.nodes().len())..].iter().any(|node| node.op.assigns()) {
        return Err("an assignment under a condition that only a call can tell is not supported".into());
    }
    one(i.b.push(Choose, &[predicate, a, b]))
}

/// An input of a node, imported, as a tensor.
fn tensor(i: &mut Import<'_, '_>, place: Place, input: usize) -> Result<ValueId, Stop> {
    match i.fetch_input(place, input)? {
        Value::Tensor(value) | Value::Assigned { value, .. } => Ok(value),
        Value::Variable(variable) => i.read(variable),
        Value::Missing => Err(Stop::Missing),
        Value::Table(_) | Value::Array => Err(format!("input {input} is no tensor").into()),
    }
}

/// The `Switch` that decides whether an input of a `Merge` lives, and whether it does so when the
/// predicate holds. A `Merge` on the way is the end of an inner branch, whose `Switch` is passed by.
fn side(i: &Import<'_, '_>, scope: usize, (_, merge): Place, input: usize) -> Option<(usize, bool)> {
    let body = i.body(scope);
    let name = data_input(&body.nodes[merge], input)?;
    let mut seen = HashSet::new();
    let mut waiting = vec![(name, 0usize)];
    while let Some((name, depth)) = waiting.pop() {
        let (node, argument, index) = match body.reference(name) {
            Reference::Node { node, argument, index } => (node, argument, index),
            Reference::Control(node) => (node, None, 0),
            Reference::Argument(_) | Reference::Unknown => continue,
        };
        let def = &body.nodes[node];
        let depth = match def.op.as_str() {
            "Switch" | "RefSwitch" if depth == 0 => {
                return Some((node, index == 1 || argument == Some("output_true")));
            }
            "Switch" | "RefSwitch" => depth - 1,
            "Merge" | "RefMerge" => depth + 1,
            _ => depth,
        };
        // Around a loop the depth would grow for ever.
        if depth > MAX_DEPTH {
            continue;
        }
        if seen.insert((node, depth)) {
            waiting.extend(def.input.iter().map(|input| (input.as_str(), depth)));
        }
    }
    None
}

/// A loop variable: nodes of the body.
struct Variable {
    merge: usize,
    switch: usize,
    enter: usize,
    next: usize,
}

/// The value that a loop variable has in the end.
pub(super) fn exit(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (scope, node) = n.place;
    let switch = input_node(i, scope, node, 0).ok_or("it does not follow a Switch")?;
    let condition =
        input_node(i, scope, switch, 1).filter(|&node| i.body(scope).nodes[node].op == "LoopCond");
    let condition = condition.ok_or("its Switch has no LoopCond")?;
    let variables = variables(i, scope, condition);
    let wanted = variables.iter().position(|variable| variable.switch == switch);
    let wanted = wanted.ok_or("its loop has no such variable")?;
    if let Some(done) = i.frames.get(&(scope, condition)) {
        return Ok(vec![done[wanted].clone()]);
    }
    let outputs = import_loop(i, scope, condition, &variables)?;
    let output = outputs[wanted].clone();
    i.frames.insert((scope, condition), outputs);
    Ok(vec![output])
}

/// The node that makes an input.
fn input_node(i: &Import<'_, '_>, scope: usize, node: usize, input: usize) -> Option<usize> {
    let body = i.body(scope);
    match body.reference(data_input(body.nodes.get(node)?, input)?) {
        Reference::Node { node, .. } => Some(node),
        _ => None,
    }
}

fn variables(i: &Import<'_, '_>, scope: usize, condition: usize) -> Vec<Variable> {
    let nodes = i.body(scope).nodes;
    let of = |switch: usize| {
        if !matches!(nodes[switch].op.as_str(), "Switch" | "RefSwitch") {
            return None;
        }
        if input_node(i, scope, switch, 1) != Some(condition) {
            return None;
        }
        let merge = input_node(i, scope, switch, 0)?;
        let (a, b) = (input_node(i, scope, merge, 0)?, input_node(i, scope, merge, 1)?);
        let (enter, next) = if nodes[a].op.ends_with("Enter") { (a, b) } else { (b, a) };
        Some(Variable { merge, switch, enter, next })
    };
    (0..nodes.len()).filter_map(of).collect()
}

/// What does not change in the loop.
enum Invariant {
    /// Handles and constants, as they are inside.
    Inside(Value),
    /// A tensor passed through all rounds, and its type.
    Passed(ValueId, DType),
}

fn import_loop(
    i: &mut Import<'_, '_>,
    scope: usize,
    condition: usize,
    variables: &[Variable],
) -> Result<Vec<Value>, Stop> {
    let body = i.body(scope);
    let nodes = body.nodes;
    let dtype = |node: usize| {
        let tag = Attributes(&nodes[node]).type_tag("T");
        dtype_of(tag).unwrap_or(DType::F32)
    };
    // Handles are variables of the loop in form only.
    let mut first = Vec::new();
    for variable in variables {
        first.push(i.fetch_input((scope, variable.enter), 0)?);
    }
    let frame = variables.first().map(|variable| frame_of(&nodes[variable.enter]));
    let is_variable = |node: usize| variables.iter().any(|variable| variable.enter == node);
    let invariant = |node: &usize| {
        nodes[*node].op.ends_with("Enter") && Some(frame_of(&nodes[*node])) == frame && !is_variable(*node)
    };
    let entered: Vec<usize> = (0..nodes.len()).filter(invariant).collect();
    let mut invariants = Vec::new();
    for &node in &entered {
        let value = i.fetch_input((scope, node), 0)?;
        invariants.push(match value {
            Value::Tensor(value) | Value::Assigned { value, .. } => match i.b.constant_value(value) {
                Some(_) => Invariant::Inside(Value::Tensor(value)),
                None => Invariant::Passed(value, dtype(node)),
            },
            other => Invariant::Inside(other),
        });
    }
    let mut inputs = Vec::new();
    for value in &first {
        inputs.extend(as_tensor(value)?);
    }
    inputs.extend(invariants.iter().filter_map(|invariant| match invariant {
        Invariant::Passed(value, _) => Some(*value),
        Invariant::Inside(_) => None,
    }));
    let constants: Vec<Option<Tensor>> = invariants
        .iter()
        .map(|invariant| match invariant {
            Invariant::Inside(Value::Tensor(value)) => i.b.constant_value(*value).cloned(),
            _ => None,
        })
        .collect();
    let elements: Vec<Option<DType>> = inputs.iter().map(|input| i.lists.get(input).copied()).collect();
    // One graph that starts from the loop variables and gives what `wanted` names.
    let graph = |i: &mut Import<'_, '_>, starts: &dyn Fn(&Variable) -> (usize, usize), wanted: &[usize]| {
        let (result, builder) = i.within(|i| {
            let mut feeds = Vec::new();
            let mut elements = elements.iter().copied();
            let mut input = |i: &mut Import<'_, '_>, dtype: DType| {
                let element = elements.next().flatten();
                let value = i.b.input("", element.unwrap_or(dtype), None);
                control::listed(i, value, element)
            };
            for (variable, value) in variables.iter().zip(&first) {
                let inside = match value {
                    Value::Tensor(_) | Value::Assigned { .. } => {
                        Value::Tensor(input(i, dtype(variable.merge)))
                    }
                    handle => handle.clone(),
                };
                let (node, output) = starts(variable);
                feeds.push(((scope, node, output), inside));
            }
            let mut passed = Vec::new();
            for ((&node, invariant), constant) in entered.iter().zip(&invariants).zip(&constants) {
                let inside = match (invariant, constant) {
                    (Invariant::Passed(_, dtype), _) => {
                        let value = input(i, *dtype);
                        passed.push(value);
                        Value::Tensor(value)
                    }
                    (_, Some(constant)) => Value::Tensor(i.b.constant(constant.clone())),
                    (Invariant::Inside(value), None) => value.clone(),
                };
                feeds.push(((scope, node, 0), inside));
            }
            let values = i.isolated(feeds, |i| {
                wanted.iter().map(|&node| i.fetch_input((scope, node), 0)).collect::<Result<Vec<_>, _>>()
            });
            (values, passed)
        });
        let (values, passed) = result;
        let mut results = Vec::new();
        // A variable that is read in the loop is read inside of it; handles are no results.
        for value in values? {
            match value {
                Value::Tensor(value) | Value::Assigned { value, .. } => results.push(value),
                Value::Missing => return Err(Stop::Missing),
                Value::Variable(_) | Value::Table(_) | Value::Array => {}
            }
        }
        Ok((builder, results, passed))
    };
    let next: Vec<usize> = variables.iter().map(|variable| variable.next).collect();
    let (builder, mut results, passed) = graph(i, &|variable| (variable.switch, 1), &next)?;
    results.extend(passed);
    if results.len() != inputs.len() {
        return Err("a variable of the loop is a handle in some rounds only".into());
    }
    let step = control::body(builder, results);
    let (builder, results, _) = graph(i, &|variable| (variable.merge, 0), &[condition])?;
    let condition = control::body(builder, results);
    let op = While { condition: condition.into_body(), body: step.into_body() };
    let outputs = i.b.push_many(op, &inputs, inputs.len());
    for (&after, element) in outputs.iter().zip(elements) {
        control::listed(i, after, element);
    }
    let mut outputs = outputs.into_iter();
    let output = |value: &Value| match value {
        Value::Tensor(_) | Value::Assigned { .. } => outputs.next().map_or(Value::Missing, Value::Tensor),
        handle => handle.clone(),
    };
    Ok(first.iter().map(output).collect())
}

fn as_tensor(value: &Value) -> Result<Option<ValueId>, Stop> {
    match value {
        Value::Tensor(value) | Value::Assigned { value, .. } => Ok(Some(*value)),
        Value::Missing => Err(Stop::Missing),
        Value::Variable(_) | Value::Table(_) | Value::Array => Ok(None),
    }
}

fn frame_of(def: &NodeDef) -> &str {
    Attributes(def).text("frame_name")
}
