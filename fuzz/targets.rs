//! What is done with hostile bytes, one function per parser; and well-formed bytes to start from.
//!
//! Three programs share this: `fuzz_targets/` (cargo-fuzz, nightly), `mutate.rs` (a plain runner for any
//! toolchain) and `tests/wire_fuzz.rs` (some rounds in every test run). A function panics if something is
//! wrong: by itself, or because one of its own checks does not hold.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use kinglet::{
    api::{
        auth::{Tokens, signature::Signed},
        json::{Collector, Conversion, Document, Value},
    },
    ops::image::decode_upright,
    wire::{
        Clock, Context, Handler, Headers, Limits, Request, Response, grpc, hpack::Decoder, http1, http2,
        multipart,
    },
};

/// A parser under test.
pub(crate) type Target = fn(&[u8]);

/// Name, function, seeds.
pub(crate) const TARGETS: &[(&str, Target, fn() -> Vec<Vec<u8>>)] = &[
    ("http1", http1, http1_seeds),
    ("http2", http2, http2_seeds),
    ("hpack", hpack, hpack_seeds),
    ("grpc", grpc, grpc_seeds),
    ("multipart", multipart, multipart_seeds),
    ("json", json, json_seeds),
    ("image", image, image_seeds),
    ("tokens", tokens, token_seeds),
];

struct Echo;

impl Handler for Echo {
    fn handle(&self, request: Request) -> Response {
        Response::new(200, "application/octet-stream", request.body)
    }

    fn answers_each_message(&self, head: &kinglet::wire::RequestHead) -> bool {
        head.target == "/stream"
    }
}

/// Small, so that limits are met often. The defaults ask the system, which is too slow for every input.
static LIMITS: LazyLock<Limits> = LazyLock::new(|| Limits {
    head: 1024,
    uri: 256,
    header_count: 20,
    body: 4096,
    grpc_message: 2048,
    streams: 8,
    ..Limits::default()
});

fn context() -> Context {
    Context::new(Arc::new(Echo), LIMITS.clone())
}

/// Pieces whose lengths follow from the content, so that the same bytes are always cut the same way.
fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    let sum = bytes.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    bytes.chunks(1 + sum % 61).collect()
}

/// HTTP/1: whatever the pieces, requests and answers are the same.
pub(crate) fn http1(bytes: &[u8]) {
    assert_eq!(play_http1(&[bytes]), play_http1(&pieces(bytes)));
}

fn play_http1(pieces: &[&[u8]]) -> (Vec<String>, Vec<u8>) {
    let clock = Clock::new();
    let mut connection = http1::Connection::new(context(), &clock);
    let (mut requests, mut output) = (Vec::new(), Vec::new());
    for piece in pieces {
        connection.receive(piece, &clock);
        while let Some(request) = connection.next_request() {
            assert!(request.body.len() <= LIMITS.body && request.headers.len() <= LIMITS.header_count);
            requests.push(format!("{} {} {:?}", request.method, request.target, request.headers));
            connection.respond(Echo.handle(request), &clock);
        }
        output.extend(connection.output().take());
    }
    assert!(output.is_empty() || output.starts_with(b"HTTP/1."));
    connection.receive_end();
    // The date may change between two runs; the number of answers may not.
    let answers =
        output.windows(9).filter(|window| window.starts_with(b"HTTP/1.") && window[8] == b' ').count();
    (requests, answers.to_string().into_bytes())
}

/// Image files: what is decoded has the size that it says, and no more pixels than are allowed.
pub(crate) fn image(bytes: &[u8]) {
    const MAX_PIXELS: usize = 1 << 14;
    if let Ok(picture) = decode_upright(bytes, MAX_PIXELS) {
        assert!((1..=MAX_PIXELS).contains(&(picture.height * picture.width)));
        assert_eq!(picture.pixels.len(), picture.height * picture.width * picture.channels);
        let (height, width) = (picture.height, picture.width);
        assert_eq!(picture.with_channels(3).pixels.len(), height * width * 3);
    }
}

