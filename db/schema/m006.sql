CREATE TABLE rollup (
    tags TEXT NOT NULL,
    begins_at DATETIME NOT NULL,
    lane TEXT NOT NULL,
    class TEXT NOT NULL,
    tier TEXT NOT NULL,
    model TEXT NOT NULL,
    provider TEXT NOT NULL,
    state TEXT NOT NULL,
    error_code TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    jobs BIGINT NOT NULL,
    priced BIGINT NOT NULL,
    cost_nano BIGINT NOT NULL,
    standard_nano BIGINT NOT NULL,
    at_risk_nano BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    cached_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    compared BIGINT NOT NULL,
    paid_nano BIGINT NOT NULL,
    plain_nano BIGINT NOT NULL,
    PRIMARY KEY (tags, begins_at, lane, class, tier, model, provider, state, error_code)
);
CREATE TABLE rollup_times (
    begins_at DATETIME NOT NULL,
    lane TEXT NOT NULL,
    class TEXT NOT NULL,
    tier TEXT NOT NULL,
    model TEXT NOT NULL,
    provider TEXT NOT NULL,
    first_token BLOB,
    gap BLOB,
    call BLOB,
    wait BLOB,
    turnaround BLOB,
    batch BLOB,
    PRIMARY KEY (begins_at, lane, class, tier, model, provider)
);
CREATE VIEW cost_by_day AS
    SELECT substr(CAST(begins_at AS VARCHAR), 1, 10) AS day, sum(attempts) AS attempts, sum(jobs) AS jobs,
        sum(cost_nano) / 1e9 AS cost_usd, sum(standard_nano) / 1e9 AS standard_usd,
        sum(attempts) - sum(priced) AS unknown_attempts, sum(at_risk_nano) / 1e9 AS at_risk_usd,
        sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens
    FROM rollup WHERE tags = '' GROUP BY 1 HAVING sum(attempts) > 0;
CREATE VIEW cost_by_model AS
    SELECT provider, model, sum(attempts) AS attempts, sum(jobs) AS jobs,
        sum(cost_nano) / 1e9 AS cost_usd, sum(standard_nano) / 1e9 AS standard_usd,
        sum(attempts) - sum(priced) AS unknown_attempts, sum(at_risk_nano) / 1e9 AS at_risk_usd,
        sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens
    FROM rollup WHERE tags = '' GROUP BY provider, model HAVING sum(attempts) > 0;
CREATE VIEW cost_by_lane AS
    SELECT lane, class, tier, sum(attempts) AS attempts, sum(jobs) AS jobs,
        sum(cost_nano) / 1e9 AS cost_usd, sum(standard_nano) / 1e9 AS standard_usd,
        sum(attempts) - sum(priced) AS unknown_attempts, sum(at_risk_nano) / 1e9 AS at_risk_usd,
        sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens
    FROM rollup WHERE tags = '' GROUP BY lane, class, tier HAVING sum(attempts) > 0;
CREATE VIEW errors_by_day AS
    SELECT substr(CAST(begins_at AS VARCHAR), 1, 10) AS day, error_code, state, lane, provider, model,
        sum(attempts) AS attempts, sum(cost_nano) / 1e9 AS cost_usd, sum(at_risk_nano) / 1e9 AS at_risk_usd
    FROM rollup WHERE tags = '' AND state <> 'ok' AND state <> 'sent'
    GROUP BY 1, error_code, state, lane, provider, model HAVING sum(attempts) > 0;
CREATE VIEW job_costs AS
    SELECT job.id AS job, job.client_key, job.state, decision.class, job.lane, job.model, job.provider,
        job.submitted_at, job.finished_at,
        (SELECT sum(cost_nano) / 1e9 FROM attempt WHERE attempt.job_id = job.id) AS cost_usd,
        (SELECT count(*) FROM attempt WHERE attempt.job_id = job.id AND cost_nano IS NULL) AS unknown_attempts,
        result.text AS answer, job.error_code, job.error
    FROM job JOIN decision ON decision.id = job.decision_id LEFT JOIN result ON result.job_id = job.id
