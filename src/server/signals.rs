//! SIGTERM and SIGINT end the server in good order, a second one at once; SIGHUP reads the configuration
//! again.

use super::handler::Surfaces;
use crate::{models::Manager, wire::ServerHandle};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{io, sync::Arc, thread, time::Duration};

pub(super) fn listen(
    server: ServerHandle,
    surfaces: Arc<Surfaces>,
    manager: Option<Arc<Manager>>,
    drain_timeout: Duration,
) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut draining = false;
        for signal in signals.forever() {
            match signal {
                SIGHUP => reload(manager.as_deref()),
                _ if draining => {
                    log::warn!("a second signal: stopping at once");
                    std::process::exit(0);
                }
                _ => {
                    draining = true;
                    log::info!("stopping; requests in flight have {drain_timeout:?}");
                    surfaces.drain();
                    server.stop(drain_timeout);
                }
            }
        }
    })?;
    Ok(())
}

fn reload(manager: Option<&Manager>) {
    match manager.map(Manager::refresh) {
        None => log::info!("the built-in models have nothing to reload"),
        Some(Ok(())) => log::info!("the model configuration is read again"),
        Some(Err(error)) => log::error!("the model configuration stays as it is: {error}"),
    }
}
