//! JSON strings: checking escapes, finding the end, decoding. Bytes are not required to be UTF-8.

use super::scan::{SyntaxError, peek};
use std::borrow::Cow;

/// Checks the string whose opening quote stands at `at`; returns the offset behind its closing
/// quote.
pub(super) fn check(bytes: &[u8], at: usize) -> Result<usize, SyntaxError> {
    let mut at = at + 1;
    loop {
        match peek(bytes, at) {
            b'"' => return Ok(at + 1),
            b'\\' => at = check_escape(bytes, at)?,
            0 => {
                let message = "Missing a closing quotation mark in string.";
                return Err(SyntaxError { message, offset: at });
            }
            1..0x20 => {
                return Err(SyntaxError { message: "Invalid escape character in string.", offset: at });
            }
            _ => at += 1,
        }
    }
}

/// Checks one escape; errors carry the offset of its backslash.
fn check_escape(bytes: &[u8], start: usize) -> Result<usize, SyntaxError> {
    let error = |message| SyntaxError { message, offset: start };
    match peek(bytes, start + 1) {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(start + 2),
        b'u' => {
            const BAD_HEX: &str = "Incorrect hex digit after \\u escape in string.";
            const BAD_PAIR: &str = "The surrogate pair in string is invalid.";
            let unit = hex4(bytes, start + 2).ok_or(error(BAD_HEX))?;
            // A low surrogate by itself passes in RapidJSON 1.1.
            if !(0xd800..0xdc00).contains(&unit) {
                return Ok(start + 6);
            }
            if (peek(bytes, start + 6), peek(bytes, start + 7)) != (b'\\', b'u') {
                return Err(error(BAD_PAIR));
            }
            match hex4(bytes, start + 8).ok_or(error(BAD_HEX))? {
                0xdc00..0xe000 => Ok(start + 12),
                _ => Err(error(BAD_PAIR)),
            }
        }
        _ => Err(error("Invalid escape character in string.")),
    }
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    (at..at + 4).try_fold(0, |unit, at| Some(unit << 4 | char::from(peek(bytes, at)).to_digit(16)?))
}

/// The offset of the closing quote of a checked string that starts at `at`.
pub(super) fn closing_quote(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if bytes.get(at) == Some(&b'"') {
            return at;
        }
        at += 2;
    }
    bytes.len()
}

/// The content of a checked string, given without its quotes.
pub(super) fn decode(raw: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr::memchr(b'\\', raw) else { return Cow::Borrowed(raw) };
    let mut out = Vec::with_capacity(raw.len());
    let (mut done, mut escape) = (0, Some(first));
    while let Some(at) = escape {
        out.extend_from_slice(raw.get(done..at).unwrap_or_default());
        done = decode_escape(raw, at, &mut out);
        escape = raw.get(done..).and_then(|rest| memchr::memchr(b'\\', rest)).map(|found| done + found);
    }
    out.extend_from_slice(raw.get(done..).unwrap_or_default());
    Cow::Owned(out)
}

fn decode_escape(raw: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    let plain = match peek(raw, at + 1) {
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => {
            let unit = hex4(raw, at + 2).unwrap_or(0);
            let (code, end) = match hex4(raw, at + 8) {
                Some(low) if (0xd800..0xdc00).contains(&unit) => {
                    (0x10000 + ((unit - 0xd800) << 10 | low.wrapping_sub(0xdc00) & 0x3ff), at + 12)
                }
                _ => (unit, at + 6),
            };
            push_utf8(code, out);
            return end;
        }
        other => other,
    };
    out.push(plain);
    at + 2
}

/// Like `char::encode_utf8`, but a surrogate is encoded too.
fn push_utf8(code: u32, out: &mut Vec<u8>) {
    let tail = |shift: u32| 0x80 | (code >> shift & 0x3f) as u8;
    match code {
        0..0x80 => out.push(code as u8),
        0x80..0x800 => out.extend([0xc0 | (code >> 6) as u8, tail(0)]),
        0x800..0x10000 => out.extend([0xe0 | (code >> 12) as u8, tail(6), tail(0)]),
        _ => out.extend([0xf0 | (code >> 18) as u8, tail(12), tail(6), tail(0)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_decode() {
        let raw = br#"a\"\\\/\b\f\n\r\t\u0041\u00e9\u20ac\ud83d\ude00z"#;
        let mut quoted = b"\"".to_vec();
        quoted.extend_from_slice(raw);
        quoted.push(b'"');
        assert_eq!(check(&quoted, 0), Ok(quoted.len()));
        assert_eq!(closing_quote(&quoted, 0), quoted.len() - 1);
        assert_eq!(&*decode(raw), "a\"\\/\u{8}\u{c}\n\r\tAé€😀z".as_bytes());
        assert_eq!(&*decode(br"\u0000"), b"\0");
        assert_eq!(&*decode(br"\udc00"), b"\xed\xb0\x80");
        assert_eq!(&*decode(b"\xff plain"), b"\xff plain");
    }

    #[test]
    fn broken_escapes() {
        for (text, message) in [
            (r#""\u12"#, "Incorrect hex digit after \\u escape in string."),
            (r#""\u12g4""#, "Incorrect hex digit after \\u escape in string."),
            (r#""\ud800\n""#, "The surrogate pair in string is invalid."),
            (r#""\ud800\ud800""#, "The surrogate pair in string is invalid."),
            (r#""\ud800\uz000""#, "Incorrect hex digit after \\u escape in string."),
            (r#""\x""#, "Invalid escape character in string."),
        ] {
            assert_eq!(check(text.as_bytes(), 0), Err(SyntaxError { message, offset: 1 }), "{text}");
        }
    }
}
