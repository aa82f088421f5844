//! Models written by hand, computed by hand.

use super::*;
use crate::{
    formats::LoadedSignature,
    graph::{Backend, Cpu, RunOptions},
    kernels::{Threads, best},
    ops::Op,
    tensor::{Bytes, DType, Tensor},
};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc};

/// `y = relu(x w + b)`, the smallest network.
const DENSE: &str = r#"{
  "format": "kinglet/1",
  "constants": {"dense/bias": {"dtype": "float", "data": [0.5, -100]}},
  "signatures": {
    "serving_default": {
      "inputs": {"x": {"dtype": "float", "shape": [null, 3]}},
      "outputs": {"y": {"dtype": "float", "shape": [null, 2]}},
      "nodes": [
        {"op": "MatMul", "inputs": ["x", "dense/kernel", "dense/bias"], "outputs": ["h"], "bias": true},
        {"op": "Relu", "inputs": ["h"], "outputs": ["y"]}
      ]
    }
  }
}"#;

fn weights() -> Buffer {
    let kernel = Tensor::from_slice([3, 2], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(WEIGHTS_FILE);
    weights::write(&BTreeMap::from([("dense/kernel".to_owned(), kernel)]), None, &path).unwrap();
    Buffer::map_file(&path).unwrap()
}

fn parse(text: &str) -> Result<LoadedModel, FormatError> {
    load_parts(Path::new("m/1"), text, Some(weights()))
}

fn run(signature: &LoadedSignature, inputs: &[Tensor]) -> Vec<Tensor> {
    let program = Cpu::new(best(), Threads::single()).compile(signature.graph.clone()).unwrap();
    let mut outputs = Vec::new();
    program.run(inputs, &mut outputs, &RunOptions::default()).unwrap();
    outputs
}

#[test]
fn a_dense_layer() {
    let model = parse(DENSE).unwrap();
    let signature = &model.signatures["serving_default"];
    let x = Tensor::from_slice([2, 3], &[1.0f32, 0.0, 0.0, 0.0, 10.0, 20.0]).unwrap();
    let y = run(signature, &[x]);
    // [1 2] + b, then [30 40] + [100 120] + b.
    assert_eq!(y[0], Tensor::from_slice([2, 2], &[1.5f32, 0.0, 130.5, 60.0]).unwrap());
    assert_eq!(signature.definition.method_name, "tensorflow/serving/predict");
    assert_eq!(signature.definition.inputs["x"].dtype, 1);
    assert_eq!((signature.inputs[0].tensor.as_str(), signature.outputs[0].tensor.as_str()), ("x:0", "y:0"));
    assert_eq!(model.weight_bytes, 4 * (6 + 2));
}

#[test]
fn mistakes_are_told_with_their_place() {
    let change = |from: &str, to: &str| {
        assert!(DENSE.contains(from), "{from}");
        parse(&DENSE.replacen(from, to, 1)).unwrap_err().to_string()
    };
    for (from, to, expected) in [
        (
            "kinglet/1",
            "kinglet/9",
            "m/1/model.json: the format is \"kinglet/9\", but this version of kinglet reads \"kinglet/1\"",
        ),
        ("\"signatures\": {", "\"signature\": {", "unknown field `signature`"),
        ("]}},", "]}", "at line 4 column"),
        (
            "Relu",
            "Rel",
            "the model uses 1 operator that is not supported: Rel (1x, first at signatures.serving_default.nodes[1])",
        ),
        (
            "[\"h\"], \"outputs\"",
            "[\"g\"], \"outputs\"",
            "signatures.serving_default.nodes[1] (Relu): it reads \"g\", but no input",
        ),
        ("[\"x\", ", "[\"y\", ", "nodes[0] (MatMul): it reads \"y\", which only nodes[1] computes"),
        ("[\"h\"], \"outputs\"", "[\"y\"], \"outputs\"", "nodes[1] (Relu): it reads its own output \"y\""),
        ("\"outputs\": [\"h\"]", "\"outputs\": [\"x\"]", "\"x\" is already the name of another value"),
        (
            "\"outputs\": [\"h\"]",
            "\"outputs\": [\"dense/kernel\"]",
            "already the name of a constant or of a tensor",
        ),
        ("\"outputs\": [\"h\"]", "\"outputs\": []", "nodes[0] (MatMul): it has no outputs"),
        ("\"outputs\": {\"y\"", "\"outputs\": {\"z\"", "outputs.z: no input, node or tensor is called \"z\""),
        ("\"bias\": true", "\"bais\": true", "nodes[0] (MatMul): it has no attribute \"bais\""),
        ("\"dtype\": \"float\", \"shape\": [null, 3]", "\"dtype\": \"f32\"", "unknown dtype `f32`"),
        ("{\"x\":", "{\"x\": {\"dtype\": \"float\"}, \"x\":", "\"x\" is there twice"),
        (
            "dense/bias\": {",
            "dense/kernel\": {",
            "constants.dense/kernel: the weights file has a tensor of that name too",
        ),
        (
            "\"Relu\", \"inputs\": [\"h\"]",
            "\"ReadState\", \"cell\": 0, \"dtype\": \"float\", \"shape\": []",
            "there is no variable 0",
        ),
    ] {
        let error = change(from, to);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_saved_model_is_the_same_model() {
    let text = DENSE.replace(
        "\"serving_default\": {",
        r#""names": {
            "inputs": {"id": {"dtype": "int64", "shape": [null], "tensor": "id:7", "default": {"dtype": "int64", "data": [3]}}},
            "outputs": {"same": {"dtype": "int64", "value": "id"}, "label": {"dtype": "string", "value": "text"}},
            "nodes": []
        },
        "serving_default": {"method": "m","#,
    );
    let text = text
        .replace("\"constants\": {", r#""constants": {"text": {"dtype": "string", "data": ["a", "é"]}, "#);
    let model = parse(&text).unwrap();
    let folder = tempfile::tempdir().unwrap();
    save(&model, folder.path(), None).unwrap();
    let again = load(folder.path()).unwrap();
    assert_eq!(again.weight_bytes, model.weight_bytes);
    for (name, signature) in &model.signatures {
        let copy = &again.signatures[name];
        assert_eq!(copy.definition, signature.definition, "{name}");
        assert_eq!((&copy.inputs, &copy.outputs), (&signature.inputs, &signature.outputs));
        assert_eq!(copy.defaults, signature.defaults);
        let ops = |signature: &LoadedSignature| -> Vec<Op> {
            signature.graph.nodes().iter().map(|node| node.op.clone()).collect()
        };
        assert_eq!(ops(copy), ops(signature));
    }
    let x = Tensor::from_slice([1, 3], &[0.1f32, 0.2, 0.3]).unwrap();
    let default = |model: &LoadedModel| run(&model.signatures["serving_default"], &[x.clone()]);
    assert_eq!(default(&again), default(&model));
    let labels = run(&again.signatures["names"], &[Tensor::from_slice([1], &[5i64]).unwrap()]);
    let strings = vec![Bytes::from_static(b"a"), Bytes::from_static("é".as_bytes())];
    assert_eq!(
        labels,
        [Tensor::from_strings([2], strings).unwrap(), Tensor::from_slice([1], &[5i64]).unwrap()]
    );
    // A second round writes the same bytes.
    let second = tempfile::tempdir().unwrap();
    save(&again, second.path(), None).unwrap();
    for file in [MODEL_FILE, WEIGHTS_FILE] {
        assert_eq!(fs::read(folder.path().join(file)).unwrap(), fs::read(second.path().join(file)).unwrap());
    }
}

#[test]
fn variables_are_shared_by_signatures() {
    let signature = |node: &str| {
        format!(r#"{{"inputs": {{}}, "outputs": {{"y": {{"dtype": "float"}}}}, "nodes": [{node}]}}"#)
    };
    let read =
        signature(r#"{"op": "ReadState", "cell": 0, "dtype": "float", "shape": [], "outputs": ["y"]}"#);
    let add = signature(
        r#"{"op": "AssignState", "cell": 0, "assignment": "Add", "inputs": ["two"], "outputs": ["y"]}"#,
    );
    let text = format!(
        r#"{{"format": "kinglet/1", "variables": ["count"],
            "constants": {{"count": {{"dtype": "float", "data": 1}}, "two": {{"dtype": "float", "data": 2}}}},
            "signatures": {{"read": {read}, "add": {add}}}}}"#
    );
    let model = load_parts(Path::new("m/1"), &text, None).unwrap();
    assert_eq!(run(&model.signatures["add"], &[]), [Tensor::scalar(3.0f32)]);
    assert_eq!(run(&model.signatures["read"], &[]), [Tensor::scalar(3.0f32)]);
    let folder = tempfile::tempdir().unwrap();
    save(&model, folder.path(), None).unwrap();
    assert_eq!(run(&load(folder.path()).unwrap().signatures["add"], &[]), [Tensor::scalar(5.0f32)]);
}

/// Doubles `x` until it is above `limit`, and counts: 3 -> 6 -> 12 -> 24.
const LOOP: &str = r#"{
  "format": "kinglet/1",
  "constants": {"limit": {"dtype": "float", "data": 20}, "one": {"dtype": "int32", "data": 1}},
  "graphs": {
    "below": {
      "inputs": [{"name": "x", "dtype": "float"}, {"name": "n", "dtype": "int32"}],
      "outputs": ["y"],
      "nodes": [{"op": "Less", "inputs": ["x", "limit"], "outputs": ["y"]}]
    },
    "step": {
      "inputs": [{"name": "x", "dtype": "float"}, {"name": "n", "dtype": "int32"}],
      "outputs": ["y", "m"],
      "nodes": [
        {"op": "Add", "inputs": ["x", "x"], "outputs": ["y"]},
        {"op": "Add", "inputs": ["n", "one"], "outputs": ["m"]}
      ]
    }
  },
  "signatures": {
    "info": {"callable": false, "inputs": {}, "outputs": {"done": {"dtype": null, "tensor": "op"}}},
    "serving_default": {
      "inputs": {"x": {"dtype": "float", "shape": []}, "n": {"dtype": "int32", "shape": []}},
      "outputs": {"y": {"dtype": "float"}, "m": {"dtype": "int32"}},
      "nodes": [{"op": "While", "condition": "below", "body": "step", "inputs": ["x", "n"], "outputs": ["y", "m"]}]
    }
  }
}"#;

#[test]
fn loops_run_graphs_of_the_file() {
    let model = load_parts(Path::new("m/1"), LOOP, None).unwrap();
    let inputs = [Tensor::scalar(0i32), Tensor::scalar(3.0f32)];
    let expected = [Tensor::scalar(3i32), Tensor::scalar(24.0f32)];
    assert_eq!(run(&model.signatures["serving_default"], &inputs), expected);
    assert_eq!(model.definitions["info"].outputs["done"].dtype, 0);
    let folder = tempfile::tempdir().unwrap();
    save(&model, folder.path(), None).unwrap();
    let again = load(folder.path()).unwrap();
    assert_eq!(again.definitions, model.definitions);
    assert_eq!(run(&again.signatures["serving_default"], &inputs), expected);
}

#[test]
fn graphs_with_mistakes_are_refused() {
    for (from, to, expected) in [
        ("\"body\": \"step\"", "\"body\": \"stop\"", "\"graphs\" has no \"stop\""),
        ("\"op\": \"Less\"", "\"op\": \"Lesser\"", "Lesser (1x, first at graphs.below.nodes[0])"),
        ("[\"x\", \"limit\"]", "[\"z\", \"limit\"]", "graphs.below.nodes[0] (Less): it reads \"z\""),
        ("\"outputs\": [\"y\", \"m\"],", "\"outputs\": [\"y\", \"k\"],", "graphs.step.outputs: no input"),
        (
            "{\"op\": \"Add\", \"inputs\": [\"x\", \"x\"], \"outputs\": [\"y\"]}",
            r#"{"op": "If", "then_branch": "step", "else_branch": "step", "inputs": ["one", "x", "n"], "outputs": ["y"]}"#,
            "graph \"step\" contains itself",
        ),
        (
            "\"callable\": false,",
            "\"callable\": false, \"nodes\": [{\"op\": \"Add\", \"outputs\": []}],",
            "signatures.info.nodes",
        ),
    ] {
        assert!(LOOP.contains(from), "{from}");
        let error = load_parts(Path::new("m/1"), &LOOP.replacen(from, to, 1), None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn changed_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let numbers: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let stored =
        format!("\"constants\": {{\"big\": {{\"dtype\": \"float\", \"data\": [{}]}}, ", numbers.join(", "));
    let text = DENSE.replace("\"constants\": {", &stored);
    let text = text.replace("\"outputs\": {", "\"outputs\": {\"big\": {\"dtype\": \"float\"}, ");
    save(&parse(&text).unwrap(), folder.path(), None).unwrap();
    let [model, weights] = [MODEL_FILE, WEIGHTS_FILE].map(|name| folder.path().join(name));
    let (text, bytes) = (fs::read(&model).unwrap(), fs::read(&weights).unwrap());
    let refused = |expected: &str| {
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    fs::write(&model, String::from_utf8(text.clone()).unwrap().replace("-100", "-101")).unwrap();
    refused("not the text that the weights beside it were written with");
    fs::write(&model, &text).unwrap();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&weights, &changed).unwrap();
    refused("model.safetensors: the tensors are not those that were written");
    fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    refused("is it truncated?");
    fs::write(&weights, &bytes[..0]).unwrap();
    refused("too few");
    fs::write(&weights, &bytes).unwrap();
    fs::write(&model, &text[..text.len() - 2]).unwrap();
    assert!(load(folder.path()).is_err());
    fs::write(&model, &text).unwrap();
    assert!(load(folder.path()).is_ok());
}

#[test]
fn a_folder_without_model_is_named() {
    let folder = tempfile::tempdir().unwrap();
    assert!(!is_model(folder.path()));
    assert!(matches!(load(folder.path()), Err(FormatError::NotFound(path)) if path == folder.path()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_text_panics(position in 0..DENSE.len(), len in 0usize..40, insert in "[\\[\\]{}\",:0-9a-z ]{0,12}") {
        let mut bytes = DENSE.as_bytes().to_vec();
        let end = (position + len).min(bytes.len());
        bytes.splice(position..end, insert.bytes());
        if let Ok(model) = parse(&String::from_utf8_lossy(&bytes)) {
            let graph: Arc<_> = model.signatures.into_values().next().unwrap().graph;
            let program = Cpu::new(best(), Threads::single()).compile(graph.clone()).unwrap();
            let inputs: Vec<Tensor> =
                graph.inputs().iter().map(|input| Tensor::zeros(input.dtype, [1, 3]).unwrap()).collect();
            let _ = program.run(&inputs, &mut Vec::new(), &RunOptions::default());
        }
    }

    #[test]
    fn no_graphs_panic(position in 0..LOOP.len(), len in 0usize..40, insert in "[\\[\\]{}\",:0-9a-z ]{0,12}") {
        let mut bytes = LOOP.as_bytes().to_vec();
        let end = (position + len).min(bytes.len());
        bytes.splice(position..end, insert.bytes());
        let _ = load_parts(Path::new("m/1"), &String::from_utf8_lossy(&bytes), None);
    }

    #[test]
    fn deep_nesting_is_refused(depth in 100usize..20_000) {
        let data = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let text = DENSE.replace("[0.5, -100]", &data);
        let _ = parse(&text);
    }
}

#[test]
fn dtypes_without_a_place_in_the_file_are_refused() {
    assert!(!weights::can_hold(DType::String));
    assert!(!weights::can_hold(DType::Complex128));
}

/// The example of docs/FORMAT.md is a model: equal logits make equal probabilities.
#[test]
fn the_documented_example_runs() {
    let guide = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/FORMAT.md")).unwrap();
    let text = guide.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let tensors = [("w1", &[4, 5][..]), ("b1", &[5]), ("w2", &[5, 3]), ("b2", &[3])];
    let tensors = tensors.map(|(name, dims)| (name.to_owned(), Tensor::zeros(DType::F32, dims).unwrap()));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(MODEL_FILE), text).unwrap();
    weights::write(&BTreeMap::from(tensors), None, &folder.path().join(WEIGHTS_FILE)).unwrap();
    let model = load(folder.path()).unwrap();
    let x = Tensor::from_slice([1, 4], &[1.0f32, 2.0, 3.0, 4.0]).unwrap();
    let probabilities = run(&model.signatures["serving_default"], &[x]);
    for p in probabilities[0].as_slice::<f32>().unwrap() {
        assert!((p - 1.0 / 3.0).abs() < 1e-6);
    }
}
