//! Operators of other domains that exporters and optimisers emit.

use super::{Outputs, Row, attention, convolution, many, math, norm, one, quant, unary};
use crate::{
    formats::onnx::{
        import::Import,
        node::{Node, Stop, Value},
    },
    graph::ValueId,
    kernels::{Binary as B, Compare as C, Reduce as R, Unary as U},
    ops::{
        binary::{Binary, Compare, Select},
        gather::Gather,
        join::{Split, SplitSizes},
        matmul::MatMul,
        norm::LayerNorm,
        reduce::Reduce,
        shape::ExpandDims,
        softmax::Softmax,
        unary::Unary,
    },
    tensor::Tensor,
};

#[rustfmt::skip]
pub(super) const MICROSOFT: &[(&str, Row)] = &[
    ("Gelu", |i, n| unary(i, n, U::Gelu)),
    ("FastGelu", |i, n| biased(i, n, U::GeluTanh)),
    ("BiasGelu", |i, n| biased(i, n, U::Gelu)),
    ("QuickGelu", quick_gelu),
    ("FusedMatMul", quant::fused_mat_mul),
    ("FusedGemm", |i, n| { let y = math::gemm(i, n)?; activated(i, n, y) }),
    ("FusedConv", fused_conv),
    ("LayerNormalization", norm::layer_norm),
    ("SkipLayerNormalization", |i, n| skip_norm(i, n, true)),
    ("SkipSimplifiedLayerNormalization", |i, n| skip_norm(i, n, false)),
    ("SimplifiedLayerNormalization", norm::rms_norm),
    ("EmbedLayerNormalization", embed_norm),
    ("Attention", self_attention),
    ("QuantizeLinear", quant::quantize),
    ("DequantizeLinear", quant::dequantize),
    ("DynamicQuantizeMatMul", quant::dynamic_quantize_mat_mul),
    ("MatMulIntegerToFloat", quant::mat_mul_integer_to_float),
    ("QGemm", quant::q_gemm),
    ("QLinearConcat", quant::q_concat),
    ("QLinearAdd", |i, n| quant::q_linear(i, n, 2, |i, x| Ok(i.b.push(Binary(B::Add), x)))),
    ("QLinearMul", |i, n| quant::q_linear(i, n, 2, |i, x| Ok(i.b.push(Binary(B::Mul), x)))),
    ("QLinearSigmoid", |i, n| quant::q_linear(i, n, 1, |i, x| Ok(i.b.push(Unary(U::Sigmoid), x)))),
    ("QLinearLeakyRelu", |i, n| quant::q_linear(i, n, 1, |i, x| Ok(i.b.push(Unary(U::LeakyRelu(n.attributes.float("alpha", 0.01))), x)))),
    ("QLinearGlobalAveragePool", q_global_pool),
];

/// The function of the input plus an optional bias.
fn biased<'a>(i: &mut Import<'a>, n: &Node<'a>, function: U) -> Outputs {
    let x = n.tensor(0)?;
    let x = match n.optional(1)? {
        Some(bias) => i.b.push(Binary(B::Add), &[x, bias]),
        None => x,
    };
    one(i.b.push(Unary(function), &[x]))
}

/// `x * sigmoid(1.702 x)`
fn quick_gelu<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    let scaled = math::scaled(i, x, n.attributes.float("alpha", 1.702));
    let gate = i.b.push(Unary(U::Sigmoid), &[scaled]);
    one(i.b.push(Binary(B::Mul), &[x, gate]))
}

/// The function that the node names applied to its only output.
fn activated<'a>(i: &mut Import<'a>, n: &Node<'a>, outputs: Vec<Value>) -> Outputs {
    let [Value::Tensor(y)] = outputs.as_slice() else { return Ok(outputs) };
    let parameters = n.attributes.floats("activation_params");
    let parameter = |at: usize, name: &str, default: f32| {
        parameters.get(at).copied().unwrap_or(n.attributes.float(name, default))
    };
    let function = match n.attributes.text("activation", "") {
        "" => return Ok(outputs),
        "Relu" => U::Relu,
        "Sigmoid" => U::Sigmoid,
        "Tanh" => U::Tanh,
        "LeakyRelu" => U::LeakyRelu(parameter(0, "activation_alpha", 0.01)),
        "HardSigmoid" => U::HardSigmoid {
            alpha: parameter(0, "activation_alpha", 0.2),
            beta: parameter(1, "activation_beta", 0.5),
        },
        "Clip" => {
            let (min, max) = (parameter(0, "", f32::NEG_INFINITY), parameter(1, "", f32::INFINITY));
            U::Clip { min: min.min(max), max }
        }
        other => return Err(format!("activation \"{other}\" is not supported").into()),
    };
    one(i.b.push(Unary(function), &[*y]))
}

fn fused_conv<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let y = convolution::conv(i, n)?;
    if let (Some(residual), [Value::Tensor(y)]) = (n.optional(3)?, y.as_slice()) {
        let sum = one(i.b.push(Binary(B::Add), &[*y, residual]))?;
        return activated(i, n, sum);
    }
    activated(i, n, y)
}

