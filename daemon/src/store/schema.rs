//! The tables, by version.

use rusqlite_migration::M;

pub(super) const SCHEMA: &str = "
CREATE TABLE inbox (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    hint TEXT NOT NULL
) STRICT;
CREATE TABLE destination (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    base_url TEXT NOT NULL,
    public_key TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'ok',
    next_at_ms INTEGER NOT NULL DEFAULT 0,
    last_success_ms INTEGER,
    last_error TEXT,
    last_error_ms INTEGER,
    UNIQUE (kind, base_url, public_key)
) STRICT;
-- Where reading a transcript continues: the start of its last turn, which can still grow.
CREATE TABLE session (
    session_id TEXT PRIMARY KEY,
    transcript TEXT NOT NULL,
    dev INTEGER NOT NULL,
    ino INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    closed INTEGER NOT NULL,
    turns INTEGER NOT NULL,
    open_turn INTEGER NOT NULL,
    hint TEXT NOT NULL,
    updated_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY,
    destination INTEGER NOT NULL REFERENCES destination,
    span_id BLOB NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX outbox_by_destination ON outbox (destination, seq);
-- Every span id that ever entered the outbox of a destination.
CREATE TABLE exported (
    destination INTEGER NOT NULL,
    trace_id BLOB NOT NULL,
    span_id BLOB NOT NULL,
    PRIMARY KEY (destination, trace_id, span_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY,
    destination INTEGER NOT NULL,
    span_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    body TEXT NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE redacted (
    rule TEXT PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE skipped (
    reason TEXT PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Version 2 added: markers of rewritten transcripts and checksums of rows, delivered spans, trust, and uploads.
pub(super) const SCHEMA_2: &str = "
ALTER TABLE session ADD COLUMN marker INTEGER;
ALTER TABLE outbox ADD COLUMN checksum INTEGER;
ALTER TABLE outbox ADD COLUMN queued_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE destination ADD COLUMN delivered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE destination ADD COLUMN rejected INTEGER NOT NULL DEFAULT 0;
ALTER TABLE exported ADD COLUMN delivered INTEGER NOT NULL DEFAULT 0;
UPDATE exported SET delivered = 1 WHERE (destination, span_id) NOT IN (SELECT destination, span_id FROM outbox);
ALTER TABLE session ADD COLUMN unsettled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN forked_from TEXT;
ALTER TABLE session ADD COLUMN title TEXT;
-- Tool calls of closed turns that launched subagents, or may have.
CREATE TABLE launch (
    session_id TEXT NOT NULL,
    tool_id TEXT NOT NULL,
    agent_id TEXT,
    turn_key TEXT NOT NULL,
    turn INTEGER NOT NULL,
    returned INTEGER NOT NULL,
    PRIMARY KEY (session_id, tool_id)
) STRICT, WITHOUT ROWID;
-- Subagents that are told to their end, and how long their transcripts were.
CREATE TABLE agent (
    session_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    length INTEGER NOT NULL,
    PRIMARY KEY (session_id, agent_id)
) STRICT, WITHOUT ROWID;
-- The trace in which each model call was first found: copies of it are not told again.
CREATE TABLE call (
    destination INTEGER NOT NULL,
    id BLOB NOT NULL,
    trace_id BLOB NOT NULL,
    PRIMARY KEY (destination, id)
) STRICT, WITHOUT ROWID;
-- When this database was begun, or brought to version 2.
CREATE TABLE begun (
    at_ms INTEGER NOT NULL
) STRICT;
INSERT INTO begun VALUES (CAST(unixepoch('subsec') * 1000 AS INTEGER));
CREATE TABLE trusted (
    base_url TEXT PRIMARY KEY,
    at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Images and documents that wait to be uploaded; gone with the last of their links.
CREATE TABLE media (
    destination INTEGER NOT NULL,
    hash BLOB NOT NULL,
    kind TEXT NOT NULL,
    length INTEGER NOT NULL,
    bytes BLOB,
    UNIQUE (destination, hash)
) STRICT;
-- Spans that show them, until the server has been told.
CREATE TABLE media_link (
    seq INTEGER PRIMARY KEY,
    destination INTEGER NOT NULL,
    hash BLOB NOT NULL,
    trace_id BLOB NOT NULL,
    span_id BLOB NOT NULL,
    field TEXT NOT NULL,
    queued_ms INTEGER NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    UNIQUE (destination, hash, trace_id, span_id, field)
) STRICT;
CREATE INDEX media_link_by_tries ON media_link (destination, tries, seq);
";

/// Version 3 added: pauses, unknown kinds of lines, and the state of another tool.
const SCHEMA_3: &str = "
CREATE TABLE paused (
    dir TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE unknown_kind (
    kind TEXT NOT NULL,
    version TEXT NOT NULL,
    lines INTEGER NOT NULL,
    PRIMARY KEY (kind, version)
) STRICT, WITHOUT ROWID;
-- Sessions whose first lines another tool has sent: how many lines, with how many turns.
CREATE TABLE imported (
    session_id TEXT PRIMARY KEY,
    last_line INTEGER NOT NULL,
    turn_count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- When its state was looked for unasked.
CREATE TABLE import_sought (
    at_ms INTEGER NOT NULL
) STRICT;
";

/// Version 4 added: earlier turns of a session to which the user may go back, and suppressed traces.
const SCHEMA_4: &str = "
CREATE TABLE turn (
    session_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    key TEXT NOT NULL,
    position INTEGER,
    follows TEXT,
    facts TEXT NOT NULL,
    PRIMARY KEY (session_id, number)
) STRICT, WITHOUT ROWID;
-- Traces of which nothing is told, wherever: said while their project was paused, or forgotten.
CREATE TABLE silent (
    trace_id BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;
-- Pauses that are over: what was said in them may be read later.
CREATE TABLE was_paused (
    dir TEXT NOT NULL,
    from_ms INTEGER NOT NULL,
    to_ms INTEGER NOT NULL,
    PRIMARY KEY (dir, from_ms)
) STRICT, WITHOUT ROWID;
ALTER TABLE paused ADD COLUMN from_ms INTEGER NOT NULL DEFAULT 0;
UPDATE paused SET from_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER);
";

/// Version 5 added these, each for the reason given.
const SCHEMA_5: &str = "
-- Events that this version cannot read: another one wrote them, or the disk damaged them.
CREATE TABLE inbox_aside (
    id TEXT PRIMARY KEY,
    hint TEXT NOT NULL
) STRICT;
-- Launching calls, by what their spans have their ids from.
CREATE TABLE launch_of_turn (
    session_id TEXT NOT NULL,
    turn_key TEXT NOT NULL,
    tool_id TEXT NOT NULL,
    id TEXT NOT NULL,
    message_id TEXT,
    agent_id TEXT,
    turn INTEGER NOT NULL,
    returned INTEGER NOT NULL,
    called INTEGER,
    wakes INTEGER NOT NULL,
    PRIMARY KEY (session_id, turn_key, tool_id)
) STRICT, WITHOUT ROWID;
INSERT INTO launch_of_turn
    SELECT session_id, turn_key, tool_id, tool_id, NULL, agent_id, turn, returned, NULL, 0 FROM launch;
DROP TABLE launch;
ALTER TABLE launch_of_turn RENAME TO launch;
-- The session that each turn is told in.
CREATE TABLE owner (
    trace_id BLOB PRIMARY KEY,
    session_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- Since when model calls are known by more than their id.
CREATE TABLE proofs_since (
    at_ms INTEGER NOT NULL
) STRICT;
INSERT INTO proofs_since VALUES (CAST(unixepoch('subsec') * 1000 AS INTEGER));
-- The time of the newest transcript that was there at the first search, Unix milliseconds: clocks can be wrong.
ALTER TABLE begun ADD COLUMN newest_ms INTEGER;
-- The user chose it; or else why it is held until the user trusts it. Neither: not judged yet.
ALTER TABLE destination ADD COLUMN own INTEGER NOT NULL DEFAULT 0;
ALTER TABLE destination ADD COLUMN held_by TEXT;
UPDATE destination SET held_by = 'a settings file that others can write names it' WHERE state = 'held';
-- Whom the user trusts: an account at an address.
CREATE TABLE trust (
    base_url TEXT NOT NULL,
    public_key TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (base_url, public_key)
) STRICT, WITHOUT ROWID;
INSERT INTO trust SELECT base_url, public_key, at_ms FROM trusted JOIN destination USING (base_url);
DROP TABLE trusted;
-- Runs of equal sightings of whether tracing is on in a project.
CREATE TABLE sight (
    dir TEXT NOT NULL,
    is_on INTEGER NOT NULL,
    from_ns INTEGER NOT NULL,
    to_ns INTEGER NOT NULL,
    PRIMARY KEY (dir, from_ns)
) STRICT, WITHOUT ROWID;
-- The trace began while tracing was off: it comes only when history is asked for.
ALTER TABLE silent ADD COLUMN off INTEGER NOT NULL DEFAULT 0;
";

const SCHEMA_6: &str = "
-- Fingerprint of the body of a root when it last entered the outbox: `delivered` means that version of it.
ALTER TABLE exported ADD COLUMN fingerprint BLOB;
";

const SCHEMA_7: &str = "
-- Destinations that are behind their session, because they took nothing while others did: where reading goes on for them, the
-- start of their oldest turn that is not finished. All others are where the session is.
CREATE TABLE follower (
    session_id TEXT NOT NULL,
    destination INTEGER NOT NULL,
    dev INTEGER NOT NULL,
    ino INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    closed INTEGER NOT NULL,
    marker INTEGER,
    PRIMARY KEY (session_id, destination)
) STRICT, WITHOUT ROWID;
-- A root that is queued again takes the place of the one that waits.
CREATE INDEX outbox_by_span ON outbox (destination, span_id);
";

const SCHEMA_8: &str = "
-- What waits to be sent: once for however many destinations wait for it, and gone with the last of them.
CREATE TABLE observation (
    id INTEGER PRIMARY KEY,
    trace_id BLOB NOT NULL,
    span_id BLOB NOT NULL,
    body TEXT NOT NULL,
    queued_ms INTEGER NOT NULL
) STRICT;
-- Who waits for it: `seq` is the observation. `cut` goes out in place of its body, where a server takes no larger one.
CREATE TABLE outbox_of_observations (
    destination INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    checksum INTEGER,
    cut TEXT,
    PRIMARY KEY (destination, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO observation SELECT seq,
    coalesce(iif(json_valid(body), unhex(coalesce(body ->> '$.trace_id', body ->> '$.observation.trace_id')), NULL), x''),
    span_id, body, queued_ms FROM outbox ORDER BY seq;
INSERT INTO outbox_of_observations SELECT destination, seq, checksum, NULL FROM outbox ORDER BY destination, seq;
-- The observation in which a span entered the outbox last: by it a root that is queued again finds the version that may still wait.
ALTER TABLE exported ADD COLUMN observation INTEGER;
UPDATE exported SET observation =
    (SELECT max(seq) FROM outbox WHERE outbox.destination = exported.destination AND outbox.span_id = exported.span_id)
    WHERE NOT delivered;
DROP TABLE outbox;
ALTER TABLE outbox_of_observations RENAME TO outbox;
-- Rows as long as these want a table of their own beside the index: within it each took a page or two.
CREATE TABLE session_row (
    session_id TEXT PRIMARY KEY NOT NULL,
    transcript TEXT NOT NULL,
    dev INTEGER NOT NULL,
    ino INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    closed INTEGER NOT NULL,
    turns INTEGER NOT NULL,
    open_turn INTEGER NOT NULL,
    hint TEXT NOT NULL,
    updated_ms INTEGER NOT NULL,
    marker INTEGER,
    unsettled INTEGER NOT NULL DEFAULT 0,
    forked_from TEXT,
    title TEXT
) STRICT;
INSERT INTO session_row SELECT session_id, transcript, dev, ino, cursor, closed, turns, open_turn, hint, updated_ms, marker,
    unsettled, forked_from, title FROM session;
DROP TABLE session;
ALTER TABLE session_row RENAME TO session;
CREATE TABLE turn_row (
    session_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    key TEXT NOT NULL,
    position INTEGER,
    follows TEXT,
    facts TEXT NOT NULL,
    PRIMARY KEY (session_id, number)
) STRICT;
INSERT INTO turn_row SELECT session_id, number, key, position, follows, facts FROM turn;
DROP TABLE turn;
ALTER TABLE turn_row RENAME TO turn;
";

const SCHEMA_9: &str = "
-- All observations up to this number that waited for the destination have arrived, unless `exported` says otherwise: `delivered` is
-- 1 of what arrived whatever this says, -1 of what did not, and 0 of what this decides.
ALTER TABLE destination ADD COLUMN arrived INTEGER NOT NULL DEFAULT 0;
UPDATE exported SET delivered = -1 WHERE NOT delivered AND NOT EXISTS
    (SELECT 1 FROM outbox WHERE outbox.destination = exported.destination AND outbox.seq = exported.observation);
";

/// What version 10 changed.
const SCHEMA_10: &str = "
-- Calls by the first eight bytes of what they are known by, with the first four of the trace in which they were found: kept for ever,
-- and hashes either way.
CREATE TABLE short_call (
    destination INTEGER NOT NULL,
    id BLOB NOT NULL,
    trace BLOB NOT NULL,
    PRIMARY KEY (destination, id)
) STRICT, WITHOUT ROWID;
INSERT OR IGNORE INTO short_call SELECT destination, substr(id, 1, 8), substr(trace_id, 1, 4) FROM call ORDER BY destination, id;
DROP TABLE call;
ALTER TABLE short_call RENAME TO call;
";

/// What version 11 changed.
const SCHEMA_11: &str = "
-- Scores, by what they are of: one row each, for ever. `says` is the fingerprint of the value that was queued last, `body` the score
-- until it is sent.
CREATE TABLE score (
    seq INTEGER PRIMARY KEY,
    destination INTEGER NOT NULL,
    id BLOB NOT NULL,
    trace_id BLOB NOT NULL,
    says BLOB NOT NULL,
    body TEXT,
    checksum INTEGER,
    queued_ms INTEGER NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    UNIQUE (destination, id)
) STRICT;
CREATE INDEX score_waiting ON score (destination, tries, seq) WHERE body IS NOT NULL;
";

/// What version 12 changed.
const SCHEMA_12: &str = "
-- Calls without a line that Claude Code's telemetry named and that are traced: their numbers, no conversation. The oldest make room.
CREATE TABLE hidden_call (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    trace_id BLOB NOT NULL,
    call TEXT NOT NULL,
    UNIQUE (session_id, request_id)
) STRICT;
";

/// Each version's change, applied in one transaction.
pub(super) const MIGRATIONS: &[M<'static>] = &[
    M::up(SCHEMA),
    M::up(SCHEMA_2),
    M::up(SCHEMA_3),
    M::up(SCHEMA_4),
    M::up(SCHEMA_5),
    M::up(SCHEMA_6),
    M::up(SCHEMA_7),
    M::up(SCHEMA_8),
    M::up(SCHEMA_9),
    M::up(SCHEMA_10),
    M::up(SCHEMA_11),
    M::up(SCHEMA_12),
];
