-- name: note_limit
-- The later end wins: of two executions that ran into one limit, one may know less about it.
INSERT INTO limits (agent, until, reason, detail, noted_at) VALUES (:agent, :until, :reason, :detail, :now)
ON CONFLICT (agent) DO UPDATE
   SET until = excluded.until, reason = excluded.reason, detail = excluded.detail, noted_at = excluded.noted_at
 WHERE limits.until < excluded.until;

-- name: lift_limit
DELETE FROM limits WHERE agent = :agent;

-- name: list_limits
-- Those that stand at :now. The table has a row for each type of agent that was ever limited.
SELECT agent, until, reason, detail, noted_at FROM limits WHERE until > :now ORDER BY agent;
