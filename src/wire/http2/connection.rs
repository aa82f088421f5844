//! One HTTP/2 connection: the public face of the state machine, its life and its time limits.
#![forbid(unsafe_code)]

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::wire::{
    clock::Clock,
    context::Context,
    grpc,
    headers::Headers,
    hpack,
    message::{Event, Protocol, Request, Response},
    output::Output,
};

use super::{
    allowance::Allowance,
    frame::{self, ConnectionError, ErrorCode, INITIAL_WINDOW, MAX_31_BITS, PING},
    incoming::{HeaderBlock, Reading},
    settings::{self, PeerSettings},
    stream::{Closed, ClosedStreams, Phase, Streams},
};

/// The payload of the PING that separates the two GOAWAY frames of an orderly end.
pub(super) const DRAIN_PING: [u8; 8] = *b"draining";
/// How long that PING may take.
const DRAIN_WAIT: Duration = Duration::from_secs(1);

/// The state machine of one connection. Bytes that were read go into [`Connection::receive`]; what
/// comes out of [`Connection::output`] is to be written, also after [`Connection::is_finished`].
pub struct Connection {
    pub(super) context: Context,
    pub(super) now: Instant,
    pub(super) reading: Reading,
    pub(super) block: Option<HeaderBlock>,
    pub(super) settings_seen: bool,
    pub(super) decoder: hpack::Decoder,
    pub(super) encoder: hpack::Encoder,
    pub(super) peer: PeerSettings,
    pub(super) streams: Streams,
    pub(super) closed: ClosedStreams,
    /// The highest stream that the peer has opened.
    pub(super) last_stream: u32,
    pub(super) receive_window: i64,
    pub(super) unacknowledged: u32,
    pub(super) send_window: i64,
    /// Streams that have something to send and a window for it.
    pub(super) sendable: VecDeque<u32>,
    pub(super) ready: VecDeque<(u32, Request)>,
    /// Requests handed up whose streams have been cancelled: their work may still go on.
    pub(super) orphans: u32,
    pub(super) served: u64,
    pub(super) idle_frames: Allowance,
    pub(super) resets: Allowance,
    pub(super) life: Life,
    pub(super) output: Output,
    created: Instant,
    pub(super) active: Instant,
}

/// How far the connection has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// New streams are welcome.
    Open,
    /// The first GOAWAY has been sent: new streams are still served, as they may be under way.
    Draining(Instant),
    /// The last stream is known: what has begun is finished.
    LastStream(u32),
    /// Nothing is read or begun any more.
    Over,
}

impl Connection {
    /// A connection whose peer has sent, or is about to send, the client's preface.
    pub fn new(context: Context, clock: &Clock) -> Connection {
        let limits = &context.limits;
        let mut output = Output::default();
        settings::put_preface(&mut output, limits);
        let now = clock.now();
        Connection {
            now,
            reading: Reading::Preface(0),
            block: None,
            settings_seen: false,
            decoder: hpack::Decoder::new(4096, limits.head, limits.header_count),
            encoder: hpack::Encoder::default(),
            peer: PeerSettings::default(),
            streams: Streams::default(),
            closed: ClosedStreams::default(),
            last_stream: 0,
            receive_window: i64::from(limits.connection_window.clamp(INITIAL_WINDOW, MAX_31_BITS)),
            unacknowledged: 0,
            send_window: i64::from(INITIAL_WINDOW),
            sendable: VecDeque::new(),
            ready: VecDeque::new(),
            orphans: 0,
            served: 0,
            idle_frames: Allowance::new(1000, 100, now),
            resets: Allowance::new(200, 20, now),
            life: Life::Open,
            output,
            created: now,
            active: now,
            context,
        }
    }

    /// Takes bytes that were read.
    pub fn receive(&mut self, mut bytes: &[u8], clock: &Clock) {
        self.now = clock.now();
        while !bytes.is_empty() && self.life != Life::Over {
            match self.step(bytes, clock) {
                Ok(used) => bytes = bytes.get(used..).unwrap_or_default(),
                Err(error) => self.fail(error),
            }
        }
    }