fn image_seeds() -> Vec<Vec<u8>> {
    let files: [&[u8]; 10] = [
        include_bytes!("seeds/baseline.jpg"),
        include_bytes!("seeds/progressive.jpg"),
        include_bytes!("seeds/grey.jpg"),
        include_bytes!("seeds/rgb.png"),
        include_bytes!("seeds/palette.png"),
        include_bytes!("seeds/palette.gif"),
        include_bytes!("seeds/palette.bmp"),
        include_bytes!("seeds/rgb.bmp"),
        include_bytes!("seeds/lossy.webp"),
        include_bytes!("seeds/lossless.webp"),
    ];
    files.iter().map(|file| file.to_vec()).collect()
}

/// Token files and the header of a signed request; errors do not show what was read.
pub(crate) fn tokens(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(error) = Tokens::parse(&text, "file") {
        let shown = error.to_string();
        assert!(!text.split_whitespace().any(|word| word.len() > 20 && shown.contains(word)), "{shown}");
    }
    let headers = Headers::new().with("x-sdk-date", text.lines().next().unwrap_or_default());
    let _ = Signed::parse(&text, &headers);
}

fn token_seeds() -> Vec<Vec<u8>> {
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    vec![
        format!("# tokens\na {hash}\nb plain:other-token-0123456789 2030-12-31 m1,m2*\n").into_bytes(),
        format!("c key:ACCESS:secret-0123456789-abcdefgh - iris\nd {hash} 2030-12-31T00:00:00Z *\n")
            .into_bytes(),
        format!("Access=A, SignedHeaders=host;x-sdk-date, Signature={hash}").into_bytes(),
    ]
}

/// HTTP/2: frames after a good start. What comes back consists of whole frames.
pub(crate) fn http2(bytes: &[u8]) {
    let mut clock = Clock::new();
    let mut connection = http2::Connection::new(context(), &clock);
    connection.receive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", &clock);
    let mut output = connection.output(&clock).take();
    for piece in pieces(bytes) {
        connection.receive(piece, &clock);
        while let Some((stream, request)) = connection.next_request() {
            connection.respond(stream, Echo.handle(request), &clock);
        }
        output.extend(connection.output(&clock).take());
        clock.advance(std::time::Duration::from_millis(300));
        connection.tick(&clock);
    }
    connection.shut_down();
    output.extend(connection.output(&clock).take());
    let mut rest = &output[..];
    while !rest.is_empty() {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        rest = rest.get(9 + length..).expect("frames are whole");
    }
}

