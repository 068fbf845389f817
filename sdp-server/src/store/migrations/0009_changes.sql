-- What changed, in order, for who follows it. Triggers write it in the transaction of the change itself, whatever made
-- it, so that none is lost. `event` is JSON; patching `{}` with it leaves out what is null.
CREATE TABLE changes (
    seq   INTEGER PRIMARY KEY AUTOINCREMENT,
    at    INTEGER NOT NULL,
    event TEXT NOT NULL
) STRICT;

CREATE TRIGGER deployment_created AFTER INSERT ON deployments BEGIN
    INSERT INTO changes (at, event) VALUES (CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        json_patch('{}', json_object('type', 'deployment', 'id', NEW.id, 'sandbox', NEW.sandbox, 'repo', NEW.repo, 'branch', NEW.branch, 'commit', NEW.commit_id, 'agent', NEW.agent, 
            'user', NEW.user, 'state', NEW.state, 'url', NEW.url)));
END;

CREATE TRIGGER deployment_changed AFTER UPDATE ON deployments
WHEN OLD.state IS NOT NEW.state OR OLD.commit_id IS NOT NEW.commit_id OR OLD.url IS NOT NEW.url BEGIN
    INSERT INTO changes (at, event) VALUES (CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        json_patch('{}', json_object('type', 'deployment', 'id', NEW.id, 'sandbox', NEW.sandbox, 'repo', NEW.repo, 'branch', NEW.branch, 'commit', NEW.commit_id, 'agent', NEW.agent, 
            'user', NEW.user, 'state', NEW.state, 'url', NEW.url)));
END;

CREATE TRIGGER sandbox_created AFTER INSERT ON sandboxes BEGIN
    INSERT INTO changes (at, event) VALUES (CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        json_patch('{}', json_object('type', 'sandbox', 'name', NEW.name, 'change', 'created', 'state', NEW.state, 'owner', NEW.owner)));
END;

CREATE TRIGGER sandbox_changed AFTER UPDATE ON sandboxes
WHEN OLD.state IS NOT NEW.state OR OLD.expires_at IS NOT NEW.expires_at OR OLD.services IS NOT NEW.services
    OR OLD.routes IS NOT NEW.routes OR OLD.problem IS NOT NEW.problem OR OLD.shared_with IS NOT NEW.shared_with BEGIN
    INSERT INTO changes (at, event) VALUES (CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        json_patch('{}', json_object('type', 'sandbox', 'name', NEW.name, 'change', 'changed', 'state', NEW.state, 'owner', NEW.owner)));
END;

CREATE TRIGGER sandbox_deleted AFTER DELETE ON sandboxes BEGIN
    INSERT INTO changes (at, event) VALUES (CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        json_patch('{}', json_object('type', 'sandbox', 'name', OLD.name, 'change', 'deleted', 'state', OLD.state, 'owner', OLD.owner)));
END;

CREATE TRIGGER environment_created AFTER INSERT ON environments BEGIN
    INSERT INTO changes (at, event) VALUES (CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        json_patch('{}', json_object('type', 'environment', 'name', NEW.name, 'change', 'created')));
END;

CREATE TRIGGER environment_changed AFTER UPDATE ON environments WHEN OLD.settings IS NOT NEW.settings BEGIN
    INSERT INTO changes (at, event) VALUES (CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        json_patch('{}', json_object('type', 'environment', 'name', NEW.name, 'change', 'changed')));
END;

CREATE TRIGGER environment_deleted AFTER DELETE ON environments BEGIN
    INSERT INTO changes (at, event) VALUES (CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        json_patch('{}', json_object('type', 'environment', 'name', OLD.name, 'change', 'deleted')));
END;

CREATE TRIGGER template_created AFTER INSERT ON templates BEGIN
    INSERT INTO changes (at, event) VALUES (CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        json_patch('{}', json_object('type', 'template', 'name', NEW.name, 'change', 'created')));
END;

CREATE TRIGGER template_changed AFTER UPDATE ON templates WHEN OLD.template IS NOT NEW.template BEGIN
    INSERT INTO changes (at, event) VALUES (CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        json_patch('{}', json_object('type', 'template', 'name', NEW.name, 'change', 'changed')));
END;

CREATE TRIGGER template_deleted AFTER DELETE ON templates BEGIN
    INSERT INTO changes (at, event) VALUES (CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        json_patch('{}', json_object('type', 'template', 'name', OLD.name, 'change', 'deleted')));
END;

CREATE TRIGGER agent_enrolled AFTER INSERT ON agents BEGIN
    INSERT INTO changes (at, event) VALUES (CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        json_patch('{}', json_object('type', 'agent', 'name', NEW.name, 'change', 'enrolled')));
END;

CREATE TRIGGER agent_rotated AFTER UPDATE ON agents WHEN OLD.token_hash IS NOT NEW.token_hash BEGIN
    INSERT INTO changes (at, event) VALUES (CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        json_patch('{}', json_object('type', 'agent', 'name', NEW.name, 'change', 'rotated')));
END;

CREATE TRIGGER agent_revoked AFTER DELETE ON agents BEGIN
    INSERT INTO changes (at, event) VALUES (CAST(unixepoch('subsec') * 1000000 AS INTEGER),
        json_patch('{}', json_object('type', 'agent', 'name', OLD.name, 'change', 'revoked')));
END;
