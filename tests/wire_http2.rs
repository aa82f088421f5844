//! HTTP/2 by scripted frames: one case per rule of RFC 9113, sections 3 to 6 and 8, and of RFC 7541 where it meets frames.
//!
//! A case is a list of steps; the requests that a step completes are answered before the next one. Every
//! step is fed whole, split in two at every position, and byte by byte, and the frames that come back
//! must be the same.

#[path = "support/frames.rs"]
mod frames;

use std::sync::Arc;

use frames::*;
use kinglet::wire::{Clock, Context, Handler, Limits, Request, RequestHead, Response, http2::Connection};

struct Nothing;

impl Handler for Nothing {
    fn handle(&self, _: Request) -> Response {
        Response::empty(200)
    }

    fn refuse(&self, _: Option<&RequestHead>, status: u16) -> Response {
        Response::empty(status)
    }
}

fn limits() -> Limits {
    Limits { head: 1024, uri: 64, header_count: 20, body: 100_000, streams: 5, ..Limits::default() }
}

/// How many bytes the answer to `target` has.
fn answer(request: &Request) -> Response {
    match request.target.strip_prefix("/size/") {
        Some(size) => Response::new(200, "t/x", vec![b'x'; size.parse().unwrap()]),
        None if request.body.is_empty() => Response::empty(200),
        None => Response::new(200, "t/x", request.body.clone()),
    }
}

/// The frames that come back for `steps`, in one line. The server's preface is left out; `over` says that the
/// connection is finished.
fn play<'a>(steps: impl Iterator<Item = Vec<&'a [u8]>>) -> String {
    let clock = Clock::new();
    let mut connection = Connection::new(Context::new(Arc::new(Nothing), limits()), &clock);
    let mut output = Vec::new();
    for pieces in steps {
        for piece in pieces {
            connection.receive(piece, &clock);
        }
        while let Some((stream, request)) = connection.next_request() {
            connection.respond(stream, answer(&request), &clock);
        }
        loop {
            let written = connection.output(&clock).take();
            if written.is_empty() {
                break;
            }
            output.extend(written);
        }
    }
    let mut phrases = transcript(&output);
    assert_eq!(phrases[0], "SETTINGS");
    phrases.drain(..2);
    if connection.is_finished() {
        phrases.push("over".to_owned());
    }
    phrases.join(", ")
}

fn outcome(name: &str, steps: &[Vec<u8>]) -> String {
    let whole = play(steps.iter().map(|step| vec![&step[..]]));
    assert_eq!(play(steps.iter().map(|step| step.chunks(1).collect())), whole, "{name}, byte by byte");
    for (number, step) in steps.iter().enumerate() {
        // Long steps are payload; their ends and the frame borders are what matters.
        let stride = (step.len() / 300).max(1);
        for at in (1..step.len()).step_by(stride) {
            let split = steps.iter().enumerate().map(|(index, other)| {
                if index == number { vec![&other[..at], &other[at..]] } else { vec![&other[..]] }
            });
            assert_eq!(play(split), whole, "{name}, step {number} split at {at}");
        }
    }
    whole
}

/// A case: its rule, the steps after the client's preface and an empty SETTINGS, and what comes back after its ACK.
type Case = (&'static str, Vec<Vec<u8>>, &'static str);

fn check(cases: Vec<Case>) -> usize {
    let count = cases.len();
    for (name, mut steps, expected) in cases {
        let opening = join(&[PREFACE.to_vec(), settings(&[])]);
        match steps.first_mut() {
            Some(first) => first.splice(..0, opening).for_each(drop),
            None => steps.push(opening),
        }
        let found = outcome(name, &steps);
        let found = found.strip_prefix("SETTINGS ACK").unwrap_or(&found).trim_start_matches(", ");
        assert_eq!(found, expected, "{name}");
    }
    count
}

/// The same for the very first bytes of a connection.
fn check_raw(cases: Vec<Case>) -> usize {
    let count = cases.len();
    for (name, steps, expected) in cases {
        assert_eq!(outcome(name, &steps), expected, "{name}");
    }
    count
}

/// A frame header alone, which may lie about its payload.
fn header(length: usize, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    let mut bytes = frame(kind, flags, stream, []);
    bytes[..3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
    bytes
}

/// HEADERS of a whole request with this list.
fn list(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, block(fields))
}

/// HEADERS of a whole GET request with one more field.
fn with(name: &str, value: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, request("GET", "/", &[(name, value)]))
}

/// A GET request with a pad length octet and so much padding.
fn padded_get(pad_length: u8, padding: usize) -> Vec<u8> {
    let payload = [&[pad_length][..], &request("GET", "/", &[]), &vec![0; padding]].concat();
    frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, payload)
}

/// Each section on a thread of its own.
#[test]
fn every_rule_has_its_answer() {
    let sections = [
        section_3_starting,
        section_4_frames_and_header_blocks,
        section_5_1_stream_states,
        section_5_priorities_and_errors,
        section_6_1_data,
        section_6_2_headers,
        sections_6_3_and_6_4_priority_and_reset,
        section_6_5_settings,
        sections_6_6_to_6_8_push_ping_goaway,
        section_6_9_flow_control,
        section_6_10_continuation,
        section_8_1_requests,
        section_8_2_fields,
        section_8_3_pseudo_fields,
        limits_of_lists_and_bodies,
    ];
    let running = sections.map(std::thread::spawn);
    let count: usize = running.into_iter().map(|section| section.join().expect("a case failed")).sum();
    eprintln!("{count} cases");
    assert!(count >= 200, "{count} cases");
}

