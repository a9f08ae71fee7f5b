-- Nonces of requests that were taken, so that none is taken twice, a restart between or not.
-- By hash: a caller's text may be long, and is nobody's business. A row goes some time after
-- its request's timestamp has become too old to be taken.

CREATE TABLE request_nonces (
    agent_id     TEXT NOT NULL REFERENCES agents (id),
    nonce_sha256 TEXT NOT NULL CHECK (length(nonce_sha256) = 64),
    seen_at      TEXT NOT NULL,
    PRIMARY KEY (agent_id, nonce_sha256)
) STRICT, WITHOUT ROWID;

CREATE INDEX request_nonces_by_age ON request_nonces (seen_at);
