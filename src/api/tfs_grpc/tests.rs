//! The surface over servables with fake programs. Requests and responses are made and read with the
//! generated messages, which the code under test does not use for what carries tensors.

use super::*;
use crate::{
    api::tensor_proto::Form,
    models::{
        Code,
        fakes::{self, Returns},
    },
    proto::{
        grpc::{health::*, reflection::*},
        tensorflow::{
            DataType, Example, Feature, Features, FloatList, TensorProto, TensorShapeProto,
            feature::Kind,
            serving::{model_spec::VersionChoice, *},
            tensor_shape_proto::Dim,
        },
    },
    tensor::{DType, Tensor},
};
use proptest::prelude::*;
use prost_types::FileDescriptorProto;
use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";
const CLASSIFY: &str = "/tensorflow.serving.PredictionService/Classify";
const REGRESS: &str = "/tensorflow.serving.PredictionService/Regress";
const MULTI: &str = "/tensorflow.serving.PredictionService/MultiInference";
const METADATA: &str = "/tensorflow.serving.PredictionService/GetModelMetadata";
const STATUS: &str = "/tensorflow.serving.ModelService/GetModelStatus";
const RELOAD: &str = "/tensorflow.serving.ModelService/HandleReloadConfigRequest";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// Model `m`, version 7: `serving_default` x -> y = x; `echo` text -> text; `regress` gives the
/// bytes of each Example as a number, `classify` the same as a score.
fn registry() -> Arc<Registry> {
    let lengths = |shape: fn(usize) -> Vec<usize>| {
        Returns::from_fn(move |inputs| {
            let lengths: Vec<f32> =
                inputs[0].as_strings().unwrap().iter().map(|text| text.len() as f32).collect();
            Ok(vec![Tensor::from_slice(shape(lengths.len()), &lengths).unwrap()])
        })
    };
    let strings = [("inputs", "tf_example:0", DType::String)];
    let registry = Registry::new();
    registry.publish(fakes::servable(
        "m",
        7,
        [
            fakes::signature(
                "serving_default",
                &[("x", "x:0", DType::F32)],
                &[("y", "y:0", DType::F32)],
                Returns::inputs(),
            ),
            fakes::signature(
                "echo",
                &[("text", "text:0", DType::String)],
                &[("text", "text:0", DType::String)],
                Returns::inputs(),
            ),
            fakes::signature("regress", &strings, &[("outputs", "y:0", DType::F32)], lengths(|n| vec![n])),
            fakes::signature("classify", &strings, &[("scores", "y:0", DType::F32)], lengths(|n| vec![n, 1])),
        ],
    ));
    Arc::new(registry)
}

fn surface() -> TfsGrpc {
    TfsGrpc::new(registry(), None, Options { request_memory: 1 << 20, ..Options::default() })
}

fn call<Q: Message, R: Message + Default>(path: &str, request: &Q) -> Result<R, (Code, String)> {
    let message = request.encode_to_vec().into();
    let answer = surface().call(path, message, &Patience::default());
    answer.map(|bytes| R::decode(bytes).unwrap()).map_err(|error| (error.code, error.message.into_owned()))
}

fn spec(name: &str, signature: &str) -> Option<ModelSpec> {
    Some(ModelSpec { name: name.into(), signature_name: signature.into(), version_choice: None })
}

fn version(choice: VersionChoice) -> Option<ModelSpec> {
    Some(ModelSpec { version_choice: Some(choice), ..spec("m", "").unwrap() })
}

fn answered(signature: &str) -> Option<ModelSpec> {
    Some(ModelSpec { version_choice: Some(VersionChoice::Version(7)), ..spec("m", signature).unwrap() })
}

fn floats(values: &[f32], dims: &[i64]) -> TensorProto {
    let dim = dims.iter().map(|&size| Dim { size, name: String::new() }).collect();
    TensorProto {
        dtype: DataType::DtFloat as i32,
        tensor_shape: Some(TensorShapeProto { dim, unknown_rank: false }),
        float_val: values.to_vec(),
        ..TensorProto::default()
    }
}

