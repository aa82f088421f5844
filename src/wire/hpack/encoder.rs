//! The HPACK encoder: static table and literals (RFC 7541, 6.1 and 6.2.2).
#![forbid(unsafe_code)]

use crate::wire::headers::is_same_name;

/// Writes the header blocks of one connection, in order.
#[derive(Debug, Default)]
pub struct Encoder {
    announce_empty_table: bool,
}

impl Encoder {
    /// Takes note of the peer's SETTINGS_HEADER_TABLE_SIZE. A smaller table has to be acknowledged at the start
    /// of the next block (RFC 7541, 4.2); as this encoder never indexes, it says zero once and for all.
    pub fn limit_table(&mut self, size: u32) {
        self.announce_empty_table |= size < 4096;
    }

    /// Starts a block.
    pub fn begin(&mut self, block: &mut Vec<u8>) {
        if std::mem::take(&mut self.announce_empty_table) {
            block.push(0x20);
        }
    }

    /// Appends `:status`.
    pub fn status(&self, status: u16, block: &mut Vec<u8>) {
        let index = match status {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                integer(8, 4, 0, block);
                return string(status.to_string().as_bytes(), block);
            }
        };
        integer(index, 7, 0x80, block);
    }

    /// Appends a field; its name is written in lower case (RFC 9113, 8.2).
    pub fn field(&self, name: &[u8], value: &[u8], block: &mut Vec<u8>) {
        match static_name(name) {
            Some(index) => integer(index, 4, 0, block),
            None => {
                block.push(0);
                integer(name.len(), 7, 0, block);
                block.extend(name.iter().map(u8::to_ascii_lowercase));
            }
        }
        string(value, block);
    }
}

/// The static index of the names that responses often carry.
fn static_name(name: &[u8]) -> Option<usize> {
    let names: [(&str, usize); 6] = [
        ("content-type", 31),
        ("date", 33),
        ("content-length", 28),
        ("content-encoding", 26),
        ("access-control-allow-origin", 20),
        ("retry-after", 53),
    ];
    names.iter().find(|(known, _)| is_same_name(name, known)).map(|(_, index)| *index)
}

fn string(text: &[u8], block: &mut Vec<u8>) {
    integer(text.len(), 7, 0, block);
    block.extend_from_slice(text);
}

/// An integer behind the upper bits `flags`, with a prefix of `bits` bits (RFC 7541, 5.1).
fn integer(value: usize, bits: u32, flags: u8, block: &mut Vec<u8>) {
    let mask = (1_usize << bits) - 1;
    if value < mask {
        block.push(flags | value as u8);
        return;
    }
    block.push(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        block.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    block.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_the_rfc() {
        for (value, bits, expected) in [(10, 5, &[10_u8][..]), (1337, 5, &[31, 154, 10]), (42, 8, &[42])] {
            let mut block = Vec::new();
            integer(value, bits, 0, &mut block);
            assert_eq!(block, expected);
        }
    }

    #[test]
    fn literals_have_the_form_of_the_rfc() {
        let (encoder, mut block) = (Encoder::default(), Vec::new());
        encoder.status(200, &mut block);
        encoder.status(429, &mut block);
        encoder.field(b"Date", b"x", &mut block);
        encoder.field(b"Grpc-Status", b"0", &mut block);
        assert_eq!(block, b"\x88\x08\x03429\x0f\x12\x01x\x00\x0bgrpc-status\x010");
    }

    #[test]
    fn a_smaller_table_is_announced_once() {
        let (mut encoder, mut block) = (Encoder::default(), Vec::new());
        encoder.limit_table(4096);
        encoder.begin(&mut block);
        assert!(block.is_empty());
        encoder.limit_table(0);
        encoder.begin(&mut block);
        encoder.begin(&mut block);
        assert_eq!(block, [0x20]);
    }
}
