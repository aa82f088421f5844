//! HTTP/1.0 and HTTP/1.1 (RFC 9112), server side, as a state machine without a socket.
//!
//! Framing is strict: whatever two implementations could read differently (RFC 9112, 11.2) is
//! refused and the connection closed, because after it nobody knows where the next request starts.

mod body;
mod connection;
mod head;
mod response;

pub use connection::Connection;
pub(super) use connection::write_refusal;
pub(super) use head::{content_length, has_valid_escapes, is_authority, known_method};
