//! Models made here, good and hostile: each ends in a graph or in one line that says why not.

use crate::{
    formats::{FormatError, LoadOptions, LoadedModel, load},
    graph::{Backend, Cpu, RunOptions},
    kernels::{self, Threads},
    proto::tensorflow::{
        AttrValue, DataType, FunctionDef, FunctionDefLibrary, GraphDef, MetaGraphDef, NameAttrList, NodeDef,
        OpDef, SavedModel, SignatureDef, TensorInfo, TensorProto, TensorShapeProto, attr_value::Value,
        meta_graph_def::MetaInfoDef, op_def::ArgDef, tensor_info::Encoding, tensor_shape_proto::Dim,
    },
    tensor::{Bytes, Tensor},
};
use proptest::prelude::*;
use prost::Message;
use std::{fs, path::Path};

fn node(name: &str, op: &str, inputs: &[&str]) -> NodeDef {
    let input = inputs.iter().map(|input| (*input).to_owned()).collect();
    NodeDef { name: name.to_owned(), op: op.to_owned(), input, ..NodeDef::default() }
}

fn with(mut node: NodeDef, attribute: &str, value: Value) -> NodeDef {
    node.attr.insert(attribute.to_owned(), AttrValue { value: Some(value) });
    node
}

fn call(name: &str, function: &str, inputs: &[&str]) -> NodeDef {
    let function = NameAttrList { name: function.to_owned(), ..NameAttrList::default() };
    with(node(name, "StatefulPartitionedCall", inputs), "f", Value::Func(function))
}

fn constant(name: &str, dims: &[i64], values: &[f32]) -> NodeDef {
    let dim = dims.iter().map(|&size| Dim { size, ..Dim::default() }).collect();
    let tensor = TensorProto {
        dtype: DataType::DtFloat.into(),
        tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }),
        float_val: values.to_vec(),
        ..TensorProto::default()
    };
    with(node(name, "Const", &[]), "value", Value::Tensor(tensor))
}

fn placeholder() -> NodeDef {
    with(node("x", "Placeholder", &[]), "dtype", Value::Type(DataType::DtFloat.into()))
}

/// A function of `x` that returns `result`.
fn function(name: &str, nodes: Vec<NodeDef>, result: &str) -> FunctionDef {
    let argument = |name: &str| ArgDef { name: name.to_owned(), ..ArgDef::default() };
    let signature = OpDef {
        name: name.to_owned(),
        input_arg: vec![argument("x")],
        output_arg: vec![argument("y")],
        ..OpDef::default()
    };
    FunctionDef {
        signature: Some(signature),
        node_def: nodes,
        ret: [("y".to_owned(), result.to_owned())].into(),
        ..FunctionDef::default()
    }
}

/// A model with the signature `serving_default` from `x:0` to `y:0`.
fn model(nodes: Vec<NodeDef>, functions: Vec<FunctionDef>) -> SavedModel {
    let info = |name: &str| TensorInfo {
        encoding: Some(Encoding::Name(name.to_owned())),
        dtype: DataType::DtFloat.into(),
        ..TensorInfo::default()
    };
    let signature = SignatureDef {
        inputs: [("x".to_owned(), info("x:0"))].into(),
        outputs: [("y".to_owned(), info("y:0"))].into(),
        ..SignatureDef::default()
    };
    let meta = MetaGraphDef {
        meta_info_def: Some(MetaInfoDef { tags: vec!["serve".to_owned()], ..MetaInfoDef::default() }),
        graph_def: Some(GraphDef {
            node: nodes,
            library: Some(FunctionDefLibrary { function: functions }),
            ..GraphDef::default()
        }),
        signature_def: [("serving_default".to_owned(), signature)].into(),
        ..MetaGraphDef::default()
    };
    SavedModel { saved_model_schema_version: 1, meta_graphs: vec![meta] }
}

fn load_bytes(bytes: &[u8]) -> Result<LoadedModel, FormatError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("saved_model.pb"), bytes).unwrap();
    load(folder.path(), &LoadOptions::default())
}

fn reason(nodes: Vec<NodeDef>, functions: Vec<FunctionDef>) -> String {
    load_bytes(&model(nodes, functions).encode_to_vec()).unwrap_err().to_string()
}

