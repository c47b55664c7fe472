"""A verb as one function of the server's: one message instead of eleven, for the verb that is called most.

The function is made of the very statements that the verb runs elsewhere. It belongs to the session (``pg_temp``), so
nothing of it stays in the schema, and every process brings the one that it knows.
"""

from __future__ import annotations

import re

from drover.store.queries import load

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)\b")

_FINISH = """
CREATE OR REPLACE FUNCTION pg_temp.drover_finish(
    p_id text, p_fence bigint, p_worker_id text, p_result text, p_now bigint, p_attempt bigint, p_epic_id text,
    p_data text, p_host text, p_pid bigint, p_lease_ms bigint, p_lease_now bigint, p_idle bigint) RETURNS json
LANGUAGE plpgsql AS $function$
DECLARE
    v_newest bigint;
    v_changed bigint;
    v_row record;
    v_task record;
    v_ready bigint := 0;
    v_rang boolean;
    v_lease_until bigint := p_lease_ms
        + coalesce(p_lease_now, CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint));
BEGIN
    SELECT max(number) INTO v_newest FROM drover_migrations;
    IF v_newest > {newest} THEN
        RETURN json_build_object('schema', v_newest);
    END IF;
    PERFORM {place};
    {share_graph};
    {finish_task};
    GET DIAGNOSTICS v_changed = ROW_COUNT;
    IF v_changed <> 1 THEN
        RETURN NULL;
    END IF;
    {end_attempt};
    {completed};
    FOR v_row IN {lower_dependents} LOOP
        IF v_row.open_blockers = 0 AND v_row.state = 'queued' THEN
            v_ready := v_ready + 1;
            {ready};
        END IF;
    END LOOP;
    {start_task} INTO v_task;
    IF v_task.id IS NOT NULL THEN
        {add_attempt};
        {claimed};
    END IF;
    v_rang := v_ready > p_idle + CASE WHEN v_task.id IS NULL THEN 0 ELSE 1 END;
    IF v_rang THEN
        PERFORM pg_notify({channel}, {token});
    END IF;
    RETURN json_build_object(
        'pid', pg_backend_pid(), 'ready', v_ready, 'rang', v_rang, 'lease_until', v_lease_until,
        'task', CASE WHEN v_task.id IS NULL THEN NULL ELSE row_to_json(v_task) END,
        'results', (SELECT json_agg(results) FROM ({list_results_of_blockers}) AS results));
END
$function$
"""
CALL = (
    "SELECT pg_temp.drover_finish(:id, :fence, :worker_id, :result, :now, :attempt, :epic_id, :data, :host, :pid,"
    " :lease_ms, :lease_now, :idle) AS done"
)
# See first_open_event: whoever writes says below which number it cannot add an event any more.
PLACE = """pg_advisory_xact_lock_shared(
    CAST(CAST(CAST('events' AS regclass) AS oid) AS integer),
    CAST(CASE WHEN is_called THEN last_value & 2147483647 ELSE 0 END AS integer)) FROM events_seq_seq"""


def make_finish(channel: str, token: str, newest: int) -> str:
    """The statement that makes the function, for a session whose notifications are told on ``channel``.

    In a schema with a migration after ``newest`` it does nothing but say so.
    """
    claimed = "'{\"title\": ' || to_json(v_task.title) || ', \"fence\": ' || v_task.fence || '}'"
    ready = "'{\"after\": ' || to_json(p_id) || '}'"
    new = {"task_id": "v_task.id", "fence": "v_task.fence", "attempt": "v_task.attempt", "epic_id": "v_task.epic_id"}
    parts = {
        "place": PLACE,
        "share_graph": _with("share_graph"),
        "finish_task": _with("finish_task"),
        "end_attempt": _with("end_attempt", task_id="p_id", outcome="'done'", error="NULL"),
        "completed": _event("task.completed", "p_data", task_id="p_id"),
        "lower_dependents": _with("lower_dependents", blocker_id="p_id"),
        "ready": _event("task.ready", ready, task_id="v_row.id", epic_id="NULL", attempt="NULL", worker="NULL"),
        "start_task": _with("start_task", lease_until="v_lease_until"),
        "add_attempt": _with("add_attempt", **new),
        "claimed": _event("task.claimed", claimed, **new),
        "list_results_of_blockers": _with("list_results_of_blockers", task_id="v_task.id"),
        "channel": _literal(channel),
        "token": _literal(token),
        "newest": str(newest),
    }
    return re.sub(r"\{(\w+)\}", lambda match: parts[match[1]], _FINISH)


def _event(type: str, data: str, **values: str) -> str:
    known = {"worker": "p_worker_id", "host": "NULL"}
    return _with("add_event", type=_literal(type), at="p_now", data=data, **{**known, **values})


def _with(query: str, **values: str) -> str:
    """A query with expressions in the places of its parameters; else those of the function."""
    return _PARAMETER.sub(lambda match: values.get(match[1], f"p_{match[1]}"), load("postgres")[query])


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
