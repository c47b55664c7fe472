-- name: add_task
-- Nothing is added when the id or the key is taken.
INSERT INTO tasks (id, title, description, epic_id, parent_id, sequence, type, priority, key, agent, test_mode,
                   test_scope, test_command, timeout_ms, max_attempts, allow_no_change, open_blockers, created_by,
                   created_at, updated_at)
VALUES (:id, :title, :description, :epic_id, :parent_id, :sequence, :type, :priority, :key, :agent, :test_mode,
        :test_scope, :test_command, :timeout_ms, :max_attempts, :allow_no_change, :open_blockers, :created_by,
        :now, :now)
ON CONFLICT DO NOTHING;

-- name: find_task
SELECT * FROM tasks WHERE id = :id;

-- name: lock_task
-- From here to the end of the transaction nobody else changes the task; on SQLite nobody else writes anyway.
SELECT id FROM tasks WHERE id = :id /*pg: FOR NO KEY UPDATE */ /*:pg*/;

-- name: find_task_by_key
SELECT id FROM tasks WHERE key = :key;

-- name: list_ids_between
-- Ids that begin with a prefix: :low is the prefix, :high the prefix followed by a letter after every other.
SELECT id FROM tasks WHERE id >= :low AND id < :high ORDER BY id LIMIT 3;

-- name: list_root_ids_between
-- The same without sub-tasks, whose ids all begin with their parent's.
SELECT id FROM tasks WHERE id >= :low AND id < :high AND parent_id IS NULL ORDER BY id LIMIT 3;

-- name: list_tasks_of_epic
SELECT * FROM tasks WHERE epic_id = :epic_id ORDER BY number;

-- name: list_children
SELECT id, sequence, state, landed_at FROM tasks WHERE parent_id = :parent_id ORDER BY sequence;

-- name: list_edges_of_task
-- Its labels, its blockers and its dependents.
SELECT 'label' AS kind, label AS other FROM task_labels WHERE task_id = :id
UNION ALL SELECT 'blocker', blocker_id FROM blockers WHERE task_id = :id
UNION ALL SELECT 'dependent', task_id FROM blockers WHERE blocker_id = :id
 ORDER BY 2;

-- name: add_label
INSERT INTO task_labels (task_id, label) VALUES (:task_id, :label) ON CONFLICT (task_id, label) DO NOTHING;

-- name: remove_labels
DELETE FROM task_labels WHERE task_id = :task_id;

-- name: count_tasks
-- The counts behind every status word, each by its state and what else that depends on; queued ones that are blocked
-- are what is left of the total. Each but the completed ones is counted in an index: reading and sorting all of a large
-- backlog takes ten times as long.
SELECT (SELECT count(*) FROM tasks) AS total,
       (SELECT count(*) FROM tasks WHERE state = 'queued' AND open_blockers = 0) AS queued,
       (SELECT count(*) FROM tasks WHERE state = 'running' AND executing = 0) AS running,
       (SELECT count(*) FROM tasks WHERE state = 'running' AND executing > 0) AS running_executing,
       (SELECT count(*) FROM tasks WHERE state = 'waiting' AND (due_at IS NULL OR due_at > :now)) AS waiting,
       (SELECT count(*) FROM tasks WHERE state = 'waiting' AND due_at <= :now AND open_blockers = 0) AS waiting_due,
       (SELECT count(*) FROM tasks
         WHERE state = 'waiting' AND due_at <= :now AND open_blockers > 0) AS waiting_due_blocked,
       (SELECT count(*) FROM tasks WHERE state = 'paused') AS paused,
       (SELECT count(*) FROM tasks WHERE state = 'completed') AS completed,
       (SELECT count(*) FROM tasks WHERE state IN ('failed', 'cancelled') AND state = 'failed') AS failed,
       (SELECT count(*) FROM tasks WHERE state IN ('failed', 'cancelled') AND state = 'cancelled') AS cancelled;

-- name: count_tasks_of_epic
SELECT count(*) FILTER (WHERE state = 'queued' AND open_blockers = 0) AS queued,
       count(*) FILTER (WHERE state = 'queued' AND open_blockers > 0) AS queued_blocked,
       count(*) FILTER (WHERE state = 'running' AND executing = 0) AS running,
       count(*) FILTER (WHERE state = 'running' AND executing > 0) AS running_executing,
       count(*) FILTER (WHERE state = 'waiting' AND (due_at IS NULL OR due_at > :now)) AS waiting,
       count(*) FILTER (WHERE state = 'waiting' AND due_at <= :now AND open_blockers = 0) AS waiting_due,
       count(*) FILTER (WHERE state = 'waiting' AND due_at <= :now AND open_blockers > 0) AS waiting_due_blocked,
       count(*) FILTER (WHERE state = 'paused') AS paused,
       count(*) FILTER (WHERE state = 'completed') AS completed,
       count(*) FILTER (WHERE state = 'failed') AS failed,
       count(*) FILTER (WHERE state = 'cancelled') AS cancelled
  FROM tasks
 WHERE epic_id = :epic_id;

