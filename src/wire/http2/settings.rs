//! SETTINGS (RFC 9113, 6.5): ours, and what the peer's mean for us.
#![forbid(unsafe_code)]

use crate::wire::{limits::Limits, output::Output};

use super::frame::{
    self, ConnectionError, ErrorCode, INITIAL_WINDOW, MAX_31_BITS, MAX_FRAME, SETTINGS, put_window_update,
};

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;

/// What the peer has said.
#[derive(Debug)]
pub(super) struct PeerSettings {
    pub(super) header_table_size: u32,
    pub(super) initial_window: u32,
    pub(super) max_frame: usize,
}

impl Default for PeerSettings {
    fn default() -> PeerSettings {
        PeerSettings { header_table_size: 4096, initial_window: INITIAL_WINDOW, max_frame: MAX_FRAME }
    }
}

impl PeerSettings {
    /// Applies the payload of a SETTINGS frame.
    pub(super) fn apply(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(ConnectionError(ErrorCode::FrameSize, "SETTINGS of an odd length"));
        }
        for [i0, i1, v0, v1, v2, v3] in settings {
            let value = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
            match u16::from_be_bytes([*i0, *i1]) {
                HEADER_TABLE_SIZE => self.header_table_size = value,
                ENABLE_PUSH if value > 1 => {
                    return Err(ConnectionError(ErrorCode::Protocol, "SETTINGS_ENABLE_PUSH is not 0 or 1"));
                }
                INITIAL_WINDOW_SIZE if value > MAX_31_BITS => {
                    return Err(ConnectionError(
                        ErrorCode::FlowControl,
                        "SETTINGS_INITIAL_WINDOW_SIZE is too large",
                    ));
                }
                INITIAL_WINDOW_SIZE => self.initial_window = value,
                MAX_FRAME_SIZE if !(16_384..=16_777_215).contains(&value) => {
                    return Err(ConnectionError(
                        ErrorCode::Protocol,
                        "SETTINGS_MAX_FRAME_SIZE is out of range",
                    ));
                }
                MAX_FRAME_SIZE => self.max_frame = value as usize,
                // MAX_CONCURRENT_STREAMS and MAX_HEADER_LIST_SIZE bind those who push or send long
                // lists; identifiers that are not known are to be ignored.
                _ => {}
            }
        }
        Ok(())
    }
}

/// Writes the server's connection preface: SETTINGS, and a window for the connection.
pub(super) fn put_preface(output: &mut Output, limits: &Limits) {
    let window = limits.stream_window.min(MAX_31_BITS);
    let list = u32::try_from(limits.head).unwrap_or(u32::MAX);
    let mut payload = Vec::new();
    for (identifier, value) in [
        (MAX_CONCURRENT_STREAMS, limits.streams),
        (INITIAL_WINDOW_SIZE, window),
        (MAX_HEADER_LIST_SIZE, list),
    ] {
        payload.extend_from_slice(&u16::to_be_bytes(identifier));
        payload.extend_from_slice(&u32::to_be_bytes(value));
    }
    frame::put(output, SETTINGS, 0, 0, &payload);
    let more = limits.connection_window.min(MAX_31_BITS).saturating_sub(INITIAL_WINDOW);
    if more > 0 {
        put_window_update(output, 0, more);
    }
}
