//! How much memory this process can have, as a limit on what a request may ask for.

use std::sync::OnceLock;

/// Where nothing tells: what a 64-bit process can address in practice.
const UNKNOWN: usize = 1 << 46;

/// Bytes of memory of this machine or of the control group that the process is in, whichever is less.
/// Read once.
pub(super) fn available() -> usize {
    static AVAILABLE: OnceLock<usize> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        let group = group.iter().find_map(|path| read(path)?.trim().parse().ok());
        let machine = read("/proc/meminfo").and_then(|text| total(&text));
        [group, machine].into_iter().flatten().min().unwrap_or(UNKNOWN)
    })
}

/// `MemTotal:  16303428 kB`
fn total(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_from_the_system_text() {
        assert_eq!(total("MemTotal:       16303428 kB\nMemFree: 1 kB\n"), Some(16_303_428 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert!(available() > 1 << 20);
    }
}
