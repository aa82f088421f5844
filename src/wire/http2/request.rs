//! From a header list to a request (RFC 9113, 8.2 and 8.3).
#![forbid(unsafe_code)]

use crate::wire::{
    context::Context,
    headers::{Headers, is_field_value, is_token},
    http1::{content_length, has_valid_escapes, is_authority, known_method},
    message::{Protocol, RequestHead},
};

/// What became of a header list.
#[derive(Debug)]
pub(super) enum Reading {
    /// A request, and the length that it declares for its body.
    Request(RequestHead, Option<u64>),
    /// A well-formed request that is answered with this status.
    Refused(RequestHead, u16),
    /// Not a request at all: a stream error of type PROTOCOL_ERROR (RFC 9113, 8.1.1).
    Malformed,
}

/// The pseudo-fields of a request.
#[derive(Default)]
struct Pseudo<'a> {
    method: Option<&'a [u8]>,
    scheme: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
}

/// Reads the list of a HEADERS frame that opens a stream.
pub(super) fn read(list: &Headers, context: &Context) -> Reading {
    read_checked(list, context).unwrap_or(Reading::Malformed)
}

fn read_checked(list: &Headers, context: &Context) -> Option<Reading> {
    let mut pseudo = Pseudo::default();
    let mut headers = Headers::with_capacity(list.len(), list.text_len());
    for (name, value) in list.iter() {
        if let Some(b':') = name.first() {
            // Pseudo-fields come first and once (RFC 9113, 8.3).
            if !headers.is_empty() || !is_value(value) {
                return None;
            }
            let place = match name {
                b":method" => &mut pseudo.method,
                b":scheme" => &mut pseudo.scheme,
                b":path" => &mut pseudo.path,
                b":authority" => &mut pseudo.authority,
                _ => return None,
            };
            if place.replace(value).is_some() {
                return None;
            }
        } else {
            check_field(name, value)?;
            headers.push(name, value);
        }
    }
    let authority = authority(pseudo.authority, &headers)?;
    let length = declared_length(&headers)?;
    let method = pseudo.method.filter(|method| is_token(method))?;
    let method = std::str::from_utf8(method).ok()?;
    if let Some(host) = authority {
        headers.push("host", host);
    }
    let head = |target: &str| RequestHead {
        method: method.to_owned(),
        target: target.to_owned(),
        protocol: Protocol::Http2,
        headers,
        peer: context.peer,
        local_port: context.local_port,
        tls: context.tls,
    };
    if method == "CONNECT" {
        let alone = pseudo.scheme.is_none() && pseudo.path.is_none() && pseudo.authority.is_some();
        return alone.then(|| Reading::Refused(head(""), 501));
    }
    pseudo.scheme.filter(|scheme| !scheme.is_empty())?;
    let path = pseudo.path.filter(|path| !path.is_empty())?;
    let Ok(target) = std::str::from_utf8(path) else { return Some(Reading::Refused(head(""), 400)) };
    let absolute = target.starts_with('/') || (target == "*" && method == "OPTIONS");
    if !absolute || target.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return None;
    }
    let status = if !known_method(method) {
        501
    } else if target.len() > context.limits.uri {
        414
    } else if !has_valid_escapes(target) {
        400
    } else {
        return Some(Reading::Request(head(target), length));
    };
    Some(Reading::Refused(head(target), status))
}

/// Checks a trailer list: fields only, no pseudo-fields (RFC 9113, 8.1).
pub(super) fn are_trailers(list: &Headers) -> bool {
    list.iter().all(|(name, value)| check_field(name, value).is_some())
}

/// Lower case, valid characters, nothing that speaks about the connection (RFC 9113, 8.2).
fn check_field(name: &[u8], value: &[u8]) -> Option<()> {
    const CONNECTION: [&[u8]; 5] =
        [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];
    let sound = is_token(name) && !name.iter().any(u8::is_ascii_uppercase) && is_value(value);
    let allowed = !CONNECTION.contains(&name) && (name != b"te" || value == b"trailers");
    (sound && allowed).then_some(())
}

/// A field value without control characters, and without blanks at its ends (RFC 9113, 8.2.1).
fn is_value(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_field_value(value) && !blank(value.first()) && !blank(value.last())
}

/// The authority that has to be added as `host`; `None` outside if the two contradict each other (RFC 9113, 8.3.1).
fn authority<'a>(authority: Option<&'a [u8]>, headers: &Headers) -> Option<Option<&'a [u8]>> {
    let mut hosts = headers.get_all("host");
    let host = hosts.next();
    let valid = [authority, host].into_iter().flatten().all(is_authority) && hosts.next().is_none();
    match (authority, host) {
        _ if !valid => None,
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host).then_some(None),
        (authority, _) => Some(authority),
    }
}

fn declared_length(headers: &Headers) -> Option<Option<u64>> {
    let mut lengths = headers.get_all("content-length");
    match (lengths.next(), lengths.next()) {
        (None, _) => Some(None),
        (Some(length), None) => match content_length(length) {
            Ok(length) => Some(Some(length)),
            // A number that does not fit is a body that does not fit.
            Err(refused) if refused.0 == 413 => Some(Some(u64::MAX)),
            Err(_) => None,
        },
        _ => None,
    }
}
