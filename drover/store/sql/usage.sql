-- name: count_usage
-- What an execution used whose end was not reported, read from its log. Whoever comes second changes nothing.
UPDATE attempts
   SET resumed = coalesce(:resumed, resumed), session_id = coalesce(session_id, :session_id),
       input_tokens = :input_tokens, output_tokens = :output_tokens, cost_microusd = :cost_microusd,
       turns = :turns, model = :model, words = :words, counted = 1
 WHERE task_id = :task_id AND fence = :fence AND counted = 0;

-- name: list_uncounted
-- Executions of a host that are over, had started an agent, and of which nobody knows what they used.
SELECT task_id, fence FROM attempts
 WHERE counted = 0 AND agent_started_at IS NOT NULL AND host = :host AND ended_at IS NOT NULL
 ORDER BY task_id, fence LIMIT :limit;

-- name: sum_usage_of_run
SELECT CAST(coalesce(sum(a.input_tokens), 0) AS bigint) AS input_tokens,
       CAST(coalesce(sum(a.output_tokens), 0) AS bigint) AS output_tokens,
       CAST(coalesce(sum(a.cost_microusd), 0) AS bigint) AS cost_microusd
  FROM attempts a
 WHERE a.counted = 1 AND a.worker_id IN (SELECT id FROM workers WHERE run_id = :run_id);

-- name: sum_usage
-- Of the whole backlog, or of an epic's tasks.
SELECT CAST(coalesce(sum(a.input_tokens), 0) AS bigint) AS input_tokens,
       CAST(coalesce(sum(a.output_tokens), 0) AS bigint) AS output_tokens,
       CAST(coalesce(sum(a.cost_microusd), 0) AS bigint) AS cost_microusd
  FROM attempts a
 WHERE a.counted = 1 AND a.started_at >= :since
   AND (CAST(:epic_id AS text) IS NULL OR a.task_id IN (SELECT id FROM tasks WHERE epic_id = :epic_id));
