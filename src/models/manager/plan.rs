//! What is wanted, what is there, and what to do next. Pure bookkeeping: no threads, no files.
//!
//! The order of steps preserves availability, as TensorFlow Serving's default policy: a version that is no
//! longer wanted goes only when a wanted one is ready, when none is wanted, or when it is not the only one. With
//! `unload_first` it goes before the wanted one is loaded, as with TensorFlow Serving's resource-preserving policy.

use crate::{
    maps::Ordered,
    models::{Error, ModelConfig, ModelsConfig, VersionPolicy},
};
use std::{collections::BTreeMap, path::PathBuf, time::Instant};

/// Where a version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// To be loaded.
    New,
    /// A thread loads it.
    Loading,
    /// Failed; to be tried again then.
    Waiting(Instant),
    /// Answers.
    Ready,
    /// A thread removes it.
    Unloading,
    /// Failed for good, until its files change.
    Failed,
}

#[derive(Debug)]
pub(super) struct Version {
    pub(super) path: PathBuf,
    pub(super) wanted: bool,
    pub(super) phase: Phase,
    /// Loads that failed.
    pub(super) failures: usize,
    pub(super) error: Option<Error>,
    /// Of the files at the last load.
    pub(super) fingerprint: u64,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    /// `None` once the model is no longer to be served.
    pub(super) config: Option<ModelConfig>,
    pub(super) versions: BTreeMap<i64, Version>,
    /// The file system has been looked at since the configuration changed.
    pub(super) scanned: bool,
    /// Why there is nothing to load.
    pub(super) problem: Option<String>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Load { name: String, version: i64, path: PathBuf },
    Unload { name: String, version: i64 },
}

/// How far a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// A wanted version has not been tried yet.
    Pending,
    /// A wanted version answers.
    Available,
    /// No wanted version answers, but some are tried again.
    Retrying,
    /// All wanted versions failed.
    Failed(Vec<(i64, Error)>),
    /// There is nothing to load; why.
    Nothing(String),
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) models: BTreeMap<String, Model>,
    pub(super) unload_first: bool,
    pub(super) loading: usize,
    pub(super) unloading: usize,
    pub(super) stopping: bool,
    /// The file system is to be looked at without waiting for the next poll.
    pub(super) look_now: bool,
    /// What was asked for by `look_now` has not been seen to the end.
    pub(super) looking: bool,
    /// Versions given up before they answered, with their last error; the manager closes their status.
    pub(super) dropped: Vec<(String, i64, Option<Error>)>,
}

impl Plan {
    /// Takes a new configuration; models that are not in it are to go.
    pub(super) fn configure(&mut self, config: &ModelsConfig) {
        for (name, model) in &mut self.models {
            if !config.models.contains_key(name) {
                model.config = None;
                self.dropped.extend(model.want(name, &BTreeMap::new()));
            }
        }
        for (name, config) in &config.models {
            let model = self.models.entry(name.clone()).or_default();
            if model.config.as_ref() != Some(config) {
                model.config = Some(config.clone());
                model.scanned = false;
            }
        }
        self.forget_the_gone();
    }

    /// Takes what the file system offers for one model. `NOT_FOUND` of the base path changes nothing.
    pub(super) fn offer(&mut self, name: &str, offered: Result<BTreeMap<i64, PathBuf>, Error>) {
        let Some(model) = self.models.get_mut(name) else { return };
        let Some(config) = &model.config else { return };
        let before = model.problem.take();
        model.scanned = true;
        match offered {
            Err(error) => model.problem = Some(error.message.into_owned()),
            Ok(offered) => {
                let wanted = wanted(&config.policy, offered);
                if wanted.is_empty() {
                    model.problem = Some(format!(
                        "No versions of servable {name} found under base path {}. Did you forget to name \
                         your leaf directory as a number (eg. '/1/')?",
                        config.base_path.display()
                    ));
                }
                self.dropped.extend(model.want(name, &wanted));
            }
        }
        match &model.problem {
            Some(problem) if before.as_ref() != Some(problem) => log::warn!("{problem}"),
            _ => {}
        }
    }

