//! The configuration files on disk: refused at start where they are wrong, and compared with what was locked.

use std::collections::BTreeMap;
use std::path::Path;

use bailey_service::Misconfigured;

/// Refuses files that could not be locked.
pub fn check(dir: &Path) -> Result<(), Misconfigured> {
    let files = bailey_config::read_dir(dir).map_err(|e| Misconfigured(e.to_string()))?;
    bailey_config::parse(&files.texts).map_err(|e| Misconfigured(e.to_string()))?;
    Ok(())
}

/// What to say where the files are not the locked ones.
pub fn difference(dir: &Path, locked: &BTreeMap<String, String>) -> Option<String> {
    let unchanged = bailey_config::read_dir(dir).is_ok_and(|files| files.texts == *locked);
    (!unchanged).then(|| "the configuration was changed since it was locked".to_owned())
}
