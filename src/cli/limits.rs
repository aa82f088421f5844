//! What clients may use of the server: sizes, times and numbers, each with its flag.

use super::{CliError, Values};
use std::time::Duration;

/// The limits as they were given. Sizes are bytes; `None` leaves the choice to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct NetworkLimits {
    pub grpc_message: Option<usize>,
    pub body: usize,
    pub head: usize,
    pub headers: usize,
    pub uri: usize,
    pub first_byte: Duration,
    pub head_time: Duration,
    pub body_time: Duration,
    pub body_rate: usize,
    pub idle: Duration,
    pub write: Duration,
    pub handshake: Duration,
    pub connections: Option<usize>,
    pub requests_per_connection: Option<usize>,
    pub queued_per_worker: usize,
    pub in_flight_bytes: Option<usize>,
    pub connection_bytes: usize,
    pub streams: usize,
}

impl NetworkLimits {
    /// Reads the flags. TensorFlow Serving has no limit for a gRPC message, so `strict` lifts the default one.
    pub(super) fn from_values(values: &Values, strict: bool) -> Result<Self, CliError> {
        let seconds = |name| values.duration(name, Duration::from_secs(1));
        let some = |name| Ok(Some(values.count(name)?).filter(|count| *count > 0));
        let one_or_more = |name| match values.count(name)? {
            0 => Err(values.refuse(name, "a whole number, 1 or more")),
            count => Ok(count),
        };
        let lifted = strict && !values.is_given("grpc_max_receive_message_bytes");
        Ok(NetworkLimits {
            grpc_message: if lifted { None } else { some("grpc_max_receive_message_bytes")? },
            body: one_or_more("max_body_bytes")?,
            head: one_or_more("max_header_bytes")?,
            headers: one_or_more("max_headers")?,
            uri: one_or_more("max_uri_bytes")?,
            first_byte: seconds("first_byte_timeout")?,
            head_time: seconds("header_timeout")?,
            body_time: seconds("body_timeout")?,
            body_rate: values.count("min_body_rate")?,
            idle: seconds("idle_timeout")?,
            write: seconds("write_timeout")?,
            handshake: seconds("tls_handshake_timeout")?,
            connections: some("max_connections")?,
            requests_per_connection: some("max_requests_per_connection")?,
            queued_per_worker: one_or_more("max_queued_per_worker")?,
            in_flight_bytes: some("max_in_flight_bytes")?,
            connection_bytes: one_or_more("max_connection_bytes")?,
            streams: one_or_more("max_streams")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<NetworkLimits, CliError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let (values, unknown) = Values::read(&words, |_| None).unwrap();
        assert!(unknown.is_empty(), "{unknown:?}");
        NetworkLimits::from_values(&values, line.contains("strict"))
    }

    #[test]
    fn a_grpc_message_is_limited_unless_asked_otherwise() {
        assert_eq!(read("").unwrap().grpc_message, Some(4 << 20));
        assert_eq!(read("--grpc_max_receive_message_bytes=9").unwrap().grpc_message, Some(9));
        assert_eq!(read("--grpc_max_receive_message_bytes=0").unwrap().grpc_message, None);
        assert_eq!(read("--tfs_strict_compat").unwrap().grpc_message, None);
        let both = "--tfs_strict_compat --grpc_max_receive_message_bytes=9";
        assert_eq!(read(both).unwrap().grpc_message, Some(9));
    }

    #[test]
    fn zero_is_no_limit_where_that_makes_sense() {
        let limits = read("--max_connections=0 --max_requests_per_connection=0").unwrap();
        assert_eq!((limits.connections, limits.requests_per_connection), (None, None));
        assert_eq!(read("--idle_timeout=5").unwrap().idle, Duration::from_secs(5));
        for flag in ["max_body_bytes", "max_header_bytes", "max_streams"] {
            assert!(read(&format!("--{flag}=0")).is_err(), "{flag}");
        }
    }
}
