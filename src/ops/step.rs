//! Lowered operators: what runs, and the memory it may touch.

use super::{Fact, OpError, Profile, Tensors, state::States, weights};
use crate::{
    kernels::{Kernels, Threads},
    tensor::{
        Buffer, Tensor,
        buffer::{Plain, Views, view},
        release_free_memory,
    },
};
use std::{
    any::Any,
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

type ArenaFn = dyn Fn(&mut Io<'_>) -> Result<(), OpError> + Send + Sync;
type TensorsFn = dyn Fn(&[Tensor], &RunContext<'_>) -> Result<Tensors, OpError> + Send + Sync;

/// How a step computes.
pub enum Run {
    /// Reads and writes planned memory; never allocates.
    Arena(Box<ArenaFn>),
    /// Works on whole tensors and may allocate: strings, shapes that depend on data, state,
    /// control flow.
    Tensors(Box<TensorsFn>),
    /// Output 0 is input 0 under another shape; nothing runs.
    Alias,
}

/// An operator, ready to run on inputs of the planned shapes.
pub struct Step {
    /// What to do.
    pub run: Run,
    /// Bytes of scratch memory.
    pub scratch: usize,
}

impl Step {
    /// A step over planned memory.
    pub fn arena(run: impl Fn(&mut Io<'_>) -> Result<(), OpError> + Send + Sync + 'static) -> Self {
        Self { run: Run::Arena(Box::new(run)), scratch: 0 }
    }

    /// A step over whole tensors.
    pub fn tensors(
        run: impl Fn(&[Tensor], &RunContext<'_>) -> Result<Tensors, OpError> + Send + Sync + 'static,
    ) -> Self {
        Self { run: Run::Tensors(Box::new(run)), scratch: 0 }
    }

    /// No step: the output is the input under another shape.
    pub fn alias() -> Self {
        Self { run: Run::Alias, scratch: 0 }
    }

    /// The same with scratch memory of `bytes`.
    pub fn with_scratch(mut self, bytes: usize) -> Self {
        self.scratch = bytes;
        self
    }
}

/// What a running step may use besides its memory.
pub struct RunContext<'a> {
    /// The kernels of this machine.
    pub kernels: &'static Kernels,
    /// Cores that this run may use.
    pub threads: &'a Threads,
    /// The model's variables.
    pub states: &'a States,
    /// Loops end with [`OpError::Deadline`] after this moment.
    pub deadline: Option<Instant>,
    /// Takes the time of every step, where given.
    pub profile: Option<&'a Profile>,
    /// Bytes that one plan may ask for.
    pub memory_limit: usize,
    /// Loops end with [`OpError::Cancelled`] once this is set.
    pub cancelled: Option<&'a AtomicBool>,
}

/// Where an input of a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The n-th input region of the step.
    Region(usize),
    /// A tensor of the run: a graph input, a constant, the output of a [`Run::Tensors`] step.
    Tensor(usize),
}

/// The memory of one step while it runs.
pub struct Io<'a> {
    pub(crate) views: Views<'a>,
    pub(crate) sources: &'a [Source],
    pub(crate) tensors: &'a [Option<Tensor>],
    pub(crate) context: &'a RunContext<'a>,
}

impl<'a> Io<'a> {
    /// Input `index` as elements of `T`; `bool` is read as `u8`.
    pub fn input<T: Plain>(&mut self, index: usize) -> Result<&'a [T], OpError> {
        match self.sources.get(index) {
            Some(Source::Region(region)) => self.views.input(*region),
            Some(Source::Tensor(tensor)) => {
                self.tensors.get(*tensor).and_then(Option::as_ref).and_then(|tensor| {
                    if tensor.is_empty() { Some(&[][..]) } else { view(tensor.as_bytes()) }
                })
            }
            None => None,
        }
        .ok_or(OpError::Memory("an input"))
    }

    /// The bytes of input `index`, at any address: those of a table in a mapped file are read where they stand.
    pub fn input_bytes(&mut self, index: usize) -> Result<&'a [u8], OpError> {
        match self.sources.get(index) {
            Some(Source::Tensor(tensor)) => {
                let buffer = self.tensors.get(*tensor).and_then(Option::as_ref).and_then(Tensor::buffer);
                buffer.map(Buffer::stored_bytes).ok_or(OpError::Memory("an input"))
            }
            _ => self.input(index),
        }
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.sources.len()
    }

    /// The next output as elements of `T`; each output is given out once, in order. The memory
    /// holds whatever was there before.
    pub fn next_output<T: Plain>(&mut self) -> Result<&'a mut [T], OpError> {
        self.views.next_output().ok_or(OpError::Memory("an output"))
    }

    /// The scratch memory; given out once.
    pub fn scratch<T: Plain>(&mut self) -> Result<&'a mut [T], OpError> {
        self.views.scratch().ok_or(OpError::Memory("its scratch"))
    }

    /// Kernels and threads.
    pub fn context(&self) -> &'a RunContext<'a> {
        self.context
    }
}

