-- name: list_wrong_fences
-- Every claim that executed left an attempt with its fence, so no attempt is ahead of its task.
SELECT t.id, t.fence, max(a.fence) AS newest FROM tasks t JOIN attempts a ON a.task_id = t.id
 GROUP BY t.id, t.fence HAVING max(a.fence) > t.fence ORDER BY t.id;

-- name: list_wrong_executions
-- Every attempt whose agent was started was counted.
SELECT t.id, t.executions, count(*) AS started FROM tasks t JOIN attempts a ON a.task_id = t.id
 WHERE a.agent_started_at IS NOT NULL
 GROUP BY t.id, t.executions HAVING count(*) > t.executions ORDER BY t.id;

-- name: list_wrong_attempts
-- A task that runs has the attempt of its fence open, and only that one is.
SELECT t.id FROM tasks t
 WHERE (t.state = 'running') <> EXISTS (
           SELECT 1 FROM attempts a WHERE a.task_id = t.id AND a.fence = t.fence AND a.ended_at IS NULL)
    OR EXISTS (SELECT 1 FROM attempts a WHERE a.task_id = t.id AND a.fence <> t.fence AND a.ended_at IS NULL)
 ORDER BY t.id;

-- name: list_standings
-- Of every task, what the ledgers have to agree on.
SELECT id, state, fence, first_attempt, landed_commit, landed_at FROM tasks ORDER BY number;

-- name: list_all_landings
SELECT task_id, attempt, state, commit_oid, target FROM landings ORDER BY task_id, attempt, fence;

-- name: list_land_steps
SELECT task_id, attempt, result FROM steps WHERE name = 'land' ORDER BY task_id, attempt;

-- name: list_told
-- What the event log says of each task's coming, landing and starting over, in that order.
SELECT seq, type, task_id, attempt, data FROM events
 WHERE type IN ('task.created', 'task.landed', 'task.completed', 'task.reset') ORDER BY seq;
