-- What a request carries to be served by a sandbox. It grants nothing, so it is kept as it is.
CREATE TABLE sandbox_keys (
    sandbox TEXT PRIMARY KEY REFERENCES sandboxes (name) ON DELETE CASCADE,
    key     TEXT NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;

-- Routes that another sandbox took, to be shown to those who lost them.
CREATE TABLE lost_routes (
    sandbox TEXT NOT NULL REFERENCES sandboxes (name) ON DELETE CASCADE,
    service TEXT NOT NULL,
    url     TEXT NOT NULL,
    by      TEXT NOT NULL,
    user    TEXT NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (sandbox, service)
) STRICT, WITHOUT ROWID;

-- What people chose for the routes of sandboxes' own gateways: `null` is the branch's default. Without a
-- choice a service goes to the sandbox's own deployment of it, where there is one.
CREATE TABLE own_routes (
    sandbox TEXT NOT NULL REFERENCES sandboxes (name) ON DELETE CASCADE,
    service TEXT NOT NULL,
    url     TEXT,
    PRIMARY KEY (sandbox, service)
) STRICT, WITHOUT ROWID;

-- The claims without an end of their own: they end when their sandbox does, also when that is moved.
CREATE TABLE open_claims (
    sandbox TEXT NOT NULL REFERENCES sandboxes (name) ON DELETE CASCADE,
    service TEXT NOT NULL,
    PRIMARY KEY (sandbox, service)
) STRICT, WITHOUT ROWID;
