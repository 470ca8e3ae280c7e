//! What the broker has in hand.

use std::cmp::Ordering;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bailey_error::Chain;
use bailey_service::{Context, Misconfigured};
use bailey_trust::{Consumed, LockSource, LockSourceError, SealingSession, SigningKey, TrustFile};
use bailey_types::{Clock, Serial, Service};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use tokio::sync::{Notify, watch};

use crate::issuer::Issuer;
use crate::lock::Notary;
use crate::presence::Roll;
use crate::proof;
use crate::record::Records;
use crate::ticket::Office;
use crate::vault::{Deed, Document, Error as VaultError, State as VaultState, Vault};
use crate::view::View;

/// The broker.
pub struct State {
    /// Secrets, principals, tokens.
    pub vault: Vault,
    /// Makes launch tickets.
    pub office: Office,
    /// Signs locks.
    pub notary: Notary,
    /// The lock in force.
    pub lock: LockSource<View>,
    /// How every service is.
    pub roll: Roll,
    /// Issues certificates, once the age key has opened the intermediate.
    pub issuer: OnceLock<Issuer>,
    /// The way to the audit log.
    pub records: Records,
    /// Signs origins.
    pub key: SigningKey,
    /// The public roots of trust.
    pub trust: Arc<TrustFile>,
    /// Where the time comes from.
    pub clock: Clock,
    /// How long a certificate is valid.
    pub lifetime: Duration,
    /// Somebody says that what was missing is there.
    pub look: Notify,
    /// There is something to tell the audit log.
    pub news: Notify,
    /// Held by whoever changes the vault, from the plan to the deed.
    pub changing: tokio::sync::Mutex<()>,
    /// Held by whoever has the vault compared with the audit log: from which entry on that was looked through (0: it was not).
    pub proving: tokio::sync::Mutex<u64>,
    /// How often it was tried.
    pub rounds: watch::Sender<u64>,
    /// What the operator is told may be another now.
    pub shown: Notify,
    /// When a lock was signed last in this life, by the steady clock.
    pub signed: Mutex<Option<Duration>>,
}

/// How long whoever had a lock signed has to put it in its place before it is told that it is not there.
const PLACING: Duration = Duration::from_secs(3);

impl State {
    /// Reads keys, vault and lock. A vault that cannot be opened is no error: the broker says so and runs.
    pub fn open(ctx: &Context, lifetime: Duration) -> anyhow::Result<Self> {
        let (settings, trust) = (&ctx.settings, &ctx.trust);
        let key = signing_key(&settings.secret_path("signing-broker"), trust)?;
        let vault = Vault::open(&settings.data_dir, &settings.secret_path("age.key"), trust)
            .context("opening the vault")?;
        let office = Office {
            policy: trust.signing.policy,
            key: key.clone(),
            socket_proxy: SealingSession::new(trust.socket_proxy.clone()),
            epoch: epoch(),
            consumed: Consumed::new(ctx.clock.clone()),
        };
        // The vault's own serial is compared with each lock at each ticket, so nothing needs to be remembered here.
        let lock = ctx.lock(Serial(0), View::of);
        Ok(Self {
            vault,
            office,
            notary: Notary::new(trust.stack.clone(), key.clone()),
            lock,
            roll: Roll::default(),
            issuer: OnceLock::new(),
            records: Records::default(),
            key,
            trust: Arc::clone(trust),
            clock: ctx.clock.clone(),
            lifetime,
            look: Notify::new(),
            news: Notify::new(),
            changing: tokio::sync::Mutex::default(),
            proving: tokio::sync::Mutex::default(),
            rounds: watch::Sender::default(),
            shown: Notify::new(),
            signed: Mutex::default(),
        })
    }

    /// What the vault holds, for whoever gives something from it.
    pub async fn proven(&self) -> Result<Arc<Document>, VaultError> {
        proof::tried(self).await;
        self.vault.proven()
    }

    /// Looks at the age key and the vault again. That a vault opened with it is noted for the audit log, whoever had it looked at.
    pub async fn unseal(&self) {
        let _alone = self.changing.lock().await;
        if !self.vault.unseal() {
            return;
        }
        tracing::info!("the vault was unsealed");
        self.news.notify_one();
        let Err(e) = self.vault.did_offline(Deed::Unsealed, self.clock.now()) else {
            return;
        };
        tracing::warn!(error = %Chain(&e), "could not note in the vault that it was unsealed");
        // It may be there all the same, and is told from there. On a disk that takes nothing the memory of this process is all there is.
        if !matches!(e, VaultError::Uncertain(_)) {
            self.records.note(Deed::Unsealed.kind(), &json!({}));
        }
    }

