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
    p_ends text, p_now bigint, p_lease_ms bigint, p_lease_now bigint, p_idle bigint) RETURNS json
LANGUAGE plpgsql
-- A few rows of large tables, each by its key: planned once, and so whatever the statistics say, or if there are none.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $function$
DECLARE
    v_newest bigint;
    v_ended text[];
    v_ends text;
    v_ready text[];
    v_workers text;
    v_taken json;
    v_ids text := '[]';
    v_results json;
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
    WITH ended AS ({finish_tasks}) SELECT array_agg(key) INTO v_ended FROM ended;
    SELECT coalesce(json_agg(value), '[]'),
           coalesce(json_agg(DISTINCT value ->> 4) FILTER (WHERE value ->> 4 IS NOT NULL), '[]') INTO v_ends, v_workers
      FROM json_array_elements(CAST(p_ends AS json)) WHERE (value ->> 0) || ' ' || (value ->> 1) = ANY (v_ended);
    {end_attempts};
    PERFORM count(*) FROM ({lock_dependents}) AS locked;
    WITH lowered AS ({lower_all_dependents})
    SELECT coalesce(array_agg(id), '{}') INTO v_ready FROM lowered WHERE state = 'queued' AND open_blockers = 0;
    IF v_workers <> '[]' THEN
        WITH started AS ({start_tasks})
        SELECT json_agg(started), coalesce(json_agg(id), '[]') INTO v_taken, v_ids FROM started;
        {add_attempts};
        SELECT json_agg(results) INTO v_results FROM ({list_results_of_blockers}) AS results;
    END IF;
    {tell_ends_and_claims};
    v_spare := greatest(0, cardinality(v_ready) - json_array_length(CAST(v_ids AS json)));
    IF v_spare > p_idle THEN
        PERFORM pg_notify({channel}, {token});
    END IF;
    RETURN json_build_object(
        'ended', v_ended, 'spare', v_spare, 'rang', v_spare > p_idle, 'taken', v_taken, 'results', v_results);
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
    names = (
        "share_graph", "finish_tasks", "end_attempts", "lock_dependents", "lower_all_dependents", "start_tasks",
        "add_attempts", "list_results_of_blockers", "tell_ends_and_claims",
    )  # fmt: skip
    known = {"now": "p_now", "ends": "v_ends", "workers": "v_workers", "lease_until": "v_lease_until", "ids": "v_ids"}
    known |= {"ready": "CAST(array_to_json(v_ready) AS text)"}
    parts = {name: _with(name, **known) for name in names}
    parts |= {"finish_tasks": _with("finish_tasks", now="p_now", ends="p_ends")}
    parts |= {"place": PLACE, "channel": _literal(channel), "token": _literal(token), "newest": str(newest)}
    return re.sub(r"\{(\w+)\}", lambda match: parts[match[1]], _FINISH)


def _with(query: str, **values: str) -> str:
    """A query with expressions in the places of its parameters."""
    return _PARAMETER.sub(lambda match: values[match[1]], load("postgres")[query])


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
