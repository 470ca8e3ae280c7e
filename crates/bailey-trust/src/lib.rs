#![doc = include_str!("../README.md")]

mod consumed;
mod keys;
mod lock;
pub mod rating;
pub mod seal;
mod service;
mod session;
pub mod source;
mod state;
mod statement;
pub mod strict_json;
mod trust_file;

pub use consumed::{Consumed, NotConsumed};
pub use keys::{KeyError, SigningKey, VerifyingKey};
pub use lock::{
    Carried, EgressLimits, HostPath, Lock, LockProposal, LockedPlugin, Mode, ProposedPlugin,
    StateKind, Walls,
};
pub use rating::rating;
pub use seal::{SealError, SealingKey, SealingRecipient, seal_to};
pub use service::{MAX_SERVICES, SERVE, ServiceTerms};
pub use session::{SealingSession, SessionReader};
pub use source::{Loaded, LockSource, LockSourceError};
pub use state::{StateLimit, TooMuch};
pub use statement::{
    Asked, Decision, DecisionOrigin, Origin, PoolGrant, Statement, StatementError, Ticket,
    UNTRUSTED, Verified, sign, verify,
};
pub use trust_file::{SigningKeys, TrustFile, TrustFileError};
