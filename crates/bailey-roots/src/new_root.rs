//! A new root CA for a stack that stands still. Everything else stays: age key, signing and sealing keys, enrolment secrets.
//!
//! All five files are written beside the old ones first. A marker says that they are complete; from then on every step can be done again,
//! so that whenever the machine stops there is the old root or the new one, and `finish` ends what was begun.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bailey_trust::TrustFile;
use bailey_types::Timestamp;

use crate::files::{self, Mode, exists, failed};
use crate::{Error, certificates};

/// In `secrets_dir` while the new files take their places.
const MARKER: &str = ".new-root-complete";

/// The marker while it is written.
const UNNAMED: &str = ".new-root-unfinished";

/// What the names of the new files end in until they take their places.
const NEW: &str = ".new-root";

/// The files that hang on the root.
const NAMES: [(&str, Mode); 5] = [
    ("root-ca.key.age", Mode::Secret),
    ("intermediate.key.age", Mode::Secret),
    ("intermediate.pem", Mode::Secret),
    ("ca.pem", Mode::Public),
    ("trust.json", Mode::Public),
];

/// Makes a new root CA and an intermediate under it. The old files are kept as `<name>.old-<time>`; answers their paths.
///
/// Nothing of the stack may run: a service that knows the old root refuses one that shows the new.
pub fn make(config_dir: &Path, secrets_dir: &Path, now: Timestamp) -> Result<Vec<PathBuf>, Error> {
    let _lock = files::lock(secrets_dir)?;
    if is_begun(secrets_dir) {
        return take_places(config_dir, secrets_dir);
    }
    let missing = files::survey(config_dir, secrets_dir).missing;
    if !missing.is_empty() {
        return Err(Error::Missing(missing));
    }
    let mut trust = TrustFile::read(&config_dir.join("trust.json"))?;
    let authority = certificates::make(&trust.stack, now)?;
    trust.root_ca_pem.clone_from(&authority.root);
    let seal = |pem: &str| trust.vault.seal(pem.as_bytes()).map_err(Error::Seal);
    let drafts = [
        seal(&authority.root_key)?,
        seal(&authority.intermediate.key)?,
        authority.intermediate.certificate.into_bytes(),
        authority.root.into_bytes(),
        crate::trust_text(&trust)?,
    ];
    for ((name, mode), bytes) in NAMES.into_iter().zip(drafts) {
        write(
            &place(config_dir, secrets_dir, name, mode, NEW),
            mode,
            &bytes,
        )?;
    }
    files::sync_dir(config_dir)?;
    files::sync_dir(secrets_dir)?;
    let stamp = (now.0 / 1000).to_string();
    let (unnamed, marker) = (secrets_dir.join(UNNAMED), secrets_dir.join(MARKER));
    write(&unnamed, Mode::Secret, stamp.as_bytes())?;
    fs::rename(&unnamed, &marker).map_err(failed("making", &marker))?;
    files::sync_dir(secrets_dir)?;
    take_places(config_dir, secrets_dir)
}

/// Ends what an interrupted [`make`] began, if its files were complete. Whether there was such a thing.
pub fn finish(config_dir: &Path, secrets_dir: &Path) -> Result<bool, Error> {
    if !is_begun(secrets_dir) {
        return Ok(false);
    }
    let _lock = files::lock(secrets_dir)?;
    take_places(config_dir, secrets_dir)?;
    Ok(true)
}

/// Whether a new root was begun whose files have not all taken their places yet: [`finish`] must run before anything else touches them.
pub fn is_begun(secrets_dir: &Path) -> bool {
    exists(&secrets_dir.join(MARKER))
}

fn take_places(config_dir: &Path, secrets_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let marker = secrets_dir.join(MARKER);
    let stamp = fs::read_to_string(&marker).map_err(failed("reading", &marker))?;
    let mut kept = Vec::new();
    for (name, mode) in NAMES {
        let new = place(config_dir, secrets_dir, name, mode, NEW);
        let now = place(config_dir, secrets_dir, name, mode, "");
        let old = place(
            config_dir,
            secrets_dir,
            name,
            mode,
            &format!(".old-{stamp}"),
        );
        if exists(&new) {
            own(&new, &marker)?;
            // A second name for the old file, so that there is one at `now` at every moment.
            match fs::hard_link(&now, &old) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                    return Err(failed("keeping", &now)(e));
                }
                Ok(()) | Err(_) => {}
            }
            fs::rename(&new, &now).map_err(failed("replacing", &now))?;
        }
        kept.push(old);
    }
    files::sync_dir(config_dir)?;
    files::sync_dir(secrets_dir)?;
    remove(&marker)?;
    files::sync_dir(secrets_dir)?;
    Ok(kept)
}

fn place(config_dir: &Path, secrets_dir: &Path, name: &str, mode: Mode, suffix: &str) -> PathBuf {
    files::path(config_dir, secrets_dir, &format!("{name}{suffix}"), mode)
}

fn write(path: &Path, mode: Mode, bytes: &[u8]) -> Result<(), Error> {
    // Of a run that was stopped before its files were complete.
    remove(path)?;
    files::create(path, mode, bytes).map_err(failed("writing", path))
}

/// Others may make files in the configuration's folder: a draft is one of ours only if whoever made the marker made it.
fn own(draft: &Path, marker: &Path) -> Result<(), Error> {
    let look = |path| fs::symlink_metadata(path).map_err(failed("looking at", path));
    let (found, ours) = (look(draft)?, look(marker)?);
    if found.is_file() && found.uid() == ours.uid() {
        return Ok(());
    }
    Err(Error::Foreign(draft.to_owned()))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(failed("removing", path)(e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
