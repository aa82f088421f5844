//! TensorFlow's operators as a table: each row turns one node into operators of kinglet.
//!
//! A row states what the operator means; attributes that exports strip come from
//! [`super::node::Attributes`]. What needs more than a line stands in the files beside this one.

mod arrays;
mod convolution;
mod einsum;
mod example;
mod state;

use super::import::{Import, Node, Stop, Value};
use crate::{
    graph::ValueId,
    kernels::{Binary as B, Compare as C, Logical as L, Reduce as R, Unary as U},
    ops::{self, Fused, Op, pad::PadMode, pool::PoolKind, scatter::Reduction},
    tensor::DType,
};
use std::{collections::HashMap, sync::LazyLock};

/// Imports a node: its outputs, in order.
pub(super) type Row = fn(&mut Import<'_, '_>, &Node<'_>) -> Outputs;

/// What a row gives.
pub(super) type Outputs = Result<Vec<Value>, Stop>;

/// The row of an operator.
pub(super) fn row(op: &str) -> Option<Row> {
    static INDEX: LazyLock<HashMap<&str, Row>> = LazyLock::new(|| ROWS.iter().copied().collect());
    INDEX.get(op).copied()
}

/// The names of all operators that can be imported.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|(name, _)| *name)
}

/// True when a node must be imported even if no output of it is used.
pub(super) fn has_effect(op: &str, has_state: bool) -> bool {
    match op {
        // The order of reads and assignments counts once something is assigned.
        "ReadVariableOp" => has_state,
        _ => EFFECTS.contains(&op),
    }
}

/// True when a node stands for order only, so that what it reads is not needed.
pub(super) fn is_ignored(op: &str) -> bool {
    IGNORED.contains(&op)
}

const EFFECTS: &[&str] = &[
    "Assign",
    "AssignAdd",
    "AssignSub",
    "AssignVariableOp",
    "AssignAddVariableOp",
    "AssignSubVariableOp",
    "InitializeTable",
    "InitializeTableV2",
    "InitializeTableFromTextFile",
    "InitializeTableFromTextFileV2",
    "LookupTableImport",
    "LookupTableImportV2",
];

/// Operators without outputs that a served model needs; assertions are not checked.
const IGNORED: &[&str] = &["Assert", "NoOp", "PrintV2"];

