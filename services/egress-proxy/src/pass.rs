//! Bytes from a client to a server and back, counted, until both are done.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::lease::Lease;

const PIECE_BYTES: usize = 8 << 10;

/// What has passed, and what may.
pub(crate) struct Meter<'a> {
    lease: &'a Lease,
    limit_bytes: u64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// One of the two directions of a meter.
#[derive(Clone, Copy)]
pub(crate) enum Direction {
    /// From the cell.
    Sent,
    /// To the cell.
    Received,
}

/// Why bytes stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The call has had all that it may have.
    #[error("the call has sent and received as many bytes as it may")]
    Spent,
    /// One of the two broke off.
    #[error("one end broke off")]
    Broken(#[from] io::Error),
}

impl<'a> Meter<'a> {
    pub(crate) fn new(lease: &'a Lease, limit_bytes: u64) -> Self {
        Self {
            lease,
            limit_bytes,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    pub(crate) fn received_bytes(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    fn count(&self, direction: Direction, bytes: usize) -> Result<(), Error> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        if !self.lease.spend(bytes, self.limit_bytes) {
            return Err(Error::Spent);
        }
        let counter = match direction {
            Direction::Sent => &self.sent,
            Direction::Received => &self.received,
        };
        counter.fetch_add(bytes, Ordering::AcqRel);
        Ok(())
    }
}

/// Passes `first` and then what `from` says to `to`, and its end.
pub(crate) async fn one_way(
    first: &[u8],
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    meter: &Meter<'_>,
    direction: Direction,
) -> Result<(), Error> {
    if !first.is_empty() {
        meter.count(direction, first.len())?;
        to.write_all(first).await?;
    }
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = from.read(&mut piece).await?;
        if read == 0 {
            return Ok(to.shutdown().await?);
        }
        meter.count(direction, read)?;
        to.write_all(piece.get(..read).unwrap_or_default()).await?;
    }
}
