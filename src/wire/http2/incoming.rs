//! Receiving frames: which ones are allowed where, and what they change (RFC 9113, 4 to 6).
//!
//! DATA is taken as it arrives and goes into the body of its stream; every other frame is looked at
//! once it is complete, which its size limit keeps small.
#![forbid(unsafe_code)]

use std::time::Instant;

use crate::wire::{
    budget::{Charge, Exceeded},
    clock::Clock,
    grpc,
    headers::Headers,
    message::{Cancelled, Event, Request, RequestHead},
};

use super::{
    connection::{Connection, DRAIN_PING, Life},
    exchange::Exchange,
    frame::{
        self, ACK, CONTINUATION, ConnectionError, DATA, END_HEADERS, END_STREAM, ErrorCode, FrameHeader,
        GOAWAY, HEADERS, MAX_31_BITS, MAX_FRAME, PADDED, PING, PREFACE, PRIORITY, PRIORITY_FLAG,
        PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    },
    request,
    stream::{Closed, Phase, Receiving, Stream},
};

/// Where in the byte stream the reader stands.
pub(super) enum Reading {
    /// In the client's preface; so many octets have matched.
    Preface(usize),
    /// In the header of a frame.
    Header { bytes: [u8; 9], have: usize },
    /// In a payload that is looked at when complete.
    Payload { header: FrameHeader, bytes: Vec<u8> },
    /// In the payload of a DATA frame.
    Data(DataFrame),
}

impl Reading {
    const NEXT: Reading = Reading::Header { bytes: [0; 9], have: 0 };
}

/// A DATA frame under way.
#[derive(Clone, Copy)]
pub(super) struct DataFrame {
    header: FrameHeader,
    /// Octets of the payload that have not come yet, padding included.
    missing: usize,
    /// The length of the padding, once it is known.
    padding: Option<usize>,
}

/// A header block whose CONTINUATION frames are awaited.
pub(super) struct HeaderBlock {
    stream: u32,
    end_stream: bool,
    bytes: Vec<u8>,
    depends_on_itself: bool,
    continuations: u32,
    pub(super) started: Instant,
}

const fn protocol_error(text: &'static str) -> ConnectionError {
    ConnectionError(ErrorCode::Protocol, text)
}

const fn wrong_size(text: &'static str) -> ConnectionError {
    ConnectionError(ErrorCode::FrameSize, text)
}

impl Connection {
    /// Works on the front of `bytes`; returns how many are done with.
    pub(super) fn step(&mut self, bytes: &[u8], clock: &Clock) -> Result<usize, ConnectionError> {
        match &mut self.reading {
            Reading::Preface(matched) => {
                let expected = PREFACE.get(*matched..).unwrap_or_default();
                let count = expected.len().min(bytes.len());
                if bytes.get(..count) != expected.get(..count) {
                    return Err(protocol_error("the connection preface is wrong"));
                }
                *matched += count;
                if *matched == PREFACE.len() {
                    self.reading = Reading::NEXT;
                }
                Ok(count)
            }
            Reading::Header { bytes: collected, have } => {
                let room = collected.get_mut(*have..).unwrap_or_default();
                let count = room.len().min(bytes.len());
                room.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
                *have += count;
                if *have == collected.len() {
                    let header = FrameHeader::parse(*collected);
                    self.begin_frame(header, clock)?;
                }
                Ok(count)
            }
            Reading::Payload { header, bytes: collected } => {
                let header = *header;
                let count = (header.length - collected.len()).min(bytes.len());
                let piece = bytes.get(..count).unwrap_or_default();
                if count == header.length {
                    self.reading = Reading::NEXT;
                    self.frame(header, piece, clock)?;
                } else {
                    collected.extend_from_slice(piece);
                    if collected.len() == header.length {
                        let payload = std::mem::take(collected);
                        self.reading = Reading::NEXT;
                        self.frame(header, &payload, clock)?;
                    }
                }
                Ok(count)
            }
            Reading::Data(frame) => {
                let frame = *frame;
                self.data(frame, bytes, clock)
            }
        }
    }

