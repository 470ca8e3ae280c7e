-- What the scheduler remembers of each schedule of the lock. Times are milliseconds since the epoch.
CREATE TABLE schedule (
    plugin TEXT NOT NULL,
    schedule_id TEXT NOT NULL,
    -- JSON of when it is due: another rhythm starts anew.
    rhythm TEXT NOT NULL,
    -- Where the grid of an interval hangs: starts never drift from it.
    anchor_ms INTEGER NOT NULL,
    -- The next place on the grid, and with its jitter.
    slot_ms INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,
    -- NULL: never.
    last_fired_ms INTEGER,
    CONSTRAINT schedule_pk PRIMARY KEY (plugin, schedule_id)
) STRICT;

-- Starts that the engine does not have yet. The origin is signed once: however often it is sent, it is one job.
CREATE TABLE pending (
    pending_id INTEGER PRIMARY KEY AUTOINCREMENT,
    plugin TEXT NOT NULL,
    schedule_id TEXT NOT NULL,
    slot_ms INTEGER NOT NULL,
    command TEXT NOT NULL,
    payload BLOB NOT NULL,
    origin_payload BLOB NOT NULL,
    origin_signature BLOB NOT NULL,
    -- 1: one of several missed starts; the overlap policy is for regular ones.
    caught_up INTEGER NOT NULL,
    CONSTRAINT pending_schedule_fk FOREIGN KEY (plugin, schedule_id) REFERENCES schedule (plugin, schedule_id) ON DELETE CASCADE,
    CONSTRAINT pending_slot_key UNIQUE (plugin, schedule_id, slot_ms)
) STRICT;

-- The newest lock that was ever seen: an older one is refused, after a restart too.
CREATE TABLE lock_seen (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    serial INTEGER NOT NULL
) STRICT;
