//! The leaves of the tree: one JSON object for each entry.

use bailey_types::Timestamp;
use rand::RngCore as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What is to be appended.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// When it was received.
    pub at: Timestamp,
    /// The service that sent it: the subject of its certificate.
    pub actor: String,
    /// What happened, dotted: "decision.allowed".
    pub kind: String,
    /// Names and hashes, never values: the text of a JSON object.
    pub fields: Box<RawValue>,
}

/// One entry as the log holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf<'a> {
    /// Always 1.
    pub v: u8,
    /// Its index.
    pub seq: u64,
    /// When it was received.
    pub at: Timestamp,
    /// The service that sent it.
    pub actor: String,
    /// What happened.
    pub kind: String,
    /// Names and hashes.
    #[serde(borrow)]
    pub fields: &'a RawValue,
    /// 16 random bytes, hexadecimal: who knows only the leaf's hash cannot guess its fields.
    pub salt: String,
}

/// The leaf bytes of `entry` at index `seq`.
pub(crate) fn encode(entry: &NewEntry, seq: u64) -> Result<Vec<u8>, serde_json::Error> {
    let mut random = [0; 16];
    rand::thread_rng().fill_bytes(&mut random);
    let NewEntry {
        at,
        actor,
        kind,
        fields,
    } = entry;
    serde_json::to_vec(&Leaf {
        v: 1,
        seq,
        at: *at,
        actor: actor.clone(),
        kind: kind.clone(),
        fields,
        salt: hex::encode(random),
    })
}

/// Reads leaf bytes and checks that they are those of index `seq`.
pub(crate) fn decode(bytes: &[u8], seq: u64) -> Result<Leaf<'_>, String> {
    let leaf: Leaf<'_> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if leaf.v != 1 {
        return Err(format!("version {} is not 1", leaf.v));
    }
    if leaf.seq != seq {
        return Err(format!("it says that it is entry {}", leaf.seq));
    }
    Ok(leaf)
}
