//! Services: what the lock says is to last is put in at the engine for each lock, in each life of this process, and again and again. The engine
//! has one job for each, and keeps it going; being told of one that runs already changes nothing. What it refuses now, it may take soon: it
//! may go by another lock, or by none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use bailey_mesh::MeshChannel;
use bailey_proto::engine::v1::SubmitJobRequest;
use bailey_proto::engine::v1::intake_service_client::IntakeServiceClient;
use bailey_proto::trust::v1::Signed;
use bailey_trust::{Asked, Origin, SERVE, sign};
use bailey_types::{CommandName, OriginId, PluginName, Sha256, Timestamp};
use serde_json::json;
use tonic::Status;

use crate::delivery::{in_time, is_final};
use crate::state::State;

/// What every service is started with.
const PAYLOAD: &[u8] = b"{}";

/// How often the engine is told of a service that it has.
const AGAIN: Duration = Duration::from_mins(1);
/// The pause after a refusal; each further one doubles it, up to [`AGAIN`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// A service of the lock, and how the engine takes it.
#[derive(Clone, Debug)]
pub struct Service {
    /// What it is put in with next. One that was answered is not used again: the engine may have ended what it led to.
    origin: Signed,
    /// When it is put in next.
    due: Timestamp,
    /// The pause after the next refusal.
    pause: Duration,
    /// What the engine said last: the job, or why there is none.
    said: Option<Result<String, String>>,
}

/// These, each to be put in now.
pub fn all(
    state: &State,
    services: &BTreeSet<PluginName>,
) -> anyhow::Result<BTreeMap<PluginName, Service>> {
    let new = |plugin: &PluginName| {
        let service = Service {
            origin: origin(state, plugin)?,
            due: state.clock.now(),
            pause: FIRST_PAUSE,
            said: None,
        };
        Ok((plugin.clone(), service))
    };
    services.iter().map(new).collect()
}

/// Whether one is to be put in.
pub fn is_due(state: &State, now: Timestamp) -> bool {
    state.services().values().any(|service| service.due <= now)
}

fn origin(state: &State, plugin: &PluginName) -> anyhow::Result<Signed> {
    let command: CommandName = SERVE.parse().context("naming the command of services")?;
    let origin = Origin {
        id: OriginId::new(),
        principal: format!("service:{plugin}"),
        asked: Asked::Call {
            plugin: plugin.clone(),
            command,
            payload_sha256: Sha256::of(PAYLOAD),
        },
        scopes: Vec::new(),
        issued_at: state.clock.now(),
    };
    sign(&origin, &state.key).context("signing an origin")
}

/// Puts in each that is due; answers why it must be tried again soon.
pub async fn deliver(state: &State, channel: &MeshChannel) -> anyhow::Result<Option<Status>> {
    let now = state.clock.now();
    let mut waiting = state.services().clone();
    waiting.retain(|_, service| service.due <= now);
    let mut away = None;
    for (plugin, service) in waiting {
        let said = match submit(channel, &plugin, &service.origin).await {
            Ok(job) => Ok(job),
            Err(status) if is_final(status.code()) => Err(status),
            Err(status) => {
                away = Some(status);
                continue;
            }
        };
        let next = next(state, (&plugin, &service), &said, now)?;
        // Another lock may have put another origin in its place meanwhile; that one is still to be sent.
        let mut services = state.services();
        if let Some(known) = services.get_mut(&plugin)
            && known.origin == service.origin
        {
            *known = next;
        }
    }
    Ok(away)
}

/// How it goes on with a service that was put in `at` this time. What the engine has said before is no news.
fn next(
    state: &State,
    (plugin, service): (&PluginName, &Service),
    said: &Result<String, Status>,
    at: Timestamp,
) -> anyhow::Result<Service> {
    let (wait, pause) = match said {
        Ok(_) => (AGAIN, FIRST_PAUSE),
        Err(_) => (service.pause, (service.pause * 2).min(AGAIN)),
    };
    let heard = said.clone().map_err(|status| status.message().to_owned());
    if service.said.as_ref() != Some(&heard) {
        match said {
            Ok(job) => {
                tracing::info!(plugin.name = %plugin, job.id = job, "the engine keeps the service {plugin} going");
            }
            Err(status) => refused(state, plugin, status),
        }
    }
    Ok(Service {
        origin: origin(state, plugin)?,
        due: at.plus(wait),
        pause,
        said: Some(heard),
    })
}

fn refused(state: &State, plugin: &PluginName, status: &Status) {
    let reason = status.message();
    tracing::warn!(plugin.name = %plugin, error = reason, "the engine refused the service {plugin}: {reason}");
    let fields = json!({"plugin": plugin, "code": format!("{:?}", status.code())});
    let auditor = state.mesh.auditor();
    auditor.append_refusal("service.refused", &fields);
}

async fn submit(
    channel: &MeshChannel,
    plugin: &PluginName,
    origin: &Signed,
) -> Result<String, Status> {
    let message = SubmitJobRequest {
        origin: Some(origin.clone()),
        plugin: plugin.to_string(),
        command: SERVE.to_owned(),
        payload: PAYLOAD.into(),
        // The engine tells by what is locked whether it has the service already.
        dedupe_key: String::new(),
        submitted_by: "service".to_owned(),
        dedupe_ttl_ms: 0,
        wait_ms: 0,
    };
    let mut client = IntakeServiceClient::new(channel.clone());
    let answer = in_time(client.submit_job(message)).await?;
    Ok(answer.into_inner().job_id)
}
