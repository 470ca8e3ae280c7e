//! What a running service has in hand: its tasks, its readiness, its end.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bailey_trust::{Lock, LockSource, TrustFile};
use bailey_types::{Clock, Serial, Service};
use futures::FutureExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Settings;

/// How long tasks have to end after the first signal. With what surrounds it, a stop stays below five seconds.
const DRAIN: Duration = Duration::from_millis(3500);

/// How long those then have that carry away what the others left.
const CARRY: Duration = Duration::from_millis(900);

/// When a stop that hangs is cut short.
const DEADLINE: Duration = Duration::from_millis(4500);

/// The service was told to stop before it had started. Not a failure: as the error of `run`, it makes the exit code 0.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("told to stop before it had started")]
pub struct Stopped;

/// How a service is, for its health port and for the broker's roll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// In a word.
    pub readiness: Readiness,
    /// In a sentence; empty where all is well.
    pub detail: String,
    /// Serial of the lock that this is about; `None`: it is about no lock.
    pub lock_serial: Option<u64>,
}

/// How a service is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not serving yet.
    Starting,
    /// All is well.
    Ready,
    /// Works in part.
    Degraded,
    /// Told to stop.
    Stopping,
}

impl Readiness {
    /// As the health port writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Stopping => "stopping",
        }
    }
}

/// A service at work. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Who we are.
    pub service: Service,
    /// Where things are.
    pub settings: Arc<Settings>,
    /// The public roots of trust.
    pub trust: Arc<TrustFile>,
    /// Where the time comes from.
    pub clock: Clock,
    /// Cancelled when the service must stop.
    pub shutdown: CancellationToken,
    /// Tasks, readiness, end.
    pub process: Process,
}

impl Context {
    /// The lock of this stack. `seen` is the newest serial that the service remembers ([`Serial`] 0 where it remembers none); `view` makes
    /// the service's own view of a lock, its error says why such a lock cannot be used.
    pub fn lock<T>(
        &self,
        seen: Serial,
        view: impl Fn(&Lock) -> Result<T, String> + Send + Sync + 'static,
    ) -> LockSource<T> {
        LockSource::new(
            &self.settings.config_dir.join("bailey.lock"),
            self.trust.signing.broker,
            self.trust.stack.clone(),
            seen,
            view,
        )
    }

    /// See [`Process::spawn`].
    pub fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.process.spawn(name, task);
    }

    /// See [`Process::spawn_last`].
    pub fn spawn_last(
        &self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.process.spawn_last(name, task);
    }

    /// See [`Process::ready`].
    pub fn ready(&self) {
        self.process.ready();
    }

    /// See [`Process::degraded`].
    pub fn degraded(&self, detail: impl Into<String>) {
        self.process.degraded(detail);
    }

    /// See [`Process::trouble`].
    pub fn trouble(&self, part: &'static str, detail: Option<String>) {
        self.process.trouble(part, detail);
    }

    /// See [`Process::goes_by`].
    pub fn goes_by(&self, lock_serial: u64) {
        self.process.goes_by(lock_serial);
    }

    /// See [`Process::presence`].
    pub fn presence(&self) -> watch::Receiver<Presence> {
        self.process.presence()
    }

    /// See [`Process::stopped`].
    pub async fn stopped(&self) -> anyhow::Result<()> {
        self.process.stopped().await
    }
}

/// The part of a [`Context`] that needs no identity.
#[derive(Clone)]
pub struct Process {
    /// Cancelled when the process must stop.
    pub shutdown: CancellationToken,
    /// Cancelled when the other tasks have ended, or are given up: for those of [`Process::spawn_last`].
    pub drained: CancellationToken,
    tasks: TaskTracker,
    last: TaskTracker,
    shared: Arc<Shared>,
}

struct Shared {
    presence: watch::Sender<Presence>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    started: bool,
    stopping: bool,
    troubles: BTreeMap<&'static str, String>,
    lock_serial: Option<u64>,
    failure: Option<anyhow::Error>,
}

impl Process {
    /// A process that `shutdown` or a failed task stops. Signals reach it through [`Process::run`].
    pub fn new() -> Self {
        let starting = Presence {
            readiness: Readiness::Starting,
            detail: String::new(),
            lock_serial: None,
        };
        let shared = Shared {
            presence: watch::Sender::new(starting),
            state: Mutex::default(),
        };
        Self {
            shutdown: CancellationToken::new(),
            drained: CancellationToken::new(),
            tasks: TaskTracker::new(),
            last: TaskTracker::new(),
            shared: Arc::new(shared),
        }
    }

