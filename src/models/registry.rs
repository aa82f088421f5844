//! The models by name and version. Lookups are a read lock and a map; a swap replaces an `Arc`,
//! so a request keeps the version it started with.

use super::{Error, ModelRef, Servable, VersionChoice};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

/// Ended versions that a model's status keeps; older ones are forgotten, so that the list of a model that
/// is replaced every hour does not grow for ever.
const KEPT_ENDED: usize = 32;

/// Where a version stands in its life; the numbers are TensorFlow Serving's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum State {
    /// Known, nothing done yet.
    Start = 10,
    /// Being loaded.
    Loading = 20,
    /// Answers requests.
    Available = 30,
    /// No longer answers, being removed.
    Unloading = 40,
    /// Gone, or failed.
    End = 50,
}

/// One line of a model's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionStatus {
    /// The version.
    pub version: i64,
    /// Its state.
    pub state: State,
    /// Why it failed; `None` when nothing went wrong. A version that is tried again is `Loading` with the
    /// error of the last try.
    pub error: Option<Error>,
}

#[derive(Default)]
struct Model {
    available: BTreeMap<i64, Arc<Servable>>,
    labels: BTreeMap<String, i64>,
    statuses: BTreeMap<i64, VersionStatus>,
    /// Listed by [`Registry::names`]: someone wants it served.
    listed: bool,
    /// Why it has no version at all.
    problem: Option<String>,
}

/// All models of the server.
#[derive(Default)]
pub struct Registry {
    models: RwLock<BTreeMap<String, Model>>,
    starting: AtomicBool,
}

impl Registry {
    /// No models.
    pub fn new() -> Self {
        Self::default()
    }

    /// The servable that a request names.
    ///
    /// `NOT_FOUND` `Servable not found for request: Latest(m)` for an unknown model or version,
    /// `INVALID_ARGUMENT` for an unknown label; `UNAVAILABLE` instead of both while the server starts.
    pub fn find(&self, wanted: &ModelRef) -> Result<Arc<Servable>, Error> {
        self.lookup(wanted).map_err(|error| {
            if self.is_starting() {
                Error::unavailable(format!("The models are still being loaded ({wanted}); try again shortly"))
            } else {
                error
            }
        })
    }

    /// The states of a model's versions, highest first; `NOT_FOUND` when there is none.
    pub fn status(&self, name: &str, version: Option<i64>) -> Result<Vec<VersionStatus>, Error> {
        let models = self.read();
        let statuses = models.get(name).map(|model| &model.statuses);
        match (statuses, version) {
            (Some(statuses), None) if !statuses.is_empty() => Ok(statuses.values().rev().cloned().collect()),
            (_, None) => Err(Error::not_found(format!("Could not find any versions of model {name}"))),
            (statuses, Some(version)) => match statuses.and_then(|statuses| statuses.get(&version)) {
                Some(status) => Ok(vec![status.clone()]),
                None => Err(Error::not_found(format!("Could not find version {version} of model {name}"))),
            },
        }
    }

    /// Names of all models that are to be served, in order.
    pub fn names(&self) -> Vec<String> {
        let models = self.read();
        models.iter().filter(|(_, model)| model.listed).map(|(name, _)| name.clone()).collect()
    }

    /// Every available version of every model.
    pub fn available(&self) -> Vec<Arc<Servable>> {
        self.read().values().flat_map(|model| model.available.values().cloned()).collect()
    }

    /// Makes a version available.
    pub fn publish(&self, servable: Servable) {
        self.publish_shared(Arc::new(servable));
    }

    /// Makes a version available that the caller keeps a hold of.
    pub fn publish_shared(&self, servable: Arc<Servable>) {
        let mut models = self.write();
        let model = models.entry(servable.name.clone()).or_default();
        let version = servable.version;
        model.listed = true;
        model.statuses.insert(version, VersionStatus { version, state: State::Available, error: None });
        model.available.insert(version, servable);
    }

