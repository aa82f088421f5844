//! `kinglet token new`: a random token and the line for the token file.

use super::{
    signature::hex,
    time::at_or_after,
    tokens::{Tokens, hash},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};

/// What the new token is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewToken {
    /// The name in the file; `token` where it is empty.
    pub name: String,
    /// As in the file.
    pub expires: Option<String>,
    /// As in the file.
    pub models: Option<String>,
    /// An access and a secret key for signed requests instead.
    pub key_pair: bool,
}

/// Makes a token: the text to print, with the token once and the line to keep.
///
/// # Errors
/// Name, expiry or models do not fit the file, or the system gives no random numbers.
pub fn mint(new: &NewToken) -> Result<String, String> {
    let name = if new.name.is_empty() { "token" } else { &new.name };
    if new.expires.as_deref().is_some_and(|expiry| at_or_after(expiry).is_none()) {
        return Err("an expiry is a day such as 2030-12-31 or a moment such as 2030-12-31T12:00:00Z".into());
    }
    let what = |random: String| match new.key_pair {
        true => {
            let (access, secret) = random.split_at(20.min(random.len()));
            (format!("access key: {access}\nsecret key: {secret}"), format!("key:{access}:{secret}"))
        }
        false => {
            let token = format!("kgl_{random}");
            let line = hex(&hash(token.as_bytes()));
            (format!("token: {token}"), line)
        }
    };
    let (shown, kept) = what(random(if new.key_pair { 45 } else { 32 })?);
    let mut line = format!("{name} {kept}");
    if new.expires.is_some() || new.models.is_some() {
        line.push_str(&format!(" {}", new.expires.as_deref().unwrap_or("-")));
    }
    if let Some(models) = &new.models {
        line.push_str(&format!(" {models}"));
    }
    // What cannot be read back is refused here, not when the server starts.
    let one_line = !name.starts_with('#')
        && line.split_whitespace().count() == line.split(' ').count()
        && !line.contains('\n');
    match Tokens::parse(&line, "the new line") {
        Ok(_) if one_line => Ok(format!(
            "{shown}\nIt is shown this once. The line for the file of --auth_tokens_file:\n{line}\n"
        )),
        Ok(_) => Err("a name and models are words without blanks".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn random(bytes: usize) -> Result<String, String> {
    let mut random = vec![0; bytes];
    SystemRandom::new().fill(&mut random).map_err(|_| "the system gives no random numbers".to_owned())?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::auth::Scheme;

    #[test]
    fn the_line_lets_the_token_in() {
        let new = NewToken {
            name: "camera".into(),
            expires: Some("2030-01-01".into()),
            models: Some("a,b".into()),
            ..NewToken::default()
        };
        let text = mint(&new).unwrap();
        let token = text.lines().next().unwrap().strip_prefix("token: ").unwrap();
        let line = text.lines().last().unwrap();
        let (tokens, readable) = Tokens::parse(line, "f").unwrap();
        let grant = tokens.find(token.as_bytes(), Scheme::Bearer, 0).unwrap();
        assert_eq!((&*grant.name, readable), ("camera", 0));
        assert!(grant.allows(Some("b")) && !grant.allows(Some("c")) && token.len() >= 40);
        assert!(!line.contains(token));
        assert_ne!(mint(&NewToken::default()).unwrap(), mint(&NewToken::default()).unwrap());
        let pair = mint(&NewToken { key_pair: true, ..NewToken::default() }).unwrap();
        assert!(pair.contains("access key: ") && pair.lines().last().unwrap().starts_with("token key:"));
    }

    #[test]
    fn what_the_file_could_not_hold_is_refused() {
        for new in [
            NewToken { name: "a b".into(), ..NewToken::default() },
            NewToken { name: "#a".into(), ..NewToken::default() },
            NewToken { expires: Some("soon".into()), ..NewToken::default() },
            NewToken { models: Some("a b".into()), ..NewToken::default() },
        ] {
            assert!(mint(&new).is_err(), "{new:?}");
        }
    }
}
