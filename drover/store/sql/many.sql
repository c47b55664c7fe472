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

-- name: tell_created
-- That the tasks of a JSON list were created.
INSERT INTO events (type, at, task_id, epic_id, data)
SELECT 'task.created', CAST(:now AS bigint), id, epic_id,
       /*pg: CAST(json_build_object('title', title, 'by', created_by) AS text) */
       json_object('title', title, 'by', created_by) /*:pg*/
  FROM tasks
 WHERE id IN (SELECT /*pg: json_array_elements_text(CAST(:ids AS json)) */ value FROM json_each(:ids) /*:pg*/)
 ORDER BY number;

-- name: add_tasks
-- :tasks is a JSON list of a list of values each, in the order of the columns. Fewer are added when an id or key is taken.
INSERT INTO tasks (id, title, description, epic_id, type, priority, key, agent, test_mode, test_scope,
                   test_command, timeout_ms, max_attempts, allow_no_change, input, open_blockers, created_by,
                   created_at, updated_at)
SELECT /*pg: value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, CAST(value ->> 5 AS bigint), value ->>
       6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, CAST(value ->> 11 AS bigint), CAST(value ->> 12
       AS bigint), CAST(value ->> 13 AS bigint), value ->> 14, CAST(value ->> 15 AS bigint), CAST(:by AS text),
       CAST(:now AS bigint), CAST(:now AS bigint)
  FROM jsonb_array_elements(CAST(:tasks AS jsonb)) WHERE true */
       json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
       json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
       json_extract(value, '$[6]'), json_extract(value, '$[7]'), json_extract(value, '$[8]'),
       json_extract(value, '$[9]'), json_extract(value, '$[10]'), json_extract(value, '$[11]'),
       json_extract(value, '$[12]'), json_extract(value, '$[13]'), json_extract(value, '$[14]'),
       json_extract(value, '$[15]'), :by, :now, :now
  FROM json_each(:tasks) WHERE true /*:pg*/
ON CONFLICT DO NOTHING;

-- name: list_ids_among
SELECT id FROM tasks
 WHERE id IN (SELECT /*pg: json_array_elements_text(CAST(:ids AS json)) */ value FROM json_each(:ids) /*:pg*/);

-- name: list_ids_of_keys
SELECT id, key FROM tasks
 WHERE key IN (SELECT /*pg: json_array_elements_text(CAST(:keys AS json)) */ value FROM json_each(:keys) /*:pg*/);

-- name: add_blockers
-- :edges is a JSON list of [task_id, blocker_id] of tasks that have just been added.
INSERT INTO blockers (task_id, blocker_id, created_at)
SELECT /*pg: value ->> 0, value ->> 1, CAST(:now AS bigint) FROM jsonb_array_elements(CAST(:edges AS jsonb)) */
       json_extract(value, '$[0]'), json_extract(value, '$[1]'), :now FROM json_each(:edges) /*:pg*/;

-- name: recount_blockers_among
-- For tasks that have just been added, whose counters are zero. Counted once for all of them: without statistics Postgres
-- would read the whole backlog for each.
UPDATE tasks SET open_blockers = counted.n
  FROM (SELECT b.task_id, count(*) AS n FROM blockers b JOIN tasks t ON t.id = b.blocker_id
         WHERE t.landed_at IS NULL
           AND b.task_id IN (SELECT /*pg: json_array_elements_text(CAST(:ids AS json)) */ value FROM json_each(:ids) /*:pg*/)
         GROUP BY b.task_id) AS counted
 WHERE tasks.id = counted.task_id;
