-- name: add_event
INSERT INTO events (type, at, task_id, epic_id, attempt, worker, host, data)
VALUES (:type, :at, :task_id, :epic_id, :attempt, :worker, :host, :data);

-- name: list_events
-- In the order they happened, a page at a time. NULL filters mean all.
SELECT * FROM events
 WHERE seq > :after
   AND (CAST(:task_id AS text) IS NULL OR task_id = :task_id)
   AND (CAST(:epic_id AS text) IS NULL OR epic_id = :epic_id)
   AND (CAST(:since AS bigint) IS NULL OR at >= :since)
   AND (CAST(:until AS bigint) IS NULL OR at <= :until)
 ORDER BY seq LIMIT :page;

-- name: last_seq
SELECT coalesce(max(seq), 0) AS seq FROM events;
