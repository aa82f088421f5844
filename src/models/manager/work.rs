//! The threads that load and unload one version each.

use super::{
    super::{Code, Error, Servable, State, source::fingerprint},
    Phase, Plan, Shared, Step,
};
use crate::tensor::release_free_memory;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

impl Shared {
    /// Starts a thread for a step.
    pub(super) fn begin(self: &Arc<Self>, plan: &mut Plan, step: Step) {
        let shared = Arc::clone(self);
        let (thread_name, work): (String, Box<dyn FnOnce() + Send>) = match step.clone() {
            Step::Load { name, version, path } => {
                let error = plan
                    .models
                    .get(&name)
                    .and_then(|model| model.versions.get(&version))
                    .and_then(|version| version.error.clone());
                self.registry.set_status(&name, version, State::Loading, error);
                (format!("load {name}"), Box::new(move || shared.load(&name, version, path)))
            }
            Step::Unload { name, version } => {
                let servable = self.registry.withdraw(&name, version);
                (format!("unload {name}"), Box::new(move || shared.unload(&name, version, servable)))
            }
        };
        if let Err(error) = thread::Builder::new().name(thread_name).spawn(work) {
            log::error!("cannot start a thread: {error}");
            match step {
                Step::Load { name, version, path } => {
                    let error = Error::resource_exhausted(format!("cannot start a thread to load: {error}"));
                    self.record_failure(plan, &name, version, fingerprint(&path), error);
                }
                Step::Unload { name, version } => {
                    plan.unloaded(&name, version);
                    self.registry.set_status(&name, version, State::End, None);
                }
            }
        }
    }

    fn load(&self, name: &str, version: i64, path: PathBuf) {
        let started = Instant::now();
        // Taken before the files are read: what changes meanwhile counts as a change.
        let fingerprint = fingerprint(&path);
        let result = self.load_guarded(name, version, &path);
        let mut plan = self.lock();
        plan.loading = plan.loading.saturating_sub(1);
        match result {
            Ok(servable) => self.record_success(&mut plan, name, version, servable, started.elapsed()),
            Err(error) => self.record_failure(&mut plan, name, version, fingerprint, error),
        }
        drop(plan);
        self.changed.notify_all();
        release_free_memory();
    }

    /// A loader that panics fails its model, not the server.
    fn load_guarded(&self, name: &str, version: i64, path: &Path) -> Result<Servable, Error> {
        catch_unwind(AssertUnwindSafe(|| self.loader.load(name, version, path))).unwrap_or_else(|_| {
            Err(Error::internal(
                "the loader panicked, which is a bug of kinglet: please report it with the log's last lines",
            ))
        })
    }

    fn record_success(&self, plan: &mut Plan, name: &str, version: i64, servable: Servable, took: Duration) {
        let entry = plan.models.get_mut(name).and_then(|model| model.versions.get_mut(&version));
        match entry {
            Some(entry) if entry.wanted && !plan.stopping => {
                entry.phase = Phase::Ready;
                entry.error = None;
                let megabytes = servable.weight_bytes as f64 / 1e6;
                self.registry.publish(Servable { name: name.to_owned(), version, ..servable });
                log::info!(
                    "{name} version {version} is available ({megabytes:.1} MB of weights, loaded in {:.0} ms)",
                    took.as_secs_f64() * 1e3
                );
            }
            _ => {
                // Not wanted any more; it never answered, so there is nothing to wait for.
                drop(servable);
                plan.unloading += 1;
                plan.unloaded(name, version);
                self.registry.set_status(name, version, State::End, None);
            }
        }
    }

    fn record_failure(&self, plan: &mut Plan, name: &str, version: i64, fingerprint: u64, error: Error) {
        let entry = plan.models.get_mut(name).and_then(|model| model.versions.get_mut(&version));
        let Some(entry) = entry.filter(|entry| entry.wanted) else {
            plan.unloading += 1;
            plan.unloaded(name, version);
            self.registry.set_status(name, version, State::End, Some(error));
            return;
        };
        entry.failures += 1;
        entry.error = Some(error.clone());
        entry.fingerprint = fingerprint;
        let path = entry.path.display();
        // An operator that is missing now is missing in a minute.
        let final_failure = entry.failures > self.settings.retries || error.code == Code::Unimplemented;
        if final_failure {
            entry.phase = Phase::Failed;
            log::error!("Loading servable: {{name: {name} version: {version}}} failed ({path}): {error}");
            self.registry.set_status(name, version, State::End, Some(error));
        } else {
            entry.phase = Phase::Waiting(Instant::now() + self.settings.retry_interval);
            log::error!(
                "loading {name} version {version} from {path} failed ({} of {} tries, again in {:?} or when \
                 files change): {error}",
                entry.failures,
                self.settings.retries + 1,
                self.settings.retry_interval
            );
            self.registry.set_status(name, version, State::Loading, Some(error));
        }
    }

    fn unload(&self, name: &str, version: i64, servable: Option<Arc<Servable>>) {
        if let Some(servable) = servable {
            self.wait_for_requests(&servable);
            drop(servable);
        }
        release_free_memory();
        let mut plan = self.lock();
        self.registry.set_status(name, version, State::End, None);
        plan.unloaded(name, version);
        drop(plan);
        log::info!("{name} version {version} is unloaded");
        self.changed.notify_all();
    }

    /// Requests in flight hold the servable; the last of them must not be the one that frees a gigabyte.
    fn wait_for_requests(&self, servable: &Arc<Servable>) {
        let mut pause = Duration::from_millis(1);
        while Arc::strong_count(servable) > 1 {
            if self.lock().stopping {
                return;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}
