//! `bailey plugin list`, `show`, `run`, `clear` and `restart`.

use std::time::Duration;

use bailey_plugin::Catalogue;
use bailey_plugin::catalogue::{Service, ServiceState};
use bailey_plugin::manifest::Access;
use bailey_plugin::rating::Rating;
use bailey_plugin::tree::Tree;
use bailey_trust::{LockedPlugin, TrustFile};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{job, payload};
use crate::Misconfigured;
use crate::api::Api;
use crate::cli::{RunArgs, ShowArgs};
use crate::home::Home;
use crate::lock;
use crate::manage::Admin;
use crate::output::{Done, Out, plain};
use crate::rated::{Grants, Rated};

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
            let rating = plugin.rating.as_ref().map_or_else(String::new, |rating| {
                format!("{}/{}", rating.score, Rating::BEST)
            });
            [
                plugin.name.to_string(),
                plain(&plugin.version),
                rating,
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
        [
            "PLUGIN",
            "VERSION",
            "RATING",
            "COMMANDS (*: writes)",
            "DESCRIPTION",
        ],
        &rows,
    );
    let services = catalogue.plugins.iter();
    let services = services.filter_map(|plugin| Some((&plugin.name, plugin.service.as_ref()?)));
    for (name, service) in services {
        out.line(format_args!("service {name}: {}", how(service)));
    }
    Ok(Done::Well)
}

/// How a service is, in a line.
fn how(service: &Service) -> String {
    let mut text = service.state.as_str().to_owned();
    if let Some(since) = &service.running_since {
        text = format!("{text} since {since}");
    }
    match service.restarts {
        0 => {}
        1 => text.push_str(", restarted once"),
        times => text = format!("{text}, restarted {times} times"),
    }
    if !service.detail.is_empty() {
        let running = service.state == ServiceState::Running;
        let what = if running { ", last trouble: " } else { ": " };
        text = format!("{text}{what}{}", plain(&service.detail));
    }
    text
}

pub(super) async fn show(home: &Home, args: &ShowArgs, out: &mut Out) -> anyhow::Result<Done> {
    let trust = TrustFile::read(&home.trust_file())?;
    let present = lock::present(home, &trust)?;
    let locked = present
        .as_ref()
        .and_then(|lock| Some((lock, lock.plugins.get(&args.plugin)?)));
    let (lock, plugin) = locked.ok_or_else(|| {
        Misconfigured(format!(
            "{} is not locked; `bailey plugin list` lists what is",
            args.plugin
        ))
    })?;
    let grants = Grants::ask(home, &Admin::read(home.admin_token_file())?).await?;
    let drift = drift(plugin);
    let rating = Rated::of(lock, &grants).rating_of(&args.plugin, plugin, drift.is_some());
    if home.json() {
        out.json(&serde_json::json!({
            "name": args.plugin, "serial": lock.serial, "locked": plugin, "rating": rating, "drift": drift,
        }))?;
        return Ok(Done::Well);
    }
    out.line(format_args!("{} as of lock {}", args.plugin, lock.serial));
    for (name, value) in lock::shown(plugin, rating.clone()) {
        out.line(format_args!("  {name:14} {}", plain(&value)));
    }
    for reason in &rating.reasons {
        let points = match reason.points {
            0 => String::new(),
            points => format!("-{points} "),
        };
        out.line(format_args!("  {:14} {points}{}", "", reason.text));
    }
    let commands = plugin.proposed.manifest.commands.iter();
    let commands: Vec<_> = commands.map(|command| command.name.to_string()).collect();
    out.line(format_args!("  {:14} {}", "commands", commands.join(" ")));
    out.line(format_args!(
        "  {:14} {}",
        "files",
        plugin.proposed.files.len()
    ));
    if plugin.proposed.walls.service.is_some() {
        // This runs where the lock and the vault are, and the API is not.
        let told = "`bailey plugin list` tells how the service is";
        out.line(format_args!("  {:14} {told}", "is now"));
    }
    let seal = drift.map_or_else(
        || "its folder is what was sealed".to_owned(),
        |drift| format!("its folder is not what was sealed: {drift}"),
    );
    out.line(format_args!("  {:14} {}", "seal", plain(&seal)));
    Ok(Done::Well)
}

/// What is different between the folder of a plugin and its seal.
fn drift(plugin: &LockedPlugin) -> Option<String> {
    let proposed = &plugin.proposed;
    match Tree::read(std::path::Path::new(&proposed.source)) {
        Ok(tree) if tree.blake3 == proposed.tree_blake3 => None,
        Ok(_) => Some("its files have changed".to_owned()),
        Err(e) => Some(format!("{:#}", anyhow::Error::from(e))),
    }
}

#[derive(Serialize)]
struct Call<'a> {
    payload: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dedupe_key: Option<&'a str>,
}

#[derive(Serialize)]
struct Cleared<'a> {
    plugin: &'a bailey_types::PluginName,
}

#[derive(Deserialize, Serialize)]
struct Restarting {
    job_id: String,
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

pub(super) async fn clear(home: &Home, args: &ShowArgs, out: &mut Out) -> anyhow::Result<Done> {
    let plugin = &args.plugin;
    Api::with_token(home)?
        .delete(&format!("/quarantine/{plugin}"))
        .await?;
    if home.json() {
        out.json(&Cleared { plugin })?;
    } else {
        out.line(format_args!("cells of {plugin} are kept ready again"));
    }
    Ok(Done::Well)
}

pub(super) async fn restart(home: &Home, args: &ShowArgs, out: &mut Out) -> anyhow::Result<Done> {
    let plugin = &args.plugin;
    let path = format!("/service/{plugin}/restart");
    let answer = Api::with_token(home)?
        .post(&path, Vec::new(), Duration::ZERO)
        .await?;
    let restarting: Restarting = answer.json()?;
    if home.json() {
        out.json(&restarting)?;
    } else {
        out.line(format_args!(
            "{plugin} is being started again; see: bailey job inspect {}",
            restarting.job_id
        ));
    }
    Ok(Done::Well)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_service_is_is_said_in_a_line() {
        let mut service = Service {
            state: ServiceState::Running,
            job_id: None,
            running_since: Some("2026-01-01T00:00:00Z".to_owned()),
            restarts: 0,
            detail: String::new(),
        };
        assert_eq!(how(&service), "running since 2026-01-01T00:00:00Z");
        service.restarts = 1;
        service.detail = "it ended with exit code 3".to_owned();
        assert_eq!(
            how(&service),
            "running since 2026-01-01T00:00:00Z, restarted once, last trouble: it ended with exit code 3"
        );
        service.state = ServiceState::Quarantined;
        service.running_since = None;
        service.restarts = 5;
        assert_eq!(
            how(&service),
            "quarantined, restarted 5 times: it ended with exit code 3"
        );
    }
}
