-- Approvals: a decision that waits for a person.

CREATE TABLE approvals (
    seq            INTEGER PRIMARY KEY,
    id             TEXT NOT NULL UNIQUE,
    decision_id    TEXT NOT NULL UNIQUE,
    agent_id       TEXT NOT NULL,
    status         TEXT NOT NULL CHECK (status IN ('created', 'APPROVED', 'REJECTED')),
    action_hash    TEXT NOT NULL CHECK (length(action_hash) = 64),
    -- The frozen call: the canonical bytes that were hashed. The one place where
    -- parameters are kept, because the approver must see what is approved.
    tool_call      TEXT NOT NULL,
    approver_group TEXT NOT NULL,
    created_at     TEXT NOT NULL,
    expires_at     TEXT NOT NULL
) STRICT;
