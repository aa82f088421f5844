//! The encoder (Devlin et al., 2018): embeddings, then layers of self-attention and a dense block, each with a
//! residual and a normalisation after it.

use super::{config::Config, weights::Weights};
use crate::{
    formats::FormatError,
    graph::{Builder, ValueId},
    kernels::{self, Binary as B},
    ops::{
        Fused,
        attention::Attention,
        binary::Binary,
        cast::Cast,
        gather::Gather,
        generate::Range,
        matmul::MatMul,
        norm::LayerNorm,
        shape::{ExpandDims, Reshape, ShapeOf},
        unary::Unary,
    },
    tensor::{DType, Tensor},
};

/// Weight `[out, in]` and bias `[out]` of a dense layer.
struct Dense {
    name: String,
    weight: Tensor,
    bias: Tensor,
}

/// Scale and shift of a normalisation.
struct Norm {
    scale: Tensor,
    shift: Tensor,
}

struct Layer {
    query: Dense,
    key: Dense,
    value: Dense,
    attended: Dense,
    attended_norm: Norm,
    intermediate: Dense,
    output: Dense,
    output_norm: Norm,
}

/// The weights of an encoder, each with the shape that the configuration implies.
pub(super) struct Bert {
    config: Config,
    words: Tensor,
    positions: Tensor,
    types: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    pooler: Option<Dense>,
}

impl Bert {
    /// Fails with the name of the first tensor that is missing or of another shape.
    pub(super) fn new(config: &Config, weights: &Weights) -> Result<Self, FormatError> {
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        let dense = |name: &str, out: usize, inputs: usize| {
            let weight = weights.get(&format!("{name}.weight"), &[out, inputs])?;
            Ok::<_, FormatError>(Dense {
                name: name.to_owned(),
                weight,
                bias: weights.get(&format!("{name}.bias"), &[out])?,
            })
        };
        let norm = |name: &str| {
            let scale = weights.get(&format!("{name}.weight"), &[hidden])?;
            Ok::<_, FormatError>(Norm { scale, shift: weights.get(&format!("{name}.bias"), &[hidden])? })
        };
        let embedding =
            |name: &str, rows: usize| weights.get(&format!("embeddings.{name}.weight"), &[rows, hidden]);
        let layer = |index: usize| {
            let at = format!("encoder.layer.{index}");
            Ok::<_, FormatError>(Layer {
                query: dense(&format!("{at}.attention.self.query"), hidden, hidden)?,
                key: dense(&format!("{at}.attention.self.key"), hidden, hidden)?,
                value: dense(&format!("{at}.attention.self.value"), hidden, hidden)?,
                attended: dense(&format!("{at}.attention.output.dense"), hidden, hidden)?,
                attended_norm: norm(&format!("{at}.attention.output.LayerNorm"))?,
                intermediate: dense(&format!("{at}.intermediate.dense"), intermediate, hidden)?,
                output: dense(&format!("{at}.output.dense"), hidden, intermediate)?,
                output_norm: norm(&format!("{at}.output.LayerNorm"))?,
            })
        };
        let pooler = weights.has("pooler.dense.weight").then(|| dense("pooler.dense", hidden, hidden));
        Ok(Self {
            words: embedding("word_embeddings", config.vocabulary)?,
            positions: embedding("position_embeddings", config.positions)?,
            types: embedding("token_type_embeddings", config.types)?,
            norm: norm("embeddings.LayerNorm")?,
            layers: (0..config.layers).map(layer).collect::<Result<_, _>>()?,
            pooler: pooler.transpose()?,
            config: config.clone(),
        })
    }

    /// Length of a hidden state.
    pub(super) fn hidden(&self) -> usize {
        self.config.hidden
    }

    /// Bytes of the weights.
    pub(super) fn weight_bytes(&self) -> usize {
        let embeddings = [&self.words, &self.positions, &self.types, &self.norm.scale, &self.norm.shift];
        let dense = |dense: &Dense| dense.weight.memory() + dense.bias.memory();
        let norm = |norm: &Norm| norm.scale.memory() + norm.shift.memory();
        let layer = |layer: &Layer| {
            let all =
                [&layer.query, &layer.key, &layer.value, &layer.attended, &layer.intermediate, &layer.output];
            let norms = norm(&layer.attended_norm) + norm(&layer.output_norm);
            all.into_iter().map(dense).sum::<usize>() + norms
        };
        let embeddings: usize = embeddings.into_iter().map(Tensor::memory).sum();
        embeddings + self.layers.iter().map(layer).sum::<usize>() + self.pooler.as_ref().map_or(0, dense)
    }