fn run(model: &LoadedModel, x: &[f32]) -> Vec<f32> {
    let graph = model.signatures["serving_default"].graph.clone();
    let program = Cpu::new(kernels::best(), Threads::single()).compile(graph).unwrap();
    let mut outputs = Vec::new();
    program.run(&[Tensor::from_slice([x.len()], x).unwrap()], &mut outputs, &RunOptions::default()).unwrap();
    outputs[0].as_slice::<f32>().unwrap().to_vec()
}

/// Two levels of calls: y = (x + 1) * 2.
fn good() -> SavedModel {
    let add = vec![constant("one", &[], &[1.0]), node("sum", "AddV2", &["x", "one:output:0"])];
    let twice = vec![
        constant("two", &[], &[2.0]),
        call("inner", "add", &["x"]),
        node("product", "Mul", &["inner:output:0", "two:output:0"]),
    ];
    model(
        vec![placeholder(), call("y", "twice", &["x"])],
        vec![function("add", add, "sum:z:0"), function("twice", twice, "product:z:0")],
    )
}

#[test]
fn functions_are_inlined() {
    let model = load_bytes(&good().encode_to_vec()).unwrap();
    assert_eq!(run(&model, &[1.0, 3.0]), [4.0, 8.0]);
    assert_eq!(model.signatures["serving_default"].graph.nodes().len(), 2);
}

#[test]
fn unknown_operators_are_listed_with_counts() {
    let nodes = vec![
        placeholder(),
        node("a", "Frobnicate", &["x"]),
        node("b", "Frobnicate", &["a"]),
        node("c", "Quux", &["b"]),
        node("y", "Relu", &["c"]),
    ];
    let reason = reason(nodes, vec![]);
    assert!(reason.contains("Frobnicate (2x, first at a), Quux (1x, first at c)"), "{reason}");
}

#[test]
fn cycles_are_errors() {
    let ring = vec![placeholder(), node("a", "AddV2", &["x", "y"]), node("y", "Relu", &["a"])];
    assert!(reason(ring, vec![]).contains("cycle"));
    let itself = function("f", vec![call("again", "f", &["x"])], "again:output:0");
    let calls = vec![placeholder(), call("y", "f", &["x"])];
    assert!(reason(calls.clone(), vec![itself]).contains("calls itself"));
    let pair = vec![
        function("f", vec![call("g", "g", &["x"])], "g:output:0"),
        function("g", vec![call("f", "f", &["x"])], "f:output:0"),
    ];
    assert!(reason(calls, pair).contains("calls itself"));
    // A call whose function passes its argument through, fed by itself.
    let circle = vec![placeholder(), call("y", "f", &["y"])];
    assert!(reason(circle, vec![function("f", vec![], "x")]).contains("circle"));
}

#[test]
fn calls_that_multiply_are_bounded() {
    // Each function calls the next one twice: 2^40 calls in a few hundred bytes.
    let functions = (0..40)
        .map(|level| {
            let next = format!("f{}", level + 1);
            let nodes = vec![
                call("a", &next, &["x"]),
                call("b", &next, &["x"]),
                node("sum", "AddV2", &["a:output:0", "b:output:0"]),
            ];
            function(&format!("f{level}"), nodes, "sum:z:0")
        })
        .chain([function("f40", vec![node("end", "Relu", &["x"])], "end:activations:0")])
        .collect();
    assert!(reason(vec![placeholder(), call("y", "f0", &["x"])], functions).contains("function calls"));
}

fn loop_of_tensorflow_1() -> Vec<NodeDef> {
    let framed = |name: &str, inputs: &[&str]| {
        with(node(name, "Enter", inputs), "frame_name", Value::S(Bytes::from_static(b"loop")))
    };
    vec![
        placeholder(),
        constant("one", &[], &[1.0]),
        constant("ten", &[], &[10.0]),
        framed("enter", &["x"]),
        framed("step", &["one"]),
        framed("end", &["ten"]),
        node("merge", "Merge", &["enter", "next"]),
        node("less", "Less", &["merge", "end"]),
        node("condition", "LoopCond", &["less"]),
        node("switch", "Switch", &["merge", "condition"]),
        node("inside", "Identity", &["switch:1"]),
        node("sum", "AddV2", &["inside", "step"]),
        node("next", "NextIteration", &["sum"]),
        node("y", "Exit", &["switch"]),
    ]
}

