//! How much memory there is, and the budget that models and runs share.
//!
//! What a process may use is the machine's memory or the limit of a control group around it, whichever is less:
//! Linux ends a process that goes above it, so kinglet has to know first.

use std::{
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Where nothing tells: what a 64-bit process can address in practice.
const UNKNOWN: usize = 1 << 46;

/// The memory of the system around this process, in bytes; `None` where it does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemMemory {
    /// Of the machine.
    pub machine: Option<usize>,
    /// What the machine could give without swapping, now.
    pub free: Option<usize>,
    /// The least limit of the control groups that the process is in.
    pub group: Option<usize>,
}

impl SystemMemory {
    /// Asks the system.
    pub fn now() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let table = read("/proc/meminfo");
        Self {
            machine: row(&table, "MemTotal:"),
            free: row(&table, "MemAvailable:"),
            group: group_limit(Path::new("/sys/fs/cgroup"), &read("/proc/self/cgroup")),
        }
    }

    /// What this process may use.
    pub fn usable(&self) -> usize {
        [self.machine, self.group].into_iter().flatten().min().unwrap_or(UNKNOWN)
    }
}

/// What this process has in memory, in bytes; zeros where the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Now.
    pub resident: usize,
    /// At most so far.
    pub peak: usize,
}

impl ProcessMemory {
    /// Asks the system.
    pub fn now() -> Self {
        let table = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let read = |name| row(&table, name).unwrap_or(0);
        Self { resident: read("VmRSS:"), peak: read("VmHWM:") }
    }
}

/// Bytes of memory that this process may use. Read once.
pub(super) fn available() -> usize {
    static AVAILABLE: OnceLock<usize> = OnceLock::new();
    *AVAILABLE.get_or_init(|| SystemMemory::now().usable())
}

/// `MemTotal:  16303428 kB`
fn row(table: &str, name: &str) -> Option<usize> {
    let line = table.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// The least limit of the groups of `/proc/self/cgroup` and those around them: a line `0::/path` for version 2, one with
/// `memory` among its controllers for version 1. A container may show its own group as the root.
fn group_limit(mount: &Path, groups: &str) -> Option<usize> {
    let limits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let (folder, file) = match controllers {
            "" => (mount.to_owned(), "memory.max"),
            list if list.split(',').any(|name| name == "memory") => {
                (mount.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let ancestors = Path::new(path.trim_start_matches('/')).ancestors();
        let limits = ancestors.filter_map(|group| {
            let text = std::fs::read_to_string(folder.join(group).join(file)).ok()?;
            // `max` is none. Version 1 writes a number near 2^63 for none.
            text.trim().parse().ok().filter(|&limit: &usize| limit < UNKNOWN)
        });
        limits.min()
    });
    limits.min()
}

/// Memory that is shared out among models and runs.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
}

/// A part of a [`Budget`], given back when it is dropped.
#[derive(Debug)]
pub struct Reserved {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    /// All of it.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What is reserved now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// What is left.
    pub fn left(&self) -> usize {
        self.limit.saturating_sub(self.used())
    }

    /// Takes a part; `None` when there is not enough left.
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reserved> {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|&used| used <= self.limit)
        });
        taken.ok().map(|_| Reserved { budget: self.clone(), bytes })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};

    #[test]
    fn the_total_is_read_from_the_system_text() {
        let table = "MemTotal:       16303428 kB\nMemFree: 1 kB\n";
        assert_eq!(row(table, "MemTotal:"), Some(16_303_428 * 1024));
        assert_eq!(row("MemFree: 1 kB\n", "MemTotal:"), None);
        assert!(available() > 1 << 20);
        let process = ProcessMemory::now();
        assert!(process.resident > 1 << 16 && process.peak >= process.resident);
    }

    /// Files as in Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of Linux.
    #[test]
    fn limits_of_groups_and_of_those_around_them() {
        let mount = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = mount.path().join(path);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(path, text).unwrap();
        };
        let limit = |groups: &str| group_limit(mount.path(), groups);
        put("system.slice/kinglet.service/memory.max", "max\n");
        assert_eq!(limit("0::/system.slice/kinglet.service\n"), None);
        put("system.slice/memory.max", "1000000\n");
        assert_eq!(limit("0::/system.slice/kinglet.service\n"), Some(1_000_000));
        put("memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
        put("memory/memory.limit_in_bytes", "2000000\n");
        assert_eq!(limit("5:cpu,memory:/a/b\n3:pids:/x\n"), Some(2_000_000));
        // A path of the machine, seen from within a container.
        assert_eq!(limit("4:memory:/docker/0123\n"), Some(2_000_000));
        put("memory.max", "500\n");
        assert_eq!(limit("0::/\n"), Some(500));
        for hostile in ["", "::", "0::", "x", "0::/../../..\n", "4:memory"] {
            limit(hostile);
        }
    }

    #[test]
    fn a_budget_is_never_exceeded_and_gets_everything_back() {
        let budget = Budget::new(100);
        let first = budget.reserve(60).unwrap();
        assert!(budget.reserve(41).is_none() && budget.reserve(usize::MAX).is_none());
        let second = budget.reserve(40).unwrap();
        assert_eq!((budget.used(), budget.left()), (100, 0));
        drop((first, second));
        assert_eq!((budget.used(), budget.left(), budget.limit()), (0, 100, 100));
    }
}
