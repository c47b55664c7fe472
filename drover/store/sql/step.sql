-- name: add_step
INSERT INTO steps (task_id, attempt, name, fence, started_at, finished_at, result)
VALUES (:task_id, :attempt, :name, :fence, :started_at, :now, :result);

-- name: list_steps
SELECT * FROM steps WHERE task_id = :task_id AND attempt = :attempt ORDER BY finished_at, started_at;

-- name: forget_steps
-- What they made is in a clone on another host. A result that is committed, or a plan, is not.
DELETE FROM steps
 WHERE task_id = :task_id AND attempt = :attempt
   AND name IN ('prepare_worktree', 'after_create', 'before_agent', 'let_agent_work', 'after_agent');
