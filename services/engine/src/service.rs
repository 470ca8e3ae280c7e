//! Services: jobs that last for as long as the lock has their plugin as it was when they were put in ([ADR 12]).
//!
//! The scheduler puts one in for each service of a lock. What ends is started again, after a pause that grows; only the lock ends one for
//! good. A successor waits in the queue until its predecessor's cell is gone: both may keep files in the same volume.
//!
//! [ADR 12]: ../../../docs/adr/0012-service-plugins.md

mod show;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bailey_error::{Chain, Classify, Kind};
use bailey_trust::{LockSourceError, SERVE};
use bailey_types::{CommandName, JobId, OriginId, PluginName, Sha256};
use serde_json::json;

use crate::db;
use crate::db::job::Traces;
use crate::db::origin::Used;
use crate::fleet::Lease;
use crate::job::{Job, NewJob, Status};
use crate::state::State;
use crate::view::Locked;
use crate::work::Work;

pub use show::{count, show};

/// Dedupe key of every service's job: no two of one plugin run at once.
pub const KEY: &str = "service";

/// The pause before the first start again; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// A cell that has run this long was well: the pauses begin anew.
const HEALTHY: Duration = Duration::from_mins(10);

/// What is kept of a job that lasts, beside its row in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Of what was locked when it was put in.
    pub definition: Sha256,
    /// What is to become of it.
    pub wanted: Wanted,
    /// Ends in a row.
    pub failures: u32,
    /// Starts again since it was put in.
    pub restarts: u64,
    /// Number of the last line of the current attempt.
    pub lines_taken: u64,
    /// Of the next event.
    pub next_event_index: u32,
}

/// What is to become of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It runs.
    Run,
    /// Its cell ends, and another runs at once.
    Restart,
    /// It ends: the lock has its plugin as something else now.
    Replaced,
    /// It ends: the lock does not have it any more.
    Removed,
}

impl Wanted {
    const ALL: [Self; 4] = [Self::Run, Self::Restart, Self::Replaced, Self::Removed];

