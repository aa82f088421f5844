//! Damage to files, the same every time.

/// Xorshift; the same search every time.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Small, anything, or at the edge of a range.
    pub(crate) fn number(&mut self) -> i64 {
        match self.below(4) {
            0 => self.below(9) as i64 - 4,
            1 => [i64::MIN, i64::MAX, i64::from(i32::MIN), i64::from(i32::MAX), 1 << 40][self.below(5)],
            2 => self.below(5000) as i64,
            _ => self.next() as i64,
        }
    }
}

/// Bytes turned over, cut out, repeated or replaced by numbers at the edge of their range.
pub(crate) fn mutated(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = if bytes.is_empty() { vec![0] } else { bytes.to_vec() };
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = random.next() as u8,
            3 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            4 => {
                let end = (at + random.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let end = (at + random.below(64)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            // A varint of ten bytes, the greatest there is.
            _ => drop(bytes.splice(at..(at + 1).min(bytes.len()), [0xff; 9].into_iter().chain([1]))),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}
