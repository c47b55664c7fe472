-- What an execution used is counted once, also when nobody saw its end; that an agent which changed nothing was asked
-- about it; and its last words, for a session that goes on with its work on another host.

ALTER TABLE attempts ADD COLUMN counted bigint NOT NULL DEFAULT 0;

ALTER TABLE attempts ADD COLUMN asked bigint NOT NULL DEFAULT 0;

ALTER TABLE attempts ADD COLUMN words text NOT NULL DEFAULT '';

UPDATE attempts SET counted = 1
 WHERE agent_started_at IS NOT NULL AND outcome IS NOT NULL AND outcome <> 'interrupted';

CREATE INDEX attempts_uncounted ON attempts (host, task_id, fence) WHERE counted = 0 AND agent_started_at IS NOT NULL;

CREATE INDEX attempts_counted ON attempts (worker_id, started_at, task_id, input_tokens, output_tokens, cost_microusd)
 WHERE counted = 1;
