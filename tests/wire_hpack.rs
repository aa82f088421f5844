//! HPACK: the examples of RFC 7541, appendix C, each rule about malformed blocks, and the limits.

use kinglet::wire::hpack::{Decoder, Encoder, HpackError};
use proptest::prelude::*;

const LIMIT: usize = 16 << 10;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn decoder() -> Decoder {
    Decoder::new(4096, LIMIT, 100)
}

fn text(decoder: &mut Decoder, block: &[u8]) -> String {
    let decoded = decoder.decode(block).unwrap();
    assert!(!decoded.too_large);
    let fields = decoded.headers.iter().map(|(name, value)| {
        format!("{}={}\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
    });
    fields.collect()
}

const FIRST_REQUEST: &str = ":method=GET\n:scheme=http\n:path=/\n:authority=www.example.com\n";
const SECOND_REQUEST: &str =
    ":method=GET\n:scheme=http\n:path=/\n:authority=www.example.com\ncache-control=no-cache\n";
const THIRD_REQUEST: &str =
    ":method=GET\n:scheme=https\n:path=/index.html\n:authority=www.example.com\ncustom-key=custom-value\n";
const FIRST_RESPONSE: &str = ":status=302\ncache-control=private\ndate=Mon, 21 Oct 2013 20:13:21 GMT\n\
    location=https://www.example.com\n";
const SECOND_RESPONSE: &str = ":status=307\ncache-control=private\ndate=Mon, 21 Oct 2013 20:13:21 GMT\n\
    location=https://www.example.com\n";
const THIRD_RESPONSE: &str = ":status=200\ncache-control=private\ndate=Mon, 21 Oct 2013 20:13:22 GMT\n\
    location=https://www.example.com\ncontent-encoding=gzip\n\
    set-cookie=foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n";

/// (section, table capacity, blocks with their fields and the table's size afterwards)
type Example = (&'static str, usize, &'static [(&'static str, &'static str, usize)]);

const EXAMPLES: &[Example] = &[
    (
        "C.2.1",
        4096,
        &[(
            "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
            "custom-key=custom-header\n",
            55,
        )],
    ),
    ("C.2.2", 4096, &[("040c 2f73 616d 706c 652f 7061 7468", ":path=/sample/path\n", 0)]),
    ("C.2.3", 4096, &[("1008 7061 7373 776f 7264 0673 6563 7265 74", "password=secret\n", 0)]),
    ("C.2.4", 4096, &[("82", ":method=GET\n", 0)]),
    (
        "C.3",
        4096,
        &[
            ("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", FIRST_REQUEST, 57),
            ("8286 84be 5808 6e6f 2d63 6163 6865", SECOND_REQUEST, 110),
            ("8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65", THIRD_REQUEST, 164),
        ],
    ),
    (
        "C.4",
        4096,
        &[
            ("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", FIRST_REQUEST, 57),
            ("8286 84be 5886 a8eb 1064 9cbf", SECOND_REQUEST, 110),
            ("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", THIRD_REQUEST, 164),
        ],
    ),
    (
        "C.5",
        256,
        &[
            (
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 \
                 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                FIRST_RESPONSE,
                222,
            ),
            ("4803 3330 37c1 c0bf", SECOND_RESPONSE, 222),
            (
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 \
                 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 \
                 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
                THIRD_RESPONSE,
                215,
            ),
        ],
    ),
    (
        "C.6",
        256,
        &[
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
                 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                FIRST_RESPONSE,
                222,
            ),
            ("4883 640e ffc1 c0bf", SECOND_RESPONSE, 222),
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
                 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                THIRD_RESPONSE,
                215,
            ),
        ],
    ),
];

#[test]
fn examples_of_the_rfc() {
    for (section, capacity, blocks) in EXAMPLES {
        let mut decoder = Decoder::new(*capacity, LIMIT, 100);
        for (number, (block, fields, size)) in blocks.iter().enumerate() {
            assert_eq!(text(&mut decoder, &bytes(block)), *fields, "{section}.{}", number + 1);
            assert_eq!(decoder.table_size(), *size, "{section}.{}", number + 1);
        }
    }
}

#[test]
fn malformed_blocks_are_refused() {
    for (rule, block, error) in [
        ("2.3.3 index 0", "80", HpackError::Index),
        ("2.3.3 index behind the tables", "be", HpackError::Index),
        ("2.3.3 name index behind the tables", "7e 01 61", HpackError::Index),
        ("2.3.3 name index behind the tables, not indexed", "0f 2f 01 61", HpackError::Index),
        ("5.1 integer that does not end", "ff 80 80 80 80 80", HpackError::Integer),
        ("5.1 integer of too many bytes", "ff 80 80 80 80 01", HpackError::Integer),
        ("5.1 integer that is cut", "ff 80", HpackError::Truncated),
        ("5.2 string that is cut", "00 05 61", HpackError::Truncated),
        ("5.2 string length that is cut", "00 7f", HpackError::Truncated),
        ("5.2 string length beyond the block", "00 7f ff ff ff 7f 61", HpackError::Truncated),
        ("5.2 padding with zeros", "00 01 61 81 06", HpackError::Huffman),
        ("5.2 padding of more than seven bits", "00 01 61 82 07 ff", HpackError::Huffman),
        ("5.2 EOS", "00 01 61 84 ff ff ff fc", HpackError::Huffman),
        ("6.1 name without value", "00 01 61", HpackError::Truncated),
        ("6.3 size above the limit", "3f e2 1f", HpackError::TableSize),
        ("4.2 size after a field", "82 20", HpackError::TableSize),
    ] {
        assert_eq!(decoder().decode(&bytes(block)), Err(error), "{rule}");
    }
    assert_eq!(text(&mut decoder(), &[]), "", "an empty block is an empty list");
}

