CREATE TABLE attempts (
    task_id text NOT NULL REFERENCES tasks (id),
    fence bigint NOT NULL,
    attempt bigint NOT NULL,
    worker_id text NOT NULL REFERENCES workers (id),
    host text NOT NULL,
    pid bigint,
    agent text NOT NULL DEFAULT '',
    process text,
    marker text,
    started_at bigint NOT NULL,
    agent_started_at bigint,
    alive_at bigint,
    ended_at bigint,
    outcome text,
    resumed text,
    session_id text,
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    cost_microusd bigint NOT NULL DEFAULT 0,
    turns bigint NOT NULL DEFAULT 0,
    model text NOT NULL DEFAULT '',
    error text,
    log text,
    base text, counted bigint NOT NULL DEFAULT 0, asked bigint NOT NULL DEFAULT 0, words text NOT NULL DEFAULT '', origin text, reserved_microusd bigint NOT NULL DEFAULT 0, reserved_tokens bigint NOT NULL DEFAULT 0, purpose text NOT NULL DEFAULT 'build' CHECK (purpose IN ('build', 'plan')),
    PRIMARY KEY (task_id, fence)
)  WITHOUT ROWID ;

CREATE INDEX attempts_counted ON attempts (worker_id, started_at, task_id, input_tokens, output_tokens, cost_microusd)
 WHERE counted = 1;

CREATE INDEX attempts_open ON attempts (host) WHERE ended_at IS NULL;

CREATE INDEX attempts_uncounted ON attempts (host, task_id, fence) WHERE counted = 0 AND agent_started_at IS NOT NULL;

CREATE TABLE blockers (
    task_id text NOT NULL REFERENCES tasks (id),
    blocker_id text NOT NULL REFERENCES tasks (id),
    kind text NOT NULL DEFAULT 'asked' CHECK (kind IN ('asked', 'child', 'order')),
    created_at bigint NOT NULL,
    PRIMARY KEY (task_id, blocker_id),
    CHECK (task_id <> blocker_id)
)  WITHOUT ROWID ;

CREATE INDEX blockers_by_blocker ON blockers (blocker_id);

CREATE TABLE epics (
    number  integer  PRIMARY KEY,
    id text NOT NULL UNIQUE,
    title text NOT NULL,
    description text NOT NULL,
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed')),
    created_at bigint NOT NULL,
    closed_at bigint,
    CHECK ((state = 'closed') = (closed_at IS NOT NULL))
);

CREATE TABLE events (
    seq  integer PRIMARY KEY AUTOINCREMENT ,
    type text NOT NULL,
    at bigint NOT NULL,
    task_id text,
    epic_id text,
    attempt bigint,
    worker text,
    host text,
    data text NOT NULL -- a JSON object
);

CREATE INDEX events_by_task ON events (task_id, seq);

CREATE TABLE landings (
    task_id text NOT NULL REFERENCES tasks (id),
    attempt bigint NOT NULL,
    fence bigint NOT NULL,
    target text NOT NULL,
    old_oid text NOT NULL,
    commit_oid text NOT NULL,
    tree_oid text NOT NULL,
    state text NOT NULL CHECK (state IN ('intent', 'landed', 'published', 'abandoned')),
    created_at bigint NOT NULL,
    landed_at bigint,
    published_at bigint,
    PRIMARY KEY (task_id, attempt, fence)
);

CREATE INDEX landings_open ON landings (target) WHERE state IN ('intent', 'landed');

CREATE TABLE lanes (
    target text NOT NULL PRIMARY KEY,
    holder text NOT NULL,
    until bigint NOT NULL
)  WITHOUT ROWID ;

CREATE TABLE limits (
    agent text NOT NULL PRIMARY KEY,
    until bigint NOT NULL,
    reason text NOT NULL CHECK (reason IN ('rate_limited', 'usage_limit')),
    detail text NOT NULL,
    noted_at bigint NOT NULL
);

CREATE TABLE meta (
    key text NOT NULL PRIMARY KEY,
    value text NOT NULL
);

CREATE TABLE plans (
    number  integer  PRIMARY KEY,
    id text NOT NULL UNIQUE,
    task_id text NOT NULL REFERENCES tasks (id),
    revision bigint NOT NULL CHECK (revision > 0),
    parent_id text,
    state text NOT NULL CHECK (state IN ('pending', 'approved', 'rejected')),
    draft text NOT NULL,
    feedback text NOT NULL DEFAULT '',
    created_at bigint NOT NULL,
    decided_at bigint,
    decided_by text
);

CREATE UNIQUE INDEX plans_in_force ON plans (task_id) WHERE state <> 'rejected';

CREATE INDEX plans_of_task ON plans (task_id);

CREATE TABLE port_leases (
    host text NOT NULL,
    first_port bigint NOT NULL,
    task_id text NOT NULL REFERENCES tasks (id),
    fence bigint NOT NULL,
    leased_at bigint NOT NULL,
    PRIMARY KEY (host, first_port)
);

CREATE INDEX port_leases_by_claim ON port_leases (task_id, fence);

CREATE TABLE proofs (
    tree_oid text NOT NULL,
    command text NOT NULL,
    passed bigint NOT NULL,
    exit_code bigint,
    duration_ms bigint NOT NULL,
    retries bigint NOT NULL DEFAULT 0,
    log text,
    at bigint NOT NULL,
    PRIMARY KEY (tree_oid, command)
);

