//! The Huffman code of HPACK (RFC 7541, 5.2 and appendix B), decoded four bits at a time.
//!
//! The automaton is computed by the compiler from the code table: one state per inner node of the
//! code tree, sixteen moves per state. A move emits at most one symbol, as no code is shorter than five bits.
#![forbid(unsafe_code)]

/// The text is not a valid Huffman string: it holds EOS or its padding is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invalid;

/// One move of the automaton.
#[derive(Clone, Copy)]
struct Move {
    next: u8,
    symbol: u8,
    emits: bool,
    fails: bool,
}

/// Inner nodes of the code tree: a tree with 257 leaves has 256.
const NODES: usize = 256;
/// In `CHILDREN`: a leaf holds its symbol plus this.
const LEAF: u16 = 1 << 12;
const EOS: u16 = 256;

static CHILDREN: [[u16; 2]; NODES] = children();
static MOVES: [[Move; 16]; NODES] = moves();
/// Whether a string may end in a state: after fewer than eight bits, all of them ones.
static MAY_END: [bool; NODES] = may_end();

/// Appends the decoded text to `output`, as long as `keep` asks for more; returns the decoded length.
pub(super) fn decode(text: &[u8], output: &mut Vec<u8>, keep: usize) -> Result<usize, Invalid> {
    let mut state = 0_u8;
    let mut length = 0;
    for byte in text {
        for nibble in [byte >> 4, byte & 15] {
            let moved = MOVES.get(usize::from(state)).and_then(|moves| moves.get(usize::from(nibble)));
            let moved = moved.ok_or(Invalid)?;
            if moved.fails {
                return Err(Invalid);
            }
            if moved.emits {
                if length < keep {
                    output.push(moved.symbol);
                }
                length += 1;
            }
            state = moved.next;
        }
    }
    if MAY_END.get(usize::from(state)).copied().unwrap_or(false) { Ok(length) } else { Err(Invalid) }
}

const fn children() -> [[u16; 2]; NODES] {
    let mut children = [[0; 2]; NODES];
    let mut nodes = 1;
    let mut symbol = 0;
    while symbol < CODES.len() {
        let (code, length) = CODES[symbol];
        let mut node = 0;
        let mut bit = length;
        while bit > 0 {
            bit -= 1;
            let side = ((code >> bit) & 1) as usize;
            if bit == 0 {
                children[node][side] = LEAF + symbol as u16;
            } else {
                if children[node][side] == 0 {
                    children[node][side] = nodes;
                    nodes += 1;
                }
                node = children[node][side] as usize;
            }
        }
        symbol += 1;
    }
    children
}

const fn moves() -> [[Move; 16]; NODES] {
    let mut moves = [[Move { next: 0, symbol: 0, emits: false, fails: false }; 16]; NODES];
    let mut state = 0;
    while state < NODES {
        let mut nibble = 0;
        while nibble < 16 {
            let mut result = Move { next: 0, symbol: 0, emits: false, fails: false };
            let mut node = state;
            let mut bit = 4;
            while bit > 0 {
                bit -= 1;
                let child = CHILDREN[node][(nibble >> bit) & 1];
                if child >= LEAF {
                    let symbol = child - LEAF;
                    result.fails |= symbol == EOS;
                    result.emits = true;
                    result.symbol = symbol as u8;
                    node = 0;
                } else {
                    node = child as usize;
                }
            }
            result.next = node as u8;
            moves[state][nibble] = result;
            nibble += 1;
        }
        state += 1;
    }
    moves
}

const fn may_end() -> [bool; NODES] {
    let mut may_end = [false; NODES];
    let mut node = 0;
    let mut depth = 0;
    while depth < 8 {
        may_end[node] = true;
        node = CHILDREN[node][1] as usize;
        depth += 1;
    }
    may_end
}

