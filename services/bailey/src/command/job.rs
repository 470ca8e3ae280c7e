//! `bailey job`.

use std::collections::BTreeMap;

use bailey_types::JobId;
use serde::Deserialize;

use crate::api::Api;
use crate::cli::JobListArgs;
use crate::home::Home;
use crate::output::{Done, Out, plain};

/// A job as the API shows it. What a token may not read is absent.
#[derive(Debug, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names of the API")]
pub(super) struct Job {
    job_id: String,
    pub(super) status: String,
    plugin: String,
    command: String,
    #[serde(default)]
    attempt: u32,
    #[serde(default)]
    max_attempts: u32,
    #[serde(default)]
    submitted_by: String,
    #[serde(default)]
    principal: String,
    #[serde(default)]
    created_at: String,
    completed_at: Option<String>,
    next_retry_at: Option<String>,
    result: Option<String>,
    last_error: Option<String>,
    stderr: Option<String>,
    parent_job_id: Option<String>,
    pipeline: Option<String>,
    step: Option<String>,
    decision_id: Option<String>,
    waiting_for: Option<String>,
    #[serde(default)]
    logs: Vec<Log>,
    #[serde(default)]
    transitions: Vec<Transition>,
    #[serde(default)]
    attempts: Vec<Attempt>,
}

#[derive(Debug, Deserialize)]
struct Log {
    level: String,
    message: String,
}

#[derive(Debug, Deserialize)]
struct Transition {
    to: String,
    #[serde(default)]
    reason: String,
    attempt: u32,
    at: String,
}

/// One try, with the time of its phases.
#[derive(Debug, Deserialize)]
struct Attempt {
    #[serde(rename = "attempt")]
    number: u32,
    outcome: Option<String>,
    start: Option<String>,
    #[serde(default)]
    create_us: u32,
    #[serde(default)]
    ticket_us: u32,
    #[serde(default)]
    start_us: u32,
    #[serde(default)]
    run_us: u32,
}

#[derive(Deserialize)]
struct Jobs {
    jobs: Vec<Job>,
    total: u64,
}

pub(super) async fn list(home: &Home, args: &JobListArgs, out: &mut Out) -> anyhow::Result<Done> {
    let mut path = format!("/jobs?limit={}", args.limit);
    for (name, value) in [
        ("plugin", args.plugin.as_ref().map(ToString::to_string)),
        ("command", args.command.as_ref().map(ToString::to_string)),
        ("status", args.status.clone()),
    ] {
        let Some(value) = value else { continue };
        // Names and statuses have nothing that would have to be escaped in a query; what has is none of them.
        let known = value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        anyhow::ensure!(
            known,
            crate::Misconfigured(format!("{value:?} is no {name}"))
        );
        path = format!("{path}&{name}={value}");
    }
    let answer: serde_json::Value = Api::with_token(home)?.get(&path).await?;
    if home.json() {
        out.json(&answer)?;
        return Ok(Done::Well);
    }
    let Jobs { jobs, total } = serde_json::from_value(answer)?;
    let row = |job: &Job| {
        let what = format!("{}.{}", job.plugin, job.command);
        [
            job.job_id.clone(),
            what,
            job.status.clone(),
            job.tries(),
            job.created_at.clone(),
            plain(job.summary()),
        ]
    };
    let rows: Vec<_> = jobs.iter().map(row).collect();
    out.table(["JOB", "COMMAND", "STATUS", "TRY", "CREATED", ""], &rows);
    if total > u64::from(args.limit) {
        out.line(format_args!("{} of {total}", jobs.len()));
    }
    Ok(Done::Well)
}

