//! Operators: what each computes, independent of where a model came from.
//!
//! An operator is a payload struct with its attributes that implements [`Operator`], and one word
//! in the `ops!` list below, which makes it a variant of [`Op`]. Importers decompose a format's
//! operators into these; planning asks them for shapes and for a [`Step`] to run.
#![forbid(unsafe_code)]

mod attributes;
mod elements;
mod fact;
mod function;
mod fused;
mod mapping;
mod places;
mod profile;
mod step;
mod text_bytes;

pub use fact::{Fact, Inferred};
pub use fused::Fused;
pub use gated_conv::GatedConv;
pub use inverted_residual::InvertedResidual;
pub use profile::{Profile, StepShapes, StepTime};
pub use step::{Io, Lower, PackCache, Run, RunContext, Step};
pub(crate) use step::{PackedSize, Source, TIDY_EVERY, left_free};
pub use weights::product_weights;
pub(crate) use weights::used_in_place;
pub use window::Padding;

use crate::{
    kernels::KernelError,
    tensor::{Tensor, TensorError},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::{Map, Value};

/// What can go wrong with an operator, at planning or at run time.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OpError {
    /// The inputs' shapes, dtypes or values do not fit the operator.
    #[error("{0}")]
    Invalid(String),
    /// The operator has no such case.
    #[error("{0}")]
    Unsupported(String),
    /// A kernel refused its arguments.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A tensor could not be made.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The run's deadline passed inside a loop.
    #[error("the deadline passed while the model was running")]
    Deadline,
    /// The caller gave up inside a loop.
    #[error("the call was cancelled while the model was running")]
    Cancelled,
    /// Weights are not packed for an estimate of their memory.
    #[error("internal: an estimate does not run")]
    Estimate,
    /// A plan gave the operator memory that does not fit; a bug.
    #[error("internal: the plan gave {0} the wrong memory")]
    Memory(&'static str),
}

impl OpError {
    /// Inputs that do not fit.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    /// A case that is not supported.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::Unsupported(message.into())
    }
}

/// What planning needs to know of an operator.
pub trait Operator {
    /// Dtype and shape rule: the facts of the outputs, given those of the inputs, whose shapes are
    /// concrete. An `Err` means that these inputs can never work.
    fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError>;

    /// Picks kernels and packs weights for inputs and outputs of these shapes. Called once per
    /// plan; what it returns runs many times and must not allocate unless it is [`Run::Tensors`].
    fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError>;

    /// True when the result depends on more than the inputs, so that it must not be folded,
    /// deduplicated or dropped.
    fn stateful(&self) -> bool {
        false
    }

    /// True when it assigns a variable, so that no other run may be under way.
    fn assigns(&self) -> bool {
        false
    }
}

/// Lists the operators: `module::Payload` becomes the variant `Op::Payload`. In kinglet's model files
/// it is an object whose `op` is that word and whose other members are the payload's fields.
macro_rules! ops {
    ($($module:ident :: $op:ident),* $(,)?) => {
        /// Any operator.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Op {
            $($op($module::$op),)*
        }

        impl Op {
            /// The names of all operators.
            pub const NAMES: &[&str] = &[$(stringify!($op)),*];

            /// The operator's name.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Op::$op(_) => stringify!($op),)*
                }
            }

            /// The operator of that name with these attributes.
            ///
            /// # Errors
            /// There is no such operator, or they do not fit it.
            pub fn read(name: &str, attributes: Map<String, Value>) -> Result<Self, serde_json::Error> {
                match name {
                    $(stringify!($op) => attributes::read(attributes).map(Op::$op),)*
                    _ => Err(de::Error::unknown_variant(name, Self::NAMES)),
                }
            }

            /// The attributes, all of them.
            ///
            /// # Errors
            /// One has no form in JSON.
            pub fn write(&self) -> Result<Map<String, Value>, serde_json::Error> {
                match self {
                    $(Op::$op(op) => attributes::write(op),)*
                }
            }
        }

        impl Operator for Op {
            fn infer(&self, inputs: &[Fact]) -> Result<Inferred, OpError> {
                match self {
                    $(Op::$op(op) => op.infer(inputs),)*
                }
            }

            fn lower(&self, cx: &Lower<'_>) -> Result<Step, OpError> {
                match self {
                    $(Op::$op(op) => op.lower(cx),)*
                }
            }

            fn stateful(&self) -> bool {
                match self {
                    $(Op::$op(op) => op.stateful(),)*
                }
            }

            fn assigns(&self) -> bool {
                match self {
                    $(Op::$op(op) => op.assigns(),)*
                }
            }
        }

        $(impl From<$module::$op> for Op {
            fn from(op: $module::$op) -> Self {
                Op::$op(op)
            }
        })*
    };
}

