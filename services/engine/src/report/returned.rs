//! Secrets that came back: a plugin has printed what it was given. The value is not known here, only whose it was.

use bailey_proto::engine::v1 as wire;
use bailey_types::SecretName;
use serde_json::json;

use crate::job::{Job, LogLine};
use crate::outcome::Verdict;
use crate::work::Work;

/// A secret that a plugin has printed.
#[derive(Clone, Debug)]
pub struct Returned {
    secret: SecretName,
    stream: &'static str,
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
        Ok(Self { secret, stream })
    }
}

/// Tells of it in the log.
pub(super) async fn tell(
    work: &mut Work,
    job: &Job,
    returned: &[Returned],
) -> Result<(), sqlx::Error> {
    for Returned { secret, stream } in returned {
        tracing::warn!(job.id = %job.id, plugin.name = %job.plugin, secret.name = %secret, "the plugin {} printed its secret {secret} to {stream}", job.plugin);
        let payload = json!({
            "job_id": job.id, "plugin": job.plugin, "command": job.command, "attempt": job.attempt,
            "secret": secret, "stream": stream,
        });
        work.tell("plugin.secret_returned", job.id, payload).await?;
    }
    Ok(())
}

/// Puts it among the job's log lines, for whoever looks at the job.
pub(super) fn note(verdict: &mut Verdict, returned: &[Returned]) {
    let traces = match verdict {
        Verdict::Succeeded { traces, .. } => traces,
        Verdict::Failed(failed) => &mut failed.traces,
        // It was given nothing.
        Verdict::NotStarted(_) => return,
    };
    traces.logs.extend(lines(returned));
}

/// As log lines of the job.
pub(super) fn lines(returned: &[Returned]) -> impl Iterator<Item = LogLine> {
    returned.iter().map(|Returned { secret, stream }| LogLine {
        level: "warn".to_owned(),
        message: format!(
            "bailey: the plugin printed its secret {secret} to {stream}, and [secret:{secret}] stands in its place: roll the secret, and see why the plugin does that"
        ),
    })
}
