//! `kinglet convert` keeps every bit: each model that loads gives the same outputs from kinglet's own folder.
//!
//! Quick models run always; all of them, the large ones too, where `KINGLET_SHARED` is set.

mod common;

use common::{perf_models, run, shared, version_folders};
use kinglet::{
    formats::{LoadOptions, LoadedModel, LoadedSignature, load},
    graph::{Cpu, Input, passes::Narrow},
    kernels::{PANEL_WIDTHS, PanelWidth, Threads, best},
    models::convert::Conversion,
    tensor::{Bytes, DType, Tensor},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn cpu() -> Cpu {
    Cpu::new(best(), Threads::single())
}

#[test]
fn saved_models_and_built_ins_keep_every_bit() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights");
    let mut folders =
        vec![weights.join("iris/1"), weights.join("digits/1"), weights.join("half_plus_three/123")];
    if let Some(shared) = shared() {
        for kind in ["models/tfs", "models/tfs/synthetic", "models/saved_model", "models/ssd"] {
            version_folders(&shared.join(kind), &mut folders);
        }
    }
    let compared: usize = folders.iter().map(|folder| keeps_every_bit(folder)).sum();
    assert!(compared >= 3, "{compared} signatures of {} folders could be compared", folders.len());
}

#[test]
fn onnx_models_keep_every_bit() {
    let Some(shared) = shared() else { return };
    for name in ["digit_cnn", "effnet_lite0", "fastestdet", "ultraface"] {
        assert!(keeps_every_bit(&shared.join("models/onnx").join(name)) > 0, "{name}");
    }
}

/// Weights as the kernels of other machines read them, or in their own order.
#[test]
fn panels_of_other_kernels_keep_every_bit() {
    let mut models = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/digits/1")];
    models.extend(shared().map(|shared| shared.join("models/onnx/digit_cnn")));
    models.extend(
        shared().map(|shared| shared.join("models/tfs/keras_mlp/1")).filter(|folder| folder.exists()),
    );
    for (name, width) in
        PANEL_WIDTHS.map(|(name, width)| (name, Some(width))).into_iter().chain([("none", None)])
    {
        for model in &models {
            assert!(keeps_every_bit_in(model, width) > 0, "{name} {}", model.display());
        }
    }
}

#[test]
fn models_for_timing_keep_every_bit() {
    let Some(folder) = perf_models() else { return };
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    files.sort();
    assert!(files.iter().all(|file| keeps_every_bit(file) > 0));
}

/// The bounds are those of the formats on networks of this depth, not of this implementation: half precision keeps
/// three digits of a weight, brain floats two, eight bits per channel less than two.
#[test]
fn narrow_weights_differ_by_little() {
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/digits/1");
    for (narrow, bound) in [(Narrow::F16, 2e-3), (Narrow::Bf16, 2e-2), (Narrow::I8, 5e-2)] {
        let (expected, found) = converted(&weights, Some(narrow), Some(PanelWidth::of(best()))).unwrap();
        let signature = &expected.signatures["serving_default"];
        let inputs = made_up(signature).unwrap();
        let [expected, found] =
            [&expected, &found].map(|model| run(&model.signatures["serving_default"], &inputs));
        let (expected, found) = (expected.unwrap(), found.unwrap());
        let floats = |tensor: &Tensor| tensor.as_slice::<f32>().map(<[f32]>::to_vec);
        let mut compared = 0;
        for (name, expected) in &expected {
            let (Ok(a), Ok(b)) = (floats(expected), floats(&found[name])) else { continue };
            let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= bound, "{narrow:?} {name}: {worst}");
            compared += 1;
        }
        assert!(compared > 0);
    }
}

