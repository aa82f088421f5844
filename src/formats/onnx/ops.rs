//! ONNX's operators as a table: each row turns one node into operators of kinglet.
//!
//! A row states what the operator means in every version of the operator set; what needs more than a
//! line stands in the files beside this one.

mod arrays;
mod attention;
mod contrib;
mod control;
mod convolution;
mod einsum;
mod loss;
mod math;
mod norm;
mod quant;
mod recurrent;
mod reduce;
mod resize;
mod sequence;

use super::{
    import::Import,
    node::{Node, Stop, Value},
};
use crate::{
    graph::ValueId,
    kernels::{Binary as B, Compare as C, Logical as L, Reduce as R, Unary as U},
    ops::{self, Op, pool::PoolKind},
};
use std::{collections::HashMap, sync::LazyLock};

/// The newest version of the standard operator set that is known.
pub(super) const NEWEST: i64 = 28;

/// Imports a node: its outputs, in order.
pub(super) type Row = for<'a> fn(&mut Import<'a>, &Node<'a>) -> Outputs;

/// What a row gives.
pub(super) type Outputs = Result<Vec<Value>, Stop>;

/// The row of an operator.
pub(super) fn row(domain: &str, op: &str) -> Option<Row> {
    static INDEX: LazyLock<HashMap<(&str, &str), Row>> =
        LazyLock::new(|| rows().map(|(domain, name, row)| ((domain, name), row)).collect());
    INDEX.get(&(domain, op)).copied()
}

/// The names of all operators that can be imported.
pub(super) fn names() -> impl Iterator<Item = String> {
    rows()
        .map(|(domain, name, _)| if domain.is_empty() { name.to_owned() } else { format!("{domain}.{name}") })
}

fn rows() -> impl Iterator<Item = (&'static str, &'static str, Row)> {
    let microsoft = contrib::MICROSOFT.iter().map(|&(name, row)| ("com.microsoft", name, row));
    STANDARD.iter().map(|&(name, row)| ("", name, row)).chain(microsoft)
}

