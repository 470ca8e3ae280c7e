//! Counters for Prometheus, in the OpenMetrics text format.

use bailey_proto::engine::v1::StatusResponse;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The labels of a request. The route is the template, so that ids do not make new series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The method.
    pub method: String,
    /// The route's template, or `unknown`.
    pub route: String,
    /// The status.
    pub status: u16,
}

/// What the gateway counts itself.
#[derive(Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    duration: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        // 0.25 ms to 8 s.
        let buckets = exponential_buckets(0.000_25, 2.0, 16);
        Self {
            requests: Family::default(),
            duration: Histogram::new(buckets),
        }
    }
}

impl Metrics {
    /// Counts one answered request.
    pub fn answered(&self, labels: &RequestLabels, seconds: f64) {
        self.requests.get_or_create(labels).inc();
        self.duration.observe(seconds);
    }

    /// All figures as text: the gateway's own and, where it answers, the engine's.
    pub fn text(&self, engine: Option<&StatusResponse>) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("bailey");
        registry.register("http_requests", "Answered requests", self.requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time from head to answer",
            self.duration.clone(),
        );
        let up = Gauge::<i64>::default();
        up.set(i64::from(engine.is_some()));
        registry.register("engine_up", "Whether the engine answers", up);
        if let Some(status) = engine {
            register_engine(&mut registry, status);
        }
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

fn register_engine(registry: &mut Registry, status: &StatusResponse) {
    let gauges = [
        ("jobs_queued", "Jobs that wait", status.queued),
        ("jobs_running", "Jobs that run", status.running),
        ("jobs_dead", "Jobs given up", status.dead),
        (
            "runners_connected",
            "Runners that hold a lease stream",
            u64::from(status.runners_connected),
        ),
        (
            "lock_serial",
            "Serial of the lock in force",
            status.lock_serial,
        ),
    ];
    for (name, help, value) in gauges {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    }
    let counters = [
        (
            "jobs_succeeded",
            "Jobs that succeeded",
            status.succeeded_total,
        ),
        (
            "jobs_failed",
            "Jobs that failed, timed out or died",
            status.failed_total,
        ),
        ("events", "Events in the log", status.events_total),
    ];
    for (name, help, value) in counters {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_holds_what_was_counted() {
        let metrics = Metrics::default();
        let labels = RequestLabels {
            method: "GET".into(),
            route: "/jobs".into(),
            status: 200,
        };
        metrics.answered(&labels, 0.01);
        let text = metrics
            .text(Some(&StatusResponse {
                queued: 7,
                ..StatusResponse::default()
            }))
            .unwrap();
        assert!(
            text.contains(
                r#"bailey_http_requests_total{method="GET",route="/jobs",status="200"} 1"#
            ),
            "{text}"
        );
        assert!(text.contains("bailey_jobs_queued 7"), "{text}");
        assert!(metrics.text(None).unwrap().contains("bailey_engine_up 0"));
    }
}
