-- Who holds which host port of which agent. A port is held by a key (sandbox and repo) for as long as a
-- deployment of that key may answer on it; `deployment` is the last one that said so.
CREATE TABLE ports (
    agent      TEXT NOT NULL,
    port       INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    sandbox    TEXT,
    repo       TEXT NOT NULL,
    deployment TEXT NOT NULL,
    PRIMARY KEY (agent, port)
) STRICT, WITHOUT ROWID;

-- Whatever deletes a sandbox, its ports are free with it.
CREATE TRIGGER ports_end_with_their_sandbox AFTER DELETE ON sandboxes BEGIN
    DELETE FROM ports WHERE sandbox = OLD.name;
END;

-- The port that a person asked for; `host_port` becomes the one in use.
ALTER TABLE deployments ADD COLUMN chosen_port INTEGER;
UPDATE deployments SET chosen_port = host_port WHERE url IS NULL;

CREATE INDEX deployments_with_port ON deployments (agent, host_port)
    WHERE host_port IS NOT NULL AND state NOT IN ('failed', 'cancelled', 'superseded');

-- Those of before. Of several that claim a port the newest is right.
INSERT OR REPLACE INTO ports (agent, port, sandbox, repo, deployment)
    SELECT agent, host_port, sandbox, repo, id FROM deployments
    WHERE host_port IS NOT NULL AND state NOT IN ('failed', 'cancelled', 'superseded')
        AND (sandbox IS NULL OR EXISTS (
            SELECT 1 FROM sandboxes WHERE name = deployments.sandbox AND created_at <= deployments.created_at))
    ORDER BY id;
