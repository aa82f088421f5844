//! One stream: a request that arrives, is answered, and is sent (RFC 9113, 5.1).
#![forbid(unsafe_code)]

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    time::Instant,
};

use bytes::Bytes;

use crate::wire::{
    budget::Charge,
    headers::Headers,
    message::{Body, Cancelled, RequestHead},
};

use super::exchange::Exchange;

/// The streams of a connection by their identifiers.
pub(super) type Streams = HashMap<u32, Stream, BuildHasherDefault<StreamHasher>>;

/// Hashes stream identifiers by a multiplication. A peer that chooses them so that they collide gains little: there are only
/// as many as may be open at once.
#[derive(Default)]
pub(super) struct StreamHasher(u64);

impl Hasher for StreamHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32((*byte).into()));
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A stream that is open or half-closed; closed ones are not kept.
pub(super) struct Stream {
    pub(super) phase: Phase,
    /// END_STREAM has come: half-closed (remote).
    pub(super) ended: bool,
    /// What the peer may still send.
    pub(super) receive_window: i64,
    /// What was received since the last WINDOW_UPDATE.
    pub(super) unacknowledged: u32,
    /// What we may still send.
    pub(super) send_window: i64,
    /// The method is HEAD: the answer has no body.
    pub(super) head_only: bool,
    pub(super) cancelled: Cancelled,
    /// The bytes of the request, then those of the answer.
    pub(super) charge: Charge,
    /// Set while the messages of the call are answered one by one.
    pub(super) exchange: Option<Box<Exchange>>,
    /// When the client of a gRPC call stops waiting.
    pub(super) deadline: Option<Instant>,
}

pub(super) enum Phase {
    /// The request is not complete.
    Receiving(Box<Receiving>),
    /// An exchange waits for its next message since then.
    Listening(Instant),
    /// The request has been handed up.
    Running,
    /// The head of the answer has been written.
    Sending(Sending),
}

pub(super) struct Receiving {
    pub(super) head: RequestHead,
    pub(super) body: Vec<u8>,
    /// `content-length`, which the body must match (RFC 9113, 8.1.1).
    pub(super) declared: Option<u64>,
    pub(super) limit: usize,
    pub(super) started: Instant,
}

pub(super) struct Sending {
    pub(super) pieces: VecDeque<Bytes>,
    pub(super) left: usize,
    pub(super) trailers: Option<Headers>,
    pub(super) started: Instant,
    pub(super) progressed: Instant,
    pub(super) sent: u64,
    /// Stands in the connection's queue of streams that may send.
    pub(super) queued: bool,
}

impl Sending {
    /// An answer of which nothing has been sent; it stands in the queue.
    pub(super) fn new(body: Body, trailers: Option<Headers>, now: Instant) -> Sending {
        let left = body.len();
        let pieces = body.into_pieces().collect();
        Sending { pieces, left, trailers, started: now, progressed: now, sent: 0, queued: true }
    }
}

/// How a stream came to its end; decides what a late frame means (RFC 9113, 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// Both sides said END_STREAM.
    Ended,
    /// The peer reset it.
    ByPeer,
    /// We reset it: frames that were on their way are ignored.
    ByUs,
}

/// The streams that closed last.
#[derive(Debug, Default)]
pub(super) struct ClosedStreams(VecDeque<(u32, Closed)>);

impl ClosedStreams {
    const REMEMBERED: usize = 256;

    pub(super) fn push(&mut self, stream: u32, how: Closed) {
        if self.0.len() == Self::REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((stream, how));
    }

    pub(super) fn get(&self, stream: u32) -> Option<Closed> {
        self.0.iter().rev().find(|(closed, _)| *closed == stream).map(|(_, how)| *how)
    }
}
