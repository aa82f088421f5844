//! gRPC framing against the protocol descriptions: messages, compression, deadlines, status, gRPC-Web.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use kinglet::wire::{
    Headers, Request,
    grpc::{self, Status},
};

const INVALID_ARGUMENT: u32 = 3;
const DEADLINE_EXCEEDED: u32 = 4;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;

fn request(content_type: &str, fields: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Request {
    let mut request = Request::new("POST", "/package.Service/Method");
    request.headers = Headers::new().with("content-type", content_type);
    for (name, value) in fields {
        request.headers.push(name, value);
    }
    request.body = body.into().into();
    request
}

fn call(fields: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Request {
    request("application/grpc", fields, body)
}

fn message(flag: u8, content: &[u8]) -> Vec<u8> {
    [&[flag][..], &(content.len() as u32).to_be_bytes(), content].concat()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn failure(request: &Request, max: usize) -> u32 {
    grpc::decode(request, max).unwrap_err().code
}

#[test]
fn content_types() {
    for (content_type, expected) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc;charset=utf-8", true),
        ("application/grpc-web", true),
        ("application/grpc-web+proto", true),
        ("application/grpc-web-text", true),
        ("application/grpc-web-text+proto", true),
        ("application/grpcx", false),
        ("application/grpc-webx", false),
        ("application/json", false),
        ("", false),
    ] {
        assert_eq!(grpc::is_grpc(&request(content_type, &[], "")), expected, "{content_type}");
    }
    assert!(!grpc::is_grpc(&Request::new("POST", "/")));
}

#[test]
fn a_message_is_a_slice_of_the_body() {
    let request = call(&[("x-token", "t")], message(0, b"hello"));
    let call = grpc::decode(&request, 5).unwrap();
    assert_eq!(call.path, "/package.Service/Method");
    assert_eq!(call.metadata.get_str("x-token"), Some("t"));
    assert_eq!(call.deadline, None);
    assert_eq!(call.message, "hello");
    assert_eq!(call.message.as_ptr(), request.body[5..].as_ptr());
    assert_eq!(grpc::decode(&self::call(&[], message(0, b"")), 0).unwrap().message, "");
}

#[test]
fn broken_messages_have_their_codes() {
    let good = message(0, b"hello");
    for (body, code) in [
        (vec![], INTERNAL),
        (good[..4].to_vec(), INTERNAL),
        (good[..9].to_vec(), INTERNAL),
        ([&good[..], b"x"].concat(), INTERNAL),
        ([&good[..], &good].concat(), INTERNAL),
        (message(2, b"hello"), INTERNAL),
        (message(0x80, b"hello"), INTERNAL),
        (message(1, b"hello"), INTERNAL),
        (message(0, b"hello!"), RESOURCE_EXHAUSTED),
        (vec![0, 255, 255, 255, 255], RESOURCE_EXHAUSTED),
    ] {
        assert_eq!(failure(&call(&[], body.clone()), 5), code, "{body:?}");
    }
}

#[test]
fn compression() {
    let content = b"hello ".repeat(1000);
    let compressed = message(1, &gzip(&content));
    let gzip_announced = [("grpc-encoding", "gzip")];
    let request = call(&gzip_announced, compressed.clone());
    assert_eq!(grpc::decode(&request, 6000).unwrap().message, content);
    assert_eq!(failure(&request, 5999), RESOURCE_EXHAUSTED, "the limit holds for what comes out");
    assert_eq!(failure(&call(&[("grpc-encoding", "snappy")], compressed.clone()), 6000), UNIMPLEMENTED);
    assert_eq!(failure(&call(&[("grpc-encoding", "identity")], compressed), 6000), INTERNAL);
    assert_eq!(failure(&call(&gzip_announced, message(1, b"no gzip")), 6000), INTERNAL);
    let plain = call(&gzip_announced, message(0, b"hello"));
    assert_eq!(grpc::decode(&plain, 5).unwrap().message, "hello", "each message says for itself");
}

#[test]
fn answers_are_compressed_for_those_who_compress() {
    let content = b"hello ".repeat(1000);
    let both = [("grpc-encoding", "gzip"), ("grpc-accept-encoding", "identity, deflate, gzip")];
    let response = grpc::encode(Ok(content.clone().into()), &call(&both, ""));
    assert_eq!(response.headers.get_str("grpc-encoding"), Some("gzip"));
    let body = response.body.into_bytes();
    assert_eq!(body[0], 1);
    assert_eq!(u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize, body.len() - 5);
    assert_eq!(kinglet::wire::gzip::inflate(&body[5..], 6000).unwrap(), content);
    for fields in [&both[..1], &both[1..], &[]] {
        let response = grpc::encode(Ok(content.clone().into()), &call(fields, ""));
        assert_eq!(response.headers.get("grpc-encoding"), None);
        assert_eq!(response.body.into_bytes(), message(0, &content));
    }
}

#[test]
fn deadlines() {
    for (text, expected) in [
        ("1H", Some(Duration::from_secs(3600))),
        ("2M", Some(Duration::from_secs(120))),
        ("30S", Some(Duration::from_secs(30))),
        ("99999999m", Some(Duration::from_millis(99_999_999))),
        ("99999999u", Some(Duration::from_micros(99_999_999))),
        ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
        ("100000000S", None),
        ("S", None),
        ("", None),
        ("5", None),
        ("5s", None),
        ("-5S", None),
        ("5 S", None),
        ("1.5S", None),
    ] {
        let mut request = call(&[("grpc-timeout", text)], message(0, b""));
        request.received = Instant::now();
        match (grpc::decode(&request, 10), expected) {
            (Ok(call), Some(expected)) => {
                assert_eq!(call.deadline, request.received.checked_add(expected), "{text}")
            }
            (Err(status), None) => assert_eq!(status.code, INVALID_ARGUMENT, "{text}"),
            (result, _) => panic!("{text}: {result:?}"),
        }
    }
    let late = call(&[("grpc-timeout", "1n")], message(0, b""));
    assert_eq!(failure(&late, 10), DEADLINE_EXCEEDED);
}

#[test]
fn success_has_trailers() {
    let piece = Bytes::from(vec![7; 100_000]);
    let response = grpc::encode(Ok(piece.clone().into()), &call(&[], ""));
    assert_eq!(response.status, 200);
    assert_eq!(response.headers.get_str("content-type"), Some("application/grpc"));
    assert_eq!(response.trailers, Some(Headers::new().with("grpc-status", "0")));
    let pieces: Vec<_> = response.body.into_pieces().collect();
    assert_eq!(pieces[0], message(0, &piece)[..5]);
    assert_eq!(pieces[1].as_ptr(), piece.as_ptr(), "the message is not copied");
}

#[test]
fn failure_has_headers_only() {
    let status = Status::new(5, "50% of caf\u{e9}\n");
    let response = grpc::encode(Err(status), &call(&[], ""));
    assert_eq!(response.status, 200);
    assert!(response.body.is_empty() && response.trailers.is_none());
    assert_eq!(response.headers.get_str("grpc-status"), Some("5"));
    assert_eq!(response.headers.get_str("grpc-message"), Some("50%25 of caf%C3%A9%0A"));
}

#[test]
fn grpc_web_has_its_trailers_in_the_body() {
    let request = request("application/grpc-web+proto", &[], message(0, b"hello"));
    assert_eq!(grpc::decode(&request, 5).unwrap().message, "hello");
    let response = grpc::encode(Ok(Bytes::from_static(b"abc").into()), &request);
    assert_eq!(response.headers.get_str("content-type"), Some("application/grpc-web+proto"));
    assert!(response.trailers.is_none());
    let expected = [message(0, b"abc"), message(0x80, b"grpc-status: 0\r\n")].concat();
    assert_eq!(response.body.into_bytes(), expected);
    let response = grpc::encode(Err(Status::new(5, "no")), &request);
    let expected = message(0x80, b"grpc-status: 5\r\ngrpc-message: no\r\n");
    assert_eq!(response.body.into_bytes(), expected);
}

#[test]
fn grpc_web_text_is_base64() {
    let framed = message(0, b"hello");
    let (front, back) = framed.split_at(4);
    for body in [STANDARD.encode(&framed), STANDARD.encode(front) + &STANDARD.encode(back)] {
        let request = request("application/grpc-web-text", &[], body.clone());
        assert_eq!(grpc::decode(&request, 5).unwrap().message, "hello", "{body}");
    }
    for body in ["####", "AAA", "AA==A"] {
        assert_eq!(failure(&request("application/grpc-web-text", &[], body), 5), INTERNAL, "{body}");
    }
    let response =
        grpc::encode(Ok(Bytes::from_static(b"abc").into()), &request("application/grpc-web-text", &[], ""));
    assert_eq!(response.headers.get_str("content-type"), Some("application/grpc-web-text+proto"));
    let expected = [message(0, b"abc"), message(0x80, b"grpc-status: 0\r\n")].concat();
    assert_eq!(STANDARD.decode(response.body.into_bytes()).unwrap(), expected);
}

proptest::proptest! {
    #[test]
    fn any_body_does_no_harm(
        body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100),
        text in proptest::bool::ANY,
        timeout in "[0-9HMSmun]{0,10}",
    ) {
        let content_type = if text { "application/grpc-web-text" } else { "application/grpc" };
        let fields = [("grpc-encoding", "gzip"), ("grpc-timeout", timeout.as_str())];
        let _ = grpc::decode(&request(content_type, &fields, body), 50);
    }
}
