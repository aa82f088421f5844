//! Errors in the words of the service: gateway (`APIG.*`), service (`ModelArts.*`) and model code (`MR.*`).

use crate::{
    api::{
        auth::{Refusal, Scheme},
        json::write::Writer,
    },
    models::{Code, Error},
    wire::Response,
};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt::Write;

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The path or the service does not exist.
    NoApi,
    /// Another method than POST.
    Method,
    /// The path ends before the id.
    NoService,
    /// A path below the id that the package does not declare.
    UnknownPath(String),
    /// No body.
    Empty,
    /// The body is no JSON.
    Json,
    /// The model is not there (yet).
    Unavailable(String),
    /// It took too long.
    TimedOut,
    /// There is too much to do.
    Busy(String),
    /// The request cannot be worked on; the reason.
    Refused(String),
    /// Our own fault.
    Internal(String),
}

impl Failure {
    /// What it means that a service's model is not found.
    pub(super) fn of_lookup(error: &Error, id: &str) -> Self {
        log::debug!("service {id}: {}", error.message);
        Failure::Unavailable(id.to_owned())
    }

    pub(super) fn response(&self) -> Response {
        let (status, code, text) = match self {
            Failure::NoApi => (
                404,
                "APIG.0101",
                "The API does not exist or has not been published in the environment.".into(),
            ),
            Failure::Method => (405, "APIG.0101", "Method Not Allowed".into()),
            Failure::NoService => (
                400,
                "ModelArts.4201",
                "Invalid request URL because no service ID or request URI included.".into(),
            ),
            Failure::UnknownPath(path) => (404, "ModelArts.4204", format!("API {path} does not exist.")),
            Failure::Empty => (400, "ModelArts.4202", "Empty request.".into()),
            Failure::Json => (400, "ModelArts.4105", "Incorrect JSON format of the input data.".into()),
            Failure::Unavailable(id) => (
                400,
                "ModelArts.4203",
                format!("Invalid request because requested service {id} is unavailable."),
            ),
            Failure::TimedOut => (408, "ModelArts.4205", "Connection timed out.".into()),
            Failure::Busy(what) => {
                (429, "ModelArts.4206", format!("Excessive number of requests to {what}."))
            }
            Failure::Internal(reason) => {
                (500, "ModelArts.4302", format!("Gateway forwarding error because {reason}."))
            }
            Failure::Refused(reason) => return model_error(reason),
        };
        let mut response = envelope(status, code, &text);
        if status == 405 {
            response.headers.push("Allow", "POST");
        }
        response
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let text = error.message.into_owned();
        match error.code {
            Code::DeadlineExceeded => Failure::TimedOut,
            Code::ResourceExhausted => Failure::Busy(text),
            Code::Unavailable => Failure::Unavailable(text),
            Code::Internal | Code::Unknown | Code::DataLoss => Failure::Internal(text),
            _ => Failure::Refused(text),
        }
    }
}

/// `{"error_code", "error_msg", "request_id"}`; the id is for the caller's own log.
fn envelope(status: u16, code: &str, text: &str) -> Response {
    let mut writer = Writer::new(0);
    writer.begin_object();
    for (key, value) in [("error_code", code), ("error_msg", text), ("request_id", &request_id())] {
        writer.key(key.as_bytes());
        writer.string(value.as_bytes());
    }
    writer.end_object();
    Response::new(status, "application/json", writer.finish())
}

/// What a model's own code answers when it cannot work on a request.
fn model_error(reason: &str) -> Response {
    let mut writer = Writer::new(0);
    writer.begin_object();
    for (key, value) in [("erno", "MR.0105"), ("msg", reason)] {
        writer.key(key.as_bytes());
        writer.string(value.as_bytes());
    }
    writer.key(b"words_result");
    writer.begin_object();
    writer.end_object();
    writer.end_object();
    Response::new(400, "application/json", writer.finish())
}

fn request_id() -> String {
    let mut bytes = [0; 16];
    // Without random numbers the id is zero, which is no harm.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The answer to a caller that is not let in.
pub fn refusal(refusal: &Refusal) -> Response {
    let (code, text) = match refusal {
        Refusal::Missing => ("ModelArts.0201", "Token doesn't exist.".to_owned()),
        Refusal::Expired(_) => ("ModelArts.0202", "Token expired.".into()),
        Refusal::Malformed(_) => ("ModelArts.0206", "Incorrect authorization request header format.".into()),
        Refusal::Invalid(Scheme::AppCode) => (
            "APIG.0303",
            "Incorrect app authentication information: app not found with specified appCode".into(),
        ),
        Refusal::Invalid(Scheme::AppKey | Scheme::Signature) => {
            ("APIG.1009", "AppKey or AppSecret is invalid".into())
        }
        Refusal::Invalid(Scheme::AuthToken) => {
            ("APIG.0301", "Incorrect IAM authentication information: decrypt token fail".into())
        }
        Refusal::Invalid(Scheme::Bearer) => ("ModelArts.0203", "Invalid token.".into()),
        Refusal::Throttled(_) => (
            "APIG.0308",
            "The throttling threshold has been reached: policy user over ratelimit, time:1 minute".into(),
        ),
        Refusal::Forbidden => ("ModelArts.0203", "Invalid token.".into()),
    };
    envelope(refusal.http_status(), code, &text)
}

/// The answer to a request that the wire turns away with this status.
pub fn refusal_of_wire(status: u16) -> Response {
    let (status, code, text) = match status {
        413 => (413, "APIG.0201", "Request entity too large"),
        414 => (414, "APIG.0201", "Request URI too large"),
        431 => (494, "APIG.0201", "Request headers too large"),
        408 => (408, "ModelArts.4205", "Connection timed out."),
        429 | 503 => (429, "ModelArts.4206", "Excessive number of requests to this server."),
        status => (status, "APIG.0201", "API request error."),
    };
    envelope(status, code, text)
}
