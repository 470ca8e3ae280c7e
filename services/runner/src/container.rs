//! The containers that this process made: how they come to be, and what each of them has taken that it gives back when it is removed.

use std::pin::Pin;
use std::sync::Arc;

use bailey_cell::{Cell as CellSpec, Holder as HolderSpec, Seat, Spec};
use bailey_trust::LockedPlugin;
use bailey_types::{JobId, PluginName, Serial, StackId};
use tokio::io::AsyncWrite;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::attempt::StartKind;
use crate::docker::{Attached, Engine, Error, Signal};
use crate::roster::{Berth, Occupant, Roster};
use crate::state::{States, Ward};
use crate::turns::Turn;
use crate::watch::{Hands, Watch};

/// The name under which socket-proxy answers the image of holders.
const HOLDER_IMAGE: &str = "bailey-holder";
/// A removal that fails is tried again this often before it is left to the next clean-up.
const REMOVALS: u32 = 3;

/// Names one container to the engine.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Where it is.
    pub engine: Engine,
    /// Its full id.
    pub id: Arc<str>,
}

impl Hands for Handle {
    async fn kill(&self, signal: Signal) -> Result<(), Error> {
        self.engine.kill(&self.id, signal).await
    }

    async fn is_running(&self) -> Result<bool, Error> {
        Ok(self.engine.inspect(&self.id).await?.running)
    }
}

impl Handle {
    /// Removes the container; an error says why it is still there.
    pub async fn remove(&self) -> Result<(), String> {
        let mut removed = Ok(());
        for _ in 0..REMOVALS {
            removed = self.engine.remove(&self.id).await;
            if removed.is_ok() {
                return Ok(());
            }
        }
        removed.map_err(|error| error.sentence())
    }
}

/// What a plugin's containers are made from.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its name in the lock.
    pub plugin: &'a PluginName,
    /// What is locked under it.
    pub locked: &'a LockedPlugin,
    /// The lock.
    pub serial: Serial,
}

/// A started container that keeps a network namespace for one cell at a time.
pub struct Holder {
    /// The container.
    pub handle: Handle,
    /// Cancelled when it has ended by itself.
    pub ended: CancellationToken,
    _berth: Berth,
    _room: Option<OwnedSemaphorePermit>,
}

/// In whose network namespace a cell is.
pub enum Tenancy {
    /// In its own.
    Alone,
    /// In that of a holder that serves others after it, until then.
    Kept(Holder, Instant),
    /// In that of a holder that goes with it.
    Own(Holder),
}

impl Tenancy {
    fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Alone => None,
            Self::Kept(holder, _) | Self::Own(holder) => Some(holder),
        }
    }
}

/// An attached cell.
pub struct Cell {
    /// The container.
    pub handle: Handle,
    /// Its output and its end.
    pub watch: Watch<Handle>,
    /// Where messages to socket-proxy go; `None` once the last one is on its way.
    pub input: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    /// How it came to be.
    pub kind: StartKind,
    /// What it is in.
    pub tenancy: Tenancy,
    /// Its share in what the plugin keeps; given up when it is removed.
    pub state: Option<Ward>,
    /// Given up when it is removed.
    pub berth: Berth,
    /// Given up when it is removed.
    pub room: OwnedSemaphorePermit,
    /// Where it lasts: given up when it is removed for certain.
    pub turn: Option<Turn>,
}

impl Cell {
    /// Starts it, and watches its end from then on.
    pub async fn start(&mut self) -> Result<(), Error> {
        if let Some(state) = &mut self.state {
            state.begin();
            self.watch.limited_by(Box::pin(state.over()));
        }
        self.handle.engine.start(&self.handle.id).await?;
        let handle = self.handle.clone();
        self.watch.started(Box::pin(
            async move { handle.engine.wait(&handle.id).await },
        ));
        Ok(())
    }
}

/// Makes containers.
pub struct Maker {
    /// Where.
    pub engine: Engine,
    /// Whose they are.
    pub stack: StackId,
    /// Where each is written down.
    pub roster: Roster,
    /// How much plugins keep.
    pub states: States,
}

impl Maker {
    /// A started holder for cells of `subject`. An error leaves nothing behind, as far as the engine lets it.
    pub async fn holder(
        &self,
        subject: Subject<'_>,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<Holder, Error> {
        let image = self.engine.image(HOLDER_IMAGE).await?;
        let image = image.ok_or_else(|| Error::ended("looking up the image of holders"))?;
        let id = JobId::new();
        let berth = self.roster.begin(Occupant::Holder(id));
        let spec = Spec::Holder(HolderSpec {
            stack: &self.stack,
            serial: subject.serial,
            plugin: subject.plugin,
            locked: subject.locked,
            image: &image,
            id,
        });
        let handle = self.create(&spec).await?;
        if let Err(error) = self.engine.start(&handle.id).await {
            give_up(&handle).await;
            return Err(error);
        }
        Ok(Holder {
            handle,
            ended: CancellationToken::new(),
            _berth: berth,
            _room: room,
        })
    }

    /// The spec of a cell of `subject`.
    pub fn cell_spec<'a>(
        &'a self,
        subject: Subject<'a>,
        seat: Seat,
        untrusted: bool,
        holder: Option<&'a str>,
    ) -> CellSpec<'a> {
        CellSpec {
            stack: &self.stack,
            serial: subject.serial,
            plugin: subject.plugin,
            locked: subject.locked,
            seat,
            untrusted,
            holder,
        }
    }

    /// A cell that is attached and not started. With an error its tenancy comes back, and nothing is left behind.
    pub async fn cell(
        &self,
        subject: Subject<'_>,
        (seat, untrusted): (Seat, bool),
        tenancy: Tenancy,
        room: OwnedSemaphorePermit,
    ) -> Result<Cell, (Error, Tenancy)> {
        let berth = self.roster.begin(Occupant::Cell(seat));
        let holder = tenancy.holder().map(|holder| &*holder.handle.id);
        let spec = self.cell_spec(subject, seat, untrusted, holder);
        let state = self.states.ward(&spec);
        let made = self.create(&Spec::Cell(spec)).await;
        let handle = match made {
            Ok(handle) => handle,
            Err(error) => return Err((error, tenancy)),
        };
        let Attached { output, input } = match self.engine.attach(&handle.id).await {
            Ok(attached) => attached,
            Err(error) => {
                give_up(&handle).await;
                return Err((error, tenancy));
            }
        };
        let kind = match (&tenancy, seat) {
            (_, Seat::Pool { .. }) => StartKind::Warm,
            (Tenancy::Kept(..), Seat::Job { .. }) => StartKind::Held,
            (Tenancy::Alone | Tenancy::Own(_), Seat::Job { .. }) => StartKind::Cold,
        };
        Ok(Cell {
            watch: Watch::new(handle.clone(), output),
            handle,
            input: Some(input),
            kind,
            tenancy,
            state,
            berth,
            room,
            turn: None,
        })
    }

    async fn create(&self, spec: &Spec<'_>) -> Result<Handle, Error> {
        let id = self.engine.create(spec).await?;
        Ok(Handle {
            engine: self.engine.clone(),
            id: id.into(),
        })
    }
}

/// Removes what could not be used. Nobody answers for it any more, so a failure is mended by the next clean-up.
async fn give_up(handle: &Handle) {
    if let Err(error) = handle.remove().await {
        tracing::warn!(container.id = %handle.id, error, "a container that could not be used is left to the next clean-up");
    }
}
