-- name: note_limit
-- The later end wins: of two executions that ran into one limit, one may know less about it.
INSERT INTO limits (agent, until, reason, detail, noted_at) VALUES (:agent, :until, :reason, :detail, :now)
ON CONFLICT (agent) DO UPDATE
   SET until = excluded.until, reason = excluded.reason, detail = excluded.detail, noted_at = excluded.noted_at
 WHERE limits.until < excluded.until;

-- name: lift_limit
DELETE FROM limits WHERE agent = :agent;

-- name: wake_limited
-- Those that wait for the end of an agent's limit. Their agents' words for it are the reason they wait.
UPDATE tasks SET state = 'queued', reason = NULL, detail = NULL, due_at = NULL, updated_at = :now
 WHERE state = 'waiting' AND reason IN ('rate_limited', 'usage_limit')
   AND (agent = :agent OR (agent IS NULL AND :is_default = 1));

-- name: list_limits
-- Those that stand at :now. The table has a row for each type of agent that was ever limited.
SELECT agent, until, reason, detail, noted_at FROM limits WHERE until > :now ORDER BY agent;
