-- What an agent is working on and what should run there is looked up whenever it connects.
CREATE INDEX deployments_by_agent ON deployments (agent, state);
