//! Calls as `PredictionLog`s: what `--record_requests` writes, and what warm-up and replay read.
//!
//! Whichever surface a call came through, it is written as the gRPC call that would have done the same.
//! Requests name no version: a record is to be played to later versions too.

use super::{
    examples::{classification_result, inference_results, regression_result},
    predict::{encode, model_spec},
};
use crate::{
    api::tensor_proto::{Form, TensorWriter},
    maps::Ordered,
    models::{Recorded, Servable, Task},
    proto::tensorflow::serving::{
        ClassificationResponse, LogMetadata, ModelSpec, MultiInferenceResponse, RegressionResponse,
    },
    tensor::{Bytes, Tensor},
};
use bytes::BytesMut;
use prost::Message;
use std::collections::BTreeMap;

// Messages whose tensors and Examples are serialized already. A field of bytes and a field that holds a
// message look the same on the wire.

#[derive(Clone, PartialEq, Message)]
struct Log {
    #[prost(message, optional, tag = "1")]
    metadata: Option<LogMetadata>,
    #[prost(message, optional, tag = "2")]
    classify: Option<Exchange>,
    #[prost(message, optional, tag = "3")]
    regress: Option<Exchange>,
    #[prost(message, optional, tag = "4")]
    multi_inference: Option<Exchange>,
    #[prost(message, optional, tag = "6")]
    predict: Option<Exchange>,
}

