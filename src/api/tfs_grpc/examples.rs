//! `PredictionService/Classify`, `/Regress` and `/MultiInference`.

use super::{
    TfsGrpc,
    predict::model_spec,
    request::{ExamplesMessage, MultiMessage, model_ref},
};
use crate::{
    api::tensor_proto::Budget,
    models::{self, Class, DEFAULT_SIGNATURE, Error, Inference, Patience, Servable, Task},
    proto::tensorflow::serving::{
        self, ClassificationResponse, ClassificationResult, Classifications, InferenceResult, ModelSpec,
        MultiInferenceResponse, Regression, RegressionResponse, RegressionResult, inference_result,
    },
    tensor::Bytes,
};
use prost::Message;
use std::sync::Arc;

pub(super) fn classify(surface: &TfsGrpc, message: Bytes, patience: &Patience) -> Result<Bytes, Error> {
    let (servable, signature, examples) = read(surface, message)?;
    let classes = models::classify(&servable, Some(&signature), examples, patience)?;
    let response = ClassificationResponse {
        model_spec: Some(spec(&servable, &signature)),
        result: Some(classification_result(&classes)),
    };
    Ok(response.encode_to_vec().into())
}

pub(super) fn regress(surface: &TfsGrpc, message: Bytes, patience: &Patience) -> Result<Bytes, Error> {
    let (servable, signature, examples) = read(surface, message)?;
    let values = models::regress(&servable, Some(&signature), examples, patience)?;
    let response = RegressionResponse {
        model_spec: Some(spec(&servable, &signature)),
        result: Some(regression_result(&values)),
    };
    Ok(response.encode_to_vec().into())
}

pub(super) fn multi_inference(
    surface: &TfsGrpc,
    message: Bytes,
    patience: &Patience,
) -> Result<Bytes, Error> {
    let mut budget = Budget::new(surface.options.request_memory);
    let MultiMessage { tasks, examples } = MultiMessage::read(message, &mut budget)?;
    // The first task says which version answers all of them.
    let first = tasks.first().and_then(|task| task.model_spec.clone()).unwrap_or_default();
    let servable = surface.registry.find(&model_ref(Some(&first))?)?;
    let tasks: Vec<Task> = tasks
        .into_iter()
        .map(|task| {
            let ModelSpec { name, signature_name, .. } = task.model_spec.unwrap_or_default();
            Task { model: name, signature: Some(signature_name), method_name: task.method_name }
        })
        .collect();
    let results = models::multi_inference(&servable, &tasks, &examples, patience)?;
    Ok(MultiInferenceResponse { results: inference_results(&servable, &results) }.encode_to_vec().into())
}

pub(super) fn inference_results(
    servable: &Servable,
    results: &[(String, Inference)],
) -> Vec<InferenceResult> {
    let message = |(signature, result): &(String, Inference)| InferenceResult {
        model_spec: Some(spec(servable, signature)),
        result: Some(match result {
            Inference::Classes(classes) => {
                inference_result::Result::ClassificationResult(classification_result(classes))
            }
            Inference::Values(values) => {
                inference_result::Result::RegressionResult(regression_result(values))
            }
        }),
    };
    results.iter().map(message).collect()
}

/// The servable, the signature's name with its default filled in, and the serialized Examples.
fn read(surface: &TfsGrpc, message: Bytes) -> Result<(Arc<Servable>, String, Vec<Bytes>), Error> {
    let mut budget = Budget::new(surface.options.request_memory);
    let ExamplesMessage { spec, examples } = ExamplesMessage::read(message, &mut budget)?;
    let servable = surface.registry.find(&model_ref(spec.as_ref())?)?;
    let named = spec.map(|spec| spec.signature_name).filter(|name| !name.is_empty());
    Ok((servable, named.unwrap_or_else(|| DEFAULT_SIGNATURE.to_owned()), examples))
}

fn spec(servable: &Servable, signature: &str) -> ModelSpec {
    model_spec(&servable.name, servable.version, signature)
}

pub(super) fn classification_result(examples: &[Vec<Class>]) -> ClassificationResult {
    let class = |Class { label, score }: &Class| serving::Class {
        // A protobuf string must be UTF-8; clients refuse the whole response otherwise.
        label: String::from_utf8_lossy(label).into_owned(),
        score: *score,
    };
    let classifications =
        |classes: &Vec<Class>| Classifications { classes: classes.iter().map(class).collect() };
    ClassificationResult { classifications: examples.iter().map(classifications).collect() }
}

pub(super) fn regression_result(values: &[f32]) -> RegressionResult {
    RegressionResult { regressions: values.iter().map(|&value| Regression { value }).collect() }
}
