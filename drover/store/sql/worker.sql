-- name: add_worker
INSERT INTO workers (id, run_id, host, boot_id, pid, process_started, started_at)
VALUES (:id, :run_id, :host, :boot_id, :pid, :process_started, :now);

-- name: stop_worker
UPDATE workers SET stopped_at = :now WHERE id = :id AND stopped_at IS NULL;

-- name: list_workers
SELECT * FROM workers WHERE stopped_at IS NULL ORDER BY started_at, id;

-- name: add_run
INSERT INTO runs (id, epic_id, task_ids, target, workers, host, process, started_at)
VALUES (:id, :epic_id, :task_ids, :target, :workers, :host, :process, :now);

-- name: finish_run
UPDATE runs SET finished_at = :now WHERE id = :id AND finished_at IS NULL;

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
