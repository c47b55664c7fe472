TABLE attempts
    task_id text COLLATE "C" NOT NULL
    fence bigint NOT NULL
    attempt bigint NOT NULL
    worker_id text COLLATE "C" NOT NULL
    host text COLLATE "C" NOT NULL
    pid bigint
    agent text COLLATE "C" NOT NULL DEFAULT ''::text
    process text COLLATE "C"
    marker text COLLATE "C"
    started_at bigint NOT NULL
    agent_started_at bigint
    alive_at bigint
    ended_at bigint
    outcome text COLLATE "C"
    resumed text COLLATE "C"
    session_id text COLLATE "C"
    input_tokens bigint NOT NULL DEFAULT 0
    output_tokens bigint NOT NULL DEFAULT 0
    cost_microusd bigint NOT NULL DEFAULT 0
    turns bigint NOT NULL DEFAULT 0
    model text COLLATE "C" NOT NULL DEFAULT ''::text
    error text COLLATE "C"
    log text COLLATE "C"
    base text COLLATE "C"
    counted bigint NOT NULL DEFAULT 0
    asked bigint NOT NULL DEFAULT 0
    words text COLLATE "C" NOT NULL DEFAULT ''::text
    origin text COLLATE "C"
    reserved_microusd bigint NOT NULL DEFAULT 0
    reserved_tokens bigint NOT NULL DEFAULT 0
    purpose text COLLATE "C" NOT NULL DEFAULT 'build'::text
    attempts_purpose_check: CHECK ((purpose = ANY (ARRAY['build'::text, 'plan'::text])))
    attempts_pkey: PRIMARY KEY (task_id, fence)
    CREATE INDEX attempts_counted ON attempts USING btree (worker_id, started_at, task_id, input_tokens, output_tokens, cost_microusd) WHERE (counted = 1)
    CREATE INDEX attempts_open ON attempts USING btree (host) WHERE (ended_at IS NULL)
    CREATE INDEX attempts_uncounted ON attempts USING btree (host, task_id, fence) WHERE ((counted = 0) AND (agent_started_at IS NOT NULL))

TABLE blockers
    task_id text COLLATE "C" NOT NULL
    blocker_id text COLLATE "C" NOT NULL
    kind text COLLATE "C" NOT NULL DEFAULT 'asked'::text
    created_at bigint NOT NULL
    blockers_check: CHECK ((task_id <> blocker_id))
    blockers_kind_check: CHECK ((kind = ANY (ARRAY['asked'::text, 'child'::text, 'order'::text])))
    blockers_pkey: PRIMARY KEY (task_id, blocker_id)
    CREATE INDEX blockers_by_blocker ON blockers USING btree (blocker_id)

TABLE epics
    number bigint NOT NULL DEFAULT identity
    id text COLLATE "C" NOT NULL
    title text COLLATE "C" NOT NULL
    description text COLLATE "C" NOT NULL
    state text COLLATE "C" NOT NULL DEFAULT 'open'::text
    created_at bigint NOT NULL
    closed_at bigint
    epics_check: CHECK (((state = 'closed'::text) = (closed_at IS NOT NULL)))
    epics_state_check: CHECK ((state = ANY (ARRAY['open'::text, 'closed'::text])))
    epics_pkey: PRIMARY KEY (number)
    epics_id_key: UNIQUE (id)

TABLE events
    seq bigint NOT NULL DEFAULT identity
    type text COLLATE "C" NOT NULL
    at bigint NOT NULL
    task_id text COLLATE "C"
    epic_id text COLLATE "C"
    attempt bigint
    worker text COLLATE "C"
    host text COLLATE "C"
    data text COLLATE "C" NOT NULL
    events_pkey: PRIMARY KEY (seq)
    CREATE INDEX events_by_task ON events USING btree (task_id, seq)

