-- name: add_plan
INSERT INTO plans (id, task_id, revision, parent_id, state, draft, created_at, decided_at, decided_by)
VALUES (:id, :task_id, :revision, :parent_id, :state, :draft, :now, :decided_at, :decided_by)
ON CONFLICT (id) DO NOTHING;

-- name: find_plan
SELECT p.*, t.title AS task_title, t.state AS task_state FROM plans p JOIN tasks t ON t.id = p.task_id WHERE p.id = :id;

-- name: list_plan_ids_between
SELECT id FROM plans WHERE id >= :low AND id < :high ORDER BY id LIMIT 3;

-- name: list_plans
SELECT p.*, t.title AS task_title, t.state AS task_state FROM plans p JOIN tasks t ON t.id = p.task_id
 WHERE (CAST(:task_id AS text) IS NULL OR p.task_id = :task_id)
   AND (CAST(:epic_id AS text) IS NULL OR t.epic_id = :epic_id)
 ORDER BY p.number;

-- name: find_newest_plan
SELECT p.*, t.title AS task_title, t.state AS task_state FROM plans p JOIN tasks t ON t.id = p.task_id
 WHERE p.task_id = :task_id ORDER BY p.number DESC LIMIT 1;

-- name: decide_plan
UPDATE plans SET state = :state, feedback = :feedback, decided_at = :now, decided_by = :decided_by
 WHERE id = :id AND state = 'pending';

-- name: rewrite_plan
UPDATE plans SET draft = :draft WHERE id = :id AND state = 'pending';

-- name: delete_plan
DELETE FROM plans WHERE id = :id;

-- name: mark_planned
UPDATE tasks SET plan = :plan, updated_at = :now WHERE id = :task_id;

-- name: queue_planned
-- What waited for a plan to be judged waits no longer.
UPDATE tasks SET state = 'queued', reason = NULL, detail = NULL, due_at = NULL
 WHERE id = :task_id AND state = 'waiting' AND reason = 'plan';

-- name: describe_plan_wait
UPDATE tasks SET detail = :detail WHERE id = :task_id AND state = 'waiting' AND reason = 'plan';

-- name: begin_planning
UPDATE attempts SET purpose = 'plan' WHERE task_id = :task_id AND fence = :fence;

-- name: claim_task_to_plan
-- Whatever it waits for, unlike a claim that builds: a plan needs nobody's work but its reader's.
UPDATE tasks
   SET state = 'running', fence = fence + 1, claimed_by = :worker_id, lease_until = :lease_until, executing = 0,
       started_at = coalesce(started_at, :now), updated_at = :now
 WHERE id = (SELECT id FROM tasks
              WHERE state = 'queued' AND (plan IS NULL OR plan = 'rejected')
                AND (CAST(:epic_id AS text) IS NULL OR epic_id = :epic_id)
                AND (CAST(:ids AS text) IS NULL
                     OR id IN (SELECT /*pg: json_array_elements_text(CAST(:ids AS json)) */ value FROM json_each(:ids) /*:pg*/))
              ORDER BY priority DESC, number LIMIT 1 /*pg: FOR NO KEY UPDATE SKIP LOCKED */ /*:pg*/)
RETURNING *;

-- name: claim_task_to_build
-- Of those whose plan was approved alone.
UPDATE tasks
   SET state = 'running', fence = fence + 1, claimed_by = :worker_id, lease_until = :lease_until, executing = 0,
       started_at = coalesce(started_at, :now), updated_at = :now
 WHERE id = (SELECT id FROM tasks
              WHERE state = 'queued' AND open_blockers = 0 AND plan = 'approved'
                AND (CAST(:epic_id AS text) IS NULL OR epic_id = :epic_id)
                AND (CAST(:ids AS text) IS NULL
                     OR id IN (SELECT /*pg: json_array_elements_text(CAST(:ids AS json)) */ value FROM json_each(:ids) /*:pg*/))
              ORDER BY priority DESC, number LIMIT 1 /*pg: FOR NO KEY UPDATE SKIP LOCKED */ /*:pg*/)
RETURNING *;

-- name: find_outlook_to_plan
-- As find_outlook_within, of tasks without a plan.
SELECT count(CASE WHEN (plan IS NULL OR plan = 'rejected') AND (state = 'queued' OR (state = 'waiting' AND due_at <= :now)) THEN 1 END) AS ready,
       count(CASE WHEN state = 'running' THEN 1 END) AS running,
       min(CASE WHEN (plan IS NULL OR plan = 'rejected') AND state = 'waiting' AND due_at > :now THEN due_at END) AS due_at,
       count(CASE WHEN state = 'paused' OR (state = 'waiting' AND due_at IS NULL) THEN 1 END) AS person
  FROM tasks
 WHERE (CAST(:epic_id AS text) IS NULL OR epic_id = :epic_id)
   AND (CAST(:ids AS text) IS NULL
        OR id IN (SELECT /*pg: json_array_elements_text(CAST(:ids AS json)) */ value FROM json_each(:ids) /*:pg*/));

-- name: find_outlook_to_build
-- As find_outlook_within, of tasks whose plan was approved.
SELECT count(CASE WHEN open_blockers = 0 AND plan = 'approved' AND (state = 'queued' OR (state = 'waiting' AND due_at <= :now)) THEN 1 END) AS ready,
       count(CASE WHEN state = 'running' THEN 1 END) AS running,
       min(CASE WHEN open_blockers = 0 AND plan = 'approved' AND state = 'waiting' AND due_at > :now THEN due_at END) AS due_at,
       count(CASE WHEN state = 'paused' OR (state = 'waiting' AND due_at IS NULL) THEN 1 END) AS person
  FROM tasks
 WHERE (CAST(:epic_id AS text) IS NULL OR epic_id = :epic_id)
   AND (CAST(:ids AS text) IS NULL
        OR id IN (SELECT /*pg: json_array_elements_text(CAST(:ids AS json)) */ value FROM json_each(:ids) /*:pg*/));
