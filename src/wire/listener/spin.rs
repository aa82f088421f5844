//! Whether the loop looks for the next event a little longer before it sleeps.
//!
//! A thread that sleeps takes 50 to 150 microseconds to be woken where its processor has gone idle, many times what a
//! small model takes. A client that calls again as soon as it has its answer pays that for every call. So after an
//! answer the loop asks for events without sleeping for a short while, as long as that turns out to be worth it.
#![forbid(unsafe_code)]

use std::{
    thread,
    time::{Duration, Instant},
};

/// After so many looks in vain in a row, the next one is 2^6 - 1 answers later: soon enough for a client that has become
/// faster, and rare enough for a server that many slow ones call.
const MOST_MISSES: u32 = 6;

/// Decides after each answer; what paid off is done again, what did not ever more rarely.
#[derive(Debug)]
pub(super) struct Spin {
    /// How long one look takes at most; zero is never.
    most: Duration,
    misses: u32,
    skip: u32,
}

impl Spin {
    /// Looks for `most`; on a machine with one core never, as there the client could not call meanwhile.
    pub(super) fn new(most: Duration) -> Spin {
        let alone = thread::available_parallelism().map_or(1, usize::from) == 1;
        Spin { most: if alone { Duration::ZERO } else { most }, misses: 0, skip: 0 }
    }

    /// Calls `look` until it has found something, if that is worth it now. Says whether it has.
    pub(super) fn look<E>(&mut self, mut look: impl FnMut() -> Result<bool, E>) -> Result<bool, E> {
        if self.most.is_zero() {
            return Ok(false);
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(false);
        }
        let started = Instant::now();
        loop {
            if look()? {
                self.misses = 0;
                return Ok(true);
            }
            if started.elapsed() >= self.most {
                self.misses = (self.misses + 1).min(MOST_MISSES);
                self.skip = (1 << self.misses) - 1;
                return Ok(false);
            }
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(spin: &mut Spin, found: bool) -> u32 {
        let mut looks = 0;
        let result: Result<bool, ()> = spin.look(|| {
            looks += 1;
            Ok(found)
        });
        assert_eq!(result, Ok(found && looks > 0));
        looks
    }

    fn spin() -> Spin {
        Spin { most: Duration::from_nanos(1), misses: 0, skip: 0 }
    }

    #[test]
    fn what_pays_off_is_done_every_time() {
        let mut spin = spin();
        assert!((0..100).all(|_| look(&mut spin, true) == 1));
    }

    #[test]
    fn what_does_not_is_done_ever_more_rarely_until_it_does() {
        let mut spin = spin();
        let tries = (0..5000).filter(|_| look(&mut spin, false) > 0).count();
        assert!((78..90).contains(&tries), "{tries}");
        while look(&mut spin, true) == 0 {}
        assert_eq!(look(&mut spin, true), 1, "one hit is enough");
    }

    #[test]
    fn zero_is_never_and_errors_pass() {
        let mut never = Spin { most: Duration::ZERO, ..spin() };
        assert_eq!(look(&mut never, true), 0);
        assert_eq!(spin().look(|| Err("no")), Err("no"));
    }
}
