//! Multi-inference: the same Examples through several classify and regress signatures of one model.

use super::{
    Class, Error, Patience, Recorded, Servable, Signature,
    example::{ClassifyOutputs, regress_output, regressions, run_examples},
    record::recorder_of,
    run::{CLASSIFY, REGRESS, signature_name},
};
use crate::tensor::Bytes;
use std::collections::BTreeSet;

/// What a task asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Name of the model; the same in every task.
    pub model: String,
    /// The signature; `None` and empty are `serving_default`.
    pub signature: Option<String>,
    /// `tensorflow/serving/classify` or `tensorflow/serving/regress`.
    pub method_name: String,
}

/// What a task produced, per example.
#[derive(Clone, Debug, PartialEq)]
pub enum Inference {
    /// The classes.
    Classes(Vec<Vec<Class>>),
    /// The value.
    Values(Vec<f32>),
}

enum Method {
    Classify(ClassifyOutputs),
    Regress(usize),
}

/// Runs every task on the same serialized `tf.Example`s: the name of the signature that ran and
/// its result, in the order of the tasks. All tasks are checked before the first one runs.
///
/// # Errors
/// `INVALID_ARGUMENT` for tasks of different models, a repeated or unknown signature, no examples;
/// `UNIMPLEMENTED` for another method name; else as [`classify`](super::classify) and
/// [`regress`](super::regress).
pub fn multi_inference(
    servable: &Servable,
    tasks: &[Task],
    examples: &[Bytes],
    patience: &Patience,
) -> Result<Vec<(String, Inference)>, Error> {
    let planned = plan(servable, tasks)?;
    let recorder = recorder_of(servable);
    let results = planned
        .into_iter()
        .map(|(signature, method)| {
            let feed = |wanted: &[usize]| run_examples(signature, wanted, examples.to_vec(), patience);
            let result = match method {
                Method::Classify(outputs) => {
                    Inference::Classes(outputs.collect(&feed(&outputs.wanted())?, examples.len())?)
                }
                Method::Regress(output) => Inference::Values(regressions(&feed(&[output])?, examples.len())?),
            };
            Ok((signature.name.clone(), result))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    if let Some(recorder) = recorder {
        recorder.record(servable, &Recorded::MultiInference { tasks, examples, results: &results });
    }
    Ok(results)
}

fn plan<'a>(servable: &'a Servable, tasks: &[Task]) -> Result<Vec<(&'a Signature, Method)>, Error> {
    let mut planned: Vec<(&Signature, Method)> = Vec::new();
    let mut seen = BTreeSet::new();
    for task in tasks {
        if task.model.is_empty() {
            return Err(Error::invalid_argument("Found ModelSpec with an empty model name."));
        }
        if tasks.first().is_some_and(|first| first.model != task.model) {
            return Err(Error::invalid_argument(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
            ));
        }
        let name = signature_name(task.signature.as_deref());
        if !seen.insert(name) {
            return Err(Error::invalid_argument(format!("Duplicate evaluation of signature: {name}")));
        }
        let signature = servable.signature(name).ok_or_else(|| {
            Error::invalid_argument(format!("Requested signature not found in model graph: {name}"))
        })?;
        let method = match task.method_name.as_str() {
            CLASSIFY => Method::Classify(ClassifyOutputs::of(signature)?),
            REGRESS => Method::Regress(regress_output(signature)?),
            other => {
                return Err(Error::unimplemented(format!("Unsupported signature method_name: {other}")));
            }
        };
        planned.push((signature, method));
    }
    Ok(planned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        models::{
            Code,
            fakes::{self, Returns},
        },
        tensor::{DType, Tensor},
    };

    fn servable() -> Servable {
        let inputs = [("inputs", "tf_example:0", DType::String)];
        let returns = |shape: &[usize], values: &[f32]| {
            Returns::tensors(vec![Tensor::from_slice(shape, values).unwrap()])
        };
        let scores = [("scores", "s:0", DType::F32)];
        let outputs = [("outputs", "y:0", DType::F32)];
        fakes::servable(
            "m",
            1,
            [
                fakes::signature("c", &inputs, &scores, returns(&[1, 2], &[0.25, 0.75])),
                fakes::signature("serving_default", &inputs, &outputs, returns(&[1], &[3.5])),
            ],
        )
    }

    fn task(signature: &str, method: &str) -> Task {
        Task { model: "m".into(), signature: Some(signature.into()), method_name: method.into() }
    }

    fn refusal(tasks: &[Task]) -> (Code, String) {
        let error = multi_inference(&servable(), tasks, &["e".into()], &Patience::default()).unwrap_err();
        (error.code, error.message.into_owned())
    }

    #[test]
    fn tasks_answer_in_order() {
        let tasks = [task("", REGRESS), task("c", CLASSIFY)];
        let results = multi_inference(&servable(), &tasks, &["e".into()], &Patience::default()).unwrap();
        let scores = [0.25, 0.75].map(|score| Class { score, ..Class::default() });
        assert_eq!(
            results,
            [
                ("serving_default".to_owned(), Inference::Values(vec![3.5])),
                ("c".to_owned(), Inference::Classes(vec![scores.into()])),
            ]
        );
    }

    #[test]
    fn tasks_are_checked() {
        let other = Task { model: "n".into(), ..task("c", CLASSIFY) };
        let nameless = Task { model: String::new(), ..task("c", CLASSIFY) };
        for (tasks, code, message) in [
            (
                vec![task("", REGRESS), other],
                Code::InvalidArgument,
                "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
            ),
            (vec![nameless], Code::InvalidArgument, "Found ModelSpec with an empty model name."),
            (
                vec![task("c", CLASSIFY), task("c", CLASSIFY)],
                Code::InvalidArgument,
                "Duplicate evaluation of signature: c",
            ),
            (
                vec![task("nope", CLASSIFY)],
                Code::InvalidArgument,
                "Requested signature not found in model graph: nope",
            ),
            (
                vec![task("c", "tensorflow/serving/predict")],
                Code::Unimplemented,
                "Unsupported signature method_name: tensorflow/serving/predict",
            ),
        ] {
            assert_eq!(refusal(&tasks), (code, message.to_owned()));
        }
        let empty = multi_inference(&servable(), &[task("c", CLASSIFY)], &[], &Patience::default());
        assert_eq!(empty.unwrap_err().message, "Input is empty.");
    }
}
