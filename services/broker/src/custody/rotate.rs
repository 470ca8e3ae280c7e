//! Another age key (reference: ductile 7.9).
//!
//! The order: the new key lies beside the old one; the vault and the CA's keys are readable by both; `trust.json` names the new one; the
//! vault and the CA's keys are readable by the new one only; the new key takes the old one's place. `age.key.next` is there from the first
//! step to the last, so it says that a rotation is to be finished, and running it again finishes it from wherever it stopped.

use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use bailey_service::Misconfigured;
use bailey_trust::{SealingKey, SealingRecipient, seal_to};
use bailey_types::Timestamp;

use super::Custody;
use crate::age_key::{INTERMEDIATE, ROOT_KEY, SEALED_LIMIT_BYTES};
use crate::durable::{self, Failed, Like, failed, point};
use crate::vault::{Deed, Document, content};

/// The new key, until it is the key.
pub const NEXT: &str = "age.key.next";
/// Secrets that are sealed to the age key as the vault is.
const SEALED: [&str; 2] = [ROOT_KEY, "intermediate.key.age"];

pub fn run(custody: &mut Custody, now: Timestamp) -> anyhow::Result<String> {
    let old = Custody::key(&custody.secret("age.key"))?;
    let known = |key: &SealingKey| key.recipient() == custody.trust.vault;
    let next = custody.secret(NEXT);
    let unfinished = next.exists();
    ensure!(known(&old) || unfinished, custody.another_key());
    // What cannot be opened is found before anything is changed.
    if !unfinished {
        custody.document(&[&old])?;
    }
    let new = new_key(custody, &next)?;
    ensure!(
        known(&old) || known(&new),
        Misconfigured(format!(
            "neither age.key nor {NEXT} is the key that this stack was made with ({})",
            custody.trust.vault
        ))
    );
    let mut document = custody.document(&[&new, &old])?;
    // Once `trust.json` names the new key, an earlier run has made the bridge and crossed it.
    if !known(&new) {
        let bridge = [old.recipient(), new.recipient()];
        seal_all(custody, document.as_ref(), &bridge, &[&old, &new])?;
        name_in_trust(custody, &new)?;
    }
    // What the old key does not open any more, an earlier run has sealed together with the record of it.
    let first = custody
        .blob
        .as_ref()
        .is_some_and(|blob| content::open(blob, &old).is_ok());
    if let Some(document) = document.as_mut().filter(|_| first) {
        document.did_offline(Deed::KeyRotated, now);
    }
    seal_all(custody, document.as_ref(), &[new.recipient()], &[&new])?;
    retire(&custody.secret("age.key"), &next)?;
    Ok(format!(
        "the age key is now {}; the old one opens nothing that the stack uses any more, but it still opens copies made before, of the vault and of root-ca.key.age (secrets/*.old-* too): if it was seen together with those, make a new root as well (bailey pki new-root)",
        new.recipient()
    ))
}

/// The key of an interrupted run, or a new one, on disk before anything is sealed to it.
fn new_key(custody: &Custody, path: &Path) -> anyhow::Result<SealingKey> {
    durable::clear(path)?;
    if path.exists() {
        return Custody::key(path);
    }
    let key = SealingKey::generate();
    let like = Like {
        mode: 0o400,
        owner_of: &custody.secret("age.key"),
    };
    durable::replace(path, key.to_file_text().as_bytes(), like)?;
    Ok(key)
}

/// Makes vault and CA keys readable by the holders of `own`, each of which is tried before anything is written.
fn seal_all(
    custody: &mut Custody,
    document: Option<&Document>,
    own: &[SealingRecipient],
    keys: &[&SealingKey],
) -> anyhow::Result<()> {
    if let Some(document) = document {
        custody.save(document, own, keys)?;
    }
    for name in SEALED {
        seal_again(&custody.secret(name), 0o400, own, keys)?;
    }
    let path = custody.places.vault_dir.join(INTERMEDIATE);
    if path.exists() {
        seal_again(&path, 0o600, own, keys)?;
    }
    Ok(())
}

fn seal_again(
    path: &Path,
    mode: u32,
    own: &[SealingRecipient],
    keys: &[&SealingKey],
) -> anyhow::Result<()> {
    let shown = path.display();
    let blob = std::fs::read(path).with_context(|| format!("reading {shown}"))?;
    // One of them opens it: which depends on where an earlier run stopped.
    let mut opened = keys.iter().map(|key| key.open(&blob, SEALED_LIMIT_BYTES));
    let plain = opened
        .find_map(Result::ok)
        .ok_or_else(|| Misconfigured(format!("{shown} cannot be opened")))?;
    let sealed = seal_to(own, &plain).with_context(|| format!("sealing {shown}"))?;
    for key in keys {
        let read = key.open(&sealed, SEALED_LIMIT_BYTES);
        ensure!(
            read.is_ok_and(|read| read == plain),
            "{shown} as it would be written cannot be read back"
        );
    }
    let owner_of = path;
    Ok(durable::replace(path, &sealed, Like { mode, owner_of })?)
}

fn name_in_trust(custody: &mut Custody, new: &SealingKey) -> anyhow::Result<()> {
    custody.trust.vault = new.recipient();
    let text = bailey_roots::trust_text(&custody.trust)?;
    let path = custody.places.config_dir.join("trust.json");
    let like = Like {
        mode: 0o444,
        owner_of: &path,
    };
    Ok(durable::replace(&path, &text, like)?)
}

/// The new key takes the old one's place. The old one's bytes are written over: on disks that copy on write, and in backups, they stay.
fn retire(key: &Path, next: &Path) -> Result<(), Failed> {
    let permit = || std::fs::set_permissions(key, Permissions::from_mode(0o600));
    permit().map_err(failed("preparing to write over", key))?;
    let old = OpenOptions::new().write(true).open(key);
    let mut old = old.map_err(failed("opening", key))?;
    let size = old.metadata().map_err(failed("looking at", key))?.len();
    point!(key, "retiring");
    std::fs::rename(next, key).map_err(failed("replacing", key))?;
    point!(key, "retired");
    durable::sync_dir(key.parent().unwrap_or(Path::new(".")))?;
    let zeros = vec![0; usize::try_from(size).unwrap_or_default()];
    let wiped = old.write_all(&zeros).and_then(|()| old.sync_all());
    wiped.map_err(failed("writing over", key))
}
