//! HTTP/2 against hostile and slow peers: floods, bombs, window games, time limits; and the orderly end.
//!
//! Every flood has its counterpart here: a client that does as much in good faith and must not be cut off.

#[path = "support/frames.rs"]
mod frames;

use std::{sync::Arc, time::Duration};

use frames::*;
use kinglet::wire::{
    Clock, Context, Handler, Limits, Request, RequestHead, Response, hpack::Decoder, http2::Connection,
};

struct Nothing;

impl Handler for Nothing {
    fn handle(&self, _: Request) -> Response {
        Response::empty(200)
    }

    fn refuse(&self, _: Option<&RequestHead>, status: u16) -> Response {
        Response::empty(status)
    }
}

/// A connection and the client's side of it.
struct Peer {
    clock: Clock,
    connection: Connection,
    output: Vec<u8>,
}

impl Peer {
    fn new(limits: Limits) -> Peer {
        let clock = Clock::new();
        let mut connection = Connection::new(Context::new(Arc::new(Nothing), limits), &clock);
        connection.receive(&join(&[PREFACE.to_vec(), settings(&[]), frame(SETTINGS, ACK, 0, [])]), &clock);
        connection.output(&clock).take();
        Peer { clock, connection, output: Vec::new() }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.connection.receive(bytes.as_ref(), &self.clock);
    }

    fn serve(&mut self, response: &Response) {
        while let Some((stream, _)) = self.connection.next_request() {
            self.connection.respond(stream, response.clone(), &self.clock);
        }
    }

    /// What the server has written since the last call.
    fn read(&mut self) -> String {
        loop {
            let written = self.connection.output(&self.clock).take();
            if written.is_empty() {
                break;
            }
            self.output.extend(written);
        }
        transcript(&std::mem::take(&mut self.output)).join(", ")
    }

    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.advance(Duration::from_secs(1));
            self.connection.tick(&self.clock);
        }
    }

    /// Sends `bytes` up to `most` times; how often it took until the server had enough.
    fn flood(&mut self, most: usize, bytes: &[u8]) -> Option<usize> {
        (0..most).find(|_| {
            self.send(bytes);
            self.connection.output(&self.clock);
            self.connection.is_finished()
        })
    }
}

#[test]
fn floods_end_the_connection() {
    let floods: &[(&str, Vec<u8>)] = &[
        ("PING", frame(PING, 0, 0, [0; 8])),
        ("PING ACK", frame(PING, ACK, 0, [0; 8])),
        ("SETTINGS", settings(&[(4, 65_535)])),
        ("SETTINGS ACK", frame(SETTINGS, ACK, 0, [])),
        ("empty DATA", data(1, [], false)),
        ("DATA that is all padding", frame(DATA, PADDED, 1, [0])),
        ("PRIORITY", priority(3, 0)),
        ("WINDOW_UPDATE of one byte", window(0, 1)),
        ("WINDOW_UPDATE of one byte on a stream", window(1, 1)),
        ("unknown frames", frame(77, 0, 0, [])),
    ];
    for (name, flood) in floods {
        let mut peer = Peer::new(Limits::default());
        peer.send(post(1));
        let count = peer.flood(5000, flood);
        assert!(count.is_some_and(|count| (500..2000).contains(&count)), "{name}: {count:?}");
        assert!(peer.read().ends_with("GOAWAY 1 CALM"), "{name}");
    }
}

#[test]
fn rapid_reset_ends_the_connection() {
    let mut peer = Peer::new(Limits::default());
    let mut count = 0;
    while !peer.connection.is_finished() && count < 5000 {
        let stream = 2 * count + 1;
        peer.send(join(&[get(stream), reset(stream, 8)]));
        assert!(peer.connection.next_request().is_none(), "what was reset is not worked on");
        count += 1;
    }
    assert!((100..400).contains(&count), "{count}");
    assert!(peer.read().ends_with("CALM"));
}

#[test]
fn making_the_server_reset_ends_the_connection() {
    let mut peer = Peer::new(Limits::default());
    let mut count = 0;
    while !peer.connection.is_finished() && count < 5000 {
        let stream = 2 * count + 1;
        peer.send(join(&[get(stream), window(stream, 0)]));
        count += 1;
    }
    assert!((100..400).contains(&count), "{count}");
}

