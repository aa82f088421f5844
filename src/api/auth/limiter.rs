//! Counts failures per address, in bounded memory.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered; the oldest is forgotten for a new one.
const MAX_ADDRESSES: usize = 4096;

/// How many failures each address has had in its current window.
pub(super) struct Limiter {
    per_window: u32,
    addresses: Mutex<HashMap<IpAddr, Failures>>,
}

struct Failures {
    since: Instant,
    count: u32,
}

impl Limiter {
    /// So many failures a minute are seen; 0 has no limit.
    pub(super) fn new(per_window: u32) -> Self {
        Self { per_window, addresses: Mutex::default() }
    }

    /// How long an address is refused unseen; `None` if it is not.
    pub(super) fn blocked(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let addresses = self.lock();
        let failures =
            addresses.get(&network(address)).filter(|failures| failures.count >= self.per_window)?;
        let left = WINDOW.checked_sub(now.saturating_duration_since(failures.since))?;
        (self.per_window > 0 && !left.is_zero()).then_some(left)
    }

    /// Takes note of a failure.
    pub(super) fn count(&self, address: IpAddr, now: Instant) {
        if self.per_window == 0 {
            return;
        }
        let mut addresses = self.lock();
        let address = network(address);
        if addresses.len() >= MAX_ADDRESSES && !addresses.contains_key(&address) {
            addresses.retain(|_, failures| now.saturating_duration_since(failures.since) < WINDOW);
            if addresses.len() >= MAX_ADDRESSES
                && let Some(oldest) =
                    addresses.iter().min_by_key(|(_, failures)| failures.since).map(|(at, _)| *at)
            {
                addresses.remove(&oldest);
            }
        }
        let failures = addresses.entry(address).or_insert(Failures { since: now, count: 0 });
        if now.saturating_duration_since(failures.since) >= WINDOW {
            *failures = Failures { since: now, count: 0 };
        }
        failures.count = failures.count.saturating_add(1);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Failures>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One IPv4 address, or the /64 that one IPv6 host has for itself.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_blocked_for_the_rest_of_its_minute() {
        let (limiter, start) = (Limiter::new(3), Instant::now());
        let (bad, good): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        for _ in 0..3 {
            assert_eq!(limiter.blocked(bad, start), None);
            limiter.count(bad, start);
        }
        assert_eq!(limiter.blocked(bad, start + Duration::from_secs(20)), Some(Duration::from_secs(40)));
        assert!(limiter.blocked("::ffff:10.0.0.1".parse().unwrap(), start).is_some());
        assert_eq!(limiter.blocked(good, start), None);
        assert_eq!(limiter.blocked(bad, start + WINDOW), None);
        limiter.count(bad, start + WINDOW);
        assert_eq!(limiter.blocked(bad, start + WINDOW), None);
    }

    #[test]
    fn hosts_of_one_ipv6_network_count_together() {
        let (limiter, now) = (Limiter::new(1), Instant::now());
        limiter.count("2001:db8::1".parse().unwrap(), now);
        assert!(limiter.blocked("2001:db8::ffff".parse().unwrap(), now).is_some());
        assert!(limiter.blocked("2001:db8:0:1::1".parse().unwrap(), now).is_none());
    }

    #[test]
    fn memory_is_bounded_and_no_limit_keeps_nothing() {
        let (limiter, now) = (Limiter::new(1), Instant::now());
        for number in 0..2 * MAX_ADDRESSES as u32 {
            limiter.count(IpAddr::V4(number.into()), now);
        }
        assert_eq!(limiter.lock().len(), MAX_ADDRESSES);
        let unlimited = Limiter::new(0);
        unlimited.count("10.0.0.1".parse().unwrap(), now);
        assert!(unlimited.blocked("10.0.0.1".parse().unwrap(), now).is_none());
    }
}
