//! Tells the service manager that the server works, for as long as it does (`WatchdogSec=`).
//!
//! The proof is a small model that goes the way of a request: the loop is woken, a worker takes it before all
//! requests that wait, and it runs on the kernels' threads. A loop, pool or set of workers that is stuck stops the
//! heartbeat, and the service manager starts the server anew. A server that is merely busy has its workers get done
//! with requests, which counts as much.

use super::ServiceManager;
use crate::{
    kernels::Threads,
    models::{Error, Patience, Servable},
    tensor::Tensor,
    wire::{Probe, ServerHandle},
};
use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// What runs at each beat.
pub(in super::super) struct Heartbeat {
    /// A small model.
    servable: Servable,
    threads: Threads,
}

impl Heartbeat {
    /// `servable` takes f32 of any shape as its only input.
    pub(in super::super) fn new(servable: Servable, threads: Threads) -> Self {
        Self { servable, threads }
    }

    fn run(&self) -> Result<(), Error> {
        // More tasks than threads, so that each of them is asked.
        self.threads.for_each(4 * self.threads.count(), |_| {});
        let Some(signature) = self.servable.main_signature() else { return Ok(()) };
        let mut outputs = Vec::new();
        signature.program.run(&[Tensor::scalar(1.0_f32)], &[0], &Patience::default(), &mut outputs)
    }

    /// Beats until the server ends, if the service manager listens.
    pub(in super::super) fn start(self, server: ServerHandle, manager: ServiceManager) -> io::Result<()> {
        let Some(limit) = manager.watchdog() else { return Ok(()) };
        let pulse = Pulse { heart: Arc::new(self), server, manager, every: limit / 2 };
        thread::Builder::new().name("heartbeat".into()).spawn(move || pulse.beat())?;
        Ok(())
    }
}

/// The thread that beats.
struct Pulse {
    heart: Arc<Heartbeat>,
    server: ServerHandle,
    manager: ServiceManager,
    every: Duration,
}

impl Pulse {
    fn beat(&self) {
        let mut waiting: Option<Probe> = None;
        let (mut finished, mut current_loop) = (self.server.finished(), None);
        loop {
            let since = Instant::now();
            let mut probe = waiting.take().unwrap_or_else(|| self.probe());
            let answered = probe.is_answered(self.every);
            let (finished_before, loop_before) = (finished, current_loop);
            finished = self.server.finished();
            current_loop = self.heart.threads.current_loop();
            let loop_is_stuck = current_loop.is_some() && current_loop == loop_before;
            if (answered || finished != finished_before) && !loop_is_stuck {
                self.manager.alive();
            } else if self.server.is_stopping() {
                // Its workers are gone or about to go; how long that may take is the service manager's TimeoutStopSec=.
                return;
            } else {
                log::error!(
                    "no sign of life for {:?}: {}",
                    self.every,
                    if loop_is_stuck { "a kernel does not end" } else { "no worker gets on" }
                );
            }
            // One that waits is asked again: it stands before everything else in the queue.
            waiting = (!answered && !probe.is_lost()).then_some(probe);
            thread::sleep(self.every.saturating_sub(since.elapsed()));
        }
    }

    fn probe(&self) -> Probe {
        let heart = Arc::clone(&self.heart);
        self.server.probe(move || {
            if let Err(error) = heart.run() {
                // The probe then counts as not answered.
                panic!("the heartbeat's model fails: {error}");
            }
        })
    }
}
