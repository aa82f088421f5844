//! The head of an HTTP/1.x request: finding its end, reading it, deciding how the body is framed.
#![forbid(unsafe_code)]

use crate::wire::{
    context::Context,
    headers::{Headers, is_token},
    message::{Protocol, RequestHead},
};

/// A status to refuse the request with; the connection cannot be used afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) struct Refused(pub(in crate::wire) u16);

/// How the body of a request is delimited (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// `Content-Length`, in bytes; 0 when there is no body.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A head that may be served.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) request: RequestHead,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
}

/// Searches the end of a head in bytes that arrive piece by piece.
#[derive(Debug, Default)]
pub(super) struct Search {
    scanned: usize,
    line: usize,
    lines: usize,
}

impl Search {
    /// The length of the head at the start of `bytes` with its empty line, once all of it is there.
    /// `bytes` begins where it began in the call before.
    pub(super) fn find(&mut self, bytes: &[u8], context: &Context) -> Result<Option<usize>, Refused> {
        while let Some(at) = memchr::memchr(b'\n', bytes.get(self.scanned..).unwrap_or_default()) {
            let end = self.scanned + at;
            self.scanned = end + 1;
            let line = bytes.get(self.line..end).unwrap_or_default();
            let Some((b'\r', text)) = line.split_last() else { return Err(Refused(400)) };
            self.line = self.scanned;
            if text.is_empty() && self.lines > 0 {
                return if self.scanned > context.limits.head {
                    Err(Refused(431))
                } else {
                    Ok(Some(self.scanned))
                };
            }
            if self.lines == 0 {
                check_request_line(text, context)?;
            }
            self.lines += 1;
        }
        self.scanned = bytes.len();
        if self.lines == 0 {
            check_request_line_length(bytes.len(), context)?;
        } else if bytes.len() > context.limits.head {
            return Err(Refused(431));
        }
        Ok(None)
    }
}

/// Method and version take little; a line (with its CR) that is longer than this has too long a target. Asked of a part of it and of
/// the whole, so that it does not matter in what pieces it comes.
fn check_request_line_length(length: usize, context: &Context) -> Result<(), Refused> {
    if length > context.limits.uri.saturating_add(64) { Err(Refused(414)) } else { Ok(()) }
}

/// What has to be known of the first line before the rest of the head arrives.
fn check_request_line(line: &[u8], context: &Context) -> Result<(), Refused> {
    check_request_line_length(line.len() + 1, context)?;
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, words.next()) else {
        return Err(Refused(400));
    };
    if !is_token(method) || target.is_empty() {
        return Err(Refused(400));
    }
    if target.len() > context.limits.uri {
        return Err(Refused(414));
    }
    match version {
        b"HTTP/1.0" | b"HTTP/1.1" => Ok(()),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Refused(505))
        }
        _ => Err(Refused(400)),
    }
}

/// Reads a complete head, as [`Search::find`] delimits it.
pub(super) fn parse(bytes: &[u8], context: &Context) -> Result<Head, Refused> {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut more = Vec::new();
    let room = match fields.get_mut(..context.limits.header_count) {
        Some(room) => room,
        None => {
            more.resize(context.limits.header_count, httparse::EMPTY_HEADER);
            &mut more[..]
        }
    };
    let mut parsed = httparse::Request::new(room);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refused(431)),
        _ => return Err(Refused(400)),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refused(400));
    };
    let mut headers = Headers::with_capacity(parsed.headers.len(), bytes.len());
    for field in parsed.headers.iter() {
        headers.push(field.name, field.value);
    }
    if !known_method(method) {
        return Err(Refused(501));
    }
    let http11 = version == 1;
    check_host(&headers, http11 && context.limits.require_host)?;
    let target = origin_form(method, target)?;
    let framing = framing(&headers, http11)?;
    let expects_continue = match headers.get("expect") {
        None => false,
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => http11,
        Some(_) => return Err(Refused(417)),
    };
    let keep_alive = !headers.has_token("connection", "close")
        && (http11 || headers.has_token("connection", "keep-alive"));
    let request = RequestHead {
        method: method.to_owned(),
        target,
        protocol: if http11 { Protocol::Http11 } else { Protocol::Http10 },
        headers,
        peer: context.peer,
        local_port: context.local_port,
        tls: context.tls,
    };
    Ok(Head { request, framing, keep_alive, expects_continue })
}

