//! The time as the state machines see it: an instant for limits and the text of the `Date` field.
//!
//! The loop reads the system's clock once per turn; tests move it by hand.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A reading of the time.
#[derive(Clone, Debug)]
pub struct Clock {
    now: Instant,
    second: u64,
    date: String,
}

impl Clock {
    /// The time now.
    pub fn new() -> Clock {
        let second = unix_seconds();
        Clock { now: Instant::now(), second, date: format(second) }
    }

    /// Reads the system's clock again.
    pub fn update(&mut self) {
        self.now = Instant::now();
        let second = unix_seconds();
        if self.second != second {
            self.second = second;
            self.date = format(second);
        }
    }

    /// Moves this reading forward.
    pub fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    /// The instant of this reading.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The time from `earlier` to this reading.
    pub fn since(&self, earlier: Instant) -> Duration {
        self.now.saturating_duration_since(earlier)
    }

    /// The date as IMF-fixdate (RFC 9110, 5.6.7).
    pub fn date(&self) -> &str {
        &self.date
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The date `seconds` after 1970-01-01T00:00:00Z.
fn format(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let weekday = DAYS.get((days % 7) as usize).unwrap_or(&"Thu");
    let month = MONTHS.get(month).unwrap_or(&"Jan");
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// (year, month from 0, day from 1) of a day counted from 1970-01-01.
fn civil(mut days: u64) -> (u64, usize, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // Whole spans of 400 years have the same length, so the loop below is short.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        // The first is the example of RFC 9110; the others were computed with GNU date.
        for (seconds, text) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (1_767_225_599, "Wed, 31 Dec 2025 23:59:59 GMT"),
        ] {
            assert_eq!(format(seconds), text);
        }
    }
}
