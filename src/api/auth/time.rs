//! Dates of the token file and of signatures, in seconds since 1970 (UTC).

/// Reads `2026-12-31` (its first second), `2026-12-31T23:59:59Z` or `20261231T235959Z`; `None` for other texts.
pub fn parse_utc(text: &str) -> Option<u64> {
    let digits: String = match (text.len(), text.as_bytes()) {
        (10, _) => format!("{}000000", text.replace('-', "")),
        (20, _) => text.replace(['-', ':'], "").replace(['T', 'Z'], ""),
        (16, [.., b'Z']) => text.replace(['T', 'Z'], ""),
        _ => return None,
    };
    let shape: String =
        text.bytes().map(|byte| if byte.is_ascii_digit() { '0' } else { char::from(byte) }).collect();
    if !matches!(&*shape, "0000-00-00" | "0000-00-00T00:00:00Z" | "00000000T000000Z") {
        return None;
    }
    let number = |from: usize, to: usize| digits.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
    let valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    valid.then(|| days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Reads an expiry: a date alone counts to the end of its day.
pub fn at_or_after(text: &str) -> Option<u64> {
    parse_utc(text).map(|seconds| if text.len() == 10 { seconds + 86_400 } else { seconds })
}

/// Days since 1970-01-01 of a date of the Gregorian calendar: years are counted from March, so that the leap day
/// is the last of its year.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before_1970 = 719_468;
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - before_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    // `date -u -d TEXT +%s` says so.
    #[test]
    fn dates() {
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400),
            ("2026-12-31", 1_798_675_200),
            ("2026-12-31T23:59:59Z", 1_798_761_599),
            ("20191115T033655Z", 1_573_789_015),
        ] {
            assert_eq!(parse_utc(text), Some(seconds), "{text}");
        }
        for text in [
            "",
            "2026",
            "2026-13-01",
            "2026/12/31",
            "20191115T033655",
            "20191115T253655Z",
            "x026-12-31",
            "2026-12-3é",
        ] {
            assert_eq!(parse_utc(text), None, "{text}");
        }
        assert_eq!(at_or_after("1970-01-01"), Some(86_400));
    }
}