fn predict_request(model_spec: Option<ModelSpec>, inputs: &[(&str, TensorProto)]) -> PredictRequest {
    let inputs = inputs.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect();
    PredictRequest { model_spec, inputs, ..PredictRequest::default() }
}

fn predict(request: &PredictRequest) -> Result<PredictResponse, (Code, String)> {
    call(PREDICT, request)
}

fn example(value: f32) -> Example {
    let kind = Some(Kind::FloatList(FloatList { value: vec![value] }));
    Example { features: Some(Features { feature: [("x".to_owned(), Feature { kind })].into() }) }
}

fn examples(list: Vec<Example>) -> Option<Input> {
    Some(Input { kind: Some(input::Kind::ExampleList(ExampleList { examples: list })) })
}

fn invalid<T>(message: &str) -> Result<T, (Code, String)> {
    Err((Code::InvalidArgument, message.to_owned()))
}

#[test]
fn predict_answers_with_lists_and_the_resolved_model() {
    let request = predict_request(spec("m", ""), &[("x", floats(&[1.0, 2.0], &[2]))]);
    let response = predict(&request).unwrap();
    assert_eq!(response.model_spec, answered("serving_default"));
    assert_eq!(response.outputs, [("y".to_owned(), floats(&[1.0, 2.0], &[2]))].into());
}

#[test]
fn predict_answers_with_content_when_told_to() {
    let options = Options { form: Form::Content, ..Options::default() };
    let surface = TfsGrpc::new(registry(), None, options);
    let request = predict_request(spec("m", ""), &[("x", floats(&[1.0], &[1]))]);
    let bytes = surface.call(PREDICT, request.encode_to_vec().into(), &Patience::default()).unwrap();
    let response = PredictResponse::decode(bytes).unwrap();
    assert_eq!(response.outputs["y"].tensor_content, &[0, 0, 0x80, 0x3f][..]);
    assert!(response.outputs["y"].float_val.is_empty());
}

// The table of situations, codes and texts in TensorFlow Serving.
#[test]
fn predict_refuses_with_tensorflow_servings_texts() {
    let x = || floats(&[1.0], &[1]);
    let with = |model_spec| predict(&predict_request(model_spec, &[("x", x())]));
    assert_eq!(with(None), invalid("Missing ModelSpec"));
    assert_eq!(with(spec("", "")), invalid("ModelSpec has no name specified."));
    let missing = |text: &str| Err((Code::NotFound, format!("Servable not found for request: {text}")));
    assert_eq!(with(spec("n", "")), missing("Latest(n)"));
    assert_eq!(with(version(VersionChoice::Version(9))), missing("Specific(m, 9)"));
    assert_eq!(
        with(version(VersionChoice::VersionLabel("L".into()))),
        invalid("Unrecognized servable version label: L")
    );
    assert_eq!(
        with(spec("m", "X")),
        Err((Code::FailedPrecondition, "Serving signature key \"X\" not found.".into()))
    );
    let bad = TensorProto { tensor_content: "abc".into(), ..x() };
    let undecodable = |name| predict(&predict_request(spec("m", ""), &[(name, bad.clone())]));
    assert_eq!(undecodable("x"), invalid("tensor parsing error: x"));
    // An alias that is not in the signature is not looked into.
    assert_eq!(
        undecodable("q"),
        invalid(
            "Signature input alias: x(feed name: x:0) not found in request and no default value provided. \
             Inputs expected to be in the request {q}, or default input alias set: "
        )
    );
    let text = TensorProto { dtype: DataType::DtString as i32, ..x() };
    assert_eq!(
        predict(&predict_request(spec("m", ""), &[("x", text)])),
        invalid("Expects arg[0] to be float but string is provided")
    );
    let filtered =
        PredictRequest { output_filter: vec!["q".into()], ..predict_request(spec("m", ""), &[("x", x())]) };
    assert_eq!(
        predict(&filtered),
        invalid("output tensor alias not found in signature: q Outputs expected to be in the set {y}.")
    );
}

#[test]
fn a_shape_cannot_claim_more_than_the_limit() {
    let claim = floats(&[1.0], &[1 << 30]);
    let refused = predict(&predict_request(spec("m", ""), &[("x", claim)]));
    assert_eq!(refused, invalid("tensor parsing error: x"));
}