    /// What the header alone decides.
    fn begin_frame(&mut self, header: FrameHeader, clock: &Clock) -> Result<(), ConnectionError> {
        if header.length > MAX_FRAME {
            return Err(wrong_size("a frame is longer than SETTINGS_MAX_FRAME_SIZE"));
        }
        if !self.settings_seen && (header.kind != SETTINGS || header.has(ACK)) {
            return Err(protocol_error("the first frame is not SETTINGS"));
        }
        if let Some(block) = &self.block
            && (header.kind != CONTINUATION || header.stream != block.stream)
        {
            return Err(protocol_error("a header block is interrupted"));
        }
        if header.kind == DATA {
            let padding = (!header.has(PADDED)).then_some(0);
            self.begin_data(header)?;
            let frame = DataFrame { header, missing: header.length, padding };
            self.reading = Reading::Data(frame);
            if header.length == 0 {
                if padding.is_none() {
                    return Err(wrong_size("a padded frame has no pad length"));
                }
                self.end_data(frame, clock)?;
            }
        } else if header.length == 0 {
            self.reading = Reading::NEXT;
            self.frame(header, &[], clock)?;
        } else {
            self.reading = Reading::Payload { header, bytes: Vec::new() };
        }
        Ok(())
    }

    /// A complete frame other than DATA.
    fn frame(&mut self, header: FrameHeader, payload: &[u8], clock: &Clock) -> Result<(), ConnectionError> {
        match header.kind {
            HEADERS => self.headers(header, payload, clock),
            PRIORITY => self.priority(header, payload),
            RST_STREAM => self.rst_stream(header, payload),
            SETTINGS => self.settings(header, payload),
            PUSH_PROMISE => Err(protocol_error("a client cannot push")),
            PING => self.ping(header, payload),
            GOAWAY => self.goaway(header, payload),
            WINDOW_UPDATE => self.window_update(header, payload),
            CONTINUATION => self.continuation(header, payload, clock),
            // Frames of other types are ignored (RFC 9113, 5.5).
            _ => self.pay_idle_frame(),
        }
    }

    fn begin_data(&mut self, header: FrameHeader) -> Result<(), ConnectionError> {
        let length = header.length as i64;
        if header.stream == 0 {
            return Err(protocol_error("DATA without a stream"));
        }
        if length > self.receive_window {
            return Err(ConnectionError(ErrorCode::FlowControl, "the connection's window is exceeded"));
        }
        self.receive_window -= length;
        if length == 0 && !header.has(END_STREAM) {
            self.pay_idle_frame()?;
        }
        match self.streams.get_mut(&header.stream) {
            Some(stream) if stream.ended => self.stream_error(header.stream, ErrorCode::StreamClosed),
            Some(stream) if length > stream.receive_window => {
                self.stream_error(header.stream, ErrorCode::FlowControl)
            }
            Some(stream) => {
                stream.receive_window -= length;
                Ok(())
            }
            None if header.stream > self.last_stream || header.stream.is_multiple_of(2) => {
                Err(protocol_error("DATA on an idle stream"))
            }
            None => match self.closed.get(header.stream) {
                Some(Closed::ByUs) => Ok(()),
                Some(Closed::ByPeer) => self.stream_error(header.stream, ErrorCode::StreamClosed),
                Some(Closed::Ended) | None => {
                    Err(ConnectionError(ErrorCode::StreamClosed, "DATA on a closed stream"))
                }
            },
        }
    }

