//! Why an importer's row for an operator gives no outputs.

use super::FormatError;

/// What a row says in place of outputs.
#[derive(Debug)]
pub(super) enum Stop {
    /// An input is made by an operator that is not known, or from one; the cause is on the list already.
    Missing,
    /// The node is not one that can be imported.
    Reason(String),
    /// An error from deeper down, told as it is.
    Error(FormatError),
}

impl Stop {
    /// The error of a node.
    pub(super) fn at(self, node: &str) -> FormatError {
        match self {
            Self::Missing => FormatError::node(node, "an input is made by an unknown operator"),
            Self::Reason(reason) => FormatError::node(node, reason),
            Self::Error(error) => error,
        }
    }
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Self::Reason(reason)
    }
}

impl From<&str> for Stop {
    fn from(reason: &str) -> Self {
        Self::Reason(reason.to_owned())
    }
}

impl From<FormatError> for Stop {
    fn from(error: FormatError) -> Self {
        Self::Error(error)
    }
}
