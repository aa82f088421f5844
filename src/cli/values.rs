//! Arguments and environment to one text per flag, and readers that name the flag they cannot read.

use super::{CliError, Effect, FLAGS, Flag, Kind};
use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

/// Flags of which any says where to listen.
const PORTS: [&str; 4] = ["http_port", "port", "rest_api_port", "grpc_socket_path"];

/// The values given, by flag; absent flags have their default.
#[derive(Debug, Default)]
pub struct Values {
    given: BTreeMap<&'static str, Given>,
}

#[derive(Debug)]
struct Given {
    value: String,
    /// `--port` or `environment KINGLET_PORT`, for errors.
    origin: String,
}

impl Values {
    /// Reads arguments, then the environment for flags that are not among them. Also returns the arguments
    /// that no flag matches.
    pub fn read(
        arguments: &[String],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<String>), CliError> {
        let mut values = Values::default();
        let mut unknown = Vec::new();
        let mut arguments = arguments.iter().peekable();
        while let Some(argument) = arguments.next() {
            let body = argument.strip_prefix("--").unwrap_or("");
            let (name, attached) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (body, None),
            };
            let Some(flag) = Flag::find(name) else {
                unknown.push(argument.clone());
                continue;
            };
            let value = match (attached, flag.kind) {
                (Some(value), _) => value.to_owned(),
                (None, Kind::Switch) => "true".to_owned(),
                (None, Kind::Value(_)) => arguments.next().ok_or(CliError::MissingValue(flag.name))?.clone(),
            };
            values.given.insert(flag.name, Given { value, origin: format!("--{}", flag.name) });
        }
        for flag in FLAGS {
            let variable = flag.variable();
            let value = environment(&variable).filter(|value| !value.is_empty());
            if let (false, Some(value)) = (values.given.contains_key(flag.name), value) {
                values.given.insert(flag.name, Given { value, origin: format!("environment {variable}") });
            }
        }
        values.take_platform_port(environment);
        Ok((values, unknown))
    }

    /// Platforms that run containers (Knative, and others after it) name their one port `PORT`.
    fn take_platform_port(&mut self, environment: impl Fn(&str) -> Option<String>) {
        let named = PORTS.iter().any(|flag| self.is_given(flag));
        if let (false, Some(value)) = (named, environment("PORT").filter(|value| !value.is_empty())) {
            self.given.insert("http_port", Given { value, origin: "environment PORT".to_owned() });
        }
    }

    /// Whether the flag was given at all.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// Flags given that do nothing, with the reason.
    pub fn ignored(&self) -> Vec<(&'static str, &'static str)> {
        FLAGS
            .iter()
            .filter_map(|flag| match flag.effect {
                Effect::Ignored(reason) if self.is_given(flag.name) => Some((flag.name, reason)),
                _ => None,
            })
            .collect()
    }

    /// The text of a flag.
    pub fn text(&self, name: &str) -> String {
        match (self.given.get(name), Flag::find(name)) {
            (Some(given), _) => given.value.clone(),
            (None, Some(flag)) => flag.default.to_owned(),
            (None, None) => String::new(),
        }
    }

    /// A path; empty is `None`.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    /// A boolean.
    pub fn switch(&self, name: &str) -> Result<bool, CliError> {
        match self.text(name).to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Ok(true),
            "false" | "0" | "no" => Ok(false),
            _ => Err(self.refuse(name, "true or false")),
        }
    }

    /// A port.
    pub fn port(&self, name: &str) -> Result<u16, CliError> {
        self.text(name).parse().map_err(|_| self.refuse(name, "a port number (0 to 65535)"))
    }

    /// A count; a default that is no number (such as `4 x CPUs`) is 0.
    pub fn count(&self, name: &str) -> Result<usize, CliError> {
        if !self.is_given(name) {
            return Ok(self.text(name).parse().unwrap_or(0));
        }
        self.text(name).parse().map_err(|_| self.refuse(name, "a whole number, 0 or more"))
    }

    /// Bytes of memory: a number with `K`, `M` or `G` (of 1024), or a share of `all`, as in `80%`. 0 is no limit.
    pub fn memory(&self, name: &str, all: usize) -> Result<usize, CliError> {
        let text = self.text(name);
        let bytes = match text.strip_suffix('%') {
            Some(share) => {
                let share = share.parse().ok().filter(|share| (0.0..=100.0).contains(share));
                share.map(|share: f64| (all as f64 * share / 100.0) as usize)
            }
            None => {
                let units = [('K', 10), ('M', 20), ('G', 30)];
                let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(*unit)?, *shift)));
                let (number, shift) = unit.unwrap_or((&text, 0));
                number.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift))
            }
        };
        match bytes {
            Some(0) => Ok(usize::MAX),
            Some(bytes) => Ok(bytes),
            None => Err(self.refuse(name, "a number of bytes such as 500M, or a share such as 80%")),
        }
    }

    /// A whole number of any sign.
    pub fn integer(&self, name: &str) -> Result<i64, CliError> {
        self.text(name).parse().map_err(|_| self.refuse(name, "a whole number"))
    }

    /// A share between 0 and 1.
    pub fn share(&self, name: &str) -> Result<f64, CliError> {
        let share = self.text(name).parse().ok().filter(|share| (0.0..=1.0).contains(share));
        share.ok_or_else(|| self.refuse(name, "a number between 0 and 1"))
    }

    /// A duration in the unit of the flag.
    pub fn duration(&self, name: &str, unit: Duration) -> Result<Duration, CliError> {
        let count =
            u32::try_from(self.count(name)?).map_err(|_| self.refuse(name, "a number below 4294967296"))?;
        Ok(unit.saturating_mul(count))
    }

    /// An IP address.
    pub fn address(&self, name: &str) -> Result<IpAddr, CliError> {
        self.text(name).parse().map_err(|_| self.refuse(name, "an IP address such as 127.0.0.1 or 0.0.0.0"))
    }

    /// The error for a value that `expected` describes.
    pub fn refuse(&self, name: &str, expected: &'static str) -> CliError {
        let origin = self.given.get(name).map_or_else(|| format!("--{name}"), |given| given.origin.clone());
        CliError::BadValue { origin, value: self.text(name), expected }
    }
}
