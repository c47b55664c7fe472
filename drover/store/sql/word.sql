-- name: add_word
INSERT INTO words (task_id, kind, text, question, said_by, said_at)
VALUES (:task_id, :kind, :text, :question, :said_by, :now)
RETURNING *;

-- name: list_words
SELECT * FROM words WHERE task_id = :task_id ORDER BY number;

-- name: list_untold
-- What the agent cannot be known to have: it was never told, or in an execution that was cut off before it could end.
SELECT w.* FROM words w
 WHERE w.task_id = :task_id
   AND (w.told_at IS NULL
        OR (w.told_fence <> :fence
            AND EXISTS (SELECT 1 FROM attempts a WHERE a.task_id = w.task_id AND a.fence = w.told_fence
                           AND (a.outcome IS NULL OR a.outcome IN ('interrupted', 'cancelled', 'paused', 'reset')))))
 ORDER BY w.number;

-- name: note_told
UPDATE words SET told_at = :now, told_fence = :fence, told_how = :how
 WHERE task_id = :task_id AND number = :number;
