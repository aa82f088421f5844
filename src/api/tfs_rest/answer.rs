//! Answers: status, content type, body, further headers.

use super::encoding;
use crate::{
    api::json::write::Writer,
    models::{Code, Error},
};

const JSON: &str = "application/json";

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// The content.
    pub body: Vec<u8>,
    /// Headers besides content type, length and date.
    pub headers: Vec<(&'static str, &'static str)>,
    /// The connection is to be closed afterwards.
    pub close: bool,
}

impl Answer {
    pub(super) fn json(status: u16, body: Vec<u8>) -> Self {
        Self { status, content_type: JSON, body, headers: Vec::new(), close: false }
    }

    /// `{"error": ".."}` with the code's status.
    pub(super) fn error(error: &Error) -> Self {
        let mut writer = Writer::new(4);
        writer.begin_object();
        writer.key(b"error");
        writer.string(error.message.as_bytes());
        writer.end_object();
        let mut answer = Self::json(error.code.http_status(), writer.finish());
        if error.code == Code::ResourceExhausted || error.code == Code::Unavailable {
            answer.headers.push(("retry-after", "1"));
        }
        answer
    }

    /// The page that TensorFlow Serving's HTTP library answers where no handler is reached.
    pub(super) fn page(status: u16) -> Self {
        let reason = match status {
            404 => "Not Found",
            501 => "Not Implemented",
            _ => "Bad Request",
        };
        let body = format!(
            "<HTML><HEAD>\n<TITLE>{status} {reason}</TITLE>\n</HEAD><BODY>\n<H1>{reason}</H1>\n</BODY></HTML>\n"
        );
        Self { status, content_type: "text/html", body: body.into_bytes(), headers: Vec::new(), close: true }
    }

    /// To OPTIONS: yes where the origin is a web page.
    pub(super) fn preflight(origin: Option<&[u8]>) -> Self {
        let is_web = origin.is_some_and(|origin| {
            [b"http://".as_slice(), b"https://"]
                .iter()
                .any(|scheme| memchr::memmem::find(origin, scheme).is_some())
        });
        Self {
            status: if is_web { 200 } else { 400 },
            content_type: "text/html; charset=ISO-8859-1",
            body: Vec::new(),
            headers: Vec::new(),
            close: false,
        }
    }

    pub(super) fn allow_cross_origin(&mut self) {
        self.headers.extend([
            ("access-control-allow-origin", "*"),
            ("access-control-allow-methods", "POST, GET"),
            ("access-control-allow-headers", "Content-Type"),
        ]);
    }

    /// Compresses the body where that pays.
    pub(super) fn compress(&mut self) {
        if let Some(body) = encoding::compressed(&self.body) {
            self.body = body;
            self.headers.push(("content-encoding", "gzip"));
        }
        self.headers.push(("vary", "accept-encoding"));
    }
}
