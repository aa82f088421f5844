//! Requests and answers that were recorded from TensorFlow Serving, replayed against the fakes.

use super::{super::Config, super::TfsRest, models};
use crate::{
    api::{Surface, json::base64},
    models::Patience,
    wire::{Request, Response},
};
use serde_json::Value;
use std::path::PathBuf;

/// Cases whose answer the fakes cannot give: real definitions, other wire layers, real models.
const NOT_HERE: &[&str] = &[
    "metadata_latest",
    "metadata_label",
    "three_metadata",
    "mlp_metadata",
    "keras_",
    "prometheus_query",
    "hp2v_reg_default",
    "hp2v_cls_x2",
];

/// Where the default mode does better, by name; each is a row of docs/COMPATIBILITY.md.
const BETTER: &[&str] = &[
    // GET /v1/models lists the models.
    "unsupported_api_03",
    // uint16 and half are accepted.
    "dtype_ok_uint16",
    "dtype_bool_into_uint16",
    "dtype_bool_into_float16",
    "dtype_string_into_float16",
    "dtype_float_into_float16",
    "dtype_string_into_bfloat16",
    // Integers do not wrap, subnormals stay.
    "limits_int16_45",
    "float_format_many",
    // HEAD is GET without a body.
    "route_31",
];

fn cases() -> Option<Vec<Value>> {
    let shared = std::env::var_os("KINGLET_SHARED").map(PathBuf::from);
    let shared = shared.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    let path = shared.join("conformance/rest_cases.json");
    let Ok(text) = std::fs::read(&path) else {
        eprintln!("SKIPPED: no recorded cases at {}; set KINGLET_SHARED", path.display());
        return None;
    };
    let mut file: Value = serde_json::from_slice(&text).unwrap();
    Some(file["cases"].as_array_mut().map(std::mem::take).unwrap())
}

fn replay(surface: &TfsRest, case: &Value) -> Response {
    let asked = &case["request"];
    let mut request = Request::new(asked["method"].as_str().unwrap(), asked["path"].as_str().unwrap());
    request.body = body_of(asked).unwrap_or_default().into();
    for (name, value) in asked["headers"].as_object().into_iter().flatten() {
        request.headers.push(name, value.as_str().unwrap());
    }
    surface.handle(request, &Patience::default())
}

fn body_of(message: &Value) -> Option<Vec<u8>> {
    match message["body_b64"].as_str() {
        Some(encoded) => base64::decode(encoded.as_bytes()),
        None => message["body"].as_str().map(|text| text.as_bytes().to_vec()),
    }
}

fn check(case: &Value, response: Response) -> Result<(), String> {
    let expected = &case["expect"];
    let status = response.status;
    let headers = response.headers.clone();
    let body = response.body.into_bytes();
    let shown = || format!("{status} {}", String::from_utf8_lossy(&body));
    if expected["mode"] == "status_class" {
        return if status / 100 == 4 { Ok(()) } else { Err(shown()) };
    }
    let header = |name: &str| headers.get_str(name).map(str::to_owned);
    let mut good = expected["status"] == status;
    if let Some(content_type) = expected["content_type"].as_str() {
        good &= header("content-type").as_deref() == Some(content_type);
    }
    for (name, value) in expected["headers"].as_object().into_iter().flatten() {
        good &= header(name).as_deref() == value.as_str();
    }
    let contains = |key: &str, text: &str| {
        expected[key].as_array().unwrap().iter().all(|part| text.contains(part.as_str().unwrap()))
    };
    let text = String::from_utf8_lossy(&body);
    good &= match expected["mode"].as_str().unwrap() {
        "status" => true,
        "exact" => body_of(expected).unwrap_or_default() == *body,
        "contains" => contains("body_contains", &text),
        "error_contains" => {
            let json: Value = serde_json::from_str(&text).map_err(|_| shown())?;
            contains("error_contains", json["error"].as_str().unwrap_or_default())
        }
        _ => tree(expected["body"].as_str().unwrap()) == tree(&text),
    };
    if good { Ok(()) } else { Err(shown()) }
}

/// Parsed, with tokens that are not JSON as strings.
fn tree(text: &str) -> Value {
    let quoted = text.replace("NaN", "\"NaN\"").replace("Infinity", "\"Infinity\"").replace("-\"", "\"-");
    serde_json::from_str(&quoted).unwrap()
}

fn run(strict: bool, skip: &[&str]) {
    let Some(cases) = cases() else { return };
    let registry = models::registry();
    let mut failures = Vec::new();
    let mut count = 0;
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        if NOT_HERE.iter().any(|start| name.starts_with(start)) || skip.contains(&name) {
            continue;
        }
        count += 1;
        let cors = case["request"]["server_flags"].is_array();
        let surface = TfsRest::new(registry.clone(), Config { strict, cors });
        if let Err(got) = check(case, replay(&surface, case)) {
            failures.push(format!("{name}: got {got}\nwant {}", case["expect"]));
        }
    }
    assert!(count > 170, "only {count} cases");
    assert!(failures.is_empty(), "{} of {count} fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn strict_mode_answers_as_recorded() {
    run(true, &[]);
}

#[test]
fn default_mode_answers_as_recorded_or_better() {
    run(false, BETTER);
}
