//! The life of one cell with a job: made or taken, fed, started, watched until it has answered.

mod bounds;
mod serve;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bailey_cell::Seat;
use bailey_cell::launch::Control;
use bailey_config::Config;
use bailey_trust::{
    Decision, Loaded, LockSource, LockedPlugin, ServiceTerms, StatementError, UNTRUSTED,
    VerifyingKey, verify,
};
use bailey_types::PluginName;
use bytes::Bytes;
use futures::FutureExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::attempt::{
    Attempt, Done, Outcome, Parting, Remains, StartKind, Stops, Timings, Trouble,
};
use crate::container::{Cell, Subject, Tenancy};
use crate::docker::{Error, Meaning};
use crate::host_paths;
use crate::kept::Key;
use crate::pools::{self, Pools};
use crate::report::Reports;
use crate::state;
use crate::turns::Turns;
use crate::watch::{Ending, Stop};

/// How long socket-proxy may take to feed a cell that is attached.
const LAUNCH: Duration = Duration::from_secs(15);
/// Killed by us: 128 + SIGKILL.
const KILLED: i64 = 137;

/// What running a cell takes.
pub struct Workshop {
    /// What is kept ready, and who makes and removes containers.
    pub pools: Arc<Pools>,
    /// What may run.
    pub lock: Arc<LockSource<Config>>,
    /// Policy's key.
    pub policy: VerifyingKey,
    /// Room for cells with a job, those that are being parted with included.
    pub room: Arc<Semaphore>,
    /// Room for cells that last, those that are being parted with included.
    pub lasting: Arc<Semaphore>,
    /// Whose cell that lasts is there.
    pub turns: Turns,
    /// How many jobs run at a time.
    pub slots: usize,
}

/// What is to run, once the decision and the lock agree.
struct Order {
    loaded: Arc<Loaded<Config>>,
    plugin: PluginName,
    key: Key,
    untrusted: bool,
    /// Set where it lasts.
    terms: Option<ServiceTerms>,
}

impl Order {
    fn locked(&self) -> Result<&LockedPlugin, Outcome> {
        let locked = self.loaded.lock.plugins.get(&self.plugin);
        locked.ok_or_else(|| Outcome::Refused(format!("{} is not locked", self.plugin)))
    }
}

impl Workshop {
    /// Runs one attempt. Its container, if there is one, is left to be parted with.
    pub async fn run(&self, attempt: &Attempt, stops: &Stops, reports: &impl Reports) -> Done {
        let mut timings = Timings {
            ticket: attempt.ticket,
            ..Timings::default()
        };
        let seated = match self.order(attempt) {
            Ok(order) => self
                .seat(&order, attempt, stops, &mut timings)
                .await
                .map(|cell| (cell, order)),
            Err(outcome) => Err(outcome),
        };
        let (mut cell, order) = match seated {
            Ok(seated) => seated,
            Err(outcome) => {
                return Done {
                    outcome,
                    timings,
                    returned: Vec::new(),
                    remains: None,
                };
            }
        };
        timings.kind = Some(cell.kind);
        let work = self.work(&mut cell, &order, (attempt, reports), stops, &mut timings);
        // A bug of ours must not leave a container behind.
        let worked = AssertUnwindSafe(work).catch_unwind().await;
        let broken = |_| {
            let outcome = lost("the runner failed while the cell ran", Bytes::new());
            (outcome, Parting::Prompt)
        };
        let (outcome, parting) = worked.unwrap_or_else(broken);
        let Order { plugin, key, .. } = order;
        let returned = cell.watch.collector.untold();
        cell.watch.collector.tell(&returned);
        let remains = Remains {
            cell,
            plugin,
            key,
            parting,
        };
        Done {
            outcome,
            timings,
            returned,
            remains: Some(remains),
        }
    }

