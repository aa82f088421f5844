//! Damaged SavedModels: an error, or a graph that runs; no panic, no hang. The graph's file, the index of the variables and
//! the variables are damaged in turn. `KINGLET_FUZZ_SECONDS` prolongs the search.

mod common;
#[path = "support/mutation.rs"]
mod mutation;

use common::{run, shared};
use kinglet::{
    formats::{LoadOptions, LoadedSignature, load},
    proto::tensorflow::{AttrValue, NodeDef, SavedModel, TensorProto, TensorShapeProto, attr_value::Value},
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

/// A model whose files are small.
struct Seed {
    /// A copy that can be written to.
    folder: tempfile::TempDir,
    /// Relative to the folder, with what they hold.
    files: Vec<(PathBuf, Vec<u8>)>,
    model: SavedModel,
}

const MODEL: &str = "saved_model.pb";
/// Bytes of the largest graph and of the largest other file.
const LARGEST: u64 = 400_000;

/// Folders with a `saved_model.pb` below `folder`.
fn models_below(folder: &Path, found: &mut Vec<PathBuf>) {
    if folder.join(MODEL).is_file() {
        found.push(folder.to_owned());
    }
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders.iter().for_each(|folder| models_below(folder, found));
}

fn seed(version: &Path) -> Option<Seed> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut files = Vec::new();
    for part in ["", "variables"] {
        fs::create_dir_all(folder.path().join(part)).expect("a temporary folder");
        for entry in fs::read_dir(version.join(part)).into_iter().flatten().flatten() {
            let path = entry.path();
            let data = fs::metadata(&path).ok()?;
            if data.is_file() {
                let name = PathBuf::from(part).join(entry.file_name());
                let bytes = (data.len() <= LARGEST).then(|| fs::read(&path)).transpose().ok()??;
                fs::write(folder.path().join(&name), &bytes).expect("a temporary file");
                files.push((name, bytes));
            }
        }
    }
    files.retain(|(_, bytes)| !bytes.is_empty());
    files.sort();
    let model = files.iter().find(|(name, _)| name == Path::new(MODEL))?;
    let model = SavedModel::decode(model.1.as_slice()).ok()?;
    Some(Seed { folder, files, model })
}

fn seeds() -> Vec<Seed> {
    let mut versions = Vec::new();
    models_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/saved_models"), &mut versions);
    if let Some(shared) = shared() {
        models_below(&shared.join("models/tfs"), &mut versions);
        models_below(&shared.join("models/saved_model"), &mut versions);
    }
    versions.iter().filter_map(|version| seed(version)).collect()
}

/// All nodes of a model, those of its functions, too.
fn nodes(model: &mut SavedModel) -> Vec<&mut NodeDef> {
    let graphs = model.meta_graphs.iter_mut().filter_map(|meta| meta.graph_def.as_mut());
    let mut found = Vec::new();
    for graph in graphs {
        found.extend(&mut graph.node);
        for function in graph.library.iter_mut().flat_map(|library| &mut library.function) {
            found.extend(&mut function.node_def);
        }
    }
    found
}

fn reshape(shape: &mut TensorShapeProto, random: &mut Random) {
    let count = shape.dim.len();
    match shape.dim.get_mut(random.below(count)) {
        Some(dim) => dim.size = random.number(),
        None => shape.unknown_rank = !shape.unknown_rank,
    }
}

fn rewrite(tensor: &mut TensorProto, random: &mut Random) {
    match random.below(4) {
        0 => reshape(tensor.tensor_shape.get_or_insert_default(), random),
        1 => tensor.dtype = random.below(30) as i32,
        2 => tensor.tensor_content = mutated(&tensor.tensor_content, random).into(),
        _ => {
            tensor.int_val.iter_mut().for_each(|value| *value = random.number() as i32);
            tensor.int64_val.iter_mut().for_each(|value| *value = random.number());
        }
    }
}

fn change(attribute: &mut AttrValue, random: &mut Random) {
    match &mut attribute.value {
        Some(Value::I(value)) => *value = random.number(),
        Some(Value::F(value)) => *value = f32::from_bits(random.next() as u32),
        Some(Value::B(value)) => *value = !*value,
        Some(Value::Type(value)) => *value = random.below(30) as i32,
        Some(Value::S(value)) => *value = mutated(&[&value[..], b"x"].concat(), random).into(),
        Some(Value::Shape(shape)) => reshape(shape, random),
        Some(Value::Tensor(tensor)) => rewrite(tensor, random),
        Some(Value::List(list)) => {
            let numbers = list.i.len();
            match list.i.get_mut(random.below(numbers)) {
                Some(value) if random.below(2) == 0 => *value = random.number(),
                Some(_) => drop(list.i.pop()),
                None => list.i.push(random.number()),
            }
            list.shape.iter_mut().for_each(|shape| reshape(shape, random));
            list.r#type.pop();
        }
        _ => attribute.value = None,
    }
}

