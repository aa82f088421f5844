//! Real ONNX models against outputs recorded from ONNX Runtime.

mod common;

use common::{assert_close_to_scale, perf_models, read_npz, run_on, shared};
use kinglet::{
    formats::{LoadOptions, load},
    graph::{Backend, Cpu, RunOptions},
    kernels::{self, Threads},
    tensor::Tensor,
};
use std::{
    collections::BTreeMap,
    env, fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

/// Of the greatest magnitude of an output.
const TOLERANCE: f32 = 1e-4;

/// Where rounding is magnified: of yolov8n's 705,600 values, two of ONNX Runtime's own and three of kinglet's are further
/// than 1e-4 of the scale from those computed in double precision (by at most 1.8e-4 and 6.3e-4); the mean error of both
/// is below 1e-8.
const MAGNIFIED: f32 = 1e-3;

/// Runs the model on every case of a recording: `[<case>/]in/<name>`, `[<case>/]out/<name>`.
fn check(model: &Path, recording: &Path, tolerance: f32) {
    check_on(|| vec![Cpu::new(kernels::best(), Threads::single())], model, recording, tolerance);
}

/// The same on several backends.
fn check_on(backends: impl Fn() -> Vec<Cpu>, model: &Path, recording: &Path, tolerance: f32) {
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
        assert!(!expected.is_empty(), "{place} {case}: no outputs");
        for cpu in backends() {
            let found =
                run_on(cpu, signature, &inputs).unwrap_or_else(|error| panic!("{place} {case}: {error}"));
            for (name, expected) in &expected {
                assert_close_to_scale(&format!("{place} {case}{name}"), expected, &found[name], tolerance);
            }
        }
    }
}

#[test]
fn trained_models() {
    let Some(shared) = shared() else { return };
    for model in ["digit_cnn", "effnet_lite0", "fastestdet", "ultraface"] {
        let folder = shared.join("models/onnx").join(model);
        check(&folder, &folder.join("golden.npz"), TOLERANCE);
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
        let tolerance = if name == "yolov8n" { MAGNIFIED } else { TOLERANCE };
        match model.is_file() {
            true => check(&model, &folder.join(format!("{name}.npz")), tolerance),
            false => eprintln!("SKIPPED: {} is not there", model.display()),
        }
    }
}

/// One step of an output of 255 steps, and a half: engines round sums and functions of bytes in their own ways.
const STEP: f32 = 1.5 / 255.0 * 2.0;

/// As onnxruntime's quantisation writes them, in all three forms.
#[test]
fn quantized_models() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx");
    for name in ["quantized_unsigned", "quantized_signed", "quantized_operators"] {
        check(&folder.join(format!("{name}.onnx")), &folder.join(format!("{name}.npz")), STEP);
    }
}

/// The models that are quick enough on plain instructions and without optimisation; `scripts/check-models.py` does all.
#[test]
fn every_instruction_set_and_number_of_threads() {
    let Some(folder) = perf_models() else { return };
    let backends = || {
        let on =
            |count| kernels::available().iter().map(move |kernels| Cpu::new(kernels, Threads::new(count)));
        (1..=3).flat_map(on).collect()
    };
    for name in ["iris_mlp", "mnist_mlp", "gru_kws"] {
        let model = folder.join(format!("{name}.onnx"));
        match model.is_file() {
            true => check_on(backends, &model, &folder.join(format!("{name}.npz")), TOLERANCE),
            false => eprintln!("SKIPPED: {} is not there", model.display()),
        }
    }
}

/// Sums of bytes are exact, so every instruction set and any number of threads give the same bits.
#[test]
fn quantized_models_on_every_instruction_set() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx");
    for name in ["quantized_unsigned", "quantized_signed", "quantized_operators"] {
        let model = folder.join(format!("{name}.onnx"));
        let loaded = load(&model, &LoadOptions::default()).expect("a model");
        let signature = &loaded.signatures["serving_default"];
        let recording = read_npz(&folder.join(format!("{name}.npz")));
        let inputs: Vec<Tensor> =
            signature.inputs.iter().map(|input| recording[&format!("in/{}", input.name)].clone()).collect();
        let mut first: Option<Vec<Tensor>> = None;
        for kernels in kernels::available() {
            for count in 1..=3 {
                let cpu = Cpu::new(kernels, Threads::new(count));
                let program = cpu.compile(signature.graph.clone()).expect("a program");
                for _ in 0..2 {
                    let mut found = Vec::new();
                    program.run(&inputs, &mut found, &RunOptions::default()).expect("a result");
                    for (output, found) in signature.outputs.iter().zip(&found) {
                        let place = format!("{name} {} {kernels:?} {count} threads", output.name);
                        let expected = &recording[&format!("out/{}", output.name)];
                        assert_close_to_scale(&place, expected, found, STEP);
                    }
                    let first = first.get_or_insert_with(|| found.clone());
                    assert!(*first == found, "{name} {kernels:?} {count} threads");
                }
            }
        }
    }
}

/// Any models, `NAME.onnx` with a recording `NAME.npz` beside it.
#[test]
fn further_models() {
    let Some(folder) = env::var_os("KINGLET_ONNX_MODELS").map(PathBuf::from) else {
        eprintln!("SKIPPED: set KINGLET_ONNX_MODELS to a folder of models with recordings");
        return;
    };
    let entries = fs::read_dir(&folder).expect("the folder of the models");
    let mut models: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    models.retain(|path| path.extension().is_some_and(|end| end == "onnx"));
    models.sort();
    let mut failed = Vec::new();
    for model in models.iter().filter(|model| model.with_extension("npz").is_file()) {
        let checked = catch_unwind(|| check(model, &model.with_extension("npz"), TOLERANCE));
        eprintln!("{}: {}", model.display(), if checked.is_ok() { "as recorded" } else { "FAILED" });
        failed.extend(checked.is_err().then_some(model));
    }
    assert!(failed.is_empty(), "{failed:?}");
}
