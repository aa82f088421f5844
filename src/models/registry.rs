//! The models by name and version. Lookups are a read lock and a map; a swap replaces an `Arc`,
//! so a request keeps the version it started with.

use super::{Error, ModelRef, Servable, VersionChoice};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

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
    /// Why it failed; `None` when nothing went wrong.
    pub error: Option<Error>,
}

#[derive(Default)]
struct Model {
    available: BTreeMap<i64, Arc<Servable>>,
    labels: BTreeMap<String, i64>,
    statuses: BTreeMap<i64, VersionStatus>,
}

/// All models of the server.
#[derive(Default)]
pub struct Registry {
    models: RwLock<BTreeMap<String, Model>>,
}

impl Registry {
    /// No models.
    pub fn new() -> Self {
        Self::default()
    }

    /// The servable that a request names.
    ///
    /// `NOT_FOUND` `Servable not found for request: Latest(m)` for an unknown model or version,
    /// `INVALID_ARGUMENT` for an unknown label.
    pub fn find(&self, wanted: &ModelRef) -> Result<Arc<Servable>, Error> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        let missing = || Error::not_found(format!("Servable not found for request: {wanted}"));
        let model = models.get(&wanted.name);
        let version = match &wanted.version {
            VersionChoice::Latest => {
                return model
                    .and_then(|model| model.available.values().next_back())
                    .cloned()
                    .ok_or_else(missing);
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

    /// The states of a model's versions, highest first; `NOT_FOUND` when there is none.
    pub fn status(&self, name: &str, version: Option<i64>) -> Result<Vec<VersionStatus>, Error> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
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

    /// Names of all models, in order.
    pub fn names(&self) -> Vec<String> {
        self.models.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Makes a version available.
    pub fn publish(&self, servable: Servable) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        let model = models.entry(servable.name.clone()).or_default();
        let version = servable.version;
        model.statuses.insert(version, VersionStatus { version, state: State::Available, error: None });
        model.available.insert(version, Arc::new(servable));
    }
}
