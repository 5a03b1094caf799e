CREATE TABLE budget (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    limit_nano BIGINT NOT NULL,
    period TEXT NOT NULL,
    tag_key TEXT,
    tag_value TEXT,
    zone TEXT NOT NULL,
    created_at DATETIME NOT NULL,
    ended_at DATETIME,
    PRIMARY KEY (id),
    CONSTRAINT period_word CHECK (period = 'day' OR period = 'month' OR period = 'total'),
    CONSTRAINT limit_is_positive CHECK (limit_nano > 0),
    CONSTRAINT tag_has_value CHECK ((tag_key IS NULL) = (tag_value IS NULL))
);
CREATE UNIQUE INDEX budget_name ON budget (name) WHERE ended_at IS NULL;
CREATE TABLE budget_period (
    budget_id TEXT NOT NULL,
    starts_at DATETIME NOT NULL,
    ends_at DATETIME,
    spent_nano BIGINT NOT NULL,
    reserved_nano BIGINT NOT NULL,
    warned_at DATETIME,
    full_at DATETIME,
    PRIMARY KEY (budget_id, starts_at),
    CONSTRAINT spent_not_negative CHECK (spent_nano >= 0),
    CONSTRAINT reserved_not_negative CHECK (reserved_nano >= 0),
    FOREIGN KEY(budget_id) REFERENCES budget (id)
);
CREATE TABLE attempt_budget (
    job_id TEXT NOT NULL,
    n INTEGER NOT NULL,
    budget_id TEXT NOT NULL,
    starts_at DATETIME NOT NULL,
    PRIMARY KEY (job_id, n, budget_id),
    FOREIGN KEY(job_id, n) REFERENCES attempt (job_id, n),
    FOREIGN KEY(budget_id, starts_at) REFERENCES budget_period (budget_id, starts_at)
);
CREATE INDEX attempt_budget_period ON attempt_budget (budget_id, starts_at);
ALTER TABLE attempt ADD COLUMN reserved_nano BIGINT CONSTRAINT reservation_not_negative CHECK (reserved_nano >= 0);
ALTER TABLE attempt ADD COLUMN output_cap INTEGER;
ALTER TABLE job ADD COLUMN max_cost_nano BIGINT;
CREATE INDEX job_capped ON job (id) WHERE max_cost_nano IS NOT NULL AND finished_at IS NULL