#[test]
fn table_sizes_can_change_at_the_start_of_a_block() {
    let mut decoder = decoder();
    text(&mut decoder, &bytes("400161 0162"));
    assert_eq!(decoder.table_size(), 34);
    assert_eq!(text(&mut decoder, &bytes("3fe11f be")), "a=b\n", "4096 again");
    assert_eq!(text(&mut decoder, &bytes("20 3fe11f 82")), ":method=GET\n", "two changes in a row");
    assert_eq!(decoder.table_size(), 0);
    assert_eq!(decoder.decode(&bytes("be")), Err(HpackError::Index), "zero has emptied the table");
}

#[test]
fn entries_are_evicted_from_the_end() {
    let mut decoder = Decoder::new(70, LIMIT, 100);
    text(&mut decoder, &bytes("400161 0131 400162 0132 400163 0133"));
    assert_eq!(decoder.table_size(), 68);
    assert_eq!(text(&mut decoder, &bytes("be bf")), "c=3\nb=2\n");
    assert_eq!(decoder.decode(&bytes("c0")), Err(HpackError::Index));
}

#[test]
fn an_entry_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::new(64, LIMIT, 100);
    text(&mut decoder, &bytes("400161 0131"));
    let mut large = bytes("400162 28");
    large.extend([b'x'; 40]);
    text(&mut decoder, &large);
    assert_eq!(decoder.table_size(), 0);
}

#[test]
fn a_small_block_cannot_become_a_large_list() {
    // One entry of 4 kB, then 30,000 references of one byte each: 120 MB if they were kept.
    let mut bomb = bytes("400161 7f d11e");
    bomb.extend(vec![b'x'; 4048]);
    bomb.extend(vec![0xbe; 30_000]);
    let mut decoder = decoder();
    let decoded = decoder.decode(&bomb).unwrap();
    assert!(decoded.too_large);
    assert!(decoded.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= LIMIT);
    assert_eq!(decoder.table_size(), 4081, "the table follows all the same");
    assert_eq!(text(&mut decoder, &bytes("82")), ":method=GET\n");
}

#[test]
fn lists_are_limited_in_size_and_number() {
    let mut decoder = Decoder::new(4096, 100, 3);
    // 34 bytes each, by the rule of RFC 9113, 6.5.2: two fit into 100.
    assert!(!decoder.decode(&bytes("000161 0162 000161 0162")).unwrap().too_large);
    assert!(decoder.decode(&bytes("000161 0162 000161 0162 000161 0162")).unwrap().too_large);
    let mut decoder = Decoder::new(4096, LIMIT, 3);
    assert!(!decoder.decode(&bytes("82 82 82")).unwrap().too_large);
    assert!(decoder.decode(&bytes("82 82 82 82")).unwrap().too_large);
}

#[test]
fn a_string_beyond_every_limit_is_not_kept() {
    let mut block = bytes("400161 7f");
    let length = 30_000_usize - 127;
    block.extend([0x80 | (length & 0x7f) as u8, 0x80 | (length >> 7 & 0x7f) as u8, (length >> 14) as u8]);
    block.extend(vec![b'x'; 30_000]);
    block.push(0x82);
    let decoded = decoder().decode(&block).unwrap();
    assert!(decoded.too_large && decoded.headers.is_empty());
}

#[test]
fn what_the_encoder_writes_is_read_back() {
    let mut block = Vec::new();
    let mut encoder = Encoder::default();
    encoder.limit_table(0);
    encoder.begin(&mut block);
    encoder.status(200, &mut block);
    encoder.status(418, &mut block);
    let long = "v".repeat(5000);
    encoder.field(b"Content-Type", b"text/html", &mut block);
    encoder.field(b"X-Long", long.as_bytes(), &mut block);
    let expected = format!(":status=200\n:status=418\ncontent-type=text/html\nx-long={long}\n");
    assert_eq!(text(&mut decoder(), &block), expected);
}

proptest! {
    #[test]
    fn any_blocks_do_no_harm(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..5)) {
        let mut decoder = Decoder::new(200, 300, 10);
        for block in blocks {
            let decoded = decoder.decode(&block);
            prop_assert!(decoder.table_size() <= 200);
            if let Ok(decoded) = decoded {
                let size: usize = decoded.headers.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
                prop_assert!(size <= 300 && decoded.headers.len() <= 10);
            }
        }
    }
}
