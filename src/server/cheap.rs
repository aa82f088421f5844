//! Which requests are answered on the loop's thread, because that is cheaper than handing them over.
//!
//! Handing a request to a worker and its answer back costs some ten microseconds of two threads; a micro model
//! answers in less. What a kind of request costs is measured whenever one is answered: a kind is its path (for
//! gRPC: method and model) and the magnitude of its length. Unknown kinds go to the workers, and a kind that
//! turns out slow goes back to them.

use crate::wire::{Request, grpc};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Up to this mean time a request may hold up all connections.
const CHEAP: Duration = Duration::from_micros(40);
/// Bodies above this are never worth it.
const SHORT: usize = 16 << 10;
/// The highest cost that one measurement counts as: a thread that was not scheduled for a while is no slow model.
const MOST: u64 = 1_000_000;
/// What a kind costs before its first measurement: some have to prove that they are cheap.
const UNKNOWN: u64 = 200_000;
/// Kinds that are remembered; a newer one takes the place of an older.
const KINDS: usize = 512;

/// The measured cost of recent kinds of requests.
pub(super) struct Costs {
    /// The upper half tells kinds apart, the lower is the mean time in nanoseconds.
    kinds: [AtomicU64; KINDS],
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind(u64);

impl Kind {
    /// The kind of a request that runs a model; `None` for those that never run on the loop's thread.
    pub(super) fn of(request: &Request) -> Option<Kind> {
        let body = &request.body;
        if body.len() > SHORT || request.method != "POST" {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        request.target.hash(&mut hasher);
        body.len().checked_ilog2().hash(&mut hasher);
        if grpc::is_grpc(request) {
            if !request.target.starts_with("/tensorflow.serving.PredictionService/") {
                return None;
            }
            model_spec(body)?.hash(&mut hasher);
        } else if !request.target.ends_with("predict")
            && !request.target.ends_with("classify")
            && !request.target.ends_with("regress")
        {
            return None;
        }
        Some(Kind(hasher.finish()))
    }

    fn tag(self) -> u64 {
        self.0 >> 32 << 32
    }
}

/// The bytes of a message's first field, where clients put the `ModelSpec`; `None` if another field comes first.
fn model_spec(body: &[u8]) -> Option<&[u8]> {
    match body {
        // Not compressed; tag 1, length-delimited; a length below 128.
        [0, _, _, _, _, 0x0a, length @ 0..=0x7f, rest @ ..] => rest.get(..usize::from(*length)),
        _ => None,
    }
}

impl Costs {
    pub(super) fn new() -> Costs {
        Costs { kinds: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Whether requests of this kind have been cheap of late.
    pub(super) fn is_cheap(&self, kind: Kind) -> bool {
        u128::from(self.mean(kind)) <= CHEAP.as_nanos()
    }

    /// Takes note of what one request cost. Two threads that do so at once may lose one of the notes.
    pub(super) fn record(&self, kind: Kind, took: Duration) {
        let mean = self.mean(kind);
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).min(MOST);
        let mean = if took < mean { mean - (mean - took) / 4 } else { mean + (took - mean) / 8 };
        self.place(kind).store(kind.tag() | mean, Relaxed);
    }

    fn mean(&self, kind: Kind) -> u64 {
        let known = self.place(kind).load(Relaxed);
        if known >> 32 << 32 == kind.tag() { known & u64::from(u32::MAX) } else { UNKNOWN }
    }

    fn place(&self, Kind(hash): Kind) -> &AtomicU64 {
        // The index is below the length of the array.
        &self.kinds[hash as usize % KINDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(target: &str, length: usize) -> Option<Kind> {
        let mut request = Request::new("POST", target);
        request.body = vec![b' '; length].into();
        Kind::of(&request)
    }

    fn grpc(method: &str, body: &[u8]) -> Option<Kind> {
        let mut request = Request::new("POST", &format!("/tensorflow.serving.{method}"));
        request.headers.push("content-type", "application/grpc");
        request.body = body.to_vec().into();
        Kind::of(&request)
    }

    #[test]
    fn kinds_tell_models_and_sizes_apart() {
        let small = rest("/v1/models/m:predict", 20);
        assert!(small.is_some() && small == rest("/v1/models/m:predict", 30));
        assert_ne!(small, rest("/v1/models/m:predict", 4000));
        assert_ne!(small, rest("/v1/models/n:predict", 20));
        assert_eq!(rest("/v1/models/m:predict", SHORT + 1), None);
        assert_eq!(rest("/v1/models/m/metadata", 20), None);

        let message = |model: &[u8]| [&[0, 0, 0, 0, 9, 0x0a, 3][..], model, &[0x12, 0]].concat();
        let call = grpc("PredictionService/Predict", &message(b"\x0a\x01m"));
        assert!(call.is_some());
        assert_ne!(call, grpc("PredictionService/Predict", &message(b"\x0a\x01n")));
        assert_eq!(grpc("PredictionService/Predict", b"\0\0\0\0\x02\x12\0"), None, "no model is named");
        assert_eq!(grpc("ModelService/HandleReloadConfigRequest", &message(b"\x0a\x01m")), None);
    }

    #[test]
    fn a_kind_has_to_prove_itself_and_can_fall_back() {
        let (costs, kind) = (Costs::new(), Kind(7 << 32 | 5));
        assert!(!costs.is_cheap(kind));
        let mut needed = 0;
        while !costs.is_cheap(kind) {
            costs.record(kind, Duration::from_micros(5));
            needed += 1;
        }
        assert!((4..20).contains(&needed), "{needed}");
        assert!(!costs.is_cheap(Kind(8 << 32 | 5)), "another kind in the same place");
        costs.record(kind, Duration::from_secs(3));
        assert!(!costs.is_cheap(kind), "one slow answer is enough");
        costs.record(kind, Duration::from_micros(5));
        (0..10).for_each(|_| costs.record(kind, Duration::from_micros(5)));
        assert!(costs.is_cheap(kind));
    }
}
