//! The lock in force.

use bailey_trust::{Lock, LockSource, LockSourceError, TrustFile};
use bailey_types::Serial;

use crate::home::Home;

/// The lock in force, if there is one that may be believed.
pub(crate) fn read(home: &Home, trust: &TrustFile) -> anyhow::Result<Option<Lock>> {
    let source = LockSource::new(
        &home.lock_file(),
        trust.signing.broker,
        trust.stack.clone(),
        Serial(0),
        |_| Ok(()),
    );
    match source.current() {
        Ok(loaded) => Ok(Some(loaded.lock.clone())),
        Err(LockSourceError::Missing) => Ok(None),
        Err(e @ (LockSourceError::Refused { .. } | LockSourceError::Older { .. })) => {
            // It would block every repair if it had to be valid; nothing of it is used.
            eprintln!("! {e}; everything is shown as new");
            Ok(None)
        }
        Err(e @ LockSourceError::Read { .. }) => Err(e.into()),
    }
}
