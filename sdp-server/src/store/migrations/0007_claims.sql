-- All claims, so that one that a sleeping sandbox gave up is made again as it was. Those without an end of
-- their own end when their sandbox does, also when that is moved.
ALTER TABLE open_claims RENAME TO claims;
ALTER TABLE claims ADD COLUMN reason TEXT;
ALTER TABLE claims ADD COLUMN expires_at INTEGER;

-- Deployments whose agents keep what they replaced serving until they are told that the routes have followed.
CREATE TABLE retirements (
    deployment TEXT PRIMARY KEY REFERENCES deployments (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
