//! Sends probes to measure states: containers as walled as a cell, which see one state, read-only, and say what they found by their exit code.

use std::sync::Arc;
use std::time::Duration;

use bailey_cell::usage::{Percent, Usage};
use bailey_cell::{Entry, Look, Pace, Probe, Spec};
use bailey_config::Config;
use bailey_trust::{Loaded, LockSource, LockedPlugin, StateLimit};
use bailey_types::{ImageId, JobId, StackId};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::Whose;
use crate::attempt::Trouble;
use crate::docker::{Engine, Error, Meaning};
use crate::gate;
use crate::roster::{Occupant, Roster};

/// A probe that looks once gives up by itself before this.
const LIMIT: Duration = Duration::from_secs(90);
/// socket-proxy may see a newer lock than we, or we than it: both read it when they need it.
const TRIES: u32 = 2;

/// What became of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// It found this, where there may be that much.
    Found(StateLimit, Usage),
    /// It was called off.
    Stopped,
    /// The lock knows of no such state.
    Gone,
}

/// Measures states.
pub trait Survey: Send + Sync + 'static {
    /// Measures one, until `until` calls it off. An error means that nobody could look.
    fn measure<'a>(
        &'a self,
        whose: &'a Whose,
        pace: Pace,
        until: CancellationToken,
    ) -> BoxFuture<'a, Result<Measured, Trouble>>;

    /// How much it may hold now.
    fn limit(&self, whose: &Whose) -> Option<StateLimit>;
}

/// What became of a probe.
enum Ran {
    Ended(i64),
    Stopped,
    /// There was nothing to look at.
    Nothing,
}

/// Measures by containers.
pub struct Probes {
    /// Where they run.
    pub engine: Engine,
    /// Whose they are.
    pub stack: StackId,
    /// Where each is written down.
    pub roster: Roster,
    /// What may be kept.
    pub lock: Arc<LockSource<Config>>,
}

impl Survey for Probes {
    fn measure<'a>(
        &'a self,
        whose: &'a Whose,
        pace: Pace,
        until: CancellationToken,
    ) -> BoxFuture<'a, Result<Measured, Trouble>> {
        self.try_measure(whose, pace, until).boxed()
    }

    fn limit(&self, whose: &Whose) -> Option<StateLimit> {
        let loaded = self.lock.current().ok()?;
        locked(&loaded, whose)?.quota()
    }
}

fn locked<'a>(loaded: &'a Loaded<Config>, whose: &Whose) -> Option<&'a LockedPlugin> {
    let locked = loaded.lock.plugins.get(&whose.plugin);
    locked.filter(|locked| locked.state_generation == whose.generation)
}

impl Probes {
    async fn try_measure(
        &self,
        whose: &Whose,
        pace: Pace,
        until: CancellationToken,
    ) -> Result<Measured, Trouble> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.send(whose, pace, &until).await {
                Ok(measured) => return measured,
                Err(error) if tries < TRIES && error.meaning() == Meaning::OtherLock => {}
                Err(error) => return Err(Trouble::from(&error)),
            }
        }
    }

    /// One try; an outer error is the engine's or socket-proxy's.
    async fn send(
        &self,
        whose: &Whose,
        pace: Pace,
        until: &CancellationToken,
    ) -> Result<Result<Measured, Trouble>, Error> {
        let loaded = match self.lock.current() {
            Ok(loaded) => loaded,
            Err(error) => return Ok(Err(Trouble::Other(error.to_string()))),
        };
        let Some(locked) = locked(&loaded, whose) else {
            return Ok(Ok(Measured::Gone));
        };
        let Some(limit) = locked.quota() else {
            return Ok(Ok(Measured::Gone));
        };
        let Some(image) = gate::image(&self.engine).await? else {
            let why = "socket-proxy does not know its own image, which measures states";
            return Ok(Err(Trouble::Other(why.into())));
        };
        let entry = Entry {
            serial: loaded.lock.serial,
            plugin: &whose.plugin,
            locked,
        };
        let code = match self.run(entry, pace, &image, until).await? {
            Ran::Ended(code) => code,
            Ran::Stopped => return Ok(Ok(Measured::Stopped)),
            Ran::Nothing => {
                let nothing = Usage::Within(Percent::default());
                return Ok(Ok(Measured::Found(limit, nothing)));
            }
        };
        let plugin = &whose.plugin;
        let other = || Trouble::Other(format!("measuring what {plugin} keeps ended with {code}"));
        let usage = Usage::from_code(code).ok_or_else(other);
        Ok(usage.map(|usage| Measured::Found(limit, usage)))
    }

    /// Runs a probe. Nothing of it is left.
    async fn run(
        &self,
        entry: Entry<'_>,
        pace: Pace,
        image: &ImageId,
        until: &CancellationToken,
    ) -> Result<Ran, Error> {
        let job = JobId::new();
        let _berth = self.roster.begin(Occupant::Probe(job));
        let spec = Spec::Probe(Probe {
            stack: &self.stack,
            image,
            job,
            look: Look::State(entry, pace),
        });
        let id = match self.engine.create(&spec).await {
            Ok(id) => id,
            // Where no cell has kept anything yet there is nothing to look at.
            Err(error) if error.meaning() == Meaning::Gone => return Ok(Ran::Nothing),
            Err(error) => return Err(error),
        };
        let late = async {
            match pace {
                Pace::Once => tokio::time::sleep(LIMIT).await,
                Pace::Watching => std::future::pending().await,
            }
        };
        let code = tokio::select! {
            code = gate::run(&self.engine, &id) => code.map(Ran::Ended),
            () = until.cancelled() => Ok(Ran::Stopped),
            () = late => Ok(Ran::Ended(Usage::Slow.code().into())),
        };
        self.engine.remove(&id).await?;
        code
    }
}
