//! Damaged ONNX files: an error, or a graph that runs; no panic, no hang, no memory beyond what the file
//! declares. `KINGLET_FUZZ_SECONDS` prolongs the search.

mod common;
#[path = "support/mutation.rs"]
mod mutation;

use common::{run, shared};
use kinglet::{
    formats::{LoadOptions, load},
    proto::onnx::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto},
    tensor::{DType, Tensor},
};
use mutation::{Random, mutated};
use prost::Message;
use std::{
    collections::BTreeMap,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A model that is well formed, with parts of it exchanged: numbers, sizes, names, operators.
fn rearranged(model: &ModelProto, random: &mut Random) -> Vec<u8> {
    let mut model = model.clone();
    let Some(graph) = &mut model.graph else { return model.encode_to_vec() };
    for _ in 0..1 + random.below(3) {
        let (nodes, tensors) = (graph.node.len(), graph.initializer.len());
        match random.below(8) {
            0 | 1 if nodes > 0 => {
                let attributes = &mut graph.node[random.below(nodes)].attribute;
                let count = attributes.len();
                if let Some(attribute) = attributes.get_mut(random.below(count)) {
                    let ints = attribute.ints.len();
                    match attribute.ints.get_mut(random.below(ints)) {
                        Some(value) => *value = random.number(),
                        None => attribute.i = random.number(),
                    }
                    attribute.f = f32::from_bits(random.next() as u32);
                    if random.below(4) == 0 {
                        attribute.ints.push(random.number());
                    }
                }
            }
            2 if nodes > 0 => {
                let name = graph.node[random.below(nodes)].output.first().cloned().unwrap_or_default();
                let inputs = &mut graph.node[random.below(nodes)].input;
                let count = inputs.len();
                match inputs.get_mut(random.below(count)) {
                    Some(input) => *input = name,
                    None => inputs.push(name),
                }
            }
            3 if nodes > 0 => {
                let inputs = &mut graph.node[random.below(nodes)].input;
                let (count, other) = (inputs.len(), random.below(inputs.len()));
                match random.below(2) {
                    0 => drop(inputs.pop()),
                    _ if count > 0 => inputs.swap(random.below(count), other),
                    _ => {}
                }
            }
            4 if nodes > 0 => {
                let op = graph.node[random.below(nodes)].op_type.clone();
                let names = kinglet::formats::onnx::operator_names();
                let op = if random.below(2) == 0 { op } else { names[random.below(names.len())].clone() };
                graph.node[random.below(nodes)].op_type = op;
            }
            5 if tensors > 0 => {
                // The same elements under another shape, or numbers that shapes are made of.
                let tensor = &mut graph.initializer[random.below(tensors)];
                match random.below(3) {
                    0 => tensor.dims.insert(0, 1),
                    1 => tensor.dims.reverse(),
                    _ if tensor.data_type == 7 && tensor.raw_data.len() >= 8 => {
                        let mut bytes = tensor.raw_data.to_vec();
                        let at = random.below(bytes.len() / 8) * 8;
                        bytes[at..at + 8].copy_from_slice(&random.number().to_le_bytes());
                        tensor.raw_data = bytes.into();
                    }
                    _ => {}
                }
            }
            _ => {
                use kinglet::proto::onnx::{tensor_shape_proto::dimension, type_proto};
                let inputs = graph.input.len();
                let Some(input) = graph.input.get_mut(random.below(inputs)) else { continue };
                let Some(type_proto::Value::TensorType(tensor)) =
                    input.r#type.as_mut().and_then(|kind| kind.value.as_mut())
                else {
                    continue;
                };
                let dims = tensor.shape.get_or_insert_default();
                let count = dims.dim.len();
                if let Some(dim) = dims.dim.get_mut(random.below(count)) {
                    dim.value = match random.below(3) {
                        0 => None,
                        1 => Some(dimension::Value::DimValue(random.below(9) as i64)),
                        _ => Some(dimension::Value::DimValue(random.number())),
                    };
                }
            }
        }
    }
    model.encode_to_vec()
}

/// Loads the bytes as a model and, where that works, runs it.
fn try_model(file: &Path, bytes: &[u8]) -> bool {
    fs::write(file, bytes).expect("a temporary file");
    let Ok(model) = load(file, &LoadOptions::default()) else { return false };
    let signature = &model.signatures["serving_default"];
    let mut inputs = BTreeMap::new();
    for input in signature.graph.inputs() {
        let dims: Vec<usize> = input.shape.iter().flatten().map(|dim| dim.unwrap_or(2)).collect();
        let elements = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        if elements.is_none_or(|elements| elements > 1 << 16) || input.dtype == DType::String {
            return true;
        }
        let Ok(tensor) = Tensor::zeros(input.dtype, dims) else { return true };
        inputs.insert(input.name.clone(), tensor);
    }
    let _ = run(signature, &inputs);
    true
}

/// Small models of many operators: those of the shared folder, and the node tests where they are there.
fn seeds() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        env::var_os("KINGLET_ONNX_NODES").map(PathBuf::from).into_iter().collect();
    if let Some(shared) = shared() {
        folders.push(shared.join("perf"));
        folders.push(shared.join("models/onnx/digit_cnn"));
    }
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
    let mut files: Vec<PathBuf> = files.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "onnx"));
    files.retain(|path| fs::metadata(path).is_ok_and(|data| data.len() < 300_000));
    files.sort();
    files
}

