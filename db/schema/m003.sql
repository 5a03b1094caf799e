CREATE TABLE worker (
    id TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    started_at DATETIME NOT NULL,
    beat_at DATETIME NOT NULL,
    stopped_at DATETIME,
    taken_by TEXT,
    PRIMARY KEY (id)
);
CREATE INDEX worker_alive ON worker (beat_at) WHERE stopped_at IS NULL;
CREATE TABLE rate (
    provider TEXT NOT NULL,
    base_url TEXT NOT NULL,
    model TEXT NOT NULL,
    requests_limit FLOAT,
    tokens_limit FLOAT,
    requests_pace FLOAT,
    tokens_pace FLOAT,
    requests_peak FLOAT,
    tokens_peak FLOAT,
    requests_left FLOAT NOT NULL,
    tokens_left FLOAT NOT NULL,
    refilled_at DATETIME NOT NULL,
    paused_until DATETIME,
    cut_at DATETIME,
    changed_at DATETIME NOT NULL,
    PRIMARY KEY (provider, base_url, model)
);
CREATE TABLE queue_cap (
    provider TEXT NOT NULL,
    base_url TEXT NOT NULL,
    model TEXT NOT NULL,
    tokens BIGINT NOT NULL,
    holds_until DATETIME NOT NULL,
    PRIMARY KEY (provider, base_url, model),
    CONSTRAINT cap_is_positive CHECK (tokens > 0)
);
ALTER TABLE batch ADD COLUMN lane TEXT NOT NULL DEFAULT 'batch' CONSTRAINT batch_lane_word CHECK (lane = 'batch'
    OR lane = 'background');
ALTER TABLE batch ADD COLUMN completion_window TEXT;
ALTER TABLE batch ADD COLUMN input_tokens BIGINT NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN prefix TEXT;
CREATE INDEX job_next ON job (priority DESC, (deadline_at IS NULL), deadline_at, id, run_after, provider, model)
    WHERE NOT (state <> 'queued') AND (lane = 'sync' OR lane = 'stream')