/// A model that is well formed, with parts of it exchanged: attributes, constants, inputs, operators, names.
fn rearranged(model: &SavedModel, random: &mut Random) -> Vec<u8> {
    let mut model = model.clone();
    let mut nodes = nodes(&mut model);
    let count = nodes.len();
    for _ in 0..1 + random.below(3) {
        if count == 0 {
            break;
        }
        let other = nodes[random.below(count)].clone();
        let node = &mut nodes[random.below(count)];
        let (attributes, inputs) = (node.attr.len(), node.input.len());
        match random.below(6) {
            0..=2 => {
                if let Some(attribute) = node.attr.values_mut().nth(random.below(attributes)) {
                    change(attribute, random);
                }
            }
            3 => match node.input.get_mut(random.below(inputs)) {
                Some(input) if random.below(2) == 0 => *input = other.name,
                Some(_) => node.input.rotate_left(1),
                None => node.input.push(other.name),
            },
            4 => node.op = other.op,
            _ => {
                node.attr = other.attr;
                drop(node.input.pop());
            }
        }
    }
    model.encode_to_vec()
}

/// Runs a signature on zeros where its inputs are small.
fn try_signature(signature: &LoadedSignature) {
    let mut inputs = BTreeMap::new();
    for input in signature.graph.inputs() {
        let dims: Vec<usize> = input.shape.iter().flatten().map(|dim| dim.unwrap_or(2)).collect();
        let elements = dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        if elements.is_none_or(|elements| elements > 1 << 12) || input.dtype == DType::String {
            return;
        }
        let Ok(tensor) = Tensor::zeros(input.dtype, dims) else { return };
        inputs.insert(input.name.clone(), tensor);
    }
    if signature.inputs.iter().all(|input| inputs.contains_key(&input.name)) {
        let _ = run(signature, &inputs);
    }
}

/// Loads a folder and, where that works, runs what is in it.
fn try_model(folder: &Path) -> bool {
    let Ok(model) = load(folder, &LoadOptions::default()) else { return false };
    model.signatures.values().for_each(try_signature);
    true
}

#[test]
fn damaged_models_are_errors() {
    let seeds = seeds();
    assert!(!seeds.is_empty());
    let seconds = env::var("KINGLET_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut tried, mut loaded, mut slowest) = (0, 0, Duration::ZERO);
    while Instant::now() < end {
        let Seed { folder, files, model } = &seeds[random.below(seeds.len())];
        let (name, good) = &files[random.below(files.len())];
        let (name, good, bad) = match random.below(3) {
            0 => (name, good, mutated(good, &mut random)),
            _ => {
                let file = files.iter().find(|(name, _)| name == Path::new(MODEL));
                let (name, good) = file.expect("a model");
                (name, good, rearranged(model, &mut random))
            }
        };
        let file = folder.path().join(name);
        fs::write(&file, &bad).expect("a temporary file");
        std::panic::set_hook(Box::new(|_| {}));
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| try_model(folder.path())));
        let took = start.elapsed();
        drop(std::panic::take_hook());
        fs::write(&file, good).expect("a temporary file");
        slowest = slowest.max(took);
        tried += 1;
        loaded += usize::from(*outcome.as_ref().unwrap_or(&false));
        if outcome.is_err() || took > Duration::from_secs(30) {
            let kept = env::temp_dir().join("kinglet_saved_model_damaged");
            let _ = fs::create_dir_all(kept.join("variables"));
            for (other, bytes) in files {
                let _ = fs::write(kept.join(other), if other == name { &bad } else { bytes });
            }
            let what = if outcome.is_err() { "a panic" } else { "a hang" };
            panic!("{what}: {} after {tried} models, {} is damaged", kept.display(), name.display());
        }
    }
    eprintln!(
        "{tried} damaged models of {} in {seconds} s: {loaded} loaded, the slowest took {slowest:?}",
        seeds.len()
    );
}
