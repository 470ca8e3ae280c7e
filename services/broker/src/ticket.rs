//! Launch tickets: a decision is consumed, the secrets of its plugin are spliced into the request, and the result is sealed to socket-proxy.
//!
//! Everything here computes; who is asked and what is recorded is the business of `rpc`.

mod delivery;
mod reference;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};

use bailey_proto::trust::v1::Signed;
use bailey_trust::{
    Consumed, Decision, Loaded, LockedPlugin, NotConsumed, SealingSession, SigningKey, Ticket,
    UNTRUSTED, VerifyingKey, strict_json,
};
use bailey_types::{Blake3, DecisionId, SecretName, Sha256, TicketId, Timestamp};
use serde_json::json;
use zeroize::Zeroizing;

#[cfg(test)]
use delivery::Delivery;
pub use delivery::{Deliveries, deliveries, missing};
pub use refusal::{Fields, Reason, Refused};

use crate::vault::{Document, Nonce, WipingBuffer};
use crate::view::View;

/// What a ticket is asked with.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The decision, as policy signed it.
    pub decision: &'a Signed,
    /// The exact request bytes.
    pub request: &'a [u8],
}

/// What the world is at the moment of the call.
#[derive(Debug)]
pub struct Now<'a> {
    /// The time.
    pub time: Timestamp,
    /// The lock.
    pub lock: &'a Loaded<View>,
    /// The vault's content; `None`: there is no vault.
    pub vault: Option<&'a Document>,
}

/// A ticket that is decided and not made yet: its decision is used up. Dropped, it gives nothing.
pub struct Granted {
    /// Whether a secret leaves the vault with it.
    pub delivers: bool,
    /// What the audit must have, before the ticket leaves where it delivers a secret: names only.
    pub record: Fields,
    /// Salt and final bytes.
    salted: Zeroizing<Vec<u8>>,
    ticket: Ticket,
}

/// A ticket.
#[derive(Debug)]
pub struct Made {
    /// The signed ticket.
    pub ticket: Signed,
    /// Salt and final bytes, sealed to socket-proxy.
    pub sealed: Vec<u8>,
}

/// What makes tickets.
#[derive(Debug)]
pub struct Office {
    /// Decisions must be by this key.
    pub policy: VerifyingKey,
    /// Tickets are signed with this one.
    pub key: SigningKey,
    /// And sealed to this one.
    pub socket_proxy: SealingSession,
    /// This life of the broker.
    pub epoch: String,
    /// The decisions that were used.
    pub consumed: Consumed<DecisionId>,
}

const SALT_BYTES: usize = 32;

type Refusal = (Reason, String);

impl Office {
    /// Consumes the decision and puts together what its ticket is about.
    pub fn grant(&self, asked: &Asked<'_>, now: &Now<'_>) -> Result<Granted, Refused> {
        let decision = bailey_trust::verify::<Decision>(asked.decision, &self.policy)
            .map_err(|e| Refused::early(Reason::BadDecision, e.to_string()))?
            .statement;
        let record = names(&decision);
        let refuse = |(reason, detail)| Refused {
            reason,
            detail,
            record: record.clone(),
        };
        self.check_decision(&decision, asked.request, now)
            .map_err(refuse)?;
        let locked = check_lock(&decision, now).map_err(refuse)?;
        let delivery = now
            .lock
            .view
            .deliveries
            .get(&decision.plugin)
            .ok_or_else(|| {
                refuse((
                    Reason::NotLocked,
                    format!("{} is not configured", decision.plugin),
                ))
            })?;
        if let Some(vault) = now.vault {
            check_seal(locked, &vault.nonce).map_err(refuse)?;
        }
        let delivered = if is_untrusted(&decision) {
            delivery::of_untrusted(now.vault, delivery)
        } else {
            delivery::decide(now.vault, delivery)
        };
        // Who was denied is known by now, and the audit is told.
        let mut record = record.clone();
        record.insert("principal".into(), json!(delivery.principal));
        let refuse = |(reason, detail)| Refused {
            reason,
            detail,
            record: record.clone(),
        };
        let delivered = delivered.map_err(refuse)?;
        let salted = salted(asked.request, &delivery.config_refs, &delivered).map_err(refuse)?;
        check_size(&salted).map_err(refuse)?;
        self.consume(&decision).map_err(refuse)?;
        let names: Vec<_> = delivered.secrets.keys().collect();
        record.insert("secrets".into(), json!(names));
        if !delivered.withheld.is_empty() {
            let why = delivered.withheld_for.token();
            record.insert(why.into(), json!(delivered.withheld));
        }
        let ticket = Ticket {
            id: TicketId::new(),
            decision: decision.id,
            final_sha256: Sha256::of(&salted),
            plugin: decision.plugin,
            image: decision.image,
            container_kind: "cell".into(),
            issued_at: now.time,
            // Its cell may still have to be made. A clock that went back since the decision must not make it last too long.
            expires_at: decision
                .expires_at
                .min(now.time.plus(Decision::MAX_VALIDITY)),
        };
        Ok(Granted {
            delivers: !delivered.secrets.is_empty(),
            record,
            salted,
            ticket,
        })
    }

