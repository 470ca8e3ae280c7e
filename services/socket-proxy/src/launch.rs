//! Whether an envelope may feed a cell, and with what.

use std::collections::BTreeMap;

use bailey_cell::launch::Envelope;
use bailey_cell::{Identity, Kind, Seat};
use bailey_proto::trust::v1::Signed;
use bailey_redact::Patterns;
use bailey_trust::{
    Consumed, Decision, NotConsumed, PoolGrant, SessionReader, SigningKeys, Ticket, UNTRUSTED,
    strict_json, verify,
};
use bailey_types::{
    AttemptNumber, Clock, DecisionId, JobId, SecretName, Sha256, TicketId, Timestamp,
};
use serde::Deserialize;
use sha2::Digest as _;
use zeroize::Zeroizing;

use crate::registry::Record;

const SALT_BYTES: usize = 32;

/// Why a cell is not fed. Names what is wrong, never a value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Why a cell does not get what its envelope holds.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unfed {
    /// Something is wrong with it: final, and written down.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It comes too late, or this service was started since: another attempt has another ticket.
    #[error("{0}")]
    Late(String),
}

/// What a cell gets.
pub struct Delivery {
    /// The exact bytes.
    pub bytes: Zeroizing<Vec<u8>>,
    /// What to take out of its output.
    pub patterns: Patterns,
    /// What it is written down with.
    pub names: Names,
    /// The decision as policy signed it.
    pub signed_decision: Signed,
}

/// What a launch is called.
#[derive(Clone, Debug)]
pub struct Names {
    /// The decision it rests on.
    pub decision: DecisionId,
    /// The job that was decided.
    pub job: JobId,
    /// Which attempt of it.
    pub attempt: AttemptNumber,
    /// The ticket that was used up.
    pub ticket: TicketId,
}

/// Who can open and check envelopes.
pub struct Keys {
    /// Public keys of policy and broker.
    signing: SigningKeys,
    /// Opens what the broker sealed.
    sealing: SessionReader,
    /// The decisions whose tickets were redeemed.
    redeemed: Consumed<DecisionId>,
}

impl Keys {
    /// With these public keys of policy and broker, and what opens the broker's sealed messages.
    pub fn new(signing: SigningKeys, sealing: SessionReader, clock: Clock) -> Self {
        Self {
            signing,
            sealing,
            redeemed: Consumed::new(clock),
        }
    }

    /// Checks `envelope` for the container that `record` is of, opens it, and uses its ticket up.
    ///
    /// A ticket feeds one container, whichever the runner chose. Those that were redeemed are remembered for as long as they are valid; of those that
    /// are older than this process nobody knows, so none of them is taken.
    pub fn open(
        &self,
        record: &Record,
        envelope: &Envelope,
        now: Timestamp,
    ) -> Result<Delivery, Unfed> {
        let decision = verify::<Decision>(&envelope.decision, &self.signing.policy);
        let decision = decision.map_err(|e| Refusal(e.to_string()))?.statement;
        let ticket = verify::<Ticket>(&envelope.ticket, &self.signing.broker);
        let ticket = ticket.map_err(|e| Refusal(e.to_string()))?.statement;
        check_age(&decision, &ticket, now)?;
        check_match(record, &decision, &ticket)?;
        let opened = self
            .sealing
            .open(&envelope.sealed, Ticket::MAX_FINAL_BYTES + SALT_BYTES);
        let opened = opened.map_err(|e| Refusal(e.to_string()))?;
        let (salt, bytes) = opened
            .split_at_checked(SALT_BYTES)
            .ok_or_else(|| Refusal("the sealed bytes have no salt".into()))?;
        let hash = sha2::Sha256::new()
            .chain_update(salt)
            .chain_update(bytes)
            .finalize();
        if Sha256(hash.into()) != ticket.final_sha256 {
            let other = "the sealed bytes are not those of the ticket";
            return Err(Refusal(other.into()).into());
        }
        let patterns = secrets(bytes)?;
        self.redeem(&decision, &ticket)?;
        let bytes = Zeroizing::new(bytes.to_vec());
        Ok(Delivery {
            bytes,
            patterns,
            names: Names {
                decision: decision.id,
                job: decision.job,
                attempt: decision.attempt,
                ticket: ticket.id,
            },
            signed_decision: envelope.decision.clone(),
        })
    }

