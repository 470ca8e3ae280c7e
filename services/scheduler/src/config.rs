//! The configuration files on disk: refused at start where they are wrong. Engine and policy say where they differ from what is locked.

use std::path::Path;

use bailey_service::Misconfigured;

/// Refuses files that could not be locked.
pub fn check(dir: &Path) -> Result<(), Misconfigured> {
    let files = bailey_config::read_dir(dir).map_err(|e| Misconfigured(e.to_string()))?;
    bailey_config::parse(&files.texts).map_err(|e| Misconfigured(e.to_string()))?;
    Ok(())
}
