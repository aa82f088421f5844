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

pub use answer::Answer;

use crate::{
    api::json::Conversion,
    models::{Error, Patience, Registry},
};
use bytes::Bytes;
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

/// Looks up a request header by its lower-case name.
pub type Headers<'h> = dyn Fn(&str) -> Option<&'h [u8]> + 'h;

impl TfsRest {
    /// Serves the models of `registry`.
    pub fn new(registry: Arc<Registry>, config: Config) -> Self {
        Self { registry, config }
    }

    /// Answers one request. `target` is the request target as it stood in the request line.
    pub fn handle(
        &self,
        method: &str,
        target: &str,
        headers: &Headers<'_>,
        body: Bytes,
        patience: &Patience,
    ) -> Answer {
        if !matches!(method, "GET" | "POST" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "PATCH") {
            return Answer::page(501);
        }
        let Some(target) = route::local_part(target) else { return Answer::page(400) };
        // A query takes part in the matching only in strict mode; there it breaks most routes.
        let path = if self.config.strict { target } else { route::without_query(target) };
        if !route::is_api(path) {
            return Answer::page(404);
        }
        let mut answer = match method {
            "OPTIONS" => Answer::preflight(headers("origin")),
            _ => self.call(method, target, path, headers, body, patience),
        };
        if self.config.cors {
            answer.allow_cross_origin();
        }
        if !self.config.strict && encoding::accepts_gzip(headers("accept-encoding")) {
            answer.compress();
        }
        answer
    }

    fn call(
        &self,
        method: &str,
        target: &str,
        path: &str,
        headers: &Headers<'_>,
        body: Bytes,
        patience: &Patience,
    ) -> Answer {
        let malformed = || Error::invalid_argument(format!("Malformed request: {method} {target}"));
        // HEAD is GET without a body, but TensorFlow Serving does not know it.
        let effective = if method == "HEAD" && !self.config.strict { "GET" } else { method };
        let route = match Route::parse(effective, path) {
            Ok(Some(route)) => route,
            Ok(None) => return Answer::error(&malformed()),
            // Its text is lost on the way.
            Err(_) if self.config.strict => return Answer::json(400, Vec::new()),
            Err(error) => return Answer::error(&error),
        };
        let result = match route {
            Route::Models if self.config.strict => Err(route::missing_name()),
            Route::Models => Ok(status::all_models(&self.registry)),
            Route::Status(model) => status::model(&self.registry, &model),
            Route::Metadata(model) => metadata::metadata(&self.registry, &model),
            Route::Infer(model, verb) => {
                encoding::decoded_body(headers("content-encoding"), body, self.config).and_then(|body| {
                    match verb {
                        Verb::Predict => self.predict(model, &body, patience),
                        Verb::Classify => self.classify(&model, &body, patience),
                        Verb::Regress => self.regress(&model, &body, patience),
                    }
                })
            }
        };
        match result {
            Ok(body) => Answer::json(200, body),
            Err(error) => Answer::error(&error),
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
