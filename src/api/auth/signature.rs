//! `SDK-HMAC-SHA256`: requests signed with an access key's secret, as Huawei Cloud's SDKs sign them.
//!
//! What is signed is a canonical text of the request (method, path, query, chosen headers, hash of the body) and the time
//! of `X-Sdk-Date`; keys are not derived. Source: "API request signing" of the API gateway's documentation, whose
//! example is the first test.

use super::time::parse_utc;
use crate::wire::Headers;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ring::{
    digest::{SHA256, digest},
    hmac,
};
use std::{fmt::Write, time::Duration};

/// The name of the scheme in `Authorization`.
pub const ALGORITHM: &str = "SDK-HMAC-SHA256";
/// How far the client's clock may be from ours.
pub const CLOCK_SKEW: Duration = Duration::from_secs(15 * 60);
const UNSIGNED: &[u8] = b"UNSIGNED-PAYLOAD";
/// RFC 3986's unreserved characters stay.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What `Authorization` and `X-Sdk-Date` say.
#[derive(Debug, PartialEq, Eq)]
pub struct Signed {
    /// The access key.
    pub access: String,
    /// The time of the signature, seconds since 1970.
    pub date: u64,
    /// The client says `X-Sdk-Content-Sha256: UNSIGNED-PAYLOAD`.
    pub payload_unsigned: bool,
    date_text: String,
    headers: Vec<String>,
    signature: [u8; 32],
}

impl Signed {
    /// Reads the value of `Authorization` behind the name of the scheme.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(value: &str, headers: &Headers) -> Result<Self, &'static str> {
        const EXPECTED: &str = "SDK-HMAC-SHA256 Access=KEY, SignedHeaders=a;b, Signature=HEX";
        let (mut access, mut names, mut signature) = (None, None, None);
        for field in value.split(',') {
            match field.trim().split_once('=') {
                Some(("Access", value)) => access = Some(value.to_owned()),
                Some(("SignedHeaders", value)) => names = Some(value.to_lowercase()),
                Some(("Signature", value)) => signature = super::tokens::from_hex(value),
                _ => return Err(EXPECTED),
            }
        }
        let (Some(access), Some(names), Some(signature)) = (access, names, signature) else {
            return Err(EXPECTED);
        };
        let date_text =
            headers.get_str("x-sdk-date").ok_or("X-Sdk-Date: YYYYMMDDTHHMMSSZ")?.trim().to_owned();
        let date =
            parse_utc(&date_text).filter(|_| date_text.len() == 16).ok_or("X-Sdk-Date: YYYYMMDDTHHMMSSZ")?;
        let mut names: Vec<String> = names.split(';').map(str::to_owned).collect();
        names.sort_unstable();
        // Without it, a signature would be good for ever.
        if !names.iter().any(|name| name == "x-sdk-date") {
            return Err("x-sdk-date among the SignedHeaders");
        }
        let payload_unsigned =
            headers.get("x-sdk-content-sha256").is_some_and(|value| value.trim_ascii() == UNSIGNED);
        Ok(Self { access, date, payload_unsigned, date_text, headers: names, signature })
    }

    /// Whether the signature is the one that `secret` makes of this request; compared in constant time.
    pub fn verify(&self, secret: &str, method: &str, target: &str, headers: &Headers, body: &[u8]) -> bool {
        let text = self.text(method, target, headers, body);
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes(), &self.signature)
            .is_ok()
    }

    /// The text that is signed.
    fn text(&self, method: &str, target: &str, headers: &Headers, body: &[u8]) -> String {
        let canonical = self.canonical(method, target, headers, body);
        format!("{ALGORITHM}\n{}\n{}", self.date_text, hex(digest(&SHA256, canonical.as_bytes()).as_ref()))
    }

    fn canonical(&self, method: &str, target: &str, headers: &Headers, body: &[u8]) -> String {
        let target = target.split('#').next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut text = format!("{method}\n");
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            text.push('/');
            text.push_str(&reencoded(segment));
        }
        text.push_str("/\n");
        let mut pairs: Vec<(String, String)> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (reencoded(name), reencoded(value)))
            .collect();
        pairs.sort_unstable();
        let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        text.push_str(&pairs.join("&"));
        text.push('\n');
        for name in &self.headers {
            let value = String::from_utf8_lossy(headers.get(name).unwrap_or_default());
            text.push_str(&format!("{name}:{}\n", value.trim()));
        }
        text.push_str(&format!("\n{}\n", self.headers.join(";")));
        let hash = match headers.get_str("x-sdk-content-sha256") {
            Some(_) if self.payload_unsigned => "UNSIGNED-PAYLOAD".to_owned(),
            // A hash that the client claims is not believed: it would leave the body unprotected.
            _ => hex(digest(&SHA256, body).as_ref()),
        };
        text.push_str(&hash);
        text
    }
}

