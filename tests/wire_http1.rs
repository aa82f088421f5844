//! HTTP/1.x framing: what is served, what is refused, with which status, and whether the connection lives on.
//!
//! Every case is fed whole, split in two at every position, and byte by byte; the outcome must be the same.
//! The rules are those of RFC 9112 and RFC 9110, taken strictly.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kinglet::wire::{Clock, Context, Handler, Limits, Request, RequestHead, Response, http1::Connection};

struct Echo;

impl Handler for Echo {
    fn handle(&self, _: Request) -> Response {
        Response::empty(200)
    }

    fn body_limit(&self, head: &RequestHead) -> usize {
        if head.target == "/small" { 10 } else { usize::MAX }
    }
}

fn limits() -> Limits {
    Limits { head: 2048, uri: 512, header_count: 20, body: 100, ..Limits::default() }
}

/// What came of some bytes.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// `METHOD target body` of each request that was handed up.
    requests: Vec<String>,
    /// The status codes that were sent, and `close` if the connection is over.
    answers: String,
}

fn connection(clock: &Clock, limits: Limits) -> Connection {
    Connection::new(Context::new(Arc::new(Echo), limits), clock)
}

fn exchange<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let clock = Clock::new();
    let mut connection = connection(&clock, limits());
    let mut requests = Vec::new();
    for piece in pieces {
        connection.receive(piece, &clock);
        while let Some(request) = connection.next_request() {
            let body = String::from_utf8_lossy(&request.body);
            requests.push(format!("{} {} {body}", request.method, request.target).trim_end().to_owned());
            connection.respond(Response::empty(200), &clock);
        }
    }
    let output = String::from_utf8(connection.output().take()).unwrap();
    let mut answers: Vec<&str> =
        output.split("HTTP/1.").skip(1).map(|answer| answer.split(' ').nth(1).unwrap()).collect();
    if connection.is_finished() {
        answers.push("close");
    }
    Outcome { requests, answers: answers.join(" ") }
}

/// Feeds `input` in every way and returns the one outcome.
fn outcome(input: &[u8]) -> Outcome {
    let whole = exchange([input].into_iter());
    assert_eq!(exchange(input.chunks(1)), whole, "byte by byte: {:?}", String::from_utf8_lossy(input));
    for at in 1..input.len() {
        let (front, back) = input.split_at(at);
        assert_eq!(
            exchange([front, back].into_iter()),
            whole,
            "split at {at}: {:?}",
            String::from_utf8_lossy(input)
        );
    }
    whole
}

/// Checks cases of (input, answers), with `wrap` around each input.
fn check(cases: &[(&str, &str)], wrap: impl Fn(&str) -> String) -> usize {
    for (input, expected) in cases {
        let input = wrap(input);
        assert_eq!(outcome(input.as_bytes()).answers, *expected, "{input:?}");
    }
    cases.len()
}

