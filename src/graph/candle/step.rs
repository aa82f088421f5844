//! From an operator with known shapes to candle's operations.

use super::{convert::type_of, elements, moves, products, recurrent, reductions, windows};
use crate::{
    graph::evaluate::Machine,
    kernels::{Binary as B, Unary as U},
    ops::{Fact, Op, OpError, resize::ResizeMode},
    tensor::{DType, Tensor},
};
use candle_core::{self as candle, Tensor as There};

/// What candle computes for a node: its outputs from its inputs.
pub(super) type Run = Box<dyn Fn(&Inputs<'_>) -> candle::Result<Vec<There>> + Send + Sync>;

/// What is done to a constant before it is used.
pub(super) type Prepare<'a> = dyn Fn(There) -> candle::Result<There> + 'a;

/// The inputs of a node at run time; only those asked for are brought to the device.
pub(super) struct Inputs<'a> {
    pub(super) count: usize,
    pub(super) input: &'a dyn Fn(usize) -> Result<There, OpError>,
}

impl Inputs<'_> {
    /// An input on the device.
    pub(super) fn at(&self, index: usize) -> candle::Result<There> {
        (self.input)(index).map_err(candle::Error::wrap)
    }

    /// All of them.
    pub(super) fn all(&self) -> candle::Result<Vec<There>> {
        (0..self.count).map(|index| self.at(index)).collect()
    }
}

/// How a node is computed.
pub(super) enum Step {
    /// By this crate's operator, for strings.
    Host,
    /// By candle.
    There(Run),
}

/// What is known of a node when it is planned.
pub(super) struct Known<'a> {
    pub(super) inputs: &'a [Fact],
    pub(super) outputs: &'a [Fact],
    pub(super) device: &'a candle::Device,
    pub(super) machine: &'a Machine<'a>,
    /// [`Known::constant`] without the question whether it is known.
    pub(super) prepared: &'a dyn Fn(usize, &'static str, &Prepare<'_>) -> Option<Result<There, OpError>>,
}

impl Known<'_> {
    /// An input on the device as `prepare` makes it, where its value is known; `form` names what that is.
    pub(super) fn constant(
        &self,
        index: usize,
        form: &'static str,
        prepare: &Prepare<'_>,
    ) -> Result<Option<There>, OpError> {
        match self.inputs.get(index) {
            Some(Fact { value: Some(_), .. }) => (self.prepared)(index, form, prepare).transpose(),
            _ => Ok(None),
        }
    }

    /// The integers of an input that the shapes were inferred from.
    pub(super) fn integers(&self, index: usize) -> Result<Vec<i64>, OpError> {
        let value = self.inputs.get(index).and_then(|fact| fact.value.as_ref());
        Ok(value.ok_or(OpError::Memory("a known input"))?.to_i64_vec()?)
    }

    /// Dimensions of the first output.
    pub(super) fn dims(&self) -> Vec<usize> {
        self.outputs.first().map(|fact| fact.dims().to_vec()).unwrap_or_default()
    }
}

/// candle's error as an operator's.
pub(super) fn failed(error: candle::Error) -> OpError {
    // The text may have a backtrace behind its first line.
    let text = error.to_string();
    OpError::invalid(text.lines().next().unwrap_or("candle failed").to_owned())
}

