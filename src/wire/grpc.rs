//! gRPC and gRPC-Web framing of unary calls: length-prefixed messages, deadlines, status.
//!
//! Follows the protocol descriptions of the gRPC project (PROTOCOL-HTTP2.md, PROTOCOL-WEB.md). What a
//! message means is none of this floor's business. gRPC-Web carries the trailers as a last message in the
//! body, so it works over HTTP/1.1 and from browsers; its text form is base64.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

use super::{
    gzip::{self, GzipError},
    headers::Headers,
    message::{Body, Request, Response},
};

/// Compressed flag and length before each message.
const PREFIX: usize = 5;
/// Messages below this size are not worth compressing.
const WORTH_COMPRESSING: usize = 1 << 10;
/// Messages up to this size are copied behind their prefix rather than sent as a piece of their own.
const JOINED: usize = 4 << 10;
/// In gRPC-Web, the flag of the message that holds the trailers.
const TRAILERS_FLAG: u8 = 0x80;

/// The canonical status codes that the wire uses itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Code {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
}

/// A unary call.
#[derive(Debug)]
pub struct Call<'a> {
    /// `/package.Service/Method`.
    pub path: String,
    /// The header fields of the request.
    pub metadata: &'a Headers,
    /// When the client stops waiting (`grpc-timeout`).
    pub deadline: Option<Instant>,
    /// The message, decompressed; a slice of the request's body if it came uncompressed.
    pub message: Bytes,
}

/// The outcome of a call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// One of the canonical codes, 1 to 16.
    pub code: u32,
    /// Text for a developer, any UTF-8.
    pub message: String,
}

impl Status {
    /// A status with its text.
    pub fn new(code: u32, message: impl Into<String>) -> Status {
        Status { code, message: message.into() }
    }

    fn of(code: Code, message: impl Into<String>) -> Status {
        Status::new(code as u32, message)
    }
}

/// How messages and status are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// gRPC over HTTP/2: the status comes in trailers.
    Native,
    /// gRPC-Web: the status is a message of the body.
    Web,
    /// gRPC-Web in base64.
    WebText,
}

impl Form {
    /// The form that `content-type` names; `None` if it is not a gRPC type.
    pub(crate) fn of(headers: &Headers) -> Option<Form> {
        let rest = headers.get("content-type")?.strip_prefix(b"application/grpc")?;
        let (form, rest) = if let Some(rest) = rest.strip_prefix(b"-web-text") {
            (Form::WebText, rest)
        } else if let Some(rest) = rest.strip_prefix(b"-web") {
            (Form::Web, rest)
        } else {
            (Form::Native, rest)
        };
        matches!(rest.first(), None | Some(b'+' | b';' | b' ')).then_some(form)
    }

    fn content_type(self) -> &'static str {
        match self {
            Form::Native => "application/grpc",
            Form::Web => "application/grpc-web+proto",
            Form::WebText => "application/grpc-web-text+proto",
        }
    }
}

/// Whether the content type is one of gRPC or gRPC-Web.
pub fn is_grpc(request: &Request) -> bool {
    Form::of(&request.headers).is_some()
}

/// The call that `request` carries; its one message may be at most `max_message` bytes long.
///
/// The errors are those that gRPC prescribes: DEADLINE_EXCEEDED if the client has stopped waiting,
/// RESOURCE_EXHAUSTED for the size, UNIMPLEMENTED for an unknown compression, INTERNAL for broken framing,
/// INVALID_ARGUMENT for a malformed timeout.
pub fn decode(request: &Request, max_message: usize) -> Result<Call<'_>, Status> {
    let deadline = deadline(request)?;
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Err(Status::of(Code::DeadlineExceeded, "Deadline Exceeded"));
    }
    let body = match Form::of(&request.headers) {
        Some(Form::WebText) => decode_text(&request.body)?.into(),
        _ => request.body.clone(),
    };
    let (message, rest) = take_message(&request.headers, body, max_message)?;
    if !rest.is_empty() {
        return Err(Status::of(Code::Internal, "a unary call carries more than one message"));
    }
    Ok(Call { path: request.target.clone(), metadata: &request.headers, deadline, message })
}

