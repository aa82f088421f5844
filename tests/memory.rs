//! What `kinglet inspect` says that a model will take, beside what a process that runs it takes.

mod common;

use std::{path::Path, process::Command};

/// Of what is measured.
const TOLERANCE: f64 = 0.15;
/// A debug build of a test holds more than the 8 MB for which the release build is known.
const PROCESS: f64 = 4.0;

/// Megabytes that are predicted and that are measured.
fn compare(model: &Path) -> (f64, f64) {
    let kinglet = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_kinglet"))
            .arg(words[0])
            .arg(model)
            .args(&words[1..])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = kinglet(&["inspect"]);
    let line = text.lines().find_map(|line| line.strip_prefix("memory when it runs: "));
    let predicted = line.and_then(|line| line.split(' ').next()?.parse().ok()).expect(&text);
    let text = kinglet(&["bench", "--json", "--iterations=1", "--warm_up=1", "--threads=1"]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    (predicted, json["peak_rss_bytes"].as_f64().unwrap() / 1e6)
}

fn check(model: &Path) {
    let (predicted, measured) = compare(model);
    eprintln!("{}: {predicted:.1} MB predicted, {measured:.1} MB measured", model.display());
    let tolerated = TOLERANCE * measured + PROCESS;
    assert!((predicted - measured).abs() <= tolerated, "{predicted} MB predicted, {measured} MB measured");
}

#[test]
fn shared_models_take_what_is_predicted() {
    let Some(shared) = common::shared() else { return };
    for model in ["onnx/effnet_lite0/model.onnx", "onnx/digit_cnn/model.onnx", "saved_model/effnet_lite0"] {
        check(&shared.join("models").join(model));
    }
}

#[test]
fn large_models_take_what_is_predicted() {
    let Some(folder) = common::perf_models() else { return };
    check(&folder.join("mobilenetv2.onnx"));
    check(&folder.join("vit_tiny.onnx"));
    check(&folder.join("minilm_l6.onnx"));
}
