//! From the states of tokens to the vector of a sentence, as the files of sentence-transformers say.

use super::{bert::first_token, config::Json};
use crate::{
    formats::FormatError,
    graph::{Builder, ValueId},
    kernels::{Binary as B, Reduce as R},
    ops::{binary::Binary, cast::Cast, reduce::Reduce, shape::ExpandDims},
    tensor::DType,
};
use std::path::Path;

/// Where the way of pooling is said.
const POOLING_FILE: &str = "1_Pooling/config.json";
/// Where the modules after the encoder are listed.
const MODULES_FILE: &str = "modules.json";

/// How states become one vector. It is then scaled to length 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pooling {
    /// The mean of those that the mask shows.
    Mean,
    /// The first token's.
    First,
}

impl Pooling {
    /// The mean, where no file says otherwise.
    pub(super) fn read(folder: &Path) -> Result<Self, FormatError> {
        if let Some(modules) = Json::read_if_there(&folder.join(MODULES_FILE))? {
            let kinds =
                modules.value.as_array().into_iter().flatten().filter_map(|module| module["type"].as_str());
            let known = ["Transformer", "Pooling", "Normalize"];
            if let Some(other) = kinds.map(last_part).find(|kind| !known.contains(kind)) {
                return Err(modules.unsupported(format!(
                    "the module \"{other}\" is not supported; those known are {}",
                    known.join(", ")
                )));
            }
        }
        let Some(json) = Json::read_if_there(&folder.join(POOLING_FILE))? else { return Ok(Self::Mean) };
        let modes = json.value.as_object().into_iter().flatten();
        let chosen: Vec<&str> = modes
            .filter(|(key, value)| key.starts_with("pooling_mode_") && value.as_bool() == Some(true))
            .map(|(key, _)| key.as_str())
            .chain(json.text("pooling_mode"))
            .collect();
        match chosen.as_slice() {
            ["pooling_mode_mean_tokens" | "mean"] => Ok(Self::Mean),
            ["pooling_mode_cls_token" | "cls"] => Ok(Self::First),
            other => Err(json.unsupported(format!(
                "pooling by [{}] is not supported; by the mean or by the first token is",
                other.join(", ")
            ))),
        }
    }

    /// `[batch, hidden]` of length 1 from `[batch, tokens, hidden]` and the mask.
    pub(super) fn sentence(self, b: &mut Builder, hidden: ValueId, mask: ValueId) -> ValueId {
        b.set_scope(match self {
            Self::Mean => "pooling.mean",
            Self::First => "pooling.first",
        });
        let pooled = match self {
            Self::First => first_token(b, hidden),
            Self::Mean => {
                let mask = b.push(Cast { to: DType::F32 }, &[mask]);
                let mask = b.push(ExpandDims { axes: vec![2] }, &[mask]);
                let shown = b.push(Binary(B::Mul), &[hidden, mask]);
                let along = |kind, keep_dims| Reduce { kind, axes: Some(vec![1]), keep_dims };
                let sum = b.push(along(R::Sum, false), &[shown]);
                let count = b.push(along(R::Sum, false), &[mask]);
                let least = b.scalar(1e-9);
                let count = b.push(Binary(B::Max), &[count, least]);
                b.push(Binary(B::Div), &[sum, count])
            }
        };
        b.set_scope("normalize");
        let length = b.push(Reduce { kind: R::L2, axes: Some(vec![1]), keep_dims: true }, &[pooled]);
        let least = b.scalar(1e-12);
        let length = b.push(Binary(B::Max), &[length, least]);
        b.push(Binary(B::Div), &[pooled, length])
    }
}

/// The class's name of a dotted path.
fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}