    /// Hidden states `[batch, tokens, hidden]` of ids, mask (0 hides a token) and types, `I64` `[batch, tokens]`.
    pub(super) fn encode(&self, b: &mut Builder, ids: ValueId, mask: ValueId, types: ValueId) -> ValueId {
        b.set_scope("embeddings");
        let mut hidden = self.embed(b, ids, types);
        let hides = hidden_tokens(b, mask);
        for (index, layer) in self.layers.iter().enumerate() {
            let attended = self.attend(b, layer, hidden, hides);
            b.set_scope(format!("encoder.layer.{index}.attention.output.LayerNorm"));
            hidden = self.normalise(b, &layer.attended_norm, attended);
            let wide = dense(b, &layer.intermediate, hidden, None);
            let wide = b.push(Unary(self.config.activation), &[wide]);
            let narrow = dense(b, &layer.output, wide, Some(hidden));
            b.set_scope(format!("encoder.layer.{index}.output.LayerNorm"));
            hidden = self.normalise(b, &layer.output_norm, narrow);
        }
        hidden
    }

    /// What BERT's own head makes of the first token's state, where the file has its weights.
    pub(super) fn pool(&self, b: &mut Builder, hidden: ValueId) -> Option<ValueId> {
        let pooler = self.pooler.as_ref()?;
        b.set_scope(pooler.name.as_str());
        let first = first_token(b, hidden);
        let y = dense(b, pooler, first, None);
        Some(b.push(Unary(kernels::Unary::Tanh), &[y]))
    }

    fn embed(&self, b: &mut Builder, ids: ValueId, types: ValueId) -> ValueId {
        let rows = Gather { axis: 0, batch_dims: 0, negative: false };
        let mut look_up = |table: &Tensor, indices: ValueId| {
            let table = b.constant(table.clone());
            b.push(rows.clone(), &[table, indices])
        };
        let words = look_up(&self.words, ids);
        let kinds = look_up(&self.types, types);
        let shape = b.push(ShapeOf { dtype: DType::I64 }, &[ids]);
        let [zero, one] = [0i64, 1].map(|value| b.constant(Tensor::scalar(value)));
        let tokens = b.push(rows.clone(), &[shape, one]);
        let places = b.push(Range, &[zero, tokens, one]);
        let positions = b.constant(self.positions.clone());
        let positions = b.push(rows, &[positions, places]);
        let sum = b.push(Binary(B::Add), &[words, kinds]);
        let sum = b.push(Binary(B::Add), &[sum, positions]);
        self.normalise(b, &self.norm, sum)
    }

    fn attend(&self, b: &mut Builder, layer: &Layer, hidden: ValueId, hides: ValueId) -> ValueId {
        let (heads, depth) = (self.config.heads, self.config.hidden / self.config.heads);
        let split = b.integers(&[0, 0, heads as i64, depth as i64]);
        let join = b.integers(&[0, 0, self.config.hidden as i64]);
        let mut project = |weights: &Dense| {
            let y = dense(b, weights, hidden, None);
            b.push(Reshape { zero_copies: true }, &[y, split])
        };
        let [q, k, v] = [&layer.query, &layer.key, &layer.value].map(&mut project);
        let scale = 1.0 / (depth as f32).sqrt();
        let attention = Attention { scale, mask: true, rows_first: [true; 4], ..Attention::default() };
        let mixed = b.push(attention, &[q, k, v, hides]);
        let mixed = b.push(Reshape { zero_copies: true }, &[mixed, join]);
        dense(b, &layer.attended, mixed, Some(hidden))
    }

    fn normalise(&self, b: &mut Builder, norm: &Norm, x: ValueId) -> ValueId {
        let [scale, shift] = [&norm.scale, &norm.shift].map(|tensor| b.constant(tensor.clone()));
        let op = LayerNorm { axis: -1, epsilon: self.config.epsilon, center: true };
        b.push(op, &[x, scale, shift])
    }
}

/// The state of each row's first token, `[batch, hidden]`.
pub(super) fn first_token(b: &mut Builder, hidden: ValueId) -> ValueId {
    let first = b.constant(Tensor::scalar(0i64));
    b.push(Gather { axis: 1, batch_dims: 0, negative: false }, &[hidden, first])
}

/// What is added to scores: 0, or the least `float` where the mask is 0; `[batch, 1, 1, tokens]`.
fn hidden_tokens(b: &mut Builder, mask: ValueId) -> ValueId {
    let mask = b.push(Cast { to: DType::F32 }, &[mask]);
    let (one, least) = (b.scalar(1.0), b.scalar(f32::MIN));
    let hides = b.push(Binary(B::Sub), &[one, mask]);
    let hides = b.push(Binary(B::Mul), &[hides, least]);
    b.push(ExpandDims { axes: vec![1, 2] }, &[hides])
}

/// `x weight^T + bias (+ residual)`
fn dense(b: &mut Builder, layer: &Dense, x: ValueId, residual: Option<ValueId>) -> ValueId {
    b.set_scope(layer.name.as_str());
    let [weight, bias] = [&layer.weight, &layer.bias].map(|tensor| b.constant(tensor.clone()));
    let fused = Fused { bias: true, residual: residual.is_some(), ..Fused::default() };
    let inputs: Vec<ValueId> = [x, weight, bias].into_iter().chain(residual).collect();
    b.push(MatMul { transpose_a: false, transpose_b: true, fused }, &inputs)
}
