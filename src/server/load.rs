//! From a folder to a servable that is ready to answer: read, compile, batch, warm up.

use super::{observed::observed, record::Record, systemd::Heartbeat, warm_up};
use crate::{
    api::modelarts,
    cli::{
        Options,
        local::{InspectArguments, shape_for},
    },
    formats::{
        self, Files, LoadOptions, LoadedModel, built_in, bundle,
        signed::{self, PublicKey},
    },
    graph::{Backend, Budget, Cpu, ProcessMemory},
    kernels::{Threads, best, in_brain_floats},
    models::{
        BatchParameters, Error, Loader, Recorder, Registry, Scheduler, Servable, Stats, TensorInfo, batched,
        convert::BATCHING_FILE, estimate, image, reserve, sidecar,
    },
};
use std::{path::Path, sync::Arc};

/// Loads any format for the chosen backend.
pub(super) struct FormatLoader {
    cpu: Cpu,
    /// Those of the kernels.
    threads: Threads,
    /// What computes instead of the kernels, where that is wanted.
    other: Option<Box<dyn Backend>>,
    budget: Arc<Budget>,
    options: LoadOptions,
    batching: Option<Batching>,
    /// How often each warm-up request runs; `None` when there is no warm-up.
    warmup_iterations: Option<usize>,
    stats: Arc<Stats>,
    check_method_names: bool,
    recorder: Option<Arc<dyn Recorder>>,
    /// Every model must be signed with it.
    verify_key: Option<PublicKey>,
}

struct Batching {
    common: Arc<BatchParameters>,
    per_model: bool,
    scheduler: Arc<Scheduler>,
}

impl FormatLoader {
    /// Fails on batching parameters that cannot be read, and on a record that cannot be written.
    pub(super) fn new(options: &Options, stats: Arc<Stats>) -> Result<Self, Error> {
        let threads = Threads::new(options.threads);
        let budget = Budget::new(options.memory_limit);
        let other = options.selection.open(threads.clone()).map_err(Error::failed_precondition)?;
        Ok(Self {
            cpu: Cpu::new(if options.brain_floats { in_brain_floats() } else { best() }, threads.clone())
                .with_budget(budget.clone()),
            threads,
            other,
            budget,
            options: LoadOptions { tags: options.saved_model_tags.clone() },
            batching: options.enable_batching.then(|| Batching::new(options)).transpose()?,
            warmup_iterations: options.enable_warmup.then_some(options.warmup_iterations),
            check_method_names: options.check_method_names,
            recorder: Record::of(options, &stats)?,
            verify_key: options.verify_key.as_deref().map(PublicKey::read).transpose()?,
            stats,
        })
    }

    fn backend(&self) -> &dyn Backend {
        self.other.as_deref().unwrap_or(&self.cpu)
    }

    fn finish(&self, servable: Servable, version: Option<&Files>) -> Result<Servable, Error> {
        let mut servable = observed(servable, &self.stats);
        if let Some(batching) = &self.batching {
            let parameters = batching.parameters(version)?;
            servable = batched(servable, &parameters, &batching.scheduler, &self.stats);
        }
        if let (Some(iterations), Some(version)) = (self.warmup_iterations, version) {
            servable = warm_up::run(servable, version, iterations, &self.stats)?;
        }
        servable.check_method_names = self.check_method_names;
        // Not before: warm-up is no traffic.
        servable.recorder = self.recorder.clone();
        Ok(servable)
    }
}

impl Loader for FormatLoader {
    fn load(&self, name: &str, version: i64, path: &Path) -> Result<Servable, Error> {
        let files = match &self.verify_key {
            None => Files::of_folder(path),
            Some(key) => signed::open_folder(path, key)?,
        };
        self.load_files(name, version, &files)
    }

    fn recognises(&self, path: &Path) -> bool {
        formats::is_model(path)
    }
}

impl FormatLoader {
    fn load_files(&self, name: &str, version: i64, files: &Files) -> Result<Servable, Error> {
        let model = files.load(&self.options)?;
        let reserved = reserve(&model, &self.cpu, &self.budget)?;
        let mut servable = Servable::assemble(name, version, model, self.backend())?;
        servable.reserved = Some(reserved);
        sidecar::apply(&mut servable, files)?;
        self.finish(servable, Some(files))
    }
}

/// Finds models and loads none.
pub(super) struct Finder;

impl Loader for Finder {
    fn load(&self, name: &str, _: i64, _: &Path) -> Result<Servable, Error> {
        Err(Error::unimplemented(format!("{name} is only looked for")))
    }

    fn recognises(&self, path: &Path) -> bool {
        formats::is_model(path)
    }
}

