//! Branches and loops. A body gets what it uses of the graph around it as further inputs.

use super::{Outputs, many};
use crate::{
    formats::onnx::{
        import::{Import, ImportedBody},
        node::{Node, Stop, Value},
        tensor::Declared,
    },
    graph::{Builder, Graph, ValueId, passes},
    ops::{
        control::{If, Loop, Scan},
        layout::Transpose,
    },
    tensor::DType,
};

/// A known condition leaves one branch.
pub(super) fn branch<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let condition = n.tensor(0)?;
    let graph =
        |name: &str| n.attributes.graph(name).ok_or_else(|| Stop::Reason(format!("{name} is missing")));
    let (then_branch, else_branch) = (graph("then_branch")?, graph("else_branch")?);
    if let Some(known) = i.known_value(condition)
        && let Ok([known]) = known.as_bools()
    {
        return i.inline(if *known { then_branch } else { else_branch });
    }
    let [mut first, mut second] = [i.body(then_branch, &[])?, i.body(else_branch, &[])?];
    let outputs = first.results.len();
    if outputs != second.results.len() {
        return Err("the branches differ in their number of results".into());
    }
    let declared: Vec<Declared> = first.declared.iter().zip(&second.declared).map(either).collect();
    // Both branches take the same inputs: what the one uses, then what the other does.
    let captured: Vec<ValueId> = first.captured.iter().chain(&second.captured).copied().collect();
    let types: Vec<DType> = captured.iter().map(|&value| i.dtype(value).unwrap_or(DType::F32)).collect();
    let (of_first, of_second) = types.split_at(first.captured.len());
    let then_branch = {
        for &dtype in of_second {
            first.builder.input("", dtype, None);
        }
        finish(first.builder, &first.results)?
    };
    let else_branch = {
        let (mut b, values) = (std::mem::take(&mut second.builder), tensors(&second.results)?);
        let own = second.captured.len();
        for &dtype in of_first {
            b.input("", dtype, None);
        }
        rotated(graph_of(b, values), own)
    };
    let op = If { then_branch: then_branch.into_body(), else_branch: else_branch.into_body() };
    let inputs: Vec<ValueId> = [condition].into_iter().chain(captured).collect();
    let made = i.b.push_many(op, &inputs, outputs);
    declare(i, &made, declared);
    many(made)
}

/// What holds of a value that either of two branches makes.
fn either((a, b): (&Declared, &Declared)) -> Declared {
    let dims = match (&a.dims, &b.dims) {
        (Some(a), Some(b)) if a.len() == b.len() => {
            Some(a.iter().zip(b).map(|(a, b)| if a == b { *a } else { None }).collect())
        }
        _ => None,
    };
    Declared { dtype: a.dtype.or(b.dtype), dims, nested: false }
}

fn declare(i: &mut Import<'_>, values: &[ValueId], declared: impl IntoIterator<Item = Declared>) {
    for (&value, declared) in values.iter().zip(declared) {
        i.declare(value, &declared);
    }
}

/// The graph with its first `count` inputs last.
fn rotated(mut graph: Graph, count: usize) -> Graph {
    graph.rotate_inputs(count);
    graph
}

fn tensors(values: &[Value]) -> Result<Vec<ValueId>, Stop> {
    let tensor = |value: &Value| match value {
        Value::Tensor(value) => Ok(*value),
        Value::Missing => Err(Stop::Missing),
        Value::Sequence(_) | Value::Absent => Err("a result of the body is no tensor".into()),
    };
    values.iter().map(tensor).collect()
}

fn graph_of(b: Builder, results: Vec<ValueId>) -> Graph {
    passes::simplify(b.finish(results.into_iter().map(|value| (String::new(), value)).collect()))
}

fn finish(b: Builder, results: &[Value]) -> Result<Graph, Stop> {
    Ok(graph_of(b, tensors(results)?))
}

/// The same of the first carried values, as far as it holds for every round: types and ranks.
fn carried(i: &mut Import<'_>, values: &[ValueId]) -> Vec<Declared> {
    let of = |&value: &ValueId| Declared { dtype: i.dtype(value), dims: None, nested: false };
    values.iter().map(of).collect()
}

