//! The wire: HTTP/1.1, HTTP/2 and gRPC framing from sockets to complete requests, and back.
//!
//! This floor knows no model. Protocols are state machines that see bytes and no socket
//! ([`http1`], [`http2`]); one readiness loop per [`Server`] drives them, and a bounded pool of
//! workers calls the [`Handler`]. Nothing here allocates what a peer merely declares.
#![forbid(unsafe_code)]

mod budget;
mod clock;
mod context;
pub mod grpc;
pub mod gzip;
mod headers;
pub mod hpack;
pub mod http1;
pub mod http2;
mod limits;
mod listener;
mod message;
pub mod multipart;
mod output;
pub mod page;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;

pub use clock::Clock;
pub use context::Context;
pub use headers::Headers;
pub use limits::Limits;
pub use listener::{Bind, BoundAddress, Probe, Server, ServerConfig, ServerHandle, WireError};
pub use message::{Body, Cancelled, Event, Handler, Protocol, Request, RequestHead, Response, path_of};
pub use output::Output;
pub use tls::{Tls, TlsError};