TABLE landings
    task_id text COLLATE "C" NOT NULL
    attempt bigint NOT NULL
    fence bigint NOT NULL
    target text COLLATE "C" NOT NULL
    old_oid text COLLATE "C" NOT NULL
    commit_oid text COLLATE "C" NOT NULL
    tree_oid text COLLATE "C" NOT NULL
    state text COLLATE "C" NOT NULL
    created_at bigint NOT NULL
    landed_at bigint
    published_at bigint
    landings_state_check: CHECK ((state = ANY (ARRAY['intent'::text, 'landed'::text, 'published'::text, 'abandoned'::text])))
    landings_task_id_fkey: FOREIGN KEY (task_id) REFERENCES tasks(id)
    landings_pkey: PRIMARY KEY (task_id, attempt, fence)
    CREATE INDEX landings_open ON landings USING btree (target) WHERE (state = ANY (ARRAY['intent'::text, 'landed'::text]))

TABLE lanes
    target text COLLATE "C" NOT NULL
    holder text COLLATE "C" NOT NULL
    until bigint NOT NULL
    lanes_pkey: PRIMARY KEY (target)

TABLE limits
    agent text COLLATE "C" NOT NULL
    until bigint NOT NULL
    reason text COLLATE "C" NOT NULL
    detail text COLLATE "C" NOT NULL
    noted_at bigint NOT NULL
    limits_reason_check: CHECK ((reason = ANY (ARRAY['rate_limited'::text, 'usage_limit'::text])))
    limits_pkey: PRIMARY KEY (agent)

TABLE meta
    key text COLLATE "C" NOT NULL
    value text COLLATE "C" NOT NULL
    meta_pkey: PRIMARY KEY (key)

TABLE plans
    number bigint NOT NULL DEFAULT identity
    id text COLLATE "C" NOT NULL
    task_id text COLLATE "C" NOT NULL
    revision bigint NOT NULL
    parent_id text COLLATE "C"
    state text COLLATE "C" NOT NULL
    draft text COLLATE "C" NOT NULL
    feedback text COLLATE "C" NOT NULL DEFAULT ''::text
    created_at bigint NOT NULL
    decided_at bigint
    decided_by text COLLATE "C"
    plans_revision_check: CHECK ((revision > 0))
    plans_state_check: CHECK ((state = ANY (ARRAY['pending'::text, 'approved'::text, 'rejected'::text])))
    plans_task_id_fkey: FOREIGN KEY (task_id) REFERENCES tasks(id)
    plans_pkey: PRIMARY KEY (number)
    plans_id_key: UNIQUE (id)
    CREATE INDEX plans_of_task ON plans USING btree (task_id)
    CREATE UNIQUE INDEX plans_in_force ON plans USING btree (task_id) WHERE (state <> 'rejected'::text)

TABLE port_leases
    host text COLLATE "C" NOT NULL
    first_port bigint NOT NULL
    task_id text COLLATE "C" NOT NULL
    fence bigint NOT NULL
    leased_at bigint NOT NULL
    port_leases_task_id_fkey: FOREIGN KEY (task_id) REFERENCES tasks(id)
    port_leases_pkey: PRIMARY KEY (host, first_port)
    CREATE INDEX port_leases_by_claim ON port_leases USING btree (task_id, fence)

TABLE proofs
    tree_oid text COLLATE "C" NOT NULL
    command text COLLATE "C" NOT NULL
    passed bigint NOT NULL
    exit_code bigint
    duration_ms bigint NOT NULL
    retries bigint NOT NULL DEFAULT 0
    log text COLLATE "C"
    at bigint NOT NULL
    proofs_pkey: PRIMARY KEY (tree_oid, command)

TABLE runs
    id text COLLATE "C" NOT NULL
    epic_id text COLLATE "C"
    task_ids text COLLATE "C" NOT NULL
    target text COLLATE "C"
    workers bigint NOT NULL
    host text COLLATE "C" NOT NULL
    process text COLLATE "C" NOT NULL
    started_at bigint NOT NULL
    finished_at bigint
    push text COLLATE "C"
    concurrency bigint
    throttle text COLLATE "C"
    throttled_at bigint
    budget_microusd bigint
    mode text COLLATE "C" NOT NULL DEFAULT 'combined'::text
    runs_mode_check: CHECK ((mode = ANY (ARRAY['combined'::text, 'planning'::text, 'building'::text])))
    runs_epic_id_fkey: FOREIGN KEY (epic_id) REFERENCES epics(id)
    runs_pkey: PRIMARY KEY (id)

