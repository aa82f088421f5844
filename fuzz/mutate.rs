//! A fuzzer for any toolchain: changes well-formed input at random and lets the parsers have it.
//!
//! `mutate SECONDS [TARGET]` runs each target, or one, for so long. What made a parser panic is written to a file
//! whose name is printed. It knows nothing of coverage: cargo-fuzz on a nightly toolchain does (fuzz/README.md).

#[path = "targets.rs"]
mod targets;

use std::{
    panic,
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use targets::{Numbers, TARGETS, mutated};

/// Inputs that are kept as seeds beside the first ones, so that changes add up.
const KEPT: usize = 200;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(10);
    let wanted = arguments.next();
    let start = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64 | 1);
    let mut failed = false;
    for (name, target, seeds) in TARGETS {
        if wanted.as_deref().is_some_and(|wanted| wanted != *name) {
            continue;
        }
        let mut numbers = Numbers(start);
        let mut corpus = seeds();
        let first = corpus.len();
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut runs = 0_u64;
        while Instant::now() < end && !failed {
            for _ in 0..100 {
                let input = mutated(&corpus, &mut numbers);
                if panic::catch_unwind(|| target(&input)).is_err() {
                    let file = format!("{name}-{runs}.crash");
                    let kept = std::fs::write(&file, &input);
                    eprintln!("{name}: the input is in {file} ({kept:?})");
                    failed = true;
                    break;
                }
                runs += 1;
                if numbers.below(50) == 0 && input.len() < 4096 {
                    if corpus.len() < first + KEPT {
                        corpus.push(input);
                    } else {
                        let place = first + numbers.below(KEPT);
                        corpus[place] = input;
                    }
                }
            }
        }
        eprintln!(
            "{name}: {runs} inputs in {seconds} s from start {start}{}",
            if failed { ", FAILED" } else { "" }
        );
        if failed {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
