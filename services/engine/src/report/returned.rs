//! Secrets that came back: a plugin has printed what it was given. The value is not known here, only whose it was.

use bailey_proto::engine::v1 as wire;
use bailey_types::SecretName;
use serde_json::json;

use super::line;
use crate::job::{Job, LogLine};
use crate::outcome::Verdict;
use crate::work::Work;

/// A secret that a plugin has printed.
#[derive(Clone, Debug)]
pub struct Returned {
    secret: SecretName,
    stream: &'static str,
    /// How often in its attempt, as far as is known.
    count: u64,
}

/// Why a report does not say what came back.
#[derive(Debug, thiserror::Error)]
#[error("a returned secret has a name and a stream")]
pub struct Malformed;

impl TryFrom<wire::ReturnedSecret> for Returned {
    type Error = Malformed;

    fn try_from(message: wire::ReturnedSecret) -> Result<Self, Malformed> {
        let stream = match message.stream() {
            wire::OutputStream::Stdout => "stdout",
            wire::OutputStream::Stderr => "stderr",
            wire::OutputStream::Unspecified => return Err(Malformed),
        };
        let secret = message.secret.parse().map_err(|_| Malformed)?;
        Ok(Self {
            secret,
            stream,
            count: message.count.max(1),
        })
    }
}

impl Returned {
    /// What the log line about it begins with, however often it was.
    fn subject(&self, attempt: u32) -> String {
        let Self { secret, stream, .. } = self;
        format!("bailey: in attempt {attempt} the plugin printed its secret {secret} to {stream} ")
    }

    fn line(&self, attempt: u32) -> LogLine {
        let times = match self.count {
            1 => "once".to_owned(),
            count => format!("{count} times"),
        };
        let (subject, secret) = (self.subject(attempt), &self.secret);
        LogLine {
            level: "warn".to_owned(),
            message: format!(
                "{subject}{times}, and [secret:{secret}] stands in its place: roll the secret, and see why the plugin does that"
            ),
        }
    }
}

/// Tells of it in the log.
pub(super) async fn tell(
    work: &mut Work,
    job: &Job,
    returned: &[Returned],
) -> Result<(), sqlx::Error> {
    for Returned {
        secret,
        stream,
        count,
    } in returned
    {
        tracing::warn!(job.id = %job.id, plugin.name = %job.plugin, secret.name = %secret, secret.count = count, "the plugin {} printed its secret {secret} to {stream}", job.plugin);
        let payload = json!({
            "job_id": job.id, "plugin": job.plugin, "command": job.command, "attempt": job.attempt,
            "secret": secret, "stream": stream, "count": count,
        });
        work.tell("plugin.secret_returned", job.id, &payload)
            .await?;
    }
    Ok(())
}

/// Puts it among the log lines of an attempt that ended, for whoever looks at the job.
pub(super) fn note(verdict: &mut Verdict, attempt: u32, returned: &[Returned]) {
    let traces = match verdict {
        Verdict::Succeeded { traces, .. } => traces,
        Verdict::Failed(failed) => &mut failed.traces,
        // It was given nothing.
        Verdict::NotStarted(_) => return,
    };
    let lines = returned.iter().map(|returned| returned.line(attempt));
    traces.logs.extend(lines);
}

/// Those of which the job's log does not say the same already: what is told may come twice.
pub(super) fn news(job: &Job, returned: &[Returned]) -> Vec<Returned> {
    let is_new = |it: &&Returned| !job.logs.contains(&it.line(job.attempt));
    returned.iter().filter(is_new).cloned().collect()
}

/// The log lines of a job with what is known of it now, in the place of what was known before.
pub(super) fn fold(job: &Job, returned: &[Returned]) -> Vec<LogLine> {
    let is_other = |line: &&LogLine| {
        let is_about =
            |returned: &Returned| line.message.starts_with(&returned.subject(job.attempt));
        !returned.iter().any(is_about)
    };
    let kept: Vec<LogLine> = job.logs.iter().filter(is_other).cloned().collect();
    let lines = returned.iter().map(|returned| returned.line(job.attempt));
    if job.lasts() {
        return line::with(&kept, lines);
    }
    kept.into_iter().chain(lines).collect()
}
