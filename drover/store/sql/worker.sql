-- name: add_worker
INSERT INTO workers (id, run_id, host, boot_id, pid, process_started, started_at, seen_at)
VALUES (:id, :run_id, :host, :boot_id, :pid, :process_started, :now, :seen_at);

-- name: stop_worker
UPDATE workers SET stopped_at = :now WHERE id = :id AND stopped_at IS NULL;

-- name: note_seen
-- A worker that was taken for gone and says that it is there is there.
UPDATE workers SET seen_at = :seen_at, stopped_at = NULL WHERE run_id = :run_id;

-- name: stop_unseen
-- Workers that hold nothing and were not seen since.
UPDATE workers SET stopped_at = :now
 WHERE stopped_at IS NULL AND seen_at < :before
   AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.state = 'running' AND t.claimed_by = workers.id);

-- name: list_others_at_work
-- Runs on other hosts whose workers were seen since.
SELECT w.host, r.push, r.target, max(w.seen_at) AS seen_at
  FROM workers w JOIN runs r ON r.id = w.run_id
 WHERE w.stopped_at IS NULL AND w.host <> :host AND w.seen_at >= :since
 GROUP BY w.host, r.push, r.target
 ORDER BY w.host;

-- name: list_workers
SELECT * FROM workers WHERE stopped_at IS NULL ORDER BY started_at, id;

-- name: add_run
INSERT INTO runs (id, epic_id, task_ids, target, mode, workers, host, process, push, budget_microusd, started_at)
VALUES (:id, :epic_id, :task_ids, :target, :mode, :workers, :host, :process, :push, :budget_microusd, :now);

-- name: finish_run
UPDATE runs SET finished_at = :now WHERE id = :id AND finished_at IS NULL;

-- name: find_run
SELECT * FROM runs WHERE id = :id;

-- name: throttle_run
-- Since when it has fewer at work than it was asked for does not change with how many those are.
UPDATE runs SET concurrency = :concurrency, throttle = :throttle,
       throttled_at = CASE WHEN CAST(:concurrency AS bigint) IS NOT NULL
                           THEN coalesce(throttled_at, CAST(:now AS bigint)) END
 WHERE id = :id AND finished_at IS NULL;

-- name: list_open_runs
SELECT * FROM runs WHERE finished_at IS NULL ORDER BY started_at, id;

-- name: last_run
SELECT * FROM runs ORDER BY started_at DESC, id DESC LIMIT 1;

-- name: find_meta
SELECT value FROM meta WHERE key = :key;

-- name: set_meta
INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: settle_meta
-- A fact that stays as it was written first.
INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO NOTHING;

-- name: find_greeting
-- What a command asks before all else: whose store it is, and whether anything was ever added to it.
SELECT (SELECT value FROM meta WHERE key = 'repository') AS repository,
       CASE WHEN EXISTS (SELECT 1 FROM tasks) OR EXISTS (SELECT 1 FROM epics) THEN 1 ELSE 0 END AS filled;
