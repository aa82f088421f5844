//! Header fields of a request or a response, in the order in which they were received or pushed.
//!
//! All names and values of a message lie in one buffer, so that a head costs two allocations
//! whatever its number of fields. Names compare without regard to ASCII case (RFC 9110, 5.1);
//! HTTP/2 delivers them in lower case, HTTP/1.1 as the peer wrote them.
#![forbid(unsafe_code)]

use std::fmt;

/// An ordered list of header fields; a name may occur more than once.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    text: Vec<u8>,
    fields: Vec<Field>,
}

/// Offsets into `Headers::text`: the name is `name..value`, the value `value..end`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Field {
    name: usize,
    value: usize,
    end: usize,
}

impl Headers {
    /// An empty list; allocates nothing.
    pub fn new() -> Headers {
        Headers::default()
    }

    /// An empty list with room for `fields` fields of `bytes` bytes together.
    pub(crate) fn with_capacity(fields: usize, bytes: usize) -> Headers {
        Headers { text: Vec::with_capacity(bytes), fields: Vec::with_capacity(fields) }
    }

    /// The bytes of all names and values.
    pub(crate) fn text_len(&self) -> usize {
        self.text.len()
    }

    /// Appends a field. The text is taken as it is; what cannot be sent is left out when the message is written.
    pub fn push(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let start = self.text.len();
        self.text.extend_from_slice(name.as_ref());
        let middle = self.text.len();
        self.text.extend_from_slice(value.as_ref());
        self.fields.push(Field { name: start, value: middle, end: self.text.len() });
    }

    /// Appends a field and returns the list, for building one in an expression.
    pub fn with(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Headers {
        self.push(name, value);
        self
    }

    /// The value of the first field called `name`, in any case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|field| self.is_named(field, name)).map(|field| self.value_of(field))
    }

    /// Like [`Headers::get`]; `None` also when the value is not UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The values of all fields called `name`, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |field| self.is_named(field, name)).map(|field| self.value_of(field))
    }

    /// Most are told apart by their lengths.
    fn is_named(&self, field: &Field, name: &str) -> bool {
        field.value - field.name == name.len() && is_same_name(self.name_of(field), name)
    }

    fn name_of(&self, field: &Field) -> &[u8] {
        self.text.get(field.name..field.value).unwrap_or_default()
    }

    fn value_of(&self, field: &Field) -> &[u8] {
        self.text.get(field.value..field.end).unwrap_or_default()
    }

    /// Whether a field called `name` is present.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether one of the comma-separated elements of the fields called `name` is `token`, in any case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.get_all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|element| element.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    /// All fields as (name, value), in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (self.name_of(field), self.value_of(field)))
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

/// Fields that carry credentials; their values are never shown.
const SECRET: [&str; 8] = [
    "authorization",
    "proxy-authorization",
    "x-auth-token",
    "x-apig-appcode",
    "apikey",
    "x-security-token",
    "cookie",
    "set-cookie",
];

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let is_secret =
            |name: &[u8]| SECRET.iter().any(|secret| name.eq_ignore_ascii_case(secret.as_bytes()));
        let shown = |(name, value)| {
            (text(name), if is_secret(name) { "(not shown)".to_owned() } else { text(value) })
        };
        f.debug_list().entries(self.iter().map(shown)).finish()
    }
}

/// Whether two names of fields are the same, in any case.
#[inline]
pub(crate) fn is_same_name(one: &[u8], other: &str) -> bool {
    one.len() == other.len() && one.eq_ignore_ascii_case(other.as_bytes())
}

/// Whether `name` is a token of RFC 9110, 5.6.2.
pub(crate) fn is_token(name: &[u8]) -> bool {
    let allowed = |byte: &u8| match byte {
        b'-' | b'_' | b'.' | b'!' | b'#' | b'$' | b'%' | b'&' => true,
        b'\'' | b'*' | b'+' | b'^' | b'`' | b'|' | b'~' => true,
        _ => byte.is_ascii_alphanumeric(),
    };
    !name.is_empty() && name.iter().all(allowed)
}

/// Whether `value` holds only what RFC 9110, 5.5 allows in a field: no control character but HTAB.
pub(crate) fn is_field_value(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_ignores_case_and_keeps_order() {
        let headers = Headers::new().with("Content-Type", "text/html").with("x", "1").with("X", "2");
        assert_eq!(headers.get("content-type"), Some(&b"text/html"[..]));
        assert_eq!(headers.get_str("X"), Some("1"));
        assert_eq!(headers.get_all("x").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(headers.get("y"), None);
        assert_eq!(headers.len(), 3);
    }

    #[test]
    fn tokens_are_found_in_lists() {
        let headers = Headers::new().with("Connection", "foo, Close ,bar").with("connection", "upgrade");
        assert!(headers.has_token("connection", "close"));
        assert!(headers.has_token("connection", "upgrade"));
        assert!(!headers.has_token("connection", "clos"));
    }

    #[test]
    fn values_that_are_not_text_are_kept_as_bytes() {
        let headers = Headers::new().with("x", [0xff, 0xfe]);
        assert_eq!(headers.get("x"), Some(&[0xff, 0xfe][..]));
        assert_eq!(headers.get_str("x"), None);
    }

    #[test]
    fn credentials_are_not_shown() {
        let shown = format!("{:?}", Headers::new().with("X-Auth-Token", "abc").with("Accept", "x/y"));
        assert_eq!(shown, r#"[("X-Auth-Token", "(not shown)"), ("Accept", "x/y")]"#);
    }

    #[test]
    fn grammar_of_names_and_values() {
        assert!(is_token(b"x-Auth_token.1"));
        for name in [&b""[..], b"a b", b"a:", b"a\0", b"\xc3\xa9", b"(a)"] {
            assert!(!is_token(name), "{name:?}");
        }
        assert!(is_field_value(b"a\tb \xff"));
        for value in [&b"\0"[..], b"a\r\nb", b"\x7f"] {
            assert!(!is_field_value(value), "{value:?}");
        }
    }
}
