//! Logs: one JSON object a line on stdout, with `service.name`.

use std::fmt;
use std::io::Write as _;

use bailey_types::Clock;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::Misconfigured;

/// Starts logging for the process, and logs panics.
pub(crate) fn init(name: &'static str, filter: &str) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(filter).map_err(|e| Misconfigured(format!("--log {filter:?}: {e}")));
    let subscriber = |filter| {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .fmt_fields(JsonFields::new())
            .event_format(Lines { name })
            .finish()
    };
    let Ok(filter) = filter else {
        // The complaint itself must be readable.
        tracing::subscriber::set_global_default(subscriber(EnvFilter::new("info")))?;
        return filter.map(|_| ()).map_err(Into::into);
    };
    tracing::subscriber::set_global_default(subscriber(filter))?;
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(
            panic.location = panic.location().map(tracing::field::display),
            "panicked: {panic}"
        );
        // With `panic = "abort"` nothing flushes after this.
        let _flushed = std::io::stdout().flush();
    }));
    Ok(())
}

struct Lines {
    name: &'static str,
}

impl<S> FormatEvent<S, JsonFields> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        line.insert(
            "timestamp".into(),
            Clock::system().now().to_rfc3339().into(),
        );
        line.insert(
            "level".into(),
            event.metadata().level().as_str().to_lowercase().into(),
        );
        line.insert("service.name".into(), self.name.into());
        line.insert("target".into(), event.metadata().target().into());
        for span in ctx
            .event_scope()
            .into_iter()
            .flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            line.insert("span".into(), span.name().into());
            if let Some(fields) = span.extensions().get::<FormattedFields<JsonFields>>()
                && let Ok(fields) = serde_json::from_str::<Map<String, Value>>(fields)
            {
                line.extend(fields);
            }
        }
        event.record(&mut Fields(&mut line));
        let text = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{text}")
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn insert(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lent(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lent {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_one_json_object_with_the_fields_of_its_spans() {
        let written = Lent::default();
        let lent = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(JsonFields::new())
            .event_format(Lines { name: "worker" })
            .with_writer(move || lent.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("job.run", job.id = 7).entered();
            tracing::warn!(duration_ms = 3, "took \"long\"\nagain");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["service.name"], "worker");
        assert_eq!(line["level"], "warn");
        assert_eq!(line["message"], "took \"long\"\nagain");
        assert_eq!(
            (&line["span"], &line["job.id"], &line["duration_ms"]),
            (&"job.run".into(), &7.into(), &3.into())
        );
    }
}