    /// Its one name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Restart => "restart",
            Self::Replaced => "replaced",
            Self::Removed => "removed",
        }
    }

    /// Whether it ends for good.
    pub const fn is_end(self) -> bool {
        match self {
            Self::Run | Self::Restart => false,
            Self::Replaced | Self::Removed => true,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is not the name of a wish.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is nothing that can become of a service")]
pub struct BadWanted(String);

impl FromStr for Wanted {
    type Err = BadWanted;

    fn from_str(text: &str) -> Result<Self, BadWanted> {
        let wanted = Self::ALL.into_iter().find(|wanted| wanted.name() == text);
        wanted.ok_or_else(|| BadWanted(text.to_owned()))
    }
}

/// Why a service cannot be put in or started again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lock has none.
    #[error("{0} is not a service; `bailey plugin list` tells which are")]
    Absent(PluginName),
    /// Nobody has put it in yet.
    #[error("the service {0} has not been started yet")]
    NotYet(PluginName),
    /// Only its operator may have it start again.
    #[error("{0} is quarantined: `bailey plugin clear {0}` starts it again")]
    Quarantined(PluginName),
    /// There is no lock to go by.
    #[error(transparent)]
    Lock(#[from] LockSourceError),
    /// The origin was used for something else.
    #[error("the origin was used for something else before")]
    Reused,
    /// What is locked cannot be written down.
    #[error("reading what is locked of {plugin}")]
    Definition {
        /// The plugin.
        plugin: PluginName,
        /// Why.
        source: serde_json::Error,
    },
    /// The database.
    #[error("storing a service")]
    Db(#[from] sqlx::Error),
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Absent(_) => Kind::NotFound,
            Self::NotYet(_) | Self::Quarantined(_) | Self::Lock(_) => Kind::FailedPrecondition,
            Self::Reused => Kind::AlreadyExists,
            Self::Definition { .. } | Self::Db(_) => Kind::Internal,
        }
    }
}

/// How long to wait before the next start, and how many ends in a row there were then.
pub fn pause(failures: u32, ran: Duration) -> (Duration, u32) {
    let before = if ran >= HEALTHY { 0 } else { failures };
    let pause = FIRST_PAUSE.saturating_mul(1 << before.min(16));
    (pause.min(LONGEST_PAUSE), before.saturating_add(1))
}

/// What stands for the service as it is locked now; `None`: `command` of the plugin is no service.
pub fn definition(
    locked: &Locked,
    plugin: &PluginName,
    command: &CommandName,
) -> Result<Option<Sha256>, Error> {
    let entry = locked.lock.plugins.get(plugin);
    let found = entry.zip(locked.view.config.enabled_plugin(plugin));
    let Some((entry, config)) = found.filter(|(entry, _)| entry.lasts(command).is_some()) else {
        return Ok(None);
    };
    let definition = entry.definition(config);
    definition.map(Some).map_err(|source| Error::Definition {
        plugin: plugin.clone(),
        source,
    })
}

/// Why a service is to end that is not what is locked any more; `None`: it still is.
pub fn gone(locked: &Locked, job: &Job, service: &Service) -> Result<Option<Wanted>, Error> {
    let definition = definition(locked, &job.plugin, &job.command)?;
    Ok(match definition {
        Some(definition) if definition == service.definition => None,
        Some(_) => Some(Wanted::Replaced),
        None => Some(Wanted::Removed),
    })
}

/// Puts a service in, unless it runs exactly as it is locked. One that runs as something else is ended first. Answers its job, and whether
/// that was there already.
pub async fn submit(
    state: &State,
    origin: OriginId,
    job: NewJob,
    definition: Sha256,
) -> Result<(JobId, bool), Error> {
    let mut work = Work::begin(state).await?;
    match db::origin::used(work.db(), origin).await? {
        Some(Used::Job(job)) => return Ok((job, true)),
        Some(Used::Event(_)) => return Err(Error::Reused),
        None => {}
    }
    let mut leases = Vec::new();
    for (old, service) in db::service::live(work.db()).await? {
        if old.plugin != job.plugin {
            continue;
        }
        if service.definition == definition && !service.wanted.is_end() {
            return Ok((old.id, true));
        }
        leases.extend(stop(&mut work, &old, &service, Wanted::Replaced).await?);
    }
    work.enqueue(&job).await?;
    db::service::insert(work.db(), job.id, definition).await?;
    db::origin::remember(work.db(), origin, Used::Job(job.id)).await?;
    work.commit(state).await?;
    cancel(state, &leases);
    Ok((job.id, false))
}

/// Ends a service for good: at once where it waits, else when its cell has ended. Answers the lease that is to be cancelled.
async fn stop(
    work: &mut Work,
    job: &Job,
    service: &Service,
    wanted: Wanted,
) -> Result<Option<Lease>, sqlx::Error> {
    if job.status == Status::Queued {
        let traces = Traces {
            error: job.last_error.clone(),
            stderr: job.stderr.clone(),
            logs: job.logs.clone(),
        };
        let result = job.result.as_deref();
        work.end(job, Status::Cancelled, wanted.name(), result, &traces)
            .await?;
        return Ok(None);
    }
    if !service.wanted.is_end() {
        db::service::want(work.db(), job.id, wanted).await?;
    }
    Ok(Some((job.id, job.attempt)))
}

/// Compares what runs with what is locked, and ends what is not locked any more. Runs again and again: a cancellation that was not heard is
/// repeated. One that cannot be compared does not keep the others from it.
pub async fn follow(state: &State, locked: &Locked) -> Result<(), Error> {
    let mut read = state.db.read().await?;
    let live = db::service::live(&mut read).await?;
    drop(read);
    for (job, service) in live {
        if let Err(error) = follow_one(state, locked, &job, &service).await {
            tracing::error!(job.id = %job.id, plugin.name = %job.plugin, error = %Chain(&error), "comparing the service {} with the lock failed", job.plugin);
        }
    }
    Ok(())
}

async fn follow_one(
    state: &State,
    locked: &Locked,
    job: &Job,
    service: &Service,
) -> Result<(), Error> {
    let wanted = gone(locked, job, service)?.unwrap_or(service.wanted);
    if wanted.is_end() {
        end(state, job.id, wanted).await?;
    } else if wanted == Wanted::Restart && job.status == Status::Running {
        cancel(state, &[(job.id, job.attempt)]);
    }
    Ok(())
}

/// Ends one for good.
pub async fn end(state: &State, id: JobId, wanted: Wanted) -> Result<(), Error> {
    let mut work = Work::begin(state).await?;
    let job = db::job::find::by_id(work.db(), id).await?;
    let service = db::service::find(work.db(), id).await?;
    let found = job.zip(service);
    let Some((job, service)) = found.filter(|(job, _)| !job.status.is_terminal()) else {
        return Ok(());
    };
    let lease = stop(&mut work, &job, &service, wanted).await?;
    work.commit(state).await?;
    if let Some(lease) = lease {
        if !service.wanted.is_end() {
            tracing::info!(job.id = %id, plugin.name = %job.plugin, "the service {} ends: {wanted}", job.plugin);
        }
        cancel(state, &[lease]);
    }
    Ok(())
}

/// Starts a service anew, with the secrets of now. `principal` asks for it.
pub async fn restart(state: &State, plugin: &PluginName, principal: &str) -> Result<JobId, Error> {
    let locked = state.locked()?;
    let serve: CommandName = SERVE.parse().map_err(db::corrupt)?;
    if definition(&locked, plugin, &serve)?.is_none() {
        return Err(Error::Absent(plugin.clone()));
    }
    if state.fleet.quarantined().contains_key(plugin.as_str()) {
        return Err(Error::Quarantined(plugin.clone()));
    }
    let mut work = Work::begin(state).await?;
    let live = db::service::live(work.db()).await?;
    let mut live = live
        .into_iter()
        .filter(|(job, service)| job.plugin == *plugin && !service.wanted.is_end());
    let Some((job, _)) = live.next() else {
        return Err(Error::NotYet(plugin.clone()));
    };
    let now = work.now();
    if job.status == Status::Running {
        db::service::want(work.db(), job.id, Wanted::Restart).await?;
    } else {
        db::service::hurry(work.db(), job.id, now).await?;
    }
    work.commit(state).await?;
    let fields = json!({ "plugin": plugin, "job": job.id, "by": principal });
    state.auditor.append("service.restart", &fields);
    tracing::info!(job.id = %job.id, plugin.name = %plugin, "{principal} starts the service {plugin} again");
    if job.status == Status::Running {
        cancel(state, &[(job.id, job.attempt)]);
    }
    state.wake.notify_one();
    Ok(job.id)
}

/// The plugin is not quarantined any more: its service need not wait for what went wrong before.
pub async fn cleared(state: &State, plugin: &PluginName) -> Result<(), Error> {
    let mut work = Work::begin(state).await?;
    let now = work.now();
    for (job, _) in db::service::live(work.db()).await? {
        if job.plugin == *plugin && job.status == Status::Queued {
            db::service::hurry(work.db(), job.id, now).await?;
        }
    }
    work.commit(state).await?;
    state.wake.notify_one();
    Ok(())
}

/// Tells the runner that holds a lease to end it. Whether it has heard it shows when the lease is reported; until then it is told again.
fn cancel(state: &State, leases: &[Lease]) {
    for lease in leases {
        state.fleet.cancel(*lease);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes_and_begin_anew_after_ten_good_ones() {
        let soon = Duration::from_secs(3);
        let mut failures = 0;
        let mut pauses = Vec::new();
        for _ in 0..11 {
            let (wait, next) = pause(failures, soon);
            pauses.push(wait.as_secs());
            failures = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(pause(failures, HEALTHY), (FIRST_PAUSE, 1));
        let nearly = HEALTHY.saturating_sub(Duration::from_millis(1));
        assert_eq!(pause(failures, nearly).0, LONGEST_PAUSE);
        assert_eq!(pause(u32::MAX, soon).0, LONGEST_PAUSE);
    }

    #[test]
    fn a_wish_is_read_back_from_its_name() {
        for wanted in Wanted::ALL {
            assert_eq!(wanted.name().parse::<Wanted>().unwrap(), wanted);
        }
        assert!("stop".parse::<Wanted>().is_err());
    }
}
