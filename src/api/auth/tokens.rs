//! The token file: one line per token, `NAME WHAT [EXPIRY] [MODELS]`.
//!
//! | what | meaning |
//! | --- | --- |
//! | 64 hexadecimal digits | the SHA-256 of a token |
//! | `plain:TOKEN` | a token as it is; a line of one word is one too. Works, with a warning |
//! | `key:ACCESS:SECRET` | a key pair for signed requests; the secret has to be readable to check them |
//!
//! An expiry is `2026-12-31` (to the end of the day), `2026-12-31T12:00:00Z` or `-`; models are a list `a,b,group-*`
//! or `*`. Lines that are empty or begin with `#` do not count.

use super::{Grant, Refusal, Scheme, time::at_or_after};
use ring::digest::{SHA256, digest};
use std::{fs::File, io::Read, path::Path, sync::Arc};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

const MAX_FILE: u64 = 1 << 20;
const MAX_TOKENS: usize = 10_000;

/// Why there are no tokens. Never shows a line's content.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The file cannot be read.
    #[error("cannot read the token file {0}: {1}")]
    Read(String, std::io::Error),
    /// A line is no token.
    #[error("{file} line {line}: {expected}")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// The file is too long.
    #[error("{0} is longer than a megabyte or has more than {MAX_TOKENS} tokens")]
    TooLong(String),
    /// There is none in the file.
    #[error("{0} holds no token; `kinglet token new` makes one")]
    Empty(String),
}

/// All tokens of a file.
#[derive(Default)]
pub struct Tokens {
    hashes: Vec<Token>,
    keys: Vec<Key>,
}

struct Token {
    hash: [u8; 32],
    entry: Entry,
}

struct Key {
    access: String,
    secret: String,
    entry: Entry,
}

struct Entry {
    name: Arc<str>,
    /// Seconds since 1970.
    expires: Option<u64>,
    models: Option<Arc<[String]>>,
}

impl Entry {
    fn grant(&self, scheme: Scheme, now: u64) -> Result<Grant, Refusal> {
        match self.expires {
            Some(end) if now >= end => Err(Refusal::Expired(scheme)),
            _ => Ok(Grant { name: self.name.clone(), models: self.models.clone() }),
        }
    }
}

/// A secret key and what it allows.
pub(super) struct FoundKey<'a> {
    pub(super) secret: &'a str,
    pub(super) grant: Grant,
}

impl Tokens {
    /// Reads a file, and warns of tokens that stand in it unhashed.
    ///
    /// # Errors
    /// The file cannot be read or is too long, a line of it is no token, or there is none.
    pub fn from_file(path: &Path) -> Result<Self, AuthError> {
        let shown = path.display().to_string();
        let mut text = Vec::new();
        let mut file = File::open(path).map_err(|error| AuthError::Read(shown.clone(), error))?;
        let read = file.by_ref().take(MAX_FILE + 1).read_to_end(&mut text);
        read.map_err(|error| AuthError::Read(shown.clone(), error))?;
        if text.len() as u64 > MAX_FILE {
            return Err(AuthError::TooLong(shown));
        }
        let (tokens, readable) = Self::parse(&String::from_utf8_lossy(&text), &shown)?;
        if readable > 0 {
            log::warn!(
                "{shown} holds {readable} tokens as they are; `kinglet token new` makes lines that hold a hash"
            );
        }
        if (readable > 0 || !tokens.keys.is_empty()) && is_open_to_others(&file) {
            log::warn!("{shown} holds secrets and other users can read it: chmod 600 {shown}");
        }
        Ok(tokens)
    }

    /// Reads lines; also says how many tokens stand there as they are.
    ///
    /// # Errors
    /// As [`Tokens::from_file`]; `file` is what they call it.
    pub fn parse(text: &str, file: &str) -> Result<(Self, usize), AuthError> {
        let (mut tokens, mut readable) = (Self::default(), 0);
        for (number, line) in text.lines().enumerate() {
            let line_error = |expected| AuthError::Line { file: file.to_owned(), line: number + 1, expected };
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.first().is_none_or(|word| word.starts_with('#')) {
                continue;
            }
            if tokens.len() >= MAX_TOKENS {
                return Err(AuthError::TooLong(file.to_owned()));
            }
            let (name, what, rest) = match &*words {
                [token] => (format!("line-{}", number + 1), *token, &[][..]),
                [name, what, rest @ ..] => ((*name).to_owned(), *what, rest),
                [] => continue,
            };
            let (expires, models) = conditions(rest).map_err(line_error)?;
            let entry = Entry { name: name.into(), expires, models };
            if let Some(key) = what.strip_prefix("key:").filter(|_| words.len() > 1) {
                let pair =
                    key.split_once(':').filter(|(access, secret)| !access.is_empty() && !secret.is_empty());
                let (access, secret) = pair.ok_or_else(|| line_error("expected key:ACCESS:SECRET"))?;
                tokens.keys.push(Key { access: access.to_owned(), secret: secret.to_owned(), entry });
                continue;
            }
            let plain = if words.len() == 1 { Some(what) } else { what.strip_prefix("plain:") };
            let hash = match plain {
                Some(token) if !token.is_empty() => {
                    readable += 1;
                    hash(token.as_bytes())
                }
                _ => from_hex(what).ok_or_else(|| {
                    line_error("expected NAME and the token's SHA-256 (64 hexadecimal digits), plain:TOKEN or key:ACCESS:SECRET")
                })?,
            };
            tokens.hashes.push(Token { hash, entry });
        }
        if tokens.len() == 0 {
            return Err(AuthError::Empty(file.to_owned()));
        }
        Ok((tokens, readable))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.hashes.len() + self.keys.len()
    }