-- name: edit_task
UPDATE tasks
   SET title = :title, description = :description, epic_id = :epic_id, type = :type, priority = :priority,
       agent = :agent, test_mode = :test_mode, test_scope = :test_scope, test_command = :test_command,
       timeout_ms = :timeout_ms, max_attempts = :max_attempts, updated_at = :now
 WHERE id = :id AND state <> 'running';

-- name: move_subtasks
-- Sub-tasks are in the epic of their parent, whatever their state.
UPDATE tasks SET epic_id = :epic_id, updated_at = :now WHERE parent_id = :parent_id;

-- ------------------------------------------------------------ blockers

-- name: add_blocker
INSERT INTO blockers (task_id, blocker_id, kind, created_at) VALUES (:task_id, :blocker_id, :kind, :now)
ON CONFLICT (task_id, blocker_id) DO NOTHING;

-- name: remove_blocker
DELETE FROM blockers WHERE task_id = :task_id AND blocker_id = :blocker_id;

-- name: lock_graph
-- Whoever adds or drops edges, or takes a landing back, does it alone; landings go on beside one another
-- (share_graph) but not beside that, or a counter would miss a landing it was counted without.
/*pg: LOCK TABLE blockers IN EXCLUSIVE MODE */ SELECT 1 /*:pg*/;

-- name: share_graph
/*pg: LOCK TABLE blockers IN ROW SHARE MODE */ SELECT 1 /*:pg*/;

-- name: list_blockers
SELECT task_id, blocker_id, kind FROM blockers ORDER BY task_id, created_at, blocker_id;

-- name: list_blockers_of_task
SELECT b.blocker_id, b.kind, t.state, t.landed_at, t.landed_commit
  FROM blockers b JOIN tasks t ON t.id = b.blocker_id
 WHERE b.task_id = :task_id ORDER BY b.created_at, b.blocker_id;

-- name: find_wait
-- Whether :task_id waits, directly or not, for :blocker_id.
WITH RECURSIVE waits_for (id) AS (
    SELECT blocker_id FROM blockers WHERE task_id = :task_id
    UNION
    SELECT b.blocker_id FROM waits_for w JOIN blockers b ON b.task_id = w.id
)
SELECT id FROM waits_for WHERE id = :blocker_id;

-- name: list_stranded
-- Unfinished tasks that stand, directly or not, behind one that failed or was cancelled. What has landed
-- holds nobody up, whatever it had waited for itself.
WITH RECURSIVE stranded (id) AS (
    SELECT b.task_id FROM tasks d JOIN blockers b ON b.blocker_id = d.id
     WHERE d.state IN ('failed', 'cancelled') AND d.landed_at IS NULL
    UNION
    SELECT b.task_id FROM stranded s JOIN tasks m ON m.id = s.id JOIN blockers b ON b.blocker_id = s.id
     WHERE m.landed_at IS NULL
)
SELECT t.id FROM stranded s JOIN tasks t ON t.id = s.id
 WHERE t.open_blockers > 0 AND t.state IN ('queued', 'waiting', 'paused');

-- name: recount_blockers
-- The counter by its definition; a landing, an edge or a reset that changed it is followed by this for one task.
UPDATE tasks
   SET open_blockers = (SELECT count(*) FROM blockers b JOIN tasks t ON t.id = b.blocker_id
                         WHERE b.task_id = tasks.id AND t.landed_at IS NULL)
 WHERE id = :id;

-- name: lower_dependents
-- Called once when a blocker lands. Two landings may share dependents: both take them in the order of their ids.
UPDATE tasks SET open_blockers = open_blockers - 1
 WHERE id IN (/*pg: SELECT id FROM tasks WHERE id IN ( */ /*:pg*/
              SELECT task_id FROM blockers WHERE blocker_id = :blocker_id
              /*pg: ) ORDER BY id FOR NO KEY UPDATE */ /*:pg*/)
RETURNING id, epic_id, state, open_blockers;

-- name: raise_dependents
-- Called once when a landed blocker is started over.
UPDATE tasks SET open_blockers = open_blockers + 1
 WHERE id IN (SELECT task_id FROM blockers WHERE blocker_id = :blocker_id);

