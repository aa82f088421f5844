//! Who may call: tokens from a file, checked before any surface sees a request.
//!
//! All surfaces share the schemes: `X-Auth-Token`, `X-Apig-AppCode`, `apikey` and `Authorization: Bearer` carry a token
//! as it is, `Authorization: SDK-HMAC-SHA256` a signature made with a secret key ([`signature`]). Of a token only its
//! SHA-256 is kept; hashes are compared in constant time, all of them for every call. Nothing here ever logs or returns
//! what a caller sent.
#![forbid(unsafe_code)]

mod limiter;
mod mint;
pub mod signature;
mod time;
mod tokens;

pub use mint::{NewToken, mint};
pub use time::{at_or_after, parse_utc};
pub use tokens::{AuthError, Tokens};

use crate::wire::{Headers, Request, RequestHead};
use bytes::Bytes;
use limiter::Limiter;
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How a caller says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `X-Auth-Token`.
    AuthToken,
    /// `X-Apig-AppCode`.
    AppCode,
    /// `apikey`.
    AppKey,
    /// `Authorization: Bearer`.
    Bearer,
    /// `Authorization: SDK-HMAC-SHA256`.
    Signature,
}

/// Why a call is not let in. Says nothing of what the caller sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It names no token at all.
    Missing,
    /// The credentials cannot be read.
    Malformed(&'static str),
    /// No such token or key, or a wrong signature.
    Invalid(Scheme),
    /// A token that was good once, or a signature of another time.
    Expired(Scheme),
    /// Too many failures from this address; so long until it may try again.
    Throttled(Duration),
    /// The token is good, but not for this model.
    Forbidden,
}

impl Refusal {
    /// The HTTP status.
    pub const fn http_status(&self) -> u16 {
        match self {
            Refusal::Throttled(_) => 429,
            Refusal::Forbidden => 403,
            _ => 401,
        }
    }

    /// The canonical code.
    pub const fn code(&self) -> crate::models::Code {
        use crate::models::Code;
        match self {
            Refusal::Throttled(_) => Code::ResourceExhausted,
            Refusal::Forbidden => Code::PermissionDenied,
            _ => Code::Unauthenticated,
        }
    }

    /// What to tell the caller.
    pub fn message(&self) -> String {
        match self {
            Refusal::Missing => {
                "a token is needed: send it as Authorization: Bearer TOKEN, X-Auth-Token, X-Apig-AppCode or apikey".into()
            }
            Refusal::Malformed(expected) => format!("the credentials cannot be read: expected {expected}"),
            Refusal::Invalid(Scheme::Signature) => "the access key is unknown or the signature is wrong".into(),
            Refusal::Invalid(_) => "the token is not valid".into(),
            Refusal::Expired(Scheme::Signature) => {
                "the access key has expired, or X-Sdk-Date is more than 15 minutes from this server's clock".into()
            }
            Refusal::Expired(_) => "the token has expired".into(),
            Refusal::Throttled(wait) => {
                format!("too many failures from this address; try again in {} seconds", wait.as_secs() + 1)
            }
            Refusal::Forbidden => "the token does not allow this call".into(),
        }
    }
}

/// What a good token allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The name that the file gives the token.
    pub name: Arc<str>,
    /// The models it is for; `None` is everything.
    models: Option<Arc<[String]>>,
}

impl Grant {
    /// Whether a call that names this model, or none, is allowed. A token for some models is for nothing else.
    pub fn allows(&self, model: Option<&str>) -> bool {
        match (&self.models, model) {
            (None, _) => true,
            (Some(models), Some(model)) => models.iter().any(|allowed| match allowed.strip_suffix('*') {
                Some(start) => model.starts_with(start),
                None => allowed == model,
            }),
            (Some(_), None) => false,
        }
    }

    /// Whether it is for some models only.
    pub fn is_scoped(&self) -> bool {
        self.models.is_some()
    }
}

/// The tokens of a server and the failures of its callers.
pub struct Auth {
    path: PathBuf,
    tokens: RwLock<Arc<Tokens>>,
    failures: Limiter,
}

/// The parts of a request that say who calls.
struct Caller<'a> {
    method: &'a str,
    target: &'a str,
    headers: &'a Headers,
    /// `None` before it has arrived.
    body: Option<&'a Bytes>,
}

impl Auth {
    /// Reads the tokens of a file; more than `failures_per_minute` from one address are refused unseen, 0 has no
    /// limit.
    ///
    /// # Errors
    /// The file cannot be read, or a line of it is no token.
    pub fn from_file(path: &Path, failures_per_minute: u32) -> Result<Self, AuthError> {
        let tokens = Tokens::from_file(path)?;
        Ok(Self {
            path: path.to_owned(),
            tokens: RwLock::new(Arc::new(tokens)),
            failures: Limiter::new(failures_per_minute),
        })
    }

