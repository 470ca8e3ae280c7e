//! Signing the lock: first a preview with a code, then the signature on exactly what was previewed.

mod walls;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bailey_error::{Classify, Kind};
use bailey_proto::trust::v1::Signed;
use bailey_trust::{
    Lock, LockProposal, LockedPlugin, MAX_SERVICES, ProposedPlugin, SigningKey, Statement as _,
    StatementError,
};
use bailey_types::{PluginName, Serial, StackId, Timestamp};

use crate::change;
use crate::ticket::tree_mac;
use crate::vault::{self, Document, LockState, Nonce, Uids};

/// Why a lock is not proposed or signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not what the CLI sends.
    #[error("the proposal is malformed: {0}")]
    Malformed(String),
    /// A configuration that no service could run with.
    #[error("the configuration cannot be locked: {0}")]
    Config(String),
    /// More than a lock can carry.
    #[error(
        "the lock would be {size_bytes} bytes; at most {} are allowed",
        Lock::LIMIT_BYTES
    )]
    TooLarge {
        /// What it would be.
        size_bytes: usize,
    },
    /// Every uid was given.
    #[error("no uid is left to give: the last one is {}", Notary::LAST_UID)]
    NoUid,
    /// Not the code of what was proposed last.
    #[error("no proposal has this code: run the command without a code to preview it again")]
    NoSuchCode,
    /// The vault is not open.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// The vault does not remember it, or the audit log has no record of it.
    #[error(transparent)]
    Change(#[from] change::Error),
    /// The signature could not be made.
    #[error("signing the lock")]
    Sign(#[source] StatementError),
    /// The lock cannot be written as JSON.
    #[error("writing the lock")]
    Encode(#[source] serde_json::Error),
}

impl Error {
    /// The reason of a refusal as a stable token, for the audit log; `None`: it is no refusal, but something that fails.
    pub const fn token(&self) -> Option<&'static str> {
        match self {
            Self::Malformed(_) => Some("malformed"),
            Self::Config(_) => Some("bad_config"),
            Self::TooLarge { .. } => Some("too_large"),
            Self::NoUid => Some("no_uid"),
            Self::NoSuchCode => Some("no_such_code"),
            Self::Change(change::Error::Vault(vault::Error::Refused(why))) => Some(why.token()),
            Self::Vault(_) | Self::Change(_) | Self::Sign(_) | Self::Encode(_) => None,
        }
    }
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Malformed(_) | Self::Config(_) | Self::TooLarge { .. } => Kind::InvalidArgument,
            Self::NoUid => Kind::ResourceExhausted,
            Self::NoSuchCode => Kind::FailedPrecondition,
            Self::Vault(error) => error.kind(),
            Self::Change(error) => error.kind(),
            Self::Sign(_) | Self::Encode(_) => Kind::Internal,
        }
    }
}

/// A lock as it would be signed.
#[derive(Clone, Debug)]
pub struct Proposed {
    /// Names exactly this lock, whenever it is proposed.
    pub code: String,
    /// The lock; `signed_at` is the time of the proposal.
    pub lock: Lock,
    /// The vault's lock state that it is built on.
    base: LockState,
    /// The vault's lock state once it is signed.
    next: LockState,
}

/// Signs locks.
#[derive(Debug)]
pub struct Notary {
    stack: StackId,
    key: SigningKey,
    /// What was proposed last, newest last. In memory only: a code of an earlier life names nothing.
    pending: Mutex<VecDeque<Proposed>>,
}

impl Notary {
    /// Last uid given to a plugin; above are `nobody` and what systems reserve.
    pub const LAST_UID: u32 = 59_999;
    const PENDING_LIMIT: usize = 4;
    /// 32 symbols; none is taken for another.
    const SYMBOLS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

    /// A notary of the stack, who signs with the broker's key.
    pub fn new(stack: StackId, key: SigningKey) -> Self {
        Self {
            stack,
            key,
            pending: Mutex::default(),
        }
    }

