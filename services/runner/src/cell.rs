//! The life of one cell: made, attached, started, fed, watched, removed.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bailey_cell::launch::{Control, Envelope};
use bailey_cell::{Cell, Spec};
use bailey_config::Config;
use bailey_trust::{Decision, LockSource, LockedPlugin, StatementError, VerifyingKey, verify};
use bailey_types::StackId;
use bytes::Bytes;
use futures::FutureExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::attempt::{Attempt, Done, Outcome, Stops, Timings, Trouble};
use crate::docker::{Attached, Engine, Error, Meaning, Signal};
use crate::ticket::{self, Tickets};
use crate::watch::{Ending, Events, Hands, Stop, Watch};

/// How long socket-proxy may take to feed a cell that is attached and started.
const LAUNCH: Duration = Duration::from_secs(15);
/// A removal that fails is tried again this often before it is left to the next clean-up.
const REMOVALS: u32 = 3;

/// What running a cell takes.
pub struct Workshop<T> {
    /// Where containers are made.
    pub engine: Engine,
    /// Where tickets are made.
    pub tickets: T,
    /// What may run.
    pub lock: Arc<LockSource<Config>>,
    /// Policy's key.
    pub policy: VerifyingKey,
    /// Whose containers they are.
    pub stack: StackId,
}

/// One container of this attempt's.
struct Container<'a> {
    engine: &'a Engine,
    id: String,
}

impl Hands for Container<'_> {
    async fn kill(&self, signal: Signal) -> Result<(), Error> {
        self.engine.kill(&self.id, signal).await
    }

    async fn is_running(&self) -> Result<bool, Error> {
        Ok(self.engine.inspect(&self.id).await?.running)
    }
}

impl<T: Tickets> Workshop<T> {
    /// Runs one attempt. When this returns, its container is removed, or `leftover` says why it is not.
    pub async fn run(&self, attempt: &Attempt, stops: &Stops) -> Done {
        let mut timings = Timings::default();
        let container = match self.create(attempt, &mut timings).await {
            Ok(container) => container,
            Err(outcome) => {
                return Done {
                    outcome,
                    timings,
                    leftover: None,
                };
            }
        };
        let work = self.launch(&container, attempt, stops, &mut timings);
        // A bug of ours must not leave a container behind.
        let worked = AssertUnwindSafe(work).catch_unwind().await;
        let leftover = remove(&container).await;
        let failed = |_| lost("the runner failed while the cell ran", Bytes::new());
        Done {
            outcome: worked.unwrap_or_else(failed),
            timings,
            leftover,
        }
    }