    /// What plugins and upstreams ask for and would not get, one sentence each; nothing while vault or lock cannot be read.
    pub fn missing(&self) -> Vec<String> {
        match (self.lock.current(), self.vault.document()) {
            (Ok(lock), Ok(document)) => lock.view.missing(&document),
            (Err(_), _) | (_, Err(_)) => Vec::new(),
        }
    }

    /// What to do where there is no vault and there was one, for only a vault signs locks. An empty one in its place would be the loss of
    /// everything that was in it.
    pub fn lost_vault(&self) -> Option<&'static str> {
        let is_new = matches!(self.lock.current(), Err(LockSourceError::Missing));
        (!is_new).then_some(
            "vault.age is gone, and there was one, for bailey.lock is there: put a copy of it back, with the broker stopped (`bailey vault restore COPY`; docs/how-to/recovery.md); only if there is no copy, begin with an empty one (`bailey vault init`)",
        )
    }

    /// A lock is signed, or about to be.
    pub fn signing(&self) {
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        *signed = Some(self.clock.steady());
    }

    /// Whether the vault and the lock in its place are of two times.
    fn apart(&self, document: &Document) -> Option<String> {
        let locked = self.lock.current().ok()?.lock.serial;
        let signed = *self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        let since = signed.map(|at| self.clock.steady().saturating_sub(at));
        apart(document.lock.serial, locked, since)
    }

    /// What is missing at the moment, by part, for the operator.
    pub fn troubles(&self) -> [(&'static str, Option<String>); 2] {
        let vault = match self.vault.state() {
            VaultState::Open(document) => {
                let outside = self.vault.changed_outside();
                outside.or_else(|| self.apart(&document))
            }
            VaultState::NoVault => {
                let lost = self.lost_vault();
                Some(
                    lost.unwrap_or("there is no vault yet: run `bailey vault init`")
                        .into(),
                )
            }
            VaultState::Sealed(reason) if self.vault.unproven().is_some() => {
                Some(format!("nothing is given from the vault yet: {reason}"))
            }
            VaultState::Sealed(reason) => Some(format!("the vault is sealed: {reason}")),
        };
        let lock = self.lock.current().err().map(|e| Chain(&e).to_string());
        [("vault", vault), ("lock", lock)]
    }
}

/// The vault remembers each lock before it is in force: one that knows an earlier one only was put in place later, and so was a lock that is
/// earlier than what the vault knows, or the later one was not written. `since` the last signature of this life, whoever asked for it writes.
fn apart(known: Serial, locked: Serial, since: Option<Duration>) -> Option<String> {
    match known.cmp(&locked) {
        Ordering::Equal => None,
        Ordering::Less => Some(format!(
            "the vault is earlier than bailey.lock: it knows the lock {known}, and {locked} is in force; if you did not restore a copy, somebody put it there (`bailey vault audit`); if you did, lock again"
        )),
        Ordering::Greater if since.is_some_and(|since| since < PLACING) => None,
        Ordering::Greater => Some(format!(
            "bailey.lock has serial {locked}, but {known} was signed, so every job waits: it was not written, or somebody put an earlier one in its place; `bailey plugin lock --all` locks again"
        )),
    }
}

fn signing_key(path: &Path, trust: &TrustFile) -> anyhow::Result<SigningKey> {
    let key = SigningKey::read(path).map_err(|e| Misconfigured(Chain(&e).to_string()))?;
    if key.verifying_key() == trust.signing.broker {
        return Ok(key);
    }
    let service = Service::Broker;
    let why = format!(
        "{} is not the key that trust.json has for {service}",
        path.display()
    );
    Err(Misconfigured(why).into())
}

/// 128 random bits: of this life of the broker and no other.
fn epoch() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_had_a_lock_signed_has_a_moment_to_write_it() {
        let (earlier, later) = (Serial(7), Serial(8));
        assert_eq!(apart(later, earlier, Some(Duration::ZERO)), None);
        for since in [Some(PLACING), None] {
            let said = apart(later, earlier, since);
            assert!(said.is_some_and(|said| said.contains("serial 7, but 8 was signed")));
        }
        assert_eq!(apart(later, later, None), None);
        // An earlier vault is told at once.
        let said = apart(earlier, later, Some(Duration::ZERO));
        assert!(said.is_some_and(|said| said.contains("the vault is earlier")));
    }
}