impl Serialize for Op {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = self.write().map_err(ser::Error::custom)?;
        members.insert("op".into(), self.name().into());
        members.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Op {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Map::deserialize(deserializer)?;
        let Some(Value::String(name)) = members.remove("op") else {
            return Err(de::Error::missing_field("op"));
        };
        Self::read(&name, members).map_err(de::Error::custom)
    }
}

pub mod arg_reduce;
pub mod attention;
pub mod binary;
pub mod boxes;
pub mod cast;
pub mod control;
pub mod conv;
pub mod conv_transpose;
pub mod cumulative;
pub mod detection;
pub mod example;
pub mod gated_conv;
pub mod gather;
pub mod generate;
pub mod grid_sample;
pub mod image;
pub mod inverted_residual;
pub mod join;
pub mod late;
pub mod layout;
pub mod list;
pub mod lookup;
pub mod matmul;
pub mod norm;
pub mod pad;
pub mod pool;
pub mod quant;
pub mod quantized;
pub mod quantized_elements;
pub mod recurrent;
pub mod reduce;
pub mod resize;
pub mod scale_shift;
pub mod scatter;
pub mod segment;
pub mod shape;
pub mod slice;
pub mod softmax;
pub mod sparse;
pub mod spectrum;
pub mod state;
pub mod text;
pub mod top_k;
pub mod unary;
pub mod unique;
mod volume;
mod weights;
pub mod window;

ops! {
    unary::Unary,
    binary::Binary, binary::Compare, binary::Logical, binary::Not, binary::Select,
    cast::Cast, cast::Bitcast,
    conv::Conv, conv_transpose::ConvTranspose, inverted_residual::InvertedResidual, gated_conv::GatedConv,
    scale_shift::ScaleShift,
    late::WithAxes,
    quant::Quantize, quant::Dequantize,
    matmul::MatMul,
    pool::Pool,
    reduce::Reduce,
    softmax::Softmax,
    attention::Attention,
    shape::Identity, shape::Reshape, shape::Squeeze, shape::ExpandDims, shape::ShapeOf,
    state::ReadState, state::AssignState,
    layout::Transpose, layout::Reverse, layout::ReverseSequence, layout::Roll, layout::Diagonal, layout::DepthToSpace, layout::SpaceToDepth, layout::SpaceToBatch,
    layout::BatchToSpace,
    join::Concat, join::Split, join::Tile, join::BroadcastTo,
    slice::StridedSlice, slice::Slice, slice::SliceSize,
    gather::Gather, gather::GatherNd, gather::GatherElements, gather::OneHot,
    scatter::ScatterNd, scatter::ScatterElements,
    pad::Pad,
    generate::Range, generate::NonZero, generate::EyeLike, generate::Trilu, generate::MatrixBandPart,
    generate::Size, generate::Rank, generate::BroadcastShapes,
    example::ParseExample,
    top_k::TopK, boxes::NonMaxSuppression, boxes::SelectBoxes, unique::Unique,
    resize::Resize, grid_sample::GridSample,
    norm::LayerNorm, norm::InstanceNorm, norm::Lrn,
    text::MapStrings, text::StringJoin, text::ReduceJoin, text::StringSplit, text::Substr, text::StringEqual,
    text::AsString, text::Tokenize,
    lookup::Lookup,
    control::If, control::Choose, control::While, control::Loop, control::Scan,
    recurrent::Recurrent,
    arg_reduce::ArgReduce, cumulative::Cumulative,
    segment::Segment, segment::Bincount, segment::SearchSorted,
    sparse::FillEmptyRows, sparse::ReshapeIndices, sparse::RaggedToDense, sparse::Ngrams, sparse::Partition, sparse::Stitch,
    detection::CropAndResize, detection::SelectBoxesByClass, detection::Patches,
    spectrum::RealFourier, spectrum::FromComplex, spectrum::ToComplex, spectrum::AudioSpectrogram, spectrum::Mfcc,
    spectrum::DecodeWav, spectrum::DecodeRaw,
    image::DecodeImage,
    list::Reserve,
    list::SetItem,
    list::PushBack,
    quantized::QuantizedConv, quantized::QuantizedMatMul, quantized_elements::QuantizedAdd, quantized_elements::QuantizedTable,
}