/// Packed weights that would be made.
pub(crate) struct Asked {
    /// The constants that they are made from.
    pub(crate) constants: Vec<usize>,
    pub(crate) size: PackedSize,
}

/// How much memory packed weights take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PackedSize {
    /// That of their constants, or none where these are panels of a model's file that fit.
    Same,
    /// So many bytes more than their constants, whatever these are.
    Larger(usize),
}

/// Packed weights of a graph, shared by all its plans.
///
/// Weights of a file are looked at one by one, in memory that is freed when they are packed. The allocator cannot use
/// much of that for the next ones (their alignment asks for a little more than the hole has), so it is given back to the
/// system now and then.
#[derive(Default)]
pub struct PackCache {
    packs: Mutex<HashMap<(&'static str, Vec<usize>), Arc<dyn Any + Send + Sync>>>,
    /// Bytes of weights that were packed since free memory was given back.
    untidy: AtomicUsize,
    /// Nothing is packed; what would be is kept here, in order.
    estimated: Option<Mutex<Vec<Asked>>>,
}

impl PackCache {
    /// One that packs nothing: [`Lower::packed`] fails with [`OpError::Estimate`] and remembers what was asked for.
    pub(crate) fn estimating() -> Self {
        Self { estimated: Some(Mutex::default()), ..Self::default() }
    }

    /// What was asked for, in order.
    pub(crate) fn asked(self) -> Vec<Asked> {
        self.estimated
            .map(|asked| asked.into_inner().unwrap_or_else(PoisonError::into_inner))
            .unwrap_or_default()
    }

    /// Gives back what packing left free, if weights of `least` bytes were packed since the last time.
    pub(crate) fn tidy(&self, least: usize) {
        if self.untidy.load(Ordering::Relaxed) >= least {
            self.untidy.store(0, Ordering::Relaxed);
            release_free_memory();
        }
    }
}

/// [`PackCache::tidy`] comes after weights of so many bytes.
pub(crate) const TIDY_EVERY: usize = 4 << 20;

/// Bytes that packing a constant leaves free: what its elements are computed from, and themselves.
pub(crate) fn left_free(constant: &Tensor) -> usize {
    if constant.buffer().is_none_or(Buffer::is_stored) { 0 } else { 2 * constant.memory() }
}

/// What an operator is lowered for.
pub struct Lower<'a> {
    /// Facts of the inputs.
    pub inputs: &'a [Fact],
    /// Facts of the outputs, as inferred.
    pub outputs: &'a [Fact],
    /// The kernels of this machine.
    pub kernels: &'static Kernels,
    /// Threads that runs of this plan can have, and that weights are packed on.
    pub threads: &'a Threads,
    pub(crate) packs: &'a PackCache,
    /// For each input the number of the graph's constant that it is.
    pub(crate) constants: &'a [Option<usize>],
}

impl Lower<'_> {
    /// The known value of an input.
    pub fn value(&self, index: usize) -> Option<&Tensor> {
        self.inputs.get(index)?.value.as_ref()
    }

    /// Packed weights made from the inputs `from`: made once per graph where these are constants
    /// of it, else made for this plan. `kind` tells apart what the same weights are packed for.
    pub fn packed<T: Any + Send + Sync>(
        &self,
        kind: &'static str,
        from: &[usize],
        pack: impl FnOnce() -> Result<T, OpError>,
    ) -> Result<Arc<T>, OpError> {
        self.packed_as(kind, from, PackedSize::Same, pack)
    }

    /// [`Lower::packed`] for weights of any size.
    pub(super) fn packed_as<T: Any + Send + Sync>(
        &self,
        kind: &'static str,
        from: &[usize],
        size: PackedSize,
        pack: impl FnOnce() -> Result<T, OpError>,
    ) -> Result<Arc<T>, OpError> {
        let numbers: Option<Vec<usize>> =
            from.iter().map(|&index| self.constants.get(index).copied().flatten()).collect();
        let Some(numbers) = numbers else {
            return Ok(Arc::new(pack()?));
        };
        let key = (kind, numbers);
        let mut packs = self.packs.packs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = packs.get(&key).cloned()
            && let Ok(found) = found.downcast::<T>()
        {
            return Ok(found);
        }
        if let Some(asked) = &self.packs.estimated {
            let constants = key.1.clone();
            asked.lock().unwrap_or_else(PoisonError::into_inner).push(Asked { constants, size });
            packs.insert(key, Arc::new(()));
            return Err(OpError::Estimate);
        }
        let made = Arc::new(pack()?);
        packs.insert(key, made.clone());
        let sources = || from.iter().filter_map(|&index| self.value(index));
        // What was read of the model's file is not needed again, but for panels that are used there.
        let used = |tensor: &Tensor| size == PackedSize::Same && weights::panels(tensor).is_some();
        let sources = || sources().filter(|tensor| !used(tensor));
        sources().for_each(Tensor::release);
        let handled = |tensor: &Tensor| tensor.memory().max(left_free(tensor));
        self.packs.untidy.fetch_add(sources().map(handled).sum(), Ordering::Relaxed);
        self.packs.tidy(TIDY_EVERY);
        Ok(made)
    }
}