/// The response to a call: a message, or a status that says why there is none.
pub fn encode(result: Result<Body, Status>, request: &Request) -> Response {
    let compress = request.headers.has_token("grpc-accept-encoding", "gzip")
        && request.headers.get("grpc-encoding") == Some(b"gzip");
    match result {
        Ok(message) => respond(&request.headers, Some((message, compress)), None),
        Err(status) => respond(&request.headers, None, Some(status)),
    }
}

/// The response to a call that the wire refuses for the reason that `status`, an HTTP code, gives.
pub(crate) fn refuse(headers: &Headers, status: u16) -> Response {
    let busy = matches!(status, 429 | 503);
    let status = match status {
        408 => Status::of(Code::DeadlineExceeded, "the message came too slowly"),
        413 => Status::of(Code::ResourceExhausted, "the message is larger than the limit"),
        504 => Status::of(Code::DeadlineExceeded, "Deadline Exceeded"),
        429 | 503 => Status::of(Code::ResourceExhausted, "too much is under way, try again later"),
        431 => Status::of(Code::ResourceExhausted, "the metadata is larger than the limit"),
        501 | 405 | 414 => Status::of(Code::Unimplemented, "no such method"),
        _ => Status::of(Code::Internal, "the call could not be served"),
    };
    let mut response = respond(headers, None, Some(status));
    if busy {
        response.headers.push("retry-after", "1");
    }
    response
}

/// The refusal of a message that is longer than `max` bytes; `body` is what has come of it, or `declared` its length.
pub(crate) fn refuse_message(headers: &Headers, body: &[u8], declared: Option<u64>, max: usize) -> Response {
    let announced = announced_length(body).map(|length| length as u64);
    let length = announced.or(declared.map(|length| length.saturating_sub(PREFIX as u64)));
    // In base64 neither is the length of the message; and a body may hold more than its prefix says.
    let length = length.filter(|length| *length > max as u64 && Form::of(headers) != Some(Form::WebText));
    respond(headers, None, Some(too_large(length, max)))
}

/// The length of the first message of a body, once its prefix has come.
pub(crate) fn announced_length(body: &[u8]) -> Option<usize> {
    let [_, length @ ..] = body.first_chunk::<PREFIX>()?;
    Some(u32::from_be_bytes(*length) as usize)
}

/// When the client of a native call stops waiting, counted from `received`; `None` also for what is malformed.
pub(crate) fn deadline_of(headers: &Headers, received: Instant) -> Option<Instant> {
    let timeout = headers.get("grpc-timeout").filter(|_| Form::of(headers) == Some(Form::Native))?;
    received.checked_add(parse_timeout(timeout)?)
}

fn respond(headers: &Headers, message: Option<(Body, bool)>, status: Option<Status>) -> Response {
    let form = Form::of(headers).unwrap_or(Form::Native);
    let mut response = Response::new(200, form.content_type(), Body::default());
    let mut trailers = Headers::with_capacity(2, 32);
    let Status { code, message: text } = status.unwrap_or(Status::new(0, ""));
    trailers.push("grpc-status", code.to_string());
    if !text.is_empty() {
        trailers.push("grpc-message", percent_encode(&text));
    }
    let trailers_only = message.is_none();
    if let Some((message, compress)) = message {
        let compress = compress && message.len() >= WORTH_COMPRESSING;
        if compress {
            response.headers.push("grpc-encoding", "gzip");
        }
        response.body = frame(message, compress);
    }
    match form {
        Form::Native if trailers_only => {
            trailers.iter().for_each(|(name, value)| response.headers.push(name, value))
        }
        Form::Native => response.trailers = Some(trailers),
        Form::Web => response.body.push(trailers_message(&trailers)),
        Form::WebText => {
            response.body.push(trailers_message(&trailers));
            response.body = STANDARD.encode(response.body.into_bytes()).into();
        }
    }
    response
}

/// A message behind its prefix.
fn frame(message: Body, compress: bool) -> Body {
    let message = if compress { gzip::deflate(&message.into_bytes()).into() } else { message };
    let prefix = prefix(u8::from(compress), message.len());
    if message.len() <= JOINED {
        let mut joined = Vec::with_capacity(PREFIX + message.len());
        joined.extend_from_slice(&prefix);
        message.into_pieces().for_each(|piece| joined.extend_from_slice(&piece));
        return joined.into();
    }
    let mut framed = Body::from(prefix.to_vec());
    message.into_pieces().for_each(|piece| framed.push(piece));
    framed
}

