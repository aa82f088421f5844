//! The node tests of the package `onnx`, written to a folder by `scripts/onnx_node_tests.py`.
//!
//! A test passes, or says at load or run that something is not supported; a wrong answer or a panic
//! fails. The table by operator stands in docs/OPERATORS.md (`KINGLET_UPDATE=1` writes it).

mod common;

use common::{read_npz, run};
use kinglet::{
    formats::{LoadOptions, load},
    tensor::{DType, Tensor},
};
use std::{
    collections::BTreeMap,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

/// Tests that must pass, of those of onnx 1.23.2. Raise it with what is added.
const FLOOR: usize = 1455;

const START: &str = "<!-- node tests: start -->\n";
const END: &str = "<!-- node tests: end -->\n";

enum Outcome {
    Passed,
    Unsupported(String),
    Wrong(String),
}

/// Numbers for comparison; `None` for what must be equal.
fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect();
    Some(match tensor.dtype() {
        DType::F32 => wide(tensor.as_slice().ok()?),
        DType::F64 => tensor.as_slice().ok()?.to_vec(),
        DType::F16 => tensor.as_slice::<half::f16>().ok()?.iter().map(|value| value.to_f64()).collect(),
        DType::BF16 => tensor.as_slice::<half::bf16>().ok()?.iter().map(|value| value.to_f64()).collect(),
        DType::Complex64 => wide(tensor.as_slice::<[f32; 2]>().ok()?.as_flattened()),
        DType::Complex128 => tensor.as_slice::<[f64; 2]>().ok()?.as_flattened().to_vec(),
        _ => return None,
    })
}

fn compare(expected: &Tensor, found: &Tensor, rtol: f64, atol: f64) -> Result<(), String> {
    if (expected.dtype(), expected.shape()) != (found.dtype(), found.shape()) {
        return Err(format!("expected {expected:?}, found {found:?}"));
    }
    let (Some(a), Some(b)) = (numbers(expected), numbers(found)) else {
        return if expected == found { Ok(()) } else { Err(format!("{expected:?} differs")) };
    };
    // Four roundings of the type itself are no error: functions round between their operators.
    let least = match expected.dtype() {
        DType::F16 => 2e-3,
        DType::BF16 => 16e-3,
        _ => 0.0,
    };
    for (position, (a, b)) in a.iter().zip(&b).enumerate() {
        let same = a == b || (a.is_nan() && b.is_nan());
        if !(same || (a - b).abs() <= atol + rtol.max(least) * a.abs()) {
            return Err(format!("[{position}]: expected {a}, found {b}"));
        }
    }
    Ok(())
}

/// Array with the suffix of its name taken into account.
fn typed(name: &str, tensor: Tensor) -> (String, Tensor) {
    match name.strip_suffix("@bfloat16") {
        None => (name.to_owned(), tensor),
        Some(name) => {
            let data = tensor.buffer().expect("bits").clone();
            (name.to_owned(), Tensor::from_buffer(DType::BF16, tensor.shape().clone(), data).expect("bits"))
        }
    }
}

fn test(model: &Path) -> Outcome {
    if let Ok(reason) = fs::read_to_string(model.with_extension("txt")) {
        return Outcome::Unsupported(format!("the test: {}", reason.trim()));
    }
    let loaded = match load(model, &LoadOptions::default()) {
        Ok(loaded) => loaded,
        Err(error) => return Outcome::Unsupported(error.to_string()),
    };
    let signature = &loaded.signatures["serving_default"];
    let mut sets: BTreeMap<String, [BTreeMap<String, Tensor>; 2]> = BTreeMap::new();
    let mut tolerances = BTreeMap::new();
    for (key, tensor) in read_npz(&model.with_extension("npz")) {
        let (set, rest) = key.split_once('/').expect("a set");
        match rest.split_once('/') {
            None => drop(tolerances.insert(rest.to_owned(), tensor.as_slice::<f64>().expect("a number")[0])),
            Some((side, name)) => {
                let (name, tensor) = typed(name, tensor);
                let set = sets.entry(set.to_owned()).or_default();
                set[usize::from(side == "out")].insert(name, tensor);
            }
        }
    }
    for [inputs, expected] in sets.into_values() {
        let found = match run(signature, &inputs) {
            Ok(found) => found,
            Err(error) => return Outcome::Unsupported(error.to_string()),
        };
        for (name, expected) in &expected {
            let Some(found) = found.get(name) else { return Outcome::Wrong(format!("{name} is missing")) };
            if let Err(problem) = compare(expected, found, tolerances["rtol"], tolerances["atol"]) {
                return Outcome::Wrong(format!("{name}{problem}"));
            }
        }
    }
    Outcome::Passed
}

