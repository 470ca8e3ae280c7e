//! The statements that services sign, and the one way to make and check them.

use bailey_proto::trust::v1::Signed;
use bailey_types::{
    AccountName, AttemptNumber, CommandName, DecisionId, EventType, GrantId, ImageId, JobId,
    OriginId, PipelineName, PluginName, Serial, Sha256, StepId, TicketId, Timestamp, UpstreamName,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::keys::{SigningKey, VerifyingKey};
use crate::strict_json;

/// Why a signed statement is refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StatementError {
    /// The payload is larger than statements of this kind may be.
    #[error("the {kind} is {size_bytes} bytes; at most {limit_bytes} are allowed")]
    TooLarge {
        /// Which statement.
        kind: &'static str,
        /// Its size.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// The signature is not by the key that must stand for this statement.
    #[error("the signature of the {0} is not by the key that trust.json names")]
    BadSignature(&'static str),
    /// Signed, but not a statement of this kind.
    #[error("the {kind} is signed but malformed: {reason}")]
    Malformed {
        /// Which statement.
        kind: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Its time is over, or has not come.
    #[error("the {kind} is valid from {from} until {until}; it is {now}")]
    NotNow {
        /// Which statement.
        kind: &'static str,
        /// Start of validity.
        from: Timestamp,
        /// End of validity.
        until: Timestamp,
        /// The time of the check.
        now: Timestamp,
    },
}

/// Something that a service signs.
pub trait Statement: Serialize + DeserializeOwned {
    /// Separates this kind from all others under the same key; ends in a version.
    const DOMAIN: &'static str;
    /// What it is called in errors.
    const KIND: &'static str;
    /// Largest payload, bytes.
    const LIMIT_BYTES: usize = 1 << 20;
}

/// A statement whose signature has been checked, with the bytes that were signed.
#[derive(Clone, Debug)]
pub struct Verified<S> {
    /// The statement.
    pub statement: S,
    /// As it came, to be passed on unchanged.
    pub signed: Signed,
}

fn message<S: Statement>(payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(S::DOMAIN.len() + 1 + payload.len());
    message.extend_from_slice(S::DOMAIN.as_bytes());
    message.push(0);
    message.extend_from_slice(payload);
    message
}

/// Signs `statement`. The bytes in the result are the statement from now on.
pub fn sign<S: Statement>(statement: &S, key: &SigningKey) -> Result<Signed, StatementError> {
    let payload = serde_json::to_vec(statement).map_err(|e| StatementError::Malformed {
        kind: S::KIND,
        reason: e.to_string(),
    })?;
    let signature = key.sign(&message::<S>(&payload)).to_vec();
    Ok(Signed {
        payload: payload.into(),
        signature: signature.into(),
    })
}

/// Checks that `signed` is a statement of kind `S` by `key`, then parses it.
pub fn verify<S: Statement>(
    signed: &Signed,
    key: &VerifyingKey,
) -> Result<Verified<S>, StatementError> {
    let size_bytes = signed.payload.len();
    if size_bytes > S::LIMIT_BYTES {
        return Err(StatementError::TooLarge {
            kind: S::KIND,
            size_bytes,
            limit_bytes: S::LIMIT_BYTES,
        });
    }
    if !key.verifies(&message::<S>(&signed.payload), &signed.signature) {
        return Err(StatementError::BadSignature(S::KIND));
    }
    let malformed = |reason: String| StatementError::Malformed {
        kind: S::KIND,
        reason,
    };
    strict_json::check(&signed.payload).map_err(|e| malformed(e.to_string()))?;
    let statement =
        serde_json::from_slice(&signed.payload).map_err(|e| malformed(e.to_string()))?;
    Ok(Verified {
        statement,
        signed: signed.clone(),
    })
}

/// Who asked, said by the one who saw it: the broker for API tokens, the scheduler for schedules. Signed by that service.
///
/// An origin has no expiry: a job may wait long for Docker. Policy binds it to the first job (or event) that uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Its identity.
    pub id: OriginId,
    /// "token:<name>", "schedule:<plugin>:<id>" or "service:<plugin>".
    pub principal: String,
    /// What was asked.
    pub asked: Asked,
    /// Scopes of the token; empty for schedules.
    pub scopes: Vec<String>,
    /// When it was seen.
    pub issued_at: Timestamp,
}

impl Statement for Origin {
    const DOMAIN: &'static str = "bailey/origin/v1";
    const KIND: &'static str = "origin";
}

/// What an origin asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Asked {
    /// A command of a plugin.
    Call {
        /// The plugin.
        plugin: PluginName,
        /// The command.
        command: CommandName,
        /// SHA-256 of the payload bytes.
        payload_sha256: Sha256,
    },
    /// An event for the log.
    Event {
        /// Its type.
        event_type: EventType,
        /// SHA-256 of the payload bytes.
        payload_sha256: Sha256,
    },
    /// That an upstream is asked for its `check`. No job comes of it.
    Check {
        /// The upstream.
        upstream: UpstreamName,
    },
}

/// Policy's leave for one attempt of one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Its identity; consumed by the broker once.
    pub id: DecisionId,
    /// 16 random bytes, hexadecimal.
    pub nonce: String,
    /// The job.
    pub job: JobId,
    /// The attempt of that job.
    pub attempt: AttemptNumber,
    /// Who asked, from the origin (inherited by later steps).
    pub principal: String,
    /// Where the job comes from.
    pub origin: DecisionOrigin,
    /// The plugin (or alias).
    pub plugin: PluginName,
    /// The command.
    pub command: CommandName,
    /// SHA-256 of the exact request bytes without secrets.
    pub request_sha256: Sha256,
    /// Serial of the lock it was decided under.
    pub lock_serial: Serial,
    /// The sealed image that may run.
    pub image: ImageId,
    /// The account it runs under.
    pub account: AccountName,
    /// Hosts it may reach, `host:port`; empty: none.
    pub egress: Vec<String>,
    /// The standing contract that allows it, e.g. "pipeline:greeting" or "token:ops".
    pub contract: String,
    /// The broker's epoch.
    pub broker_epoch: String,
    /// Index of the audit entry of this decision.
    pub audit_index: u64,
    /// Start of validity.
    pub issued_at: Timestamp,
    /// End of validity, at most 60 s after the start.
    pub expires_at: Timestamp,
}

