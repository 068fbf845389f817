-- Settings are JSON: they are read and written whole.
CREATE TABLE environments (
    name     TEXT PRIMARY KEY,
    settings TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE templates (
    name     TEXT PRIMARY KEY,
    template TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- A sandbox's shape is JSON too: a list of services, and routes by service.
ALTER TABLE sandboxes ADD COLUMN state TEXT NOT NULL DEFAULT 'active';
ALTER TABLE sandboxes ADD COLUMN services TEXT NOT NULL DEFAULT '[]';
ALTER TABLE sandboxes ADD COLUMN routes TEXT NOT NULL DEFAULT '{}';
ALTER TABLE sandboxes ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
-- The deployments that its sleep stopped, a list of ids: what waking it starts again.
ALTER TABLE sandboxes ADD COLUMN slept TEXT NOT NULL DEFAULT '[]';
-- Whether the wanted routes are still to be set.
ALTER TABLE sandboxes ADD COLUMN routes_due INTEGER NOT NULL DEFAULT 0;
-- While it is deleted: the agents that have nothing of it any more, a list of names.
ALTER TABLE sandboxes ADD COLUMN torn_down TEXT NOT NULL DEFAULT '[]';
ALTER TABLE sandboxes ADD COLUMN problem TEXT;

-- Using one begins now: none is to fall asleep for what was not recorded. Its services are those of the
-- newest deployments. Whether their ports were chosen or picked was not recorded: they count as picked.
UPDATE sandboxes SET
    used_at = CAST(unixepoch('subsec') * 1000000 AS INTEGER),
    services = (
        SELECT json_group_array(json_object('repo', repo, 'branch', branch, 'env', json(env)))
        FROM deployments AS newest
        WHERE newest.sandbox = sandboxes.name AND newest.created_at >= sandboxes.created_at
            AND newest.id = (
                SELECT max(id) FROM deployments AS other
                WHERE other.sandbox = newest.sandbox AND other.repo = newest.repo
            )
    );