impl Batching {
    fn new(options: &Options) -> Result<Self, Error> {
        let common = match &options.batching_parameters_file {
            Some(path) => BatchParameters::from_file(path)?,
            None if options.selection.is_device() => BatchParameters::for_device(),
            None => BatchParameters::default(),
        };
        let scheduler = Arc::new(Scheduler::new(common.num_batch_threads));
        Ok(Self { common: Arc::new(common), per_model: options.per_model_batching, scheduler })
    }

    /// A version's own parameters where they are allowed and there; the slots are always shared.
    fn parameters(&self, version: Option<&Files>) -> Result<Arc<BatchParameters>, Error> {
        let Some(version) = version.filter(|_| self.per_model) else { return Ok(self.common.clone()) };
        let path = version.place(Path::new(BATCHING_FILE));
        let unreadable = |error| Error::not_found(format!("Cannot read {}: {error}", path.display()));
        match version.find(Path::new(BATCHING_FILE)).map_err(unreadable)? {
            Some(text) => Ok(Arc::new(BatchParameters::from_content(text.as_bytes(), &path)?)),
            None => Ok(self.common.clone()),
        }
    }
}

/// The model of the heartbeat, which nobody can call.
pub(super) fn heartbeat(loader: &FormatLoader) -> Result<Heartbeat, Error> {
    let [model, ..] = &built_in::MODELS;
    let servable = Servable::assemble(model.name, model.version, model.load()?, loader.backend())?;
    Ok(Heartbeat::new(servable, loader.threads.clone()))
}

/// Publishes the models of the bundle that this binary is; otherwise those that are built into it.
pub(super) fn publish_built_in(registry: &Registry, loader: &FormatLoader) -> Result<(), Error> {
    if let Some(bundle) = bundle::own(loader.verify_key.as_ref())? {
        for model in bundle.models {
            registry.publish(loader.load_files(&model.name, model.version, &model.files)?);
        }
        return Ok(());
    }
    for model in &built_in::MODELS {
        let servable = Servable::assemble(model.name, model.version, model.load()?, loader.backend())?;
        registry.publish(loader.finish(servable, None)?);
    }
    Ok(())
}

/// What a server takes that a command does not: its threads, listeners, connections, and above all their code, of which
/// the kernel maps more or less around what runs (1.4 to 2.7 MB where it was measured).
const SERVING: usize = 2_100_000;

/// The memory that the model will take, in a line. `process` is what this process took once the model was loaded.
fn memory(model: &LoadedModel, arguments: &InspectArguments, process: ProcessMemory) -> String {
    let backend = Cpu::new(best(), Threads::single());
    let shape_of = |info: &formats::TensorInfo, declared: Option<&[Option<usize>]>| {
        shape_for(&info.name, declared, &arguments.shapes, arguments.batch)
    };
    let megabytes = |bytes: usize| bytes as f64 / 1e6;
    match estimate(model, &backend, &shape_of) {
        Ok(memory) => {
            let base = SERVING + process.resident;
            let (called, loaded) = (base + memory.total(), SERVING + process.peak);
            let besides = memory.total() - memory.held();
            format!(
                "memory of a server with it: {:.1} MB at most{} ({:.1} MB of weights, {:.1} MB for one call of these \
                 shapes{}, {:.1} MB for the process; {:.1} MB while it loads)\n",
                megabytes(called.max(loaded)),
                if loaded > called { ", while it loads" } else { "" },
                megabytes(memory.held()),
                megabytes(besides),
                if memory.complete { "" } else { ", and more where shapes depend on data" },
                megabytes(base),
                megabytes(loaded),
            )
        }
        Err(error) => format!("memory of a server with it: unknown for these shapes: {error}\n"),
    }
}

/// Describes the model at a path, for `kinglet inspect`; beside a customize_service.py, with the kinglet.toml that does
/// the same.
pub fn inspect(arguments: &InspectArguments) -> Result<String, Error> {
    let path = arguments.model.as_path();
    let model = formats::load(path, &LoadOptions::default())?;
    let process = ProcessMemory::now();
    let mut text = formats::describe(&model);
    text.push_str(&memory(&model, arguments, process));
    let python = path.join("customize_service.py");
    if let Ok(code) = std::fs::read(&python) {
        let inputs = model.signatures.values().flat_map(|signature| &signature.inputs);
        let mut images = inputs.cloned().map(TensorInfo::from).filter(image::takes_images);
        let input = images.next().map(|info| info.name);
        text.push_str("\ncustomize_service.py is not run. This kinglet.toml beside the model does what it seems to do:\n\n");
        text.push_str(&modelarts::suggest(&String::from_utf8_lossy(&code), input.as_deref()));
    }
    Ok(text)
}
