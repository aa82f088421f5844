//! The commands and their flags, as help, completions and the manual show them: one place to add another.

use super::{FLAGS, Kind, doctor, generate, health, local, token};
use clap::ArgAction;

/// A command.
pub(super) struct Subcommand {
    pub(super) name: &'static str,
    /// What follows the name.
    pub(super) arguments: &'static str,
    pub(super) about: &'static str,
    pub(super) flags: Vec<FlagText>,
    /// What the first argument may be.
    pub(super) words: &'static [&'static str],
}

/// A flag in words.
pub(super) struct FlagText {
    pub(super) name: String,
    /// What its value is called; `None` for a switch.
    pub(super) value: Option<String>,
    pub(super) help: String,
}

/// All commands, in the order of the help text.
pub(super) fn all() -> Vec<Subcommand> {
    let command = |name, arguments, about| Subcommand { name, arguments, about, flags: vec![], words: &[] };
    let texts = |lines: &'static str| texts_of(lines).collect();
    vec![
        Subcommand {
            flags: serve_flags(),
            ..command("serve", "[flags]", "Serve models; the command where none is given.")
        },
        Subcommand {
            flags: serve_flags(),
            ..command("record", "FILE [flags]", "Serve, and write a sample of the calls to FILE.")
        },
        Subcommand {
            flags: of_clap(&local::inspect_command()),
            ..command(
                "inspect",
                "PATH [flags]",
                "Describe a model: signatures, operators, memory, what is missing.",
            )
        },
        Subcommand {
            flags: of_clap(&local::run_command()),
            ..command("run", "PATH [flags]", "Run a model once and tell what comes out.")
        },
        Subcommand {
            flags: of_clap(&local::bench_command()),
            ..command(
                "bench",
                "PATH [flags]",
                "Time a model: latency, throughput, memory, operator by operator.",
            )
        },
        Subcommand {
            flags: of_clap(&local::convert_command()),
            ..command("convert", "SRC DST [flags]", "Convert any model to a folder that loads fastest.")
        },
        Subcommand {
            flags: of_clap(&local::bundle_command()),
            ..command("bundle", "[NAME=]PATH... -o FILE", "Put server and models into one file.")
        },
        Subcommand {
            words: &["new"],
            ..command("key", "new FILE", "Make keys that sign and verify models.")
        },
        Subcommand {
            flags: serve_flags(),
            ..command(
                "doctor",
                doctor::ARGUMENTS,
                "Look at machine, limits, ports and models, with advice on each.",
            )
        },
        Subcommand {
            flags: texts(health::HELP),
            ..command(
                "health",
                "[URL] [--port=N]",
                "Ask a running server whether it is ready; exit code 0 if so.",
            )
        },
        Subcommand {
            flags: texts(token::HELP),
            words: &["new"],
            ..command("token", "new [flags]", "Make a token, and the line for --auth_tokens_file.")
        },
        Subcommand {
            words: generate::WORDS,
            ..command("generate", generate::ARGUMENTS, "Print files for deployment, completions, the manual.")
        },
    ]
}

/// `serve`, `record`, .. for a message.
pub(super) fn names() -> String {
    let names: Vec<String> = all().iter().map(|command| format!("`{}`", command.name)).collect();
    match names.split_last() {
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

fn serve_flags() -> Vec<FlagText> {
    let text = |flag: &super::Flag| FlagText {
        name: flag.name.to_owned(),
        value: match flag.kind {
            Kind::Switch => None,
            Kind::Value(word) => Some(word.to_owned()),
        },
        help: flag.help.to_owned(),
    };
    FLAGS.iter().map(text).collect()
}

fn of_clap(command: &clap::Command) -> Vec<FlagText> {
    let text = |arg: &clap::Arg| {
        let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
        let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
        Some(FlagText {
            name: arg.get_long()?.to_owned(),
            value: value.filter(|_| takes_value),
            help: arg.get_help().map(ToString::to_string).unwrap_or_default(),
        })
    };
    command.get_arguments().filter_map(text).collect()
}

/// Flags of a text whose lines are `  --name  what it does`.
fn texts_of(lines: &'static str) -> impl Iterator<Item = FlagText> {
    let flag = |line: &'static str| {
        let (name, help) = line.trim_start().strip_prefix("--")?.split_once("  ")?;
        let (name, help) = (name.trim().to_owned(), help.trim().to_owned());
        let value = (!matches!(name.as_str(), "grpc" | "key")).then(|| "VALUE".to_owned());
        Some(FlagText { name, value, help })
    };
    lines.lines().filter_map(flag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse;

    #[test]
    fn every_command_is_parsed_and_helps() {
        for Subcommand { name, .. } in all() {
            let words = [name.to_owned(), "--help".to_owned()];
            assert!(matches!(parse(&words, |_| None), Ok(crate::cli::Command::Help(_))), "{name}");
        }
        assert!(names().starts_with("`serve`, `record`") && names().ends_with("and `generate`"));
    }

    #[test]
    fn flags_of_all_sources() {
        let all = all();
        let flag = |command: &str, flag: &str| {
            let command = all.iter().find(|it| it.name == command).unwrap();
            command.flags.iter().find(|it| it.name == flag).map(|it| it.value.clone())
        };
        assert_eq!(flag("serve", "port"), Some(Some("PORT".into())));
        assert_eq!(flag("bench", "profile"), Some(None));
        assert_eq!(flag("bench", "input"), Some(Some("FILE.npz".into())));
        assert_eq!(flag("health", "grpc"), Some(None));
        assert_eq!(flag("token", "name"), Some(Some("VALUE".into())));
    }
}
