//! One operator as members of a node.
//!
//! The operators' own serde derives say what their attributes are. On top of that a function of a
//! family has a short form, so that files written by hand can say `{"op": "Relu"}`.

use crate::ops::Op;
use serde_json::{Map, Value};

/// Operators whose payload is one function, in the order in which a short form is looked up.
const FAMILIES: &[&str] = &["Unary", "Binary", "Compare", "Logical"];

/// Why a node is no operator.
#[derive(Debug, PartialEq)]
pub(super) enum Problem {
    /// No operator and no function has that name.
    Unknown,
    /// The attributes do not fit it.
    Attributes(String),
}

/// True when an operator or a function has that name.
pub(super) fn is_known(name: &str) -> bool {
    Op::NAMES.contains(&name) || function(name).is_some()
}

/// The operator called `name` with these attributes.
pub(super) fn read(name: &str, attributes: &Map<String, Value>) -> Result<Op, Problem> {
    if Op::NAMES.contains(&name) {
        return read_long(name, attributes);
    }
    match function(name) {
        None => Err(Problem::Unknown),
        Some(op) => match attributes.keys().next() {
            None => Ok(op),
            Some(extra) => Err(Problem::Attributes(format!("it has no attribute \"{extra}\""))),
        },
    }
}

/// The function of that name, of the first family that has one.
fn function(name: &str) -> Option<Op> {
    let of_family = |family: &&str| Op::read(family, Map::from_iter([("function".into(), name.into())])).ok();
    FAMILIES.iter().find_map(of_family)
}

fn read_long(name: &str, attributes: &Map<String, Value>) -> Result<Op, Problem> {
    let op = Op::read(name, attributes.clone()).map_err(|error| Problem::Attributes(error.to_string()))?;
    // What an operator writes names all its attributes, so whatever else was given is a mistake.
    let known = write_long(&op)?;
    match attributes.keys().find(|key| !known.contains_key(*key)) {
        None => Ok(op),
        Some(extra) => {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            let has =
                if names.is_empty() { "it has none".into() } else { format!("it has {}", names.join(", ")) };
            Err(Problem::Attributes(format!("it has no attribute \"{extra}\"; {has}")))
        }
    }
}

/// The operator's name and attributes.
pub(super) fn write(op: &Op) -> Result<(String, Map<String, Value>), Problem> {
    let members = write_long(op)?;
    if let (true, Some(Value::String(function))) = (members.len() == 1, members.get("function"))
        && read(function, &Map::new()).as_ref() == Ok(op)
    {
        return Ok((function.clone(), Map::new()));
    }
    Ok((op.name().to_owned(), members))
}

fn write_long(op: &Op) -> Result<Map<String, Value>, Problem> {
    op.write().map_err(|error| Problem::Attributes(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernels,
        ops::{
            Fused,
            cast::Cast,
            matmul::MatMul,
            shape::{ExpandDims, Identity, Reshape},
            state::{AssignState, Assignment, ReadState},
            unary::Unary,
        },
        tensor::{DType, Shape},
    };

    fn parse(node: &str) -> Result<Op, Problem> {
        let mut members: Map<String, Value> = serde_json::from_str(node).unwrap();
        let name = members.remove("op").unwrap();
        read(name.as_str().unwrap(), &members)
    }

    #[test]
    fn hand_written_nodes() {
        assert_eq!(parse(r#"{"op": "Relu"}"#), Ok(Unary(kernels::Unary::Relu).into()));
        assert_eq!(parse(r#"{"op": "Identity"}"#), Ok(Identity.into()));
        assert_eq!(
            parse(r#"{"op": "Unary", "function": {"Clip": {"min": "-inf", "max": 6}}}"#),
            Ok(Unary(kernels::Unary::Clip { min: f32::NEG_INFINITY, max: 6.0 }).into())
        );
        let fused = Fused { bias: true, activation: Some(kernels::Unary::Relu), ..Fused::default() };
        assert_eq!(
            parse(r#"{"op": "MatMul", "bias": true, "activation": "Relu"}"#),
            Ok(MatMul { fused, ..MatMul::default() }.into())
        );
        assert_eq!(parse(r#"{"op": "Reshape"}"#), Ok(Reshape { zero_copies: false }.into()));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(parse(r#"{"op": "Transmogrify"}"#), Err(Problem::Unknown));
        for (node, expected) in [
            (
                r#"{"op": "MatMul", "transpos_b": true}"#,
                "no attribute \"transpos_b\"; it has activation, affine, bias",
            ),
            (r#"{"op": "MatMul", "transpose_b": 1}"#, "expected a boolean"),
            (r#"{"op": "ExpandDims"}"#, "missing field `axes`"),
            (r#"{"op": "Relu", "alpha": 1}"#, "no attribute \"alpha\""),
            (r#"{"op": "Cast", "to": "float32"}"#, "unknown dtype `float32`"),
        ] {
            match parse(node) {
                Err(Problem::Attributes(text)) => assert!(text.contains(expected), "{text}"),
                other => panic!("{node}: {other:?}"),
            }
        }
    }

    #[test]
    fn operators_come_back_equal() {
        let ops: Vec<Op> = vec![
            Identity.into(),
            Unary(kernels::Unary::Exp).into(),
            Unary(kernels::Unary::Identity).into(),
            Unary(kernels::Unary::LeakyRelu(0.1)).into(),
            Unary(kernels::Unary::Clip { min: f32::NEG_INFINITY, max: f32::MAX }).into(),
            MatMul {
                transpose_b: true,
                fused: Fused { residual: true, ..Fused::default() },
                ..MatMul::default()
            }
            .into(),
            ExpandDims { axes: vec![0, -1] }.into(),
            Cast { to: DType::BF16 }.into(),
            ReadState { cell: 1, dtype: DType::F32, shape: Shape::from([2, 3]) }.into(),
            AssignState { cell: 0, assignment: Assignment::Add }.into(),
        ];
        for op in ops {
            let (name, members) = write(&op).unwrap();
            let text = serde_json::to_string(&members).unwrap();
            assert_eq!(read(&name, &serde_json::from_str(&text).unwrap()), Ok(op), "{name} {text}");
        }
    }
}
