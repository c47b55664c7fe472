-- name: set_input
UPDATE tasks SET input = :input WHERE id = :id;

-- name: start_task
-- As claim_task, for a life whose work begins with the claim.
UPDATE tasks
   SET state = 'running', fence = fence + 1, claimed_by = :worker_id, lease_until = :lease_until, executing = 1,
       executions = executions + 1, started_at = coalesce(started_at, :now), updated_at = :now
 WHERE number = (SELECT number FROM tasks /*pg: */ INDEXED BY tasks_ready /*:pg*/ WHERE state = 'queued' AND open_blockers = 0
              ORDER BY priority DESC, number LIMIT 1 /*pg: FOR NO KEY UPDATE SKIP LOCKED */ /*:pg*/)
RETURNING *;

-- name: finish_task
-- The end of a claim whose result is a document: nothing has to land, so this is the landing.
UPDATE tasks
   SET state = 'completed', result = :result, landed_at = :now, completed_at = :now, claimed_by = NULL,
       lease_until = NULL, executing = 0, troubles = 0, error_class = NULL, error_message = NULL, error_advice = NULL,
       updated_at = :now
 WHERE id = :id AND fence = :fence AND claimed_by = :worker_id AND state = 'running';

-- name: find_held_by
-- A worker of a life without git holds one claim at a time.
SELECT * FROM tasks /*pg: */ INDEXED BY tasks_leased /*:pg*/ WHERE state = 'running' AND claimed_by = :worker_id;

-- name: list_results_of_blockers
SELECT b.blocker_id, t.result FROM blockers b JOIN tasks t ON t.id = b.blocker_id
 WHERE b.task_id = :task_id AND t.landed_at IS NOT NULL;

-- name: list_standing
-- Running claims whose lease has not ended.
SELECT id, fence FROM tasks /*pg: */ INDEXED BY tasks_leased /*:pg*/ WHERE state = 'running' AND lease_until > :lease_now;

-- name: list_finished_since
SELECT task_id FROM events WHERE seq > :after AND type = :type ORDER BY seq;

-- name: list_failed
SELECT id FROM tasks WHERE state = 'failed' AND state IN ('failed', 'cancelled') ORDER BY number;

-- name: list_paused
SELECT id FROM tasks WHERE state = 'paused' ORDER BY number;

-- name: count_completed
SELECT count(*) AS n FROM tasks WHERE state = 'completed';

-- name: find_prospect
-- What could be done now, counted no further than :most, and what later. Found at the heads of small indexes.
SELECT (SELECT count(*) FROM (SELECT number FROM tasks /*pg: */ INDEXED BY tasks_ready /*:pg*/
                               WHERE state = 'queued' AND open_blockers = 0
                               ORDER BY priority DESC, number LIMIT :most) AS queued) AS ready,
       EXISTS (SELECT 1 FROM tasks /*pg: */ INDEXED BY tasks_due /*:pg*/
                WHERE state = 'waiting' AND due_at <= :now) AS due,
       EXISTS (SELECT 1 FROM tasks /*pg: */ INDEXED BY tasks_leased /*:pg*/ WHERE state = 'running') AS running,
       (SELECT min(due_at) FROM tasks /*pg: */ INDEXED BY tasks_due /*:pg*/
         WHERE state = 'waiting' AND due_at > :now) AS due_at;