/// A part of a URI in the one way to write it.
fn reencoded(text: &str) -> String {
    utf8_percent_encode(&percent_decode_str(text).decode_utf8_lossy(), ENCODED).to_string()
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::api::auth) const SECRET: &str = "MFyfvK41ba2giqM7Uio6PznpdUKGpownRZlmVmHc";

    fn example() -> (Headers, String) {
        let headers = Headers::new()
            .with("Host", "service.region.example.com")
            .with("X-Sdk-Date", "20191115T033655Z")
            .with("Content-Type", "application/json");
        let value = "Access=QTWAOYTTINDUT2QVKYUC, SignedHeaders=content-type;host;x-sdk-date, \
                     Signature=7be6668032f70418fcc22abc52071e57aff61b84a1d2381bb430d6870f4f6ebe";
        (headers, value.to_owned())
    }

    const TARGET: &str =
        "/v1/77b6a44cba5143ab91d13ab9a8ff44fd/vpcs?limit=2&marker=13551d6b-755d-4757-b956-536f674975c0";

    // The example of the documentation.
    #[test]
    fn the_published_example() {
        let (headers, value) = example();
        let signed = Signed::parse(&value, &headers).unwrap();
        assert_eq!((signed.access.as_str(), signed.date), ("QTWAOYTTINDUT2QVKYUC", 1_573_789_015));
        let canonical = signed.canonical("GET", TARGET, &headers, b"");
        assert_eq!(
            hex(digest(&SHA256, canonical.as_bytes()).as_ref()),
            "b25362e603ee30f4f25e7858e8a7160fd36e803bb2dfe206278659d71a9bcd7a",
            "{canonical}"
        );
        assert!(signed.verify(SECRET, "GET", TARGET, &headers, b""));
        // The order of the query does not count; everything else does.
        let turned =
            "/v1/77b6a44cba5143ab91d13ab9a8ff44fd/vpcs/?marker=13551d6b-755d-4757-b956-536f674975c0&limit=2";
        assert!(signed.verify(SECRET, "GET", turned, &headers, b""));
        assert!(!signed.verify("other", "GET", TARGET, &headers, b""));
        assert!(!signed.verify(SECRET, "POST", TARGET, &headers, b""));
        assert!(!signed.verify(SECRET, "GET", "/v1/other", &headers, b""));
        assert!(!signed.verify(SECRET, "GET", TARGET, &headers, b"x"));
        let other = Headers::new().with("Host", "evil").with("X-Sdk-Date", "20191115T033655Z");
        assert!(!signed.verify(SECRET, "GET", TARGET, &other, b""));
    }

    #[test]
    fn what_is_missing_is_named() {
        let (headers, value) = example();
        assert!(Signed::parse(&value, &Headers::new()).is_err());
        for (from, to) in [("x-sdk-date", "x-other"), ("Access=", "Acces="), ("=7be6", "=7be"), (", ", " ")] {
            assert!(Signed::parse(&value.replace(from, to), &headers).is_err(), "{from}");
        }
    }
}