    /// The peer will send nothing more; without its window updates and acknowledgements nothing can go on.
    pub fn receive_end(&mut self) {
        self.cancel();
    }

    /// A request that is complete, to be answered by [`Connection::respond`] under the same number.
    pub fn next_request(&mut self) -> Option<(u32, Request)> {
        self.ready.pop_front()
    }

    /// The answer to a request that was taken; also to be given when the request was cancelled.
    pub fn respond(&mut self, stream: u32, response: Response, clock: &Clock) {
        self.now = clock.now();
        if !self.streams.contains_key(&stream) {
            self.orphans = self.orphans.saturating_sub(1);
            return;
        }
        self.active = self.now;
        self.idle_frames.earn(8);
        self.resets.earn(1);
        if self.streams.get(&stream).is_some_and(|stream| stream.exchange.is_some()) {
            self.answer_message(stream, response, clock);
        } else {
            self.begin_response(stream, response, clock);
        }
        if self.served >= self.context.limits.requests_per_connection {
            self.shut_down();
        }
    }

    /// Whether [`Connection::next_request`] has one.
    pub fn has_request(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The bytes to write.
    pub fn output(&mut self, clock: &Clock) -> &mut Output {
        self.fill_output(clock);
        &mut self.output
    }

    /// Whether more input can be used now. A peer that lets its answers pile up is not read from.
    pub fn wants_input(&self) -> bool {
        self.life != Life::Over && self.output.len() < 1 << 20
    }

    /// Whether nothing further will happen once the output is written.
    pub fn is_finished(&self) -> bool {
        match self.life {
            Life::Over => true,
            Life::LastStream(_) => self.streams.is_empty(),
            Life::Open | Life::Draining(_) => false,
        }
    }

    /// Whether no stream is open and nothing is to be written.
    pub fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.output.is_empty()
    }

    /// Ends the connection in good order: a GOAWAY that refuses nothing, a PING to see that it has
    /// arrived, then the GOAWAY that counts (RFC 9113, 6.8).
    pub fn shut_down(&mut self) {
        if self.life == Life::Open {
            frame::put_goaway(&mut self.output, MAX_31_BITS, ErrorCode::NoError, "");
            frame::put(&mut self.output, PING, 0, 0, &DRAIN_PING);
            self.life = Life::Draining(self.now);
        }
    }

    /// The peer is gone: nobody waits for any answer.
    pub fn cancel(&mut self) {
        for (_, stream) in self.streams.drain() {
            stream.cancelled.set();
            if matches!(stream.phase, Phase::Running) {
                self.context.record(Event::Cancelled);
            }
        }
        self.ready.clear();
        self.sendable.clear();
        self.life = Life::Over;
    }

    /// Applies the time limits.
    pub fn tick(&mut self, clock: &Clock) {
        self.now = clock.now();
        let limits = self.context.limits.clone();
        if let Life::Draining(since) = self.life
            && clock.since(since) >= DRAIN_WAIT
        {
            self.finish_draining();
        }
        let slow_start = !self.settings_seen && clock.since(self.created) >= limits.head_time;
        let slow_block =
            self.block.as_ref().is_some_and(|block| clock.since(block.started) >= limits.head_time);
        if self.life != Life::Over && (slow_start || slow_block) {
            return self.fail(ConnectionError(ErrorCode::NoError, "the peer was too slow"));
        }
        let mut slow_requests = Vec::new();
        let mut late = Vec::new();
        let mut silent = Vec::new();
        for (id, stream) in &self.streams {
            match &stream.phase {
                Phase::Receiving(request) => {
                    let waited = clock.since(request.started);
                    let bytes = request.body.len() as u64;
                    if waited >= limits.body_time || limits.too_slow(bytes, waited, limits.body_grace) {
                        slow_requests.push(*id);
                    }
                }
                Phase::Listening(since) if clock.since(*since) >= limits.idle => silent.push(*id),
                Phase::Running if stream.deadline.is_some_and(|deadline| deadline <= self.now) => {
                    late.push(*id)
                }
                Phase::Listening(_) | Phase::Running => {}
                Phase::Sending(sending) => {
                    let stalled = clock.since(sending.progressed) >= limits.write_stall;
                    if stalled
                        || limits.too_slow(sending.sent, clock.since(sending.started), limits.write_stall)
                    {
                        silent.push(*id);
                    }
                }
            }
        }
        for id in slow_requests {
            self.refuse_stream(id, 408, clock);
        }
        for id in late {
            self.give_up(id, clock);
        }
        for id in silent {
            self.reset(id, ErrorCode::Cancel);
        }
        if self.is_idle() && self.life == Life::Open && clock.since(self.active) >= limits.idle {
            frame::put_goaway(&mut self.output, self.last_stream, ErrorCode::NoError, "");
            self.life = Life::Over;
        }
    }

