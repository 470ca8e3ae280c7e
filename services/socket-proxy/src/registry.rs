//! The containers that this proxy made: nothing else exists for the runner.

mod listed;
mod listing;
mod running;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bailey_cell::{Identity, Kind, Seat};
use bailey_types::{ImageId, PluginName, Serial, Timestamp};

use self::running::Running;

pub use listed::{Listed, identify};
pub use listing::{Listing, Settled};

/// More containers than any machine runs; a runner that asks for more is broken.
const MAX_CONTAINERS: usize = 4096;

/// A container's full id, 64 lower-case hexadecimal digits. A name or a shortened id is never one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(Box<str>);

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(hex) {
            Ok(Self(text.into()))
        } else {
            Err(())
        }
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContainerId({self})")
    }
}

/// What one container is, for good.
#[derive(Clone, Debug)]
pub struct Record {
    /// Who it is.
    pub identity: Identity,
    /// The image it was made from.
    pub image: ImageId,
    /// Whether it is a cell or holder with a way out.
    pub egress: bool,
}

impl Record {
    /// The holder that it has joined.
    pub fn holder(&self) -> Option<ContainerId> {
        match &self.identity {
            Identity::Cell { holder, .. } => holder.as_deref()?.parse().ok(),
            Identity::Holder { .. } | Identity::Probe { .. } => None,
        }
    }
}

/// Where it is in its life.
#[derive(Debug)]
struct Entry {
    record: Record,
    life: Life,
    /// When it was recorded, on the clock of [`Books`].
    since: u64,
}

#[derive(Debug)]
enum Life {
    Cell {
        /// Whether it can still be attached to. Invariant: never becomes true again.
        attachable: bool,
        leave: Leave,
        /// Whether its one start was used. Invariant: never becomes false again.
        started: bool,
    },
    Holder(Use),
    Probe {
        /// As of a cell.
        started: bool,
    },
}

/// Whether a cell may be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    None,
    /// Under a pool grant that is valid until then.
    Granted(Timestamp),
    /// It gets a request.
    Fed,
    /// It was made in an earlier life of this proxy, which may have fed it.
    Unknown,
}

/// Whose a holder is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Use {
    New,
    Free,
    Taken(ContainerId),
    /// Whatever it is good for is used up, or not known.
    Spent,
}

/// Why a container cannot be attached to, started, granted or joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Not ours, or gone.
    #[error("this proxy made no such container")]
    Unknown,
    /// The one attach was used, or belonged to an earlier life of this proxy.
    #[error("the container was attached to before; every container is fed once")]
    AttachedBefore,
    /// A probe or a holder has no streams for the runner.
    #[error("only cells are attached to")]
    NoCell,
    /// Neither a request nor a grant.
    #[error("a cell is started after its launch, or under a pool grant; it has neither")]
    NoLeave,
    /// The grant came too early.
    #[error("the cell's pool grant has expired")]
    Expired,
    /// One launch, one start: what has ended stays so.
    #[error("the container was started before; every container is started once")]
    StartedBefore,
    /// More run already than any machine needs.
    #[error("{0} {1} are started and not removed already, and no more are")]
    TooManyRun(usize, &'static str),
    /// A grant is for cells that have no job yet.
    #[error("only a pooled cell is granted, and once")]
    NotPooled,
    /// More idle cells than the grant or the lock allows.
    #[error("{0} idle cells of this plugin are there already, which is all that is granted")]
    TooMany(usize),
    /// What is to be joined is no holder.
    #[error("a cell joins only a holder of this proxy's")]
    NoHolder,
    /// The holder is another plugin's, or of another lock.
    #[error("the holder is for another plugin, or of another lock")]
    OtherHolder,
    /// The holder is not started, has a cell, or is used up.
    #[error("the holder is not free: it is not started, has a cell, or served its one")]
    NotFree,
}

/// What is known, and in which order it became so.
#[derive(Default)]
struct Books {
    entries: BTreeMap<ContainerId, Entry>,
    /// Counts what happens here: the engine's lists take time, and what they say may be out of date.
    clock: u64,
    /// When the engine's lists that are under way began.
    listings: BTreeSet<u64>,
    /// What was forgotten since the oldest of these began, and when.
    forgotten: BTreeMap<ContainerId, u64>,
    /// Containers that are being made.
    reserved: usize,
}

