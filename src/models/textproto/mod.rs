//! Protocol buffers' text format, as the configuration files of TensorFlow Serving use it.
//!
//! [`parse`] makes a tree of names and values that knows no message type; [`Fields`] reads one message of it
//! with types, and names fields that are unknown, repeated or of a wrong type with their line.
//! Source: the Text Format Language Specification at protobuf.dev.

mod fields;
mod lexer;

pub use fields::Fields;

use bytes::Bytes;
use lexer::{Lexer, Token};

/// Messages inside messages that are read; more is refused, so that no file exhausts the stack.
const MAX_DEPTH: usize = 64;

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// One message: its fields in order. A list `[1, 2]` stands as repeated fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Its fields.
    pub fields: Vec<Field>,
    /// The line it starts on, from 1.
    pub line: usize,
}

/// One field.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its name; `[type.url/of.an.Any]` with the brackets for an extension or Any.
    pub name: String,
    /// The line of its name, from 1.
    pub line: usize,
    /// Its value.
    pub value: Value,
}

/// A value without a type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number or an identifier as written, with its sign.
    Word(String),
    /// A string with its escapes resolved and its parts joined.
    Text(Bytes),
    /// A message.
    Message(Message),
}

/// Reads a whole text as the fields of one message.
pub fn parse(text: &[u8]) -> Result<Message, ParseError> {
    let mut parser = Parser { lexer: Lexer::new(text), ahead: None };
    let message = parser.fields(None, 1, 0)?;
    Ok(message)
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    ahead: Option<(Token, usize)>,
}

impl Parser<'_> {
    fn next(&mut self) -> Result<(Token, usize), ParseError> {
        match self.ahead.take() {
            Some(token) => Ok(token),
            None => self.lexer.next(),
        }
    }

    fn peek(&mut self) -> Result<&Token, ParseError> {
        let token = self.next()?;
        Ok(&self.ahead.insert(token).0)
    }

    fn accept(&mut self, symbol: u8) -> Result<bool, ParseError> {
        let found = *self.peek()? == Token::Symbol(symbol);
        if found {
            self.ahead = None;
        }
        Ok(found)
    }

    /// Fields up to `close`, or to the end of the text.
    fn fields(&mut self, close: Option<u8>, line: usize, depth: usize) -> Result<Message, ParseError> {
        if depth > MAX_DEPTH {
            return Err(error(line, format!("messages are nested deeper than {MAX_DEPTH}")));
        }
        let mut message = Message { fields: Vec::new(), line };
        loop {
            let (token, line) = self.next()?;
            let name = match (token, close) {
                (Token::End, None) => return Ok(message),
                (Token::Symbol(symbol), Some(close)) if symbol == close => return Ok(message),
                (Token::Word(name), _) => name,
                (Token::Symbol(b'['), _) => self.bracketed_name(line)?,
                (Token::End, Some(close)) => {
                    return Err(error(line, format!("expected \"{}\" before the end", close as char)));
                }
                (token, _) => return Err(error(line, format!("expected a field name, found {token}"))),
            };
            let colon = self.accept(b':')?;
            self.value(&mut message, name, line, colon, depth)?;
            let _separator = self.accept(b',')? || self.accept(b';')?;
        }
    }

    fn bracketed_name(&mut self, line: usize) -> Result<String, ParseError> {
        let mut name = String::from("[");
        loop {
            match self.next()?.0 {
                Token::Symbol(b']') => {
                    name.push(']');
                    return Ok(name);
                }
                Token::Word(part) => name.push_str(&part),
                Token::Symbol(symbol @ (b'/' | b'.' | b'-')) => name.push(symbol as char),
                token => return Err(error(line, format!("expected a type name in [], found {token}"))),
            }
        }
    }

    fn value(
        &mut self,
        message: &mut Message,
        name: String,
        line: usize,
        colon: bool,
        depth: usize,
    ) -> Result<(), ParseError> {
        if self.accept(b'[')? {
            if self.accept(b']')? {
                return Ok(());
            }
            loop {
                let value = self.single(line, true, depth)?;
                message.fields.push(Field { name: name.clone(), line, value });
                if self.accept(b']')? {
                    return Ok(());
                }
                if !self.accept(b',')? {
                    let (token, line) = self.next()?;
                    return Err(error(line, format!("expected \",\" or \"]\" in a list, found {token}")));
                }
            }
        }
        let value = self.single(line, colon, depth)?;
        message.fields.push(Field { name, line, value });
        Ok(())
    }

    fn single(&mut self, line: usize, colon: bool, depth: usize) -> Result<Value, ParseError> {
        let (token, at) = self.next()?;
        match token {
            Token::Symbol(b'{') => Ok(Value::Message(self.fields(Some(b'}'), line, depth + 1)?)),
            Token::Symbol(b'<') => Ok(Value::Message(self.fields(Some(b'>'), line, depth + 1)?)),
            token if !colon => Err(error(at, format!("expected \":\" or \"{{\", found {token}"))),
            Token::Symbol(b'-') => match self.next()? {
                (Token::Word(word), _) => Ok(Value::Word(format!("-{word}"))),
                (token, at) => Err(error(at, format!("expected a number after \"-\", found {token}"))),
            },
            Token::Word(word) => Ok(Value::Word(word)),
            Token::Text(mut text) => {
                while let Token::Text(_) = self.peek()? {
                    if let (Token::Text(more), _) = self.next()? {
                        text.extend_from_slice(&more);
                    }
                }
                Ok(Value::Text(Bytes::from(text)))
            }
            token => Err(error(at, format!("expected a value, found {token}"))),
        }
    }
}

