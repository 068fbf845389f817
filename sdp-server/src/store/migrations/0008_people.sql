-- Everybody who ever signed in. Without a role of their own they have the configured one.
CREATE TABLE users (
    name       TEXT PRIMARY KEY,
    role       TEXT,
    disabled   INTEGER NOT NULL DEFAULT 0,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO users (name, first_seen, last_seen)
    SELECT user, min(at), max(at) FROM audit WHERE action = 'sign-in' AND user IS NOT NULL GROUP BY user;

-- Of a token only the SHA-256 is kept: it has 256 random bits. Scopes are a list of names.
CREATE TABLE tokens (
    id         TEXT PRIMARY KEY,
    user       TEXT NOT NULL REFERENCES users (name),
    name       TEXT NOT NULL,
    hash       BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    scopes     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    last_used  INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX tokens_by_user ON tokens (user, id);

-- Who besides its owner may do with a sandbox what the owner may: a list of names.
ALTER TABLE sandboxes ADD COLUMN shared_with TEXT NOT NULL DEFAULT '[]';
