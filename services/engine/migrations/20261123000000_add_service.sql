-- A job that lasts: the service of a plugin, for as long as the lock has it as it was when the job was put in.
CREATE TABLE service (
    job_id           TEXT    NOT NULL PRIMARY KEY REFERENCES job (job_id) ON DELETE CASCADE,
    definition       TEXT    NOT NULL, -- SHA-256 of all that is locked and configured of its plugin.
    wanted           TEXT    NOT NULL CONSTRAINT service_wanted_known CHECK (wanted IN ('run', 'restart', 'replaced', 'removed')),
    failures         INTEGER NOT NULL, -- Ends in a row: the pause before the next start grows with them.
    restarts         INTEGER NOT NULL, -- Since the job was put in.
    lines_taken      INTEGER NOT NULL, -- Number of the last line of the current attempt.
    next_event_index INTEGER NOT NULL  -- Never given twice in the life of the job: policy lets each lead to one job.
) STRICT;
