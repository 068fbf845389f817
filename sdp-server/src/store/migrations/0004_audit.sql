-- Who did what, when and from where. Rows are added and never changed; ids are never used again.
CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    user       TEXT,
    address    TEXT,
    action     TEXT NOT NULL,
    subject    TEXT NOT NULL,
    deployment TEXT,
    detail     TEXT
) STRICT;

CREATE INDEX audit_by_user ON audit (user, id);
CREATE INDEX audit_by_action ON audit (action, id);
CREATE INDEX audit_by_subject ON audit (subject);
CREATE INDEX audit_by_deployment ON audit (deployment) WHERE deployment IS NOT NULL;
