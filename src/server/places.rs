//! Where to listen. Every place speaks every protocol, so one port can do for all.

use super::systemd::InheritedSocket;
use crate::{
    cli::{Options, RestPort},
    wire::Bind,
};
use std::net::{SocketAddr, TcpListener};

/// `FileDescriptorName=` of the socket that REST, or gRPC, is announced at.
const REST: &str = "rest";
const GRPC: &str = "grpc";

/// Where the server listens.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) binds: Vec<Bind>,
    /// A line for the log about each.
    pub(super) lines: Vec<String>,
    /// Where people would call REST.
    pub(super) rest: Option<SocketAddr>,
    /// A place that other machines can reach, as `--address=0.0.0.0`.
    pub(super) reachable: Option<String>,
}

impl Places {
    /// The sockets that a service manager handed over, else those that the options name.
    pub(super) fn new(options: &Options, inherited: Vec<InheritedSocket>) -> Places {
        let mut places = match inherited.is_empty() {
            true => Places::of_ports(options),
            false => Places::of_sockets(inherited),
        };
        if let Some(path) = &options.grpc_socket {
            places.lines.push(format!("Running gRPC ModelServer at UNIX socket {} ...", path.display()));
            places.binds.push(Bind::Unix(path.clone()));
        }
        places
    }

    fn of_ports(options: &Options) -> Places {
        let at = |port: u16| SocketAddr::new(options.address, port);
        let mut places = Places::default();
        if !options.address.is_loopback() {
            places.reachable = Some(format!("--address={}", options.address));
        }
        if options.http_port != 0 {
            let address = at(options.http_port);
            places.add(address, format!("Serving REST and gRPC at {address}"));
            places.rest = Some(address);
        }
        if options.grpc_port != 0 {
            let address = at(options.grpc_port);
            places.add(address, format!("Running gRPC ModelServer at {address} ..."));
        }
        let rest = match options.rest_port {
            RestPort::Given(port) => Some(at(port)),
            RestPort::Default(port) if is_free(at(port)) => Some(at(port)),
            RestPort::Default(port) => {
                log::warn!("port {port} is taken, so REST is not served; --rest_api_port chooses another");
                None
            }
            RestPort::Off => None,
        };
        if let Some(address) = rest {
            places.add(address, format!("Exporting HTTP/REST API at:{address} ..."));
            places.rest.get_or_insert(address);
        }
        places
    }

    fn add(&mut self, address: SocketAddr, line: String) {
        self.lines.push(line);
        let known = |bind: &Bind| matches!(bind, Bind::Tcp(other) if *other == address);
        if !self.binds.iter().any(known) {
            self.binds.push(Bind::Tcp(address));
        }
    }

    /// The unit of the sockets decides: flags for ports do not count.
    fn of_sockets(sockets: Vec<InheritedSocket>) -> Places {
        let mut places = Places::default();
        for InheritedSocket { socket, name, address } in sockets {
            let place = address.map_or_else(|| "a UNIX socket".to_owned(), |address| address.to_string());
            places.lines.push(match name.as_str() {
                REST => format!("Exporting HTTP/REST API at:{place} (socket `{name}`) ..."),
                GRPC => format!("Running gRPC ModelServer at {place} (socket `{name}`) ..."),
                _ => format!("Serving REST and gRPC at {place} (socket `{name}`)"),
            });
            if let Some(address) = address {
                if name == REST || (name != GRPC && places.rest.is_none()) {
                    places.rest = Some(address);
                }
                if !address.ip().is_loopback() {
                    places.reachable.get_or_insert(format!("The socket {address}"));
                }
            }
            places.binds.push(Bind::Inherited(socket));
        }
        places
    }
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

    fn places(line: &str) -> Places {
        Places::new(&options(line), Vec::new())
    }

    #[test]
    fn one_place_per_port() {
        let binds =
            |line: &str| places(line).binds.iter().map(|bind| format!("{bind:?}")).collect::<Vec<_>>();
        assert_eq!(binds("--port=1 --rest_api_port=2"), ["Tcp(127.0.0.1:1)", "Tcp(127.0.0.1:2)"]);
        assert_eq!(binds("--port=1 --rest_api_port=1"), ["Tcp(127.0.0.1:1)"], "one port can do both");
        assert_eq!(binds("--http_port=80 --address=::"), ["Tcp([::]:80)"]);
        assert_eq!(binds("--port=0 --rest_api_port=0 --grpc_socket_path=/s"), ["Unix(\"/s\")"]);
    }

    #[test]
    fn what_others_can_reach() {
        assert_eq!(places("--port=1 --address=::1").reachable, None);
        assert_eq!(places("--port=1 --address=::").reachable.as_deref(), Some("--address=::"));
        let rest = |line: &str| places(line).rest.map(|address| address.port());
        assert_eq!(rest("--port=1 --rest_api_port=2 --http_port=3"), Some(3));
        assert_eq!(rest("--port=1 --rest_api_port=2"), Some(2));
        assert_eq!(rest("--port=1 --rest_api_port=0"), None);
    }

    #[test]
    fn sockets_that_were_handed_over_are_all_there_is() {
        let inherited = |name: &str, address: &str| {
            let listener = TcpListener::bind(address).unwrap();
            let address = listener.local_addr().ok();
            InheritedSocket { socket: listener.into(), name: name.to_owned(), address }
        };
        let Command::Serve(options, _) = parse(&[], |_| None).unwrap() else { panic!() };
        let sockets = vec![
            inherited("grpc", "127.0.0.1:0"),
            inherited("kinglet.socket", "127.0.0.1:0"),
            inherited("rest", "127.0.0.1:0"),
        ];
        let rest = sockets[2].address;
        let places = Places::new(&options, sockets);
        assert_eq!((places.binds.len(), places.rest, places.reachable), (3, rest, None));
        assert!(places.lines[0].starts_with("Running gRPC ModelServer at 127.0.0.1:"), "{:?}", places.lines);
        let places = Places::new(&options, vec![inherited("", "0.0.0.0:0")]);
        assert!(places.reachable.is_some_and(|place| place.starts_with("The socket 0.0.0.0:")));
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
