//! TensorFlow Serving's REST API: status, metadata, predict, classify and regress under `/v1/`.
//!
//! The rules, texts and layouts are those of tensorflow/serving at 9d981c5c, measured on it. In
//! strict mode nothing else happens. The default mode differs where TensorFlow Serving loses data
//! or leaves the caller in the dark; each such place names [`Config::strict`].
#![forbid(unsafe_code)]

mod answer;
mod encoding;
mod examples;
mod infer;
mod metadata;
mod outputs;
mod predict;
mod route;
mod status;
mod tensors;
#[cfg(test)]
mod tests;

use crate::{
    api::{Surface, json::Conversion},
    models::{Error, Patience, Registry},
    wire::{Request, Response, page, path_of},
};
use route::{Route, Verb};
use std::{borrow::Cow, sync::Arc};

/// How the surface behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// TensorFlow Serving's behaviour exactly, its shortcomings too.
    pub strict: bool,
    /// Answers carry `Access-Control-Allow-*` headers.
    pub cors: bool,
}

/// The surface.
pub struct TfsRest {
    registry: Arc<Registry>,
    config: Config,
}

impl TfsRest {
    /// Serves the models of `registry`.
    pub fn new(registry: Arc<Registry>, config: Config) -> Self {
        Self { registry, config }
    }
}

impl Surface for TfsRest {
    fn takes(&self, request: &Request) -> bool {
        route::local_part(&request.target).is_some_and(route::is_api)
    }

    /// Requests outside `/v1/` get the page of TensorFlow Serving's HTTP library.
    fn handle(&self, request: Request, patience: &Patience) -> Response {
        if !matches!(&*request.method, "GET" | "POST" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "PATCH") {
            return page::error(501);
        }
        let Some(target) = route::local_part(&request.target) else { return page::error(400) };
        // A query takes part in the matching only in strict mode; there it breaks most routes.
        let path = if self.config.strict { target } else { path_of(target) };
        if !route::is_api(path) {
            return page::error(404);
        }
        let mut response = match &*request.method {
            "OPTIONS" => answer::preflight(request.headers.get("origin")),
            _ => match self.call(&request, target, path, patience) {
                Ok(body) => answer::json(200, body),
                Err(Failure::Told(error)) => answer::error(&error),
                Err(Failure::Silent) => answer::json(400, Vec::new()),
            },
        };
        if self.config.cors {
            answer::allow_cross_origin(&mut response);
        }
        if !self.config.strict && encoding::accepts_gzip(&request.headers) {
            answer::compress(&mut response);
        }
        response
    }
}

/// How a call fails.
enum Failure {
    Told(Error),
    /// The error's text is lost on the way.
    Silent,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Told(error)
    }
}

impl TfsRest {
    fn call(
        &self,
        request: &Request,
        target: &str,
        path: &str,
        patience: &Patience,
    ) -> Result<Vec<u8>, Failure> {
        let method = &*request.method;
        // HEAD is GET without a body, but TensorFlow Serving does not know it.
        let known_as = if method == "HEAD" && !self.config.strict { "GET" } else { method };
        let route = Route::parse(known_as, path).map_err(|error| match error {
            route::RouteError::VersionTooLarge { .. } if self.config.strict => Failure::Silent,
            error => Failure::Told(Error::invalid_argument(error.to_string())),
        })?;
        let Some(route) = route else {
            return Err(Error::invalid_argument(format!("Malformed request: {method} {target}")).into());
        };
        match route {
            Route::Models if self.config.strict => {
                Err(Error::invalid_argument(route::RouteError::MissingName.to_string()).into())
            }
            Route::Models => Ok(status::all_models(&self.registry)),
            Route::Status(model) => Ok(status::model(&self.registry, &model)?),
            Route::Metadata(model) => Ok(metadata::metadata(&self.registry, &model)?),
            Route::Infer(model, verb) => {
                let body = encoding::decoded_body(request, self.config)?;
                Ok(match verb {
                    Verb::Predict => self.predict(model, &body, patience)?,
                    Verb::Classify => self.classify(&model, &body, patience)?,
                    Verb::Regress => self.regress(&model, &body, patience)?,
                })
            }
        }
    }

    fn conversion(&self) -> Conversion {
        if self.config.strict { Conversion::Serving } else { Conversion::Exact }
    }
}

/// Bytes from a request as they appear in error messages.
fn shown(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
