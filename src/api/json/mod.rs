//! JSON as TensorFlow Serving reads and writes it: RapidJSON's grammar, error texts and offsets on
//! the way in, its pretty layouts and number formats on the way out.
//!
//! Reading takes two passes over the bytes. [`Document::parse`] checks the whole text and notes
//! where each array and object ends and how much it holds; no value is stored. A second walk
//! ([`Value`]) then reads numbers straight from the text into tensor memory. So the errors come in
//! the order of a parser that builds a tree first, without the tree. Where the type is known beforehand, the first pass
//! reads the numbers, too ([`Collector`]), several at once where they are short.
#![forbid(unsafe_code)]

pub mod base64;
mod collect;
mod decimal;
mod dump;
mod grisu;
mod number;
mod plain;
mod scan;
mod short;
mod tensor;
mod text;
mod value;
pub mod write;

pub use collect::Collector;
pub use dump::dump;
pub use number::{Conversion, FromNumber, Number};
pub use scan::{Collect, Document, SyntaxError};
pub use tensor::write_tensor;
pub use value::{Items, Kind, Value};
