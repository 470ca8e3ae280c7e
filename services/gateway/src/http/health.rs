//! `/healthz`: how the stack is, for people, programs and `bailey status --wait`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::{Extension, Json};
use bailey_proto::broker::v1 as broker;
use bailey_proto::broker::v1::Readiness;
use bailey_proto::engine::v1 as engine;
use bailey_types::{Service, Timestamp};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{self, scopes};
use crate::posture::MANAGEMENT_ONLY;
use crate::state::State;
use crate::view::View;

/// A service that was not heard for this long is stale: three beats.
const STALE: Duration = Duration::from_secs(30);

/// How long a service may take to say how it is. All are asked side by side, so that no answer about the stack takes longer than this.
const ASKED: Duration = Duration::from_millis(1500);

/// How the stack is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok` (all ready), `starting`, or `degraded`.
    pub status: &'static str,
    /// What is missing, one sentence each.
    pub troubles: Vec<String>,
    /// Seconds since the gateway started.
    pub uptime_seconds: u64,
    /// Jobs that wait.
    pub queue_depth: u64,
    /// Plugins in the lock.
    pub plugins_loaded: usize,
    /// Plugins of the lock that run as services.
    pub plugin_services: u32,
    /// How many of those run now.
    pub plugin_services_running: u32,
    /// Serial of the lock in force; 0: none.
    pub lock_serial: u64,
    /// Version of the gateway.
    pub version: &'static str,
    /// `confined`, `unconfined` or `refused: …`.
    pub posture: String,
    /// `gateway`; `management-only` while there is no API token: then nothing but this is served, and queued jobs wait; `sealed` while the
    /// vault cannot be opened; `unknown` while the broker does not answer.
    pub api_posture: String,
    /// How many warnings there are about the configuration that is locked, and about what it asks of the vault and would not get.
    pub warning_count: usize,
    /// The warnings; only for requests with a token, for they tell names of accounts, plugins and host paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Vec<String>>,
    /// Every service of the stack.
    pub services: Vec<ServiceHealth>,
}

/// How one service is.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServiceHealth {
    /// Its name.
    pub service: String,
    /// `ready`, `starting`, `degraded`, `stopping`, `stale` or `unknown`.
    pub state: &'static str,
    /// What is missing; empty where all is well.
    pub detail: String,
    /// Version of its binary.
    pub version: String,
    /// Resident memory, bytes; 0 where unknown.
    pub rss_bytes: u64,
}

/// How the stack is: 200 when all is ready, 503 otherwise. Needs no token; with one, it tells the warnings too.
#[utoipa::path(get, path = "/healthz", tag = "system", security(()), responses(
    (status = 200, description = "All services are ready", body = Health),
    (status = 503, description = "Something is missing; the body says what", body = Health),
))]
pub async fn healthz(
    Shared(state): Shared<State>,
    Extension(view): Extension<Arc<View>>,
    headers: HeaderMap,
) -> (StatusCode, Json<Health>) {
    let (mut health, known) = tokio::join!(read(&state, &view), is_known(&state, &headers));
    if !known {
        health.warnings = None;
    }
    let status = if health.status == "ok" {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(health))
}

/// Whether it is somebody with a token. One that is wrong is none, as is one that nobody can check now: whoever watches the stack's health must
/// not depend on it.
async fn is_known(state: &State, headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION)
        && in_time(auth::reader(state, headers, scopes::ANY))
            .await
            .is_some()
}

/// What was answered, if it was, and in time.
pub(super) async fn in_time<T, E>(asked: impl Future<Output = Result<T, E>>) -> Option<T> {
    tokio::time::timeout(ASKED, asked).await.ok()?.ok()
}

/// Asks broker and engine; what does not answer is a trouble, not an error. It tells the warnings too, which are not for everybody.
pub async fn read(state: &State, view: &View) -> Health {
    let (mut presence, mut query) = (state.presence(), state.query());
    let (roll, status, catalogue) = tokio::join!(
        in_time(presence.roll(broker::RollRequest {})),
        in_time(query.status(engine::StatusRequest {})),
        in_time(state.catalogue()),
    );
    let mut troubles = Vec::new();
    let roll = roll.map(tonic::Response::into_inner);
    let heard = roll.is_some();
    if !heard {
        troubles
            .push("the broker does not answer, and only it knows how the others are".to_owned());
    }
    let api_posture = roll
        .as_ref()
        .map_or("unknown", |roll| &roll.posture)
        .to_owned();
    if api_posture == MANAGEMENT_ONLY {
        let trouble = "management-only: there is no API token; `bailey token create` makes one";
        troubles.push(trouble.to_owned());
    }
    let roll = roll.unwrap_or_default();
    let warnings = [view.warnings.as_slice(), &roll.missing].concat();
    let services = services(&roll.services, state.now());
    // Without the roll nothing is said of anybody.
    let told = services.iter().filter(|_| heard);
    let starting = told
        .clone()
        .any(|service| matches!(service.state, "starting" | "unknown"));
    troubles.extend(
        told.filter(|service| service.state != "ready")
            .map(describe),
    );
    let engine = status.map(tonic::Response::into_inner);
    troubles.extend(engine_troubles(engine.as_ref()));
    let engine = engine.unwrap_or_default();
    let status = match (troubles.is_empty(), starting) {
        (true, _) => "ok",
        (false, true) => "starting",
        (false, false) => "degraded",
    };
    Health {
        status,
        troubles,
        uptime_seconds: state.uptime().as_secs(),
        queue_depth: engine.queued,
        plugins_loaded: catalogue.map_or(0, |catalogue| catalogue.plugins.len()),
        plugin_services: engine.services,
        plugin_services_running: engine.services_running,
        lock_serial: engine.lock_serial,
        version: env!("CARGO_PKG_VERSION"),
        posture: engine.posture,
        api_posture,
        warning_count: warnings.len(),
        warnings: Some(warnings),
        services,
    }
}