/// HPACK: blocks behind a length byte each. Lists and table stay within their limits.
pub(crate) fn hpack(mut bytes: &[u8]) {
    let mut decoder = Decoder::new(4096, 1024, 20);
    while let Some((length, rest)) = bytes.split_first() {
        let (block, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = rest;
        let Ok(decoded) = decoder.decode(block) else { return };
        let size: usize = decoded.headers.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        assert!(size <= 1024 && decoded.headers.len() <= 20 && decoder.table_size() <= 4096);
    }
}

/// gRPC: the first byte chooses the form and the compression, the rest is the body.
pub(crate) fn grpc(bytes: &[u8]) {
    let Some((choice, body)) = bytes.split_first() else { return };
    let forms = ["application/grpc", "application/grpc-web+proto", "application/grpc-web-text"];
    let mut request = Request::new("POST", "/package.Service/Method");
    request.headers.push("content-type", forms[usize::from(*choice) % forms.len()]);
    if choice & 4 != 0 {
        request.headers.push("grpc-encoding", "gzip");
        request.headers.push("grpc-accept-encoding", "gzip");
    }
    if choice & 8 != 0 {
        request.headers.push("grpc-timeout", &body[..body.len().min(9)]);
    }
    request.body = Bytes::copy_from_slice(body);
    let answer = grpc::decode(&request, 1000).map(|call| {
        assert!(call.message.len() <= 1000);
        call.message.into()
    });
    grpc::encode(answer, &request);
}

/// multipart: the first line is the content type. Parts are slices of the body.
pub(crate) fn multipart(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let content_type = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let body = Bytes::copy_from_slice(bytes.get(end + 1..).unwrap_or_default());
    if let Ok(parts) = multipart::parse(&content_type, &body) {
        assert!(parts.iter().map(|part| part.content.len()).sum::<usize>() <= body.len());
    }
}

/// JSON: read in one pass and in two. What another parser takes, ours takes, too.
pub(crate) fn json(bytes: &[u8]) {
    let document = Document::parse(bytes);
    let mut collector = Collector::<f32>::new(Conversion::Exact);
    assert_eq!(document.is_ok(), Document::parse_collecting(bytes, &mut collector).is_ok());
    // An exponent beyond a double's is refused whatever its digits, as TensorFlow Serving's parser does.
    let exponents =
        bytes.windows(2).any(|pair| pair[0].is_ascii_digit() && pair[1].eq_ignore_ascii_case(&b'e'));
    let depth = bytes.iter().filter(|byte| b"[{".contains(byte)).count();
    if depth < 50 && !exponents && serde_json::from_slice::<serde_json::Value>(bytes).is_ok() {
        assert!(document.is_ok(), "valid JSON is refused: {:?}", String::from_utf8_lossy(bytes));
    }
    if let Ok(document) = &document {
        walk(document.root());
        kinglet::api::json::dump(document.root());
    }
}

fn walk(value: Value<'_>) {
    value.number(Conversion::Exact);
    value.read_number::<i32>(Conversion::Serving);
    value.string();
    value.find("instances");
    value.items().for_each(walk);
    value.members().for_each(|(_, member)| walk(member));
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn http1_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /a?b=c HTTP/1.1\r\nHost: h:80\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n",
        "PUT http://h/x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: [::1]\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc-web+proto\r\nContent-Length: 7\r\n\r\n\0\0\0\0\u{2}ab",
    ])
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// POST / over http with the authority h.
const POST: &[u8] = b"\x83\x86\x84\x41\x01h";
const GET: &[u8] = b"\x82\x86\x84\x41\x01h";

fn http2_seeds() -> Vec<Vec<u8>> {
    let grpc = [POST, b"\x5f\x10application/grpc\x00\x0cgrpc-timeout\x02\x31S"].concat();
    let stream = [&b"\x83\x86\x04\x07/stream\x41\x01h"[..], b"\x5f\x10application/grpc"].concat();
    vec![
        [frame(1, 5, 1, GET), frame(1, 0x2d, 3, &[&[2, 0, 0, 0, 1, 9][..], GET, &[0; 2]].concat())].concat(),
        [frame(1, 4, 1, POST), frame(0, 0, 1, b"hello"), frame(0, 9, 1, b"\x02ab\0\0")].concat(),
        [
            frame(1, 1, 1, &GET[..3]),
            frame(9, 0, 1, b""),
            frame(9, 4, 1, &GET[3..]),
            frame(3, 0, 1, &[0, 0, 0, 8]),
        ]
        .concat(),
        [frame(4, 0, 0, &[0, 4, 0, 0, 0, 1]), frame(1, 4, 1, POST), frame(0, 1, 1, &[7; 300])].concat(),
        [frame(8, 0, 1, &[0, 0, 0, 9]), frame(8, 0, 0, &[0, 0, 0, 9]), frame(6, 0, 0, &[1; 8])].concat(),
        [frame(1, 4, 1, &grpc), frame(0, 1, 1, b"\0\0\0\0\x02hi"), frame(2, 0, 1, &[0, 0, 0, 0, 9])].concat(),
        [frame(1, 4, 1, &stream), frame(0, 0, 1, b"\0\0\0\0\x02hi\0\0\0"), frame(0, 1, 1, b"\0\x01x")]
            .concat(),
        [
            frame(1, 4, 1, POST),
            frame(1, 5, 1, b"\x40\x01a\x01b"),
            frame(7, 0, 0, &[0; 8]),
            frame(99, 1, 1, b"x"),
        ]
        .concat(),
    ]
}