    /// The next step that `loads` threads for loading and `unloads` for unloading (0: any number) allow.
    /// The caller carries it out; its version is in the phase of being worked on from here.
    pub(super) fn next_step(&mut self, now: Instant, loads: usize, unloads: usize) -> Option<Step> {
        let may_load = self.loading < loads;
        let may_unload = unloads == 0 || self.unloading < unloads;
        for (name, model) in &mut self.models {
            if let Some(version) = model.to_unload(self.unload_first).filter(|_| may_unload) {
                model.versions.get_mut(&version)?.phase = Phase::Unloading;
                self.unloading += 1;
                return Some(Step::Unload { name: name.clone(), version });
            }
            if let Some(version) = model.to_load(now, self.unload_first).filter(|_| may_load) {
                let entry = model.versions.get_mut(&version)?;
                entry.phase = Phase::Loading;
                self.loading += 1;
                return Some(Step::Load { name: name.clone(), version, path: entry.path.clone() });
            }
        }
        None
    }

    /// When a failed version is to be tried again, if any waits.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        let versions = self.models.values().flat_map(|model| model.versions.values());
        versions
            .filter_map(|version| match version.phase {
                Phase::Waiting(until) => Some(until),
                _ => None,
            })
            .min()
    }

    /// Removes a version that is gone; one that is wanted again starts anew.
    pub(super) fn unloaded(&mut self, name: &str, version: i64) {
        self.unloading = self.unloading.saturating_sub(1);
        if let Some(model) = self.models.get_mut(name) {
            match model.versions.get_mut(&version) {
                Some(entry) if entry.wanted => *entry = Version::new(entry.path.clone()),
                _ => {
                    model.versions.remove(&version);
                }
            }
        }
        self.forget_the_gone();
    }

    fn forget_the_gone(&mut self) {
        self.models.retain(|_, model| model.config.is_some() || !model.versions.is_empty());
    }
}

impl Model {
    /// How far it is.
    pub(super) fn progress(&self) -> Progress {
        let wanted = || self.versions.iter().filter(|(_, version)| version.wanted);
        let untried = |version: &Version| {
            version.phase == Phase::New || (version.phase == Phase::Loading && version.failures == 0)
        };
        if !self.scanned || wanted().any(|(_, version)| untried(version)) {
            Progress::Pending
        } else if wanted().any(|(_, version)| version.phase == Phase::Ready) {
            Progress::Available
        } else if let Some(problem) = &self.problem {
            Progress::Nothing(problem.clone())
        } else if wanted().all(|(_, version)| version.phase == Phase::Failed) {
            let errors = wanted().filter_map(|(number, version)| Some((*number, version.error.clone()?)));
            Progress::Failed(errors.collect())
        } else {
            Progress::Retrying
        }
    }

    /// Sets the wanted versions; returns those that were never loaded and so need no unloading.
    fn want(&mut self, name: &str, wanted: &BTreeMap<i64, PathBuf>) -> Vec<(String, i64, Option<Error>)> {
        let mut dropped = Vec::new();
        self.versions.retain(|number, version| {
            version.wanted = wanted.contains_key(number);
            let loaded = !matches!(version.phase, Phase::New | Phase::Waiting(_) | Phase::Failed);
            if !version.wanted && !loaded {
                dropped.push((name.to_owned(), *number, version.error.take()));
            }
            version.wanted || loaded
        });
        for (number, path) in wanted {
            self.versions.entry(*number).or_insert_with(|| Version::new(path.clone()));
        }
        dropped
    }

