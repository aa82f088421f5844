//! The server of the wire: listening sockets, one readiness loop, a pool of workers.
//!
//! The loop (epoll through `mio`) owns every connection and never blocks; complete requests go to
//! the workers, and responses come back to the loop. Thousands of idle connections cost memory for their
//! state and nothing else.
#![forbid(unsafe_code)]

mod link;
mod reactor;
mod socket;
mod spin;
mod transport;
mod workers;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use mio::Waker;
use thiserror::Error;

use super::{limits::Limits, message::Handler, tls::Tls};

use reactor::{Reactor, Settings, WAKE};
use socket::Listener;
use workers::Workers;

pub use socket::{Bind, BoundAddress};
pub use workers::Probe;

/// What a server needs to start.
#[derive(Debug)]
pub struct ServerConfig {
    /// Where to listen; each place speaks every protocol.
    pub binds: Vec<Bind>,
    /// Threads that call the handler, at least one.
    pub workers: usize,
    /// What peers may use.
    pub limits: Limits,
    /// Offers TLS; without it, connections that begin with a TLS handshake are closed.
    pub tls: Option<Tls>,
    /// Whether connections over TCP without TLS are closed, if TLS is offered; else one port serves both.
    pub require_tls: bool,
    /// Ports on which TLS is neither offered nor asked for.
    pub plain_ports: Vec<u16>,
    /// How long the loop looks for the next request after an answer before it sleeps, while that pays off.
    pub busy_poll: Duration,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        ServerConfig {
            binds: Vec::new(),
            workers,
            limits: Limits::default(),
            tls: None,
            require_tls: false,
            plain_ports: Vec::new(),
            busy_poll: Duration::ZERO,
        }
    }
}

/// Why a server cannot start or go on.
#[derive(Debug, Error)]
pub enum WireError {
    /// A place to listen cannot be had.
    #[error("cannot listen on {place}: {source}")]
    Bind {
        /// The address or path.
        place: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system denies what the loop or its threads need.
    #[error("the event loop failed: {0}")]
    Loop(#[from] io::Error),
}

/// A server that listens, and serves once [`Server::run`] is called.
pub struct Server {
    reactor: Reactor,
    addresses: Vec<BoundAddress>,
    stop: Stop,
    workers: Arc<Workers>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Binds every place of `config` and starts the workers. Connections are accepted from here on and
    /// served by [`Server::run`].
    pub fn bind(config: ServerConfig, handler: Arc<dyn Handler>) -> Result<Server, WireError> {
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for bind in config.binds {
            let place = place(&bind);
            let bound = Listener::bind(bind).and_then(|listener| Ok((listener.address()?, listener)));
            let (address, listener) = bound.map_err(|source| WireError::Bind { place, source })?;
            addresses.push(address);
            listeners.push(listener);
        }
        let poll = mio::Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let waiting = config.limits.queued_per_worker.saturating_mul(config.workers.max(1));
        let (workers, threads) = Workers::start(config.workers, waiting, handler.clone(), waker)?;
        let stop = Stop::default();
        let settings = Settings {
            limits: Arc::new(config.limits),
            handler,
            workers: workers.clone(),
            stop: stop.clone(),
            tls: config.tls,
            require_tls: config.require_tls,
            plain_ports: config.plain_ports,
            busy_poll: config.busy_poll,
        };
        let reactor = Reactor::new(poll, listeners, settings)?;
        Ok(Server { reactor, addresses, stop, workers, threads })
    }

    /// Where this server listens, in the order of `ServerConfig::binds`.
    pub fn local_addrs(&self) -> &[BoundAddress] {
        &self.addresses
    }

    /// A handle with which other threads can stop this server.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { stop: self.stop.clone(), workers: self.workers.clone() }
    }

    /// Serves until it is stopped.
    pub fn run(mut self) -> Result<(), WireError> {
        let result = self.reactor.run();
        self.workers.stop();
        // A handler that hangs must not keep the process from ending: only those that are done are waited for.
        let all_answered = self.reactor.is_empty();
        for thread in self.threads.drain(..) {
            if all_answered || thread.is_finished() {
                // A worker catches the panics of its handler; there is nothing to learn from its result.
                let _ = thread.join();
            }
        }
        result.map_err(WireError::Loop)
    }
}

/// Stops a server; clones stop the same one.
#[derive(Clone)]
pub struct ServerHandle {
    stop: Stop,
    workers: Arc<Workers>,
}

impl ServerHandle {
    /// Ends the server in good order: no new connections, the requests under way are answered, and what is not
    /// finished after `deadline` is cut off. Returns at once; [`Server::run`] returns when it is over.
    pub fn stop(&self, deadline: Duration) {
        self.stop.set(Instant::now() + deadline);
        self.workers.wake();
    }

    /// Has a worker do `work` before the requests that wait, to see whether the server still works.
    pub fn probe(&self, work: impl FnOnce() + Send + 'static) -> Probe {
        self.workers.probe(work)
    }

    /// Whether the server has been asked to end, so that probes may stay without an answer.
    pub fn is_stopping(&self) -> bool {
        self.stop.get().is_some()
    }

    /// How many requests the workers have been done with so far: when it grows, the server gets on.
    pub fn finished(&self) -> u64 {
        self.workers.finished()
    }
}

/// When the server has to be down, once that has been asked for.
#[derive(Clone, Default)]
struct Stop(Arc<Mutex<Option<Instant>>>);

impl Stop {
    fn set(&self, deadline: Instant) {
        let mut stop = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *stop = Some(stop.map_or(deadline, |before| before.min(deadline)));
    }

    fn get(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(bind: &Bind) -> String {
    match bind {
        Bind::Tcp(address) => address.to_string(),
        Bind::Unix(path) => path.display().to_string(),
        Bind::Inherited(_) => "the inherited socket".to_owned(),
    }
}