-- name: list_miscounted
SELECT t.id, t.open_blockers, (SELECT count(*) FROM blockers b JOIN tasks x ON x.id = b.blocker_id
                               WHERE b.task_id = t.id AND x.landed_at IS NULL) AS counted
  FROM tasks t
 WHERE t.open_blockers <> (SELECT count(*) FROM blockers b JOIN tasks x ON x.id = b.blocker_id
                            WHERE b.task_id = t.id AND x.landed_at IS NULL);

-- ------------------------------------------------------------ claims

-- name: wake_due
-- What waited for a time that has come is queued again. Nobody waits for a row another host wakes.
UPDATE tasks /*pg: */ INDEXED BY tasks_due /*:pg*/ SET state = 'queued', reason = NULL, detail = NULL, due_at = NULL
 WHERE state = 'waiting' AND due_at <= :now
   /*pg: AND id IN (SELECT id FROM tasks WHERE state = 'waiting' AND due_at <= :now FOR NO KEY UPDATE SKIP LOCKED) */
   /*:pg*/;

-- name: claim_task
-- The best ready task for one worker: priority, then age. Nobody waits for a row another claim holds.
-- That it is ready is asked inside alone: asked again outside, a Postgres without statistics walks the whole ready
-- queue to find the one row (5,000 tasks: 648 pages instead of 7).
UPDATE tasks
   SET state = 'running', fence = fence + 1, claimed_by = :worker_id, lease_until = :lease_until, executing = 0,
       started_at = coalesce(started_at, :now), updated_at = :now
 WHERE id = (SELECT id FROM tasks /*pg: */ INDEXED BY tasks_ready /*:pg*/ WHERE state = 'queued' AND open_blockers = 0
              ORDER BY priority DESC, number LIMIT 1 /*pg: FOR NO KEY UPDATE SKIP LOCKED */ /*:pg*/)
RETURNING *;

-- name: claim_task_of_epic
UPDATE tasks
   SET state = 'running', fence = fence + 1, claimed_by = :worker_id, lease_until = :lease_until, executing = 0,
       started_at = coalesce(started_at, :now), updated_at = :now
 WHERE id = (SELECT id FROM tasks /*pg: */ INDEXED BY tasks_ready_of_epic /*:pg*/ WHERE state = 'queued' AND open_blockers = 0 AND epic_id = :epic_id
              ORDER BY priority DESC, number LIMIT 1 /*pg: FOR NO KEY UPDATE SKIP LOCKED */ /*:pg*/)
RETURNING *;

-- name: claim_task_among
-- :task_ids is a JSON list.
UPDATE tasks
   SET state = 'running', fence = fence + 1, claimed_by = :worker_id, lease_until = :lease_until, executing = 0,
       started_at = coalesce(started_at, :now), updated_at = :now
 WHERE id = (SELECT id FROM tasks WHERE state = 'queued' AND open_blockers = 0
                AND id IN (SELECT /*pg: json_array_elements_text(CAST(:task_ids AS json)) */
                                  value FROM json_each(:task_ids) /*:pg*/)
              ORDER BY priority DESC, number LIMIT 1 /*pg: FOR NO KEY UPDATE SKIP LOCKED */ /*:pg*/)
RETURNING *;

-- name: renew_lease
-- A lease that has ended is never revived, nor one that ended while the transaction waited for the row: Postgres locks
-- it first, then looks, and adds the time since the transaction began (a row that was only locked is not looked at anew).
UPDATE tasks SET lease_until = :lease_until
 WHERE id = /*pg: (SELECT id FROM tasks WHERE id = :id FOR NO KEY UPDATE) */ :id /*:pg*/
   AND fence = :fence AND claimed_by = :worker_id AND state = 'running'
   AND lease_until > /*pg: CAST(:lease_now AS bigint) + CAST(extract(epoch FROM clock_timestamp() - now()) * 1000 AS bigint) */
                     :lease_now /*:pg*/;

-- name: check_claim
SELECT 1 AS held FROM tasks
 WHERE id = :id AND fence = :fence AND claimed_by = :worker_id AND state = 'running' AND lease_until > :lease_now;

-- name: find_held
-- What a worker holds, and the ports that came with it.
SELECT t.id, t.lease_until, p.first_port
  FROM tasks t /*pg: */ INDEXED BY tasks_leased /*:pg*/ LEFT JOIN port_leases p ON p.task_id = t.id AND p.fence = t.fence
 WHERE t.state = 'running' AND t.claimed_by = :worker_id;

