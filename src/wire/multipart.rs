//! `multipart/form-data` (RFC 7578), from a body that is complete: parts are slices of it.
//!
//! The body has been bounded before; what is bounded here is the number of parts and the size of their heads.
#![forbid(unsafe_code)]

use bytes::Bytes;
use memchr::memmem;
use thiserror::Error;

/// Parts of one body.
const MAX_PARTS: usize = 256;
/// Header bytes and fields of one part.
const MAX_HEAD: usize = 8 << 10;
const MAX_FIELDS: usize = 16;

/// Why a body is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MultipartError {
    /// The content type is not `multipart/form-data`, or has no valid boundary (RFC 2046, 5.1.1).
    #[error("the content type is not multipart/form-data with a valid boundary")]
    ContentType,
    /// The first delimiter does not occur.
    #[error("the boundary of the content type does not occur in the body")]
    NoParts,
    /// The body ends within a part, or without the last delimiter.
    #[error("the multipart body is cut short")]
    Truncated,
    /// Something other than a line end follows a delimiter.
    #[error("a boundary line of the multipart body is malformed")]
    Delimiter,
    /// The head of a part cannot be read, or is too long.
    #[error("the head of part {0} is malformed or too long")]
    Head(usize),
    /// A part does not say which field it is.
    #[error("part {0} has no Content-Disposition: form-data with a name")]
    Name(usize),
    /// There are more parts than anybody needs.
    #[error("the multipart body has more than {MAX_PARTS} parts")]
    TooMany,
}

/// One field of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The name of the field.
    pub name: String,
    /// The name of the file, if the field is one. As the client said it: never a path to use.
    pub file_name: Option<String>,
    /// The declared media type; clients are often wrong about it.
    pub content_type: Option<String>,
    /// The content, a slice of the body.
    pub content: Bytes,
}

/// The parts of `body`, in order. `content_type` is the value of the request's field of that name.
pub fn parse(content_type: &str, body: &Bytes) -> Result<Vec<Part>, MultipartError> {
    let boundary = boundary(content_type).ok_or(MultipartError::ContentType)?;
    let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
    let finder = memmem::Finder::new(&delimiter);
    // The first delimiter needs no line end before it.
    let opening = delimiter.get(2..).unwrap_or_default();
    let mut at = if body.starts_with(opening) {
        opening.len()
    } else {
        finder.find(body).ok_or(MultipartError::NoParts)? + delimiter.len()
    };
    let mut parts = Vec::new();
    loop {
        let rest = body.get(at..).unwrap_or_default();
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        if parts.len() == MAX_PARTS {
            return Err(MultipartError::TooMany);
        }
        at += line_end(rest)?;
        let rest = body.get(at..).unwrap_or_default();
        let (head, length) = part_head(rest, parts.len())?;
        at += length;
        // An empty part's delimiter shares its line end with the head's empty line.
        let from = at - 2;
        let found = finder.find(body.get(from..).unwrap_or_default()).ok_or(MultipartError::Truncated)?;
        let end = from + found;
        parts.push(head.with(body.slice(at.min(end)..end)));
        at = end + delimiter.len();
    }
}

/// The boundary parameter: 1 to 70 characters of those that RFC 2046 allows.
fn boundary(content_type: &str) -> Option<String> {
    let (media_type, parameters) = content_type.split_once(';')?;
    if !media_type.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    let valid =
        (1..=70).contains(&boundary.len()) && boundary.bytes().all(allowed) && !boundary.ends_with(' ');
    valid.then_some(boundary)
}

/// The length of the rest of a delimiter's line: blanks, then CRLF.
fn line_end(rest: &[u8]) -> Result<usize, MultipartError> {
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    match rest.get(blanks..) {
        Some([b'\r', b'\n', ..]) => Ok(blanks + 2),
        Some([] | [b'\r' | b'-']) | None => Err(MultipartError::Truncated),
        Some(_) => Err(MultipartError::Delimiter),
    }
}

/// What the head of a part says.
struct PartHead {
    name: String,
    file_name: Option<String>,
    content_type: Option<String>,
}

impl PartHead {
    fn with(self, content: Bytes) -> Part {
        Part { name: self.name, file_name: self.file_name, content_type: self.content_type, content }
    }
}

