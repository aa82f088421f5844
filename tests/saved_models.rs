//! SavedModels that TensorFlow wrote, against what TensorFlow computes.

mod common;

use bytes::Bytes;
use common::{assert_close, read_npz, run, shared};
use kinglet::{
    formats::{FormatError, LoadOptions, LoadedModel, load},
    proto::tensorflow::{BytesList, Example, Feature, Features, FloatList, Int64List, feature::Kind},
    tensor::{DType, Tensor},
};
use prost::Message;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

fn open(path: &Path) -> LoadedModel {
    load(path, &LoadOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn floats(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_slice(shape.to_vec(), values).expect("as many values as the shape says")
}

/// Serialised examples with one feature each.
fn examples(name: &str, kinds: &[Kind]) -> Tensor {
    let example = |kind: &Kind| {
        let feature = [(name.to_owned(), Feature { kind: Some(kind.clone()) })].into();
        Bytes::from(Example { features: Some(Features { feature }) }.encode_to_vec())
    };
    Tensor::from_strings([kinds.len()], kinds.iter().map(example).collect()).expect("a vector")
}

fn float_examples(name: &str, values: &[f32]) -> Tensor {
    let kinds: Vec<Kind> =
        values.iter().map(|&value| Kind::FloatList(FloatList { value: vec![value] })).collect();
    examples(name, &kinds)
}

fn predict(model: &LoadedModel, signature: &str, inputs: &[(&str, Tensor)]) -> BTreeMap<String, Tensor> {
    let inputs = inputs.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect();
    run(&model.signatures[signature], &inputs).unwrap_or_else(|error| panic!("{signature}: {error}"))
}

/// TensorFlow's results: y = x / 2 + 2, y2 and y3 = x / 2 + 3.
#[test]
fn half_plus_two() {
    let Some(shared) = shared() else { return };
    for folder in [
        "saved_model_half_plus_two_2_versions/00000123",
        "saved_model_half_plus_two_2_versions/00000124",
        "saved_model_half_plus_two_cpu/00000123",
        "saved_model_half_plus_two_cpu_with_empty_saved_model_config/00000123",
        "saved_model_half_plus_two_cpu_with_saved_model_config/00000123",
        "saved_model_half_plus_two_mlmd/00000123",
        "saved_model_half_plus_two_mkl/00000123",
        "saved_model_half_plus_two_tf2_cpu/00000123",
    ] {
        let model = open(&shared.join("models/tfs").join(folder));
        let x = floats(&[3], &[1.0, 2.0, 5.0]);
        let y = predict(&model, "serving_default", &[("x", x)]);
        assert_close(folder, &floats(&[3], &[2.5, 3.0, 4.5]), &y["y"], 0.0);
        // The graph's own reshape makes columns of parsed features.
        let x = float_examples("x", &[1.0, 2.0]);
        let y = predict(&model, "regress_x_to_y", &[("inputs", x.clone())]);
        assert_close(folder, &floats(&[2, 1], &[2.5, 3.0]), &y["outputs"], 0.0);
        let y = predict(&model, "classify_x_to_y", &[("inputs", x.clone())]);
        assert_close(folder, &floats(&[2, 1], &[2.5, 3.0]), &y["scores"], 0.0);
        if folder.contains("mkl") {
            continue;
        }
        let y = predict(&model, "regress_x_to_y2", &[("inputs", x)]);
        assert_close(folder, &floats(&[2, 1], &[3.5, 4.0]), &y["outputs"], 0.0);
        let y = predict(&model, "regress_x2_to_y3", &[("inputs", floats(&[2, 1], &[1.0, 2.0]))]);
        assert_close(folder, &floats(&[2, 1], &[3.5, 4.0]), &y["outputs"], 0.0);
    }
}

#[test]
fn half_plus_three_and_matrix() {
    let Some(shared) = shared() else { return };
    let model = open(&shared.join("models/tfs/saved_model_half_plus_three/00000123"));
    let y = predict(&model, "serving_default", &[("x", floats(&[3], &[1.0, 2.0, 5.0]))]);
    assert_close("y", &floats(&[3], &[3.5, 4.0, 5.5]), &y["y"], 0.0);
    // Declared as floats, but the graph takes serialised examples.
    let y = predict(&model, "tensorflow/serving/regress", &[("inputs", float_examples("x", &[1.0]))]);
    assert_close("outputs", &floats(&[1, 1], &[3.5]), &y["outputs"], 0.0);
    let model = open(&shared.join("models/tfs/matrix_half_plus_two/1"));
    let x = floats(&[1, 3, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    let y = predict(&model, "serving_default", &[("x", x)]);
    let expected = floats(&[1, 3, 3], &[2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0]);
    assert_close("y", &expected, &y["y"], 0.0);
}

#[test]
fn a_counter_counts() {
    let Some(shared) = shared() else { return };
    let model = open(&shared.join("models/tfs/saved_model_counter/00000123"));
    let call = |signature: &str, inputs: &[(&str, Tensor)]| {
        predict(&model, signature, inputs)["output"].as_slice::<f32>().expect("a float")[0]
    };
    assert_eq!(call("get_counter", &[]), 0.0);
    assert_eq!(call("incr_counter", &[]), 1.0);
    assert_eq!(call("incr_counter", &[]), 2.0);
    assert_eq!(call("incr_counter_by", &[("delta", Tensor::scalar(3.0f32))]), 5.0);
    assert_eq!(call("get_counter", &[]), 5.0);
    assert_eq!(call("reset_counter", &[]), 0.0);
    assert_eq!(call("get_counter", &[]), 0.0);
}

#[test]
fn every_dtype_passes_through() {
    let Some(shared) = shared() else { return };
    let model = open(&shared.join("models/tfs/synthetic/dtypes/1"));
    for dtype in DType::ALL {
        let name = match dtype {
            DType::F32 => "float32",
            DType::F64 => "float64",
            DType::F16 => "float16",
            DType::Complex128 => continue,
            other => other.name(),
        };
        let x = Tensor::zeros(dtype, [2, 3]).expect("memory");
        let y = predict(&model, &format!("id_{name}"), &[("x", x.clone())]);
        assert_eq!(y["y"], x, "{name}");
    }
    assert!(model.signatures["no_inputs"].inputs.is_empty());
    predict(&model, "no_inputs", &[]);
}

#[test]
fn examples_are_parsed_and_classified() {
    let Some(shared) = shared() else { return };
    let model = open(&shared.join("models/tfs/synthetic/classify_labels/1"));
    let list = |value: &[f32]| Kind::FloatList(FloatList { value: value.to_vec() });
    let inputs = examples("x", &[list(&[0.1, 0.2, 0.7]), list(&[0.3, 0.3, 0.4])]);
    let y = predict(&model, "serving_default", &[("inputs", inputs.clone())]);
    assert_close("scores", &floats(&[2, 3], &[0.1, 0.2, 0.7, 0.3, 0.3, 0.4]), &y["scores"], 0.0);
    assert_eq!(y["classes"].shape().to_vec(), [2, 3]);
    let classes = y["classes"].as_strings().expect("labels");
    assert_eq!(classes[..3], classes[3..]);
    let y = predict(&model, "regress_sum", &[("inputs", inputs)]);
    assert_eq!(y["outputs"].len(), 2);
    let wrong = [
        examples("x", &[Kind::Int64List(Int64List { value: vec![1, 2, 3] })]),
        examples("x", &[list(&[1.0, 2.0])]),
        examples("other", &[Kind::BytesList(BytesList::default())]),
    ];
    for inputs in wrong {
        let inputs = [("inputs".to_owned(), inputs)].into();
        assert!(run(&model.signatures["serving_default"], &inputs).is_err());
    }
}

#[test]
fn several_inputs_and_outputs() {
    let Some(shared) = shared() else { return };
    let model = open(&shared.join("models/tfs/synthetic/multi_io/1"));
    let signature = &model.signatures["serving_default"];
    let inputs: BTreeMap<String, Tensor> = signature
        .inputs
        .iter()
        .map(|input| (input.name.clone(), Tensor::zeros(input.dtype.expect("a dtype"), [2]).expect("memory")))
        .collect();
    let outputs = run(signature, &inputs).expect("it runs");
    assert_eq!(outputs["int_out"], inputs["int_tensor"]);
    assert_eq!(outputs["str_out_bytes"], inputs["str_tensor"]);
}

#[test]
fn keras_models_agree_with_tensorflow() {
    let Some(shared) = shared() else { return };
    for name in ["keras_mlp", "keras_cnn"] {
        let folder = shared.join("models/tfs/synthetic").join(name);
        let recording = std::fs::read(folder.join("reference_io.json")).expect("a recording");
        let recording: serde_json::Value = serde_json::from_slice(&recording).expect("JSON");
        let model = open(&folder.join("1"));
        for signature in ["serve", "serving_default"] {
            let input = &model.signatures[signature].inputs[0].name;
            let y = predict(&model, signature, &[(input, from_json(&recording["input"]))]);
            assert_close(name, &from_json(&recording["output"]), &y["output_0"], 1e-5);
        }
    }
}

fn from_json(json: &serde_json::Value) -> Tensor {
    fn collect(json: &serde_json::Value, values: &mut Vec<f32>) {
        match json {
            serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, values)),
            number => values.push(number.as_f64().expect("a number") as f32),
        }
    }
    let (mut shape, mut values, mut level) = (Vec::new(), Vec::new(), json);
    while let serde_json::Value::Array(items) = level {
        shape.push(items.len());
        level = &items[0];
    }
    collect(json, &mut values);
    floats(&shape, &values)
}

/// `<case>/in/<alias>` and `<case>/out/<alias>`, or `in/..` and `out/..` of a single case.
fn compare_with_recording(name: &str, model: &LoadedModel, recording: &Path) {
    let arrays = read_npz(recording);
    let mut cases: BTreeMap<&str, (BTreeMap<String, Tensor>, BTreeMap<String, Tensor>)> = BTreeMap::new();
    for (key, tensor) in &arrays {
        let (case, rest) = match key.split_once("/in/").or(key.split_once("/out/")) {
            Some((case, alias)) => (case, alias),
            None => ("", key.split_once('/').map_or(key.as_str(), |(_, alias)| alias)),
        };
        let (inputs, outputs) = cases.entry(case).or_default();
        let side = if key.contains("out/") { outputs } else { inputs };
        side.insert(rest.to_owned(), tensor.clone());
    }
    assert!(!cases.is_empty(), "{name}");
    for (case, (inputs, expected)) in cases {
        let fits = |signature: &&kinglet::formats::LoadedSignature| {
            signature.inputs.len() == inputs.len()
                && signature.inputs.iter().all(|input| inputs.contains_key(&input.name))
                && expected.keys().all(|alias| signature.outputs.iter().any(|output| output.name == *alias))
        };
        // A case may be named after its signature, with its place in the order of calls: `02.reset`.
        let named = model.signatures.get(case.split_once('.').map_or(case, |(_, signature)| signature));
        let signature = named.or_else(|| model.signatures.values().find(fits)).unwrap_or_else(|| {
            panic!("{name}/{case}: no signature takes {:?} and gives {:?}", inputs.keys(), expected.keys())
        });
        let found = run(signature, &inputs).unwrap_or_else(|error| panic!("{name}/{case}: {error}"));
        for (alias, expected) in &expected {
            // What is computed in half precision is rounded in another order.
            let tolerance = if name.contains("half") { 2e-2 } else { 1e-4 };
            assert_close(&format!("{name}/{case}/{alias}"), expected, &found[alias], tolerance);
        }
    }
}

#[test]
fn real_models_agree_with_tensorflow() {
    let Some(shared) = shared() else { return };
    for name in ["ad_autoencoder", "resnet8_cifar10", "kws_dscnn", "effnet_lite0"] {
        let folder = shared.join("models/saved_model").join(name);
        compare_with_recording(name, &open(&folder.join("1")), &folder.join("golden.npz"));
    }
}

#[test]
fn the_ssd_detector_agrees_with_tensorflow() {
    let Some(shared) = shared() else { return };
    let folder = shared.join("models/ssd");
    let model = open(&folder.join("commodity/1"));
    assert_eq!(model.signatures.keys().collect::<Vec<_>>(), ["detected_model"]);
    let oracle = read_npz(&folder.join("oracle.npz"));
    let images = oracle.iter().find(|(name, _)| name.contains("image")).expect("an image").1;
    let found = predict(&model, "detected_model", &[("images", images.clone())]);
    assert_eq!(found.len(), 12);
    for (alias, found) in &found {
        let expected = oracle.iter().find(|(name, _)| name.ends_with(alias.as_str())).expect("an output").1;
        assert_close(alias, expected, found, 1e-4);
    }
}

#[test]
fn what_cannot_be_loaded_says_why() {
    let Some(shared) = shared() else { return };
    let fails = |folder: &str| {
        let path = shared.join("models/tfs").join(folder);
        (load(&path, &LoadOptions::default()).expect_err(folder), path)
    };
    let (error, path) = fails("bad_half_plus_two/00000123");
    assert_eq!(
        error.to_string(),
        format!(
            "Could not find SavedModel .pb or .pbtxt at supplied export directory path: {}. Check that the \
             directory exists and that you have the right permissions for accessing it.",
            path.display()
        )
    );
    for folder in ["saved_model_half_plus_two_gpu/00000123", "saved_model_half_plus_two_gpu_trt/00000123"] {
        let (error, _) = fails(folder);
        assert!(error.to_string().contains("Cannot assign a device"), "{error}");
        assert!(error.to_string().contains("GPU"), "{error}");
    }
    for folder in [
        "saved_model_half_plus_two_tflite/00000123",
        "saved_model_half_plus_two_tflite_with_sigdef/00000123",
        "parse_example_tflite/00000123",
    ] {
        let (error, _) = fails(folder);
        assert!(matches!(error, FormatError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("TensorFlow Lite"), "{error}");
    }
    let options = LoadOptions { tags: vec!["serve".to_owned(), "gpu".to_owned()] };
    let error = load(&shared.join("models/tfs/saved_model_counter/00000123"), &options).expect_err("tags");
    assert!(
        error.to_string().contains("matching supplied tags: { gpu, serve }; the file has { serve }"),
        "{error}"
    );
}

/// What `tests/exports/export.py` made of small graphs: every operator by itself, and a few models.
#[test]
fn fixtures_agree_with_tensorflow() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/saved_models");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("fixtures").filter_map(Result::ok) {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let unpacked = tempfile::tempdir().expect("a folder");
        unpack(&path, unpacked.path());
        compare_with_recording(&name, &open(&unpacked.path().join("1")), &unpacked.path().join("golden.npz"));
        count += 1;
    }
    assert!(count > 0, "there are no fixtures");
}

/// Whatever byte of an export is another one, and wherever a file ends: the model loads, or one line
/// says why not.
#[test]
fn damaged_exports_end_in_an_answer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/saved_models");
    let mut state = 1u64;
    let mut random = |below: usize| {
        // Knuth's linear congruential generator.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    for name in ["lists", "word_model", "streaming_state", "v1_dynamic_rnn", "v1_sharded", "v1_vocabulary"] {
        let unpacked = tempfile::tempdir().expect("a folder");
        unpack(&folder.join(name), unpacked.path());
        let model = unpacked.path().join("1");
        let answer = |what: &str| {
            if let Err(error) = load(&model, &LoadOptions::default()) {
                let text = error.to_string();
                // One line, and in TensorFlow's form the node behind it.
                let lines = text.trim_end_matches("]]").split("\n\t [[{{node ").next().unwrap_or_default();
                assert!(!text.is_empty() && !lines.contains('\n'), "{name}, {what}: {text}");
            }
        };
        for file in files(&model) {
            let good = std::fs::read(&file).expect("a file");
            for round in 0..12 {
                let mut bad = good.clone();
                match round {
                    0 => bad.clear(),
                    1..=3 => bad.truncate(random(good.len())),
                    _ if bad.is_empty() => continue,
                    _ => (0..=round % 3).for_each(|_| bad[random(good.len())] = random(256) as u8),
                }
                std::fs::write(&file, &bad).expect("a file");
                answer(&format!("{} in round {round}", file.display()));
            }
            std::fs::remove_file(&file).expect("a file");
            answer(&format!("without {}", file.display()));
            std::fs::write(&file, &good).expect("a file");
        }
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").filter_map(Result::ok);
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.path())).collect()
}

