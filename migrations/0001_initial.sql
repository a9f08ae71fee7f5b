-- The registry, the decisions and the chain of receipts.
--
-- Times are RFC 3339 text in UTC with six fraction digits, so they sort as text;
-- hashes are 64 lowercase hexadecimal digits; ids are UUIDs (version 7, which
-- keeps their indexes append-mostly).

CREATE TABLE agents (
    seq                  INTEGER PRIMARY KEY,
    id                   TEXT NOT NULL UNIQUE,
    agent_key            TEXT NOT NULL UNIQUE,
    token_sha256         TEXT NOT NULL UNIQUE CHECK (length(token_sha256) = 64),
    name                 TEXT NOT NULL,
    environment          TEXT NOT NULL,
    risk_tier            TEXT NOT NULL CHECK (risk_tier IN ('low', 'medium', 'high', 'critical')),
    status               TEXT NOT NULL DEFAULT 'active'
                         CHECK (status IN ('active', 'frozen', 'revoked', 'quarantined', 'deleted')),
    owner_team           TEXT,
    owner_email          TEXT,
    framework            TEXT,
    model_provider       TEXT,
    model_name           TEXT,
    purpose              TEXT,
    frozen_reason        TEXT,
    quarantined_at       TEXT,
    force_approval       INTEGER NOT NULL DEFAULT 0 CHECK (force_approval IN (0, 1)),
    allowed_environments TEXT NOT NULL DEFAULT '[]' CHECK (json_type(allowed_environments) = 'array'),
    created_at           TEXT NOT NULL,
    updated_at           TEXT NOT NULL
) STRICT;

CREATE TABLE tools (
    seq          INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    skill_key    TEXT NOT NULL UNIQUE,
    name         TEXT NOT NULL,
    type         TEXT NOT NULL,
    auth_type    TEXT,
    owner_team   TEXT,
    default_risk TEXT,
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL
) STRICT;

CREATE TABLE tool_actions (
    tool_seq          INTEGER NOT NULL REFERENCES tools (seq),
    action_key        TEXT NOT NULL,
    description       TEXT,
    risk              TEXT NOT NULL CHECK (risk IN ('low', 'medium', 'high', 'critical')),
    mutates_state     INTEGER NOT NULL CHECK (mutates_state IN (0, 1)),
    approval_required INTEGER NOT NULL CHECK (approval_required IN (0, 1)),
    default_decision  TEXT NOT NULL
                      CHECK (default_decision IN ('policy', 'allow', 'deny', 'require_approval')),
    data_access       TEXT,
    updated_at        TEXT NOT NULL,
    PRIMARY KEY (tool_seq, action_key)
) STRICT, WITHOUT ROWID;

-- The chain. Every column but receipt_hash is a member of the hashed body.
CREATE TABLE receipts (
    seq               INTEGER PRIMARY KEY CHECK (seq > 0),
    format_version    INTEGER NOT NULL,
    canon_version     TEXT NOT NULL,
    event_id          TEXT NOT NULL,
    ts                TEXT NOT NULL,
    agent_id          TEXT,
    user_id           TEXT,
    run_id            TEXT,
    trace_id          TEXT,
    tool              TEXT NOT NULL,
    action            TEXT NOT NULL,
    resource          TEXT,
    source_trust      TEXT NOT NULL,
    decision          TEXT NOT NULL,
    approver          TEXT,
    action_hash       TEXT,
    decision_id       TEXT,
    decision_hash     TEXT,
    policy_version    TEXT,
    -- Unique, so that a fork of the chain is a constraint error.
    prev_receipt_hash TEXT NOT NULL UNIQUE,
    receipt_hash      TEXT NOT NULL CHECK (length(receipt_hash) = 64)
) STRICT;

CREATE TRIGGER receipts_are_never_updated BEFORE UPDATE ON receipts
BEGIN SELECT RAISE(ABORT, 'receipts are evidence: they are never updated'); END;

CREATE TRIGGER receipts_are_never_deleted BEFORE DELETE ON receipts
BEGIN SELECT RAISE(ABORT, 'receipts are evidence: they are never deleted'); END;

-- A decision stands at the position of its receipt, so the two are compared in
-- one pass; the receipt's decision_hash covers every other column.
CREATE TABLE decisions (
    seq                  INTEGER PRIMARY KEY REFERENCES receipts (seq),
    id                   TEXT NOT NULL UNIQUE,
    agent_id             TEXT NOT NULL,
    user_id              TEXT,
    run_id               TEXT,
    trace_id             TEXT,
    parent_run_id        TEXT,
    tool                 TEXT NOT NULL,
    action               TEXT NOT NULL,
    resource             TEXT,
    mutates_state        INTEGER NOT NULL CHECK (mutates_state IN (0, 1)),
    environment          TEXT NOT NULL,
    source_trust         TEXT NOT NULL,
    root_trust_level     TEXT NOT NULL,
    decision             TEXT NOT NULL
                         CHECK (decision IN ('allow', 'redact', 'require_approval', 'deny')),
    reason               TEXT NOT NULL,
    matched_policy_ids   TEXT NOT NULL,
    policy_version       TEXT NOT NULL,
    risk_score           INTEGER NOT NULL,
    composite_risk_score INTEGER NOT NULL,
    request_id           TEXT,
    action_hash          TEXT NOT NULL,
    latency_ms           INTEGER NOT NULL,
    created_at           TEXT NOT NULL
) STRICT;

CREATE INDEX decisions_by_agent ON decisions (agent_id);
-- The rare outcomes, which a list would otherwise look for in vain for long.
CREATE INDEX decisions_not_allowed ON decisions (decision) WHERE decision <> 'allow';
CREATE UNIQUE INDEX decisions_by_request ON decisions (agent_id, request_id)
    WHERE request_id IS NOT NULL;

CREATE TRIGGER decisions_are_never_updated BEFORE UPDATE ON decisions
BEGIN SELECT RAISE(ABORT, 'decisions are evidence: they are never updated'); END;

CREATE TRIGGER decisions_are_never_deleted BEFORE DELETE ON decisions
BEGIN SELECT RAISE(ABORT, 'decisions are evidence: they are never deleted'); END;

-- The head, kept beside the chain so that a tail cut off is seen.
CREATE TABLE chain (
    only_row  INTEGER PRIMARY KEY CHECK (only_row = 1),
    chain_id  TEXT NOT NULL,
    head_seq  INTEGER NOT NULL CHECK (head_seq >= 0),
    head_hash TEXT NOT NULL
) STRICT;

-- 128 bits that tell this chain from every other.
INSERT INTO chain (only_row, chain_id, head_seq, head_hash)
VALUES (1, lower(hex(randomblob(16))), 0, '');
