//! The flags as typed options, and which of them exclude each other.

use super::{CliError, NetworkLimits, Values};
use crate::graph::{Selection, SystemMemory};
use log::LevelFilter;
use std::{net::IpAddr, path::PathBuf, thread, time::Duration};

/// Where models come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// Those built into the binary.
    BuiltIn,
    /// One model.
    Single {
        /// Its name.
        name: String,
        /// Its folder.
        base_path: PathBuf,
    },
    /// A text-format ModelServerConfig.
    ConfigFile(PathBuf),
    /// One model per folder.
    Folder(PathBuf),
    /// The `model` folder of a ModelArts package.
    Package {
        /// The model's name.
        name: String,
        /// The folder.
        folder: PathBuf,
    },
}

/// The port for REST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestPort {
    /// Not served on a port of its own.
    Off,
    /// The default; a server that finds it taken goes on without.
    Default(u16),
    /// Asked for; a server that finds it taken does not start.
    Given(u16),
}

/// All options of `kinglet serve`.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where models come from.
    pub source: ModelSource,
    /// How often the model config file is read again; `None` is once.
    pub config_poll: Option<Duration>,
    /// Labels may name versions that are not loaded yet.
    pub allow_labels_for_unavailable: bool,
    /// Tags of the SavedModel graph.
    pub saved_model_tags: Vec<String>,
    /// Method names of signatures are checked.
    pub check_method_names: bool,
    /// Address of every port.
    pub address: IpAddr,
    /// Port for gRPC; 0 is off.
    pub grpc_port: u16,
    /// UNIX domain socket for gRPC.
    pub grpc_socket: Option<PathBuf>,
    /// Port for REST.
    pub rest_port: RestPort,
    /// One port for everything; 0 is off.
    pub http_port: u16,
    /// Time limit of a REST call.
    pub rest_timeout: Duration,
    /// Cross-origin headers are sent.
    pub cors: bool,
    /// Tokens of those who may call; `None` lets everybody in.
    pub auth_tokens_file: Option<PathBuf>,
    /// Failures of one address before it is refused unseen; 0 has no limit.
    pub auth_failures_per_minute: u32,
    /// The public key that every model must be signed with.
    pub verify_key: Option<PathBuf>,
    /// Other machines are let in without tokens.
    pub insecure: bool,
    /// TLS on every port.
    pub tls: bool,
    /// Certificate chain and key.
    pub tls_identity: Option<(PathBuf, PathBuf)>,
    /// Authorities of client certificates.
    pub tls_client_ca: Option<PathBuf>,
    /// Where the certificate made here is kept; `None` is the system's place.
    pub state_dir: Option<PathBuf>,
    /// Service ids of ModelArts URLs with their models; empty lets any id stand for any model.
    pub modelarts_services: Vec<(String, String)>,
    /// A text-format SSLConfig.
    pub ssl_config_file: Option<PathBuf>,
    /// A text-format MonitoringConfig.
    pub monitoring_config_file: Option<PathBuf>,
    /// gRPC tensors are answered as raw content.
    pub answer_tensor_content: bool,
    /// Seconds between looks at the file system: 0 looks once, negative never.
    pub poll_seconds: i64,
    /// Versions that load at the same time, at least 1.
    pub load_threads: usize,
    /// Versions that unload at the same time; 0 has no limit.
    pub unload_threads: usize,
    /// How often a failed load is tried again.
    pub load_retries: usize,
    /// Time between tries.
    pub load_retry_interval: Duration,
    /// Bytes for models and runs.
    pub memory_limit: usize,
    /// An old version goes before the new one is loaded.
    pub unload_first: bool,
    /// Warm-up requests run before a version answers.
    pub enable_warmup: bool,
    /// How often each warm-up request runs, at least 1.
    pub warmup_iterations: usize,
    /// Requests are batched.
    pub enable_batching: bool,
    /// A text-format BatchingParameters.
    pub batching_parameters_file: Option<PathBuf>,
    /// Versions may carry their own batching parameters.
    pub per_model_batching: bool,
    /// Requests worked on at the same time, at least 1.
    pub workers: usize,
    /// Threads of one request, at least 1.
    pub threads: usize,
    /// How long the network loop looks for the next request after an answer before it sleeps.
    pub busy_poll: Duration,
    /// Products are computed in brain floats.
    pub brain_floats: bool,
    /// What computes, and where.
    pub selection: Selection,
    /// What clients may use.
    pub limits: NetworkLimits,
    /// Where a sample of calls is written.
    pub record_requests: Option<PathBuf>,
    /// The share of calls that is written, 0 to 1.
    pub record_sample: f64,
    /// TensorFlow Serving's behaviour also where it is poorer.
    pub strict: bool,
    /// What is logged.
    pub log_level: LevelFilter,
    /// Time between failing health checks and the end of listening after SIGTERM.
    pub drain_delay: Duration,
    /// Time for requests in flight after that.
    pub drain_timeout: Duration,
    /// Flags given that do nothing, with the reason.
    pub ignored: Vec<(&'static str, &'static str)>,
}

