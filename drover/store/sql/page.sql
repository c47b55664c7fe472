-- name: list_tasks_page
-- In the order they were added, after the task :after. NULL filters mean all; :states is a JSON list.
SELECT * FROM tasks
 WHERE number > coalesce((SELECT number FROM tasks WHERE id = :after), 0)
   AND (CAST(:epic_id AS text) IS NULL OR epic_id = :epic_id)
   AND (CAST(:states AS text) IS NULL
        OR state IN (SELECT /*pg: json_array_elements_text(CAST(:states AS json)) */ value FROM json_each(:states) /*:pg*/))
   AND (CAST(:label AS text) IS NULL
        OR EXISTS (SELECT 1 FROM task_labels WHERE task_id = tasks.id AND label = :label))
 ORDER BY number LIMIT :page;

-- name: list_tasks_among
SELECT * FROM tasks
 WHERE id IN (SELECT /*pg: json_array_elements_text(CAST(:ids AS json)) */ value FROM json_each(:ids) /*:pg*/);

-- name: list_edges_among
-- Labels, blockers and dependents of the tasks of a JSON list.
SELECT task_id AS id, 'label' AS kind, label AS other FROM task_labels
 WHERE task_id IN (SELECT /*pg: json_array_elements_text(CAST(:ids AS json)) */ value FROM json_each(:ids) /*:pg*/)
UNION ALL SELECT task_id, 'blocker', blocker_id FROM blockers
 WHERE task_id IN (SELECT /*pg: json_array_elements_text(CAST(:ids AS json)) */ value FROM json_each(:ids) /*:pg*/)
UNION ALL SELECT blocker_id, 'dependent', task_id FROM blockers
 WHERE blocker_id IN (SELECT /*pg: json_array_elements_text(CAST(:ids AS json)) */ value FROM json_each(:ids) /*:pg*/)
 ORDER BY 3;
