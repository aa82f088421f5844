//! `kinglet health [URL] [--port=N] [--grpc] [--timeout=SECONDS]`.

use super::{CliError, Options, RestPort, Values};
use std::{net::IpAddr, time::Duration};

pub(super) const HELP: &str = "\
Usage: kinglet health [URL] [--port=N] [--grpc] [--timeout=SECONDS]

Asks a running server whether it is ready. Exit code 0 if it is; 1 with the reason if not.
  URL        http://HOST:PORT[/PATH], whose status 200 means ready [default path: /readyz], or
             grpc://HOST:PORT[/SERVICE], asked by grpc.health.v1; HOST:PORT is http
  --port     the same on this machine; by default the port that the environment sets for the server
             (KINGLET_HTTP_PORT, KINGLET_REST_API_PORT, PORT ..), else 8501
  --grpc     ask by gRPC
  --timeout  seconds to wait [default: 3]
";

/// How a server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// GET of this path.
    Http(String),
    /// `grpc.health.v1.Health/Check` of this service.
    Grpc(String),
}

/// Which server to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthOptions {
    /// `HOST:PORT`
    pub address: String,
    /// What is asked.
    pub question: Question,
    /// For the whole call.
    pub timeout: Duration,
}

impl HealthOptions {
    pub(super) fn parse(
        arguments: &[String],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, CliError> {
        let usage = || CliError::Usage(HELP.trim_end().to_owned());
        let (mut url, mut port, mut grpc, mut seconds) = (None, None, false, 3.0);
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let Some(body) = argument.strip_prefix("--") else {
                if argument.starts_with('-') || url.replace(argument.clone()).is_some() {
                    return Err(usage());
                }
                continue;
            };
            if body == "grpc" {
                grpc = true;
                continue;
            }
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => (body, arguments.next().ok_or_else(usage)?.clone()),
            };
            let wrong =
                |expected| CliError::BadValue { origin: format!("--{name}"), value: value.clone(), expected };
            match name {
                "port" => {
                    let number: Option<u16> = value.parse().ok().filter(|&number| number != 0);
                    port = Some(number.ok_or_else(|| wrong("a port number (1 to 65535)"))?);
                }
                "timeout" => {
                    let number = value.parse().ok().filter(|seconds| (0.001..=3600.0).contains(seconds));
                    seconds = number.ok_or_else(|| wrong("a number of seconds (0.001 to 3600)"))?;
                }
                _ => return Err(usage()),
            }
        }
        let (address, question) = match (url, port) {
            (Some(_), Some(_)) => return Err(usage()),
            (Some(url), None) => address_of(&url, grpc)?,
            (None, Some(port)) => (format!("127.0.0.1:{port}"), plain(grpc, "")),
            (None, None) => (own_address(environment)?, plain(grpc, "")),
        };
        Ok(Self { address, question, timeout: Duration::from_secs_f64(seconds) })
    }
}

fn plain(grpc: bool, path: &str) -> Question {
    match (grpc, path) {
        (true, service) => Question::Grpc(service.to_owned()),
        (false, "") => Question::Http("/readyz".to_owned()),
        (false, path) => Question::Http(format!("/{path}")),
    }
}

fn address_of(url: &str, grpc: bool) -> Result<(String, Question), CliError> {
    let wrong = |expected| CliError::BadValue { origin: "health".into(), value: url.to_owned(), expected };
    let (grpc, rest) = match url.split_once("://") {
        Some(("http", rest)) => (grpc, rest),
        Some(("grpc", rest)) => (true, rest),
        Some(("https", _)) => {
            return Err(wrong("a server without TLS; ask one with TLS by an HTTPS client of the system"));
        }
        Some(_) => return Err(wrong("a URL that begins with http:// or grpc://")),
        None => (grpc, url),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let port = host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    match (port, host.chars().any(|c| c.is_ascii_control() || c == ' '), path) {
        (Some(_), false, path) if !path.chars().any(|c| c.is_ascii_control() || c == ' ') => {
            Ok((host.to_owned(), plain(grpc, path)))
        }
        _ => Err(wrong("an address such as 127.0.0.1:8501")),
    }
}

/// Where `kinglet serve` listens in the same environment.
fn own_address(environment: impl Fn(&str) -> Option<String>) -> Result<String, CliError> {
    let (values, _) = Values::read(&[], environment)?;
    let options = Options::from_values(&values)?;
    let port = match (options.http_port, options.rest_port) {
        (0, RestPort::Given(port) | RestPort::Default(port)) => port,
        (0, RestPort::Off) => options.grpc_port,
        (port, _) => port,
    };
    Ok(match options.address {
        address if address.is_unspecified() => format!("127.0.0.1:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
        address => format!("{address}:{port}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str, environment: &[(&str, &str)]) -> Result<(String, Question), CliError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let lookup = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        HealthOptions::parse(&words, lookup).map(|options| (options.address, options.question))
    }

    #[test]
    fn the_server_of_the_environment_is_asked() {
        let ready = || Question::Http("/readyz".into());
        for (environment, address) in [
            (&[][..], "127.0.0.1:8501"),
            (&[("PORT", "8080")], "127.0.0.1:8080"),
            (&[("KINGLET_REST_API_PORT", "81"), ("PORT", "8080")], "127.0.0.1:81"),
            (&[("KINGLET_HTTP_PORT", "80"), ("KINGLET_ADDRESS", "::1")], "[::1]:80"),
            (&[("KINGLET_REST_API_PORT", "0"), ("KINGLET_ADDRESS", "0.0.0.0")], "127.0.0.1:8500"),
        ] {
            assert_eq!(parse("", environment), Ok((address.to_owned(), ready())), "{environment:?}");
        }
        assert_eq!(
            parse("--port 9000 --grpc", &[]),
            Ok(("127.0.0.1:9000".into(), Question::Grpc("".into())))
        );
    }

    #[test]
    fn urls() {
        let http = |path: &str| Question::Http(path.into());
        assert_eq!(parse("http://h:80", &[]), Ok(("h:80".into(), http("/readyz"))));
        assert_eq!(parse("h:80/v1/models/m", &[]), Ok(("h:80".into(), http("/v1/models/m"))));
        assert_eq!(parse("grpc://[::1]:80/s", &[]), Ok(("[::1]:80".into(), Question::Grpc("s".into()))));
        for line in [
            "http://h",
            "ftp://h:1",
            "https://h:1",
            "h:99999",
            "--port=0",
            "--timeout=-1",
            "a:1 b:2",
            "--x=1",
        ] {
            assert!(parse(line, &[]).is_err(), "{line}");
        }
    }
}
