//! The canonical request and response. Every surface decodes into the one and answers from the
//! other; none of them is a protocol's message.

use super::Error;
use crate::tensor::Tensor;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Which version of a model a request wants.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum VersionChoice {
    /// The highest available one.
    #[default]
    Latest,
    /// Exactly this one.
    Specific(i64),
    /// The one that carries this label.
    Label(String),
}

/// A model by name and version.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ModelRef {
    /// The servable's name.
    pub name: String,
    /// The version wanted.
    pub version: VersionChoice,
}

/// As TensorFlow Serving names it in errors: `Latest(m)`, `Specific(m, 7)`.
impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            VersionChoice::Latest => write!(f, "Latest({})", self.name),
            VersionChoice::Specific(version) => write!(f, "Specific({}, {version})", self.name),
            VersionChoice::Label(label) => write!(f, "Label({}, {label})", self.name),
        }
    }
}

/// How long a request may take and whether its caller still waits.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    /// When the answer stops being of use.
    pub deadline: Option<Instant>,
    /// Set once the caller has gone or given up.
    pub cancelled: Option<Arc<AtomicBool>>,
}

impl Patience {
    /// Until `deadline`, or for ever.
    pub fn until(deadline: Option<Instant>) -> Self {
        Self { deadline, cancelled: None }
    }

    /// Whether the caller has given up.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.as_ref().is_some_and(|cancelled| cancelled.load(Ordering::Relaxed))
    }

    /// `CANCELLED` or `DEADLINE_EXCEEDED` when nobody waits for the answer any more.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_cancelled() {
            return Err(Error::cancelled("The call was cancelled"));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Error::deadline_exceeded("Deadline Exceeded"));
        }
        Ok(())
    }
}

/// One inference: named input tensors for one signature.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The model wanted.
    pub model: ModelRef,
    /// The signature; `None` is `serving_default`.
    pub signature: Option<String>,
    /// Input tensors by their alias in the signature.
    pub inputs: Vec<(String, Tensor)>,
    /// Output aliases wanted, in this order; empty means all.
    pub outputs: Vec<String>,
    /// Time limit.
    pub patience: Patience,
}

/// What a request produced.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Name of the model that answered.
    pub model: String,
    /// Its version.
    pub version: i64,
    /// The signature that ran.
    pub signature: String,
    /// Output tensors by alias, in alphabetical order or in that of the request's filter.
    pub outputs: Vec<(String, Tensor)>,
}
