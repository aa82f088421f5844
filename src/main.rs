//! The binary: reads the command line, serves or describes, and turns errors into text and an exit code.
#![forbid(unsafe_code)]

use kinglet::{
    cli::{self, CliError, Command, local},
    server,
    tensor::keep_large_blocks_apart,
};
use std::{
    io::{Write, stderr, stdout},
    process::ExitCode,
};

/// TensorFlow Serving's exit code when it cannot start.
const CANNOT_START: u8 = 255;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    keep_large_blocks_apart();
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let command = match cli::parse(&arguments, |name| std::env::var(name).ok()) {
        Ok(command) => command,
        // What each flag says is fine, but not together: TensorFlow Serving finds out when it starts.
        Err(error @ CliError::Conflict(_)) => {
            return fail(CANNOT_START, &format!("Failed to start server. Error: INVALID_ARGUMENT: {error}"));
        }
        Err(error) => return fail(USAGE, &error.to_string()),
    };
    match command {
        Command::Help(text) | Command::Generate(text) => say(&text),
        Command::Version => say(&format!("kinglet {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Inspect(arguments) => told(server::inspect(&arguments)),
        Command::Run(arguments) => done(local::run::run(&arguments, &mut stdout())),
        Command::Bench(arguments) => match &arguments.replay {
            None => done(local::bench::bench(&arguments, &mut stdout())),
            Some(record) => told(server::replay(record, &arguments.model.model, arguments.iterations)),
        },
        Command::Convert(arguments) => done(local::convert::convert(&arguments, &mut stdout())),
        Command::Bundle(arguments) => done(local::bundle::bundle(&arguments, &mut stdout())),
        Command::NewKey(path) => done(local::bundle::new_key(&path, &mut stdout())),
        Command::NewToken(options) => told(server::new_token(options)),
        Command::Health(options) => told(server::health(&options)),
        Command::Doctor(options, unknown) => {
            let report = server::doctor(&options, &unknown);
            say(&report.text);
            if report.works { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Command::Serve(options, unknown) => {
            for argument in &unknown {
                say_error(&format!("unknown argument: {argument}"));
            }
            if !unknown.is_empty() {
                say_error(&cli::usage());
            }
            cli::logging::start(options.log_level);
            match server::run(&options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(CANNOT_START, &error.to_string()),
            }
        }
    }
}

fn told<E: std::fmt::Display>(result: Result<String, E>) -> ExitCode {
    match result {
        Ok(text) => say(&text),
        Err(error) => fail(1, &error.to_string()),
    }
}

fn done(result: Result<(), local::LocalError>) -> ExitCode {
    told(result.map(|()| String::new()))
}

fn say(text: &str) -> ExitCode {
    // A reader that is gone, as in `kinglet --help | head`, is no failure.
    let _ = stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn say_error(text: &str) {
    let _ = writeln!(stderr().lock(), "{text}");
}

fn fail(code: u8, text: &str) -> ExitCode {
    say_error(text);
    ExitCode::from(code)
}