fn describe(service: &ServiceHealth) -> String {
    let (name, state) = (&service.service, service.state);
    if service.detail.is_empty() {
        format!("{name} is {state}")
    } else {
        format!("{name}: {}", service.detail)
    }
}

fn engine_troubles(status: Option<&engine::StatusResponse>) -> Vec<String> {
    let Some(status) = status else {
        return vec!["the engine does not answer".to_owned()];
    };
    let mut troubles = Vec::new();
    if !status.lock_trouble.is_empty() {
        troubles.push(status.lock_trouble.clone());
    }
    if status.runners_connected == 0 {
        troubles.push("no runner is connected".to_owned());
    }
    if !status.runner_trouble.is_empty() {
        troubles.push(status.runner_trouble.clone());
    }
    if status.posture.starts_with("refused") {
        troubles.push(format!("plugins are not run: {}", status.posture));
    }
    troubles
}

/// Every service, in the order of [`Service::ALL`]: one that was never heard is `unknown`.
fn services(roll: &[broker::Presence], now: Timestamp) -> Vec<ServiceHealth> {
    let heard = |service: Service| {
        roll.iter()
            .find(|presence| presence.service == service.name())
    };
    let broker = heard(Service::Broker).filter(|broker| broker.started_at_ms > 0);
    let asked_for = broker.map(|broker| now.since(Timestamp(broker.started_at_ms)));
    Service::ALL
        .iter()
        .map(|&service| one(service, heard(service), asked_for, now))
        .collect()
}

/// `asked_for` is how long the broker has run: what it knows of the others, it knows since then.
fn one(
    service: Service,
    heard: Option<&broker::Presence>,
    asked_for: Option<Duration>,
    now: Timestamp,
) -> ServiceHealth {
    let unknown = broker::Presence::default();
    let presence = heard.unwrap_or(&unknown);
    let silent = now.since(Timestamp(presence.last_heard_ms)) > STALE;
    let state = match presence.readiness() {
        Readiness::Unspecified => "unknown",
        _ if silent => "stale",
        Readiness::Starting => "starting",
        Readiness::Ready => "ready",
        Readiness::Degraded => "degraded",
        Readiness::Stopping => "stopping",
    };
    let detail = match (state, asked_for) {
        ("unknown", Some(time)) => {
            let seconds = time.as_secs();
            format!("it has not said how it is since the broker started, {seconds} s ago")
        }
        _ => presence.detail.clone(),
    };
    ServiceHealth {
        service: service.name().to_owned(),
        state,
        detail,
        version: presence.version.clone(),
        rss_bytes: presence.rss_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presence(readiness: Readiness, last_heard_ms: i64) -> broker::Presence {
        broker::Presence {
            service: "engine".into(),
            readiness: readiness.into(),
            last_heard_ms,
            ..broker::Presence::default()
        }
    }

    #[test]
    fn a_service_is_ready_while_it_is_heard_and_stale_afterwards() {
        let ready = presence(Readiness::Ready, 1_000_000);
        let at = |ms| one(Service::Engine, Some(&ready), None, Timestamp(ms)).state;
        assert_eq!(at(1_030_000), "ready");
        assert_eq!(at(1_030_001), "stale");
    }

    #[test]
    fn every_service_is_listed_even_if_it_was_never_heard() {
        let listed = services(&[presence(Readiness::Ready, 0)], Timestamp(0));
        assert_eq!(listed.len(), Service::ALL.len());
        assert_eq!(
            listed
                .iter()
                .filter(|service| service.state == "unknown")
                .count(),
            Service::ALL.len() - 1
        );
    }

    #[test]
    fn of_what_was_never_heard_it_is_said_since_when() {
        let broker = broker::Presence {
            service: "broker".into(),
            started_at_ms: 1_000,
            ..presence(Readiness::Ready, 4_000)
        };
        let listed = services(&[broker], Timestamp(4_200));
        let of = |name: &str| listed.iter().find(|it| it.service == name).unwrap();
        assert_eq!(of("broker").detail, "");
        assert_eq!(
            (of("engine").state, of("engine").detail.as_str()),
            (
                "unknown",
                "it has not said how it is since the broker started, 3 s ago"
            )
        );
    }

    #[test]
    fn what_the_engine_lacks_is_said() {
        let lacking = engine::StatusResponse {
            runner_trouble: "docker: refused".into(),
            ..engine::StatusResponse::default()
        };
        assert_eq!(
            engine_troubles(Some(&lacking)),
            ["no runner is connected", "docker: refused"]
        );
        assert_eq!(engine_troubles(None).len(), 1);
    }
}
