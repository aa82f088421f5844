//! The command line: `kinglet serve` and the other commands of `commands`, `--version`, `--help`.
//!
//! Flags are TensorFlow Serving's, so that an existing unit file or container keeps its arguments when the
//! binary is exchanged: a line without a subcommand means `serve`, underscores and dashes are the same, and
//! an argument that nobody knows is reported but does not stop the server. A flag that is absent is looked
//! up in the environment as `KINGLET_<FLAG>`, then takes its default.
#![forbid(unsafe_code)]

mod commands;
mod doctor;
mod flags;
mod generate;
mod health;
mod help;
mod limits;
pub mod local;
pub mod logging;
mod options;
mod token;
mod values;

pub use flags::{Effect, FLAGS, Flag, Group, Kind};
pub use health::{HealthOptions, Question};
pub use limits::NetworkLimits;
pub use options::{ModelSource, Options, RestPort};
pub use token::TokenOptions;
pub use values::Values;

/// What is wrong with the command line, and what to do about it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CliError {
    /// The first word is no command.
    #[error(
        "unknown command: {0}\nCommands are {commands}; `kinglet --help` lists them and all flags.",
        commands = commands::names()
    )]
    UnknownCommand(String),
    /// A flag needs a value and the line ends.
    #[error("--{0} needs a value: write --{0}=VALUE")]
    MissingValue(&'static str),
    /// The value of a flag has another type.
    #[error("{origin}: `{value}` is not {expected}")]
    BadValue {
        /// The flag, or the environment variable it came from.
        origin: String,
        /// What was given.
        value: String,
        /// What is needed.
        expected: &'static str,
    },
    /// Flags that exclude each other, or lack one another.
    #[error("{0}")]
    Conflict(String),
    /// A line that a command cannot read; the text says why.
    #[error("{0}")]
    Usage(String),
    /// The help text of a command was asked for.
    #[error("{0}")]
    Help(String),
    /// `record` without a file.
    #[error("record needs the file to write to: kinglet record FILE [FLAG...], with the flags of serve")]
    MissingRecord,
}

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Serve models; with arguments that no flag matches, for a warning.
    Serve(Box<Options>, Vec<String>),
    /// Describe a model.
    Inspect(Box<local::InspectArguments>),
    /// Run a model once.
    Run(Box<local::RunArguments>),
    /// Time a model.
    Bench(Box<local::BenchArguments>),
    /// Convert a model.
    Convert(Box<local::ConvertArguments>),
    /// Put models and server into one file.
    Bundle(Box<local::BundleArguments>),
    /// Make keys to sign with.
    NewKey(std::path::PathBuf),
    /// Make a token.
    NewToken(TokenOptions),
    /// Ask a running server whether it is ready.
    Health(HealthOptions),
    /// Look at what a server with these options would find; with arguments that no flag matches.
    Doctor(Box<Options>, Vec<String>),
    /// Print a file that goes with this binary.
    Generate(String),
    /// Print the version.
    Version,
    /// Print this text.
    Help(String),
}