/// Elements that an operator may make out of numbers in its inputs: a few bytes can ask for any amount.
const MAX_ASKED_FOR: usize = 1 << 28;

/// `elements`, unless a hostile input has asked for more than any model needs.
pub(crate) fn bounded(elements: Option<usize>) -> Result<usize, OpError> {
    elements
        .filter(|&elements| elements <= MAX_ASKED_FOR)
        .ok_or_else(|| OpError::invalid(format!("the inputs ask for more than {MAX_ASKED_FOR} elements")))
}

/// Checks the number of inputs.
pub(crate) fn expect_inputs(inputs: &[Fact], range: std::ops::RangeInclusive<usize>) -> Result<(), OpError> {
    if range.contains(&inputs.len()) {
        return Ok(());
    }
    let (least, most) = (range.start(), range.end());
    let wanted = if least == most { least.to_string() } else { format!("{least} to {most}") };
    Err(OpError::invalid(format!("expected {wanted} inputs, but {} are given", inputs.len())))
}

/// The integers of an input whose value must be known to plan, or the request to make it known.
macro_rules! known_integers {
    ($inputs:expr, $index:expr) => {
        match $inputs.get($index).map(|fact: &$crate::ops::Fact| &fact.value) {
            Some(Some(value)) => value.to_i64_vec()?,
            Some(None) => return Ok($crate::ops::Inferred::NeedsValue($index)),
            None => {
                return Err($crate::ops::OpError::invalid(format!("input {} is missing", $index)));
            }
        }
    };
}
pub(crate) use known_integers;

/// Calls `$body` with `$t` bound to the Rust type of a numeric dtype, `u8` standing for `bool`.
macro_rules! with_element {
    ($dtype:expr, $t:ident => $body:expr, else $other:expr) => {{
        use $crate::tensor::DType as D;
        match $dtype {
            D::Bool | D::U8 => {
                type $t = u8;
                $body
            }
            D::U16 => {
                type $t = u16;
                $body
            }
            D::U32 => {
                type $t = u32;
                $body
            }
            D::U64 => {
                type $t = u64;
                $body
            }
            D::I8 => {
                type $t = i8;
                $body
            }
            D::I16 => {
                type $t = i16;
                $body
            }
            D::I32 => {
                type $t = i32;
                $body
            }
            D::I64 => {
                type $t = i64;
                $body
            }
            D::F16 => {
                type $t = half::f16;
                $body
            }
            D::BF16 => {
                type $t = half::bf16;
                $body
            }
            D::F32 => {
                type $t = f32;
                $body
            }
            D::F64 => {
                type $t = f64;
                $body
            }
            _ => $other,
        }
    }};
}
pub(crate) use with_element;

/// An operator's outputs at run time, for [`Run::Tensors`].
pub type Tensors = Vec<Tensor>;
