//! Log lines on stderr. Where stderr is systemd's journal (`JOURNAL_STREAM` names it) each line starts with its
//! syslog priority, as in `<4>`, and carries no time of its own, because the journal adds one.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::{
    fmt::Write as _,
    fs::File,
    io::Write as _,
    os::{fd::AsFd, unix::fs::MetadataExt},
    time::{SystemTime, UNIX_EPOCH},
};

struct Logger {
    journal: bool,
}

/// Starts logging at a level. A second call only changes the level.
pub fn start(level: LevelFilter) {
    let journal = std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_stderr(&stream));
    // Fails only when a logger is set already, which a test may have done.
    let _ = log::set_boxed_logger(Box::new(Logger { journal }));
    log::set_max_level(level);
}

/// Whether this is the `device:inode` of stderr: a program that a service started inherits the variable, and may have
/// its stderr elsewhere (systemd.exec(5)).
fn is_stderr(stream: &str) -> bool {
    let stderr =
        std::io::stderr().as_fd().try_clone_to_owned().and_then(|stderr| File::from(stderr).metadata());
    stderr.is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        let line = format_line(record, self.journal, seconds);
        // One write per line keeps lines of several threads apart; a closed stderr is no reason to stop.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

fn format_line(record: &Record<'_>, journal: bool, unix_seconds: u64) -> String {
    let mut line = String::with_capacity(120);
    let target = record.target().strip_prefix("kinglet::").unwrap_or(record.target());
    let target = target.split("::").next().unwrap_or(target);
    let level = record.level();
    // Writing to a String cannot fail.
    let _ = if journal {
        write!(line, "<{}>{target}: ", priority(level))
    } else {
        write!(line, "{} {level:<5} {target}: ", timestamp(unix_seconds))
    };
    let start = line.len();
    let _ = write!(line, "{}", record.args());
    // A line break inside a text from outside must not make up a second log line.
    let text: String = line.split_off(start).chars().map(visible).collect();
    line.push_str(&text);
    line.push('\n');
    line
}

fn visible(character: char) -> char {
    if character.is_control() && character != '\t' { ' ' } else { character }
}

/// The syslog priority of RFC 5424, section 6.2.1.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// `2026-01-31T23:59:59Z`, by the day count of the proleptic Gregorian calendar.
fn timestamp(unix_seconds: u64) -> String {
    let (days, seconds) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // Years are counted from March, so that the leap day is the last of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_agree_with_date() {
        // `date -u -d @N +%FT%TZ`
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
        ] {
            assert_eq!(timestamp(seconds), text);
        }
    }

    #[test]
    fn a_line_has_level_target_and_text() {
        let line = |journal| {
            let record = Record::builder()
                .level(Level::Warn)
                .target("kinglet::models::manager")
                .args(format_args!("a\nb"))
                .build();
            format_line(&record, journal, 0)
        };
        assert_eq!(line(false), "1970-01-01T00:00:00Z WARN  models: a b\n");
        assert_eq!(line(true), "<4>models: a b\n");
    }
}
