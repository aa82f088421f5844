//! One connection: its socket, the protocol spoken on it, and what passes between the two.
#![forbid(unsafe_code)]

use std::{
    io::{self, ErrorKind},
    time::{Duration, Instant},
};

use crate::wire::{
    clock::Clock,
    context::Context,
    http1, http2,
    http2::PREFACE,
    message::{Event, Protocol, Request, Response},
    output::Output,
    tls::Tls,
};

use super::{socket::Socket, transport::Transport};

/// Bytes that one connection may read before others have their turn.
const TURN: usize = 1 << 20;
/// What is read at once before the protocol knows that a body comes.
const HEAD_READ: usize = 16 << 10;
/// The least by which a body's buffer grows.
const BODY_STEP: u64 = 64 << 10;
/// The first byte of a TLS connection: a record that holds a handshake message.
const HANDSHAKE: u8 = 0x16;
/// A server that stops waits this long for the next request of a quiet connection: one may be on its way.
const LAST_CALL: Duration = Duration::from_millis(500);
/// After an error the peer may still be sending; it gets this long to read the answer.
const LINGER: Duration = Duration::from_secs(2);

/// A connection as the loop sees it.
pub(super) struct Link {
    transport: Transport,
    machine: Machine,
    tls: Option<Tls>,
    require_tls: bool,
    context: Context,
    /// May be read until it would block.
    pub(super) readable: bool,
    /// The peer has ended its side: what is short may be the end.
    pub(super) read_closed: bool,
    pub(super) writable: bool,
    /// Both sides are gone.
    pub(super) broken: bool,
    /// Stands in the loop's list of connections that have something to do.
    pub(super) queued: bool,
    /// When the last byte of the last answer was written.
    lingering: Option<Instant>,
    writing: Option<Writing>,
    /// Since when the server wants this connection to end.
    leaving: Option<Instant>,
    pub(super) idle_since: Instant,
}

/// The protocol.
enum Machine {
    /// The first bytes do not tell yet.
    Unknown(Vec<u8>, Instant),
    Http1(Box<http1::Connection>),
    Http2(Box<http2::Connection>),
}

/// An answer under way.
struct Writing {
    started: Instant,
    progressed: Instant,
    bytes: u64,
}

/// What to do with a connection after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Wait for its next event.
    Wait,
    /// It has more to do, but others come first.
    Again,
    /// Close it.
    Close,
}

impl Link {
    pub(super) fn new(
        socket: Socket,
        context: Context,
        tls: Option<Tls>,
        require_tls: bool,
        clock: &Clock,
    ) -> Link {
        Link {
            transport: Transport::new(socket),
            machine: Machine::Unknown(Vec::new(), clock.now()),
            tls,
            require_tls,
            context,
            readable: true,
            read_closed: false,
            writable: true,
            broken: false,
            queued: false,
            lingering: None,
            writing: None,
            leaving: None,
            idle_since: clock.now(),
        }
    }

