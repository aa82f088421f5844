//! Which call a method and path mean.
//!
//! TensorFlow Serving matches two regular expressions, which ignore case:
//! `/v1/models/NAME[/versions/DIGITS|/labels/LABEL]:VERB` for POST and
//! `/v1/models[/NAME][/versions/DIGITS|/labels/LABEL][/metadata]` for GET. NAME and LABEL are one
//! or more characters other than `/` and `:`, percent-decoded only afterwards.

use crate::models::{ModelRef, VersionChoice};

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `GET /v1/models`
    Models,
    /// `GET` of a model.
    Status(ModelRef),
    /// `GET` of a model's metadata.
    Metadata(ModelRef),
    /// `POST` of an inference.
    Infer(ModelRef, Verb),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Predict,
    Classify,
    Regress,
}

/// Why a path that fits the patterns names no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RouteError {
    #[error("Missing model name in request.")]
    MissingName,
    #[error("Failed to convert version: {digits} to numeric.")]
    VersionTooLarge { digits: String },
}

impl Route {
    /// The call that `method` and `path` mean; `None` where they are malformed.
    ///
    /// # Errors
    /// The model's name is missing, or the version does not fit 64 bits.
    pub(super) fn parse(method: &str, path: &str) -> Result<Option<Self>, RouteError> {
        let rest = match strip_prefix_any_case(path, "/v1/models") {
            Some(rest) => rest,
            None => return Ok(None),
        };
        match method {
            "GET" => Self::get(rest),
            "POST" => Self::post(rest),
            _ => Ok(None),
        }
    }

    fn get(rest: &str) -> Result<Option<Self>, RouteError> {
        if rest.is_empty() {
            return Ok(Some(Route::Models));
        }
        let segments: Vec<&str> = match rest.strip_prefix('/') {
            Some(segments) => segments.split('/').collect(),
            None => return Ok(None),
        };
        // The name is optional, but taken where it can be: `versions/1` has none, `versions` is one.
        let named = segments.split_first().filter(|(name, _)| is_name(name));
        let matched = named
            .and_then(|(name, tail)| Some((Some(*name), Self::get_tail(tail)?)))
            .or_else(|| Some((None, Self::get_tail(&segments)?)));
        let Some((name, (version, last))) = matched else { return Ok(None) };
        let version = version.map_or(Ok(VersionChoice::Latest), VersionText::parse)?;
        let model = ModelRef { name: decoded(name.ok_or(RouteError::MissingName)?), version };
        // The pattern ignores case, the comparison that follows it does not.
        Ok(Some(if last == Some("metadata") { Route::Metadata(model) } else { Route::Status(model) }))
    }

    fn get_tail<'p>(segments: &[&'p str]) -> Option<(Option<VersionText<'p>>, Option<&'p str>)> {
        let (version, tail) = match VersionText::match_start(segments) {
            Some((version, tail)) => (Some(version), tail),
            None => (None, segments),
        };
        match tail {
            [] => Some((version, None)),
            [last] if last.eq_ignore_ascii_case("metadata") => Some((version, Some(last))),
            _ => None,
        }
    }

    fn post(rest: &str) -> Result<Option<Self>, RouteError> {
        let Some((path, verb)) = rest.strip_prefix('/').and_then(|rest| rest.split_once(':')) else {
            return Ok(None);
        };
        let segments: Vec<&str> = path.split('/').collect();
        let Some((name, tail)) = segments.split_first().filter(|(name, _)| is_name(name)) else {
            return Ok(None);
        };
        let version = match VersionText::match_start(tail) {
            Some((version, [])) => Some(version),
            None if tail.is_empty() => None,
            _ => return Ok(None),
        };
        if !["predict", "classify", "regress"].iter().any(|known| verb.eq_ignore_ascii_case(known)) {
            return Ok(None);
        }
        let version = version.map_or(Ok(VersionChoice::Latest), VersionText::parse)?;
        let verb = match verb {
            "predict" => Verb::Predict,
            "classify" => Verb::Classify,
            "regress" => Verb::Regress,
            // Another case passes the pattern and then is no verb.
            _ => return Ok(None),
        };
        Ok(Some(Route::Infer(ModelRef { name: decoded(name), version }, verb)))
    }
}