    /// Completes a proposal and keeps it until it is signed. `present` is the lock that is in force, if there is a valid one.
    pub fn propose(
        &self,
        vault: &Document,
        present: Option<&Lock>,
        proposal: LockProposal,
        now: Timestamp,
    ) -> Result<Proposed, Error> {
        check_config(&proposal)?;
        let mut next = merged(&vault.lock, present);
        next.serial = Serial(next.serial.0 + 1);
        let mut plugins = BTreeMap::new();
        for (name, proposed) in proposal.plugins {
            let uids = give(&mut next, &name)?;
            if proposed.reset_state {
                uids.state_generation += 1;
            }
            plugins.insert(name, locked(proposed, *uids, &vault.nonce));
        }
        let lock = Lock {
            version: 1,
            stack: self.stack.clone(),
            serial: next.serial,
            signed_at: now,
            config_files: proposal.config_files,
            plugins,
            next_uid: next.next_uid,
        };
        let code = code(&lock, &vault.nonce)?;
        let proposed = Proposed {
            code,
            lock,
            base: vault.lock.clone(),
            next,
        };
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.retain(|other| other.code != proposed.code);
        while pending.len() >= Self::PENDING_LIMIT {
            pending.pop_front();
        }
        pending.push_back(proposed.clone());
        Ok(proposed)
    }

    /// Signs the proposal that `code` names. What is signed must not leave before the vault remembers it: [`Signing::remember`].
    pub fn sign(&self, code: &str, now: Timestamp) -> Result<Signing, Error> {
        let code = normal(code);
        let proposed = {
            let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            let proposed = pending.iter().find(|proposed| proposed.code == code);
            proposed.cloned().ok_or(Error::NoSuchCode)?
        };
        let Proposed {
            mut lock,
            base,
            next,
            ..
        } = proposed;
        lock.signed_at = now;
        let signed = bailey_trust::sign(&lock, &self.key).map_err(Error::Sign)?;
        Ok(Signing {
            lock,
            signed,
            base,
            next,
        })
    }

    /// The lock that `code` named is signed: it is not signed twice.
    pub fn signed(&self, code: &str) {
        let code = normal(code);
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.retain(|proposed| proposed.code != code);
    }
}

/// A signature that has not left yet.
#[derive(Debug)]
pub struct Signing {
    /// What is signed.
    pub lock: Lock,
    /// It, signed.
    pub signed: Signed,
    base: LockState,
    next: LockState,
}

impl Signing {
    /// Has the vault remember serial and uids, unless another lock was signed since this one was proposed.
    pub fn remember(&self, document: &mut Document) -> Result<(), vault::Refused> {
        document.advance_lock(&self.base, self.next.clone())
    }
}

/// A code as it was given out, however it was typed.
fn normal(code: &str) -> String {
    code.trim().replace('-', "").to_ascii_uppercase()
}

/// Reads a proposal, strictly.
pub fn parse(text: &[u8]) -> Result<LockProposal, Error> {
    bailey_trust::strict_json::check(text).map_err(|e| Error::Malformed(e.to_string()))?;
    serde_json::from_slice(text).map_err(|e| Error::Malformed(e.to_string()))
}