/// Copies a folder whose files are compressed, without `.gz`.
fn unpack(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a fixture").filter_map(Result::ok) {
        let (path, target) = (entry.path(), to.join(entry.path().file_stem().expect("a name")));
        if path.is_dir() {
            unpack(&path, &to.join(entry.file_name()));
        } else {
            let file = std::fs::File::open(&path).expect("a file");
            let mut plain = std::fs::File::create(target).expect("a file");
            std::io::copy(&mut flate2::read::GzDecoder::new(file), &mut plain).expect("gzip");
        }
    }
}

/// Folders made by `tests/exports/export.py`: `<name>/1` and `<name>/golden.npz`.
#[test]
fn exported_models_agree_with_tensorflow() {
    let Some(folder) = std::env::var_os("KINGLET_EXPORTS") else {
        eprintln!("SKIPPED: KINGLET_EXPORTS is not set; see tests/exports/export.py");
        return;
    };
    let mut failures = Vec::new();
    let mut folders: Vec<_> = std::fs::read_dir(folder).expect("a folder").filter_map(Result::ok).collect();
    folders.sort_by_key(std::fs::DirEntry::file_name);
    for entry in folders {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let recording = path.join("golden.npz");
        if !recording.is_file() {
            continue;
        }
        let check = std::panic::AssertUnwindSafe(|| {
            compare_with_recording(&name, &open(&path.join("1")), &recording)
        });
        match std::panic::catch_unwind(check) {
            Ok(()) => eprintln!("{name}: agrees"),
            Err(_) => failures.push(name),
        }
    }
    assert!(failures.is_empty(), "these differ: {failures:?}");
}
