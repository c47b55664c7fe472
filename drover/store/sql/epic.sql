-- name: add_epic
INSERT INTO epics (id, title, description, created_at) VALUES (:id, :title, :description, :now)
ON CONFLICT (id) DO NOTHING;

-- name: find_epic
SELECT * FROM epics WHERE id = :id;

-- name: list_epics
SELECT * FROM epics ORDER BY number;

-- name: list_epic_ids_between
SELECT id FROM epics WHERE id >= :low AND id < :high ORDER BY id LIMIT 3;

-- name: count_epic_tasks
SELECT epic_id, count(*) AS total, count(completed_at) AS completed
  FROM tasks WHERE epic_id IS NOT NULL GROUP BY epic_id;

-- name: close_epic
UPDATE epics SET state = 'closed', closed_at = :now WHERE id = :id AND state = 'open';