pub(super) async fn inspect(home: &Home, id: JobId, out: &mut Out) -> anyhow::Result<Done> {
    let api = Api::with_token(home)?;
    let job: serde_json::Value = api.get(&format!("/job/{id}")).await?;
    let tree: serde_json::Value = api.get(&format!("/job/{id}/tree")).await?;
    if home.json() {
        out.json(&serde_json::json!({ "job": job, "tree": tree }))?;
        return Ok(Done::Well);
    }
    let job: Job = serde_json::from_value(job)?;
    let tree: Vec<Job> = serde_json::from_value(tree)?;
    job.describe(out);
    job.describe_attempts(out);
    job.describe_history(out);
    if tree.len() > 1 {
        out.line("\nLineage:");
        let roots = tree.iter().filter(|job| {
            !tree
                .iter()
                .any(|other| Some(&other.job_id) == job.parent_job_id.as_ref())
        });
        for root in roots {
            branch(root, &tree, 1, out);
        }
    }
    Ok(Done::Well)
}

/// Jobs of one step below one parent that are shown; of more only the newest are.
const SHOWN_ALIKE: usize = 10;

/// A job and below it those that came of it.
fn branch(job: &Job, tree: &[Job], depth: usize, out: &mut Out) {
    let indent = "  ".repeat(depth);
    out.line(format_args!(
        "{indent}{}: {} {}",
        job.what(),
        job.status,
        job.job_id
    ));
    // A lineage is a tree, and a pipeline is not deeper than this; a loop in the answer must not loop here.
    if depth >= 64 {
        return;
    }
    let mut alike: Vec<Vec<&Job>> = Vec::new();
    for child in tree
        .iter()
        .filter(|child| child.parent_job_id.as_ref() == Some(&job.job_id))
    {
        let same = alike
            .iter_mut()
            .find(|group| group.first().is_some_and(|first| first.is_like(child)));
        match same {
            Some(group) => group.push(child),
            None => alike.push(vec![child]),
        }
    }
    for group in alike {
        // A service has one for each of its events.
        let (older, shown) = group.split_at(group.len().saturating_sub(SHOWN_ALIKE));
        if let Some(first) = older.first() {
            let indent = "  ".repeat(depth + 1);
            let (what, ends) = (first.what(), ends(older));
            out.line(format_args!(
                "{indent}{what}: {} older: {ends}",
                older.len()
            ));
        }
        for child in shown {
            branch(child, tree, depth + 1, out);
        }
    }
}

/// How many jobs are in which status.
fn ends(jobs: &[&Job]) -> String {
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for job in jobs {
        *ends.entry(&job.status).or_default() += 1;
    }
    let ends: Vec<_> = ends
        .into_iter()
        .map(|(status, count)| format!("{count} {status}"))
        .collect();
    ends.join(", ")
}

pub(super) async fn logs(home: &Home, id: JobId, out: &mut Out) -> anyhow::Result<Done> {
    let answer: serde_json::Value = Api::with_token(home)?.get(&format!("/job/{id}")).await?;
    if home.json() {
        let part = |name: &str| answer.get(name).cloned().unwrap_or_default();
        out.json(&serde_json::json!({ "logs": part("logs"), "stderr": part("stderr"), "last_error": part("last_error") }))?;
        return Ok(Done::Well);
    }
    let job: Job = serde_json::from_value(answer)?;
    for log in &job.logs {
        out.line(format_args!("{:5} {}", log.level, plain(&log.message)));
    }
    if let Some(stderr) = &job.stderr {
        out.line(plain(stderr.trim_end()));
    }
    if let Some(error) = &job.last_error {
        out.line(format_args!("error {}", plain(error)));
    }
    Ok(Done::Well)
}

impl Job {
    /// What runs, and where in its pipeline.
    fn what(&self) -> String {
        let step = self.step.as_ref();
        let step = step.map(|step| format!(" step {step}")).unwrap_or_default();
        format!("{}.{}{step}", self.plugin, self.command)
    }

    /// Whether both are the same step of the same pipeline.
    fn is_like(&self, other: &Self) -> bool {
        let of = |job: &Self| (job.pipeline.clone(), job.what());
        of(self) == of(other)
    }

