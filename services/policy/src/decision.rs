//! The way of one decision: grounds, then what it uses up and the record at audit, then the signature. In this order.

use std::sync::Arc;
use std::time::Duration;

use bailey_db::Transaction;
use bailey_error::Chain;
use bailey_mesh::Auditor;
use bailey_proto::trust::v1::Signed;
use bailey_trust::{
    Decision, Loaded, LockSource, ProposedPlugin, SigningKey, TrustFile, UNTRUSTED, sign,
};
use bailey_types::{AccountName, Clock, DecisionId, Sha256, Timestamp};
use rand::RngCore as _;
use serde_json::json;

use crate::broker::Broker;
use crate::claim;
use crate::db;
use crate::db::memory::Memory;
use crate::denial::{Denial, Reason};
use crate::drift::{self, Folders};
use crate::error::Error;
use crate::grounds::{self, Call, Grounds};
use crate::ledger::Ledger;
use crate::lock::{self, View};
use crate::pool::Grants;

/// How long a decision is valid.
const VALIDITY: Duration = Decision::MAX_VALIDITY;

/// What decisions need.
pub(crate) struct State {
    pub(crate) trust: Arc<TrustFile>,
    pub(crate) clock: Clock,
    pub(crate) broker: Broker,
    pub(crate) auditor: Auditor,
    pub(crate) key: SigningKey,
    pub(crate) db: bailey_db::Db,
    pub(crate) lock: Arc<LockSource<View>>,
    pub(crate) folders: Folders,
    pub(crate) grants: Grants,
    pub(crate) ledger: Ledger,
}

impl State {
    /// What a later life must remember once something was allowed under this lock.
    pub(crate) fn memory(&self, loaded: &Loaded<View>) -> Memory {
        Memory {
            lock_serial: loaded.lock.serial,
            log: self.ledger.known(),
        }
    }
}

/// A signed decision and the bytes that it is about.
#[derive(Debug)]
pub(crate) struct Allowed {
    pub(crate) decision: Signed,
    pub(crate) request: Vec<u8>,
}

/// Decides about a call. An error is no decision: neither allowed nor denied.
#[tracing::instrument(name = "decision.decide", skip_all, fields(job.id = %call.job, job.attempt = %call.attempt, plugin.name = %call.plugin))]
pub(crate) async fn decide(policy: &State, call: &Call) -> Result<Result<Allowed, Denial>, Error> {
    let (loaded, grounds) = match find(policy, call)? {
        Ok(found) => found,
        Err(denial) => return Ok(Err(denied(policy, call, denial))),
    };
    // Beside each other: what the cell may reach is on the disk, the epoch is the broker's. Both may keep this call waiting for long.
    let (reach, epoch) = tokio::join!(reach(policy, call, &loaded), policy.broker.epoch());
    let reach = match reach? {
        Ok(reach) => reach,
        Err(denial) => return Ok(Err(denied(policy, call, denial))),
    };
    let epoch = epoch?;
    // Only then: all others wait for what is held.
    let held = match hold(policy, call, &grounds, &loaded).await? {
        Ok(held) => held,
        Err(denial) => return Ok(Err(denied(policy, call, denial))),
    };
    let allowed = allow(policy, call, (grounds, reach), &loaded, (held, epoch));
    allowed.await.map(Ok)
}

type Found = (Arc<Loaded<View>>, Grounds);

fn find(policy: &State, call: &Call) -> Result<Result<Found, Denial>, Error> {
    let loaded = match policy.lock.current() {
        Ok(loaded) => loaded,
        Err(error) => return lock::unusable(error).map(Err),
    };
    Ok(grounds::find(call, &policy.trust, &loaded).map(|grounds| (loaded, grounds)))
}

/// What the cell of a call may reach: what was locked for the plugin, or nothing where its folder has changed since.
struct Reach {
    account: AccountName,
    egress: Vec<String>,
}

async fn reach(
    policy: &State,
    call: &Call,
    loaded: &Arc<Loaded<View>>,
) -> Result<Result<Reach, Denial>, Error> {
    let locked = proposed(call, loaded)?;
    let Some(drift) = policy.folders.drift(&call.plugin, loaded).await? else {
        return Ok(Ok(Reach {
            account: locked.account.clone(),
            egress: locked.egress.clone(),
        }));
    };
    let accounts = &loaded.view.config.accounts;
    let untrusted = accounts.keys().find(|name| name.as_str() == UNTRUSTED);
    Ok(
        match untrusted.filter(|_| locked.walls.untrusted.is_some()) {
            Some(account) => Ok(Reach {
                account: account.clone(),
                egress: Vec::new(),
            }),
            None => Err(Reason::Drifted.because(drift::sentence(&call.plugin, &drift))),
        },
    )
}