#[test]
fn cancelled_work_counts_as_streams() {
    let mut peer = Peer::new(Limits { streams: 3, ..Limits::default() });
    let mut taken = Vec::new();
    for stream in [1, 3, 5] {
        peer.send(get(stream));
        let (_, request) = peer.connection.next_request().unwrap();
        peer.send(reset(stream, 8));
        assert!(request.cancelled.is_set());
        taken.push(stream);
    }
    peer.send(get(7));
    assert_eq!(peer.read(), "RST 7 REFUSED", "three requests are still worked on");
    for stream in taken {
        peer.connection.respond(stream, Response::empty(200), &peer.clock);
    }
    peer.send(get(9));
    peer.serve(&Response::empty(200));
    assert_eq!(peer.read(), "HEADERS 9 200 END");
}

#[test]
fn a_busy_client_is_not_cut_off() {
    // As grpcio does it: per call HEADERS, DATA, a window update for each answer, a PING now and then, and one
    // cancellation in ten.
    let mut peer = Peer::new(Limits::default());
    let answer = Response::new(200, "t/x", vec![b'x'; 100]);
    for call in 0..20_000_u32 {
        let stream = 2 * call + 1;
        peer.send(join(&[post(stream), data(stream, b"abcde", true), window(stream, 5), window(0, 100)]));
        if call % 10 == 0 {
            peer.send(join(&[reset(stream, 8), frame(PING, 0, 0, [0; 8])]));
        }
        peer.serve(&answer);
        peer.connection.output(&peer.clock).take();
        assert!(!peer.connection.is_finished(), "after {call} calls");
    }
}

#[test]
fn time_refills_the_allowance() {
    let mut peer = Peer::new(Limits::default());
    for _ in 0..2000 {
        peer.send(frame(PING, 0, 0, [0; 8]).repeat(50));
        peer.wait(1);
        peer.connection.output(&peer.clock).take();
        assert!(!peer.connection.is_finished());
    }
}

#[test]
fn a_large_answer_is_paid_for_by_its_own_size() {
    let mut peer = Peer::new(Limits::default());
    peer.send(get(1));
    peer.serve(&Response::new(200, "t/x", vec![b'x'; 40 << 20]));
    let mut received = 0;
    while received < 40 << 20 {
        let written = peer.connection.output(&peer.clock).take();
        assert!(!written.is_empty() && !peer.connection.is_finished(), "stalled at {received}");
        let mut rest = &written[..];
        while !rest.is_empty() {
            let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
            if rest[3] == DATA {
                received += length;
                peer.send(join(&[window(0, length as u32), window(1, length as u32)]));
            }
            rest = &rest[9 + length..];
        }
    }
}

#[test]
fn output_waits_when_nobody_reads() {
    let mut peer = Peer::new(Limits::default());
    peer.send(join(&[settings(&[(4, 1 << 30)]), window(0, 1 << 30)]));
    for stream in 0..50 {
        peer.send(get(2 * stream + 1));
    }
    peer.serve(&Response::new(200, "t/x", vec![b'x'; 10 << 20]));
    assert!(peer.connection.output(&peer.clock).len() < 1 << 20, "frames are made as they can be written");
    // Nor is a peer read from whose acknowledgements pile up.
    let mut peer = Peer::new(Limits::default());
    let mut sent = 0;
    while peer.connection.wants_input() && !peer.connection.is_finished() {
        peer.send(frame(PING, 0, 0, [0; 8]));
        sent += 1;
    }
    assert!(sent < 100_000);
}

#[test]
fn streams_take_turns() {
    let mut peer = Peer::new(Limits::default());
    peer.send(join(&[settings(&[(4, 1 << 30)]), window(0, 1 << 30), get(1), get(3)]));
    peer.serve(&Response::new(200, "t/x", vec![b'x'; 100_000]));
    let phrases = peer.read();
    let first_of_three = phrases.find("DATA 3").unwrap();
    let end_of_one = phrases.rfind("DATA 1").unwrap();
    assert!(first_of_three < end_of_one, "{phrases}");
}

#[test]
fn windows_are_given_back_as_bodies_arrive() {
    let mut peer =
        Peer::new(Limits { stream_window: 100_000, connection_window: 200_000, ..Limits::default() });
    peer.send(post(1));
    let mut frames = 0;
    for _ in 0..100 {
        peer.send(data(1, vec![0; 10_000], false));
        frames += 1;
        assert!(!peer.connection.is_finished(), "after {frames} frames");
    }
    let phrases = peer.read();
    assert!(phrases.contains("WINDOW 1 50000") && phrases.contains("WINDOW 0 100000"), "{phrases}");
    peer.send(data(1, [], true));
    let (_, request) = peer.connection.next_request().unwrap();
    assert_eq!(request.body.len(), 1_000_000);
}

