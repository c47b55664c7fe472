-- What a person said to a task's agent: it is told in its running session where it can hear, else with its next turn.

CREATE TABLE words (
    number /*pg: bigint GENERATED ALWAYS AS IDENTITY */ integer /*:pg*/ PRIMARY KEY,
    task_id text NOT NULL REFERENCES tasks (id),
    kind text NOT NULL CHECK (kind IN ('hint', 'answer')),
    text text NOT NULL,
    question text, -- that an answer answers
    said_by text,
    said_at bigint NOT NULL,
    told_at bigint,
    told_fence bigint, -- of the execution that was told
    told_how text CHECK (told_how IN ('session', 'turn')),
    CHECK ((told_at IS NULL) = (told_fence IS NULL) AND (told_at IS NULL) = (told_how IS NULL))
);
CREATE INDEX words_of_task ON words (task_id, number);
