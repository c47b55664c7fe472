-- Plans: what an agent means to do with a task, and what a person thought of it.

CREATE TABLE plans (
    number /*pg: bigint GENERATED ALWAYS AS IDENTITY */ integer /*:pg*/ PRIMARY KEY,
    id text NOT NULL UNIQUE,
    task_id text NOT NULL REFERENCES tasks (id),
    revision bigint NOT NULL CHECK (revision > 0),
    parent_id text,
    state text NOT NULL CHECK (state IN ('pending', 'approved', 'rejected')),
    draft text NOT NULL,
    feedback text NOT NULL DEFAULT '',
    created_at bigint NOT NULL,
    decided_at bigint,
    decided_by text
);
CREATE INDEX plans_of_task ON plans (task_id);
-- At most one plan of a task is to be judged or carried out.
CREATE UNIQUE INDEX plans_in_force ON plans (task_id) WHERE state <> 'rejected';

-- The state of the task's newest plan, so that a claim need not look it up.
ALTER TABLE tasks ADD COLUMN plan text CHECK (plan IN ('pending', 'approved', 'rejected'));

-- What an execution was for: an agent that planned is not gone on with by one that builds.
ALTER TABLE attempts ADD COLUMN purpose text NOT NULL DEFAULT 'build' CHECK (purpose IN ('build', 'plan'));

-- Whether a run plans, builds or does both; a resume does what the run did.
ALTER TABLE runs ADD COLUMN mode text NOT NULL DEFAULT 'combined' CHECK (mode IN ('combined', 'planning', 'building'));
