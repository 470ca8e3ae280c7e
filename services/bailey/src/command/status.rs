//! `bailey status`.

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use tokio::time::Instant;

use crate::api::{Answer, Api, Silent, Unreachable};
use crate::cli::StatusArgs;
use crate::home::Home;
use crate::output::{Done, Out, count, plain};

/// How often is asked while waiting.
const EVERY: Duration = Duration::from_millis(250);
/// Longest time for one answer: the gateway gives each service it asks a second and a half.
const ANSWER_TIME: Duration = Duration::from_secs(4);

#[derive(Deserialize)]
struct Health {
    status: String,
    #[serde(default)]
    troubles: Vec<String>,
    #[serde(default)]
    uptime_seconds: u64,
    #[serde(default)]
    queue_depth: u64,
    #[serde(default)]
    plugins_loaded: u64,
    #[serde(default)]
    plugin_services: u64,
    #[serde(default)]
    plugin_services_running: u64,
    #[serde(default)]
    lock_serial: u64,
    #[serde(default)]
    version: String,
    #[serde(default)]
    posture: String,
    /// Whether anybody may ask for anything.
    #[serde(default)]
    api_posture: String,
    #[serde(default)]
    warning_count: u64,
    /// Only for whoever has a token.
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    services: Vec<Service>,
}

#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names of the API")]
struct Service {
    service: String,
    state: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    rss_bytes: u64,
}

pub(super) async fn run(home: &Home, args: &StatusArgs, out: &mut Out) -> anyhow::Result<Done> {
    let answer = asked(home, args.wait.map(|wait| wait.0)).await?;
    let ready = answer.status.is_success();
    if home.json() {
        out.json(&answer.json::<serde_json::Value>()?)?;
    } else {
        show(&answer.json()?, out);
    }
    Ok(if ready { Done::Well } else { Done::Badly })
}

/// The last answer: the first that says that all is well, or the one at the end of the wait.
async fn asked(home: &Home, wait: Option<Duration>) -> anyhow::Result<Answer> {
    let end = Instant::now() + wait.unwrap_or_default();
    loop {
        let answer = ask(home).await;
        let ready = answer
            .as_ref()
            .is_ok_and(|answer| answer.status.is_success());
        // Before `init` has run there is not even a CA to check against; a wrong certificate does not get better by waiting either.
        let hopeless = answer.as_ref().is_err_and(|e| {
            !e.chain()
                .any(|cause| cause.is::<Unreachable>() || cause.is::<Silent>())
        });
        if ready || hopeless || wait.is_none() || Instant::now() >= end {
            return answer;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// With the token, if there is one: the stack says more then. Whether it is ready, everybody may know.
async fn ask(home: &Home) -> anyhow::Result<Answer> {
    let api = if home.token_file().is_file() {
        Api::with_token(home)?
    } else {
        Api::open(home)?
    };
    api.call(Method::GET, "/healthz", None, ANSWER_TIME).await
}

fn show(health: &Health, out: &mut Out) {
    let row = |service: &Service| {
        let memory = if service.rss_bytes == 0 {
            String::new()
        } else {
            format!("{:.1} MiB", mebibytes(service.rss_bytes))
        };
        [
            service.service.clone(),
            service.state.clone(),
            memory,
            service.version.clone(),
            plain(&service.detail),
        ]
    };
    let rows: Vec<_> = health.services.iter().map(row).collect();
    out.table(["SERVICE", "STATE", "MEMORY", "VERSION", ""], &rows);
    let posture = if health.posture.is_empty() {
        "unknown"
    } else {
        health.posture.as_str()
    };
    out.line(format_args!(
        "\nBailey {} is {}: {} of lock {}, plugins run {}, {} waiting, up {}",
        health.version,
        health.status,
        count(health.plugins_loaded, "plugin"),
        health.lock_serial,
        plain(posture),
        count(health.queue_depth, "job"),
        bailey_yaml::Span(Duration::from_secs(health.uptime_seconds)),
    ));
    if !matches!(health.api_posture.as_str(), "" | "gateway") {
        out.line(format_args!("posture: {}", plain(&health.api_posture)));
    }
    if health.plugin_services > 0 {
        out.line(format_args!(
            "{} of {} of plugins run",
            health.plugin_services_running,
            count(health.plugin_services, "service")
        ));
    }
    for trouble in &health.troubles {
        out.line(format_args!("  ! {}", plain(trouble)));
    }
    for warning in &health.warnings {
        out.line(format_args!("  ! {}", plain(warning)));
    }
    if health.warnings.is_empty() && health.warning_count > 0 {
        out.line(format_args!(
            "  ! {} about the configuration; `bailey config check` tells more",
            count(health.warning_count, "warning")
        ));
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
