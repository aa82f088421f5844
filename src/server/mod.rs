//! Joins listeners, surfaces and models: starts them in order, and stops them in order.
//!
//! Ports open before the models are loaded, so that health checks answer from the first moment; a call that
//! comes too early is told that the models are still being loaded.
#![forbid(unsafe_code)]

mod cheap;
mod doctor;
mod door;
mod handler;
mod health;
mod limits;
mod load;
mod named;
mod observed;
mod places;
mod record;
mod replay;
mod signals;
mod systemd;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
mod warm_up;
mod welcome;

pub use doctor::{Report, doctor};
pub use door::new_token;
pub use health::{HealthError, health};
pub use load::inspect;
pub use replay::replay;

use crate::{
    api::{
        modelarts::{self, ModelArts, Package},
        tensor_proto::Form,
        tfs_grpc::{self, ModelAdmin, TfsGrpc},
        tfs_rest::{self, TfsRest},
    },
    cli::{ModelSource, Options},
    models::{ConfigSource, Error, Manager, ManagerSettings, ModelsConfig, Monitoring, Registry, Stats},
    wire::{Server, ServerConfig, ServerHandle, WireError},
};
use door::Door;
use handler::Surfaces;
use load::FormatLoader;
use places::Places;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    thread,
    time::Duration,
};
use systemd::{Heartbeat, ServiceManager};
use tls::Identity;

/// Why the server did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration has a mistake.
    #[error("Failed to start server. Error: {0}")]
    Configuration(Error),
    /// The one model that was to be served cannot be loaded.
    #[error("Failed to start server. Error: {0}")]
    Model(Error),
    /// The network.
    #[error("Failed to start server. Error: {0}\n{1}")]
    Wire(WireError, &'static str),
    /// A thread or signal handler could not be set up.
    #[error("Failed to start server. Error: {0}")]
    System(#[from] std::io::Error),
}

/// Serves until a signal ends it.
pub fn run(options: &Options) -> Result<(), ServeError> {
    for (flag, reason) in &options.ignored {
        log::warn!("--{flag} is accepted without effect: {reason}");
    }
    let service = ServiceManager::from_environment();
    let options = &systemd::with_credentials(options);
    let places = Places::new(options, systemd::inherited_sockets()?);
    let identity = Identity::new(options)?;
    let all_ask = identity.as_ref().is_some_and(|identity| identity.asks_clients)
        && places::without_tls(options).is_empty();
    let door = Door::new(options, places.reachable.as_deref(), all_ask)?;
    let monitoring = match &options.monitoring_config_file {
        Some(path) => Monitoring::from_file(path).map_err(ServeError::Configuration)?,
        None => Monitoring::default(),
    };
    let stats = Arc::new(Stats::default());
    let registry = Arc::new(Registry::new());
    let loader = Arc::new(FormatLoader::new(options, stats.clone()).map_err(ServeError::Configuration)?);
    let package = match &options.source {
        ModelSource::Package { folder, .. } => {
            Package::read(&std::path::absolute(folder)?).map_err(ServeError::Configuration)?
        }
        _ => Package::default(),
    };
    let manager = start_models(options, &package, &registry, &loader)?.map(Arc::new);

    let surfaces = Arc::new(surfaces(options, package, &registry, manager.clone(), stats, monitoring, door));
    let limits = limits::of(options);
    let config = ServerConfig {
        binds: places.binds,
        workers: options.workers,
        limits,
        tls: identity.as_ref().map(|identity| identity.tls.clone()),
        require_tls: true,
        plain_ports: places::without_tls(options),
        busy_poll: options.busy_poll,
    };
    let server = Server::bind(config, surfaces.clone()).map_err(|error| {
        ServeError::Wire(
            error,
            "Is another server running there? --port, --rest_api_port and --http_port choose other ports.",
        )
    })?;
    for line in places.lines {
        log::info!("{line}");
    }

    let failure: Arc<Mutex<Option<Error>>> = Arc::default();
    let reloaded = signals::Reloaded {
        surfaces: surfaces.clone(),
        identity: identity.clone(),
        manager: manager.clone(),
    };
    let drain = signals::Drain { delay: options.drain_delay, timeout: options.drain_timeout };
    signals::listen(server.handle(), service.clone(), reloaded, drain)?;
    let heartbeat = service.watchdog().map(|_| load::heartbeat(&loader)).transpose();
    let starter = Starter {
        service,
        server: server.handle(),
        heartbeat: heartbeat.map_err(ServeError::Configuration)?,
        rest: places.rest,
        manager: manager.clone(),
        surfaces,
        registry,
        options: options.clone(),
        self_signed: identity.as_ref().map(|identity| identity.self_signed),
        failure: failure.clone(),
    };
    thread::Builder::new().name("start".into()).spawn(move || starter.run())?;
    server.run().map_err(|error| ServeError::Wire(error, "The event loop cannot go on."))?;
    drop(manager);
    match failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => Err(ServeError::Model(error)),
        None => Ok(()),
    }
}