#[test]
fn damaged_files_are_errors() {
    let seeds: Vec<Vec<u8>> = seeds().iter().map(|path| fs::read(path).expect("a seed")).collect();
    if seeds.is_empty() {
        return;
    }
    let seconds = env::var("KINGLET_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let models: Vec<ModelProto> =
        seeds.iter().filter_map(|bytes| ModelProto::decode(bytes.as_slice()).ok()).collect();
    let end = Instant::now() + Duration::from_secs(seconds);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("model.onnx");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut tried, mut loaded, mut slowest) = (0, 0, Duration::ZERO);
    std::panic::set_hook(Box::new(|_| {}));
    while Instant::now() < end {
        let bytes = match random.below(2) {
            0 => mutated(&seeds[random.below(seeds.len())], &mut random),
            _ => rearranged(&models[random.below(models.len())], &mut random),
        };
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| try_model(&file, &bytes)));
        slowest = slowest.max(start.elapsed());
        tried += 1;
        let keep = |what: &str| -> ! {
            let kept = env::temp_dir().join("kinglet_onnx_damaged.onnx");
            let _ = fs::write(&kept, &bytes);
            panic!("{what}: {} after {tried} files", kept.display())
        };
        match outcome {
            Ok(ran) => loaded += usize::from(ran),
            Err(_) => {
                drop(std::panic::take_hook());
                keep("a panic");
            }
        }
        if start.elapsed() > Duration::from_secs(30) {
            keep("a hang");
        }
    }
    drop(std::panic::take_hook());
    eprintln!("{tried} damaged files in {seconds} s: {loaded} loaded, the slowest took {slowest:?}");
}

#[test]
fn cut_off_files_are_errors() {
    let Some(seed) = seeds().into_iter().find(|path| path.ends_with("iris_mlp.onnx")) else { return };
    let bytes = fs::read(seed).expect("a seed");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("model.onnx");
    for end in 0..bytes.len() {
        try_model(&file, &bytes[..end]);
    }
}

/// The error of a model with this graph.
fn error(graph: GraphProto) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("model.onnx");
    let model = ModelProto { ir_version: 8, graph: Some(graph), ..ModelProto::default() };
    fs::write(&file, model.encode_to_vec()).expect("a temporary file");
    load(&file, &LoadOptions::default()).expect_err("a broken model").to_string()
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    NodeProto { op_type: op.to_owned(), input: names(inputs), output: names(outputs), ..NodeProto::default() }
}

#[test]
fn errors_say_what_is_wrong() {
    let output = |name: &str| vec![ValueInfoProto { name: name.to_owned(), r#type: None }];
    let tensor = |dims: &[i64], location: i32| TensorProto {
        dims: dims.to_vec(),
        data_type: 1,
        name: "w".to_owned(),
        raw_data: bytes::Bytes::from_static(&[0; 4]),
        data_location: location,
        ..TensorProto::default()
    };
    let unknown = GraphProto {
        node: vec![
            node("Frobnicate", &[], &["y"]),
            node("Frobnicate", &["y"], &["z"]),
            node("Grok", &[], &["q"]),
        ],
        output: output("z"),
        ..GraphProto::default()
    };
    assert_eq!(
        error(unknown),
        "the model uses 2 operators that are not supported: Frobnicate (2x, first at y), Grok (1x, first at q)"
    );
    let undefined =
        GraphProto { node: vec![node("Relu", &["x"], &["y"])], output: output("y"), ..GraphProto::default() };
    assert!(error(undefined).starts_with("input \"x\" is not made by any node before this one"));
    for (dims, expected) in [
        (&[i64::MAX, i64::MAX][..], "more elements than memory can hold"),
        (&[1 << 40], "has 4398046511104 bytes, but 4 are given"),
        (&[-1], "dimension -1 is negative"),
    ] {
        let graph =
            GraphProto { initializer: vec![tensor(dims, 0)], output: output("w"), ..GraphProto::default() };
        let found = error(graph);
        assert!(found.contains(expected) || found.contains("too large"), "{found}");
    }
    for location in ["../secret", "/etc/passwd", ""] {
        let entry =
            kinglet::proto::onnx::StringStringEntryProto { key: "location".into(), value: location.into() };
        let weights =
            TensorProto { external_data: vec![entry], raw_data: bytes::Bytes::new(), ..tensor(&[1], 1) };
        let graph = GraphProto { initializer: vec![weights], output: output("w"), ..GraphProto::default() };
        assert!(error(graph).contains("is not beside the model"), "{location}");
    }
}
