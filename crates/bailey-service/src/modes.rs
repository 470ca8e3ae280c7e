//! Whether the files that a service starts with are as they must be. A secret that others can read is none.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::Misconfigured;

/// Deepest folder below the configuration that is looked into.
const MAX_DEPTH: u32 = 8;

/// Refuses secrets that belong to somebody else, or that group or others can use.
pub fn check_secret_files(dir: &Path) -> Result<(), Misconfigured> {
    let uid = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(dir).map_err(|e| unreadable(dir, &e))? {
        let path = entry.map_err(|e| unreadable(dir, &e))?.path();
        let metadata = fs::metadata(&path).map_err(|e| unreadable(&path, &e))?;
        if metadata.is_file() {
            check_secret(&path, &metadata, uid)?;
        }
    }
    Ok(())
}

fn check_secret(path: &Path, metadata: &Metadata, uid: u32) -> Result<(), Misconfigured> {
    let (path, mode) = (path.display(), metadata.mode() & 0o7777);
    if metadata.uid() != uid {
        let owner = metadata.uid();
        return Err(Misconfigured(format!(
            "{path} belongs to uid {owner}; this service runs as uid {uid}: `make up` sets its owner"
        )));
    }
    if mode & 0o077 != 0 {
        return Err(Misconfigured(format!(
            "{path} has mode {mode:04o}; others could use it: `make up` gives it 0400"
        )));
    }
    Ok(())
}

/// Refuses a configuration that everybody may write.
pub fn check_config_dir(dir: &Path) -> Result<(), Misconfigured> {
    check_config(dir, 0)
}

/// Refuses a configuration that could never be locked. What is in force is the lock; a mistake in the files is told by every service, so that
/// the operator hears of it wherever he looks first.
pub fn check_config_files(dir: &Path) -> Result<(), Misconfigured> {
    bailey_config::read_dir(dir)
        .and_then(|files| bailey_config::parse(&files.texts))
        .map(|_| ())
        .map_err(|e| Misconfigured(e.to_string()))
}

fn check_config(path: &Path, depth: u32) -> Result<(), Misconfigured> {
    let metadata = fs::metadata(path).map_err(|e| unreadable(path, &e))?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o002 != 0 {
        let path = path.display();
        return Err(Misconfigured(format!(
            "{path} has mode {mode:04o}: everybody could change it; `chmod o-w {path}`"
        )));
    }
    // A link may lead anywhere: what it leads to is looked at, what lies below that is not ours.
    let link = fs::symlink_metadata(path)
        .map_err(|e| unreadable(path, &e))?
        .is_symlink();
    if !metadata.is_dir() || link || depth == MAX_DEPTH {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(|e| unreadable(path, &e))? {
        check_config(&entry.map_err(|e| unreadable(path, &e))?.path(), depth + 1)?;
    }
    Ok(())
}

fn unreadable(path: &Path, error: &io::Error) -> Misconfigured {
    Misconfigured(format!("{} cannot be read: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("age.key");
        fs::write(&path, "x").unwrap();
        for (mode, fits) in [
            (0o400, true),
            (0o600, true),
            (0o440, false),
            (0o404, false),
            (0o640, false),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(check_secret_files(dir.path()).is_ok(), fits, "{mode:o}");
        }
        let error = check_secret_files(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("age.key") && error.contains("0640") && error.contains("`make up`"),
            "{error}"
        );
    }

    #[test]
    fn a_secret_of_somebody_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("age.key");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert!(check_secret(&path, &metadata, metadata.uid()).is_ok());
        let error = check_secret(&path, &metadata, metadata.uid() + 1)
            .unwrap_err()
            .to_string();
        assert!(error.contains("`make up` sets its owner"), "{error}");
    }

    #[test]
    fn a_configuration_that_everybody_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("plugins");
        fs::create_dir(&inner).unwrap();
        let path = inner.join("a.yaml");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(check_config_dir(dir.path()).is_ok());
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        assert!(
            check_config_dir(dir.path())
                .unwrap_err()
                .to_string()
                .contains("a.yaml")
        );
    }

    #[test]
    fn files_that_could_never_be_locked_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_config_files(dir.path()).is_err());
        let path = dir.path().join("config.yaml");
        fs::write(&path, "accounts:\n  default: {}\n").unwrap();
        assert!(check_config_files(dir.path()).is_ok());
        fs::write(&path, "accounts:\n  default: {surprise: 1}\n").unwrap();
        let error = check_config_files(dir.path()).unwrap_err().to_string();
        assert!(error.contains("config.yaml:2:"), "{error}");
    }
}
