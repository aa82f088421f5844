//! Some rounds of every fuzz target with changed seeds; `fuzz/` runs them for longer.

#[path = "../fuzz/targets.rs"]
mod targets;

use targets::{Numbers, TARGETS, mutated};

#[test]
fn seeds_are_read_without_harm() {
    for (name, target, seeds) in TARGETS {
        let seeds = seeds();
        assert!(!seeds.is_empty(), "{name}");
        seeds.iter().for_each(|seed| target(seed));
    }
}

#[test]
fn changed_seeds_do_no_harm() {
    for (_, target, seeds) in TARGETS {
        let seeds = seeds();
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        for _ in 0..2000 {
            target(&mutated(&seeds, &mut numbers));
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_do_no_harm(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        TARGETS.iter().for_each(|(_, target, _)| target(&bytes));
    }
}
