//! Tokens of the text format: words, strings, symbols.

use super::{ParseError, error};
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A name or an unsigned number.
    Word(String),
    /// One quoted string, unescaped.
    Text(Vec<u8>),
    Symbol(u8),
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(word) => write!(f, "\"{word}\""),
            Token::Text(_) => f.write_str("a string"),
            Token::Symbol(symbol) => write!(f, "\"{}\"", symbol.escape_ascii()),
            Token::End => f.write_str("the end"),
        }
    }
}

pub(super) struct Lexer<'a> {
    rest: &'a [u8],
    line: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        // Editors on some systems put a byte order mark in front.
        let rest = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        Self { rest, line: 1 }
    }

    /// The next token and its line.
    pub(super) fn next(&mut self) -> Result<(Token, usize), ParseError> {
        self.skip_blanks();
        let line = self.line;
        let Some(&first) = self.rest.first() else { return Ok((Token::End, line)) };
        let token = match first {
            b'"' | b'\'' => Token::Text(self.string(first)?),
            b if is_word(b) || (b == b'.' && self.rest.get(1).is_some_and(u8::is_ascii_digit)) => self.word(),
            symbol => {
                self.bump();
                Token::Symbol(symbol)
            }
        };
        Ok((token, line))
    }

    fn bump(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        self.line += usize::from(first == b'\n');
        Some(first)
    }

    fn skip_blanks(&mut self) {
        while let Some(&first) = self.rest.first() {
            if first == b'#' {
                while self.rest.first().is_some_and(|&byte| byte != b'\n') {
                    self.bump();
                }
            } else if first.is_ascii_whitespace() || first == 0x0b {
                self.bump();
            } else {
                return;
            }
        }
    }

    /// A name, or a number with its dot, exponent and suffix.
    fn word(&mut self) -> Token {
        let number = self.rest.first().is_some_and(|&b| b.is_ascii_digit() || b == b'.');
        let hex = self.rest.starts_with(b"0x") || self.rest.starts_with(b"0X");
        let mut word = String::new();
        while let Some(&byte) = self.rest.first() {
            let exponent_sign = number
                && !hex
                && matches!(byte, b'+' | b'-')
                && matches!(word.as_bytes().last(), Some(b'e' | b'E'));
            if !is_word(byte) && byte != b'.' && !exponent_sign {
                break;
            }
            word.push(byte as char);
            self.bump();
        }
        Token::Word(word)
    }

    fn string(&mut self, quote: u8) -> Result<Vec<u8>, ParseError> {
        let line = self.line;
        let unclosed = || error(line, "the string is not closed");
        self.bump();
        let mut text = Vec::new();
        loop {
            match self.bump().ok_or_else(unclosed)? {
                byte if byte == quote => return Ok(text),
                b'\n' => return Err(unclosed()),
                b'\\' => {
                    let escape = self.bump().ok_or_else(unclosed)?;
                    self.escape(escape, line, &mut text)?;
                }
                byte => text.push(byte),
            }
        }
    }

    fn escape(&mut self, escape: u8, line: usize, text: &mut Vec<u8>) -> Result<(), ParseError> {
        text.push(match escape {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'a' => 0x07,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'v' => 0x0b,
            b'\\' | b'\'' | b'"' | b'?' => escape,
            b'0'..=b'7' => {
                let more = self.digits(8, 2);
                let value = more
                    .bytes()
                    .fold(u32::from(escape - b'0'), |sum, digit| sum * 8 + u32::from(digit - b'0'));
                u8::try_from(value).map_err(|_| error(line, "an octal escape is above \\377"))?
            }
            b'x' | b'X' => u8::from_str_radix(&self.digits(16, 2), 16)
                .map_err(|_| error(line, "\\x needs hexadecimal digits"))?,
            b'u' | b'U' => {
                let count = if escape == b'u' { 4 } else { 8 };
                let digits = self.digits(16, count);
                let character = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                let character = character
                    .filter(|_| digits.len() == count)
                    .ok_or_else(|| error(line, "\\u needs the digits of a character"))?;
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            other => return Err(error(line, format!("unknown escape \\{}", other.escape_ascii()))),
        });
        Ok(())
    }

    fn digits(&mut self, radix: u32, at_most: usize) -> String {
        let mut digits = String::new();
        while digits.len() < at_most
            && let Some(&byte) = self.rest.first()
            && (byte as char).is_digit(radix)
        {
            digits.push(byte as char);
            self.bump();
        }
        digits
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