/// Input plus skip (plus bias), normalised. Output 3 is the sum.
fn skip_norm<'a>(i: &mut Import<'a>, n: &Node<'a>, center: bool) -> Outputs {
    if n.has_output(1) || n.has_output(2) {
        return Err("mean and deviation as outputs are not supported".into());
    }
    let (x, skip, scale) = (n.tensor(0)?, n.tensor(1)?, n.tensor(2)?);
    let (shift, bias) = if center { (n.optional(3)?, n.optional(4)?) } else { (None, n.optional(3)?) };
    let mut sum = i.b.push(Binary(B::Add), &[x, skip]);
    if let Some(bias) = bias {
        sum = i.b.push(Binary(B::Add), &[sum, bias]);
    }
    let default = if center { 1e-12 } else { 1e-5 };
    let op = LayerNorm { axis: -1, epsilon: n.attributes.float("epsilon", default), center };
    let inputs: Vec<ValueId> = [sum, scale].into_iter().chain(shift).collect();
    let y = math::in_float(i, op, &inputs);
    many([y, sum, sum, sum])
}

/// Words, positions and segments looked up, added and normalised. Output 1 is the number of words
/// that the mask keeps, output 2 the sum.
fn embed_norm<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    if n.has_output(1) && n.optional(7)?.is_some() {
        return Err("the mask's sums are not supported".into());
    }
    let (words, segments) = (n.tensor(0)?, n.optional(1)?);
    let pick = Gather { axis: 0, batch_dims: 0, negative: true };
    let table = n.tensor(2)?;
    let mut sum = i.b.push(pick.clone(), &[table, words]);
    let table = n.tensor(3)?;
    let places = match n.optional(8)? {
        Some(places) => i.b.push(pick.clone(), &[table, places]),
        None => {
            let places = attention::positions(i, words, 1);
            let picked = i.b.push(pick.clone(), &[table, places]);
            i.b.push(ExpandDims { axes: vec![0] }, &[picked])
        }
    };
    sum = i.b.push(Binary(B::Add), &[sum, places]);
    if let (Some(segments), Some(table)) = (segments, n.optional(4)?) {
        let picked = i.b.push(pick, &[table, segments]);
        sum = i.b.push(Binary(B::Add), &[sum, picked]);
    }
    let (scale, shift) = (n.tensor(5)?, n.tensor(6)?);
    let op = LayerNorm { axis: -1, epsilon: n.attributes.float("epsilon", 1e-12), center: true };
    let y = math::in_float(i, op, &[sum, scale, shift]);
    let none = i.b.constant(Tensor::scalar(0i32));
    many([y, none, sum])
}

/// Projection to queries, keys and values, and attention with a mask of words `[batch, length]`.
fn self_attention<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let (x, weights, bias) = (n.tensor(0)?, n.tensor(1)?, n.optional(2)?);
    if n.optional(4)?.is_some()
        || n.optional(6)?.is_some()
        || n.attributes.flag("do_rotary")
        || n.has_output(1)
    {
        return Err("a past or rotated positions are not supported".into());
    }
    let heads = n.attributes.int("num_heads", 0);
    if heads <= 0 {
        return Err("num_heads is missing".into());
    }
    let mut qkv = i.b.push(MatMul::default(), &[x, weights]);
    if let Some(bias) = bias {
        qkv = i.b.push(Binary(B::Add), &[qkv, bias]);
    }
    let sizes = n.attributes.ints("qkv_hidden_sizes");
    let parts = match sizes {
        Some(sizes) => {
            let sizes = i.b.integers(sizes);
            i.b.push_many(Split { axis: -1, sizes: SplitSizes::Input }, &[qkv, sizes], 3)
        }
        None => i.b.push_many(Split { axis: -1, sizes: SplitSizes::Parts(3) }, &[qkv], 3),
    };
    let width =
        i.dims(weights).and_then(|dims| dims.last().copied().flatten()).ok_or("the weights are open")?;
    let width = sizes.and_then(|sizes| sizes.first().copied()).unwrap_or(width as i64 / 3);
    let [q, k, v] = [parts[0], parts[1], parts[2]].map(|part| attention::heads(i, part, heads));
    let scores = i.b.push(MatMul { transpose_b: true, ..MatMul::default() }, &[q, k]);
    let scale = n.attributes.float("scale", 0.0);
    let scale = if scale == 0.0 { 1.0 / ((width / heads) as f32).sqrt() } else { scale };
    let mut scores = math::scaled(i, scores, scale);
    if let Some(mask) = n.optional(3)? {
        if i.rank(mask)? != 2 {
            return Err("only masks of words are supported".into());
        }
        let zero = i.b.constant(Tensor::scalar(0i32));
        let hidden = i.b.push(Compare(C::Equal), &[mask, zero]);
        let hidden = i.b.push(ExpandDims { axes: vec![1, 2] }, &[hidden]);
        let (zero, low) = (i.b.scalar(0.0), i.b.scalar(n.attributes.float("mask_filter_value", -10000.0)));
        let added = i.b.push(Select, &[hidden, low, zero]);
        scores = i.b.push(Binary(B::Add), &[scores, added]);
    }
    if n.attributes.flag("unidirectional") {
        return Err("unidirectional attention is not supported".into());
    }
    if let Some(bias) = n.optional(5)? {
        scores = i.b.push(Binary(B::Add), &[scores, bias]);
    }
    let probabilities = i.b.push(Softmax { axis: -1, log: false }, &[scores]);
    let y = i.b.push(MatMul::default(), &[probabilities, v]);
    one(attention::joined_heads(i, y))
}

/// The mean over the space of dequantised images.
fn q_global_pool<'a>(i: &mut Import<'a>, n: &Node<'a>) -> Outputs {
    let x = n.tensor(0)?;
    let rank = i.rank(x)? as i64;
    let axes: Vec<i64> =
        if n.attributes.flag("channels_last") { (1..rank - 1).collect() } else { (2..rank).collect() };
    quant::q_linear(i, n, 1, |i, x| {
        Ok::<_, Stop>(i.b.push(Reduce { kind: R::Mean, axes: Some(axes), keep_dims: true }, x))
    })
}
