//! What the broker has in hand.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use bailey_error::Chain;
use bailey_service::{Context, Misconfigured};
use bailey_trust::{Consumed, LockSource, SealingSession, SigningKey, TrustFile};
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

/// Most decisions that can be used within one validity.
const CONSUMED_LIMIT: usize = 100_000;

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
}

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
            consumed: Consumed::new(CONSUMED_LIMIT),
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

    /// The vault remembers each lock before it is in force: one that knows an earlier one only was put in place later.
    fn lags(&self, document: &Document) -> Option<String> {
        let locked = self.lock.current().ok()?.lock.serial;
        let known = document.lock.serial;
        (known < locked).then(|| {
            format!(
                "the vault is earlier than bailey.lock: it knows the lock {known}, and {locked} is in force; if you did not restore a copy, somebody put it there (`bailey vault audit`); if you did, lock again"
            )
        })
    }

    /// What is missing at the moment, by part, for the operator.
    pub fn troubles(&self) -> [(&'static str, Option<String>); 2] {
        let vault = match self.vault.state() {
            VaultState::Open(document) => {
                let outside = self.vault.changed_outside();
                outside.or_else(|| self.lags(&document))
            }
            VaultState::NoVault => Some("there is no vault yet: run `bailey vault init`".into()),
            VaultState::Sealed(reason) if self.vault.unproven().is_some() => {
                Some(format!("nothing is given from the vault yet: {reason}"))
            }
            VaultState::Sealed(reason) => Some(format!("the vault is sealed: {reason}")),
        };
        let lock = self.lock.current().err().map(|e| Chain(&e).to_string());
        [("vault", vault), ("lock", lock)]
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
