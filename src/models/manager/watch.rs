//! Sees changes in the base paths as they happen, so that an idle server need not look every second.
//!
//! Linux tells of changes in folders of its own file systems (inotify). Nothing is told of what another machine does to
//! a network file system, or of a link on the way to a folder that is pointed elsewhere; such paths are looked at as
//! often as asked.

use inotify::{Inotify, WatchDescriptor, WatchMask, Watches};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How often folders are looked at that are watched: what was missed is not missed for long.
pub(super) const WATCHED_POLL: Duration = Duration::from_secs(10);

/// File systems whose changes are all made by this machine.
const LOCAL: [&str; 12] =
    ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "overlay", "squashfs", "erofs", "vfat", "zfs"];

/// Folders that are watched.
pub(super) struct Watch {
    watches: Mutex<Watches>,
    known: Mutex<BTreeMap<PathBuf, WatchDescriptor>>,
    /// When the first change was seen that nobody has taken.
    changed: std::sync::Arc<Mutex<Option<Instant>>>,
}

impl Watch {
    /// `None` where the system does not watch. `wake` is called after each change.
    pub(super) fn start(wake: impl Fn() + Send + 'static) -> Option<Self> {
        let mut inotify = Inotify::init().ok()?;
        let watches = Mutex::new(inotify.watches());
        let changed: std::sync::Arc<Mutex<Option<Instant>>> = std::sync::Arc::default();
        let seen = changed.clone();
        let watch = move || {
            let mut buffer = [0; 4096];
            while inotify.read_events_blocking(&mut buffer).is_ok() {
                seen.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
                wake();
            }
        };
        thread::Builder::new().name("watch".into()).spawn(watch).ok()?;
        Some(Self { watches, known: Mutex::default(), changed })
    }

    /// Watches these folders and no others. True when no change in them can be missed.
    pub(super) fn set(&self, folders: &BTreeSet<PathBuf>) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|folder, descriptor| {
            let kept = folders.contains(folder);
            if !kept {
                // A folder that is gone is watched no more already.
                let _ = watches.remove(descriptor.clone());
            }
            kept
        });
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::CLOSE_WRITE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF;
        folders.iter().all(|folder| {
            let direct = folder.canonicalize().is_ok_and(|real| real == *folder);
            if !direct || !is_local(&mounts, folder) {
                return false;
            }
            // Also where it is known: the folder may be another one by now. The same one is the same watch.
            match watches.add(folder, mask) {
                Ok(descriptor) => {
                    known.insert(folder.clone(), descriptor);
                    true
                }
                Err(_) => false,
            }
        })
    }

    /// When the first change was seen since the last call of [`Watch::take`].
    pub(super) fn changed(&self) -> Option<Instant> {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the changes so far.
    pub(super) fn take(&self) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Whether a path is on a file system of this machine, by the table of `/proc/self/mountinfo`: mount point in the fifth
/// field, type after the dash.
fn is_local(mounts: &str, path: &Path) -> bool {
    let mount = |line: &str| {
        let (front, back) = line.split_once(" - ")?;
        let point = front.split(' ').nth(4)?.replace("\\040", " ");
        let kind = back.split(' ').next()?.to_owned();
        path.starts_with(&point).then_some((point.len(), kind))
    };
    // Of mounts at the same point the last one is seen.
    let nearest = mounts.lines().filter_map(mount).max_by_key(|(length, _)| *length);
    nearest.is_some_and(|(_, kind)| LOCAL.contains(&kind.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn new_folders_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let (sender, woken) = channel();
        let Some(watch) = Watch::start(move || {
            let _ = sender.send(());
        }) else {
            eprintln!("SKIPPED: nothing is watched here");
            return;
        };
        if !watch.set(&BTreeSet::from([base.clone()])) {
            eprintln!("SKIPPED: temporary files are on no file system that is watched");
            return;
        }
        assert_eq!(watch.changed(), None);
        std::fs::create_dir(base.join("1")).unwrap();
        woken.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(watch.changed().is_some());
        watch.take();
        assert!(watch.changed().is_none());
        assert!(!watch.set(&BTreeSet::from([base.join("missing")])));
        std::os::unix::fs::symlink(&base, base.join("link")).unwrap();
        assert!(!watch.set(&BTreeSet::from([base.join("link")])), "a link may be pointed elsewhere");
    }

    /// Lines as in proc_pid_mountinfo(5).
    #[test]
    fn file_systems_of_other_machines() {
        let mounts = "36 35 98:0 / / rw,noatime master:1 - ext4 /dev/root rw\n\
             40 36 0:1 / /models rw - nfs4 server:/models rw\n\
             41 40 0:2 / /models/own\\040one rw - tmpfs none rw\nbroken\n1 2 - \n";
        assert!(is_local(mounts, Path::new("/srv/m")));
        assert!(!is_local(mounts, Path::new("/models/m")));
        assert!(is_local(mounts, Path::new("/models/own one/m")));
        assert!(is_local(mounts, Path::new("/modelsx")));
        assert!(!is_local("", Path::new("/")));
    }
}
