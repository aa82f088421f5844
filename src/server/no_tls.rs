//! A build without TLS: asking for it is refused.

use super::ServeError;
use crate::{cli::Options, models::Error, wire::Tls};

/// Cannot be made: this build has no TLS (feature `tls`).
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) tls: Tls,
    pub(super) self_signed: bool,
    pub(super) asks_clients: bool,
}

impl Identity {
    /// Serving without a protection that was asked for would be worse than not serving.
    pub(super) fn new(options: &Options) -> Result<Option<Self>, ServeError> {
        let asked = options.tls
            || options.tls_identity.is_some()
            || options.tls_client_ca.is_some()
            || options.ssl_config_file.is_some();
        match asked {
            false => Ok(None),
            true => Err(ServeError::Configuration(Error::unimplemented(
                "this build has no TLS: put a proxy that terminates TLS in front, or leave it out",
            ))),
        }
    }

    pub(super) fn reload(&self) {
        match self.tls {}
    }
}
