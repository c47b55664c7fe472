-- name: add_step
INSERT INTO steps (task_id, attempt, name, fence, started_at, finished_at, result)
VALUES (:task_id, :attempt, :name, :fence, :started_at, :now, :result);

-- name: list_steps
SELECT * FROM steps WHERE task_id = :task_id AND attempt = :attempt ORDER BY finished_at, started_at;

-- name: forget_steps
-- What they made is on a host that is gone.
DELETE FROM steps WHERE task_id = :task_id AND attempt = :attempt;
