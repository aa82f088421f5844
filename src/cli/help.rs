//! The help text: clap lays out the table of flags under its headings.

use super::{FLAGS, Group, Kind, commands::all};
use clap::{Arg, ArgAction, Command, builder::Str};

pub(super) const EXAMPLES: &str = "\
Examples:
  kinglet                                            the built-in models on 127.0.0.1:8501 (REST) and :8500 (gRPC)
  kinglet serve --model_base_path=/models/iris       one model, as `default`
  kinglet serve --models_dir=/models --http_port=80  every model of a folder, REST and gRPC on one port
  kinglet token new                                  a token, and the line for --auth_tokens_file
  kinglet inspect /models/iris/1                     signatures, operators, memory, and what is missing
  kinglet run /models/iris/1 --input x.npz           run a model once (kinglet run --help)
  kinglet bench /models/iris/1 --profile             how long it takes, and where (kinglet bench --help)
  kinglet doctor --models_dir=/models                what would keep such a server from working well
  kinglet generate systemd                           the unit of a service (also container, kserve, man, completions)
  kinglet convert net.onnx /models/net               any model as a folder that loads fastest (kinglet convert --help)
  kinglet bundle net.onnx -o detector                one file that is server and model (kinglet bundle --help)

Every flag can be given as KINGLET_<FLAG> in the environment; dashes may stand for underscores.";

pub(super) fn full() -> String {
    command().render_help().to_string()
}

pub(super) fn usage() -> String {
    format!("{}\n`kinglet --help` lists the flags.", command().render_usage())
}

fn command() -> Command {
    let mut command = Command::new("kinglet")
        .about("An inference server in one static file: TensorFlow Serving's REST and gRPC, no runtime to install.")
        .override_usage(usage_lines())
        .after_help(EXAMPLES)
        .disable_version_flag(true)
        .term_width(terminal_width());
    for group in Group::ALL {
        for flag in FLAGS.iter().filter(|flag| flag.group == group) {
            let mut arg = Arg::new(flag.name).long(flag.name).help(flag.help).help_heading(group.title());
            arg = match flag.kind {
                Kind::Switch => arg.action(ArgAction::Set).num_args(0..=1).value_name("BOOL"),
                Kind::Value(word) => arg.action(ArgAction::Set).value_name(word),
            };
            if !flag.default.is_empty() {
                arg = arg.default_value(Str::from(flag.default));
            }
            command = command.arg(arg);
        }
    }
    command
}

/// A line per command.
fn usage_lines() -> String {
    let line = |name: &str, arguments: &str| format!("kinglet {name} {arguments}\n       ");
    let mut lines: String = all()
        .iter()
        .map(|command| match command.name {
            "serve" => line("[serve]", command.arguments),
            name => line(name, command.arguments),
        })
        .collect();
    lines.push_str("kinglet --version | --help");
    lines
}

/// `COLUMNS` where the shell exports it; else what fits most terminals.
fn terminal_width() -> usize {
    std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(110)
}