    /// Stops new requests to a version and hands it out, to be dropped when requests in flight are done.
    pub fn withdraw(&self, name: &str, version: i64) -> Option<Arc<Servable>> {
        let mut models = self.write();
        let model = models.get_mut(name)?;
        let servable = model.available.remove(&version)?;
        model.statuses.insert(version, VersionStatus { version, state: State::Unloading, error: None });
        Some(servable)
    }

    /// Records where a version stands.
    pub fn set_status(&self, name: &str, version: i64, state: State, error: Option<Error>) {
        let mut models = self.write();
        let model = models.entry(name.to_owned()).or_default();
        model.statuses.insert(version, VersionStatus { version, state, error });
        let ended =
            model.statuses.values().filter(|status| status.state == State::End).map(|status| status.version);
        let ended: Vec<i64> = ended.collect();
        for version in ended.iter().take(ended.len().saturating_sub(KEPT_ENDED)) {
            model.statuses.remove(version);
        }
    }

    /// Records why a model has no version to load; `None` if it has.
    pub fn set_problem(&self, name: &str, problem: Option<String>) {
        if let Some(model) = self.write().get_mut(name) {
            model.problem = problem;
        }
    }

    /// Why a model has no version to load.
    pub fn problem(&self, name: &str) -> Option<String> {
        self.read().get(name)?.problem.clone()
    }

    /// Says which models are to be served. Others keep the status of their last versions, but are not listed
    /// and lose their labels.
    pub fn set_listed(&self, names: &[String]) {
        let mut models = self.write();
        for (name, model) in models.iter_mut() {
            model.listed = names.contains(name);
            if !model.listed {
                model.labels.clear();
            }
        }
        for name in names {
            models.entry(name.clone()).or_default().listed = true;
        }
    }

    /// Replaces the labels of all models at once, or changes none of them.
    ///
    /// `FAILED_PRECONDITION` for a label of a version that is not available, unless `allow_unavailable`; even
    /// then a label that exists moves only to an available version.
    pub fn set_labels(
        &self,
        labels: &BTreeMap<String, BTreeMap<String, i64>>,
        allow_unavailable: bool,
    ) -> Result<(), Error> {
        let mut models = self.write();
        for (name, wanted) in labels {
            let model = models.get(name);
            for (label, version) in wanted {
                let available = model.is_some_and(|model| model.available.contains_key(version));
                let before = model.and_then(|model| model.labels.get(label));
                let stays = before == Some(version);
                if !(available || stays || (allow_unavailable && before.is_none())) {
                    return Err(Error::failed_precondition(format!(
                        "Request to assign label to version {version} of model {name}, which is not \
                         currently available for inference"
                    )));
                }
            }
        }
        for (name, model) in models.iter_mut() {
            model.labels = labels.get(name).cloned().unwrap_or_default();
        }
        for (name, wanted) in labels {
            models.entry(name.clone()).or_default().labels = wanted.clone();
        }
        Ok(())
    }

    /// The labels of a model.
    pub fn labels(&self, name: &str) -> BTreeMap<String, i64> {
        self.read().get(name).map(|model| model.labels.clone()).unwrap_or_default()
    }

    /// While the server starts, an unknown model may be one that is about to be loaded.
    pub fn set_starting(&self, starting: bool) {
        self.starting.store(starting, Ordering::Release);
    }

    /// Whether some model has not been tried yet.
    pub fn is_starting(&self) -> bool {
        self.starting.load(Ordering::Acquire)
    }

    /// Whether requests can be answered: start-up is over, and of the models to be served at least one
    /// (or none is wanted) has an available version.
    pub fn is_ready(&self) -> bool {
        if self.is_starting() {
            return false;
        }
        let models = self.read();
        let mut listed = models.values().filter(|model| model.listed).peekable();
        listed.peek().is_none() || listed.any(|model| !model.available.is_empty())
    }