#[test]
fn a_passed_deadline_is_an_error() {
    let patience = Patience::until(Instant::now().checked_sub(Duration::from_secs(1)));
    let request = predict_request(spec("m", ""), &[("x", floats(&[1.0], &[1]))]);
    let error = surface().call(PREDICT, request.encode_to_vec().into(), &patience).unwrap_err();
    assert_eq!(error.code, Code::DeadlineExceeded);
    let patience = Patience { cancelled: Some(Arc::new(true.into())), ..Patience::default() };
    let error = surface().call(PREDICT, request.encode_to_vec().into(), &patience).unwrap_err();
    assert_eq!(error.code, Code::Cancelled);
}

#[test]
fn regress_feeds_serialized_examples() {
    let list = vec![example(1.0), Example::default()];
    let lengths: Vec<f32> = list.iter().map(|example| example.encoded_len() as f32).collect();
    let request = RegressionRequest { model_spec: spec("m", "regress"), input: examples(list) };
    let response: RegressionResponse = call(REGRESS, &request).unwrap();
    let values: Vec<f32> = response.result.unwrap().regressions.iter().map(|one| one.value).collect();
    assert_eq!(values, lengths);
    assert_eq!(response.model_spec, answered("regress"));
}

#[test]
fn context_goes_before_each_example() {
    let (context, first) = (example(5.0), example(1.0));
    let length = (context.encoded_len() + first.encoded_len()) as f32;
    let list = ExampleListWithContext { examples: vec![first], context: Some(context) };
    let request = ClassificationRequest {
        model_spec: spec("m", "classify"),
        input: Some(Input { kind: Some(input::Kind::ExampleListWithContext(list)) }),
    };
    let response: ClassificationResponse = call(CLASSIFY, &request).unwrap();
    let result = response.result.unwrap();
    assert_eq!(result.classifications[0].classes, [Class { label: String::new(), score: length }]);
    assert_eq!(response.model_spec, answered("classify"));
}

#[test]
fn a_context_cannot_multiply_without_limit() {
    let context = Example { features: Some(example(0.0).features.unwrap()) };
    let mut wide = context.clone();
    let list = vec![0.0; 1000];
    let kind = Some(Kind::FloatList(FloatList { value: list }));
    wide.features.as_mut().unwrap().feature.insert("wide".into(), Feature { kind });
    let list = ExampleListWithContext { examples: vec![Example::default(); 5000], context: Some(wide) };
    let request = RegressionRequest {
        model_spec: spec("m", "regress"),
        input: Some(Input { kind: Some(input::Kind::ExampleListWithContext(list)) }),
    };
    let refused = call::<_, RegressionResponse>(REGRESS, &request).unwrap_err();
    assert_eq!(refused.0, Code::ResourceExhausted, "{}", refused.1);
}

#[test]
fn examples_are_refused_with_tensorflow_servings_texts() {
    let regress = |signature: &str, input| {
        call::<_, RegressionResponse>(REGRESS, &RegressionRequest { model_spec: spec("m", signature), input })
    };
    assert_eq!(regress("regress", None), invalid("Input is empty."));
    assert_eq!(regress("regress", examples(Vec::new())), invalid("Input is empty."));
    assert_eq!(regress("X", None), invalid("No signature was found with the name: X"));
    let nameless = RegressionRequest { model_spec: None, input: None };
    assert_eq!(call::<_, RegressionResponse>(REGRESS, &nameless), invalid("Missing ModelSpec"));
}

