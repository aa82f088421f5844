//! gzip (RFC 1952), bounded: what a small body inflates to is limited by the caller, not by its sender.
#![forbid(unsafe_code)]

use std::io::{Read, Write};

use flate2::{Compression, bufread::MultiGzDecoder, write::GzEncoder};
use thiserror::Error;

/// Why bytes could not be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GzipError {
    /// The content would be longer than the limit.
    #[error("the decompressed content exceeds {0} bytes")]
    TooLarge(usize),
    /// The bytes are not gzip, or damaged.
    #[error("the content is not valid gzip")]
    Corrupt,
}

/// The content of `compressed`, which may be at most `limit` bytes long.
pub fn inflate(compressed: &[u8], limit: usize) -> Result<Vec<u8>, GzipError> {
    let mut content = Vec::new();
    let one_more = (limit as u64).saturating_add(1);
    let result = MultiGzDecoder::new(compressed).take(one_more).read_to_end(&mut content);
    if content.len() > limit {
        return Err(GzipError::TooLarge(limit));
    }
    result.map(|_| content).map_err(|_| GzipError::Corrupt)
}

/// `content` compressed, fast rather than small.
pub fn deflate(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing into memory cannot fail; if it did, an empty body would not decode, so nothing wrong is sent.
    encoder.write_all(content).and_then(|()| encoder.finish()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf kinglet | gzip -n`, an independent encoder.
    const KINGLET: [u8; 27] = [
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0xcb, 0xce, 0xcc, 0x4b, 0xcf, 0x49, 0x2d,
        0x01, 0x00, 0xe6, 0x87, 0xfa, 0xb5, 0x07, 0x00, 0x00, 0x00,
    ];

    #[test]
    fn members_of_another_encoder_are_read() {
        assert_eq!(inflate(&KINGLET, 7).unwrap(), b"kinglet");
        assert_eq!(inflate(&[KINGLET, KINGLET].concat(), 14).unwrap(), b"kingletkinglet");
    }

    #[test]
    fn limits_and_damage() {
        assert_eq!(inflate(&KINGLET, 6), Err(GzipError::TooLarge(6)));
        assert_eq!(inflate(&KINGLET[..20], 100), Err(GzipError::Corrupt));
        assert_eq!(inflate(b"plain text", 100), Err(GzipError::Corrupt));
        let mut wrong_sum = KINGLET;
        wrong_sum[20] ^= 1;
        assert_eq!(inflate(&wrong_sum, 100), Err(GzipError::Corrupt));
        assert_eq!(inflate(&[&KINGLET[..], b"junk"].concat(), 100), Err(GzipError::Corrupt));
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = deflate(&vec![0; 10 << 20]);
        assert!(bomb.len() < 100_000);
        assert_eq!(inflate(&bomb, 1 << 20), Err(GzipError::TooLarge(1 << 20)));
        assert_eq!(inflate(&bomb, 10 << 20).unwrap().len(), 10 << 20);
    }
}
