//! TensorFlow's SavedModel: a graph (`saved_model.pb`) and a checkpoint (`variables/`).
//!
//! `load` picks the meta graph by its tags, restores variables by importing the saver's restore
//! operation, runs the initialiser, and then imports each signature from its outputs back to its
//! inputs. Functions are inlined, variables that no signature assigns become constants.

mod bundle;
mod functions;
mod import;
mod load;
mod model;
mod node;
mod ops;
mod table;
pub mod tensor_proto;

pub(super) use load::load;

/// Names of TensorFlow's operators that can be imported, in alphabetical order.
pub fn operator_names() -> Vec<&'static str> {
    let mut names: Vec<&str> = ops::names().collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests;
