CREATE TABLE gateway_key (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    hash TEXT NOT NULL,
    lanes JSON,
    requests_per_minute INTEGER,
    created_at DATETIME NOT NULL,
    revoked_at DATETIME,
    PRIMARY KEY (id),
    CONSTRAINT rate_is_positive CHECK (requests_per_minute > 0)
);
CREATE TABLE conversation (
    id TEXT NOT NULL,
    owner TEXT,
    title TEXT NOT NULL,
    system TEXT,
    turns INTEGER NOT NULL,
    created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT turns_not_negative CHECK (turns >= 0)
);
CREATE INDEX conversation_updated ON conversation (updated_at, id);
CREATE TABLE conversation_turn (
    conversation_id TEXT NOT NULL,
    n INTEGER NOT NULL,
    said TEXT NOT NULL,
    job_id TEXT NOT NULL,
    asked_at DATETIME NOT NULL,
    PRIMARY KEY (conversation_id, n),
    FOREIGN KEY(conversation_id) REFERENCES conversation (id)
);
CREATE TABLE gateway_file (
    id TEXT NOT NULL,
    owner TEXT,
    filename TEXT NOT NULL,
    purpose TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    whole BOOLEAN NOT NULL,
    created_at DATETIME NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE gateway_file_part (
    file_id TEXT NOT NULL,
    n INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (file_id, n),
    FOREIGN KEY(file_id) REFERENCES gateway_file (id)
);
CREATE TABLE gateway_batch (
    id TEXT NOT NULL,
    owner TEXT,
    input_file_id TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    metadata JSON,
    submission_id TEXT,
    rejects_file_id TEXT,
    rejected INTEGER NOT NULL,
    error_code TEXT,
    error TEXT,
    created_at DATETIME NOT NULL,
    expires_at DATETIME NOT NULL,
    read_at DATETIME,
    cancelled_at DATETIME,
    PRIMARY KEY (id),
    FOREIGN KEY(submission_id) REFERENCES submission (id),
    CONSTRAINT rejected_not_negative CHECK (rejected >= 0)
)
