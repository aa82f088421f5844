//! The door before all surfaces: who is let in, and how each surface says no.

use super::{ServeError, limits, named};
use crate::{
    api::{
        auth::{self, Auth, NewToken, Refusal},
        modelarts::ModelArts,
    },
    cli::{Options, TokenOptions},
    models::Error,
    wire::{
        Request, RequestHead, Response,
        grpc::{self, Status},
        path_of,
    },
};

/// A request of an unknown caller may have a body up to this size, in bytes: enough that most are answered in good
/// order, too little to fill the memory.
const UNKNOWN_BODY: usize = 64 << 10;

/// What stands at the door.
pub(super) struct Door {
    auth: Option<Auth>,
    /// Longest gRPC message, in bytes.
    max_message: usize,
}

/// The text that `kinglet token new` prints.
///
/// # Errors
/// What cannot stand in a token file.
pub fn new_token(options: TokenOptions) -> Result<String, String> {
    let TokenOptions { name, expires, models, key_pair } = options;
    auth::mint(&NewToken { name, expires, models, key_pair })
}

impl Door {
    /// Reads the tokens. Refuses to let other machines in, at the place that is `reachable`, without any, unless that is
    /// asked for or clients have to show a certificate.
    pub(super) fn new(
        options: &Options,
        reachable: Option<&str>,
        asks_clients: bool,
    ) -> Result<Self, ServeError> {
        let max_message = limits::of(options).grpc_message;
        let Some(path) = &options.auth_tokens_file else {
            if let Some(place) = reachable.filter(|_| !options.insecure && !asks_clients) {
                return Err(ServeError::Configuration(Error::failed_precondition(format!(
                    "{place} lets every machine of the network in. Give --auth_tokens_file=FILE (`kinglet token \
                     new` makes a token), or --insecure if that is meant."
                ))));
            }
            return Ok(Self { auth: None, max_message });
        };
        let auth = Auth::from_file(path, options.auth_failures_per_minute)
            .map_err(|error| ServeError::Configuration(Error::invalid_argument(error.to_string())))?;
        Ok(Self { auth: Some(auth), max_message })
    }

    /// Reads the tokens again.
    pub(super) fn reload(&self) {
        match self.auth.as_ref().map(Auth::reload) {
            None => {}
            Some(Ok(count)) => log::info!("the token file is read again: {count} tokens"),
            Some(Err(error)) => log::error!("the tokens stay as they are: {error}"),
        }
    }

    /// Why a request is not let in; `None` if it is.
    pub(super) fn refusal(&self, request: &Request, modelarts: &ModelArts) -> Option<Refusal> {
        let auth = self.auth.as_ref().filter(|_| !is_open(&request.method, &request.target))?;
        let grant = match auth.check(request) {
            Ok(grant) => grant,
            Err(refusal) => {
                if refusal != Refusal::Missing {
                    log::debug!("refused {}: {}", address(request), refusal.message());
                }
                return Some(refusal);
            }
        };
        let allowed = !grant.is_scoped() || grant.allows(self.model_of(request, modelarts).as_deref());
        (!allowed).then_some(Refusal::Forbidden)
    }

    /// Why the caller of a request that the wire turns away before its body is not known.
    pub(super) fn refusal_of_head(&self, head: &RequestHead) -> Option<Refusal> {
        let auth = self.auth.as_ref().filter(|_| !is_open(&head.method, &head.target))?;
        auth.check_head(head)
    }

    /// The largest body worth waiting for.
    pub(super) fn body_limit(&self, head: &RequestHead) -> usize {
        match &self.auth {
            Some(auth) if !auth.may_pass(head) => UNKNOWN_BODY,
            _ => usize::MAX,
        }
    }

    /// The model that a request names, by the protocol that it speaks.
    fn model_of(&self, request: &Request, modelarts: &ModelArts) -> Option<String> {
        if grpc::is_grpc(request) {
            let call = grpc::decode(request, self.max_message).ok()?;
            return named::model_of_grpc(&call.path, &call.message);
        }
        let path = path_of(&request.target);
        match modelarts.takes_path(&request.method, path) {
            true => modelarts.model_of(&request.method, path),
            false => named::of_rest(path).map(|(_, model)| model),
        }
    }
}

