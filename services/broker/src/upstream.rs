//! Keys of upstreams: which secret egress-proxy puts into what the stack's own services send, and whether it may have it now.
//!
//! Everything here computes; what is recorded is the business of `rpc`.

use std::collections::BTreeMap;

use bailey_config::Upstream;
use bailey_config::upstream::Key;
use bailey_error::{Classify, Kind};
use bailey_trust::Loaded;
use bailey_types::{PrincipalName, SecretName, Serial, Service, UpstreamName};

use crate::operation::{self, Asked};
use crate::posture::Posture;
use crate::vault::{self, Document, PrincipalKind, Value};
use crate::view::View;

/// A key that may go to egress-proxy.
#[derive(Debug)]
pub struct Released<'a> {
    /// The secret.
    pub secret: &'a SecretName,
    /// The principal that it is granted to.
    pub principal: &'a PrincipalName,
    /// Its value.
    pub value: &'a Value,
}

/// Why a key is not released. Whoever asked is told what the lock says anyway, and nothing of the vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Not in the broker's lock.
    #[error("no such upstream is locked")]
    NoSuchUpstream,
    /// It is called without a key.
    #[error("the upstream has no key")]
    NoKey,
    /// It is not called for this service.
    #[error("the upstream is not for this client")]
    WrongClient,
    /// There is no API token, or no vault at all: nobody works with such a hub.
    #[error("management-only: there is no API token; make one with `bailey token create`")]
    ManagementOnly,
    /// The vault cannot be opened.
    #[error("the vault is sealed; `bailey vault status` says why")]
    Sealed,
    /// An older lock was put back, which may name hosts that the last one does not.
    #[error("a later lock was signed than the one that is there: lock again")]
    StaleLock,
    /// Whoever asked goes by another lock, which may name another host.
    #[error("the broker and egress-proxy go by different locks for now: try again")]
    OtherLock,
    /// The vault does not give it.
    #[error("the vault does not release the key of the upstream")]
    Vault(operation::Denied),
}

impl Denied {
    /// For the audit log.
    pub const fn token(self) -> &'static str {
        match self {
            Self::NoSuchUpstream => "no_such_upstream",
            Self::NoKey => "no_key",
            Self::WrongClient => "wrong_client",
            Self::ManagementOnly => "management_only",
            Self::Sealed => "vault_sealed",
            Self::StaleLock => "stale_lock",
            Self::OtherLock => "other_lock",
            Self::Vault(denied) => denied.token(),
        }
    }
}

impl Classify for Denied {
    fn kind(&self) -> Kind {
        match self {
            Self::NoSuchUpstream | Self::NoKey | Self::WrongClient => Kind::NotFound,
            Self::ManagementOnly | Self::StaleLock | Self::Vault(_) => Kind::FailedPrecondition,
            Self::Sealed | Self::OtherLock => Kind::Unavailable,
        }
    }
}

/// The key of `upstream` for what `client` sends to where the lock with `serial` says. Secret and principal are the lock's, never the caller's.
pub fn release<'a>(
    vault: &'a vault::State,
    lock: &'a Loaded<View>,
    upstream: &UpstreamName,
    client: Service,
    serial: Serial,
) -> Result<Released<'a>, Denied> {
    let document = match vault {
        vault::State::Open(document) if Posture::of(vault) == Posture::Gateway => document,
        vault::State::Open(_) | vault::State::NoVault => return Err(Denied::ManagementOnly),
        vault::State::Sealed(_) => return Err(Denied::Sealed),
    };
    if document.lock.serial > lock.lock.serial {
        return Err(Denied::StaleLock);
    }
    if lock.lock.serial != serial {
        return Err(Denied::OtherLock);
    }
    let locked = lock.view.upstreams.get(upstream);
    let locked = locked.ok_or(Denied::NoSuchUpstream)?;
    if !locked.serves(client) {
        return Err(Denied::WrongClient);
    }
    let key = locked.key.as_ref().ok_or(Denied::NoKey)?;
    Ok(Released {
        secret: &key.secret,
        principal: &key.principal,
        value: granted(document, key).map_err(Denied::Vault)?,
    })
}

fn granted<'a>(document: &'a Document, key: &Key) -> Result<&'a Value, operation::Denied> {
    let asked = Asked {
        secret: key.secret.clone(),
        principal: key.principal.clone(),
    };
    operation::granted(document, &asked, &[PrincipalKind::Consumer])
}

/// The upstreams that would get no key, one sentence each.
pub fn missing(document: &Document, upstreams: &BTreeMap<UpstreamName, Upstream>) -> Vec<String> {
    let one = |(name, upstream): (&UpstreamName, &Upstream)| {
        let key = upstream.key.as_ref()?;
        let denied = granted(document, key).err()?;
        Some(format!(
            "the upstream {name} has no key: {}",
            why(denied, key)
        ))
    };
    upstreams.iter().filter_map(one).collect()
}

fn why(
    denied: operation::Denied,
    Key {
        secret, principal, ..
    }: &Key,
) -> String {
    use operation::Denied;
    match denied {
        Denied::NoSuchSecret => format!("there is no secret {secret}"),
        Denied::SecretRevoked => format!("the secret {secret} was revoked"),
        Denied::NoSuchPrincipal => format!("the principal {principal} is not registered"),
        Denied::PrincipalRevoked => format!("the principal {principal} was revoked"),
        Denied::WrongPrincipal => format!("the principal {principal} is no consumer"),
        Denied::NotGranted => format!("the secret {secret} is not granted to {principal}"),
    }
}

#[cfg(test)]
mod tests;
