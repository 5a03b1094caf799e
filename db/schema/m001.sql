CREATE TABLE migration (
    number INTEGER NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    applied_at TEXT NOT NULL
);
CREATE TABLE batch (
    id TEXT NOT NULL,
    state TEXT NOT NULL,
    provider TEXT NOT NULL,
    base_url TEXT NOT NULL,
    model TEXT NOT NULL,
    rows INTEGER NOT NULL,
    packed_at DATETIME NOT NULL,
    leave_by DATETIME,
    upload_intent_at DATETIME,
    file_id TEXT,
    create_intent_at DATETIME,
    create_tries INTEGER NOT NULL,
    provider_batch_id TEXT,
    status TEXT,
    done INTEGER NOT NULL,
    output_file_id TEXT,
    error_file_id TEXT,
    submitted_at DATETIME,
    expires_at DATETIME,
    next_poll_at DATETIME NOT NULL,
    cancel_at DATETIME,
    ended_at DATETIME,
    imported_at DATETIME,
    error TEXT,
    lease_by TEXT,
    lease_until DATETIME,
    PRIMARY KEY (id),
    CONSTRAINT state_word CHECK (state = 'packed' OR state = 'uploaded' OR state = 'submitted' OR state =
        'unsure' OR state = 'ended' OR state = 'imported'),
    CONSTRAINT submitted_is_known CHECK (state <> 'submitted' OR provider_batch_id IS NOT NULL),
    CONSTRAINT imported_has_time CHECK ((state = 'imported') = (imported_at IS NOT NULL)),
    CONSTRAINT has_rows CHECK (rows > 0)
);
CREATE INDEX batch_open ON batch (next_poll_at) WHERE state <> 'imported';
CREATE UNIQUE INDEX batch_provider ON batch (provider, base_url, provider_batch_id);
CREATE TABLE decision (
    id TEXT NOT NULL,
    class TEXT NOT NULL,
    lane TEXT NOT NULL,
    tier TEXT NOT NULL,
    rule TEXT NOT NULL,
    reason TEXT NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_p50 INTEGER NOT NULL,
    output_p90 INTEGER NOT NULL,
    cost_nano BIGINT,
    cost_p90_nano BIGINT,
    finish_by DATETIME NOT NULL,
    "plan" JSON NOT NULL,
    options JSON NOT NULL,
    policy TEXT NOT NULL,
    decided_at DATETIME NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT lane_word CHECK (lane = 'stream' OR lane = 'sync' OR lane = 'background' OR lane = 'batch'),
    CONSTRAINT tier_word CHECK (tier = 'default' OR tier = 'flex' OR tier = 'fast')
);
CREATE TABLE setting (
    "key" TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY ("key")
);
CREATE TABLE submission (
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    submitted_at DATETIME NOT NULL,
    accepted INTEGER NOT NULL,
    duplicates INTEGER NOT NULL,
    rejected INTEGER NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE job (
    id TEXT NOT NULL,
    row_key TEXT NOT NULL,
    client_key TEXT,
    submission_id TEXT NOT NULL,
    decision_id TEXT NOT NULL,
    state TEXT NOT NULL,
    step INTEGER NOT NULL,
    lane TEXT NOT NULL,
    tier TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    interactive BOOLEAN NOT NULL,
    priority INTEGER NOT NULL,
    tags JSON,
    attempts INTEGER NOT NULL,
    submitted_at DATETIME NOT NULL,
    run_after DATETIME NOT NULL,
    deadline_at DATETIME,
    leave_by DATETIME,
    finished_at DATETIME,
    lease_by TEXT,
    lease_until DATETIME,
    batch_id TEXT,
    error_code TEXT,
    error TEXT,
    PRIMARY KEY (id),
    CONSTRAINT state_word CHECK (state = 'queued' OR state = 'running' OR state = 'submitted' OR state =
        'succeeded' OR state = 'failed' OR state = 'cancelled'),
    CONSTRAINT lane_word CHECK (lane = 'stream' OR lane = 'sync' OR lane = 'background' OR lane = 'batch'),
    CONSTRAINT tier_word CHECK (tier = 'default' OR tier = 'flex' OR tier = 'fast'),
    CONSTRAINT final_is_finished CHECK ((state = 'cancelled' OR state = 'failed' OR state = 'succeeded') =
        (finished_at IS NOT NULL)),
    CONSTRAINT running_is_leased CHECK ((state = 'running') = (lease_until IS NOT NULL)),
    CONSTRAINT lease_has_owner CHECK ((lease_until IS NULL) = (lease_by IS NULL)),
    CONSTRAINT submitted_has_batch CHECK (state <> 'submitted' OR batch_id IS NOT NULL),
    CONSTRAINT failed_says_why CHECK (state <> 'failed' OR error IS NOT NULL),
    CONSTRAINT counts CHECK (attempts >= 0 AND step >= 0),
    UNIQUE (row_key),
    FOREIGN KEY(submission_id) REFERENCES submission (id),
    FOREIGN KEY(decision_id) REFERENCES decision (id),
    FOREIGN KEY(batch_id) REFERENCES batch (id)
);
CREATE INDEX job_batch ON job (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX job_client_key ON job (client_key) WHERE client_key IS NOT NULL;
CREATE INDEX job_due ON job (lane, provider, model, run_after) WHERE state = 'queued';
CREATE INDEX job_leased ON job (lease_until) WHERE state = 'running';
CREATE INDEX job_state ON job (state);
CREATE INDEX job_submission ON job (submission_id);
CREATE TABLE attempt (
    job_id TEXT NOT NULL,
    n INTEGER NOT NULL,
    state TEXT NOT NULL,
    lane TEXT NOT NULL,
    tier TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    batch_id TEXT,
    sent_at DATETIME NOT NULL,
    ended_at DATETIME,
    first_token_ms FLOAT,
    total_ms FLOAT,
    input_tokens INTEGER,
    cached_tokens INTEGER,
    cache_write_tokens INTEGER,
    output_tokens INTEGER,
    reasoning_tokens INTEGER,
    cost_nano BIGINT,
    cost_source TEXT NOT NULL,
    standard_nano BIGINT,
    at_risk_nano BIGINT,
    price TEXT,
    request_id TEXT,
    error_code TEXT,
    error TEXT,
    PRIMARY KEY (job_id, n),
    CONSTRAINT state_word CHECK (state = 'sent' OR state = 'ok' OR state = 'failed' OR state = 'expired' OR
        state = 'cancelled' OR state = 'unknown'),
    CONSTRAINT lane_word CHECK (lane = 'stream' OR lane = 'sync' OR lane = 'background' OR lane = 'batch'),
    CONSTRAINT cost_source_word CHECK (cost_source = 'reported' OR cost_source = 'computed' OR cost_source =
        'assumed' OR cost_source = 'unknown'),
    CONSTRAINT unknown_is_null CHECK ((cost_nano IS NULL) = (cost_source = 'unknown')),
    CONSTRAINT cost_not_negative CHECK (cost_nano >= 0),
    CONSTRAINT settled_has_end CHECK ((state = 'sent') = (ended_at IS NULL)),
    CONSTRAINT counted_from_one CHECK (n >= 1),
    FOREIGN KEY(job_id) REFERENCES job (id),
    FOREIGN KEY(batch_id) REFERENCES batch (id)
);
CREATE INDEX attempt_batch ON attempt (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX attempt_open ON attempt (lane, sent_at) WHERE state IN ('sent', 'unknown');
CREATE INDEX attempt_sent_at ON attempt (sent_at);
CREATE TABLE body (
    job_id TEXT NOT NULL,
    body TEXT NOT NULL,
    post_process TEXT,
    PRIMARY KEY (job_id),
    FOREIGN KEY(job_id) REFERENCES job (id)
);
CREATE TABLE result (
    job_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    text TEXT NOT NULL,
    refusal TEXT,
    tool_calls JSON,
    choices JSON,
    finish_reason TEXT,
    truncated BOOLEAN NOT NULL,
    partial BOOLEAN NOT NULL,
    output TEXT,
    stored_at DATETIME NOT NULL,
    PRIMARY KEY (job_id),
    FOREIGN KEY(job_id) REFERENCES job (id)
)
