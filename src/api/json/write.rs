//! JSON text in RapidJSON's pretty layouts, written straight from tensor memory.

use super::{base64, decimal};

/// Writes one JSON document.
///
/// The layout is RapidJSON's `PrettyWriter`: every member and element on its own line, except that
/// [`Writer::single_line_arrays`] keeps the elements of arrays on one line. The mode may change
/// between elements; a closing bracket follows the mode of its moment.
pub struct Writer {
    out: Vec<u8>,
    /// Entries written so far into each open container; a member counts twice.
    levels: Vec<Level>,
    indent: usize,
    single_line: bool,
}

struct Level {
    is_array: bool,
    entries: usize,
}

impl Writer {
    /// An empty document with so many blanks per level.
    pub fn new(indent: usize) -> Self {
        Self { out: Vec::with_capacity(256), levels: Vec::with_capacity(8), indent, single_line: false }
    }

    /// Sets the layout of arrays from here on.
    pub fn single_line_arrays(&mut self, yes: bool) {
        self.single_line = yes;
    }

    /// The document so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.out
    }

    /// The finished document.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    /// Opens an array.
    pub fn begin_array(&mut self) {
        self.begin_value();
        self.out.push(b'[');
        self.levels.push(Level { is_array: true, entries: 0 });
    }

    /// Closes an array.
    pub fn end_array(&mut self) {
        let empty = self.levels.pop().is_none_or(|level| level.entries == 0);
        if !empty && !self.single_line {
            self.new_line();
        }
        self.out.push(b']');
    }

    /// Opens an object.
    pub fn begin_object(&mut self) {
        self.begin_value();
        self.out.push(b'{');
        self.levels.push(Level { is_array: false, entries: 0 });
    }

    /// Closes an object.
    pub fn end_object(&mut self) {
        let empty = self.levels.pop().is_none_or(|level| level.entries == 0);
        if !empty {
            self.new_line();
        }
        self.out.push(b'}');
    }

    /// The name of the member whose value comes next.
    pub fn key(&mut self, name: &[u8]) {
        self.string(name);
    }

    /// A string; bytes beyond ASCII go out as they are.
    pub fn string(&mut self, value: &[u8]) {
        self.begin_value();
        self.quoted(value, escape_as_rapid_json);
    }

    /// A string as protobuf's JSON printer escapes it.
    pub fn protobuf_string(&mut self, value: &str) {
        self.begin_value();
        self.quoted(value.as_bytes(), escape_as_protobuf);
    }

    /// `{"b64": ".."}`
    pub fn base64(&mut self, value: &[u8]) {
        self.begin_object();
        self.key(b"b64");
        self.base64_string(value);
        self.end_object();
    }

    /// `".."` in base64.
    pub fn base64_string(&mut self, value: &[u8]) {
        self.begin_value();
        self.out.push(b'"');
        base64::encode(value, &mut self.out);
        self.out.push(b'"');
    }

    /// What `write` writes, less a `.0` at its end.
    pub fn trimmed(&mut self, write: impl FnOnce(&mut Self)) {
        write(self);
        if self.out.ends_with(b".0") {
            self.out.truncate(self.out.len() - 2);
        }
    }

    /// A token that is JSON already.
    pub fn raw(&mut self, token: &[u8]) {
        self.begin_value();
        self.out.extend_from_slice(token);
    }

    /// A number of TensorFlow type float.
    pub fn f32(&mut self, value: f32) {
        self.begin_value();
        decimal::write_f32(value, &mut self.out);
    }

    /// A number of TensorFlow type double.
    pub fn f64(&mut self, value: f64) {
        self.begin_value();
        decimal::write_f64(value, &mut self.out);
    }

    /// A number of TensorFlow type half, with as few digits as tell it apart.
    pub fn f16(&mut self, value: half::f16) {
        self.begin_value();
        decimal::write_shortest(value.to_f64(), |read| half::f16::from_f64(read) == value, &mut self.out);
    }

    /// A number of TensorFlow type bfloat16, with as few digits as tell it apart.
    pub fn bf16(&mut self, value: half::bf16) {
        self.begin_value();
        decimal::write_shortest(value.to_f64(), |read| half::bf16::from_f64(read) == value, &mut self.out);
    }

    /// An unsigned integer.
    pub fn unsigned(&mut self, value: u64) {
        self.begin_value();
        self.out.extend_from_slice(decimal::decimal(value, &mut [0; 20]));
    }

    /// A signed integer.
    pub fn signed(&mut self, value: i64) {
        self.begin_value();
        if value < 0 {
            self.out.push(b'-');
        }
        self.out.extend_from_slice(decimal::decimal(value.unsigned_abs(), &mut [0; 20]));
    }

    /// `true` or `false`
    pub fn boolean(&mut self, value: bool) {
        self.raw(if value { b"true" } else { b"false" });
    }

    /// What stands between the previous token and a value or key.
    pub fn begin_value(&mut self) {
        let Some(level) = self.levels.last_mut() else { return };
        let entries = level.entries;
        level.entries += 1;
        if level.is_array {
            if entries > 0 {
                self.out.push(b',');
            }
            if !self.single_line {
                self.new_line();
            } else if entries > 0 {
                self.out.push(b' ');
            }
        } else if entries % 2 == 1 {
            self.out.extend_from_slice(b": ");
        } else {
            if entries > 0 {
                self.out.push(b',');
            }
            self.new_line();
        }
    }

    fn new_line(&mut self) {
        self.out.push(b'\n');
        self.out.resize(self.out.len() + self.levels.len() * self.indent, b' ');
    }

    fn quoted(&mut self, value: &[u8], escape: fn(u8, &mut Vec<u8>) -> bool) {
        self.out.push(b'"');
        for &byte in value {
            if !escape(byte, &mut self.out) {
                self.out.push(byte);
            }
        }
        self.out.push(b'"');
    }
}

