//! Stream sockets, TCP or unix, and the listeners that make them.
//!
//! Streams are those of the standard library, registered by their descriptor: they can read into the
//! spare capacity of a vector without clearing it first.
#![forbid(unsafe_code)]

use std::{
    fs, io,
    io::{IoSlice, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::{fs::FileTypeExt, net::UnixStream},
    },
    path::{Path, PathBuf},
};

use mio::{Interest, Registry, Token, unix::SourceFd};

/// Connections that the system holds until they are accepted.
const BACKLOG: i32 = 1024;

/// Where to listen.
#[derive(Debug)]
pub enum Bind {
    /// An IPv4 or IPv6 address; port 0 lets the system choose. `[::]` takes IPv4 too where the system allows it.
    Tcp(SocketAddr),
    /// A unix socket. A socket file that nobody listens on any more is replaced.
    Unix(PathBuf),
    /// A socket that listens already, TCP or unix, as socket activation hands it over.
    Inherited(OwnedFd),
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundAddress {
    /// An address with its real port.
    Tcp(SocketAddr),
    /// The path of a unix socket; empty if an inherited one has none.
    Unix(PathBuf),
}

/// A listening socket.
pub(super) enum Listener {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener, Option<PathBuf>),
}

impl Listener {
    pub(super) fn bind(bind: Bind) -> io::Result<Listener> {
        match bind {
            Bind::Tcp(address) => {
                let listener = mio::net::TcpListener::bind(address)?;
                // Listening once more raises the queue of the standard library, which a burst overflows.
                socket2::SockRef::from(&listener).listen(BACKLOG)?;
                Ok(Listener::Tcp(listener))
            }
            Bind::Unix(path) => {
                remove_stale(&path)?;
                let listener = mio::net::UnixListener::bind(&path)?;
                Ok(Listener::Unix(listener, Some(path)))
            }
            Bind::Inherited(fd) => inherit(fd),
        }
    }

    pub(super) fn address(&self) -> io::Result<BoundAddress> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map(BoundAddress::Tcp),
            Listener::Unix(listener, _) => {
                let address = listener.local_addr()?;
                Ok(BoundAddress::Unix(address.as_pathname().map(Path::to_path_buf).unwrap_or_default()))
            }
        }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => registry.register(listener, token, Interest::READABLE),
            Listener::Unix(listener, _) => registry.register(listener, token, Interest::READABLE),
        }
    }

    /// A connection that waits, with the addresses of its two ends if it has any.
    pub(super) fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>, Option<u16>)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                let stream = TcpStream::from(stream);
                // Answers are written whole; waiting to fill a segment would only delay them.
                stream.set_nodelay(true)?;
                let port = listener.local_addr().ok().map(|address| address.port());
                Ok((Socket::Tcp(stream), Some(peer), port))
            }
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept()?;
                Ok((Socket::Unix(stream.into()), None, None))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, Some(path)) = self {
            // It may have been removed or replaced by others: nothing to do about that here.
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes a socket file that nobody listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() && UnixStream::connect(path).is_err() => {
            fs::remove_file(path)
        }
        _ => Ok(()),
    }
}

fn inherit(fd: OwnedFd) -> io::Result<Listener> {
    let tcp = std::net::TcpListener::from(fd.try_clone()?);
    if tcp.local_addr().is_ok() {
        tcp.set_nonblocking(true)?;
        return Ok(Listener::Tcp(mio::net::TcpListener::from_std(tcp)));
    }
    let unix = std::os::unix::net::UnixListener::from(fd);
    unix.local_addr()?;
    unix.set_nonblocking(true)?;
    Ok(Listener::Unix(mio::net::UnixListener::from_std(unix), None))
}

/// A connected stream that never blocks.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn fd(&self) -> RawFd {
        match self {
            Socket::Tcp(stream) => stream.as_raw_fd(),
            Socket::Unix(stream) => stream.as_raw_fd(),
        }
    }

    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.fd()), token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Reads up to `most` bytes into the spare capacity of `buffer`. Says how many came, and whether the peer
    /// has ended its side. Bytes that came before an error count; the error will show again.
    pub(super) fn read_into(&mut self, buffer: &mut Vec<u8>, most: u64) -> io::Result<(usize, bool)> {
        let before = buffer.len();
        let (result, left) = match self {
            Socket::Tcp(stream) => read_to_end(stream, buffer, most),
            Socket::Unix(stream) => read_to_end(stream, buffer, most),
        };
        let count = buffer.len() - before;
        match result {
            Ok(()) => Ok((count, left > 0)),
            Err(_) if count > 0 => Ok((count, false)),
            Err(error) => Err(error),
        }
    }

    /// Ends our side of the stream.
    pub(super) fn shut_down(&self) {
        // A peer that is gone already needs no end.
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }
}

fn read_to_end(stream: &mut impl Read, buffer: &mut Vec<u8>, most: u64) -> (io::Result<()>, u64) {
    let mut limited = stream.take(most);
    let result = limited.read_to_end(buffer).map(|_| ());
    (result, limited.limit())
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write_vectored(slices),
            Socket::Unix(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
