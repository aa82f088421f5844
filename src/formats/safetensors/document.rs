//! `model.json` as data. docs/FORMAT.md describes every member.

use crate::tensor::DType;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fmt, marker::PhantomData};

/// The only value of `format` so far.
pub(super) const FORMAT: &str = "kinglet/1";

/// The whole file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) format: String,
    /// Tensors that are the initial values of the variables, in the order of their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) variables: Vec<String>,
    #[serde(default, skip_serializing_if = "Unique::is_empty")]
    pub(super) constants: Unique<ConstantDocument>,
    /// Tensors of the weights file that are stored as matrix products read them.
    #[serde(default, skip_serializing_if = "Unique::is_empty")]
    pub(super) panels: Unique<PanelsDocument>,
    /// Bodies of branches and loops, by the names that `If`, `While`, `Loop` and `Scan` call them by.
    #[serde(default, skip_serializing_if = "Unique::is_empty")]
    pub(super) graphs: Unique<GraphDocument>,
    pub(super) signatures: Unique<SignatureDocument>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignatureDocument {
    #[serde(default = "predict_method")]
    pub(super) method: String,
    /// False for one that metadata calls show and nobody can call; it has no nodes.
    #[serde(default = "callable", skip_serializing_if = "Clone::clone")]
    pub(super) callable: bool,
    pub(super) inputs: Unique<InputDocument>,
    pub(super) outputs: Unique<OutputDocument>,
    #[serde(default)]
    pub(super) nodes: Vec<NodeDocument>,
}

fn predict_method() -> String {
    "tensorflow/serving/predict".into()
}

fn callable() -> bool {
    true
}

/// A body: inputs and outputs go by their place.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GraphDocument {
    #[serde(default)]
    pub(super) inputs: Vec<GraphInputDocument>,
    /// Names of values.
    pub(super) outputs: Vec<String>,
    #[serde(default)]
    pub(super) nodes: Vec<NodeDocument>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GraphInputDocument {
    pub(super) name: String,
    pub(super) dtype: DType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) shape: Option<Vec<Option<usize>>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputDocument {
    /// Left out for an input that only metadata calls show and whose type kinglet has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) dtype: Option<DType>,
    /// What metadata calls show instead of `dtype`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) declared_dtype: Option<DType>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) shape: Option<Vec<Option<usize>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tensor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) default: Option<ConstantDocument>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputDocument {
    pub(super) dtype: Option<DType>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) shape: Option<Vec<Option<usize>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tensor: Option<String>,
    /// The value that it is, where that is not named like the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NodeDocument {
    pub(super) op: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    #[serde(flatten)]
    pub(super) attributes: Map<String, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConstantDocument {
    pub(super) dtype: DType,
    /// Left out where the nesting of `data` tells it, which it does unless a dimension is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) shape: Option<Vec<usize>>,
    pub(super) data: Value,
}

/// A tensor of `lanes * vectors` columns side by side.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PanelsDocument {
    /// Of the tensor in its own order.
    pub(super) shape: Vec<usize>,
    pub(super) lanes: usize,
    pub(super) vectors: usize,
    /// The tensor is `[n, k]`, the matrix `[k, n]`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) transposed: bool,
}

/// An object by key. JSON leaves open what a repeated key means; here it is an error.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Unique<T>(pub(super) BTreeMap<String, T>);

impl<T> Default for Unique<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Unique<T> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = Unique<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut members: A) -> Result<Unique<T>, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((key, value)) = members.next_entry::<String, T>()? {
                    if map.contains_key(&key) {
                        return Err(de::Error::custom(format!("\"{key}\" is there twice")));
                    }
                    map.insert(key, value);
                }
                Ok(Unique(map))
            }
        }
        deserializer.deserialize_map(Visitor(PhantomData))
    }
}