const REQUEST_LINES: &[(&str, &str)] = &[
    ("GET / HTTP/1.1", "200"),
    ("POST /v1/models/m:predict HTTP/1.1", "200"),
    ("HEAD / HTTP/1.1", "200"),
    ("PUT / HTTP/1.1", "200"),
    ("DELETE / HTTP/1.1", "200"),
    ("PATCH / HTTP/1.1", "200"),
    ("OPTIONS / HTTP/1.1", "200"),
    ("OPTIONS * HTTP/1.1", "200"),
    ("GET /a?b=c&d#e HTTP/1.1", "200"),
    ("GET /%2F%3a HTTP/1.1", "200"),
    ("GET /caf\u{e9} HTTP/1.1", "200"),
    ("GET http://h/x HTTP/1.1", "200"),
    ("GET https://h:1/x HTTP/1.1", "200"),
    ("GET http://h HTTP/1.1", "200"),
    ("\r\nGET / HTTP/1.1", "200"),
    ("\r\n\r\n\r\n\r\nGET / HTTP/1.1", "200"),
    ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1", "400 close"),
    ("\nGET / HTTP/1.1", "400 close"),
    (" GET / HTTP/1.1", "400 close"),
    ("GET  / HTTP/1.1", "400 close"),
    ("GET /  HTTP/1.1", "400 close"),
    ("GET / HTTP/1.1 ", "400 close"),
    ("GET\t/ HTTP/1.1", "400 close"),
    ("GET /\tHTTP/1.1", "400 close"),
    ("GET /a b HTTP/1.1", "400 close"),
    ("GET / ", "400 close"),
    ("GET /", "400 close"),
    ("GET", "400 close"),
    ("GET  HTTP/1.1", "400 close"),
    ("GET / HTTP/1.1\r", "400 close"),
    ("GET / HTTP/0.9", "505 close"),
    ("GET / HTTP/1.2", "505 close"),
    ("GET / HTTP/2.0", "505 close"),
    ("GET / HTTP/3.0", "505 close"),
    ("GET / HTTP/1", "400 close"),
    ("GET / HTTP/1.", "400 close"),
    ("GET / HTTP/11.1", "400 close"),
    ("GET / HTTP/1.10", "400 close"),
    ("GET / HTTP/1.1x", "400 close"),
    ("GET / http/1.1", "400 close"),
    ("GET / HTTPS/1.1", "400 close"),
    ("GET / HTTP 1.1", "400 close"),
    ("GET / ICY/1.1", "400 close"),
    ("get / HTTP/1.1", "501 close"),
    ("TRACE / HTTP/1.1", "501 close"),
    ("CONNECT h:1 HTTP/1.1", "501 close"),
    ("BREW / HTTP/1.1", "501 close"),
    ("G(T / HTTP/1.1", "400 close"),
    ("G\0T / HTTP/1.1", "400 close"),
    ("GET /\0 HTTP/1.1", "400 close"),
    ("GET /\x7f HTTP/1.1", "400 close"),
    ("GET /\x01 HTTP/1.1", "400 close"),
    ("GET * HTTP/1.1", "400 close"),
    ("GET x HTTP/1.1", "400 close"),
    ("GET h:80 HTTP/1.1", "400 close"),
    ("GET ftp://h/ HTTP/1.1", "400 close"),
    ("GET http:///x HTTP/1.1", "400 close"),
    ("GET http://u@h/x HTTP/1.1", "400 close"),
    ("GET /%zz HTTP/1.1", "400 close"),
    ("GET /%2 HTTP/1.1", "400 close"),
    ("GET /% HTTP/1.1", "400 close"),
    ("\x16\x03\x01\x02 / HTTP/1.1", "400 close"),
];

const FIELDS: &[(&str, &str)] = &[
    ("", "200"),
    ("A: b\r\n", "200"),
    ("A:b\r\n", "200"),
    ("A: \t b \t\r\n", "200"),
    ("A:\r\n", "200"),
    ("A: b: c\r\n", "200"),
    ("A: \u{e9}\r\n", "200"),
    ("A: b\r\nA: c\r\n", "200"),
    ("X_y.z-1!#$%&'*+^`|~: b\r\n", "200"),
    ("A : b\r\n", "400 close"),
    ("A\t: b\r\n", "400 close"),
    (" A: b\r\n", "400 close"),
    ("A: b\r\n c\r\n", "400 close"),
    ("A: b\r\n\tc\r\n", "400 close"),
    ("A: b\r\n \r\n", "400 close"),
    ("A b\r\n", "400 close"),
    ("A\r\n", "400 close"),
    (": b\r\n", "400 close"),
    ("A(: b\r\n", "400 close"),
    ("A\": b\r\n", "400 close"),
    ("A/: b\r\n", "400 close"),
    ("\u{e9}: b\r\n", "400 close"),
    ("A: b\0c\r\n", "400 close"),
    ("A\0: b\r\n", "400 close"),
    ("A: \x01\r\n", "400 close"),
    ("A: \x7f\r\n", "400 close"),
    ("A: b\n", "400 close"),
    ("A: b\nB: c\r\n", "400 close"),
    ("A: b\rB: c\r\n", "400 close"),
    ("A: b\r\r\n", "400 close"),
    ("A: b\r\n\n", "400 close"),
    ("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n", "200"),
    ("Expect: 100-continue\r\n", "200"),
    ("Expect: 100-Continue\r\n", "200"),
    ("Expect: 200-ok\r\n", "417 close"),
    ("Connection: close\r\n", "200 close"),
    ("Connection: CLOSE\r\n", "200 close"),
    ("Connection: foo, close\r\n", "200 close"),
    ("Connection: keep-alive\r\n", "200"),
    ("Connection: keep-alive\r\nConnection: close\r\n", "200 close"),
    ("Host: h\r\n", "400 close"),
    ("HOST: other\r\n", "400 close"),
];

