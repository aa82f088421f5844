//! The manual page, in the macros of man(7).

use crate::cli::{FLAGS, Group, Kind, commands::all, help::EXAMPLES};

/// Text that troff shows as it is.
fn plain(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = text.lines().map(|line| match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

pub(super) fn page() -> String {
    let mut page = format!(
        ".TH KINGLET 1 \"\" \"kinglet {}\" \"User Commands\"\n.SH NAME\nkinglet \\- an inference server in one static \
         file\n.SH SYNOPSIS\n.B kinglet\n[\\fIcommand\\fR] [\\fIflags\\fR]\n.SH DESCRIPTION\n",
        env!("CARGO_PKG_VERSION")
    );
    page += &plain(
        "Serves SavedModel, ONNX and safetensors models over TensorFlow Serving's REST and gRPC and the ModelArts \
         API. A line without a command means serve. Underscores and dashes in flags are the same.",
    );
    page += "\n.SH COMMANDS\n";
    for command in all() {
        let (name, arguments) = (command.name, plain(command.arguments));
        page += &format!(".TP\n\\fB{name}\\fR {arguments}\n{}\n", plain(command.about));
        if !["serve", "record", "doctor"].contains(&name) {
            for flag in &command.flags {
                let value = flag.value.as_ref().map(|value| format!("=\\fI{}\\fR", plain(value)));
                page += &format!(
                    ".RS\n.TP\n\\fB\\-\\-{}\\fR{}\n{}\n.RE\n",
                    flag.name,
                    value.unwrap_or_default(),
                    plain(&flag.help)
                );
            }
        }
    }
    page += ".SH FLAGS OF SERVE\n";
    for group in Group::ALL {
        page += &format!(".SS {}\n", plain(group.title()));
        for flag in FLAGS.iter().filter(|flag| flag.group == group) {
            let value = match flag.kind {
                Kind::Switch => String::new(),
                Kind::Value(word) => format!("=\\fI{}\\fR", plain(word)),
            };
            let default = match flag.default {
                "" => String::new(),
                default => format!(" [default: {}]", plain(default)),
            };
            page += &format!(".TP\n\\fB\\-\\-{}\\fR{value}\n{}{default}\n", flag.name, plain(flag.help));
        }
    }
    page += ".SH ENVIRONMENT\n";
    page += &plain(
        "A flag that is not given is looked up as KINGLET_<FLAG>, as in KINGLET_PORT. PORT is the port of REST and \
         gRPC together where no flag or variable of kinglet names one. KINGLET_ISA forces an instruction set.",
    );
    page += "\n.SH SIGNALS\n";
    page += &plain(
        "SIGTERM and SIGINT let requests in flight finish; a second one ends at once. SIGHUP reads configuration, \
         tokens, certificates and models again.",
    );
    page += "\n.SH EXIT STATUS\n";
    page += &plain(
        "0: success. 1: the command failed; health: not ready. 2: the command line cannot be read. 255: the server \
         cannot start.",
    );
    page += &format!("\n.SH EXAMPLES\n.nf\n{}\n.fi\n", plain(EXAMPLES));
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_a_paragraph() {
        let page = page();
        for flag in FLAGS {
            assert!(page.contains(&format!("\\fB\\-\\-{}\\fR", flag.name)), "{}", flag.name);
        }
        // No line is a request but those of the macros that are meant.
        for line in page.lines().filter(|line| line.starts_with(['.', '\''])) {
            let macros = [".TH", ".SH", ".SS", ".TP", ".B", ".RS", ".RE", ".nf", ".fi"];
            assert!(macros.contains(&line.split(' ').next().unwrap()), "{line}");
        }
    }
}
