//! `kinglet bench --replay`: recorded calls played to a model through the gRPC surface, in this process.
//! Tells how long they take, and where answers are no longer those of the record.

use super::{load::FormatLoader, warm_up};
use crate::{
    api::tfs_grpc::{self, TfsGrpc},
    cli::{Command, Options, parse},
    models::{Error, Loader, Patience, Registry, Stats, warmup},
    proto::tensorflow::serving::{
        ClassificationResponse, PredictResponse, RegressionResponse, prediction_log::LogType,
    },
    tensor::Bytes,
};
use prost::Message;
use std::{
    fmt::Write,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Name of the model while it is replayed; records name another.
const NAME: &str = "replay";

/// Values may differ by this share: another instruction set adds in another order.
const TOLERANCE: f32 = 1e-4;

/// Plays each call of `record` so many times to the model at `path`; what was found, as text.
///
/// Fails when the model or the record cannot be read, or holds no call. Calls that fail are counted.
pub fn replay(record: &Path, path: &Path, iterations: usize) -> Result<String, Error> {
    let registry = Arc::new(Registry::new());
    registry
        .publish(FormatLoader::new(&default_options()?, Arc::new(Stats::default()))?.load(NAME, 1, path)?);
    let surface = TfsGrpc::new(registry, None, tfs_grpc::Options::default());
    let calls = warmup::read(record)?;
    if calls.is_empty() {
        return Err(Error::invalid_argument(format!("{} holds no recorded call", record.display())));
    }
    let mut found = Found::default();
    for call in calls {
        let recorded = recorded_answer(&call);
        let (method, message) = warm_up::call(call, NAME)?;
        for iteration in 0..iterations.max(1) {
            let started = Instant::now();
            let answer = surface.call(method, message.clone().into(), &Patience::default());
            let took = started.elapsed();
            match answer {
                Ok(answer) => {
                    found.times.push(took);
                    if iteration == 0 {
                        found.compare(&answer, recorded.as_ref());
                    }
                }
                Err(error) => {
                    found.failed += 1;
                    found.first_error.get_or_insert(error);
                }
            }
        }
    }
    Ok(found.text())
}

/// Those of a server without flags; none of them names a model.
fn default_options() -> Result<Options, Error> {
    match parse(&[], |_| None) {
        Ok(Command::Serve(options, _)) => Ok(*options),
        _ => Err(Error::internal("a line without flags is no command")),
    }
}

#[derive(Default)]
struct Found {
    times: Vec<Duration>,
    same: usize,
    different: usize,
    failed: usize,
    first_error: Option<Error>,
}

/// What a record says was answered.
enum Answer {
    Predict(PredictResponse),
    Classify(ClassificationResponse),
    Regress(RegressionResponse),
}

fn recorded_answer(call: &LogType) -> Option<Answer> {
    match call {
        LogType::PredictLog(log) => log.response.clone().map(Answer::Predict),
        LogType::ClassifyLog(log) => log.response.clone().map(Answer::Classify),
        LogType::RegressLog(log) => log.response.clone().map(Answer::Regress),
        _ => None,
    }
}

impl Found {
    fn compare(&mut self, answer: &Bytes, recorded: Option<&Answer>) {
        let same = match recorded {
            // Nothing to compare with.
            None => return,
            Some(Answer::Predict(recorded)) => {
                PredictResponse::decode(answer.clone()).is_ok_and(|found| same_tensors(&found, recorded))
            }
            Some(Answer::Classify(recorded)) => ClassificationResponse::decode(answer.clone())
                .is_ok_and(|found| same_classes(&found, recorded)),
            Some(Answer::Regress(recorded)) => RegressionResponse::decode(answer.clone())
                .is_ok_and(|found| same_values(&values(&found), &values(recorded))),
        };
        if same { self.same += 1 } else { self.different += 1 }
    }

    fn text(mut self) -> String {
        let mut text = String::new();
        self.times.sort();
        let total: Duration = self.times.iter().sum();
        let at = |share: f64| {
            let index = (self.times.len() as f64 * share) as usize;
            let time = self.times.get(index.min(self.times.len().saturating_sub(1)));
            time.copied().unwrap_or_default().as_secs_f64() * 1e3
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} calls in {:.3} s: {:.0} per second   p50 {:.4} ms   p99 {:.4} ms",
            self.times.len(),
            total.as_secs_f64(),
            self.times.len() as f64 / total.as_secs_f64().max(f64::EPSILON),
            at(0.5),
            at(0.99)
        );
        let _ = writeln!(
            text,
            "answers: {} as recorded, {} different; {} calls failed",
            self.same, self.different, self.failed
        );
        if let Some(error) = self.first_error {
            let _ = writeln!(text, "the first failure: {error}");
        }
        text
    }
}

fn same_tensors(found: &PredictResponse, recorded: &PredictResponse) -> bool {
    found.outputs.len() == recorded.outputs.len()
        && recorded.outputs.iter().all(|(name, recorded)| {
            found.outputs.get(name).is_some_and(|found| {
                if found.float_val.is_empty() {
                    return found == recorded;
                }
                found.dtype == recorded.dtype
                    && found.tensor_shape == recorded.tensor_shape
                    && same_values(&found.float_val, &recorded.float_val)
            })
        })
}

fn same_classes(found: &ClassificationResponse, recorded: &ClassificationResponse) -> bool {
    let flat = |response: &ClassificationResponse| {
        let all = response.result.iter().flat_map(|result| &result.classifications);
        all.map(|row| row.classes.clone()).collect::<Vec<_>>()
    };
    let (found, recorded) = (flat(found), flat(recorded));
    found.len() == recorded.len()
        && found.iter().zip(&recorded).all(|(found, recorded)| {
            found.len() == recorded.len()
                && found.iter().zip(recorded).all(|(found, recorded)| {
                    found.label == recorded.label && close(found.score, recorded.score)
                })
        })
}

fn values(response: &RegressionResponse) -> Vec<f32> {
    response.result.iter().flat_map(|result| &result.regressions).map(|each| each.value).collect()
}

fn same_values(found: &[f32], recorded: &[f32]) -> bool {
    found.len() == recorded.len()
        && found.iter().zip(recorded).all(|(&found, &recorded)| close(found, recorded))
}

fn close(found: f32, recorded: f32) -> bool {
    found == recorded
        || (found.is_nan() && recorded.is_nan())
        || (found - recorded).abs() <= TOLERANCE * recorded.abs().max(1e-3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_as_far_as_arithmetic_allows() {
        assert!(same_values(&[1.0, f32::NAN, f32::INFINITY], &[1.00001, f32::NAN, f32::INFINITY]));
        assert!(!same_values(&[1.0], &[1.001]));
        assert!(!same_values(&[1.0], &[1.0, 2.0]));
        assert!(!close(f32::NAN, 1.0));
    }

    #[test]
    fn a_record_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let record = folder.path().join("record");
        std::fs::write(&record, "notes").unwrap();
        assert!(replay(&record, folder.path(), 1).is_err());
    }
}
