ALTER TABLE attempt ADD COLUMN served_model TEXT;
ALTER TABLE attempt ADD COLUMN cache_write_1h_tokens INTEGER;
ALTER TABLE attempt ADD COLUMN input_audio_tokens INTEGER;
ALTER TABLE attempt ADD COLUMN output_audio_tokens INTEGER;
ALTER TABLE attempt ADD COLUMN web_searches INTEGER;
ALTER TABLE attempt ADD COLUMN adjusted_nano BIGINT CONSTRAINT adjusted_not_negative CHECK (adjusted_nano >= 0);
ALTER TABLE attempt ADD COLUMN adjusted_standard_nano BIGINT;
CREATE TABLE repricing (
    id TEXT NOT NULL,
    prices TEXT NOT NULL,
    since DATETIME NOT NULL,
    until DATETIME,
    made_at DATETIME NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE adjustment (
    repricing_id TEXT NOT NULL,
    job_id TEXT NOT NULL,
    n INTEGER NOT NULL,
    before_nano BIGINT,
    after_nano BIGINT NOT NULL,
    difference_nano BIGINT NOT NULL,
    cost_source TEXT NOT NULL,
    price TEXT NOT NULL,
    PRIMARY KEY (repricing_id, job_id, n),
    CONSTRAINT difference_adds_up CHECK (difference_nano = after_nano - coalesce(before_nano, 0)),
    CONSTRAINT adjustment_not_negative CHECK (after_nano >= 0),
    FOREIGN KEY(repricing_id) REFERENCES repricing (id),
    FOREIGN KEY(job_id, n) REFERENCES attempt (job_id, n)
);
CREATE INDEX adjustment_attempt ON adjustment (job_id, n);
DROP VIEW job_costs;
CREATE VIEW job_costs AS
    SELECT job.id AS job, job.client_key, job.state, decision.class, job.lane, job.model, job.provider,
        job.submitted_at, job.finished_at,
        (SELECT sum(coalesce(adjusted_nano, cost_nano)) / 1e9 FROM attempt WHERE attempt.job_id = job.id) AS cost_usd,
        (SELECT count(*) FROM attempt WHERE attempt.job_id = job.id AND coalesce(adjusted_nano, cost_nano) IS NULL)
            AS unknown_attempts,
        result.text AS answer, job.error_code, job.error
    FROM job JOIN decision ON decision.id = job.decision_id LEFT JOIN result ON result.job_id = job.id