/// Reads the arguments after the program's name; `environment` looks up a variable.
pub fn parse(
    arguments: &[String],
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Command, CliError> {
    let (command, rest) = match arguments.split_first() {
        Some((word, rest)) if !word.starts_with('-') => (word.as_str(), rest),
        _ => ("serve", arguments),
    };
    match command {
        "serve" => serve(rest, environment),
        "record" => match rest.split_first() {
            Some((file, rest)) if !file.starts_with('-') => {
                let flag = format!("--record_requests={file}");
                serve(&[&[flag], rest].concat(), environment)
            }
            _ if wants_help(rest) => Ok(Command::Help(help::full())),
            _ => Err(CliError::MissingRecord),
        },
        "inspect" => {
            or_help(local::InspectArguments::parse(rest).map(|inspect| Command::Inspect(Box::new(inspect))))
        }
        "run" => or_help(local::RunArguments::parse(rest).map(|run| Command::Run(Box::new(run)))),
        "bench" => or_help(local::BenchArguments::parse(rest).map(|bench| Command::Bench(Box::new(bench)))),
        "convert" => {
            or_help(local::ConvertArguments::parse(rest).map(|line| Command::Convert(Box::new(line))))
        }
        "bundle" => or_help(local::BundleArguments::parse(rest).map(|line| Command::Bundle(Box::new(line)))),
        "key" if wants_help(rest) => Ok(Command::Help(KEY_USAGE.to_owned())),
        "key" => match rest {
            [new, path] if new == "new" && !path.starts_with('-') => Ok(Command::NewKey(path.into())),
            _ => Err(CliError::Usage(KEY_USAGE.to_owned())),
        },
        "token" if wants_help(rest) => Ok(Command::Help(token::HELP.to_owned())),
        "token" => TokenOptions::parse(rest).map(Command::NewToken),
        "health" if wants_help(rest) => Ok(Command::Help(health::HELP.to_owned())),
        "health" => HealthOptions::parse(rest, environment).map(Command::Health),
        "doctor" if wants_help(rest) => Ok(Command::Help(doctor::HELP.to_owned())),
        "doctor" => {
            let (values, unknown) = Values::read(rest, environment)?;
            Ok(Command::Doctor(Box::new(Options::from_values(&values)?), unknown))
        }
        "generate" if wants_help(rest) => Ok(Command::Help(generate::HELP.to_owned())),
        "generate" => generate::generate(rest).map(Command::Generate),
        "version" => Ok(Command::Version),
        "help" => Ok(Command::Help(help::full())),
        other => Err(CliError::UnknownCommand(other.to_owned())),
    }
}

const KEY_USAGE: &str = "Usage: kinglet key new FILE\n\nWrites a private key to FILE and the public one to FILE.pub \
                         (Ed25519, PEM).";

fn or_help(parsed: Result<Command, CliError>) -> Result<Command, CliError> {
    match parsed {
        Err(CliError::Help(text)) => Ok(Command::Help(text)),
        other => other,
    }
}

/// The usage lines that follow `unknown argument: X`.
pub fn usage() -> String {
    help::usage()
}

fn serve(arguments: &[String], environment: impl Fn(&str) -> Option<String>) -> Result<Command, CliError> {
    if wants_help(arguments) {
        return Ok(Command::Help(help::full()));
    }
    if arguments.iter().any(|argument| argument == "-V") {
        return Ok(Command::Version);
    }
    let (values, unknown) = Values::read(arguments, environment)?;
    if values.switch("version")? {
        return Ok(Command::Version);
    }
    Ok(Command::Serve(Box::new(Options::from_values(&values)?), unknown))
}

fn wants_help(arguments: &[String]) -> bool {
    arguments.iter().any(|argument| argument == "--help" || argument == "-h")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn run(line: &str) -> Command {
        parse(&words(line), |_| None).unwrap()
    }

    fn options(line: &str) -> Options {
        match run(line) {
            Command::Serve(options, _) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn commands_are_told_apart() {
        assert!(matches!(run(""), Command::Serve(..)));
        assert!(matches!(run("serve"), Command::Serve(..)));
        assert!(matches!(run("--port=1"), Command::Serve(..)));
        assert!(matches!(run("inspect /m --batch=2"), Command::Inspect(inspect) if inspect.batch == 2));
        assert!(matches!(run("--version"), Command::Version));
        assert!(matches!(run("serve --version=true"), Command::Version));
        assert!(matches!(run("serve -h"), Command::Help(_)));
        assert!(parse(&words("inspect"), |_| None).is_err());
        assert!(matches!(run("doctor --port=1"), Command::Doctor(options, _) if options.grpc_port == 1));
        assert_eq!(options("record /r --record_sample=1").record_requests, Some("/r".into()));
        assert_eq!(parse(&words("record --port=1"), |_| None).unwrap_err(), CliError::MissingRecord);
        assert!(matches!(parse(&words("srve"), |_| None), Err(CliError::UnknownCommand(_))));
    }

    #[test]
    fn values_are_written_in_every_way_of_tensorflow_serving() {
        for line in ["--port=9000", "--port 9000", "serve --port=9000"] {
            assert_eq!(options(line).grpc_port, 9000, "{line}");
        }
        assert_eq!(options("--rest-api-port=1234").rest_port, RestPort::Given(1234));
        assert!(options("--enable_batching").enable_batching);
        assert!(options("--enable_batching=true").enable_batching);
        assert!(!options("--enable_batching=false").enable_batching);
        assert!(!options("--enable_model_warmup=0").enable_warmup);
        // The last one counts.
        assert_eq!(options("--port=1 --port=2").grpc_port, 2);
    }

    #[test]
    fn unknown_arguments_are_handed_back_and_the_rest_is_read() {
        match run("--bogus=1 --port=7 stray") {
            Command::Serve(options, unknown) => {
                assert_eq!(options.grpc_port, 7);
                assert_eq!(unknown, ["--bogus=1", "stray"]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_environment_stands_below_flags() {
        let environment = |name: &str| match name {
            "KINGLET_PORT" => Some("7000".to_owned()),
            "KINGLET_ENABLE_BATCHING" => Some("true".to_owned()),
            _ => None,
        };
        let Command::Serve(options, _) = parse(&words("serve"), environment).unwrap() else { panic!() };
        assert_eq!((options.grpc_port, options.enable_batching), (7000, true));
        let Command::Serve(options, _) = parse(&words("--port=1"), environment).unwrap() else { panic!() };
        assert_eq!(options.grpc_port, 1);

        // What platforms set, below all that is kinglet's own.
        let platform = |name: &str| (name == "PORT").then(|| "8080".to_owned());
        let Command::Serve(options, _) = parse(&[], platform).unwrap() else { panic!() };
        assert_eq!((options.http_port, options.grpc_port, options.rest_port), (8080, 0, RestPort::Off));
        let Command::Serve(options, _) = parse(&words("--rest_api_port=8080"), platform).unwrap() else {
            panic!()
        };
        assert_eq!((options.http_port, options.rest_port), (0, RestPort::Given(8080)));
        let error = parse(&[], |name| (name == "PORT").then(|| "x".to_owned())).unwrap_err().to_string();
        assert_eq!(error, "environment PORT: `x` is not a port number (0 to 65535)");

        let broken = |name: &str| (name == "KINGLET_PORT").then(|| "x".to_owned());
        let error = parse(&[], broken).unwrap_err().to_string();
        assert_eq!(error, "environment KINGLET_PORT: `x` is not a port number (0 to 65535)");
    }

    #[test]
    fn values_of_a_wrong_type_name_the_flag() {
        for (line, text) in [
            ("--port=x", "--port: `x` is not a port number (0 to 65535)"),
            ("--port=65536", "--port: `65536` is not a port number (0 to 65535)"),
            ("--max_num_load_retries=-1", "--max_num_load_retries: `-1` is not a whole number, 0 or more"),
            ("--enable_batching=maybe", "--enable_batching: `maybe` is not true or false"),
            ("--port", "--port needs a value: write --port=VALUE"),
            ("--record_sample=2", "--record_sample: `2` is not a number between 0 and 1"),
            ("--address=x", "--address: `x` is not an IP address such as 127.0.0.1 or 0.0.0.0"),
            ("--log_level=loud", "--log_level: `loud` is not one of off, error, warn, info, debug, trace"),
        ] {
            assert_eq!(parse(&words(line), |_| None).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn the_help_lists_every_flag_with_its_default() {
        let Command::Help(text) = run("--help") else { panic!() };
        for flag in FLAGS {
            assert!(text.contains(&format!("--{}", flag.name)), "{} is missing:\n{text}", flag.name);
        }
        assert!(text.contains("[default: 8500]"), "{text}");
    }
}
