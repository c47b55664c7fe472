-- name: add_attempt
INSERT INTO attempts (task_id, fence, attempt, worker_id, host, pid, started_at, alive_at)
VALUES (:task_id, :fence, :attempt, :worker_id, :host, :pid, :now, :now);

-- name: note_agent
-- Before the agent may act: which process it is, which session it speaks in, where its words go.
UPDATE attempts
   SET agent = :agent, process = :process, marker = :marker, session_id = coalesce(:session_id, session_id),
       resumed = :resumed, agent_started_at = coalesce(agent_started_at, :now), log = :log, base = :base,
       asked = CASE WHEN :asked = 1 THEN 1 ELSE asked END
 WHERE task_id = :task_id AND fence = :fence;

-- name: note_origin
UPDATE attempts SET origin = :origin WHERE task_id = :task_id AND fence = :fence;

-- name: find_agent
SELECT 1 AS found FROM attempts WHERE task_id = :task_id AND fence = :fence AND process = :process;

-- name: note_session
UPDATE attempts SET session_id = :session_id WHERE task_id = :task_id AND fence = :fence;

-- name: note_alive
UPDATE attempts SET alive_at = :alive_at WHERE task_id = :task_id AND fence = :fence AND ended_at IS NULL;

-- name: note_report
-- What was used is always worth knowing; an execution that was closed keeps the outcome it was closed with.
UPDATE attempts
   SET outcome = CASE WHEN ended_at IS NULL THEN CAST(:outcome AS text) ELSE outcome END,
       error = CASE WHEN ended_at IS NULL THEN CAST(:error AS text) ELSE error END,
       resumed = coalesce(:resumed, resumed), session_id = coalesce(:session_id, session_id),
       input_tokens = :input_tokens, output_tokens = :output_tokens, cost_microusd = :cost_microusd,
       turns = :turns, model = :model, words = :words, counted = 1, reserved_microusd = 0, reserved_tokens = 0
 WHERE task_id = :task_id AND fence = :fence;

-- name: end_attempt
UPDATE attempts SET ended_at = :now, outcome = coalesce(:outcome, outcome), error = coalesce(:error, error)
 WHERE task_id = :task_id AND fence = :fence AND ended_at IS NULL;

-- name: list_attempts
SELECT * FROM attempts WHERE task_id = :task_id ORDER BY fence;
