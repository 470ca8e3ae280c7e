//! A vault brought back from a copy: of `vault.age` itself, or of what `bailey vault export` made.

use anyhow::{Context as _, ensure};
use bailey_service::Misconfigured;
use bailey_trust::SealingKey;
use bailey_types::Timestamp;
use zeroize::Zeroizing;

use super::{Consent, Custody, admin, compared};
use crate::token::{self, Bearer};
use crate::vault::content::{self, Origin};
use crate::vault::file::VaultFile;
use crate::vault::{Deed, Document};

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
    consent: Consent,
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
    let opened = content::open_of_anybody(copy, &key);
    let (mut document, origin) =
        opened.map_err(|reason| wrong(&format!("the copy cannot be used: {reason}")))?;
    content::check_stack(&document, &custody.trust.stack).map_err(|reason| {
        wrong(&format!(
            "the copy cannot be used: {reason}; make the new stack under the old one's name (BAILEY_STACK)"
        ))
    })?;
    ensure!(
        replace || custody.blob.is_none(),
        wrong(
            "there is a vault, and it is never written over by itself: --replace puts the copy in its place"
        )
    );
    let present = custody.document(&[&own]);
    let mut said: Vec<_> = doubts(origin).into_iter().map(str::to_owned).collect();
    said.push(heading(&present));
    let present = present.ok().flatten();
    let held = Held::of(custody, &document);
    let mut lines = compared::lines(&document, present.as_ref());
    lines.extend(held.line(&document, present.as_ref()));
    if lines.is_empty() {
        said.push("  in nothing".into());
    }
    said.extend(lines);
    if consent == Consent::Asked {
        return Ok(said.join("\n"));
    }
    if let Some(present) = present {
        carry_on(&mut document, present);
    }
    document.did_offline(Deed::Restored, now);
    let recipient = custody.trust.vault.clone();
    custody
        .save(&document, &[recipient], &[&own])
        .context("writing the vault")?;
    said.push(format!(
        "restored {}, {} and {}; {}",
        count(document.secrets.len(), "secret"),
        count(document.principals.len(), "principal"),
        count(document.tokens.len(), "API token"),
        held.outcome()
    ));
    Ok(said.join("\n"))
}

fn count(number: usize, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{s}")
}

/// What the admin token that is at hand opens once the copy is restored. The vault that is there says nothing of it: it may be anybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// The copy knows it.
    Good,
    /// The copy knows another.
    Another,
    /// There is none.
    Missing,
}

impl Held {
    fn of(custody: &Custody, copy: &Document) -> Self {
        let text = std::fs::read_to_string(custody.secret(admin::FILE)).map(Zeroizing::new);
        let Ok(text) = text else {
            return Self::Missing;
        };
        let bearer = Bearer::from(text.trim().to_owned());
        if token::is_admin(copy, &bearer) {
            Self::Good
        } else {
            Self::Another
        }
    }

    /// What changes of it, in a line like those of what else does.
    fn line(self, copy: &Document, present: Option<&Document>) -> Option<String> {
        if present.is_some_and(|present| present.admin_token == copy.admin_token) {
            return None;
        }
        let line = match self {
            Self::Good if present.is_some() => {
                "  good: the admin token in secrets/cli/admin.token, which the vault that is there does not know"
            }
            Self::Good => "  good: the admin token in secrets/cli/admin.token",
            Self::Another => {
                "  good: the copy's admin token, which is not the one in secrets/cli/admin.token: that one opens nothing then"
            }
            Self::Missing => {
                "  good: the copy's admin token; there is none in secrets/cli/admin.token"
            }
        };
        Some(line.to_owned())
    }

    const fn outcome(self) -> &'static str {
        match self {
            Self::Good => "the admin token is the one in secrets/cli/admin.token",
            Self::Another | Self::Missing => {
                "the admin token is the one of the copy, which is not in secrets/cli/admin.token: `bailey vault rotate-admin-token` makes another"
            }
        }
    }
}

/// What is to be known of a copy before it is believed.
fn doubts(origin: Origin) -> Option<&'static str> {
    match origin {
        Origin::Own => None,
        Origin::Unmarked => Some(
            "! the copy does not say who made it: an earlier version of this software did, or somebody who knows only the public key. Restore it only if you know where it comes from",
        ),
        Origin::Foreign => Some(
            "! who made the copy cannot be verified with the key that opens it. With a paper key that is always so: restore it only if you know where it comes from",
        ),
    }
}

fn heading(present: &anyhow::Result<Option<Document>>) -> String {
    match present {
        Ok(Some(_)) => "restored, the vault differs from the one that is there in this:".into(),
        Ok(None) => "there is no vault to compare with. Restored, all of this is good, whatever was revoked since the copy was made:".into(),
        // A vault that cannot be opened is what a copy is restored for.
        Err(reason) => format!(
            "{reason}. So there is nothing to compare with, and all of this is good, whatever was revoked since the copy was made:"
        ),
    }
}

/// Uids are given once, serials and revisions only grow: of two vaults, what was locked and what must be told is as the later one has it.
fn carry_on(restored: &mut Document, present: Document) {
    if present.lock.serial > restored.lock.serial {
        restored.lock = present.lock;
    }
    restored.revision = restored.revision.max(present.revision);
    restored.unrecorded = present.unrecorded;
}