    /// What the decision asks for, if it is policy's, for this attempt, and of this lock. Broker and socket-proxy check it too; here it only
    /// saves a container.
    fn order(&self, attempt: &Attempt) -> Result<Order, Outcome> {
        let decision = self.decision(attempt)?;
        let other = |text: String| Outcome::NotStarted(Trouble::Other(text));
        let loaded = self.lock.current().map_err(|e| other(e.to_string()))?;
        if loaded.lock.serial != decision.lock_serial {
            let (decided, now) = (decision.lock_serial, loaded.lock.serial);
            return Err(other(format!(
                "it was decided under lock {decided}; this is lock {now}"
            )));
        }
        let plugin = attempt.plugin.clone();
        let locked = loaded.lock.plugins.get(&plugin);
        let locked = locked.filter(|locked| locked.proposed.image == decision.image);
        let locked = locked
            .ok_or_else(|| Outcome::Refused(format!("{plugin} is not locked with that image")))?;
        let key = pools::key(locked, &loaded);
        let untrusted = decision.account.as_str() == UNTRUSTED;
        if !untrusted && decision.account != key.account {
            return Err(Outcome::Refused(format!(
                "{plugin} is not locked for the account {}",
                decision.account
            )));
        }
        let terms = self.terms(attempt, &decision, locked)?;
        Ok(Order {
            loaded,
            plugin,
            key,
            untrusted,
            terms,
        })
    }

    fn decision(&self, attempt: &Attempt) -> Result<Decision, Outcome> {
        let refused = |e: StatementError| Outcome::Refused(e.to_string());
        let decision = verify::<Decision>(&attempt.envelope.decision, &self.policy)
            .map_err(refused)?
            .statement;
        let same = decision.job == attempt.job
            && decision.attempt == attempt.number
            && decision.plugin == attempt.plugin;
        if same {
            Ok(decision)
        } else {
            Err(Outcome::Refused("the decision is for another job".into()))
        }
    }

    /// A cell for this attempt: one that waits, or a new one.
    async fn seat(
        &self,
        order: &Order,
        attempt: &Attempt,
        stops: &Stops,
        timings: &mut Timings,
    ) -> Result<Cell, Outcome> {
        let stalls = &self.pools.stalls;
        if !order.untrusted
            && order.terms.is_none()
            && let Some(mut cell) = stalls.take_cell(&order.plugin, &order.key).await
        {
            cell.kind = StartKind::Warm;
            return Ok(cell);
        }
        let closed = || Outcome::NotStarted(Trouble::Other("the runner stops".into()));
        let turn = self.turn(order, stops).await?;
        let begun = Instant::now();
        let mut tries = 0;
        let mut cell = loop {
            tries += 1;
            // What is being made is made, whoever stops: nobody would answer for half of it.
            let room = tokio::select! {
                room = Arc::clone(self.room_of(order)).acquire_owned() => room.map_err(|_| closed())?,
                stop = stops.at_once() => return Err(before_launch(stop)),
            };
            match self.create(order, attempt, room, tries).await? {
                Ok(cell) => break cell,
                // socket-proxy saw a newer lock than we, or we than it: both read it when they need it. A holder may have died unseen.
                Err((error, was_held))
                    if tries < 2 && (was_held || error.meaning() == Meaning::OtherLock) => {}
                Err((error, _)) => return Err(refused_or_not_started(&error)),
            }
        };
        timings.create = begun.elapsed();
        cell.turn = turn;
        Ok(cell)
    }

