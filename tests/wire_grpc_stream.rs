//! gRPC calls whose messages are answered one by one: each as soon as it is complete, the status at the end.

#[path = "support/frames.rs"]
mod frames;

use std::{sync::Arc, time::Duration};

use frames::*;
use kinglet::wire::{
    Clock, Context, Handler, Limits, Request, RequestHead, Response, grpc, http2::Connection,
};

struct Streams;

impl Handler for Streams {
    fn handle(&self, _: Request) -> Response {
        Response::empty(200)
    }

    fn answers_each_message(&self, head: &RequestHead) -> bool {
        head.target == "/s/Stream"
    }
}

struct Peer {
    clock: Clock,
    connection: Connection,
}

/// Headers of a call, a message of `length` bytes.
fn call(end: bool) -> Vec<u8> {
    let list = request("POST", "/s/Stream", &[("content-type", "application/grpc"), ("te", "trailers")]);
    frame(HEADERS, if end { END_STREAM | END_HEADERS } else { END_HEADERS }, 1, list)
}

fn message(content: &[u8]) -> Vec<u8> {
    [&[0][..], &(content.len() as u32).to_be_bytes(), content].concat()
}

impl Peer {
    fn new(limits: Limits) -> Peer {
        let clock = Clock::new();
        let connection = Connection::new(Context::new(Arc::new(Streams), limits), &clock);
        let mut peer = Peer { clock, connection };
        peer.send(join(&[PREFACE.to_vec(), settings(&[])]));
        peer.connection.output(&peer.clock).take();
        peer
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.connection.receive(bytes.as_ref(), &self.clock);
    }

    /// Echoes the messages that are there; returns what was written since the last call.
    fn serve(&mut self) -> String {
        let mut output = Vec::new();
        loop {
            output.extend(self.connection.output(&self.clock).take());
            let Some((stream, request)) = self.connection.next_request() else { break };
            let result = grpc::decode(&request, 1000).map(|call| call.message.into());
            self.connection.respond(stream, grpc::encode(result, &request), &self.clock);
        }
        transcript(&output).join(", ")
    }
}

#[test]
fn each_message_is_answered_as_it_comes() {
    let mut peer = Peer::new(Limits::default());
    peer.send(join(&[call(false), data(1, message(b"one"), false)]));
    assert_eq!(peer.serve(), "HEADERS 1 200, DATA 1 8");
    peer.send(data(1, message(b"second"), false));
    assert_eq!(peer.serve(), "DATA 1 11", "the head comes once");
    peer.send(data(1, [], true));
    assert_eq!(peer.serve(), "TRAILERS 1 END");
}

#[test]
fn messages_do_not_follow_frames() {
    let all = [message(b"one"), message(b""), message(b"three")].concat();
    for at in 1..all.len() {
        let mut peer = Peer::new(Limits::default());
        peer.send(join(&[call(false), data(1, &all[..at], false)]));
        peer.serve();
        peer.send(data(1, &all[at..], true));
        assert!(peer.serve().ends_with("TRAILERS 1 END"), "split at {at}");
    }
    let mut peer = Peer::new(Limits::default());
    peer.send(join(&[call(false), data(1, &all, true)]));
    assert_eq!(peer.serve(), "HEADERS 1 200, DATA 1 23, TRAILERS 1 END");
}

#[test]
fn a_call_without_messages_ends_well() {
    let mut peer = Peer::new(Limits::default());
    peer.send(call(true));
    assert_eq!(peer.serve(), "HEADERS 1 200, TRAILERS 1 END");
}

#[test]
fn errors_end_the_call() {
    let mut peer = Peer::new(Limits::default());
    peer.send(join(&[call(false), data(1, [9, 0, 0, 0, 1, b'x'], false)]));
    assert_eq!(peer.serve(), "HEADERS 1 200 END, RST 1 NO_ERROR", "as the first answer: no body");
    let mut peer = Peer::new(Limits::default());
    peer.send(join(&[call(false), data(1, message(b"x"), false)]));
    peer.serve();
    peer.send(data(1, [9, 0, 0, 0, 1, b'x'], false));
    assert_eq!(peer.serve(), "TRAILERS 1 END, RST 1 NO_ERROR", "later: in the trailers");
    let mut peer = Peer::new(Limits::default());
    peer.send(join(&[call(false), data(1, b"\0\0\0", true)]));
    assert_eq!(peer.serve(), "HEADERS 1 200 END", "a message that is cut short");
    let mut peer = Peer::new(Limits { grpc_message: 100, ..Limits::default() });
    peer.send(join(&[call(false), data(1, [0, 0, 0, 0, 101], false)]));
    assert_eq!(peer.serve(), "HEADERS 1 200 END, RST 1 NO_ERROR", "a message that will be too large");
}

#[test]
fn answers_wait_for_the_window() {
    let mut peer = Peer::new(Limits::default());
    peer.send(join(&[settings(&[(4, 10)]), call(false), data(1, message(&[b'x'; 20]), false)]));
    assert_eq!(peer.serve(), "SETTINGS ACK, HEADERS 1 200, DATA 1 10");
    peer.send(data(1, message(b"y"), true));
    assert_eq!(peer.serve(), "", "the next message waits for the answer before");
    peer.send(window(1, 100));
    assert_eq!(peer.serve(), "DATA 1 21, TRAILERS 1 END");
}

#[test]
fn silence_ends_and_resets_cancel() {
    let mut peer = Peer::new(Limits::default());
    peer.send(join(&[call(false), data(1, message(b"one"), false)]));
    peer.serve();
    peer.clock.advance(Duration::from_secs(75));
    peer.connection.tick(&peer.clock);
    assert_eq!(peer.serve(), "RST 1 CANCEL");
    let mut peer = Peer::new(Limits::default());
    peer.send(join(&[call(false), data(1, message(b"one"), false)]));
    let (stream, request) = peer.connection.next_request().unwrap();
    peer.send(reset(1, 8));
    assert!(request.cancelled.is_set());
    peer.connection.respond(stream, Response::empty(200), &peer.clock);
    assert_eq!(peer.serve(), "");
}

#[test]
fn unread_messages_are_bounded() {
    let mut peer = Peer::new(Limits { grpc_message: 1000, ..Limits::default() });
    peer.send(join(&[call(false), data(1, message(b"first"), false)]));
    let _held = peer.connection.next_request().unwrap();
    let more = data(1, message(&[b'x'; 900]).repeat(18), false);
    for _ in 0..100 {
        peer.send(&more);
    }
    let output = peer.connection.output(&peer.clock).take();
    assert!(transcript(&output).join(", ").contains("RST 1 CALM"));
}
