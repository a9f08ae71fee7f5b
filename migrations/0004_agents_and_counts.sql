-- Request signatures, and how many decisions there are of each kind.

-- What checking a signature needs: the two states that SHA-256 reaches with HMAC's key
-- (RFC 2104: the inner one, then the outer one). Whoever reads them can sign to this
-- gateway, so they are as secret as a key; the key's text is not kept.
CREATE TABLE agent_signing_keys (
    agent_id    TEXT PRIMARY KEY REFERENCES agents (id),
    hmac_states BLOB NOT NULL CHECK (length(hmac_states) = 64),
    set_at      TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- A few dozen rows, so that nobody counts millions: the callers' own words for a trust
-- level are without number, and stand together.
CREATE TABLE decision_counts (
    outcome     TEXT NOT NULL,
    trust_level TEXT NOT NULL,
    count       INTEGER NOT NULL CHECK (count > 0),
    PRIMARY KEY (outcome, trust_level)
) STRICT, WITHOUT ROWID;

INSERT INTO decision_counts (outcome, trust_level, count)
SELECT decision,
       CASE WHEN root_trust_level IN
           ('trusted_internal_signed', 'trusted_internal_unsigned', 'semi_trusted_customer',
            'untrusted_external', 'malicious_suspected', 'unknown')
           THEN root_trust_level ELSE 'unrecognized' END,
       count(*)
FROM decisions GROUP BY 1, 2;
