//! What a ticket adds to a warm call: the broker makes it while the engine writes the lease down, socket-proxy redeems it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use stack_tests::Stack;

/// What making and redeeming may add to a call together, p50.
const BUDGET: Duration = Duration::from_millis(1);

/// The tickets of the calls of one plugin: job, and how long the engine waited for the broker alone.
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

    /// Prints what making took, how much of that the call waited for, what redeeming took, and what the call had of both.
    fn print(&self, what: &str, logs: &Logs) -> anyhow::Result<()> {
        let found = |log: &BTreeMap<String, Duration>, job: &String| {
            let time = log.get(job).copied();
            time.with_context(|| format!("{job} is not in the log"))
        };
        let (mut made, mut waited) = (Vec::new(), Vec::new());
        let (mut redeemed, mut added) = (Vec::new(), Vec::new());
        for (job, waiting) in &self.0 {
            let redeeming = found(&logs.redeemed, job)?;
            made.push(found(&logs.made, job)?);
            waited.push(*waiting);
            redeemed.push(redeeming);
            added.push(*waiting + redeeming);
        }
        ensure!(!added.is_empty(), "no call of {what} had one attempt");
        let verdict = if super::at(&added, 50) <= BUDGET {
            "within"
        } else {
            "**over**"
        };
        println!(
            "| {what} | {} | {} | {} | {} | {verdict} |",
            super::figures(&made),
            super::figures(&waited),
            super::figures(&redeemed),
            super::figures(&added),
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
        "| call | made: asked for until there | of it after the lease was on disk | redeemed: checked and opened | added: the last two | budget |"
    );
    println!("|---|---|---|---|---|---|");
    let logs = Logs {
        made: logged(stack, "engine", "ticket.made_us")?,
        redeemed: logged(stack, "socket-proxy", "launch.redeem_us")?,
    };
    for (what, tickets) in series {
        tickets.print(what, &logs)?;
    }
    Ok(())
}

/// What services say of each job's ticket.
struct Logs {
    /// From when the engine asked the broker until it had it.
    made: BTreeMap<String, Duration>,
    /// From the last byte of its envelope at socket-proxy until the request could go to the cell.
    redeemed: BTreeMap<String, Duration>,
}

/// The times that a service logs for each job in a field, microseconds.
fn logged(
    stack: &Stack,
    service: &str,
    field_name: &str,
) -> anyhow::Result<BTreeMap<String, Duration>> {
    let container = stack.service(service)?;
    let log = stack.docker(&["logs", &container])?;
    let lines = log.lines().filter_map(|line| {
        let line = serde_json::from_str::<Value>(line).ok()?;
        let field = |name: &str| line.get(name).or_else(|| line["fields"].get(name));
        let us = field(field_name)?.as_u64()?;
        let job = field("job.id")?.as_str()?;
        Some((job.to_owned(), Duration::from_micros(us)))
    });
    Ok(lines.collect())
}
