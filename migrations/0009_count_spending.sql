-- What agents have used, summed where a budget looks, so that a claim under a budget costs the same however much was
-- done before; and what each claim has put aside. Money is in millionths of a US dollar.

ALTER TABLE attempts ADD COLUMN reserved_microusd bigint NOT NULL DEFAULT 0;

ALTER TABLE attempts ADD COLUMN reserved_tokens bigint NOT NULL DEFAULT 0;

ALTER TABLE runs ADD COLUMN budget_microusd bigint;

-- The sum over the executions of an epic's tasks, of a run, that began on a day (local, 2026-11-23), of an agent.
CREATE TABLE spending (
    scope text NOT NULL CHECK (scope IN ('epic', 'run', 'day', 'agent')),
    id text NOT NULL,
    cost_microusd bigint NOT NULL,
    tokens bigint NOT NULL,
    executions bigint NOT NULL,
    PRIMARY KEY (scope, id)
) /*pg: */ WITHOUT ROWID /*:pg*/;

INSERT INTO spending (scope, id, cost_microusd, tokens, executions)
SELECT 'epic', t.epic_id, sum(a.cost_microusd), sum(a.input_tokens + a.output_tokens), count(*)
  FROM attempts a JOIN tasks t ON t.id = a.task_id
 WHERE t.epic_id IS NOT NULL AND a.cost_microusd + a.input_tokens + a.output_tokens > 0
 GROUP BY t.epic_id;

INSERT INTO spending (scope, id, cost_microusd, tokens, executions)
SELECT 'run', w.run_id, sum(a.cost_microusd), sum(a.input_tokens + a.output_tokens), count(*)
  FROM attempts a JOIN workers w ON w.id = a.worker_id
 WHERE w.run_id IS NOT NULL AND a.cost_microusd + a.input_tokens + a.output_tokens > 0
 GROUP BY w.run_id;

INSERT INTO spending (scope, id, cost_microusd, tokens, executions)
SELECT 'agent', agent, sum(cost_microusd), sum(input_tokens + output_tokens), count(*)
  FROM attempts
 WHERE agent <> '' AND cost_microusd + input_tokens + output_tokens > 0
 GROUP BY agent;

-- What holds a claim's reservation, and what a hard line stops: the executions that are not over.
CREATE INDEX attempts_reserved ON attempts (task_id, fence) WHERE ended_at IS NULL;