impl Books {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

/// All of them. Cheap to look into; nothing waits while it is locked.
#[derive(Default)]
pub struct Registry(Mutex<Books>);

/// Room for one container that is being made.
pub struct Slot<'a>(&'a Registry);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.books().reserved -= 1;
    }
}

impl Registry {
    fn books(&self) -> MutexGuard<'_, Books> {
        // Nothing that changes them can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps room for one more, if there is any.
    pub fn reserve(&self) -> Option<Slot<'_>> {
        let mut books = self.books();
        if books.entries.len() + books.reserved >= MAX_CONTAINERS {
            return None;
        }
        books.reserved += 1;
        Some(Slot(self))
    }

    /// A container was made. The holder of a cell is its own from now on.
    pub fn made(&self, id: ContainerId, record: Record) {
        let mut books = self.books();
        let since = books.tick();
        let entries = &mut books.entries;
        if let Some(holder) = record.holder().and_then(|holder| entries.get_mut(&holder)) {
            holder.life = Life::Holder(Use::Taken(id.clone()));
        }
        let life = match record.identity.kind() {
            Kind::Cell => Life::Cell {
                attachable: true,
                leave: Leave::None,
                started: false,
            },
            Kind::Holder => Life::Holder(Use::New),
            Kind::Probe => Life::Probe { started: false },
        };
        let entry = Entry {
            record,
            life,
            since,
        };
        entries.insert(id, entry);
    }

    /// What is known of the container.
    pub fn look_up(&self, id: &ContainerId) -> Option<Record> {
        let books = self.books();
        books.entries.get(id).map(|entry| entry.record.clone())
    }

    /// The images that containers of ours are made from.
    pub fn images(&self) -> Vec<ImageId> {
        let books = self.books();
        let entries = books.entries.values();
        entries.map(|entry| entry.record.image).collect()
    }

    /// Uses up the container's one attach.
    pub fn begin_attach(&self, id: &ContainerId) -> Result<Record, Denied> {
        let mut books = self.books();
        let entries = &mut books.entries;
        let entry = entries.get_mut(id).ok_or(Denied::Unknown)?;
        let Life::Cell { attachable, .. } = &mut entry.life else {
            return Err(Denied::NoCell);
        };
        if !std::mem::replace(attachable, false) {
            return Err(Denied::AttachedBefore);
        }
        Ok(entry.record.clone())
    }

    /// Gives a pooled cell leave to start before it has a request, unless `most` of its plugin idle already.
    pub fn grant(&self, id: &ContainerId, most: u32, until: Timestamp) -> Result<(), Denied> {
        let mut books = self.books();
        let entries = &mut books.entries;
        let entry = entries.get(id).ok_or(Denied::Unknown)?;
        let plugin = entry.record.identity.plugin().cloned();
        let idle = |other: &Entry| {
            other.record.identity.plugin() == plugin.as_ref()
                && pooled(&other.record)
                && matches!(
                    other.life,
                    Life::Cell {
                        leave: Leave::Granted(_) | Leave::Unknown,
                        ..
                    }
                )
        };
        let idle = entries.values().filter(|entry| idle(entry)).count();
        let entry = entries.get_mut(id).ok_or(Denied::Unknown)?;
        if !pooled(&entry.record) {
            return Err(Denied::NotPooled);
        }
        match &mut entry.life {
            Life::Cell {
                leave: leave @ Leave::None,
                ..
            } => {
                if idle >= usize::try_from(most).unwrap_or(usize::MAX) {
                    return Err(Denied::TooMany(idle));
                }
                *leave = Leave::Granted(until);
                Ok(())
            }
            Life::Cell { .. } | Life::Holder(_) | Life::Probe { .. } => Err(Denied::NotPooled),
        }
    }

    /// The cell gets its request: it may run, and idles no more. A pooled one must have been granted before.
    pub fn fed(&self, id: &ContainerId) -> Result<(), Denied> {
        let mut books = self.books();
        let entries = &mut books.entries;
        let entry = entries.get_mut(id).ok_or(Denied::Unknown)?;
        let Life::Cell { leave, .. } = &mut entry.life else {
            return Err(Denied::NoCell);
        };
        match leave {
            Leave::None if !pooled(&entry.record) => {}
            Leave::Granted(_) => {}
            Leave::None | Leave::Fed | Leave::Unknown => return Err(Denied::NoLeave),
        }
        *leave = Leave::Fed;
        Ok(())
    }

    /// Uses up the container's one start, if it may start now; it stays used when the engine then fails. Until [`Registry::holds`] a
    /// holder is nobody's.
    pub fn begin_start(&self, id: &ContainerId, now: Timestamp) -> Result<Record, Denied> {
        let mut books = self.books();
        let running = Running::beside(&books.entries, id)?;
        let entry = books.entries.get_mut(id).ok_or(Denied::Unknown)?;
        match &mut entry.life {
            Life::Cell { leave, started, .. } => {
                match leave {
                    Leave::Fed | Leave::Granted(_) if *started => {
                        return Err(Denied::StartedBefore);
                    }
                    Leave::Fed => {}
                    Leave::Granted(until) if now <= *until => {}
                    Leave::Granted(_) => return Err(Denied::Expired),
                    Leave::None | Leave::Unknown => return Err(Denied::NoLeave),
                }
                *started = true;
            }
            Life::Holder(whose) => match whose {
                Use::New => {
                    running.another_holder()?;
                    *whose = Use::Spent;
                }
                Use::Free | Use::Taken(_) | Use::Spent => return Err(Denied::StartedBefore),
            },
            Life::Probe { started: true } => return Err(Denied::StartedBefore),
            Life::Probe { started } => {
                running.another_probe(&entry.record.identity)?;
                *started = true;
            }
        }
        Ok(entry.record.clone())
    }

    /// The holder runs: a cell may join it.
    pub fn holds(&self, id: &ContainerId) {
        if let Some(entry) = self.books().entries.get_mut(id) {
            entry.life = Life::Holder(Use::Free);
        }
    }

    /// Keeps the holder for the cell that is about to be made. Until [`Registry::made`] or [`Registry::give_back`] it is nobody's.
    pub fn claim(
        &self,
        holder: &ContainerId,
        plugin: &PluginName,
        serial: Serial,
    ) -> Result<(), Denied> {
        let mut books = self.books();
        let entries = &mut books.entries;
        let entry = entries.get_mut(holder).ok_or(Denied::NoHolder)?;
        let Life::Holder(whose) = &mut entry.life else {
            return Err(Denied::NoHolder);
        };
        match &entry.record.identity {
            Identity::Holder {
                plugin: its_plugin,
                serial: its_serial,
                ..
            } if its_plugin == plugin && *its_serial == serial => {}
            Identity::Holder { .. } | Identity::Cell { .. } | Identity::Probe { .. } => {
                return Err(Denied::OtherHolder);
            }
        }
        if *whose != Use::Free {
            return Err(Denied::NotFree);
        }
        *whose = Use::Spent;
        Ok(())
    }

    /// The cell that the holder was claimed for was certainly not made.
    pub fn give_back(&self, holder: &ContainerId) {
        self.holds(holder);
    }

    /// The container was sent a signal: a holder may not hold any more.
    pub fn signalled(&self, id: &ContainerId) {
        if let Some(Entry {
            life: Life::Holder(whose),
            ..
        }) = self.books().entries.get_mut(id)
        {
            *whose = Use::Spent;
        }
    }

    /// The container is gone. Its holder is free again, unless it had a way out: that serves one cell.
    pub fn forget(&self, id: &ContainerId) {
        self.books().forget(id);
    }
}

impl Books {
    /// See [`Registry::forget`].
    fn forget(&mut self, id: &ContainerId) {
        let now = self.tick();
        if !self.listings.is_empty() {
            self.forgotten.insert(id.clone(), now);
        }
        let entries = &mut self.entries;
        let Some(gone) = entries.remove(id) else {
            return;
        };
        let Some(holder) = gone.record.holder().and_then(|id| entries.get_mut(&id)) else {
            return;
        };
        match &mut holder.life {
            Life::Holder(whose) if *whose == Use::Taken(id.clone()) => {
                *whose = if holder.record.egress {
                    Use::Spent
                } else {
                    Use::Free
                };
            }
            Life::Holder(_) | Life::Cell { .. } | Life::Probe { .. } => {}
        }
    }
}

fn pooled(record: &Record) -> bool {
    matches!(
        record.identity,
        Identity::Cell {
            seat: Seat::Pool { .. },
            ..
        }
    )
}
