//! How a holder with egress learns whose it is: over its standard input, from the signed decision itself.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bailey_cell::launch::signed_line;
use bailey_proto::trust::v1::Signed;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::engine::{self, Engine};
use crate::frames::{self, Stream};
use crate::registry::ContainerId;

/// How long a holder may take until it listens, and then to take its lease.
const READY_TIME: Duration = Duration::from_secs(10);
/// What a holder says when it listens.
const READY: &[u8] = b"ready\n";

/// Why a holder has no lease.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was not started here, or has a lease already.
    #[error("the holder has no stream left for a lease")]
    NoStream,
    /// It said something else, ended, or took too long.
    #[error("the holder did not become ready")]
    NotReady,
    /// Its stream broke.
    #[error("reading what the holder says")]
    Read(#[from] frames::Error),
    /// Its stream broke.
    #[error("writing the lease")]
    Write(#[from] std::io::Error),
    /// The decision cannot be written down.
    #[error("writing the lease: {0}")]
    Malformed(String),
}

/// The streams of holders with egress, from their start until their lease.
#[derive(Default)]
pub struct Leases(Mutex<BTreeMap<ContainerId, Upgraded>>);

impl Leases {
    fn streams(&self) -> std::sync::MutexGuard<'_, BTreeMap<ContainerId, Upgraded>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes hold of a holder's streams; before its start, or what it says first is lost.
    pub async fn prepare(
        &self,
        engine: &Engine,
        holder: &ContainerId,
    ) -> Result<(), engine::Error> {
        let stream = engine.attach(holder.as_str()).await?;
        self.streams().insert(holder.clone(), stream);
        Ok(())
    }

    /// The holder is gone, or its cell is.
    pub fn forget(&self, holder: &ContainerId) {
        self.streams().remove(holder);
    }

    /// Hands the decision to the holder, once.
    pub async fn hand_over(&self, holder: &ContainerId, decision: &Signed) -> Result<(), Error> {
        let stream = self.streams().remove(holder).ok_or(Error::NoStream)?;
        let line = signed_line(decision).map_err(|e| Error::Malformed(e.to_string()))?;
        let (from, mut to) = tokio::io::split(TokioIo::new(stream));
        let handing = async {
            ready(frames::Reader::new(from)).await?;
            to.write_all(&line).await?;
            // The holder reads one line, and the end of its input with it.
            to.shutdown().await?;
            Ok(())
        };
        timeout(READY_TIME, handing)
            .await
            .unwrap_or(Err(Error::NotReady))
    }
}

async fn ready<R: tokio::io::AsyncRead + Unpin>(mut from: frames::Reader<R>) -> Result<(), Error> {
    let mut said = Vec::new();
    while said.len() < READY.len() {
        match from.next().await? {
            Some((Stream::Out, piece)) => said.extend_from_slice(piece),
            Some((Stream::Err, _)) => {}
            None => return Err(Error::NotReady),
        }
    }
    if said == READY {
        Ok(())
    } else {
        Err(Error::NotReady)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::frame;

    #[tokio::test]
    async fn only_a_holder_that_says_so_is_ready() {
        let said = |frames: &[(u8, &[u8])]| {
            let frames = frames.iter().map(|(kind, text)| frame(*kind, text));
            frames.collect::<Vec<_>>().concat()
        };
        let fine = said(&[(1, b"rea"), (2, b"a warning"), (1, b"dy\n")]);
        assert!(ready(frames::Reader::new(&fine[..])).await.is_ok());
        for wrong in [
            said(&[(1, b"ready")]),
            said(&[(1, b"ready\nand more")]),
            said(&[(2, b"ready\n")]),
            Vec::new(),
        ] {
            assert!(ready(frames::Reader::new(&wrong[..])).await.is_err());
        }
    }
}
