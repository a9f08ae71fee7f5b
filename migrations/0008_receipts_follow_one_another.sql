-- A receipt is appended behind the last one, or not at all.
--
-- That kept the previous hash unique by an index until now: a page of its own, at a random
-- place, for each receipt, hence most of what a commit wrote and of what a checkpoint moved.
-- A trigger asks for more, and looks at the last receipt alone: that it is the one before,
-- by position and by hash. Neither a fork nor a gap nor a second receipt at a position
-- passes. The table is made anew, since a column's UNIQUE cannot be taken back; its old
-- pages are used again as the chain grows, and no backup holds them.

CREATE TABLE receipts_anew (
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
    prev_receipt_hash TEXT NOT NULL,
    receipt_hash      TEXT NOT NULL CHECK (length(receipt_hash) = 64)
) STRICT;

INSERT INTO receipts_anew SELECT * FROM receipts ORDER BY seq;

DROP TABLE receipts;

ALTER TABLE receipts_anew RENAME TO receipts;

CREATE TRIGGER receipts_follow_one_another BEFORE INSERT ON receipts
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM receipts)
  OR NEW.prev_receipt_hash IS NOT coalesce((SELECT receipt_hash FROM receipts WHERE seq = NEW.seq - 1), '')
BEGIN SELECT RAISE(ABORT, 'receipts are a chain: this one does not follow the last'); END;

CREATE TRIGGER receipts_are_never_updated BEFORE UPDATE ON receipts
BEGIN SELECT RAISE(ABORT, 'receipts are evidence: they are never updated'); END;

CREATE TRIGGER receipts_are_never_deleted BEFORE DELETE ON receipts
BEGIN SELECT RAISE(ABORT, 'receipts are evidence: they are never deleted'); END;

CREATE INDEX receipts_of_restores ON receipts (seq) WHERE tool = 'restore' AND decision_id IS NULL;

-- Those of approvals and restores: a list of decisions counts by position, and these are the
-- positions without one.
CREATE INDEX receipts_without_decision ON receipts (seq) WHERE decision_hash IS NULL;
