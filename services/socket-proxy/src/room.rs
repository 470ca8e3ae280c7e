//! How much of this process's memory the runner can fill: envelopes are up to 24 MiB, and the container has 128 MiB.

use std::sync::Arc;

use bailey_cell::launch::MAX_ENVELOPE_BYTES;
use bailey_trust::Ticket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Attached cells at a time; each has its buffers.
const MAX_SESSIONS: usize = 512;
/// Readers of events at a time; the runner is one.
const MAX_LISTENERS: usize = 4;
/// Creates at a time, from the first byte of their bodies on: each of these is up to 256 KiB and read whole.
const MAX_CREATES: usize = 16;
/// Starts and removals at a time. They go on when their connection is gone, so that one does not bound them.
const MAX_CHANGES: usize = 64;
/// Envelopes up to this size wait for nobody: all sessions together cannot fill the memory with them.
const SMALL_BYTES: usize = 16 << 10;
/// Requests that plugins have not read yet, bytes. A plugin may leave its own unread as long as it runs.
const UNREAD_BYTES: usize = 2 * Ticket::MAX_FINAL_BYTES;
const KIB: usize = 1 << 10;

/// The room there is.
pub struct Room {
    sessions: Arc<Semaphore>,
    unread: Arc<Semaphore>,
    opening: Arc<Semaphore>,
    listeners: Arc<Semaphore>,
    creates: Arc<Semaphore>,
    changes: Arc<Semaphore>,
}

/// Room for one envelope.
#[derive(Default)]
pub struct Place {
    /// Held until the plugin has read its request.
    _unread: Option<OwnedSemaphorePermit>,
    opening: Option<OwnedSemaphorePermit>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            sessions: Arc::new(Semaphore::new(MAX_SESSIONS)),
            unread: Arc::new(Semaphore::new(UNREAD_BYTES / KIB)),
            // Reading and opening takes some three times an envelope's size: one of the largest at a time, or several that are smaller.
            opening: Arc::new(Semaphore::new(MAX_ENVELOPE_BYTES / KIB)),
            listeners: Arc::new(Semaphore::new(MAX_LISTENERS)),
            creates: Arc::new(Semaphore::new(MAX_CREATES)),
            changes: Arc::new(Semaphore::new(MAX_CHANGES)),
        }
    }
}

impl Room {
    /// Room for one more attached cell, if there is.
    pub fn session(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.sessions).try_acquire_owned().ok()
    }

    /// Room for one more reader of events, if there is.
    pub fn listener(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.listeners).try_acquire_owned().ok()
    }

    /// Waits for room for one more create.
    pub async fn create(&self) -> Option<OwnedSemaphorePermit> {
        acquire(&self.creates, 1).await
    }

    /// Waits for room for one more start or removal.
    pub async fn change(&self) -> Option<OwnedSemaphorePermit> {
        acquire(&self.changes, 1).await
    }

    /// Waits for room for an envelope of `size` bytes, at most [`MAX_ENVELOPE_BYTES`].
    pub async fn place(&self, size: usize) -> Place {
        if size <= SMALL_BYTES {
            return Place::default();
        }
        let kib = u32::try_from(size / KIB).unwrap_or(u32::MAX);
        // Base64 takes a quarter of it. This comes first: who waits for plugins to read keeps nobody from opening.
        let unread = acquire(&self.unread, kib / 4 * 3).await;
        let opening = acquire(&self.opening, kib).await;
        Place {
            _unread: unread,
            opening,
        }
    }
}

impl Place {
    /// The envelope is opened; only the request is left of it.
    pub fn opened(&mut self) {
        self.opening = None;
    }
}

/// No semaphore is ever closed.
async fn acquire(from: &Arc<Semaphore>, count: u32) -> Option<OwnedSemaphorePermit> {
    Arc::clone(from).acquire_many_owned(count).await.ok()
}
