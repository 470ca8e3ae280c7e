#![doc = include_str!("../README.md")]

mod error;
mod journal;
mod leaf;
mod log;
mod note;
mod proof;
mod store;
mod tree;
mod verify;

pub use error::Error;
pub use leaf::{Leaf, NewEntry};
pub use log::{Appended, Latest, Log, Recovered};
pub use note::{Checkpoint, NoteError, cosign, read_checkpoint, read_cosigned};
pub use proof::{ProofError, check_consistency, check_inclusion};
pub use verify::{Cosigned, Entry, Report, VerifyError, select_dir, verify_dir};
