//! `service:` and `api:`.

use std::time::Duration;

use bailey_yaml::At;
use serde::{Deserialize, Serialize};

use crate::error::Report;
use crate::raw;

pub(crate) const HOUR: Duration = Duration::from_hours(1);
pub(crate) const DAY: Duration = Duration::from_hours(24);

/// `service:`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceConfig {
    /// Shown to people, and the scheduler's `submitted_by`.
    pub name: String,
    /// Least severe level that services log.
    pub log_level: LogLevel,
    /// How long a dedupe key outlives the job that succeeded with it.
    #[serde(serialize_with = "duration")]
    pub dedupe_ttl: Duration,
    /// How long a finished job stays in the queue's table.
    #[serde(serialize_with = "duration")]
    pub job_queue_retention: Duration,
    /// How long its logs, attempts and transitions stay.
    #[serde(serialize_with = "duration")]
    pub job_log_retention: Duration,
    /// Most jobs that run at once.
    pub max_workers: u32,
    /// Whether every plugin runs in the engine's default container, whatever its account says.
    pub unconfined: bool,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            name: "bailey".to_owned(),
            log_level: LogLevel::Info,
            dedupe_ttl: DAY,
            job_queue_retention: DAY,
            job_log_retention: 30 * DAY,
            max_workers: 4,
            unconfined: false,
        }
    }
}

/// `service.log_level`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens in normal operation.
    #[default]
    Info,
    /// What may need attention.
    Warn,
    /// What needs someone to act.
    Error,
}

impl LogLevel {
    /// As in the configuration, which is what tracing's filters understand too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// `api:`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Api {
    /// Largest request body, bytes.
    pub max_body_size_bytes: u64,
    /// Most requests that wait for a result at once.
    pub max_concurrent_sync: u32,
    /// Longest wait for a result.
    #[serde(serialize_with = "duration")]
    pub max_sync_timeout: Duration,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            max_body_size_bytes: 1 << 20,
            max_concurrent_sync: 10,
            max_sync_timeout: Duration::from_mins(5),
        }
    }
}

pub(crate) fn service(raw: raw::Service, report: &mut Report<'_>) -> ServiceConfig {
    let mut service = ServiceConfig::default();
    if let Some(name) = raw.name {
        if !is_kebab(&name.value) {
            report.push(
                name.place,
                "name must be words of lower-case letters and digits joined by '-'",
            );
        }
        service.name = name.value;
    }
    let retention_place = raw
        .job_queue_retention
        .as_ref()
        .or(raw.dedupe_ttl.as_ref())
        .map(|at| at.place);
    service.log_level = raw.log_level.unwrap_or(service.log_level);
    let month = HOUR..=3660 * DAY;
    service.dedupe_ttl = span(
        raw.dedupe_ttl,
        service.dedupe_ttl,
        Duration::ZERO..=365 * DAY,
        "dedupe_ttl",
        report,
    );
    let (queue, log) = (service.job_queue_retention, service.job_log_retention);
    service.job_queue_retention = span(
        raw.job_queue_retention,
        queue,
        month.clone(),
        "job_queue_retention",
        report,
    );
    service.job_log_retention = span(
        raw.job_log_retention,
        log,
        month,
        "job_log_retention",
        report,
    );
    if let Some(place) = retention_place
        && service.job_queue_retention < service.dedupe_ttl
    {
        report.push(
            place,
            "job_queue_retention must not be shorter than dedupe_ttl, or duplicates would pass",
        );
    }
    service.max_workers = count(
        raw.max_workers,
        service.max_workers,
        1..=256,
        "max_workers",
        report,
    );
    service.unconfined = raw.unconfined.unwrap_or_default();
    service
}

pub(crate) fn api(raw: raw::Api, report: &mut Report<'_>) -> Api {
    let default = Api::default();
    if let Some(size) = &raw.max_body_size
        && !(1024..=64 << 20).contains(&size.value.0)
    {
        report.push(size.place, "max_body_size must be 1KiB to 64MiB");
    }
    // The engine holds no answer longer.
    let waits = Duration::from_secs(1)..=Duration::from_mins(5);
    Api {
        max_body_size_bytes: raw
            .max_body_size
            .map_or(default.max_body_size_bytes, |size| size.value.0),
        max_concurrent_sync: count(
            raw.max_concurrent_sync,
            default.max_concurrent_sync,
            1..=1000,
            "max_concurrent_sync",
            report,
        ),
        max_sync_timeout: span(
            raw.max_sync_timeout,
            default.max_sync_timeout,
            waits,
            "max_sync_timeout",
            report,
        ),
    }
}

/// The given span, or the default; a span out of range is reported.
pub(crate) fn span(
    given: Option<At<bailey_yaml::Span>>,
    default: Duration,
    range: std::ops::RangeInclusive<Duration>,
    what: &str,
    report: &mut Report<'_>,
) -> Duration {
    let Some(given) = given else { return default };
    if !range.contains(&given.value.0) {
        let (least, most) = (
            bailey_yaml::Span(*range.start()),
            bailey_yaml::Span(*range.end()),
        );
        report.push(
            given.place,
            format!("{what} is {}; it must be {least} to {most}", given.value),
        );
    }
    given.value.0
}

/// The given count, or the default; a count out of range is reported.
pub(crate) fn count(
    given: Option<At<u32>>,
    default: u32,
    range: std::ops::RangeInclusive<u32>,
    what: &str,
    report: &mut Report<'_>,
) -> u32 {
    let Some(given) = given else { return default };
    if !range.contains(&given.value) {
        let (least, most) = (range.start(), range.end());
        report.push(
            given.place,
            format!("{what} is {}; it must be {least} to {most}", given.value),
        );
    }
    given.value
}

fn is_kebab(name: &str) -> bool {
    let word = |w: &str| {
        !w.is_empty()
            && w.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    name.len() <= 64 && name.split('-').all(word)
}

pub(crate) fn duration<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&bailey_yaml::Span(*duration))
}
