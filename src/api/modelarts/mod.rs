//! The real-time surface of Huawei Cloud ModelArts: images and tables in, labels, boxes and rows out.
//!
//! `POST /v1/infers/{service-id}` and everything below it, `POST /` as edge nodes have it, and the paths that a package's
//! config.json declares. Bodies are multipart forms, JSON or an image; answers follow the model's kinglet.toml
//! ([`crate::models::sidecar`]). Codes and texts of errors are the service's.
#![forbid(unsafe_code)]

mod answer;
mod body;
mod error;
mod package;
mod suggest;
mod table;
#[cfg(test)]
mod tests;

pub use error::{refusal, refusal_of_wire};
pub use package::Package;
pub use suggest::suggest;

use crate::{
    api::Surface,
    models::{ModelRef, Patience, Registry, Servable, VersionChoice},
    wire::{Request, Response, path_of},
};
use error::Failure;
use std::sync::Arc;

const PREFIX: &str = "/v1/infers";
/// The service's own limit of a body, in bytes.
pub const MAX_BODY: usize = 12 << 20;

/// Which paths mean which model.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Service ids and their models; empty lets any id stand for the model that fits.
    pub services: Vec<(String, String)>,
    /// Paths that the package declares beside `/`.
    pub paths: Vec<String>,
    /// TensorFlow Serving answers 404 for `POST /`; so does this surface then.
    pub strict: bool,
}

/// The surface.
pub struct ModelArts {
    registry: Arc<Registry>,
    config: Config,
}

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place<'p> {
    /// `/v1/infers` without an id.
    NoService,
    /// A service, and what follows its id.
    Service(&'p str, &'p str),
    /// `/` or a path of the package.
    Root,
}

impl ModelArts {
    /// Serves the models of `registry`.
    pub fn new(registry: Arc<Registry>, config: Config) -> Self {
        Self { registry, config }
    }

    /// Whether a path is one of this surface's.
    pub fn takes_path(&self, method: &str, target: &str) -> bool {
        self.place(method, path_of(target)).is_some()
    }

    /// The model that a path names, as far as the path alone tells.
    pub fn model_of(&self, method: &str, target: &str) -> Option<String> {
        match self.place(method, path_of(target))? {
            Place::Service(id, _) => self.named(id),
            Place::Root => self.only_model(),
            Place::NoService => None,
        }
    }

    fn place<'p>(&self, method: &str, path: &'p str) -> Option<Place<'p>> {
        if let Some(rest) = path.strip_prefix(PREFIX) {
            let rest = match rest.strip_prefix('/') {
                Some(rest) => rest.trim_start_matches('/'),
                None if rest.is_empty() => return Some(Place::NoService),
                None => return None,
            };
            let (id, below) = rest.split_once('/').unwrap_or((rest, ""));
            return Some(if id.is_empty() { Place::NoService } else { Place::Service(id, below) });
        }
        let ours = (path == "/" && method == "POST")
            || self.config.paths.iter().any(|known| known == path && path != "/");
        (ours && !self.config.strict).then_some(Place::Root)
    }

    /// The model of a service id.
    fn named(&self, id: &str) -> Option<String> {
        if !self.config.services.is_empty() {
            return self
                .config
                .services
                .iter()
                .find(|(known, _)| known == id)
                .map(|(_, model)| model.clone());
        }
        let mut names = self.registry.names();
        match names.iter().position(|name| name == id) {
            Some(at) => Some(names.swap_remove(at)),
            None => self.only_model(),
        }
    }

    fn only_model(&self) -> Option<String> {
        match &*self.registry.names() {
            [only] => Some(only.clone()),
            _ => None,
        }
    }

    fn answer(&self, request: &Request, patience: &Patience) -> Result<Response, Failure> {
        let place = self.place(&request.method, path_of(&request.target)).ok_or(Failure::NoApi)?;
        let (id, model) = match place {
            Place::NoService => return Err(Failure::NoService),
            Place::Service(id, below) => {
                self.check_below(below)?;
                (id, self.named(id))
            }
            Place::Root => ("/", self.only_model()),
        };
        if request.method != "POST" {
            return Err(Failure::Method);
        }
        if model.is_none() && !self.config.services.is_empty() {
            return Err(Failure::NoApi);
        }
        let body = body::read(request)?;
        let servable = match model {
            Some(name) => {
                let wanted = ModelRef { name, version: VersionChoice::Latest };
                self.registry.find(&wanted).map_err(|error| Failure::of_lookup(&error, id))?
            }
            None => self.fitting(&body).ok_or(Failure::NoApi)?,
        };
        answer::answer(&servable, &body, patience)
    }

    /// What follows an id is a path of the package, or a second id.
    fn check_below(&self, below: &str) -> Result<(), Failure> {
        let below = below.trim_end_matches('/');
        let known = |path: &String| path.trim_matches('/') == below;
        let is_id =
            || below.len() == 36 && below.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if below.is_empty() || self.config.paths.is_empty() || self.config.paths.iter().any(known) || is_id()
        {
            return Ok(());
        }
        Err(Failure::UnknownPath(format!("/{below}")))
    }

    /// Among several models, the one whose inputs have the names of the request.
    fn fitting(&self, body: &body::Body) -> Option<Arc<Servable>> {
        let names = body.names();
        let fits = |servable: &Arc<Servable>| {
            servable.main_signature().is_some_and(|signature| {
                !names.is_empty()
                    && signature.inputs.len() == names.len()
                    && signature.inputs.iter().all(|info| names.contains(&info.name))
            })
        };
        let mut found = self.registry.available().into_iter().filter(fits);
        found.next_back()
    }
}

impl Surface for ModelArts {
    fn takes(&self, request: &Request) -> bool {
        self.takes_path(&request.method, &request.target)
    }

    fn handle(&self, request: Request, patience: &Patience) -> Response {
        self.answer(&request, patience).unwrap_or_else(|failure| failure.response())
    }
}