#[test]
fn receive_windows_are_enforced() {
    let limits = Limits { stream_window: 70_000, connection_window: 100_000, ..Limits::default() };
    // A stream that is refused gives nothing back to its own window.
    let mut peer = Peer::new(Limits { body: 10, ..limits.clone() });
    peer.send(post(1));
    peer.send(data(1, vec![0; 16_000], false).repeat(4));
    assert!(!peer.connection.is_finished());
    // Padding counts (RFC 9113, 6.9.1).
    let mut peer = Peer::new(limits);
    peer.send(post(1));
    let mut used = 0;
    while used < 200_000 {
        let padding = frame(DATA, PADDED, 1, [&[255][..], &[0; 255]].concat());
        peer.send(&padding);
        used += 256;
    }
    assert!(!peer.connection.is_finished(), "padding is given back like content: {}", peer.read());
}

#[test]
fn bodies_beyond_the_memory_budget_are_refused() {
    for (limits, status) in [
        (Limits { connection_bytes: 50_000, ..Limits::default() }, "429"),
        (Limits { in_flight_bytes: 50_000, ..Limits::default() }, "429"),
    ] {
        let mut peer = Peer::new(limits);
        peer.send(join(&[post(1), post(3)]));
        peer.send(data(1, vec![0; 15_000], false).repeat(2));
        peer.send(data(3, vec![0; 15_000], false).repeat(2));
        assert_eq!(peer.read(), format!("HEADERS 3 {status} END, RST 3 NO_ERROR"));
        // What was refused has freed its memory.
        peer.send(join(&[post(5), data(5, vec![0; 15_000], true)]));
        assert!(peer.connection.next_request().is_some());
    }
}

#[test]
fn answers_that_nobody_takes_count() {
    for (limits, status) in [
        (Limits { connection_bytes: 50_000, ..Limits::default() }, "429"),
        (Limits { in_flight_bytes: 50_000, ..Limits::default() }, "429"),
    ] {
        let mut peer = Peer::new(limits);
        peer.send(join(&[settings(&[(4, 0)]), get(1), get(3)]));
        peer.serve(&Response::new(200, "t/x", vec![b'x'; 30_000]));
        assert_eq!(peer.read(), "SETTINGS ACK, HEADERS 1 200, HEADERS 3 200");
        peer.send(get(5));
        assert_eq!(peer.read(), format!("HEADERS 5 {status} END"));
        peer.send(reset(1, 8));
        peer.send(get(7));
        assert!(peer.connection.next_request().is_some(), "there is room again");
    }
}

#[test]
fn oversize_grpc_messages_get_a_status_not_a_reset() {
    let mut peer = Peer::new(Limits { grpc_message: 1000, ..Limits::default() });
    let call =
        |stream| frame(HEADERS, 4, stream, request("POST", "/s/M", &[("content-type", "application/grpc")]));
    peer.send(join(&[call(1), data(1, vec![0; 1005], true), call(3), data(3, vec![0; 1006], false)]));
    assert!(peer.connection.next_request().is_some_and(|(stream, _)| stream == 1));
    assert!(peer.connection.next_request().is_none());
    let raw = peer.connection.output(&peer.clock).take();
    assert!(raw.windows(13).any(|bytes| bytes == b"grpc-status\x018"), "RESOURCE_EXHAUSTED");
}

/// The `grpc-status` and `grpc-message` of a trailers-only answer.
fn grpc_status(raw: &[u8]) -> (String, String) {
    let length = usize::from(u16::from_be_bytes([raw[1], raw[2]]));
    let list = Decoder::new(4096, 4096, 100).decode(&raw[9..9 + length]).unwrap().headers;
    let text = |name| list.get_str(name).unwrap_or_default().to_owned();
    (text("grpc-status"), text("grpc-message"))
}

#[test]
fn an_oversize_grpc_message_is_refused_by_its_prefix() {
    let mut peer = Peer::new(Limits::default());
    let fields = [("content-type", "application/grpc")];
    peer.send(frame(HEADERS, 4, 1, request("POST", "/s/M", &fields)));
    // 4 MiB and one byte, of which five come.
    peer.send(data(1, [0, 0, 0x40, 0, 1, b'x', b'x', b'x', b'x', b'x'], false));
    let (status, text) = grpc_status(&peer.connection.output(&peer.clock).take());
    assert_eq!(status, "8");
    assert!(text.starts_with("Received message larger than max (4194305 vs. 4194304)"), "{text}");
    peer.send(frame(HEADERS, 4, 3, request("POST", "/s/M", &fields)));
    peer.send(data(3, [0, 0, 0x40, 0, 0, b'x'], false));
    assert_eq!(peer.read(), "", "the longest message is let through");
}