#[rustfmt::skip]
const ROWS: &[(&str, Row)] = &[
    // Constants, names for values, order.
    ("Const", state::constant),
    ("Placeholder", |_, _| Err("the signature does not feed this placeholder".into())),
    ("PlaceholderWithDefault", |i, n| pass(i, n, 0)),
    ("PlaceholderV2", |_, _| Err("the signature does not feed this placeholder".into())),
    ("Identity", state::identity),
    ("IdentityN", |_, n| Ok(n.inputs.clone())),
    ("ReadVariableOp", |i, n| pass(i, n, 0)),
    ("StopGradient", |i, n| pass(i, n, 0)),
    ("PreventGradient", |i, n| pass(i, n, 0)),
    ("CheckNumerics", |i, n| pass(i, n, 0)),
    ("Snapshot", |i, n| pass(i, n, 0)),
    ("Print", |i, n| pass(i, n, 0)),
    ("EnsureShape", |i, n| pass(i, n, 0)),
    ("DisableCopyOnRead", |_, _| Ok(Vec::new())),
    ("NoOp", |_, _| Ok(Vec::new())),
    ("Assert", |_, _| Ok(Vec::new())),
    ("PrintV2", |_, _| Ok(Vec::new())),

    // Variables.
    ("VarHandleOp", state::variable),
    ("Variable", state::variable),
    ("VariableV2", state::variable),
    ("VarIsInitializedOp", state::is_initialized),
    ("RestoreV2", state::restore),
    ("Assign", |i, n| state::assign(i, n, state::Assignment::Set)),
    ("AssignAdd", |i, n| state::assign(i, n, state::Assignment::Add)),
    ("AssignSub", |i, n| state::assign(i, n, state::Assignment::Sub)),
    ("AssignVariableOp", |i, n| state::assign(i, n, state::Assignment::Set)),
    ("AssignAddVariableOp", |i, n| state::assign(i, n, state::Assignment::Add)),
    ("AssignSubVariableOp", |i, n| state::assign(i, n, state::Assignment::Sub)),

    // Functions of one argument.
    ("Abs", |i, n| unary(i, n, U::Abs)),
    ("Neg", |i, n| unary(i, n, U::Neg)),
    ("Exp", |i, n| unary(i, n, U::Exp)),
    ("Expm1", |i, n| unary(i, n, U::Expm1)),
    ("Log", |i, n| unary(i, n, U::Log)),
    ("Log1p", |i, n| unary(i, n, U::Log1p)),
    ("Sqrt", |i, n| unary(i, n, U::Sqrt)),
    ("Rsqrt", |i, n| unary(i, n, U::Rsqrt)),
    ("Square", |i, n| unary(i, n, U::Square)),
    ("Reciprocal", |i, n| unary(i, n, U::Reciprocal)),
    ("Inv", |i, n| unary(i, n, U::Reciprocal)),
    ("Sign", |i, n| unary(i, n, U::Sign)),
    ("Floor", |i, n| unary(i, n, U::Floor)),
    ("Ceil", |i, n| unary(i, n, U::Ceil)),
    ("Round", |i, n| unary(i, n, U::Round)),
    ("Rint", |i, n| unary(i, n, U::Round)),
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
    ("Relu6", |i, n| unary(i, n, U::Relu6)),
    ("Elu", |i, n| unary(i, n, U::Elu(1.0))),
    ("Selu", |i, n| unary(i, n, U::Selu)),
    ("Softplus", |i, n| unary(i, n, U::Softplus)),
    ("Softsign", |i, n| unary(i, n, U::Softsign)),
    ("LeakyRelu", |i, n| unary(i, n, U::LeakyRelu(n.attributes.float("alpha")))),
    ("LogicalNot", |i, n| apply(i, n, ops::binary::Not, 1)),
    ("Cast", arrays::cast),

    // Functions of two arguments, with broadcasting.
    ("Add", |i, n| binary(i, n, B::Add)),
    ("AddV2", |i, n| binary(i, n, B::Add)),
    ("Sub", |i, n| binary(i, n, B::Sub)),
    ("Mul", |i, n| binary(i, n, B::Mul)),
    ("Div", |i, n| binary(i, n, B::Div)),
    ("RealDiv", |i, n| binary(i, n, B::Div)),
    ("TruncateDiv", |i, n| binary(i, n, B::Div)),
    ("FloorDiv", |i, n| binary(i, n, B::FloorDiv)),
    ("DivNoNan", |i, n| binary(i, n, B::DivNoNan)),
    ("FloorMod", |i, n| binary(i, n, B::FloorMod)),
    ("Mod", |i, n| binary(i, n, B::TruncMod)),
    ("TruncateMod", |i, n| binary(i, n, B::TruncMod)),
    ("Pow", |i, n| binary(i, n, B::Pow)),
    ("Maximum", |i, n| binary(i, n, B::Max)),
    ("Minimum", |i, n| binary(i, n, B::Min)),
    ("SquaredDifference", |i, n| binary(i, n, B::SquaredDifference)),
    ("Atan2", |i, n| binary(i, n, B::Atan2)),
    ("BitwiseAnd", |i, n| binary(i, n, B::BitwiseAnd)),
    ("BitwiseOr", |i, n| binary(i, n, B::BitwiseOr)),
    ("BitwiseXor", |i, n| binary(i, n, B::BitwiseXor)),
    ("Equal", |i, n| apply(i, n, ops::binary::Compare(C::Equal), 2)),
    ("NotEqual", |i, n| apply(i, n, ops::binary::Compare(C::NotEqual), 2)),
    ("Less", |i, n| apply(i, n, ops::binary::Compare(C::Less), 2)),
    ("LessEqual", |i, n| apply(i, n, ops::binary::Compare(C::LessEqual), 2)),
    ("Greater", |i, n| apply(i, n, ops::binary::Compare(C::Greater), 2)),
    ("GreaterEqual", |i, n| apply(i, n, ops::binary::Compare(C::GreaterEqual), 2)),
    ("LogicalAnd", |i, n| apply(i, n, ops::binary::Logical(L::And), 2)),
    ("LogicalOr", |i, n| apply(i, n, ops::binary::Logical(L::Or), 2)),
    ("Select", |i, n| apply(i, n, ops::binary::Select, 3)),
    ("SelectV2", |i, n| apply(i, n, ops::binary::Select, 3)),
    ("AddN", add_n),
    ("ClipByValue", clip),
    ("BiasAdd", convolution::bias_add),
    ("BiasAddV1", convolution::bias_add),

    // Products and convolutions.
    ("MatMul", |i, n| product(i, n, "transpose_a", "transpose_b")),
    ("BatchMatMul", |i, n| product(i, n, "adj_x", "adj_y")),
    ("BatchMatMulV2", |i, n| product(i, n, "adj_x", "adj_y")),
    ("BatchMatMulV3", |i, n| product(i, n, "adj_x", "adj_y")),
    ("Einsum", einsum::einsum),
    ("Conv2D", |i, n| convolution::conv(i, n, false)),
    ("DepthwiseConv2dNative", |i, n| convolution::conv(i, n, true)),
    ("FusedBatchNorm", convolution::batch_norm),
    ("FusedBatchNormV2", convolution::batch_norm),
    ("FusedBatchNormV3", convolution::batch_norm),
    ("MaxPool", |i, n| convolution::pool(i, n, PoolKind::Max)),
    ("MaxPoolV2", |i, n| convolution::pool(i, n, PoolKind::Max)),
    ("AvgPool", |i, n| convolution::pool(i, n, PoolKind::Average { count_include_pad: false })),
    ("Softmax", |i, n| apply(i, n, ops::softmax::Softmax { axis: -1, log: false }, 1)),
    ("LogSoftmax", |i, n| apply(i, n, ops::softmax::Softmax { axis: -1, log: true }, 1)),

    // Reductions.
    ("Sum", |i, n| arrays::reduce(i, n, R::Sum)),
    ("Mean", |i, n| arrays::reduce(i, n, R::Mean)),
    ("Max", |i, n| arrays::reduce(i, n, R::Max)),
    ("Min", |i, n| arrays::reduce(i, n, R::Min)),
    ("Prod", |i, n| arrays::reduce(i, n, R::Prod)),
    ("All", |i, n| arrays::reduce(i, n, R::All)),
    ("Any", |i, n| arrays::reduce(i, n, R::Any)),

    // Shapes.
    ("Shape", arrays::shape_of),
    ("ShapeN", arrays::shape_n),
    ("Rank", |i, n| apply(i, n, ops::generate::Rank { dtype: DType::I32 }, 1)),
    ("Size", |i, n| apply(i, n, ops::generate::Size { dtype: n.dtype("out_type")? }, 1)),
    ("Reshape", |i, n| apply(i, n, ops::shape::Reshape { zero_copies: false }, 2)),
    ("Squeeze", |i, n| apply(i, n, ops::shape::Squeeze { axes: n.attributes.ints("squeeze_dims").to_vec() }, 1)),
    ("ExpandDims", arrays::expand_dims),
    ("ZerosLike", |i, n| arrays::filled_like(i, n, 0)),
    ("OnesLike", |i, n| arrays::filled_like(i, n, 1)),
    ("Fill", arrays::fill),
    ("BroadcastTo", |i, n| apply(i, n, ops::join::BroadcastTo { bidirectional: false }, 2)),

    // Moving elements.
    ("Transpose", arrays::transpose),
    ("ReverseV2", arrays::reverse),
    ("DepthToSpace", arrays::depth_to_space),
    ("SpaceToDepth", arrays::space_to_depth),
    ("SpaceToBatchND", |i, n| apply(i, n, ops::layout::SpaceToBatch, 3)),
    ("BatchToSpaceND", |i, n| apply(i, n, ops::layout::BatchToSpace, 3)),
    ("Pack", arrays::pack),
    ("Unpack", arrays::unpack),
    ("Concat", |i, n| arrays::concat(i, n, true)),
    ("ConcatV2", |i, n| arrays::concat(i, n, false)),
    ("Split", arrays::split),
    ("SplitV", arrays::split_sizes),
    ("Slice", |i, n| apply(i, n, ops::slice::SliceSize, 3)),
    ("StridedSlice", arrays::strided_slice),
    ("Tile", |i, n| apply(i, n, ops::join::Tile, 2)),
    ("Pad", |i, n| apply(i, n, ops::pad::Pad { mode: PadMode::Constant }, 2)),
    ("PadV2", |i, n| apply(i, n, ops::pad::Pad { mode: PadMode::Constant }, 3)),
    ("MirrorPad", arrays::mirror_pad),
    ("Gather", |i, n| arrays::gather(i, n, 0, 0)),
    ("GatherV2", arrays::gather_v2),
    ("ResourceGather", |i, n| arrays::gather(i, n, 0, n.attributes.int("batch_dims"))),
    ("GatherNd", |i, n| apply(i, n, ops::gather::GatherNd { batch_dims: 0, negative: false }, 2)),
    ("OneHot", |i, n| apply(i, n, ops::gather::OneHot { axis: n.attributes.int("axis"), negative: false }, 4)),
    ("ScatterNd", arrays::scatter_nd),
    ("TensorScatterUpdate", |i, n| scatter(i, n, Reduction::Set)),
    ("TensorScatterAdd", |i, n| scatter(i, n, Reduction::Add)),
    ("TensorScatterSub", |i, n| scatter(i, n, Reduction::Sub)),
    ("TensorScatterMin", |i, n| scatter(i, n, Reduction::Min)),
    ("TensorScatterMax", |i, n| scatter(i, n, Reduction::Max)),
    ("Range", |i, n| apply(i, n, ops::generate::Range, 3)),
    ("Where", |i, n| apply(i, n, ops::generate::NonZero { columns: false }, 1)),
    ("MatrixBandPart", |i, n| apply(i, n, ops::generate::MatrixBandPart, 3)),

    // Parsing.
    ("ParseExample", example::parse),
    ("ParseExampleV2", example::parse_v2),
    ("ParseSingleExample", example::parse_single),
];

