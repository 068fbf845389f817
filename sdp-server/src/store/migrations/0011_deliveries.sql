-- What an agent may still have of services that were taken out of a sandbox: a list of agent and repo.
ALTER TABLE sandboxes ADD COLUMN removing TEXT NOT NULL DEFAULT '[]';

-- The end that was announced as near.
ALTER TABLE sandboxes ADD COLUMN end_announced INTEGER;

-- What is to be done for others later, also after a restart. Of one lane one thing at a time, in the order of ids.
CREATE TABLE queue (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    lane      TEXT NOT NULL,
    work      TEXT NOT NULL,
    queued_at INTEGER NOT NULL,
    due_at    INTEGER NOT NULL,
    attempts  INTEGER NOT NULL DEFAULT 0,
    problem   TEXT
) STRICT;

CREATE INDEX queue_by_lane ON queue (lane, id);

-- Deliveries of webhooks that were taken, to know one that comes again.
CREATE TABLE received (
    source   TEXT NOT NULL,
    delivery TEXT NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (source, delivery)
) STRICT, WITHOUT ROWID;

CREATE INDEX received_by_time ON received (at);

-- Pull requests as their host last told of them, and what was done for them.
CREATE TABLE pull_requests (
    source     TEXT NOT NULL,
    repository TEXT NOT NULL,
    number     INTEGER NOT NULL,
    told       TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    sandbox    TEXT,
    deployed   TEXT,
    problem    TEXT,
    comment    TEXT,
    reported   TEXT,
    PRIMARY KEY (source, repository, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX pull_requests_by_sandbox ON pull_requests (sandbox) WHERE sandbox IS NOT NULL;

-- What has happened and nobody outside was told of yet, written in the transaction in which it happens.
CREATE TABLE happenings (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    kind   TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

CREATE TRIGGER deployments_are_announced AFTER UPDATE OF state ON deployments
WHEN NEW.state IS NOT OLD.state AND NEW.state NOT IN ('source', 'start', 'health', 'routes') BEGIN
    INSERT INTO happenings (at, kind, detail) VALUES (
        CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        'deployment-' || NEW.state,
        json_object('id', NEW.id, 'sandbox', NEW.sandbox, 'repo', NEW.repo, 'branch', NEW.branch,
            'commit', NEW.commit_id, 'agent', NEW.agent, 'state', NEW.state, 'failure', json(NEW.failure),
            'url', NEW.url, 'user', NEW.user));
END;

CREATE TRIGGER new_sandboxes_are_announced AFTER INSERT ON sandboxes BEGIN
    INSERT INTO happenings (at, kind, detail) VALUES (
        CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        'sandbox-created',
        json_object('name', NEW.name, 'environment', NEW.environment, 'owner', NEW.owner));
END;

CREATE TRIGGER deleted_sandboxes_are_announced AFTER DELETE ON sandboxes BEGIN
    INSERT INTO happenings (at, kind, detail) VALUES (
        CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        'sandbox-deleted',
        json_object('name', OLD.name, 'environment', OLD.environment, 'owner', OLD.owner));
END;

CREATE TRIGGER near_ends_are_announced AFTER UPDATE OF end_announced ON sandboxes
WHEN NEW.end_announced IS NOT OLD.end_announced BEGIN
    INSERT INTO happenings (at, kind, detail) VALUES (
        CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        'sandbox-expiring',
        json_object('name', NEW.name, 'environment', NEW.environment, 'owner', NEW.owner,
            'expires_at', strftime('%Y-%m-%dT%H:%M:%SZ', NEW.expires_at / 1000000, 'unixepoch')));
END;

CREATE TRIGGER routes_are_announced AFTER INSERT ON audit
WHEN NEW.action IN ('route-set', 'route-takeover', 'route-released') BEGIN
    INSERT INTO happenings (at, kind, detail) VALUES (
        NEW.at,
        'route-changed',
        json_object('subject', NEW.subject, 'action', NEW.action, 'user', NEW.user, 'detail', NEW.detail));
END;