CREATE TABLE runs (
    id text NOT NULL PRIMARY KEY,
    epic_id text REFERENCES epics (id),
    task_ids text NOT NULL, -- JSON list
    target text,
    workers bigint NOT NULL,
    host text NOT NULL,
    process text NOT NULL,
    started_at bigint NOT NULL,
    finished_at bigint
, push text, concurrency bigint, throttle text, throttled_at bigint, budget_microusd bigint, mode text NOT NULL DEFAULT 'combined' CHECK (mode IN ('combined', 'planning', 'building')));

CREATE TABLE spending (
    scope text NOT NULL CHECK (scope IN ('epic', 'run', 'day', 'agent')),
    id text NOT NULL,
    cost_microusd bigint NOT NULL,
    tokens bigint NOT NULL,
    executions bigint NOT NULL,
    PRIMARY KEY (scope, id)
)  WITHOUT ROWID ;

CREATE TABLE steps (
    task_id text NOT NULL REFERENCES tasks (id),
    attempt bigint NOT NULL,
    name text NOT NULL,
    fence bigint NOT NULL,
    started_at bigint NOT NULL,
    finished_at bigint NOT NULL,
    result text NOT NULL,
    PRIMARY KEY (task_id, attempt, name)
);

CREATE TABLE task_labels (
    task_id text NOT NULL REFERENCES tasks (id),
    label text NOT NULL,
    PRIMARY KEY (task_id, label)
)  WITHOUT ROWID ;

CREATE INDEX task_labels_by_label ON task_labels (label);

CREATE TABLE tasks (
    number  integer  PRIMARY KEY,
    id text NOT NULL UNIQUE,
    title text NOT NULL,
    description text NOT NULL,
    epic_id text REFERENCES epics (id),
    parent_id text REFERENCES tasks (id),
    sequence bigint,
    type text NOT NULL,
    priority bigint NOT NULL,
    key text UNIQUE,
    agent text,
    test_mode text CHECK (test_mode IN ('strict', 'lenient', 'disabled')),
    test_scope text CHECK (test_scope IN ('all', 'diff', 'skip')),
    test_command text,
    timeout_ms bigint,
    max_attempts bigint,
    allow_no_change bigint NOT NULL DEFAULT 0,

    state text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'waiting', 'paused', 'completed', 'failed', 'cancelled')),
    reason text,
    detail text,
    due_at bigint,
    open_blockers bigint NOT NULL DEFAULT 0 CHECK (open_blockers >= 0),
    attempt bigint NOT NULL DEFAULT 1,
    first_attempt bigint NOT NULL DEFAULT 1,
    failures bigint NOT NULL DEFAULT 0,
    conflicts bigint NOT NULL DEFAULT 0,
    troubles bigint NOT NULL DEFAULT 0,
    executions bigint NOT NULL DEFAULT 0,
    interruptions bigint NOT NULL DEFAULT 0,
    fence bigint NOT NULL DEFAULT 0,
    claimed_by text REFERENCES workers (id),
    lease_until bigint,
    executing bigint NOT NULL DEFAULT 0,
    fresh bigint NOT NULL DEFAULT 0, -- its first attempt starts without what an earlier generation left
    error_class text,
    error_message text,
    error_advice text,
    landed_commit text,
    landed_at bigint,
    created_by text,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    started_at bigint,
    completed_at bigint, input text, result text, plan text CHECK (plan IN ('pending', 'approved', 'rejected')),

    CHECK ((state = 'running') = (claimed_by IS NOT NULL AND lease_until IS NOT NULL)),
    CHECK (state <> 'waiting' OR reason IS NOT NULL),
    CHECK ((state = 'completed') = (completed_at IS NOT NULL)),
    CHECK (state <> 'completed' OR landed_at IS NOT NULL),
    CHECK (due_at IS NULL OR state = 'waiting')
);

CREATE INDEX tasks_by_epic ON tasks (epic_id, number) WHERE epic_id IS NOT NULL;

CREATE INDEX tasks_by_parent ON tasks (parent_id, sequence) WHERE parent_id IS NOT NULL;

CREATE INDEX tasks_dead ON tasks (state, number) WHERE state IN ('failed', 'cancelled');

CREATE INDEX tasks_due ON tasks (due_at) WHERE state = 'waiting' AND due_at IS NOT NULL;

CREATE INDEX tasks_leased ON tasks (lease_until) WHERE state = 'running';

CREATE INDEX tasks_paused ON tasks (number) WHERE state = 'paused';

CREATE INDEX tasks_ready ON tasks (priority DESC, number) WHERE state = 'queued' AND open_blockers = 0;

CREATE INDEX tasks_ready_of_epic ON tasks (epic_id, priority DESC, number)
    WHERE state = 'queued' AND open_blockers = 0 AND epic_id IS NOT NULL;

CREATE INDEX tasks_waiting ON tasks (reason, landed_at) WHERE state = 'waiting';

CREATE TABLE words (
    number  integer  PRIMARY KEY,
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

CREATE TABLE workers (
    id text NOT NULL PRIMARY KEY,
    run_id text REFERENCES runs (id),
    host text NOT NULL,
    boot_id text NOT NULL,
    pid bigint NOT NULL,
    process_started bigint NOT NULL,
    started_at bigint NOT NULL,
    stopped_at bigint
, seen_at bigint NOT NULL DEFAULT 0);

CREATE INDEX workers_at_work ON workers (host) WHERE stopped_at IS NULL;
