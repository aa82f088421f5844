//! Models without a server: `kinglet inspect`, `run`, `bench`, `convert` and `bundle`, on any format that can be served.

mod arguments;
pub mod bench;
pub mod bundle;
pub mod convert;
mod inputs;
mod model;
pub mod run;
mod table;

pub use arguments::{
    BenchArguments, BundleArguments, ConvertArguments, GivenModel, GivenShape, InspectArguments,
    ModelArguments, RunArguments,
};
pub(super) use arguments::{bench_command, bundle_command, convert_command, inspect_command, run_command};
pub use inputs::shape_for;

use crate::{formats::FormatError, graph::GraphError, models, tensor::TensorError};

/// Why a model could not be run.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The model or an archive of arrays.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The model cannot be converted.
    #[error("{}", .0.message)]
    Convert(#[from] models::Error),
    /// The model does not run on these inputs.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// An input could not be made.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Signature or inputs that do not fit the model.
    #[error("{0}")]
    Misfit(String),
    /// Standard input or output.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}
