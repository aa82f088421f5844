//! `kinglet doctor`: what a server with these flags would find, a line on each, with advice where it helps.
//!
//! A server that does not start says why, too; the doctor says all reasons at once, and what is merely slow or short.

mod machine;
mod models;
mod network;

use crate::cli::Options;

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grade {
    Good,
    /// It works, and could work better.
    Advice,
    /// It keeps the server, or a part of it, from working.
    Wrong,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    grade: Grade,
    subject: &'static str,
    found: String,
    advice: String,
}

impl Finding {
    fn good(subject: &'static str, found: impl Into<String>) -> Self {
        Self { grade: Grade::Good, subject, found: found.into(), advice: String::new() }
    }

    fn advice(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { grade: Grade::Advice, subject, found: found.into(), advice: advice.into() }
    }

    fn wrong(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { grade: Grade::Wrong, subject, found: found.into(), advice: advice.into() }
    }
}

/// What the doctor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// A line on each finding.
    pub text: String,
    /// False when something keeps the server from working.
    pub works: bool,
}

/// Looks at everything; `unknown` are arguments that no flag matches.
pub fn doctor(options: &Options, unknown: &[String]) -> Report {
    let mut findings: Vec<Finding> = unknown
        .iter()
        .map(|argument| {
            Finding::advice("flags", format!("{argument} is no flag"), "`kinglet --help` lists the flags")
        })
        .collect();
    findings.extend(options.ignored.iter().map(|(flag, reason)| {
        Finding::advice("flags", format!("--{flag} has no effect"), format!("leave it out: {reason}"))
    }));
    findings.extend(machine::findings(options));
    findings.extend(network::findings(options));
    findings.extend(models::findings(options));
    report(&findings)
}

fn report(findings: &[Finding]) -> Report {
    let mut text = String::new();
    for Finding { grade, subject, found, advice } in findings {
        let mark = match grade {
            Grade::Good => "ok    ",
            Grade::Advice => "advice",
            Grade::Wrong => "WRONG ",
        };
        text.push_str(&format!("{mark}  {subject:<11}  {found}\n"));
        if !advice.is_empty() {
            text.push_str(&format!("{:21}-> {advice}\n", ""));
        }
    }
    let count = |grade| findings.iter().filter(|finding| finding.grade == grade).count();
    let (wrong, advice) = (count(Grade::Wrong), count(Grade::Advice));
    text.push_str(&match (wrong, advice) {
        (0, 0) => "all is well\n".to_owned(),
        (0, advice) => format!("it will work; {advice} to improve\n"),
        (wrong, _) => format!("{wrong} to put right\n"),
    });
    Report { text, works: wrong == 0 }
}

/// `1234567` as `1.2 MB`.
fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};

    pub(super) fn options(line: &str) -> Options {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match parse(&words, |_| None).unwrap() {
            Command::Serve(options, _) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_report_in_words() {
        let findings = [
            Finding::good("cpu", "fast"),
            Finding::advice("memory", "little", "buy"),
            Finding::wrong("ports", "taken", "choose"),
        ];
        let Report { text, works } = report(&findings);
        assert!(!works && text.ends_with("1 to put right\n"), "{text}");
        assert!(text.contains("advice  memory       little\n                     -> buy\n"), "{text}");
        assert!(report(&findings[..2]).works);
    }

    #[test]
    fn what_is_wrong_is_found_and_the_rest_goes_on() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let line = format!("--port={port} --rest_api_port=0 --model_base_path=/does/not/exist");
        let Report { text, works } = doctor(&options(&line), &["--bogus".to_owned()]);
        assert!(!works, "{text}");
        for part in ["--bogus is no flag", &format!("127.0.0.1:{port}"), "/does/not/exist", "instruction set"]
        {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }
}