    /// Answers a call whose deadline has passed, and cancels its work.
    fn give_up(&mut self, id: u32, clock: &Clock) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.cancelled.set();
        }
        self.context.record(Event::Cancelled);
        let waiting = self.ready.len();
        self.ready.retain(|(ready, _)| *ready != id);
        self.orphans += u32::from(self.ready.len() == waiting);
        let native = Headers::new().with("content-type", "application/grpc");
        self.begin_response(id, grpc::refuse(&native, 504), clock);
    }

    /// Sends the GOAWAY that counts.
    pub(super) fn finish_draining(&mut self) {
        frame::put_goaway(&mut self.output, self.last_stream, ErrorCode::NoError, "");
        self.life = Life::LastStream(self.last_stream);
    }

    /// Ends the connection because of an error (RFC 9113, 5.4.1).
    pub(super) fn fail(&mut self, error: ConnectionError) {
        let ConnectionError(code, text) = error;
        if code != ErrorCode::NoError {
            log::debug!("HTTP/2 connection of {:?} ends with {code:?}: {text}", self.context.peer);
            self.context.record(Event::ProtocolError(Protocol::Http2));
        }
        self.cancel();
        frame::put_goaway(&mut self.output, self.last_stream, code, text);
    }

    /// Ends one stream with RST_STREAM (RFC 9113, 5.4.2).
    pub(super) fn reset(&mut self, id: u32, code: ErrorCode) {
        frame::put_reset(&mut self.output, id, code);
        self.forget(id, Closed::ByUs);
    }

    /// A stream error that the peer caused. Costs as much as if it had reset the stream itself, because it makes
    /// the same work for nothing.
    pub(super) fn stream_error(&mut self, id: u32, code: ErrorCode) -> Result<(), ConnectionError> {
        self.reset(id, code);
        self.pay_reset()
    }

    /// Forgets a stream, and the request with it if no worker has it yet.
    pub(super) fn forget(&mut self, id: u32, how: Closed) {
        self.closed.push(id, how);
        let Some(stream) = self.streams.remove(&id) else { return };
        if how != Closed::Ended {
            stream.cancelled.set();
            if matches!(stream.phase, Phase::Running) {
                self.context.record(Event::Cancelled);
                let waiting = self.ready.len();
                self.ready.retain(|(ready, _)| *ready != id);
                self.orphans += u32::from(self.ready.len() == waiting);
            }
        }
    }

    pub(super) fn pay_reset(&mut self) -> Result<(), ConnectionError> {
        if self.resets.spend(1, self.now) {
            Ok(())
        } else {
            Err(ConnectionError(ErrorCode::EnhanceYourCalm, "too many streams were reset"))
        }
    }

    /// Pays for a frame that completes nothing.
    pub(super) fn pay_idle_frame(&mut self) -> Result<(), ConnectionError> {
        if self.idle_frames.spend(1, self.now) {
            Ok(())
        } else {
            Err(ConnectionError(ErrorCode::EnhanceYourCalm, "too many frames without work"))
        }
    }
}
