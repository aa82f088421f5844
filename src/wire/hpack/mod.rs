//! HPACK, the header compression of HTTP/2 (RFC 7541).
//!
//! The decoder bounds the size of the list while it decodes, so a small block cannot become a large
//! list: fields beyond the limit are decoded for the sake of the dynamic table, but not kept. The
//! encoder writes what the static table has and literals, and never indexes: it has no state that
//! could go wrong, at the cost of a few bytes per response.
#![forbid(unsafe_code)]

mod decoder;
mod encoder;
mod huffman;
mod static_table;

pub use decoder::{Decoded, Decoder, HpackError};
pub use encoder::Encoder;
