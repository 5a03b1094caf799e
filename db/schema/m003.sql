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
    requests_left FLOAT NOT NULL,
    tokens_left FLOAT NOT NULL,
    refilled_at DATETIME NOT NULL,
    paused_until DATETIME,
    changed_at DATETIME NOT NULL,
    PRIMARY KEY (provider, base_url, model)
);
CREATE TABLE queue_cap (
    provider TEXT NOT NULL,
    base_url TEXT NOT NULL,
    model TEXT NOT NULL,
    tokens BIGINT NOT NULL,
    learned_at DATETIME NOT NULL,
    PRIMARY KEY (provider, base_url, model),
    CONSTRAINT cap_is_positive CHECK (tokens > 0)
);
ALTER TABLE batch ADD COLUMN lane TEXT NOT NULL DEFAULT 'batch' CONSTRAINT batch_lane_word CHECK (lane = 'batch'
    OR lane = 'background');
ALTER TABLE batch ADD COLUMN completion_window TEXT;
ALTER TABLE batch ADD COLUMN input_tokens BIGINT NOT NULL DEFAULT 0
