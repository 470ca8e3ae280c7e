//! The newest lock that this service has seen, kept over restarts: an older one is never taken again.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bailey_types::Serial;

/// Why the newest serial cannot be remembered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("keeping the serial of the lock in {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{0} does not hold the serial of a lock")]
    Malformed(PathBuf),
}

/// The newest serial, in memory and in a file.
pub struct Remembered {
    path: PathBuf,
    newest: Mutex<Serial>,
}

impl Remembered {
    /// What the file holds; 0 where there is none yet.
    pub fn open(path: PathBuf) -> Result<Self, Error> {
        let newest = match std::fs::read_to_string(&path) {
            Ok(text) => text
                .trim()
                .parse()
                .map(Serial)
                .map_err(|_| Error::Malformed(path.clone()))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Serial(0),
            Err(source) => return Err(Error::File { path, source }),
        };
        Ok(Self {
            path,
            newest: Mutex::new(newest),
        })
    }

    /// The newest serial.
    pub fn newest(&self) -> Serial {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lock with this serial is about to be used. When this returns, the serial is on disk.
    pub fn seen(&self, serial: Serial) -> Result<(), Error> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if serial > *newest {
            let file = |source| Error::File {
                path: self.path.clone(),
                source,
            };
            write(&self.path, serial).map_err(file)?;
            *newest = serial;
        }
        Ok(())
    }
}

fn write(path: &Path, serial: Serial) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    writeln!(file, "{serial}")?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_serial_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock-serial");
        let remembered = Remembered::open(path.clone()).unwrap();
        assert_eq!(remembered.newest(), Serial(0));
        remembered.seen(Serial(7)).unwrap();
        remembered.seen(Serial(3)).unwrap();
        assert_eq!(Remembered::open(path.clone()).unwrap().newest(), Serial(7));
        std::fs::write(&path, "seven").unwrap();
        assert!(matches!(Remembered::open(path), Err(Error::Malformed(_))));
    }
}
