//! Frames and error codes (RFC 9113, 4, 6 and 7).
#![forbid(unsafe_code)]

use crate::wire::output::Output;

/// What a client sends first (RFC 9113, 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The largest payload that is accepted: the initial value of SETTINGS_MAX_FRAME_SIZE.
pub(super) const MAX_FRAME: usize = 16_384;
/// The initial value of both windows (RFC 9113, 6.9.2).
pub(super) const INITIAL_WINDOW: u32 = 65_535;
/// The largest window, stream identifier and window increment.
pub(super) const MAX_31_BITS: u32 = (1 << 31) - 1;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const ACK: u8 = 0x1;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY_FLAG: u8 = 0x20;

/// An error code (RFC 9113, 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum ErrorCode {
    NoError = 0,
    Protocol = 1,
    Internal = 2,
    FlowControl = 3,
    SettingsTimeout = 4,
    StreamClosed = 5,
    FrameSize = 6,
    RefusedStream = 7,
    Cancel = 8,
    Compression = 9,
    EnhanceYourCalm = 11,
}

/// What ends the whole connection (RFC 9113, 5.4.1); goes into the GOAWAY frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionError(pub(super) ErrorCode, pub(super) &'static str);

/// The nine octets before each payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameHeader {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl FrameHeader {
    pub(super) fn parse(bytes: [u8; 9]) -> FrameHeader {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes;
        FrameHeader {
            length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & MAX_31_BITS,
        }
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Writes the header of a frame whose payload follows.
pub(super) fn put_header(output: &mut Output, length: usize, kind: u8, flags: u8, stream: u32) {
    let [_, l0, l1, l2] = (length as u32).to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    output.put(&[l0, l1, l2, kind, flags, s0, s1, s2, s3]);
}

pub(super) fn put(output: &mut Output, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    put_header(output, payload.len(), kind, flags, stream);
    output.put(payload);
}

pub(super) fn put_reset(output: &mut Output, stream: u32, code: ErrorCode) {
    put(output, RST_STREAM, 0, stream, &(code as u32).to_be_bytes());
}

pub(super) fn put_window_update(output: &mut Output, stream: u32, increment: u32) {
    put(output, WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
}

pub(super) fn put_goaway(output: &mut Output, last: u32, code: ErrorCode, text: &str) {
    put_header(output, 8 + text.len(), GOAWAY, 0, 0);
    output.put(&last.to_be_bytes());
    output.put(&(code as u32).to_be_bytes());
    output.put(text.as_bytes());
}

/// A payload without its padding (RFC 9113, 6.1); the first octet says how long that is.
pub(super) fn strip_padding<'a>(
    header: &FrameHeader,
    payload: &'a [u8],
) -> Result<&'a [u8], ConnectionError> {
    if !header.has(PADDED) {
        return Ok(payload);
    }
    let short = ConnectionError(ErrorCode::FrameSize, "a padded frame has no pad length");
    let (padding, rest) = payload.split_first().ok_or(short)?;
    let kept = rest.len().checked_sub(usize::from(*padding));
    let kept = kept.ok_or(ConnectionError(ErrorCode::Protocol, "the padding is longer than its frame"))?;
    Ok(rest.get(..kept).unwrap_or_default())
}

/// The big-endian number in the first four octets.
pub(super) fn number(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}
