//! Bytes that wait to be written: small ones joined, large ones as they are.
//!
//! Frames, heads and short bodies are copied into one tail; a long body is kept as the slice it
//! came as and goes to the socket by a vectored write.
#![forbid(unsafe_code)]

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes, BytesMut};

/// From this length on, a piece is queued instead of copied.
const LARGE: usize = 4 << 10;

/// Room for the head of a usual answer.
const FIRST: usize = 512;

/// A queue of bytes.
#[derive(Debug, Default)]
pub struct Output {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    length: usize,
}

impl Output {
    /// The number of bytes that wait.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends a copy of `bytes`.
    pub fn put(&mut self, bytes: &[u8]) {
        if self.tail.capacity() == 0 {
            self.tail.reserve(FIRST.max(bytes.len()));
        }
        self.tail.extend_from_slice(bytes);
        self.length += bytes.len();
    }

    /// Appends `piece`, without a copy if it is long.
    pub fn push(&mut self, piece: Bytes) {
        if piece.len() < LARGE {
            return self.put(&piece);
        }
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        self.length += piece.len();
        self.chunks.push_back(piece);
    }

    /// Fills `slices` from the front with what waits; returns how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let waiting = self.chunks.iter().map(|chunk| &chunk[..]).chain(tail);
        slices.iter_mut().zip(waiting).map(|(slice, bytes)| *slice = IoSlice::new(bytes)).count()
    }

    /// The first contiguous bytes that wait.
    pub fn front(&self) -> &[u8] {
        self.chunks.front().map_or(&self.tail[..], |chunk| &chunk[..])
    }

    /// Drops the first `count` bytes: they have been written.
    pub fn advance(&mut self, mut count: usize) {
        self.length = self.length.saturating_sub(count);
        while let Some(chunk) = self.chunks.front_mut() {
            if chunk.len() > count {
                chunk.advance(count);
                return;
            }
            count -= chunk.len();
            self.chunks.pop_front();
        }
        self.tail.advance(count.min(self.tail.len()));
        if self.length == 0 {
            self.release();
        }
    }

    /// Takes everything that waits, as one piece.
    pub fn take(&mut self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.length);
        self.chunks.iter().for_each(|chunk| all.extend_from_slice(chunk));
        all.extend_from_slice(&self.tail);
        *self = Output::default();
        all
    }

    /// An idle connection keeps no buffer.
    fn release(&mut self) {
        self.tail = BytesMut::new();
        self.chunks = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Output, Vec<u8>) {
        let large = Bytes::from((0..LARGE as u32 * 2).map(|i| i as u8).collect::<Vec<_>>());
        let mut output = Output::default();
        output.put(b"head");
        output.push(Bytes::from_static(b"small"));
        output.push(large.clone());
        output.put(b"after");
        let mut expected = b"headsmall".to_vec();
        expected.extend_from_slice(&large);
        expected.extend_from_slice(b"after");
        (output, expected)
    }

    #[test]
    fn order_is_kept_for_every_step_of_writing() {
        for step in [1, 3, 9, 10, 4096, 9000] {
            let (mut output, expected) = sample();
            assert_eq!(output.len(), expected.len());
            let mut written = Vec::new();
            while !output.is_empty() {
                let mut slices = [IoSlice::new(&[]); 2];
                let filled = output.slices(&mut slices);
                let mut turn: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                turn.truncate(step);
                written.extend_from_slice(&turn);
                output.advance(turn.len());
            }
            assert_eq!(written, expected, "step {step}");
        }
    }

    #[test]
    fn large_pieces_are_not_copied() {
        let piece = Bytes::from(vec![7; LARGE]);
        let mut output = Output::default();
        output.push(piece.clone());
        assert_eq!(output.front().as_ptr(), piece.as_ptr());
        assert_eq!(output.take(), piece);
        assert!(output.is_empty());
    }
}