    fn lookup(&self, wanted: &ModelRef) -> Result<Arc<Servable>, Error> {
        let models = self.read();
        let model = models.get(&wanted.name);
        let version = match &wanted.version {
            VersionChoice::Latest => {
                return model
                    .and_then(|model| model.available.values().next_back())
                    .cloned()
                    .ok_or_else(|| Error::not_found(format!("Servable not found for request: {wanted}")));
            }
            VersionChoice::Specific(version) => *version,
            VersionChoice::Label(label) => {
                *model.and_then(|model| model.labels.get(label)).ok_or_else(|| {
                    Error::invalid_argument(format!("Unrecognized servable version label: {label}"))
                })?
            }
        };
        model.and_then(|model| model.available.get(&version)).cloned().ok_or_else(|| {
            let specific = ModelRef { version: VersionChoice::Specific(version), ..wanted.clone() };
            Error::not_found(format!("Servable not found for request: {specific}"))
        })
    }

    // A panic while the lock is held leaves whole values behind, so poisoning means nothing here.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Model>> {
        self.models.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Model>> {
        self.models.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Code, fakes};

    fn wanted(version: VersionChoice) -> ModelRef {
        ModelRef { name: "m".into(), version }
    }

    fn labels(pairs: &[(&str, i64)]) -> BTreeMap<String, BTreeMap<String, i64>> {
        let of_model = pairs.iter().map(|(label, version)| ((*label).to_owned(), *version)).collect();
        BTreeMap::from([("m".to_owned(), of_model)])
    }

    #[test]
    fn lookups_by_latest_version_and_label() {
        let registry = Registry::new();
        for version in [2, 10] {
            registry.publish(fakes::echo("m", version));
        }
        registry.set_labels(&labels(&[("stable", 2)]), false).unwrap();
        let version = |choice| registry.find(&wanted(choice)).map(|servable| servable.version);
        assert_eq!(version(VersionChoice::Latest), Ok(10));
        assert_eq!(version(VersionChoice::Specific(2)), Ok(2));
        assert_eq!(version(VersionChoice::Label("stable".into())), Ok(2));
        assert_eq!(
            version(VersionChoice::Specific(3)).unwrap_err().message,
            "Servable not found for request: Specific(m, 3)"
        );
        let error = version(VersionChoice::Label("x".into())).unwrap_err();
        assert_eq!(error, Error::invalid_argument("Unrecognized servable version label: x"));

        registry.withdraw("m", 10).unwrap();
        assert_eq!(version(VersionChoice::Latest), Ok(2));
        registry.set_starting(true);
        assert_eq!(version(VersionChoice::Specific(3)).unwrap_err().code, Code::Unavailable);
    }

    #[test]
    fn labels_follow_the_rules_of_availability() {
        let registry = Registry::new();
        registry.publish(fakes::echo("m", 1));
        let error = registry.set_labels(&labels(&[("a", 1), ("b", 2)]), false).unwrap_err();
        assert_eq!(
            error,
            Error::failed_precondition(
                "Request to assign label to version 2 of model m, which is not currently available for inference"
            )
        );
        assert!(registry.labels("m").is_empty(), "all or nothing");
        registry.set_labels(&labels(&[("a", 1), ("b", 2)]), true).unwrap();
        assert!(
            registry.set_labels(&labels(&[("a", 2)]), true).is_err(),
            "an existing label may not move there"
        );
        registry.set_labels(&labels(&[("b", 2)]), false).unwrap();
        assert_eq!(registry.labels("m"), BTreeMap::from([("b".to_owned(), 2)]));
    }

    #[test]
    fn ended_versions_keep_their_reason_and_do_not_pile_up() {
        let registry = Registry::new();
        for version in 0..100 {
            registry.set_status("m", version, State::End, Some(Error::internal("x")));
        }
        let statuses = registry.status("m", None).unwrap();
        assert_eq!(statuses.len(), KEPT_ENDED);
        assert_eq!((statuses[0].version, &statuses[0].error), (99, &Some(Error::internal("x"))));
    }

    #[test]
    fn readiness_needs_one_available_model() {
        let registry = Registry::new();
        assert!(registry.is_ready());
        registry.set_listed(&["m".to_owned(), "n".to_owned()]);
        assert!(!registry.is_ready());
        assert_eq!(registry.names(), ["m", "n"]);
        registry.publish(fakes::echo("m", 1));
        assert!(registry.is_ready());
        registry.set_starting(true);
        assert!(!registry.is_ready());
    }
}
