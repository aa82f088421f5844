//! Every limit of the wire, in one place, with its default.
//!
//! A limit that is not finite is a way to take the server down, so each of them has a value. The
//! defaults suit an edge device: generous for real clients, small against what a hostile one could hold.
#![forbid(unsafe_code)]

use std::{fs, time::Duration};

/// What a peer may use of the server. Sizes are bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Request line and header fields of an HTTP/1.1 request, and the header list of an HTTP/2 one
    /// (RFC 9113, 6.5.2). Above: 431.
    pub head: usize,
    /// Header fields of a request. Above: 431.
    pub header_count: usize,
    /// The request target. Above: 414.
    pub uri: usize,
    /// A request body; [`crate::wire::Handler::body_limit`] can lower it per request. Above: 413.
    pub body: usize,
    /// A gRPC message, decompressed. Above: RESOURCE_EXHAUSTED.
    pub grpc_message: usize,
    /// All extensions of one chunk (RFC 9112, 7.1.1). Above: 400.
    pub chunk_extension: usize,
    /// From accepting a connection to its first byte.
    pub first_byte: Duration,
    /// From the first byte of a head to its end. After it: 408.
    pub head_time: Duration,
    /// How long a body may come at any speed.
    pub body_grace: Duration,
    /// After the grace a body must have come with at least this rate, in bytes per second. Below: 408.
    pub body_rate: u64,
    /// From the end of the head to the end of the body. After it: 408.
    pub body_time: Duration,
    /// A connection without any request is closed after this time.
    pub idle: Duration,
    /// A peer that takes no byte of an answer for this time is cut off; after it, `body_rate` holds for answers too.
    pub write_stall: Duration,
    /// From the first byte of a TLS connection to the end of its handshake.
    pub handshake: Duration,
    /// Connections at once. Above: 503 and close.
    pub connections: usize,
    /// Requests served over one connection before it is closed in good order.
    pub requests_per_connection: u64,
    /// Complete requests that wait for a worker, per worker. Above: 429, or RESOURCE_EXHAUSTED. Some hundred
    /// keep-alive clients that wait for each other are no overload; what they hold is bounded in bytes.
    pub queued_per_worker: usize,
    /// Bodies received or about to be sent, over all connections. Above: 429, or RESOURCE_EXHAUSTED. How much memory there
    /// is, this floor does not know: whoever does, as kinglet's server, sets it.
    pub in_flight_bytes: usize,
    /// The same for one connection. Above: 429, or RESOURCE_EXHAUSTED.
    pub connection_bytes: usize,
    /// HTTP/2 streams of one connection, counting cancelled ones whose work still runs. Above: REFUSED_STREAM.
    pub streams: u32,
    /// HTTP/2 receive window of a stream.
    pub stream_window: u32,
    /// HTTP/2 receive window of a connection.
    pub connection_window: u32,
    /// CONTINUATION frames of one header block. Above: ENHANCE_YOUR_CALM.
    pub continuations: u32,
    /// The compressed header block over its frames. Above: ENHANCE_YOUR_CALM.
    pub header_block: usize,
    /// Whether an HTTP/1.1 request without `Host` is refused (RFC 9112, 3.2).
    pub require_host: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head: 16 << 10,
            header_count: 100,
            uri: 8 << 10,
            body: 64 << 20,
            grpc_message: 4 << 20,
            chunk_extension: 256,
            first_byte: Duration::from_secs(75),
            head_time: Duration::from_secs(10),
            body_grace: Duration::from_secs(5),
            body_rate: 1 << 10,
            body_time: Duration::from_secs(120),
            idle: Duration::from_secs(75),
            write_stall: Duration::from_secs(30),
            handshake: Duration::from_secs(10),
            connections: open_files().saturating_sub(64).clamp(16, 4096),
            requests_per_connection: u64::MAX,
            queued_per_worker: 512,
            in_flight_bytes: 256 << 20,
            connection_bytes: 256 << 20,
            streams: 100,
            stream_window: 1 << 20,
            connection_window: 8 << 20,
            continuations: 8,
            header_block: 32 << 10,
            require_host: true,
        }
    }
}

impl Limits {
    /// Whether `bytes` in `elapsed` is fewer than `body_rate` asks for, once `grace` has passed.
    pub(crate) fn too_slow(&self, bytes: u64, elapsed: Duration, grace: Duration) -> bool {
        let late = elapsed.saturating_sub(grace);
        !late.is_zero() && bytes < late.as_secs().saturating_mul(self.body_rate).max(1)
    }
}

/// The soft limit of open file descriptors; 1024 where it cannot be read.
fn open_files() -> usize {
    fs::read_to_string("/proc/self/limits").ok().and_then(|text| parse_open_files(&text)).unwrap_or(1024)
}

fn parse_open_files(text: &str) -> Option<usize> {
    let row = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match row.split_ascii_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_tables_are_read() {
        let table = "Limit                     Soft Limit           Hard Limit           Units\n\
                     Max open files            1024                 524288               files\n";
        assert_eq!(parse_open_files(table), Some(1024));
        assert_eq!(parse_open_files("Max open files  unlimited unlimited files"), Some(usize::MAX));
        assert_eq!(parse_open_files(""), None);
    }

    #[test]
    fn rate_counts_after_the_grace() {
        let limits = Limits::default();
        let grace = Duration::from_secs(5);
        assert!(!limits.too_slow(0, Duration::from_secs(5), grace));
        assert!(limits.too_slow(0, Duration::from_millis(5001), grace));
        assert!(!limits.too_slow(2048, Duration::from_secs(7), grace));
        assert!(limits.too_slow(2047, Duration::from_secs(7), grace));
    }
}
