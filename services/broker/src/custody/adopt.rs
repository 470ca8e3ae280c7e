//! A vault that the broker does not believe by itself, or whoever can write the volume could put it in place: one that does not say who wrote it, as
//! those of earlier versions of this software do not; and one of this stack that is earlier than the audit log knows.
//!
//! What proves where it comes from is the admin token: the vault has its hash, which nobody knows who never opened the right one.

use anyhow::ensure;
use bailey_service::Misconfigured;
use bailey_types::{Sha256, Timestamp};
use zeroize::Zeroizing;

use super::{Consent, Custody, admin, compared, no_vault};
use crate::token::{self, Bearer};
use crate::vault::content::{self, Origin};
use crate::vault::{Deed, Document};

pub fn run(
    custody: &mut Custody,
    consent: Consent,
    expected: Option<Sha256>,
    now: Timestamp,
) -> anyhow::Result<String> {
    let own = custody.own_key()?;
    let blob = custody.blob.as_ref().ok_or_else(no_vault)?;
    let found = Sha256::of(blob);
    ensure!(
        expected.is_none_or(|expected| expected == found),
        Misconfigured(format!(
            "vault.age is another file than the one that was shown (its sha256 is {found}): nothing was changed; find out who replaced it"
        ))
    );
    let unusable = |reason| Misconfigured(format!("vault.age cannot be used: {reason}"));
    let (mut document, origin) = content::open_of_anybody(blob, &own).map_err(unusable)?;
    content::check_stack(&document, &custody.trust.stack).map_err(unusable)?;
    let what = match origin {
        Origin::Unmarked => {
            "the vault does not say who wrote it, but it knows the admin token. Taken over, it counts as yours, with all of this:"
        }
        Origin::Own => {
            "the vault is this stack's own: take it over only if the broker says that it is earlier than the audit log knows, and you put it there. Then it counts as the vault of now, and all of this is good, whatever was revoked since:"
        }
        Origin::Foreign => {
            // It is not of an earlier version: somebody else wrote it, or it is another stack's.
            let reason = content::open(blob, &own).err();
            return Err(unusable(reason.unwrap_or_default()).into());
        }
    };
    check_admin_token(custody, &document)?;
    let mut said = vec![what.to_owned()];
    said.extend(compared::lines(&document, None));
    said.push(format!("sha256 {found}"));
    if consent == Consent::Asked {
        return Ok(said.join("\n"));
    }
    document.did_offline(Deed::Adopted, now);
    let recipient = custody.trust.vault.clone();
    custody.save(&document, &[recipient], &[&own])?;
    said.push("taken over: the broker opens it when it is started".into());
    Ok(said.join("\n"))
}

fn check_admin_token(custody: &Custody, document: &Document) -> anyhow::Result<()> {
    let path = custody.secret(admin::FILE);
    let shown = path.display();
    let text = std::fs::read_to_string(&path).map(Zeroizing::new);
    let text = text.map_err(|e| {
        Misconfigured(format!(
            "{shown} cannot be read ({e}): a vault that does not say who wrote it is taken over only if it knows the admin token that is there"
        ))
    })?;
    let bearer = Bearer::from(text.trim().to_owned());
    ensure!(
        token::is_admin(document, &bearer),
        Misconfigured(format!(
            "the vault does not know the admin token of {shown}: somebody who never opened this stack's vault made it, or it is of before the token was replaced. It is not taken over; restore a copy (docs/how-to/recovery.md)"
        ))
    );
    Ok(())
}