    fn redeem(&self, decision: &Decision, ticket: &Ticket) -> Result<(), Unfed> {
        let (issued_at, expires_at) = (ticket.issued_at, ticket.expires_at);
        let redeemed = self.redeemed.consume(decision.id, issued_at, expires_at);
        redeemed.map_err(|why| match why {
            NotConsumed::Used => Refusal("the ticket was redeemed already".into()).into(),
            NotConsumed::Older => {
                Unfed::Late("the ticket was made before socket-proxy was started".into())
            }
            NotConsumed::Forgotten | NotConsumed::Full => Unfed::Late(format!("the ticket: {why}")),
        })
    }

    /// Checks that `signed` is policy's leave, valid now, to start the cell that `record` is of before it has a request.
    pub fn grant(
        &self,
        record: &Record,
        signed: &Signed,
        now: Timestamp,
    ) -> Result<PoolGrant, Refusal> {
        let refused = |e: bailey_trust::StatementError| Refusal(e.to_string());
        let grant = verify::<PoolGrant>(signed, &self.signing.policy).map_err(refused)?;
        let grant = grant.statement;
        grant.check_time(now).map_err(refused)?;
        let Identity::Cell {
            plugin,
            seat: Seat::Pool { .. },
            serial,
            ..
        } = &record.identity
        else {
            return Err(Refusal("only a pooled cell is granted".into()));
        };
        refuse_first(&[
            ("the grant is for another plugin", grant.plugin == *plugin),
            (
                "the grant is for another image",
                grant.image == record.image,
            ),
            (
                "the grant is under another lock",
                grant.lock_serial == *serial,
            ),
        ])?;
        Ok(grant)
    }
}

fn check_age(decision: &Decision, ticket: &Ticket, now: Timestamp) -> Result<(), Unfed> {
    let late = |what: &str, until: Timestamp| {
        Err(Unfed::Late(format!("the {what} was valid until {until}")))
    };
    // Whoever made the cell took long: that is no offence.
    if now > decision.expires_at {
        return late("decision", decision.expires_at);
    }
    if now > ticket.expires_at {
        return late("ticket", ticket.expires_at);
    }
    let checked = decision.check_time(now).and(ticket.check_time(now));
    Ok(checked.map_err(|e| Refusal(e.to_string()))?)
}

fn check_match(record: &Record, decision: &Decision, ticket: &Ticket) -> Result<(), Refusal> {
    let Identity::Cell {
        plugin,
        seat,
        serial,
        untrusted,
        ..
    } = &record.identity
    else {
        return Err(Refusal("only cells are fed".into()));
    };
    let (same_job, same_attempt) = match seat {
        Seat::Job { job, attempt } => (decision.job == *job, decision.attempt == *attempt),
        // Made for whichever comes first.
        Seat::Pool { .. } => (true, true),
    };
    refuse_first(&[
        (
            "the ticket is for another decision",
            ticket.decision == decision.id,
        ),
        (
            "the ticket is for another kind of container",
            ticket.container_kind == Kind::Cell.as_str(),
        ),
        ("the ticket is for another plugin", ticket.plugin == *plugin),
        (
            "the ticket is for another image",
            ticket.image == record.image,
        ),
        (
            "the decision is for another plugin",
            decision.plugin == *plugin,
        ),
        (
            "the decision is for another image",
            decision.image == record.image,
        ),
        ("the decision is for another job", same_job),
        ("the decision is for another attempt", same_attempt),
        (
            "the decision is for the account untrusted, the container is not, or the other way round",
            (decision.account.as_str() == UNTRUSTED) == *untrusted,
        ),
        (
            "the decision grants egress and the container has none, or the other way round",
            decision.egress.is_empty() != record.egress,
        ),
        (
            "the decision is under another lock",
            decision.lock_serial == *serial,
        ),
    ])
}

fn refuse_first(checks: &[(&str, bool)]) -> Result<(), Refusal> {
    match checks.iter().find(|(_, holds)| !holds) {
        Some((wrong, _)) => Err(Refusal((*wrong).to_owned())),
        None => Ok(()),
    }
}

/// What the request delivers under `secrets`.
fn secrets(request: &[u8]) -> Result<Patterns, Refusal> {
    #[derive(Deserialize)]
    struct Request {
        #[serde(default)]
        secrets: BTreeMap<SecretName, Zeroizing<String>>,
    }

    // The plugin must not read secrets where this does not see them, in a second member for example.
    strict_json::check(request).map_err(|e| Refusal(format!("the sealed request: {e}")))?;
    // serde's message could quote a value.
    let request: Request = serde_json::from_slice(request)
        .map_err(|_| Refusal("the sealed request's secrets are not strings by name".into()))?;
    let pairs = request
        .secrets
        .iter()
        .map(|(name, value)| (name, value.as_str()));
    Ok(Patterns::new(pairs))
}