-- name: lock_claim
-- As check_claim, and the claim stays as it is until the transaction ends.
SELECT 1 AS held FROM tasks
 WHERE id = /*pg: (SELECT id FROM tasks WHERE id = :id FOR NO KEY UPDATE) */ :id /*:pg*/
   AND fence = :fence AND claimed_by = :worker_id AND state = 'running'
   AND lease_until > /*pg: CAST(:lease_now AS bigint) + CAST(extract(epoch FROM clock_timestamp() - now()) * 1000 AS bigint) */
                     :lease_now /*:pg*/
 /*pg: FOR NO KEY UPDATE */ /*:pg*/;

-- name: start_agent
UPDATE tasks SET executing = 1, executions = executions + 1, updated_at = :now
 WHERE id = /*pg: (SELECT id FROM tasks WHERE id = :id FOR NO KEY UPDATE) */ :id /*:pg*/
   AND fence = :fence AND claimed_by = :worker_id AND state = 'running'
   AND lease_until > /*pg: CAST(:lease_now AS bigint) + CAST(extract(epoch FROM clock_timestamp() - now()) * 1000 AS bigint) */
                     :lease_now /*:pg*/;

-- name: settle_task
-- The only statement that closes a claim from inside.
UPDATE tasks
   SET state = :state, reason = :reason, detail = :detail, due_at = :due_at, claimed_by = NULL, lease_until = NULL,
       executing = 0, attempt = :attempt, failures = :failures, conflicts = :conflicts, troubles = :troubles,
       interruptions = :interruptions, error_class = :error_class, error_message = :error_message,
       error_advice = :error_advice, completed_at = :completed_at, updated_at = :now
 WHERE id = :id AND fence = :fence AND claimed_by = :worker_id AND state = 'running'
RETURNING *;

-- name: rescue_task
-- Taken from a worker whose lease has ended (:lease_now) or who is proven dead (:lease_now far in the future).
UPDATE tasks
   SET state = 'queued', claimed_by = NULL, lease_until = NULL, executing = 0, interruptions = interruptions + 1,
       updated_at = :now
 WHERE id = :id AND fence = :fence AND claimed_by = :worker_id AND state = 'running' AND lease_until <= :lease_now;

-- name: catch_up
-- The repository knows a later fence: this database is an older state of itself. The next claim goes on behind that.
UPDATE tasks SET state = 'queued', fence = :newer, claimed_by = NULL, lease_until = NULL, executing = 0, updated_at = :now
 WHERE id = :id AND fence = :fence AND fence < :newer AND claimed_by = :worker_id AND state = 'running';

-- name: list_expired
SELECT t.id, t.epic_id, t.fence, t.attempt, t.claimed_by, w.host, w.boot_id, w.pid, w.process_started
  FROM tasks t /*pg: */ INDEXED BY tasks_leased /*:pg*/ JOIN workers w ON w.id = t.claimed_by
 WHERE t.state = 'running' AND t.lease_until <= :lease_now
 ORDER BY t.lease_until LIMIT 100;

-- name: list_running
SELECT t.id, t.title, t.epic_id, t.fence, t.attempt, t.claimed_by, t.lease_until, w.host, w.boot_id, w.pid, w.process_started,
       a.started_at AS claimed_at, a.alive_at, a.agent_started_at
  FROM tasks t /*pg: */ INDEXED BY tasks_leased /*:pg*/ JOIN workers w ON w.id = t.claimed_by
  JOIN attempts a ON a.task_id = t.id AND a.fence = t.fence
 WHERE t.state = 'running'
 ORDER BY a.started_at, t.id;

-- ------------------------------------------------------------ the operator's hand

-- name: move_task
-- From outside a claim: allowed only if nothing changed since it was read.
UPDATE tasks
   SET state = :state, reason = :reason, detail = :detail, due_at = :due_at, claimed_by = NULL, lease_until = NULL,
       executing = 0, attempt = :attempt, first_attempt = :first_attempt, failures = :failures,
       conflicts = :conflicts, troubles = 0, fresh = :fresh, error_class = :error_class, error_message = :error_message,
       error_advice = :error_advice, landed_commit = :landed_commit, landed_at = :landed_at,
       completed_at = :completed_at, result = NULL, updated_at = :now
 WHERE id = :id AND fence = :fence AND state = :was;

-- name: record_landed
UPDATE tasks SET landed_commit = :commit_oid, landed_at = :now, updated_at = :now
 WHERE id = :id AND fence = :fence AND claimed_by = :worker_id AND state = 'running' AND landed_at IS NULL;

-- name: complete_published
UPDATE tasks SET state = 'completed', reason = NULL, detail = NULL, due_at = NULL, completed_at = :now, updated_at = :now
 WHERE id = :id AND state = 'waiting' AND reason = 'publish' AND landed_at IS NOT NULL;

-- name: describe_wait
UPDATE tasks SET detail = :detail WHERE id = :id AND state = 'waiting' AND reason = :reason;