/// One output.
fn one(value: ValueId) -> Outputs {
    Ok(vec![Value::Tensor(value)])
}

/// Input `index` as it is; a variable is read.
fn pass(i: &mut Import<'_, '_>, n: &Node<'_>, index: usize) -> Outputs {
    one(n.tensor(i, index)?)
}

/// An operator of the node's first `inputs` inputs, with one output.
fn apply(i: &mut Import<'_, '_>, n: &Node<'_>, op: impl Into<Op>, inputs: usize) -> Outputs {
    let inputs = (0..inputs).map(|index| n.tensor(i, index)).collect::<Result<Vec<_>, _>>()?;
    one(i.b.push(op, &inputs))
}

fn unary(i: &mut Import<'_, '_>, n: &Node<'_>, function: U) -> Outputs {
    apply(i, n, ops::unary::Unary(function), 1)
}

fn binary(i: &mut Import<'_, '_>, n: &Node<'_>, function: B) -> Outputs {
    apply(i, n, ops::binary::Binary(function), 2)
}

fn add_n(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let terms = n.tensors(i, 0)?;
    let (&first, rest) = terms.split_first().ok_or("there is nothing to add")?;
    one(rest.iter().fold(first, |sum, &term| i.b.push(ops::binary::Binary(B::Add), &[sum, term])))
}

fn clip(i: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    let [x, min, max] = [n.tensor(i, 0)?, n.tensor(i, 1)?, n.tensor(i, 2)?];
    let below = i.b.push(ops::binary::Binary(B::Min), &[x, max]);
    one(i.b.push(ops::binary::Binary(B::Max), &[below, min]))
}

fn scatter(i: &mut Import<'_, '_>, n: &Node<'_>, reduction: Reduction) -> Outputs {
    apply(i, n, ops::scatter::ScatterNd { reduction, negative: false }, 3)
}

fn product(i: &mut Import<'_, '_>, n: &Node<'_>, a: &str, b: &str) -> Outputs {
    let (transpose_a, transpose_b) = (n.attributes.flag(a), n.attributes.flag(b));
    apply(i, n, ops::matmul::MatMul { transpose_a, transpose_b, fused: Fused::default() }, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_operator_has_two_rows() {
        let mut all: Vec<&str> = names().collect();
        let rows = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), rows);
    }

    #[test]
    fn effects_and_ignored_operators_have_rows() {
        assert!(IGNORED.iter().all(|op| row(op).is_some()));
    }
}
