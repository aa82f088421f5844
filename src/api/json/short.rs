//! Rows of short numbers, several at once.
//!
//! A number that is read byte by byte says where it ends only when its last byte was looked at, and the next one can
//! only then begin. Where numbers are short, the bytes that they are made of are found for a whole block at once, so that
//! the processor can work on many numbers at the same time. What does not fit is left to the one who reads one by one.

/// Bytes in which numbers are found at once.
const FOUND: usize = 64;

/// What is looked at from a number's first byte on.
pub(super) const LOOK: usize = 16;

/// A block, and so many bytes behind it that each number has a look.
pub(super) type Block = [u8; FOUND + LOOK];

/// Where a number lies in a block.
#[derive(Clone, Copy, Default)]
struct Span {
    start: u8,
    end: u8,
}

/// Numbers of a block that begins with one.
#[doc(hidden)]
pub struct Short<'b> {
    block: &'b Block,
    spans: [Span; FOUND / 2],
    count: usize,
    /// One bit for each number that is the last of its row.
    rows: u64,
    /// Where the next number begins.
    next: usize,
}

impl<'b> Short<'b> {
    /// All numbers up to the first behind which the block ends, or which is separated from the next one in an unusual way.
    #[inline(always)]
    pub(super) fn find(block: &'b Block) -> Self {
        /// The bytes between two numbers, and how many they are.
        const fn separator(bytes: [u8; 4], count: usize) -> u64 {
            let shift = (32 - 8 * count as u32) % 32;
            (count as u64) << 32 | (u32::from_le_bytes(bytes) << shift) as u64
        }
        const COMMA: u64 = separator(*b",   ", 1);
        const COMMA_SPACE: u64 = separator(*b",   ", 2);
        const ROW: u64 = separator(*b"],[ ", 3);
        const ROW_SPACE: u64 = separator(*b"], [", 4);
        let found = block.first_chunk().map_or(0, number_bytes);
        // Where runs of such bytes begin, but for the first one, and the bytes behind them.
        let mut starts = found & !(found << 1) & !1;
        let mut ends = !found & (found << 1);
        let mut short = Self { block, spans: [Span::default(); FOUND / 2], count: 0, rows: 0, next: 0 };
        let (mut count, mut start, mut rows) = (0, 0, 0);
        for span in &mut short.spans {
            if starts == 0 {
                break;
            }
            let (end, next) =
                (ends.trailing_zeros() as usize % FOUND, starts.trailing_zeros() as usize % FOUND);
            let between = next.wrapping_sub(end);
            let Some(bytes) = block[end..].first_chunk().filter(|_| between <= 4) else { break };
            match separator(*bytes, between) {
                COMMA_SPACE | COMMA => {}
                ROW_SPACE | ROW => rows |= 1 << count,
                _ => break,
            }
            *span = Span { start: start as u8, end: end as u8 };
            start = next;
            count += 1;
            starts &= starts - 1;
            ends &= ends - 1;
        }
        Self { count, rows, next: start, ..short }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// What lies at each, and how many bytes of that it is.
    #[inline(always)]
    pub(super) fn looks(&self) -> impl Iterator<Item = (&'b [u8; LOOK], u32)> {
        self.spans.iter().take(self.count).filter_map(|span| {
            let look = self.block[usize::from(span.start) % FOUND..].first_chunk()?;
            Some((look, u32::from(span.end - span.start)))
        })
    }

    /// Which of the first `taken` numbers are the last of their rows, and the offset of the bracket behind them.
    pub(super) fn row_ends(&self, taken: usize) -> impl Iterator<Item = (u32, usize)> {
        let mut left = self.rows & ((1 << taken) - 1);
        std::iter::from_fn(move || {
            let last = (left != 0).then(|| left.trailing_zeros())?;
            left &= left - 1;
            Some((last, usize::from(self.spans.get(last as usize)?.end)))
        })
    }

    /// Where the first number begins that is not among the first `taken`.
    pub(super) fn behind(&self, taken: usize) -> usize {
        self.spans.get(taken).filter(|_| taken < self.count).map_or(self.next, |span| usize::from(span.start))
    }
}

/// Which of the bytes are digits, points, minus signs, or slashes, which happen to lie between.
#[inline(always)]
fn number_bytes(chunk: &[u8; FOUND]) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH_BITS: u64 = 0x80 * EACH;
    let (words, _) = chunk.as_chunks::<8>();
    words.iter().rev().fold(0, |mask, &word| {
        let word = u64::from_le_bytes(word);
        let low = word & !HIGH_BITS;
        let from_minus = low + (0x80 - b'-' as u64) * EACH;
        let above_nine = low + (0x80 - b'9' as u64 - 1) * EACH;
        let found = from_minus & !above_nine & !word & HIGH_BITS;
        // The product has the lowest bits of the bytes side by side in its highest byte.
        mask << 8 | (found >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_found_by_itself() {
        for place in 0..FOUND {
            for byte in 0..=255u8 {
                for around in [0u8, b'5', b',', 0xff] {
                    let mut chunk = [around; FOUND];
                    chunk[place] = byte;
                    let expected = chunk
                        .iter()
                        .rev()
                        .fold(0, |mask, byte| mask << 1 | u64::from((b'-'..=b'9').contains(byte)));
                    assert_eq!(number_bytes(&chunk), expected, "{byte} at {place} among {around}");
                }
            }
        }
    }
}
