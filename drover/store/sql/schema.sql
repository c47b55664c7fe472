-- name: list_columns
-- Every column of every table that migrations made. place: where it stands in the primary key, 0 when it does not.
/*pg: SELECT c.relname AS name, a.attname AS column_name,
             coalesce(1 + array_position(CAST(i.indkey AS smallint[]), a.attnum), 0) AS place
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
       WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relkind = 'r'
       ORDER BY c.relname, a.attnum */
SELECT s.name AS name, c.name AS column_name, c.pk AS place
  FROM sqlite_schema s JOIN pragma_table_info(s.name) c
 WHERE s.type = 'table' AND s.name NOT LIKE 'sqlite#_%' ESCAPE '#'
 ORDER BY s.name, c.cid /*:pg*/;

-- name: list_references
-- Every column of every foreign key, and the column it has to be found in. Migration 12 has taken four from Postgres.
/*pg: SELECT name, reference, other, mine, theirs FROM (
        SELECT c.relname AS name, k.conname AS reference, f.relname AS other, a.attname AS mine, b.attname AS theirs,
               p.place
          FROM pg_constraint k
          JOIN pg_class c ON c.oid = k.conrelid
          JOIN pg_class f ON f.oid = k.confrelid
         CROSS JOIN unnest(k.conkey, k.confkey) WITH ORDINALITY p (mine, theirs, place)
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.mine
          JOIN pg_attribute b ON b.attrelid = f.oid AND b.attnum = p.theirs
         WHERE k.contype = 'f' AND c.relnamespace = to_regnamespace(quote_ident(current_schema()))
         UNION ALL
        SELECT name, mine, other, mine, 'id', 1
          FROM (VALUES ('attempts', 'task_id', 'tasks'), ('attempts', 'worker_id', 'workers'),
                       ('blockers', 'task_id', 'tasks'), ('blockers', 'blocker_id', 'tasks')) AS v (name, mine, other)
        ) AS found
       ORDER BY name, reference, place */
SELECT s.name AS name, k.id AS reference, k."table" AS other, k."from" AS mine, k."to" AS theirs
  FROM sqlite_schema s JOIN pragma_foreign_key_list(s.name) k
 WHERE s.type = 'table'
 ORDER BY s.name, k.id, k.seq /*:pg*/;

-- name: list_indexes
-- The indexes that migrations made by name; those of keys have names of the database's own.
/*pg: SELECT x.relname AS name
        FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
       WHERE x.relnamespace = to_regnamespace(quote_ident(current_schema())) AND i.indisvalid
         AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = x.oid)
       ORDER BY 1 */
SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL ORDER BY 1 /*:pg*/;

-- name: list_numbered
-- Columns whose numbers the database gives; SQLite goes on behind the largest by itself.
/*pg: SELECT c.relname AS name, a.attname AS column_name
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attidentity <> ''
       WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relkind = 'r' */
SELECT '' AS name, '' AS column_name WHERE false /*:pg*/;

-- name: check_integrity
-- What SQLite finds wrong with its file. A Postgres finds damage when a page is read; see drover.store.audit.
/*pg: SELECT '' AS message WHERE false */
SELECT integrity_check AS message FROM pragma_integrity_check(20) WHERE integrity_check <> 'ok' /*:pg*/;
