//! Why a model folder could not be loaded.

use crate::graph::GraphError;
use std::{fmt, path::PathBuf};

/// What is wrong with a model folder. Each text is one line that names the file or the node.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FormatError {
    /// There is no model; the text is TensorFlow's.
    #[error(
        "Could not find SavedModel .pb or .pbtxt at supplied export directory path: {}. Check that the \
         directory exists and that you have the right permissions for accessing it.",
        .0.display()
    )]
    NotFound(PathBuf),
    /// A file could not be read.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// A file is not what its place says it is: truncated, corrupt, or lying about sizes.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// A model of a kind that kinglet does not load.
    #[error("{}: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it is and what to do.
        reason: String,
    },
    /// The files are not those that the holder of a key signed.
    #[error("{}: {reason}", path.display())]
    Unsigned {
        /// The folder or the bundle.
        path: PathBuf,
        /// What is missing or changed.
        reason: String,
    },
    /// The model needs operators that kinglet has not.
    #[error("{0}")]
    MissingOperators(MissingOperators),
    /// A node of the model's graph cannot be imported.
    #[error("{reason}\n\t [[{{{{node {node}}}}}]]")]
    Node {
        /// The node in the source model, function calls joined by slashes.
        node: String,
        /// Why.
        reason: String,
    },
    /// What has to be computed while loading failed: initial values, tables.
    #[error("initialising the model: {0}")]
    Initialise(#[from] GraphError),
}

impl FormatError {
    pub(crate) fn invalid(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Invalid { path: path.into(), reason: reason.into() }
    }

    pub(crate) fn unsupported(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Unsupported { path: path.into(), reason: reason.into() }
    }

    pub(crate) fn unsigned(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Unsigned { path: path.into(), reason: reason.into() }
    }

    pub(crate) fn io(path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        Self::Io { path: path.into(), reason: error.to_string() }
    }

    pub(crate) fn node(node: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Node { node: node.into(), reason: reason.into() }
    }
}

/// Operators that a model uses and kinglet has not, most frequent first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MissingOperators(pub Vec<MissingOperator>);

/// One of [`MissingOperators`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingOperator {
    /// Name in the source format.
    pub op: String,
    /// Nodes of the signatures that use it.
    pub count: usize,
    /// The first of them.
    pub first: String,
}

impl MissingOperators {
    /// Counts a node.
    pub(crate) fn add(&mut self, op: &str, node: &str) {
        match self.0.iter_mut().find(|missing| missing.op == op) {
            Some(missing) => missing.count += 1,
            None => self.0.push(MissingOperator { op: op.to_owned(), count: 1, first: node.to_owned() }),
        }
    }

    /// The error, when there is any.
    pub(crate) fn into_result(mut self) -> Result<(), FormatError> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.op.cmp(&b.op)));
        Err(FormatError::MissingOperators(self))
    }
}

impl fmt::Display for MissingOperators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "operator that is" } else { "operators that are" };
        write!(f, "the model uses {} {plural} not supported: ", self.0.len())?;
        for (position, MissingOperator { op, count, first }) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(f, "{separator}{op} ({count}x, first at {first})")?;
        }
        Ok(())
    }
}
