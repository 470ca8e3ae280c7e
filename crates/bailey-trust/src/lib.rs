#![doc = include_str!("../README.md")]

mod keys;
mod lock;
pub mod rating;
pub mod seal;
pub mod source;
mod statement;
pub mod strict_json;
mod trust_file;

pub use keys::{KeyError, SigningKey, VerifyingKey};
pub use lock::{
    EgressLimits, HostPath, Lock, LockProposal, LockedPlugin, Mode, ProposedPlugin, StateKind,
    Walls,
};
pub use rating::rating;
pub use seal::{SealError, SealingKey, SealingRecipient};
pub use source::{Loaded, LockSource, LockSourceError};
pub use statement::{
    Asked, Decision, DecisionOrigin, Origin, PoolGrant, Statement, StatementError, Ticket,
    UNTRUSTED, Verified, sign, verify,
};
pub use trust_file::{SigningKeys, TrustFile, TrustFileError};