    /// The surroundings of this connection.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// Reads what there is, within this turn.
    pub(super) fn receive(&mut self, scratch: &mut [u8], clock: &Clock) -> After {
        if self.broken {
            self.cancel();
            return After::Close;
        }
        let mut left = TURN;
        while self.readable && (self.lingering.is_some() || self.machine.wants_input()) {
            if left == 0 {
                return After::Again;
            }
            match self.read_once(scratch, clock) {
                Ok(0) => {
                    self.readable = false;
                    // A beginning of the HTTP/2 preface that ends here is nothing that could be answered.
                    if self.lingering.is_some() || matches!(self.machine, Machine::Unknown(..)) {
                        return After::Close;
                    }
                    self.machine.receive_end();
                }
                Ok(count) => {
                    self.context.record(Event::Received(count as u64));
                    left = left.saturating_sub(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.cancel();
                    return After::Close;
                }
            }
        }
        After::Wait
    }

    /// Reads once; 0 is the end of the stream.
    fn read_once(&mut self, scratch: &mut [u8], clock: &Clock) -> io::Result<usize> {
        if let Machine::Http1(connection) = &mut self.machine
            && self.lingering.is_none()
            && self.transport.is_plain()
            && let Some((buffer, missing)) = connection.body_buffer()
        {
            // Room for as much as has come already: never for what was merely announced.
            let step = missing.min(BODY_STEP.max(buffer.len() as u64));
            buffer.reserve(usize::try_from(step).unwrap_or(0));
            let (count, ended) = self.transport.socket.read_into(buffer, step)?;
            connection.body_filled(count, clock);
            if ended && count > 0 {
                connection.receive_end();
                self.readable = false;
            }
            return Ok(count);
        }
        let bulk = matches!(self.machine, Machine::Http2(_)) || !self.transport.is_plain();
        let most = if bulk { scratch.len() } else { HEAD_READ };
        let room = scratch.get_mut(..most).unwrap_or_default();
        let count = self.transport.read(room)?;
        let bytes = room.get(..count).unwrap_or_default();
        if count > 0 && self.lingering.is_none() {
            self.begin_tls(bytes)?;
            self.transport.open(bytes, |content| self.machine.receive(content, &self.context, clock))?;
            if self.leaving.is_some() {
                self.machine.leave();
            }
        }
        if count > 0 && count < most && !self.read_closed {
            // A short read has emptied the socket: what comes later makes a new event.
            self.readable = false;
        }
        Ok(count)
    }

    /// Decides by the first byte of a connection whether it is a TLS handshake.
    #[cfg_attr(not(feature = "tls"), allow(unreachable_code))]
    fn begin_tls(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fresh = matches!(&self.machine, Machine::Unknown(before, _) if before.is_empty());
        if !fresh || !self.transport.is_plain() {
            return Ok(());
        }
        match (&self.tls, bytes.first()) {
            (Some(tls), Some(&HANDSHAKE)) => {
                self.transport.secure(tls.accept().map_err(io::Error::other)?);
                self.context.tls = true;
                Ok(())
            }
            (None, Some(&HANDSHAKE)) => Err(self.protocol_error()),
            (Some(_), _) if self.require_tls => Err(self.protocol_error()),
            _ => Ok(()),
        }
    }

    fn protocol_error(&self) -> io::Error {
        self.context.record(Event::ProtocolError(Protocol::Http11));
        ErrorKind::InvalidData.into()
    }

    /// A request that is complete, with its stream.
    pub(super) fn next_request(&mut self) -> Option<(u32, Request)> {
        match &mut self.machine {
            Machine::Unknown(..) => None,
            Machine::Http1(connection) => connection.next_request().map(|request| (0, request)),
            Machine::Http2(connection) => connection.next_request(),
        }
    }

    /// Whether [`Link::next_request`] has one.
    pub(super) fn has_request(&self) -> bool {
        match &self.machine {
            Machine::Unknown(..) => false,
            Machine::Http1(connection) => connection.has_request(),
            Machine::Http2(connection) => connection.has_request(),
        }
    }

    /// Hands a response to the protocol.
    pub(super) fn respond(&mut self, stream: u32, response: Response, clock: &Clock) {
        match &mut self.machine {
            Machine::Unknown(..) => {}
            Machine::Http1(connection) => connection.respond(response, clock),
            Machine::Http2(connection) => connection.respond(stream, response, clock),
        }
    }

    /// Writes what waits, as far as the socket takes it.
    pub(super) fn send(&mut self, clock: &Clock) -> After {
        let mut sent = 0;
        while self.has_output(clock) && self.writable {
            if sent >= TURN {
                return After::Again;
            }
            match self.transport.write(self.machine.output(clock)) {
                Ok(0) => break,
                Ok(count) => {
                    sent += count;
                    self.progress(count, clock);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.cancel();
                    return After::Close;
                }
            }
        }
        if self.has_output(clock) {
            let fresh = Writing { started: clock.now(), progressed: clock.now(), bytes: 0 };
            self.writing.get_or_insert(fresh);
            return After::Wait;
        }
        self.writing = None;
        self.idle_since = clock.now();
        if self.machine.is_finished() && self.lingering.is_none() {
            self.transport.shut_down();
            self.lingering = Some(clock.now());
            if !self.readable && self.read_closed {
                return After::Close;
            }
            return After::Again;
        }
        After::Wait
    }

    fn has_output(&mut self, clock: &Clock) -> bool {
        self.transport.wants_write() || self.machine.output(clock).is_some_and(|output| !output.is_empty())
    }

    fn progress(&mut self, count: usize, clock: &Clock) {
        self.context.record(Event::Sent(count as u64));
        if let Some(writing) = &mut self.writing {
            writing.progressed = clock.now();
            writing.bytes += count as u64;
        }
    }

    /// Applies the time limits.
    pub(super) fn tick(&mut self, clock: &Clock) -> After {
        let limits = &self.context.limits;
        if self.lingering.is_some_and(|since| clock.since(since) >= LINGER) {
            return After::Close;
        }
        if let Some(writing) = &self.writing {
            let stalled = clock.since(writing.progressed) >= limits.write_stall;
            if stalled || limits.too_slow(writing.bytes, clock.since(writing.started), limits.write_stall) {
                self.cancel();
                return After::Close;
            }
        }
        let last_call_is_over = self.leaving.is_some_and(|since| clock.since(since) >= LAST_CALL);
        match &mut self.machine {
            Machine::Unknown(bytes, _) if last_call_is_over && bytes.is_empty() => return After::Close,
            Machine::Unknown(bytes, since) => {
                let limit = if self.transport.is_handshaking() {
                    limits.handshake
                } else if bytes.is_empty() {
                    limits.first_byte
                } else {
                    limits.head_time
                };
                if clock.since(*since) >= limit {
                    return After::Close;
                }
            }
            Machine::Http1(connection) if last_call_is_over => {
                connection.shut_down();
                connection.tick(clock);
            }
            Machine::Http1(connection) => connection.tick(clock),
            Machine::Http2(connection) => connection.tick(clock),
        }
        let finished = self.machine.is_finished() && self.lingering.is_none();
        if finished || self.has_output(clock) { After::Again } else { After::Wait }
    }

    /// Ends the connection in good order, soon.
    pub(super) fn shut_down(&mut self, clock: &Clock) {
        self.leaving.get_or_insert(clock.now());
        self.machine.leave();
    }

    /// Whether closing this connection would lose nothing.
    pub(super) fn is_idle(&self) -> bool {
        match &self.machine {
            Machine::Unknown(bytes, _) => bytes.is_empty(),
            Machine::Http1(connection) => connection.is_idle(),
            Machine::Http2(connection) => connection.is_idle(),
        }
    }

    /// The peer is gone: requests that are still worked on are given up.
    pub(super) fn cancel(&mut self) {
        match &mut self.machine {
            Machine::Unknown(..) => {}
            Machine::Http1(connection) => connection.cancel(),
            Machine::Http2(connection) => connection.cancel(),
        }
    }
}

impl Machine {
    fn receive(&mut self, bytes: &[u8], context: &Context, clock: &Clock) {
        match self {
            Machine::Http1(connection) => connection.receive(bytes, clock),
            Machine::Http2(connection) => connection.receive(bytes, clock),
            Machine::Unknown(before, since) => {
                if before.is_empty() {
                    *since = clock.now();
                }
                before.extend_from_slice(bytes);
                let known = before.len().min(PREFACE.len());
                if before.get(..known) != PREFACE.get(..known) {
                    let mut connection = http1::Connection::new(context.clone(), clock);
                    connection.receive(before, clock);
                    *self = Machine::Http1(Box::new(connection));
                } else if known == PREFACE.len() {
                    let mut connection = http2::Connection::new(context.clone(), clock);
                    connection.receive(before, clock);
                    *self = Machine::Http2(Box::new(connection));
                }
            }
        }
    }

    fn receive_end(&mut self) {
        match self {
            Machine::Unknown(..) => {}
            Machine::Http1(connection) => connection.receive_end(),
            Machine::Http2(connection) => connection.receive_end(),
        }
    }

    /// Lets the peer know that no further request is wanted; what it has sent already is answered.
    fn leave(&mut self) {
        match self {
            Machine::Unknown(..) => {}
            Machine::Http1(connection) => connection.drain(),
            Machine::Http2(connection) => connection.shut_down(),
        }
    }

    fn wants_input(&self) -> bool {
        match self {
            Machine::Unknown(..) => true,
            Machine::Http1(connection) => connection.wants_input(),
            Machine::Http2(connection) => connection.wants_input(),
        }
    }

    fn output(&mut self, clock: &Clock) -> Option<&mut Output> {
        match self {
            Machine::Unknown(..) => None,
            Machine::Http1(connection) => Some(connection.output()),
            Machine::Http2(connection) => Some(connection.output(clock)),
        }
    }

    fn is_finished(&self) -> bool {
        match self {
            Machine::Unknown(..) => false,
            Machine::Http1(connection) => connection.is_finished(),
            Machine::Http2(connection) => connection.is_finished(),
        }
    }
}