impl Options {
    /// Reads and checks all values.
    pub fn from_values(values: &Values) -> Result<Self, CliError> {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let strict = values.switch("tfs_strict_compat")?;
        let http_port = values.port("http_port")?;
        let enable_batching = values.switch("enable_batching")?;
        check_combinations(values, enable_batching)?;
        let or = |count: usize, default: usize| if count == 0 { default } else { count };
        let classic_workers = or(values.count("rest_api_num_threads")?, 4 * cpus)
            .max(or(values.count("grpc_max_threads")?, 4 * cpus));
        Ok(Options {
            source: source(values, strict)?,
            config_poll: Some(
                values.duration("model_config_file_poll_wait_seconds", Duration::from_secs(1))?,
            )
            .filter(|wait| !wait.is_zero()),
            allow_labels_for_unavailable: values.switch("allow_version_labels_for_unavailable_models")?,
            saved_model_tags: tags(&values.text("saved_model_tags")),
            check_method_names: values.switch("enable_signature_method_name_check")?,
            address: values.address("address")?,
            grpc_port: if http_port != 0 && !values.is_given("port") { 0 } else { values.port("port")? },
            grpc_socket: values.path("grpc_socket_path"),
            rest_port: rest_port(values, strict, http_port)?,
            http_port,
            rest_timeout: values.duration("rest_api_timeout_in_ms", Duration::from_millis(1))?,
            cors: values.switch("rest_api_enable_cors_support")?,
            auth_tokens_file: values.path("auth_tokens_file"),
            auth_failures_per_minute: u32::try_from(values.count("auth_failures_per_minute")?)
                .map_err(|_| values.refuse("auth_failures_per_minute", "a number below 4294967296"))?,
            verify_key: values.path("verify_key"),
            insecure: values.switch("insecure")?,
            tls: values.switch("tls")?,
            tls_identity: tls_identity(values)?,
            tls_client_ca: values.path("tls_client_ca"),
            state_dir: values.path("state_dir"),
            modelarts_services: services(values)?,
            ssl_config_file: values.path("ssl_config_file"),
            monitoring_config_file: values.path("monitoring_config_file"),
            answer_tensor_content: values.switch("enable_serialization_as_tensor_content")?,
            poll_seconds: values.integer("file_system_poll_wait_seconds")?,
            load_threads: or(values.count("num_load_threads")?, cpus),
            unload_threads: values.count("num_unload_threads")?,
            load_retries: values.count("max_num_load_retries")?,
            load_retry_interval: values.duration("load_retry_interval_micros", Duration::from_micros(1))?,
            memory_limit: values.memory("memory_limit", SystemMemory::now().usable())?,
            unload_first: match values.text("swap_policy").as_str() {
                "keep_available" => false,
                "unload_first" => true,
                _ => return Err(values.refuse("swap_policy", "keep_available or unload_first")),
            },
            enable_warmup: values.switch("enable_model_warmup")?,
            warmup_iterations: values.count("num_request_iterations_for_warmup")?.max(1),
            enable_batching,
            batching_parameters_file: values.path("batching_parameters_file"),
            per_model_batching: values.switch("enable_per_model_batching_parameters")?,
            workers: or(values.count("workers")?, classic_workers),
            threads: threads(values, cpus)?,
            busy_poll: values.duration("busy_poll_micros", Duration::from_micros(1))?,
            brain_floats: match values.text("precision").as_str() {
                "f32" => false,
                "bf16" => true,
                _ => return Err(values.refuse("precision", "one of f32, bf16")),
            },
            selection: Selection { backend: values.text("backend"), device: values.text("device") },
            limits: NetworkLimits::from_values(values, strict)?,
            record_requests: values.path("record_requests"),
            record_sample: values.share("record_sample")?,
            strict,
            log_level: values
                .text("log_level")
                .parse()
                .map_err(|_| values.refuse("log_level", "one of off, error, warn, info, debug, trace"))?,
            drain_delay: values.duration("drain_delay", Duration::from_secs(1))?,
            drain_timeout: values.duration("drain_timeout", Duration::from_secs(1))?,
            ignored: values.ignored(),
        })
    }
}

