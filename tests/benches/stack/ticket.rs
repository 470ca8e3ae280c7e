//! What a ticket adds to a warm call: made by the broker at the runner's request, redeemed by socket-proxy.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use stack_tests::Stack;

/// What making and redeeming may add together, p50.
const BUDGET: Duration = Duration::from_millis(1);

/// The tickets of the calls of one plugin: job, and how long the runner waited for the broker.
#[derive(Default)]
pub struct Tickets(Vec<(String, Duration)>);

impl Tickets {
    /// Adds that of a call, from what the call was answered.
    pub fn add(&mut self, job: &Value) -> anyhow::Result<()> {
        let attempts = job["attempts"].as_array().context("no attempts")?;
        // What was tried again had several.
        if let [attempt] = attempts.as_slice() {
            let id = job["job_id"].as_str().context("no job_id")?;
            let us = attempt["ticket_us"].as_u64().context("no ticket_us")?;
            self.0.push((id.to_owned(), Duration::from_micros(us)));
        }
        Ok(())
    }

    /// Prints what making took, what redeeming took, and the sum of the two for each call.
    fn print(&self, what: &str, redeemed: &BTreeMap<String, Duration>) -> anyhow::Result<()> {
        let (mut made, mut opened, mut both) = (Vec::new(), Vec::new(), Vec::new());
        for (job, making) in &self.0 {
            let redeeming = redeemed.get(job);
            let redeeming = redeeming.with_context(|| format!("{job} is not in the log"))?;
            made.push(*making);
            opened.push(*redeeming);
            both.push(*making + *redeeming);
        }
        ensure!(!both.is_empty(), "no call of {what} had one attempt");
        let verdict = if super::at(&both, 50) <= BUDGET {
            "within"
        } else {
            "**over**"
        };
        println!(
            "| {what} | {} | {} | {} | {verdict} |",
            super::figures(&made),
            super::figures(&opened),
            super::figures(&both),
        );
        Ok(())
    }
}

/// Prints the tickets of each series.
pub fn print(stack: &Stack, series: &[(&str, Tickets)]) -> anyhow::Result<()> {
    println!(
        "\n## A ticket made and redeemed, added to a warm call (budget {} p50), p50 / p99\n",
        super::ms(BUDGET)
    );
    println!(
        "| call | made: asked for until there | redeemed: checked and opened | both | budget |"
    );
    println!("|---|---|---|---|---|");
    let redeemed = redeemed(stack)?;
    for (what, tickets) in series {
        tickets.print(what, &redeemed)?;
    }
    Ok(())
}

/// How long socket-proxy took for each job's envelope, from its last byte until the request could go to the cell, as its log says.
fn redeemed(stack: &Stack) -> anyhow::Result<BTreeMap<String, Duration>> {
    let proxy = stack.service("socket-proxy")?;
    let log = stack.docker(&["logs", &proxy])?;
    let lines = log.lines().filter_map(|line| {
        let line = serde_json::from_str::<Value>(line).ok()?;
        let field = |name: &str| line.get(name).or_else(|| line["fields"].get(name));
        let us = field("launch.redeem_us")?.as_u64()?;
        let job = field("job.id")?.as_str()?;
        Some((job.to_owned(), Duration::from_micros(us)))
    });
    Ok(lines.collect())
}
