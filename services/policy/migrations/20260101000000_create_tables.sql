-- An origin stands for one job; one that emitted an event, for one job of each pipeline's entry step.
CREATE TABLE origin_use (
    origin_id TEXT NOT NULL,
    -- Both empty for a call.
    pipeline TEXT NOT NULL,
    step TEXT NOT NULL,
    job_id TEXT NOT NULL,
    CONSTRAINT origin_use_key PRIMARY KEY (origin_id, pipeline, step)
) STRICT, WITHOUT ROWID;

-- Each event of a job's result starts one job for each step that follows from it.
CREATE TABLE edge_use (
    parent_job_id TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    step TEXT NOT NULL,
    event_index INTEGER NOT NULL,
    job_id TEXT NOT NULL,
    CONSTRAINT edge_use_key PRIMARY KEY (parent_job_id, pipeline, step, event_index)
) STRICT, WITHOUT ROWID;

CREATE TABLE decision (
    decision_id TEXT NOT NULL PRIMARY KEY,
    job_id TEXT NOT NULL,
    -- Of the pipeline that runs; empty where none does.
    instance_id TEXT NOT NULL,
    decided_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX decision_by_job ON decision (job_id);

-- One row: what must never go back.
CREATE TABLE memory (
    memory_id INTEGER NOT NULL PRIMARY KEY CONSTRAINT memory_is_one CHECK (memory_id = 1),
    lock_serial INTEGER NOT NULL,
    log_size INTEGER NOT NULL,
    log_root BLOB NOT NULL
) STRICT;
