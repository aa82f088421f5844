//! What the tests of this floor share: repeatable numbers and a comparison that is relative to scale.

/// `length` numbers in -1..1, the same for the same `seed`.
pub(super) fn random(length: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Fails unless every element is within `tolerance` of `expected`, relative to its largest magnitude (at least 1).
#[track_caller]
pub(super) fn assert_close(actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len());
    let scale = expected.iter().filter(|x| x.is_finite()).fold(1.0f64, |scale, x| scale.max(x.abs()));
    for (index, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(actual) - expected).abs();
        let same = actual.is_nan() && expected.is_nan() || f64::from(actual) == expected;
        assert!(same || error <= tolerance * scale, "element {index}: {actual}, expected {expected}");
    }
}
