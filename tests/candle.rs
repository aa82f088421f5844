//! The kernels and candle, side by side: the same graphs on the same inputs.
//!
//! `cargo test --features candle --test candle -- --nocapture` shows the table.

mod common;

use common::{perf_models, read_npz, shared};
use kinglet::{
    formats::{LoadOptions, LoadedSignature, load},
    graph::{
        Backend, Cpu, Program, RunOptions,
        candle::{Candle, Device},
    },
    kernels::{self, Threads},
    tensor::{DType, Tensor},
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Of the greatest magnitude of an output.
const TOLERANCE: f32 = 1e-4;
/// Where rounding is magnified (see tests/onnx_models.rs).
const MAGNIFIED: f32 = 5e-4;

/// Numbers that look like what the dtype is for, the same at every run.
fn made_up(dtype: DType, shape: &[usize]) -> Option<Tensor> {
    let len: usize = shape.iter().product();
    let wave = |index: usize| ((index as f32) * 0.37).sin() * 0.5 + 0.5;
    Some(match dtype {
        DType::F32 => Tensor::from_slice(shape, &(0..len).map(wave).collect::<Vec<f32>>()).ok()?,
        DType::I32 => {
            Tensor::from_slice(shape, &(0..len).map(|at| (at % 2) as i32).collect::<Vec<_>>()).ok()?
        }
        DType::I64 => {
            Tensor::from_slice(shape, &(0..len).map(|at| (at % 2) as i64).collect::<Vec<_>>()).ok()?
        }
        DType::U8 => {
            Tensor::from_slice(shape, &(0..len).map(|at| (at * 37) as u8).collect::<Vec<_>>()).ok()?
        }
        DType::String => {
            let text = |at: usize| bytes::Bytes::from(format!("text number {at}"));
            Tensor::from_strings(shape, (0..len).map(text).collect()).ok()?
        }
        _ => return None,
    })
}

/// The recorded inputs of the first case beside a model, or made-up ones.
fn inputs(model: &Path, signature: &LoadedSignature) -> Option<Vec<Tensor>> {
    let archives =
        [model.with_extension("npz"), model.join("golden.npz"), model.with_file_name("golden.npz")];
    let recorded = archives.iter().find(|path| path.is_file()).map(|path| read_npz(path)).unwrap_or_default();
    let input = |name: &str| {
        let end = format!("in/{name}");
        recorded.iter().find(|(key, _)| key.ends_with(&end)).map(|(_, tensor)| tensor.clone())
    };
    let open = |dims: &Vec<Option<usize>>| dims.iter().map(|dim| dim.unwrap_or(2)).collect::<Vec<usize>>();
    let infos = signature.inputs.iter().zip(signature.graph.inputs());
    infos
        .map(|(info, graph)| {
            let found = input(&info.name).filter(|tensor| tensor.dtype() == graph.dtype);
            found.or_else(|| made_up(graph.dtype, &open(info.shape.as_ref()?)))
        })
        .collect()
}

fn run(program: &dyn Program, inputs: &[Tensor]) -> Result<(Vec<Tensor>, Duration), String> {
    let mut outputs = Vec::new();
    program.run(inputs, &mut outputs, &RunOptions::default()).map_err(|error| error.to_string())?;
    let started = Instant::now();
    let mut again = Vec::new();
    program.run(inputs, &mut again, &RunOptions::default()).map_err(|error| error.to_string())?;
    Ok((outputs, started.elapsed()))
}

fn floats(tensor: &Tensor) -> Option<Vec<f32>> {
    match tensor.dtype() {
        DType::F32 => Some(tensor.as_slice::<f32>().ok()?.to_vec()),
        DType::F64 => Some(tensor.as_slice::<f64>().ok()?.iter().map(|&value| value as f32).collect()),
        DType::F16 => Some(tensor.as_slice::<half::f16>().ok()?.iter().map(|value| value.to_f32()).collect()),
        DType::BF16 => {
            Some(tensor.as_slice::<half::bf16>().ok()?.iter().map(|value| value.to_f32()).collect())
        }
        _ => None,
    }
}

/// The greatest difference as a share of the greatest magnitude; `None` for what cannot be compared.
fn difference(expected: &Tensor, found: &Tensor) -> Option<f32> {
    if (expected.dtype(), expected.shape()) != (found.dtype(), found.shape()) {
        return None;
    }
    let (Some(a), Some(b)) = (floats(expected), floats(found)) else {
        return (expected == found).then_some(0.0);
    };
    let scale = a.iter().fold(0.0f32, |scale, value| scale.max(value.abs()));
    let worst = a.iter().zip(&b).map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() });
    // A NaN is never close.
    let worst = worst.fold(0.0f32, |worst, next| if next <= worst { worst } else { next });
    Some(if worst == 0.0 { 0.0 } else { worst / scale })
}

