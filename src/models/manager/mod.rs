//! Keeps the registry in line with the configuration and the file system.
//!
//! One thread looks for versions and decides; each load and unload has a thread of its own, so a slow or
//! broken model holds up no other. Requests never wait for any of this: they read the registry.

mod plan;
mod watch;
mod work;

use super::{
    Code, Error, Loader, ModelsConfig, Patience, Registry, State,
    source::{fingerprint, models_below, versions},
};
use crate::maps::Ordered;
use plan::{Phase, Plan, Progress, Step};
use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use watch::{WATCHED_POLL, Watch};

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub enum ConfigSource {
    /// Given once.
    Fixed(ModelsConfig),
    /// A model config file, read again at this interval (`None`: only on [`Manager::refresh`]).
    File(PathBuf, Option<Duration>),
    /// Every model one level below a folder; looked at whenever versions are.
    Folder(PathBuf),
}

/// How the manager works.
#[derive(Clone, Debug)]
pub struct ManagerSettings {
    /// Time between looks at the file system; `None` looks once per configuration.
    pub poll: Option<Duration>,
    /// Versions that load at the same time, at least 1.
    pub load_threads: usize,
    /// Versions that unload at the same time; 0 has no limit.
    pub unload_threads: usize,
    /// How often a failed load is tried again.
    pub retries: usize,
    /// Time between tries.
    pub retry_interval: Duration,
    /// A version that is no longer wanted goes before the new one is loaded, so that both are never in memory; no
    /// version answers in between.
    pub unload_first: bool,
    /// New labels may name versions that are not available.
    pub allow_labels_for_unavailable: bool,
    /// The same for the first configuration only.
    pub allow_labels_at_start: bool,
}

impl Default for ManagerSettings {
    /// TensorFlow Serving's defaults.
    fn default() -> Self {
        Self {
            poll: Some(Duration::from_secs(1)),
            load_threads: thread::available_parallelism().map_or(1, usize::from),
            unload_threads: 0,
            retries: 5,
            retry_interval: Duration::from_secs(60),
            unload_first: false,
            allow_labels_for_unavailable: false,
            allow_labels_at_start: true,
        }
    }
}

/// Loads, swaps and unloads versions until it is dropped.
pub struct Manager {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    registry: Arc<Registry>,
    loader: Arc<dyn Loader>,
    settings: ManagerSettings,
    source: ConfigSource,
    plan: Mutex<Plan>,
    changed: Condvar,
    /// What the config file said when it was last read.
    last_file: Mutex<Option<ModelsConfig>>,
}