/// The methods that are passed on, as TensorFlow Serving's HTTP layer allows them.
pub(in crate::wire) fn known_method(method: &str) -> bool {
    matches!(method, "GET" | "POST" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "PATCH")
}

/// Exactly one valid `Host` in HTTP/1.1, at most one before (RFC 9112, 3.2).
fn check_host(headers: &Headers, required: bool) -> Result<(), Refused> {
    let mut hosts = headers.get_all("host");
    match (hosts.next(), hosts.next()) {
        (None, _) if required => Err(Refused(400)),
        (_, Some(_)) => Err(Refused(400)),
        (Some(host), None) if !is_authority(host) => Err(Refused(400)),
        _ => Ok(()),
    }
}

/// Whether `host` consists of what a host and a port can consist of (RFC 3986, 3.2.2); it may be empty.
pub(in crate::wire) fn is_authority(host: &[u8]) -> bool {
    host.iter().all(|byte| match byte {
        b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']' | b'%' => true,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=' => true,
        _ => byte.is_ascii_alphanumeric(),
    })
}

/// The target as path and query: absolute-form loses scheme and host, `*` is for OPTIONS only
/// (RFC 9112, 3.2).
fn origin_form(method: &str, target: &str) -> Result<String, Refused> {
    let path = if target.starts_with('/') {
        target
    } else if target == "*" && method == "OPTIONS" {
        return Ok(target.to_owned());
    } else {
        let scheme = target.split_once("://").filter(|(scheme, _)| {
            scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
        });
        let (_, rest) = scheme.ok_or(Refused(400))?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.is_empty() || !is_authority(authority.as_bytes()) {
            return Err(Refused(400));
        }
        if path.is_empty() {
            return Ok("/".to_owned());
        }
        if !path.starts_with('/') {
            return Ok(format!("/{path}"));
        }
        path
    };
    if !has_valid_escapes(path) {
        return Err(Refused(400));
    }
    Ok(path.to_owned())
}

/// Whether each `%` is followed by two hexadecimal digits.
pub(in crate::wire) fn has_valid_escapes(target: &str) -> bool {
    memchr::memchr_iter(b'%', target.as_bytes()).all(|at| {
        let digits = target.as_bytes().get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// The one possible reading of the length fields, or a refusal (RFC 9112, 6.1 to 6.3).
fn framing(headers: &Headers, http11: bool) -> Result<Framing, Refused> {
    let mut codings = headers.get_all("transfer-encoding");
    let mut lengths = headers.get_all("content-length");
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Framing::Length(0)),
        (None, Some(length)) if lengths.next().is_none() => content_length(length).map(Framing::Length),
        (Some(coding), None) if http11 && codings.next().is_none() => {
            if coding.eq_ignore_ascii_case(b"chunked") {
                Ok(Framing::Chunked)
            } else if is_token(coding) {
                // A coding that we do not have (RFC 9112, 6.1).
                Err(Refused(501))
            } else {
                Err(Refused(400))
            }
        }
        _ => Err(Refused(400)),
    }
}

/// A single decimal number without sign; what does not fit is too large, not malformed.
pub(in crate::wire) fn content_length(value: &[u8]) -> Result<u64, Refused> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refused(400));
    }
    std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).ok_or(Refused(413))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_become_paths() {
        for (target, path) in [
            ("/", "/"),
            ("/v1/models/m:predict?a=b#c", "/v1/models/m:predict?a=b#c"),
            ("http://host:8501/v1", "/v1"),
            ("HTTP://host", "/"),
            ("http://host?q", "/?q"),
            ("/%2f", "/%2f"),
        ] {
            assert_eq!(origin_form("GET", target), Ok(path.to_owned()), "{target}");
        }
        assert_eq!(origin_form("OPTIONS", "*"), Ok("*".to_owned()));
        for target in ["*", "host:80", "http:///x", "ftp://h/", "/%zz", "/%2", "/a%", "http://a@b/", "x"] {
            assert_eq!(origin_form("GET", target), Err(Refused(400)), "{target}");
        }
    }

    #[test]
    fn lengths_are_plain_numbers() {
        assert_eq!(content_length(b"0042"), Ok(42));
        assert_eq!(content_length(b"18446744073709551616"), Err(Refused(413)));
        for text in ["", "+1", "-1", "1,1", "1 1", "0x1", "1.0"] {
            assert_eq!(content_length(text.as_bytes()), Err(Refused(400)), "{text}");
        }
    }
}