    /// Makes a ticket that was granted. It may leave once what it delivers is on record.
    pub fn make(&self, granted: &Granted) -> Result<Made, Refused> {
        let internal = |e: String| Refused {
            reason: Reason::Internal,
            detail: e,
            record: granted.record.clone(),
        };
        let signed = bailey_trust::sign(&granted.ticket, &self.key);
        let sealed = self.socket_proxy.seal(&granted.salted);
        Ok(Made {
            ticket: signed.map_err(|e| internal(e.to_string()))?,
            sealed: sealed.map_err(|e| internal(e.to_string()))?,
        })
    }

    fn check_decision(
        &self,
        decision: &Decision,
        request: &[u8],
        now: &Now<'_>,
    ) -> Result<(), Refusal> {
        decision
            .check_time(now.time)
            .map_err(|e| (Reason::Expired, e.to_string()))?;
        if decision.broker_epoch != self.epoch {
            let why = "the decision is of an earlier life of the broker";
            return Err((Reason::WrongEpoch, why.into()));
        }
        if Sha256::of(request) != decision.request_sha256 {
            let why = "the request is not the one that was decided about";
            return Err((Reason::WrongRequest, why.into()));
        }
        // Policy checked this before it signed; whoever splices checks what it splices into.
        strict_json::check_object(request, &["secrets"])
            .map_err(|e| (Reason::BadRequest, e.to_string()))
    }

    fn consume(&self, decision: &Decision) -> Result<(), Refusal> {
        let (issued_at, expires_at) = (decision.issued_at, decision.expires_at);
        let consumed = self.consumed.consume(decision.id, issued_at, expires_at);
        consumed.map_err(|why| {
            let reason = match why {
                NotConsumed::Used => Reason::DecisionUsed,
                NotConsumed::Older | NotConsumed::Forgotten => Reason::Expired,
                NotConsumed::Full => Reason::Busy,
            };
            (reason, format!("the decision: {why}"))
        })
    }
}

/// Keyed BLAKE3 of a tree hash under the vault's nonce (reference: ductile 7.6).
pub fn tree_mac(nonce: &Nonce, tree: &Blake3) -> Blake3 {
    Blake3(blake3::keyed_hash(nonce.expose(), &tree.0).into())
}

