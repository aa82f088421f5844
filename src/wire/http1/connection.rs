//! One HTTP/1.x connection: bytes in, requests out; responses in, bytes out.
//!
//! Requests are served one after the other. What a client pipelines behind the current one waits in
//! `pending`, and reading stops when that is full.
#![forbid(unsafe_code)]

use std::time::Instant;

use crate::wire::{
    budget::Charge,
    clock::Clock,
    context::Context,
    message::{Cancelled, Event, Protocol, Request, RequestHead, Response},
    output::Output,
};

use super::{
    body::Incoming,
    head::{self, Head, Refused, Search},
    response::{self, Asked},
};

/// Empty lines that are skipped before a request line (RFC 9112, 2.2).
const SKIPPED_LINES: usize = 4;

/// The state machine of one connection. Bytes that were read go into [`Connection::receive`]; what
/// comes out of [`Connection::output`] is to be written, also after [`Connection::is_finished`].
pub struct Connection {
    context: Context,
    state: State,
    /// Bytes behind the current request, or the beginning of a head.
    pending: Vec<u8>,
    output: Output,
    /// The bytes of answers that have not been written.
    unsent: Charge,
    ready: Option<Request>,
    served: u64,
    skipped: usize,
    draining: bool,
    input_ended: bool,
    since: Instant,
}

enum State {
    /// Before a head; `first` before that of the first request.
    Idle { first: bool },
    /// In a head.
    Head(Search),
    /// In a body.
    Body(Box<Body>),
    /// A request is being answered.
    Busy { asked: Asked, cancelled: Cancelled, _charge: Charge },
    /// No further request will be read.
    Closed,
}

struct Body {
    head: RequestHead,
    incoming: Incoming,
    asked: Asked,
    started: Instant,
}

