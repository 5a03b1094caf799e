CREATE TABLE length (
    model TEXT NOT NULL,
    template TEXT NOT NULL,
    answers BIGINT NOT NULL,
    logs FLOAT NOT NULL,
    squares FLOAT NOT NULL,
    seen_at DATETIME NOT NULL,
    PRIMARY KEY (model, template)
)