fn proposed<'a>(call: &Call, loaded: &'a Loaded<View>) -> Result<&'a ProposedPlugin, Error> {
    let locked = loaded.lock.plugins.get(&call.plugin);
    let locked =
        locked.ok_or_else(|| Error::Malformed(format!("{} is not locked", call.plugin)))?;
    Ok(&locked.proposed)
}

/// What a call rests on, held for its job: used up once the transaction is committed.
struct Held {
    tx: Transaction,
    at: Timestamp,
}

async fn hold(
    policy: &State,
    call: &Call,
    grounds: &Grounds,
    loaded: &Loaded<View>,
) -> Result<Result<Held, Denial>, Error> {
    let plugin = loaded.view.config.enabled_plugin(&call.plugin);
    let retry = plugin.map(|plugin| plugin.retry).unwrap_or_default();
    let mut tx = policy.db.write().await?;
    let at = policy.clock.now();
    if let Err(denial) = claim::take(&mut tx, call, grounds, retry, at).await? {
        return Ok(Err(denial));
    }
    db::memory::advance(&mut tx, policy.memory(loaded)).await?;
    Ok(Ok(Held { tx, at }))
}

/// Uses up what is held and has the allow recorded, at the same time: both wait for a disk. Then signs it. Nothing is given before both are done.
async fn allow(
    policy: &State,
    call: &Call,
    (grounds, reach): (Grounds, Reach),
    loaded: &Loaded<View>,
    (held, broker_epoch): (Held, String),
) -> Result<Allowed, Error> {
    let id = DecisionId::new();
    let Grounds {
        principal,
        contract,
        origin,
        request,
        ..
    } = grounds;
    let image = proposed(call, loaded)?.image;
    let mut nonce = [0; 16];
    rand::rngs::OsRng.fill_bytes(&mut nonce);
    let mut decision = Decision {
        id,
        nonce: hex::encode(nonce),
        job: call.job,
        attempt: call.attempt,
        principal,
        origin,
        plugin: call.plugin.clone(),
        command: call.command.clone(),
        request_sha256: Sha256::of(&request),
        lock_serial: loaded.lock.serial,
        image,
        account: reach.account,
        egress: reach.egress,
        contract,
        broker_epoch,
        audit_index: 0,
        issued_at: held.at,
        expires_at: held.at,
    };
    let recording = policy.ledger.append("decision.allowed", fields(&decision));
    let (recorded, committed) = tokio::join!(recording, held.tx.commit());
    // An allow that is on record and was not given is no harm.
    committed?;
    decision.audit_index = match recorded {
        Ok(index) => index,
        Err(error) => {
            take_back(policy, call).await;
            return Err(error);
        }
    };
    // Not before it was used, also where the clock was set back meanwhile: what follows from a decision older than its job is refused.
    decision.issued_at = policy.clock.now().max(held.at);
    decision.expires_at = decision.issued_at.plus(VALIDITY);
    let signed = sign(&decision, &policy.key).map_err(Error::Sign)?;
    tracing::info!(decision.id = %id, contract = decision.contract, "allowed {}.{}", call.plugin, call.command);
    Ok(Allowed {
        decision: signed,
        request,
    })
}

/// The record of an allow. The request's hash is salted with the nonce, which only the decision has: from the log alone nobody can try out requests.
fn fields(decision: &Decision) -> serde_json::Value {
    let salted = Sha256::of(format!("{}{}", decision.nonce, decision.request_sha256).as_bytes());
    json!({
        "decision": decision.id,
        "job": decision.job,
        "attempt": decision.attempt,
        "principal": decision.principal,
        "origin": decision.origin,
        "plugin": decision.plugin,
        "command": decision.command,
        "request_salted": salted,
        "lock_serial": decision.lock_serial,
        "image": decision.image,
        "account": decision.account,
        "egress": decision.egress,
        "contract": decision.contract,
        "broker_epoch": decision.broker_epoch,
    })
}

fn denied(policy: &State, call: &Call, denial: Denial) -> Denial {
    tracing::warn!(
        denial.reason = denial.reason.token(),
        "denied {}.{}: {}",
        call.plugin,
        call.command,
        denial.detail
    );
    let fields = json!({
        "job": call.job,
        "attempt": call.attempt,
        "plugin": call.plugin,
        "command": call.command,
        "reason": denial.reason.token(),
    });
    policy.auditor.append_refusal("decision.denied", &fields);
    denial
}

/// A decision that was not given does not count. If this fails as well, one of several is lost.
async fn take_back(policy: &State, call: &Call) {
    let taken = async {
        let mut tx = policy.db.write().await?;
        db::job::take_back(&mut tx, call.job).await?;
        tx.commit().await
    };
    if let Err(error) = taken.await {
        tracing::warn!(error = %Chain(&error), "a decision that was not given still counts: {}", Chain(&error));
    }
}
