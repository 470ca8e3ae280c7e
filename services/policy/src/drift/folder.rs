//! Looks at one folder, one at a time, by whoever asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, watch};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use super::{Drift, Known};

/// What is known of a folder, and whether somebody looks at it. A look that does not end keeps its thread, for the system lets nobody take it
/// back; nobody else waits for it on a thread of theirs.
#[derive(Default)]
pub(super) struct Folder {
    known: Arc<tokio::sync::Mutex<Known>>,
    /// When the look that is under way began.
    since: watch::Sender<Option<Instant>>,
    /// What audit was told last.
    told: Mutex<Option<Drift>>,
}

/// A look under way.
struct Underway {
    folder: Arc<Folder>,
    known: OwnedMutexGuard<Known>,
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.folder.since.send_replace(None);
    }
}

impl Folder {
    /// What `look` finds, once nobody else looks any more. A look that lasts longer than `patience`, this one or the one before it, is drift.
    pub(super) async fn look(
        self: &Arc<Self>,
        patience: Duration,
        look: impl FnOnce(&mut Known) -> Option<Drift> + Send + 'static,
    ) -> Result<Option<Drift>, JoinError> {
        let known = tokio::select! {
            biased;
            known = Arc::clone(&self.known).lock_owned() => known,
            () = self.late(patience) => return Ok(Some(endless(patience))),
        };
        let began = Instant::now();
        let mut underway = Underway {
            folder: Arc::clone(self),
            known,
        };
        self.since.send_replace(Some(began));
        let looking = spawn_blocking(move || look(&mut underway.known));
        match timeout_at(began + patience, looking).await {
            Ok(looked) => looked,
            Err(_) => Ok(Some(endless(patience))),
        }
    }

    /// Ends when a look has been under way for longer than `patience`.
    async fn late(&self, patience: Duration) {
        let mut since = self.since.subscribe();
        loop {
            let began = *since.borrow_and_update();
            let another = match began {
                Some(began) => timeout_at(began + patience, since.changed()).await,
                None => Ok(since.changed().await),
            };
            if !matches!(another, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// Whether audit was told something else last; from now on it was told this.
    pub(super) fn is_news(&self, drift: Option<&Drift>) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_ref() == drift {
            return false;
        }
        *told = drift.cloned();
        true
    }
}

fn endless(patience: Duration) -> Drift {
    Drift {
        found: None,
        detail: format!(
            "looking at its folder takes longer than {} s",
            patience.as_secs()
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(20);

    async fn within<T>(looking: impl Future<Output = Result<T, JoinError>>) -> T {
        timeout(LONG, looking).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_look_that_does_not_end_is_drift_and_nobody_waits_for_it() {
        let folder = Arc::new(Folder::default());
        let (release, held) = mpsc::channel::<()>();
        let stuck = move |_: &mut Known| held.recv().err().and(None);
        let drift = within(folder.look(SHORT, stuck)).await;
        assert_eq!(drift, Some(endless(SHORT)));
        // Nobody else looks, with a thread of their own, while that goes on.
        let (tell, looked) = mpsc::channel();
        for _ in 0..3 {
            let tell = tell.clone();
            let look = move |_: &mut Known| tell.send(()).err().and(None);
            let drift = within(folder.look(SHORT, look)).await;
            assert_eq!(drift, Some(endless(SHORT)));
        }
        assert!(looked.try_recv().is_err());
        drop(release);
        let mut since = folder.since.subscribe();
        since.wait_for(Option::is_none).await.unwrap();
        assert_eq!(within(folder.look(LONG, |_| None)).await, None);
    }

    #[tokio::test]
    async fn a_look_that_nobody_waits_for_any_more_is_noticed_too() {
        let folder = Arc::new(Folder::default());
        let (release, held) = mpsc::channel::<()>();
        let stuck = move |_: &mut Known| held.recv().err().and(None);
        // As when the call that asked is given up.
        assert!(timeout(SHORT, folder.look(LONG, stuck)).await.is_err());
        let drift = within(folder.look(SHORT, |_| None)).await;
        assert_eq!(drift, Some(endless(SHORT)));
        drop(release);
    }

    #[tokio::test]
    async fn whoever_asks_during_a_look_waits_for_its_end() {
        let folder = Arc::new(Folder::default());
        let (release, held) = mpsc::channel::<()>();
        let first = folder.look(LONG, move |_| held.recv().err().and(None));
        let second = folder.look(LONG, |_| None);
        let (first, second, ()) = tokio::join!(first, second, async {
            folder
                .since
                .subscribe()
                .wait_for(Option::is_some)
                .await
                .unwrap();
            drop(release);
        });
        assert_eq!((first.unwrap(), second.unwrap()), (None, None));
    }
}