/// One line of the table for a signature, and whether both agree (or candle refuses it).
fn compare(place: &str, model: &Path, signature: &LoadedSignature) -> (String, bool) {
    let candle = Candle::new(Device::Cpu, Threads::single()).expect("the CPU");
    let kernels = Cpu::new(kernels::best(), Threads::single());
    let there = match candle.compile(signature.graph.clone()) {
        Ok(program) => program,
        Err(error) => return (format!("{place}: refused: {error}"), true),
    };
    let Some(inputs) = inputs(model, signature) else { return (format!("{place}: no inputs"), true) };
    let here = kernels.compile(signature.graph.clone()).expect("the kernels have every operator");
    let (expected, ours) = match run(&*here, &inputs) {
        Ok(run) => run,
        Err(error) => return (format!("{place}: made-up inputs do not fit: {error}"), true),
    };
    let (found, theirs) = match run(&*there, &inputs) {
        Ok(run) => run,
        Err(error) if error.contains("the candle backend has no") => {
            return (format!("{place}: refused: {error}"), true);
        }
        Err(error) => return (format!("{place}: FAILED: {error}"), false),
    };
    let differences: Option<Vec<f32>> = expected.iter().zip(&found).map(|(a, b)| difference(a, b)).collect();
    let worst = differences.map(|all| all.into_iter().fold(0.0f32, |a, b| if b <= a { a } else { b }));
    let allowed = if place.contains("yolov8n") { MAGNIFIED } else { TOLERANCE };
    let times = format!("kernels {ours:.2?}, candle {theirs:.2?}");
    match worst {
        Some(worst) if worst <= allowed => (format!("{place}: parity ({worst:.1e}; {times})"), true),
        Some(worst) => (format!("{place}: DIFFERS by {worst:.1e} ({times})"), false),
        None => (format!("{place}: DIFFERS in type, shape or integers ({times})"), false),
    }
}

/// Every model below a folder: files `*.onnx` and folders of SavedModels.
fn models(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    for path in entries {
        if path.extension().is_some_and(|end| end == "onnx") || path.join("saved_model.pb").is_file() {
            found.push(path);
        } else if path.is_dir() {
            models(&path, found);
        }
    }
    found.sort();
}

fn table(root: &Path) {
    let mut folders = Vec::new();
    models(root, &mut folders);
    let (mut lines, mut wrong) = (Vec::new(), 0);
    for model in &folders {
        let Ok(loaded) = load(model, &LoadOptions::default()) else { continue };
        let name = model.strip_prefix(root).unwrap_or(model).display().to_string();
        for (key, signature) in &loaded.signatures {
            let (line, fine) = compare(&format!("{name} {key}"), model, signature);
            eprintln!("{line}");
            wrong += usize::from(!fine);
            lines.push(line);
        }
    }
    let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    eprintln!("{} signatures: {} parity, {} refused", lines.len(), count(": parity"), count(": refused"));
    assert!(!lines.is_empty() && wrong == 0, "{wrong} of {} signatures", lines.len());
}

#[test]
fn models_for_timing_agree() {
    if let Some(folder) = perf_models() {
        table(&folder);
    }
}

#[test]
fn shared_models_agree() {
    if let Some(shared) = shared() {
        table(&shared.join("models"));
    }
}

