use std::fs::{File, create_dir, create_dir_all, hard_link, write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tempfile::TempDir;

use super::*;

const MIB: u64 = 1 << 20;

fn limit(total_bytes: u64, files: u32) -> StateLimit {
    StateLimit { total_bytes, files }
}

fn opened(dir: &Path) -> OwnedFd {
    File::open(dir).unwrap().into()
}

fn counted(dir: &TempDir, limit: StateLimit) -> Result<Kept, Usage> {
    let deadline = Instant::now() + Duration::from_secs(30);
    count(opened(dir.path()).as_fd(), limit, deadline)
}

fn kept(dir: &TempDir) -> Kept {
    counted(dir, limit(u64::MAX, 1000)).unwrap()
}

/// Bytes that are on the disk, whatever the file system would leave out.
fn noise(len: u64) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from(at.wrapping_mul(2_654_435_761) >> 7 & 0xff).unwrap())
        .collect()
}

#[test]
fn a_file_counts_what_it_has_on_the_disk_whatever_its_length() {
    let dir = tempfile::tempdir().unwrap();
    let empty = kept(&dir);
    assert_eq!(empty.files, 0);
    let sparse = File::create(dir.path().join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let with_sparse = kept(&dir);
    assert_eq!(with_sparse.files, 1);
    assert!(with_sparse.bytes - empty.bytes < MIB, "{with_sparse:?}");
    write(dir.path().join("full"), noise(2 * MIB)).unwrap();
    File::open(dir.path().join("full"))
        .unwrap()
        .sync_all()
        .unwrap();
    let with_full = kept(&dir);
    let grown = with_full.bytes - with_sparse.bytes;
    assert!((2 * MIB..3 * MIB).contains(&grown), "{grown}");
}

#[test]
fn a_file_with_many_names_counts_once_and_each_name_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    write(path("a"), noise(MIB)).unwrap();
    File::open(path("a")).unwrap().sync_all().unwrap();
    let once = kept(&dir);
    create_dir(path("in")).unwrap();
    for name in ["b", "c", "in/d"] {
        hard_link(path("a"), path(name)).unwrap();
    }
    let linked = kept(&dir);
    assert_eq!(linked.files, 5);
    assert!(linked.bytes - once.bytes < MIB, "{linked:?}");
}

#[test]
fn no_link_leads_out_or_around() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    write(outside.path().join("large"), noise(4 * MIB)).unwrap();
    symlink(outside.path(), dir.path().join("out")).unwrap();
    symlink(".", dir.path().join("around")).unwrap();
    symlink("nowhere", dir.path().join("nowhere")).unwrap();
    let found = kept(&dir);
    assert_eq!(found.files, 3);
    assert!(found.bytes < MIB, "{found:?}");
    // Nor is the state itself ever a link.
    assert!(enter(opened(dir.path()).as_fd(), c"out").unwrap().is_none());
}

#[test]
fn more_names_than_there_may_be_end_the_count() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..20 {
        write(dir.path().join(number.to_string()), b"").unwrap();
    }
    assert_eq!(counted(&dir, limit(MIB, 20)).unwrap().files, 20);
    assert_eq!(counted(&dir, limit(MIB, 19)), Err(Usage::Files));
}

#[test]
fn what_is_deeper_than_anything_has_a_use_for_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let nested = |depth: usize| {
        let names = vec!["d"; depth];
        create_dir_all(dir.path().join(names.join("/"))).unwrap();
    };
    nested(MAX_DEPTH - 1);
    let files = kept(&dir).files;
    assert_eq!(files, u64::try_from(MAX_DEPTH - 1).unwrap());
    nested(MAX_DEPTH);
    assert_eq!(counted(&dir, limit(MIB, 1000)), Err(Usage::Deep));
}

#[test]
fn a_count_ends_when_its_time_does() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path().join("a"), b"").unwrap();
    let root = opened(dir.path());
    let late = count(root.as_fd(), limit(MIB, 9), Instant::now());
    assert_eq!(late, Err(Usage::Slow));
}

#[test]
fn a_closed_folder_cannot_be_counted_and_a_closed_file_can() {
    let dir = tempfile::tempdir().unwrap();
    let close = |name: &str| {
        let path = dir.path().join(name);
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o000)).unwrap();
    };
    write(dir.path().join("file"), b"x").unwrap();
    close("file");
    assert_eq!(kept(&dir).files, 1);
    if rustix::process::geteuid().is_root() {
        // Nothing is closed to root; tests/it/quota.rs shows it with a plugin's own uid.
        return;
    }
    create_dir(dir.path().join("folder")).unwrap();
    close("folder");
    assert_eq!(counted(&dir, limit(MIB, 9)), Err(Usage::Unreadable));
}

#[test]
fn a_watch_ends_at_the_limit_and_not_below_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = opened(dir.path());
    let path = dir.path().join("grows");
    let writing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(1500));
        write(path, noise(3 * MIB)).unwrap();
    });
    let began = Instant::now();
    let found = watch(&root, limit(2 * MIB, 9)).unwrap();
    writing.join().unwrap();
    assert!(matches!(found, Usage::Bytes(_)), "{found:?}");
    assert!(began.elapsed() > Duration::from_millis(1500));
}

#[test]
fn what_is_kept_is_said_by_its_nearer_limit() {
    let usage = |bytes, files| Kept { bytes, files }.usage(limit(1000, 100));
    assert_eq!(usage(0, 0), Usage::Within(Percent::of(0, 1)));
    assert_eq!(usage(500, 10), Usage::Within(Percent::of(50, 100)));
    assert_eq!(usage(10, 50), Usage::Within(Percent::of(50, 100)));
    assert_eq!(usage(1000, 100), Usage::Within(Percent::of(1, 1)));
    assert_eq!(usage(1300, 1), Usage::Bytes(Excess::of(1300, 1000)));
}

#[test]
fn what_went_unseen_counts_on_a_nearly_full_disk_alone() {
    let gib = 1 << 30;
    let disk = |free| Disk {
        free,
        total: 1000 * gib,
    };
    let kept = |bytes| Kept { bytes, files: 0 };
    let (roomy, low) = (disk(500 * gib), disk(3 * gib));
    // A great deal went, and there is plenty.
    assert!(!roomy.lost(disk(900 * gib), kept(0), kept(0)));
    // It is low, and nothing went since.
    assert!(!low.lost(low, kept(0), kept(0)));
    // It is low, and what went is where it can be seen.
    assert!(!low.lost(disk(5 * gib), kept(2 * gib), kept(0)));
    // It is low, and nobody knows where it went.
    assert!(low.lost(disk(5 * gib), kept(0), kept(0)));
    // Small disks are low later.
    let small = Disk {
        free: 3 * gib,
        total: 10 * gib,
    };
    assert!(!small.is_low());
}
