-- What became of an approval: who decided, what was changed, whether it was used. The
-- table is made anew, since a column's NOT NULL cannot be taken back.

ALTER TABLE approvals RENAME TO approvals_before;

CREATE TABLE approvals (
    seq                  INTEGER PRIMARY KEY,
    id                   TEXT NOT NULL UNIQUE,
    decision_id          TEXT NOT NULL UNIQUE,
    agent_id             TEXT NOT NULL,
    -- EXPIRED is not kept: it follows from expires_at.
    status               TEXT NOT NULL CHECK (status IN ('created', 'APPROVED', 'REJECTED')),
    -- Of the call as the agent asked for it: its decision's.
    original_action_hash TEXT NOT NULL CHECK (length(original_action_hash) = 64),
    -- Of the call as it is approved and used: the SHA-256 of tool_call.
    action_hash          TEXT NOT NULL CHECK (length(action_hash) = 64),
    -- The frozen call: the canonical bytes that were hashed. The one place where
    -- parameters are kept, because the approver must see what is approved; NULL once
    -- nothing can be done with it any more.
    tool_call            TEXT,
    approver_group       TEXT NOT NULL,
    -- Who decided, as the holder of the operator's token says, and why.
    approver_user_id     TEXT,
    reason               TEXT,
    created_at           TEXT NOT NULL,
    expires_at           TEXT NOT NULL,
    edited_at            TEXT,
    decided_at           TEXT,
    consumed_at          TEXT,
    CHECK (edited_at IS NOT NULL OR action_hash = original_action_hash),
    CHECK ((status = 'created') = (decided_at IS NULL)),
    CHECK ((status = 'created') = (approver_user_id IS NULL)),
    CHECK (consumed_at IS NULL OR status = 'APPROVED')
) STRICT;

INSERT INTO approvals (seq, id, decision_id, agent_id, status, original_action_hash, action_hash,
    tool_call, approver_group, created_at, expires_at)
SELECT seq, id, decision_id, agent_id, status, action_hash, action_hash,
    tool_call, approver_group, created_at, expires_at
FROM approvals_before;

DROP TABLE approvals_before;

-- What waits, newest first, without looking through what no longer does.
CREATE INDEX approvals_waiting ON approvals (seq, expires_at)
    WHERE status = 'created' AND tool_call IS NOT NULL;
CREATE INDEX approvals_with_call ON approvals (status, expires_at) WHERE tool_call IS NOT NULL;
