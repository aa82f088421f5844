//! The body of an HTTP/1.x request as it arrives: a declared length, or chunks (RFC 9112, 6 and 7).
//!
//! Memory grows with the bytes that have come, never with the length that was declared.
#![forbid(unsafe_code)]

use crate::wire::{
    budget::Charge,
    context::Context,
    headers::{Headers, is_field_value, is_token},
};

use super::head::{Framing, Refused};

/// What chunk framing may cost beyond the data: a fixed part, and this many bytes per byte of data.
const OVERHEAD: u64 = 64 << 10;
const OVERHEAD_PER_BYTE: u64 = 16;
/// The longest chunk-size line without extensions: 16 hexadecimal digits.
const SIZE_DIGITS: usize = 16;

/// A body under way.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) bytes: Vec<u8>,
    pub(super) trailers: Headers,
    pub(super) charge: Charge,
    limit: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// So many bytes of a declared length are missing.
    Length(u64),
    Chunks(Chunks),
    Complete,
}

/// The chunked decoder.
#[derive(Debug, Default)]
struct Chunks {
    place: Place,
    line: Vec<u8>,
    overhead: u64,
    trailer_bytes: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// In the line that holds the size of the next chunk.
    #[default]
    Size,
    /// In the data; so many bytes are missing.
    Data(u64),
    /// In the CRLF after the data; so many of its bytes have been seen.
    End(usize),
    /// In the trailer section.
    Trailer,
}

impl Incoming {
    /// A body of the given framing, at most `limit` bytes long.
    pub(super) fn new(framing: Framing, limit: usize, charge: Charge) -> Result<Incoming, Refused> {
        let state = match framing {
            Framing::Length(0) => State::Complete,
            Framing::Length(length) if length > limit as u64 => return Err(Refused(413)),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunks(Chunks::default()),
        };
        Ok(Incoming { bytes: Vec::new(), trailers: Headers::new(), charge, limit, state })
    }

    /// Whether the body has come to its end.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// How many bytes may be read straight into `bytes`: the missing part of a declared length.
    pub(super) fn direct(&self) -> u64 {
        if let State::Length(missing) = self.state { missing } else { 0 }
    }

    /// Takes note of `count` bytes that were read straight into `bytes`.
    pub(super) fn filled(&mut self, count: usize) -> Result<(), Refused> {
        charge(&mut self.charge, count)?;
        if let State::Length(missing) = &mut self.state {
            *missing = missing.saturating_sub(count as u64);
            if *missing == 0 {
                self.state = State::Complete;
            }
        }
        Ok(())
    }

    /// Takes bytes that arrived; returns how many of them belong to this body.
    pub(super) fn receive(&mut self, bytes: &[u8], context: &Context) -> Result<usize, Refused> {
        match &mut self.state {
            State::Complete => Ok(0),
            State::Length(missing) => {
                let count = usize::try_from(*missing).unwrap_or(usize::MAX).min(bytes.len());
                self.bytes.extend_from_slice(bytes.get(..count).unwrap_or_default());
                self.filled(count)?;
                Ok(count)
            }
            State::Chunks(_) => self.receive_chunks(bytes, context),
        }
    }

