//! The jobs that an event starts.

use std::collections::BTreeMap;

use bailey_config::Config;
use bailey_types::{CommandName, JobId};
use serde_json::value::{RawValue, to_raw_value};

use crate::event::NewEvent;
use crate::job::{AskedBy, Input, Job, NewJob};
use crate::route::Routes;
use crate::work::Work;
use crate::{db, request};

/// Why the jobs of an event cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Making the event's envelope.
    #[error("writing the event")]
    Envelope(#[from] serde_json::Error),
    /// The database.
    #[error("storing the jobs")]
    Db(#[from] sqlx::Error),
}

/// What starts them.
#[derive(Debug)]
pub struct Cause<'a> {
    /// The event, which is in the log already.
    pub event: &'a NewEvent,
    /// The job that emitted it; `None`: it came from outside.
    pub parent: Option<&'a Job>,
    /// Why they may run.
    pub asked_by: AskedBy,
    /// Who asked for the root of the tree.
    pub principal: &'a str,
}

/// Puts in one job per target.
pub async fn start(
    work: &mut Work,
    config: &Config,
    routes: Routes,
    cause: &Cause<'_>,
) -> Result<Vec<JobId>, Error> {
    for reason in &routes.too_deep {
        tracing::warn!(event.id = %cause.event.id, "the event {} is not routed to {reason}", cause.event.id);
        if let Some(parent) = cause.parent {
            let payload = serde_json::json!({ "job_id": parent.id, "event_id": cause.event.id, "reason": reason });
            work.tell("router.depth_exceeded", parent.id, &payload)
                .await?;
        }
    }
    if routes.targets.is_empty() {
        return Ok(Vec::new());
    }
    let envelope = envelope(cause)?;
    let handle: CommandName = request::HANDLE.parse().map_err(db::corrupt)?;
    let mut started = Vec::new();
    for target in routes.targets {
        let max_attempts = config
            .enabled_plugin(&target.plugin)
            .map_or(1, |plugin| plugin.retry.max_attempts);
        let job = NewJob {
            id: JobId::new(),
            plugin: target.plugin,
            command: handle.clone(),
            max_attempts,
            submitted_by: "route".to_owned(),
            dedupe_key: cause.event.dedupe_key.clone(),
            parent: cause.parent.map(|parent| parent.id),
            source_event: Some(cause.event.id),
            place: Some(target.place),
            route_depth: target.route_depth,
            generation: target.generation,
            principal: cause.principal.to_owned(),
            input: Input {
                payload: envelope.clone(),
                context: "{}".to_owned(),
                asked_by: cause.asked_by.clone(),
            },
        };
        if duplicate(work, config, &job).await? {
            continue;
        }
        if work.enqueue(&job).await? {
            started.push(job.id);
        }
    }
    Ok(started)
}

/// Whether a job with the same key has succeeded lately. What is under way does not count: an event may fan out to equal targets.
async fn duplicate(work: &mut Work, config: &Config, job: &NewJob) -> Result<bool, sqlx::Error> {
    let since = work.now().minus(config.service.dedupe_ttl);
    let key = (&job.plugin, &job.command, job.dedupe_key.as_str());
    let known = db::job::find::duplicate(work.db(), key, since, None).await?;
    if let Some(known) = known {
        tracing::info!(job.id = %known, "dropped a routed job: job {known} has the same dedupe key");
    }
    Ok(known.is_some())
}

/// The event as its targets get it. From a job it says where it comes from (reference: ductile 3.4); one from outside stays as it was signed.
fn envelope(cause: &Cause<'_>) -> serde_json::Result<String> {
    let own: &RawValue = serde_json::from_str(&cause.event.payload)?;
    let Some(parent) = cause.parent else {
        return cause.event.envelope(own);
    };
    let mut payload: BTreeMap<String, Box<RawValue>> = serde_json::from_str(own.get())?;
    let place = parent.place.as_ref();
    let upstream = [
        ("ductile_upstream_plugin", Some(parent.plugin.as_str())),
        (
            "ductile_upstream_pipeline",
            place.map(|place| place.pipeline.as_str()),
        ),
        (
            "ductile_upstream_step_id",
            place.map(|place| place.step.as_str()),
        ),
    ];
    for (name, value) in upstream {
        // An older one, which the plugin has passed on, would be wrong here.
        payload.remove(name);
        if let Some(value) = value {
            payload.insert(name.to_owned(), to_raw_value(value)?);
        }
    }
    cause.event.envelope(&to_raw_value(&payload)?)
}