/// Reads the head of part `number`; returns it with its length, the empty line included.
fn part_head(rest: &[u8], number: usize) -> Result<(PartHead, usize), MultipartError> {
    let bounded = rest.get(..rest.len().min(MAX_HEAD)).unwrap_or_default();
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let (length, fields) = match httparse::parse_headers(bounded, &mut fields) {
        Ok(httparse::Status::Complete(complete)) => complete,
        Ok(httparse::Status::Partial) if bounded.len() == rest.len() => {
            return Err(MultipartError::Truncated);
        }
        _ => return Err(MultipartError::Head(number)),
    };
    let field = |name: &str| {
        let found = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(found.value).into_owned())
    };
    let disposition = field("content-disposition").ok_or(MultipartError::Name(number))?;
    let (kind, parameters) = disposition.split_once(';').ok_or(MultipartError::Name(number))?;
    let name = parameter(parameters, "name").filter(|_| kind.trim().eq_ignore_ascii_case("form-data"));
    let head = PartHead {
        name: name.ok_or(MultipartError::Name(number))?,
        file_name: extended(parameters).or_else(|| parameter(parameters, "filename")),
        content_type: field("content-type"),
    };
    Ok((head, length))
}

/// The value of parameter `wanted`: a token or a quoted string (RFC 9110, 5.6.6).
fn parameter(parameters: &str, wanted: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (name, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                let (token, after) = after.split_at_checked(end)?;
                (token.trim_end().to_owned(), after)
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = after;
    }
}

/// The content of a quoted string whose first quote is gone, and what follows its last. A backslash
/// counts only before a quote or a backslash: browsers send paths with bare ones.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => match characters.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((_, escaped)) => value.push(escaped),
                None => value.push('\\'),
            },
            other => value.push(other),
        }
    }
    None
}

