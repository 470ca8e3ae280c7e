//! The making of one container that is kept ready, and its life until somebody takes it.

use std::sync::Arc;
use std::time::Duration;

use bailey_cell::Seat;
use bailey_cell::launch::{Control, grant_to_bytes};
use bailey_config::Config;
use bailey_trust::{Loaded, LockedPlugin};
use bailey_types::{JobId, PluginName};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::attempt::Trouble;
use crate::container::{Cell, Handle, Holder, Subject, Tenancy};
use crate::docker::{Error, Meaning};
use crate::grants;
use crate::kept::{Key, Ready};
use crate::pools::Pools;
use crate::shelf::LIFE;
use crate::watch::Idled;

/// How long socket-proxy may take to answer a grant.
const GRANT: Duration = Duration::from_secs(15);
/// What is kept ends so long before its grant does.
const MARGIN: Duration = Duration::from_secs(10);
/// Waits after a failure, and after a refusal.
const FAILED: Duration = Duration::from_secs(5);
const REFUSED: Duration = Duration::from_mins(1);

/// Why a cell could not be kept ready.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}", .0.sentence())]
    Docker(#[from] Error),
    #[error(transparent)]
    Grant(#[from] grants::Error),
    #[error("socket-proxy refuses the grant: {0}")]
    Refused(String),
    #[error("as many containers are kept ready as there may be")]
    NoRoom,
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// How long to wait before the next try.
    fn wait(&self) -> Duration {
        match self {
            Self::Docker(_)
            | Self::Grant(grants::Error::Unavailable(_))
            | Self::NoRoom
            | Self::Other(_) => FAILED,
            Self::Grant(grants::Error::Refused(_)) | Self::Refused(_) => REFUSED,
        }
    }
}

/// The making of one container that is kept ready.
pub struct Make {
    /// Who wants it.
    pub pools: Arc<Pools>,
    /// Whose it is.
    pub plugin: PluginName,
    /// As what.
    pub key: Key,
    /// The lock that says so.
    pub loaded: Arc<Loaded<Config>>,
}

impl Make {
    fn locked(&self) -> Result<&LockedPlugin, Failure> {
        let locked = self.loaded.lock.plugins.get(&self.plugin);
        locked.ok_or_else(|| Failure::Other("the plugin is not locked".into()))
    }

    fn subject(&self) -> Result<Subject<'_>, Failure> {
        Ok(Subject {
            plugin: &self.plugin,
            locked: self.locked()?,
            serial: self.key.serial,
        })
    }

    fn room(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let room = Arc::clone(&self.pools.room).try_acquire_owned();
        room.map_err(|_| Failure::NoRoom)
    }

    /// Makes a holder and puts it on the shelf.
    pub async fn holder(self) -> anyhow::Result<()> {
        let stalls = &self.pools.stalls;
        match self.make_holder().await {
            Ok((holder, until)) => {
                let mut holder = Some(holder);
                stalls.with(&self.plugin, &self.key, |shelf| {
                    if let Some(holder) = holder.take() {
                        shelf.made_holder(holder, until, Instant::now());
                    }
                });
                // Nobody wants it any more.
                if let Some(holder) = holder {
                    self.pools.remove_holder(holder).await;
                }
            }
            Err(failure) => {
                let again = self.failed(&failure);
                stalls.with(&self.plugin, &self.key, |shelf| shelf.failed_holder(again));
            }
        }
        Ok(())
    }

    async fn make_holder(&self) -> Result<(Holder, Instant), Failure> {
        let (room, until) = (self.room()?, Instant::now() + LIFE);
        let holder = self.pools.maker.holder(self.subject()?, Some(room)).await?;
        self.pools.stalls.watch_over(&self.plugin, &holder);
        Ok((holder, until))
    }

    /// Makes a cell, puts it on the shelf, and stays with it until somebody takes it.
    pub async fn cell(self, holder: Option<(Holder, Instant)>) -> anyhow::Result<()> {
        match self.make_cell(holder).await {
            Ok((cell, until)) => self.shelve(cell, until).await,
            Err(failure) => {
                let again = self.failed(&failure);
                self.pools.stalls.with(&self.plugin, &self.key, |shelf| {
                    shelf.failed_cell(again);
                    shelf.lost_holder();
                });
            }
        }
        Ok(())
    }

    /// A started cell that waits, and until when it may. With an error nothing is left of it, nor of its holder.
    async fn make_cell(
        &self,
        holder: Option<(Holder, Instant)>,
    ) -> Result<(Cell, Instant), Failure> {
        let (holder, until) = match holder {
            Some(holder) => holder,
            None => self.make_holder().await?,
        };
        let seat = Seat::Pool { id: JobId::new() };
        let tenancy = Tenancy::Kept(holder, until);
        let made = match (self.subject(), self.room()) {
            (Ok(subject), Ok(room)) => {
                let made = self.pools.maker.cell(subject, (seat, false), tenancy, room);
                made.await
                    .map_err(|(error, tenancy)| (Failure::from(error), tenancy))
            }
            (Err(failure), _) | (_, Err(failure)) => Err((failure, tenancy)),
        };
        let mut cell = match made {
            Ok(cell) => cell,
            Err((failure, tenancy)) => {
                self.vacate(tenancy).await;
                return Err(failure);
            }
        };
        match self.rouse(&mut cell).await {
            Ok(granted) => Ok((cell, until.min(granted))),
            Err(failure) => {
                if let Err(why) = cell.handle.remove().await {
                    self.pools.care.unwell(&Trouble::Docker(why));
                }
                self.vacate(cell.tenancy).await;
                Err(failure)
            }
        }
    }

    async fn vacate(&self, tenancy: Tenancy) {
        match tenancy {
            Tenancy::Alone => {}
            Tenancy::Kept(holder, _) | Tenancy::Own(holder) => {
                self.pools.remove_holder(holder).await;
            }
        }
    }

    /// Shows policy's grant, and starts the cell. Answers until when the grant holds.
    async fn rouse(&self, cell: &mut Cell) -> Result<Instant, Failure> {
        let (grants, key) = (&self.pools.grants, &self.key);
        let grant = grants.of(&self.plugin, key.image, key.serial).await?;
        let cells = usize::try_from(grant.said.cells).unwrap_or(usize::MAX);
        self.pools
            .stalls
            .with(&self.plugin, key, |shelf| shelf.limit_cells(cells));
        let until = Instant::now() + grants.left(&grant).saturating_sub(MARGIN);
        let message = grant_to_bytes(&grant.signed).map_err(|e| Failure::Other(e.to_string()))?;
        let broken = |e: std::io::Error| Failure::Other(format!("showing the grant: {e}"));
        let input = cell
            .input
            .as_mut()
            .ok_or_else(|| Failure::Other("the cell cannot be spoken to".into()))?;
        // So small that no pipe makes it wait.
        input.write_all(&message).await.map_err(broken)?;
        input.flush().await.map_err(broken)?;
        if let Some(ending) = cell.watch.told(GRANT).await {
            return Err(Failure::Other(format!("no leave to start: {ending:?}")));
        }
        match cell.watch.collector.control() {
            Some(Control::Granted(_)) => {}
            Some(Control::Refused(reason)) => {
                grants.forget(&self.plugin);
                return Err(Failure::Refused(reason.clone()));
            }
            Some(Control::NotNow(why)) => return Err(Failure::Other(why.clone())),
            Some(Control::Launched(_) | Control::Returned(_)) | None => {
                return Err(Failure::Other(
                    "socket-proxy did not answer the grant".into(),
                ));
            }
        }
        cell.start().await?;
        Ok(until)
    }

    /// Puts a cell where calls find it, and stays with it until one does.
    async fn shelve(self, cell: Cell, until: Instant) {
        let (claim, claimed) = oneshot::channel();
        let mut ready = Some(Ready {
            id: cell.handle.id.to_string(),
            claim,
        });
        let number = self.pools.stalls.with(&self.plugin, &self.key, |shelf| {
            let ready = ready.take()?;
            Some(shelf.made_cell(ready, until, Instant::now()))
        });
        match number.flatten() {
            Some(number) => self.wait(cell, number, claimed).await,
            // Nobody wants it any more.
            None => self.retire(cell).await,
        }
    }

    async fn wait(
        self,
        mut cell: Cell,
        number: u64,
        claimed: oneshot::Receiver<oneshot::Sender<Cell>>,
    ) {
        let ended = match &cell.tenancy {
            Tenancy::Alone => CancellationToken::new(),
            Tenancy::Kept(holder, _) | Tenancy::Own(holder) => holder.ended.clone(),
        };
        let idled = tokio::select! {
            // What it did before somebody came counts.
            biased;
            idled = cell.watch.idle() => idled,
            () = ended.cancelled() => Idled::Broke,
            claimed = claimed => {
                // Whoever wanted it may have left; without anybody it was thrown away.
                let unwanted = match claimed {
                    Ok(to) => to.send(cell).err(),
                    Err(_) => Some(cell),
                };
                if let Some(cell) = unwanted {
                    self.retire(cell).await;
                }
                return;
            }
        };
        let pools = &self.pools;
        pools.stalls.with(&self.plugin, &self.key, |shelf| {
            shelf.lost_cell(number);
        });
        if let Ok(locked) = self.locked() {
            let id = cell.handle.id.clone();
            match idled {
                Idled::Spoke => pools.early(&self.plugin, locked, &id),
                Idled::Ended => self.crashed(locked, &cell.handle).await,
                Idled::Broke => {}
            }
        }
        let again = Instant::now() + pools.quarantine.pause(&self.plugin);
        pools
            .stalls
            .with(&self.plugin, &self.key, |shelf| shelf.pause(again));
        self.retire(cell).await;
        pools.stalls.wake.notify_one();
    }

    /// Counts a cell that ended by itself; one that went with its engine did not.
    async fn crashed(&self, locked: &LockedPlugin, cell: &Handle) {
        let (pools, plugin) = (&self.pools, &self.plugin);
        if let Ok(ended) = cell.engine.inspect(&cell.id).await
            && !ended.running
        {
            let code = ended.exit_code;
            tracing::warn!(container.id = %cell.id, plugin.name = %plugin, "a cell of {plugin} ended with exit code {code} before it had a request");
            let why = format!("it ended with exit code {code} before anything was asked of it");
            pools.quarantine.crashed(plugin, locked, &why);
        }
    }

    /// Removes a cell that was never used, and its holder.
    async fn retire(&self, cell: Cell) {
        if let Err(why) = cell.handle.remove().await {
            self.pools.care.unwell(&Trouble::Docker(why));
        }
        self.pools.stalls.with(&self.plugin, &self.key, |shelf| {
            shelf.lost_holder();
        });
        self.vacate(cell.tenancy).await;
        self.pools.stalls.wake.notify_one();
    }

    /// Says what went wrong; answers when it may be tried again.
    fn failed(&self, failure: &Failure) -> Instant {
        let (plugin, error) = (&self.plugin, failure.to_string());
        tracing::warn!(plugin.name = %plugin, error, "nothing can be kept ready for {plugin} now");
        if let Failure::Docker(error) = failure
            && error.meaning() == Meaning::Unwell
        {
            self.pools.care.unwell(&Trouble::Docker(error.sentence()));
        }
        Instant::now() + failure.wait()
    }
}