#[test]
fn a_deadline_answers_and_cancels() {
    let mut peer = Peer::new(Limits { streams: 2, ..Limits::default() });
    let fields = [("content-type", "application/grpc"), ("grpc-timeout", "2S")];
    let call = |stream| frame(HEADERS, 5, stream, request("POST", "/s/M", &fields));
    peer.send(call(1));
    let (stream, running) = peer.connection.next_request().unwrap();
    peer.send(call(3));
    peer.wait(1);
    assert_eq!(peer.read(), "");
    assert!(!running.cancelled.is_set());
    peer.wait(1);
    let raw = peer.connection.output(&peer.clock).take();
    assert_eq!(grpc_status(&raw), ("4".to_owned(), "Deadline Exceeded".to_owned()));
    assert_eq!(transcript(&raw).join(", ").matches("END").count(), 2, "both are answered");
    assert!(running.cancelled.is_set());
    assert!(peer.connection.next_request().is_none(), "what waited is not begun");
    // The work that still runs keeps its place; what had not begun does not.
    peer.send(join(&[get(5), get(7)]));
    assert_eq!(peer.read(), "RST 7 REFUSED");
    peer.connection.respond(stream, Response::empty(200), &peer.clock);
    assert_eq!(peer.read(), "", "nobody waits for this answer");
    peer.send(get(9));
    assert_eq!(peer.read(), "");
}

#[test]
fn slow_peers_are_given_up() {
    let request = || join(&[post(1), data(1, b"x", false)]);
    let mut peer = Peer::new(Limits::default());
    peer.send(request());
    peer.wait(5);
    assert_eq!(peer.read(), "");
    peer.wait(1);
    assert_eq!(peer.read(), "HEADERS 1 408 END, RST 1 NO_ERROR", "a body that stops");

    let mut peer = Peer::new(Limits::default());
    peer.send(frame(HEADERS, 0, 1, []));
    peer.wait(10);
    assert_eq!(peer.read(), "GOAWAY 0 NO_ERROR", "a header block that stops");

    let mut peer = Peer::new(Limits::default());
    peer.send(join(&[settings(&[(4, 0)]), get(1)]));
    peer.serve(&Response::new(200, "t/x", "body"));
    peer.read();
    peer.wait(29);
    assert_eq!(peer.read(), "");
    peer.wait(1);
    assert_eq!(peer.read(), "RST 1 CANCEL", "a window that stays closed");

    let mut peer = Peer::new(Limits::default());
    peer.send(join(&[settings(&[(4, 0)]), get(1)]));
    peer.serve(&Response::new(200, "t/x", vec![b'x'; 1 << 20]));
    peer.read();
    for _ in 0..31 {
        peer.send(window(1, 1));
        peer.connection.output(&peer.clock).take();
        peer.wait(1);
    }
    assert!(peer.read().ends_with("RST 1 CANCEL"), "a window that opens byte by byte");
}

#[test]
fn a_connection_that_never_starts_is_closed() {
    let mut clock = Clock::new();
    let mut connection = Connection::new(Context::new(Arc::new(Nothing), Limits::default()), &clock);
    connection.receive(PREFACE, &clock);
    clock.advance(Duration::from_secs(10));
    connection.tick(&clock);
    assert!(connection.is_finished());
}

#[test]
fn idle_connections_end_and_pings_keep_them() {
    let mut peer = Peer::new(Limits::default());
    peer.send(get(1));
    peer.wait(500);
    assert!(!peer.connection.is_finished(), "a request may take its time");
    peer.serve(&Response::empty(200));
    peer.read();
    peer.wait(74);
    peer.send(frame(PING, 0, 0, [0; 8]));
    peer.read();
    peer.wait(74);
    assert!(!peer.connection.is_finished());
    peer.wait(1);
    assert_eq!(peer.read(), "GOAWAY 1 NO_ERROR");
    assert!(peer.connection.is_finished());
}