#[derive(Clone, PartialEq, Message)]
struct Exchange {
    #[prost(bytes = "bytes", tag = "1")]
    request: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    response: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct PredictRequest {
    #[prost(message, optional, tag = "1")]
    model_spec: Option<ModelSpec>,
    #[prost(btree_map = "string, bytes", tag = "2")]
    inputs: BTreeMap<String, Bytes>,
    #[prost(string, repeated, tag = "3")]
    output_filter: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ExamplesRequest {
    #[prost(message, optional, tag = "1")]
    model_spec: Option<ModelSpec>,
    #[prost(message, optional, tag = "2")]
    input: Option<Input>,
}

#[derive(Clone, PartialEq, Message)]
struct MultiInferenceRequest {
    #[prost(message, repeated, tag = "1")]
    tasks: Vec<InferenceTask>,
    #[prost(message, optional, tag = "2")]
    input: Option<Input>,
}

#[derive(Clone, PartialEq, Message)]
struct InferenceTask {
    #[prost(message, optional, tag = "1")]
    model_spec: Option<ModelSpec>,
    #[prost(string, tag = "2")]
    method_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Input {
    #[prost(message, optional, tag = "1")]
    example_list: Option<ExampleList>,
}

#[derive(Clone, PartialEq, Message)]
struct ExampleList {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    examples: Vec<Bytes>,
}

/// A call as a serialized `PredictionLog`.
pub fn prediction_log(servable: &Servable, call: &Recorded<'_>) -> Vec<u8> {
    let answered = |signature: &str| Some(model_spec(&servable.name, servable.version, signature));
    let metadata = Some(LogMetadata { model_spec: answered(""), ..LogMetadata::default() });
    let mut log = Log { metadata, ..Log::default() };
    match call {
        Recorded::Predict { inputs, filter, response } => {
            let request = PredictRequest {
                model_spec: Some(asked(servable, &response.signature)),
                inputs: inputs.iter().map(|(alias, tensor)| (alias.clone(), serialized(tensor))).into_map(),
                output_filter: filter.to_vec(),
            };
            log.predict = Some(exchange(&request, encode(response, Form::Lists)));
        }
        Recorded::Classify { signature, examples, classes } => {
            let response = ClassificationResponse {
                model_spec: answered(signature),
                result: Some(classification_result(classes)),
            };
            let request = examples_request(servable, signature, examples);
            log.classify = Some(exchange(&request, response.encode_to_vec().into()));
        }
        Recorded::Regress { signature, examples, values } => {
            let response = RegressionResponse {
                model_spec: answered(signature),
                result: Some(regression_result(values)),
            };
            let request = examples_request(servable, signature, examples);
            log.regress = Some(exchange(&request, response.encode_to_vec().into()));
        }
        Recorded::MultiInference { tasks, examples, results } => {
            let task = |task: &Task| InferenceTask {
                model_spec: Some(asked(servable, task.signature.as_deref().unwrap_or(""))),
                method_name: task.method_name.clone(),
            };
            let request =
                MultiInferenceRequest { tasks: tasks.iter().map(task).collect(), input: input(examples) };
            let response = MultiInferenceResponse { results: inference_results(servable, results) };
            log.multi_inference = Some(exchange(&request, response.encode_to_vec().into()));
        }
    }
    log.encode_to_vec()
}

fn exchange(request: &impl Message, response: Bytes) -> Exchange {
    Exchange { request: request.encode_to_vec().into(), response }
}

fn asked(servable: &Servable, signature: &str) -> ModelSpec {
    ModelSpec { name: servable.name.clone(), signature_name: signature.to_owned(), ..ModelSpec::default() }
}

fn examples_request(servable: &Servable, signature: &str, examples: &[Bytes]) -> ExamplesRequest {
    ExamplesRequest { model_spec: Some(asked(servable, signature)), input: input(examples) }
}

fn input(examples: &[Bytes]) -> Option<Input> {
    Some(Input { example_list: Some(ExampleList { examples: examples.to_vec() }) })
}

fn serialized(tensor: &Tensor) -> Bytes {
    let writer = TensorWriter::new(tensor, Form::Lists);
    let mut out = BytesMut::with_capacity(writer.len());
    writer.write(&mut out);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        models::{Class, Inference, Response, fakes},
        proto::tensorflow::serving::{
            PredictionLog, input::Kind, model_spec::VersionChoice, prediction_log::LogType,
        },
    };

    fn read(call: &Recorded<'_>) -> LogType {
        let log = PredictionLog::decode(&*prediction_log(&fakes::echo("m", 3), call)).unwrap();
        let spec = log.log_metadata.unwrap().model_spec.unwrap();
        assert_eq!((&*spec.name, spec.version_choice), ("m", Some(VersionChoice::Version(3))));
        log.log_type.unwrap()
    }

    // Read back through the generated messages, which know nothing of the ones above.
    #[test]
    fn predictions_name_signature_tensors_and_answer() {
        let tensor = Tensor::from_slice([2], &[1.5f32, 2.5]).unwrap();
        let response = Response {
            model: "m".into(),
            version: 3,
            signature: "serving_default".into(),
            outputs: vec![("y".into(), tensor.clone())],
        };
        let call = Recorded::Predict {
            inputs: &[("x".into(), tensor)],
            filter: &["y".to_owned()],
            response: &response,
        };
        let LogType::PredictLog(log) = read(&call) else { panic!() };
        let request = log.request.unwrap();
        let spec = request.model_spec.unwrap();
        assert_eq!((&*spec.name, &*spec.signature_name), ("m", "serving_default"));
        assert_eq!(spec.version_choice, None);
        assert_eq!(request.inputs["x"].float_val, [1.5, 2.5]);
        assert_eq!(request.output_filter, ["y"]);
        assert_eq!(log.response.unwrap().outputs["y"].float_val, [1.5, 2.5]);
    }

    #[test]
    fn examples_are_kept_with_their_results() {
        let examples: [Bytes; 2] = [Bytes::new(), Bytes::from_static(b"\x0a\x00")];
        let classes = [vec![Class { label: "a".into(), score: 0.5 }], vec![]];
        let LogType::ClassifyLog(log) =
            read(&Recorded::Classify { signature: "s", examples: &examples, classes: &classes })
        else {
            panic!()
        };
        let Some(Kind::ExampleList(list)) = log.request.unwrap().input.unwrap().kind else { panic!() };
        assert_eq!(list.examples.len(), 2);
        let result = log.response.unwrap().result.unwrap();
        assert_eq!(result.classifications[0].classes[0].label, "a");

        let LogType::RegressLog(log) =
            read(&Recorded::Regress { signature: "s", examples: &examples, values: &[0.5, 1.0] })
        else {
            panic!()
        };
        assert_eq!(log.response.unwrap().result.unwrap().regressions[1].value, 1.0);

        let tasks = [Task { model: "m".into(), signature: None, method_name: "x".into() }];
        let results = [("s".to_owned(), Inference::Values(vec![0.5]))];
        let LogType::MultiInferenceLog(log) =
            read(&Recorded::MultiInference { tasks: &tasks, examples: &examples, results: &results })
        else {
            panic!()
        };
        assert_eq!(log.request.unwrap().tasks[0].method_name, "x");
        assert_eq!(log.response.unwrap().results.len(), 1);
    }
}