    /// One try; an inner error tells whether the cell was to join a holder that others had used.
    async fn create(
        &self,
        order: &Order,
        attempt: &Attempt,
        room: OwnedSemaphorePermit,
        tries: u32,
    ) -> Result<Result<Cell, (Error, bool)>, Outcome> {
        let (pools, maker) = (&self.pools, &self.pools.maker);
        let subject = Subject {
            plugin: &order.plugin,
            locked: order.locked()?,
            serial: order.key.serial,
        };
        let seat = Seat::Job {
            job: attempt.job,
            attempt: attempt.number,
        };
        let spec = maker.cell_spec(subject, seat, order.untrusted, None);
        host_paths::check(&maker.engine, &maker.roster, &*pools.audit, &spec).await?;
        maker.states.admit(&spec).await?;
        let tenancy = if spec.has_egress() {
            match maker.holder(subject, None).await {
                Ok(holder) => Tenancy::Own(holder),
                Err(error) => return Ok(Err((error, false))),
            }
        } else if order.untrusted || order.terms.is_some() || tries > 1 {
            Tenancy::Alone
        } else {
            let kept = pools.stalls.take_holder(&order.plugin, &order.key);
            kept.map_or(Tenancy::Alone, |(holder, until)| {
                Tenancy::Kept(holder, until)
            })
        };
        match maker
            .cell(subject, (seat, order.untrusted), tenancy, room)
            .await
        {
            Ok(cell) => Ok(Ok(cell)),
            Err((error, tenancy)) => {
                let was_held = matches!(tenancy, Tenancy::Kept(..));
                pools.vacate(&order.plugin, &order.key, tenancy);
                Ok(Err((error, was_held)))
            }
        }
    }

    /// From the request to the answer.
    async fn work(
        &self,
        cell: &mut Cell,
        order: &Order,
        (attempt, reports): (&Attempt, &impl Reports),
        stops: &Stops,
        timings: &mut Timings,
    ) -> (Outcome, Parting) {
        if let Err(outcome) = self.launch(cell, order, attempt, (stops, timings)).await {
            return (outcome, Parting::Prompt);
        }
        if let Some(terms) = order.terms {
            let launched = Instant::now();
            let outcome = self
                .serve(cell, order, (attempt, terms), stops, reports)
                .await;
            timings.run = launched.elapsed();
            return (outcome, Parting::Prompt);
        }
        if !order.untrusted
            && let Ok(locked) = order.locked()
        {
            let jobs =
                bounds::parallelism(&order.loaded.view, &order.plugin, locked).min(self.slots);
            let bounds = bounds::bounds(&locked.proposed, jobs);
            let (plugin, key) = (order.plugin.clone(), order.key.clone());
            self.pools.used(plugin, key, bounds);
        }
        let launched = Instant::now();
        let ending = cell.watch.ended(attempt.time).await;
        timings.run = launched.elapsed();
        let parting = if ending == Ending::Answered {
            Parting::Gentle
        } else {
            Parting::Prompt
        };
        (self.outcome(cell, ending).await, parting)
    }

    /// Gives the cell its request. Only when socket-proxy has taken it is a cell started that does not run already.
    async fn launch(
        &self,
        cell: &mut Cell,
        order: &Order,
        attempt: &Attempt,
        (stops, timings): (&Stops, &mut Timings),
    ) -> Result<(), Outcome> {
        if let Some(stop) = stops.at_once().now_or_never() {
            return Err(before_launch(stop));
        }
        let envelope = attempt.envelope.to_bytes();
        let bytes = envelope.map_err(|e| Outcome::Refused(e.to_string()))?;
        let mut input = cell.input.take().ok_or_else(|| {
            Outcome::NotStarted(Trouble::Other("the cell cannot be spoken to".into()))
        })?;
        cell.watch.feed(Box::pin(async move {
            input.write_all(&bytes).await?;
            input.flush().await
        }));
        cell.watch.stopped_by(Box::pin(stops.clone().with_grace()));
        let was_running = cell.watch.is_started();
        let begun = Instant::now();
        let told = cell.watch.told(LAUNCH).await;
        timings.start = begun.elapsed();
        match cell.watch.collector.control() {
            Some(Control::Refused(reason)) => return Err(Outcome::Refused(reason.clone())),
            Some(Control::NotNow(why)) => {
                return Err(Outcome::NotStarted(Trouble::Other(why.clone())));
            }
            Some(Control::Granted(_) | Control::Launched(_) | Control::Returned(_)) | None => {}
        }
        match told {
            None => {}
            Some(Ending::Exited(_)) => {
                let why = "its cell ended before it had its request";
                return Err(Outcome::NotStarted(Trouble::Other(why.into())));
            }
            Some(Ending::Early) => {
                if let Ok(locked) = order.locked() {
                    self.pools.early(&order.plugin, locked, &cell.handle.id);
                }
                return Err(lost(
                    "its cell wrote before it had its request",
                    Bytes::new(),
                ));
            }
            Some(ending) => return Err(self.outcome(cell, ending).await),
        }
        if was_running {
            return Ok(());
        }
        // It has its request: whatever stops it from here on, it may have run.
        let started = tokio::select! {
            started = cell.start() => started,
            stop = stops.at_once() => return Err(stopped(stop, Bytes::new())),
        };
        timings.start = begun.elapsed();
        let Err(error) = started else { return Ok(()) };
        if error.meaning() == Meaning::Unwell {
            return Err(unclear(cell, &error).await);
        }
        Err(match (&cell.tenancy, error.meaning()) {
            // Its holder may have ended in between.
            (Tenancy::Kept(..), Meaning::Refused | Meaning::Gone) => {
                Outcome::NotStarted(Trouble::Other(error.sentence()))
            }
            _ => refused_or_not_started(&error),
        })
    }

