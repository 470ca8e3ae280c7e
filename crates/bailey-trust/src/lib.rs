#![doc = include_str!("../README.md")]

mod keys;
mod lock;
pub mod seal;
pub mod source;
mod statement;
pub mod strict_json;
mod trust_file;

pub use keys::{KeyError, SigningKey, VerifyingKey};
pub use lock::{HostPath, Lock, LockProposal, LockedPlugin, ProposedPlugin, StateKind};
pub use seal::{SealError, SealingKey, SealingRecipient};
pub use source::{Loaded, LockSource, LockSourceError};
pub use statement::{
    Asked, Decision, DecisionOrigin, Origin, Statement, StatementError, Ticket, Verified, sign,
    verify,
};
pub use trust_file::{SigningKeys, TrustFile, TrustFileError};