    /// Reads the file again; on an error the tokens stay as they are. Returns how many there are.
    ///
    /// # Errors
    /// As [`Auth::from_file`].
    pub fn reload(&self) -> Result<usize, AuthError> {
        let tokens = Tokens::from_file(&self.path)?;
        let count = tokens.len();
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens);
        Ok(count)
    }

    /// Who calls, or why it is not let in. Failures are counted for the caller's address.
    pub fn check(&self, request: &Request) -> Result<Grant, Refusal> {
        let caller = Caller {
            method: &request.method,
            target: &request.target,
            headers: &request.headers,
            body: Some(&request.body),
        };
        self.judge(&caller, request.peer.map(|peer| peer.ip()))
    }

    /// Why a request would be refused for its head alone; counts as [`Auth::check`] does. For requests that the wire
    /// turns away before their body.
    pub fn check_head(&self, head: &RequestHead) -> Option<Refusal> {
        self.judge(&Caller::of_head(head), head.peer.map(|peer| peer.ip())).err()
    }

    /// Whether the head of a request can belong to a good one. Counts nothing.
    pub fn may_pass(&self, head: &RequestHead) -> bool {
        let address = head.peer.map(|peer| peer.ip());
        let blocked = address.is_some_and(|address| self.failures.blocked(address, Instant::now()).is_some());
        !blocked && self.identify(&Caller::of_head(head), now()).is_ok()
    }

    fn judge(&self, caller: &Caller<'_>, address: Option<IpAddr>) -> Result<Grant, Refusal> {
        let instant = Instant::now();
        if let Some(wait) = address.and_then(|address| self.failures.blocked(address, instant)) {
            return Err(Refusal::Throttled(wait));
        }
        let result = self.identify(caller, now());
        // Who sends nothing guesses nothing: a health checker without a token must not lock out its host.
        let guessed =
            matches!(result, Err(Refusal::Invalid(_) | Refusal::Expired(_) | Refusal::Malformed(_)));
        if let (true, Some(address)) = (guessed, address) {
            self.failures.count(address, instant);
        }
        result
    }

    fn identify(&self, caller: &Caller<'_>, now: u64) -> Result<Grant, Refusal> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone();
        let headers = caller.headers;
        let plain = [
            ("x-auth-token", Scheme::AuthToken),
            ("x-apig-appcode", Scheme::AppCode),
            ("apikey", Scheme::AppKey),
        ];
        for (name, scheme) in plain {
            if let Some(token) = headers.get(name) {
                return tokens.find(token.trim_ascii(), scheme, now);
            }
        }
        let Some(authorization) = headers.get("authorization") else { return Err(Refusal::Missing) };
        let expected = "Authorization: Bearer TOKEN or Authorization: SDK-HMAC-SHA256 ..";
        let text = std::str::from_utf8(authorization).map_err(|_| Refusal::Malformed(expected))?.trim();
        let (kind, rest) = text.split_once(' ').ok_or(Refusal::Malformed(expected))?;
        if kind.eq_ignore_ascii_case("bearer") {
            tokens.find(rest.trim().as_bytes(), Scheme::Bearer, now)
        } else if kind == signature::ALGORITHM {
            self.signed(&tokens, rest, caller, now)
        } else {
            Err(Refusal::Malformed(expected))
        }
    }

    fn signed(&self, tokens: &Tokens, rest: &str, caller: &Caller<'_>, now: u64) -> Result<Grant, Refusal> {
        let signed = signature::Signed::parse(rest, caller.headers).map_err(Refusal::Malformed)?;
        if signed.date.abs_diff(now) > signature::CLOCK_SKEW.as_secs() {
            return Err(Refusal::Expired(Scheme::Signature));
        }
        let key = tokens.key(&signed.access, now)?;
        let right = match caller.body {
            // The body has yet to come: what can be said is that the key exists.
            None if !signed.payload_unsigned => true,
            body => {
                let body = body.map_or(&[][..], |body| body);
                signed.verify(key.secret, caller.method, caller.target, caller.headers, body)
            }
        };
        if right { Ok(key.grant) } else { Err(Refusal::Invalid(Scheme::Signature)) }
    }
}

impl<'a> Caller<'a> {
    fn of_head(head: &'a RequestHead) -> Self {
        Self { method: &head.method, target: &head.target, headers: &head.headers, body: None }
    }
}

/// Seconds since 1970, UTC.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