/// Writes the answer to a connection that is not served at all.
pub(in crate::wire) fn write_refusal(output: &mut Output, context: &Context, status: u16, clock: &Clock) {
    let asked = Asked { protocol: Protocol::Http11, head_only: false, keep_alive: false, trailers: false };
    response::write(output, context.refuse(None, status), asked, clock.date());
}

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(context: Context, clock: &Clock) -> Connection {
        Connection {
            unsent: Charge::new(&context.budget),
            context,
            state: State::Idle { first: true },
            pending: Vec::new(),
            output: Output::default(),
            ready: None,
            served: 0,
            skipped: 0,
            draining: false,
            input_ended: false,
            since: clock.now(),
        }
    }

    /// Takes bytes that were read.
    pub fn receive(&mut self, bytes: &[u8], clock: &Clock) {
        if bytes.is_empty() || matches!(self.state, State::Closed) {
            return;
        }
        if self.pending.is_empty() {
            let used = self.process(bytes, clock);
            self.pending.extend_from_slice(bytes.get(used..).unwrap_or_default());
        } else {
            self.pending.extend_from_slice(bytes);
            self.process_pending(clock);
        }
    }

    /// The peer will send nothing more. A request that is being answered still gets its answer.
    pub fn receive_end(&mut self) {
        self.input_ended = true;
        if !matches!(self.state, State::Busy { .. }) {
            self.state = State::Closed;
        }
    }

    /// The place for body bytes that can be read without a detour, and how many are missing.
    pub fn body_buffer(&mut self) -> Option<(&mut Vec<u8>, u64)> {
        match &mut self.state {
            State::Body(body) if self.pending.is_empty() && body.incoming.direct() > 0 => {
                let missing = body.incoming.direct();
                Some((&mut body.incoming.bytes, missing))
            }
            _ => None,
        }
    }

    /// Takes note of `count` bytes that were read into [`Connection::body_buffer`].
    pub fn body_filled(&mut self, count: usize, clock: &Clock) {
        if let State::Body(body) = &mut self.state {
            let result = body.incoming.filled(count);
            self.after_body_bytes(result, clock);
        }
    }

    /// A request that is complete, to be answered by [`Connection::respond`].
    pub fn next_request(&mut self) -> Option<Request> {
        self.ready.take()
    }

    /// Whether [`Connection::next_request`] has one.
    pub fn has_request(&self) -> bool {
        self.ready.is_some()
    }

    /// The answer to the request that was last taken.
    pub fn respond(&mut self, response: Response, clock: &Clock) {
        let State::Busy { asked, .. } = &self.state else { return };
        let last =
            self.draining || self.input_ended || self.served >= self.context.limits.requests_per_connection;
        let asked = Asked { keep_alive: asked.keep_alive && !last, ..*asked };
        self.unsent.set(self.output.len() + response.body.len());
        let open = response::write(&mut self.output, response, asked, clock.date());
        self.since = clock.now();
        if open {
            self.state = State::Idle { first: false };
            self.skipped = 0;
            self.process_pending(clock);
        } else {
            self.close();
        }
    }

    /// The bytes to write.
    pub fn output(&mut self) -> &mut Output {
        if self.output.is_empty() {
            self.unsent.set(0);
        }
        &mut self.output
    }

    /// Whether more input can be used now.
    pub fn wants_input(&self) -> bool {
        match self.state {
            State::Idle { .. } | State::Head(_) | State::Body(_) => !self.input_ended,
            State::Busy { .. } => !self.input_ended && self.pending.len() < self.context.limits.head,
            State::Closed => false,
        }
    }

    /// Whether nothing further will happen once the output is written.
    pub fn is_finished(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether the connection is between requests and has nothing to write.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle { .. }) && self.output.is_empty()
    }

    /// The next answer is the last one; a request that is on its way still gets it.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Ends the connection in good order: at once if idle, else with the current answer.
    pub fn shut_down(&mut self) {
        self.drain();
        if self.is_idle() {
            self.close();
        }
    }

    /// The peer is gone: nobody waits for the answer under way.
    pub fn cancel(&mut self) {
        if let State::Busy { cancelled, .. } = &self.state {
            cancelled.set();
            self.context.record(Event::Cancelled);
        }
        self.close();
    }

    /// Applies the time limits.
    pub fn tick(&mut self, clock: &Clock) {
        let limits = &self.context.limits;
        let waited = clock.since(self.since);
        match &self.state {
            State::Idle { first } => {
                let limit = if *first { limits.first_byte } else { limits.idle };
                if waited >= limit && self.output.is_empty() {
                    self.close();
                }
            }
            State::Head(_) if waited >= limits.head_time => self.refuse(Refused(408), clock),
            State::Body(body) => {
                let bytes = body.incoming.bytes.len() as u64;
                if waited >= limits.body_time || limits.too_slow(bytes, waited, limits.body_grace) {
                    self.after_body_bytes(Err(Refused(408)), clock);
                }
            }
            _ => {}
        }
    }

    fn process_pending(&mut self, clock: &Clock) {
        let mut pending = std::mem::take(&mut self.pending);
        let used = self.process(&pending, clock);
        if used < pending.len() && !matches!(self.state, State::Closed) {
            pending.drain(..used);
            self.pending = pending;
        }
    }

    /// Works through bytes; returns how many are done with.
    fn process(&mut self, bytes: &[u8], clock: &Clock) -> usize {
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            if rest.is_empty() {
                return used;
            }
            let step = match &mut self.state {
                State::Idle { .. } => self.skip_lines(rest, clock),
                State::Head(_) => self.read_head(rest, clock),
                State::Body(body) => match body.incoming.receive(rest, &self.context) {
                    Ok(count) => {
                        self.after_body_bytes(Ok(()), clock);
                        count
                    }
                    Err(refused) => {
                        self.after_body_bytes(Err(refused), clock);
                        return bytes.len();
                    }
                },
                State::Busy { .. } => 0,
                State::Closed => return bytes.len(),
            };
            if step == 0 {
                return used;
            }
            used += step;
        }
    }

    /// Skips empty lines before a request; its first byte starts the clock.
    fn skip_lines(&mut self, bytes: &[u8], clock: &Clock) -> usize {
        if bytes.starts_with(b"\r\n") {
            self.skipped += 1;
            if self.skipped > SKIPPED_LINES {
                self.refuse(Refused(400), clock);
            }
            return 2;
        }
        if bytes != b"\r" {
            self.since = clock.now();
            self.state = State::Head(Search::default());
            return self.read_head(bytes, clock);
        }
        0
    }

    fn read_head(&mut self, bytes: &[u8], clock: &Clock) -> usize {
        let State::Head(search) = &mut self.state else { return 0 };
        let found = search.find(bytes, &self.context).and_then(|found| {
            let head =
                found.map(|length| head::parse(bytes.get(..length).unwrap_or_default(), &self.context));
            Ok((found.unwrap_or(0), head.transpose()?))
        });
        match found {
            Ok((length, head)) => {
                if let Some(head) = head {
                    self.begin(head, clock);
                }
                length
            }
            Err(refused) => {
                self.refuse(refused, clock);
                bytes.len()
            }
        }
    }

    fn begin(&mut self, head: Head, clock: &Clock) {
        let Head { request, framing, keep_alive, expects_continue } = head;
        self.served += 1;
        let asked = Asked {
            protocol: request.protocol,
            head_only: request.method == "HEAD",
            keep_alive,
            trailers: request.headers.has_token("te", "trailers"),
        };
        if let Some(exceeded) = self.context.budget.full() {
            return self.refuse_request(&request, asked, Refused(exceeded.status()), clock);
        }
        let charge = Charge::new(&self.context.budget);
        match Incoming::new(framing, self.context.body_limit(&request), charge) {
            Err(refused) => self.refuse_request(&request, asked, refused, clock),
            Ok(incoming) => {
                if expects_continue && !incoming.is_complete() {
                    self.output.put(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                self.since = clock.now();
                self.state =
                    State::Body(Box::new(Body { head: request, incoming, asked, started: clock.now() }));
                self.after_body_bytes(Ok(()), clock);
            }
        }
    }

    fn after_body_bytes(&mut self, result: Result<(), Refused>, clock: &Clock) {
        match (result, &mut self.state) {
            (Err(refused), State::Body(body)) => {
                let (head, asked) = (body.head.clone(), body.asked);
                self.refuse_request(&head, asked, refused, clock);
            }
            (Ok(()), State::Body(body)) if body.incoming.is_complete() => {
                let closed = std::mem::replace(&mut self.state, State::Closed);
                let State::Body(body) = closed else { return };
                let Body { head, incoming, asked, started } = *body;
                let request = Request::from_parts(head, incoming.bytes.into(), incoming.trailers, started);
                let cancelled = request.cancelled.clone();
                self.state = State::Busy { asked, cancelled, _charge: incoming.charge };
                self.since = clock.now();
                self.ready = Some(request);
            }
            _ => {}
        }
    }

    /// Refuses what could not be read as a request.
    fn refuse(&mut self, refused: Refused, clock: &Clock) {
        let asked =
            Asked { protocol: Protocol::Http11, head_only: false, keep_alive: false, trailers: false };
        self.answer(None, asked, refused, clock);
    }

    fn refuse_request(&mut self, head: &RequestHead, asked: Asked, refused: Refused, clock: &Clock) {
        self.answer(Some(head), Asked { keep_alive: false, ..asked }, refused, clock);
    }

    /// Answers without asking a worker; where the next request would start is unknown, so this is the last answer.
    fn answer(&mut self, head: Option<&RequestHead>, asked: Asked, refused: Refused, clock: &Clock) {
        self.context.record(Event::RequestRefused(refused.0));
        let response = self.context.refuse(head, refused.0);
        response::write(&mut self.output, response, asked, clock.date());
        self.close();
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.pending = Vec::new();
    }
}