impl Manager {
    /// Reads the configuration and starts to load; the registry counts as starting until every model has
    /// been tried once.
    ///
    /// Fails on a configuration that cannot be read or has mistakes, never because of a model.
    pub fn start(
        registry: Arc<Registry>,
        loader: Arc<dyn Loader>,
        settings: ManagerSettings,
        source: ConfigSource,
    ) -> Result<Self, Error> {
        let unload_first = settings.unload_first;
        let shared = Arc::new(Shared {
            registry,
            loader,
            settings,
            source,
            plan: Mutex::new(Plan { unload_first, ..Plan::default() }),
            changed: Condvar::new(),
            last_file: Mutex::default(),
        });
        let config = shared.read_source()?;
        shared.configure(&config, shared.settings.allow_labels_at_start)?;
        shared.registry.set_starting(true);
        let worker = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("models".into())
            .spawn(move || worker.run())
            .map_err(|error| Error::internal(format!("cannot start the thread of the models: {error}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Replaces the configuration and waits until each of its models answers.
    ///
    /// Fails with the texts of [`ModelsConfig::from_proto`] and labels before anything changes, with
    /// `UNKNOWN` `N servable(s) did not become available: ...` when models do not load, with
    /// `FAILED_PRECONDITION` for a base path without versions, with `DEADLINE_EXCEEDED`.
    pub fn reload(&self, config: &ModelsConfig, patience: &Patience) -> Result<(), Error> {
        self.shared.configure(config, self.shared.settings.allow_labels_for_unavailable)?;
        let names: Vec<&str> = config.models.keys().map(String::as_str).collect();
        self.shared.wait(&names, patience.deadline)
    }

    /// Reads the configuration file again and looks for versions at once, without waiting for loads. A
    /// configuration with mistakes leaves everything as it is.
    pub fn refresh(&self) -> Result<(), Error> {
        let config = self.shared.read_source()?;
        self.shared.configure(&config, self.shared.settings.allow_labels_for_unavailable)
    }

    /// Waits until every model of the configuration answers or has failed for good; those errors in one.
    /// A base path without versions is not waited for.
    pub fn wait_until_available(&self, deadline: Option<Instant>) -> Result<(), Error> {
        let names = self.shared.registry.names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match self.shared.wait(&names, deadline) {
            Err(error) if error.code == Code::FailedPrecondition => Ok(()),
            result => result,
        }
    }

    /// Waits until every model has been tried once, so that all that load at first try answer; after
    /// [`Manager::refresh`], until the same holds for all versions that it found.
    pub fn wait_until_tried(&self) {
        let mut plan = self.shared.lock();
        let pending = |plan: &Plan| {
            plan.looking || plan.models.values().any(|model| model.progress() == Progress::Pending)
        };
        while !plan.stopping && pending(&plan) {
            plan = self.shared.changed.wait(plan).unwrap_or_else(PoisonError::into_inner);
        }
        // The manager's own thread may be a moment later.
        self.shared.registry.set_starting(false);
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_source(&self) -> Result<ModelsConfig, Error> {
        match &self.source {
            ConfigSource::Fixed(config) => Ok(config.clone()),
            ConfigSource::Folder(folder) => models_below(folder, &*self.loader),
            ConfigSource::File(path, _) => {
                let config = ModelsConfig::from_file(path)?;
                *self.last_file.lock().unwrap_or_else(PoisonError::into_inner) = Some(config.clone());
                Ok(config)
            }
        }
    }

    fn configure(&self, config: &ModelsConfig, allow_unavailable: bool) -> Result<(), Error> {
        let labels =
            config.models.values().map(|model| (model.name.clone(), model.labels.clone())).into_map();
        // The plan is locked throughout, so that two configurations cannot mix.
        let mut plan = self.lock();
        self.registry.set_labels(&labels, allow_unavailable)?;
        self.registry.set_listed(&config.models.keys().cloned().collect::<Vec<_>>());
        plan.configure(config);
        plan.look_now = true;
        plan.looking = true;
        self.close_dropped(&mut plan);
        drop(plan);
        self.changed.notify_all();
        Ok(())
    }

    fn run(self: Arc<Self>) {
        let mut last_look = None;
        let mut last_config = Instant::now();
        let waker = Arc::downgrade(&self);
        let watch = self.settings.poll.and_then(|_| {
            Watch::start(move || {
                if let Some(shared) = waker.upgrade() {
                    // Under the lock, so that nobody goes to sleep meanwhile.
                    drop(shared.lock());
                    shared.changed.notify_all();
                }
            })
        });
        loop {
            let asked = std::mem::take(&mut self.lock().look_now);
            let watched = watch.as_ref().filter(|watch| self.sees_all(watch));
            let next_look = self.next_look(last_look, watched);
            let look_is_due = asked || next_look.is_some_and(|due| due <= Instant::now());
            if let (true, Some(watch)) = (look_is_due, &watch) {
                watch.take();
            }
            self.reread_config(look_is_due, &mut last_config);
            self.look(look_is_due);
            if look_is_due {
                last_look = Some(Instant::now());
            }
            let watched = watch.as_ref().filter(|watch| self.sees_all(watch));
            let mut plan = self.lock();
            if plan.stopping {
                return;
            }
            if plan.looking && !plan.look_now {
                plan.looking = false;
                self.changed.notify_all();
            }
            while let Some(step) =
                plan.next_step(Instant::now(), self.settings.load_threads, self.settings.unload_threads)
            {
                self.begin(&mut plan, step);
            }
            if plan.models.values().all(|model| model.progress() != Progress::Pending) {
                self.registry.set_starting(false);
            }
            if plan.look_now {
                continue;
            }
            let wait = self.pause(&plan, self.next_look(last_look, watched), last_config);
            let waited = self.changed.wait_timeout(plan, wait).unwrap_or_else(PoisonError::into_inner);
            drop(waited);
        }
    }

    /// When the file system is to be looked at: after each interval, or where every change is seen, so long after a
    /// change: what is being copied into place gets as much time as without.
    fn next_look(&self, last_look: Option<Instant>, watched: Option<&Watch>) -> Option<Instant> {
        let Some(last) = last_look else { return Some(Instant::now()) };
        let poll = self.settings.poll?;
        match watched {
            None => Some(last + poll),
            Some(watch) => {
                let rarely = last + poll.max(WATCHED_POLL);
                Some(watch.changed().map_or(rarely, |changed| (changed + poll).min(rarely)))
            }
        }
    }

    /// Whether all that is looked at is watched. What failed is tried again when its files change, which only a look
    /// tells.
    fn sees_all(&self, watch: &Watch) -> bool {
        let plan = self.lock();
        let mut versions = plan.models.values().flat_map(|model| model.versions.values());
        if versions.any(|version| matches!(version.phase, Phase::Waiting(_) | Phase::Failed)) {
            return false;
        }
        let configs = plan.models.values().filter_map(|model| model.config.as_ref());
        let mut folders = configs.map(|config| config.base_path.clone()).into_set();
        drop(plan);
        if let ConfigSource::Folder(folder) = &self.source {
            folders.insert(folder.clone());
        }
        watch.set(&folders)
    }

    /// How long nothing is due.
    fn pause(&self, plan: &Plan, next_look: Option<Instant>, last_config: Instant) -> Duration {
        const LONGEST: Duration = Duration::from_secs(3600);
        let next_config = match self.source {
            ConfigSource::File(_, Some(poll)) => Some(last_config + poll),
            _ => None,
        };
        let now = Instant::now();
        [next_look, next_config, plan.next_retry()]
            .into_iter()
            .flatten()
            .map(|due| due.saturating_duration_since(now))
            .fold(LONGEST, Duration::min)
            .max(Duration::from_millis(1))
    }

    /// Reads a polled configuration again; what cannot be read is logged and changes nothing.
    fn reread_config(&self, look_is_due: bool, last_config: &mut Instant) {
        let config = match &self.source {
            ConfigSource::Fixed(_) => return,
            ConfigSource::Folder(folder) => {
                if !look_is_due {
                    return;
                }
                models_below(folder, &*self.loader)
            }
            ConfigSource::File(path, poll) => {
                if poll.is_none_or(|poll| last_config.elapsed() < poll) {
                    return;
                }
                *last_config = Instant::now();
                ModelsConfig::from_file(path)
            }
        };
        let mut last = self.last_file.lock().unwrap_or_else(PoisonError::into_inner);
        match config {
            Err(error) => log::error!("the model configuration stays as it is: {error}"),
            Ok(config) if last.as_ref() == Some(&config) => {}
            Ok(config) => match self.configure(&config, self.settings.allow_labels_for_unavailable) {
                Ok(()) => *last = Some(config),
                Err(error) => log::error!("the model configuration stays as it is: {error}"),
            },
        }
    }

    /// Looks at the file system for all models, or for those whose configuration is new. No lock is held
    /// while it does: a network file system may be slow.
    fn look(&self, all: bool) {
        let plan = self.lock();
        let due: Vec<(String, PathBuf)> = plan
            .models
            .iter()
            .filter_map(|(name, model)| Some((name, model.config.as_ref()?, model.scanned)))
            .filter(|(_, _, scanned)| all || !scanned)
            .map(|(name, config, _)| (name.clone(), config.base_path.clone()))
            .collect();
        let failed: Vec<(String, i64, PathBuf)> = plan
            .models
            .iter()
            .flat_map(|(name, model)| {
                model.versions.iter().map(move |(number, version)| (name, number, version))
            })
            .filter(|(_, _, version)| matches!(version.phase, Phase::Waiting(_) | Phase::Failed))
            .map(|(name, number, version)| (name.clone(), *number, version.path.clone()))
            .collect();
        drop(plan);
        for (name, base_path) in due {
            let offered = versions(&base_path, &*self.loader);
            let mut plan = self.lock();
            // The configuration may have changed meanwhile.
            let current = plan.models.get(&name).and_then(|model| model.config.as_ref());
            if current.is_some_and(|config| config.base_path == base_path) {
                plan.offer(&name, offered);
                let problem = plan.models.get(&name).and_then(|model| model.problem.clone());
                self.registry.set_problem(&name, problem);
                self.close_dropped(&mut plan);
            }
        }
        if all {
            self.retry_changed(failed);
        }
        self.changed.notify_all();
    }

    /// Tries failed versions again whose files changed since.
    fn retry_changed(&self, failed: Vec<(String, i64, PathBuf)>) {
        for (name, number, path) in failed {
            let now = fingerprint(&path);
            let mut plan = self.lock();
            let version = plan.models.get_mut(&name).and_then(|model| model.versions.get_mut(&number));
            if let Some(version) = version
                && matches!(version.phase, Phase::Waiting(_) | Phase::Failed)
                && version.fingerprint != now
            {
                log::info!("files of {name} version {number} changed; loading it again");
                version.phase = Phase::New;
                version.failures = 0;
            }
        }
    }

    fn close_dropped(&self, plan: &mut Plan) {
        for (name, version, error) in plan.dropped.drain(..) {
            self.registry.set_status(&name, version, State::End, error);
        }
    }

    /// Waits until each model answers, has failed for good or has nothing to load.
    fn wait(&self, names: &[&str], deadline: Option<Instant>) -> Result<(), Error> {
        let mut plan = self.lock();
        loop {
            let all: Vec<_> = names
                .iter()
                .filter_map(|&name| plan.models.get(name).map(|model| (name, model.progress())))
                .collect();
            let settled =
                !all.iter().any(|(_, progress)| matches!(progress, Progress::Pending | Progress::Retrying));
            if settled {
                return outcome(&all);
            }
            if plan.stopping {
                return Err(Error::cancelled("The server is shutting down"));
            }
            let wait = match deadline {
                None => Duration::from_secs(3600),
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
            };
            if wait.is_zero() {
                return Err(Error::deadline_exceeded("The models did not become available in time"));
            }
            plan = self.changed.wait_timeout(plan, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// One error for all models that failed, in TensorFlow Serving's words.
fn outcome(models: &[(&str, Progress)]) -> Result<(), Error> {
    let failures: Vec<String> = models
        .iter()
        .filter_map(|(name, progress)| match progress {
            Progress::Failed(errors) => Some((name, errors)),
            _ => None,
        })
        .flat_map(|(name, errors)| errors.iter().map(move |(version, error)| (name, version, error)))
        .map(|(name, version, error)| format!("{{name: {name} version: {version}}} due to error: {error}, "))
        .collect();
    if !failures.is_empty() {
        let message =
            format!("{} servable(s) did not become available: {{{}}}", failures.len(), failures.concat());
        return Err(Error { code: Code::Unknown, message: message.into() });
    }
    let nothing = models.iter().find_map(|(_, progress)| match progress {
        Progress::Nothing(problem) => Some(problem.clone()),
        _ => None,
    });
    nothing.map_or(Ok(()), |problem| Err(Error::failed_precondition(problem)))
}

#[cfg(test)]
mod tests;
