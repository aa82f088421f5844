//! The first pass: checks a text against RapidJSON's grammar and notes the extent of every array
//! and object.
//!
//! The grammar is that of RapidJSON 1.1's iterative parser with NaN and infinities allowed: it
//! stops after the first complete value, skips a byte order mark, takes a zero byte for the end of
//! the text, and does not look at the encoding of strings. Nesting costs no stack: an open
//! container keeps its parent in the slot that later holds its end.

use super::{number, short::Short, text, value::Value};

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
        Self::parse_collecting(bytes, &mut ())
    }

    /// The same, handing the numbers of arrays to `collect` on the way.
    pub fn parse_collecting<C: Collect>(bytes: &'t [u8], collect: &mut C) -> Result<Self, SyntaxError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(SyntaxError { message: "The document is larger than 4 GiB.", offset: bytes.len() });
        }
        let at = byte_order_mark(bytes);
        let mut scanner = Scanner { bytes, at, containers: Vec::new(), open: NO_PARENT, collect };
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

/// Takes numbers while a text is checked, so that they need not be read again.
pub trait Collect {
    /// The number at `at`, an element of an array; returns the offset behind it.
    ///
    /// # Errors
    /// It is no number.
    fn number(&mut self, text: &[u8], at: usize) -> Result<usize, SyntaxError>;

    /// Whether [`Collect::short_numbers`] takes any.
    #[doc(hidden)]
    const TAKES_SHORT: bool = false;

    /// Takes the first of some numbers of a text that begin at `at`, up to one that is not in a usual form; returns how
    /// many.
    #[doc(hidden)]
    fn short_numbers(&mut self, text: &[u8], at: usize, short: &Short<'_>) -> usize {
        let _ = (text, at, short);
        0
    }

    /// An array or object near the top opens, by its number.
    fn open(&mut self, container: u32) {
        let _ = container;
    }

    /// It closes.
    fn close(&mut self, container: u32) {
        let _ = container;
    }
}

/// Only checks.
impl Collect for () {
    #[inline(always)]
    fn number(&mut self, text: &[u8], at: usize) -> Result<usize, SyntaxError> {
        number::check(text, at)
    }
}

struct Scanner<'t, C> {
    bytes: &'t [u8],
    at: usize,
    containers: Vec<Container>,
    /// Number of the innermost open container.
    open: u32,
    collect: &'t mut C,
}