#[test]
fn multi_inference_answers_each_task() {
    let task = |name: &str, signature: &str, method: &str| InferenceTask {
        model_spec: spec(name, signature),
        method_name: format!("tensorflow/serving/{method}"),
    };
    let run = |tasks| {
        let request = MultiInferenceRequest { tasks, input: examples(vec![Example::default()]) };
        call::<_, MultiInferenceResponse>(MULTI, &request)
    };
    let response = run(vec![task("m", "classify", "classify"), task("m", "regress", "regress")]).unwrap();
    let specs: Vec<_> = response.results.iter().map(|result| result.model_spec.clone()).collect();
    assert_eq!(specs, [answered("classify"), answered("regress")]);
    let Some(inference_result::Result::RegressionResult(values)) = &response.results[1].result else {
        panic!("{response:?}")
    };
    assert_eq!(values.regressions, [Regression { value: 0.0 }]);
    assert_eq!(run(Vec::new()), invalid("ModelSpec has no name specified."));
    assert_eq!(
        run(vec![task("m", "regress", "regress"), task("n", "regress", "regress")]),
        invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
    );
    assert_eq!(
        run(vec![task("m", "regress", "predict")]),
        Err((Code::Unimplemented, "Unsupported signature method_name: tensorflow/serving/predict".into()))
    );
}

#[test]
fn metadata_is_a_packed_map_of_signatures() {
    let ask = |model_spec, fields: &[&str]| {
        let metadata_field = fields.iter().map(|&field| field.to_owned()).collect();
        call::<_, GetModelMetadataResponse>(METADATA, &GetModelMetadataRequest { model_spec, metadata_field })
    };
    let response = ask(spec("m", "ignored"), &["signature_def"]).unwrap();
    assert_eq!(response.model_spec, answered(""));
    let any = &response.metadata["signature_def"];
    assert_eq!(any.type_url, "type.googleapis.com/tensorflow.serving.SignatureDefMap");
    let map = SignatureDefMap::decode(&any.value[..]).unwrap().signature_def;
    assert_eq!(map.keys().collect::<Vec<_>>(), ["classify", "echo", "regress", "serving_default"]);
    assert_eq!(map["serving_default"].inputs["x"].dtype, DataType::DtFloat as i32);
    assert_eq!(
        ask(spec("m", ""), &[]),
        invalid("GetModelMetadataRequest must specify at least one metadata_field")
    );
    assert_eq!(ask(spec("m", ""), &["init"]), invalid("Metadata field init is not supported"));
    assert_eq!(ask(None, &["signature_def"]), invalid("Missing ModelSpec"));
    assert_eq!(
        ask(spec("n", ""), &["signature_def"]),
        Err((Code::NotFound, "Servable not found for request: Latest(n)".into()))
    );
}

#[test]
fn status_lists_versions() {
    let ask = |model_spec| call::<_, GetModelStatusResponse>(STATUS, &GetModelStatusRequest { model_spec });
    let available = ModelVersionStatus {
        version: 7,
        state: model_version_status::State::Available as i32,
        status: Some(StatusProto::default()),
    };
    let all = GetModelStatusResponse { model_version_status: vec![available] };
    assert_eq!(ask(spec("m", "")), Ok(all.clone()));
    assert_eq!(ask(version(VersionChoice::VersionLabel("any".into()))), Ok(all));
    assert_eq!(
        ask(version(VersionChoice::Version(9))),
        Err((Code::NotFound, "Could not find version 9 of model m".into()))
    );
    assert_eq!(ask(spec("n", "")), Err((Code::NotFound, "Could not find any versions of model n".into())));
    assert_eq!(ask(None), invalid("Missing ModelSpec"));
}

#[derive(Default)]
struct Admin(Mutex<Vec<ModelServerConfig>>);

impl ModelAdmin for Admin {
    fn reload(&self, config: ModelServerConfig, _: &Patience) -> Result<(), Error> {
        self.0.lock().unwrap().push(config);
        Ok(())
    }
}

#[test]
fn a_new_configuration_reaches_the_admin() {
    let admin = Arc::new(Admin::default());
    let surface = TfsGrpc::new(registry(), Some(admin.clone()), Options::default());
    let list = ModelConfigList { config: vec![ModelConfig { name: "m".into(), ..ModelConfig::default() }] };
    let config = ModelServerConfig { config: Some(model_server_config::Config::ModelConfigList(list)) };
    let request = ReloadConfigRequest { config: Some(config.clone()), metric_names: Vec::new() };
    let bytes = surface.call(RELOAD, request.encode_to_vec().into(), &Patience::default()).unwrap();
    assert_eq!(ReloadConfigResponse::decode(bytes).unwrap().status, Some(StatusProto::default()));
    assert_eq!(*admin.0.lock().unwrap(), [config]);
    assert_eq!(
        call::<_, ReloadConfigResponse>(RELOAD, &ReloadConfigRequest::default()),
        invalid(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is \
             currently supported"
        )
    );
}