    /// Runs a service to its end: the first SIGTERM or SIGINT cancels `shutdown`, a second one or the deadline does not wait any longer.
    pub(crate) async fn run(
        &self,
        mut signals: Signals,
        service: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let told_twice = async {
            tokio::select! {
                () = signals.next() => {}
                () = self.shutdown.cancelled() => {}
            }
            self.shutdown.cancel();
            tokio::select! {
                () = signals.next() => "told twice",
                () = tokio::time::sleep(DEADLINE) => "out of time",
            }
        };
        let outcome = tokio::select! {
            outcome = service => outcome,
            why = told_twice => {
                tracing::warn!("stopping without waiting: {why}");
                Ok(())
            }
        };
        // A failed task is the cause of whatever else failed after it.
        match (self.shared.state().failure.take(), outcome) {
            (Some(failure), _) => Err(failure),
            (None, Err(error)) if error.is::<Stopped>() => Ok(()),
            (None, outcome) => outcome,
        }
    }

    /// Runs `task` beside the others. Its error or panic ends the process; its `Ok` does not. It should end soon after `shutdown`.
    pub fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.tasks.spawn(self.watched(name, task));
    }

    /// Runs a task that carries away what the others leave: it should end soon after [`Process::drained`], not after `shutdown`.
    pub fn spawn_last(
        &self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.last.spawn(self.watched(name, task));
    }

    fn watched(
        &self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (shared, shutdown) = (Arc::clone(&self.shared), self.shutdown.clone());
        async move {
            let failure = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.context(format!("the task {name:?} failed")),
                Err(_) => anyhow::anyhow!("the task {name:?} panicked"),
            };
            shared.state().failure.get_or_insert(failure);
            shutdown.cancel();
        }
    }

    /// Everything is served; also ends what [`Process::degraded`] said.
    pub fn ready(&self) {
        self.shared.change(|state| {
            state.started = true;
            state.troubles.remove("");
        });
    }

    /// It works in part; `detail` says what is missing, until [`Process::ready`].
    pub fn degraded(&self, detail: impl Into<String>) {
        let detail = detail.into();
        self.shared.change(|state| {
            state.started = true;
            state.troubles.insert("", detail);
        });
    }

    /// What is wrong with one part of the service, or `None` when it is well again. Does not make a starting service started.
    pub fn trouble(&self, part: &'static str, detail: Option<String>) {
        self.shared.change(|state| {
            match detail {
                Some(detail) => state.troubles.insert(part, detail),
                None => state.troubles.remove(part),
            };
        });
    }

    /// By which lock the service goes, for whoever waits until all do; 0: there is none. Said after the troubles that follow from it.
    pub fn goes_by(&self, lock_serial: u64) {
        self.shared
            .change(|state| state.lock_serial = Some(lock_serial));
    }

    /// The presence now, and each change of it.
    pub fn presence(&self) -> watch::Receiver<Presence> {
        self.shared.presence.subscribe()
    }

    /// Waits for `shutdown` (a signal, a failed task, a test), then gives the tasks time to end, and those that carry away what they leave after them.
    pub async fn stopped(&self) -> anyhow::Result<()> {
        self.shutdown.cancelled().await;
        tracing::info!("stopping");
        self.shared.change(|state| state.stopping = true);
        self.tasks.close();
        if tokio::time::timeout(DRAIN, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                "{} tasks did not end within {DRAIN:?} and are given up",
                self.tasks.len()
            );
        }
        self.drained.cancel();
        self.last.close();
        if tokio::time::timeout(CARRY, self.last.wait()).await.is_err() {
            tracing::warn!("what the tasks left was not carried away within {CARRY:?}");
        }
        let failure = self.shared.state().failure.take();
        failure.map_or(Ok(()), Err)
    }
}

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}

/// SIGTERM and SIGINT. From when this is made, they do not kill the process.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
        Ok(Self {
            terminate,
            interrupt,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT"),
        }
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic cannot leave the state half written: each change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let presence = state.presence();
        // Under the lock, so that the last state is also the last presence.
        self.presence.send_if_modified(|old| {
            let changed = *old != presence;
            // That another lock is gone by changes nothing of how the service is.
            if (old.readiness, &old.detail) != (presence.readiness, &presence.detail) {
                tracing::info!(service.readiness = presence.readiness.name(), service.detail = %presence.detail, "{}", presence.line());
            }
            *old = presence;
            changed
        });
    }
}

impl State {
    fn presence(&self) -> Presence {
        let detail = self
            .troubles
            .values()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("; ");
        let readiness = match (self.stopping, self.started, self.troubles.is_empty()) {
            (true, _, _) => Readiness::Stopping,
            (false, false, _) => Readiness::Starting,
            (false, true, true) => Readiness::Ready,
            (false, true, false) => Readiness::Degraded,
        };
        Presence {
            readiness,
            detail,
            lock_serial: self.lock_serial,
        }
    }
}

impl Presence {
    fn line(&self) -> String {
        if self.detail.is_empty() {
            self.readiness.name().to_owned()
        } else {
            format!("{}: {}", self.readiness.name(), self.detail)
        }
    }
}

#[cfg(test)]
mod tests;