/// Health checks are for everybody, and so is the question of a browser whether it may ask.
fn is_open(method: &str, target: &str) -> bool {
    matches!(
        path_of(target),
        "/healthz" | "/readyz" | "/health" | "/grpc.health.v1.Health/Check" | "/grpc.health.v1.Health/Watch"
    ) || method == "OPTIONS"
}

fn address(request: &Request) -> String {
    request.peer.map_or_else(|| "a local caller".to_owned(), |peer| peer.ip().to_string())
}

/// The answer of the gRPC surface.
pub(super) fn refuse_grpc(request: &Request, refusal: &Refusal) -> Response {
    grpc::encode(Err(Status::new(refusal.code() as u32, refusal.message())), request)
}

/// The answer of the REST surface.
pub(super) fn refuse_rest(refusal: &Refusal) -> Response {
    let body = format!("{{\n    \"error\": \"{}\"\n}}", refusal.message());
    Response::new(refusal.http_status(), "application/json", body)
}

/// The header fields that go with a refusal.
pub(super) fn add_fields(response: &mut Response, refusal: &Refusal) {
    match refusal {
        Refusal::Throttled(wait) => response.headers.push("Retry-After", (wait.as_secs() + 1).to_string()),
        Refusal::Forbidden => {}
        _ => response.headers.push("WWW-Authenticate", "Bearer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::modelarts::Config,
        cli::{Command, parse},
        models::Registry,
    };
    use std::sync::Arc;

    fn door(line: &str) -> Result<Door, ServeError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let Command::Serve(options, _) = parse(&words, |_| None).unwrap() else { panic!() };
        let reachable = (!options.address.is_loopback()).then(|| format!("--address={}", options.address));
        Door::new(&options, reachable.as_deref(), line.contains("client_ca"))
    }

    #[test]
    fn other_machines_need_tokens_or_a_word() {
        assert!(door("").is_ok() && door("--address=::1").is_ok() && door("--address=127.9.9.9").is_ok());
        let error = door("--address=0.0.0.0").err().unwrap().to_string();
        assert!(error.contains("--auth_tokens_file") && error.contains("--insecure"), "{error}");
        assert!(
            door("--address=0.0.0.0 --insecure").is_ok() && door("--address=:: --tls_client_ca=/c").is_ok()
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a plain:b\n").unwrap();
        assert!(door(&format!("--address=:: --auth_tokens_file={}", file.path().display())).is_ok());
        assert!(door("--auth_tokens_file=/no/such/file").is_err());
    }

    #[test]
    fn scopes_and_bodies() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "all plain:a\niris plain:i - iris\n").unwrap();
        let door = door(&format!("--auth_tokens_file={}", file.path().display())).unwrap();
        let config = Config {
            services: vec![("7".into(), "iris".into()), ("8".into(), "digits".into())],
            ..Config::default()
        };
        let modelarts = ModelArts::new(Arc::new(Registry::new()), config);
        let call = |target: &str, token: &str| {
            let mut request = Request::new("POST", target);
            request.headers.push("apikey", token);
            door.refusal(&request, &modelarts)
        };
        assert_eq!(call("/v1/models/iris:predict", "i"), None);
        assert_eq!(call("/v1/infers/7", "i"), None);
        for target in [
            "/v1/infers/8",
            "/v1/infers/9",
            "/",
            "/v1/models/digits:predict",
            "/v1/models",
            "/metrics",
            "//v1/models/iris:predict",
        ] {
            assert_eq!(call(target, "i"), Some(Refusal::Forbidden), "{target}");
            assert_eq!(call(target, "a"), None, "{target}");
        }
        assert!(matches!(call("/v1/models/iris:predict", "x"), Some(Refusal::Invalid(_))));
        assert_eq!(call("/healthz", "x"), None);
        let mut head = RequestHead::new("POST", "/v1/models/iris:predict");
        assert_eq!(door.body_limit(&head), UNKNOWN_BODY);
        head.headers.push("apikey", "i");
        assert_eq!(door.body_limit(&head), usize::MAX);
    }
}
