//! Requests and answers that were recorded from TensorFlow Serving's own code, replayed against the
//! REST surface over the same models.
//!
//! In strict mode every core case must agree. In the default mode the exceptions are named one by
//! one, each with its reason. `quirk` cases are byte-level oddities: the strict mode is to match all
//! that concern this surface.

mod common;

use common::shared;
use kinglet::{
    api::{
        Surface,
        json::base64,
        tfs_rest::{Config, TfsRest},
    },
    formats::{self, LoadOptions},
    graph::Cpu,
    kernels::{self, Threads},
    models::{Error, Patience, Registry, Servable, State},
    wire::{Request, Response},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, OnceLock},
};

/// Cases that other parts answer.
const ELSEWHERE: &[&str] = &[
    // The page of metrics.
    "prometheus_query",
];

/// Where even the strict mode does not follow: `name`, why.
const STRICT_EXCEPTIONS: &[(&str, &str)] = &[];

/// Where the default mode does better: `name`, why. Rows of docs/COMPATIBILITY.md.
const DEFAULT_EXCEPTIONS: &[(&str, &str)] = &[
    ("unsupported_api_03", "GET /v1/models lists the models"),
    ("dtype_ok_uint16", "uint16 is accepted"),
    ("dtype_bool_into_uint16", "uint16 is accepted, so a bool is of the wrong type"),
    ("dtype_bool_into_float16", "half is accepted, so a bool is of the wrong type"),
    ("dtype_string_into_float16", "half is accepted, so a string is of the wrong type"),
    ("dtype_float_into_float16", "half is accepted"),
    ("dtype_string_into_bfloat16", "bfloat16 is accepted, so a string is of the wrong type"),
    ("limits_int16_45", "an integer that does not fit is refused, not wrapped"),
    ("float_format_many", "subnormal numbers are not flushed to zero"),
    ("route_31", "HEAD is GET without a body"),
];

#[test]
fn strict_mode_answers_as_recorded() {
    replay_all(true, STRICT_EXCEPTIONS);
}

#[test]
fn default_mode_answers_as_recorded_or_better() {
    replay_all(false, DEFAULT_EXCEPTIONS);
}

fn replay_all(strict: bool, exceptions: &[(&str, &str)]) {
    let Some((file, registry)) = recording() else { return };
    let (mut failures, mut passed) = (Vec::new(), BTreeMap::<&str, (usize, usize)>::new());
    for case in file["cases"].as_array().expect("cases") {
        let (name, level) = (text(&case["name"]), text(&case["level"]));
        if ELSEWHERE.contains(&name) {
            continue;
        }
        let cors = case["request"]["server_flags"].is_array();
        let surface = TfsRest::new(registry.clone(), Config { strict, cors });
        let agrees = check(&case["expect"], replay(&surface, &case["request"]));
        let (good, all) = passed.entry(level).or_default();
        *good += usize::from(agrees.is_ok());
        *all += 1;
        let excepted = exceptions.iter().any(|(excepted, _)| *excepted == name);
        match agrees {
            Err(found) if !excepted => {
                failures.push(format!("{level} {name}\n   found {found}\n  wanted {}", case["expect"]));
            }
            Ok(()) if excepted => failures.push(format!("{name} agrees: it is no exception any more")),
            _ => {}
        }
    }
    for (level, (good, all)) in &passed {
        eprintln!("{}: {good} of {all} {level} cases agree", if strict { "strict" } else { "default" });
    }
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

/// The cases, and the models they were recorded on.
fn recording() -> Option<&'static (Value, Arc<Registry>)> {
    static RECORDING: OnceLock<Option<(Value, Arc<Registry>)>> = OnceLock::new();
    let read = || {
        let shared = shared()?;
        let Ok(file) = fs::read(shared.join("conformance/rest_cases.json")) else {
            eprintln!("SKIPPED: no recorded cases in {}", shared.display());
            return None;
        };
        let file: Value = serde_json::from_slice(&file).expect("the recording is JSON");
        let registry = Registry::new();
        let mut labels = BTreeMap::new();
        for (name, model) in file["server"]["models"].as_object().expect("models") {
            publish(&registry, name, &shared.join("models/tfs").join(text(&model["base_path"])), model);
            let own = model["version_labels"].as_object().into_iter().flatten();
            let own = own.map(|(label, version)| (label.clone(), version.as_i64().expect("a version")));
            labels.insert(name.clone(), own.collect());
        }
        registry.set_labels(&labels, true).expect("labels of available versions");
        Some((file, Arc::new(registry)))
    };
    RECORDING.get_or_init(read).as_ref()
}

