//! `--monitoring_config_file`: a text-format `MonitoringConfig`.

use crate::models::{
    Error,
    textproto::{Fields, ParseError, parse},
};
use std::path::Path;

/// Where the page of metrics is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitoring {
    /// Whether there is one.
    pub enabled: bool,
    /// TensorFlow Serving's path for it; `/metrics` exists beside it.
    pub path: String,
}

impl Default for Monitoring {
    fn default() -> Self {
        Self { enabled: true, path: "/monitoring/prometheus/metrics".to_owned() }
    }
}

impl Monitoring {
    /// Reads a file. Without a `prometheus_config` in it the page is off, as in TensorFlow Serving.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let shown = path.display();
        let text = std::fs::read(path).map_err(|error| {
            Error::not_found(format!("Cannot read the monitoring config {shown}: {error}"))
        })?;
        Self::parse(&text)
            .map_err(|error| Error::invalid_argument(format!("Invalid protobuf file: '{shown}': {error}")))
    }

    fn parse(text: &[u8]) -> Result<Self, ParseError> {
        let mut fields = Fields::new(parse(text)?, "tensorflow.serving.MonitoringConfig");
        let prometheus = fields.message("prometheus_config", "tensorflow.serving.PrometheusConfig")?;
        fields.finish()?;
        let mut monitoring = Self { enabled: false, ..Self::default() };
        if let Some((mut prometheus, _)) = prometheus {
            monitoring.enabled = prometheus.boolean("enable")?.unwrap_or(false);
            if let Some(path) = prometheus.string("path")?.filter(|path| !path.is_empty()) {
                monitoring.path = path;
            }
            prometheus.finish()?;
        }
        Ok(monitoring)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let read = |text: &str| Monitoring::parse(text.as_bytes()).unwrap();
        let default = Monitoring::default();
        assert_eq!(read("prometheus_config { enable: true }"), default);
        assert_eq!(
            read("prometheus_config: { enable: true, path: \"/m\" }"),
            Monitoring { enabled: true, path: "/m".into() }
        );
        assert!(!read("").enabled);
        assert!(Monitoring::parse(b"prometheus { }").is_err());
    }
}