fn check_combinations(values: &Values, enable_batching: bool) -> Result<(), CliError> {
    let conflict = |text: &str| Err(CliError::Conflict(text.to_owned()));
    if values.switch("use_alts_credentials")? {
        return conflict(
            "--use_alts_credentials is not supported: use --ssl_config_file for TLS, or leave it out",
        );
    }
    if !enable_batching {
        if values.path("batching_parameters_file").is_some() {
            return conflict("--batching_parameters_file needs --enable_batching");
        }
        if values.switch("enable_per_model_batching_parameters")? {
            return conflict("--enable_per_model_batching_parameters needs --enable_batching");
        }
    }
    let parallelism = [
        "tensorflow_session_parallelism",
        "tensorflow_intra_op_parallelism",
        "tensorflow_inter_op_parallelism",
    ];
    let mut set = 0;
    for name in parallelism {
        set += usize::from(values.count(name)? != 0);
    }
    if set == parallelism.len() {
        return conflict(
            "--tensorflow_session_parallelism excludes --tensorflow_intra_op_parallelism and \
             --tensorflow_inter_op_parallelism; --threads says the same in one word",
        );
    }
    Ok(())
}

fn tls_identity(values: &Values) -> Result<Option<(PathBuf, PathBuf)>, CliError> {
    let conflict = |text: &str| Err(CliError::Conflict(text.to_owned()));
    let identity = match (values.path("tls_cert"), values.path("tls_key")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return conflict("--tls_cert and --tls_key go together"),
    };
    if identity.is_some() && values.path("ssl_config_file").is_some() {
        return conflict("--ssl_config_file and --tls_cert both name a certificate: give one of them");
    }
    Ok(identity)
}

/// `a=m,b=n`
fn services(values: &Values) -> Result<Vec<(String, String)>, CliError> {
    let text = values.text("modelarts_service");
    let pair = |pair: &str| {
        let (id, model) = pair.split_once('=')?;
        (!id.is_empty() && !model.is_empty()).then(|| (id.to_owned(), model.to_owned()))
    };
    let pairs: Option<Vec<_>> = text.split(',').filter(|part| !part.is_empty()).map(pair).collect();
    pairs.ok_or_else(|| values.refuse("modelarts_service", "a list such as ID=MODEL,ID=MODEL"))
}

fn source(values: &Values, strict: bool) -> Result<ModelSource, CliError> {
    if let Some(path) = values.path("model_config_file") {
        return Ok(ModelSource::ConfigFile(path));
    }
    if let Some(folder) = values.path("modelarts_package") {
        if values.path("model_base_path").is_some() || values.path("models_dir").is_some() {
            return Err(CliError::Conflict(
                "--modelarts_package serves one model: leave --model_base_path and --models_dir out"
                    .to_owned(),
            ));
        }
        return Ok(ModelSource::Package { name: values.text("model_name"), folder });
    }
    match (values.path("model_base_path"), values.path("models_dir")) {
        (Some(_), Some(_)) => Err(CliError::Conflict(
            "--model_base_path serves one model, --models_dir a folder of models: give one of them"
                .to_owned(),
        )),
        (Some(base_path), None) => Ok(ModelSource::Single { name: values.text("model_name"), base_path }),
        (None, Some(folder)) => Ok(ModelSource::Folder(folder)),
        (None, None) if strict || values.is_given("model_name") => Err(CliError::Conflict(
            "Both server_options.model_base_path and server_options.model_config_file are empty!\n\
             Say where the model is: --model_base_path=FOLDER"
                .to_owned(),
        )),
        (None, None) => Ok(ModelSource::BuiltIn),
    }
}

fn rest_port(values: &Values, strict: bool, http_port: u16) -> Result<RestPort, CliError> {
    let port = values.port("rest_api_port")?;
    Ok(match (values.is_given("rest_api_port"), port) {
        (true, 0) => RestPort::Off,
        (true, port) => RestPort::Given(port),
        (false, _) if strict || http_port != 0 => RestPort::Off,
        (false, port) => RestPort::Default(port),
    })
}