/// A lock that no service could use, or that leaves a plugin out, is refused before anybody previews it.
fn check_config(proposal: &LockProposal) -> Result<(), Error> {
    let config =
        bailey_config::parse(&proposal.config_files).map_err(|e| Error::Config(e.to_string()))?;
    for (name, plugin) in config.enabled_plugins() {
        let proposed = proposal.plugins.get(name).ok_or_else(|| {
            Error::Config(format!(
                "the plugin {name} is enabled, but not proposed to be locked"
            ))
        })?;
        if proposed.account != plugin.run_as {
            let (there, here) = (&plugin.run_as, &proposed.account);
            let why = format!("the plugin {name} runs as {there}, but is proposed as {here}");
            return Err(Error::Config(why));
        }
        walls::check(&config, plugin, proposed)
            .map_err(|why| Error::Config(format!("the plugin {name} {why}")))?;
    }
    let services = proposal.plugins.values();
    let services = services.filter(|plugin| plugin.walls.service.is_some());
    let services = services.count();
    if services > MAX_SERVICES {
        let why = format!("{services} services are proposed; at most {MAX_SERVICES} may be");
        return Err(Error::Config(why));
    }
    match proposal
        .plugins
        .keys()
        .find(|name| config.enabled_plugin(name).is_none())
    {
        Some(name) => Err(Error::Config(format!(
            "the plugin {name} is proposed, but not enabled"
        ))),
        None => Ok(()),
    }
}

/// The vault's lock state, or what the lock in force knows beyond it: a vault made anew must neither fall behind nor give a uid twice.
fn merged(vault: &LockState, present: Option<&Lock>) -> LockState {
    let mut state = vault.clone();
    let Some(lock) = present else { return state };
    state.serial = state.serial.max(lock.serial);
    state.next_uid = state.next_uid.max(lock.next_uid);
    for (name, plugin) in &lock.plugins {
        let uids = Uids {
            uid: plugin.uid,
            holder_uid: plugin.holder_uid,
            state_generation: plugin.state_generation,
        };
        let known = state.uids.entry(name.clone()).or_insert(uids);
        known.state_generation = known.state_generation.max(uids.state_generation);
    }
    state
}

fn give<'a>(state: &'a mut LockState, plugin: &PluginName) -> Result<&'a mut Uids, Error> {
    let next = state.next_uid;
    match state.uids.entry(plugin.clone()) {
        Entry::Occupied(known) => Ok(known.into_mut()),
        Entry::Vacant(_) if next + 1 > Notary::LAST_UID => Err(Error::NoUid),
        Entry::Vacant(new) => {
            state.next_uid += 2;
            Ok(new.insert(Uids {
                uid: next,
                holder_uid: next + 1,
                state_generation: 0,
            }))
        }
    }
}

fn locked(proposed: ProposedPlugin, uids: Uids, nonce: &Nonce) -> LockedPlugin {
    let tree_mac = tree_mac(nonce, &proposed.tree_blake3);
    LockedPlugin {
        // Done with this lock: whoever proposes the same again does not mean to reset it again.
        proposed: ProposedPlugin {
            reset_state: false,
            ..proposed
        },
        tree_mac,
        uid: uids.uid,
        holder_uid: uids.holder_uid,
        state_generation: uids.state_generation,
    }
}

/// The code of a lock: the same for the same content, whenever it is proposed. It is keyed, so that nobody can look for two locks with one code
/// outside of the broker; within it 40 bits are enough for the few that are pending.
fn code(lock: &Lock, nonce: &Nonce) -> Result<String, Error> {
    let timeless = Lock {
        signed_at: Timestamp(0),
        ..lock.clone()
    };
    let text = serde_json::to_vec(&timeless).map_err(Error::Encode)?;
    if text.len() > Lock::LIMIT_BYTES {
        return Err(Error::TooLarge {
            size_bytes: text.len(),
        });
    }
    let key = blake3::derive_key("bailey broker v1, code of a proposed lock", nonce.expose());
    let hash = blake3::keyed_hash(&key, &text);
    let mut bits = hash
        .as_bytes()
        .iter()
        .take(5)
        .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    let mut code = String::with_capacity(8);
    for _ in 0..8 {
        let symbol = Notary::SYMBOLS
            .iter()
            .cycle()
            .nth(usize::try_from(bits & 31).unwrap_or(0));
        code.extend(symbol.map(|byte| char::from(*byte)));
        bits >>= 5;
    }
    Ok(code)
}

#[cfg(test)]
mod tests;