    fn receive_chunks(&mut self, bytes: &[u8], context: &Context) -> Result<usize, Refused> {
        let mut used = 0;
        while let State::Chunks(chunks) = &mut self.state {
            let rest = bytes.get(used..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match chunks.place {
                Place::Data(missing) => {
                    let count = usize::try_from(missing).unwrap_or(usize::MAX).min(rest.len());
                    if self.bytes.len().saturating_add(count) > self.limit {
                        return Err(Refused(413));
                    }
                    charge(&mut self.charge, count)?;
                    self.bytes.extend_from_slice(rest.get(..count).unwrap_or_default());
                    used += count;
                    let missing = missing - count as u64;
                    chunks.place = if missing == 0 { Place::End(0) } else { Place::Data(missing) };
                }
                Place::End(seen) => {
                    let expected = if seen == 0 { b'\r' } else { b'\n' };
                    if rest.first() != Some(&expected) {
                        return Err(Refused(400));
                    }
                    used += 1;
                    chunks.overhead += 1;
                    chunks.place = if seen == 0 { Place::End(1) } else { Place::Size };
                }
                Place::Size => {
                    let longest = context.limits.chunk_extension.saturating_add(SIZE_DIGITS);
                    let (count, line) = chunks.take_line(rest, longest, Refused(400))?;
                    used += count;
                    let Some(line) = line else { continue };
                    let size = chunk_size(&line, context.limits.chunk_extension)?;
                    if size > (self.limit.saturating_sub(self.bytes.len())) as u64 {
                        return Err(Refused(413));
                    }
                    let allowed = OVERHEAD + OVERHEAD_PER_BYTE * self.bytes.len() as u64;
                    if chunks.overhead > allowed {
                        return Err(Refused(400));
                    }
                    chunks.place = if size == 0 { Place::Trailer } else { Place::Data(size) };
                }
                Place::Trailer => {
                    let longest = context.limits.head.saturating_sub(chunks.trailer_bytes);
                    let (count, line) = chunks.take_line(rest, longest, Refused(431))?;
                    used += count;
                    let Some(line) = line else { continue };
                    chunks.trailer_bytes += line.len();
                    if line.is_empty() {
                        self.state = State::Complete;
                    } else if self.trailers.len() >= context.limits.header_count {
                        return Err(Refused(431));
                    } else {
                        push_trailer(&mut self.trailers, &line)?;
                    }
                }
            }
        }
        Ok(used)
    }
}

impl Chunks {
    /// Collects a line up to CRLF. Returns how many bytes it took, and the line once it is complete.
    fn take_line(
        &mut self,
        bytes: &[u8],
        longest: usize,
        too_long: Refused,
    ) -> Result<(usize, Option<Vec<u8>>), Refused> {
        let end = memchr::memchr(b'\n', bytes);
        let count = end.map_or(bytes.len(), |at| at + 1);
        self.overhead += count as u64;
        if self.line.len().saturating_add(count) > longest.saturating_add(2) {
            return Err(too_long);
        }
        self.line.extend_from_slice(bytes.get(..count).unwrap_or_default());
        if end.is_none() {
            return Ok((count, None));
        }
        let mut line = std::mem::take(&mut self.line);
        if !line.ends_with(b"\r\n") {
            return Err(Refused(400));
        }
        line.truncate(line.len() - 2);
        Ok((count, Some(line)))
    }
}

/// The size of a chunk; its extensions are checked for their form and ignored (RFC 9112, 7.1.1).
fn chunk_size(line: &[u8], longest_extension: usize) -> Result<u64, Refused> {
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (size, extension) = line.split_at_checked(digits).ok_or(Refused(400))?;
    if size.is_empty() || size.len() > SIZE_DIGITS || extension.len() > longest_extension {
        return Err(Refused(400));
    }
    if !extension.is_empty() && (extension.first() != Some(&b';') || !is_field_value(extension)) {
        return Err(Refused(400));
    }
    let text = std::str::from_utf8(size).map_err(|_| Refused(400))?;
    u64::from_str_radix(text, 16).map_err(|_| Refused(400))
}

/// Keeps a trailer field, unless it is one that only a head may carry (RFC 9110, 6.5.1).
fn push_trailer(trailers: &mut Headers, line: &[u8]) -> Result<(), Refused> {
    let colon = memchr::memchr(b':', line).ok_or(Refused(400))?;
    let name = line.get(..colon).unwrap_or_default();
    let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
    if !is_token(name) || !is_field_value(value) {
        return Err(Refused(400));
    }
    const HEAD_ONLY: [&str; 8] = [
        "content-length",
        "transfer-encoding",
        "host",
        "trailer",
        "te",
        "connection",
        "content-encoding",
        "expect",
    ];
    if !HEAD_ONLY.iter().any(|head_only| name.eq_ignore_ascii_case(head_only.as_bytes())) {
        trailers.push(name, value);
    }
    Ok(())
}

fn charge(charge: &mut Charge, count: usize) -> Result<(), Refused> {
    charge.grow(count).map_err(|exceeded| Refused(exceeded.status()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes() {
        assert_eq!(chunk_size(b"0", 256), Ok(0));
        assert_eq!(chunk_size(b"fF;a=b", 256), Ok(255));
        assert_eq!(chunk_size(b"00000000000000ff", 256), Ok(255));
        for line in
            [&b""[..], b";a", b"g", b"+1", b"0x1", b" 1", b"1 ", b"1 ;a", b"00000000000000001", b"1;\0"]
        {
            assert_eq!(chunk_size(line, 256), Err(Refused(400)), "{line:?}");
        }
        assert_eq!(chunk_size(b"1;abcd", 4), Err(Refused(400)));
    }
}
