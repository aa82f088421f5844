//! Base64 as Abseil reads it: padding may be absent (or dots), white space is skipped, leftover
//! bits are ignored, only the standard alphabet counts. Writing is RFC 4648 section 4.

use ::base64::{Engine, engine::general_purpose::STANDARD};

/// The bytes that `text` stands for; `None` where it is not base64.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    // The common case: no white space, full padding.
    if STANDARD.decode_vec(text, &mut out).is_ok() {
        return Some(out);
    }
    out.clear();
    let mut rest = text.iter().copied().filter(|byte| !is_space(*byte));
    let (mut bits, mut sextets, mut padding) = (0u32, 0usize, 0);
    for byte in rest.by_ref() {
        if matches!(byte, b'=' | b'.') {
            padding = 1;
            break;
        }
        bits = bits << 6 | sextet(byte)?;
        sextets += 1;
        if sextets.is_multiple_of(4) {
            out.extend_from_slice(bits.to_be_bytes().get(1..)?);
            bits = 0;
        }
    }
    for byte in rest {
        padding += usize::from(matches!(byte, b'=' | b'.').then_some(true)?);
    }
    let expected = match sextets % 4 {
        0 => 0,
        2 => {
            out.push((bits >> 4) as u8);
            2
        }
        3 => {
            out.extend_from_slice(&((bits >> 2) as u16).to_be_bytes());
            1
        }
        _ => return None,
    };
    (padding == 0 || padding == expected).then_some(out)
}

/// Appends the standard alphabet's text for `bytes`, padded.
pub fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, b'=');
    if let Some(space) = out.get_mut(start..)
        && STANDARD.encode_slice(bytes, space).is_err()
    {
        out.truncate(start);
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | 9..=13)
}

fn sextet(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lenient_reading() {
        for (text, expected) in [
            ("aGVsbG8=", Some("hello")),
            ("aGVsbG8", Some("hello")),
            (" aGVs\nbG8 = ", Some("hello")),
            ("aA==", Some("h")),
            ("aA", Some("h")),
            ("aA.=", Some("h")),
            ("aB==", Some("h")),
            ("", Some("")),
            ("aA=", None),
            ("aGVs=", None),
            ("a", None),
            ("aA==x", None),
            ("_-8=", None),
            ("a*==", None),
        ] {
            assert_eq!(decode(text.as_bytes()).as_deref(), expected.map(str::as_bytes), "{text:?}");
        }
    }

    #[test]
    fn writing() {
        let mut out = b">".to_vec();
        encode(b"world", &mut out);
        encode(b"", &mut out);
        assert_eq!(out, b">d29ybGQ=");
    }
}
