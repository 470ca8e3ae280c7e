//! From the queue to the engine, until the engine has it.

use std::time::Duration;

use anyhow::Context as _;
use bailey_mesh::MeshChannel;
use bailey_proto::engine::v1::intake_service_client::IntakeServiceClient;
use bailey_proto::engine::v1::schedule_service_client::ScheduleServiceClient;
use bailey_proto::engine::v1::{OutstandingJobsRequest, SubmitJobRequest};
use bailey_service::Context;
use bailey_types::Service;
use serde_json::json;
use tonic::{Code, Request, Status};

use crate::db;
use crate::db::pending::{Pending, Start};
use crate::service;
use crate::state::State;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_CALL: Duration = Duration::from_secs(10);

/// Starts that are read at once.
const BATCH: u32 = 100;

/// Delivers until the shutdown. What is left then waits in the database.
pub async fn run(ctx: Context, state: State) -> anyhow::Result<()> {
    let engine = Engine::new(state.mesh.channel(Service::Engine));
    let mut pause = FIRST_PAUSE;
    loop {
        let away = tokio::select! {
            delivered = deliver_all(&state, &engine) => delivered?,
            () = ctx.shutdown.cancelled() => return Ok(()),
        };
        ctx.trouble(
            "engine",
            away.as_ref()
                .map(|status| format!("starts wait for the engine: {}", status.message())),
        );
        let waiting = async {
            if away.is_some() {
                tokio::time::sleep(pause).await;
                (pause * 2).min(LONGEST_PAUSE)
            } else {
                state.fired.notified().await;
                FIRST_PAUSE
            }
        };
        pause = tokio::select! {
            pause = waiting => pause,
            () = ctx.shutdown.cancelled() => return Ok(()),
        };
    }
}

/// Sends services first: they wait for nothing.
async fn deliver_all(state: &State, engine: &Engine) -> anyhow::Result<Option<Status>> {
    let away = service::deliver(state, &engine.channel).await?;
    // One service that cannot be put in keeps no schedule waiting.
    Ok(deliver(state, engine).await?.or(away))
}

/// Sends everything that is queued, oldest first; answers why it stopped before the end.
async fn deliver(state: &State, engine: &Engine) -> anyhow::Result<Option<Status>> {
    let mut after = 0;
    loop {
        let batch = {
            let mut read = state
                .db
                .read()
                .await
                .context("reading what is to be started")?;
            db::pending::oldest(&mut read, after, BATCH)
                .await
                .context("reading what is to be started")?
        };
        let Some(last) = batch.last() else {
            return Ok(None);
        };
        after = last.id;
        for pending in &batch {
            if let Err(status) = settle(state, engine, pending).await {
                return Ok(Some(status));
            }
            let mut tx = state
                .db
                .write()
                .await
                .context("taking a start off the queue")?;
            db::pending::delete(&mut tx, pending.id)
                .await
                .context("taking a start off the queue")?;
            tx.commit().await.context("taking a start off the queue")?;
        }
    }
}

/// Does with one start what is to be done: the error means that it must be tried again.
async fn settle(state: &State, engine: &Engine, pending: &Pending) -> Result<(), Status> {
    let start = &pending.start;
    let (plugin, id) = &start.key;
    let outcome = match leave_out(state, engine, start).await {
        Ok(None) => engine.submit(start).await,
        Ok(Some(reason)) => {
            tracing::info!(plugin.name = %plugin, schedule.id = %id, "left out a start: {reason}");
            return Ok(());
        }
        Err(status) => Err(status),
    };
    match outcome {
        Ok(job) => {
            tracing::info!(plugin.name = %plugin, schedule.id = %id, job.id = job, "started {plugin} {} by the schedule {id}", start.command);
            Ok(())
        }
        Err(status) if is_final(status.code()) => {
            let reason = status.message();
            tracing::warn!(plugin.name = %plugin, schedule.id = %id, error = reason, "the engine refused a start: {reason}");
            let fields =
                json!({"plugin": plugin, "schedule": id, "code": format!("{:?}", status.code())});
            state
                .mesh
                .auditor()
                .append_refusal("schedule.refused", &fields);
            Ok(())
        }
        Err(status) => Err(status),
    }
}

/// Why a start is not made, if it is not.
async fn leave_out(
    state: &State,
    engine: &Engine,
    start: &Start,
) -> Result<Option<&'static str>, Status> {
    let loaded = state
        .lock
        .current()
        .map_err(|e| Status::unavailable(e.to_string()))?;
    let Some(entry) = loaded.view.entries.get(&start.key) else {
        return Ok(Some("it is not locked any more"));
    };
    if start.caught_up {
        return Ok(None);
    }
    let outstanding = engine.outstanding(start).await?;
    Ok((outstanding >= entry.overlap_limit()).then_some("earlier ones still run"))
}

/// Whether trying again would be answered the same.
pub(crate) fn is_final(code: Code) -> bool {
    match code {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition => true,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

struct Engine {
    channel: MeshChannel,
}

impl Engine {
    fn new(channel: MeshChannel) -> Self {
        Self { channel }
    }

    async fn outstanding(&self, start: &Start) -> Result<u32, Status> {
        let message = OutstandingJobsRequest {
            plugin: start.key.0.to_string(),
            command: start.command.to_string(),
        };
        let mut client = ScheduleServiceClient::new(self.channel.clone());
        let answer = in_time(client.outstanding_jobs(Request::new(message))).await?;
        Ok(answer.into_inner().count)
    }

    async fn submit(&self, start: &Start) -> Result<String, Status> {
        let message = SubmitJobRequest {
            origin: Some(start.origin.clone()),
            plugin: start.key.0.to_string(),
            command: start.command.to_string(),
            payload: start.payload.clone().into(),
            // The origin's id already makes sending twice one job; a key would also swallow the next start.
            dedupe_key: String::new(),
            submitted_by: format!("schedule:{}", start.key.1),
            dedupe_ttl_ms: 0,
            wait_ms: 0,
        };
        let mut client = IntakeServiceClient::new(self.channel.clone());
        let answer = in_time(client.submit_job(Request::new(message))).await?;
        Ok(answer.into_inner().job_id)
    }
}

pub(crate) async fn in_time<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late =
        |_| Status::deadline_exceeded(format!("the engine did not answer within {LONGEST_CALL:?}"));
    tokio::time::timeout(LONGEST_CALL, call)
        .await
        .map_err(late)?
}
