//! Ports, and who may come in by them.

use super::Finding;
use crate::{
    cli::{Options, RestPort},
    server::places::Places,
    wire::Bind,
};
use std::{io::ErrorKind, net::TcpListener, path::Path};

pub(super) fn findings(options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    let optional = match options.rest_port {
        RestPort::Default(port) => Some(port),
        _ => None,
    };
    // A default port that is taken is left out of the places.
    if let Some(port) = optional.filter(|&port| TcpListener::bind((options.address, port)).is_err()) {
        findings.push(Finding::advice(
            "ports",
            format!("{port} is taken, so REST would not be served"),
            "--rest_api_port=N chooses another, --http_port=N serves REST and gRPC on one",
        ));
    }
    for bind in Places::new(options, Vec::new()).binds {
        match bind {
            Bind::Tcp(address) => findings.push(match TcpListener::bind(address) {
                Ok(_) => Finding::good("ports", format!("{address} is free")),
                Err(error) => {
                    Finding::wrong("ports", format!("{address}: {error}"), port_advice(error.kind()))
                }
            }),
            Bind::Unix(path) => findings.push(unix(&path)),
            Bind::Inherited(_) => {}
        }
    }
    findings.push(door(options));
    findings
}

fn port_advice(error: ErrorKind) -> &'static str {
    match error {
        ErrorKind::AddrInUse => "another server runs there: end it, or choose another port",
        ErrorKind::PermissionDenied => {
            "ports below 1024 need AmbientCapabilities=CAP_NET_BIND_SERVICE or socket activation: take a higher one"
        }
        ErrorKind::AddrNotAvailable => "--address is none of this machine's addresses",
        _ => "choose another --address or port",
    }
}

fn unix(path: &Path) -> Finding {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match folder.is_dir() {
        true => Finding::good("ports", format!("UNIX socket {}", path.display())),
        false => {
            Finding::wrong("ports", format!("{} has no folder", path.display()), "make the folder first")
        }
    }
}

fn door(options: &Options) -> Finding {
    let (address, found) = (options.address, "other machines may call");
    if address.is_loopback() {
        return Finding::good("access", format!("{address}: only this machine may call"));
    }
    if options.auth_tokens_file.is_some() || options.tls_client_ca.is_some() {
        let encrypted = options.tls || options.tls_identity.is_some() || options.ssl_config_file.is_some();
        return match encrypted {
            true => Finding::good("access", format!("{found} with a token or certificate")),
            false => Finding::advice(
                "access",
                format!("{found} with a token, unencrypted"),
                "--tls hides the tokens",
            ),
        };
    }
    match options.insecure {
        true => {
            Finding::advice("access", format!("{found} without a token"), "--auth_tokens_file asks for one")
        }
        false => Finding::wrong(
            "access",
            format!("--address={address} without tokens is refused"),
            "--auth_tokens_file=FILE (`kinglet token new` makes a token), or --insecure if that is meant",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::doctor::{Grade, tests::options};

    #[test]
    fn who_may_come_in() {
        let grade = |line: &str| door(&options(line)).grade;
        assert_eq!(grade(""), Grade::Good);
        assert_eq!(grade("--address=0.0.0.0"), Grade::Wrong);
        assert_eq!(grade("--address=0.0.0.0 --insecure"), Grade::Advice);
        assert_eq!(grade("--address=0.0.0.0 --auth_tokens_file=/t"), Grade::Advice);
        assert_eq!(grade("--address=0.0.0.0 --auth_tokens_file=/t --tls"), Grade::Good);
    }
}
