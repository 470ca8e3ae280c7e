//! How much a plugin keeps: the verb `probe state`, run as the plugin in a container that sees its state and cannot write to it.
//!
//! What is counted belongs to somebody who may change it meanwhile, and on purpose: nothing is opened by a path, no link is followed, and
//! every count has an end.

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bailey_cell::probe::Finding;
use bailey_cell::usage::{Excess, MAX_DEPTH, Percent, Usage, read_arguments};
use bailey_cell::{Pace, STATE};
use bailey_trust::StateLimit;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Longest count. A cold disk with a million files takes minutes; nobody needs that many.
const COUNT_TIME: Duration = Duration::from_mins(1);
/// Shortest and longest pause between two counts: what can be written unseen is what a disk takes in that time.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// A pause is so many times as long as the count before it, so that watching costs a fifth of what counting does.
const PAUSE_FACTOR: u32 = 4;
/// A folder that cannot be looked into in so many counts in a row stays so: programs close and open theirs.
const UNREADABLE_COUNTS: u32 = 3;
/// How long one probe watches; whoever wants to know more sends another.
const LIFE: Duration = Duration::from_hours(24);
/// What `st_blocks` counts in, whatever the file system's own blocks are (stat(3type)).
const BLOCK_BYTES: u64 = 512;
/// A disk is nearly full when less than a twentieth of it is free, and less than this.
const LOW_BYTES: u64 = 4 << 30;
/// On a nearly full disk, so much that went while it was watched and is in no file with a name is too much.
const UNSEEN_BYTES: u64 = 256 << 20;

/// Looks; the exit code is what was found.
pub fn run(arguments: &[&str]) -> ExitCode {
    let usage = read_arguments(arguments).and_then(|(limit, pace)| look(limit, pace));
    ExitCode::from(usage.map_or(Finding::Blind.code(), Usage::code))
}

fn look(limit: StateLimit, pace: Pace) -> Option<Usage> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = match rustix::fs::open(STATE, flags, Mode::empty()) {
        Ok(root) => root,
        // The plugin has closed it to itself.
        Err(Errno::ACCESS) => return Some(Usage::Unreadable),
        Err(_) => return None,
    };
    match pace {
        Pace::Once => {
            let counted = count(root.as_fd(), limit, Instant::now() + COUNT_TIME);
            Some(counted.map_or_else(|usage| usage, |kept| kept.usage(limit)))
        }
        Pace::Watching => watch(&root, limit),
    }
}

/// What a state holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kept {
    bytes: u64,
    files: u64,
}

impl Kept {
    fn usage(self, limit: StateLimit) -> Usage {
        if self.bytes > limit.total_bytes {
            return Usage::Bytes(Excess::of(self.bytes, limit.total_bytes));
        }
        let bytes = Percent::of(self.bytes, limit.total_bytes);
        Usage::Within(bytes.max(Percent::of(self.files, limit.files.into())))
    }
}

/// The disk that a state is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Disk {
    free: u64,
    total: u64,
}

impl Disk {
    fn of(root: &OwnedFd) -> Option<Self> {
        let found = rustix::fs::fstatvfs(root).ok()?;
        Some(Self {
            free: found.f_bavail.saturating_mul(found.f_frsize),
            total: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }

    fn is_low(self) -> bool {
        self.free < (self.total / 20).min(LOW_BYTES)
    }

    /// Whether it is nearly full, and much of what it lost since `before` is not in what is kept: a file that was removed while it is open
    /// is counted nowhere.
    fn lost(self, before: Self, kept: Kept, kept_before: Kept) -> bool {
        let gone = i128::from(before.free) - i128::from(self.free);
        let grown = i128::from(kept.bytes) - i128::from(kept_before.bytes);
        self.is_low() && gone - grown > i128::from(UNSEEN_BYTES)
    }
}

/// Counts again and again; ends when there is more than there may be, or after [`LIFE`].
fn watch(root: &OwnedFd, limit: StateLimit) -> Option<Usage> {
    let (until, disk_before) = (Instant::now() + LIFE, Disk::of(root)?);
    let (mut kept_before, mut unreadable) = (None, 0);
    loop {
        let began = Instant::now();
        let counted = count(root.as_fd(), limit, began + COUNT_TIME);
        unreadable = if counted == Err(Usage::Unreadable) {
            unreadable + 1
        } else {
            0
        };
        match counted {
            Ok(kept) => {
                let usage = kept.usage(limit);
                if !matches!(usage, Usage::Within(_)) || Instant::now() >= until {
                    return Some(usage);
                }
                let before = *kept_before.get_or_insert(kept);
                if Disk::of(root)?.lost(disk_before, kept, before) {
                    return Some(Usage::Disk);
                }
            }
            Err(Usage::Unreadable) if unreadable < UNREADABLE_COUNTS => {}
            Err(usage) => return Some(usage),
        }
        rest(root, began.elapsed() * PAUSE_FACTOR)?;
    }
}

/// Waits until it is time for the next count; on a nearly full disk that is soon.
fn rest(root: &OwnedFd, pause: Duration) -> Option<()> {
    let [shortest, longest] = PAUSES;
    let until = Instant::now() + pause.clamp(shortest, longest);
    loop {
        std::thread::sleep(shortest.min(until.saturating_duration_since(Instant::now())));
        if Instant::now() >= until || Disk::of(root)?.is_low() {
            return Some(());
        }
    }
}

/// Counts what is below `root`: the blocks that each file has on the disk, once for all its names; and the names.
fn count(root: BorrowedFd<'_>, limit: StateLimit, deadline: Instant) -> Result<Kept, Usage> {
    let mut kept = Kept::default();
    let mut seen = HashSet::new();
    let here = rustix::fs::fstat(root).map_err(|_| Usage::Unreadable)?;
    kept.bytes = blocks(&here);
    let mut folders = vec![enter(root, c".")?.ok_or(Usage::Unreadable)?];
    while let Some(folder) = folders.last_mut() {
        let Some(entry) = folder.read() else {
            folders.pop();
            continue;
        };
        let entry = match entry {
            Ok(entry) => entry,
            // Removed while it was read.
            Err(Errno::NOENT) => {
                folders.pop();
                continue;
            }
            Err(_) => return Err(Usage::Unreadable),
        };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if Instant::now() >= deadline {
            return Err(Usage::Slow);
        }
        let fd = folder.fd().map_err(|_| Usage::Unreadable)?;
        let stat = match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(_) => return Err(Usage::Unreadable),
        };
        kept.files += 1;
        if kept.files > limit.files.into() {
            return Err(Usage::Files);
        }
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_folder || stat.st_nlink < 2 || seen.insert(stat.st_ino) {
            kept.bytes = kept.bytes.saturating_add(blocks(&stat));
        }
        if !is_folder {
            continue;
        }
        let inner = enter(fd, name)?;
        if inner.is_some() && folders.len() >= MAX_DEPTH {
            return Err(Usage::Deep);
        }
        folders.extend(inner);
    }
    Ok(kept)
}

/// Opens a folder; `None`: it is none any more.
fn enter(fd: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<Option<Dir>, Usage> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(fd, name, flags, Mode::empty()) {
        Ok(folder) => Dir::new(folder).map(Some).map_err(|_| Usage::Unreadable),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(_) => Err(Usage::Unreadable),
    }
}

fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks)
        .unwrap_or_default()
        .saturating_mul(BLOCK_BYTES)
}

#[cfg(test)]
mod tests;