/// What happens once the ports are open.
struct Starter {
    service: ServiceManager,
    server: ServerHandle,
    heartbeat: Option<Heartbeat>,
    /// Where REST is served.
    rest: Option<SocketAddr>,
    manager: Option<Arc<Manager>>,
    surfaces: Arc<Surfaces>,
    registry: Arc<Registry>,
    options: Options,
    /// Whether the certificate is our own; `None` without TLS.
    self_signed: Option<bool>,
    failure: Arc<Mutex<Option<Error>>>,
}

impl Starter {
    fn run(mut self) {
        if let Some(manager) = &self.manager {
            let registry = self.registry.clone();
            let _patient = self.service.be_patient(move || format!("loading; {}", status(&registry)));
            manager.wait_until_tried();
        }
        self.surfaces.finish_start();
        if !self.registry.is_ready() {
            log::warn!("no model answers yet; GET /v1/models/NAME says why");
        } else if let Some(rest) = self.rest {
            welcome::print(&self.options, rest, self.self_signed, &self.registry);
        }
        // As TensorFlow Serving, a server gives up when its one model cannot be loaded.
        if let (Some(manager), ModelSource::Single { .. } | ModelSource::Package { .. }) =
            (&self.manager, &self.options.source)
        {
            let again = || "the model is tried again; the log says why".to_owned();
            let _patient = (!self.registry.is_ready()).then(|| self.service.be_patient(again));
            if let Err(error) = manager.wait_until_available(None) {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return self.server.stop(Duration::ZERO);
            }
        }
        self.service.ready(&status(&self.registry));
        if let Some(heartbeat) = self.heartbeat.take()
            && let Err(error) = heartbeat.start(self.server, self.service)
        {
            log::error!("the watchdog of the service manager cannot be served: {error}");
        }
    }
}

/// One line on the models, for the service manager.
fn status(registry: &Registry) -> String {
    let names = registry.names();
    let mut answering: Vec<String> =
        registry.available().iter().map(|servable| servable.name.clone()).collect();
    answering.sort_unstable();
    answering.dedup();
    match answering.len() {
        0 => "no model answers".to_owned(),
        count if count < names.len() => format!("{count} of {} models answer", names.len()),
        1 => "1 model answers".to_owned(),
        count => format!("{count} models answer"),
    }
}

fn start_models(
    options: &Options,
    package: &Package,
    registry: &Arc<Registry>,
    loader: &Arc<FormatLoader>,
) -> Result<Option<Manager>, ServeError> {
    let source = match &options.source {
        ModelSource::BuiltIn => {
            load::publish_built_in(registry, loader).map_err(ServeError::Configuration)?;
            return Ok(None);
        }
        ModelSource::Single { name, base_path } => {
            // A relative path is taken from where the server was started.
            let base_path = std::path::absolute(base_path)?;
            ConfigSource::Fixed(ModelsConfig::single(name, base_path))
        }
        ModelSource::ConfigFile(path) => ConfigSource::File(path.clone(), options.config_poll),
        ModelSource::Folder(folder) => ConfigSource::Folder(folder.clone()),
        ModelSource::Package { name, .. } => {
            ConfigSource::Fixed(ModelsConfig::single(name, package.folder.clone()))
        }
    };
    let poll = u64::try_from(options.poll_seconds).ok().filter(|seconds| *seconds > 0);
    let settings = ManagerSettings {
        poll: poll.map(Duration::from_secs),
        load_threads: options.load_threads,
        unload_threads: options.unload_threads,
        retries: options.load_retries,
        retry_interval: options.load_retry_interval,
        unload_first: options.unload_first,
        allow_labels_for_unavailable: options.allow_labels_for_unavailable,
        allow_labels_at_start: options.allow_labels_for_unavailable || !options.strict,
    };
    Manager::start(registry.clone(), loader.clone(), settings, source)
        .map(Some)
        .map_err(ServeError::Configuration)
}

fn surfaces(
    options: &Options,
    package: Package,
    registry: &Arc<Registry>,
    manager: Option<Arc<Manager>>,
    stats: Arc<Stats>,
    monitoring: Monitoring,
    door: Door,
) -> Surfaces {
    let rest = tfs_rest::Config { strict: options.strict, cors: options.cors };
    let form = if options.answer_tensor_content { Form::Content } else { Form::Lists };
    let max_message = limits::of(options).grpc_message;
    let grpc = tfs_grpc::Options { form, max_message, ..tfs_grpc::Options::default() };
    let admin = manager.map(|manager| manager as Arc<dyn ModelAdmin>);
    let grpc = TfsGrpc::new(registry.clone(), admin, grpc).with_stats(stats.clone());
    grpc.set_serving(false);
    let services = options.modelarts_services.clone();
    let modelarts = modelarts::Config { services, paths: package.paths, strict: options.strict };
    Surfaces {
        rest: TfsRest::new(registry.clone(), rest),
        modelarts: ModelArts::new(registry.clone(), modelarts),
        grpc,
        registry: registry.clone(),
        stats,
        monitoring,
        door,
        rest_timeout: options.rest_timeout,
        draining: AtomicBool::new(false),
        costs: cheap::Costs::new(),
        batching: options.enable_batching,
    }
}
