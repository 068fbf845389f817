-- Times are integer microseconds since 1970 UTC. Deployments are history: they outlive their
-- sandbox and their agent, so neither is a foreign key here.
CREATE TABLE deployments (
    id              TEXT PRIMARY KEY,
    sandbox         TEXT,
    repo            TEXT NOT NULL,
    branch          TEXT NOT NULL,
    commit_id       TEXT,
    agent           TEXT NOT NULL,
    state           TEXT NOT NULL,
    failure         TEXT,
    host_port       INTEGER,
    url             TEXT,
    env             TEXT NOT NULL,
    user            TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    finished_at     INTEGER,
    last_folded_seq INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX deployments_by_sandbox ON deployments (sandbox, id);
CREATE INDEX deployments_by_repo ON deployments (repo, id);
CREATE INDEX deployments_by_user ON deployments (user, id);
CREATE INDEX deployments_by_state ON deployments (state, id);
CREATE INDEX deployments_live ON deployments (repo, agent) WHERE state IN ('running', 'stopped');

CREATE TABLE stages (
    deployment TEXT NOT NULL REFERENCES deployments (id) ON DELETE CASCADE,
    stage      TEXT NOT NULL,
    status     TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,
    PRIMARY KEY (deployment, stage)
) STRICT, WITHOUT ROWID;

CREATE TABLE sandboxes (
    name        TEXT PRIMARY KEY,
    environment TEXT NOT NULL,
    owner       TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE agents (
    name       TEXT PRIMARY KEY,
    token_hash BLOB NOT NULL CHECK (length(token_hash) = 32),
    last_seen  INTEGER,
    inventory  TEXT
) STRICT, WITHOUT ROWID;
