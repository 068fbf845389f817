-- What creating requests with an `Idempotency-Key` were answered, to be answered again. Of the request only a hash is
-- kept, and of an answer that holds a secret only its status. Without a status the first is under way.
CREATE TABLE idempotency (
    user    TEXT NOT NULL,
    route   TEXT NOT NULL,
    key     TEXT NOT NULL,
    request BLOB NOT NULL CHECK (length(request) = 32),
    at      INTEGER NOT NULL,
    status  INTEGER,
    headers TEXT,
    body    BLOB,
    PRIMARY KEY (user, route, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_by_age ON idempotency (at);
