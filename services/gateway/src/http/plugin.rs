//! `/plugins`, `/plugin/{plugin}`, `/quarantine/{plugin}` and `/service/{plugin}/restart`.

use axum::Json;
use axum::extract::{Path, State as Shared};
use bailey_plugin::Catalogue;
use bailey_plugin::catalogue::Entry;
use bailey_proto::engine::v1::{ClearPluginRequest, RestartPluginRequest};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{self, Token, scopes};
use crate::problem::Problem;
use crate::state::State;

/// The plugins that are locked, with their commands.
#[utoipa::path(get, path = "/plugins", tag = "plugins", responses(
    (status = 200, description = "`{plugins: [...]}`, by name", body = serde_json::Value),
    (status = 401, body = Problem), (status = 503, body = Problem),
))]
pub async fn list(
    Shared(state): Shared<State>,
    headers: HeaderMap,
) -> Result<Json<Catalogue>, Problem> {
    let token = auth::reader(&state, &headers, scopes::ANY).await?;
    let mut catalogue = state.catalogue().await?.as_ref().clone();
    for entry in &mut catalogue.plugins {
        withhold(entry, &token);
    }
    Ok(Json(catalogue))
}

/// What a service said last is for those who may read what jobs answered.
fn withhold(entry: &mut Entry, token: &Token) {
    if let Some(service) = &mut entry.service
        && !token.has(scopes::RESULTS)
    {
        service.detail.clear();
    }
}

/// One plugin.
#[utoipa::path(get, path = "/plugin/{plugin}", tag = "plugins", params(("plugin" = String, Path, description = "Its name")), responses(
    (status = 200, description = "The plugin with its commands and their schemas", body = serde_json::Value),
    (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
))]
pub async fn detail(
    Shared(state): Shared<State>,
    Path(plugin): Path<String>,
    headers: HeaderMap,
) -> Result<Json<serde_json::Value>, Problem> {
    let token = auth::reader(&state, &headers, scopes::CATALOGUE).await?;
    let catalogue = state.catalogue().await?;
    let found = catalogue
        .plugins
        .iter()
        .find(|entry| entry.name.as_str() == plugin);
    let found = found.ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "no-such-plugin",
            "there is no such plugin; /plugins lists them",
        )
    })?;
    let mut found = found.clone();
    withhold(&mut found, &token);
    serde_json::to_value(found).map(Json).map_err(|error| {
        tracing::error!(%error, "a catalogue entry cannot be written");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the entry cannot be written",
        )
    })
}

/// Lets cells of a plugin be kept ready again that was quarantined because they ended by themselves too often.
// Not under `/plugin/{plugin}/`: what stands there are the plugin's own commands.
#[utoipa::path(delete, path = "/quarantine/{plugin}", tag = "plugins", params(("plugin" = String, Path, description = "Its name")), responses(
    (status = 204, description = "Its cells are kept ready again"),
    (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, description = "It is not quarantined", body = Problem), (status = 503, body = Problem),
))]
pub async fn clear(
    Shared(state): Shared<State>,
    Path(plugin): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let token = auth::reader(&state, &headers, scopes::CLEAR).await?;
    let request = ClearPluginRequest {
        plugin,
        principal: format!("token:{}", token.name),
    };
    state.plugins().clear_plugin(request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A service that is being started again.
#[derive(Debug, Serialize, ToSchema)]
pub struct Restarting {
    /// Its job.
    pub job_id: String,
}

/// Ends the running cell of a service and starts another at once, with the secrets of then.
#[utoipa::path(post, path = "/service/{plugin}/restart", tag = "plugins", params(("plugin" = String, Path, description = "Its name")), responses(
    (status = 202, description = "It is being started again", body = Restarting),
    (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, description = "It is no service", body = Problem),
    (status = 409, description = "It is quarantined, or was not started yet", body = Problem), (status = 503, body = Problem),
))]
pub async fn restart(
    Shared(state): Shared<State>,
    Path(plugin): Path<String>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<Restarting>), Problem> {
    let token = auth::reader(&state, &headers, scopes::RESTART).await?;
    let request = RestartPluginRequest {
        plugin,
        principal: format!("token:{}", token.name),
    };
    let answer = state.plugins().restart_plugin(request).await?;
    let job_id = answer.into_inner().job_id;
    Ok((StatusCode::ACCEPTED, Json(Restarting { job_id })))
}
