//! Parsing of `tf.Example` messages. The three operators differ in where the keys stand.

use super::Outputs;
use crate::{
    formats::saved_model::{
        import::{Import, Node, Stop, Value},
        tensor_proto::{dtype_of, partial_shape},
    },
    graph::ValueId,
    ops::example::{DenseFeature, ParseExample, RaggedFeature, SparseFeature},
    tensor::{DType, Tensor},
};

/// Features of one node; more would be no parser but an attack.
const MAX_FEATURES: usize = 1 << 16;

/// Inputs: serialized, names, one key per sparse feature, one per dense feature, dense defaults.
pub(super) fn parse(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (sparse, dense) = (count(n, "Nsparse")?, count(n, "Ndense")?);
    let mut key = |index: usize| match keys(i, n, index)?.as_slice() {
        [key] => Ok(key.clone()),
        _ => Err(Stop::from(format!("input {index} is not one key"))),
    };
    let sparse_keys = (2..2 + sparse).map(&mut key).collect::<Result<Vec<_>, _>>()?;
    let first_default = 2 + sparse + dense;
    let dense_keys = (2 + sparse..first_default).map(&mut key).collect::<Result<Vec<_>, _>>()?;
    features(i, n, sparse_keys, dense_keys, Vec::new(), Some(1), first_default)
}

/// Inputs: serialized, names, three vectors of keys, dense defaults.
pub(super) fn parse_v2(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let (sparse, dense, ragged) = (keys(i, n, 2)?, keys(i, n, 3)?, keys(i, n, 4)?);
    features(i, n, sparse, dense, ragged, Some(1), 5)
}

/// Inputs: one serialized example, dense defaults; keys are attributes.
pub(super) fn parse_single(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let list = |name: &str| {
        let list = n.attributes.list(name).map(|list| list.s.as_slice()).unwrap_or_default();
        list.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
    };
    features(i, n, list("sparse_keys"), list("dense_keys"), Vec::new(), None, 1)
}

fn features(
    i: &mut Import<'_, '_>,
    n: &Node<'_>,
    sparse_keys: Vec<String>,
    dense_keys: Vec<String>,
    ragged_keys: Vec<String>,
    names: Option<usize>,
    first_default: usize,
) -> Outputs {
    let sparse_types = types(n, "sparse_types", sparse_keys.len())?;
    let dense_types = types(n, "Tdense", dense_keys.len())?;
    let ragged_types = types(n, "ragged_value_types", ragged_keys.len())?;
    let split_types = types(n, "ragged_split_types", ragged_keys.len())?;
    let shapes = n.attributes.list("dense_shapes").map(|list| list.shape.as_slice()).unwrap_or_default();
    if shapes.len() != dense_keys.len() {
        return Err("there are not as many dense_shapes as dense keys".into());
    }
    let dense = dense_keys.into_iter().zip(dense_types).zip(shapes).map(|((key, dtype), shape)| {
        let shape = partial_shape(shape).ok_or("a dense feature has an unknown rank")?;
        Ok(DenseFeature { key: key.into(), dtype, shape })
    });
    let op = ParseExample {
        sparse: sparse_keys
            .into_iter()
            .zip(sparse_types)
            .map(|(key, dtype)| Ok(SparseFeature { key: key.into(), dtype }))
            .collect::<Result<_, Stop>>()?,
        dense: dense.collect::<Result<_, Stop>>()?,
        ragged: ragged_keys
            .into_iter()
            .zip(ragged_types)
            .zip(split_types)
            .map(|((key, dtype), splits)| Ok(RaggedFeature { key: key.into(), dtype, splits }))
            .collect::<Result<_, Stop>>()?,
    };
    let serialized = n.tensor(i, 0)?;
    let names = match names {
        Some(index) => n.tensor(i, index)?,
        None => i.b.constant(Tensor::empty(DType::String)),
    };
    let mut inputs: Vec<ValueId> = vec![serialized, names];
    for index in 0..op.dense.len() {
        inputs.push(n.tensor(i, first_default + index)?);
    }
    let outputs = 3 * op.sparse.len() + op.dense.len() + 2 * op.ragged.len();
    let outputs = i.b.push_many(op, &inputs, outputs);
    Ok(outputs.into_iter().map(Value::Tensor).collect())
}

fn count(n: &Node<'_>, attribute: &str) -> Result<usize, Stop> {
    let count = usize::try_from(n.attributes.int(attribute)).ok().filter(|&count| count <= MAX_FEATURES);
    count.ok_or_else(|| format!("attribute {attribute} is out of range").into())
}

fn keys(i: &mut Import<'_, '_>, n: &Node<'_>, index: usize) -> Result<Vec<String>, Stop> {
    n.strings(i, index)
}

fn types(n: &Node<'_>, attribute: &str, expected: usize) -> Result<Vec<DType>, Stop> {
    let tags = n.attributes.list(attribute).map(|list| list.r#type.as_slice()).unwrap_or_default();
    if tags.len() != expected {
        return Err(format!("attribute {attribute} has {} types, expected {expected}", tags.len()).into());
    }
    let dtype =
        |&tag: &i32| dtype_of(tag).ok_or_else(|| format!("element type {tag} is not supported").into());
    tags.iter().map(dtype).collect()
}