fn error(line: usize, message: impl Into<String>) -> ParseError {
    ParseError { line, message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn word(name: &str, line: usize, value: &str) -> Field {
        Field { name: name.into(), line, value: Value::Word(value.into()) }
    }

    fn text(name: &str, line: usize, value: &[u8]) -> Field {
        Field { name: name.into(), line, value: Value::Text(Bytes::copy_from_slice(value)) }
    }

    fn message(name: &str, line: usize, fields: Vec<Field>) -> Field {
        Field { name: name.into(), line, value: Value::Message(Message { fields, line }) }
    }

    #[test]
    fn every_way_to_write_a_message() {
        let inner = || vec![word("b", 1, "1")];
        for source in ["a { b: 1 }", "a: { b: 1 }", "a < b: 1 >", "a:<b:1>", "a { b: 1, }", "a { b: 1; };"] {
            assert_eq!(parse(source.as_bytes()).unwrap().fields, [message("a", 1, inner())], "{source}");
        }
    }

    #[test]
    fn scalars_lists_comments_and_separators() {
        let source = b"# head\na: -1, b: 0x1F; c: 1.5e-3f # tail\nd: [1, 2]\ne: []\nf: ENUM\ng: -inf";
        assert_eq!(
            parse(source).unwrap().fields,
            [
                word("a", 2, "-1"),
                word("b", 2, "0x1F"),
                word("c", 2, "1.5e-3f"),
                word("d", 3, "1"),
                word("d", 3, "2"),
                word("f", 5, "ENUM"),
                word("g", 6, "-inf"),
            ]
        );
        let list = parse(b"m [{a: 1}, <a: 2>]").unwrap();
        assert_eq!(
            list.fields,
            [message("m", 1, vec![word("a", 1, "1")]), message("m", 1, vec![word("a", 1, "2")])]
        );
    }

    #[test]
    fn strings_are_unescaped_and_joined() {
        let source = br#"a: "x" 'y"' "\x41\101\n\\\'\"\u00e9" b: '#no comment'"#;
        let expected: &[u8] = b"xy\"AA\n\\'\"\xc3\xa9";
        assert_eq!(parse(source).unwrap().fields, [text("a", 1, expected), text("b", 1, b"#no comment")]);
    }

    #[test]
    fn an_any_has_its_type_as_name() {
        let source = b"custom_model_config { [type.googleapis.com/a.B] { c: 1 } }";
        let inner = message("[type.googleapis.com/a.B]", 1, vec![word("c", 1, "1")]);
        assert_eq!(parse(source).unwrap().fields, [message("custom_model_config", 1, vec![inner])]);
    }

    #[test]
    fn errors_name_the_line() {
        for (source, line, what) in [
            ("a {\n b: 1\n", 3, "expected \"}\" before the end"),
            ("a 1", 1, "expected \":\" or \"{\", found \"1\""),
            ("\n\na: \"x", 3, "the string is not closed"),
            ("a: \"x\ny\"", 1, "the string is not closed"),
            ("a: }", 1, "expected a value, found \"}\""),
            ("}", 1, "expected a field name, found \"}\""),
            ("a: [1 2]", 1, "expected \",\" or \"]\" in a list, found \"2\""),
            ("a: \"\\q\"", 1, "unknown escape \\q"),
        ] {
            let error = parse(source.as_bytes()).unwrap_err();
            assert_eq!((error.line, error.message.as_str()), (line, what), "{source}");
        }
    }

    #[test]
    fn depth_is_limited() {
        assert!(parse("a{".repeat(100_000).as_bytes()).unwrap_err().message.contains("nested"));
        let deep = format!("{}{}", "a{".repeat(MAX_DEPTH), "}".repeat(MAX_DEPTH));
        assert!(parse(deep.as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(source in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&source);
        }

        #[test]
        fn text_like_bytes_are_read_or_refused(source in "[a-b0-1:{}<>,;\\[\\]\"'\\\\ux#\n /.-]{0,80}") {
            let _ = parse(source.as_bytes());
        }
    }
}
