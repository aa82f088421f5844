//! gRPC calls whose messages are answered one by one, as server reflection and other streaming methods need.
//!
//! The handler sees each message as a request of its own and knows nothing of the stream: the head of the answer
//! is written once, and the status when the client has ended its side or an answer was an error.
#![forbid(unsafe_code)]

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::wire::{
    clock::Clock,
    grpc,
    headers::Headers,
    message::{Request, RequestHead, Response},
};

use super::{
    connection::Connection,
    stream::{Phase, Sending},
};

/// A call whose messages are answered one by one.
pub(super) struct Exchange {
    head: RequestHead,
    /// Bytes of messages that have not been handed up.
    buffer: BytesMut,
    /// The longest message with its prefix.
    limit: usize,
    /// The head of the answer has been written.
    answered: bool,
    started: Instant,
}

impl Exchange {
    /// The exchange that `head` opens, if the handler wants one.
    pub(super) fn open(head: &RequestHead, limit: usize, connection: &Connection) -> Option<Box<Exchange>> {
        // gRPC-Web has its status in the body: it answers whole calls only.
        let native = grpc::Form::of(&head.headers) == Some(grpc::Form::Native);
        let wanted = native && connection.context.handler.answers_each_message(head);
        wanted.then(|| {
            let mut head = head.clone();
            // Whether answers are compressed would have to be said before the first of them is known.
            head.headers = head
                .headers
                .iter()
                .filter(|(name, _)| *name != b"grpc-accept-encoding")
                .fold(Headers::new(), |headers, (name, value)| headers.with(name, value));
            let started = connection.now;
            Box::new(Exchange { head, buffer: BytesMut::new(), limit, answered: false, started })
        })
    }

    /// Takes bytes of messages; false if there are more than one message may have.
    pub(super) fn append(&mut self, bytes: &[u8]) -> bool {
        self.buffer.extend_from_slice(bytes);
        self.buffer.len() <= self.limit.saturating_add(1 << 20)
    }

    /// The next message with its prefix, once it is complete.
    fn next(&mut self) -> Next {
        let Some([_, length @ ..]) = self.buffer.first_chunk::<5>() else { return Next::Incomplete };
        let whole = 5_usize.saturating_add(u32::from_be_bytes(*length) as usize);
        if whole > self.limit {
            Next::TooLarge
        } else if self.buffer.len() < whole {
            Next::Incomplete
        } else {
            Next::Message(self.buffer.split_to(whole).freeze())
        }
    }
}

enum Next {
    Message(Bytes),
    Incomplete,
    TooLarge,
}

impl Connection {
    /// Hands up the next message of an exchange that waits for one, or ends it.
    pub(super) fn next_message(&mut self, id: u32, clock: &Clock) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(exchange) = stream.exchange.as_mut().filter(|_| matches!(stream.phase, Phase::Listening(_)))
        else {
            return;
        };
        let refused = match exchange.next() {
            Next::Message(message) => {
                let mut request =
                    Request::from_parts(exchange.head.clone(), message, Headers::new(), exchange.started);
                request.cancelled = stream.cancelled.clone();
                stream.charge.set(exchange.buffer.len() + request.body.len());
                stream.phase = Phase::Running;
                return self.ready.push_back((id, request));
            }
            Next::TooLarge => 413,
            Next::Incomplete if !stream.ended => return,
            Next::Incomplete if exchange.buffer.is_empty() => 200,
            Next::Incomplete => 400,
        };
        let response = if refused == 200 {
            let mut response = Response::new(200, "application/grpc", Bytes::new());
            response.trailers = Some(Headers::new().with("grpc-status", "0"));
            response
        } else if refused == 413 {
            let max = exchange.limit.saturating_sub(5);
            grpc::refuse_message(&exchange.head.headers, &exchange.buffer, None, max)
        } else {
            grpc::refuse(&exchange.head.headers, refused)
        };
        self.end_exchange(id, response, clock);
    }

    /// Sends the answer to one message of an exchange.
    pub(super) fn answer_message(&mut self, id: u32, response: Response, clock: &Clock) {
        let ok = |headers: &Headers| headers.get("grpc-status").is_none_or(|status| status == b"0");
        let fine = response.status == 200
            && !response.headers.contains("grpc-status")
            && response.trailers.as_ref().is_some_and(ok);
        if !fine {
            return self.end_exchange(id, response, clock);
        }
        let Some(exchange) = self.streams.get_mut(&id).and_then(|stream| stream.exchange.as_mut()) else {
            return;
        };
        let first = !std::mem::replace(&mut exchange.answered, true);
        if first {
            self.put_head(id, response.status, &response.headers, None, false, clock);
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let left = response.body.len();
        stream.charge.set(left);
        stream.phase = Phase::Sending(Sending::new(response.body, None, clock.now()));
        self.sendable.push_back(id);
    }

    /// Ends an exchange with `response`, whose status goes into the trailers if the head has been written.
    fn end_exchange(&mut self, id: u32, mut response: Response, clock: &Clock) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(exchange) = stream.exchange.take() else { return };
        if !exchange.answered {
            return self.begin_response(id, response, clock);
        }
        let status = |headers: &Headers| {
            let fields = headers.iter().filter(|(name, _)| name.starts_with(b"grpc-"));
            fields.fold(Headers::new(), |status, (name, value)| status.with(name, value))
        };
        let trailers = response.trailers.take().unwrap_or_else(|| status(&response.headers));
        stream.phase = Phase::Sending(Sending::new(response.body, Some(trailers), clock.now()));
        self.sendable.push_back(id);
    }
}
