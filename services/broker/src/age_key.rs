//! The key that opens the vault and the intermediate CA's key: the one secret that nothing else in the stack can replace.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bailey_error::Chain;
use bailey_trust::{SealingKey, SealingRecipient};
use zeroize::Zeroizing;

/// Largest of the small things that are sealed to the age key beside the vault: keys of the CA, and the intermediate with those before it.
pub const SEALED_LIMIT_BYTES: usize = 256 << 10;

/// The root CA's key, as `init` made it, in the folder of secrets. Sealed to the age key.
pub const ROOT_KEY: &str = "root-ca.key.age";

/// The intermediate CA, once it was replaced, in the broker's data folder. Sealed to the age key.
pub const INTERMEDIATE: &str = "intermediate.age";

/// Larger than any identity file with its comments.
const LIMIT_BYTES: usize = 16 << 10;

/// Reads the broker's key file. The error is the reason why the broker is sealed, for the operator: it never holds anything of the key.
pub fn read(path: &Path, expected: &SealingRecipient) -> Result<SealingKey, String> {
    let key = read_private(path, |metadata| check_owner(path, metadata))?;
    if key.recipient() != *expected {
        return Err(format!(
            "{} is another key than the one that this stack was made with ({expected}); or a rotation was interrupted: `bailey vault rotate-key` finishes it",
            path.display()
        ));
    }
    Ok(key)
}

/// Reads a key file that nobody but its owner can use; what else must hold of it, `check` says.
pub fn read_private(
    path: &Path,
    check: impl FnOnce(&Metadata) -> Result<(), String>,
) -> Result<SealingKey, String> {
    let shown = path.display();
    let unreadable = |e: std::io::Error| format!("{shown} cannot be read: {e}");
    // What was looked at is what is read, whatever happens to the name meanwhile.
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "{shown} has mode {mode:04o}; nobody but its owner may have it: 0400"
        ));
    }
    check(&metadata)?;
    let mut text = Zeroizing::new(String::with_capacity(LIMIT_BYTES + 1));
    let size = file
        .take(LIMIT_BYTES as u64 + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if size > LIMIT_BYTES {
        return Err(format!(
            "{shown} is no key: it has more than {LIMIT_BYTES} bytes"
        ));
    }
    SealingKey::parse(&text, &shown.to_string()).map_err(|e| Chain(&e).to_string())
}

/// Who owns a file can give it any mode: only our own is private.
fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), String> {
    let (owner, ours) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner == ours {
        return Ok(());
    }
    Err(format!(
        "{} belongs to uid {owner}; it must belong to the broker's, {ours}: `make up` sets its owner",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("age.key");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn the_right_key_in_a_private_file_is_read() {
        let key = SealingKey::generate();
        let (_dir, path) = file(&key.to_file_text(), 0o400);
        assert!(read(&path, &key.recipient()).is_ok());
    }

    #[test]
    fn a_missing_empty_open_or_wrong_key_is_refused_with_its_reason() {
        let (key, other) = (SealingKey::generate(), SealingKey::generate());
        let expected = key.recipient();
        let reason = |text: &str, mode: u32| {
            let (_dir, path) = file(text, mode);
            read(&path, &expected).unwrap_err()
        };
        assert!(reason("", 0o400).contains("is empty"));
        assert!(reason("hunter2", 0o400).contains("does not hold an age identity"));
        assert!(reason(&key.to_file_text(), 0o440).contains("mode 0440"));
        let another = reason(&other.to_file_text(), 0o400);
        // Both look the same from here: the broker does not see the folder of the secrets.
        assert!(another.contains("another key") && another.contains("rotate-key"));
        let missing = read(Path::new("/nonexistent/age.key"), &expected).unwrap_err();
        assert!(missing.contains("cannot be read"), "{missing}");
    }

    #[test]
    fn a_key_of_somebody_else_is_refused() {
        let key = SealingKey::generate();
        let (_dir, path) = file(&key.to_file_text(), 0o400);
        assert_eq!(check_owner(&path, &path.metadata().unwrap()), Ok(()));
        // Whoever runs the tests, init's own files are another's: pid 1 is root's, and a test of root's asks for nobody's.
        let theirs = Path::new("/proc/1").metadata().unwrap();
        if theirs.uid() == rustix::process::geteuid().as_raw() {
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        }
        let metadata = if rustix::process::geteuid().is_root() {
            path.metadata().unwrap()
        } else {
            theirs
        };
        let reason = check_owner(&path, &metadata).unwrap_err();
        assert!(reason.contains("belongs to uid"), "{reason}");
        assert!(reason.contains("`make up` sets its owner"), "{reason}");
    }

    #[test]
    fn what_is_too_large_is_no_key() {
        let (_dir, path) = file(&"#".repeat(LIMIT_BYTES + 1), 0o400);
        let reason = read(&path, &SealingKey::generate().recipient()).unwrap_err();
        assert!(reason.contains("more than"), "{reason}");
    }

    #[test]
    fn no_reason_quotes_the_file() {
        let key = SealingKey::generate();
        let text = key.to_file_text();
        let secret = text.lines().last().unwrap();
        let (_dir, path) = file(&secret.replace("AGE-", "AGE-X"), 0o400);
        let reason = read(&path, &key.recipient()).unwrap_err();
        assert!(!reason.contains(&secret[20..30]), "{reason}");
    }
}
