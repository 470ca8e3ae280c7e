//! A vault brought back from a copy: of `vault.age` itself, or of what `bailey vault export` made.

use anyhow::{Context as _, ensure};
use bailey_service::Misconfigured;
use bailey_trust::SealingKey;
use bailey_types::Timestamp;

use super::Custody;
use crate::vault::file::VaultFile;
use crate::vault::{Deed, Document, content};

/// Longest identity, with its line's end.
const IDENTITY_LIMIT_BYTES: usize = 4096;
/// An identity and a vault.
#[expect(
    clippy::cast_possible_truncation,
    reason = "32 MiB fit any usize of ours"
)]
pub const INPUT_LIMIT_BYTES: usize = VaultFile::LIMIT_BYTES as usize + IDENTITY_LIMIT_BYTES;

pub fn run(
    custody: &mut Custody,
    input: &[u8],
    replace: bool,
    now: Timestamp,
) -> anyhow::Result<String> {
    let wrong = |why: &str| Misconfigured(why.to_owned());
    ensure!(
        input.len() <= INPUT_LIMIT_BYTES,
        wrong("the copy is larger than a vault can be")
    );
    let end = input.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| wrong("standard input holds no copy of a vault"))?;
    let (identity, copy) = input.split_at(end);
    let copy = copy.strip_prefix(b"\n").unwrap_or(copy);
    let own = custody.own_key()?;
    let key = match identity {
        [] => own.clone(),
        text => {
            let text = std::str::from_utf8(text).map_err(|_| wrong("the identity is not text"))?;
            SealingKey::parse(text, "the given identity").map_err(|e| wrong(&e.to_string()))?
        }
    };
    let opened = content::open(copy, &key);
    let mut document =
        opened.map_err(|reason| wrong(&format!("the copy cannot be used: {reason}")))?;
    content::check_stack(&document, &custody.trust.stack).map_err(|reason| {
        wrong(&format!(
            "the copy cannot be used: {reason}; make the new stack under the old one's name (BAILEY_STACK)"
        ))
    })?;
    if custody.blob.is_some() {
        ensure!(
            replace,
            wrong(
                "there is a vault, and it is never written over by itself: --replace puts the copy in its place"
            )
        );
        // A vault that cannot be opened is what a copy is restored for.
        if let Ok(Some(present)) = custody.document(&[&own]) {
            keep_lock(&mut document, present);
        }
    }
    document.did_offline(Deed::Restored, now);
    let recipient = custody.trust.vault.clone();
    custody
        .save(&document, &[recipient], &[&own])
        .context("writing the vault")?;
    Ok(format!(
        "restored {} secrets, {} principals and {} API tokens; what was revoked since the copy was made is good again: look at `bailey vault list`; the admin token is the one of the copy (`bailey vault rotate-admin-token` makes another)",
        document.secrets.len(),
        document.principals.len(),
        document.tokens.len()
    ))
}

/// Uids are given once and serials only grow: of two vaults, what was locked is as the later one has it.
fn keep_lock(restored: &mut Document, present: Document) {
    if present.lock.serial > restored.lock.serial {
        restored.lock = present.lock;
    }
}
