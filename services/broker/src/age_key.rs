//! The key that opens the vault and the intermediate CA's key: the one secret that nothing else in the stack can replace.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bailey_error::Chain;
use bailey_trust::{SealingKey, SealingRecipient};

/// Reads the key file. The error is the reason why the broker is sealed, for the operator: it never holds anything of the key.
pub fn read(path: &Path, expected: &SealingRecipient) -> Result<SealingKey, String> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).map_err(|e| format!("{shown} cannot be read: {e}"))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "{shown} has mode {mode:04o}; nobody but its owner may have it: 0400"
        ));
    }
    let key = SealingKey::read(path).map_err(|e| Chain(&e).to_string())?;
    if key.recipient().to_string() != expected.to_string() {
        return Err(format!(
            "{shown} is another key than the one that this stack was made with ({expected})"
        ));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
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
        assert!(reason(&other.to_file_text(), 0o400).contains("another key"));
        let missing = read(Path::new("/nonexistent/age.key"), &expected).unwrap_err();
        assert!(missing.contains("cannot be read"), "{missing}");
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
