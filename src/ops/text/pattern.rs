//! Regular expressions in RE2's syntax, as TensorFlow takes them, through the `regex` crate.
//!
//! Both have the same core. What differs is translated: Perl classes and word boundaries mean ASCII
//! in RE2, and the `regex` crate gives `[`, `&&` and `~~` inside a class a meaning of their own.

use crate::{ops::OpError, tensor::Bytes};
use regex::bytes::{Captures, Regex};

/// Compiles a pattern; one that must match a whole string when `full`.
pub(super) fn compile(pattern: &str, full: bool) -> Result<Regex, OpError> {
    let mut translated = translate(pattern);
    if full {
        translated = format!(r"\A(?:{translated})\z");
    }
    Regex::new(&translated)
        .map_err(|error| OpError::invalid(format!("Invalid pattern: {pattern}, error: {error}")))
}

fn translate(pattern: &str) -> String {
    let mut to = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(c) = rest.next() {
        match (c, in_class) {
            ('\\', _) => match rest.next() {
                Some('d') => to.push_str("[0-9]"),
                Some('D') => to.push_str("[^0-9]"),
                Some('w') => to.push_str("[0-9A-Za-z_]"),
                Some('W') => to.push_str("[^0-9A-Za-z_]"),
                Some('s') => to.push_str(r"[\t\n\f\r ]"),
                Some('S') => to.push_str(r"[^\t\n\f\r ]"),
                Some(boundary @ ('b' | 'B')) => {
                    to.push_str(r"(?-u:\");
                    to.push(boundary);
                    to.push(')');
                }
                Some('C') => to.push_str(r"(?s-u:.)"),
                Some(other) => to.extend(['\\', other]),
                None => to.push('\\'),
            },
            ('[', false) => {
                in_class = true;
                to.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    to.push('^');
                }
                // A bracket that comes first is one of the class's characters.
                if rest.next_if_eq(&']').is_some() {
                    to.push_str(r"\]");
                }
            }
            ('[', true) if rest.peek() == Some(&':') => {
                to.push('[');
                for c in rest.by_ref() {
                    to.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            ('[' | '&' | '~', true) => to.extend(['\\', c]),
            (']', true) => {
                in_class = false;
                to.push(']');
            }
            (c, _) => to.push(c),
        }
    }
    to
}

/// What replaces a match: text and, as `\0` to `\9`, what groups matched.
pub(super) struct Rewrite(Vec<Piece>);

enum Piece {
    Text(Vec<u8>),
    Group(usize),
}

impl Rewrite {
    /// Reads a rewrite string and checks its groups against the pattern's.
    pub(super) fn new(rewrite: &str, pattern: &Regex) -> Result<Self, OpError> {
        let invalid = || OpError::invalid(format!("Invalid rewrite pattern: {rewrite}"));
        let (mut pieces, mut text) = (Vec::new(), Vec::new());
        let mut rest = rewrite.bytes();
        while let Some(byte) = rest.next() {
            if byte != b'\\' {
                text.push(byte);
                continue;
            }
            match rest.next() {
                Some(b'\\') => text.push(b'\\'),
                Some(digit @ b'0'..=b'9') => {
                    let group = usize::from(digit - b'0');
                    if group >= pattern.captures_len() {
                        return Err(invalid());
                    }
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                    pieces.push(Piece::Group(group));
                }
                _ => return Err(invalid()),
            }
        }
        pieces.push(Piece::Text(text));
        Ok(Self(pieces))
    }

    /// The text with the first match replaced, or all.
    pub(super) fn replace(&self, pattern: &Regex, text: &Bytes, global: bool) -> Bytes {
        let replaced = pattern.replacen(text, usize::from(!global), |captures: &Captures<'_>| {
            let mut made = Vec::new();
            for piece in &self.0 {
                match piece {
                    Piece::Text(text) => made.extend_from_slice(text),
                    Piece::Group(group) => {
                        made.extend_from_slice(
                            captures.get(*group).map_or(&[][..], |found| found.as_bytes()),
                        );
                    }
                }
            }
            made
        });
        match replaced {
            std::borrow::Cow::Borrowed(_) => text.clone(),
            std::borrow::Cow::Owned(replaced) => replaced.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(pattern: &str, rewrite: &str, text: &'static str, global: bool) -> String {
        let pattern = compile(pattern, false).unwrap();
        let rewrite = Rewrite::new(rewrite, &pattern).unwrap();
        String::from_utf8_lossy(&rewrite.replace(&pattern, &text.into(), global)).into_owned()
    }

    #[test]
    fn classes_are_those_of_re2() {
        let full = |pattern: &str, text: &str| compile(pattern, true).unwrap().is_match(text.as_bytes());
        assert!(full(r"\d+", "123") && !full(r"\d", "\u{0663}"));
        assert!(full(r"[\d\s]+", "1 2") && !full(r"[^\d]", "1"));
        assert!(full(r"[a[]+", "a[") && full(r"[]a]+", "]a") && full(r"[a&&b]+", "&ab"));
        assert!(full(r"[[:alpha:]]+", "ab") && !full(r"[[:alpha:]]+", "a1"));
        assert!(full("a|b", "b") && !full("a|b", "ab"));
        assert!(full(r"\pL", "\u{e9}"));
        assert!(compile("(", false).is_err());
    }

    #[test]
    fn rewrites() {
        assert_eq!(replaced("a(.)c", r"\1-\0\\", "abc adc", true), r"b-abc\ d-adc\");
        assert_eq!(replaced("a", "b", "aaa", false), "baa");
        assert_eq!(replaced("x", "b", "aaa", true), "aaa");
        assert_eq!(replaced("", "-", "ab", true), "-a-b-");
        let pattern = compile("a", false).unwrap();
        assert!(Rewrite::new(r"\1", &pattern).is_err() && Rewrite::new(r"\x", &pattern).is_err());
    }
}
