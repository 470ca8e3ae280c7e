//! How the services of the lock are, for people.

use std::collections::BTreeMap;

use bailey_plugin::catalogue::{Service as Shown, ServiceState};
use bailey_types::PluginName;

use super::Service;
use crate::db;
use crate::job::{Job, Status};
use crate::state::State;
use crate::view::Locked;

/// Every service of the lock.
pub async fn show(
    state: &State,
    locked: &Locked,
) -> Result<BTreeMap<PluginName, Shown>, sqlx::Error> {
    let mut read = state.db.read().await?;
    let live = db::service::live(&mut read).await?;
    drop(read);
    let quarantined = state.fleet.quarantined();
    let plugins = locked.lock.plugins.iter();
    let services = plugins.filter(|(_, plugin)| plugin.proposed.walls.service.is_some());
    let shown = services.map(|(name, _)| {
        // While one waits for its predecessor to end, both are there; the newer one is what is locked.
        let newest = live.iter().rev().find(|(job, _)| job.plugin == *name);
        let held = quarantined.get(name.as_str());
        (name.clone(), one(state, newest, held))
    });
    Ok(shown.collect())
}

/// How many services the lock has, and how many of them run.
pub async fn count(state: &State, locked: &Locked) -> Result<(u32, u32), sqlx::Error> {
    let shown = show(state, locked).await?;
    let running = shown
        .values()
        .filter(|service| service.state == ServiceState::Running);
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Ok((number(shown.len()), number(running.count())))
}

fn one(state: &State, newest: Option<&(Job, Service)>, held: Option<&String>) -> Shown {
    let Some((job, service)) = newest else {
        return Shown {
            state: ServiceState::Absent,
            job_id: None,
            running_since: None,
            restarts: 0,
            detail: "the scheduler has not started it yet".to_owned(),
        };
    };
    let last_error = job.last_error.clone().unwrap_or_default();
    let (what, detail) = match (job.status, held) {
        (Status::Running, _) if service.wanted != super::Wanted::Run => {
            (ServiceState::Stopping, service.wanted.to_string())
        }
        (Status::Running, _) => (ServiceState::Running, last_error),
        (_, Some(reason)) => (ServiceState::Quarantined, reason.clone()),
        (_, None) => (ServiceState::Waiting, waiting(state, job, last_error)),
    };
    let running = job.status == Status::Running;
    let since = job.started_at.filter(|_| running);
    Shown {
        state: what,
        job_id: Some(job.id.to_string()),
        running_since: since.map(bailey_types::Timestamp::to_rfc3339),
        restarts: service.restarts,
        detail,
    }
}

fn waiting(state: &State, job: &Job, last_error: String) -> String {
    if !job.waiting_for.is_empty() {
        return job.waiting_for.clone();
    }
    if last_error.is_empty() {
        state.held_up()
    } else {
        last_error
    }
}