#[test]
fn texts_are_embedded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hugging_face/bert");
    let loaded = load(&folder, &LoadOptions::default()).unwrap();
    for (name, signature) in &loaded.signatures {
        let (line, fine) = compare(name, &folder, signature);
        eprintln!("{line}");
        assert!(fine && line.contains(": parity"), "{line}");
    }
}

/// Each operator's cases with what TensorFlow computes for them.
#[test]
fn operators_agree_with_tensorflow() {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/saved_models/operators");
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["golden.npz", "1/saved_model.pb"] {
        let to = folder.path().join(file);
        fs::create_dir_all(to.parent().expect("a folder")).unwrap();
        let from = fs::File::open(packed.join(format!("{file}.gz"))).expect("a fixture");
        io::copy(&mut flate2::read::GzDecoder::new(from), &mut fs::File::create(to).unwrap()).unwrap();
    }
    let loaded = load(&folder.path().join("1"), &LoadOptions::default()).unwrap();
    let recording = read_npz(&folder.path().join("golden.npz"));
    let mut calls: BTreeMap<String, [BTreeMap<String, Tensor>; 2]> = BTreeMap::new();
    for (name, tensor) in recording {
        // <number>.<signature>/in/<alias>
        let Some((call, rest)) = name.split_once('/') else { continue };
        let Some((side, alias)) = rest.split_once('/') else { continue };
        calls.entry(call.to_owned()).or_default()[usize::from(side == "out")]
            .insert(alias.to_owned(), tensor);
    }
    let candle = Candle::new(Device::Cpu, Threads::single()).unwrap();
    let (mut agree, mut refused, mut wrong) = (0, BTreeMap::<String, usize>::new(), Vec::new());
    for (call, [inputs, expected]) in &calls {
        let Some((_, name)) = call.split_once('.') else { continue };
        let Some(signature) = loaded.signatures.get(name) else { continue };
        let program = match candle.compile(signature.graph.clone()) {
            Ok(program) => program,
            Err(error) => {
                *refused.entry(error.to_string()).or_default() += 1;
                continue;
            }
        };
        let given: Option<Vec<Tensor>> =
            signature.inputs.iter().map(|info| inputs.get(&info.name).cloned()).collect();
        let Some(given) = given else { continue };
        let mut outputs = Vec::new();
        match program.run(&given, &mut outputs, &RunOptions::default()) {
            Ok(()) => {
                let pairs = signature.outputs.iter().zip(&outputs);
                let worst = pairs.filter_map(|(info, found)| Some((expected.get(&info.name)?, found)));
                let worst: Option<Vec<f32>> = worst.map(|(a, b)| difference(a, b)).collect();
                // What is computed in half precision is rounded in another order.
                let tolerance = if name.contains("Half") { 2e-2 } else { TOLERANCE };
                match worst {
                    Some(worst) if worst.iter().all(|worst| *worst <= tolerance) => agree += 1,
                    other => wrong.push(format!("{call}: {other:?}")),
                }
            }
            Err(error) if error.to_string().contains("candle") => {
                *refused.entry(error.to_string()).or_default() += 1;
            }
            Err(error) => wrong.push(format!("{call}: {error}")),
        }
    }
    eprintln!("{agree} calls agree, {} are refused", refused.values().sum::<usize>());
    refused.keys().for_each(|reason| eprintln!("  {reason}"));
    wrong.iter().for_each(|wrong| eprintln!("  WRONG {wrong}"));
    assert!(agree > 0 && wrong.is_empty(), "{} calls differ", wrong.len());
}

#[test]
fn devices_have_names() {
    assert_eq!("cuda:3".parse(), Ok(Device::Cuda(3)));
    assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
    assert_eq!(Device::Cuda(1).to_string(), "cuda:1");
    assert!("cuda:x".parse::<Device>().unwrap_err().contains("no device"));
    if !cfg!(feature = "cuda") {
        let error = Candle::new(Device::Cuda(0), Threads::single()).map(|_| ()).unwrap_err();
        assert!(error.contains("built without CUDA"), "{error}");
        assert_eq!(Candle::new(Device::Auto, Threads::single()).unwrap().device(), "cpu");
    }
}
