//! Gzip: request bodies that come in it, answers that may go out in it.

use super::Config;
use crate::models::Error;
use bytes::Bytes;
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use std::io::{Read, Write};

/// Most bytes that a compressed request body may become.
const LIMIT: u64 = 100 << 20;

/// Bodies below this size go out as they are: they fit a packet either way.
const WORTHWHILE: usize = 1024;

/// The body behind `Content-Encoding`. One that is not whole and intact gzip counts as empty, as
/// in TensorFlow Serving; so does one that is too large, in strict mode.
pub(super) fn decoded_body(encoding: Option<&[u8]>, body: Bytes, config: Config) -> Result<Bytes, Error> {
    if !encoding.is_some_and(|encoding| memchr::memmem::find(encoding, b"gzip").is_some()) {
        return Ok(body);
    }
    let mut plain = Vec::new();
    let read = GzDecoder::new(&*body).take(LIMIT + 1).read_to_end(&mut plain);
    let too_large = plain.len() as u64 > LIMIT;
    match read {
        Ok(_) if !too_large => Ok(plain.into()),
        Ok(_) if !config.strict => Err(Error::invalid_argument(format!(
            "The request body is larger than {LIMIT} bytes once decompressed; send it uncompressed or in parts"
        ))),
        _ => Ok(Bytes::new()),
    }
}

/// Whether an `Accept-Encoding` (RFC 9110 section 12.5.3) names gzip and does not refuse it.
pub(super) fn accepts_gzip(accepted: Option<&[u8]>) -> bool {
    let text = accepted.and_then(|accepted| std::str::from_utf8(accepted).ok()).unwrap_or_default();
    text.split(',').any(|coding| {
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
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok().filter(|packed| packed.len() < body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(encoding: &[u8], body: Vec<u8>, strict: bool) -> Result<Bytes, Error> {
        decoded_body(Some(encoding), body.into(), Config { strict, cors: false })
    }

    #[test]
    fn bodies() {
        assert_eq!(decoded(b"x-gzip, y", gzip(b"{}"), true).unwrap(), "{}");
        assert_eq!(decoded(b"br", b"{}".to_vec(), true).unwrap(), "{}");
        assert_eq!(decoded(b"gzip", b"{}".to_vec(), false).unwrap(), "");
        let mut corrupt = gzip(b"{\"instances\": [1]}");
        let end = corrupt.len();
        corrupt[end - 6] ^= 1;
        assert_eq!(decoded(b"gzip", corrupt, false).unwrap(), "");
    }

    #[test]
    fn bombs() {
        let bomb = gzip(&vec![b' '; LIMIT as usize + 1]);
        assert_eq!(decoded(b"gzip", bomb.clone(), true).unwrap(), "");
        assert!(decoded(b"gzip", bomb, false).is_err());
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
            assert_eq!(accepts_gzip(Some(header.as_bytes())), expected, "{header}");
        }
        assert!(!accepts_gzip(None));
    }

    #[test]
    fn compressing() {
        assert_eq!(compressed(b"short"), None);
        let body = b"[1.0, 2.0], ".repeat(200);
        let mut plain = Vec::new();
        GzDecoder::new(&*compressed(&body).unwrap()).read_to_end(&mut plain).unwrap();
        assert_eq!(plain, body);
    }
}
