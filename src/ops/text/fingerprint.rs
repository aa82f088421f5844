//! FarmHash `Fingerprint64`, the stable hash of TensorFlow's hash buckets
//! (Pike, google/farmhash, namespace `farmhashna`).

const K0: u64 = 0xc3a5_c85c_97cb_3127;
const K1: u64 = 0xb492_b66f_be98_f273;
const K2: u64 = 0x9ae1_6a3b_2f90_404f;

/// The fingerprint of a byte string.
pub(crate) fn fingerprint64(bytes: &[u8]) -> u64 {
    match bytes.len() {
        0..=16 => up_to_16(bytes),
        17..=32 => up_to_32(bytes),
        33..=64 => up_to_64(bytes),
        _ => long(bytes),
    }
}

/// SipHash-2-4 (Aumasson and Bernstein), TensorFlow's strong keyed hash.
pub(crate) fn siphash(key: [u64; 2], bytes: &[u8]) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    fn round(v: &mut [u64; 4]) {
        let [mut a, mut b, mut c, mut d] = *v;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        *v = [a, b, c, d];
    }
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = bytes.len() as u8;
    for word in words.iter().chain([&last]) {
        let word = u64::from_le_bytes(*word);
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    (0..4).for_each(|_| round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn half_word(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 4)
        .and_then(|word| word.try_into().ok())
        .map_or(0, |word| u64::from(u32::from_le_bytes(word)))
}

fn shift_mix(value: u64) -> u64 {
    value ^ (value >> 47)
}

fn mix(u: u64, v: u64, factor: u64) -> u64 {
    let a = shift_mix((u ^ v).wrapping_mul(factor));
    shift_mix((v ^ a).wrapping_mul(factor)).wrapping_mul(factor)
}

fn length_factor(bytes: &[u8]) -> u64 {
    K2.wrapping_add(bytes.len() as u64 * 2)
}

fn up_to_16(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    let factor = length_factor(bytes);
    if len >= 8 {
        let a = word(bytes, 0).wrapping_add(K2);
        let b = word(bytes, len - 8);
        let c = b.rotate_right(37).wrapping_mul(factor).wrapping_add(a);
        let d = a.rotate_right(25).wrapping_add(b).wrapping_mul(factor);
        return mix(c, d, factor);
    }
    if len >= 4 {
        let first = half_word(bytes, 0);
        return mix((len as u64).wrapping_add(first << 3), half_word(bytes, len - 4), factor);
    }
    let (Some(&first), Some(&middle), Some(&last)) = (bytes.first(), bytes.get(len / 2), bytes.last()) else {
        return K2;
    };
    let y = u64::from(first) + (u64::from(middle) << 8);
    let z = len as u64 + (u64::from(last) << 2);
    shift_mix(y.wrapping_mul(K2) ^ z.wrapping_mul(K0)).wrapping_mul(K2)
}

fn up_to_32(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    let factor = length_factor(bytes);
    let a = word(bytes, 0).wrapping_mul(K1);
    let b = word(bytes, 8);
    let c = word(bytes, len - 8).wrapping_mul(factor);
    let d = word(bytes, len - 16).wrapping_mul(K2);
    mix(
        a.wrapping_add(b).rotate_right(43).wrapping_add(c.rotate_right(30)).wrapping_add(d),
        a.wrapping_add(b.wrapping_add(K2).rotate_right(18)).wrapping_add(c),
        factor,
    )
}

fn up_to_64(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    let factor = length_factor(bytes);
    let a = word(bytes, 0).wrapping_mul(K2);
    let b = word(bytes, 8);
    let c = word(bytes, len - 8).wrapping_mul(factor);
    let d = word(bytes, len - 16).wrapping_mul(K2);
    let y = a.wrapping_add(b).rotate_right(43).wrapping_add(c.rotate_right(30)).wrapping_add(d);
    let z = mix(y, a.wrapping_add(b.wrapping_add(K2).rotate_right(18)).wrapping_add(c), factor);
    let e = word(bytes, 16).wrapping_mul(factor);
    let f = word(bytes, 24);
    let g = y.wrapping_add(word(bytes, len - 32)).wrapping_mul(factor);
    let h = z.wrapping_add(word(bytes, len - 24)).wrapping_mul(factor);
    mix(
        e.wrapping_add(f).rotate_right(43).wrapping_add(g.rotate_right(30)).wrapping_add(h),
        e.wrapping_add(f.wrapping_add(a).rotate_right(18)).wrapping_add(g),
        factor,
    )
}

/// State of the loop over blocks of 64 bytes.
struct State {
    x: u64,
    y: u64,
    z: u64,
    v: (u64, u64),
    w: (u64, u64),
}

impl State {
    /// Takes in 64 bytes. The last block multiplies by its own factor and weighs `v` and `w` by 9.
    fn block(&mut self, bytes: &[u8], factor: u64, weight: u64) {
        let Self { mut x, mut y, mut z, mut v, mut w } = *self;
        x = x
            .wrapping_add(y)
            .wrapping_add(v.0)
            .wrapping_add(word(bytes, 8))
            .rotate_right(37)
            .wrapping_mul(factor);
        y = y.wrapping_add(v.1).wrapping_add(word(bytes, 48)).rotate_right(42).wrapping_mul(factor);
        x ^= w.1.wrapping_mul(weight);
        y = y.wrapping_add(v.0.wrapping_mul(weight)).wrapping_add(word(bytes, 40));
        z = z.wrapping_add(w.0).rotate_right(33).wrapping_mul(factor);
        v = weak_hash(bytes, 0, v.1.wrapping_mul(factor), x.wrapping_add(w.0));
        w = weak_hash(bytes, 32, z.wrapping_add(w.1), y.wrapping_add(word(bytes, 16)));
        *self = Self { x: z, y, z: x, v, w };
    }
}

fn weak_hash(bytes: &[u8], at: usize, a: u64, b: u64) -> (u64, u64) {
    let last = word(bytes, at + 24);
    let a = a.wrapping_add(word(bytes, at));
    let b = b.wrapping_add(a).wrapping_add(last).rotate_right(21);
    let sum = a.wrapping_add(word(bytes, at + 8)).wrapping_add(word(bytes, at + 16));
    (sum.wrapping_add(last), b.wrapping_add(sum.rotate_right(44)).wrapping_add(a))
}

fn long(bytes: &[u8]) -> u64 {
    const SEED: u64 = 81;
    let y = SEED.wrapping_mul(K1).wrapping_add(113);
    let z = shift_mix(y.wrapping_mul(K2).wrapping_add(113)).wrapping_mul(K2);
    let x = SEED.wrapping_mul(K2).wrapping_add(word(bytes, 0));
    let mut state = State { x, y, z, v: (0, 0), w: (0, 0) };
    let whole = (bytes.len() - 1) / 64 * 64;
    for block in bytes[..whole].chunks_exact(64) {
        state.block(block, K1, 1);
    }
    let factor = K1.wrapping_add((state.z & 0xff) << 1);
    let rest = (bytes.len() - 1) as u64 & 63;
    state.w.0 = state.w.0.wrapping_add(rest);
    state.v.0 = state.v.0.wrapping_add(state.w.0);
    state.w.0 = state.w.0.wrapping_add(state.v.0);
    // The last 64 bytes, which may overlap the last whole block.
    state.block(&bytes[bytes.len() - 64..], factor, 9);
    let State { x, y, z, v, w } = state;
    mix(
        mix(v.0, w.0, factor).wrapping_add(shift_mix(y).wrapping_mul(K0)).wrapping_add(z),
        mix(v.1, w.1, factor).wrapping_add(x),
        factor,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published values of Guava's, TensorFlow's and Airship's tests, for every length class.
    /// The first and the last line of the vectors of SipHash's reference implementation.
    #[test]
    fn siphash_vectors() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        assert_eq!(siphash(key, b""), 0x726f_db47_dd0e_0e31);
        let bytes: Vec<u8> = (0..15).collect();
        assert_eq!(siphash(key, &bytes), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn known_fingerprints() {
        for (text, expected) in [
            ("", 11160318154034397263),
            ("Q", 13816109650407654260),
            ("WW5", 6316074107149058620),
            ("test", 8581389452482819506),
            ("Hello", 15404698994557526151),
            ("K6Pjv<>ad", 16506019169567922731),
            ("bF&d$MYIhB.Ac=qC", 17582099205024456557),
            ("&&3gRU?[^&ok:He[|K:", 11792583603419566171),
            ("n?(o|a[EX|KN-9./=tCVEmN%?<MXe8F<", 1754206644017466002),
            ("ECCD828C-5D7A-4C8B-9A1B-F244747E96C3", 9693850515132481856),
            ("F7479877-4690-4A44-AFC9-8FE987EA512F:some_other_id", 6862335115798125349),
            (
                "0376d8dc-a717-425a-9dd2-d4b36bcaddac:65d52a5d-4f88-4a78-97c9-08464d44bbb6",
                14340110469024474010,
            ),
        ] {
            assert_eq!(fingerprint64(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(fingerprint64(&b"test".repeat(8)), -4196240717365766262i64 as u64);
        assert_eq!(fingerprint64(&b"test".repeat(64)), 3500507768004279527);
    }
}
