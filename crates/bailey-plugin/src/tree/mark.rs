//! Telling whether a folder may have changed, without reading a file.

use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use bailey_types::{Blake3, Timestamp};

use super::{Error, MAX_DEPTH, MAX_FILES};

/// Most files and folders that are looked at.
const MAX_ENTRIES: usize = 2 * MAX_FILES;

/// File systems write down times as coarsely as this: a change that follows another so soon may leave no trace in them.
const COARSEST_TIME: Duration = Duration::from_secs(2);

/// What the system says of a folder and all that lies in it: paths, kinds, modes, sizes, inodes and times. As long as it is the same and
/// was settled, the files are too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    blake3: Blake3,
    newest: Timestamp,
}

impl Mark {
    /// The mark of `dir` as it is now.
    pub fn of(dir: &Path) -> Result<Self, Error> {
        let mut walk = Walk {
            hasher: blake3::Hasher::new(),
            newest: i64::MIN,
            entries: 0,
        };
        let metadata = fs::symlink_metadata(dir).map_err(|e| io(dir, e))?;
        walk.entry(dir, b"", &metadata)?;
        if metadata.is_dir() {
            walk.folder(dir, 0)?;
        }
        Ok(Self {
            blake3: Blake3(*walk.hasher.finalize().as_bytes()),
            newest: Timestamp(walk.newest),
        })
    }

    /// Whether every change was so long before `now` that the next one will show.
    pub fn settled(&self, now: Timestamp) -> bool {
        self.newest.plus(COARSEST_TIME) < now
    }
}

struct Walk {
    hasher: blake3::Hasher,
    newest: i64,
    entries: usize,
}

impl Walk {
    fn folder(&mut self, dir: &Path, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(refused(dir, "lies too deep"));
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(|e| io(dir, e))? {
            names.push(entry.map_err(|e| io(dir, e))?.file_name());
            if self.entries + names.len() > MAX_ENTRIES {
                return Err(refused(dir, "holds too many files and folders"));
            }
        }
        // A folder lists them in any order.
        names.sort_unstable();
        for name in names {
            let path = dir.join(&name);
            // A link is never followed.
            let metadata = fs::symlink_metadata(&path).map_err(|e| io(&path, e))?;
            self.entry(&path, name.as_bytes(), &metadata)?;
            if metadata.is_dir() {
                self.folder(&path, depth + 1)?;
            }
        }
        // Without an end, what lies in a folder could as well lie beside it.
        self.hasher.update(b"end");
        Ok(())
    }

    fn entry(&mut self, path: &Path, name: &[u8], metadata: &Metadata) -> Result<(), Error> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(refused(path, "is one file or folder too many"));
        }
        let length = u64::try_from(name.len()).unwrap_or(u64::MAX);
        self.hasher.update(&length.to_be_bytes()).update(name);
        for number in [
            u64::from(metadata.mode()),
            metadata.size(),
            metadata.dev(),
            metadata.ino(),
        ] {
            self.hasher.update(&number.to_be_bytes());
        }
        for time in [
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        ] {
            self.hasher.update(&time.to_be_bytes());
        }
        // The modification time is anybody's to set; the change time is the kernel's.
        let changed = metadata.ctime().saturating_mul(1000) + metadata.ctime_nsec() / 1_000_000;
        self.newest = self.newest.max(changed);
        Ok(())
    }
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        path: path.to_owned(),
        source,
    }
}

fn refused(path: &Path, problem: &'static str) -> Error {
    Error::Refused {
        path: path.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lib")).unwrap();
        fs::write(dir.path().join("run.py"), "one").unwrap();
        fs::write(dir.path().join("lib/a.py"), "a").unwrap();
        dir
    }

    #[test]
    fn a_folder_that_nobody_touches_keeps_its_mark_though_it_is_read() {
        let dir = folder();
        let before = Mark::of(dir.path()).unwrap();
        fs::read(dir.path().join("run.py")).unwrap();
        assert_eq!(Mark::of(dir.path()).unwrap(), before);
    }

    #[test]
    fn whatever_changes_in_a_folder_changes_its_mark() {
        type Change = fn(&Path);
        let changes: [Change; 8] = [
            |dir| fs::write(dir.join("run.py"), "longer").unwrap(),
            |dir| fs::write(dir.join("lib/b.py"), "").unwrap(),
            |dir| fs::remove_file(dir.join("lib/a.py")).unwrap(),
            |dir| fs::rename(dir.join("lib/a.py"), dir.join("a.py")).unwrap(),
            |dir| fs::create_dir(dir.join("empty")).unwrap(),
            |dir| fs::set_permissions(dir.join("run.py"), Permissions::from_mode(0o755)).unwrap(),
            |dir| symlink("run.py", dir.join("link")).unwrap(),
            // Other bytes of the same length in another file of the same name and times.
            |dir| {
                let (path, new) = (dir.join("run.py"), dir.join("new"));
                let times = fs::metadata(&path).unwrap().modified().unwrap();
                fs::write(&new, "two").unwrap();
                fs::File::options()
                    .write(true)
                    .open(&new)
                    .unwrap()
                    .set_modified(times)
                    .unwrap();
                fs::rename(new, path).unwrap();
            },
        ];
        for (index, change) in changes.iter().enumerate() {
            let dir = folder();
            let before = Mark::of(dir.path()).unwrap();
            change(dir.path());
            assert_ne!(Mark::of(dir.path()).unwrap(), before, "change {index}");
        }
    }

    #[test]
    fn a_mark_is_settled_once_the_next_change_must_show() {
        let dir = folder();
        let mark = Mark::of(dir.path()).unwrap();
        assert!(!mark.settled(mark.newest));
        assert!(!mark.settled(mark.newest.plus(COARSEST_TIME)));
        assert!(mark.settled(mark.newest.plus(Duration::from_secs(3))));
    }

    #[test]
    fn a_folder_that_is_gone_has_no_mark() {
        let dir = folder();
        assert!(matches!(
            Mark::of(&dir.path().join("gone")),
            Err(Error::Io { .. })
        ));
    }
}
