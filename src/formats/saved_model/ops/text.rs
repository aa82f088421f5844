//! Strings.

use super::{Outputs, apply};
use crate::{
    formats::saved_model::import::{Import, Node, Stop, Value},
    kernels::Compare as C,
    ops::{
        binary::Compare,
        text::{
            AnyOf, AsString, MapStrings, ReduceJoin, StringEqual, StringFunction, StringJoin, StringSplit,
            Unit,
        },
    },
    tensor::DType,
};

pub(super) fn map(i: &mut Import<'_, '_>, n: &Node<'_>, function: StringFunction) -> Outputs {
    apply(i, n, MapStrings { function }, 1)
}

pub(super) fn unit(n: &Node<'_>) -> Result<Unit, Stop> {
    match n.attributes.text("unit") {
        "BYTE" => Ok(Unit::Byte),
        "UTF8_CHAR" => Ok(Unit::Character),
        other => Err(format!("unknown unit \"{other}\"").into()),
    }
}

/// Strings compare in an operator of their own.
pub(super) fn equal(i: &mut Import<'_, '_>, n: &Node<'_>, compare: C) -> Outputs {
    match n.attributes.dtype("T") {
        Some(DType::String) => apply(i, n, StringEqual { negate: compare == C::NotEqual }, 2),
        _ => apply(i, n, Compare(compare), 2),
    }
}

pub(super) fn hash_bucket(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let buckets = u64::try_from(n.attributes.int("num_buckets")).ok().filter(|&buckets| buckets > 0);
    let buckets = buckets.ok_or("num_buckets is not positive")?;
    map(i, n, StringFunction::HashBucket { buckets })
}

pub(super) fn keyed_hash_bucket(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let buckets = u64::try_from(n.attributes.int("num_buckets")).ok().filter(|&buckets| buckets > 0);
    let buckets = buckets.ok_or("num_buckets is not positive")?;
    let &[first, second] = n.attributes.ints("key") else { return Err("the key is not two numbers".into()) };
    map(i, n, StringFunction::KeyedHashBucket { buckets, key: [first as u64, second as u64] })
}

pub(super) fn static_regex_replace(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (pattern, rewrite) =
        (n.attributes.text("pattern").to_owned(), n.attributes.text("rewrite").to_owned());
    map(i, n, StringFunction::RegexReplace { pattern, rewrite, global: n.attributes.flag("replace_global") })
}

pub(super) fn regex_replace(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (pattern, rewrite) = (n.string(i, 1)?, n.string(i, 2)?);
    map(i, n, StringFunction::RegexReplace { pattern, rewrite, global: n.attributes.flag("replace_global") })
}

pub(super) fn static_regex_full_match(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    map(i, n, StringFunction::RegexFullMatch { pattern: n.attributes.text("pattern").to_owned() })
}

pub(super) fn regex_full_match(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let pattern = n.string(i, 1)?;
    map(i, n, StringFunction::RegexFullMatch { pattern })
}

pub(super) fn as_string(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let size = |name: &str| usize::try_from(n.attributes.int(name)).ok();
    let op = AsString {
        precision: size("precision"),
        scientific: n.attributes.flag("scientific"),
        shortest: n.attributes.flag("shortest"),
        width: size("width").unwrap_or(0),
        fill: n.attributes.text("fill").to_owned(),
    };
    apply(i, n, op, 1)
}

pub(super) fn join(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    apply(i, n, StringJoin { separator: n.attributes.text("separator").to_owned() }, n.inputs.len())
}

pub(super) fn reduce_join(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let axes = n.integers(i, 1)?;
    let separator = n.attributes.text("separator").to_owned();
    apply(i, n, ReduceJoin { axes, keep_dims: n.attributes.flag("keep_dims"), separator }, 1)
}

/// Cut at each character of the delimiter.
pub(super) fn split_at_any(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (x, delimiter) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    let any_of = Some(AnyOf { skip_empty: n.attributes.flag("skip_empty") });
    let outputs = i.b.push_many(StringSplit { most: -1, any_of }, &[x, delimiter], 3);
    Ok(outputs.into_iter().map(Value::Tensor).collect())
}

pub(super) fn split(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (x, separator) = (n.tensor(i, 0)?, n.tensor(i, 1)?);
    let outputs =
        i.b.push_many(StringSplit { most: n.attributes.int("maxsplit"), any_of: None }, &[x, separator], 3);
    Ok(outputs.into_iter().map(Value::Tensor).collect())
}
