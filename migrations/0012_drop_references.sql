-- Postgres looks up the other end of a reference by a statement of its own: two for each blocker, two for each claim.
-- What is inserted into these tables was read in the same transaction, and neither a task nor a worker is ever deleted.
-- list_references still tells of them, so `drover db check` looks them up. SQLite looks them up at no such cost.
/*pg: ALTER TABLE blockers DROP CONSTRAINT blockers_task_id_fkey, DROP CONSTRAINT blockers_blocker_id_fkey */
SELECT 1 /*:pg*/;

/*pg: ALTER TABLE attempts DROP CONSTRAINT attempts_task_id_fkey, DROP CONSTRAINT attempts_worker_id_fkey */
SELECT 1 /*:pg*/;
