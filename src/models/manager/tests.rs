use super::*;
use crate::models::{ModelConfig, ModelRef, Program, Servable, VersionChoice, VersionPolicy, fakes};
use crate::tensor::Tensor;
use std::{
    fs::{create_dir, remove_dir_all, rename, write},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Loads a version whose folder holds a file `model`; the file says what happens: `ok`, `panic`, `missing`
/// (an operator), or the text of an error.
#[derive(Default)]
struct Fake {
    loads: AtomicUsize,
}

impl Loader for Fake {
    fn load(&self, name: &str, version: i64, path: &Path) -> Result<Servable, Error> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let text =
            std::fs::read_to_string(path.join("model")).map_err(|e| Error::not_found(e.to_string()))?;
        match text.as_str() {
            "ok" => Ok(fakes::echo(name, version)),
            "panic" => panic!("as told"),
            "missing" => Err(Error::unimplemented("no such operator")),
            text => Err(Error::data_loss(text.to_owned())),
        }
    }
}

struct Rig {
    base: tempfile::TempDir,
    registry: Arc<Registry>,
    loader: Arc<Fake>,
}

impl Rig {
    fn new() -> Self {
        Self { base: tempfile::tempdir().unwrap(), registry: Arc::default(), loader: Arc::default() }
    }

    fn add(&self, model: &str, version: i64, content: &str) {
        let model = self.base.path().join(model);
        std::fs::create_dir_all(&model).unwrap();
        let copy = model.join("copying");
        create_dir(&copy).unwrap();
        write(copy.join("model"), content).unwrap();
        rename(copy, model.join(version.to_string())).unwrap();
    }

    fn config(&self, names: &[&str]) -> ModelsConfig {
        let mut config = ModelsConfig::default();
        for name in names {
            let model = ModelConfig {
                name: (*name).to_owned(),
                base_path: self.base.path().join(name),
                ..ModelConfig::default()
            };
            config.models.insert((*name).to_owned(), model);
        }
        config
    }

    fn start(&self, config: ModelsConfig, settings: ManagerSettings) -> Manager {
        let loader = self.loader.clone();
        Manager::start(self.registry.clone(), loader, settings, ConfigSource::Fixed(config)).unwrap()
    }

    fn state(&self, model: &str, version: i64) -> Option<State> {
        Some(self.registry.status(model, Some(version)).ok()?.first()?.state)
    }

    fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !condition(self) {
            assert!(started.elapsed() < Duration::from_secs(30), "{what} did not happen");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn fast() -> ManagerSettings {
    ManagerSettings {
        poll: Some(Duration::from_millis(5)),
        retries: 1,
        retry_interval: Duration::from_millis(5),
        ..ManagerSettings::default()
    }
}

#[test]
fn versions_appear_and_vanish() {
    let rig = Rig::new();
    rig.add("m", 1, "ok");
    let manager = rig.start(rig.config(&["m"]), fast());
    manager.wait_until_available(None).unwrap();
    assert_eq!(rig.state("m", 1), Some(State::Available));
    rig.add("m", 2, "ok");
    rig.until("the swap", |rig| rig.state("m", 2) == Some(State::Available));
    rig.until("the unload", |rig| rig.state("m", 1) == Some(State::End));
    remove_dir_all(rig.base.path().join("m/2")).unwrap();
    rig.until("the return to 1", |rig| rig.state("m", 1) == Some(State::Available));
    remove_dir_all(rig.base.path().join("m/1")).unwrap();
    rig.until("the end", |rig| {
        rig.state("m", 1) == Some(State::End) && rig.state("m", 2) == Some(State::End)
    });
}

#[test]
fn good_bad_and_missing_models_live_side_by_side() {
    let rig = Rig::new();
    rig.add("good", 1, "ok");
    rig.add("bad", 1, "torn file");
    rig.add("bug", 1, "panic");
    rig.add("needy", 1, "missing");
    let settings = ManagerSettings { retry_interval: Duration::from_secs(3600), retries: 5, ..fast() };
    let manager = rig.start(rig.config(&["good", "bad", "bug", "needy", "absent"]), settings);
    manager.wait_until_tried();
    rig.until("readiness", |rig| rig.registry.is_ready());
    assert_eq!(rig.state("good", 1), Some(State::Available));
    let status = &rig.registry.status("bad", None).unwrap()[0];
    assert_eq!((status.state, &status.error), (State::Loading, &Some(Error::data_loss("torn file"))));
    let status = &rig.registry.status("needy", None).unwrap()[0];
    assert_eq!(status.state, State::End, "a missing operator is not tried again");
    assert_eq!(status.error, Some(Error::unimplemented("no such operator")));
    assert_eq!(rig.state("bug", 1), Some(State::Loading));
    assert_eq!(rig.registry.names(), ["absent", "bad", "bug", "good", "needy"]);
    // Writing the missing part does not wait an hour.
    let path = rig.base.path().join("bad/1/model");
    write(path, "ok").unwrap();
    rig.until("the repair", |rig| rig.state("bad", 1) == Some(State::Available));
}

#[test]
fn a_model_that_never_loads_is_reported_after_its_retries() {
    let rig = Rig::new();
    rig.add("m", 7, "torn");
    let manager = rig.start(rig.config(&["m"]), ManagerSettings { retries: 3, poll: None, ..fast() });
    let error = manager.wait_until_available(None).unwrap_err();
    assert_eq!(
        error.message,
        "1 servable(s) did not become available: {{name: m version: 7} due to error: DATA_LOSS: torn, }"
    );
    assert_eq!(error.code, Code::Unknown);
    assert_eq!(rig.loader.loads.load(Ordering::Relaxed), 4);
    assert_eq!(rig.state("m", 7), Some(State::End));
}

#[test]
fn reload_waits_for_new_models_and_drops_old_ones() {
    let rig = Rig::new();
    rig.add("a", 1, "ok");
    rig.add("b", 1, "ok");
    let manager = rig.start(rig.config(&["a"]), fast());
    manager.wait_until_available(None).unwrap();
    manager.reload(&rig.config(&["b"]), &Patience::default()).unwrap();
    assert_eq!(rig.state("b", 1), Some(State::Available));
    rig.until("the end of a", |rig| rig.state("a", 1) == Some(State::End));
    assert_eq!(rig.registry.names(), ["b"]);
    let error = manager.reload(&rig.config(&["b", "c"]), &Patience::default()).unwrap_err();
    assert_eq!(error.code, Code::FailedPrecondition);
    rig.add("d", 1, "missing");
    let error = manager.reload(&rig.config(&["b", "d"]), &Patience::default()).unwrap_err();
    assert!(
        error.message.starts_with("1 servable(s) did not become available: {{name: d version: 1}"),
        "{error}"
    );
    assert_eq!(rig.state("b", 1), Some(State::Available));
}

#[test]
fn labels_move_only_to_available_versions_and_a_refusal_changes_nothing() {
    let rig = Rig::new();
    rig.add("m", 1, "ok");
    rig.add("m", 2, "ok");
    let labelled = |version: i64| {
        let mut config = rig.config(&["m"]);
        let model = config.models.get_mut("m").unwrap();
        model.policy = VersionPolicy::All;
        model.labels.insert("stable".into(), version);
        config
    };
    let manager = rig.start(labelled(2), fast());
    manager.wait_until_available(None).unwrap();
    let stable = ModelRef { name: "m".into(), version: VersionChoice::Label("stable".into()) };
    assert_eq!(rig.registry.find(&stable).unwrap().version, 2);
    assert_eq!(
        manager.reload(&labelled(3), &Patience::default()).unwrap_err().code,
        Code::FailedPrecondition
    );
    assert_eq!(rig.registry.find(&stable).unwrap().version, 2);
    rig.until("version 1", |rig| rig.state("m", 1) == Some(State::Available));
    manager.reload(&labelled(1), &Patience::default()).unwrap();
    assert_eq!(rig.registry.find(&stable).unwrap().version, 1);

    let strict = ManagerSettings { allow_labels_at_start: false, ..fast() };
    let source = ConfigSource::Fixed(labelled(1));
    assert!(Manager::start(Arc::default(), rig.loader.clone(), strict, source).is_err());
}

#[test]
fn a_changed_config_file_is_read_again_and_a_broken_one_is_not() {
    let rig = Rig::new();
    rig.add("a", 1, "ok");
    rig.add("b", 1, "ok");
    let file = rig.base.path().join("models.config");
    let entry = |name: &str| {
        let path = rig.base.path().join(name);
        format!("config {{ name: '{name}' base_path: '{}' model_platform: 'tensorflow' }}", path.display())
    };
    let write_config = |body: String| {
        let temporary = file.with_extension("tmp");
        write(&temporary, body).unwrap();
        rename(temporary, &file).unwrap();
    };
    write_config(format!("model_config_list {{ {} }}", entry("a")));
    let source = ConfigSource::File(file.clone(), Some(Duration::from_millis(5)));
    let manager = Manager::start(rig.registry.clone(), rig.loader.clone(), fast(), source).unwrap();
    manager.wait_until_available(None).unwrap();
    write_config(format!("model_config_list {{ {} {} }}", entry("a"), entry("b")));
    rig.until("b", |rig| rig.state("b", 1) == Some(State::Available));
    write_config("model_config_list {".into());
    assert!(manager.refresh().is_err());
    thread::sleep(Duration::from_millis(50));
    assert_eq!(rig.registry.names(), ["a", "b"]);
    write_config(format!("model_config_list {{ {} }}", entry("b")));
    rig.until("the end of a", |rig| rig.state("a", 1) == Some(State::End));
}

#[test]
fn a_folder_of_models_is_followed() {
    let rig = Rig::new();
    rig.add("a", 1, "ok");
    let source = ConfigSource::Folder(rig.base.path().to_owned());
    let _manager = Manager::start(rig.registry.clone(), rig.loader.clone(), fast(), source).unwrap();
    rig.until("a", |rig| rig.state("a", 1) == Some(State::Available));
    rig.add("b", 3, "ok");
    rig.until("b", |rig| rig.state("b", 3) == Some(State::Available));
    remove_dir_all(rig.base.path().join("a")).unwrap();
    rig.until("the end of a", |rig| rig.state("a", 1) == Some(State::End));
    assert_eq!(rig.registry.names(), ["b"]);
}

#[test]
fn an_unload_waits_for_requests_in_flight() {
    let rig = Rig::new();
    rig.add("m", 1, "ok");
    let manager = rig.start(rig.config(&["m"]), fast());
    manager.wait_until_available(None).unwrap();
    let in_flight = rig.registry.find(&ModelRef { name: "m".into(), ..ModelRef::default() }).unwrap();
    rig.add("m", 2, "ok");
    rig.until("the withdrawal", |rig| rig.state("m", 1) == Some(State::Unloading));
    thread::sleep(Duration::from_millis(20));
    assert_eq!(rig.state("m", 1), Some(State::Unloading));
    drop(in_flight);
    rig.until("the end", |rig| rig.state("m", 1) == Some(State::End));
}

#[test]
fn swaps_lose_no_request() {
    let rig = Rig::new();
    rig.add("m", 1, "ok");
    let manager = rig.start(rig.config(&["m"]), fast());
    manager.wait_until_available(None).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let wanted = ModelRef { name: "m".into(), ..ModelRef::default() };
                    let (mut asked, mut last) = (0, 0);
                    while !stop.load(Ordering::Relaxed) {
                        let servable = rig.registry.find(&wanted).expect("a version answers at any time");
                        assert!(servable.version >= last, "never back to an older version");
                        last = servable.version;
                        let program: &dyn Program = &*servable.signatures["serving_default"].program;
                        let mut outputs = Vec::new();
                        let input = [Tensor::scalar(1.0_f32)];
                        program.run(&input, &[0], &Patience::default(), &mut outputs).unwrap();
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        for version in 2..12 {
            rig.add("m", version, "ok");
            rig.until("a swap", |rig| rig.state("m", version) == Some(State::Available));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(clients.into_iter().map(|client| client.join().unwrap()).sum::<usize>() > 0);
    });
    rig.until("the end of 10", |rig| rig.state("m", 10) == Some(State::End));
}
