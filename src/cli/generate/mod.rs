//! `kinglet generate WHAT`: files for deployment that go with this binary, completions and the manual.

mod completions;
mod manual;

use super::CliError;

pub(super) const WORDS: &[&str] = &["systemd", "container", "kserve", "completions", "man"];
pub(super) const ARGUMENTS: &str = "systemd|container|kserve|man|completions SHELL";

pub(super) const HELP: &str = "\
Usage: kinglet generate systemd|container|kserve|man|completions SHELL

Prints a file that goes with this binary:
  systemd      the unit and the socket, for /etc/systemd/system
  container    the Containerfile of an image with nothing but kinglet
  kserve       a ClusterServingRuntime for kubectl apply -f -
  man          the manual page, for /usr/local/share/man/man1/kinglet.1
  completions  of bash, zsh or fish: source <(kinglet generate completions bash)
";

const SERVICE: &str = include_str!("../../../packaging/kinglet.service");
const SOCKET: &str = include_str!("../../../packaging/kinglet.socket");
const CONTAINER: &str = include_str!("../../../packaging/Containerfile");
const KSERVE: &str = include_str!("../../../packaging/kserve.yaml");

/// The file that the words ask for.
pub(super) fn generate(words: &[String]) -> Result<String, CliError> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Ok(match words.as_slice() {
        ["systemd"] => {
            format!("### kinglet.service\n{SERVICE}\n### kinglet.socket\n{SOCKET}")
        }
        ["container"] => CONTAINER.to_owned(),
        ["kserve"] => KSERVE.to_owned(),
        ["man"] => manual::page(),
        ["completions", "bash"] => completions::bash(),
        ["completions", "zsh"] => completions::zsh(),
        ["completions", "fish"] => completions::fish(),
        _ => return Err(CliError::Usage(HELP.trim_end().to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};

    fn text(line: &str) -> String {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        generate(&words).unwrap()
    }

    /// What the files tell kinglet to do has to be what kinglet can do.
    #[test]
    fn the_arguments_of_the_runtime_are_known() {
        let runtime = text("kserve");
        let arguments: Vec<String> = runtime
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- --"))
            .map(|argument| format!("--{}", argument.replace("{{.Name}}", "m")))
            .collect();
        assert_eq!(arguments.len(), 5, "{runtime}");
        match parse(&arguments, |_| None).unwrap() {
            Command::Serve(options, unknown) => {
                assert!(unknown.is_empty(), "{unknown:?}");
                assert_eq!(options.grpc_port, 9000);
            }
            other => panic!("{other:?}"),
        }
        assert!(text("container").contains("HEALTHCHECK"));
        assert!(["\nType=notify-reload\n", "[Socket]\n"].iter().all(|part| text("systemd").contains(part)));
        for file in [runtime, text("container")] {
            assert!(
                !file.contains("kinglet:") || file.contains(concat!("kinglet:", env!("CARGO_PKG_VERSION")))
            );
        }
    }

    #[test]
    fn other_words_are_refused_with_the_list() {
        for line in ["", "x", "completions", "completions tcsh", "kserve more"] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let error = generate(&words).unwrap_err().to_string();
            assert!(error.contains("completions"), "{error}");
        }
    }
}
