//! Answers: JSON bodies, errors, preflights, and the headers that go with them.

use super::encoding;
use crate::{
    api::json::write::Writer,
    models::{Code, Error},
    wire::{Body, Response},
};

pub(super) fn json(status: u16, body: Vec<u8>) -> Response {
    Response::new(status, "application/json", body)
}

/// `{"error": ".."}` with the code's status.
pub(super) fn error(error: &Error) -> Response {
    let mut writer = Writer::new(4);
    writer.begin_object();
    writer.key(b"error");
    writer.string(error.message.as_bytes());
    writer.end_object();
    let mut response = json(error.code.http_status(), writer.finish());
    if matches!(error.code, Code::ResourceExhausted | Code::Unavailable) {
        response.headers.push("Retry-After", "1");
    }
    response
}

/// To OPTIONS: yes where the origin is a web page.
pub(super) fn preflight(origin: Option<&[u8]>) -> Response {
    let is_web = origin.is_some_and(|origin| {
        [&b"http://"[..], b"https://"].iter().any(|scheme| memchr::memmem::find(origin, scheme).is_some())
    });
    Response::new(if is_web { 200 } else { 400 }, "text/html; charset=ISO-8859-1", Body::default())
}

pub(super) fn allow_cross_origin(response: &mut Response) {
    response.headers.push("Access-Control-Allow-Origin", "*");
    response.headers.push("Access-Control-Allow-Methods", "POST, GET");
    response.headers.push("Access-Control-Allow-Headers", "Content-Type");
}

/// Compresses the body where that pays.
pub(super) fn compress(response: &mut Response) {
    response.headers.push("Vary", "Accept-Encoding");
    let body = std::mem::take(&mut response.body).into_bytes();
    response.body = match encoding::compressed(&body) {
        Some(compressed) => {
            response.headers.push("Content-Encoding", "gzip");
            compressed.into()
        }
        None => body.into(),
    };
}
