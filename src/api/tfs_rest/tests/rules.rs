//! Rules by their texts, and hostile input.

use super::{answer, ask, models, surface};
use crate::{
    api::{Surface, json::Document},
    models::Patience,
    wire::{Request, gzip},
};
use proptest::prelude::*;

const PREDICT: &str = "/v1/models/dtypes:predict";

/// The error's text.
fn refused(strict: bool, target: &str, body: &str) -> String {
    let (status, text) = answer(&surface(models::registry(), strict), "POST", target, body);
    assert!((400..500).contains(&status), "{status} {text}");
    let json: serde_json::Value = serde_json::from_str(&text).expect(&text);
    json["error"].as_str().unwrap().to_owned()
}

fn answered(strict: bool, body: &str) -> String {
    let (status, text) = answer(&surface(models::registry(), strict), "POST", PREDICT, body);
    assert_eq!(status, 200, "{text}");
    text
}

#[test]
fn rows_and_columns_exclude_each_other() {
    assert_eq!(
        refused(false, PREDICT, r#"{"inputs":1,"instances":[1],"signature_name":"id_int32"}"#),
        "JSON Value: {\n    \"inputs\": 1,\n    \"instances\": [1],\n    \"signature_name\": \"id_int32\"\n} \
         Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
    );
    assert_eq!(
        refused(false, PREDICT, r#"{"instances":[],"signature_name":"id_int32"}"#),
        "JSON Value: {\n    \"instances\": [],\n    \"signature_name\": \"id_int32\"\n} No values in 'instances' array"
    );
}

#[test]
fn named_rows() {
    let target = "/v1/models/multi_io:predict";
    for (body, expected) in [
        (
            r#"{"signature_name":"two_in","instances":[1]}"#,
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map",
        ),
        (
            r#"{"signature_name":"two_in","instances":[{"int_tensor":1,"zz":2}]}"#,
            "Failed to process element: 0 key: zz of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named input: zz",
        ),
        (
            r#"{"signature_name":"two_in","instances":[{"int_tensor":1}]}"#,
            "Failed to process element: 0 of 'instances' list. JSON object: {\n    \"int_tensor\": 1\n} keys must be equal to: int_tensor,str_tensor",
        ),
        (
            r#"{"signature_name":"two_in","instances":[{"b64":"YQ=="}]}"#,
            "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: {\n    \"b64\": \"YQ==\"\n} Type: Object is not of expected type: int32",
        ),
        (
            r#"{"signature_name":"two_in","instances":[{"int_tensor":[1],"str_tensor":"a"},{"int_tensor":[[1]],"str_tensor":"a"}]}"#,
            "Failed to process element: 1 key: int_tensor of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [1] but got: [1,1]",
        ),
        (
            r#"{"signature_name":"two_in","inputs":{"int_tensor":1,"str_tensor":{"a":{"b":1}}}}"#,
            "JSON Value: {\n    \"a\": {\n        \"b\": 1\n    }\n} not formatted correctly for base64 data",
        ),
    ] {
        assert_eq!(refused(false, target, body), expected, "{body}");
    }
    // A column may carry more than the signature has.
    let (status, _) = answer(
        &surface(models::registry(), false),
        "POST",
        target,
        r#"{"signature_name":"two_in","inputs":{"zz":0,"str_tensor":["a"],"int_tensor":[1]}}"#,
    );
    assert_eq!(status, 200);
}

#[test]
fn a_member_given_twice_counts_once() {
    let body = r#"{"signature_name":"id_int32","instances":[{"x":[1,2],"x":[1,2]}]}"#;
    assert_eq!(answered(false, body), "{\n    \"predictions\": [[1, 2]\n    ]\n}");
}

#[test]
fn first_base64_object_slips_past_the_form_check() {
    let registry = models::registry();
    let (_, text) = answer(
        &surface(registry, false),
        "POST",
        "/v1/models/multi_io:predict",
        r#"{"instances":[{"b64":"YQ=="}]}"#,
    );
    assert!(text.contains("Type: Object is not of expected type: double"), "{text}");
}

#[test]
fn signatures_without_inputs_or_outputs() {
    let body = r#"{"signature_name":"no_out","instances":[1.0]}"#;
    assert_eq!(refused(false, PREDICT, body), "Cannot convert empty tensor map to JSON");
    assert_eq!(
        refused(false, PREDICT, r#"{"signature_name":"scalar_out","instances":[1.0]}"#),
        "Tensor name: y has no shape information "
    );
    assert_eq!(
        refused(false, PREDICT, r#"{"signature_name":"","instances":[1.0]}"#),
        "Serving signature name: \"serving_default\" not found in signature def"
    );
}

#[test]
fn narrow_types() {
    let row = |signature: &str, values: &str| {
        format!(r#"{{"signature_name":"{signature}","instances":[{values}]}}"#)
    };
    assert_eq!(answered(true, &row("id_int8", "300, -129")), "{\n    \"predictions\": [44, 127\n    ]\n}");
    assert_eq!(
        refused(false, PREDICT, &row("id_uint8", "1, 300")),
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: \
         JSON Value: 300 is out of range for type: uint8"
    );
    assert_eq!(
        refused(false, PREDICT, &row("id_uint8", "2147483648")),
        "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: \
         JSON Value: 2147483648 Type: Number is not of expected type: uint8"
    );
    for (signature, values) in
        [("id_uint16", "1, 65535"), ("id_float16", "0.1, -2.5"), ("id_bfloat16", "1.0, 3e+38")]
    {
        let expected = format!("{{\n    \"predictions\": [{values}\n    ]\n}}");
        assert_eq!(answered(false, &row(signature, values)), expected);
        assert!(refused(true, PREDICT, &row(signature, values)).contains("Conversion of JSON Value: "));
    }
    let (status, _) = answer(
        &surface(models::registry(), true),
        "POST",
        PREDICT,
        r#"{"signature_name":"id_float16","inputs":[1.0]}"#,
    );
    assert_eq!(status, 501);
}

#[test]
fn columns_take_any_rank() {
    for (inputs, outputs) in [
        ("7", "7"),
        ("[]", "[]"),
        ("[[],[]]", "[\n        [],\n        []\n    ]"),
        ("[[1],[2]]", "[\n        [\n            1\n        ],\n        [\n            2\n        ]\n    ]"),
    ] {
        let body = format!(r#"{{"signature_name":"id_int32","inputs":{inputs}}}"#);
        assert_eq!(answered(false, &body), format!("{{\n    \"outputs\": {outputs}\n}}"));
    }
    let deep = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"signature_name":"id_int32","inputs":{open}1{close}}}"#)
    };
    assert!(answered(false, &deep(254)).contains('1'));
    assert!(refused(false, PREDICT, &deep(255)).contains("deeper than 254"));
    assert!(refused(false, PREDICT, &deep(500_000)).contains("deeper than 254"));
}

#[test]
fn versions_beyond_64_bits() {
    let target = "/v1/models/dtypes/versions/99999999999999999999:predict";
    let strict = ask(&surface(models::registry(), true), "POST", target, b"{}");
    assert_eq!((strict.status, strict.body.len()), (400, 0));
    assert_eq!(strict.headers.get_str("content-type"), Some("application/json"));
    assert!(refused(false, target, "{}").starts_with("Failed to convert version: 9999"));
}

#[test]
fn queries() {
    let (registry, target) = (models::registry(), "/v1/models/half_plus_two?verbose=1#top");
    assert_eq!(answer(&surface(registry.clone(), false), "GET", target, "").0, 200);
    let (status, text) = answer(&surface(registry, true), "GET", target, "");
    assert_eq!(status, 404);
    assert!(text.contains("model half_plus_two?verbose=1#top"), "{text}");
}

#[test]
fn listing() {
    let (status, text) = answer(&surface(models::registry(), false), "GET", "/v1/models", "");
    assert_eq!(status, 200);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let names: Vec<_> = json["models"].as_array().unwrap().iter().map(|model| &model["name"]).collect();
    assert!(
        names.windows(2).all(|pair| pair[0].as_str() < pair[1].as_str()) && names.len() >= 9,
        "{names:?}"
    );
    assert_eq!(json["models"][0]["model_version_status"][0]["state"], "AVAILABLE");
}

#[test]
fn compressed_both_ways() {
    let values = vec!["1.5"; 1000].join(",");
    let body = format!(r#"{{"signature_name":"id_float32","instances":[{values}]}}"#);
    let mut request = Request::new("POST", PREDICT);
    request.body = gzip::deflate(body.as_bytes()).into();
    request.headers.push("content-encoding", "gzip");
    request.headers.push("accept-encoding", "gzip, deflate");
    for strict in [true, false] {
        let response = surface(models::registry(), strict).handle(request.clone(), &Patience::default());
        let packed = response.headers.get("content-encoding").is_some();
        assert_eq!((response.status, packed), (200, !strict));
        let body = response.body.into_bytes();
        let plain = if packed { gzip::inflate(&body, 1 << 20).unwrap() } else { body.to_vec() };
        assert_eq!(plain, answered(true, &body_text(&values)).as_bytes());
    }
}

fn body_text(values: &str) -> String {
    format!(r#"{{"signature_name":"id_float32","instances":[{values}]}}"#)
}

#[test]
fn methods() {
    let surface = surface(models::registry(), false);
    for (method, target, status) in [
        ("TRACE", "/v1/models/hp2v", 501),
        ("CONNECT", "/v1/models/hp2v", 501),
        ("PUT", "/v1/models/hp2v", 400),
        ("HEAD", "/v1/models/hp2v", 200),
        ("GET", "/", 404),
        ("GET", "/v1/models/a%zz", 400),
        ("GET", "http://host/v1/models/hp2v", 200),
    ] {
        assert_eq!(ask(&surface, method, target, b"").status, status, "{method} {target}");
    }
}

#[test]
fn long_values_keep_their_place() {
    let values: Vec<String> = (0..20_000).map(|i| format!("{}.{:07}", i % 10, i * 7919)).collect();
    let rows: Vec<String> = values.chunks(100).map(|row| format!("[{}]", row.join(", "))).collect();
    let text = answered(false, &body_text(&rows.join(",\n")));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (i, value) in values.iter().enumerate() {
        let got = json["predictions"][i / 100][i % 100].as_f64().unwrap();
        assert_eq!(got as f32, value.parse::<f32>().unwrap(), "{i}");
    }
}

fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("NaN".to_owned()),
        Just("-Infinity".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(|number| format!("{number:e}")),
        "[a-z\\\\\"{}\\[\\]]{0,4}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just(r#"{"b64":"aGk="}"#.to_owned()),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" ,\n"))),
            prop::collection::vec(("[xyab]", inner), 0..3).prop_map(|members| {
                let members: Vec<_> =
                    members.iter().map(|(key, value)| format!("\"{key}\" : {value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

const SIGNATURES: [&str; 6] = ["id_int32", "id_string", "id_float32", "id_bool", "id_int8", "id_half"];

proptest! {
    #[test]
    fn any_target_is_answered(method in "[A-Z]{3,7}|GET|POST", target in "/v1/models\\PC{0,30}|\\PC{0,30}") {
        let surface = surface(models::registry(), target.len() % 2 == 0);
        let response = ask(&surface, &method, &target, b"");
        prop_assert!((200..600).contains(&response.status));
    }

    #[test]
    fn any_body_is_answered(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let surface = surface(models::registry(), false);
        let verbs = ["predict", "classify", "regress"];
        for verb in verbs {
            let response = ask(&surface, "POST", &format!("/v1/models/hp2v:{verb}"), &body);
            prop_assert!((400..500).contains(&response.status));
        }
    }

    #[test]
    fn well_formed_values_parse_and_walk(text in json_text(), signature in 0usize..6, key in "instances|inputs") {
        prop_assert!(Document::parse(text.as_bytes()).is_ok(), "{text}");
        let body = format!(r#"{{"signature_name":"{}","{key}":{text}}}"#, SIGNATURES[signature]);
        for strict in [false, true] {
            let (status, _) = answer(&surface(models::registry(), strict), "POST", PREDICT, &body);
            prop_assert!(matches!(status, 200 | 400 | 501), "{status} {body}");
        }
        let body = format!(r#"{{"context":{text},"examples":[{text},{{"x":{text}}}]}}"#);
        let (status, _) = answer(&surface(models::registry(), false), "POST", "/v1/models/hp2v:classify", &body);
        prop_assert!(matches!(status, 200 | 400), "{status} {body}");
    }

    #[test]
    fn mutated_bodies_are_answered(text in json_text(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut body = format!(r#"{{"signature_name":"id_float32","instances":{text}}}"#).into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        let response = ask(&surface(models::registry(), false), "POST", PREDICT, &body);
        prop_assert!(matches!(response.status, 200 | 400 | 501), "{}", response.status);
    }

    /// What a general JSON parser accepts is accepted, with the same numbers.
    #[test]
    fn agrees_with_another_parser(values in prop::collection::vec(any::<f64>(), 1..20)) {
        prop_assume!(values.iter().all(|value| value.is_finite()));
        let body = format!(r#"{{"signature_name":"id_float64","instances":{values:?}}}"#);
        let json: serde_json::Value = serde_json::from_str(&answered(false, &body)).unwrap();
        let read: Vec<f64> = json["predictions"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        prop_assert_eq!(read, values);
    }
}

/// Bodies whose numbers are read while they are checked give what the second pass gives.
#[test]
fn both_ways_of_reading_agree() {
    for values in [
        "[1, 2.5], [-3e2, 4]",
        "[[1.0], [2.0]], [[3.0], [4.0]]",
        "1.5, 2.5 , NaN",
        "[], []",
        "[0.1, 0.2], [0.3, Infinity]",
        "1234567890123456789012, 1e-50",
    ] {
        // The name in escapes cannot be foreseen, so its numbers are read in the second pass.
        let plain = format!(r#"{{"signature_name":"id_float32","other":[7],"instances":[{values}]}}"#);
        let escaped = plain.replace("id_float32", "id_\\u0066loat32");
        assert_eq!(answered(false, &plain), answered(false, &escaped), "{values}");
        let (plain, escaped) = (plain.replace("instances", "inputs"), escaped.replace("instances", "inputs"));
        assert_eq!(answered(false, &plain), answered(false, &escaped), "{values}");
        let named = plain.replace("\"inputs\":", "\"inputs\":{\"x\":") + "}";
        assert_eq!(answered(false, &plain), answered(false, &named), "{values}");
    }
    for values in ["[1, 2], [3]", "[1, [2]]", "1, [2]", "1, \"a\"", "1, 2, true", "[1, 2], 3"] {
        let plain = body_text(values);
        let escaped = plain.replace("id_float32", "id_\\u0066loat32");
        assert_eq!(refused(false, PREDICT, &plain), refused(false, PREDICT, &escaped), "{values}");
    }
}