/// A step of one output.
pub(super) fn one(
    run: impl Fn(&Inputs<'_>) -> candle::Result<There> + Send + Sync + 'static,
) -> Result<Step, OpError> {
    Ok(Step::There(Box::new(move |inputs| Ok(vec![run(inputs)?]))))
}

/// What a combination of attributes lacks.
pub(super) fn lacking(what: &str) -> OpError {
    OpError::unsupported(format!("the candle backend has no {what}"))
}

/// True for operators that this backend has, in at least their usual forms.
pub(super) fn has(op: &Op) -> bool {
    match op {
        Op::Unary(unary) => !matches!(unary.0, U::Asin | U::Acos | U::Atan),
        Op::Binary(binary) => !matches!(
            binary.0,
            B::Atan2 | B::BitwiseAnd | B::BitwiseOr | B::BitwiseXor | B::ShiftLeft | B::ShiftRight
        ),
        Op::Recurrent(op) => recurrent::has(op),
        Op::Resize(op) => !matches!(op.mode, ResizeMode::Area),
        Op::Cumulative(op) => !op.product,
        Op::ArgReduce(op) => !op.select_last,
        Op::GatherNd(op) => op.batch_dims == 0,
        Op::Compare(_)
        | Op::Logical(_)
        | Op::Not(_)
        | Op::Select(_)
        | Op::Cast(_)
        | Op::Conv(_)
        | Op::ConvTranspose(_)
        | Op::MatMul(_)
        | Op::Attention(_)
        | Op::Pool(_)
        | Op::Reduce(_)
        | Op::Softmax(_)
        | Op::LayerNorm(_)
        | Op::InstanceNorm(_)
        | Op::WithAxes(_)
        | Op::Identity(_)
        | Op::Reshape(_)
        | Op::Squeeze(_)
        | Op::ExpandDims(_)
        | Op::Transpose(_)
        | Op::Concat(_)
        | Op::Split(_)
        | Op::BroadcastTo(_)
        | Op::Gather(_)
        | Op::GatherElements(_)
        | Op::OneHot(_)
        | Op::TopK(_) => true,
        // Known while planning.
        Op::ShapeOf(_) | Op::Size(_) | Op::Rank(_) | Op::BroadcastShapes(_) | Op::Range(_) => true,
        other => moves::has(other) || on_strings(other),
    }
}

/// Operators whose inputs or outputs are strings.
fn on_strings(op: &Op) -> bool {
    matches!(
        op,
        Op::ParseExample(_)
            | Op::MapStrings(_)
            | Op::StringJoin(_)
            | Op::ReduceJoin(_)
            | Op::StringSplit(_)
            | Op::Substr(_)
            | Op::StringEqual(_)
            | Op::AsString(_)
            | Op::Tokenize(_)
            | Op::Lookup(_)
            | Op::DecodeImage(_)
            | Op::DecodeWav(_)
            | Op::DecodeRaw(_)
    )
}

/// Prepares a node.
pub(super) fn step(op: &Op, known: &Known<'_>) -> Result<Step, OpError> {
    let strings = |facts: &[Fact]| facts.iter().any(|fact| fact.dtype == DType::String);
    if on_strings(op) || strings(known.inputs) || strings(known.outputs) {
        return Ok(Step::Host);
    }
    for fact in known.inputs.iter().chain(known.outputs) {
        type_of(fact.dtype)?;
    }
    match op {
        Op::Unary(op) => elements::unary(op.0, known),
        Op::Binary(op) => elements::binary(op.0, known),
        Op::Compare(op) => elements::compare(op.0),
        Op::Logical(op) => elements::logical(op.0),
        Op::Not(_) => one(|x| x.at(0)?.eq(0u8)),
        Op::Select(_) => elements::select(known),
        Op::Cast(op) => elements::cast(op.to, known),
        Op::Conv(op) => windows::conv(op, known),
        Op::ConvTranspose(op) => windows::conv_transpose(op, known),
        Op::Pool(op) => windows::pool(op, known),
        Op::Resize(op) => windows::resize(op, known),
        Op::MatMul(op) => products::matmul(op, known),
        Op::Attention(op) => products::attention(op, known),
        Op::Reduce(op) => reductions::reduce(op, known),
        Op::ArgReduce(op) => reductions::arg_reduce(op, known),
        Op::Softmax(op) => reductions::softmax(op, known),
        Op::Cumulative(op) => reductions::cumulative(op, known),
        Op::TopK(op) => reductions::top_k(op, known),
        Op::LayerNorm(op) => reductions::layer_norm(op, known),
        Op::InstanceNorm(op) => reductions::instance_norm(op, known),
        Op::Recurrent(op) => recurrent::recurrent(op, known),
        Op::Identity(_) | Op::Reshape(_) | Op::Squeeze(_) | Op::ExpandDims(_) => {
            let dims = known.dims();
            one(move |x| x.at(0)?.reshape(dims.as_slice()))
        }
        Op::WithAxes(op) => {
            let last = known.inputs.len().saturating_sub(1);
            let op = op.concrete(known.integers(last)?)?;
            step(&op, &Known { inputs: &known.inputs[..last], ..*known })
        }
        Op::Transpose(op) => moves::transpose(op, known),
        Op::Concat(op) => moves::concat(op, known),
        Op::Split(op) => moves::split(op, known),
        Op::BroadcastTo(_) => {
            let dims = known.dims();
            one(move |x| x.at(0)?.broadcast_as(dims.as_slice()))
        }
        Op::Gather(op) => moves::gather(op, known),
        Op::GatherElements(op) => moves::gather_elements(op, known),
        Op::GatherNd(op) => moves::gather_nd(op, known),
        Op::OneHot(op) => moves::one_hot(op, known),
        // Too large to be kept by the planner, but known all the same.
        Op::Range(_) | Op::ShapeOf(_) | Op::Size(_) | Op::Rank(_) | Op::BroadcastShapes(_) => {
            let inputs: Option<Vec<Tensor>> = known.inputs.iter().map(|fact| fact.value.clone()).collect();
            let inputs = inputs.ok_or_else(|| lacking("values that only a run knows here"))?;
            let made = crate::graph::evaluate::evaluate(known.machine, op, &inputs)?;
            let made = made.first().ok_or(OpError::Memory("an output"))?;
            let made = super::convert::upload(made, known.device)?;
            one(move |_| Ok(made.clone()))
        }
        other => moves::by_index(other, known),
    }
}
