//! How much plugins keep between calls: measured after each call and while one takes longer, so that none fills the host's disk. A plugin
//! that keeps more than it may is ended, and gets no call before it keeps less.
//!
//! Measuring is never on the way of a call, but for the first of a plugin in this process's life, and where it is known to keep too much:
//! then the operator may have mended it, and only another look can tell.

mod sentence;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bailey_cell::usage::Usage;
use bailey_cell::{Cell as CellSpec, Pace};
use bailey_service::Context;
use bailey_trust::StateLimit;
use bailey_types::PluginName;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::survey::{Measured, Probes, Survey};
use crate::attempt::{Outcome, Trouble};
use crate::audit::Record;
use crate::watch::Stop;

/// How long after a plugin's cell has started somebody looks: a call that is over by then is measured once, another is watched.
const HEAD_START: Duration = Duration::from_secs(2);
/// A plugin of which no cell ran for so long is watched no more: its calls come one after another.
const LINGER: Duration = Duration::from_secs(5);
/// The wait after a measure that failed.
const FAILED: Duration = Duration::from_secs(5);
/// For so long a plugin that keeps too much is refused without another look.
const FRESH: Duration = Duration::from_secs(5);

/// One state: of which plugin, and which of its states.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whose {
    /// The plugin.
    pub plugin: PluginName,
    /// As in the lock.
    pub generation: u32,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct States(Arc<Inner>);

struct Inner {
    ctx: Context,
    survey: Arc<dyn Survey>,
    audit: Arc<dyn Record>,
    entries: Mutex<BTreeMap<Whose, Arc<Entry>>>,
}

/// What is known of one state.
struct Entry {
    whose: Whose,
    standing: watch::Sender<Standing>,
    /// Held by whoever looks once: of callers that come together, the first asks for all.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug, Default)]
struct Standing {
    /// Cells that may write to it.
    cells: usize,
    /// Whether a cell ended since it was last measured.
    is_stale: bool,
    /// Whether somebody sees to it that it is measured.
    is_tended: bool,
    known: Option<Known>,
    /// How many cells have begun.
    begun: u64,
    /// Which cells must end.
    ending: Option<Ending>,
}

/// Those that had begun when too much was seen. What begins later has to be looked at anew.
#[derive(Clone, Debug)]
struct Ending {
    /// As many as had begun then.
    begun: u64,
    why: String,
}

/// What the last measure said.
#[derive(Clone, Copy, Debug)]
struct Known {
    limit: StateLimit,
    usage: Usage,
    at: Instant,
}

/// A cell's share in a state, from its start until it is removed.
pub struct Ward {
    states: States,
    entry: Arc<Entry>,
    /// Which of the cells that have begun it is, from 1.
    number: Option<u64>,
}

impl Ward {
    /// The cell is about to start.
    pub fn begin(&mut self) {
        if self.number.is_some() {
            return;
        }
        let mut must_tend = false;
        self.entry.standing.send_modify(|standing| {
            standing.cells += 1;
            standing.begun += 1;
            self.number = Some(standing.begun);
            must_tend = !standing.is_tended;
            standing.is_tended = true;
        });
        if must_tend {
            let (states, entry) = (self.states.clone(), Arc::clone(&self.entry));
            self.states.0.ctx.spawn("state", async move {
                states.tend(&entry).await;
                Ok(())
            });
        }
    }

