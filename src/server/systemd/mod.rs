//! What a service manager is told and what it hands over, by systemd's protocols: sd_notify(3), socket activation
//! (sd_listen_fds(3)) and credentials (systemd.exec(5)). Without systemd all of it is silent.
//!
//! kinglet starts no other process, so the variables that carry the protocols stay where they are: nobody inherits
//! them by mistake, and taking a variable away is not sound once there are threads.

mod credentials;
mod heartbeat;
mod sockets;

pub(super) use credentials::with_credentials;
pub(super) use heartbeat::Heartbeat;
pub(super) use sockets::{InheritedSocket, inherited_sockets};

use std::{
    ffi::OsString,
    io,
    os::unix::{ffi::OsStrExt, net::UnixDatagram},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How long a message may wait for a service manager that is busy.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// How often more time is asked for while models load.
const EXTEND_EVERY: Duration = Duration::from_secs(5);
/// How much is asked for: several messages may get lost.
const EXTEND_BY: Duration = Duration::from_secs(20);
/// Loading gets on if it has used this much of a CPU since the last look.
const PROGRESS: Duration = Duration::from_millis(1);

/// The service manager; clones talk to the same one.
#[derive(Clone, Default)]
pub(super) struct ServiceManager {
    socket: Option<Arc<Socket>>,
    /// How often it wants to hear that the server works.
    watchdog: Option<Duration>,
}

struct Socket {
    datagrams: UnixDatagram,
    place: Place,
    /// Start-up is over.
    started: AtomicBool,
}

enum Place {
    Path(OsString),
    #[cfg(target_os = "linux")]
    Abstract(std::os::unix::net::SocketAddr),
}

impl ServiceManager {
    /// The one that started this process and asked to be told, by `NOTIFY_SOCKET` and `WATCHDOG_USEC`.
    pub(super) fn from_environment() -> Self {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Self::default();
        };
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|microseconds| for_us && *microseconds > 0);
        match Self::at(&address, watchdog.map(Duration::from_micros)) {
            Ok(manager) => manager,
            Err(error) => {
                log::error!("NOTIFY_SOCKET={} cannot be used: {error}", address.display());
                Self::default()
            }
        }
    }

    fn at(address: &OsString, watchdog: Option<Duration>) -> io::Result<Self> {
        let place = match address.as_bytes() {
            #[cfg(target_os = "linux")]
            [b'@', name @ ..] => {
                use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
                Place::Abstract(SocketAddr::from_abstract_name(name)?)
            }
            [b'/', ..] => Place::Path(address.clone()),
            _ => return Err(io::Error::other("only a path and an abstract address (@...) are known")),
        };
        let datagrams = UnixDatagram::unbound()?;
        datagrams.set_write_timeout(Some(SEND_TIMEOUT))?;
        let socket = Socket { datagrams, place, started: AtomicBool::new(false) };
        Ok(Self { socket: Some(Arc::new(socket)), watchdog })
    }

    /// How often it wants [`ServiceManager::alive`]; `None` when it does not watch.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Start-up, or a reload, is over.
    pub(super) fn ready(&self, status: &str) {
        if let Some(socket) = &self.socket {
            socket.started.store(true, Ordering::Release);
        }
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// A reload begins; [`ServiceManager::ready`] ends it. False, and nothing is said, during start-up, whose end is
    /// not to be announced by a reload.
    pub(super) fn reloading(&self) -> bool {
        if !self.socket.as_ref().is_some_and(|socket| socket.started.load(Ordering::Acquire)) {
            return false;
        }
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reloading", monotonic().as_micros()));
        true
    }

    /// The end begins.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping: requests in flight are answered");
    }

    /// The server works.
    fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// Asks for more time and shows `status`, every few seconds until the result is dropped; but not for work that
    /// stands still, which shows by the CPU's time.
    pub(super) fn be_patient(&self, status: impl Fn() -> String + Send + 'static) -> Patient {
        let (end, ended) = mpsc::channel::<()>();
        if self.socket.is_none() {
            return Patient { end: Some(end), thread: None };
        }
        let manager = self.clone();
        let work = move || {
            let mut used = cpu_time();
            loop {
                let now = cpu_time();
                let extend = format!("\nEXTEND_TIMEOUT_USEC={}", EXTEND_BY.as_micros());
                let moves = now.saturating_sub(used) >= PROGRESS;
                manager.tell(&format!("STATUS={}{}", status(), if moves { &extend } else { "" }));
                used = now;
                if ended.recv_timeout(EXTEND_EVERY) != Err(mpsc::RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        Patient { end: Some(end), thread: thread::Builder::new().name("patience".into()).spawn(work).ok() }
    }

    fn tell(&self, message: &str) {
        let Some(Socket { datagrams, place, .. }) = self.socket.as_deref() else { return };
        let sent = match place {
            Place::Path(path) => datagrams.send_to(message.as_bytes(), path),
            #[cfg(target_os = "linux")]
            Place::Abstract(address) => datagrams.send_to_addr(message.as_bytes(), address),
        };
        if let Err(error) = sent {
            log::warn!("the service manager cannot be told {message:?}: {error}");
        }
    }
}

/// Keeps the service manager patient until it is dropped; what it said then is out before anything later.
pub(super) struct Patient {
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Patient {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The clock that systemd compares with.
fn monotonic() -> Duration {
    since_its_start(rustix::time::ClockId::Monotonic)
}

/// What this process has used of the CPUs.
fn cpu_time() -> Duration {
    since_its_start(rustix::time::ClockId::ProcessCPUTime)
}

fn since_its_start(clock: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    // Neither clock is ever before its start.
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buffer = [0; 1000];
        let count = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    #[test]
    fn messages_reach_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager::at(&path.clone().into(), None).unwrap();
        assert!(!manager.reloading(), "not before start-up is over");
        manager.ready("2 models");
        assert_eq!(received(&socket), "READY=1\nSTATUS=2 models");
        let before = monotonic();
        assert!(manager.reloading());
        let text = received(&socket);
        let stamp = text.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
        let stamp = Duration::from_micros(stamp.parse().unwrap());
        assert!(text.starts_with("RELOADING=1\n") && stamp + Duration::from_micros(1) >= before, "{text}");
        let up: f64 =
            std::fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(stamp.as_secs_f64() <= up + 1.0, "not above the time since the machine's start");
        let patient = manager.be_patient(|| "loading".into());
        assert_eq!(received(&socket).lines().next(), Some("STATUS=loading"));
        drop(patient);
        manager.stopping();
        assert!(received(&socket).starts_with("STOPPING=1\n"));
        drop((socket, folder));
        manager.ready("nobody listens any more");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn messages_reach_an_abstract_address() {
        use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
        let name = format!("kinglet-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let manager = ServiceManager::at(&format!("@{name}").into(), Some(Duration::from_secs(3))).unwrap();
        manager.alive();
        assert_eq!(received(&socket), "WATCHDOG=1");
        assert_eq!(manager.watchdog(), Some(Duration::from_secs(3)));
    }

    #[test]
    fn other_addresses_are_refused() {
        assert!(ServiceManager::at(&"vsock:2:1234".into(), None).is_err());
        assert!(ServiceManager::at(&"relative".into(), None).is_err());
        ServiceManager::default().ready("nobody asked");
    }
}
