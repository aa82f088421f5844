//! The surface over fake models: the rules that no recorded case (tests/rest_conformance.rs) covers.

mod models;
mod rules;

use super::{Config, TfsRest};
use crate::{
    api::Surface,
    models::{Patience, Registry},
    wire::{Request, Response},
};
use std::sync::Arc;

fn surface(registry: Arc<Registry>, strict: bool) -> TfsRest {
    TfsRest::new(registry, Config { strict, cors: false })
}

fn ask(surface: &TfsRest, method: &str, target: &str, body: &[u8]) -> Response {
    let mut request = Request::new(method, target);
    request.body = body.to_vec().into();
    surface.handle(request, &Patience::default())
}

/// Status and body.
fn answer(surface: &TfsRest, method: &str, target: &str, body: &str) -> (u16, String) {
    let response = ask(surface, method, target, body.as_bytes());
    (response.status, String::from_utf8_lossy(&response.body.into_bytes()).into_owned())
}
