-- name: add_event
INSERT INTO events (type, at, task_id, epic_id, attempt, worker, host, data)
VALUES (:type, :at, :task_id, :epic_id, :attempt, :worker, :host, :data);

-- name: list_events
-- In the order they happened, a page at a time. NULL filters mean all.
SELECT * FROM events
 WHERE seq > :after AND seq <= :last
   AND (CAST(:task_id AS text) IS NULL OR task_id = :task_id)
   AND (CAST(:epic_id AS text) IS NULL OR epic_id = :epic_id)
   AND (CAST(:since AS bigint) IS NULL OR at >= :since)
   AND (CAST(:until AS bigint) IS NULL OR at <= :until)
 ORDER BY seq LIMIT :page;

-- name: last_event
-- The number given last, whether it is committed or not; :seq of an empty log is 0.
/*pg: SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS seq FROM events_seq_seq */
SELECT coalesce(max(seq), 0) AS seq FROM events /*:pg*/;

-- name: first_open_event
-- Below or at this number every event is committed, or never will be. Each transaction that writes holds a lock named
-- after the number that was the last when it began; SQLite has one such transaction at a time.
/*pg: SELECT min(CAST(objid AS bigint)) AS seq FROM pg_locks
       WHERE locktype = 'advisory' AND objsubid = 2 AND granted
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
         AND classid = CAST('events' AS regclass) */
SELECT NULL AS seq /*:pg*/;