    async fn create(
        &self,
        attempt: &Attempt,
        timings: &mut Timings,
    ) -> Result<Container<'_>, Outcome> {
        let started = Instant::now();
        let decision = self.decision(attempt)?;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.create_once(attempt, &decision).await? {
                Ok(id) => {
                    timings.create = started.elapsed();
                    return Ok(Container {
                        engine: &self.engine,
                        id,
                    });
                }
                // socket-proxy saw a newer lock than we, or we than it: both read it when they need it.
                Err(error) if error.meaning() == Meaning::OtherLock && tries < 2 => {}
                Err(error) => return Err(refused_or_not_started(&error)),
            }
        }
    }

    async fn create_once(
        &self,
        attempt: &Attempt,
        decision: &Decision,
    ) -> Result<Result<String, Error>, Outcome> {
        let other = |text: String| Outcome::NotStarted(Trouble::Other(text));
        let loaded = self.lock.current().map_err(|e| other(e.to_string()))?;
        let lock = &loaded.lock;
        if lock.serial != decision.lock_serial {
            let (decided, now) = (decision.lock_serial, lock.serial);
            return Err(other(format!(
                "it was decided under lock {decided}; this is lock {now}"
            )));
        }
        let locked: &LockedPlugin = lock
            .plugins
            .get(&attempt.plugin)
            .filter(|locked| locked.proposed.image == decision.image)
            .ok_or_else(|| {
                Outcome::Refused(format!("{} is not locked with that image", attempt.plugin))
            })?;
        let spec = Spec::Cell(Cell {
            stack: &self.stack,
            serial: lock.serial,
            plugin: &attempt.plugin,
            locked,
            job: attempt.job,
            attempt: attempt.number,
        });
        Ok(self.engine.create(&spec).await)
    }

    /// The decision, if it is policy's and for this attempt. Broker and socket-proxy check it too; here it only saves a container.
    fn decision(&self, attempt: &Attempt) -> Result<Decision, Outcome> {
        let refused = |e: StatementError| Outcome::Refused(e.to_string());
        let decision = verify::<Decision>(&attempt.decision, &self.policy)
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

    async fn launch(
        &self,
        container: &Container<'_>,
        attempt: &Attempt,
        stops: &Stops,
        timings: &mut Timings,
    ) -> Outcome {
        let (attached, ticket) = tokio::select! {
            prepared = self.prepare(container, attempt, timings) => match prepared {
                Ok(prepared) => prepared,
                Err(outcome) => return outcome,
            },
            stop = stops.at_once() => return before_launch(stop),
        };
        let decision = attempt.decision.clone();
        let envelope = Envelope {
            decision,
            ticket: ticket.ticket,
            sealed: ticket.sealed.into(),
        };
        let bytes = match envelope.to_bytes() {
            Ok(bytes) => bytes,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        let mut input = attached.input;
        let feed = async move {
            input.write_all(&bytes).await?;
            input.flush().await
        };
        let events = Events {
            output: attached.output,
            exit: self.engine.wait(&container.id).boxed(),
            stop: stops.clone().with_grace().boxed(),
            feed: feed.boxed(),
        };
        let mut watch = Watch::new(container, events);
        let early = watch.launched(LAUNCH).await;
        if let Some(Control::Refused(reason)) = watch.collector.control() {
            return Outcome::Refused(reason.clone());
        }
        let launched = Instant::now();
        let ending = match early {
            Some(ending) => ending,
            None => watch.ended(attempt.time).await,
        };
        timings.run = launched.elapsed();
        self.outcome(container, ending, watch.collector.into_output())
            .await
    }

    /// Attaches, then starts the cell while the broker makes its ticket.
    async fn prepare(
        &self,
        container: &Container<'_>,
        attempt: &Attempt,
        timings: &mut Timings,
    ) -> Result<(Attached, ticket::Ticket), Outcome> {
        let begun = Instant::now();
        let attached = self.engine.attach(&container.id).await;
        let attached = attached.map_err(|e| refused_or_not_started(&e))?;
        timings.create += begun.elapsed();
        let start = timed(self.engine.start(&container.id));
        let (decision, request) = (attempt.decision.clone(), attempt.request.clone());
        let ticket = timed(self.tickets.make(decision, request, &container.id));
        let ((started, start_time), (ticket, ticket_time)) = tokio::join!(start, ticket);
        (timings.start, timings.ticket) = (start_time, ticket_time);
        // The broker's no is final, whatever Docker did.
        let ticket = match ticket {
            Ok(ticket) => ticket,
            Err(ticket::Error::Refused(reason)) => return Err(Outcome::Refused(reason)),
            Err(e @ ticket::Error::Unavailable(_)) => {
                return Err(Outcome::NotStarted(Trouble::Broker(e.to_string())));
            }
        };
        started.map_err(|e| refused_or_not_started(&e))?;
        Ok((attached, ticket))
    }

    async fn outcome(
        &self,
        container: &Container<'_>,
        ending: Ending,
        (stdout, stderr): (Bytes, Bytes),
    ) -> Outcome {
        let exit_code = match ending {
            Ending::Exited(code) => code,
            // Killed by us: 128 + SIGKILL.
            Ending::Overflowed => 137,
            Ending::TimedOut { killed } => return Outcome::TimedOut { stderr, killed },
            Ending::Stopped(Stop::Cancelled) => return lost("cancelled", stderr),
            Ending::Stopped(Stop::Stopping) => return lost("the runner was stopped", stderr),
            Ending::Lost(reason) => return lost(&reason, stderr),
        };
        let mut out_of_memory = false;
        if exit_code != 0 {
            match self.engine.inspect(&container.id).await {
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

async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let started = Instant::now();
    (work.await, started.elapsed())
}

/// Before the launch nothing has happened that counts.
fn before_launch(stop: Stop) -> Outcome {
    let reason = match stop {
        Stop::Cancelled => "cancelled",
        Stop::Stopping => "the runner was stopped",
    };
    Outcome::NotStarted(Trouble::Other(reason.to_owned()))
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
    }
}

/// Removes a container; answers why it could not be done.
async fn remove(container: &Container<'_>) -> Option<String> {
    let mut leftover = None;
    for _ in 0..REMOVALS {
        match container.engine.remove(&container.id).await {
            Ok(()) => return None,
            Err(error) => leftover = Some(error.sentence()),
        }
    }
    leftover
}
