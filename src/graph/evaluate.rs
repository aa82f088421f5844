//! Computing one operator on whole tensors, apart from any plan: constant folding.

use crate::{
    kernels::{self, Kernels, Threads},
    ops::{
        Fact, Inferred, Io, Lower, Op, OpError, Operator, PackCache, Run, RunContext, Source, state::States,
    },
    tensor::{
        Tensor,
        buffer::{Blocks, Region, StepRegions},
    },
};
use std::time::{Duration, Instant};

/// Loops that take longer are not folded: they may have no end.
const LOOP_TIME: Duration = Duration::from_millis(100);

/// Elements of the shapes and indices that [`fold_small`] is for.
const MAX_SMALL: usize = 256;
/// Memory for them.
const MAX_SMALL_BYTES: usize = 1 << 20;

/// What there is to compute with.
pub(super) struct Machine<'a> {
    pub(super) kernels: &'static Kernels,
    pub(super) threads: &'a Threads,
    /// Bytes that one plan may ask for.
    pub(super) memory_limit: usize,
}

/// The outputs of an operator that depends on its inputs only, when they are small; `None` where it
/// cannot be told before a run.
pub fn fold_small(op: &Op, inputs: &[Tensor]) -> Option<Vec<Tensor>> {
    let control = matches!(op, Op::If(_) | Op::While(_) | Op::Loop(_) | Op::Scan(_));
    if control || op.stateful() || inputs.iter().any(|tensor| tensor.len() > MAX_SMALL) {
        return None;
    }
    let facts: Vec<Fact> = inputs.iter().cloned().map(Fact::known).collect();
    match op.infer(&facts).ok()? {
        Inferred::Facts(outputs) if outputs.iter().all(|fact| fact.elements() <= MAX_SMALL) => {}
        _ => return None,
    }
    let threads = Threads::single();
    let machine = Machine { kernels: kernels::best(), threads: &threads, memory_limit: MAX_SMALL_BYTES };
    evaluate(&machine, op, inputs).ok()
}

/// The outputs of an operator on these inputs.
pub(super) fn evaluate(machine: &Machine<'_>, op: &Op, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
    let facts: Vec<Fact> = inputs.iter().cloned().map(Fact::known).collect();
    let outputs = match op.infer(&facts)? {
        Inferred::Facts(outputs) => outputs,
        Inferred::AtRun => Vec::new(),
        Inferred::NeedsValue(input) => {
            return Err(OpError::invalid(format!("the value of input {input} is needed but absent")));
        }
    };
    if let Some(values) = outputs.iter().map(|fact| fact.value.clone()).collect::<Option<Vec<Tensor>>>()
        && !values.is_empty()
    {
        return Ok(values);
    }
    let constants = vec![None; inputs.len()];
    let packs = PackCache::default();
    let cx = Lower {
        inputs: &facts,
        outputs: &outputs,
        kernels: machine.kernels,
        threads: machine.threads,
        packs: &packs,
        constants: &constants,
    };
    let step = op.lower(&cx)?;
    // Stateful operators are never evaluated apart from a run.
    let states = States::default();
    let context = RunContext {
        kernels: machine.kernels,
        threads: machine.threads,
        states: &states,
        deadline: Some(Instant::now() + LOOP_TIME),
        profile: None,
        memory_limit: machine.memory_limit,
        cancelled: None,
    };
    match &step.run {
        Run::Alias => match (inputs, outputs.as_slice()) {
            ([input, ..], [output, ..]) => Ok(vec![input.reshaped(output.shape.clone())?]),
            _ => Err(OpError::Memory("an alias")),
        },
        Run::Tensors(run) => run(inputs, &context),
        Run::Arena(run) => {
            let mut lens = vec![step.scratch];
            for fact in &outputs {
                let size = fact.dtype.size().ok_or(OpError::Memory("strings"))?;
                lens.push(fact.elements().saturating_mul(size));
            }
            let regions: Vec<Region> =
                lens.iter().enumerate().map(|(block, &len)| Region { block, offset: 0, len }).collect();
            let regions = StepRegions::new(&lens, Vec::new(), regions[1..].to_vec(), regions[0])?;
            let mut blocks = Blocks::default();
            blocks.prepare(&lens)?;
            let tensors: Vec<Option<Tensor>> = inputs.iter().cloned().map(Some).collect();
            let sources: Vec<Source> = (0..inputs.len()).map(Source::Tensor).collect();
            run(&mut Io {
                views: blocks.views(&regions)?,
                sources: &sources,
                tensors: &tensors,
                context: &context,
            })?;
            outputs
                .iter()
                .enumerate()
                .map(|(index, fact)| {
                    let data = blocks.share(index + 1).ok_or(OpError::Memory("an output"))?;
                    Ok(Tensor::from_buffer(fact.dtype, fact.shape.clone(), data)?)
                })
                .collect()
        }
    }
}
