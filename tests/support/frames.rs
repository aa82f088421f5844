//! Writing HTTP/2 frames by hand, and reading those of the server as text.

// Each test program uses its own part of this.
#![allow(dead_code)]

use kinglet::wire::hpack::Decoder;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITY_FLAG: u8 = 32;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame whose header tells the truth about its payload.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literals that are not indexed.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The list of a request to `path`, with more fields.
pub(crate) fn request<'a>(method: &'a str, path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<u8> {
    let mut fields = vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", "h")];
    fields.extend(more);
    block(&fields)
}

pub(crate) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, request("GET", "/", &[]))
}

pub(crate) fn get_path(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, request("GET", path, &[]))
}

pub(crate) fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, request("POST", "/", &[]))
}

pub(crate) fn data(stream: u32, bytes: impl AsRef<[u8]>, end: bool) -> Vec<u8> {
    frame(DATA, if end { END_STREAM } else { 0 }, stream, bytes)
}

pub(crate) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = values
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    frame(SETTINGS, 0, 0, payload)
}

pub(crate) fn window(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

pub(crate) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, code.to_be_bytes())
}

pub(crate) fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat())
}

pub(crate) fn priority(stream: u32, dependency: u32) -> Vec<u8> {
    frame(PRIORITY, 0, stream, [&dependency.to_be_bytes()[..], &[16]].concat())
}

/// Frames in one piece.
pub(crate) fn join(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.concat()
}

fn code(bytes: &[u8]) -> &'static str {
    let names = [
        "NO_ERROR",
        "PROTOCOL",
        "INTERNAL",
        "FLOW_CONTROL",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE",
        "REFUSED",
        "CANCEL",
        "COMPRESSION",
        "CONNECT",
        "CALM",
    ];
    names[u32::from_be_bytes(bytes.try_into().unwrap()) as usize]
}

/// What the server wrote, one phrase per frame. Runs of DATA of one stream become one phrase.
pub(crate) fn transcript(output: &[u8]) -> Vec<String> {
    let mut decoder = Decoder::new(4096, 1 << 20, 1000);
    let mut phrases = Vec::new();
    let mut rest = output;
    let mut run: Option<(u32, usize)> = None;
    while !rest.is_empty() {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let (kind, flags) = (rest[3], rest[4]);
        let stream = u32::from_be_bytes(rest[5..9].try_into().unwrap());
        let payload = &rest[9..9 + length];
        rest = &rest[9 + length..];
        let end = if flags & END_STREAM != 0 { " END" } else { "" };
        if kind == DATA {
            let before = match run.take() {
                Some((same, bytes)) if same == stream => {
                    phrases.pop();
                    bytes
                }
                _ => 0,
            };
            run = Some((stream, before + length));
            phrases.push(format!("DATA {stream} {}{end}", before + length));
            continue;
        }
        run = None;
        phrases.push(match kind {
            HEADERS => {
                assert_eq!(flags & END_HEADERS, END_HEADERS);
                let headers = decoder.decode(payload).unwrap().headers;
                match headers.get_str(":status") {
                    Some(status) => format!("HEADERS {stream} {status}{end}"),
                    None => format!("TRAILERS {stream}{end}"),
                }
            }
            RST_STREAM => format!("RST {stream} {}", code(payload)),
            SETTINGS if flags & ACK != 0 => "SETTINGS ACK".to_owned(),
            SETTINGS => "SETTINGS".to_owned(),
            PING if flags & ACK != 0 => format!("PING ACK {}", String::from_utf8_lossy(payload)),
            PING => "PING".to_owned(),
            GOAWAY => {
                let last = u32::from_be_bytes(payload[..4].try_into().unwrap());
                let last = if last == u32::MAX >> 1 { "MAX".to_owned() } else { last.to_string() };
                format!("GOAWAY {last} {}", code(&payload[4..8]))
            }
            WINDOW_UPDATE => {
                format!("WINDOW {stream} {}", u32::from_be_bytes(payload.try_into().unwrap()))
            }
            other => panic!("the server sent a frame of type {other}"),
        });
    }
    phrases
}
