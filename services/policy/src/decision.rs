//! The way of one decision: grounds, what it uses up, the record at audit, the signature. In this order.

use std::sync::Arc;
use std::time::Duration;

use bailey_error::Chain;
use bailey_mesh::Auditor;
use bailey_proto::trust::v1::Signed;
use bailey_trust::{
    Decision, Loaded, LockSource, ProposedPlugin, SigningKey, TrustFile, UNTRUSTED, sign,
};
use bailey_types::{AccountName, Clock, DecisionId, Sha256};
use rand::RngCore as _;
use serde_json::json;

use crate::broker::Broker;
use crate::db;
use crate::db::memory::Memory;
use crate::denial::{Denial, Reason};
use crate::drift::{self, Folders};
use crate::error::Error;
use crate::grounds::{self, Call, Grounds, Uses, Within};
use crate::ledger::Ledger;
use crate::lock::{self, View};
use crate::pool::Grants;

/// How long a decision is valid.
const VALIDITY: Duration = Decision::MAX_VALIDITY;

/// Decisions for each configured attempt: an attempt whose cell never got its request does not count as one, but needs a decision.
const DECISIONS_PER_ATTEMPT: u64 = 3;

/// Most events of one result that jobs may follow from; what a service says has no end.
const MAX_EVENTS: u32 = 10_000;

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
    let decision = DecisionId::new();
    // Beside each other: the broker is another process, and a decision needs both.
    let (epoch, taken) = tokio::join!(
        policy.broker.epoch(),
        take_up(policy, call, &grounds, decision, &loaded)
    );
    let reach = match taken? {
        Ok(reach) => reach,
        Err(denial) => return Ok(Err(denied(policy, call, denial))),
    };
    let epoch = match epoch {
        Ok(epoch) => epoch,
        Err(error) => {
            take_back(policy, decision).await;
            return Err(error);
        }
    };
    match allow(policy, call, (grounds, reach), &loaded, (decision, epoch)).await {
        Ok(allowed) => Ok(Ok(allowed)),
        Err(error) => {
            take_back(policy, decision).await;
            Err(error)
        }
    }
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

/// What the cell may reach; where there is anything to reach, the call's grounds are used up.
async fn take_up(
    policy: &State,
    call: &Call,
    grounds: &Grounds,
    decision: DecisionId,
    loaded: &Arc<Loaded<View>>,
) -> Result<Result<Reach, Denial>, Error> {
    let reach = match reach(policy, call, loaded).await? {
        Ok(reach) => reach,
        Err(denial) => return Ok(Err(denial)),
    };
    let taken = take(policy, call, grounds, decision, loaded).await?;
    Ok(taken.map(|()| reach))
}

/// Uses up what the call uses, for its job. Using it again for the same job is right: a job has several attempts.
async fn take(
    policy: &State,
    call: &Call,
    grounds: &Grounds,
    decision: DecisionId,
    loaded: &Loaded<View>,
) -> Result<Result<(), Denial>, Error> {
    let mut tx = policy.db.write().await?;
    let instance = call.step.as_ref().map_or("", |step| step.instance.as_str());
    if let Err(denial) = take_ground(&mut tx, call, &grounds.uses, instance).await? {
        return Ok(Err(denial));
    }
    let retry = loaded
        .view
        .config
        .enabled_plugin(&call.plugin)
        .map(|plugin| plugin.retry);
    let most =
        u64::from(retry.unwrap_or_default().max_attempts).saturating_mul(DECISIONS_PER_ATTEMPT);
    let had = db::decision::count(&mut tx, call.job).await?;
    // What lasts is started again for as long as it is locked.
    if had >= most && !grounds.lasts {
        return Ok(Err(Reason::AttemptsUsedUp.because(format!(
            "the job has had {had} decisions; {most} are allowed"
        ))));
    }
    db::decision::insert(&mut tx, decision, call.job, instance, policy.clock.now()).await?;
    db::memory::advance(&mut tx, policy.memory(loaded)).await?;
    tx.commit().await?;
    Ok(Ok(()))
}

async fn take_ground(
    tx: &mut bailey_db::Connection,
    call: &Call,
    uses: &Uses,
    instance: &str,
) -> Result<Result<(), Denial>, Error> {
    match uses {
        Uses::Origin { origin, step } => {
            let place = step.as_ref().map_or(("", ""), |(pipeline, step)| {
                (pipeline.as_str(), step.as_str())
            });
            if !db::origin_use::take(tx, *origin, place, call.job).await? {
                return Ok(Err(Reason::OriginUsed.because(format!(
                    "the origin {origin} stood for another job already"
                ))));
            }
        }
        Uses::Edge {
            parent,
            pipeline,
            step,
            event_index,
            endless,
            within,
        } => {
            let Some(of_parent) = db::decision::instance(tx, parent.decision, parent.job).await?
            else {
                let detail = format!(
                    "there is no decision {} for the job {}",
                    parent.decision, parent.job
                );
                return Ok(Err(Reason::ParentInvalid.because(detail)));
            };
            if *within == Within::SameInstance && of_parent != instance {
                let detail = "the step belongs to another instance of the pipeline than its parent";
                return Ok(Err(Reason::NoSuchEdge.because(detail)));
            }
            let edge = (pipeline, step, *event_index);
            if (*event_index >= MAX_EVENTS && !endless)
                || !db::edge_use::take(tx, parent.job, edge, call.job).await?
            {
                let detail = format!(
                    "event {event_index} of the job {} led to another job already",
                    parent.job
                );
                return Ok(Err(Reason::EdgeUsedUp.because(detail)));
            }
        }
    }
    Ok(Ok(()))
}

/// Records the allow, then signs it. Nothing is given before audit has it on disk.
async fn allow(
    policy: &State,
    call: &Call,
    (grounds, reach): (Grounds, Reach),
    loaded: &Loaded<View>,
    (id, broker_epoch): (DecisionId, String),
) -> Result<Allowed, Error> {
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
        issued_at: policy.clock.now(),
        expires_at: policy.clock.now(),
    };
    decision.audit_index = policy
        .ledger
        .append("decision.allowed", fields(&decision))
        .await?;
    decision.issued_at = policy.clock.now();
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
async fn take_back(policy: &State, decision: DecisionId) {
    let taken = async {
        let mut tx = policy.db.write().await?;
        db::decision::delete(&mut tx, decision).await?;
        tx.commit().await
    };
    if let Err(error) = taken.await {
        tracing::warn!(error = %Chain(&error), "a decision that was not given still counts: {}", Chain(&error));
    }
}