pub(super) fn repeat<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let graph = n.attributes.graph("body").ok_or("body is missing")?;
    let (limit, condition) = (n.optional(0)?, n.optional(1)?);
    let first = n.tensors(2)?;
    let number = Declared { dtype: Some(DType::I64), dims: Some(vec![]), nested: false };
    let truth = Declared { dtype: Some(DType::Bool), dims: None, nested: false };
    let mut types = vec![number, truth];
    types.extend(carried(i, &first));
    let ImportedBody { builder, captured, results, declared } = i.body(graph, &types)?;
    let scans = declared.get(1 + first.len()..).ok_or("the body has too few results")?;
    let op = Loop {
        carried: first.len(),
        scans: scans.iter().map(|scan| scan.dtype.unwrap_or(DType::F32)).collect(),
        limited: limit.is_some(),
        conditional: condition.is_some(),
        body: finish(builder, &results)?.into_body(),
    };
    let inputs: Vec<ValueId> = limit.into_iter().chain(condition).chain(first).chain(captured).collect();
    let made = i.b.push_many(op, &inputs, results.len() - 1);
    let count = types.len() - 2;
    let after = declared.into_iter().skip(1).enumerate().map(|(position, mut result)| {
        if position >= count
            && let Some(dims) = &mut result.dims
        {
            dims.insert(0, None);
        }
        result
    });
    declare(i, &made, after);
    many(made)
}

/// Scanned axes other than the first are brought there and back.
pub(super) fn scan<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let graph = n.attributes.graph("body").ok_or("body is missing")?;
    if n.opset < 9 {
        return Err("scans with a batch (operator set 8) are not supported".into());
    }
    let given = n.tensors(0)?;
    let count = usize::try_from(n.attributes.int("num_scan_inputs", 0)).ok();
    let states = count.and_then(|count| given.len().checked_sub(count)).ok_or("num_scan_inputs is wrong")?;
    let (state_values, scanned_values) = given.split_at(states);
    let list = |name: &str, position: usize| {
        n.attributes.ints(name).and_then(|values| values.get(position)).copied().unwrap_or(0)
    };
    let mut types = carried(i, state_values);
    let mut inputs = state_values.to_vec();
    for (position, &x) in scanned_values.iter().enumerate() {
        let x = moved(i, x, list("scan_input_axes", position), true)?;
        let dims = i.dims(x).map(|dims| dims.into_iter().skip(1).collect());
        types.push(Declared { dtype: i.dtype(x), dims, nested: false });
        inputs.push(x);
    }
    let ImportedBody { builder, captured, results, declared } = i.body(graph, &types)?;
    let parts = results.len().checked_sub(states).ok_or("the body has too few results")?;
    let op = Scan {
        states,
        scanned: (0..scanned_values.len()).map(|at| list("scan_input_directions", at) != 0).collect(),
        written: (0..parts).map(|at| list("scan_output_directions", at) != 0).collect(),
        body: finish(builder, &results)?.into_body(),
    };
    inputs.extend(captured);
    let mut made = i.b.push_many(op, &inputs, results.len());
    let after = declared.into_iter().enumerate().map(|(position, mut result)| {
        if position >= states
            && let Some(dims) = &mut result.dims
        {
            dims.insert(0, None);
        }
        result
    });
    declare(i, &made, after);
    for (position, part) in made[states..].iter_mut().enumerate() {
        *part = moved(i, *part, list("scan_output_axes", position), false)?;
    }
    many(made)
}

/// Brings an axis to the front, or the first one back to its place.
fn moved(i: &mut Import<'_>, x: ValueId, axis: i64, to_front: bool) -> Result<ValueId, Stop> {
    if axis == 0 {
        return Ok(x);
    }
    let rank = i.rank(x)?;
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    let axis = usize::try_from(axis).ok().filter(|&axis| axis < rank).ok_or("an axis is out of range")?;
    let mut perm: Vec<usize> = (0..rank).collect();
    match to_front {
        true => perm[..=axis].rotate_right(1),
        false => perm[..=axis].rotate_left(1),
    }
    Ok(i.b.push(Transpose { perm }, &[x]))
}