#[test]
fn loops_of_tensorflow_1_run() {
    let made = load_bytes(&model(loop_of_tensorflow_1(), vec![]).encode_to_vec()).unwrap();
    let graph = made.signatures["serving_default"].graph.clone();
    let program = Cpu::new(kernels::best(), Threads::single()).compile(graph).unwrap();
    let mut outputs = Vec::new();
    program.run(&[Tensor::scalar(2.5f32)], &mut outputs, &RunOptions::default()).unwrap();
    assert_eq!(outputs[0].as_slice::<f32>().unwrap(), [10.5]);
}

/// Whatever node of a loop is another one, or has other inputs, the model loads or says why not.
#[test]
fn broken_loops_of_tensorflow_1_are_errors() {
    let good = loop_of_tensorflow_1();
    for at in 1..good.len() {
        let mut without = good.clone();
        without.remove(at);
        assert!(load_bytes(&model(without, vec![]).encode_to_vec()).is_err(), "without {}", good[at].name);
        for other in ["Exit", "Merge", "Switch", "Enter", "NextIteration", "LoopCond", "Identity"] {
            let mut changed = good.clone();
            changed[at].op = other.to_owned();
            let _ = load_bytes(&model(changed, vec![]).encode_to_vec());
        }
        for input in ["y", "merge", "switch:1", "next", "^y", "nowhere"] {
            let mut changed = good.clone();
            changed[at].input = vec![input.to_owned(); good[at].input.len().max(1)];
            let _ = load_bytes(&model(changed, vec![]).encode_to_vec());
        }
    }
}

#[test]
fn branches_of_tensorflow_1() {
    let known = |value: bool| {
        let tensor = TensorProto {
            dtype: DataType::DtBool.into(),
            tensor_shape: Some(TensorShapeProto::default()),
            bool_val: vec![value],
            ..TensorProto::default()
        };
        with(node("predicate", "Const", &[]), "value", Value::Tensor(tensor))
    };
    let nodes = |predicate: NodeDef| {
        vec![
            placeholder(),
            predicate,
            node("switch", "Switch", &["x", "predicate"]),
            node("one", "Neg", &["switch:1"]),
            // Never run, so that nobody misses it.
            node("other", "Frobnicate", &["switch"]),
            node("y", "Merge", &["other", "one"]),
        ]
    };
    let made = load_bytes(&model(nodes(known(true)), vec![]).encode_to_vec()).unwrap();
    assert_eq!(run(&made, &[2.0]), [-2.0]);
    assert!(reason(nodes(known(false)), vec![]).contains("Frobnicate (1x, first at other)"));
}

#[test]
fn constants_may_not_claim_more_than_memory() {
    let nodes = |dims: &[i64]| {
        vec![placeholder(), constant("huge", dims, &[1.0]), node("y", "AddV2", &["x", "huge"])]
    };
    assert!(reason(nodes(&[1_000_000_000, 1_000]), vec![]).contains("memory"));
    assert!(reason(nodes(&[-1]), vec![]).contains("shape"));
}

#[test]
fn names_that_are_not_there_are_told() {
    assert!(reason(vec![placeholder()], vec![]).contains("y:0"));
    assert!(reason(vec![placeholder(), node("y", "Relu", &["z"])], vec![]).contains("z"));
    assert!(reason(vec![placeholder(), call("y", "f", &["x"])], vec![]).contains("not defined"));
    assert!(reason(vec![placeholder(), node("y", "Relu", &[])], vec![]).contains("input 0 is missing"));
}

#[test]
fn a_folder_without_a_model_is_not_found() {
    let error = load(Path::new("/nonexistent"), &LoadOptions::default()).unwrap_err();
    assert!(matches!(error, FormatError::NotFound(_)));
    assert!(load_bytes(b"\xff\xff\xff").unwrap_err().to_string().contains("not a SavedModel"));
    assert!(load_bytes(b"").unwrap_err().to_string().contains("the file has none"));
}

proptest! {
    #[test]
    fn mutated_and_truncated_files_end_in_an_answer(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        len: prop::sample::Index,
        cut: bool,
    ) {
        let mut bytes = good().encode_to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(len.index(bytes.len()));
        }
        let _ = load_bytes(&bytes);
    }
}
