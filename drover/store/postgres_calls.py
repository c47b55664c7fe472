"""A verb as one function of the server's: one message instead of eleven, for the verb that is called most.

The function does what the statements of ``plain.sql`` do elsewhere, in fewer: here a change can hand what it has
changed to the next. It belongs to the session (``pg_temp``), so nothing of it stays in the schema, and
every process brings the one that it knows.
"""

from __future__ import annotations

import re

from drover.store.queries import load

_FINISH = """
CREATE OR REPLACE FUNCTION pg_temp.drover_finish(
    p_ends text, p_now bigint, p_lease_ms bigint, p_lease_now bigint, p_idle bigint) RETURNS json
LANGUAGE plpgsql
-- A few rows of large tables, each by its key: planned once, and so whatever the statistics say, or if there are none.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $function$
DECLARE
    v_newest bigint;
    v_ids text[];
    v_fences bigint[];
    v_holders text[];
    v_results text[];
    v_thens text[];
    v_ended text[];
    v_told text[];
    v_workers text[];
    v_priority bigint;
    v_number bigint;
    v_next bigint[];
    v_begun text[] := '{}';
    v_taken json[];
    v_given json[];
    v_ready bigint;
    v_spare bigint;
    v_lease_until bigint := p_lease_ms
        + coalesce(p_lease_now, CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint));
BEGIN
    SELECT max(number) INTO v_newest FROM drover_migrations;
    IF v_newest > {newest} THEN
        RETURN json_build_object('schema', v_newest);
    END IF;
    PERFORM {place};
    {share_graph};
    SELECT array_agg(value ->> 0), array_agg(CAST(value ->> 1 AS bigint)), array_agg(value ->> 2),
           array_agg(value ->> 3), array_agg(value ->> 4)
      INTO v_ids, v_fences, v_holders, v_results, v_thens FROM jsonb_array_elements(CAST(p_ends AS jsonb));

    -- What is running has a lease. Asked for by its state it would be looked for among all that were running lately.
    WITH ended AS (
        UPDATE tasks
           SET state = 'completed', result = e.result, landed_at = p_now, completed_at = p_now, claimed_by = NULL,
               lease_until = NULL, executing = 0, troubles = 0, error_class = NULL, error_message = NULL,
               error_advice = NULL, updated_at = p_now
          FROM unnest(v_ids, v_fences, v_holders, v_results, v_thens) AS e (id, fence, holder, result, then_by)
         WHERE tasks.id = ANY (v_ids) AND tasks.id = e.id AND tasks.fence = e.fence AND tasks.claimed_by = e.holder
           AND tasks.lease_until IS NOT NULL
        RETURNING tasks.id, tasks.fence, tasks.title, tasks.epic_id, tasks.attempt, e.holder, e.then_by
    ), closed AS (
        UPDATE attempts SET ended_at = p_now, outcome = 'done' FROM ended
         WHERE attempts.task_id = ANY (v_ids) AND task_id = ended.id AND attempts.fence = ended.fence
           AND ended_at IS NULL
    ), told AS (
        INSERT INTO events (type, at, task_id, epic_id, attempt, worker, data)
        SELECT 'task.completed', p_now, id, epic_id, attempt, holder,
               CAST(json_build_object('title', title, 'fence', fence) AS text) FROM ended
    )
    SELECT array_agg(id), array_agg(id || ' ' || fence), array_agg(DISTINCT then_by) FILTER (WHERE then_by IS NOT NULL)
      INTO v_ended, v_told, v_workers FROM ended;

    -- Two groups that end may share dependents: both take them in the order of their ids, and the second waits from
    -- then on for the COMMIT of the first. So the next tasks are taken before where they come before any dependent, and
    -- only the others after.
    FOR v_turn IN 1..2 LOOP
        IF v_turn = 2 THEN
            WITH lowered AS (
                UPDATE tasks SET open_blockers = open_blockers - f.ended
                  FROM (SELECT task_id, count(*) AS ended, min(blocker_id) AS after FROM blockers
                         WHERE blocker_id = ANY (v_ended) GROUP BY task_id ORDER BY task_id) AS f
                 WHERE tasks.id = f.task_id
                RETURNING tasks.id, f.after, tasks.state = 'queued' AND tasks.open_blockers = 0 AS ready
            ), told AS (
                INSERT INTO events (type, at, task_id, data)
                SELECT 'task.ready', p_now, id, CAST(json_build_object('after', after) AS text)
                  FROM lowered WHERE ready
            )
            SELECT count(*) INTO v_ready FROM lowered WHERE ready;
        END IF;
        CONTINUE WHEN v_workers IS NULL OR cardinality(v_workers) = cardinality(v_begun);
        IF v_turn = 1 THEN
            SELECT max(priority), min(number) INTO v_priority, v_number
              FROM tasks WHERE id IN (SELECT task_id FROM blockers WHERE blocker_id = ANY (v_ended));
            SELECT array_agg(number) INTO v_next
              FROM (SELECT number, priority FROM tasks WHERE state = 'queued' AND open_blockers = 0
                     ORDER BY priority DESC, number LIMIT 2 * cardinality(v_workers)) AS best
             WHERE v_number IS NULL OR priority > v_priority OR priority = v_priority AND number < v_number;
            CONTINUE WHEN v_next IS NULL;
            SELECT array_agg(number) INTO v_next
              FROM (SELECT number FROM tasks WHERE number = ANY (v_next) AND state = 'queued' AND open_blockers = 0
                     ORDER BY priority DESC, number LIMIT cardinality(v_workers) FOR NO KEY UPDATE SKIP LOCKED) AS best;
        ELSE
            SELECT array_agg(number) INTO v_next
              FROM (SELECT number FROM tasks WHERE state = 'queued' AND open_blockers = 0
                     ORDER BY priority DESC, number
                     LIMIT cardinality(v_workers) - cardinality(v_begun) FOR NO KEY UPDATE SKIP LOCKED) AS best;
        END IF;
        CONTINUE WHEN v_next IS NULL;
        WITH begun AS (
            UPDATE tasks
               SET state = 'running', fence = fence + 1, claimed_by = r.worker, lease_until = v_lease_until,
                   executing = 1, executions = executions + 1, started_at = coalesce(started_at, p_now),
                   updated_at = p_now
              FROM unnest(v_next, v_workers[cardinality(v_begun) + 1:]) AS r (number, worker)
             WHERE tasks.number = ANY (v_next) AND tasks.number = r.number
            RETURNING tasks.*
        ), opened AS (
            INSERT INTO attempts (task_id, fence, attempt, worker_id, host, pid, started_at, alive_at)
            SELECT b.id, b.fence, b.attempt, w.id, w.host, w.pid, p_now, p_now
              FROM begun b JOIN workers w ON w.id = b.claimed_by
        ), told AS (
            INSERT INTO events (type, at, task_id, epic_id, attempt, worker, data)
            SELECT 'task.claimed', p_now, id, epic_id, attempt, claimed_by,
                   CAST(json_build_object('title', title, 'fence', fence) AS text) FROM begun
        )
        SELECT v_taken || array_agg(to_json(begun)), array_agg(id) INTO v_taken, v_ids FROM begun;
        v_begun := v_begun || v_ids;
        SELECT v_given || array_agg(to_json(given)) INTO v_given
          FROM (SELECT b.task_id, b.blocker_id, t.result FROM blockers b JOIN tasks t ON t.id = b.blocker_id
                 WHERE b.task_id = ANY (v_ids) AND t.landed_at IS NOT NULL) AS given;
    END LOOP;
    v_spare := greatest(0, v_ready - cardinality(v_begun));
    IF v_spare > p_idle THEN
        PERFORM pg_notify({channel}, {token});
    END IF;
    RETURN json_build_object(
        'ended', v_told, 'spare', v_spare, 'rang', v_spare > p_idle, 'taken', v_taken, 'results', v_given);
END
$function$
"""
CALL = "SELECT pg_temp.drover_finish(:ends, :now, :lease_ms, :lease_now, :idle) AS done"
# See first_open_event: whoever writes says below which number it cannot add an event any more.
PLACE = """pg_advisory_xact_lock_shared(
    CAST(CAST(CAST('events' AS regclass) AS oid) AS integer),
    CAST(CASE WHEN is_called THEN last_value & 2147483647 ELSE 0 END AS integer)) FROM events_seq_seq"""


def make_finish(channel: str, token: str, newest: int) -> str:
    """The statement that makes the function, for a session whose notifications are told on ``channel``.

    In a schema with a migration after ``newest`` it does nothing but say so.
    """
    parts = {"place": PLACE, "share_graph": load("postgres")["share_graph"], "newest": str(newest)}
    parts |= {"channel": _literal(channel), "token": _literal(token)}
    return re.sub(r"\{(\w+)\}", lambda match: parts[match[1]], _FINISH)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
