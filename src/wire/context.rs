//! What a protocol state machine needs to know about its connection and its server.
#![forbid(unsafe_code)]

use std::{net::SocketAddr, sync::Arc};

use super::{
    budget::Budget,
    grpc,
    limits::Limits,
    message::{Event, Handler, RequestHead, Response},
};

/// The surroundings of one connection.
#[derive(Clone)]
pub struct Context {
    pub(crate) limits: Arc<Limits>,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local_port: Option<u16>,
    pub(crate) tls: bool,
}

impl Context {
    /// The context of a connection that stands alone, as in tests.
    pub fn new(handler: Arc<dyn Handler>, limits: Limits) -> Context {
        let budget = Budget::within(&Budget::new(limits.in_flight_bytes), limits.connection_bytes);
        Context { limits: Arc::new(limits), handler, budget, peer: None, local_port: None, tls: false }
    }

    /// The largest body that this request may have, in bytes.
    pub(crate) fn body_limit(&self, head: &RequestHead) -> usize {
        let message = self.limits.grpc_message.saturating_add(5);
        let own = match grpc::Form::of(&head.headers) {
            None => self.limits.body,
            // Four characters of base64 for three bytes.
            Some(grpc::Form::WebText) => message.saturating_add(message / 3 + 4),
            Some(_) => message,
        };
        own.min(self.handler.body_limit(head))
    }

    /// The answer to a request that the wire refuses, in the form that its client understands.
    pub(crate) fn refuse(&self, head: Option<&RequestHead>, status: u16) -> Response {
        match head {
            Some(head) if head.is_grpc() && status == 413 => {
                grpc::refuse_message(&head.headers, &[], None, self.limits.grpc_message)
            }
            Some(head) if head.is_grpc() => grpc::refuse(&head.headers, status),
            _ => self.handler.refuse(head, status),
        }
    }

    /// Reports an event to the handler.
    pub(crate) fn record(&self, event: Event) {
        self.handler.record(event);
    }
}
