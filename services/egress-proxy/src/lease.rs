//! Leases: a signed decision, used once, by the holder of its plugin, for as long as that holder keeps its control connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bailey_lease::{Kind, Refusal, Token};
use bailey_plugin::egress::Entry;
use bailey_service::Context;
use bailey_trust::{
    Consumed, Decision, Loaded, LockSource, NotConsumed, UNTRUSTED, VerifyingKey, verify,
};
use bailey_types::{Clock, DecisionId, Serial};
use rand::RngCore as _;
use tokio_util::sync::CancellationToken;

use crate::allowance::Allowance;
use crate::grant::Grant;
use crate::lock::View;
use crate::refusals::Budget;

/// All leases of this process, and what they rest on.
pub(crate) struct Leases {
    policy: VerifyingKey,
    lock: Arc<LockSource<View>>,
    clock: Clock,
    /// Decisions that have had a lease.
    used: Consumed<DecisionId>,
    /// The leases that are open.
    open: Mutex<HashMap<Token, Arc<Lease>>>,
}

/// One lease.
pub(crate) struct Lease {
    pub(crate) decision: Decision,
    pub(crate) uid: u32,
    entries: Vec<Entry>,
    pub(crate) refusals: Budget,
    connections: AtomicU32,
    allowance: Allowance,
    /// Cancelled when it ends.
    pub(crate) over: CancellationToken,
}

/// Ends the lease when it is dropped.
pub(crate) struct Held {
    leases: Arc<Leases>,
    token: Token,
    pub(crate) lease: Arc<Lease>,
}

/// A place among the connections of a lease.
pub(crate) struct Place(Arc<Lease>);

impl Leases {
    pub(crate) fn new(ctx: &Context, lock: Arc<LockSource<View>>) -> Self {
        Self {
            policy: ctx.trust.signing.policy,
            lock,
            clock: ctx.clock.clone(),
            used: Consumed::new(ctx.clock.clone()),
            open: Mutex::default(),
        }
    }

    /// The lock as it is now; the error is a sentence.
    pub(crate) fn lock(&self) -> Result<Arc<Loaded<View>>, String> {
        self.lock.current().map_err(|e| e.to_string())
    }

    /// Opens the lease of the signed decision in `line`, for a holder with `uid`.
    pub(crate) fn open(self: &Arc<Self>, uid: u32, line: &[u8]) -> Result<Held, Refusal> {
        let no = |reason: String| Refusal::new(Kind::NoLease, reason);
        let signed = bailey_trust::source::from_file_text(line)
            .map_err(|reason| no(format!("the decision: {reason}")))?;
        let decision = verify::<Decision>(&signed, &self.policy);
        let decision = decision.map_err(|e| no(e.to_string()))?.statement;
        let timely = decision.check_time(self.clock.now());
        timely.map_err(|e| no(e.to_string()))?;
        let lock = self.lock.current().map_err(|e| no(e.to_string()))?;
        check(&lock, uid, &decision).map_err(|wrong| no(wrong.into()))?;
        let entries = decision.egress.iter().map(|text| text.parse());
        let entries = entries.collect::<Result<_, _>>();
        let locked = lock.lock.plugins.get(&decision.plugin);
        let lasts = locked.is_some_and(|locked| locked.lasts(&decision.command).is_some());
        let lease = Arc::new(Lease {
            entries: entries.map_err(|e: bailey_plugin::egress::BadEntry| no(e.to_string()))?,
            uid,
            refusals: Budget::default(),
            connections: AtomicU32::new(0),
            allowance: Allowance::new(lasts),
            over: CancellationToken::new(),
            decision,
        });
        let token = self.enter(&lease).map_err(no)?;
        Ok(Held {
            leases: Arc::clone(self),
            token,
            lease,
        })
    }

    fn enter(&self, lease: &Arc<Lease>) -> Result<Token, String> {
        let decision = &lease.decision;
        let (issued_at, expires_at) = (decision.issued_at, decision.expires_at);
        let used = self.used.consume(decision.id, issued_at, expires_at);
        used.map_err(|why| match why {
            NotConsumed::Used => "the decision has had its lease already".to_owned(),
            NotConsumed::Older => "the decision is older than this process".to_owned(),
            NotConsumed::Forgotten | NotConsumed::Full => format!("the decision: {why}"),
        })?;
        let mut random = [0; 32];
        rand::rngs::OsRng.fill_bytes(&mut random);
        let token = Token(random);
        self.open_leases().insert(token.clone(), Arc::clone(lease));
        Ok(token)
    }