TABLE spending
    scope text COLLATE "C" NOT NULL
    id text COLLATE "C" NOT NULL
    cost_microusd bigint NOT NULL
    tokens bigint NOT NULL
    executions bigint NOT NULL
    spending_scope_check: CHECK ((scope = ANY (ARRAY['epic'::text, 'run'::text, 'day'::text, 'agent'::text])))
    spending_pkey: PRIMARY KEY (scope, id)

TABLE steps
    task_id text COLLATE "C" NOT NULL
    attempt bigint NOT NULL
    name text COLLATE "C" NOT NULL
    fence bigint NOT NULL
    started_at bigint NOT NULL
    finished_at bigint NOT NULL
    result text COLLATE "C" NOT NULL
    steps_task_id_fkey: FOREIGN KEY (task_id) REFERENCES tasks(id)
    steps_pkey: PRIMARY KEY (task_id, attempt, name)

TABLE task_labels
    task_id text COLLATE "C" NOT NULL
    label text COLLATE "C" NOT NULL
    task_labels_task_id_fkey: FOREIGN KEY (task_id) REFERENCES tasks(id)
    task_labels_pkey: PRIMARY KEY (task_id, label)
    CREATE INDEX task_labels_by_label ON task_labels USING btree (label)

TABLE tasks
    number bigint NOT NULL DEFAULT identity
    id text COLLATE "C" NOT NULL
    title text COLLATE "C" NOT NULL
    description text COLLATE "C" NOT NULL
    epic_id text COLLATE "C"
    parent_id text COLLATE "C"
    sequence bigint
    type text COLLATE "C" NOT NULL
    priority bigint NOT NULL
    key text COLLATE "C"
    agent text COLLATE "C"
    test_mode text COLLATE "C"
    test_scope text COLLATE "C"
    test_command text COLLATE "C"
    timeout_ms bigint
    max_attempts bigint
    allow_no_change bigint NOT NULL DEFAULT 0
    state text COLLATE "C" NOT NULL DEFAULT 'queued'::text
    reason text COLLATE "C"
    detail text COLLATE "C"
    due_at bigint
    open_blockers bigint NOT NULL DEFAULT 0
    attempt bigint NOT NULL DEFAULT 1
    first_attempt bigint NOT NULL DEFAULT 1
    failures bigint NOT NULL DEFAULT 0
    conflicts bigint NOT NULL DEFAULT 0
    troubles bigint NOT NULL DEFAULT 0
    executions bigint NOT NULL DEFAULT 0
    interruptions bigint NOT NULL DEFAULT 0
    fence bigint NOT NULL DEFAULT 0
    claimed_by text COLLATE "C"
    lease_until bigint
    executing bigint NOT NULL DEFAULT 0
    fresh bigint NOT NULL DEFAULT 0
    error_class text COLLATE "C"
    error_message text COLLATE "C"
    error_advice text COLLATE "C"
    landed_commit text COLLATE "C"
    landed_at bigint
    created_by text COLLATE "C"
    created_at bigint NOT NULL
    updated_at bigint NOT NULL
    started_at bigint
    completed_at bigint
    input text COLLATE "C"
    result text COLLATE "C"
    plan text COLLATE "C"
    tasks_check: CHECK (((state = 'running'::text) = ((claimed_by IS NOT NULL) AND (lease_until IS NOT NULL))))
    tasks_check1: CHECK (((state <> 'waiting'::text) OR (reason IS NOT NULL)))
    tasks_check2: CHECK (((state = 'completed'::text) = (completed_at IS NOT NULL)))
    tasks_check3: CHECK (((state <> 'completed'::text) OR (landed_at IS NOT NULL)))
    tasks_check4: CHECK (((due_at IS NULL) OR (state = 'waiting'::text)))
    tasks_open_blockers_check: CHECK ((open_blockers >= 0))
    tasks_plan_check: CHECK ((plan = ANY (ARRAY['pending'::text, 'approved'::text, 'rejected'::text])))
    tasks_state_check: CHECK ((state = ANY (ARRAY['queued'::text, 'running'::text, 'waiting'::text, 'paused'::text, 'completed'::text, 'failed'::text, 'cancelled'::text])))
    tasks_test_mode_check: CHECK ((test_mode = ANY (ARRAY['strict'::text, 'lenient'::text, 'disabled'::text])))
    tasks_test_scope_check: CHECK ((test_scope = ANY (ARRAY['all'::text, 'diff'::text, 'skip'::text])))
    tasks_claimed_by_fkey: FOREIGN KEY (claimed_by) REFERENCES workers(id)
    tasks_epic_id_fkey: FOREIGN KEY (epic_id) REFERENCES epics(id)
    tasks_parent_id_fkey: FOREIGN KEY (parent_id) REFERENCES tasks(id)
    tasks_pkey: PRIMARY KEY (number)
    tasks_id_key: UNIQUE (id)
    tasks_key_key: UNIQUE (key)
    CREATE INDEX tasks_by_epic ON tasks USING btree (epic_id, number) WHERE (epic_id IS NOT NULL)
    CREATE INDEX tasks_by_parent ON tasks USING btree (parent_id, sequence) WHERE (parent_id IS NOT NULL)
    CREATE INDEX tasks_dead ON tasks USING btree (state, number) WHERE (state = ANY (ARRAY['failed'::text, 'cancelled'::text]))
    CREATE INDEX tasks_due ON tasks USING btree (due_at) WHERE ((state = 'waiting'::text) AND (due_at IS NOT NULL))
    CREATE INDEX tasks_leased ON tasks USING btree (lease_until) WHERE (state = 'running'::text)
    CREATE INDEX tasks_paused ON tasks USING btree (number) WHERE (state = 'paused'::text)
    CREATE INDEX tasks_ready ON tasks USING btree (priority DESC, number) WHERE ((state = 'queued'::text) AND (open_blockers = 0))
    CREATE INDEX tasks_ready_of_epic ON tasks USING btree (epic_id, priority DESC, number) WHERE ((state = 'queued'::text) AND (open_blockers = 0) AND (epic_id IS NOT NULL))
    CREATE INDEX tasks_waiting ON tasks USING btree (reason, landed_at) WHERE (state = 'waiting'::text)