impl<C: Collect> Scanner<'_, C> {
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

    /// Numbers of an array that has counted the first, separated by commas; and further arrays of
    /// numbers beside it. Stops before what is anything else.
    fn numbers(&mut self) -> Result<(), SyntaxError> {
        // Looking ahead is worth it where some short ones were seen.
        const SEEN: u32 = 8;
        const SHORT: usize = 10;
        let bytes = self.bytes;
        let mut at = self.at;
        let mut further = 0;
        let (mut seen, mut since) = (0, at);
        loop {
            if C::TAKES_SHORT && seen == SEEN {
                if at - since <= SEEN as usize * SHORT {
                    (at, further) = self.short_numbers(at, further);
                }
                (seen, since) = (0, at);
            }
            seen += 1;
            at = self.collect.number(bytes, at)?;
            // The usual separators, each seen at once.
            match bytes.get(at..).and_then(|rest| rest.first_chunk::<5>()) {
                Some([b',', b' ', next, ..]) if is_digit_or_sign(*next) => {
                    (at, further) = (at + 2, further + 1);
                    continue;
                }
                Some([b',', next, ..]) if is_digit_or_sign(*next) => {
                    (at, further) = (at + 1, further + 1);
                    continue;
                }
                Some([b']', b',', b' ', b'[', next])
                    if is_digit_or_sign(*next) && self.enter_row(at, further) =>
                {
                    (at, further) = (at + 4, 0);
                    continue;
                }
                _ => {}
            }
            if let Some(next) = self.next_number(at, further) {
                (at, further) = next;
                continue;
            }
            self.at = at;
            if let Some(container) = self.containers.get_mut(self.open as usize) {
                container.count += further;
            }
            return Ok(());
        }
    }

    /// Behind a number: the offset of the next one in the same array or in the one beside it, if that is what follows, and
    /// how many were not counted yet. Apart, so that the usual separators have the registers for themselves.
    #[inline(never)]
    fn next_number(&mut self, at: usize, further: u32) -> Option<(usize, u32)> {
        let bytes = self.bytes;
        let behind = skip_space(bytes, at);
        match bytes.get(behind)? {
            b',' => {
                let next = skip_space(bytes, behind + 1);
                is_number_start(bytes, next).then_some((next, further + 1))
            }
            b']' => {
                let next = first_of_next_row(bytes, behind)?;
                self.enter_row(behind, further).then_some((next, 0))
            }
            _ => None,
        }
    }

    /// As many numbers as are short and in the usual forms, and separated so. Takes and returns the offset of the first
    /// that is not taken and how many were not counted yet.
    #[inline(never)]
    fn short_numbers(&mut self, mut at: usize, mut further: u32) -> (usize, u32) {
        let bytes = self.bytes;
        if !self.has_list_around() {
            return (at, further);
        }
        while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            let short = Short::find(block);
            let taken = self.collect.short_numbers(bytes, at, &short);
            // The first that was not counted in `further`.
            let mut first = 0;
            for (last, bracket) in short.row_ends(taken) {
                self.enter_row(at + bracket, further + last - first);
                (first, further) = (last + 1, 0);
            }
            further += taken as u32 - first;
            at += short.behind(taken);
            if taken < 4 {
                break;
            }
        }
        (at, further)
    }

    /// Whether the open array is an element of another, so that a row can follow it.
    fn has_list_around(&self) -> bool {
        let parent = self.containers.get(self.open as usize).map(|own| own.end as usize);
        parent.and_then(|parent| self.containers.get(parent)).is_some_and(|parent| parent.next == 0)
    }

    /// At the bracket that closes an array of numbers, which another such array follows: enters that, with its first
    /// number counted, or changes nothing.
    #[inline(always)]
    fn enter_row(&mut self, bracket: usize, further: u32) -> bool {
        let number = self.containers.len() as u32;
        let Some(row) = self.containers.get_mut(self.open as usize) else { return false };
        let parent = row.end;
        let closed = Container { end: bracket as u32 + 1, count: row.count + further, next: number };
        match self.containers.get_mut(parent as usize) {
            Some(parent) if parent.next == 0 => parent.count += 1,
            _ => return false,
        }
        if let Some(row) = self.containers.get_mut(self.open as usize) {
            *row = closed;
        }
        if self.containers.len() == self.containers.capacity() && number >= 64 {
            // As many as the rest of the text will have, if it is like what was read.
            let expected = number as usize * (self.bytes.len() - bracket) / (bracket + 1);
            self.containers.reserve(expected + 16);
        }
        self.containers.push(Container { end: parent, count: 1, next: 0 });
        self.open = number;
        true
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
        if self.is_near_top(self.open) {
            self.collect.open(number);
        }
        self.open = number;
        self.at += 1;
    }

    fn close(&mut self) {
        self.at += 1;
        let next = self.containers.len() as u32;
        if let Some(container) = self.containers.get_mut(self.open as usize) {
            let closed = std::mem::replace(&mut self.open, container.end);
            container.end = self.at as u32;
            container.next = next;
            if self.is_near_top(self.open) {
                self.collect.close(closed);
            }
        }
    }

    /// Whether the open container `parent` is the top-level object or an object in it.
    fn is_near_top(&self, parent: u32) -> bool {
        let object = |number: u32| self.containers.get(number as usize).filter(|own| own.next == 1);
        object(parent).is_some_and(|own| parent == 0 || (own.end == 0 && object(0).is_some()))
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

/// Whether a number starts there that is no name.
#[inline]
fn is_number_start(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(|&byte| is_digit_or_sign(byte))
}

#[inline(always)]
fn is_digit_or_sign(byte: u8) -> bool {
    // Not two branches: signs cannot be foreseen.
    (byte == b'-') | byte.is_ascii_digit()
}

/// The offset of the first number of the array of numbers that follows the closing bracket of another, if that comes
/// next.
fn first_of_next_row(bytes: &[u8], bracket: usize) -> Option<usize> {
    let comma = skip_space(bytes, bracket + 1);
    let open = skip_space(bytes, comma + 1);
    let first = skip_space(bytes, open + 1);
    let follows = bytes.get(comma) == Some(&b',') && bytes.get(open) == Some(&b'[');
    (follows && is_number_start(bytes, first)).then_some(first)
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
