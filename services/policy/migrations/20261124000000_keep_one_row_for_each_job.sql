-- A job that was decided about, and what it rests on: an origin, or an event of another job. One row holds all that policy must know of it, so
-- that it can be forgotten as a whole (docs/adr/0015-what-policy-forgets.md).
CREATE TABLE job (
    job_id          TEXT    NOT NULL CONSTRAINT job_id_unique UNIQUE,
    origin_id       TEXT,             -- Of what it rests on: this, or the parent below.
    parent_job_id   TEXT,
    pipeline        TEXT    NOT NULL, -- Empty for a call, as the step.
    step            TEXT    NOT NULL,
    event_index     INTEGER NOT NULL, -- Of the parent's event; 0 for an origin.
    instance_id     TEXT    NOT NULL, -- Of the pipeline that runs; empty where none does.
    decisions       INTEGER NOT NULL,
    born_after_ms   INTEGER NOT NULL, -- What was forgotten when it was put in: an older decision may be of an earlier job of that id.
    begun_at_ms     INTEGER NOT NULL, -- No decision of it is older; always behind the time above.
    used_at_ms      INTEGER NOT NULL, -- Neither what it rests on, nor its last decision, is younger.
    forget_after_ms INTEGER NOT NULL, -- Until then it may be asked about again.
    service         TEXT,             -- The plugin whose service it is; of one that another has followed: NULL.
    first_event     INTEGER,          -- What lasts: new jobs follow from this event and later ones. NULL: it does not last.
    CONSTRAINT job_rests_on_one CHECK ((origin_id IS NULL) <> (parent_job_id IS NULL))
) STRICT;

-- An origin stands for one job; one that emitted an event, for one job of each pipeline's entry step.
CREATE UNIQUE INDEX job_by_origin ON job (origin_id, pipeline, step) WHERE origin_id IS NOT NULL;
-- Each event of a job starts one job for each step that follows from it.
CREATE UNIQUE INDEX job_by_event ON job (parent_job_id, pipeline, step, event_index) WHERE parent_job_id IS NOT NULL;
CREATE UNIQUE INDEX job_by_service ON job (service) WHERE service IS NOT NULL;
CREATE INDEX job_to_forget ON job (forget_after_ms) WHERE service IS NULL;

-- What was known counts as if it had been used with the last decision there was. Nobody knows how long the retries of each may wait: 30 days from
-- then, and once the longest pause there is. A job that rested on several things keeps all of them, an origin as its own, the further ones under
-- names that no job has.
INSERT INTO job (job_id, origin_id, parent_job_id, pipeline, step, event_index, instance_id, decisions, born_after_ms, begun_at_ms, used_at_ms,
    forget_after_ms)
SELECT
    CASE rested.nth WHEN 1 THEN rested.job_id ELSE rested.job_id || '#' || rested.nth END,
    origin_id, parent_job_id, pipeline, step, event_index,
    COALESCE(known.instance_id, ''), COALESCE(known.decisions, 0), 0, COALESCE(known.begun_at_ms, newest.at_ms), newest.at_ms,
    newest.at_ms + (30 + 366) * 86400000
FROM (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY job_id ORDER BY origin_id IS NULL, origin_id, parent_job_id, pipeline, step, event_index) AS nth
    FROM (
        SELECT job_id, origin_id, NULL AS parent_job_id, pipeline, step, 0 AS event_index FROM origin_use
        UNION ALL
        SELECT job_id, NULL, parent_job_id, pipeline, step, event_index FROM edge_use
    )
) AS rested
LEFT JOIN (
    SELECT job_id, MIN(instance_id) AS instance_id, COUNT(*) AS decisions, MIN(decided_at_ms) AS begun_at_ms
    FROM decision GROUP BY job_id
) AS known ON known.job_id = rested.job_id
CROSS JOIN (SELECT COALESCE(MAX(decided_at_ms), 0) AS at_ms FROM decision) AS newest;

DROP TABLE decision;
DROP TABLE edge_use;
DROP TABLE origin_use;

-- What was asked for until then and is not known was forgotten, or never used: nobody can tell, so it is refused.
ALTER TABLE memory ADD COLUMN forgotten_until_ms INTEGER NOT NULL DEFAULT 0;
