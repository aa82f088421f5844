//! Model folders: what is in one is found out from the files' contents, never from the folder's name.
#![forbid(unsafe_code)]

mod error;
pub mod saved_model;

pub use error::{FormatError, MissingOperator, MissingOperators};
