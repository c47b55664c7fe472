-- name: lock_spending
-- From here to the end of the transaction nobody else reserves or spends; on SQLite nobody else writes anyway.
/*pg: LOCK TABLE spending IN EXCLUSIVE MODE */ SELECT 1 /*:pg*/;

-- name: find_spending
SELECT cost_microusd, tokens, executions FROM spending WHERE scope = :scope AND id = :id;

-- name: add_spending
INSERT INTO spending (scope, id, cost_microusd, tokens, executions)
VALUES (:scope, :id, :cost_microusd, :tokens, :executions)
ON CONFLICT (scope, id) DO UPDATE
   SET cost_microusd = spending.cost_microusd + excluded.cost_microusd, tokens = spending.tokens + excluded.tokens,
       executions = spending.executions + excluded.executions;

-- name: sum_of_task
SELECT CAST(coalesce(sum(cost_microusd), 0) AS bigint) AS cost_microusd FROM attempts WHERE task_id = :task_id;

-- name: find_execution
-- What is known of an execution before it is reported anew.
SELECT a.cost_microusd, a.input_tokens + a.output_tokens AS tokens, a.started_at, a.agent, t.epic_id, w.run_id
  FROM attempts a JOIN tasks t ON t.id = a.task_id JOIN workers w ON w.id = a.worker_id
 WHERE a.task_id = :task_id AND a.fence = :fence;

-- name: list_reserved
-- Executions that are not over and have put something aside; as many as there are workers.
SELECT a.task_id, a.started_at, t.epic_id, w.run_id,
       CASE WHEN a.reserved_microusd > a.cost_microusd THEN a.reserved_microusd - a.cost_microusd ELSE 0 END
           AS microusd,
       CASE WHEN a.reserved_tokens > a.input_tokens + a.output_tokens
            THEN a.reserved_tokens - a.input_tokens - a.output_tokens ELSE 0 END AS tokens
  FROM attempts a JOIN tasks t ON t.id = a.task_id JOIN workers w ON w.id = a.worker_id
 WHERE a.ended_at IS NULL AND (a.reserved_microusd > 0 OR a.reserved_tokens > 0);

-- name: reserve_budget
UPDATE attempts SET reserved_microusd = :microusd, reserved_tokens = :tokens
 WHERE task_id = :task_id AND fence = :fence;

-- name: list_spenders
-- Tasks whose agents are at work.
SELECT t.id, t.fence, w.run_id, a.started_at
  FROM tasks t /*pg: */ INDEXED BY tasks_leased /*:pg*/
  JOIN attempts a ON a.task_id = t.id AND a.fence = t.fence JOIN workers w ON w.id = t.claimed_by
 WHERE t.state = 'running' AND t.executing = 1
   AND NOT EXISTS (SELECT 1 FROM steps s
                    WHERE s.task_id = t.id AND s.attempt = t.attempt AND s.name = 'let_agent_work')
 ORDER BY t.id;

-- name: claim_paid_task
-- As claim_task, but only what its agent has done its part of. Looks through the ready queue: asked only when nothing
-- else may begin. A scope that is NULL means all.
UPDATE tasks
   SET state = 'running', fence = fence + 1, claimed_by = :worker_id, lease_until = :lease_until, executing = 0,
       started_at = coalesce(started_at, :now), updated_at = :now
 WHERE id = (SELECT id FROM tasks WHERE state = 'queued' AND open_blockers = 0 AND executions > 0
                AND (CAST(:epic_id AS text) IS NULL OR epic_id = :epic_id)
                AND (CAST(:task_ids AS text) IS NULL
                     OR id IN (SELECT /*pg: json_array_elements_text(CAST(:task_ids AS json)) */
                                      value FROM json_each(:task_ids) /*:pg*/))
                AND EXISTS (SELECT 1 FROM steps s WHERE s.task_id = tasks.id AND s.attempt = tasks.attempt
                                                    AND s.name = 'let_agent_work')
              ORDER BY priority DESC, number LIMIT 1 /*pg: FOR NO KEY UPDATE SKIP LOCKED */ /*:pg*/)
RETURNING *;

-- name: wake_for_budget
UPDATE tasks SET state = 'queued', reason = NULL, detail = NULL, due_at = NULL, updated_at = :now
 WHERE state = 'waiting' AND reason = 'budget';

-- name: cost_by_task
SELECT a.task_id AS id, max(t.title) AS title, count(*) AS executions,
       CAST(sum(a.input_tokens) AS bigint) AS input_tokens, CAST(sum(a.output_tokens) AS bigint) AS output_tokens,
       CAST(sum(a.cost_microusd) AS bigint) AS cost_microusd
  FROM attempts a JOIN tasks t ON t.id = a.task_id
 WHERE a.agent <> '' AND (CAST(:epic_id AS text) IS NULL OR t.epic_id = :epic_id)
 GROUP BY a.task_id ORDER BY 6 DESC, 1;

-- name: cost_by_epic
SELECT coalesce(t.epic_id, '') AS id, max(coalesce(e.title, '')) AS title, count(*) AS executions,
       CAST(sum(a.input_tokens) AS bigint) AS input_tokens, CAST(sum(a.output_tokens) AS bigint) AS output_tokens,
       CAST(sum(a.cost_microusd) AS bigint) AS cost_microusd
  FROM attempts a JOIN tasks t ON t.id = a.task_id LEFT JOIN epics e ON e.id = t.epic_id
 WHERE a.agent <> '' AND (CAST(:epic_id AS text) IS NULL OR t.epic_id = :epic_id)
 GROUP BY 1 ORDER BY 6 DESC, 1;

-- name: cost_by_agent
SELECT a.agent AS id, '' AS title, count(*) AS executions,
       CAST(sum(a.input_tokens) AS bigint) AS input_tokens, CAST(sum(a.output_tokens) AS bigint) AS output_tokens,
       CAST(sum(a.cost_microusd) AS bigint) AS cost_microusd
  FROM attempts a JOIN tasks t ON t.id = a.task_id
 WHERE a.agent <> '' AND (CAST(:epic_id AS text) IS NULL OR t.epic_id = :epic_id)
 GROUP BY 1 ORDER BY 6 DESC, 1;

-- name: cost_by_quarter
-- By quarters of an hour, of which the days of every time zone are made.
SELECT a.started_at / 900000 AS quarter, count(*) AS executions,
       CAST(sum(a.input_tokens) AS bigint) AS input_tokens, CAST(sum(a.output_tokens) AS bigint) AS output_tokens,
       CAST(sum(a.cost_microusd) AS bigint) AS cost_microusd
  FROM attempts a JOIN tasks t ON t.id = a.task_id
 WHERE a.agent <> '' AND (CAST(:epic_id AS text) IS NULL OR t.epic_id = :epic_id)
 GROUP BY 1 ORDER BY 1;