/// (code, length in bits) of the symbols 0 to 255 and of EOS.
#[rustfmt::skip]
const CODES: [(u32, u8); 257] = [
    (0x1ff8, 13), (0x7fffd8, 23), (0xfffffe2, 28), (0xfffffe3, 28), (0xfffffe4, 28), (0xfffffe5, 28),
    (0xfffffe6, 28), (0xfffffe7, 28), (0xfffffe8, 28), (0xffffea, 24), (0x3ffffffc, 30), (0xfffffe9, 28),
    (0xfffffea, 28), (0x3ffffffd, 30), (0xfffffeb, 28), (0xfffffec, 28), (0xfffffed, 28), (0xfffffee, 28),
    (0xfffffef, 28), (0xffffff0, 28), (0xffffff1, 28), (0xffffff2, 28), (0x3ffffffe, 30), (0xffffff3, 28),
    (0xffffff4, 28), (0xffffff5, 28), (0xffffff6, 28), (0xffffff7, 28), (0xffffff8, 28), (0xffffff9, 28),
    (0xffffffa, 28), (0xffffffb, 28), (0x14, 6), (0x3f8, 10), (0x3f9, 10), (0xffa, 12),
    (0x1ff9, 13), (0x15, 6), (0xf8, 8), (0x7fa, 11), (0x3fa, 10), (0x3fb, 10),
    (0xf9, 8), (0x7fb, 11), (0xfa, 8), (0x16, 6), (0x17, 6), (0x18, 6),
    (0x0, 5), (0x1, 5), (0x2, 5), (0x19, 6), (0x1a, 6), (0x1b, 6),
    (0x1c, 6), (0x1d, 6), (0x1e, 6), (0x1f, 6), (0x5c, 7), (0xfb, 8),
    (0x7ffc, 15), (0x20, 6), (0xffb, 12), (0x3fc, 10), (0x1ffa, 13), (0x21, 6),
    (0x5d, 7), (0x5e, 7), (0x5f, 7), (0x60, 7), (0x61, 7), (0x62, 7),
    (0x63, 7), (0x64, 7), (0x65, 7), (0x66, 7), (0x67, 7), (0x68, 7),
    (0x69, 7), (0x6a, 7), (0x6b, 7), (0x6c, 7), (0x6d, 7), (0x6e, 7),
    (0x6f, 7), (0x70, 7), (0x71, 7), (0x72, 7), (0xfc, 8), (0x73, 7),
    (0xfd, 8), (0x1ffb, 13), (0x7fff0, 19), (0x1ffc, 13), (0x3ffc, 14), (0x22, 6),
    (0x7ffd, 15), (0x3, 5), (0x23, 6), (0x4, 5), (0x24, 6), (0x5, 5),
    (0x25, 6), (0x26, 6), (0x27, 6), (0x6, 5), (0x74, 7), (0x75, 7),
    (0x28, 6), (0x29, 6), (0x2a, 6), (0x7, 5), (0x2b, 6), (0x76, 7),
    (0x2c, 6), (0x8, 5), (0x9, 5), (0x2d, 6), (0x77, 7), (0x78, 7),
    (0x79, 7), (0x7a, 7), (0x7b, 7), (0x7ffe, 15), (0x7fc, 11), (0x3ffd, 14),
    (0x1ffd, 13), (0xffffffc, 28), (0xfffe6, 20), (0x3fffd2, 22), (0xfffe7, 20), (0xfffe8, 20),
    (0x3fffd3, 22), (0x3fffd4, 22), (0x3fffd5, 22), (0x7fffd9, 23), (0x3fffd6, 22), (0x7fffda, 23),
    (0x7fffdb, 23), (0x7fffdc, 23), (0x7fffdd, 23), (0x7fffde, 23), (0xffffeb, 24), (0x7fffdf, 23),
    (0xffffec, 24), (0xffffed, 24), (0x3fffd7, 22), (0x7fffe0, 23), (0xffffee, 24), (0x7fffe1, 23),
    (0x7fffe2, 23), (0x7fffe3, 23), (0x7fffe4, 23), (0x1fffdc, 21), (0x3fffd8, 22), (0x7fffe5, 23),
    (0x3fffd9, 22), (0x7fffe6, 23), (0x7fffe7, 23), (0xffffef, 24), (0x3fffda, 22), (0x1fffdd, 21),
    (0xfffe9, 20), (0x3fffdb, 22), (0x3fffdc, 22), (0x7fffe8, 23), (0x7fffe9, 23), (0x1fffde, 21),
    (0x7fffea, 23), (0x3fffdd, 22), (0x3fffde, 22), (0xfffff0, 24), (0x1fffdf, 21), (0x3fffdf, 22),
    (0x7fffeb, 23), (0x7fffec, 23), (0x1fffe0, 21), (0x1fffe1, 21), (0x3fffe0, 22), (0x1fffe2, 21),
    (0x7fffed, 23), (0x3fffe1, 22), (0x7fffee, 23), (0x7fffef, 23), (0xfffea, 20), (0x3fffe2, 22),
    (0x3fffe3, 22), (0x3fffe4, 22), (0x7ffff0, 23), (0x3fffe5, 22), (0x3fffe6, 22), (0x7ffff1, 23),
    (0x3ffffe0, 26), (0x3ffffe1, 26), (0xfffeb, 20), (0x7fff1, 19), (0x3fffe7, 22), (0x7ffff2, 23),
    (0x3fffe8, 22), (0x1ffffec, 25), (0x3ffffe2, 26), (0x3ffffe3, 26), (0x3ffffe4, 26), (0x7ffffde, 27),
    (0x7ffffdf, 27), (0x3ffffe5, 26), (0xfffff1, 24), (0x1ffffed, 25), (0x7fff2, 19), (0x1fffe3, 21),
    (0x3ffffe6, 26), (0x7ffffe0, 27), (0x7ffffe1, 27), (0x3ffffe7, 26), (0x7ffffe2, 27), (0xfffff2, 24),
    (0x1fffe4, 21), (0x1fffe5, 21), (0x3ffffe8, 26), (0x3ffffe9, 26), (0xffffffd, 28), (0x7ffffe3, 27),
    (0x7ffffe4, 27), (0x7ffffe5, 27), (0xfffec, 20), (0xfffff3, 24), (0xfffed, 20), (0x1fffe6, 21),
    (0x3fffe9, 22), (0x1fffe7, 21), (0x1fffe8, 21), (0x7ffff3, 23), (0x3fffea, 22), (0x3fffeb, 22),
    (0x1ffffee, 25), (0x1ffffef, 25), (0xfffff4, 24), (0xfffff5, 24), (0x3ffffea, 26), (0x7ffff4, 23),
    (0x3ffffeb, 26), (0x7ffffe6, 27), (0x3ffffec, 26), (0x3ffffed, 26), (0x7ffffe7, 27), (0x7ffffe8, 27),
    (0x7ffffe9, 27), (0x7ffffea, 27), (0x7ffffeb, 27), (0xffffffe, 28), (0x7ffffec, 27), (0x7ffffed, 27),
    (0x7ffffee, 27), (0x7ffffef, 27), (0x7fffff0, 27), (0x3ffffee, 26), (0x3fffffff, 30),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes bit by bit from the table, as the reference for the automaton.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits: Vec<bool> = Vec::new();
        for byte in text {
            let (code, length) = CODES[usize::from(*byte)];
            bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
        }
        bits.resize(bits.len().next_multiple_of(8), true);
        bits.chunks(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | u8::from(*bit))).collect()
    }

    fn decoded(text: &[u8]) -> Result<Vec<u8>, Invalid> {
        let mut output = Vec::new();
        decode(text, &mut output, usize::MAX).map(|_| output)
    }

    #[test]
    fn vectors_of_the_rfc() {
        let www = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&www).unwrap(), b"www.example.com");
        assert_eq!(decoded(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).unwrap(), b"no-cache");
        assert_eq!(decoded(&[0x64, 0x02]).unwrap(), b"302");
    }

    #[test]
    fn every_symbol_at_every_bit_offset() {
        for first in 0..=255_u8 {
            for second in [first, b'0', b'a', 0xff, first.wrapping_add(37)] {
                let text = [first, second, b'1', first];
                assert_eq!(decoded(&encode(&text)).unwrap(), text);
            }
        }
    }

    #[test]
    fn padding_and_eos_are_checked() {
        assert_eq!(decoded(&[]), Ok(Vec::new()));
        // "0" is 00000: three bits of padding follow.
        assert_eq!(decoded(&[0b0000_0111]), Ok(b"0".to_vec()));
        assert_eq!(decoded(&[0b0000_0110]), Err(Invalid), "padding with zeros");
        assert_eq!(decoded(&[0b0000_0111, 0xff]), Err(Invalid), "padding of more than seven bits");
        assert_eq!(decoded(&[0xff]), Err(Invalid), "nothing but padding, eight bits of it");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xfc]), Err(Invalid), "EOS");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff, 0xff]), Err(Invalid), "EOS and more");
    }

    #[test]
    fn text_beyond_the_limit_is_counted_only() {
        let mut output = Vec::new();
        assert_eq!(decode(&encode(b"abcdef"), &mut output, 2), Ok(6));
        assert_eq!(output, b"ab");
    }
}
