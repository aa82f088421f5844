//! Every flag, with its default and what it does: the one place to add another.
//!
//! Names, types and defaults of the flags that are not under `kinglet` are TensorFlow Serving's.

/// Headings of the help text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Which models, from where.
    Models,
    /// Ports and protocols.
    Network,
    /// Who may call, and encryption.
    Security,
    /// Loading and unloading.
    Loading,
    /// Batching.
    Batching,
    /// Threads.
    Threads,
    /// What clients may use.
    Limits,
    /// Kinglet's own.
    Kinglet,
    /// Accepted so that a command line for TensorFlow Serving goes on working.
    Accepted,
}

impl Group {
    /// Every group, in the order of the help text.
    pub const ALL: [Group; 9] = [
        Group::Models,
        Group::Network,
        Group::Security,
        Group::Loading,
        Group::Batching,
        Group::Threads,
        Group::Limits,
        Group::Kinglet,
        Group::Accepted,
    ];

    /// The heading.
    pub const fn title(self) -> &'static str {
        match self {
            Group::Models => "Models",
            Group::Network => "Network",
            Group::Security => "Tokens and TLS",
            Group::Loading => "Loading and versions",
            Group::Batching => "Batching",
            Group::Threads => "Threads",
            Group::Limits => "Limits for clients (docs/SECURITY.md)",
            Group::Kinglet => "kinglet's own flags",
            Group::Accepted => "Accepted for TensorFlow Serving's command lines, without effect",
        }
    }
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `--flag`, `--flag=true`, `--flag=false`.
    Switch,
    /// A value; the word is shown in the help text.
    Value(&'static str),
}

/// Whether kinglet does anything with a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It does what its help says.
    Used,
    /// Nothing; the reason is logged once when the flag is given.
    Ignored(&'static str),
}

/// One flag.
#[derive(Debug)]
pub struct Flag {
    /// Its name with underscores, without the leading dashes.
    pub name: &'static str,
    /// Where the help lists it.
    pub group: Group,
    /// What it takes.
    pub kind: Kind,
    /// Its default as text; empty for an unset text.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Whether it does it.
    pub effect: Effect,
}

impl Flag {
    /// The flag of that name; dashes count as underscores.
    pub fn find(name: &str) -> Option<&'static Flag> {
        let same = |a: u8, b: u8| a == b || (a == b'_' && b == b'-');
        FLAGS.iter().find(|flag| {
            flag.name.len() == name.len() && flag.name.bytes().zip(name.bytes()).all(|(a, b)| same(a, b))
        })
    }

    /// The environment variable that stands in for it, as in `KINGLET_PORT`.
    pub fn variable(&self) -> String {
        format!("KINGLET_{}", self.name.to_uppercase())
    }
}

const fn flag(
    name: &'static str,
    group: Group,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, group, kind, default, help, effect: Effect::Used }
}

const fn ignored(name: &'static str, kind: Kind, default: &'static str, reason: &'static str) -> Flag {
    Flag { name, group: Group::Accepted, kind, default, help: reason, effect: Effect::Ignored(reason) }
}

use Group::{Batching, Kinglet, Limits, Loading, Models, Network, Security, Threads};
use Kind::{Switch, Value};

const NUMBER: Kind = Value("N");
const PORT: Kind = Value("PORT");
const FILE: Kind = Value("FILE");
const FOLDER: Kind = Value("FOLDER");
const TEXT: Kind = Value("TEXT");

const BYTES: Kind = Value("BYTES");
const SECONDS: Kind = Value("SECONDS");

const NO_RUNTIME: &str = "there is no TensorFlow runtime to configure";
const NO_TFLITE: &str = "no TFLite interpreters are pooled";
const NO_ACCELERATOR: &str = "models run on the CPU";