fn prefix(flag: u8, length: usize) -> [u8; PREFIX] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [flag, a, b, c, d]
}

fn trailers_message(trailers: &Headers) -> Bytes {
    let mut text = Vec::new();
    for (name, value) in trailers.iter() {
        text.extend_from_slice(&[name, b": ", value, b"\r\n"].concat());
    }
    [&prefix(TRAILERS_FLAG, text.len())[..], &text].concat().into()
}

/// The first message of `body`, decompressed, and what follows it.
fn take_message(headers: &Headers, mut body: Bytes, max: usize) -> Result<(Bytes, Bytes), Status> {
    let broken = |text: &str| Status::of(Code::Internal, text);
    let Some(([flag], length)) = body.first_chunk::<PREFIX>().and_then(|prefix| prefix.split_first_chunk())
    else {
        return Err(broken(if body.is_empty() {
            "the call carries no message"
        } else {
            "a message is cut short"
        }));
    };
    let length = length.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
    let compressed = match flag {
        0 => false,
        1 => true,
        _ => return Err(broken("a message has unknown flags")),
    };
    if length > max {
        return Err(too_large(Some(length as u64), max));
    }
    if body.len() - PREFIX < length {
        return Err(broken("a message is cut short"));
    }
    let mut message = body.split_off(PREFIX);
    let rest = message.split_off(length);
    if !compressed {
        return Ok((message, rest));
    }
    match headers.get("grpc-encoding") {
        Some(b"gzip") => {}
        None | Some(b"identity") => {
            return Err(broken("a message is compressed, but no compression was announced"));
        }
        Some(other) => {
            let name = String::from_utf8_lossy(other).into_owned();
            let text = format!("compression {name:?} is not supported; gzip and identity are");
            return Err(Status::of(Code::Unimplemented, text));
        }
    }
    match gzip::inflate(&message, max) {
        Ok(message) => Ok((message.into(), rest)),
        Err(GzipError::TooLarge(_)) => Err(Status::of(
            Code::ResourceExhausted,
            format!("the decompressed message is larger than the limit of {max} bytes"),
        )),
        Err(GzipError::Corrupt) => Err(broken("a message is not valid gzip")),
    }
}

/// Begins as gRPC's own text does, for those who look for it.
fn too_large(length: Option<u64>, max: usize) -> Status {
    let length = length.map_or("more".to_owned(), |length| length.to_string());
    Status::of(
        Code::ResourceExhausted,
        format!(
            "Received message larger than max ({length} vs. {max}); \
             the server's --grpc_max_receive_message_bytes is its limit, 0 lifts it"
        ),
    )
}

/// base64 in one or several padded segments, as senders may encode pieces on their own.
fn decode_text(text: &[u8]) -> Result<Vec<u8>, Status> {
    let broken = || Status::of(Code::Internal, "the body is not valid base64");
    let mut bytes = Vec::new();
    let mut rest = text.trim_ascii();
    while !rest.is_empty() {
        // A segment ends with the group of four that holds its padding.
        let end = memchr::memchr(b'=', rest).map_or(rest.len(), |at| at / 4 * 4 + 4);
        let (segment, after) = rest.split_at_checked(end).ok_or_else(broken)?;
        STANDARD.decode_vec(segment, &mut bytes).map_err(|_| broken())?;
        rest = after;
    }
    Ok(bytes)
}

/// The end of the time that `grpc-timeout` grants: at most eight digits and a unit.
fn deadline(request: &Request) -> Result<Option<Instant>, Status> {
    let Some(value) = request.headers.get("grpc-timeout") else { return Ok(None) };
    let timeout =
        parse_timeout(value).ok_or_else(|| Status::of(Code::InvalidArgument, "grpc-timeout is malformed"))?;
    Ok(request.received.checked_add(timeout))
}

fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Percent-encodes what is not printable ASCII, and `%` itself, as `grpc-message` asks for; also blanks at
/// the ends, which are no part of a field's value.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    let inner = text.trim_matches(' ');
    let start = text.len() - text.trim_start_matches(' ').len();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b' ' if !(start..start + inner.len()).contains(&at) => encoded.push_str("%20"),
            b' '..=b'$' | b'&'..=b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