    /// Whether anything may still become of it.
    fn goes_on(&self) -> bool {
        matches!(self.status.as_str(), "queued" | "running")
    }

    fn tries(&self) -> String {
        if self.max_attempts == 0 {
            // A service is started again for as long as it is locked.
            return self.attempt.to_string();
        }
        format!("{}/{}", self.attempt, self.max_attempts)
    }

    fn summary(&self) -> &str {
        let text = self
            .waiting_for
            .as_deref()
            .or(self.last_error.as_deref())
            .or(self.result.as_deref());
        let line = text.unwrap_or_default().lines().next().unwrap_or_default();
        line.char_indices()
            .nth(60)
            .map_or(line, |(end, _)| line.get(..end).unwrap_or(line))
    }

    /// What it is and what came of it.
    pub(super) fn describe(&self, out: &mut Out) {
        let pipeline = self.pipeline.as_ref().zip(self.step.as_ref());
        let fields = [
            ("job", Some(self.job_id.clone())),
            ("command", Some(format!("{}.{}", self.plugin, self.command))),
            ("status", Some(self.status.clone())),
            ("try", Some(self.tries())),
            (
                "asked by",
                Some(format!("{} ({})", self.principal, self.submitted_by))
                    .filter(|_| !self.principal.is_empty()),
            ),
            (
                "pipeline",
                pipeline.map(|(pipeline, step)| format!("{pipeline}, step {step}")),
            ),
            ("parent", self.parent_job_id.clone()),
            ("decision", self.decision_id.clone()),
            ("created", Some(self.created_at.clone())),
            ("completed", self.completed_at.clone()),
            ("waits for", self.waiting_for.clone()),
            ("tried again", self.next_retry_at.clone()),
            ("result", self.result.clone()),
            (
                if self.goes_on() {
                    // Of a try before, or of a line that a service wrote: what else it shows may be newer.
                    "last error"
                } else {
                    "error"
                },
                self.last_error.clone(),
            ),
        ];
        for (name, value) in fields {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                out.line(format_args!("{name:12} {}", plain(&value)));
            }
        }
        // What the stack found out about the plugin, not what the plugin has to say.
        let found = |log: &Log| log.message.strip_prefix("bailey: ").map(plain);
        for warning in self.logs.iter().filter_map(found) {
            out.line(format_args!("{:12} {warning}", "warning"));
        }
    }

    fn describe_attempts(&self, out: &mut Out) {
        // What did not happen, or has not yet, took no time.
        let ms = |us: u32| match us {
            0 => "-".to_owned(),
            us => format!("{:.1} ms", f64::from(us) / 1000.0),
        };
        let row = |attempt: &Attempt| {
            [
                attempt.number.to_string(),
                plain(attempt.outcome.as_deref().unwrap_or("runs")),
                plain(attempt.start.as_deref().unwrap_or("-")),
                ms(attempt.create_us),
                ms(attempt.ticket_us),
                ms(attempt.start_us),
                ms(attempt.run_us),
            ]
        };
        let rows: Vec<_> = self.attempts.iter().map(row).collect();
        if !rows.is_empty() {
            out.line("\nAttempts:");
            let titles = ["TRY", "OUTCOME", "CELL", "MADE", "TICKET", "STARTED", "RAN"];
            out.table(titles, &rows);
        }
    }

    fn describe_history(&self, out: &mut Out) {
        if self.transitions.is_empty() {
            return;
        }
        out.line("\nHistory:");
        for transition in &self.transitions {
            let reason = if transition.reason.is_empty() {
                String::new()
            } else {
                format!(" ({})", plain(&transition.reason))
            };
            out.line(format_args!(
                "  {} try {} {}{reason}",
                transition.at, transition.attempt, transition.to
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_shown_with_how_its_cell_came_to_be_and_the_time_of_its_phases() {
        let job: Job = serde_json::from_value(serde_json::json!({
            "job_id": "1", "status": "succeeded", "plugin": "greet", "command": "poll",
            "attempts": [
                {"attempt": 1, "outcome": "not_started", "create_us": 0, "ticket_us": 0, "start_us": 0, "run_us": 0},
                {"attempt": 2, "outcome": "succeeded", "start": "warm", "create_us": 0, "ticket_us": 1250, "start_us": 900, "run_us": 2300},
            ],
        })).unwrap();
        let mut out = Out::default();
        job.describe_attempts(&mut out);
        let text = out.text();
        let last: Vec<_> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(last.join(" "), "2 succeeded warm - 1.2 ms 0.9 ms 2.3 ms");
        assert!(text.contains("not_started"), "{text}");
        assert!(!text.contains("0.0 ms"), "{text}");
    }

    #[test]
    fn an_error_of_what_goes_on_is_its_last_one() {
        for (status, line) in [
            ("running", "last error   line 4"),
            ("failed", "error        line 4"),
        ] {
            let job: Job = serde_json::from_value(serde_json::json!({
                "job_id": "1", "status": status, "plugin": "ticker", "command": "serve", "last_error": "line 4",
            })).unwrap();
            let mut out = Out::default();
            job.describe(&mut out);
            assert!(
                out.text().lines().any(|shown| shown == line),
                "{}",
                out.text()
            );
        }
    }

    #[test]
    fn what_the_stack_warns_of_is_shown_with_the_job_and_what_the_plugin_logs_is_not() {
        let job: Job = serde_json::from_value(serde_json::json!({
            "job_id": "1", "status": "succeeded", "plugin": "greet", "command": "poll",
            "logs": [
                {"level": "warn", "message": "hm"},
                {"level": "warn", "message": "bailey: the plugin printed its secret token to stdout"},
            ],
        })).unwrap();
        let mut out = Out::default();
        job.describe(&mut out);
        let text = out.text();
        assert!(
            text.contains("warning      the plugin printed its secret token to stdout\n"),
            "{text}"
        );
        assert!(!text.contains("hm"), "{text}");
    }

    #[test]
    fn of_many_jobs_of_one_step_the_newest_are_shown() {
        let job = |id: String, parent: Option<&str>, status: &str| -> Job {
            serde_json::from_value(serde_json::json!({
                "job_id": id, "status": status, "plugin": "echo", "command": "handle", "parent_job_id": parent, "step": "echo",
            })).unwrap()
        };
        let of = |children: usize| {
            let mut tree = vec![job("root".to_owned(), None, "running")];
            for nth in 0..children {
                let status = if nth == 3 { "failed" } else { "succeeded" };
                tree.push(job(format!("c{nth}"), Some("root"), status));
            }
            let mut out = Out::default();
            branch(&tree[0], &tree, 1, &mut out);
            out.text().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(of(10).len(), 11);
        let many = of(1000);
        assert_eq!(many.len(), 12);
        assert_eq!(
            many[1],
            "    echo.handle step echo: 990 older: 1 failed, 989 succeeded"
        );
        assert_eq!(many[11], "    echo.handle step echo: succeeded c999");
    }

    #[test]
    fn a_lineage_is_shown_as_a_tree() {
        let job = |id: &str, parent: Option<&str>, step: &str| -> Job {
            serde_json::from_value(serde_json::json!({
                "job_id": id, "status": "succeeded", "plugin": step, "command": "handle", "parent_job_id": parent, "step": step,
            })).unwrap()
        };
        let tree = [job("1", None, "greet"), job("2", Some("1"), "echo")];
        let mut out = Out::default();
        branch(&tree[0], &tree, 1, &mut out);
        assert_eq!(
            out.text(),
            "  greet.handle step greet: succeeded 1\n    echo.handle step echo: succeeded 2\n"
        );
    }
}
