//! What the wire hands up and takes back: complete requests and complete responses.
//!
//! A request is delivered once its body has arrived, in one piece of memory that surfaces slice and
//! never copy. A response is a list of such pieces. Which protocol carried them shows in
//! [`Protocol`] only; surfaces need not ask.
#![forbid(unsafe_code)]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;

use super::{grpc, headers::Headers, page};

/// The protocol version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

/// A request before its body: what limits and routing are decided from.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method, in the case in which it was sent.
    pub method: String,
    /// Path, `?query` and `#fragment` as sent, not decoded; without scheme and host.
    pub target: String,
    /// The protocol version.
    pub protocol: Protocol,
    /// The header fields. On HTTP/2 without pseudo-fields; `:authority` is given as `host`.
    pub headers: Headers,
    /// The address of the peer; `None` on unix sockets.
    pub peer: Option<SocketAddr>,
    /// The port that the peer connected to; `None` on unix sockets.
    pub local_port: Option<u16>,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

impl RequestHead {
    /// A head without fields, of no connection.
    pub fn new(method: &str, target: &str) -> RequestHead {
        RequestHead {
            method: method.to_owned(),
            target: target.to_owned(),
            protocol: Protocol::Http11,
            headers: Headers::new(),
            peer: None,
            local_port: None,
            tls: false,
        }
    }

    /// Whether the content type is one of gRPC or gRPC-Web.
    pub fn is_grpc(&self) -> bool {
        grpc::Form::of(&self.headers).is_some()
    }
}

/// A complete request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method, in the case in which it was sent.
    pub method: String,
    /// Path, `?query` and `#fragment` as sent, not decoded; without scheme and host.
    pub target: String,
    /// The protocol version.
    pub protocol: Protocol,
    /// The header fields. On HTTP/2 without pseudo-fields; `:authority` is given as `host`.
    pub headers: Headers,
    /// The body after removal of the transfer coding; content codings are left in place.
    pub body: Bytes,
    /// Fields that came after the body.
    pub trailers: Headers,
    /// The address of the peer; `None` on unix sockets.
    pub peer: Option<SocketAddr>,
    /// The port that the peer connected to; `None` on unix sockets.
    pub local_port: Option<u16>,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// When the head was complete.
    pub received: Instant,
    /// Set once nobody waits for the answer any more.
    pub cancelled: Cancelled,
}

impl Request {
    /// A request without fields or body, as a test or an internal call makes it.
    pub fn new(method: &str, target: &str) -> Request {
        Request::from_parts(RequestHead::new(method, target), Bytes::new(), Headers::new(), Instant::now())
    }

    pub(crate) fn from_parts(
        head: RequestHead,
        body: Bytes,
        trailers: Headers,
        received: Instant,
    ) -> Request {
        Request {
            method: head.method,
            target: head.target,
            protocol: head.protocol,
            headers: head.headers,
            body,
            trailers,
            peer: head.peer,
            local_port: head.local_port,
            tls: head.tls,
            received,
            cancelled: Cancelled::default(),
        }
    }

    /// Lets `look` see the head of this request.
    pub(crate) fn with_head<T>(&mut self, look: impl FnOnce(&RequestHead) -> T) -> T {
        let head = RequestHead {
            method: std::mem::take(&mut self.method),
            target: std::mem::take(&mut self.target),
            protocol: self.protocol,
            headers: std::mem::take(&mut self.headers),
            peer: self.peer,
            local_port: self.local_port,
            tls: self.tls,
        };
        let result = look(&head);
        self.method = head.method;
        self.target = head.target;
        self.headers = head.headers;
        result
    }
}

/// The path of a request target: what stands before `?` and `#`.
pub fn path_of(target: &str) -> &str {
    let end = memchr::memchr2(b'?', b'#', target.as_bytes());
    end.and_then(|end| target.get(..end)).unwrap_or(target)
}

/// A flag that says that the client is gone or has given up; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    /// Marks the request as given up.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the request has been given up.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The flag itself, for those who know nothing of requests.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }
}

/// An answer. The wire adds `Date` and `Content-Length` after `headers`.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code, 200..=599.
    pub status: u16,
    /// The header fields, written in this order. `Connection: close` closes an HTTP/1 connection afterwards.
    pub headers: Headers,
    /// The content.
    pub body: Body,
    /// Fields to send after the body: on HTTP/2 always, on HTTP/1.1 if the client said `TE: trailers`.
    pub trailers: Option<Headers>,
}

