//! Real ONNX models against outputs recorded from ONNX Runtime.

mod common;

use common::{assert_close_to_scale, perf_models, read_npz, run, shared};
use kinglet::{
    formats::{LoadOptions, load},
    tensor::Tensor,
};
use std::{collections::BTreeMap, path::Path};

/// Of the greatest magnitude of an output.
const TOLERANCE: f32 = 1e-4;

/// Runs the model on every case of a recording: `[<case>/]in/<name>`, `[<case>/]out/<name>`.
fn check(model: &Path, recording: &Path) {
    let place = model.display();
    let loaded = load(model, &LoadOptions::default()).unwrap_or_else(|error| panic!("{place}: {error}"));
    let signature = &loaded.signatures["serving_default"];
    let mut cases: BTreeMap<String, [BTreeMap<String, Tensor>; 2]> = BTreeMap::new();
    for (name, tensor) in read_npz(recording) {
        for (side, word) in ["in/", "out/"].into_iter().enumerate() {
            if let Some(at) = name.find(word).filter(|&at| at == 0 || name[..at].ends_with('/')) {
                let case = cases.entry(name[..at].to_owned()).or_default();
                case[side].insert(name[at + word.len()..].to_owned(), tensor.clone());
                break;
            }
        }
    }
    assert!(!cases.is_empty(), "{}: no cases", recording.display());
    for (case, [inputs, expected]) in cases {
        let found = run(signature, &inputs).unwrap_or_else(|error| panic!("{place} {case}: {error}"));
        assert!(!expected.is_empty(), "{place} {case}: no outputs");
        for (name, expected) in &expected {
            assert_close_to_scale(&format!("{place} {case}{name}"), expected, &found[name], TOLERANCE);
        }
    }
}

#[test]
fn trained_models() {
    let Some(shared) = shared() else { return };
    for model in ["digit_cnn", "effnet_lite0", "fastestdet", "ultraface"] {
        let folder = shared.join("models/onnx").join(model);
        check(&folder, &folder.join("golden.npz"));
    }
}

#[test]
fn models_for_timing() {
    let Some(folder) = perf_models() else { return };
    let names = [
        "iris_mlp",
        "mnist_mlp",
        "gru_kws",
        "lstm_speech",
        "mobilenetv2",
        "efficientnet_b0",
        "vit_tiny",
        "ssdlite320",
        "resnet50",
        "yolov8n",
        "minilm_l6",
    ];
    for name in names {
        let model = folder.join(format!("{name}.onnx"));
        match model.is_file() {
            true => check(&model, &folder.join(format!("{name}.npz"))),
            false => eprintln!("SKIPPED: {} is not there", model.display()),
        }
    }
}
