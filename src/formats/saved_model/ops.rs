//! TensorFlow's operators as a table: each row turns one node into operators of kinglet.
//!
//! A row states what the operator means; attributes that exports strip come from
//! [`super::node::Attributes`]. What needs more than a line stands in the files beside this one.

mod arithmetic;
mod arrays;
mod control;
mod convolution;
mod einsum;
mod example;
mod images;
mod legacy;
mod signal;
mod sparse;
mod state;
mod tables;
mod text;

use super::import::{Import, Node, Stop, Value};
use crate::{
    graph::ValueId,
    kernels::{Binary as B, Compare as C, Logical as L, Reduce as R, Unary as U},
    ops::{
        self, Fused, Op, pad::PadMode, pool::PoolKind, scatter::Reduction, segment::SegmentKind as G,
        spectrum::ComplexPart, text::StringFunction as S,
    },
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

/// True when the row itself asks for the inputs that it needs.
pub(super) fn is_lazy(op: &str) -> bool {
    matches!(op, "Merge" | "RefMerge" | "Exit" | "RefExit")
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
const IGNORED: &[&str] = &["Assert", "HistogramSummary", "NoOp", "PrintV2", "ScalarSummary"];

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
    ("ScalarSummary", |_, _| Ok(Vec::new())),
    ("HistogramSummary", |_, _| Ok(Vec::new())),
    ("Bitcast", |i, n| apply(i, n, ops::cast::Bitcast { to: n.dtype("type")? }, 1)),

    ("RandomUniform", state::random),
    ("RandomStandardNormal", state::random),
    ("TruncatedNormal", state::random),

    // Branches, loops and their lists.
    ("If", control::branch),
    ("StatelessIf", control::branch),
    ("While", control::repeat),
    ("StatelessWhile", control::repeat),
    ("TensorListReserve", control::list_reserve),
    ("EmptyTensorList", control::list_empty),
    ("TensorListFromTensor", control::list_from),
    ("TensorListStack", control::list_stack),
    ("TensorListGetItem", control::list_get),
    ("TensorListSetItem", control::list_set),
    ("TensorListPushBack", control::list_push),
    ("TensorListLength", control::list_length),
    ("TensorListGather", control::list_get),
    ("TensorListScatterV2", control::list_scatter),
    ("TensorListPopBack", control::list_pop),
    ("TensorListConcatV2", control::list_concat),
    ("TensorListElementShape", control::list_element_shape),
    ("TensorArrayV3", control::array),
    ("TensorArrayWriteV3", control::array_write),
    ("TensorArrayReadV3", control::array_read),
    ("TensorArrayGatherV3", control::array_read),
    ("TensorArrayScatterV3", control::array_scatter),
    ("TensorArraySizeV3", control::array_size),
    ("TensorArrayCloseV3", |_, _| Ok(Vec::new())),
    ("Switch", legacy::switch),
    ("RefSwitch", legacy::switch),
    ("Merge", legacy::merge),
    ("RefMerge", legacy::merge),
    ("Exit", legacy::exit),
    ("RefExit", legacy::exit),
    ("Enter", pass_any),
    ("RefEnter", pass_any),
    ("LoopCond", |i, n| pass(i, n, 0)),

    // Tables.
    ("HashTable", tables::table),
    ("HashTableV2", tables::table),
    ("MutableHashTable", tables::table),
    ("MutableHashTableV2", tables::table),
    ("InitializeTable", tables::fill),
    ("InitializeTableV2", tables::fill),
    ("LookupTableImport", tables::fill),
    ("LookupTableImportV2", tables::fill),
    ("InitializeTableFromTextFile", tables::fill_from_file),
    ("InitializeTableFromTextFileV2", tables::fill_from_file),
    ("LookupTableFind", tables::find),
    ("LookupTableFindV2", tables::find),
    ("LookupTableSize", tables::size),
    ("LookupTableSizeV2", tables::size),
    ("LookupTableExport", tables::export),
    ("LookupTableExportV2", tables::export),

    // Strings.
    ("StringLower", |i, n| text::map(i, n, S::Lower { unicode: n.attributes.text("encoding") == "utf-8" })),
    ("StringUpper", |i, n| text::map(i, n, S::Upper { unicode: n.attributes.text("encoding") == "utf-8" })),
    ("StringStrip", |i, n| text::map(i, n, S::Strip)),
    ("StringToNumber", |i, n| text::map(i, n, S::ToNumber { to: n.dtype("out_type")? })),
    ("StringLength", |i, n| text::map(i, n, S::Length { unit: text::unit(n)? })),
    ("StringToHashBucketFast", text::hash_bucket),
    ("StringToHashBucketStrong", text::keyed_hash_bucket),
    ("StaticRegexReplace", text::static_regex_replace),
    ("RegexReplace", text::regex_replace),
    ("StaticRegexFullMatch", text::static_regex_full_match),
    ("RegexFullMatch", text::regex_full_match),
    ("EncodeBase64", |i, n| text::map(i, n, S::EncodeBase64 { pad: n.attributes.flag("pad") })),
    ("DecodeBase64", |i, n| text::map(i, n, S::DecodeBase64)),
    ("AsString", text::as_string),
    ("StringJoin", text::join),
    ("ReduceJoin", text::reduce_join),
    ("StringSplit", text::split_at_any),
    ("StringSplitV2", text::split),
    ("StringNGrams", sparse::ngrams),
    ("DecodeRaw", signal::decode_raw),
    ("Substr", |i, n| apply(i, n, ops::text::Substr { unit: text::unit(n)? }, 3)),

    // Images and boxes.
    ("DecodeImage", images::decode),
    ("DecodeJpeg", images::decode),
    ("DecodePng", images::decode),
    ("DecodeBmp", images::decode),
    ("ResizeBilinear", |i, n| images::resize(i, n, images::Filter::Bilinear)),
    ("ResizeNearestNeighbor", |i, n| images::resize(i, n, images::Filter::Nearest)),
    ("ResizeBicubic", |i, n| images::resize(i, n, images::Filter::Bicubic)),
    ("ResizeArea", |i, n| images::resize(i, n, images::Filter::Area)),
    ("CropAndResize", images::crop),
    ("ExtractImagePatches", images::patches),
    ("AdjustContrastv2", arithmetic::contrast),
    ("FakeQuantWithMinMaxArgs", arithmetic::fake_quantise),
    ("FakeQuantWithMinMaxVars", arithmetic::fake_quantise),
    ("FakeQuantWithMinMaxVarsPerChannel", arithmetic::fake_quantise),
    ("CombinedNonMaxSuppression", images::select_boxes_by_class),
    ("NonMaxSuppression", |i, n| images::select_boxes(i, n, &[0])),
    ("NonMaxSuppressionV2", |i, n| images::select_boxes(i, n, &[0])),
    ("NonMaxSuppressionV3", |i, n| images::select_boxes(i, n, &[0])),
    ("NonMaxSuppressionV4", |i, n| images::select_boxes(i, n, &[0, 2])),
    ("NonMaxSuppressionV5", |i, n| images::select_boxes(i, n, &[0, 1, 2])),

    // Sound and spectra.
    ("RFFT", |i, n| apply(i, n, ops::spectrum::RealFourier { inverse: false }, 2)),
    ("IRFFT", |i, n| apply(i, n, ops::spectrum::RealFourier { inverse: true }, 2)),
    ("Complex", signal::complex),
    ("Real", |i, n| apply(i, n, ops::spectrum::FromComplex { part: ComplexPart::Real }, 1)),
    ("Imag", |i, n| apply(i, n, ops::spectrum::FromComplex { part: ComplexPart::Imaginary }, 1)),
    ("ComplexAbs", |i, n| apply(i, n, ops::spectrum::FromComplex { part: ComplexPart::Magnitude }, 1)),
    ("Angle", |i, n| apply(i, n, ops::spectrum::FromComplex { part: ComplexPart::Angle }, 1)),
    ("AudioSpectrogram", signal::spectrogram),
    ("Mfcc", signal::mfcc),
    ("DecodeWav", signal::decode_wav),

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
    ("Exp", arithmetic::exponential),
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
    ("Erfc", arithmetic::erfc),
    ("IsNan", arithmetic::is_nan),
    ("IsInf", arithmetic::is_inf),
    ("IsFinite", arithmetic::is_finite),
    ("Invert", arithmetic::invert),
    ("L2Loss", arithmetic::l2_loss),
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
    ("Mul", arithmetic::multiply),
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
    ("LeftShift", |i, n| binary(i, n, B::ShiftLeft)),
    ("RightShift", |i, n| binary(i, n, B::ShiftRight)),
    ("MulNoNan", |i, n| arithmetic::guarded(i, n, None, B::Mul, 1)),
    ("Xdivy", |i, n| arithmetic::guarded(i, n, None, B::Div, 0)),
    ("Xlogy", |i, n| arithmetic::guarded(i, n, Some(U::Log), B::Mul, 0)),
    ("Xlog1py", |i, n| arithmetic::guarded(i, n, Some(U::Log1p), B::Mul, 0)),
    ("ApproximateEqual", arithmetic::approximately),
    ("Equal", |i, n| text::equal(i, n, C::Equal)),
    ("NotEqual", |i, n| text::equal(i, n, C::NotEqual)),
    ("Less", |i, n| apply(i, n, ops::binary::Compare(C::Less), 2)),
    ("LessEqual", |i, n| apply(i, n, ops::binary::Compare(C::LessEqual), 2)),
    ("Greater", |i, n| apply(i, n, ops::binary::Compare(C::Greater), 2)),
    ("GreaterEqual", |i, n| apply(i, n, ops::binary::Compare(C::GreaterEqual), 2)),
    ("LogicalAnd", |i, n| apply(i, n, ops::binary::Logical(L::And), 2)),
    ("LogicalOr", |i, n| apply(i, n, ops::binary::Logical(L::Or), 2)),
    ("Select", arrays::select),
    ("SelectV2", |i, n| apply(i, n, ops::binary::Select, 3)),
    ("AddN", add_n),
    ("AccumulateNV2", add_n),
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
    ("Conv3D", |i, n| convolution::conv(i, n, false)),
    ("Conv2DBackpropInput", convolution::conv_transpose),
    ("Conv3DBackpropInputV2", convolution::conv_transpose),
    ("DepthwiseConv2dNativeBackpropInput", convolution::conv_transpose),
    ("FusedBatchNorm", convolution::batch_norm),
    ("FusedBatchNormV2", convolution::batch_norm),
    ("FusedBatchNormV3", convolution::batch_norm),
    ("MaxPool", |i, n| convolution::pool(i, n, PoolKind::Max)),
    ("MaxPoolV2", |i, n| convolution::pool(i, n, PoolKind::Max)),
    ("AvgPool", |i, n| convolution::pool(i, n, PoolKind::Average { count_include_pad: false })),
    ("MaxPool3D", |i, n| convolution::pool(i, n, PoolKind::Max)),
    ("AvgPool3D", |i, n| convolution::pool(i, n, PoolKind::Average { count_include_pad: false })),
    ("LRN", convolution::lrn),
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
    ("EuclideanNorm", arithmetic::euclidean),
    ("Cumsum", |i, n| arrays::cumulative(i, n, false)),
    ("Cumprod", |i, n| arrays::cumulative(i, n, true)),
    ("SegmentSum", |i, n| sparse::segment(i, n, G::Sum)),
    ("SegmentMean", |i, n| sparse::segment(i, n, G::Mean)),
    ("SegmentProd", |i, n| sparse::segment(i, n, G::Product)),
    ("SegmentMax", |i, n| sparse::segment(i, n, G::Max)),
    ("SegmentMin", |i, n| sparse::segment(i, n, G::Min)),
    ("UnsortedSegmentSum", |i, n| sparse::unsorted_segment(i, n, G::Sum)),
    ("UnsortedSegmentProd", |i, n| sparse::unsorted_segment(i, n, G::Product)),
    ("UnsortedSegmentMax", |i, n| sparse::unsorted_segment(i, n, G::Max)),
    ("UnsortedSegmentMin", |i, n| sparse::unsorted_segment(i, n, G::Min)),
    ("SparseSegmentSum", |i, n| sparse::sparse_segment(i, n, G::Sum)),
    ("SparseSegmentMean", |i, n| sparse::sparse_segment(i, n, G::Mean)),
    ("SparseSegmentSqrtN", |i, n| sparse::sparse_segment(i, n, G::SqrtN)),
    ("SparseSegmentSumWithNumSegments", |i, n| sparse::sparse_segment(i, n, G::Sum)),
    ("SparseSegmentMeanWithNumSegments", |i, n| sparse::sparse_segment(i, n, G::Mean)),
    ("SparseSegmentSqrtNWithNumSegments", |i, n| sparse::sparse_segment(i, n, G::SqrtN)),
    ("Bincount", sparse::bincount),
    ("DenseBincount", sparse::bincount),
    ("RaggedBincount", sparse::ragged_bincount),
    ("Bucketize", sparse::bucketize),
    ("LowerBound", |i, n| sparse::search(i, n, false)),
    ("UpperBound", |i, n| sparse::search(i, n, true)),

    // Sparse and ragged tensors.
    ("SparseToDense", sparse::to_dense),
    ("SparseReshape", sparse::reshape),
    ("SparseFillEmptyRows", sparse::fill_empty_rows),
    ("RaggedTensorToTensor", sparse::ragged_to_dense),
    ("DynamicPartition", sparse::partition),
    ("DynamicStitch", sparse::stitch),
    ("ParallelDynamicStitch", sparse::stitch),

    // Shapes.
    ("BroadcastArgs", sparse::broadcast_shapes),
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
    ("ReverseSequence", arrays::reverse_sequence),
    ("Roll", arrays::roll),
    ("InvertPermutation", arrays::invert_permutation),
    ("MatrixDiagPart", |i, n| apply(i, n, ops::layout::Diagonal { offset: 0 }, 1)),
    ("MatrixDiagPartV2", arrays::diagonal),
    ("MatrixDiagPartV3", arrays::diagonal),
    ("DiagPart", |i, n| apply(i, n, ops::layout::Diagonal { offset: 0 }, 1)),
    ("MatrixDiag", arrays::from_diagonal),
    ("MatrixDiagV2", arrays::from_diagonal),
    ("MatrixDiagV3", arrays::from_diagonal),
    ("Diag", arrays::from_diagonal),
    ("DepthToSpace", arrays::depth_to_space),
    ("SpaceToDepth", arrays::space_to_depth),
    ("SpaceToBatchND", |i, n| apply(i, n, ops::layout::SpaceToBatch, 3)),
    ("SpaceToBatch", |i, n| arrays::blocks(i, n, ops::layout::SpaceToBatch)),
    ("BatchToSpace", |i, n| arrays::blocks(i, n, ops::layout::BatchToSpace)),
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
    ("TopK", arrays::top_k),
    ("TopKV2", arrays::top_k),
    ("Unique", |i, n| arrays::unique(i, n, &[0, 2])),
    ("UniqueV2", |i, n| arrays::unique(i, n, &[0, 2])),
    ("UniqueWithCounts", |i, n| arrays::unique(i, n, &[0, 2, 3])),
    ("ArgMax", |i, n| arrays::arg_reduce(i, n, true)),
    ("ArgMin", |i, n| arrays::arg_reduce(i, n, false)),
    ("Range", |i, n| apply(i, n, ops::generate::Range, 3)),
    ("LinSpace", arithmetic::line),
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

/// Input 0, be it a tensor, a variable or a table.
fn pass_any(_: &mut Import<'_, '_>, n: &Node<'_>) -> Outputs {
    Ok(vec![n.value(0)?.clone()])
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
