//! The jobs that were decided about, each with what it rests on.

use bailey_db::Connection;
use bailey_types::{JobId, PluginName, Timestamp};

/// What a job rests on. It can be used by one job only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ground {
    /// One of the two is set.
    pub(crate) origin: Option<String>,
    pub(crate) parent: Option<String>,
    /// Empty for a call, as the step.
    pub(crate) pipeline: String,
    pub(crate) step: String,
    pub(crate) event_index: i64,
}

/// A job that was decided about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) ground: Ground,
    /// Of the pipeline that runs; empty where none does.
    pub(crate) instance: String,
    pub(crate) decisions: u64,
    /// No decision of it is older, and none that is older is of what is known of it here.
    pub(crate) begun_at: Timestamp,
    /// What lasts: new jobs follow from this event and later ones.
    pub(crate) first_event: Option<i64>,
}

/// When a job is decided about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct When {
    pub(crate) now: Timestamp,
    /// Now, or when what it rests on was signed if that is later: the clock may have been set.
    pub(crate) used_at: Timestamp,
    pub(crate) forget_after: Timestamp,
}

pub(crate) async fn find(tx: &mut Connection, job: JobId) -> Result<Option<Known>, sqlx::Error> {
    let job = job.to_string();
    let row = sqlx::query!(
        "SELECT origin_id, parent_job_id, pipeline, step, event_index, instance_id, decisions, begun_at_ms, first_event
         FROM job WHERE job_id = ?1",
        job
    );
    let known = row.fetch_optional(tx).await?.map(|row| Known {
        ground: Ground {
            origin: row.origin_id,
            parent: row.parent_job_id,
            pipeline: row.pipeline,
            step: row.step,
            event_index: row.event_index,
        },
        instance: row.instance_id,
        decisions: u64::try_from(row.decisions).unwrap_or(0),
        begun_at: Timestamp(row.begun_at_ms),
        first_event: row.first_event,
    });
    Ok(known)
}

/// Puts in a job that is decided about for the first time. Answers false where another job rests on the same. A job of that id may have been
/// forgotten before: decisions of a time that is forgotten are never this one's, whatever the clock says.
pub(crate) async fn insert(
    tx: &mut Connection,
    job: JobId,
    ground: &Ground,
    instance: &str,
    when: When,
) -> Result<bool, sqlx::Error> {
    let job = job.to_string();
    let done = sqlx::query!(
        "INSERT INTO job (job_id, origin_id, parent_job_id, pipeline, step, event_index, instance_id, decisions, born_after_ms, begun_at_ms,
             used_at_ms, forget_after_ms)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, until_ms, MAX(?8, until_ms + 1), ?9, ?10
         FROM (SELECT COALESCE(MAX(forgotten_until_ms), 0) AS until_ms FROM memory)
         WHERE TRUE ON CONFLICT DO NOTHING",
        job,
        ground.origin,
        ground.parent,
        ground.pipeline,
        ground.step,
        ground.event_index,
        instance,
        when.now.0,
        when.used_at.0,
        when.forget_after.0
    );
    Ok(done.execute(tx).await?.rows_affected() == 1)
}