fn escape_as_rapid_json(byte: u8, out: &mut Vec<u8>) -> bool {
    short_escape(byte, out) || (byte < 0x20 && unicode_escape(byte, b"0123456789ABCDEF", out))
}

/// Angle brackets are escaped too, so that the text is harmless within HTML.
fn escape_as_protobuf(byte: u8, out: &mut Vec<u8>) -> bool {
    short_escape(byte, out)
        || (matches!(byte, 0..0x20 | 0x7f | b'<' | b'>') && unicode_escape(byte, b"0123456789abcdef", out))
}

fn short_escape(byte: u8, out: &mut Vec<u8>) -> bool {
    let letter = match byte {
        b'"' | b'\\' => byte,
        8 => b'b',
        12 => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => return false,
    };
    out.extend_from_slice(&[b'\\', letter]);
    true
}

fn unicode_escape(byte: u8, digits: &[u8; 16], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(b"\\u00");
    out.extend([byte >> 4, byte & 15].iter().filter_map(|&digit| digits.get(usize::from(digit))));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        let mut writer = Writer::new(4);
        writer.begin_object();
        writer.key(b"rows");
        writer.begin_array();
        writer.single_line_arrays(true);
        for row in [[1, 2], [3, 4]] {
            writer.begin_array();
            row.iter().for_each(|&value| writer.signed(value));
            writer.end_array();
        }
        writer.base64(b"hello");
        writer.single_line_arrays(false);
        writer.end_array();
        writer.key(b"none");
        writer.begin_array();
        writer.end_array();
        writer.key(b"nothing");
        writer.begin_object();
        writer.end_object();
        writer.end_object();
        let expected = "{\n    \"rows\": [[1, 2], [3, 4], {\n            \"b64\": \"aGVsbG8=\"\n        }\n    ],\n    \"none\": [],\n    \"nothing\": {}\n}";
        assert_eq!(String::from_utf8(writer.finish()).unwrap(), expected);
    }

    #[test]
    fn escapes() {
        let mut writer = Writer::new(1);
        writer.string(b"a\"\\/\x08\x0c\n\r\t\x00\x1f\x7f<\xff");
        assert_eq!(writer.as_bytes(), b"\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001F\x7f<\xff\"");
        let mut writer = Writer::new(1);
        writer.protobuf_string("<\u{1f}\u{7f}é>");
        assert_eq!(writer.as_bytes(), "\"\\u003c\\u001f\\u007fé\\u003e\"".as_bytes());
    }

    #[test]
    fn narrow_floats() {
        let mut writer = Writer::new(4);
        writer.single_line_arrays(true);
        writer.begin_array();
        for value in [0.1, 65504.0, 1.0, -0.0, 3e-5, f64::NAN] {
            writer.f16(half::f16::from_f64(value));
        }
        writer.bf16(half::bf16::from_f64(0.1));
        writer.bf16(half::bf16::from_f64(3e38));
        writer.end_array();
        let expected = "[0.1, 65500.0, 1.0, -0.0, 3e-05, NaN, 0.1, 3e+38]";
        assert_eq!(String::from_utf8(writer.finish()).unwrap(), expected);
    }

    #[test]
    fn integers() {
        let mut writer = Writer::new(4);
        writer.single_line_arrays(true);
        writer.begin_array();
        writer.signed(i64::MIN);
        writer.unsigned(u64::MAX);
        writer.unsigned(0);
        writer.end_array();
        assert_eq!(writer.as_bytes(), b"[-9223372036854775808, 18446744073709551615, 0]");
    }
}