#[derive(Clone, Copy)]
enum VersionText<'p> {
    Digits(&'p str),
    Label(&'p str),
}

impl<'p> VersionText<'p> {
    fn match_start<'s>(segments: &'s [&'p str]) -> Option<(Self, &'s [&'p str])> {
        match segments {
            [word, digits, tail @ ..]
                if word.eq_ignore_ascii_case("versions")
                    && !digits.is_empty()
                    && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                Some((VersionText::Digits(digits), tail))
            }
            [word, label, tail @ ..] if word.eq_ignore_ascii_case("labels") && is_name(label) => {
                Some((VersionText::Label(label), tail))
            }
            _ => None,
        }
    }

    fn parse(self) -> Result<VersionChoice, RouteError> {
        match self {
            VersionText::Label(label) => Ok(VersionChoice::Label(decoded(label))),
            VersionText::Digits(digits) => digits
                .parse()
                .map(VersionChoice::Specific)
                .map_err(|_| RouteError::VersionTooLarge { digits: digits.to_owned() }),
        }
    }
}

/// Path, query and fragment of a request target, without scheme and authority; `None` where it is
/// no URI (RFC 3986, as libevent checks it).
pub(super) fn local_part(target: &str) -> Option<&str> {
    let absolute = if target.starts_with('/') { None } else { target.split_once("://") };
    let local = match absolute {
        Some((scheme, rest)) if !scheme.contains(['/', '?', '#']) => {
            rest.find(['/', '?', '#']).and_then(|at| rest.get(at..)).unwrap_or_default()
        }
        _ => target,
    };
    let mut bytes = local.bytes();
    let mut in_fragment = false;
    while let Some(byte) = bytes.next() {
        let legal = match byte {
            b'%' => (0..2).all(|_| bytes.next().is_some_and(|digit| digit.is_ascii_hexdigit())),
            b'#' => !std::mem::replace(&mut in_fragment, true),
            b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b'/' | b'?' => true,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => true,
            _ => byte.is_ascii_alphanumeric(),
        };
        if !legal {
            return None;
        }
    }
    Some(local)
}

/// Whether this surface answers for the path, be it with an error.
pub(super) fn is_api(path: &str) -> bool {
    strip_prefix_any_case(path, "/v1/").is_some()
}

fn strip_prefix_any_case<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let (start, rest) = path.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn is_name(segment: &str) -> bool {
    !segment.is_empty() && !segment.contains(':')
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(method: &str, path: &str) -> String {
        match Route::parse(method, path) {
            Ok(None) => "malformed".to_owned(),
            Ok(Some(Route::Models)) => "models".to_owned(),
            Ok(Some(Route::Status(model))) => format!("status {model}"),
            Ok(Some(Route::Metadata(model))) => format!("metadata {model}"),
            Ok(Some(Route::Infer(model, verb))) => format!("{verb:?} {model}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn gets() {
        for (path, expected) in [
            ("/v1/models", "models"),
            ("/v1/models/", "malformed"),
            ("/v1/models/m", "status Latest(m)"),
            ("/V1/MODELS/m", "status Latest(m)"),
            ("/v1/models/m/", "malformed"),
            ("/v1/models/m/metadata", "metadata Latest(m)"),
            ("/v1/models/m/METADATA", "status Latest(m)"),
            ("/v1/models/m/metadata/", "malformed"),
            ("/v1/models/m/versions/00123", "status Specific(m, 123)"),
            ("/v1/models/m/Versions/1/metadata", "metadata Specific(m, 1)"),
            ("/v1/models/m/labels/l%2f", "status Label(m, l/)"),
            ("/v1/models/m/versions/1/labels/l", "malformed"),
            ("/v1/models/m/versions/one", "malformed"),
            ("/v1/models/versions/123", "Missing model name in request."),
            ("/v1/models/labels/l/metadata", "Missing model name in request."),
            ("/v1/models/versions", "status Latest(versions)"),
            ("/v1/models/metadata", "status Latest(metadata)"),
            ("/v1/models/versions/versions/1", "status Specific(versions, 1)"),
            ("/v1/models/m:predict", "malformed"),
            ("/v1/models/a%20b%3Ac+d", "status Latest(a b:c+d)"),
            ("/v1/models/m?x=1", "status Latest(m?x=1)"),
            ("/v1/models/m/versions/9223372036854775807", "status Specific(m, 9223372036854775807)"),
            (
                "/v1/models/m/versions/9223372036854775808",
                "Failed to convert version: 9223372036854775808 to numeric.",
            ),
            ("/v1/modelsx", "malformed"),
            ("/v1/config", "malformed"),
        ] {
            assert_eq!(parsed("GET", path), expected, "{path}");
        }
    }

    #[test]
    fn posts() {
        for (path, expected) in [
            ("/v1/models/m:predict", "Predict Latest(m)"),
            ("/v1/models/m/versions/7:classify", "Classify Specific(m, 7)"),
            ("/v1/models/m/LABELS/l:regress", "Regress Label(m, l)"),
            ("/v1/models/m:PREDICT", "malformed"),
            ("/v1/models/m:predict?x=1", "malformed"),
            ("/v1/models/m:predict/", "malformed"),
            ("/v1/models/m:foo", "malformed"),
            ("/v1/models/:predict", "malformed"),
            ("/v1/models:predict", "malformed"),
            ("/v1/models/m/metadata:predict", "malformed"),
            ("/v1/models/m/versions/7/labels/l:predict", "malformed"),
            ("/v1/models/m/version/50:regress", "malformed"),
            ("/v1/models/m/versions/HELLO:regress", "malformed"),
            ("/v1/models/m", "malformed"),
        ] {
            assert_eq!(parsed("POST", path), expected, "{path}");
        }
        assert_eq!(parsed("PUT", "/v1/models/m:predict"), "malformed");
    }

    #[test]
    fn targets() {
        assert_eq!(local_part("http://host:1/v1/models/m?q#f"), Some("/v1/models/m?q#f"));
        assert_eq!(local_part("http://host"), Some(""));
        assert_eq!(local_part("/v1/models/a%zz"), None);
        assert_eq!(local_part("/v1/models/a%2"), None);
        assert_eq!(local_part("/v1/models/é"), None);
        assert_eq!(local_part("/v1/a b"), None);
        assert_eq!(local_part("/a?b=://c"), Some("/a?b=://c"));
        assert!(is_api("/V1/x") && is_api("/v1/") && !is_api("/v1") && !is_api("//v1/models/m"));
    }
}
