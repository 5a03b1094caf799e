CREATE TABLE delta (
    job_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    position INTEGER NOT NULL,
    choice INTEGER NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (job_id, attempt, seq),
    CONSTRAINT kind_word CHECK (kind = 'text' OR kind = 'refusal' OR kind = 'reasoning'),
    CONSTRAINT text_is_part CHECK (position <= seq),
    FOREIGN KEY(job_id) REFERENCES job (id)
);
ALTER TABLE attempt ADD COLUMN outcome TEXT;
ALTER TABLE attempt ADD COLUMN connect_ms FLOAT;
ALTER TABLE attempt ADD COLUMN chunks INTEGER;
ALTER TABLE attempt ADD COLUMN gap_p50_ms FLOAT;
ALTER TABLE attempt ADD COLUMN gap_p95_ms FLOAT;
ALTER TABLE attempt ADD COLUMN gap_max_ms FLOAT;
ALTER TABLE body ADD COLUMN handling TEXT
