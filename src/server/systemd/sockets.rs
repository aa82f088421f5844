//! Sockets that a service manager has opened and holds while this process restarts (sd_listen_fds(3)).

use listenfd::ListenFd;
use std::{io, net::SocketAddr, os::fd::OwnedFd};

/// A socket that listens already.
#[derive(Debug)]
pub(in super::super) struct InheritedSocket {
    pub(in super::super) socket: OwnedFd,
    /// `FileDescriptorName=`; systemd's default is the name of the socket's unit.
    pub(in super::super) name: String,
    /// `None` for a UNIX domain socket.
    pub(in super::super) address: Option<SocketAddr>,
}

/// The sockets that `LISTEN_FDS` announces to this process.
///
/// # Errors
/// One of them is no stream socket, which is a mistake in its unit.
pub(in super::super) fn inherited_sockets() -> io::Result<Vec<InheritedSocket>> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    take(&mut ListenFd::from_env(), &names)
}

fn take(sockets: &mut ListenFd, names: &str) -> io::Result<Vec<InheritedSocket>> {
    let mut names = names.split(':');
    let mut taken = Vec::new();
    for index in 0..sockets.len() {
        let name = names.next().unwrap_or_default().to_owned();
        let (socket, address) = match sockets.take_tcp_listener(index) {
            Ok(Some(listener)) => {
                let address = listener.local_addr()?;
                (listener.into(), Some(address))
            }
            Ok(None) => continue,
            Err(_) => match sockets.take_unix_listener(index) {
                Ok(Some(listener)) => (OwnedFd::from(listener), None),
                Ok(None) => continue,
                Err(_) => {
                    let text = format!("socket {index} ({name}) of LISTEN_FDS is no stream socket");
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
                }
            },
        };
        taken.push(InheritedSocket { socket, name, address });
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_without_an_announcement() {
        assert!(take(&mut ListenFd::empty(), "rest:grpc").unwrap().is_empty());
    }
}