/// Another decision about a known job.
pub(crate) async fn again(tx: &mut Connection, job: JobId, when: When) -> Result<(), sqlx::Error> {
    let job = job.to_string();
    sqlx::query!(
        "UPDATE job SET decisions = decisions + 1, begun_at_ms = MAX(MIN(begun_at_ms, ?2), born_after_ms + 1),
             used_at_ms = MAX(used_at_ms, ?3), forget_after_ms = MAX(forget_after_ms, ?4)
         WHERE job_id = ?1",
        job,
        when.now.0,
        when.used_at.0,
        when.forget_after.0
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The job is the service of `plugin` now: it is not forgotten while no other is, and one that was is, in its time.
pub(crate) async fn serve(
    tx: &mut Connection,
    job: JobId,
    plugin: &PluginName,
    when: When,
) -> Result<(), sqlx::Error> {
    let (job, plugin) = (job.to_string(), plugin.as_str());
    sqlx::query!(
        "UPDATE job SET service = NULL, used_at_ms = MAX(used_at_ms, ?3), forget_after_ms = MAX(forget_after_ms, ?4)
         WHERE service = ?2 AND job_id <> ?1",
        job,
        plugin,
        when.used_at.0,
        when.forget_after.0
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "UPDATE job SET service = ?2, first_event = COALESCE(first_event, 0) WHERE job_id = ?1",
        job,
        plugin
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A decision about the job was not given.
pub(crate) async fn take_back(tx: &mut Connection, job: JobId) -> Result<(), sqlx::Error> {
    let job = job.to_string();
    sqlx::query!(
        "UPDATE job SET decisions = decisions - 1 WHERE job_id = ?1 AND decisions > 0",
        job
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A row in the order in which they are forgotten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    forget_after_ms: i64,
    row: i64,
}

impl Place {
    /// Before the first one.
    pub(crate) const START: Self = Self {
        forget_after_ms: i64::MIN,
        row: i64::MIN,
    };
}

/// What was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forgotten {
    pub(crate) jobs: u64,
    /// What was asked for until then and is not known is refused from now on.
    pub(crate) until: Timestamp,
}

/// At most `limit` jobs behind `after` whose time is over and whose parents are forgotten, or last, and where the last of them is. Those whose
/// time was over first come first.
pub(crate) async fn forgettable(
    tx: &mut Connection,
    now: Timestamp,
    (after, limit): (Place, u32),
) -> Result<(Vec<String>, Option<Place>), sqlx::Error> {
    // While the parent is known, an unknown event of it may lead to a job. Of one that lasts, only a late one.
    let rows = sqlx::query!(
        r#"SELECT job_id, forget_after_ms, rowid AS "row!: i64" FROM job
         WHERE service IS NULL AND forget_after_ms < ?1 AND (forget_after_ms, rowid) > (?2, ?3) AND NOT EXISTS
             (SELECT 1 FROM job AS parent WHERE parent.job_id = job.parent_job_id AND parent.first_event IS NULL)
         ORDER BY forget_after_ms, rowid LIMIT ?4"#,
        now.0,
        after.forget_after_ms,
        after.row,
        limit
    )
    .fetch_all(tx)
    .await?;
    let last = rows.last().map(|last| Place {
        forget_after_ms: last.forget_after_ms,
        row: last.row,
    });
    Ok((rows.into_iter().map(|row| row.job_id).collect(), last))
}

/// Forgets those of `jobs` whose time is still over, and remembers where what is known begins now.
pub(crate) async fn forget(
    tx: &mut Connection,
    jobs: &[String],
    now: Timestamp,
) -> Result<Forgotten, sqlx::Error> {
    let jobs = serde_json::to_string(jobs).map_err(|e| sqlx::Error::Encode(e.into()))?;
    // Before the rows go: what is refused from here on is read off them.
    let until = sqlx::query_scalar!(
        "UPDATE memory SET forgotten_until_ms = MAX(forgotten_until_ms, COALESCE(
             (SELECT MAX(used_at_ms) FROM job
              WHERE job_id IN (SELECT value FROM json_each(?1)) AND service IS NULL AND forget_after_ms < ?2), 0))
         RETURNING forgotten_until_ms",
        jobs,
        now.0
    )
    .fetch_one(&mut *tx)
    .await?;
    sqlx::query!(
        "UPDATE job SET first_event = MAX(first_event, late.event_index + 1)
         FROM (SELECT parent_job_id, MAX(event_index) AS event_index FROM job
               WHERE job_id IN (SELECT value FROM json_each(?1)) AND service IS NULL AND forget_after_ms < ?2
               GROUP BY parent_job_id) AS late
         WHERE job.job_id = late.parent_job_id AND first_event IS NOT NULL",
        jobs,
        now.0
    )
    .execute(&mut *tx)
    .await?;
    let gone = sqlx::query!(
        "DELETE FROM job WHERE job_id IN (SELECT value FROM json_each(?1)) AND service IS NULL AND forget_after_ms < ?2",
        jobs,
        now.0
    );
    Ok(Forgotten {
        jobs: gone.execute(tx).await?.rows_affected(),
        until: Timestamp(until),
    })
}
