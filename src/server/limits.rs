//! From the flags to the limits of the wire.

use crate::{cli::Options, wire::Limits};

/// Body and message sizes that are as good as none: what is held is bounded by the memory budgets.
const UNLIMITED: usize = i32::MAX as usize;

/// However little memory models get, calls have to come in.
const FEWEST_IN_FLIGHT: usize = 1 << 20;

/// The limits that the options ask for.
pub(super) fn of(options: &Options) -> Limits {
    let given = &options.limits;
    let own = Limits::default();
    Limits {
        head: given.head,
        header_count: given.headers,
        uri: given.uri,
        body: given.body,
        grpc_message: given.grpc_message.unwrap_or(UNLIMITED),
        first_byte: given.first_byte,
        head_time: given.head_time,
        body_time: given.body_time,
        body_rate: given.body_rate as u64,
        idle: given.idle,
        write_stall: given.write,
        handshake: given.handshake,
        connections: given.connections.unwrap_or(own.connections),
        requests_per_connection: given
            .requests_per_connection
            .map_or(own.requests_per_connection, |count| count as u64),
        queued_per_worker: given.queued_per_worker,
        in_flight_bytes: given.in_flight_bytes.unwrap_or((options.memory_limit / 4).max(FEWEST_IN_FLIGHT)),
        connection_bytes: given.connection_bytes,
        streams: u32::try_from(given.streams).unwrap_or(u32::MAX),
        require_host: !options.strict,
        ..own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};

    fn limits(line: &str) -> Limits {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let Command::Serve(options, _) = parse(&words, |_| None).unwrap() else { panic!() };
        of(&options)
    }

    #[test]
    fn the_help_states_the_defaults_of_the_wire() {
        let in_flight_bytes = Limits::default().in_flight_bytes;
        assert_eq!(Limits { in_flight_bytes, ..limits("") }, Limits::default());
        assert_eq!(limits("--memory_limit=40M").in_flight_bytes, 10 << 20);
    }

    #[test]
    fn flags_reach_the_wire() {
        let found = limits("--max_body_bytes=1 --max_connections=2 --grpc_max_receive_message_bytes=0");
        assert_eq!((found.body, found.connections, found.grpc_message), (1, 2, UNLIMITED));
        let strict = limits("--tfs_strict_compat --model_base_path=/m");
        assert!(!strict.require_host && strict.grpc_message == UNLIMITED);
    }
}