TABLE words
    number bigint NOT NULL DEFAULT identity
    task_id text COLLATE "C" NOT NULL
    kind text COLLATE "C" NOT NULL
    text text COLLATE "C" NOT NULL
    question text COLLATE "C"
    said_by text COLLATE "C"
    said_at bigint NOT NULL
    told_at bigint
    told_fence bigint
    told_how text COLLATE "C"
    words_check: CHECK ((((told_at IS NULL) = (told_fence IS NULL)) AND ((told_at IS NULL) = (told_how IS NULL))))
    words_kind_check: CHECK ((kind = ANY (ARRAY['hint'::text, 'answer'::text])))
    words_told_how_check: CHECK ((told_how = ANY (ARRAY['session'::text, 'turn'::text])))
    words_task_id_fkey: FOREIGN KEY (task_id) REFERENCES tasks(id)
    words_pkey: PRIMARY KEY (number)
    CREATE INDEX words_of_task ON words USING btree (task_id, number)

TABLE workers
    id text COLLATE "C" NOT NULL
    run_id text COLLATE "C"
    host text COLLATE "C" NOT NULL
    boot_id text COLLATE "C" NOT NULL
    pid bigint NOT NULL
    process_started bigint NOT NULL
    started_at bigint NOT NULL
    stopped_at bigint
    seen_at bigint NOT NULL DEFAULT 0
    workers_run_id_fkey: FOREIGN KEY (run_id) REFERENCES runs(id)
    workers_pkey: PRIMARY KEY (id)
    CREATE INDEX workers_at_work ON workers USING btree (host) WHERE (stopped_at IS NULL)