impl Decision {
    /// The longest that a decision may be valid.
    pub const MAX_VALIDITY: std::time::Duration = std::time::Duration::from_mins(1);

    /// Refuses a decision that is not valid at `now`, or that claims to be valid for too long.
    pub fn check_time(&self, now: Timestamp) -> Result<(), StatementError> {
        check_time(Self::KIND, self.issued_at, self.expires_at, now)
    }
}

impl Statement for Decision {
    const DOMAIN: &'static str = "bailey/decision/v1";
    const KIND: &'static str = "decision";
}

/// The account of a cell whose plugin's folder has changed since it was sealed: no secrets, no state, no egress, no host paths.
pub const UNTRUSTED: &str = "untrusted";

/// Policy's leave to start cells of a plugin before there is a request for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolGrant {
    /// Its identity, as in the audit log.
    pub id: GrantId,
    /// The plugin (or alias).
    pub plugin: PluginName,
    /// The sealed image that may start.
    pub image: ImageId,
    /// Serial of the lock it was granted under.
    pub lock_serial: Serial,
    /// Most cells that may be started and unused at once.
    pub cells: u32,
    /// Start of validity.
    pub issued_at: Timestamp,
    /// End of validity, at most an hour after the start.
    pub expires_at: Timestamp,
}

impl PoolGrant {
    /// The longest that a grant may be valid.
    pub const MAX_VALIDITY: std::time::Duration = std::time::Duration::from_hours(1);

    /// Refuses a grant that is not valid at `now`, or that claims to be valid for too long.
    pub fn check_time(&self, now: Timestamp) -> Result<(), StatementError> {
        check_validity(
            Self::KIND,
            Self::MAX_VALIDITY,
            self.issued_at,
            self.expires_at,
            now,
        )
    }
}

impl Statement for PoolGrant {
    const DOMAIN: &'static str = "bailey/pool-grant/v1";
    const KIND: &'static str = "pool grant";
}

/// What a decision rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum DecisionOrigin {
    /// The origin itself asked for this call, or for the event that started this pipeline.
    Root {
        /// The origin.
        origin: OriginId,
        /// The pipeline and step that run, if one does.
        step: Option<(PipelineName, StepId)>,
    },
    /// A locked pipeline leads from the parent's step to this one.
    Step {
        /// Decision of the parent's attempt.
        parent: DecisionId,
        /// The pipeline.
        pipeline: PipelineName,
        /// The step that runs.
        step: StepId,
    },
}

/// The broker's leave to feed one container of a plugin, whichever comes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// Its identity.
    pub id: TicketId,
    /// The decision that was consumed for it.
    pub decision: DecisionId,
    /// SHA-256 of the final bytes, secrets included, salted: SHA-256(salt || bytes), the salt being the sealed message's first 32 bytes.
    pub final_sha256: Sha256,
    /// The plugin.
    pub plugin: PluginName,
    /// The image that the container must have.
    pub image: ImageId,
    /// Always "cell" for now.
    pub container_kind: String,
    /// Start of validity.
    pub issued_at: Timestamp,
    /// End of validity, at most 60 s after the start.
    pub expires_at: Timestamp,
}

impl Ticket {
    /// Largest request with its secrets, bytes.
    pub const MAX_FINAL_BYTES: usize = 16 << 20;

    /// Refuses a ticket that is not valid at `now`, or that claims to be valid for too long.
    pub fn check_time(&self, now: Timestamp) -> Result<(), StatementError> {
        check_time(Self::KIND, self.issued_at, self.expires_at, now)
    }
}

impl Statement for Ticket {
    const DOMAIN: &'static str = "bailey/ticket/v1";
    const KIND: &'static str = "ticket";
}

fn check_time(
    kind: &'static str,
    from: Timestamp,
    until: Timestamp,
    now: Timestamp,
) -> Result<(), StatementError> {
    check_validity(kind, Decision::MAX_VALIDITY, from, until, now)
}

fn check_validity(
    kind: &'static str,
    longest: std::time::Duration,
    from: Timestamp,
    until: Timestamp,
    now: Timestamp,
) -> Result<(), StatementError> {
    // Containers of one host share its clock; a second covers a clock that is being slewed.
    let slack = std::time::Duration::from_secs(1);
    let too_long = until > from.plus(longest);
    if too_long || now < from.minus(slack) || now > until {
        return Err(StatementError::NotNow {
            kind,
            from,
            until,
            now,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
