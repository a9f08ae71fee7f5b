-- Policies: every version that ever was, and every set of versions that was in force.

-- The last version of a key is the one that counts; one that is disabled has no rules.
-- Whether a version is superseded follows from there being a later one, so no row is
-- ever changed.
CREATE TABLE policy_versions (
    seq        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    policy_key TEXT NOT NULL CHECK (policy_key <> '' AND policy_key <> 'builtin'),
    version    INTEGER NOT NULL CHECK (version > 0),
    name       TEXT NOT NULL,
    language   TEXT NOT NULL CHECK (language <> ''),
    disabled   INTEGER NOT NULL CHECK (disabled IN (0, 1)),
    -- As it came, to the byte.
    body       TEXT NOT NULL,
    reason     TEXT,
    created_by TEXT NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (policy_key, version)
) STRICT;

CREATE TRIGGER policy_versions_are_never_updated BEFORE UPDATE ON policy_versions
BEGIN SELECT RAISE(ABORT, 'policies are evidence: a version is never updated'); END;

CREATE TRIGGER policy_versions_are_never_deleted BEFORE DELETE ON policy_versions
BEGIN SELECT RAISE(ABORT, 'policies are evidence: a version is never deleted'); END;

-- What a receipt's policy_version stands for. The last row is in force; where there is
-- none, the built-in pack alone is.
CREATE TABLE policy_sets (
    seq        INTEGER PRIMARY KEY,
    tag        TEXT NOT NULL,
    -- Canonical JSON: key, version and SHA-256 of each active version, by key.
    list       TEXT NOT NULL CHECK (json_type(list) = 'array'),
    created_at TEXT NOT NULL
) STRICT;

CREATE INDEX policy_sets_by_tag ON policy_sets (tag);

-- A set may come back, but two sets under one tag would leave open which of them decided.
CREATE TRIGGER policy_sets_have_a_tag_of_their_own BEFORE INSERT ON policy_sets
WHEN EXISTS (SELECT 1 FROM policy_sets WHERE tag = NEW.tag AND list <> NEW.list)
BEGIN SELECT RAISE(ABORT, 'policies are evidence: another set has this tag'); END;

CREATE TRIGGER policy_sets_are_never_updated BEFORE UPDATE ON policy_sets
BEGIN SELECT RAISE(ABORT, 'policies are evidence: a set is never updated'); END;

CREATE TRIGGER policy_sets_are_never_deleted BEFORE DELETE ON policy_sets
BEGIN SELECT RAISE(ABORT, 'policies are evidence: a set is never deleted'); END;