    /// The open lease of `token`, if it is of `uid`.
    pub(crate) fn find(&self, uid: u32, token: &Token) -> Option<Arc<Lease>> {
        let open = self.open_leases();
        open.get(token).filter(|lease| lease.uid == uid).cloned()
    }

    /// What the lock grants to the lease's plugin now.
    pub(crate) fn grant(&self, lease: &Lease) -> Result<Grant, Refusal> {
        let no = |reason: String| Refusal::new(Kind::NoLease, reason);
        let lock = self.lock.current().map_err(|e| no(e.to_string()))?;
        let grant = lock.view.grants.of_uid(lease.uid);
        grant
            .filter(|grant| grant.plugin == lease.decision.plugin)
            .cloned()
            .ok_or_else(|| no("the plugin is not locked any more".into()))
    }

    /// Ends the leases from which the lock has taken something, if its serial is not `seen` any more; the serial it has now.
    pub(crate) fn review(&self, seen: Option<Serial>) -> Option<Serial> {
        let Ok(lock) = self.lock.current() else {
            // Nothing new opens meanwhile, and the usable lock that follows is reviewed.
            return None;
        };
        let serial = Some(lock.lock.serial);
        if serial == seen {
            return serial;
        }
        for lease in self.open_leases().values() {
            let plugin = &lease.decision.plugin;
            let grant = lock.view.grants.of_uid(lease.uid);
            let grant = grant.filter(|grant| grant.plugin == *plugin);
            let all = |grant: &Grant| lease.entries.iter().all(|e| grant.entries.contains(e));
            if !grant.is_some_and(all) {
                let job = lease.decision.job;
                tracing::warn!(plugin.name = %plugin, job.id = %job, "a new lock ends the lease of {plugin} for the job {job}");
                lease.over.cancel();
            }
        }
        serial
    }

    fn open_leases(&self) -> MutexGuard<'_, HashMap<Token, Arc<Lease>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(lock: &Loaded<View>, uid: u32, decision: &Decision) -> Result<(), &'static str> {
    let grant = lock.view.grants.of_uid(uid);
    let locked = lock.lock.plugins.get(&decision.plugin);
    let (Some(grant), Some(locked)) = (grant, locked) else {
        return Err("no plugin of the lock has this holder");
    };
    let checks = [
        (
            "the decision is for another plugin",
            grant.plugin == decision.plugin,
        ),
        (
            "the decision is under another lock",
            lock.lock.serial == decision.lock_serial,
        ),
        (
            "the decision is for another image",
            locked.proposed.image == decision.image,
        ),
        (
            "the decision is for an untrusted cell",
            decision.account.as_str() != UNTRUSTED,
        ),
        ("the decision grants no egress", !decision.egress.is_empty()),
        (
            "the decision's egress is not the locked one",
            locked.proposed.egress == decision.egress,
        ),
    ];
    match checks.iter().find(|(_, holds)| !holds) {
        Some((wrong, _)) => Err(wrong),
        None => Ok(()),
    }
}

impl Held {
    pub(crate) fn token(&self) -> &Token {
        &self.token
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.leases.open_leases().remove(&self.token);
        self.lease.over.cancel();
    }
}

impl Lease {
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A place among at most `limit` connections.
    pub(crate) fn place(self: &Arc<Self>, limit: u32) -> Option<Place> {
        let one_more = |open: u32| (open < limit).then(|| open + 1);
        self.connections
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .is_ok()
            .then(|| Place(Arc::clone(self)))
    }

    /// Counts `bytes` that are about to pass; `false` if there would be more than `limit` then, and nothing is counted.
    pub(crate) fn spend(&self, bytes: u64, limit: u64) -> bool {
        self.allowance.spend(bytes, limit)
    }

    /// Whether anything may pass at all.
    pub(crate) fn has_bytes_left(&self, limit: u64) -> bool {
        self.allowance.has_left(limit)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}