#[test]
fn what_stands_beside_the_model_comes_along() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("digits/4");
    fs::create_dir_all(source.join("assets.extra")).unwrap();
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/digits/1");
    for name in ["model.json", "model.safetensors"] {
        fs::copy(weights.join(name), source.join(name)).unwrap();
    }
    fs::write(source.join("assets.extra/tf_serving_warmup_requests"), "").unwrap();
    let toml = "[output]\nkind = 'classification'\nlabels = '../names.txt'\n";
    fs::write(folder.path().join("digits/kinglet.toml"), toml).unwrap();
    fs::write(folder.path().join("names.txt"), "zero\none\n").unwrap();
    let to = folder.path().join("out");
    let place = Conversion::default().write(&folder.path().join("digits"), &to, &cpu()).unwrap();
    assert!(!to.join("1").exists(), "not before it is published");
    assert_eq!(place.publish().unwrap(), to.join("1"));
    let mut names: Vec<String> = fs::read_dir(to.join("1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["assets.extra", "kinglet.toml", "model.json", "model.safetensors", "names.txt"]);
    let error = Conversion::default().write(&source, &to, &cpu()).unwrap_err();
    assert!(error.message.contains("is there already"), "{}", error.message);
    assert_eq!(fs::read_dir(&to).unwrap().count(), 1, "nothing is left behind");
}

/// The model and its copy; `None` for one that does not load.
fn converted(
    source: &Path,
    narrow: Option<Narrow>,
    panels: Option<PanelWidth>,
) -> Option<(LoadedModel, LoadedModel)> {
    load(source, &LoadOptions::default()).ok()?;
    let folder = tempfile::tempdir().unwrap();
    let written = Conversion { narrow, panels, key: None }.write(source, folder.path(), &cpu());
    let written = written.unwrap_or_else(|error| panic!("{}: {}", source.display(), error.message));
    Some((written.source, written.copy))
}

/// What TensorFlow adds to a dtype for a reference to it.
const REFERENCES: i32 = 100;

/// Number of signatures that ran and gave the same bits, with weights as this machine's kernels read them.
fn keeps_every_bit(source: &Path) -> usize {
    keeps_every_bit_in(source, Some(PanelWidth::of(best())))
}

fn keeps_every_bit_in(source: &Path, panels: Option<PanelWidth>) -> usize {
    let Some((model, copy)) = converted(source, None, panels) else { return 0 };
    assert_eq!(copy.platform, "kinglet");
    // Defaults stand in the signatures' inputs; what is a reference to a variable in TensorFlow 1 is a value here, and a
    // shape that is not given one of unknown rank.
    let shown = |model: &LoadedModel| {
        let mut definitions = model.definitions.clone();
        for definition in definitions.values_mut() {
            definition.defaults.clear();
            for info in definition.inputs.values_mut().chain(definition.outputs.values_mut()) {
                info.dtype -= if info.dtype > REFERENCES { REFERENCES } else { 0 };
                info.tensor_shape = info.tensor_shape.take().filter(|shape| !shape.unknown_rank);
            }
        }
        definitions
    };
    assert_eq!(shown(&copy), shown(&model), "{}", source.display());
    let names = |model: &LoadedModel| model.signatures.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&copy), names(&model), "{}", source.display());
    let mut compared = 0;
    for (name, signature) in &model.signatures {
        let other = &copy.signatures[name];
        let place = format!("{} {name}", source.display());
        assert_eq!((&other.inputs, &other.outputs), (&signature.inputs, &signature.outputs), "{place}");
        assert_eq!(other.defaults, signature.defaults, "{place}");
        let Some(inputs) = made_up(signature) else { continue };
        match (run(signature, &inputs), run(other, &inputs)) {
            (Ok(expected), Ok(found)) => {
                assert!(found == expected, "{place}: the copy answers otherwise");
                compared += 1;
            }
            // Made-up strings are no examples or images; nodes without a name are called otherwise in the copy.
            (Err(_), Err(_)) => {}
            (expected, found) => panic!("{place}: {expected:?}, then {found:?}"),
        }
    }
    compared
}

/// Something for every input.
fn made_up(signature: &LoadedSignature) -> Option<BTreeMap<String, Tensor>> {
    let tensor = |input: &Input| {
        let dims = input.shape.clone().unwrap_or_else(|| vec![None]);
        let dims: Vec<usize> = dims.iter().map(|dim| dim.unwrap_or(2)).collect();
        let elements = dims.iter().product();
        match input.dtype {
            DType::String => {
                let words = [&b"a word"[..], b"7", b"", b"Another one, longer"].map(Bytes::from_static);
                Tensor::from_strings(dims, words.iter().cycle().take(elements).cloned().collect()).ok()
            }
            DType::F32 => {
                let values: Vec<f32> = (0..elements).map(|at| (at % 7) as f32 / 7.0 - 0.3).collect();
                Tensor::from_slice(dims, &values).ok()
            }
            other => Tensor::zeros(other, dims).ok(),
        }
    };
    signature.graph.inputs().iter().map(|input| Some((input.name.clone(), tensor(input)?))).collect()
}