/// Loads the versions that the model's policy wants.
fn publish(registry: &Registry, name: &str, base: &Path, model: &Value) {
    let mut versions: Vec<_> = fs::read_dir(base)
        .expect("a folder of versions")
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version: i64 = path.file_name()?.to_str()?.parse().ok()?;
            Some((version, path))
        })
        .collect();
    versions.sort();
    match &model["version_policy"] {
        Value::Object(policy) => {
            let wanted = policy["specific"].as_array().expect("versions");
            versions.retain(|(version, _)| wanted.iter().any(|wanted| wanted.as_i64() == Some(*version)));
        }
        Value::String(all) if all == "all" => {}
        _ => drop(versions.drain(..versions.len() - 1)),
    }
    for (version, path) in versions {
        let backend = Cpu::new(kernels::best(), Threads::single());
        let servable = formats::load(&path, &LoadOptions::default())
            .map_err(Error::from)
            .and_then(|model| Servable::assemble(name, version, model, &backend));
        match servable {
            Ok(servable) => registry.publish(servable),
            Err(error) => registry.set_status(name, version, State::End, Some(error)),
        }
    }
}

fn replay(surface: &TfsRest, recorded: &Value) -> Response {
    let mut request = Request::new(text(&recorded["method"]), text(&recorded["path"]));
    request.body = body(recorded).unwrap_or_default().into();
    for (name, value) in recorded["headers"].as_object().into_iter().flatten() {
        request.headers.push(name, text(value));
    }
    surface.handle(request, &Patience::default())
}

fn body(message: &Value) -> Option<Vec<u8>> {
    match message["body_b64"].as_str() {
        Some(encoded) => base64::decode(encoded.as_bytes()),
        None => message["body"].as_str().map(|text| text.as_bytes().to_vec()),
    }
}

/// Compares as the case's mode says; the answer that was found, where it differs.
fn check(expected: &Value, response: Response) -> Result<(), String> {
    let Response { status, headers, body: content, .. } = response;
    let content = content.into_bytes();
    let found = || format!("{status} {}", String::from_utf8_lossy(&content));
    let mode = text(&expected["mode"]);
    if mode == "status_class" {
        let class = text(&expected["status_class"]);
        return if class.starts_with(&(status / 100).to_string()) { Ok(()) } else { Err(found()) };
    }
    let same_headers = expected["headers"]
        .as_object()
        .into_iter()
        .flatten()
        .all(|(name, value)| headers.get_str(name) == value.as_str());
    let content_type = expected["content_type"].as_str();
    let same_type = content_type.is_none() || headers.get_str("content-type") == content_type;
    let shown = String::from_utf8_lossy(&content);
    let all_in = |parts: &Value, text: &str| {
        parts.as_array().is_some_and(|parts| parts.iter().all(|part| text.contains(self::text(part))))
    };
    let same_body = match mode {
        "status" => true,
        "exact" => body(expected).unwrap_or_default() == *content,
        "contains" => all_in(&expected["body_contains"], &shown),
        "error_contains" => match serde_json::from_str::<Value>(&shown) {
            Ok(json) => all_in(&expected["error_contains"], json["error"].as_str().unwrap_or_default()),
            Err(_) => false,
        },
        _ => {
            let tolerance = |key: &str| expected[key].as_f64().unwrap_or(0.0);
            let wanted = tree(text(&expected["body"]));
            wanted.is_some_and(|wanted| {
                tree(&shown).is_some_and(|tree| same(&wanted, &tree, tolerance("rtol"), tolerance("atol")))
            })
        }
    };
    if expected["status"] == status && same_headers && same_type && same_body { Ok(()) } else { Err(found()) }
}

/// Parsed, with the tokens that are not JSON as strings.
fn tree(text: &str) -> Option<Value> {
    let quoted = text.replace("NaN", "\"NaN\"").replace("Infinity", "\"Infinity\"").replace("-\"", "\"-");
    serde_json::from_str(&quoted).ok()
}

fn same(wanted: &Value, found: &Value, relative: f64, absolute: f64) -> bool {
    match (wanted, found) {
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len()
                && wanted.iter().zip(found).all(|(wanted, found)| same(wanted, found, relative, absolute))
        }
        (Value::Object(wanted), Value::Object(found)) => {
            wanted.len() == found.len()
                && wanted.iter().all(|(key, wanted)| {
                    found.get(key).is_some_and(|found| same(wanted, found, relative, absolute))
                })
        }
        (Value::Number(wanted), Value::Number(found)) => match (wanted.as_f64(), found.as_f64()) {
            (Some(wanted), Some(found)) => (wanted - found).abs() <= absolute + relative * wanted.abs(),
            _ => false,
        },
        _ => wanted == found,
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string"))
}
