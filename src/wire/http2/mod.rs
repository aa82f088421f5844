//! HTTP/2 (RFC 9113), server side, as a state machine without a socket.
//!
//! What a peer may cost is bounded everywhere: streams, windows, header blocks, and by an allowance
//! that work which was really done refills, so that a flood ends the connection and a busy client does not.
//! Server push and priorities are not offered.

mod allowance;
mod connection;
mod exchange;
mod frame;
mod incoming;
mod outgoing;
mod request;
mod settings;
mod stream;

pub use connection::Connection;
pub use frame::{ErrorCode, PREFACE};
