//! Another admin token, for one that was lost or seen: whoever has the age key can make one (reference: ductile 7.4, 7.9).

use anyhow::Context as _;
use bailey_types::Timestamp;

use super::{Custody, no_vault};
use crate::durable::{self, Like};
use crate::token::Bearer;
use crate::vault::Deed;

/// Where the container `cli` finds it, in the folder of secrets.
pub const FILE: &str = "cli/admin.token";
/// The new one, until the vault knows it.
const NEXT: &str = "cli/admin.token.next";

pub fn run(custody: &mut Custody, now: Timestamp) -> anyhow::Result<String> {
    let key = custody.own_key()?;
    let mut document = custody.document(&[&key])?.ok_or_else(no_vault)?;
    let (path, next) = (custody.secret(FILE), custody.secret(NEXT));
    let token = Bearer::admin();
    // The token is on disk before the vault knows it: stopped in between, the old one is valid still; stopped later, a further run makes another.
    let folder = path.parent().context("no folder")?;
    let like = Like {
        mode: 0o400,
        owner_of: folder,
    };
    let text = zeroize::Zeroizing::new([token.expose(), "\n"].concat());
    durable::replace(&next, text.as_bytes(), like).context("writing the new admin token")?;
    document.admin_token = token.hash();
    document.did_offline(Deed::AdminTokenRotated, now);
    let own = custody.trust.vault.clone();
    custody.save(&document, &[own], &[&key])?;
    std::fs::rename(&next, &path).with_context(|| format!("replacing {}", path.display()))?;
    durable::sync_dir(folder)?;
    Ok("the new admin token is in secrets/cli/admin.token; the old one opens nothing".into())
}
