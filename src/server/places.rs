//! Where to listen. Every place speaks every protocol, so one port can do for all.

use crate::{
    cli::{Options, RestPort},
    wire::Bind,
};
use std::net::{SocketAddr, TcpListener};

/// The places that the options name, and a line for the log about each.
pub(super) fn of(options: &Options) -> (Vec<Bind>, Vec<String>) {
    let at = |port: u16| SocketAddr::new(options.address, port);
    let mut places: Vec<(SocketAddr, String)> = Vec::new();
    if options.http_port != 0 {
        let address = at(options.http_port);
        places.push((address, format!("Serving REST and gRPC at {address}")));
    }
    if options.grpc_port != 0 {
        let address = at(options.grpc_port);
        places.push((address, format!("Running gRPC ModelServer at {address} ...")));
    }
    match options.rest_port {
        RestPort::Given(port) => {
            places.push((at(port), format!("Exporting HTTP/REST API at:{} ...", at(port))));
        }
        RestPort::Default(port) if is_free(at(port)) => {
            places.push((at(port), format!("Exporting HTTP/REST API at:{} ...", at(port))));
        }
        RestPort::Default(port) => {
            log::warn!("port {port} is taken, so REST is not served; --rest_api_port chooses another");
        }
        RestPort::Off => {}
    }
    let mut binds = Vec::new();
    let mut lines = Vec::new();
    let mut seen = Vec::new();
    for (address, line) in places {
        lines.push(line);
        if !seen.contains(&address) {
            seen.push(address);
            binds.push(Bind::Tcp(address));
        }
    }
    if let Some(path) = &options.grpc_socket {
        lines.push(format!("Running gRPC ModelServer at UNIX socket {} ...", path.display()));
        binds.push(Bind::Unix(path.clone()));
    }
    (binds, lines)
}

/// Ports that stay without TLS: what TensorFlow Serving's own file says is about gRPC only, so where it is followed to
/// the letter REST is served in clear.
pub(super) fn without_tls(options: &Options) -> Vec<u16> {
    let classic = options.strict && options.ssl_config_file.is_some() && !options.tls;
    match options.rest_port {
        RestPort::Given(port) | RestPort::Default(port)
            if classic && port != options.grpc_port && port != options.http_port =>
        {
            vec![port]
        }
        _ => Vec::new(),
    }
}

/// Nobody asked for the default port, so finding it taken is no error.
fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, parse};

    fn options(line: &str) -> Options {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let Command::Serve(options, _) = parse(&words, |_| None).unwrap() else { panic!() };
        *options
    }

    fn places(line: &str) -> Vec<String> {
        of(&options(line)).0.iter().map(|bind| format!("{bind:?}")).collect()
    }

    #[test]
    fn one_place_per_port() {
        assert_eq!(places("--port=1 --rest_api_port=2"), ["Tcp(127.0.0.1:1)", "Tcp(127.0.0.1:2)"]);
        assert_eq!(places("--port=1 --rest_api_port=1"), ["Tcp(127.0.0.1:1)"], "one port can do both");
        assert_eq!(places("--http_port=80 --address=::"), ["Tcp([::]:80)"]);
        assert_eq!(places("--port=0 --rest_api_port=0 --grpc_socket_path=/s"), ["Unix(\"/s\")"]);
    }

    #[test]
    fn rest_is_in_clear_only_where_tensorflow_serving_has_it_so() {
        let plain = |line: &str| without_tls(&options(line));
        let strict = "--tfs_strict_compat --model_base_path=/m --rest_api_port=2 --ssl_config_file=/s";
        assert_eq!(plain(strict), [2]);
        assert!(plain(&format!("{strict} --port=2")).is_empty(), "one port cannot do both");
        assert!(plain(&format!("{strict} --tls")).is_empty());
        assert!(plain("--rest_api_port=2 --ssl_config_file=/s").is_empty());
    }
}
