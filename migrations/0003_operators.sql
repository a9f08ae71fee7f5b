-- Operators' tokens of limited scope, and the events that an audit asks for.

CREATE TABLE operator_tokens (
    seq          INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    -- A name is never used again, also after its token was revoked: the log and the
    -- audit events go by it.
    name         TEXT NOT NULL UNIQUE CHECK (name <> '' AND name <> 'operator'),
    scope        TEXT NOT NULL CHECK (scope IN ('admin', 'backup', 'read', 'runner')),
    token_sha256 TEXT NOT NULL UNIQUE CHECK (length(token_sha256) = 64),
    created_at   TEXT NOT NULL,
    created_by   TEXT NOT NULL,
    expires_at   TEXT,
    revoked_at   TEXT,
    last_used_at TEXT
) STRICT;

-- What happened beside the decisions, which are their own record. Never a parameter of
-- a call, and never a secret. The kinds of events are the program's, and grow with it.
CREATE TABLE audit_events (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    event_type  TEXT NOT NULL CHECK (event_type <> ''),
    agent_id    TEXT,
    user_id     TEXT,
    run_id      TEXT,
    trace_id    TEXT,
    span_id     TEXT,
    skill       TEXT,
    action      TEXT,
    resource    TEXT,
    event_json  TEXT NOT NULL CHECK (json_type(event_json) = 'object'),
    input_hash  TEXT CHECK (length(input_hash) = 64),
    output_hash TEXT CHECK (length(output_hash) = 64),
    decision_id TEXT,
    approval_id TEXT,
    created_at  TEXT NOT NULL
) STRICT;

CREATE INDEX audit_events_by_agent ON audit_events (agent_id) WHERE agent_id IS NOT NULL;
CREATE INDEX audit_events_by_type ON audit_events (event_type);
CREATE INDEX audit_events_by_decision ON audit_events (decision_id) WHERE decision_id IS NOT NULL;

CREATE TRIGGER audit_events_are_never_updated BEFORE UPDATE ON audit_events
BEGIN SELECT RAISE(ABORT, 'audit events are evidence: they are never updated'); END;

CREATE TRIGGER audit_events_are_never_deleted BEFORE DELETE ON audit_events
BEGIN SELECT RAISE(ABORT, 'audit events are evidence: they are never deleted'); END;

-- Where the chain went on from another head: looked for at a start and by every backup,
-- whatever the length of the chain.
CREATE INDEX receipts_of_restores ON receipts (seq) WHERE tool = 'restore' AND decision_id IS NULL;
