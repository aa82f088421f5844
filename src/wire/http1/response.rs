//! Writing an HTTP/1.x response (RFC 9112, 4 and 6).
#![forbid(unsafe_code)]

use crate::wire::{
    headers::{Headers, is_field_value, is_same_name, is_token},
    message::{Protocol, Response},
    output::Output,
    page::reason,
};

/// What the request means for the form of its response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) protocol: Protocol,
    /// The method was HEAD: no body follows the head.
    pub(super) head_only: bool,
    /// The client keeps the connection open.
    pub(super) keep_alive: bool,
    /// The client said `TE: trailers`.
    pub(super) trailers: bool,
}

/// Writes `response` and says whether the connection stays open after it.
pub(super) fn write(output: &mut Output, response: Response, asked: Asked, date: &str) -> bool {
    let Response { status, headers, body, trailers } = response;
    let http10 = asked.protocol == Protocol::Http10;
    let keep_alive = asked.keep_alive && !headers.has_token("connection", "close");
    let has_content = !matches!(status, 100..200 | 204 | 304);
    let trailers = trailers.filter(|_| asked.trailers && !http10 && has_content && !asked.head_only);
    let version = if http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let code = [100, 10, 1].map(|unit| b'0' + (status / unit % 10) as u8);
    put(output, &[version.as_bytes(), b" ", &code, b" ", reason(status).as_bytes()]);
    for (name, value) in headers.iter().filter(|(name, value)| may_be_sent(name, value)) {
        put_field(output, name, value);
    }
    if !headers.contains("date") {
        put_field(output, b"Date", date.as_bytes());
    }
    let length = body.len();
    if trailers.is_some() {
        put_field(output, b"Transfer-Encoding", b"chunked");
    } else if has_content && (!http10 || keep_alive) {
        put_field(output, b"Content-Length", length.to_string().as_bytes());
    }
    if !keep_alive {
        if !http10 {
            put_field(output, b"Connection", b"close");
        }
    } else if http10 {
        put_field(output, b"Connection", b"keep-alive");
    }
    output.put(b"\r\n\r\n");
    if asked.head_only || !has_content {
        return keep_alive;
    }
    match trailers {
        None => body.into_pieces().for_each(|piece| output.push(piece)),
        Some(trailers) => {
            for piece in body.into_pieces() {
                output.put(format!("{:x}\r\n", piece.len()).as_bytes());
                output.push(piece);
                output.put(b"\r\n");
            }
            put_trailers(output, &trailers);
        }
    }
    keep_alive
}

fn put_trailers(output: &mut Output, trailers: &Headers) {
    output.put(b"0");
    for (name, value) in trailers.iter().filter(|(name, value)| may_be_sent(name, value)) {
        put_field(output, name, value);
    }
    output.put(b"\r\n\r\n");
}

/// Each field starts with the line break that ends the line before it.
fn put_field(output: &mut Output, name: &[u8], value: &[u8]) {
    put(output, &[b"\r\n", name, b": ", value]);
}

fn put(output: &mut Output, parts: &[&[u8]]) {
    parts.iter().for_each(|part| output.put(part));
}

/// Framing fields are the wire's own; a field that would break the head apart is left out.
fn may_be_sent(name: &[u8], value: &[u8]) -> bool {
    let own = ["content-length", "transfer-encoding", "connection"];
    let sound = is_token(name) && is_field_value(value);
    if !sound {
        log::warn!("header field {:?} cannot be sent and is left out", String::from_utf8_lossy(name));
    }
    sound && !own.iter().any(|own| is_same_name(name, own))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked =
        Asked { protocol: Protocol::Http11, head_only: false, keep_alive: true, trailers: false };

    fn written(response: Response, asked: Asked) -> (String, bool) {
        let mut output = Output::default();
        let keep_alive = write(&mut output, response, asked, "D");
        (String::from_utf8(output.take()).unwrap(), keep_alive)
    }

    #[test]
    fn success_has_the_fields_of_tensorflow_serving_in_its_order() {
        let (text, keep) = written(Response::new(200, "application/json", "{}"), ASKED);
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: D\r\nContent-Length: 2\r\n\r\n{}"
        );
        assert!(keep);
    }

    #[test]
    fn http10_has_a_length_only_if_it_stays_open() {
        let asked = Asked { protocol: Protocol::Http10, keep_alive: false, ..ASKED };
        let (text, keep) = written(Response::new(200, "t/x", "ab"), asked);
        assert_eq!(text, "HTTP/1.0 200 OK\r\nContent-Type: t/x\r\nDate: D\r\n\r\nab");
        assert!(!keep);
        let (text, keep) = written(Response::new(200, "t/x", "ab"), Asked { keep_alive: true, ..asked });
        assert_eq!(
            text,
            "HTTP/1.0 200 OK\r\nContent-Type: t/x\r\nDate: D\r\nContent-Length: 2\r\n\
             Connection: keep-alive\r\n\r\nab"
        );
        assert!(keep);
    }

    #[test]
    fn closing_head_only_and_empty_answers() {
        let mut response = Response::new(404, "t/x", "abc");
        response.headers.push("connection", "close");
        let (text, keep) = written(response, Asked { head_only: true, ..ASKED });
        assert_eq!(
            text,
            "HTTP/1.1 404 Not Found\r\nContent-Type: t/x\r\nDate: D\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
        );
        assert!(!keep);
        let (text, _) = written(Response::empty(204), ASKED);
        assert_eq!(text, "HTTP/1.1 204 No Content\r\nDate: D\r\n\r\n");
    }

    #[test]
    fn trailers_come_after_chunks() {
        let mut response = Response::new(200, "t/x", "abc");
        response.trailers = Some(Headers::new().with("grpc-status", "0"));
        let (text, _) = written(response.clone(), Asked { trailers: true, ..ASKED });
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nContent-Type: t/x\r\nDate: D\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n0\r\ngrpc-status: 0\r\n\r\n"
        );
        assert!(written(response, ASKED).0.ends_with("Content-Length: 3\r\n\r\nabc"));
    }

    #[test]
    fn a_field_cannot_split_the_response() {
        let mut response = Response::empty(200);
        response.headers.push("x", "a\r\nSet-Cookie: b");
        response.headers.push("y z", "a");
        response.headers.push("Content-Length", "99");
        let (text, _) = written(response, ASKED);
        assert_eq!(text, "HTTP/1.1 200 OK\r\nDate: D\r\nContent-Length: 0\r\n\r\n");
    }
}
