//! What to type next, printed when the server is ready.

use crate::{
    cli::{ModelSource, Options},
    models::Registry,
};
use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// Models that get a line of their own.
const SHOWN_MODELS: usize = 3;

/// `rest` is where REST is served; `self_signed` says whether the certificate is our own, `None` without TLS.
pub(super) fn print(options: &Options, mut rest: SocketAddr, self_signed: Option<bool>, registry: &Registry) {
    if rest.ip().is_unspecified() {
        rest.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let text = lines(
        &call(self_signed, options),
        &format!("{}://{rest}", scheme(self_signed)),
        options,
        &registry.names(),
    );
    // Nobody may be reading.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn scheme(self_signed: Option<bool>) -> &'static str {
    if self_signed.is_some() { "https" } else { "http" }
}

/// `curl` with what it needs to be let in.
fn call(self_signed: Option<bool>, options: &Options) -> String {
    let mut call = "curl".to_owned();
    if self_signed == Some(true) {
        call.push_str(" -k");
    }
    if options.auth_tokens_file.is_some() {
        call.push_str(" -H 'Authorization: Bearer TOKEN'");
    }
    call
}

fn lines(curl: &str, url: &str, options: &Options, names: &[String]) -> String {
    let mut text = String::from("kinglet is ready. Try:\n");
    let is_built_in = |name: &String| EXAMPLES.iter().any(|(model, _)| name == model);
    if options.source == ModelSource::BuiltIn && names.iter().any(is_built_in) {
        for (model, body) in EXAMPLES {
            if names.iter().any(|name| name == model) {
                text.push_str(&format!("  {curl} -d '{body}' {url}/v1/models/{model}:predict\n"));
            }
        }
        return text;
    }
    for name in names.iter().take(SHOWN_MODELS) {
        text.push_str(&format!("  {curl} {url}/v1/models/{name}/metadata\n"));
    }
    if !options.strict {
        text.push_str(&format!("  {curl} {url}/v1/models\n"));
    }
    text
}

/// A call for each built-in model.
const EXAMPLES: [(&str, &str); 2] = [
    ("half_plus_three", r#"{"instances": [1.0, 2.0, 5.0]}"#),
    (
        "iris",
        r#"{"instances": [{"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}]}"#,
    ),
];
