-- The log: append-only, and the only way in.
CREATE TABLE event (
    seq        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, -- Never given twice, even after pruning: it is the subscribers' cursor.
    event_id   TEXT    NOT NULL CONSTRAINT event_id_unique UNIQUE,
    type       TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    payload    TEXT    NOT NULL,                           -- JSON object text.
    dedupe_key TEXT    NOT NULL,                           -- Empty: none.
    at_ms      INTEGER NOT NULL,
    job_id     TEXT                                        -- The job it came of or tells of.
) STRICT;

CREATE INDEX event_by_key ON event (type, source, dedupe_key, at_ms) WHERE dedupe_key <> '';

CREATE TABLE job (
    job_seq           INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, -- The order of the queue.
    job_id            TEXT    NOT NULL CONSTRAINT job_id_unique UNIQUE,
    plugin            TEXT    NOT NULL,
    command           TEXT    NOT NULL,
    status            TEXT    NOT NULL CONSTRAINT job_status_known CHECK (
        status IN ('queued', 'running', 'succeeded', 'failed', 'timed_out', 'dead', 'skipped', 'cancelled')),
    attempt           INTEGER NOT NULL, -- Number of the current lease, or of the next one while queued.
    uncounted         INTEGER NOT NULL, -- How many of the earlier ones do not count: their cells never got a request.
    max_attempts      INTEGER NOT NULL,
    submitted_by      TEXT    NOT NULL,
    dedupe_key        TEXT    NOT NULL, -- Empty: none.
    created_at_ms     INTEGER NOT NULL,
    started_at_ms     INTEGER,
    completed_at_ms   INTEGER,
    next_retry_at_ms  INTEGER,
    waiting_for       TEXT    NOT NULL, -- Why it alone waits; empty: it does not.
    result            TEXT,
    last_error        TEXT,
    stderr            TEXT,
    logs              TEXT    NOT NULL, -- JSON array of {level, message}.
    parent_job_id     TEXT,
    source_event_id   TEXT,
    pipeline          TEXT    NOT NULL, -- Empty: in none.
    step              TEXT    NOT NULL,
    pipeline_instance TEXT    NOT NULL,
    event_type        TEXT    NOT NULL, -- Of the event that the step follows from.
    event_index       INTEGER NOT NULL, -- Its place among those of the parent's result.
    route_depth       INTEGER NOT NULL, -- How many steps of its pipeline instance lead to it.
    generation        INTEGER NOT NULL, -- How many pipeline instances lead to it, its own included.
    principal         TEXT    NOT NULL,
    decision_id       TEXT,
    runner_instance   TEXT             -- Who holds the lease while it runs.
) STRICT;

CREATE INDEX job_by_status ON job (status, job_seq);
CREATE INDEX job_by_plugin ON job (plugin, command, status);
CREATE INDEX job_by_key ON job (plugin, command, dedupe_key) WHERE dedupe_key <> '';
CREATE INDEX job_by_event ON job (source_event_id) WHERE source_event_id IS NOT NULL;
-- One event starts one target once, however often it is delivered.
CREATE UNIQUE INDEX job_child ON job (parent_job_id, source_event_id, plugin, command, pipeline, step)
    WHERE parent_job_id IS NOT NULL;

-- What a job is asked with: apart, so that lists stay small.
CREATE TABLE job_input (
    job_id          TEXT NOT NULL PRIMARY KEY REFERENCES job (job_id) ON DELETE CASCADE,
    payload         TEXT NOT NULL, -- JSON object text, exactly as it came; for `handle` the event's envelope.
    context         TEXT NOT NULL, -- Baggage, JSON object text.
    asked_by        TEXT NOT NULL CONSTRAINT job_input_asked_by_known CHECK (asked_by IN ('origin', 'parent_decision')),
    asked_payload   BLOB NOT NULL, -- The signed statement.
    asked_signature BLOB NOT NULL
) STRICT;

CREATE TABLE attempt (
    job_id             TEXT    NOT NULL REFERENCES job (job_id) ON DELETE CASCADE,
    attempt            INTEGER NOT NULL,
    runner_instance    TEXT    NOT NULL,
    decision_payload   BLOB    NOT NULL,
    decision_signature BLOB    NOT NULL,
    started_at_ms      INTEGER NOT NULL,
    ended_at_ms        INTEGER,
    outcome            TEXT    NOT NULL, -- Empty while it runs.
    create_us          INTEGER NOT NULL,
    ticket_us          INTEGER NOT NULL,
    start_us           INTEGER NOT NULL,
    run_us             INTEGER NOT NULL,
    PRIMARY KEY (job_id, attempt)
) STRICT;

CREATE TABLE transition (
    transition_seq INTEGER NOT NULL PRIMARY KEY,
    job_id         TEXT    NOT NULL REFERENCES job (job_id) ON DELETE CASCADE,
    from_status    TEXT    NOT NULL, -- Empty: it came to be.
    to_status      TEXT    NOT NULL,
    reason         TEXT    NOT NULL,
    attempt        INTEGER NOT NULL,
    at_ms          INTEGER NOT NULL
) STRICT;

CREATE INDEX transition_by_job ON transition (job_id);

-- An origin asks for one thing, once.
CREATE TABLE origin (
    origin_id TEXT NOT NULL PRIMARY KEY,
    job_id    TEXT,
    event_id  TEXT,
    CONSTRAINT origin_for_one CHECK ((job_id IS NULL) <> (event_id IS NULL))
) STRICT;

CREATE INDEX origin_by_job ON origin (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX origin_by_event ON origin (event_id) WHERE event_id IS NOT NULL;

-- What a plugin's last state update left; an alias has its own.
CREATE TABLE plugin_state (
    plugin        TEXT    NOT NULL PRIMARY KEY,
    state         TEXT    NOT NULL,
    updated_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE plugin_fact (
    fact_seq      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    plugin        TEXT    NOT NULL,
    fact_type     TEXT    NOT NULL,
    job_id        TEXT    NOT NULL, -- No foreign key: facts outlive jobs.
    command       TEXT    NOT NULL,
    fact          TEXT    NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT;
