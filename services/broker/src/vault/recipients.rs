//! Who besides the stack's own age key can open the vault: paper keys, for the day on which that key is lost.
//!
//! They stand in the vault itself, so that only who commands the broker can add one; every save is encrypted to all of them.

use bailey_error::{Classify, Kind};
use bailey_trust::SealingRecipient;
use bailey_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::document::Document;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipient {
    /// For people: where the key is.
    pub note: String,
    /// When it was added.
    pub added_at: Timestamp,
}

/// What a change of them breaks.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// Too many.
    #[error(
        "the vault has {} recipients besides the stack's own key; that is the limit",
        Document::RECIPIENT_LIMIT
    )]
    Full,
    /// It opens the vault anyway.
    #[error("this is the stack's own key, to which the vault is always encrypted")]
    Own,
    /// Not one of them.
    #[error("{0} is not a recipient of the vault")]
    Unknown(String),
    /// Longer than [`Document::DESCRIPTION_LIMIT_BYTES`].
    #[error("a note may have at most {} bytes", Document::DESCRIPTION_LIMIT_BYTES)]
    NoteTooLong,
}

impl Classify for Refused {
    fn kind(&self) -> Kind {
        match self {
            Self::Full => Kind::ResourceExhausted,
            Self::Own | Self::NoteTooLong => Kind::InvalidArgument,
            Self::Unknown(_) => Kind::NotFound,
        }
    }
}

impl Document {
    /// Most recipients besides the stack's own key.
    pub const RECIPIENT_LIMIT: usize = 8;

    /// Adds one. `false`: it was there already.
    pub fn add_recipient(
        &mut self,
        own: &SealingRecipient,
        recipient: SealingRecipient,
        note: String,
        now: Timestamp,
    ) -> Result<bool, Refused> {
        if note.len() > Self::DESCRIPTION_LIMIT_BYTES {
            return Err(Refused::NoteTooLong);
        }
        if recipient == *own {
            return Err(Refused::Own);
        }
        if self.recipients.contains_key(&recipient) {
            return Ok(false);
        }
        if self.recipients.len() >= Self::RECIPIENT_LIMIT {
            return Err(Refused::Full);
        }
        let added_at = now;
        self.recipients
            .insert(recipient, Recipient { note, added_at });
        Ok(true)
    }

    /// Removes one: from the next save on, which is this one's, its key opens the vault no more. Copies made before stay open to it.
    pub fn remove_recipient(&mut self, recipient: &SealingRecipient) -> Result<(), Refused> {
        let removed = self.recipients.remove(recipient);
        let unknown = || Refused::Unknown(recipient.to_string());
        removed.map(drop).ok_or_else(unknown)
    }
}
