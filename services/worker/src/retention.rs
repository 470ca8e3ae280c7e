//! Deleting what is old.

use std::time::Duration;

use bailey_mesh::{Mesh, MeshChannel};
use bailey_proto::engine::v1::retention_service_client::RetentionServiceClient;
use bailey_proto::engine::v1::{PruneRequest, PruneResponse};
use bailey_service::Context;
use bailey_trust::{Lock, LockSource};
use bailey_types::{Serial, Service};
use serde_json::json;

/// How often the engine is asked.
const EVERY: Duration = Duration::from_mins(10);

/// How soon again after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Rows of each kind in one call: the engine's writer is busy for some ten milliseconds.
const BATCH: u32 = 1000;

/// Between two batches, so that the engine's own work comes first.
const BREATHER: Duration = Duration::from_millis(50);

/// Most batches in one round; what is left waits for the next.
const MAX_BATCHES: u32 = 1000;

const LONGEST_CALL: Duration = Duration::from_secs(30);

/// Prunes until the shutdown.
pub async fn run(ctx: Context, mesh: Mesh) -> anyhow::Result<()> {
    let lock = ctx.lock(Serial(0), kept_for);
    let mut pause = FIRST_PAUSE;
    loop {
        let pruned = tokio::select! {
            pruned = round(&ctx, &mesh, &lock) => pruned,
            () = ctx.shutdown.cancelled() => return Ok(()),
        };
        let wait = if pruned.is_ok() { EVERY } else { pause };
        pause = if pruned.is_ok() {
            FIRST_PAUSE
        } else {
            (pause * 2).min(LONGEST_PAUSE)
        };
        ctx.trouble(
            "retention",
            pruned
                .err()
                .map(|reason| format!("nothing is pruned: {reason}")),
        );
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = ctx.shutdown.cancelled() => return Ok(()),
        }
    }
}

/// How long finished jobs, with their logs, events and facts stay: one table holds both, so the longer of the two spans counts.
fn kept_for(lock: &Lock) -> Result<Duration, String> {
    let config = bailey_config::parse(&lock.config_files).map_err(|e| e.to_string())?;
    Ok(config
        .service
        .job_log_retention
        .max(config.service.job_queue_retention))
}

/// Deletes everything that is too old now; the error says why it could not.
async fn round(ctx: &Context, mesh: &Mesh, lock: &LockSource<Duration>) -> Result<(), String> {
    let kept_for = lock.current().map_err(|e| e.to_string())?.view;
    let before = ctx.clock.now().minus(kept_for);
    let mut client = RetentionServiceClient::new(mesh.channel(Service::Engine));
    let (mut jobs, mut events, mut facts) = (0_u64, 0_u64, 0_u64);
    for _ in 0..MAX_BATCHES {
        let pruned = batch(&mut client, before.0).await?;
        jobs = jobs.saturating_add(pruned.jobs);
        events = events.saturating_add(pruned.events);
        facts = facts.saturating_add(pruned.facts);
        if pruned.jobs.max(pruned.events).max(pruned.facts) < u64::from(BATCH) {
            break;
        }
        tokio::time::sleep(BREATHER).await;
    }
    if jobs > 0 || events > 0 || facts > 0 {
        tracing::info!(
            jobs,
            events,
            facts,
            "pruned {jobs} jobs, {events} events and {facts} facts from before {before}"
        );
        let fields = json!({"jobs": jobs, "events": events, "facts": facts, "before_ms": before.0});
        mesh.auditor().append("retention.pruned", &fields);
    }
    Ok(())
}

/// One call: how many of each kind went.
async fn batch(
    client: &mut RetentionServiceClient<MeshChannel>,
    before_ms: i64,
) -> Result<PruneResponse, String> {
    let request = PruneRequest {
        jobs_before_ms: before_ms,
        events_before_ms: before_ms,
        facts_before_ms: before_ms,
        limit: BATCH,
    };
    let answer = tokio::time::timeout(LONGEST_CALL, client.prune(request)).await;
    let answer =
        answer.map_err(|_| format!("the engine did not answer within {LONGEST_CALL:?}"))?;
    let pruned = answer.map_err(|status| status.message().to_owned())?;
    Ok(pruned.into_inner())
}
