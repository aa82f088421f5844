//! What live calls leave behind: who keeps a sample of them is told here, once per call that succeeds,
//! whichever surface it came through.

use super::{Class, Inference, Response, Servable, Task};
use crate::tensor::{Bytes, Tensor};

/// A call and its answer.
#[derive(Debug)]
pub enum Recorded<'a> {
    /// Named tensors through one signature.
    Predict {
        /// The tensors of the request.
        inputs: &'a [(String, Tensor)],
        /// The outputs asked for; empty is all.
        filter: &'a [String],
        /// The answer, which also names the signature.
        response: &'a Response,
    },
    /// Examples to classes.
    Classify {
        /// The signature that ran.
        signature: &'a str,
        /// Serialized `tf.Example`s.
        examples: &'a [Bytes],
        /// The classes of each.
        classes: &'a [Vec<Class>],
    },
    /// Examples to values.
    Regress {
        /// The signature that ran.
        signature: &'a str,
        /// Serialized `tf.Example`s.
        examples: &'a [Bytes],
        /// The value of each.
        values: &'a [f32],
    },
    /// Examples through several signatures.
    MultiInference {
        /// The tasks.
        tasks: &'a [Task],
        /// Serialized `tf.Example`s.
        examples: &'a [Bytes],
        /// Signature and result of each task.
        results: &'a [(String, Inference)],
    },
}

/// Keeps a sample of calls.
pub trait Recorder: Send + Sync {
    /// Whether the call that is about to run belongs to the sample.
    fn wants(&self) -> bool;

    /// Keeps a call that it wanted and that succeeded. Never fails: a full disk must not fail requests.
    fn record(&self, servable: &Servable, call: &Recorded<'_>);
}

/// The servable's recorder, if it wants the call that is about to run.
pub(super) fn recorder_of(servable: &Servable) -> Option<&dyn Recorder> {
    servable.recorder.as_deref().filter(|recorder| recorder.wants())
}
