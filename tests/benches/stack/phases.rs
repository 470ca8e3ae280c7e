//! Where the time of a call goes, as its job's record tells it.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use chrono::DateTime;
use serde_json::Value;

/// The phases in their order. What lies between two stamps of the record is known to a millisecond, so it is told as a mean.
const NAMES: [&str; 6] = [
    "in: gateway, the token at the broker, until the engine has the job on disk",
    "decision: request, policy, audit, until the lease is on disk",
    "the broker's ticket, after the lease is on disk",
    "until socket-proxy has taken the request, and the start of what did not run",
    "the plugin, from its request to its answer, through socket-proxy and the engine",
    "out: the assignment's and the report's ways, the commit, the answer's way",
];

/// Phases of calls, summed up.
#[derive(Default)]
pub struct Phases {
    sums: [Duration; NAMES.len()],
    calls: u32,
}

impl Phases {
    /// Adds a call that began and ended at these times, from what it was answered.
    pub fn add(&mut self, begun: SystemTime, ended: SystemTime, job: &Value) -> anyhow::Result<()> {
        let attempts = job["attempts"].as_array().context("no attempts")?;
        let [attempt] = attempts.as_slice() else {
            // What was tried again took the time of both.
            return Ok(());
        };
        let us = |name: &str| {
            let us = attempt[name]
                .as_u64()
                .with_context(|| format!("no {name}"))?;
            anyhow::Ok(Duration::from_micros(us))
        };
        let (created, leased) = (stamp(&job["created_at"])?, stamp(&attempt["started_at"])?);
        let (ticket, start) = (us("ticket_us")?, us("create_us")? + us("start_us")?);
        let run = us("run_us")?;
        let since = |later: SystemTime, earlier| later.duration_since(earlier).unwrap_or_default();
        let inside = [
            since(created, begun),
            since(leased, created),
            ticket,
            start,
            run,
        ];
        let known: Duration = inside.iter().sum();
        let out = since(ended, begun).saturating_sub(known);
        for (sum, phase) in self.sums.iter_mut().zip(inside.into_iter().chain([out])) {
            *sum += phase;
        }
        self.calls += 1;
        Ok(())
    }

    /// Prints the mean of each phase.
    pub fn print(&self, plugin: &str) -> anyhow::Result<()> {
        ensure!(self.calls > 0, "no call of {plugin} had one attempt");
        println!(
            "\nWhere the time of {} warm calls of {plugin} went, mean:\n",
            self.calls
        );
        println!("| phase | time |\n|---|---|");
        for (name, sum) in NAMES.iter().zip(self.sums) {
            println!("| {name} | {} |", super::ms(sum / self.calls));
        }
        let all: Duration = self.sums.iter().sum();
        println!("| **all** | **{}** |", super::ms(all / self.calls));
        Ok(())
    }
}

fn stamp(text: &Value) -> anyhow::Result<SystemTime> {
    let text = text.as_str().context("no time")?;
    Ok(DateTime::parse_from_rfc3339(text)?.into())
}