    /// Takes the front of `bytes` into the body of the frame's stream.
    fn data(&mut self, mut frame: DataFrame, bytes: &[u8], clock: &Clock) -> Result<usize, ConnectionError> {
        let Some(padding) = frame.padding else {
            let length = usize::from(bytes.first().copied().unwrap_or(0));
            frame.missing -= 1;
            if length > frame.missing {
                return Err(protocol_error("the padding is longer than its frame"));
            }
            frame.padding = Some(length);
            if length == frame.missing && !frame.header.has(END_STREAM) {
                self.pay_idle_frame()?;
            }
            self.reading = Reading::Data(frame);
            if frame.missing == 0 {
                self.end_data(frame, clock)?;
            }
            return Ok(1);
        };
        let count = frame.missing.min(bytes.len());
        let data = count.min(frame.missing.saturating_sub(padding));
        self.append(frame.header.stream, bytes.get(..data).unwrap_or_default(), clock)?;
        frame.missing -= count;
        self.reading = Reading::Data(frame);
        if frame.missing == 0 {
            self.end_data(frame, clock)?;
        }
        Ok(count)
    }

    /// Adds to a body. A stream that is being refused takes no more; its bytes are dropped.
    fn append(&mut self, id: u32, bytes: &[u8], clock: &Clock) -> Result<(), ConnectionError> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if let Some(exchange) = &mut stream.exchange {
            if stream.charge.grow(bytes.len()).is_err() || !exchange.append(bytes) {
                return self.stream_error(id, ErrorCode::EnhanceYourCalm);
            }
            self.next_message(id, clock);
            return Ok(());
        }
        let Phase::Receiving(request) = &mut stream.phase else { return Ok(()) };
        let length = request.body.len() + bytes.len();
        if request.declared.is_some_and(|declared| length as u64 > declared) {
            return self.stream_error(id, ErrorCode::Protocol);
        }
        let status = if length > request.limit {
            413
        } else {
            match stream.charge.grow(bytes.len()) {
                Ok(()) => {
                    let known = request.body.len() >= 5;
                    request.body.extend_from_slice(bytes);
                    // A message that is too long is told so before all of it has been sent.
                    let native = !known && grpc::Form::of(&request.head.headers) == Some(grpc::Form::Native);
                    let announced = grpc::announced_length(&request.body).filter(|_| native);
                    if announced.is_none_or(|length| length <= request.limit.saturating_sub(5)) {
                        return Ok(());
                    }
                    413
                }
                Err(exceeded) => exceeded.status(),
            }
        };
        self.refuse_stream(id, status, clock);
        Ok(())
    }

    /// The frame is complete: give its windows back, and end the stream if it says so.
    fn end_data(&mut self, frame: DataFrame, clock: &Clock) -> Result<(), ConnectionError> {
        self.reading = Reading::NEXT;
        let FrameHeader { length, stream: id, .. } = frame.header;
        let ends = frame.header.has(END_STREAM);
        self.unacknowledged += length as u32;
        self.idle_frames.earn((length / 1024) as u32);
        if self.unacknowledged >= self.context.limits.connection_window / 2 {
            self.receive_window += i64::from(self.unacknowledged);
            frame::put_window_update(&mut self.output, 0, std::mem::take(&mut self.unacknowledged));
        }
        let half = self.context.limits.stream_window / 2;
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.unacknowledged += length as u32;
            let wanted = !ends && (stream.exchange.is_some() || matches!(stream.phase, Phase::Receiving(_)));
            if wanted && stream.unacknowledged >= half {
                stream.receive_window += i64::from(stream.unacknowledged);
                frame::put_window_update(&mut self.output, id, std::mem::take(&mut stream.unacknowledged));
            }
        }
        if ends { self.end_request(id, Headers::new(), clock) } else { Ok(()) }
    }

    fn headers(&mut self, header: FrameHeader, payload: &[u8], clock: &Clock) -> Result<(), ConnectionError> {
        let id = header.stream;
        if id == 0 || id.is_multiple_of(2) {
            return Err(protocol_error("HEADERS on a stream that a client cannot open"));
        }
        let mut block = frame::strip_padding(&header, payload)?;
        let mut depends_on_itself = false;
        if header.has(PRIORITY_FLAG) {
            let (priority, rest) =
                block.split_at_checked(5).ok_or(wrong_size("HEADERS without its priority"))?;
            depends_on_itself = frame::number(priority).is_some_and(|number| number & MAX_31_BITS == id);
            block = rest;
        }
        let end_stream = header.has(END_STREAM);
        if header.has(END_HEADERS) {
            return self.header_block(id, end_stream, block, depends_on_itself, clock);
        }
        self.block = Some(HeaderBlock {
            stream: id,
            end_stream,
            bytes: block.to_vec(),
            depends_on_itself,
            continuations: 0,
            started: self.now,
        });
        Ok(())
    }

    fn continuation(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        clock: &Clock,
    ) -> Result<(), ConnectionError> {
        let limits = self.context.limits.clone();
        let Some(block) = &mut self.block else {
            return Err(protocol_error("CONTINUATION without a header block"));
        };
        block.continuations += 1;
        let length = block.bytes.len() + payload.len();
        if block.continuations > limits.continuations || length > limits.header_block {
            return Err(ConnectionError(ErrorCode::EnhanceYourCalm, "the header block is too long"));
        }
        block.bytes.extend_from_slice(payload);
        if !header.has(END_HEADERS) {
            return Ok(());
        }
        let Some(block) = self.block.take() else { return Ok(()) };
        self.header_block(block.stream, block.end_stream, &block.bytes, block.depends_on_itself, clock)
    }

    /// A complete header block: a new request, or the trailers of one.
    fn header_block(
        &mut self,
        id: u32,
        end_stream: bool,
        block: &[u8],
        depends_on_itself: bool,
        clock: &Clock,
    ) -> Result<(), ConnectionError> {
        // The table follows every block, also those of streams that are not served.
        let decoded = self.decoder.decode(block).map_err(|error| {
            log::debug!("{error}");
            ConnectionError(ErrorCode::Compression, "the header block cannot be decoded")
        })?;
        if let Some(stream) = self.streams.get(&id) {
            if stream.ended {
                return self.stream_error(id, ErrorCode::StreamClosed);
            }
            if !end_stream || !request::are_trailers(&decoded.headers) {
                return self.stream_error(id, ErrorCode::Protocol);
            }
            if decoded.too_large {
                self.refuse_stream(id, 431, clock);
                return Ok(());
            }
            return self.end_request(id, decoded.headers, clock);
        }
        if id <= self.last_stream {
            return match self.closed.get(id) {
                Some(Closed::ByUs) => Ok(()),
                Some(Closed::ByPeer) => self.stream_error(id, ErrorCode::StreamClosed),
                Some(Closed::Ended) => {
                    Err(ConnectionError(ErrorCode::StreamClosed, "HEADERS on a closed stream"))
                }
                None => Err(protocol_error("a stream identifier is not above those before")),
            };
        }
        self.last_stream = id;
        if matches!(self.life, Life::LastStream(last) if id > last) {
            // The GOAWAY has told the peer that this stream is not served (RFC 9113, 6.8).
            self.closed.push(id, Closed::ByUs);
            return Ok(());
        }
        if depends_on_itself {
            return self.stream_error(id, ErrorCode::Protocol);
        }
        let open = u32::try_from(self.streams.len()).unwrap_or(u32::MAX);
        if open.saturating_add(self.orphans) >= self.context.limits.streams {
            return self.stream_error(id, ErrorCode::RefusedStream);
        }
        self.active = self.now;
        self.open_stream(id, end_stream, &decoded, clock)
    }

    fn open_stream(
        &mut self,
        id: u32,
        end_stream: bool,
        decoded: &crate::wire::hpack::Decoded,
        clock: &Clock,
    ) -> Result<(), ConnectionError> {
        self.served += 1;
        let (head, declared, refused) = match request::read(&decoded.headers, &self.context) {
            request::Reading::Request(head, declared) => (head, declared, None),
            request::Reading::Refused(head, status) => (head, None, Some(status)),
            // A list that was cut may lack what would make it a request.
            request::Reading::Malformed if decoded.too_large => {
                (RequestHead::new("GET", "/"), None, Some(431))
            }
            request::Reading::Malformed => return self.stream_error(id, ErrorCode::Protocol),
        };
        let refused = if decoded.too_large { Some(431) } else { refused };
        let refused = refused.or_else(|| self.context.budget.full().map(Exceeded::status));
        let limit = self.context.body_limit(&head);
        let expects_continue = head.headers.get("expect").is_some_and(|value| value == b"100-continue");
        let exchange = if refused.is_none() { Exchange::open(&head, limit, self) } else { None };
        let head_only = head.method == "HEAD";
        let mut deadline = None;
        let phase = if exchange.is_some() {
            Phase::Listening(self.now)
        } else {
            deadline = grpc::deadline_of(&head.headers, self.now);
            Phase::Receiving(Box::new(Receiving {
                head,
                body: Vec::new(),
                declared,
                limit,
                started: self.now,
            }))
        };
        let stream = Stream {
            ended: end_stream,
            receive_window: i64::from(self.context.limits.stream_window.min(MAX_31_BITS)),
            unacknowledged: 0,
            send_window: i64::from(self.peer.initial_window),
            head_only,
            cancelled: Cancelled::default(),
            charge: Charge::new(&self.context.budget),
            exchange,
            deadline,
            phase,
        };
        self.streams.insert(id, stream);
        if let Some(status) = refused {
            self.refuse_stream(id, status, clock);
        } else if end_stream {
            return self.end_request(id, Headers::new(), clock);
        } else if declared.is_some_and(|declared| declared > limit as u64) {
            self.refuse_stream(id, 413, clock);
        } else if expects_continue {
            self.put_continue(id);
        }
        Ok(())
    }

    /// END_STREAM has come: the request is complete.
    fn end_request(&mut self, id: u32, trailers: Headers, clock: &Clock) -> Result<(), ConnectionError> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        stream.ended = true;
        if stream.exchange.is_some() {
            self.next_message(id, clock);
            return Ok(());
        }
        let Phase::Receiving(receiving) = &mut stream.phase else { return Ok(()) };
        let length = receiving.body.len() as u64;
        if receiving.declared.is_some_and(|declared| declared != length) {
            return self.stream_error(id, ErrorCode::Protocol);
        }
        let Phase::Receiving(receiving) = std::mem::replace(&mut stream.phase, Phase::Running) else {
            return Ok(());
        };
        let Receiving { head, body, started, .. } = *receiving;
        let mut request = Request::from_parts(head, body.into(), trailers, started);
        request.cancelled = stream.cancelled.clone();
        self.active = clock.now();
        self.ready.push_back((id, request));
        Ok(())
    }

    /// Answers a stream without asking a worker.
    pub(super) fn refuse_stream(&mut self, id: u32, status: u16, clock: &Clock) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Phase::Receiving(receiving) = std::mem::replace(&mut stream.phase, Phase::Running) else {
            return;
        };
        self.context.record(Event::RequestRefused(status));
        let Receiving { head, body, declared, limit, .. } = &*receiving;
        let response = if status == 413 && head.is_grpc() {
            let max = self.context.limits.grpc_message.min(limit.saturating_sub(5));
            grpc::refuse_message(&head.headers, body, *declared, max)
        } else {
            self.context.refuse(Some(head), status)
        };
        drop(receiving);
        self.begin_response(id, response, clock);
    }

    fn priority(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionError> {
        if header.stream == 0 {
            return Err(protocol_error("PRIORITY without a stream"));
        }
        self.pay_idle_frame()?;
        let dependency = frame::number(payload).map(|number| number & MAX_31_BITS);
        if payload.len() != 5 {
            self.priority_error(header.stream, ErrorCode::FrameSize)
        } else if dependency == Some(header.stream) {
            self.priority_error(header.stream, ErrorCode::Protocol)
        } else {
            Ok(())
        }
    }

    /// PRIORITY is allowed on idle streams, which RST_STREAM is not: there the connection has to end.
    fn priority_error(&mut self, id: u32, code: ErrorCode) -> Result<(), ConnectionError> {
        if id > self.last_stream {
            return Err(ConnectionError(code, "PRIORITY is malformed"));
        }
        self.stream_error(id, code)
    }

    fn rst_stream(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionError> {
        if payload.len() != 4 {
            return Err(wrong_size("RST_STREAM is not four octets long"));
        }
        if header.stream == 0 || header.stream > self.last_stream || header.stream.is_multiple_of(2) {
            return Err(protocol_error("RST_STREAM on an idle stream"));
        }
        self.pay_idle_frame()?;
        if self.streams.contains_key(&header.stream) {
            self.pay_reset()?;
            self.forget(header.stream, Closed::ByPeer);
        }
        Ok(())
    }

    fn settings(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionError> {
        if header.stream != 0 {
            return Err(protocol_error("SETTINGS on a stream"));
        }
        self.pay_idle_frame()?;
        if header.has(ACK) {
            return if payload.is_empty() {
                Ok(())
            } else {
                Err(wrong_size("SETTINGS with ACK and a payload"))
            };
        }
        self.settings_seen = true;
        let before = i64::from(self.peer.initial_window);
        self.peer.apply(payload)?;
        self.encoder.limit_table(self.peer.header_table_size);
        let change = i64::from(self.peer.initial_window) - before;
        if change != 0 {
            let ids: Vec<u32> = self.streams.keys().copied().collect();
            for id in ids {
                let Some(stream) = self.streams.get_mut(&id) else { continue };
                stream.send_window += change;
                if stream.send_window > i64::from(MAX_31_BITS) {
                    return Err(ConnectionError(ErrorCode::FlowControl, "a window becomes too large"));
                }
                self.wake_sender(id);
            }
        }
        frame::put(&mut self.output, SETTINGS, ACK, 0, &[]);
        Ok(())
    }

    fn ping(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionError> {
        if header.stream != 0 {
            return Err(protocol_error("PING on a stream"));
        }
        if payload.len() != 8 {
            return Err(wrong_size("PING is not eight octets long"));
        }
        self.pay_idle_frame()?;
        if !header.has(ACK) {
            self.active = self.now;
            frame::put(&mut self.output, PING, ACK, 0, payload);
        } else if payload == DRAIN_PING && matches!(self.life, Life::Draining(_)) {
            self.finish_draining();
        }
        Ok(())
    }

    fn goaway(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionError> {
        if header.stream != 0 {
            return Err(protocol_error("GOAWAY on a stream"));
        }
        if payload.len() < 8 {
            return Err(wrong_size("GOAWAY is too short"));
        }
        // The peer opens no further stream; what has begun is finished.
        if matches!(self.life, Life::Open | Life::Draining(_)) {
            self.finish_draining();
        }
        Ok(())
    }

    fn window_update(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ConnectionError> {
        if payload.len() != 4 {
            return Err(wrong_size("WINDOW_UPDATE is not four octets long"));
        }
        self.pay_idle_frame()?;
        let id = header.stream;
        let increment = i64::from(frame::number(payload).unwrap_or(0) & MAX_31_BITS);
        let most = i64::from(MAX_31_BITS);
        if id == 0 {
            if increment == 0 {
                return Err(protocol_error("WINDOW_UPDATE of nothing"));
            }
            self.send_window += increment;
            if self.send_window > most {
                return Err(ConnectionError(
                    ErrorCode::FlowControl,
                    "the connection's window becomes too large",
                ));
            }
            return Ok(());
        }
        if id > self.last_stream || id.is_multiple_of(2) {
            return Err(protocol_error("WINDOW_UPDATE on an idle stream"));
        }
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if increment == 0 {
            return self.stream_error(id, ErrorCode::Protocol);
        }
        stream.send_window += increment;
        if stream.send_window > most {
            return self.stream_error(id, ErrorCode::FlowControl);
        }
        self.wake_sender(id);
        Ok(())
    }
}
