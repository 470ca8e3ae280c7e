//! `bailey plugin list` and `run`.

use std::time::Duration;

use bailey_plugin::Catalogue;
use bailey_plugin::manifest::Access;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{job, payload};
use crate::api::Api;
use crate::cli::RunArgs;
use crate::home::Home;
use crate::output::{Done, Out, plain};

pub(super) async fn list(home: &Home, out: &mut Out) -> anyhow::Result<Done> {
    let catalogue: Catalogue = Api::with_token(home)?.get("/plugins").await?;
    if home.json() {
        out.json(&catalogue)?;
        return Ok(Done::Well);
    }
    let rows: Vec<_> = catalogue
        .plugins
        .iter()
        .map(|plugin| {
            let commands = plugin.commands.iter().map(|command| match command.access {
                Access::Read => command.name.to_string(),
                Access::Write => format!("{}*", command.name),
            });
            let commands = commands.collect::<Vec<_>>().join(" ");
            [
                plugin.name.to_string(),
                plain(&plugin.version),
                commands,
                plain(&plugin.description),
            ]
        })
        .collect();
    if rows.is_empty() {
        out.line("No plugin is locked: run `bailey plugin lock --all`.");
        return Ok(Done::Well);
    }
    out.table(
        ["PLUGIN", "VERSION", "COMMANDS (*: writes)", "DESCRIPTION"],
        &rows,
    );
    Ok(Done::Well)
}

#[derive(Serialize)]
struct Call<'a> {
    payload: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dedupe_key: Option<&'a str>,
}

#[derive(Deserialize, Serialize)]
struct Accepted {
    job_id: String,
    status: String,
}

pub(super) async fn run(home: &Home, args: &RunArgs, out: &mut Out) -> anyhow::Result<Done> {
    let call = Call {
        payload: payload::read(&args.payload)?,
        dedupe_key: args.dedupe_key.as_deref(),
    };
    let wait = args.wait.map_or(Duration::ZERO, |wait| wait.0);
    let query = if wait.is_zero() {
        String::new()
    } else {
        format!("?wait={}ms", wait.as_millis())
    };
    let path = format!("/plugin/{}/{}{query}", args.plugin, args.command);
    let answer = Api::with_token(home)?
        .post(&path, serde_json::to_vec(&call)?, wait)
        .await?;
    if answer.status == StatusCode::OK {
        let job: job::Job = answer.json()?;
        if home.json() {
            out.json(&answer.json::<serde_json::Value>()?)?;
        } else {
            job.describe(out);
        }
        return Ok(if job.status == "succeeded" {
            Done::Well
        } else {
            Done::Badly
        });
    }
    let accepted: Accepted = answer.json()?;
    if home.json() {
        out.json(&answer.json::<serde_json::Value>()?)?;
    } else {
        out.line(format_args!(
            "job {} is {}; see: bailey job inspect {}",
            accepted.job_id, accepted.status, accepted.job_id
        ));
    }
    // Whoever wanted the result and did not get it in time must not go on as if there were one.
    Ok(if wait.is_zero() {
        Done::Well
    } else {
        Done::Badly
    })
}
