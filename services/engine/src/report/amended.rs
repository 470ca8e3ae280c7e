//! What was known of an attempt only after its report: a good answer is reported at once, whatever the plugin still says beside it.

use std::time::Duration;

use super::{Error, Returned, returned};
use crate::fleet::Lease;
use crate::state::State;
use crate::work::Work;
use crate::{db, outcome};

/// How long after its end a job's record may still grow: its cell is gone seconds after the answer.
const OPEN: Duration = Duration::from_mins(1);

/// Takes what a plugin had written to standard error by its end, and the secrets in that. Of an attempt that is not the last one of a job
/// that ended just now, or a second time, it is accepted and ignored.
pub async fn amend(
    state: &State,
    (id, attempt): Lease,
    stderr: &[u8],
    secrets: &[Returned],
) -> Result<(), Error> {
    let mut work = Work::begin(state).await?;
    let since = work.now().minus(OPEN);
    if !db::attempt::amend(work.db(), id, attempt, since).await? {
        tracing::debug!(job.id = %id, job.attempt = attempt, "an amendment of attempt {attempt} of {id} is not taken");
        return Ok(());
    }
    if let Some(stderr) = outcome::text(stderr) {
        db::job::amend(work.db(), id, &stderr).await?;
    }
    if let Some(job) = db::job::find::by_id(work.db(), id).await? {
        returned::tell(&mut work, &job, secrets).await?;
    }
    Ok(work.commit(state).await?)
}
