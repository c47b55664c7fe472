-- name: set_input
UPDATE tasks SET input = :input WHERE id = :id;

-- name: start_tasks
-- As claim_task, for a life whose work begins with the claim, and for several workers at once: the best task for the
-- first of :workers (a JSON list of their ids), and so on for as long as there are tasks.
UPDATE tasks
   SET state = 'running', fence = fence + 1, lease_until = :lease_until, executing = 1, executions = executions + 1,
       claimed_by = /*pg: CAST(:workers AS json) ->> CAST(r.place AS integer) */
                    json_extract(:workers, '$[' || r.place || ']') /*:pg*/,
       started_at = coalesce(started_at, :now), updated_at = :now
  FROM (SELECT number, row_number() OVER () - 1 AS place
          FROM (SELECT number FROM tasks /*pg: */ INDEXED BY tasks_ready /*:pg*/
                 WHERE state = 'queued' AND open_blockers = 0 ORDER BY priority DESC, number
                 LIMIT /*pg: json_array_length(CAST(:workers AS json)) FOR NO KEY UPDATE SKIP LOCKED */
                       json_array_length(:workers) /*:pg*/) AS best) AS r
 WHERE tasks.number = r.number
RETURNING /*pg: tasks.* */ * /*:pg*/;

-- name: add_attempts
-- The executions that begin with those claims; :ids is a JSON list.
INSERT INTO attempts (task_id, fence, attempt, worker_id, host, pid, started_at, alive_at)
SELECT t.id, t.fence, t.attempt, w.id, w.host, w.pid, :now, :now
  FROM tasks t JOIN workers w ON w.id = t.claimed_by
 WHERE t.id IN (SELECT /*pg: json_array_elements_text(CAST(:ids AS json)) */ value FROM json_each(:ids) /*:pg*/);

-- name: finish_tasks
-- The ends of claims whose results are documents: nothing has to land, so this is the landing. :ends is a JSON list of
-- [task, fence, worker, result]; of claims that are held no longer nothing is changed. The key names the claim.
UPDATE tasks
   SET state = 'completed', result = e.result, landed_at = :now, completed_at = :now, claimed_by = NULL,
       lease_until = NULL, executing = 0, troubles = 0, error_class = NULL, error_message = NULL, error_advice = NULL,
       updated_at = :now
  FROM (SELECT /*pg: value ->> 0 AS id, CAST(value ->> 1 AS bigint) AS fence, value ->> 2 AS worker_id,
                     value ->> 3 AS result FROM json_array_elements(CAST(:ends AS json)) */
               json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS fence,
               json_extract(value, '$[2]') AS worker_id, json_extract(value, '$[3]') AS result
          FROM json_each(:ends) /*:pg*/) AS e
 WHERE tasks.id = e.id AND tasks.fence = e.fence AND tasks.claimed_by = e.worker_id AND tasks.state = 'running'
RETURNING tasks.id || ' ' || tasks.fence AS key;

-- name: end_attempts
-- The executions of the claims of finish_tasks.
UPDATE attempts SET ended_at = :now, outcome = 'done'
  FROM (SELECT /*pg: value ->> 0 AS id, CAST(value ->> 1 AS bigint) AS fence
                 FROM json_array_elements(CAST(:ends AS json)) */
               json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS fence
          FROM json_each(:ends) /*:pg*/) AS e
 WHERE task_id = e.id AND attempts.fence = e.fence AND ended_at IS NULL;

-- name: lock_dependents
-- Two groups that end may share dependents: both take them in the order of their ids.
/*pg: SELECT id FROM tasks
       WHERE id IN (SELECT task_id FROM blockers
                     WHERE blocker_id IN (SELECT value ->> 0 FROM json_array_elements(CAST(:ends AS json))))
       ORDER BY id FOR NO KEY UPDATE */ SELECT 1 WHERE :ends IS NULL /*:pg*/;

-- name: lower_all_dependents
-- As lower_dependents, for all blockers that have been finished with.
UPDATE tasks SET open_blockers = open_blockers - f.ended
  FROM (SELECT task_id, count(*) AS ended FROM blockers
         WHERE blocker_id IN (SELECT /*pg: value ->> 0 FROM json_array_elements(CAST(:ends AS json)) */
                                     json_extract(value, '$[0]') FROM json_each(:ends) /*:pg*/)
         GROUP BY task_id) AS f
 WHERE tasks.id = f.task_id
RETURNING tasks.id, tasks.state, tasks.open_blockers;

-- name: tell_ends_and_claims
-- What happened to a group: the tasks of :ends were completed, those of :ready are ready, and those of :ids claimed.
INSERT INTO events (type, at, task_id, epic_id, attempt, worker, data)
SELECT 'task.completed', CAST(:now AS bigint), t.id, t.epic_id, t.attempt, e.worker_id,
       /*pg: CAST(json_build_object('title', t.title, 'fence', t.fence) AS text)
         FROM (SELECT value ->> 0 AS id, value ->> 2 AS worker_id FROM json_array_elements(CAST(:ends AS json))) AS e
         JOIN tasks t ON t.id = e.id */
       json_object('title', t.title, 'fence', t.fence)
  FROM (SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[2]') AS worker_id FROM json_each(:ends)) AS e
 CROSS JOIN tasks t ON t.id = e.id /*:pg*/
UNION ALL
SELECT 'task.ready', :now, r.value, NULL, NULL, NULL, /*pg: CAST(json_build_object('after', */ json_object('after', /*:pg*/
       (SELECT min(b.blocker_id) FROM blockers b
         WHERE b.task_id = r.value
           AND b.blocker_id IN (SELECT /*pg: value ->> 0 FROM json_array_elements(CAST(:ends AS json)) */
                                       json_extract(value, '$[0]') FROM json_each(:ends) /*:pg*/))
       /*pg: ) AS text) FROM json_array_elements_text(CAST(:ready AS json)) AS r (value) */
       ) FROM json_each(:ready) AS r /*:pg*/
UNION ALL
SELECT 'task.claimed', :now, t.id, t.epic_id, t.attempt, t.claimed_by,
       /*pg: CAST(json_build_object('title', t.title, 'fence', t.fence) AS text)
         FROM json_array_elements_text(CAST(:ids AS json)) AS i (value) JOIN tasks t ON t.id = i.value */
       json_object('title', t.title, 'fence', t.fence)
  FROM json_each(:ids) AS i CROSS JOIN tasks t ON t.id = i.value /*:pg*/;

-- name: find_held_by
-- A worker of a life without git holds one claim at a time.
SELECT * FROM tasks /*pg: */ INDEXED BY tasks_leased /*:pg*/ WHERE state = 'running' AND claimed_by = :worker_id;

-- name: list_results_of_blockers
-- For the tasks of a JSON list.
SELECT b.task_id, b.blocker_id, t.result
  FROM blockers b JOIN tasks t ON t.id = b.blocker_id
 WHERE b.task_id IN (SELECT /*pg: json_array_elements_text(CAST(:ids AS json)) */ value FROM json_each(:ids) /*:pg*/)
   AND t.landed_at IS NOT NULL;

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
