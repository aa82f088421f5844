//! Sending responses within the peer's windows (RFC 9113, 5.2 and 6.9), streams taking turns.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use crate::wire::{
    clock::Clock,
    headers::{Headers, is_field_value, is_same_name, is_token},
    message::{Body, Response},
    output::Output,
};

use super::{
    connection::Connection,
    frame::{self, CONTINUATION, DATA, END_HEADERS, END_STREAM, ErrorCode, HEADERS},
    stream::{Closed, Phase, Sending},
};

/// Frames are made while less than this waits to be written.
const HIGH_WATER: usize = 256 << 10;
/// The longest DATA frame, however long a frame the peer would take: others want their turn.
const LONGEST_DATA: usize = 64 << 10;

impl Connection {
    /// Writes the head of a response and lets its body follow as the windows allow.
    pub(super) fn begin_response(&mut self, id: u32, response: Response, clock: &Clock) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Response { status, headers, body, trailers } = response;
        let has_content = !matches!(status, 100..200 | 204 | 304);
        let length = body.len();
        let body = if has_content && !stream.head_only { body } else { Body::default() };
        let end = body.is_empty() && trailers.is_none();
        let told = has_content && trailers.is_none() && !headers.contains("grpc-status");
        stream.charge.set(body.len());
        stream.phase = Phase::Sending(Sending::new(body, trailers, clock.now()));
        self.put_head(id, status, &headers, told.then_some(length), end, clock);
        if end {
            self.end_response(id);
        } else {
            self.sendable.push_back(id);
        }
    }

    /// Writes the head of a response.
    pub(super) fn put_head(
        &mut self,
        id: u32,
        status: u16,
        headers: &Headers,
        length: Option<usize>,
        end_stream: bool,
        clock: &Clock,
    ) {
        let mut block = Vec::with_capacity(128);
        self.encoder.begin(&mut block);
        self.encoder.status(status, &mut block);
        put_fields(&self.encoder, headers, &mut block);
        if !headers.contains("date") {
            self.encoder.field(b"date", clock.date().as_bytes(), &mut block);
        }
        if let Some(length) = length {
            self.encoder.field(b"content-length", length.to_string().as_bytes(), &mut block);
        }
        self.put_block(id, &block, end_stream);
    }

    /// Writes an interim `100 Continue`.
    pub(super) fn put_continue(&mut self, id: u32) {
        let mut block = Vec::new();
        self.encoder.begin(&mut block);
        self.encoder.status(100, &mut block);
        self.put_block(id, &block, false);
    }

    /// Writes a header block as HEADERS and as many CONTINUATION frames as the peer's frame size asks for.
    fn put_block(&mut self, id: u32, block: &[u8], end_stream: bool) {
        let mut fragments = block.chunks(self.peer.max_frame).peekable();
        let mut kind = HEADERS;
        let mut flags = if end_stream { END_STREAM } else { 0 };
        while let Some(fragment) = fragments.next() {
            if fragments.peek().is_none() {
                flags |= END_HEADERS;
            }
            frame::put(&mut self.output, kind, flags, id, fragment);
            (kind, flags) = (CONTINUATION, 0);
        }
    }

    /// Makes DATA frames of what may be sent, until enough waits to be written.
    pub(super) fn fill_output(&mut self, clock: &Clock) {
        while self.output.len() < HIGH_WATER {
            let Some(id) = self.sendable.pop_front() else { return };
            if !self.send_some(id, clock) {
                // The connection's window is used up: keep the place in the queue.
                self.sendable.push_front(id);
                return;
            }
        }
    }

    /// Sends one frame of a stream; false if the connection's window forbids it.
    fn send_some(&mut self, id: u32, clock: &Clock) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return true };
        let Phase::Sending(sending) = &mut stream.phase else { return true };
        if sending.left > 0 {
            if self.send_window <= 0 {
                return false;
            }
            if stream.send_window <= 0 {
                sending.queued = false;
                return true;
            }
            let window = usize::try_from(stream.send_window.min(self.send_window)).unwrap_or(0);
            let count = sending.left.min(window).min(self.peer.max_frame).min(LONGEST_DATA);
            let end = count == sending.left && sending.trailers.is_none() && stream.exchange.is_none();
            frame::put_header(&mut self.output, count, DATA, if end { END_STREAM } else { 0 }, id);
            put_pieces(&mut self.output, &mut sending.pieces, count);
            sending.left -= count;
            sending.sent += count as u64;
            sending.progressed = self.now;
            stream.send_window -= count as i64;
            self.send_window -= count as i64;
            self.idle_frames.earn((count / 1024) as u32);
            if sending.left > 0 {
                self.sendable.push_back(id);
                return true;
            }
        }
        if stream.exchange.is_some() {
            stream.phase = Phase::Listening(self.now);
            self.next_message(id, clock);
            return true;
        }
        if let Some(trailers) = sending.trailers.take() {
            let mut block = Vec::with_capacity(64);
            self.encoder.begin(&mut block);
            put_fields(&self.encoder, &trailers, &mut block);
            // An empty block would leave the stream open: it takes an empty DATA frame to end it.
            if block.is_empty() {
                frame::put(&mut self.output, DATA, END_STREAM, id, &[]);
            } else {
                self.put_block(id, &block, true);
            }
        }
        self.end_response(id);
        true
    }

    /// The whole response has been written. If the request is still coming, its rest is not wanted (RFC 9113, 8.1).
    fn end_response(&mut self, id: u32) {
        self.active = self.now;
        match self.streams.get(&id) {
            Some(stream) if stream.ended => self.forget(id, Closed::Ended),
            Some(_) => self.reset(id, ErrorCode::NoError),
            None => {}
        }
    }

    /// Puts a stream back into the queue when its window has opened.
    pub(super) fn wake_sender(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if let Phase::Sending(sending) = &mut stream.phase
            && !sending.queued
            && stream.send_window > 0
        {
            sending.queued = true;
            self.sendable.push_back(id);
        }
    }
}

/// Moves `count` bytes from the front of `pieces` to the output.
fn put_pieces(output: &mut Output, pieces: &mut VecDeque<bytes::Bytes>, mut count: usize) {
    while count > 0 {
        let Some(piece) = pieces.front_mut() else { return };
        if piece.len() > count {
            return output.push(piece.split_to(count));
        }
        count -= piece.len();
        if let Some(piece) = pieces.pop_front() {
            output.push(piece);
        }
    }
}

/// Appends the fields that HTTP/2 allows; the others speak about an HTTP/1 connection (RFC 9113, 8.2.2).
fn put_fields(encoder: &crate::wire::hpack::Encoder, headers: &Headers, block: &mut Vec<u8>) {
    const LEFT_OUT: [&str; 6] =
        ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "content-length"];
    for (name, value) in headers.iter() {
        let left_out = LEFT_OUT.iter().any(|other| is_same_name(name, other));
        if !left_out && is_token(name) && is_field_value(value) {
            encoder.field(name, value.trim_ascii(), block);
        }
    }
}
