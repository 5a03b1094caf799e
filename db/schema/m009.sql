CREATE TABLE stop (
    job_id TEXT NOT NULL,
    asked_at DATETIME NOT NULL,
    PRIMARY KEY (job_id),
    FOREIGN KEY(job_id) REFERENCES job (id)
);
CREATE TABLE key_pace (
    key_id TEXT NOT NULL,
    free_at FLOAT NOT NULL,
    PRIMARY KEY (key_id),
    FOREIGN KEY(key_id) REFERENCES gateway_key (id)
);
ALTER TABLE gateway_batch ADD COLUMN output_seconds INTEGER;
ALTER TABLE gateway_batch ADD COLUMN expired_at DATETIME
