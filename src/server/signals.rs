//! SIGTERM and SIGINT end the server in good order, a second one at once; SIGHUP reads tokens, certificate and model
//! configuration again, and looks for versions. What cannot be read stays as it is.

use super::{handler::Surfaces, status, systemd::ServiceManager, tls::Identity};
use crate::{models::Manager, wire::ServerHandle};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{
    io,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

/// A terminal or supervisor may signal a group and the process itself: that is one request to stop.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// How the server ends.
#[derive(Clone, Copy)]
pub(super) struct Drain {
    /// Between failing health checks and the end of listening.
    pub(super) delay: Duration,
    /// For requests in flight after that.
    pub(super) timeout: Duration,
}

/// What SIGHUP reads again.
pub(super) struct Reloaded {
    pub(super) surfaces: Arc<Surfaces>,
    pub(super) identity: Option<Identity>,
    pub(super) manager: Option<Arc<Manager>>,
}

pub(super) fn listen(
    server: ServerHandle,
    service: ServiceManager,
    reloaded: Reloaded,
    drain: Drain,
) -> io::Result<()> {
    let surfaces = reloaded.surfaces.clone();
    let (reloads, asked) = mpsc::channel::<()>();
    // On a thread of its own: it waits for models, and a signal to stop must not.
    let reloading = service.clone();
    thread::Builder::new().name("reload".into()).spawn(move || {
        while asked.recv().is_ok() {
            // Those that came meanwhile are served by this one.
            while asked.try_recv().is_ok() {}
            reloaded.reload(&reloading);
        }
    })?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut draining: Option<Instant> = None;
        for signal in signals.forever() {
            match signal {
                // The other end lives as long as this one.
                SIGHUP => drop(reloads.send(())),
                _ if draining.is_some_and(|since| since.elapsed() < SAME_SIGNAL) => {}
                _ if draining.is_some() => {
                    log::warn!("a second signal: stopping at once");
                    std::process::exit(0);
                }
                _ => {
                    draining = Some(Instant::now());
                    service.stopping();
                    surfaces.drain();
                    stop(&server, drain);
                }
            }
        }
    })?;
    Ok(())
}

/// Stops the server, after the delay if there is one; a further signal is heard meanwhile.
fn stop(server: &ServerHandle, Drain { delay, timeout }: Drain) {
    if delay.is_zero() {
        log::info!("stopping; requests in flight have {timeout:?}");
        return server.stop(timeout);
    }
    log::info!(
        "stopping in {delay:?}; health checks fail from now on, requests in flight then have {timeout:?}"
    );
    let delayed = server.clone();
    let wait = move || {
        thread::sleep(delay);
        delayed.stop(timeout);
    };
    if thread::Builder::new().name("drain".into()).spawn(wait).is_err() {
        server.stop(timeout);
    }
}

impl Reloaded {
    fn reload(&self, service: &ServiceManager) {
        let announced = service.reloading();
        let registry = self.surfaces.registry.clone();
        let patient = service.be_patient(move || format!("reloading; {}", status(&registry)));
        self.surfaces.reload();
        if let Some(identity) = &self.identity {
            identity.reload();
        }
        match self.manager.as_deref().map(|manager| (manager, manager.refresh())) {
            None => log::info!("the built-in models have nothing to reload"),
            Some((manager, Ok(()))) => {
                log::info!("the model configuration is read again");
                manager.wait_until_tried();
            }
            Some((_, Err(error))) => log::error!("the model configuration stays as it is: {error}"),
        }
        drop(patient);
        if announced && !self.surfaces.is_draining() {
            service.ready(&status(&self.surfaces.registry));
        }
    }
}