const HOSTS: &[(&str, &str)] = &[
    ("Host: h", "200"),
    ("host:h:8501", "200"),
    ("Host: [::1]:80", "200"),
    ("Host: ", "200"),
    ("Host:", "200"),
    ("A: b", "400 close"),
    ("Host: a b", "400 close"),
    ("Host: a/b", "400 close"),
    ("Host: u@h", "400 close"),
    ("Host: a,b", "400 close"),
    ("Host: h\r\nHost: h", "400 close"),
    ("Host: \u{e9}", "400 close"),
    ("Host: <h>", "400 close"),
];

/// Length fields with five bytes of body after them.
const LENGTHS: &[(&str, &str)] = &[
    ("Content-Length: 5", "200"),
    ("content-length:5", "200"),
    ("Content-Length: 005", "200"),
    ("Content-Length:  5 ", "200"),
    ("Content-Length: 4", "200"),
    ("Content-Length: 6", ""),
    ("Content-Length: 100", ""),
    ("Content-Length: 101", "413 close"),
    ("Content-Length: 99999999999", "413 close"),
    ("Content-Length: 18446744073709551615", "413 close"),
    ("Content-Length: 18446744073709551616", "413 close"),
    ("Content-Length: 99999999999999999999999999999", "413 close"),
    ("Content-Length:", "400 close"),
    ("Content-Length: +5", "400 close"),
    ("Content-Length: -5", "400 close"),
    ("Content-Length: 5,5", "400 close"),
    ("Content-Length: 5, 5", "400 close"),
    ("Content-Length: 5;q", "400 close"),
    ("Content-Length: 5 5", "400 close"),
    ("Content-Length: 0x5", "400 close"),
    ("Content-Length: 5.0", "400 close"),
    ("Content-Length: abc", "400 close"),
    ("Content-Length: 5a", "400 close"),
    ("Content-Length: \u{661}", "400 close"),
    ("Content-Length: 5\r\nContent-Length: 5", "400 close"),
    ("Content-Length: 5\r\nContent-Length: 6", "400 close"),
    ("Content-Length: 5\r\ncontent-length: 6", "400 close"),
    ("Content-Length: 5\r\nTransfer-Encoding: chunked", "400 close"),
    ("Transfer-Encoding: chunked\r\nContent-Length: 5", "400 close"),
    ("Transfer-Encoding: identity\r\nContent-Length: 5", "400 close"),
    ("Content-Length : 5", "400 close"),
    ("Content-Length\t: 5", "400 close"),
    ("Content-Length: 5\n", "400 close"),
    ("Content-Length: \x0b5", "400 close"),
    ("Content-Length: 5\r\n\x0bTransfer-Encoding: chunked", "400 close"),
    ("Transfer-Encoding: gzip", "501 close"),
    ("Transfer-Encoding: identity", "501 close"),
    ("Transfer-Encoding: xchunked", "501 close"),
    ("Transfer-Encoding: gzip, chunked", "400 close"),
    ("Transfer-Encoding: chunked, chunked", "400 close"),
    ("Transfer-Encoding: chunked, identity", "400 close"),
    ("Transfer-Encoding: chunked;q=1", "400 close"),
    ("Transfer-Encoding: \"chunked\"", "400 close"),
    ("Transfer-Encoding: chunked,", "400 close"),
    ("Transfer-Encoding: ,chunked", "400 close"),
    ("Transfer-Encoding:", "400 close"),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "400 close"),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "400 close"),
    ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", "400 close"),
    ("Transfer-Encoding : chunked", "400 close"),
    ("Transfer-Encoding: \x0bchunked", "400 close"),
    ("Transfer-Encoding: chunked\0", "400 close"),
    ("Transfer-Encoding:\r\n chunked", "400 close"),
    ("Transfer\u{2d}Encoding\0: chunked", "400 close"),
    ("Expect: 100-continue\r\nContent-Length: 5", "100 200"),
    ("Expect: 100-continue\r\nContent-Length: 101", "413 close"),
];

