//! A signature of a model, compiled, with inputs to run it on.

use super::{
    LocalError, ModelArguments,
    inputs::{Given, inputs},
};
use crate::{
    formats::{self, LoadOptions, LoadedSignature},
    graph::{Backend, Cpu, Program, RunOptions},
    kernels::Threads,
    tensor::Tensor,
};
use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

const DEFAULT_SIGNATURE: &str = "serving_default";

/// A model, ready to run again and again.
pub(super) struct Prepared {
    pub(super) signature: LoadedSignature,
    pub(super) inputs: Vec<Tensor>,
    /// Outputs that the archive of inputs expects, by name.
    pub(super) expected: BTreeMap<String, Tensor>,
    /// Of the first run.
    pub(super) outputs: Vec<Tensor>,
    /// From the path until the model is planned for its inputs and weights are packed, without reading the inputs.
    pub(super) load_time: Duration,
    /// Of the run that touches the memory of all for the first time.
    pub(super) first_run_time: Duration,
    program: Box<dyn Program>,
}

/// When the archive of inputs is read. Unpacking it may take as long as loading the model.
pub(super) enum InputsAreRead {
    /// When the model is loaded: its load time is its own.
    Afterwards,
    /// While it is loaded.
    Meanwhile,
}

impl Prepared {
    pub(super) fn load(
        arguments: &ModelArguments,
        inputs_are_read: InputsAreRead,
    ) -> Result<Self, LocalError> {
        let meanwhile = matches!(inputs_are_read, InputsAreRead::Meanwhile) && arguments.threads > 1;
        let started = Instant::now();
        let load = || formats::load(&arguments.model, &LoadOptions::default());
        let (model, given) = if meanwhile && arguments.input.is_some() {
            thread::scope(|scope| {
                let given = thread::Builder::new().spawn_scoped(scope, || Given::read(arguments));
                (load(), given.ok().and_then(|given| given.join().ok()))
            })
        } else {
            (load(), None)
        };
        let model = model?;
        let mut signatures = model.signatures;
        let only = || signatures.keys().next().filter(|_| signatures.len() == 1).cloned();
        let wanted = arguments.signature.clone();
        let name = wanted.or_else(only).unwrap_or_else(|| DEFAULT_SIGNATURE.to_owned());
        let Some(signature) = signatures.remove(&name) else {
            let names: Vec<String> = signatures.into_keys().collect();
            let names = names.join("\", \"");
            let text = format!("the model has no signature \"{name}\"; it has \"{names}\"");
            return Err(LocalError::Misfit(text));
        };
        let threads = Threads::new(arguments.threads);
        let program = match arguments.selection.open(threads.clone()).map_err(LocalError::Misfit)? {
            Some(backend) => backend.compile(signature.graph.clone())?,
            None => {
                let cpu = Cpu::new(arguments.kernels(), threads);
                let cpu = if arguments.as_imported { cpu.as_imported() } else { cpu };
                cpu.compile(signature.graph.clone())?
            }
        };
        let compiled = started.elapsed();
        let given = given.unwrap_or_else(|| Given::read(arguments))?;
        let (inputs, expected) = inputs(&signature, arguments, given)?;
        let started = Instant::now();
        program.prepare(&inputs)?;
        let load_time = compiled + started.elapsed();
        let started = Instant::now();
        let mut outputs = Vec::with_capacity(signature.outputs.len());
        program.run(&inputs, &mut outputs, &RunOptions::default())?;
        let first_run_time = started.elapsed();
        Ok(Self { signature, inputs, expected, outputs, load_time, first_run_time, program })
    }

    /// One run; the outputs replace those of the vector.
    pub(super) fn run(&self, outputs: &mut Vec<Tensor>, options: &RunOptions<'_>) -> Result<(), LocalError> {
        outputs.clear();
        Ok(self.program.run(&self.inputs, outputs, options)?)
    }

    /// Names and tensors of the first run's outputs.
    pub(super) fn named_outputs(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.signature.outputs.iter().map(|info| info.name.as_str()).zip(&self.outputs)
    }
}
