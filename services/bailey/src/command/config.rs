//! `bailey config check` and `show`.

use bailey_config::{Config, Files};

use crate::home::Home;
use crate::output::{Done, Out, count, plain};
use crate::readable;

pub(super) fn check(home: &Home, out: &mut Out) -> anyhow::Result<Done> {
    let dir = home.config_dir();
    let found = bailey_config::read_dir(&dir).and_then(|files| {
        let config = bailey_config::parse(&files.texts)?;
        Ok((files, config))
    });
    if home.json() {
        let errors = found
            .as_ref()
            .err()
            .map(|errors| errors.0.as_slice())
            .unwrap_or_default();
        let errors: Vec<_> = errors
            .iter()
            .map(|error| {
                let place = error
                    .place
                    .map(|place| serde_json::json!({ "line": place.line, "column": place.column }));
                serde_json::json!({ "file": error.file, "place": place, "message": error.message })
            })
            .collect();
        let warnings = found
            .as_ref()
            .map(|(files, config)| warnings(home, files, config))
            .unwrap_or_default();
        out.json(
            &serde_json::json!({ "ok": errors.is_empty(), "errors": errors, "warnings": warnings }),
        )?;
    }
    let (files, config) = found?;
    if !home.json() {
        out.line(format_args!(
            "{}, {}, {}: nothing is wrong",
            count(files.texts.len(), "file"),
            count(config.enabled_plugins().count(), "plugin"),
            count(config.pipelines.len(), "pipeline")
        ));
        for warning in warnings(home, &files, &config) {
            out.line(format_args!("! {}", plain(&warning)));
        }
    }
    Ok(Done::Well)
}

fn warnings(home: &Home, files: &Files, config: &Config) -> Vec<String> {
    let mut warnings = bailey_config::warnings(config);
    warnings.extend(readable::warnings(home, files, config));
    warnings
}

pub(super) fn show(home: &Home, out: &mut Out) -> anyhow::Result<Done> {
    let files = bailey_config::read_dir(&home.config_dir())?;
    out.json(&bailey_config::parse(&files.texts)?)?;
    Ok(Done::Well)
}