fn hpack_seeds() -> Vec<Vec<u8>> {
    let blocks = |blocks: &[&[u8]]| {
        blocks.iter().flat_map(|block| [&[block.len() as u8][..], block].concat()).collect::<Vec<_>>()
    };
    vec![
        // The requests of RFC 7541, C.3 and C.4.
        blocks(&[
            b"\x82\x86\x84\x41\x0fwww.example.com",
            b"\x82\x86\x84\xbe\x58\x08no-cache",
            b"\x82\x87\x85\xbf\x40\x0acustom-key\x0ccustom-value",
        ]),
        blocks(&[
            b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
            b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
        ]),
        blocks(&[b"\x3f\xe1\x1f\x20\x40\x01a\x01b", b"\x10\x01a\x01b\x0f\x2f\x01c"]),
    ]
}

fn grpc_seeds() -> Vec<Vec<u8>> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let message = b"\0\0\0\0\x05hello";
    let zipped = kinglet::wire::gzip::deflate(b"hello hello hello");
    let zipped = [&[1, 0, 0, 0, zipped.len() as u8][..], &zipped].concat();
    vec![
        [&[0][..], message].concat(),
        [&[1][..], message].concat(),
        [&[2][..], STANDARD.encode(message).as_bytes()].concat(),
        [&[4][..], &zipped].concat(),
        [&[6][..], STANDARD.encode(&zipped).as_bytes()].concat(),
        b"\x081000m".to_vec(),
    ]
}

fn multipart_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "multipart/form-data; boundary=x\n--x\r\nContent-Disposition: form-data; name=\"images\"; filename=\"a.jpg\"\r\n\
         Content-Type: image/jpeg\r\n\r\nbytes\r\n--x\r\nContent-Disposition: form-data; name=b\r\n\r\n\r\n--x--\r\n",
        "multipart/form-data; boundary=\"a b\"\npreamble\r\n--a b\r\n\r\n\r\n--a b--epilogue",
    ])
}

fn json_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"instances": [1.0, 2.5e-3, -7]}"#,
        r#"{"signature_name": "s", "inputs": {"x": [[1, 2], [3, 4]], "y": {"b64": "aGk="}}}"#,
        r#"[true, false, null, "\u00e4\n\ud83d\ude00", 1e308, 0.1, 123456789012345678901234567890]"#,
        r#"{"instances": [{"a": [[[0.5]]]}, {"a": [[[NaN, Infinity]]]}]}"#,
    ])
}

/// A small source of numbers (xorshift), the same for the same seed.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// A number below `limit`, or 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }
}

/// Bytes and texts that parsers stumble over.
const STUMBLING: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"=",
    b"\"",
    b"%",
    b"-",
    b"+",
    b"0",
    b"1",
    b"9",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\0\0",
    b"\r\n\r\n",
    b"chunked",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"\0\0\x04\x08\0\0\0\0\x01",
    b"1e400",
    b"[",
    b"]",
    b"{",
    b"}",
    b"\\u",
    b"--x",
    b"\x3f\xe1\x1f",
    b"\xbe",
    b"\x40",
];

/// A few changes to one seed, or the front of one and the back of another.
pub(crate) fn mutated(seeds: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seeds[numbers.below(seeds.len())].clone();
    if numbers.below(4) == 0 {
        let other = &seeds[numbers.below(seeds.len())];
        bytes.truncate(numbers.below(bytes.len() + 1));
        bytes.extend_from_slice(&other[numbers.below(other.len())..]);
    }
    for _ in 0..1 + numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        let end = (at + 1 + numbers.below(8)).min(bytes.len());
        match numbers.below(6) {
            0 => {
                bytes.splice(at..at, STUMBLING[numbers.below(STUMBLING.len())].iter().copied()).for_each(drop)
            }
            1 => drop(bytes.drain(at..end)),
            2 => {
                let copy = bytes[at..end].repeat(1 + numbers.below(40));
                bytes.splice(at..at, copy).for_each(drop);
            }
            3 => bytes.truncate(at),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << numbers.below(8);
                }
            }
        }
    }
    bytes
}
