//! What a connection may ask for without getting anything done.
//!
//! Frames that cost the server work but complete nothing (PING, SETTINGS, resets, empty frames, tiny
//! window updates) are paid from an allowance. Time refills it slowly and completed work quickly: grpcio sends two
//! WINDOW_UPDATE per call, so a limit without credit cuts off a client that does nothing wrong.
#![forbid(unsafe_code)]

use std::time::Instant;

/// An account of units that are spent by idle frames and earned by work.
#[derive(Debug)]
pub(super) struct Allowance {
    level: u32,
    capacity: u32,
    per_second: u32,
    refilled: Instant,
}

impl Allowance {
    /// A full account.
    pub(super) fn new(capacity: u32, per_second: u32, now: Instant) -> Allowance {
        Allowance { level: capacity, capacity, per_second, refilled: now }
    }

    /// Pays `cost`; false once the peer has gone too far.
    pub(super) fn spend(&mut self, cost: u32, now: Instant) -> bool {
        if self.level < cost {
            let seconds = now.saturating_duration_since(self.refilled).as_secs();
            if seconds > 0 {
                self.refilled = now;
                self.earn(u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(self.per_second));
            }
        }
        match self.level.checked_sub(cost) {
            Some(level) => {
                self.level = level;
                true
            }
            None => false,
        }
    }

    /// Adds what work has earned.
    pub(super) fn earn(&mut self, units: u32) {
        self.level = self.level.saturating_add(units).min(self.capacity);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn spending_ends_and_work_or_time_refill() {
        let start = Instant::now();
        let mut allowance = Allowance::new(3, 2, start);
        assert!((0..3).all(|_| allowance.spend(1, start)));
        assert!(!allowance.spend(1, start));
        allowance.earn(1);
        assert!(allowance.spend(1, start));
        let later = start + Duration::from_secs(1);
        assert!(allowance.spend(2, later) && !allowance.spend(1, later));
        allowance.earn(u32::MAX);
        assert!(allowance.spend(3, later) && !allowance.spend(1, later));
    }
}
