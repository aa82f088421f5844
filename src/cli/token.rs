//! `kinglet token new [--name=NAME] [--expires=DATE] [--models=a,b] [--key]`.

use super::CliError;

pub(super) const HELP: &str = "\
Usage: kinglet token new [--name=NAME] [--expires=DATE] [--models=A,B] [--key]

Prints a new token and the line for the file of --auth_tokens_file, which holds only the token's hash.
  --name     what logs call it [default: token]
  --expires  its last day, as in 2030-12-31; without it the token is good until its line is removed
  --models   the models it is for; a * at the end of a name stands for any rest [default: all, and everything else]
  --key      an access and a secret key for requests signed with SDK-HMAC-SHA256 instead
";

/// What `kinglet token new` is to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenOptions {
    /// Its name; empty where none is given.
    pub name: String,
    /// Its last day or moment.
    pub expires: Option<String>,
    /// The models it is for.
    pub models: Option<String>,
    /// A pair of keys instead of a token.
    pub key_pair: bool,
}

impl TokenOptions {
    pub(super) fn parse(arguments: &[String]) -> Result<Self, CliError> {
        let usage = || CliError::Conflict(HELP.to_owned());
        let (first, rest) = arguments.split_first().ok_or_else(usage)?;
        if first != "new" {
            return Err(usage());
        }
        let mut options = Self::default();
        let mut rest = rest.iter();
        while let Some(argument) = rest.next() {
            let body = argument.strip_prefix("--").ok_or_else(usage)?;
            if body == "key" {
                options.key_pair = true;
                continue;
            }
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => (body, rest.next().ok_or_else(usage)?.clone()),
            };
            match name {
                "name" => options.name = value,
                "expires" => options.expires = Some(value),
                "models" => options.models = Some(value),
                _ => return Err(usage()),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<TokenOptions, CliError> {
        TokenOptions::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn lines() {
        let options = parse("new --name=a --expires 2030-01-01 --models=x,y").unwrap();
        assert_eq!((options.name.as_str(), options.expires.as_deref()), ("a", Some("2030-01-01")));
        assert_eq!((options.models.as_deref(), options.key_pair), (Some("x,y"), false));
        assert!(parse("new --key").unwrap().key_pair);
        for line in ["", "old", "new name", "new --name", "new --other=1"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