/// Bodies after `Transfer-Encoding: chunked`.
const CHUNKED: &[(&str, &str)] = &[
    ("0\r\n\r\n", "200"),
    ("5\r\nhello\r\n0\r\n\r\n", "200"),
    ("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "200"),
    ("0005\r\nhello\r\n000\r\n\r\n", "200"),
    ("5;a\r\nhello\r\n0\r\n\r\n", "200"),
    ("5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n", "200"),
    ("0\r\nA: b\r\n\r\n", "200"),
    ("0\r\nA: b\r\nContent-Length: 7\r\n\r\n", "200"),
    ("5\r\nhello\r\n", ""),
    ("5\r\nhel", ""),
    ("5\r\nhello\r\n0\r\n", ""),
    ("0\r\nA: b\r\n", ""),
    ("5\nhello\r\n0\r\n\r\n", "400 close"),
    ("5\r\nhello\n0\r\n\r\n", "400 close"),
    ("5\r\nhello\r\n0\n\r\n", "400 close"),
    ("5\r\nhello\r\n0\r\n\n", "400 close"),
    ("5\r\nhello0\r\n\r\n", "400 close"),
    ("5\r\nhelloo\r\n0\r\n\r\n", "400 close"),
    ("6\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("4\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("5 \r\nhello\r\n0\r\n\r\n", "400 close"),
    (" 5\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("5 ;a\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("0x5\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("+5\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("-5\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("g\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("\r\nhello\r\n0\r\n\r\n", "400 close"),
    (";a\r\n\r\n", "400 close"),
    ("5,5\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("5;\0\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("5;a\rb\r\nhello\r\n0\r\n\r\n", "400 close"),
    ("65\r\n", "413 close"),
    ("ffffffff\r\n", "413 close"),
    ("ffffffffffffffff\r\n", "413 close"),
    ("10000000000000000\r\n", "400 close"),
    ("00000000000000005\r\n", "400 close"),
    ("64\r\n", ""),
    ("0\r\nA : b\r\n\r\n", "400 close"),
    ("0\r\n A: b\r\n\r\n", "400 close"),
    ("0\r\nA\r\n\r\n", "400 close"),
    ("0\r\nA: b\0\r\n\r\n", "400 close"),
    ("0\r\nA: b\n\r\n", "400 close"),
];

const VERSION_10: &[(&str, &str)] = &[
    ("GET / HTTP/1.0\r\n\r\n", "200 close"),
    ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "200"),
    ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET / HTTP/1.0\r\n\r\n", "200 200 close"),
    ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", "400 close"),
    ("POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab", "200 close"),
    ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 close"),
    ("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab", "200 close"),
];

#[test]
fn every_case_has_its_answer() {
    let mut count = check(REQUEST_LINES, |line| format!("{line}\r\nHost: h\r\n\r\n"));
    count += check(FIELDS, |fields| format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"));
    count += check(HOSTS, |host| format!("GET / HTTP/1.1\r\n{host}\r\n\r\n"));
    // A body shorter than what follows would make the rest a request of its own.
    count += check(LENGTHS, |length| {
        let body = if length.ends_with(": 4") { "hell" } else { "hello" };
        format!("POST / HTTP/1.1\r\nHost: h\r\n{length}\r\n\r\n{body}")
    });
    count += check(CHUNKED, |body| {
        format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
    });
    count += check(VERSION_10, str::to_owned);
    eprintln!("{count} cases");
    assert!(count >= 200, "{count} cases");
}

#[test]
fn bodies_and_pipelined_requests_are_told_apart() {
    let cases: &[(&str, &[&str])] = &[
        (
            "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
            &["POST /a abc", "GET /b"],
        ),
        (
            "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n3;x\r\nabc\r\n2\r\nde\r\n0\r\nA: b\r\n\r\n\
             POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx",
            &["POST /a abcde", "POST /b x"],
        ),
        (
            "GET /a HTTP/1.1\r\nHost: h\r\n\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\nGET /c HTTP/1.1\r\nHost: h\r\n\r\n",
            &["GET /a", "GET /b", "GET /c"],
        ),
        ("GET http://h:1/a?b HTTP/1.1\r\nHost: h\r\n\r\n", &["GET /a?b"]),
        // Nothing after a connection that is to be closed, or after an error, is a request.
        (
            "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
            &["GET /a"],
        ),
        (
            "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
             GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
            &[],
        ),
        (
            "POST /small HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789",
            &["POST /small 0123456789"],
        ),
        ("POST /small HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n01234567890", &[]),
    ];
    for (input, requests) in cases {
        assert_eq!(outcome(input.as_bytes()).requests, *requests, "{input:?}");
    }
}

#[test]
fn sizes_are_limited() {
    let get = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let fields = |count: usize| "A: b\r\n".repeat(count);
    let long = |length: usize| format!("/{}", "a".repeat(length - 1));
    let head = |length: usize| {
        let empty = get("/", "A: \r\n").len();
        get("/", &format!("A: {}\r\n", "b".repeat(length - empty)))
    };
    let chunk = |extension: usize| {
        let extension = "e".repeat(extension - 1);
        format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0;{extension}\r\n\r\n")
    };
    let trailers = |count: usize| {
        let lines = "A: b\r\n".repeat(count);
        format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{lines}\r\n")
    };
    for (input, expected) in [
        (get(&long(512), ""), "200"),
        (get(&long(513), ""), "414 close"),
        (format!("GET {}", long(600)), "414 close"),
        // The same, whether the line comes whole or in pieces.
        (format!("{} / HTTP/1.1\r\nHost: h\r\n\r\n", "M".repeat(600)), "414 close"),
        (get("/", &fields(19)), "200"),
        (get("/", &fields(20)), "431 close"),
        (head(2048), "200"),
        (head(2049), "431 close"),
        (head(4000), "431 close"),
        (chunk(256), "200"),
        (chunk(257), "400 close"),
        (trailers(20), "200"),
        (trailers(21), "431 close"),
        (trailers(400), "431 close"),
    ] {
        assert_eq!(outcome(input.as_bytes()).answers, expected, "{:.60?} of {} bytes", input, input.len());
    }
}

#[test]
fn chunk_framing_may_not_outweigh_the_data() {
    let clock = Clock::new();
    let mut connection = connection(&clock, Limits { body: 1 << 20, ..limits() });
    connection.receive(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", &clock);
    let chunk = format!("1;{}\r\nx\r\n", "e".repeat(250));
    for _ in 0..1000 {
        connection.receive(chunk.as_bytes(), &clock);
    }
    assert!(connection.is_finished());
    assert!(connection.output().take().starts_with(b"HTTP/1.1 400 "));
}

#[test]
fn a_request_behind_a_slow_one_waits_and_input_is_bounded() {
    let clock = Clock::new();
    let mut connection = connection(&clock, limits());
    connection.receive(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n", &clock);
    assert_eq!(connection.next_request().unwrap().target, "/a");
    assert!(connection.next_request().is_none());
    assert!(connection.wants_input());
    connection.receive(&b"GET /c HTTP/1.1\r\nHost: h\r\n\r\n".repeat(100), &clock);
    assert!(!connection.wants_input(), "what is pipelined behind has a limit");
    connection.respond(Response::empty(200), &clock);
    assert_eq!(connection.next_request().unwrap().target, "/b");
}

#[test]
fn the_end_of_input_keeps_the_answer_under_way() {
    let clock = Clock::new();
    let mut connection = connection(&clock, limits());
    connection.receive(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", &clock);
    let request = connection.next_request().unwrap();
    connection.receive_end();
    assert!(!connection.is_finished() && !request.cancelled.is_set());
    connection.respond(Response::empty(200), &clock);
    assert!(connection.is_finished());
    assert!(String::from_utf8(connection.output().take()).unwrap().contains("Connection: close"));
}

#[test]
fn a_broken_connection_cancels_its_request() {
    let clock = Clock::new();
    let mut connection = connection(&clock, limits());
    connection.receive(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", &clock);
    let request = connection.next_request().unwrap();
    connection.cancel();
    assert!(request.cancelled.is_set() && connection.is_finished());
}

#[test]
fn shutting_down_waits_for_the_answer_under_way() {
    let clock = Clock::new();
    let mut idle = connection(&clock, limits());
    idle.shut_down();
    assert!(idle.is_finished());
    let mut busy = connection(&clock, limits());
    busy.receive(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", &clock);
    busy.next_request().unwrap();
    busy.shut_down();
    assert!(!busy.is_finished());
    busy.respond(Response::empty(200), &clock);
    assert!(busy.is_finished());
    assert!(String::from_utf8(busy.output().take()).unwrap().contains("Connection: close"));
}

#[test]
fn requests_per_connection_are_limited() {
    let clock = Clock::new();
    let mut connection = connection(&clock, Limits { requests_per_connection: 2, ..limits() });
    for last in [false, true] {
        connection.receive(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", &clock);
        connection.next_request().unwrap();
        connection.respond(Response::empty(200), &clock);
        assert_eq!(connection.is_finished(), last);
    }
}

/// Feeds `input`, lets time pass in steps of a second, feeding `each` after each; returns the seconds until the
/// end and the status sent, if any.
fn seconds_until_closed(input: &[u8], each: &[u8]) -> (u64, String) {
    let mut clock = Clock::new();
    let mut connection = connection(&clock, Limits { body: 1 << 30, ..limits() });
    connection.receive(input, &clock);
    for second in 1..1000 {
        clock.advance(Duration::from_secs(1));
        connection.tick(&clock);
        if connection.is_finished() {
            let output = String::from_utf8(connection.output().take()).unwrap();
            return (second, output.split(' ').nth(1).unwrap_or("none").to_owned());
        }
        connection.receive(each, &clock);
    }
    (0, String::new())
}

#[test]
fn time_is_limited() {
    let post = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 999999999\r\n\r\n";
    let chunked = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(seconds_until_closed(b"", b""), (75, "none".to_owned()), "first byte");
    assert_eq!(seconds_until_closed(b"G", b""), (10, "408".to_owned()), "head that stops");
    assert_eq!(
        seconds_until_closed(b"GET / HTTP/1.1\r\nA:", b"b"),
        (10, "408".to_owned()),
        "head that dribbles"
    );
    assert_eq!(seconds_until_closed(post, b""), (6, "408".to_owned()), "body that stops");
    assert_eq!(seconds_until_closed(post, b"1234567890"), (6, "408".to_owned()), "body that dribbles");
    assert_eq!(
        seconds_until_closed(chunked, b"1;eeeeeeee\r\nx\r\n"),
        (6, "408".to_owned()),
        "chunks that dribble"
    );
    let enough = vec![b'x'; 1024];
    assert_eq!(seconds_until_closed(post, &enough), (120, "408".to_owned()), "body that never ends");
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let mut clock = Clock::new();
    let mut connection = connection(&clock, limits());
    connection.receive(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", &clock);
    connection.next_request().unwrap();
    clock.advance(Duration::from_secs(1000));
    connection.tick(&clock);
    assert!(!connection.is_finished(), "a request may take its time");
    connection.respond(Response::empty(200), &clock);
    connection.output().take();
    clock.advance(Duration::from_secs(74));
    connection.tick(&clock);
    assert!(!connection.is_finished());
    clock.advance(Duration::from_secs(1));
    connection.tick(&clock);
    assert!(connection.is_finished() && connection.output().is_empty());
}

#[test]
fn bodies_beyond_the_memory_budget_are_refused() {
    let post = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 90\r\n\r\n";
    for (limits, status) in [
        (Limits { connection_bytes: 50, ..limits() }, "HTTP/1.1 429 "),
        (Limits { in_flight_bytes: 50, ..limits() }, "HTTP/1.1 429 "),
    ] {
        let clock = Clock::new();
        let mut connection = connection(&clock, limits);
        connection.receive(post, &clock);
        connection.receive(&[b'x'; 50], &clock);
        assert!(connection.output().is_empty());
        connection.receive(b"x", &clock);
        let output = String::from_utf8(connection.output().take()).unwrap();
        assert!(output.starts_with(status) && output.contains("Retry-After: 1"), "{output}");
    }
}

#[test]
fn answers_that_nobody_takes_count() {
    let clock = Clock::new();
    let mut connection = connection(&clock, Limits { connection_bytes: 50, ..limits() });
    let get = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    connection.receive(get, &clock);
    connection.next_request().unwrap();
    connection.respond(Response::new(200, "t/x", vec![b'x'; 60]), &clock);
    connection.output().take();
    connection.output();
    connection.receive(get, &clock);
    connection.next_request().expect("what was written is forgotten");
    connection.respond(Response::new(200, "t/x", vec![b'x'; 60]), &clock);
    connection.receive(get, &clock);
    assert!(connection.next_request().is_none());
    assert!(String::from_utf8(connection.output().take()).unwrap().contains("HTTP/1.1 429 "));
}

#[test]
fn bodies_can_be_read_in_place() {
    let clock = Clock::new();
    let mut connection = connection(&clock, limits());
    connection.receive(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe", &clock);
    let (buffer, missing) = connection.body_buffer().unwrap();
    assert_eq!(missing, 3);
    buffer.extend_from_slice(b"llo");
    connection.body_filled(3, &clock);
    let request = connection.next_request().unwrap();
    assert_eq!(request.body, "hello");
    assert!(request.received <= Instant::now());
    assert!(connection.body_buffer().is_none());
}

proptest::proptest! {
    #[test]
    fn any_bytes_in_any_pieces_do_no_harm(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        piece in 1_usize..50,
    ) {
        exchange(bytes.chunks(piece));
        let mut request = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        request.extend_from_slice(&bytes);
        exchange(request.chunks(piece));
    }

    #[test]
    fn damaged_requests_are_read_the_same_in_all_pieces(
        flips in proptest::collection::vec((0_usize..120, proptest::prelude::any::<u8>()), 1..4),
        piece in 1_usize..50,
    ) {
        let mut request = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n\
            POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc".to_vec();
        for (at, byte) in flips {
            let at = at % request.len();
            request[at] = byte;
        }
        assert_eq!(exchange(request.chunks(piece)), exchange([&request[..]].into_iter()));
    }
}