    fn to_unload(&self, unload_first: bool) -> Option<i64> {
        let ready = |wanted: bool| {
            self.versions
                .iter()
                .filter(move |(_, version)| version.phase == Phase::Ready && version.wanted == wanted)
        };
        let replaced = ready(true).next().is_some();
        let none_wanted = !self.versions.values().any(|version| version.wanted);
        let unwanted = ready(false).count();
        if replaced || none_wanted || unwanted > 1 || unload_first {
            ready(false).map(|(number, _)| *number).next()
        } else {
            None
        }
    }

    fn to_load(&self, now: Instant, unload_first: bool) -> Option<i64> {
        let in_memory =
            |version: &Version| matches!(version.phase, Phase::Loading | Phase::Ready | Phase::Unloading);
        if unload_first && self.versions.values().any(|version| !version.wanted && in_memory(version)) {
            return None;
        }
        let due = |version: &Version| match version.phase {
            Phase::New => true,
            Phase::Waiting(until) => until <= now,
            _ => false,
        };
        let mut candidates = self.versions.iter().rev().filter(|(_, version)| version.wanted && due(version));
        candidates.next().map(|(number, _)| *number)
    }
}

impl Version {
    fn new(path: PathBuf) -> Self {
        Self { path, wanted: true, phase: Phase::New, failures: 0, error: None, fingerprint: 0 }
    }
}