#[rustfmt::skip]
const STANDARD: &[(&str, Row)] = &[
    // Constants and names for values.
    ("Constant", arrays::constant),
    ("ConstantOfShape", arrays::constant_of_shape),
    ("Identity", |_, n| Ok(n.inputs.iter().take(1).cloned().collect())),
    ("Dropout", arrays::dropout),
    ("Cast", arrays::cast),
    ("CastLike", arrays::cast_like),

    // Branches and loops.
    ("If", control::branch),
    ("Loop", control::repeat),
    ("Scan", control::scan),

    // Sequences and optional values.
    ("SequenceConstruct", sequence::construct),
    ("SequenceEmpty", sequence::empty),
    ("SequenceAt", sequence::at),
    ("SequenceInsert", sequence::insert),
    ("SequenceErase", sequence::erase),
    ("SequenceLength", sequence::length),
    ("ConcatFromSequence", sequence::concat),
    ("SplitToSequence", sequence::split),
    ("Optional", sequence::optional),
    ("OptionalHasElement", sequence::has_element),
    ("OptionalGetElement", sequence::get_element),

    // Functions of one argument.
    ("Abs", |i, n| unary(i, n, U::Abs)),
    ("Neg", |i, n| unary(i, n, U::Neg)),
    ("Exp", |i, n| unary(i, n, U::Exp)),
    ("Log", |i, n| unary(i, n, U::Log)),
    ("Sqrt", |i, n| unary(i, n, U::Sqrt)),
    ("Reciprocal", |i, n| unary(i, n, U::Reciprocal)),
    ("Sign", |i, n| unary(i, n, U::Sign)),
    ("Floor", |i, n| unary(i, n, U::Floor)),
    ("Ceil", |i, n| unary(i, n, U::Ceil)),
    ("Round", |i, n| unary(i, n, U::Round)),
    ("Sigmoid", |i, n| unary(i, n, U::Sigmoid)),
    ("Tanh", |i, n| unary(i, n, U::Tanh)),
    ("Erf", |i, n| unary(i, n, U::Erf)),
    ("Sin", |i, n| unary(i, n, U::Sin)),
    ("Cos", |i, n| unary(i, n, U::Cos)),
    ("Tan", |i, n| unary(i, n, U::Tan)),
    ("Asin", |i, n| unary(i, n, U::Asin)),
    ("Acos", |i, n| unary(i, n, U::Acos)),
    ("Atan", |i, n| unary(i, n, U::Atan)),
    ("Sinh", |i, n| unary(i, n, U::Sinh)),
    ("Cosh", |i, n| unary(i, n, U::Cosh)),
    ("Asinh", |i, n| unary(i, n, U::Asinh)),
    ("Acosh", |i, n| unary(i, n, U::Acosh)),
    ("Atanh", |i, n| unary(i, n, U::Atanh)),
    ("Relu", |i, n| unary(i, n, U::Relu)),
    ("LeakyRelu", |i, n| unary(i, n, U::LeakyRelu(n.attributes.float("alpha", 0.01)))),
    ("Elu", |i, n| unary(i, n, U::Elu(n.attributes.float("alpha", 1.0)))),
    ("Celu", |i, n| unary(i, n, U::Celu(n.attributes.float("alpha", 1.0)))),
    ("Selu", math::selu),
    ("Softplus", |i, n| unary(i, n, U::Softplus)),
    ("Softsign", |i, n| unary(i, n, U::Softsign)),
    ("HardSigmoid", |i, n| unary(i, n, U::HardSigmoid { alpha: n.attributes.float("alpha", 0.2), beta: n.attributes.float("beta", 0.5) })),
    ("HardSwish", |i, n| unary(i, n, U::HardSwish)),
    ("Mish", |i, n| unary(i, n, U::Mish)),
    ("ThresholdedRelu", |i, n| unary(i, n, U::ThresholdedRelu(n.attributes.float("alpha", 1.0)))),
    ("Gelu", |i, n| unary(i, n, if n.attributes.text("approximate", "none") == "tanh" { U::GeluTanh } else { U::Gelu })),
    ("Clip", math::clip),
    ("Not", |i, n| apply(i, n, ops::binary::Not, 1)),
    ("Shrink", math::shrink),
    ("Swish", math::swish),
    ("IsNaN", math::is_nan),
    ("IsInf", math::is_inf),
    ("BitwiseNot", math::bitwise_not),
    ("CumSum", |i, n| math::cumulative(i, n, false)),
    ("CumProd", |i, n| math::cumulative(i, n, true)),

    // Functions of two and more arguments, with broadcasting.
    ("Add", |i, n| math::arithmetic(i, n, B::Add)),
    ("Sub", |i, n| math::arithmetic(i, n, B::Sub)),
    ("Mul", |i, n| math::arithmetic(i, n, B::Mul)),
    ("Div", |i, n| math::arithmetic(i, n, B::Div)),
    ("Pow", math::pow),
    ("Mod", |i, n| binary(i, n, if n.attributes.flag("fmod") { B::TruncMod } else { B::FloorMod })),
    ("PRelu", |i, n| binary(i, n, B::Prelu)),
    ("BitwiseAnd", |i, n| binary(i, n, B::BitwiseAnd)),
    ("BitwiseOr", |i, n| binary(i, n, B::BitwiseOr)),
    ("BitwiseXor", |i, n| binary(i, n, B::BitwiseXor)),
    ("BitShift", |i, n| binary(i, n, if n.attributes.text("direction", "") == "LEFT" { B::ShiftLeft } else { B::ShiftRight })),
    ("Max", |i, n| math::variadic(i, n, B::Max)),
    ("Min", |i, n| math::variadic(i, n, B::Min)),
    ("Sum", |i, n| math::variadic(i, n, B::Add)),
    ("Mean", math::mean),
    ("Equal", |i, n| math::compare(i, n, C::Equal)),
    ("Less", |i, n| math::compare(i, n, C::Less)),
    ("LessOrEqual", |i, n| math::compare(i, n, C::LessEqual)),
    ("Greater", |i, n| math::compare(i, n, C::Greater)),
    ("GreaterOrEqual", |i, n| math::compare(i, n, C::GreaterEqual)),
    ("And", |i, n| math::logical(i, n, L::And)),
    ("Or", |i, n| math::logical(i, n, L::Or)),
    ("Xor", |i, n| math::logical(i, n, L::Xor)),
    ("Where", |i, n| apply(i, n, ops::binary::Select, 3)),

    // Products and convolutions.
    ("MatMul", math::mat_mul),
    ("Gemm", math::gemm),
    ("Einsum", einsum::einsum),
    ("Conv", convolution::conv),
    ("ConvTranspose", convolution::conv_transpose),
    ("LpPool", |i, n| convolution::lp_pool(i, n, false)),
    ("GlobalLpPool", |i, n| convolution::lp_pool(i, n, true)),
    ("MaxPool", |i, n| convolution::pool(i, n, PoolKind::Max)),
    ("AveragePool", |i, n| convolution::pool(i, n, PoolKind::Average { count_include_pad: n.attributes.flag("count_include_pad") })),
    ("GlobalAveragePool", |i, n| convolution::global_pool(i, n, R::Mean)),
    ("GlobalMaxPool", |i, n| convolution::global_pool(i, n, R::Max)),
    ("Resize", resize::resize),
    ("Upsample", resize::upsample),
    ("GridSample", resize::grid_sample),

    // Normalisations.
    ("BatchNormalization", norm::batch_norm),
    ("InstanceNormalization", norm::instance_norm),
    ("LayerNormalization", norm::layer_norm),
    ("LRN", norm::lrn),
    ("Softmax", |i, n| norm::softmax(i, n, false)),
    ("LogSoftmax", |i, n| norm::softmax(i, n, true)),

    ("RMSNormalization", norm::rms_norm),
    // Not in the standard, but PyTorch exports for ONNX Runtime have it there.
    ("SimplifiedLayerNormalization", norm::rms_norm),
    ("GroupNormalization", norm::group_norm),
    ("LpNormalization", norm::lp_norm),
    ("MeanVarianceNormalization", norm::mean_variance),
    ("Hardmax", norm::hardmax),
    ("NegativeLogLikelihoodLoss", loss::negative_log_likelihood),
    ("SoftmaxCrossEntropyLoss", loss::softmax_cross_entropy),
    ("Attention", attention::attention),
    ("RotaryEmbedding", attention::rotary),

    // Narrow integers.
    ("QuantizeLinear", quant::quantize),
    ("DequantizeLinear", quant::dequantize),
    ("DynamicQuantizeLinear", quant::dynamic_quantize),
    ("MatMulInteger", quant::mat_mul_integer),
    ("ConvInteger", quant::conv_integer),
    ("QLinearMatMul", quant::q_linear_mat_mul),
    ("QLinearConv", quant::q_linear_conv),

    // Recurrent layers.
    ("LSTM", recurrent::lstm),
    ("GRU", recurrent::gru),
    ("RNN", recurrent::rnn),

    // Reductions.
    ("ReduceSum", |i, n| reduce::reduce(i, n, R::Sum)),
    ("ReduceMean", |i, n| reduce::reduce(i, n, R::Mean)),
    ("ReduceMax", |i, n| reduce::reduce(i, n, R::Max)),
    ("ReduceMin", |i, n| reduce::reduce(i, n, R::Min)),
    ("ReduceProd", |i, n| reduce::reduce(i, n, R::Prod)),
    ("ReduceSumSquare", |i, n| reduce::reduce(i, n, R::SumSquare)),
    ("ReduceL1", |i, n| reduce::reduce(i, n, R::L1)),
    ("ReduceL2", |i, n| reduce::reduce(i, n, R::L2)),
    ("ReduceLogSum", |i, n| reduce::reduce(i, n, R::LogSum)),
    ("ReduceLogSumExp", |i, n| reduce::reduce(i, n, R::LogSumExp)),
    ("ArgMax", |i, n| reduce::arg_reduce(i, n, true)),
    ("ArgMin", |i, n| reduce::arg_reduce(i, n, false)),

    // Shapes.
    ("Shape", arrays::shape_of),
    ("Size", |i, n| apply(i, n, ops::generate::Size { dtype: crate::tensor::DType::I64 }, 1)),
    ("Reshape", arrays::reshape),
    ("Flatten", arrays::flatten),
    ("Squeeze", arrays::squeeze),
    ("Unsqueeze", arrays::unsqueeze),
    ("Expand", |i, n| apply(i, n, ops::join::BroadcastTo { bidirectional: true }, 2)),

    // Moving elements.
    ("Transpose", arrays::transpose),
    ("Concat", arrays::concat),
    ("Split", arrays::split),
    ("Slice", arrays::slice),
    ("Tile", |i, n| apply(i, n, ops::join::Tile, 2)),
    ("Pad", arrays::pad),
    ("Gather", |i, n| apply(i, n, ops::gather::Gather { axis: n.attributes.int("axis", 0), batch_dims: 0, negative: true }, 2)),
    ("GatherElements", |i, n| apply(i, n, ops::gather::GatherElements { axis: n.attributes.int("axis", 0) }, 2)),
    ("GatherND", arrays::gather_nd),
    ("Scatter", arrays::scatter_elements),
    ("ScatterElements", arrays::scatter_elements),
    ("ScatterND", arrays::scatter_nd),
    ("OneHot", arrays::one_hot),
    ("NonZero", |i, n| apply(i, n, ops::generate::NonZero { columns: true }, 1)),
    ("TopK", arrays::top_k),
    ("Range", |i, n| apply(i, n, ops::generate::Range, 3)),
    ("EyeLike", arrays::eye_like),
    ("Trilu", arrays::trilu),
    ("ReverseSequence", arrays::reverse_sequence),
    ("DepthToSpace", arrays::depth_to_space),
    ("SpaceToDepth", arrays::space_to_depth),
    ("Compress", arrays::compress),
    ("Unique", arrays::unique),
    ("CenterCropPad", arrays::center_crop_pad),
    ("StringConcat", arrays::string_concat),
    ("RegexFullMatch", arrays::regex_full_match),
    ("NonMaxSuppression", arrays::non_max_suppression),
];

/// One output.
fn one(value: ValueId) -> Outputs {
    Ok(vec![Value::Tensor(value)])
}

/// Several outputs.
fn many(values: impl IntoIterator<Item = ValueId>) -> Outputs {
    Ok(values.into_iter().map(Value::Tensor).collect())
}

/// An operator of the node's first `inputs` inputs, with one output.
fn apply<'a>(i: &mut Import<'a>, n: &Node<'a>, op: impl Into<Op>, inputs: usize) -> Outputs {
    let inputs = (0..inputs).map(|index| n.tensor(index)).collect::<Result<Vec<_>, _>>()?;
    one(i.b.push(op, &inputs))
}

fn unary<'a>(i: &mut Import<'a>, n: &Node<'a>, function: U) -> Outputs {
    apply(i, n, ops::unary::Unary(function), 1)
}

fn binary<'a>(i: &mut Import<'a>, n: &Node<'a>, function: B) -> Outputs {
    apply(i, n, ops::binary::Binary(function), 2)
}