/// The operator that a test is of, by the nodes of its model: the one that its name has, else the first.
fn operator(model: &Path) -> String {
    use kinglet::proto::onnx::ModelProto;
    use prost::Message;
    let bytes = fs::read(model).expect("a model");
    let model_proto = ModelProto::decode(bytes.as_slice()).expect("a model");
    let nodes = model_proto.graph.map(|graph| graph.node).unwrap_or_default();
    let test: String = name_of(model).chars().filter(char::is_ascii_alphanumeric).collect();
    let of_name = nodes.iter().map(|node| &node.op_type).filter(|op| test.contains(&op.to_ascii_lowercase()));
    let longest = of_name.max_by_key(|op| op.len()).or(nodes.first().map(|node| &node.op_type));
    match longest {
        Some(op) if !name_of(model).contains("_expanded") => op.clone(),
        _ => "(functions written out)".to_owned(),
    }
}

fn name_of(model: &Path) -> String {
    model.file_stem().expect("a name").to_string_lossy().into_owned()
}

#[test]
fn node_tests() {
    let Some(folder) = env::var_os("KINGLET_ONNX_NODES").map(PathBuf::from) else {
        eprintln!("SKIPPED: set KINGLET_ONNX_NODES to what scripts/onnx_node_tests.py wrote");
        return;
    };
    let only = env::var("KINGLET_ONNX_ONLY").unwrap_or_default();
    let entries = fs::read_dir(&folder).expect("the folder of the tests");
    let mut models: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    models.retain(|path| path.extension().is_some_and(|end| end == "onnx") && name_of(path).contains(&only));
    models.sort();
    let (mut table, mut wrong) = (BTreeMap::<String, [usize; 2]>::new(), Vec::new());
    for model in &models {
        let name = name_of(model);
        let outcome = catch_unwind(AssertUnwindSafe(|| test(model)))
            .unwrap_or_else(|_| Outcome::Wrong("a panic".to_owned()));
        let row = table.entry(operator(model)).or_default();
        match outcome {
            Outcome::Passed => row[0] += 1,
            Outcome::Unsupported(reason) => {
                row[1] += 1;
                eprintln!("unsupported {name}: {}", reason.replace('\n', " "));
            }
            Outcome::Wrong(reason) => wrong.push(format!("{name}: {reason}")),
        }
    }
    let count = |column: usize| table.values().map(|row| row[column]).sum::<usize>();
    let (passed, unsupported) = (count(0), count(1));
    eprintln!("{} tests: {passed} passed, {unsupported} unsupported, {} wrong", models.len(), wrong.len());
    assert!(wrong.is_empty(), "wrong answers:\n{}", wrong.join("\n"));
    if only.is_empty() {
        assert!(passed >= FLOOR, "{passed} tests passed, expected at least {FLOOR}");
        update(&table, passed, unsupported);
    }
}

/// Puts the table into docs/OPERATORS.md where that is asked for.
fn update(table: &BTreeMap<String, [usize; 2]>, passed: usize, unsupported: usize) {
    if env::var_os("KINGLET_UPDATE").is_none() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATORS.md");
    let document = fs::read_to_string(&path).expect("the document");
    let (before, rest) = document.split_once(START).expect("the start of the table");
    let (_, after) = rest.split_once(END).expect("the end of the table");
    let mut text = format!(
        "{passed} passed, {unsupported} unsupported, 0 wrong.\n\n\
         | operator | passed | unsupported |\n| --- | --- | --- |\n"
    );
    for (operator, [passed, unsupported]) in table {
        text.push_str(&format!("| {operator} | {passed} | {unsupported} |\n"));
    }
    fs::write(&path, format!("{before}{START}{text}{END}{after}")).expect("docs/ can be written");
}