    /// What a token allows. Takes as long for every token: each hash of the file is compared as a whole.
    pub(super) fn find(&self, token: &[u8], scheme: Scheme, now: u64) -> Result<Grant, Refusal> {
        let given = hash(token);
        let (mut found, mut at) = (Choice::from(0), 0u32);
        for (position, token) in (0u32..).zip(&self.hashes) {
            let same = token.hash.ct_eq(&given);
            at = u32::conditional_select(&at, &position, same);
            found |= same;
        }
        let token = self.hashes.get(at as usize).filter(|_| bool::from(found));
        token.ok_or(Refusal::Invalid(scheme))?.entry.grant(scheme, now)
    }

    /// The secret of an access key, which is no secret itself.
    pub(super) fn key(&self, access: &str, now: u64) -> Result<FoundKey<'_>, Refusal> {
        let key = self.keys.iter().find(|key| key.access == access);
        let key = key.ok_or(Refusal::Invalid(Scheme::Signature))?;
        Ok(FoundKey { secret: &key.secret, grant: key.entry.grant(Scheme::Signature, now)? })
    }
}

/// Expiry and models of a line.
fn conditions(words: &[&str]) -> Result<(Option<u64>, Option<Arc<[String]>>), &'static str> {
    let is_date = |word: &str| {
        word.len() >= 10
            && word.as_bytes().iter().take(4).all(u8::is_ascii_digit)
            && at_or_after(word).is_some()
    };
    let (expiry, models) = match words {
        [] => (None, None),
        [one] if *one == "-" || is_date(one) => (Some(*one), None),
        [one] => (None, Some(*one)),
        [expiry, models] => (Some(*expiry), Some(*models)),
        _ => {
            return Err(
                "expected at most NAME, token, expiry and models; models are separated by commas without blanks",
            );
        }
    };
    let expires = match expiry {
        None | Some("-") => None,
        Some(text) => Some(
            at_or_after(text).ok_or("expected an expiry such as 2026-12-31, 2026-12-31T12:00:00Z or -")?,
        ),
    };
    let list =
        |text: &str| text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect::<Arc<[_]>>();
    Ok((expires, models.filter(|models| *models != "*").map(list)))
}

/// The SHA-256 of a token.
pub(super) fn hash(token: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token).as_ref());
    hash
}

/// Bytes of hexadecimal digits of either case.
pub(super) fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(unix)]
fn is_open_to_others(file: &File) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // The SHA-256 of `secret`, by sha256sum.
    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn parsed(text: &str) -> Result<(Tokens, usize), String> {
        Tokens::parse(text, "f").map_err(|error| error.to_string())
    }

    #[test]
    fn every_kind_of_line() {
        let text = format!(
            "# comment\n\n a {SECRET}\nb plain:other 2026-12-31 m1,m2*\nbare\nc key:AK:SK:1 - iris\nd {} *\n",
            "0".repeat(64)
        );
        let (tokens, readable) = parsed(&text).unwrap();
        assert_eq!((tokens.hashes.len(), tokens.keys.len(), readable), (4, 1, 2));
        let find = |token: &[u8], now| tokens.find(token, Scheme::Bearer, now);
        assert_eq!(&*find(b"secret", 0).unwrap().name, "a");
        assert_eq!(&*find(b"bare", 0).unwrap().name, "line-5");
        let scoped = find(b"other", 1_798_761_599).unwrap();
        assert!(scoped.allows(Some("m1")) && scoped.allows(Some("m2x")) && scoped.is_scoped());
        assert!(!scoped.allows(Some("m1x")) && !scoped.allows(None));
        assert_eq!(find(b"other", 1_798_761_600), Err(Refusal::Expired(Scheme::Bearer)));
        assert_eq!(find(b"Secret", 0), Err(Refusal::Invalid(Scheme::Bearer)));
        assert_eq!(find(b"", 0), Err(Refusal::Invalid(Scheme::Bearer)));
        let key = tokens.key("AK", 0).unwrap();
        assert_eq!(key.secret, "SK:1");
        assert!(key.grant.allows(Some("iris")) && !key.grant.allows(Some("m")));
        assert!(tokens.key("ak", 0).is_err());
    }

    #[test]
    fn wrong_lines_are_named_and_not_shown() {
        for text in [
            "a hunter2",
            "a key:x",
            "a plain:",
            &format!("a {SECRET} 2026-99-99 m"),
            &format!("a {SECRET} - m x"),
        ] {
            let error = parsed(&format!("\n{text}")).err().unwrap();
            assert!(error.starts_with("f line 2: expected"), "{error}");
            assert!(!error.contains("hunter2") && !error.contains(SECRET), "{error}");
        }
        assert!(parsed("# nothing\n").err().unwrap().contains("no token"));
        assert!(parsed(&"t\n".repeat(MAX_TOKENS + 1)).err().unwrap().contains("more than"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-f0-9:,*# \\-\n]{0,300}|.{0,80}") {
            let _ = parsed(&text);
            let _ = parsed(&format!("a {SECRET} {text}"));
        }
    }
}
