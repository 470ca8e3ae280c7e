//! `/`: JSON for programs, one plain page for people.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::State as Shared;
use axum::response::{Html, IntoResponse as _, Response};
use axum::{Extension, Json};
use bailey_proto::engine::v1 as engine;
use bailey_types::Timestamp;
use http::{HeaderMap, StatusCode, header};
use serde_json::json;

use crate::http::health::{self, Health};
use crate::http::job::status_name;
use crate::problem::Problem;
use crate::state::State;
use crate::view::View;

/// How many jobs the page shows.
const JOBS: u32 = 12;

#[derive(Template)]
#[template(path = "status.html")]
struct Page {
    health: Health,
    uptime: String,
    memory_mib: u64,
    jobs: Vec<Row>,
}

struct Row {
    id: String,
    plugin: String,
    command: String,
    origin: String,
    status: &'static str,
    age: String,
    took: String,
}

/// The front door. It shows names and states, never what a plugin answered.
pub async fn root(
    Shared(state): Shared<State>,
    Extension(view): Extension<Arc<View>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wants_html = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| {
            accept
                .split(',')
                .any(|kind| kind.trim().starts_with("text/html"))
        });
    if wants_html {
        page(&state, &view).await
    } else {
        Ok(index(&state))
    }
}

/// What can be read without knowing a name first. `/openapi.json` says what else there is.
pub(super) const DISCOVERY: [(&str, &str); 7] = [
    ("events", "/events"),
    ("health", "/healthz"),
    ("jobs", "/jobs"),
    ("metrics", "/metrics"),
    ("openapi", "/openapi.json"),
    ("plugins", "/plugins"),
    ("upstreams", "/upstreams"),
];

fn index(state: &State) -> Response {
    Json(json!({
        "name": "bailey",
        "description": "A self-hosted automation hub whose plugins get one request and nothing else",
        "uptime_seconds": state.uptime().as_secs(),
        "discovery": BTreeMap::from(DISCOVERY),
    }))
    .into_response()
}

async fn page(state: &State, view: &View) -> Result<Response, Problem> {
    let request = engine::ListJobsRequest {
        limit: JOBS,
        ..engine::ListJobsRequest::default()
    };
    let mut query = state.query();
    let jobs = health::in_time(query.list_jobs(request));
    let (health, jobs) = tokio::join!(health::read(state, view), jobs);
    // Without the engine the page still says so, and soon, which is what it is for.
    let jobs = jobs
        .map(|answer| answer.into_inner().jobs)
        .unwrap_or_default();
    let now = state.now();
    let page = Page {
        uptime: span(state.uptime().as_millis()),
        memory_mib: health
            .services
            .iter()
            .map(|service| service.rss_bytes)
            .sum::<u64>()
            >> 20,
        health,
        jobs: jobs.into_iter().map(|job| row(job, now)).collect(),
    };
    let html = page.render().map_err(|error| {
        tracing::error!(%error, "the status page cannot be written");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the page cannot be written",
        )
    })?;
    Ok(Html(html).into_response())
}

fn row(job: engine::Job, now: Timestamp) -> Row {
    let took = match (job.started_at_ms, job.completed_at_ms) {
        (0, _) | (_, 0) => String::new(),
        (started, completed) => span(Timestamp(completed).since(Timestamp(started)).as_millis()),
    };
    let origin = if job.pipeline.is_empty() {
        job.submitted_by
    } else {
        format!("{} › {}", job.pipeline, job.step)
    };
    Row {
        // The first characters of a version 7 UUID are its time; the last are what tells two apart.
        id: job
            .job_id
            .chars()
            .skip(job.job_id.len().saturating_sub(8))
            .collect(),
        status: status_name(job.status),
        age: span(now.since(Timestamp(job.created_at_ms)).as_millis()),
        plugin: job.plugin,
        command: job.command,
        origin,
        took,
    }
}

/// A span of time in its largest fitting unit.
fn span(millis: u128) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{} s", millis / 1_000),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        7_200_000..172_800_000 => format!("{} h", millis / 3_600_000),
        _ => format!("{} d", millis / 86_400_000),
    }
}

/// The page's style sheet.
pub async fn css() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "max-age=3600"),
    ];
    (headers, include_str!("../../templates/status.css")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_its_largest_fitting_unit() {
        assert_eq!(span(999), "999 ms");
        assert_eq!(span(61_000), "61 s");
        assert_eq!(span(3_600_000), "60 min");
        assert_eq!(span(90_000_000), "25 h");
        assert_eq!(span(200_000_000), "2 d");
    }

    #[test]
    fn the_page_escapes_what_comes_from_outside() {
        let health = Health {
            status: "degraded",
            troubles: vec!["<script>alert(1)</script>".into()],
            uptime_seconds: 0,
            queue_depth: 0,
            plugins_loaded: 0,
            plugin_services: 0,
            plugin_services_running: 0,
            lock_serial: 0,
            version: "0",
            posture: String::new(),
            api_posture: "gateway".into(),
            warning_count: 0,
            warnings: None,
            services: Vec::new(),
        };
        let page = Page {
            health,
            uptime: "1 s".into(),
            memory_mib: 0,
            jobs: Vec::new(),
        };
        let html = page.render().unwrap();
        assert!(
            !html.contains("<script>") && html.contains("alert(1)"),
            "{html}"
        );
    }
}
