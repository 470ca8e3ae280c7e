//! What the broker has in hand.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use bailey_error::Chain;
use bailey_service::{Context, Misconfigured};
use bailey_trust::{LockSource, SigningKey, TrustFile};
use bailey_types::{Clock, Serial, Service};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::Notify;

use crate::issuer::Issuer;
use crate::lock::Notary;
use crate::presence::Roll;
use crate::record::Records;
use crate::ticket::{Consumed, Deliveries, Office, of_lock};
use crate::vault::{State as VaultState, Vault};

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
    pub lock: LockSource<Deliveries>,
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
    /// The vault was unsealed, and the audit log does not know yet: until the key was there, there was no way to it.
    pub unsealed: AtomicBool,
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
            socket_proxy: trust.socket_proxy.clone(),
            epoch: epoch(),
            consumed: Consumed::new(CONSUMED_LIMIT),
        };
        // The vault's own serial is compared with each lock at each ticket, so nothing needs to be remembered here.
        let lock = ctx.lock(Serial(0), of_lock);
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
            unsealed: AtomicBool::new(false),
        })
    }

    /// Looks at the age key and the vault again. That a vault opened with it is for the audit log, whoever had it looked at.
    pub fn unseal(&self) {
        if self.vault.unseal() {
            tracing::info!("the vault was unsealed");
            self.unsealed.store(true, Ordering::Relaxed);
        }
    }

    /// What is missing at the moment, by part, for the operator.
    pub fn troubles(&self) -> [(&'static str, Option<String>); 2] {
        let vault = match self.vault.state() {
            VaultState::Open(_) => None,
            VaultState::NoVault => Some("there is no vault yet: run `bailey vault init`".into()),
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