#[test]
fn draining_serves_what_is_under_way() {
    let mut peer = Peer::new(Limits::default());
    peer.send(get(1));
    peer.connection.shut_down();
    peer.connection.shut_down();
    assert_eq!(peer.read(), "GOAWAY MAX NO_ERROR, PING", "once");
    peer.send(get(3));
    peer.send(frame(PING, ACK, 0, b"draining"));
    assert_eq!(peer.read(), "GOAWAY 3 NO_ERROR");
    peer.send(get(5));
    assert!(!peer.connection.is_finished());
    peer.serve(&Response::empty(200));
    assert_eq!(peer.read(), "HEADERS 1 200 END, HEADERS 3 200 END", "stream 5 came too late");
    assert!(peer.connection.is_finished());
}

#[test]
fn draining_does_not_wait_for_a_silent_peer() {
    let mut peer = Peer::new(Limits::default());
    peer.connection.shut_down();
    peer.read();
    peer.wait(1);
    assert_eq!(peer.read(), "GOAWAY 0 NO_ERROR");
    assert!(peer.connection.is_finished());
}

#[test]
fn requests_per_connection_are_limited() {
    let mut peer = Peer::new(Limits { requests_per_connection: 2, ..Limits::default() });
    peer.send(get(1));
    peer.serve(&Response::empty(200));
    assert_eq!(peer.read(), "HEADERS 1 200 END");
    peer.send(get(3));
    peer.serve(&Response::empty(200));
    assert_eq!(peer.read(), "HEADERS 3 200 END, GOAWAY MAX NO_ERROR, PING");
}

#[test]
fn the_end_of_a_connection_cancels_its_requests() {
    let mut peer = Peer::new(Limits::default());
    peer.send(get(1));
    let (stream, request) = peer.connection.next_request().unwrap();
    peer.connection.receive_end();
    assert!(request.cancelled.is_set() && peer.connection.is_finished());
    peer.connection.respond(stream, Response::empty(200), &peer.clock);
    assert_eq!(peer.read(), "");
}

#[test]
fn answers_have_their_fields_and_trailers() {
    use kinglet::wire::Headers;
    let mut peer = Peer::new(Limits::default());
    peer.send(get(1));
    let mut response = Response::new(200, "t/x", "abc");
    response.headers.push("X-Upper", " v ");
    response.headers.push("Connection", "close");
    response.headers.push("bad name", "v");
    response.headers.push("x-bad", "a\r\nb");
    response.trailers = Some(Headers::new().with("Grpc-Status", "0"));
    peer.serve(&response);
    let raw = peer.connection.output(&peer.clock).take();
    let length = usize::from(raw[2]);
    let headers = Decoder::new(4096, 4096, 100).decode(&raw[9..9 + length]).unwrap().headers;
    let names: Vec<_> = headers.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
    assert_eq!(names, [":status", "content-type", "x-upper", "date"]);
    assert_eq!(headers.get_str("x-upper"), Some("v"));
    assert_eq!(transcript(&raw).join(", "), "HEADERS 1 200, DATA 1 3, TRAILERS 1 END");
}

#[test]
fn long_header_lists_are_continued() {
    let mut peer = Peer::new(Limits::default());
    peer.send(get(1));
    let mut response = Response::empty(200);
    response.headers.push("x-long", "v".repeat(40_000));
    peer.serve(&response);
    let raw = peer.connection.output(&peer.clock).take();
    let mut kinds = Vec::new();
    let mut rest = &raw[..];
    while !rest.is_empty() {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        assert!(length <= 16_384);
        kinds.push((rest[3], rest[4]));
        rest = &rest[9 + length..];
    }
    assert_eq!(kinds, [(HEADERS, END_STREAM), (CONTINUATION, 0), (CONTINUATION, END_HEADERS)]);
}

proptest::proptest! {
    #[test]
    fn any_frames_do_no_harm(
        frames in proptest::collection::vec(
            (0_u8..12, proptest::prelude::any::<u8>(), 0_u32..8, proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)),
            0..30,
        ),
        piece in 1_usize..60,
    ) {
        let mut peer = Peer::new(Limits { streams: 3, head: 200, body: 50, stream_window: 100, ..Limits::default() });
        peer.send(join(&[post(1), get(3)]));
        let bytes: Vec<u8> = frames.iter().flat_map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, payload)).collect();
        for part in bytes.chunks(piece) {
            peer.send(part);
            peer.serve(&Response::new(200, "t/x", "abc"));
            peer.wait(1);
        }
        peer.read();
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let mut peer = Peer::new(Limits::default());
        peer.send(&bytes);
        peer.serve(&Response::empty(200));
        peer.read();
    }
}
