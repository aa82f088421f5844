//! Reads the fields of one message with types.

use super::{Field, Message, ParseError, Value, error};
use bytes::Bytes;

/// The fields of a message that are not read yet. [`Fields::finish`] refuses what is left.
pub struct Fields {
    type_name: &'static str,
    rest: Vec<Field>,
}

impl Fields {
    /// The fields of a message; `type_name` is for errors.
    pub fn new(message: Message, type_name: &'static str) -> Self {
        Self { type_name, rest: message.fields }
    }

    /// Every value of a repeated field, with its line.
    pub fn all(&mut self, name: &str) -> Vec<(Value, usize)> {
        let (found, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.rest).into_iter().partition(|field| field.name == name);
        self.rest = rest;
        found.into_iter().map(|field| (field.value, field.line)).collect()
    }

    /// The value of a field that may stand once.
    pub fn one(&mut self, name: &str) -> Result<Option<(Value, usize)>, ParseError> {
        let mut found = self.all(name);
        match found.get(1) {
            Some((_, line)) => {
                Err(error(*line, format!("Non-repeated field \"{name}\" is specified multiple times.")))
            }
            None => Ok(found.pop()),
        }
    }

    /// A string field.
    pub fn string(&mut self, name: &str) -> Result<Option<String>, ParseError> {
        self.typed(name, |value| match value {
            Value::Text(bytes) => utf8(bytes).ok_or("a string of UTF-8"),
            _ => Err("a string in quotes"),
        })
    }

    /// A boolean field.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, ParseError> {
        self.typed(name, |value| match value {
            Value::Word(word) => match word.as_str() {
                "true" | "True" | "t" | "1" => Ok(true),
                "false" | "False" | "f" | "0" => Ok(false),
                _ => Err("true or false"),
            },
            _ => Err("true or false"),
        })
    }

    /// An integer field.
    pub fn integer(&mut self, name: &str) -> Result<Option<i64>, ParseError> {
        self.typed(name, |value| as_integer(value).ok_or("an integer"))
    }

    /// A floating-point field.
    pub fn float(&mut self, name: &str) -> Result<Option<f64>, ParseError> {
        self.typed(name, |value| match value {
            Value::Word(word) => word.trim_end_matches(['f', 'F']).parse().map_err(|_| "a number"),
            _ => Err("a number"),
        })
    }

    /// An enum field: the identifier or number as written.
    pub fn word(&mut self, name: &str) -> Result<Option<String>, ParseError> {
        self.typed(name, |value| match value {
            Value::Word(word) => Ok(word),
            _ => Err("a word without quotes"),
        })
    }

    /// A repeated integer field.
    pub fn integers(&mut self, name: &str) -> Result<Vec<i64>, ParseError> {
        self.all(name)
            .into_iter()
            .map(|(value, line)| as_integer(value).ok_or_else(|| wrong(name, "an integer", line)))
            .collect()
    }

    /// A message field.
    pub fn message(
        &mut self,
        name: &str,
        type_name: &'static str,
    ) -> Result<Option<(Fields, usize)>, ParseError> {
        let Some((value, line)) = self.one(name)? else { return Ok(None) };
        Ok(Some((as_message(name, value, line, type_name)?, line)))
    }

    /// A repeated message field.
    pub fn messages(
        &mut self,
        name: &str,
        type_name: &'static str,
    ) -> Result<Vec<(Fields, usize)>, ParseError> {
        self.all(name)
            .into_iter()
            .map(|(value, line)| Ok((as_message(name, value, line, type_name)?, line)))
            .collect()
    }

    /// Drops a field whose content has no meaning here.
    pub fn ignore(&mut self, name: &str) {
        self.rest.retain(|field| field.name != name);
    }

    /// Refuses fields that nobody read.
    pub fn finish(self) -> Result<(), ParseError> {
        match self.rest.first() {
            None => Ok(()),
            Some(field) => Err(error(
                field.line,
                format!("Message type \"{}\" has no field named \"{}\".", self.type_name, field.name),
            )),
        }
    }

    fn typed<T>(
        &mut self,
        name: &str,
        convert: impl FnOnce(Value) -> Result<T, &'static str>,
    ) -> Result<Option<T>, ParseError> {
        match self.one(name)? {
            None => Ok(None),
            Some((value, line)) => convert(value).map(Some).map_err(|expected| wrong(name, expected, line)),
        }
    }
}

fn wrong(name: &str, expected: &str, line: usize) -> ParseError {
    error(line, format!("\"{name}\" must be {expected}"))
}

fn utf8(bytes: Bytes) -> Option<String> {
    String::from_utf8(bytes.into()).ok()
}

fn as_message(name: &str, value: Value, line: usize, type_name: &'static str) -> Result<Fields, ParseError> {
    match value {
        Value::Message(message) => Ok(Fields::new(message, type_name)),
        _ => Err(wrong(name, "a message in braces", line)),
    }
}

/// Decimal, octal (`017`) or hexadecimal (`0x1f`), within 64 bits.
fn as_integer(value: Value) -> Option<i64> {
    let Value::Word(word) = value else { return None };
    let (negative, digits) = match word.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word.as_str()),
    };
    // `from_str_radix` would take a sign of its own.
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let magnitude = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        i128::from(u64::from_str_radix(hex, 16).ok()?)
    } else if digits.len() > 1 && digits.starts_with('0') {
        i128::from(u64::from_str_radix(digits, 8).ok()?)
    } else {
        i128::from(digits.parse::<u64>().ok()?)
    };
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::textproto::parse;

    fn fields(source: &str) -> Fields {
        Fields::new(parse(source.as_bytes()).unwrap(), "t.Message")
    }

    #[test]
    fn typed_readers() {
        let mut read = fields("s: 'x' b: true n: -0x10 o: 017 f: 1.5f e: NAME r: 1 r: [2, 3] m { n: 1 }");
        assert_eq!(read.string("s").unwrap().as_deref(), Some("x"));
        assert_eq!(read.boolean("b").unwrap(), Some(true));
        assert_eq!(read.integer("n").unwrap(), Some(-16));
        assert_eq!(read.integer("o").unwrap(), Some(15));
        assert_eq!(read.float("f").unwrap(), Some(1.5));
        assert_eq!(read.word("e").unwrap().as_deref(), Some("NAME"));
        assert_eq!(read.integers("r").unwrap(), [1, 2, 3]);
        let (mut inner, line) = read.message("m", "t.Inner").unwrap().unwrap();
        assert_eq!((inner.integer("n").unwrap(), line), (Some(1), 1));
        assert_eq!(read.string("absent").unwrap(), None);
        read.finish().unwrap();
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let text = |error: ParseError| error.to_string();
        assert_eq!(text(fields("s: 1").string("s").unwrap_err()), "line 1: \"s\" must be a string in quotes");
        assert_eq!(
            text(fields("\nn: 9223372036854775808").integer("n").unwrap_err()),
            "line 2: \"n\" must be an integer"
        );
        assert_eq!(
            text(fields("n: 1\nn: 2").integer("n").unwrap_err()),
            "line 2: Non-repeated field \"n\" is specified multiple times."
        );
        assert_eq!(
            text(fields("\nnam: 1").finish().unwrap_err()),
            "line 2: Message type \"t.Message\" has no field named \"nam\"."
        );
        assert_eq!(fields("n: -9223372036854775808").integer("n").unwrap(), Some(i64::MIN));
    }
}