    /// Ends when the cell must.
    pub fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut standing = self.entry.standing.subscribe();
        let number = self.number;
        async move {
            let is_over = |standing: &Standing| standing.why_over(number).is_some();
            if standing.wait_for(is_over).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// What becomes of a cell that had to end: final, for another try would end as this one.
pub fn refused(ward: Option<&Ward>) -> Outcome {
    let reason = ward.and_then(|ward| {
        let standing = ward.entry.standing.borrow();
        standing.why_over(ward.number).map(str::to_owned)
    });
    Outcome::Refused(reason.unwrap_or_else(|| Stop::OverLimit.sentence().to_owned()))
}

impl Drop for Ward {
    fn drop(&mut self) {
        if self.number.is_none() {
            return;
        }
        self.entry.standing.send_modify(|standing| {
            standing.cells -= 1;
            standing.is_stale = true;
        });
    }
}

impl Standing {
    /// Why the cell with this number must end, if it must.
    fn why_over(&self, number: Option<u64>) -> Option<&str> {
        let ending = self.ending.as_ref()?;
        (number? <= ending.begun).then_some(&ending.why)
    }
}

impl Entry {
    fn known(&self) -> Option<Known> {
        self.standing.borrow().known
    }

    /// Waits until no cell has run for [`LINGER`].
    async fn until_quiet(&self) {
        let mut standing = self.standing.subscribe();
        loop {
            // The sender is ours: it cannot be gone.
            if standing.wait_for(|s| s.cells == 0).await.is_err() {
                return;
            }
            let again = tokio::time::timeout(LINGER, standing.wait_for(|s| s.cells > 0)).await;
            if !matches!(again, Ok(Ok(_))) {
                return;
            }
        }
    }
}

impl States {
    /// Nothing is known yet.
    pub fn new(ctx: Context, survey: Arc<dyn Survey>, audit: Arc<dyn Record>) -> Self {
        Self(Arc::new(Inner {
            ctx,
            survey,
            audit,
            entries: Mutex::default(),
        }))
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<Whose, Arc<Entry>>> {
        let entries = self.0.entries.lock();
        entries.unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, cell: &CellSpec<'_>) -> Arc<Entry> {
        let whose = Whose {
            plugin: cell.plugin.clone(),
            generation: cell.locked.state_generation,
        };
        let mut entries = self.entries();
        let entry = entries.entry(whose.clone()).or_insert_with(|| {
            Arc::new(Entry {
                whose,
                standing: watch::Sender::default(),
                turn: tokio::sync::Mutex::default(),
            })
        });
        Arc::clone(entry)
    }

    /// A new cell's share; `None` where it keeps nothing that is bounded.
    pub fn ward(&self, cell: &CellSpec<'_>) -> Option<Ward> {
        cell.quota()?;
        Some(Ward {
            states: self.clone(),
            entry: self.entry(cell),
            number: None,
        })
    }

    /// Refuses a cell of a plugin that keeps more than it may.
    pub async fn admit(&self, cell: &CellSpec<'_>) -> Result<(), Outcome> {
        let Some(limit) = cell.quota() else {
            return Ok(());
        };
        let entry = self.entry(cell);
        if let Some(answer) = answered(&entry, limit) {
            return answer;
        }
        let _turn = entry.turn.lock().await;
        // Somebody may have looked meanwhile.
        if let Some(answer) = answered(&entry, limit) {
            return answer;
        }
        match self.once(&entry).await.map_err(Outcome::NotStarted)? {
            Measured::Found(limit, usage) => {
                match sentence::of(&entry.whose.plugin, limit, usage) {
                    Some(sentence) => Err(Outcome::Refused(sentence)),
                    None => Ok(()),
                }
            }
            Measured::Stopped => {
                let why = "the runner stops".to_owned();
                Err(Outcome::NotStarted(Trouble::Other(why)))
            }
            // Then nothing of that plugin runs; whoever asks is told so elsewhere.
            Measured::Gone => Ok(()),
        }
    }

    /// Sees to it that a state is measured, until no cell has changed it since.
    async fn tend(&self, entry: &Arc<Entry>) {
        let stopping = &self.0.ctx.shutdown;
        let mut wait = HEAD_START;
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            let measured = if entry.standing.borrow().cells > 0 {
                self.watch(entry).await
            } else {
                self.look(entry).await
            };
            wait = match measured {
                Ok(Measured::Found(..)) => HEAD_START,
                // Nobody uses it: what it holds at last is still to be found.
                Ok(Measured::Stopped) => Duration::ZERO,
                Ok(Measured::Gone) => {
                    // Its cells were made under another lock. Nobody can look any more, nor will any other cell have it.
                    self.forget(entry);
                    return;
                }
                Err(trouble) => {
                    let (plugin, error) = (&entry.whose.plugin, trouble.sentence());
                    tracing::warn!(plugin.name = %plugin, error, "how much {plugin} keeps could not be measured; trying again");
                    FAILED
                }
            };
            let is_done = entry.standing.send_if_modified(|standing| {
                let is_done = standing.cells == 0 && !standing.is_stale;
                standing.is_tended &= !is_done;
                is_done
            });
            if is_done {
                return;
            }
        }
    }

    /// Watches a state until it holds too much, or nobody uses it.
    async fn watch(&self, entry: &Arc<Entry>) -> Result<Measured, Trouble> {
        let quiet = self.0.ctx.shutdown.child_token();
        let watching = self
            .0
            .survey
            .measure(&entry.whose, Pace::Watching, quiet.clone());
        let leaving = async {
            entry.until_quiet().await;
            quiet.cancel();
            std::future::pending::<()>().await;
        };
        let measured = tokio::select! {
            measured = watching => measured?,
            () = leaving => Measured::Stopped,
        };
        if let Measured::Found(limit, usage) = measured {
            // The operator may have raised it while it was watched.
            if self.0.survey.limit(&entry.whose) == Some(limit) {
                self.learn(entry, limit, usage);
            }
        }
        Ok(measured)
    }

    /// Measures a state that no cell has.
    async fn look(&self, entry: &Arc<Entry>) -> Result<Measured, Trouble> {
        let _turn = entry.turn.lock().await;
        entry.standing.send_modify(|s| s.is_stale = false);
        let measured = self.once(entry).await;
        if measured.is_err() {
            entry.standing.send_modify(|s| s.is_stale = true);
        }
        measured
    }

    /// Measures a state once, and takes note of what it holds. The caller has its turn.
    async fn once(&self, entry: &Entry) -> Result<Measured, Trouble> {
        let until = self.0.ctx.shutdown.child_token();
        let measuring = self.0.survey.measure(&entry.whose, Pace::Once, until);
        let measured = measuring.await?;
        if let Measured::Found(limit, usage) = measured {
            self.learn(entry, limit, usage);
        }
        Ok(measured)
    }

    fn forget(&self, entry: &Entry) {
        self.entries().remove(&entry.whose);
    }

    /// Takes note of a measure, tells the cells that run what it means for them, and everybody else what is new.
    fn learn(&self, entry: &Entry, limit: StateLimit, usage: Usage) {
        let (plugin, at) = (&entry.whose.plugin, Instant::now());
        let over = sentence::of(plugin, limit, usage);
        let mut was_over = false;
        entry.standing.send_modify(|standing| {
            was_over = standing.known.is_some_and(Known::is_over);
            if standing.cells > 0
                && let Some(sentence) = &over
            {
                standing.ending = Some(Ending {
                    begun: standing.begun,
                    why: sentence.clone(),
                });
            }
            // What the disk lost comes back with the end of the cells: it says nothing about what is kept.
            if usage != Usage::Disk {
                standing.known = Some(Known { limit, usage, at });
            }
        });
        match over {
            Some(reason) if !was_over => {
                let kind = if usage == Usage::Disk {
                    "state.disk_low"
                } else {
                    "state.over_limit"
                };
                let StateLimit { total_bytes, files } = limit;
                self.0.audit.record(
                    kind,
                    json!({"plugin": plugin, "reason": reason, "limit_bytes": total_bytes, "limit_files": files}),
                );
                tracing::warn!(plugin.name = %plugin, "{reason}");
            }
            None if was_over => {
                tracing::info!(plugin.name = %plugin, "{plugin} keeps no more than it may again");
            }
            Some(_) | None => {}
        }
    }
}

impl Known {
    fn is_over(self) -> bool {
        !matches!(self.usage, Usage::Within(_))
    }
}

/// What can be said without a look.
fn answered(entry: &Entry, limit: StateLimit) -> Option<Result<(), Outcome>> {
    let known = entry.known().filter(|known| known.limit == limit)?;
    match sentence::of(&entry.whose.plugin, limit, known.usage) {
        None => Some(Ok(())),
        Some(sentence) if known.at.elapsed() < FRESH => Some(Err(Outcome::Refused(sentence))),
        Some(_) => None,
    }
}
