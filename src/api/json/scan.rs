//! The first pass: checks a text against RapidJSON's grammar and notes the extent of every array
//! and object.
//!
//! The grammar is that of RapidJSON 1.1's iterative parser with NaN and infinities allowed: it
//! stops after the first complete value, skips a byte order mark, takes a zero byte for the end of
//! the text, and does not look at the encoding of strings. Nesting costs no stack: an open
//! container keeps its parent in the slot that later holds its end.

use super::{number, text, value::Value};

/// Why a text is not JSON: RapidJSON's message and the offset of the byte it stopped at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at offset: {offset}")]
pub struct SyntaxError {
    /// What is wrong.
    pub message: &'static str,
    /// Bytes before the place.
    pub offset: usize,
}

/// A text that was found to be JSON, and where its arrays and objects end.
pub struct Document<'t> {
    pub(super) bytes: &'t [u8],
    pub(super) containers: Vec<Container>,
    root: usize,
}

/// An array or object; they are listed in the order of their opening brackets.
#[derive(Clone, Copy)]
pub(super) struct Container {
    /// Offset just behind the closing bracket. While open: the number of the parent.
    pub(super) end: u32,
    /// Elements or members.
    pub(super) count: u32,
    /// Number of the first container that opens behind this one. While open: 1 for an object.
    pub(super) next: u32,
}

const NO_PARENT: u32 = u32::MAX;

impl<'t> Document<'t> {
    /// Checks `bytes` up to the end of the first value.
    ///
    /// # Errors
    /// The first offence against the grammar, as RapidJSON words it.
    pub fn parse(bytes: &'t [u8]) -> Result<Self, SyntaxError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(SyntaxError { message: "The document is larger than 4 GiB.", offset: bytes.len() });
        }
        let mut scanner =
            Scanner { bytes, at: byte_order_mark(bytes), containers: Vec::new(), open: NO_PARENT };
        scanner.skip_space();
        let root = scanner.at;
        scanner.document()?;
        Ok(Self { bytes, containers: scanner.containers, root })
    }

    /// The top-level value.
    pub fn root(&self) -> Value<'_> {
        Value::new(self, self.root, 0)
    }
}

/// RapidJSON takes each of the three bytes by itself.
fn byte_order_mark(bytes: &[u8]) -> usize {
    let mut at = 0;
    for mark in [0xef, 0xbb, 0xbf] {
        at += usize::from(bytes.get(at) == Some(&mark));
    }
    at
}

