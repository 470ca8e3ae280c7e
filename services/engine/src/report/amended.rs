//! What was known of an attempt only after its report: a good answer is reported at once, whatever the plugin still says beside it. And what a
//! service has printed, which has no report for as long as it runs.

use std::time::Duration;

use super::{Error, Returned, is_current, returned};
use crate::fleet::Lease;
use crate::job::Job;
use crate::state::State;
use crate::work::Work;
use crate::{db, outcome};

/// How long after its end a job's record may still grow: its cell is gone seconds after the answer.
const OPEN: Duration = Duration::from_mins(1);

/// Takes what a plugin had written to standard error by its end, and the secrets in that; of a service that runs the secrets alone. Of any
/// other attempt that is not the last one of a job that ended just now, or a second time, it is accepted and ignored; but secrets alone may
/// come in several parts.
pub async fn amend(
    state: &State,
    (id, attempt): Lease,
    stderr: &[u8],
    secrets: &[Returned],
) -> Result<(), Error> {
    let mut work = Work::begin(state).await?;
    let job = db::job::find::by_id(work.db(), id).await?;
    let serves = |job: &Job| job.lasts() && is_current(job, attempt);
    if !job.as_ref().is_some_and(serves) {
        let since = work.now().minus(OPEN);
        let more = stderr.is_empty() && !secrets.is_empty();
        if !db::attempt::amend(work.db(), id, attempt, (since, more)).await? {
            tracing::debug!(job.id = %id, job.attempt = attempt, "an amendment of attempt {attempt} of {id} is not taken");
            return Ok(());
        }
        if let Some(stderr) = outcome::text(stderr) {
            db::job::amend(work.db(), id, &stderr).await?;
        }
    }
    if let Some(job) = job {
        let news = returned::news(&job, secrets);
        if news.is_empty() {
            return Ok(work.commit(state).await?);
        }
        returned::tell(&mut work, &job, &news).await?;
        let logs = returned::fold(&job, &news);
        db::service::note(work.db(), id, (None, None), &logs).await?;
    }
    Ok(work.commit(state).await?)
}
