-- name: add_intent
INSERT INTO landings (task_id, attempt, fence, target, old_oid, commit_oid, tree_oid, state, created_at)
VALUES (:task_id, :attempt, :fence, :target, :old_oid, :commit_oid, :tree_oid, 'intent', :now)
ON CONFLICT (task_id, attempt, fence) DO UPDATE
   SET target = excluded.target, old_oid = excluded.old_oid, commit_oid = excluded.commit_oid,
       tree_oid = excluded.tree_oid, state = 'intent', created_at = excluded.created_at;

-- name: close_intents
-- The outcome: one commit landed for the task; every other intent of it came to nothing.
UPDATE landings
   SET state = CASE WHEN commit_oid = :commit_oid THEN 'landed' ELSE 'abandoned' END,
       landed_at = CASE WHEN commit_oid = :commit_oid THEN CAST(:now AS bigint) ELSE NULL END
 WHERE task_id = :task_id AND state = 'intent';

-- name: abandon_intent
UPDATE landings SET state = 'abandoned' WHERE task_id = :task_id AND attempt = :attempt AND fence = :fence AND state = 'intent';

-- name: publish_landing
UPDATE landings SET state = 'published', published_at = :now
 WHERE task_id = :task_id AND commit_oid = :commit_oid AND state = 'landed';

-- name: list_landings
SELECT * FROM landings WHERE task_id = :task_id ORDER BY fence;

-- name: list_open_landings
SELECT * FROM landings WHERE target = :target AND state IN ('intent', 'landed') ORDER BY created_at, task_id;

-- name: list_unpublished
-- Landed in the lane, not yet in the target branch.
SELECT id, epic_id, attempt, landed_commit FROM tasks
 WHERE state = 'waiting' AND reason = 'publish' AND landed_at IS NOT NULL ORDER BY landed_at, id;

-- name: find_proof
SELECT * FROM proofs WHERE tree_oid = :tree_oid AND command = :command;

-- name: add_proof
INSERT INTO proofs (tree_oid, command, passed, exit_code, duration_ms, retries, log, at)
VALUES (:tree_oid, :command, :passed, :exit_code, :duration_ms, :retries, :log, :now)
ON CONFLICT (tree_oid, command) DO UPDATE
   SET passed = excluded.passed, exit_code = excluded.exit_code, duration_ms = excluded.duration_ms,
       retries = excluded.retries, log = excluded.log, at = excluded.at;

-- name: take_lane
-- The turn to land, when nobody has it or its holder's has ended. Its holder may have it for longer.
INSERT INTO lanes (target, holder, until) VALUES (:target, :holder, :until)
ON CONFLICT (target) DO UPDATE SET holder = excluded.holder, until = excluded.until
 WHERE lanes.holder = excluded.holder OR lanes.until <= CAST(:lease_now AS bigint);

-- name: leave_lane
DELETE FROM lanes WHERE target = :target AND holder = :holder;