fn threads(values: &Values, cpus: usize) -> Result<usize, CliError> {
    let mut wanted = values.count("threads")?;
    if wanted == 0 {
        wanted = values
            .count("tensorflow_session_parallelism")?
            .max(values.count("tensorflow_intra_op_parallelism")?);
    }
    Ok(if wanted == 0 { cpus } else { wanted })
}

fn tags(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options, CliError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::from_values(&Values::read(&words, |_| None).unwrap().0)
    }

    #[test]
    fn the_source_of_models() {
        assert_eq!(read("").unwrap().source, ModelSource::BuiltIn);
        let single = ModelSource::Single { name: "default".into(), base_path: "/m".into() };
        assert_eq!(read("--model_base_path=/m").unwrap().source, single);
        assert_eq!(
            read("--model_config_file=/c --model_base_path=/m").unwrap().source,
            ModelSource::ConfigFile("/c".into())
        );
        assert_eq!(read("--models_dir=/m").unwrap().source, ModelSource::Folder("/m".into()));
        assert!(read("--models_dir=/m --model_base_path=/m").is_err());
        let text = read("--model_name=m").unwrap_err().to_string();
        assert!(
            text.contains(
                "Both server_options.model_base_path and server_options.model_config_file are empty!"
            )
        );
    }

    #[test]
    fn services_of_modelarts() {
        let pairs = read("--modelarts_service=a-1=iris,b=m").unwrap().modelarts_services;
        assert_eq!(pairs, [("a-1".to_owned(), "iris".to_owned()), ("b".to_owned(), "m".to_owned())]);
        assert!(read("--modelarts_service=a").is_err() && read("").unwrap().modelarts_services.is_empty());
    }

    #[test]
    fn one_port_switches_the_classic_ports_off_unless_they_are_given() {
        let options = read("--http_port=80").unwrap();
        assert_eq!((options.http_port, options.grpc_port, options.rest_port), (80, 0, RestPort::Off));
        let options = read("--http_port=80 --port=8500").unwrap();
        assert_eq!((options.http_port, options.grpc_port), (80, 8500));
        let options = read("").unwrap();
        assert_eq!((options.grpc_port, options.rest_port), (8500, RestPort::Default(8501)));
        assert_eq!(read("--rest_api_port=0").unwrap().rest_port, RestPort::Off);
        assert_eq!(read("--tfs_strict_compat --model_base_path=/m").unwrap().rest_port, RestPort::Off);
    }

    #[test]
    fn combinations_that_make_no_sense_are_refused() {
        for line in [
            "--batching_parameters_file=/b",
            "--enable_per_model_batching_parameters",
            "--use_alts_credentials",
            "--tls_cert=/c",
            "--tls_cert=/c --tls_key=/k --ssl_config_file=/s",
            "--modelarts_package=/p --models_dir=/m",
            "--tensorflow_session_parallelism=1 --tensorflow_intra_op_parallelism=1 --tensorflow_inter_op_parallelism=1",
        ] {
            assert!(matches!(read(line), Err(CliError::Conflict(_))), "{line}");
        }
        assert!(read("--batching_parameters_file=/b --enable_batching").is_ok());
    }

    #[test]
    fn counts_of_zero_take_the_machine_s() {
        let options = read("").unwrap();
        assert!(options.workers >= 4 && options.threads >= 1 && options.load_threads >= 1);
        assert_eq!(options.warmup_iterations, 1);
        let machine = SystemMemory::now().usable() as f64;
        assert!((0.79..0.81).contains(&(options.memory_limit as f64 / machine)));
        for (text, bytes) in
            [("1000", 1000), ("2K", 2048), ("3M", 3 << 20), ("1G", 1 << 30), ("0", usize::MAX)]
        {
            assert_eq!(read(&format!("--memory_limit={text}")).unwrap().memory_limit, bytes);
        }
        for text in ["x", "101%", "-1", "1T", "99999999999G", "%", "NaN%"] {
            assert!(read(&format!("--memory_limit={text}")).is_err(), "{text}");
        }
        assert!(read("--swap_policy=unload_first").unwrap().unload_first);
        assert!(read("--swap_policy=x").is_err());
        assert_eq!(read("--workers=3").unwrap().workers, 3);
        assert_eq!(read("--tensorflow_intra_op_parallelism=2").unwrap().threads, 2);
        assert_eq!(
            read("--load_retry_interval_micros=5").unwrap().load_retry_interval,
            Duration::from_micros(5)
        );
        assert_eq!(read("--flush_filesystem_caches=false").unwrap().ignored.len(), 1);
    }
}
