-- name: find_outlook
-- What is left to be done, found at the heads of small indexes: the same cost however large the backlog. Asked for in
-- an order, Postgres takes the index; asked whether there is any, it may look through every task that is completed.
SELECT (SELECT number FROM tasks /*pg: */ INDEXED BY tasks_ready /*:pg*/ WHERE state = 'queued' AND open_blockers = 0
         ORDER BY priority DESC, number LIMIT 1) IS NOT NULL
       OR EXISTS (SELECT 1 FROM tasks /*pg: */ INDEXED BY tasks_due /*:pg*/
                   WHERE state = 'waiting' AND due_at <= :now AND open_blockers = 0) AS ready,
       EXISTS (SELECT 1 FROM tasks /*pg: */ INDEXED BY tasks_leased /*:pg*/ WHERE state = 'running') AS running,
       (SELECT min(due_at) FROM tasks /*pg: */ INDEXED BY tasks_due /*:pg*/
         WHERE state = 'waiting' AND due_at > :now) AS due_at,
       (SELECT count(*) FROM tasks WHERE state = 'paused')
       + (SELECT count(*) FROM tasks /*pg: */ INDEXED BY tasks_waiting /*:pg*/
           WHERE state = 'waiting' AND due_at IS NULL) AS person;

-- name: find_outlook_within
-- The same for an epic, or for the tasks of a JSON list.
SELECT count(CASE WHEN open_blockers = 0 AND (state = 'queued' OR (state = 'waiting' AND due_at <= :now)) THEN 1 END)
       AS ready,
       count(CASE WHEN state = 'running' THEN 1 END) AS running,
       min(CASE WHEN state = 'waiting' AND due_at > :now THEN due_at END) AS due_at,
       count(CASE WHEN state = 'paused' OR (state = 'waiting' AND due_at IS NULL) THEN 1 END) AS person
  FROM tasks
 WHERE (CAST(:epic_id AS text) IS NULL OR epic_id = :epic_id)
   AND (CAST(:ids AS text) IS NULL
        OR id IN (SELECT /*pg: json_array_elements_text(CAST(:ids AS json)) */ value FROM json_each(:ids) /*:pg*/));