fn check_lock<'a>(decision: &Decision, now: &Now<'a>) -> Result<&'a LockedPlugin, Refusal> {
    let lock = &now.lock.lock;
    let (decided, present) = (decision.lock_serial, lock.serial);
    // The vault remembers what was signed last, so an old lock that is put back is noticed even by a new life of the broker.
    if let Some(signed) = now
        .vault
        .map(|vault| vault.lock.serial)
        .filter(|s| *s > present)
    {
        let why = format!("bailey.lock has serial {present}, but {signed} was signed: lock again");
        return Err((Reason::StaleLock, why));
    }
    if decided < present {
        let why = format!("decided under the lock {decided}; the present one is {present}");
        return Err((Reason::OlderLock, why));
    }
    if decided > present {
        let why = format!("decided under the lock {decided}; the broker sees {present}");
        return Err((Reason::NewerLock, why));
    }
    let plugin = &decision.plugin;
    let locked = lock.plugins.get(plugin);
    let locked = locked.ok_or_else(|| (Reason::NotLocked, format!("{plugin} is not locked")))?;
    let proposed = &locked.proposed;
    if decision.image != proposed.image {
        let why = format!("the lock has the image {} for {plugin}", proposed.image);
        return Err((Reason::WrongImage, why));
    }
    let own = decision.account == proposed.account && decision.egress == proposed.egress;
    // Less than what was locked is always right, but only as the lock has it.
    let less =
        is_untrusted(decision) && decision.egress.is_empty() && proposed.walls.untrusted.is_some();
    if !own && !less {
        return Err((
            Reason::WrongGrant,
            format!("the lock has other grants for {plugin}"),
        ));
    }
    Ok(locked)
}

/// Whether policy found that the plugin's folder has changed since it was sealed.
fn is_untrusted(decision: &Decision) -> bool {
    decision.account.as_str() == UNTRUSTED
}

fn check_seal(locked: &LockedPlugin, nonce: &Nonce) -> Result<(), Refusal> {
    use subtle::ConstantTimeEq as _;
    let expected = tree_mac(nonce, &locked.proposed.tree_blake3);
    if expected.0.ct_eq(&locked.tree_mac.0).into() {
        return Ok(());
    }
    let why = "the plugin was sealed under another vault: run `bailey plugin lock --all`";
    Err((Reason::WrongSeal, why.into()))
}

/// socket-proxy takes no more, and neither does what carries it there.
fn check_size(salted: &[u8]) -> Result<(), Refusal> {
    if salted.len() <= Ticket::MAX_FINAL_BYTES + SALT_BYTES {
        return Ok(());
    }
    let most = Ticket::MAX_FINAL_BYTES >> 20;
    let why =
        format!("request and secrets are larger than {most} MiB: grant less, or ask for less");
    Err((Reason::BadRequest, why))
}

/// Salt and final bytes in one wiped buffer.
fn salted(
    request: &[u8],
    config_refs: &BTreeSet<SecretName>,
    delivered: &delivery::Delivered<'_>,
) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let salt: [u8; SALT_BYTES] = rand::random();
    let resolved;
    let request = if config_refs.is_empty() {
        request
    } else {
        resolved = reference::resolve(request, config_refs, &delivered.secrets)
            .map_err(|e| (Reason::BadRequest, e.to_string()))?;
        resolved.as_slice()
    };
    let with_secrets;
    let last = if delivered.secrets.is_empty() {
        request
    } else {
        let mut secrets = WipingBuffer::new();
        let exposed = delivered
            .secrets
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose()));
        let exposed: BTreeMap<_, _> = exposed.collect();
        serde_json::to_writer(&mut secrets, &exposed)
            .map_err(|_| (Reason::Internal, "writing the secrets".to_owned()))?;
        with_secrets = strict_json::splice_member(request, "secrets", secrets.as_slice())
            .map(Zeroizing::new)
            .map_err(|e| (Reason::BadRequest, e.to_string()))?;
        &with_secrets
    };
    let mut salted = Zeroizing::new(Vec::with_capacity(SALT_BYTES + last.len()));
    salted.extend_from_slice(&salt);
    salted.extend_from_slice(last);
    Ok(salted)
}

fn names(decision: &Decision) -> Fields {
    let fields = [
        ("decision", json!(decision.id)),
        ("job", json!(decision.job)),
        ("attempt", json!(decision.attempt)),
        ("plugin", json!(decision.plugin)),
        ("command", json!(decision.command)),
        ("account", json!(decision.account)),
        ("lock_serial", json!(decision.lock_serial)),
    ];
    fields
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests;
