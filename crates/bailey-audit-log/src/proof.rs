//! Checking proofs, for those who ask the log.

use bailey_types::Sha256;
use tlog_tiles::{Hash, check_record, check_tree, record_hash};

use crate::note::Checkpoint;

/// Why a proof is refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProofError {
    /// The log has become smaller.
    #[error("the log went back from {known} entries to {found}")]
    WentBack {
        /// How many were known.
        known: u64,
        /// How many there are.
        found: u64,
    },
    /// The log's past is not what it was.
    #[error("the log of {found} entries does not continue the known one of {known}")]
    NotAContinuation {
        /// How many were known.
        known: u64,
        /// How many there are.
        found: u64,
    },
    /// The entry is not in the tree.
    #[error("entry {index} is not what the proof says")]
    NotIncluded {
        /// The index of the entry.
        index: u64,
    },
    /// A hash of a proof has not 32 bytes, or there are too many.
    #[error("the proof is malformed")]
    Malformed,
}

/// A tree of 2^64 leaves has proofs of at most this many hashes, and one.
const LIMIT: usize = 65;

fn hashes<B: AsRef<[u8]>>(proof: &[B]) -> Result<Vec<Hash>, ProofError> {
    if proof.len() > LIMIT {
        return Err(ProofError::Malformed);
    }
    let hash = |bytes: &B| {
        bytes
            .as_ref()
            .try_into()
            .map(Hash)
            .map_err(|_| ProofError::Malformed)
    };
    proof.iter().map(hash).collect()
}

/// Checks that the log of `found` continues the log of `known` (RFC 6962 section 2.1.2).
pub fn check_consistency<B: AsRef<[u8]>>(
    known: Checkpoint,
    found: Checkpoint,
    proof: &[B],
) -> Result<(), ProofError> {
    let (from, to) = (known.size, found.size);
    if to < from {
        return Err(ProofError::WentBack {
            known: from,
            found: to,
        });
    }
    let proof = hashes(proof)?;
    let holds = match from {
        // Every log continues the empty one; tlog_tiles does not take 0.
        0 => proof.is_empty(),
        _ => check_tree(&proof, to, Hash(found.root.0), from, Hash(known.root.0)).is_ok(),
    };
    if holds {
        Ok(())
    } else {
        Err(ProofError::NotAContinuation {
            known: from,
            found: to,
        })
    }
}

/// Checks that the log of `checkpoint` holds `leaf` at `index` (RFC 6962 section 2.1.1).
pub fn check_inclusion(
    checkpoint: Checkpoint,
    index: u64,
    leaf: &[u8],
    proof: &[Sha256],
) -> Result<(), ProofError> {
    let proof = hashes(&proof.iter().map(|hash| hash.0).collect::<Vec<_>>())?;
    check_record(
        &proof,
        checkpoint.size,
        Hash(checkpoint.root.0),
        index,
        record_hash(leaf),
    )
    .map_err(|_| ProofError::NotIncluded { index })
}
