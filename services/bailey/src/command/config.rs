//! `bailey config check` and `show`.

use crate::home::Home;
use crate::output::{Done, Out};

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
            .map(|(_, config)| bailey_config::warnings(config))
            .unwrap_or_default();
        out.json(
            &serde_json::json!({ "ok": errors.is_empty(), "errors": errors, "warnings": warnings }),
        )?;
    }
    let (files, config) = found?;
    if !home.json() {
        let enabled = config.enabled_plugins().count();
        out.line(format_args!(
            "{} files, {enabled} plugins, {} pipelines: nothing is wrong",
            files.texts.len(),
            config.pipelines.len()
        ));
        for warning in bailey_config::warnings(&config) {
            out.line(format_args!("! {warning}"));
        }
    }
    Ok(Done::Well)
}

pub(super) fn show(home: &Home, out: &mut Out) -> anyhow::Result<Done> {
    let files = bailey_config::read_dir(&home.config_dir())?;
    out.json(&bailey_config::parse(&files.texts)?)?;
    Ok(Done::Well)
}