/// `filename*`, percent-encoded UTF-8 (RFC 8187).
fn extended(parameters: &str) -> Option<String> {
    let value = parameter(parameters, "filename*")?;
    let (charset, rest) = value.split_once('\'')?;
    let (_, encoded) = rest.split_once('\'')?;
    let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8().ok()?;
    charset.eq_ignore_ascii_case("utf-8").then(|| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=AaB03x";

    fn parsed(body: &str) -> Result<Vec<(String, Option<String>, Option<String>, String)>, MultipartError> {
        let text = |content: &[u8]| String::from_utf8_lossy(content).into_owned();
        let parts = parse(TYPE, &Bytes::copy_from_slice(body.as_bytes()))?;
        Ok(parts.into_iter().map(|p| (p.name, p.file_name, p.content_type, text(&p.content))).collect())
    }

    fn part(disposition: &str, content: &str) -> String {
        format!("--AaB03x\r\nContent-Disposition: {disposition}\r\n\r\n{content}\r\n")
    }

    #[test]
    fn fields_and_files() {
        let body = "preamble\r\n--AaB03x\r\ncontent-disposition: form-data; name=\"field1\"\r\n\r\nJoe Blow\r\n\
             --AaB03x \t\r\nContent-Disposition: form-data; name=\"pics\"; filename=\"file1.txt\"\r\n\
             Content-Type: text/plain\r\n\r\n--AaB03\r\n\r\nline\n\r\n--AaB03x--\r\nepilogue";
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            parsed(body).unwrap(),
            [
                ("field1".to_owned(), None, None, "Joe Blow".to_owned()),
                (
                    "pics".to_owned(),
                    some("file1.txt"),
                    some("text/plain"),
                    "--AaB03\r\n\r\nline\n".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn content_is_not_copied() {
        let body = Bytes::from(part("form-data; name=a", "content") + "--AaB03x--");
        let parts = parse(TYPE, &body).unwrap();
        assert!(body.as_ptr_range().contains(&parts[0].content.as_ptr()));
    }

    #[test]
    fn empty_parts_and_empty_forms() {
        let body = part("form-data; name=a", "") + &part("form-data; name=b", "\r\n") + "--AaB03x--";
        let contents: Vec<_> = parsed(&body).unwrap().into_iter().map(|part| part.3).collect();
        assert_eq!(contents, ["", "\r\n"]);
        // Some clients leave out the empty line's own line end.
        let body = "--AaB03x\r\nContent-Disposition: form-data; name=a\r\n\r\n--AaB03x--";
        assert_eq!(parsed(body).unwrap()[0].3, "");
        assert_eq!(parsed("--AaB03x--").unwrap(), []);
    }

    #[test]
    fn names_are_unquoted() {
        for (disposition, name, file) in [
            ("form-data; name=\"a\\\"b\"", "a\"b", None),
            ("form-data; name=\"C:\\dir\\f\"", "C:\\dir\\f", None),
            ("form-data;name=a;filename=f", "a", Some("f")),
            ("FORM-DATA; NAME=a; FileName=\"x; name=y\"", "a", Some("x; name=y")),
            ("form-data; filename=\"f\"; name=\"a\"", "a", Some("f")),
            ("form-data; name=a; filename=\"?\"; filename*=UTF-8''%E2%82%AC%20x", "a", Some("\u{20ac} x")),
            ("form-data; name=a; filename=f; filename*=latin1''%E9", "a", Some("f")),
            ("form-data; name=\"\u{e9}\"", "\u{e9}", None),
            ("form-data; name=\"\"", "", None),
        ] {
            let parts = parsed(&(part(disposition, "x") + "--AaB03x--")).unwrap();
            assert_eq!((parts[0].0.as_str(), parts[0].1.as_deref()), (name, file), "{disposition}");
        }
    }

    #[test]
    fn broken_bodies() {
        use MultipartError::*;
        let good = part("form-data; name=a", "x");
        for (body, error) in [
            (String::new(), NoParts),
            ("x".to_owned(), NoParts),
            (good.clone(), Truncated),
            (format!("{good}--AaB03x"), Truncated),
            (format!("{good}--AaB03x-"), Truncated),
            (format!("{good}--AaB03xyz\r\n"), Delimiter),
            (format!("{good}--AaB03x\n--AaB03x--"), Delimiter),
            ("--AaB03x\r\nContent-Disposition: form-data; name=a\r\n".to_owned(), Truncated),
            ("--AaB03x\r\nContent-Disposition form-data\r\n\r\nx\r\n--AaB03x--".to_owned(), Head(0)),
            (format!("{good}--AaB03x\r\nA: {}\r\n\r\nx\r\n--AaB03x--", "b".repeat(9000)), Head(1)),
            (format!("--AaB03x\r\n{}\r\nx\r\n--AaB03x--", "A: b\r\n".repeat(17)), Head(0)),
            (part("attachment; name=a", "x") + "--AaB03x--", Name(0)),
            (part("form-data", "x") + "--AaB03x--", Name(0)),
            (part("form-data; filename=a", "x") + "--AaB03x--", Name(0)),
            (part("form-data; name=\"a", "x") + "--AaB03x--", Name(0)),
            ("--AaB03x\r\n\r\nx\r\n--AaB03x--".to_owned(), Name(0)),
            (good.repeat(257) + "--AaB03x--", TooMany),
        ] {
            assert_eq!(parsed(&body), Err(error), "{body:.200?}");
        }
        assert_eq!(parsed(&(good.repeat(256) + "--AaB03x--")).unwrap().len(), 256);
    }

    #[test]
    fn boundaries() {
        for (content_type, expected) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data; charset=x; Boundary=\"a b\"", Some("a b")),
            (
                "multipart/form-data;boundary=----WebKitFormBoundary7MA4YWxk",
                Some("----WebKitFormBoundary7MA4YWxk"),
            ),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data; boundary=\"a", None),
            ("multipart/form-data; boundary=\"a \"", None),
            ("multipart/form-data; boundary=a\u{e9}", None),
            ("multipart/mixed; boundary=a", None),
        ] {
            assert_eq!(boundary(content_type).as_deref(), expected, "{content_type}");
        }
        assert_eq!(boundary(&format!("multipart/form-data; boundary={}", "a".repeat(71))), None);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6)) {
            let mut body = Vec::new();
            for (number, content) in contents.iter().enumerate() {
                body.extend(format!("--AaB03x\r\nContent-Disposition: form-data; name={number}\r\n\r\n").bytes());
                body.extend(content);
                body.extend(b"\r\n");
            }
            body.extend(b"--AaB03x--\r\n");
            let parts = parse(TYPE, &body.into()).unwrap();
            prop_assert_eq!(parts.iter().map(|part| part.content.to_vec()).collect::<Vec<_>>(), contents);
        }

        #[test]
        fn any_body_does_no_harm(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "\r\n--AaB03x", "--AaB03x", "\r\n", "--", "\"", "\\", "a", ";", "=",
                    "Content-Disposition: form-data; name=", "filename*=utf-8''%",
                ]),
                0..30,
            ),
            content_type in "multipart/form-data; [a-z\"\\\\=;]{0,20}",
        ) {
            let body = Bytes::from(pieces.concat());
            let _ = parse(TYPE, &body);
            let _ = parse(&content_type, &body);
        }
    }
}