fn section_3_starting() -> usize {
    check_raw(vec![
        ("3.4 preface and SETTINGS", vec![join(&[PREFACE.to_vec(), settings(&[])])], "SETTINGS ACK"),
        (
            "3.4 preface and SETTINGS with values",
            vec![join(&[PREFACE.to_vec(), settings(&[(3, 100), (4, 1000)])])],
            "SETTINGS ACK",
        ),
        ("3.4 wrong preface", vec![b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n".to_vec()], "GOAWAY 0 PROTOCOL, over"),
        ("3.4 no preface", vec![settings(&[])], "GOAWAY 0 PROTOCOL, over"),
        ("3.4 preface in the wrong case", vec![b"pri * http/2.0".to_vec()], "GOAWAY 0 PROTOCOL, over"),
        ("3.4 HEADERS before SETTINGS", vec![join(&[PREFACE.to_vec(), get(1)])], "GOAWAY 0 PROTOCOL, over"),
        (
            "3.4 PING before SETTINGS",
            vec![join(&[PREFACE.to_vec(), frame(PING, 0, 0, [0; 8])])],
            "GOAWAY 0 PROTOCOL, over",
        ),
        (
            "3.4 SETTINGS with ACK first",
            vec![join(&[PREFACE.to_vec(), frame(SETTINGS, ACK, 0, [])])],
            "GOAWAY 0 PROTOCOL, over",
        ),
        (
            "3.4 an unknown frame first",
            vec![join(&[PREFACE.to_vec(), frame(99, 0, 0, [])])],
            "GOAWAY 0 PROTOCOL, over",
        ),
        ("3.4 half a preface waits", vec![PREFACE[..10].to_vec()], ""),
    ])
}

fn section_4_frames_and_header_blocks() -> usize {
    let list = request("GET", "/", &[]);
    let (front, back) = list.split_at(7);
    check(vec![
        (
            "4.1 unknown type is ignored",
            vec![join(&[frame(99, 255, 0, b"junk"), get(1)])],
            "HEADERS 1 200 END",
        ),
        (
            "4.1 unknown type on a stream is ignored",
            vec![join(&[frame(10, 0, 9, []), get(1)])],
            "HEADERS 1 200 END",
        ),
        (
            "4.1 unknown flags are ignored",
            vec![join(&[frame(PING, 0xfe, 0, b"12345678")])],
            "PING ACK 12345678",
        ),
        ("4.1 the reserved bit is ignored", vec![frame(PING, 0, 1 << 31, b"12345678")], "PING ACK 12345678"),
        (
            "4.2 DATA of the largest size",
            vec![join(&[post(1), data(1, vec![0; 16_384], true)])],
            "HEADERS 1 200, DATA 1 16384 END",
        ),
        (
            "4.2 DATA beyond the largest size",
            vec![join(&[post(1), header(16_385, DATA, 0, 1)])],
            "GOAWAY 1 FRAME_SIZE, over",
        ),
        (
            "4.2 HEADERS beyond the largest size",
            vec![header(16_385, HEADERS, 4, 1)],
            "GOAWAY 0 FRAME_SIZE, over",
        ),
        (
            "4.2 an unknown frame beyond the largest size",
            vec![header(1 << 20, 99, 0, 1)],
            "GOAWAY 0 FRAME_SIZE, over",
        ),
        (
            "4.3 a block in pieces",
            vec![join(&[frame(HEADERS, END_STREAM, 1, front), frame(CONTINUATION, END_HEADERS, 1, back)])],
            "HEADERS 1 200 END",
        ),
        (
            "4.3 a block in empty and other pieces",
            vec![join(&[
                frame(HEADERS, END_STREAM, 1, []),
                frame(CONTINUATION, 0, 1, front),
                frame(CONTINUATION, 0, 1, back),
                frame(CONTINUATION, END_HEADERS, 1, []),
            ])],
            "HEADERS 1 200 END",
        ),
        (
            "4.3 a block that cannot be decoded",
            vec![frame(HEADERS, 5, 1, [0x80])],
            "GOAWAY 0 COMPRESSION, over",
        ),
        (
            "4.3 a block of a refused stream changes the table",
            vec![join(&[
                frame(
                    HEADERS,
                    5,
                    1,
                    [&request("get", "/", &[("Bad", "")])[..], &[0x40, 1, b'a', 1, b'b']].concat(),
                ),
                frame(HEADERS, 5, 3, [&list[..], &[0xbe]].concat()),
            ])],
            "RST 1 PROTOCOL, HEADERS 3 200 END",
        ),
        (
            "4.3 a block interrupted by PING",
            vec![join(&[frame(HEADERS, END_STREAM, 1, front), frame(PING, 0, 0, [0; 8])])],
            "GOAWAY 0 PROTOCOL, over",
        ),
        (
            "4.3 a block interrupted by DATA of its stream",
            vec![join(&[frame(HEADERS, 0, 1, front), data(1, b"x", false)])],
            "GOAWAY 0 PROTOCOL, over",
        ),
        (
            "4.3 a block interrupted by PRIORITY",
            vec![join(&[frame(HEADERS, END_STREAM, 1, front), priority(1, 0)])],
            "GOAWAY 0 PROTOCOL, over",
        ),
        (
            "4.3 a block interrupted by an unknown frame",
            vec![join(&[frame(HEADERS, END_STREAM, 1, front), frame(99, 0, 1, [])])],
            "GOAWAY 0 PROTOCOL, over",
        ),
        (
            "4.3 a block interrupted by HEADERS of its stream",
            vec![join(&[frame(HEADERS, END_STREAM, 1, front), frame(HEADERS, END_HEADERS, 1, back)])],
            "GOAWAY 0 PROTOCOL, over",
        ),
        (
            "4.3 a block continued on another stream",
            vec![join(&[frame(HEADERS, END_STREAM, 1, front), frame(CONTINUATION, END_HEADERS, 3, back)])],
            "GOAWAY 0 PROTOCOL, over",
        ),
        (
            "RFC 7541 4.2 a table size above the setting",
            vec![frame(HEADERS, 5, 1, [&[0x3f, 0xe2, 0x1f][..], &list].concat())],
            "GOAWAY 0 COMPRESSION, over",
        ),
        (
            "RFC 7541 4.2 a table size at the end",
            vec![frame(HEADERS, 5, 1, [&list[..], &[0x20]].concat())],
            "GOAWAY 0 COMPRESSION, over",
        ),
        (
            "RFC 7541 2.3.3 an index behind the tables",
            vec![frame(HEADERS, 5, 1, [&list[..], &[0xff, 0]].concat())],
            "GOAWAY 0 COMPRESSION, over",
        ),
        (
            "RFC 7541 5.2 EOS in a string",
            vec![frame(HEADERS, 5, 1, [&list[..], &[0, 1, b'a', 0x84, 255, 255, 255, 0xfc]].concat())],
            "GOAWAY 0 COMPRESSION, over",
        ),
        (
            "RFC 7541 5.2 padding of eight bits",
            vec![frame(HEADERS, 5, 1, [&list[..], &[0, 1, b'a', 0x82, 0x07, 0xff]].concat())],
            "GOAWAY 0 COMPRESSION, over",
        ),
        (
            "RFC 7541 5.2 padding with zeros",
            vec![frame(HEADERS, 5, 1, [&list[..], &[0, 1, b'a', 0x81, 0x06]].concat())],
            "GOAWAY 0 COMPRESSION, over",
        ),
        (
            "RFC 7541 6 a field that is cut",
            vec![frame(HEADERS, 5, 1, &list[..list.len() - 1])],
            "GOAWAY 0 COMPRESSION, over",
        ),
    ])
}

fn section_5_1_stream_states() -> usize {
    check(vec![
        ("5.1 idle: DATA", vec![data(1, b"x", true)], "GOAWAY 0 PROTOCOL, over"),
        ("5.1 idle: RST_STREAM", vec![reset(1, 8)], "GOAWAY 0 PROTOCOL, over"),
        ("5.1 idle: WINDOW_UPDATE", vec![window(1, 1)], "GOAWAY 0 PROTOCOL, over"),
        ("5.1 idle: CONTINUATION", vec![frame(CONTINUATION, 4, 1, [])], "GOAWAY 0 PROTOCOL, over"),
        ("5.1 idle: PRIORITY is allowed", vec![join(&[priority(1, 3), get(1)])], "HEADERS 1 200 END"),
        ("5.1 half-closed: DATA", vec![join(&[get(1), data(1, b"x", true)])], "RST 1 STREAM_CLOSED"),
        ("5.1 half-closed: HEADERS", vec![join(&[get(1), get(1)])], "RST 1 STREAM_CLOSED"),
        (
            "5.1 half-closed: CONTINUATION",
            vec![join(&[get(1), frame(CONTINUATION, END_HEADERS, 1, [])])],
            "GOAWAY 1 PROTOCOL, over",
        ),
        ("5.1 half-closed: WINDOW_UPDATE", vec![join(&[get(1), window(1, 5)])], "HEADERS 1 200 END"),
        ("5.1 half-closed: PRIORITY", vec![join(&[get(1), priority(1, 0)])], "HEADERS 1 200 END"),
        ("5.1 half-closed: RST_STREAM cancels", vec![join(&[get(1), reset(1, 8)])], ""),
        (
            "5.1 closed by the peer: DATA",
            vec![join(&[post(1), reset(1, 8), data(1, b"x", true)])],
            "RST 1 STREAM_CLOSED",
        ),
        (
            "5.1 closed by the peer: HEADERS",
            vec![join(&[post(1), reset(1, 8), get(1)])],
            "RST 1 STREAM_CLOSED",
        ),
        (
            "5.1 closed by the peer: CONTINUATION",
            vec![join(&[post(1), reset(1, 8), frame(CONTINUATION, 4, 1, [])])],
            "GOAWAY 1 PROTOCOL, over",
        ),
        ("5.1 closed by the peer: WINDOW_UPDATE", vec![join(&[post(1), reset(1, 8), window(1, 1)])], ""),
        ("5.1 closed by the peer: RST_STREAM", vec![join(&[post(1), reset(1, 8), reset(1, 8)])], ""),
        (
            "5.1 closed: DATA",
            vec![get(1), data(1, b"x", true)],
            "HEADERS 1 200 END, GOAWAY 1 STREAM_CLOSED, over",
        ),
        ("5.1 closed: HEADERS", vec![get(1), get(1)], "HEADERS 1 200 END, GOAWAY 1 STREAM_CLOSED, over"),
        ("5.1 closed: WINDOW_UPDATE", vec![get(1), window(1, 1)], "HEADERS 1 200 END"),
        ("5.1 closed: RST_STREAM", vec![get(1), reset(1, 0)], "HEADERS 1 200 END"),
        ("5.1 closed: PRIORITY", vec![get(1), priority(1, 0)], "HEADERS 1 200 END"),
        (
            "5.1 reset by the server: frames on their way are ignored",
            vec![join(&[
                frame(HEADERS, 4, 1, request("POST", "/", &[("content-length", "1")])),
                data(1, b"xy", false),
                data(1, b"z", false),
                frame(HEADERS, 5, 1, block(&[("a", "b")])),
                window(1, 1),
                get(3),
            ])],
            "RST 1 PROTOCOL, HEADERS 3 200 END",
        ),
        ("5.1.1 an even stream", vec![get(2)], "GOAWAY 0 PROTOCOL, over"),
        ("5.1.1 stream 0", vec![get(0)], "GOAWAY 0 PROTOCOL, over"),
        ("5.1.1 a stream below those before", vec![join(&[get(5), get(3)])], "GOAWAY 5 PROTOCOL, over"),
        (
            "5.1.1 streams may be skipped",
            vec![join(&[get(3), get(9)])],
            "HEADERS 3 200 END, HEADERS 9 200 END",
        ),
        (
            "5.1.2 more streams than allowed",
            vec![join(&[post(1), post(3), post(5), post(7), post(9), post(11), data(1, [], true)])],
            "RST 11 REFUSED, HEADERS 1 200 END",
        ),
        (
            "5.1.2 a stream that ended makes room",
            vec![join(&[get(1), post(3), post(5), post(7), post(9)]), get(11)],
            "HEADERS 1 200 END, HEADERS 11 200 END",
        ),
    ])
}

fn section_5_priorities_and_errors() -> usize {
    let depends = |stream: u32| {
        let payload = [&stream.to_be_bytes()[..], &[16], &request("GET", "/", &[])].concat();
        frame(HEADERS, END_STREAM | END_HEADERS | PRIORITY_FLAG, 1, payload)
    };
    check(vec![
        ("5.3 HEADERS with a priority", vec![depends(0)], "HEADERS 1 200 END"),
        ("5.3 HEADERS with an exclusive priority", vec![depends(1 << 31)], "HEADERS 1 200 END"),
        ("5.3 HEADERS that depends on its own stream", vec![depends(1)], "RST 1 PROTOCOL"),
        (
            "5.3 HEADERS in pieces that depends on its own stream",
            vec![join(&[
                frame(HEADERS, END_STREAM | PRIORITY_FLAG, 1, [0, 0, 0, 1, 16]),
                frame(CONTINUATION, END_HEADERS, 1, request("GET", "/", &[])),
            ])],
            "RST 1 PROTOCOL",
        ),
        (
            "5.3 PRIORITY that depends on its own stream",
            vec![join(&[post(1), priority(1, 1)])],
            "RST 1 PROTOCOL",
        ),
        (
            "5.4.1 nothing is read after a connection error",
            vec![join(&[data(0, b"x", false), get(1), settings(&[])])],
            "GOAWAY 0 PROTOCOL, over",
        ),
        (
            "5.4.1 GOAWAY names the last stream",
            vec![get(1), join(&[post(7), data(0, b"x", false)])],
            "HEADERS 1 200 END, GOAWAY 7 PROTOCOL, over",
        ),
        (
            "5.4.2 a stream error leaves the others alone",
            vec![join(&[post(1), post(3), window(1, 0), data(3, b"ab", true)])],
            "RST 1 PROTOCOL, HEADERS 3 200, DATA 3 2 END",
        ),
        (
            "5.5 an unknown frame inside a stream",
            vec![join(&[post(1), frame(200, 1, 1, b"x"), data(1, [], true)])],
            "HEADERS 1 200 END",
        ),
        ("5.5 an unknown setting", vec![settings(&[(0xff, 7), (8, 1)])], "SETTINGS ACK"),
    ])
}

fn section_6_1_data() -> usize {
    let padded = |length: u8, rest: usize, end: u8| {
        frame(DATA, PADDED | end, 1, [vec![length], vec![b'x'; rest]].concat())
    };
    check(vec![
        (
            "6.1 DATA ends a request",
            vec![join(&[post(1), data(1, b"abc", true)])],
            "HEADERS 1 200, DATA 1 3 END",
        ),
        (
            "6.1 several DATA",
            vec![join(&[post(1), data(1, b"abc", false), data(1, b"de", false), data(1, [], true)])],
            "HEADERS 1 200, DATA 1 5 END",
        ),
        ("6.1 stream 0", vec![data(0, b"x", false)], "GOAWAY 0 PROTOCOL, over"),
        (
            "6.1 padding is not content",
            vec![join(&[post(1), padded(3, 8, 1)])],
            "HEADERS 1 200, DATA 1 5 END",
        ),
        ("6.1 nothing but padding", vec![join(&[post(1), padded(8, 8, 1)])], "HEADERS 1 200 END"),
        ("6.1 padding of length 0", vec![join(&[post(1), padded(0, 2, 1)])], "HEADERS 1 200, DATA 1 2 END"),
        ("6.1 a pad length and nothing else", vec![join(&[post(1), padded(0, 0, 1)])], "HEADERS 1 200 END"),
        (
            "6.1 padding longer than the frame",
            vec![join(&[post(1), padded(9, 8, 1)])],
            "GOAWAY 1 PROTOCOL, over",
        ),
        ("6.1 padding of an empty frame", vec![join(&[post(1), padded(1, 0, 0)])], "GOAWAY 1 PROTOCOL, over"),
        (
            "6.1 padded without a pad length",
            vec![join(&[post(1), frame(DATA, PADDED, 1, [])])],
            "GOAWAY 1 FRAME_SIZE, over",
        ),
        (
            "6.1 interleaved streams",
            vec![join(&[post(1), post(3), data(1, b"a", false), data(3, b"bb", true), data(1, b"c", true)])],
            "HEADERS 3 200, HEADERS 1 200, DATA 3 2 END, DATA 1 2 END",
        ),
    ])
}

fn section_6_2_headers() -> usize {
    let trailers = frame(HEADERS, END_STREAM | END_HEADERS, 1, block(&[("a", "b")]));
    check(vec![
        ("6.2 padding", vec![padded_get(4, 4)], "HEADERS 1 200 END"),
        ("6.2 padding longer than the frame", vec![padded_get(255, 0)], "GOAWAY 0 PROTOCOL, over"),
        (
            "6.2 padded without a pad length",
            vec![frame(HEADERS, 5 | PADDED, 1, [])],
            "GOAWAY 0 FRAME_SIZE, over",
        ),
        (
            "6.2 padding and priority",
            vec![frame(
                HEADERS,
                5 | PADDED | PRIORITY_FLAG,
                1,
                [&[2, 0, 0, 0, 0, 1][..], &request("GET", "/", &[]), &[0, 0]].concat(),
            )],
            "HEADERS 1 200 END",
        ),
        (
            "6.2 without its priority",
            vec![frame(HEADERS, 5 | PRIORITY_FLAG, 1, [0; 4])],
            "GOAWAY 0 FRAME_SIZE, over",
        ),
        (
            "6.2 trailers",
            vec![join(&[post(1), data(1, b"x", false), trailers.clone()])],
            "HEADERS 1 200, DATA 1 1 END",
        ),
        ("6.2 trailers without DATA", vec![join(&[post(1), trailers])], "HEADERS 1 200 END"),
        ("6.2 an empty list", vec![frame(HEADERS, 5, 1, [])], "RST 1 PROTOCOL"),
    ])
}

fn sections_6_3_and_6_4_priority_and_reset() -> usize {
    check(vec![
        ("6.3 stream 0", vec![priority(0, 1)], "GOAWAY 0 PROTOCOL, over"),
        ("6.3 four octets", vec![join(&[post(1), frame(PRIORITY, 0, 1, [0; 4])])], "RST 1 FRAME_SIZE"),
        ("6.3 six octets", vec![join(&[post(1), frame(PRIORITY, 0, 1, [0; 6])])], "RST 1 FRAME_SIZE"),
        (
            "6.3 wrong length on an idle stream",
            vec![frame(PRIORITY, 0, 1, [0; 6])],
            "GOAWAY 0 FRAME_SIZE, over",
        ),
        ("6.4 stream 0", vec![reset(0, 8)], "GOAWAY 0 PROTOCOL, over"),
        ("6.4 idle stream", vec![join(&[get(1), reset(3, 8)])], "GOAWAY 1 PROTOCOL, over"),
        (
            "6.4 three octets",
            vec![join(&[post(1), frame(RST_STREAM, 0, 1, [0; 3])])],
            "GOAWAY 1 FRAME_SIZE, over",
        ),
        (
            "6.4 five octets",
            vec![join(&[post(1), frame(RST_STREAM, 0, 1, [0; 5])])],
            "GOAWAY 1 FRAME_SIZE, over",
        ),
        (
            "6.4 an unknown error code",
            vec![join(&[post(1), reset(1, 0xffff_ffff), get(3)])],
            "HEADERS 3 200 END",
        ),
    ])
}

fn section_6_5_settings() -> usize {
    check(vec![
        ("6.5 on a stream", vec![frame(SETTINGS, 0, 1, [])], "GOAWAY 0 PROTOCOL, over"),
        ("6.5 ACK with a payload", vec![frame(SETTINGS, ACK, 0, [0; 6])], "GOAWAY 0 FRAME_SIZE, over"),
        ("6.5 ACK", vec![frame(SETTINGS, ACK, 0, [])], ""),
        ("6.5 not a multiple of six", vec![frame(SETTINGS, 0, 0, [0; 7])], "GOAWAY 0 FRAME_SIZE, over"),
        ("6.5.2 ENABLE_PUSH 0", vec![settings(&[(2, 0)])], "SETTINGS ACK"),
        ("6.5.2 ENABLE_PUSH 1", vec![settings(&[(2, 1)])], "SETTINGS ACK"),
        ("6.5.2 ENABLE_PUSH 2", vec![settings(&[(2, 2)])], "GOAWAY 0 PROTOCOL, over"),
        ("6.5.2 the largest window", vec![settings(&[(4, 0x7fff_ffff)])], "SETTINGS ACK"),
        ("6.5.2 a window too large", vec![settings(&[(4, 0x8000_0000)])], "GOAWAY 0 FLOW_CONTROL, over"),
        ("6.5.2 MAX_FRAME_SIZE too small", vec![settings(&[(5, 16_383)])], "GOAWAY 0 PROTOCOL, over"),
        ("6.5.2 MAX_FRAME_SIZE too large", vec![settings(&[(5, 16_777_216)])], "GOAWAY 0 PROTOCOL, over"),
        (
            "6.5.2 the least and the largest MAX_FRAME_SIZE",
            vec![settings(&[(5, 16_384), (5, 16_777_215)])],
            "SETTINGS ACK",
        ),
        (
            "6.5.3 each SETTINGS is acknowledged",
            vec![join(&[settings(&[(1, 0)]), settings(&[])])],
            "SETTINGS ACK, SETTINGS ACK",
        ),
        (
            "6.5.3 values are applied in order",
            vec![join(&[settings(&[(4, 100), (4, 3)]), get_path(1, "/size/10")])],
            "SETTINGS ACK, HEADERS 1 200, DATA 1 3",
        ),
        (
            "RFC 7541 4.2 a smaller table is acknowledged in the next block",
            vec![join(&[settings(&[(1, 0)]), get(1)])],
            "SETTINGS ACK, HEADERS 1 200 END",
        ),
    ])
}

fn sections_6_6_to_6_8_push_ping_goaway() -> usize {
    check(vec![
        (
            "6.6 a client cannot push",
            vec![join(&[post(1), frame(PUSH_PROMISE, 4, 1, [0; 8])])],
            "GOAWAY 1 PROTOCOL, over",
        ),
        ("6.7 PING is answered", vec![frame(PING, 0, 0, b"abcdefgh")], "PING ACK abcdefgh"),
        ("6.7 ACK is not answered", vec![frame(PING, ACK, 0, b"abcdefgh")], ""),
        ("6.7 on a stream", vec![frame(PING, 0, 1, b"abcdefgh")], "GOAWAY 0 PROTOCOL, over"),
        ("6.7 seven octets", vec![frame(PING, 0, 0, b"abcdefg")], "GOAWAY 0 FRAME_SIZE, over"),
        ("6.7 nine octets", vec![frame(PING, 0, 0, b"abcdefghi")], "GOAWAY 0 FRAME_SIZE, over"),
        ("6.8 on a stream", vec![frame(GOAWAY, 0, 1, [0; 8])], "GOAWAY 0 PROTOCOL, over"),
        ("6.8 too short", vec![frame(GOAWAY, 0, 0, [0; 7])], "GOAWAY 0 FRAME_SIZE, over"),
        ("6.8 with nothing under way", vec![goaway(0, 0)], "GOAWAY 0 NO_ERROR, over"),
        (
            "6.8 what has begun is finished",
            vec![join(&[post(1), goaway(0, 0)]), data(1, b"x", true)],
            "GOAWAY 1 NO_ERROR, HEADERS 1 200, DATA 1 1 END, over",
        ),
        ("6.8 with debug data", vec![frame(GOAWAY, 0, 0, [0; 30])], "GOAWAY 0 NO_ERROR, over"),
    ])
}

fn section_6_9_flow_control() -> usize {
    let fill = |stream: u32, frames: usize| data(stream, vec![0; 16_384], false).repeat(frames);
    let small_window = settings(&[(4, 0)]);
    check(vec![
        ("6.9 an increment of 0 on the connection", vec![window(0, 0)], "GOAWAY 0 PROTOCOL, over"),
        ("6.9 an increment of 0 on a stream", vec![join(&[post(1), window(1, 0)])], "RST 1 PROTOCOL"),
        ("6.9 three octets", vec![frame(WINDOW_UPDATE, 0, 0, [0; 3])], "GOAWAY 0 FRAME_SIZE, over"),
        ("6.9 five octets", vec![frame(WINDOW_UPDATE, 0, 0, [0; 5])], "GOAWAY 0 FRAME_SIZE, over"),
        ("6.9 the reserved bit is ignored", vec![join(&[post(1), window(1, (1 << 31) | 1)])], ""),
        (
            "6.9.1 the connection's window overflows",
            vec![window(0, 0x7fff_ffff)],
            "GOAWAY 0 FLOW_CONTROL, over",
        ),
        (
            "6.9.1 a stream's window overflows",
            vec![join(&[post(1), window(1, 0x7fff_ffff)])],
            "RST 1 FLOW_CONTROL",
        ),
        (
            "6.9.1 the largest window",
            vec![join(&[window(0, 0x7fff_0000), post(1), window(1, 0x7fff_0000)])],
            "",
        ),
        (
            "6.9.1 the connection's window holds",
            vec![join(&[settings(&[(4, 1 << 20)]), get_path(1, "/size/65536")]), window(0, 1)],
            "SETTINGS ACK, HEADERS 1 200, DATA 1 65536 END",
        ),
        (
            "6.9.1 a stream's window holds",
            vec![join(&[small_window.clone(), get_path(1, "/size/5")]), window(1, 2), window(1, 3)],
            "SETTINGS ACK, HEADERS 1 200, DATA 1 5 END",
        ),
        (
            "6.9.1 an empty answer needs no window",
            vec![join(&[small_window.clone(), get(1)])],
            "SETTINGS ACK, HEADERS 1 200 END",
        ),
        (
            "6.9.2 a larger initial window opens streams",
            vec![join(&[small_window.clone(), get_path(1, "/size/5")]), settings(&[(4, 3)])],
            "SETTINGS ACK, HEADERS 1 200, SETTINGS ACK, DATA 1 3",
        ),
        (
            "6.9.2 windows can become negative",
            vec![
                join(&[settings(&[(4, 4)]), get_path(1, "/size/9")]),
                settings(&[(4, 1)]),
                window(1, 3),
                window(1, 2),
            ],
            "SETTINGS ACK, HEADERS 1 200, DATA 1 4, SETTINGS ACK, DATA 1 2",
        ),
        (
            "6.9.2 an initial window that makes one overflow",
            vec![join(&[post(1), window(1, 0x7fff_0000), settings(&[(4, 0x7fff_ffff)])])],
            "GOAWAY 1 FLOW_CONTROL, over",
        ),
        (
            "6.9.2 the connection's window does not follow the setting",
            vec![join(&[settings(&[(4, 1 << 20)]), get_path(1, "/size/70000")])],
            "SETTINGS ACK, HEADERS 1 200, DATA 1 65535",
        ),
        (
            "6.9 a body within half of the window is not acknowledged",
            vec![join(&[post(1), fill(1, 1), data(1, b"x", true)])],
            "HEADERS 1 200, DATA 1 16385 END",
        ),
    ])
}

fn section_6_10_continuation() -> usize {
    let list = request("GET", "/", &[]);
    let mut long = vec![frame(HEADERS, END_STREAM, 1, &list)];
    long.extend((0..9).map(|_| frame(CONTINUATION, 0, 1, block(&[("a", "b")]))));
    let mut large = vec![frame(HEADERS, END_STREAM, 1, &list)];
    large.extend((0..3).map(|_| frame(CONTINUATION, 0, 1, vec![0x82; 16_000])));
    check(vec![
        ("6.10 without HEADERS", vec![frame(CONTINUATION, 4, 1, &list)], "GOAWAY 0 PROTOCOL, over"),
        (
            "6.10 on stream 0",
            vec![join(&[frame(HEADERS, 1, 1, &list), frame(CONTINUATION, 4, 0, [])])],
            "GOAWAY 0 PROTOCOL, over",
        ),
        (
            "6.10 after a complete block",
            vec![join(&[get(1), frame(CONTINUATION, 4, 1, [])])],
            "GOAWAY 1 PROTOCOL, over",
        ),
        (
            "6.10 after DATA",
            vec![join(&[post(1), data(1, b"x", false), frame(CONTINUATION, 4, 1, [])])],
            "GOAWAY 1 PROTOCOL, over",
        ),
        ("6.10 more frames than a block may have", vec![join(&long)], "GOAWAY 0 CALM, over"),
        ("6.10 a block longer than it may be", vec![join(&large)], "GOAWAY 0 CALM, over"),
    ])
}

fn section_8_1_requests() -> usize {
    let post_length =
        |length: &str| frame(HEADERS, 4, 1, request("POST", "/", &[("content-length", length)]));
    check(vec![
        (
            "8.1 trailers without END_STREAM",
            vec![join(&[post(1), frame(HEADERS, 4, 1, block(&[("a", "b")]))])],
            "RST 1 PROTOCOL",
        ),
        (
            "8.1 trailers with a pseudo-field",
            vec![join(&[post(1), frame(HEADERS, 5, 1, block(&[(":method", "GET")]))])],
            "RST 1 PROTOCOL",
        ),
        (
            "8.1 trailers with a status",
            vec![join(&[post(1), frame(HEADERS, 5, 1, block(&[(":status", "200")]))])],
            "RST 1 PROTOCOL",
        ),
        (
            "8.1 trailers in upper case",
            vec![join(&[post(1), frame(HEADERS, 5, 1, block(&[("A", "b")]))])],
            "RST 1 PROTOCOL",
        ),
        (
            "8.1 an answer before the end of the request",
            vec![join(&[post_length("200000"), data(1, b"x", false)])],
            "HEADERS 1 413 END, RST 1 NO_ERROR",
        ),
        (
            "8.1.1 content-length matches",
            vec![join(&[post_length("3"), data(1, b"abc", true)])],
            "HEADERS 1 200, DATA 1 3 END",
        ),
        ("8.1.1 content-length 0", vec![join(&[post_length("0"), data(1, [], true)])], "HEADERS 1 200 END"),
        (
            "8.1.1 more than content-length",
            vec![join(&[post_length("3"), data(1, b"abcd", true)])],
            "RST 1 PROTOCOL",
        ),
        (
            "8.1.1 less than content-length",
            vec![join(&[post_length("3"), data(1, b"ab", true)])],
            "RST 1 PROTOCOL",
        ),
        (
            "8.1.1 more than content-length in several frames",
            vec![join(&[post_length("3"), data(1, b"ab", false), data(1, b"cd", true)])],
            "RST 1 PROTOCOL",
        ),
        (
            "8.1.1 less than content-length, then trailers",
            vec![join(&[post_length("3"), frame(HEADERS, 5, 1, block(&[("a", "b")]))])],
            "RST 1 PROTOCOL",
        ),
        ("8.1.1 content-length without DATA", vec![with("content-length", "1")], "RST 1 PROTOCOL"),
        ("8.1.1 content-length is not a number", vec![post_length("abc")], "RST 1 PROTOCOL"),
        ("8.1.1 a signed content-length", vec![post_length("+3")], "RST 1 PROTOCOL"),
        (
            "8.1.1 two content-lengths",
            vec![frame(
                HEADERS,
                4,
                1,
                request("POST", "/", &[("content-length", "3"), ("content-length", "3")]),
            )],
            "RST 1 PROTOCOL",
        ),
        (
            "8.1.1 a huge content-length",
            vec![post_length("99999999999999999999")],
            "HEADERS 1 413 END, RST 1 NO_ERROR",
        ),
    ])
}

fn section_8_2_fields() -> usize {
    check(vec![
        ("8.2 upper case", vec![with("Accept", "x")], "RST 1 PROTOCOL"),
        ("8.2.1 an empty name", vec![with("", "x")], "RST 1 PROTOCOL"),
        ("8.2.1 a blank in a name", vec![with("a b", "x")], "RST 1 PROTOCOL"),
        ("8.2.1 a colon in a name", vec![with("a:b", "x")], "RST 1 PROTOCOL"),
        ("8.2.1 a control character in a name", vec![with("a\x01", "x")], "RST 1 PROTOCOL"),
        ("8.2.1 no ASCII in a name", vec![with("\u{e9}", "x")], "RST 1 PROTOCOL"),
        ("8.2.1 NUL in a value", vec![with("a", "x\0y")], "RST 1 PROTOCOL"),
        ("8.2.1 CR in a value", vec![with("a", "x\ry")], "RST 1 PROTOCOL"),
        ("8.2.1 LF in a value", vec![with("a", "x\ny")], "RST 1 PROTOCOL"),
        ("8.2.1 a blank before a value", vec![with("a", " x")], "RST 1 PROTOCOL"),
        ("8.2.1 a tabulator after a value", vec![with("a", "x\t")], "RST 1 PROTOCOL"),
        ("8.2.1 no ASCII in a value", vec![with("a", "\u{e9}")], "HEADERS 1 200 END"),
        ("8.2.1 an empty value", vec![with("a", "")], "HEADERS 1 200 END"),
        ("8.2.2 connection", vec![with("connection", "keep-alive")], "RST 1 PROTOCOL"),
        ("8.2.2 keep-alive", vec![with("keep-alive", "1")], "RST 1 PROTOCOL"),
        ("8.2.2 proxy-connection", vec![with("proxy-connection", "close")], "RST 1 PROTOCOL"),
        ("8.2.2 transfer-encoding", vec![with("transfer-encoding", "chunked")], "RST 1 PROTOCOL"),
        ("8.2.2 upgrade", vec![with("upgrade", "h2c")], "RST 1 PROTOCOL"),
        ("8.2.2 te", vec![with("te", "gzip")], "RST 1 PROTOCOL"),
        ("8.2.2 te with more than trailers", vec![with("te", "trailers, deflate")], "RST 1 PROTOCOL"),
        ("8.2.2 te: trailers", vec![with("te", "trailers")], "HEADERS 1 200 END"),
    ])
}

fn section_8_3_pseudo_fields() -> usize {
    const M: (&str, &str) = (":method", "GET");
    const S: (&str, &str) = (":scheme", "http");
    const P: (&str, &str) = (":path", "/");
    const A: (&str, &str) = (":authority", "h");
    let path = |path: &str| list(&[M, S, (":path", path)]);
    check(vec![
        ("8.3 without an authority", vec![list(&[M, S, P])], "HEADERS 1 200 END"),
        ("8.3 in another order", vec![list(&[A, P, M, S])], "HEADERS 1 200 END"),
        ("8.3 unknown", vec![list(&[M, S, P, (":test", "x")])], "RST 1 PROTOCOL"),
        ("8.3 of a response", vec![list(&[M, S, P, (":status", "200")])], "RST 1 PROTOCOL"),
        ("8.3 after a field", vec![list(&[M, S, ("a", "b"), P])], "RST 1 PROTOCOL"),
        ("8.3 all after a field", vec![list(&[("a", "b"), M, S, P])], "RST 1 PROTOCOL"),
        ("8.3.1 no method", vec![list(&[S, P, A])], "RST 1 PROTOCOL"),
        ("8.3.1 no scheme", vec![list(&[M, P, A])], "RST 1 PROTOCOL"),
        ("8.3.1 no path", vec![list(&[M, S, A])], "RST 1 PROTOCOL"),
        ("8.3.1 two methods", vec![list(&[M, M, S, P])], "RST 1 PROTOCOL"),
        ("8.3.1 two schemes", vec![list(&[M, S, S, P])], "RST 1 PROTOCOL"),
        ("8.3.1 two paths", vec![list(&[M, S, P, P])], "RST 1 PROTOCOL"),
        ("8.3.1 two authorities", vec![list(&[M, S, P, A, A])], "RST 1 PROTOCOL"),
        ("8.3.1 an empty path", vec![path("")], "RST 1 PROTOCOL"),
        ("8.3.1 a path without a slash", vec![path("x")], "RST 1 PROTOCOL"),
        ("8.3.1 a path with a blank", vec![path("/a b")], "RST 1 PROTOCOL"),
        ("8.3.1 an asterisk with GET", vec![path("*")], "RST 1 PROTOCOL"),
        (
            "8.3.1 an asterisk with OPTIONS",
            vec![list(&[(":method", "OPTIONS"), S, (":path", "*")])],
            "HEADERS 1 200 END",
        ),
        ("8.3.1 a wrong escape", vec![path("/%zz")], "HEADERS 1 400 END"),
        (
            "8.3.1 a path too long",
            vec![path(Box::leak(format!("/{}", "a".repeat(64)).into_boxed_str()))],
            "HEADERS 1 414 END",
        ),
        ("8.3.1 an empty method", vec![list(&[(":method", ""), S, P])], "RST 1 PROTOCOL"),
        ("8.3.1 a method that is no token", vec![list(&[(":method", "G T"), S, P])], "RST 1 PROTOCOL"),
        ("8.3.1 an unknown method", vec![list(&[(":method", "BREW"), S, P])], "HEADERS 1 501 END"),
        ("8.3.1 an empty scheme", vec![list(&[M, (":scheme", ""), P])], "RST 1 PROTOCOL"),
        ("8.3.1 host and authority agree", vec![list(&[M, S, P, A, ("host", "H")])], "HEADERS 1 200 END"),
        ("8.3.1 host and authority differ", vec![list(&[M, S, P, A, ("host", "x")])], "RST 1 PROTOCOL"),
        ("8.3.1 two hosts", vec![list(&[M, S, P, ("host", "h"), ("host", "h")])], "RST 1 PROTOCOL"),
        (
            "8.3.1 user information in the authority",
            vec![list(&[M, S, P, (":authority", "u@h")])],
            "RST 1 PROTOCOL",
        ),
        ("8.3.1 an authority that is none", vec![list(&[M, S, P, (":authority", "a/b")])], "RST 1 PROTOCOL"),
        ("8.5 CONNECT", vec![list(&[(":method", "CONNECT"), (":authority", "h:1")])], "HEADERS 1 501 END"),
        ("8.5 CONNECT with a path", vec![list(&[(":method", "CONNECT"), S, P, A])], "RST 1 PROTOCOL"),
        ("8.5 CONNECT without an authority", vec![list(&[(":method", "CONNECT")])], "RST 1 PROTOCOL"),
        (
            "9110 expectation",
            vec![join(&[
                frame(HEADERS, 4, 1, request("POST", "/", &[("expect", "100-continue")])),
                data(1, b"x", true),
            ])],
            "HEADERS 1 100, HEADERS 1 200, DATA 1 1 END",
        ),
        (
            "9110 HEAD has no content",
            vec![frame(HEADERS, 5, 1, request("HEAD", "/size/5", &[]))],
            "HEADERS 1 200 END",
        ),
    ])
}

fn limits_of_lists_and_bodies() -> usize {
    let many: Vec<(&str, &str)> = vec![("a", "b"); 30];
    let fields = frame(HEADERS, 5, 1, request("GET", "/", &many));
    let value = "v".repeat(100);
    let wide: Vec<(&str, &str)> = vec![("a", value.as_str()); 9];
    let large = frame(HEADERS, 5, 1, request("GET", "/", &wide));
    let body = data(1, vec![0; 10_001], false).repeat(10);
    check(vec![
        ("too many fields", vec![join(&[fields, get(3)])], "HEADERS 1 431 END, HEADERS 3 200 END"),
        ("a list too large", vec![join(&[large, get(3)])], "HEADERS 1 431 END, HEADERS 3 200 END"),
        (
            "a body too large",
            vec![join(&[post(1), body, get(3)])],
            "HEADERS 1 413 END, RST 1 NO_ERROR, HEADERS 3 200 END",
        ),
    ])
}