/// All flags, in the order of the help text.
pub static FLAGS: &[Flag] = &[
    flag("model_name", Models, TEXT, "default", "Name of the model at --model_base_path."),
    flag(
        "modelarts_package",
        Models,
        FOLDER,
        "",
        "Serve the `model` folder of a ModelArts package (saved_model.pb and config.json) as it is.",
    ),
    flag(
        "modelarts_service",
        Models,
        Value("ID=MODEL"),
        "",
        "Models behind the service ids of ModelArts URLs, separated by commas; other ids are then unknown.",
    ),
    flag(
        "model_base_path",
        Models,
        FOLDER,
        "",
        "Serve one model: a folder of numbered version folders, or a model itself. It is read from disk only.",
    ),
    flag(
        "model_config_file",
        Models,
        FILE,
        "",
        "Serve the models of this text-format ModelServerConfig; --model_name and --model_base_path are then ignored.",
    ),
    flag(
        "model_config_file_poll_wait_seconds",
        Models,
        NUMBER,
        "0",
        "Read the model config file again every so many seconds; 0 reads it once (and on SIGHUP).",
    ),
    flag(
        "models_dir",
        Models,
        FOLDER,
        "",
        "Serve every model found one level below this folder, by folder name.",
    ),
    flag(
        "allow_version_labels_for_unavailable_models",
        Models,
        Switch,
        "false",
        "Let a new label name a version that is not loaded yet. Needed to give labels in the file read at start.",
    ),
    flag(
        "saved_model_tags",
        Models,
        TEXT,
        "serve",
        "Comma-separated tags that pick the graph of a SavedModel.",
    ),
    flag(
        "enable_signature_method_name_check",
        Models,
        Switch,
        "false",
        "Refuse a call whose signature carries another method name.",
    ),
    flag("port", Network, PORT, "8500", "Port for gRPC; 0 is off."),
    flag("grpc_socket_path", Network, FILE, "", "Also serve gRPC on this UNIX domain socket."),
    flag(
        "rest_api_port",
        Network,
        PORT,
        "8501",
        "Port for REST; 0 is off (TensorFlow Serving's default, as with --tfs_strict_compat).",
    ),
    flag("rest_api_timeout_in_ms", Network, NUMBER, "30000", "Time limit of a REST call, in milliseconds."),
    flag(
        "rest_api_enable_cors_support",
        Network,
        Switch,
        "false",
        "Send cross-origin headers, so that web pages of other origins may call.",
    ),
    flag(
        "use_alts_credentials",
        Network,
        Switch,
        "false",
        "Google's ALTS is not supported: setting this refuses to start rather than serve unprotected.",
    ),
    flag(
        "monitoring_config_file",
        Network,
        FILE,
        "",
        "Path and switch of the Prometheus page, a text-format MonitoringConfig. The page is on without it.",
    ),
    flag(
        "enable_serialization_as_tensor_content",
        Network,
        Switch,
        "false",
        "Answer gRPC tensors as raw tensor_content instead of typed lists.",
    ),
    flag(
        "auth_tokens_file",
        Security,
        FILE,
        "",
        "Let in only who shows a token of this file; `kinglet token new` makes one. SIGHUP reads it again.",
    ),
    flag(
        "auth_failures_per_minute",
        Security,
        NUMBER,
        "30",
        "Wrong tokens that one address may try in a minute before it is refused unseen; 0 has no limit.",
    ),
    flag(
        "tls",
        Security,
        Switch,
        "false",
        "Serve over TLS only, on every port; without --tls_cert with a certificate of its own, kept in --state_dir.",
    ),
    flag(
        "tls_cert",
        Security,
        FILE,
        "",
        "Certificate chain (PEM) for TLS; needs --tls_key. SIGHUP reads both again.",
    ),
    flag("tls_key", Security, FILE, "", "Private key (PEM) of --tls_cert."),
    flag(
        "tls_client_ca",
        Security,
        FILE,
        "",
        "Let in only clients with a certificate that one of these authorities (PEM) has signed.",
    ),
    flag(
        "ssl_config_file",
        Security,
        FILE,
        "",
        "Serve over TLS with the key and certificates of this text-format SSLConfig; REST too, but for --tfs_strict_compat.",
    ),
    flag(
        "state_dir",
        Security,
        FOLDER,
        "",
        "Where the certificate made by kinglet is kept; else $STATE_DIRECTORY, $XDG_STATE_HOME/kinglet or ~/.local/state/kinglet.",
    ),
    flag(
        "insecure",
        Security,
        Switch,
        "false",
        "Let other machines in without tokens. Without this an --address that is not this machine's own needs them.",
    ),
    flag(
        "verify_key",
        Security,
        FILE,
        "",
        "Public key (PEM): models that are not signed with it, or were changed, are refused (docs/CONVERT.md).",
    ),
    flag(
        "file_system_poll_wait_seconds",
        Loading,
        NUMBER,
        "1",
        "Look for new versions every so many seconds; 0 or less looks once per configuration.",
    ),
    flag(
        "num_load_threads",
        Loading,
        NUMBER,
        "0",
        "How many versions may load at the same time; 0 is the number of CPUs.",
    ),
    flag(
        "num_unload_threads",
        Loading,
        NUMBER,
        "0",
        "How many versions may unload at the same time; 0 has no limit.",
    ),
    flag("max_num_load_retries", Loading, NUMBER, "5", "How often a failed load is tried again."),
    flag(
        "load_retry_interval_micros",
        Loading,
        NUMBER,
        "60000000",
        "Microseconds between tries; changed files are tried at once.",
    ),
    flag(
        "enable_model_warmup",
        Loading,
        Switch,
        "true",
        "Run the requests of assets.extra/tf_serving_warmup_requests before a version answers.",
    ),
    flag(
        "num_request_iterations_for_warmup",
        Loading,
        NUMBER,
        "0",
        "How often each warm-up request runs; 0 is once.",
    ),
    flag(
        "memory_limit",
        Loading,
        Value("BYTES_OR_%"),
        "80%",
        "Memory for models and requests: bytes, with K, M or G (of 1024), or a share of what the control group or the \
         machine has. Models that do not fit are not loaded, requests that do not are RESOURCE_EXHAUSTED; 0 has no limit.",
    ),
    flag(
        "swap_policy",
        Loading,
        Value("POLICY"),
        "keep_available",
        "keep_available: an old version goes when the new one answers. unload_first: it goes before the new one is \
         loaded, which takes the memory of one.",
    ),
    flag("enable_batching", Batching, Switch, "false", "Run requests that wait together as one batch."),
    flag(
        "batching_parameters_file",
        Batching,
        FILE,
        "",
        "Text-format BatchingParameters; needs --enable_batching.",
    ),
    flag(
        "enable_per_model_batching_parameters",
        Batching,
        Switch,
        "false",
        "Read batching_params.pbtxt in a version's folder; needs --enable_batching.",
    ),
    flag(
        "rest_api_num_threads",
        Threads,
        NUMBER,
        "4 x CPUs",
        "Requests worked on at the same time (see --workers).",
    ),
    flag(
        "grpc_max_threads",
        Threads,
        NUMBER,
        "4 x CPUs",
        "Requests worked on at the same time (see --workers).",
    ),
    flag(
        "tensorflow_session_parallelism",
        Threads,
        NUMBER,
        "0",
        "Threads that one request may use; 0 is the number of CPUs.",
    ),
    flag("tensorflow_intra_op_parallelism", Threads, NUMBER, "0", "As --tensorflow_session_parallelism."),
    flag("tensorflow_inter_op_parallelism", Threads, NUMBER, "0", "As --tensorflow_session_parallelism."),
    flag(
        "grpc_max_receive_message_bytes",
        Limits,
        BYTES,
        "4194304",
        "Longest gRPC message, decompressed; 0 has no limit, as TensorFlow Serving and --tfs_strict_compat.",
    ),
    flag("max_body_bytes", Limits, BYTES, "67108864", "Longest request body; above it 413."),
    flag(
        "max_header_bytes",
        Limits,
        BYTES,
        "16384",
        "Request line and header fields together; above it 431.",
    ),
    flag("max_headers", Limits, NUMBER, "100", "Header fields of a request; above it 431."),
    flag("max_uri_bytes", Limits, BYTES, "8192", "Longest request target; above it 414."),
    flag("first_byte_timeout", Limits, SECONDS, "75", "From accepting a connection to its first byte."),
    flag("header_timeout", Limits, SECONDS, "10", "From the first byte of a head to its end; after it 408."),
    flag(
        "body_timeout",
        Limits,
        SECONDS,
        "120",
        "From the end of the head to that of the body; after it 408.",
    ),
    flag(
        "min_body_rate",
        Limits,
        Value("BYTES/S"),
        "1024",
        "Bodies that come, and answers that are taken, more slowly are given up after a time of grace.",
    ),
    flag("idle_timeout", Limits, SECONDS, "75", "A connection without a request is closed after this time."),
    flag(
        "write_timeout",
        Limits,
        SECONDS,
        "30",
        "A client that takes nothing of its answer for so long is cut off.",
    ),
    flag("tls_handshake_timeout", Limits, SECONDS, "10", "For a TLS handshake."),
    flag(
        "max_connections",
        Limits,
        NUMBER,
        "0",
        "Connections at once; above it 503. 0 is 4096, or fewer if the limit of open files is lower.",
    ),
    flag(
        "max_requests_per_connection",
        Limits,
        NUMBER,
        "0",
        "Requests before a connection is closed in good order; 0 has no limit.",
    ),
    flag(
        "max_queued_per_worker",
        Limits,
        NUMBER,
        "512",
        "Requests that wait for each of --workers; above it 429, or RESOURCE_EXHAUSTED.",
    ),
    flag(
        "max_in_flight_bytes",
        Limits,
        BYTES,
        "0",
        "Bodies and answers held for all clients; above it 429. 0 is a quarter of --memory_limit.",
    ),
    flag(
        "max_connection_bytes",
        Limits,
        BYTES,
        "268435456",
        "Bodies and answers held for one connection; above it 429.",
    ),
    flag("max_streams", Limits, NUMBER, "100", "HTTP/2 requests of one connection at the same time."),
    flag(
        "address",
        Kinglet,
        Value("IP"),
        "127.0.0.1",
        "Address to listen on; 0.0.0.0 or :: lets other machines in.",
    ),
    flag(
        "http_port",
        Kinglet,
        PORT,
        "0",
        "One port for REST and gRPC together; the two classic ports are then off unless given.",
    ),
    flag(
        "workers",
        Kinglet,
        NUMBER,
        "0",
        "Requests worked on at the same time; 0 is the larger of the two flags under Threads.",
    ),
    flag("threads", Kinglet, NUMBER, "0", "Threads that one request may use; 0 is the number of CPUs."),
    flag(
        "busy_poll_micros",
        Kinglet,
        NUMBER,
        "200",
        "After an answer, look for the next request for so long before sleeping, while that pays off; 0 is never.",
    ),
    flag(
        "precision",
        Kinglet,
        TEXT,
        "f32",
        "f32 or bf16: what products are computed in. bf16 is faster on CPUs that have it and keeps two to three digits.",
    ),
    flag(
        "backend",
        Kinglet,
        Value("NAME"),
        "kernels",
        "What computes: kernels, or candle in a binary that was built with it (docs/GPU.md).",
    ),
    flag(
        "device",
        Kinglet,
        Value("NAME"),
        "cpu",
        "Where it computes: cpu, cuda:N, or auto for NVIDIA's first device where there is one (docs/GPU.md).",
    ),
    flag(
        "record_requests",
        Kinglet,
        FILE,
        "",
        "Write a sample of the calls that succeed, with their answers, to this file: for warm-up and replay.",
    ),
    flag(
        "record_sample",
        Kinglet,
        Value("SHARE"),
        "0.01",
        "Share of the calls that --record_requests writes, 0 to 1; at most 1000 calls are written.",
    ),
    flag(
        "tfs_strict_compat",
        Kinglet,
        Switch,
        "false",
        "Behave as TensorFlow Serving also where that is poorer.",
    ),
    flag(
        "log_level",
        Kinglet,
        TEXT,
        "info",
        "off, error, warn, info, debug (one line per request) or trace.",
    ),
    flag(
        "drain_delay",
        Kinglet,
        NUMBER,
        "0",
        "Seconds after SIGTERM in which health checks fail but everything is still answered, so that balancers notice.",
    ),
    flag("drain_timeout", Kinglet, NUMBER, "30", "Seconds that requests in flight get after that."),
    flag("version", Kinglet, Switch, "false", "Print the version and exit."),
    ignored("flush_filesystem_caches", Switch, "true", "weights are mapped, the kernel drops them itself"),
    ignored("tensorflow_session_config_file", FILE, "", NO_RUNTIME),
    ignored("platform_config_file", FILE, "", NO_RUNTIME),
    ignored("remove_unused_fields_from_bundle_metagraph", Switch, "true", "unused fields are never kept"),
    ignored("thread_pool_factory_config_file", FILE, "", NO_RUNTIME),
    ignored("grpc_channel_arguments", TEXT, "", "the gRPC library of these arguments is not used"),
    ignored("enable_grpc_healthcheck_service", Switch, "false", "the health service is always on"),
    ignored("enable_profiler", Switch, "true", "there is no TensorFlow profiler"),
    ignored("per_process_gpu_memory_fraction", NUMBER, "0", NO_ACCELERATOR),
    ignored("xla_cpu_compilation_enabled", Switch, "false", NO_RUNTIME),
    ignored("xla_gpu_compilation_enabled", Switch, "false", NO_ACCELERATOR),
    ignored("mixed_precision", TEXT, "", "models run in the precision of their file"),
    ignored("skip_initialize_tpu", Switch, "false", NO_ACCELERATOR),
    ignored("prefer_tflite_model", Switch, "false", NO_TFLITE),
    ignored("num_tflite_pools", NUMBER, "CPUs", NO_TFLITE),
    ignored("num_tflite_interpreters_per_pool", NUMBER, "1", NO_TFLITE),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_flag_of_tensorflow_serving_is_missing() {
        let theirs = "port grpc_socket_path rest_api_port rest_api_num_threads rest_api_timeout_in_ms \
            rest_api_enable_cors_support enable_batching allow_version_labels_for_unavailable_models \
            batching_parameters_file enable_per_model_batching_parameters model_config_file \
            model_config_file_poll_wait_seconds model_name model_base_path num_load_threads \
            num_unload_threads max_num_load_retries load_retry_interval_micros \
            file_system_poll_wait_seconds flush_filesystem_caches tensorflow_session_parallelism \
            tensorflow_intra_op_parallelism tensorflow_inter_op_parallelism \
            tensorflow_session_config_file use_alts_credentials ssl_config_file platform_config_file \
            per_process_gpu_memory_fraction saved_model_tags grpc_channel_arguments grpc_max_threads \
            enable_model_warmup num_request_iterations_for_warmup version monitoring_config_file \
            remove_unused_fields_from_bundle_metagraph prefer_tflite_model num_tflite_pools \
            num_tflite_interpreters_per_pool enable_signature_method_name_check \
            xla_cpu_compilation_enabled xla_gpu_compilation_enabled enable_profiler \
            thread_pool_factory_config_file mixed_precision skip_initialize_tpu \
            enable_grpc_healthcheck_service enable_serialization_as_tensor_content";
        for name in theirs.split_whitespace() {
            assert!(Flag::find(name).is_some(), "--{name}");
        }
    }

    /// The table of `docs/FLAGS.md`.
    fn page() -> String {
        let mut page = String::from(
            "# Flags of `kinglet serve`\n\nWritten from `src/cli/flags.rs` by `KINGLET_WRITE_DOCS=1 cargo test --lib \
             flags`; `kinglet --help` shows the same.\nEach can be given as `KINGLET_<FLAG>` in the environment.\n",
        );
        for group in Group::ALL {
            page += &format!("\n## {}\n| flag | default | meaning |\n| --- | --- | --- |\n", group.title());
            for flag in FLAGS.iter().filter(|flag| flag.group == group) {
                let value = match flag.kind {
                    Switch => String::new(),
                    Value(word) => format!("={word}"),
                };
                let help = flag.help.replace('|', "\\|");
                page += &format!("| `--{}{value}` | {} | {help} |\n", flag.name, flag.default);
            }
        }
        page
    }

    #[test]
    fn every_flag_is_documented_with_its_default() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/FLAGS.md");
        if std::env::var_os("KINGLET_WRITE_DOCS").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == page(), "docs/FLAGS.md is old: KINGLET_WRITE_DOCS=1 cargo test --lib flags");
    }

    #[test]
    fn names_are_unique_and_found_with_dashes() {
        let names: BTreeSet<_> = FLAGS.iter().map(|flag| flag.name).collect();
        assert_eq!(names.len(), FLAGS.len());
        assert_eq!(Flag::find("rest-api_port").map(|flag| flag.name), Some("rest_api_port"));
        assert!(Flag::find("rest-api_por").is_none());
        assert_eq!(Flag::find("port").map(Flag::variable).as_deref(), Some("KINGLET_PORT"));
    }
}
