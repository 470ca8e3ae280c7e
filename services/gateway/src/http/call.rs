//! `POST /plugin/{plugin}/{command}`: a job for one command of one plugin.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as Shared};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use bailey_plugin::Catalogue;
use bailey_plugin::manifest::Access;
use bailey_proto::engine::v1 as engine;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::auth::{self, scopes};
use crate::http::job::{self, JobView, Wait};
use crate::problem::Problem;
use crate::state::State;
use crate::view::View;

/// The body of a call; an empty body is an empty payload.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The payload, an object; `{}` if absent.
    #[schema(value_type = Option<Object>)]
    payload: Option<Box<RawValue>>,
    /// Calls with the same key are one job.
    dedupe_key: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct CallQuery {
    /// Wait this long for the result, e.g. `30s` or `500ms`.
    wait: Option<String>,
}

/// What was started.
#[derive(Serialize, ToSchema)]
pub struct Accepted {
    /// The job.
    job_id: String,
    /// Always `queued`.
    status: &'static str,
    /// The plugin.
    plugin: String,
    /// The command.
    command: String,
    /// The job existed already, by its dedupe key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deduplicated: bool,
}

/// Calls a command: answers 202 with the job, or with `?wait=30s` 200 with the job's outcome if it comes in time.
#[utoipa::path(post, path = "/plugin/{plugin}/{command}", tag = "plugins",
    params(("plugin" = String, Path, description = "The plugin"), ("command" = String, Path, description = "One of its commands"), CallQuery),
    request_body = Call,
    responses(
        (status = 200, description = "The job is done", body = JobView),
        (status = 202, description = "The job is queued, or was not done in time (`timeout_exceeded`)", body = Accepted),
        (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 413, body = Problem), (status = 503, body = Problem),
    ))]
pub async fn call(
    Shared(state): Shared<State>,
    Extension(view): Extension<Arc<View>>,
    Path((plugin, command)): Path<(String, String)>,
    query: Result<Query<CallQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let wait = query
        .wait
        .as_deref()
        .map(|text| Wait::parse(text, view.api.max_sync_timeout))
        .transpose()?;
    let call = parse(&body)?;
    let payload = call
        .payload
        .as_ref()
        .map_or("{}", |raw| raw.get())
        .as_bytes();
    let origin = match access(&state, &plugin, &command).await {
        Ok(access) => {
            let allowed = match access {
                Access::Read => scopes::INVOKE_READ,
                Access::Write => scopes::INVOKE_WRITE,
            };
            auth::caller(&state, &headers, allowed, (&plugin, &command), payload).await?
        }
        Err(problem) => {
            // Names are told to whoever has a token: a stranger cannot probe for them.
            auth::reader(&state, &headers, scopes::INVOKE_READ).await?;
            return Err(problem);
        }
    };
    let limit = view.api.max_concurrent_sync;
    let permit = wait.map(|_| state.wait_permit(limit)).transpose()?;
    let request = engine::SubmitJobRequest {
        origin: Some(origin),
        plugin: plugin.clone(),
        command: command.clone(),
        payload: payload.to_vec().into(),
        dedupe_key: call.dedupe_key.unwrap_or_default(),
        submitted_by: "api".into(),
        dedupe_ttl_ms: 0,
        wait_ms: wait.map_or(0, Wait::millis),
    };
    let submitted = state.intake().submit_job(request).await?.into_inner();
    let answer = match wait {
        None => {
            let engine::SubmitJobResponse {
                job_id,
                deduplicated,
                ..
            } = submitted;
            (
                StatusCode::ACCEPTED,
                Json(Accepted {
                    job_id,
                    status: "queued",
                    plugin,
                    command,
                    deduplicated,
                }),
            )
                .into_response()
        }
        Some(_) => job::waited(submitted.job)?,
    };
    drop(permit);
    Ok(answer)
}

fn parse(body: &[u8]) -> Result<Call, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Call {
            payload: None,
            dedupe_key: None,
        });
    }
    let call: Call = serde_json::from_slice(body).map_err(|e| {
        Problem::bad_request(format!("the body must be {{\"payload\": {{...}}}}: {e}"))
    })?;
    if let Some(payload) = &call.payload {
        bailey_trust::strict_json::check_object(payload.get().as_bytes(), &[])
            .map_err(|e| Problem::bad_request(format!("the payload is refused: {e}")))?;
    }
    Ok(call)
}

async fn access(state: &State, plugin: &str, command: &str) -> Result<Access, Problem> {
    let known = find(&*state.names().await?, plugin, command);
    if known.is_ok() {
        return known;
    }
    // The engine may have seen a newer lock since.
    find(&*state.catalogue().await?, plugin, command)
}

fn find(catalogue: &Catalogue, plugin: &str, command: &str) -> Result<Access, Problem> {
    let entry = catalogue
        .plugins
        .iter()
        .find(|entry| entry.name.as_str() == plugin);
    let entry = entry.ok_or_else(|| {
        Problem::bad_request(format!(
            "there is no plugin {plugin:?}; /plugins lists them"
        ))
    })?;
    let found = entry
        .commands
        .iter()
        .find(|known| known.name.as_str() == command);
    found.map(|command| command.access).ok_or_else(|| {
        let known: Vec<_> = entry
            .commands
            .iter()
            .map(|command| command.name.as_str())
            .collect();
        Problem::bad_request(format!(
            "{plugin} has no command {command:?}; it has {}",
            known.join(", ")
        ))
    })
}