impl Response {
    /// An answer with a body and its media type.
    pub fn new(status: u16, content_type: &str, body: impl Into<Body>) -> Response {
        let headers = Headers::with_capacity(4, 64).with("Content-Type", content_type);
        Response { status, headers, body: body.into(), trailers: None }
    }

    /// An answer without body or fields.
    pub fn empty(status: u16) -> Response {
        Response { status, headers: Headers::new(), body: Body::default(), trailers: None }
    }
}

/// The content of an answer: pieces that are written one after the other without being joined.
#[derive(Clone, Debug, Default)]
pub struct Body {
    first: Bytes,
    rest: Vec<Bytes>,
}

impl Body {
    /// Appends a piece.
    pub fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        if self.first.is_empty() {
            self.first = piece;
        } else {
            self.rest.push(piece);
        }
    }

    /// The length over all pieces, in bytes.
    pub fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether there is no content.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// The pieces, none of them empty.
    pub fn into_pieces(self) -> impl Iterator<Item = Bytes> {
        std::iter::once(self.first).chain(self.rest).filter(|piece| !piece.is_empty())
    }

    /// All content in one piece; copies if there are several.
    pub fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() {
            return self.first;
        }
        let mut joined = Vec::with_capacity(self.len());
        self.into_pieces().for_each(|piece| joined.extend_from_slice(&piece));
        joined.into()
    }
}

impl From<Bytes> for Body {
    fn from(piece: Bytes) -> Body {
        Body { first: piece, rest: Vec::new() }
    }
}

impl From<Vec<u8>> for Body {
    fn from(piece: Vec<u8>) -> Body {
        Bytes::from(piece).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        text.into_bytes().into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Body {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(pieces: Vec<Bytes>) -> Body {
        let mut body = Body::default();
        pieces.into_iter().for_each(|piece| body.push(piece));
        body
    }
}

/// What stands above the wire and answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers a request, on a worker's thread. A panic becomes 500, or INTERNAL, and the server lives on.
    fn handle(&self, request: Request) -> Response;

    /// The largest body to accept for this request, in bytes; the configured limit holds as well.
    fn body_limit(&self, head: &RequestHead) -> usize {
        let _ = head;
        usize::MAX
    }

    /// Whether the answer is so cheap (some ten microseconds, never blocking) that the loop's thread may compute
    /// it: handing a request to a worker and back costs more than that.
    fn run_inline(&self, request: &Request) -> bool {
        let _ = request;
        false
    }

    /// Whether the messages of this gRPC call are answered one by one as they arrive, because its method
    /// streams. [`Handler::handle`] then sees each message as a request of its own; an error ends the call. On
    /// HTTP/2 only; other calls are handed up once the client has sent everything.
    fn answers_each_message(&self, head: &RequestHead) -> bool {
        let _ = head;
        false
    }

    /// The answer to a request that the wire refuses: 4xx for its shape or size, 429 for load.
    /// `head` is absent when it could not be read. gRPC calls are refused with a status instead.
    fn refuse(&self, head: Option<&RequestHead>, status: u16) -> Response {
        let _ = head;
        page::error(status)
    }

    /// Takes note of something that happened, for metrics. Called on the loop's thread: must be quick.
    fn record(&self, event: Event) {
        let _ = event;
    }
}

/// Something that metrics may count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A connection was accepted.
    ConnectionOpened,
    /// A connection that had been opened is gone.
    ConnectionClosed,
    /// A connection was turned away: too many of them, or out of file descriptors.
    ConnectionRefused,
    /// The wire answered a request itself, with this status.
    RequestRefused(u16),
    /// A connection was closed because its peer broke the protocol or flooded it.
    ProtocolError(Protocol),
    /// A request was cancelled by its client.
    Cancelled,
    /// A handler panicked.
    Panicked,
    /// Bytes that were read from connections.
    Received(u64),
    /// Bytes that were written to connections.
    Sent(u64),
    /// Bodies and answers that took much memory are gone: a good time to give it back to the system.
    Emptied,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_joins_its_pieces_in_order() {
        let mut body = Body::from(vec![Bytes::new(), Bytes::from_static(b"ab"), Bytes::from_static(b"c")]);
        body.push(Bytes::from_static(b"d"));
        assert_eq!(body.len(), 4);
        assert_eq!(body.clone().into_pieces().count(), 3);
        assert_eq!(body.into_bytes(), "abcd");
        assert!(Body::default().is_empty());
    }

    #[test]
    fn cancellation_is_seen_by_clones() {
        let request = Request::new("GET", "/");
        let copy = request.cancelled.clone();
        assert!(!copy.is_set());
        request.cancelled.set();
        assert!(copy.is_set());
    }
}
