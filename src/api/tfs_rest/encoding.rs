//! Gzip: request bodies that come in it, answers that may go out in it.

use super::Config;
use crate::{
    models::Error,
    wire::{
        Headers, Request,
        gzip::{self, GzipError},
    },
};
use bytes::Bytes;

/// Most bytes that a compressed request body may become.
const LIMIT: usize = 100 << 20;

/// Bodies below this size go out as they are: they fit a packet either way.
const WORTHWHILE: usize = 1024;

/// The body behind `Content-Encoding`. One that is not whole and intact gzip counts as empty, as
/// in TensorFlow Serving; so does one that is too large, in strict mode.
pub(super) fn decoded_body(request: &Request, config: Config) -> Result<Bytes, Error> {
    let encoding = request.headers.get("content-encoding").unwrap_or_default();
    if memchr::memmem::find(encoding, b"gzip").is_none() {
        return Ok(request.body.clone());
    }
    match gzip::inflate(&request.body, LIMIT) {
        Ok(body) => Ok(body.into()),
        Err(error @ GzipError::TooLarge(_)) if !config.strict => {
            Err(Error::invalid_argument(format!("The request body is too large: {error}")))
        }
        Err(_) => Ok(Bytes::new()),
    }
}

/// Whether `Accept-Encoding` (RFC 9110 section 12.5.3) names gzip and does not refuse it.
pub(super) fn accepts_gzip(headers: &Headers) -> bool {
    headers.get_str("accept-encoding").unwrap_or_default().split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        is_gzip && weight.is_none_or(|weight| weight.parse().is_ok_and(|weight: f32| weight > 0.0))
    })
}

/// `body` in gzip; `None` where that would not make it smaller.
pub(super) fn compressed(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() < WORTHWHILE {
        return None;
    }
    Some(gzip::deflate(body)).filter(|packed| !packed.is_empty() && packed.len() < body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoding: &str, body: Vec<u8>, strict: bool) -> Result<Bytes, Error> {
        let mut request = Request::new("POST", "/");
        request.headers.push("Content-Encoding", encoding);
        request.body = body.into();
        decoded_body(&request, Config { strict, cors: false })
    }

    #[test]
    fn bodies() {
        assert_eq!(decoded("x-gzip, y", gzip::deflate(b"{}"), true).unwrap(), "{}");
        assert_eq!(decoded("br", b"{}".to_vec(), true).unwrap(), "{}");
        assert_eq!(decoded("gzip", b"{}".to_vec(), false).unwrap(), "");
        let mut corrupt = gzip::deflate(b"{\"instances\": [1]}");
        let end = corrupt.len();
        corrupt[end - 6] ^= 1;
        assert_eq!(decoded("gzip", corrupt, false).unwrap(), "");
    }

    #[test]
    fn bombs() {
        let bomb = gzip::deflate(&vec![b' '; LIMIT + 1]);
        assert_eq!(decoded("gzip", bomb.clone(), true).unwrap(), "");
        assert!(decoded("gzip", bomb, false).is_err());
    }

    #[test]
    fn accepting() {
        for (header, expected) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, br", false),
            ("identity", false),
            ("gzipped", false),
        ] {
            let headers = Headers::new().with("accept-encoding", header);
            assert_eq!(accepts_gzip(&headers), expected, "{header}");
        }
        assert!(!accepts_gzip(&Headers::new()));
    }

    #[test]
    fn compressing() {
        assert_eq!(compressed(b"short"), None);
        let body = b"[1.0, 2.0], ".repeat(200);
        assert_eq!(gzip::inflate(&compressed(&body).unwrap(), LIMIT).unwrap(), body);
    }
}