/// What a policy picks of the versions offered.
fn wanted(policy: &VersionPolicy, mut offered: BTreeMap<i64, PathBuf>) -> BTreeMap<i64, PathBuf> {
    match policy {
        VersionPolicy::All => {}
        VersionPolicy::Latest(count) => {
            while offered.len() > (*count).max(1) {
                offered.pop_first();
            }
        }
        VersionPolicy::Specific(versions) => {
            let missing = versions.iter().filter(|version| !offered.contains_key(version)).into_set();
            if !missing.is_empty() {
                log::debug!("versions {missing:?} are asked for but not on disk");
            }
            offered.retain(|version, _| versions.contains(version));
        }
    }
    offered
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn plan(policy: VersionPolicy) -> Plan {
        let mut config = ModelsConfig::single("m", "/m");
        config.models.get_mut("m").unwrap().policy = policy;
        let mut plan = Plan::default();
        plan.configure(&config);
        plan
    }

    fn offer(plan: &mut Plan, versions: &[i64]) {
        let offered = versions.iter().map(|version| (*version, PathBuf::from(format!("/m/{version}"))));
        plan.offer("m", Ok(offered.collect()));
    }

    fn step(plan: &mut Plan) -> Option<(char, i64)> {
        plan.next_step(Instant::now(), 100, 0).map(|step| match step {
            Step::Load { version, .. } => ('+', version),
            Step::Unload { version, .. } => ('-', version),
        })
    }

    fn ready(plan: &mut Plan, version: i64) {
        plan.loading -= 1;
        plan.models.get_mut("m").unwrap().versions.get_mut(&version).unwrap().phase = Phase::Ready;
    }

    #[test]
    fn a_swap_never_leaves_a_gap() {
        let mut plan = plan(VersionPolicy::Latest(1));
        offer(&mut plan, &[1]);
        assert_eq!(step(&mut plan), Some(('+', 1)));
        assert_eq!(step(&mut plan), None);
        ready(&mut plan, 1);
        offer(&mut plan, &[1, 2]);
        assert_eq!(step(&mut plan), Some(('+', 2)), "the new one first");
        assert_eq!(step(&mut plan), None, "the old one stays while it is the only one");
        ready(&mut plan, 2);
        assert_eq!(step(&mut plan), Some(('-', 1)));
        plan.unloaded("m", 1);
        assert_eq!(step(&mut plan), None);
    }

    #[test]
    fn two_versions_are_never_in_memory_when_the_old_one_goes_first() {
        let mut plan = plan(VersionPolicy::Latest(1));
        plan.unload_first = true;
        offer(&mut plan, &[1]);
        assert_eq!(step(&mut plan), Some(('+', 1)));
        ready(&mut plan, 1);
        assert_eq!(step(&mut plan), None);
        offer(&mut plan, &[1, 2]);
        assert_eq!(step(&mut plan), Some(('-', 1)));
        assert_eq!(step(&mut plan), None, "until the old one is gone");
        plan.unloaded("m", 1);
        assert_eq!(step(&mut plan), Some(('+', 2)));
        ready(&mut plan, 2);
        assert_eq!(step(&mut plan), None);
    }

    #[test]
    fn of_several_unwanted_versions_all_but_one_go_before_the_new_one_is_ready() {
        let mut plan = plan(VersionPolicy::All);
        offer(&mut plan, &[1, 2]);
        assert_eq!(step(&mut plan), Some(('+', 2)), "the highest first");
        assert_eq!(step(&mut plan), Some(('+', 1)));
        ready(&mut plan, 1);
        ready(&mut plan, 2);
        offer(&mut plan, &[3]);
        assert_eq!(step(&mut plan), Some(('-', 1)));
        assert_eq!(step(&mut plan), Some(('+', 3)));
        assert_eq!(step(&mut plan), None);
    }

    #[test]
    fn an_empty_folder_unloads_all_and_a_missing_one_changes_nothing() {
        let mut plan = plan(VersionPolicy::Latest(1));
        offer(&mut plan, &[1]);
        step(&mut plan);
        ready(&mut plan, 1);
        plan.offer("m", Err(Error::not_found("gone")));
        assert_eq!(step(&mut plan), None);
        assert_eq!(plan.models["m"].progress(), Progress::Available);
        offer(&mut plan, &[]);
        assert_eq!(step(&mut plan), Some(('-', 1)));
        plan.unloaded("m", 1);
        assert!(
            matches!(plan.models["m"].progress(), Progress::Nothing(text) if text.contains("Did you forget"))
        );
    }

    #[test]
    fn a_model_that_leaves_the_configuration_is_forgotten_when_unloaded() {
        let mut plan = plan(VersionPolicy::Latest(1));
        offer(&mut plan, &[1]);
        step(&mut plan);
        ready(&mut plan, 1);
        plan.configure(&ModelsConfig::default());
        assert_eq!(step(&mut plan), Some(('-', 1)));
        plan.unloaded("m", 1);
        assert!(plan.models.is_empty());
    }

    #[test]
    fn a_version_wanted_again_while_it_goes_is_loaded_anew() {
        let mut plan = plan(VersionPolicy::Latest(1));
        offer(&mut plan, &[1]);
        step(&mut plan);
        ready(&mut plan, 1);
        offer(&mut plan, &[]);
        assert_eq!(step(&mut plan), Some(('-', 1)));
        offer(&mut plan, &[1]);
        assert_eq!(step(&mut plan), None);
        plan.unloaded("m", 1);
        assert_eq!(step(&mut plan), Some(('+', 1)));
    }

    #[test]
    fn policies_pick() {
        let offered = || (1..=4).map(|version| (version, PathBuf::new())).collect::<BTreeMap<_, _>>();
        let keys = |policy| wanted(&policy, offered()).into_keys().collect::<Vec<i64>>();
        assert_eq!(keys(VersionPolicy::Latest(1)), [4]);
        assert_eq!(keys(VersionPolicy::Latest(2)), [3, 4]);
        assert_eq!(keys(VersionPolicy::All), [1, 2, 3, 4]);
        assert_eq!(keys(VersionPolicy::Specific(BTreeSet::from([2, 9]))), [2]);
    }

    #[test]
    fn threads_are_limited() {
        let mut plan = plan(VersionPolicy::All);
        offer(&mut plan, &[1, 2]);
        assert!(plan.next_step(Instant::now(), 1, 0).is_some());
        assert!(plan.next_step(Instant::now(), 1, 0).is_none());
    }
}
