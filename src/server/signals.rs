//! SIGTERM and SIGINT end the server in good order, a second one at once; SIGHUP reads the configuration
//! again.

use super::{handler::Surfaces, tls::Identity};
use crate::{models::Manager, wire::ServerHandle};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// A terminal or supervisor may signal a group and the process itself: that is one request to stop.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// What SIGHUP reads again.
pub(super) struct Reloaded {
    pub(super) surfaces: Arc<Surfaces>,
    pub(super) identity: Option<Identity>,
    pub(super) manager: Option<Arc<Manager>>,
}

pub(super) fn listen(server: ServerHandle, reloaded: Reloaded, drain_timeout: Duration) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut draining: Option<Instant> = None;
        for signal in signals.forever() {
            match signal {
                SIGHUP => reloaded.reload(),
                _ if draining.is_some_and(|since| since.elapsed() < SAME_SIGNAL) => {}
                _ if draining.is_some() => {
                    log::warn!("a second signal: stopping at once");
                    std::process::exit(0);
                }
                _ => {
                    draining = Some(Instant::now());
                    log::info!("stopping; requests in flight have {drain_timeout:?}");
                    reloaded.surfaces.drain();
                    server.stop(drain_timeout);
                }
            }
        }
    })?;
    Ok(())
}

impl Reloaded {
    fn reload(&self) {
        self.surfaces.reload();
        if let Some(identity) = &self.identity {
            identity.reload();
        }
        match self.manager.as_deref().map(Manager::refresh) {
            None => log::info!("the built-in models have nothing to reload"),
            Some(Ok(())) => log::info!("the model configuration is read again"),
            Some(Err(error)) => log::error!("the model configuration stays as it is: {error}"),
        }
    }
}