struct Scanner<'t> {
    bytes: &'t [u8],
    at: usize,
    containers: Vec<Container>,
    /// Number of the innermost open container.
    open: u32,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), SyntaxError> {
        match self.peek() {
            0 | b']' | b'}' | b',' | b':' => return Err(self.error("The document is empty.")),
            _ => self.value()?,
        }
        while let Some(container) = self.containers.get_mut(self.open as usize) {
            let first = container.count == 0;
            if container.next == 1 { self.member(first)? } else { self.element(first)? }
        }
        Ok(())
    }

    /// In an array, before an element (the first one) or behind one.
    fn element(&mut self, first: bool) -> Result<(), SyntaxError> {
        self.skip_space();
        match (self.peek(), first) {
            (b']', _) => return Ok(self.close()),
            (b',', false) => {
                self.at += 1;
                self.skip_space();
            }
            (_, true) => {}
            _ => return Err(self.error("Missing a comma or ']' after an array element.")),
        }
        self.count_one();
        match self.peek() {
            0 | b']' | b'}' | b',' | b':' => Err(self.error("Invalid value.")),
            b'-' | b'0'..=b'9' => self.numbers(),
            _ => self.value(),
        }
    }

    /// Numbers of an array, separated by commas, as long as nothing else comes.
    fn numbers(&mut self) -> Result<(), SyntaxError> {
        let mut further = 0;
        loop {
            self.at = number::check(self.bytes, self.at)?;
            let mut at = self.at;
            at = skip_space(self.bytes, at);
            if self.bytes.get(at) != Some(&b',') {
                break;
            }
            at = skip_space(self.bytes, at + 1);
            if !matches!(self.bytes.get(at), Some(b'-' | b'0'..=b'9')) {
                break;
            }
            self.at = at;
            further += 1;
        }
        if let Some(container) = self.containers.get_mut(self.open as usize) {
            container.count += further;
        }
        Ok(())
    }

    /// In an object, before a member (the first one) or behind one.
    fn member(&mut self, first: bool) -> Result<(), SyntaxError> {
        self.skip_space();
        match (self.peek(), first) {
            (b'}', _) => return Ok(self.close()),
            (b',', false) => {
                self.at += 1;
                self.skip_space();
            }
            (_, true) => {}
            _ => return Err(self.error("Missing a comma or '}' after an object member.")),
        }
        if self.peek() != b'"' {
            return Err(self.error("Missing a name for object member."));
        }
        self.count_one();
        self.at = text::check(self.bytes, self.at)?;
        self.skip_space();
        if self.peek() != b':' {
            return Err(self.error("Missing a colon after a name of object member."));
        }
        self.at += 1;
        self.skip_space();
        match self.peek() {
            0 | b']' | b'}' | b',' | b':' => Err(self.error("Invalid value.")),
            _ => self.value(),
        }
    }

    /// A scalar, or the opening bracket of a container.
    fn value(&mut self) -> Result<(), SyntaxError> {
        match self.peek() {
            b'[' => self.open(0),
            b'{' => self.open(1),
            b'"' => self.at = text::check(self.bytes, self.at)?,
            b'n' => self.literal(b"null")?,
            b't' => self.literal(b"true")?,
            b'f' => self.literal(b"false")?,
            _ => self.at = number::check(self.bytes, self.at)?,
        }
        Ok(())
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), SyntaxError> {
        for &byte in word {
            if self.peek() != byte {
                return Err(self.error("Invalid value."));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn open(&mut self, is_object: u32) {
        let number = self.containers.len() as u32;
        self.containers.push(Container { end: self.open, count: 0, next: is_object });
        self.open = number;
        self.at += 1;
    }

    fn close(&mut self) {
        self.at += 1;
        let next = self.containers.len() as u32;
        if let Some(container) = self.containers.get_mut(self.open as usize) {
            self.open = std::mem::replace(&mut container.end, self.at as u32);
            container.next = next;
        }
    }

    fn count_one(&mut self) {
        if let Some(container) = self.containers.get_mut(self.open as usize) {
            container.count += 1;
        }
    }

    fn peek(&self) -> u8 {
        peek(self.bytes, self.at)
    }

    fn skip_space(&mut self) {
        self.at = skip_space(self.bytes, self.at);
    }

    fn error(&self, message: &'static str) -> SyntaxError {
        SyntaxError { message, offset: self.at }
    }
}

/// The byte at an offset; zero behind the end, as RapidJSON's streams have it.
#[inline]
pub(super) fn peek(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// The offset of the first byte that is not white space.
#[inline]
pub(super) fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Document::parse(text.as_bytes()).err().expect(text).to_string()
    }

    /// Texts and offsets recorded from TensorFlow Serving.
    #[test]
    fn recorded_errors() {
        for (text, expected) in [
            ("instances = [1, 2]", "Invalid value. at offset: 0"),
            (r#"{"instances":[1,2,]}"#, "Invalid value. at offset: 18"),
            (r#"{/*c*/"instances":[1]}"#, "Missing a name for object member. at offset: 1"),
            ("{'instances':[1]}", "Missing a name for object member. at offset: 1"),
            (r#"{"instances"[1]}"#, "Missing a colon after a name of object member. at offset: 12"),
            (r#"{"instances":[1] "a":1}"#, "Missing a comma or '}' after an object member. at offset: 17"),
            ("   ", "The document is empty. at offset: 3"),
            ("[+1]", "Invalid value. at offset: 1"),
            ("[01]", "Missing a comma or ']' after an array element. at offset: 2"),
            ("[.5]", "Invalid value. at offset: 1"),
            ("[1.]", "Miss fraction part in number. at offset: 3"),
            (r#"["\ud83d"]"#, "The surrogate pair in string is invalid. at offset: 2"),
            (r#"["a\qb"]"#, "Invalid escape character in string. at offset: 3"),
        ] {
            assert_eq!(refused(text), expected, "{text}");
        }
    }

    /// By RapidJSON's state machine: which state reports what.
    #[test]
    fn errors_by_state() {
        for (text, expected) in [
            ("", "The document is empty. at offset: 0"),
            ("]", "The document is empty. at offset: 0"),
            ("[", "Invalid value. at offset: 1"),
            ("[,", "Invalid value. at offset: 1"),
            ("[1", "Missing a comma or ']' after an array element. at offset: 2"),
            ("[1}", "Missing a comma or ']' after an array element. at offset: 2"),
            ("[1,,", "Invalid value. at offset: 3"),
            ("[1, 2, x", "Invalid value. at offset: 7"),
            ("{", "Missing a name for object member. at offset: 1"),
            (r#"{"a""#, "Missing a colon after a name of object member. at offset: 4"),
            (r#"{"a":"#, "Invalid value. at offset: 5"),
            (r#"{"a":}"#, "Invalid value. at offset: 5"),
            (r#"{"a":1"#, "Missing a comma or '}' after an object member. at offset: 6"),
            (r#"{"a":1,}"#, "Missing a name for object member. at offset: 7"),
            (r#"{"a":1,2"#, "Missing a name for object member. at offset: 7"),
            ("[nul]", "Invalid value. at offset: 4"),
            ("[True]", "Invalid value. at offset: 1"),
            ("[\"a", "Missing a closing quotation mark in string. at offset: 3"),
            ("[\"\u{1}\"]", "Invalid escape character in string. at offset: 2"),
            ("[1e400]", "Number too big to be stored in double. at offset: 1"),
            ("[1,\0]", "Invalid value. at offset: 3"),
        ] {
            assert_eq!(refused(text), expected, "{text}");
        }
    }

    #[test]
    fn stops_behind_the_first_value() {
        for text in ["{} trailing", "\u{feff}[1]]", " 1.5 {", "null\0", "\"a\"b"] {
            assert!(Document::parse(text.as_bytes()).is_ok(), "{text}");
        }
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let deep = 2_000_000;
        let text = "[".repeat(deep) + &"]".repeat(deep);
        assert_eq!(Document::parse(text.as_bytes()).map(|d| d.containers.len()), Ok(deep));
        let open = r#"{"a":["#.repeat(deep / 10);
        assert!(Document::parse(open.as_bytes()).is_err());
    }

    #[test]
    fn containers_know_their_extent() {
        let document = Document::parse(br#"[[1, 2,3], {"a": [], "b": 1}, "]", 4]"#).unwrap();
        let extents: Vec<_> = document.containers.iter().map(|c| (c.end, c.count, c.next)).collect();
        assert_eq!(extents, [(37, 4, 4), (9, 3, 2), (28, 2, 4), (19, 0, 4)]);
    }
}
