//! TensorFlow's SavedModel.

mod bundle;
mod table;
pub mod tensor_proto;
