-- The earlier deployment that a rollback goes back to. No foreign key: it is history as well.
ALTER TABLE deployments ADD COLUMN rollback_of TEXT;