    async fn outcome(&self, cell: &mut Cell, ending: Ending) -> Outcome {
        let (stdout, stderr) = cell.watch.collector.take_output();
        let exit_code = match ending {
            Ending::Exited(code) => code,
            Ending::Answered => 0,
            Ending::Overflowed | Ending::Failed => KILLED,
            Ending::TimedOut { killed } => return Outcome::TimedOut { stderr, killed },
            Ending::Stopped(Stop::OverLimit) => return state::refused(cell.state.as_ref()),
            Ending::Stopped(stop) => return stopped(stop, stderr),
            Ending::Early => return lost("it wrote before it had its request", stderr),
            Ending::Lost(reason) => return lost(&reason, stderr),
        };
        let mut out_of_memory = false;
        if exit_code != 0 {
            match cell.handle.engine.inspect(&cell.handle.id).await {
                Ok(ended) => out_of_memory = ended.out_of_memory,
                Err(error) => return lost(&error.sentence(), stderr),
            }
        }
        Outcome::Finished {
            stdout,
            stderr,
            exit_code,
            out_of_memory,
        }
    }
}

/// Before the launch nothing has happened that counts.
fn before_launch(stop: Stop) -> Outcome {
    Outcome::NotStarted(Trouble::Other(stop.sentence().to_owned()))
}

/// A start that was not answered: only where Docker says that nothing ran may it be tried again as if nothing had.
async fn unclear(cell: &mut Cell, error: &Error) -> Outcome {
    match cell.handle.engine.inspect(&cell.handle.id).await {
        Ok(seen) if !seen.was_started => refused_or_not_started(error),
        Ok(_) | Err(_) => lost(&error.sentence(), Bytes::new()),
    }
}

fn refused_or_not_started(error: &Error) -> Outcome {
    let text = error.sentence();
    match error.meaning() {
        Meaning::Unwell => Outcome::NotStarted(Trouble::Docker(text)),
        Meaning::OtherLock => Outcome::NotStarted(Trouble::Other(text)),
        // A sealed image or a container that is gone does not come back by itself.
        Meaning::Gone | Meaning::Refused => Outcome::Refused(text),
    }
}

fn lost(reason: &str, stderr: Bytes) -> Outcome {
    Outcome::Lost {
        reason: reason.to_owned(),
        stderr,
        stopped: false,
    }
}

fn stopped(stop: Stop, stderr: Bytes) -> Outcome {
    Outcome::Lost {
        reason: stop.sentence().to_owned(),
        stderr,
        stopped: stop == Stop::Stopping,
    }
}