#[test]
fn health_follows_the_server() {
    let surface = surface();
    let check = |service: &str| {
        let request = HealthCheckRequest { service: service.into() };
        let message = request.encode_to_vec().into();
        let answer = surface.call("/grpc.health.v1.Health/Check", message, &Patience::default());
        answer.map(|bytes| HealthCheckResponse::decode(bytes).unwrap().status)
    };
    assert_eq!(check(""), Ok(1));
    assert_eq!(check("PredictionService"), Ok(1));
    assert_eq!(check("tensorflow.serving.ModelService"), Ok(1));
    assert_eq!(check("other").unwrap_err().code, Code::NotFound);
    surface.set_serving(false);
    assert_eq!(check(""), Ok(2));
    let list = surface.call("/grpc.health.v1.Health/List", Bytes::new(), &Patience::default()).unwrap();
    let statuses = HealthListResponse::decode(list).unwrap().statuses;
    assert_eq!(statuses["ModelService"].status, 2);
}

#[test]
fn reflection_describes_what_is_served() {
    use server_reflection_request::MessageRequest;
    use server_reflection_response::MessageResponse;
    let ask = |message_request| {
        let request = ServerReflectionRequest { host: "h".into(), message_request: Some(message_request) };
        let response: ServerReflectionResponse = call(REFLECTION, &request).unwrap();
        assert_eq!(response.original_request, Some(request));
        response.message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(services) = ask(MessageRequest::ListServices("*".into()))
    else {
        panic!("no list")
    };
    let names: Vec<&str> = services.service.iter().map(|service| service.name.as_str()).collect();
    for expected in [
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ] {
        assert!(names.contains(&expected), "{expected} is not in {names:?}");
    }
    let files = |request| match ask(request) {
        MessageResponse::FileDescriptorResponse(found) => found
            .file_descriptor_proto
            .into_iter()
            .map(|bytes| FileDescriptorProto::decode(bytes).unwrap())
            .map(|file| (file.name().to_owned(), file))
            .collect::<BTreeMap<_, _>>(),
        other => panic!("{other:?}"),
    };
    for symbol in ["tensorflow.serving.PredictionService", "tensorflow.serving.PredictionService.Predict"] {
        let found = files(MessageRequest::FileContainingSymbol(symbol.into()));
        let imports = found.values().flat_map(|file| &file.dependency);
        assert!(imports.clone().count() > 10);
        for import in imports {
            assert!(found.contains_key(import), "{import} is missing");
        }
    }
    assert!(
        files(MessageRequest::FileContainingSymbol("tensorflow.DT_FLOAT".into()))
            .contains_key("tensorflow/core/framework/types.proto")
    );
    let MessageResponse::ErrorResponse(error) = ask(MessageRequest::FileByFilename("no.proto".into())) else {
        panic!("found")
    };
    assert_eq!(error.error_code, Code::NotFound as i32);
}

#[test]
fn every_served_method_is_described() {
    let served = prost_types::FileDescriptorSet::decode(crate::proto::SERVED_DESCRIPTORS).unwrap();
    let mut described: Vec<String> = Vec::new();
    for file in &served.file {
        for service in &file.service {
            let methods = service.method.iter();
            described.extend(
                methods.map(|method| format!("/{}.{}/{}", file.package(), service.name(), method.name())),
            );
        }
    }
    let mut answered: Vec<&str> = METHODS.iter().map(|method| method.path).collect();
    described.sort();
    answered.sort_unstable();
    assert_eq!(described, answered);
}

/// A framed message as the wire hands it up.
fn framed(path: &str, message: &[u8]) -> Request {
    let mut request = Request::new("POST", path);
    request.headers.push("content-type", "application/grpc");
    request.body = [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat().into();
    request
}

#[test]
fn calls_come_and_go_framed() {
    let surface = surface();
    let request = framed("/grpc.health.v1.Health/Check", &[]);
    assert!(surface.takes(&request));
    assert!(!surface.takes(&Request::new("POST", "/v1/models/m:predict")));
    let response = surface.handle(&request, &Patience::default(), |_, _, _| ());
    assert_eq!(response.body.into_bytes(), &[0, 0, 0, 0, 2, 0x08, 1][..]);
    assert_eq!(response.trailers.unwrap().get("grpc-status"), Some(&b"0"[..]));
    let refused = surface.handle(&framed("/no.Such/Method", &[]), &Patience::default(), |_, _, _| ());
    assert_eq!(refused.headers.get("grpc-status"), Some(&b"12"[..]));
}

#[test]
fn the_earlier_deadline_holds() {
    let message = predict_request(spec("m", ""), &[("x", floats(&[1.0], &[1]))]).encode_to_vec();
    let mut request = framed(PREDICT, &message);
    request.headers.push("grpc-timeout", "1H");
    let patience = Patience::until(Instant::now().checked_sub(Duration::from_secs(1)));
    let response = surface().handle(&request, &patience, |_, _, _| ());
    assert_eq!(response.headers.get("grpc-status"), Some(&b"4"[..]));
}

#[test]
fn unknown_methods_and_long_texts() {
    let patience = Patience::default();
    let unknown = surface().call("/tensorflow.SessionService/SessionRun", Bytes::new(), &patience);
    assert_eq!(unknown.unwrap_err().code, Code::Unimplemented);
    let name = "é".repeat(2000);
    let (code, message) = predict(&predict_request(spec(&name, ""), &[])).unwrap_err();
    assert_eq!(code, Code::NotFound);
    assert!(message.ends_with("é...TRUNCATED") && message.len() <= 1024 + 12, "{}", message.len());
    let long = Bytes::from(vec![0; MAX_CONTROL_MESSAGE + 1]);
    assert_eq!(surface().call(STATUS, long, &patience).unwrap_err().code, Code::ResourceExhausted);
}

/// Valid requests of every kind, to be damaged.
fn seeds() -> Vec<Vec<u8>> {
    let text = TensorProto {
        dtype: DataType::DtString as i32,
        string_val: vec!["abc".into(), "d".into()],
        ..floats(&[], &[2])
    };
    let input = examples(vec![example(1.0), example(2.0)]);
    let task = |signature: &str, method_name: &str| InferenceTask {
        model_spec: spec("m", signature),
        method_name: method_name.into(),
    };
    let tasks =
        vec![task("classify", "tensorflow/serving/classify"), task("regress", "tensorflow/serving/regress")];
    vec![
        predict_request(spec("m", ""), &[("x", floats(&[1.0, 2.0], &[2, 1]))]).encode_to_vec(),
        predict_request(spec("m", "echo"), &[("text", text)]).encode_to_vec(),
        RegressionRequest { model_spec: spec("m", "regress"), input: input.clone() }.encode_to_vec(),
        MultiInferenceRequest { tasks, input }.encode_to_vec(),
        GetModelMetadataRequest { model_spec: spec("m", ""), metadata_field: vec!["signature_def".into()] }
            .encode_to_vec(),
        ServerReflectionRequest {
            host: String::new(),
            message_request: Some(server_reflection_request::MessageRequest::FileContainingSymbol(
                "tensorflow.Example".into(),
            )),
        }
        .encode_to_vec(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn damaged_messages_are_answered(
        seed in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        doubled in any::<bool>(),
    ) {
        let seeds = seeds();
        let mut message = seeds[seed.index(seeds.len())].clone();
        for (position, byte) in edits {
            let position = position.index(message.len());
            message[position] = byte;
        }
        if let Some(cut) = cut {
            message.truncate(cut.index(message.len()));
        }
        if doubled {
            message.extend(message.clone());
        }
        let surface = surface();
        for method in METHODS {
            let answer = surface.call(method.path, message.clone().into(), &Patience::default());
            if let Err(error) = answer {
                prop_assert!(error.message.len() <= 1024 + "...TRUNCATED".len());
            }
        }
    }
}
