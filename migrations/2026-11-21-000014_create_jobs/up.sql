-- Work that a commit promises. A worker takes what is due with FOR UPDATE SKIP LOCKED.
CREATE TABLE jobs (
    id         UUID        PRIMARY KEY,
    kind       VARCHAR(30) NOT NULL,
    sealed     BYTEA       NOT NULL,
    status     VARCHAR(10) NOT NULL DEFAULT 'waiting',
    attempts   INTEGER     NOT NULL DEFAULT 0,
    run_at     TIMESTAMPTZ NOT NULL DEFAULT now(),
    last_error TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    ended_at   TIMESTAMPTZ,
    CONSTRAINT valid_job_status CHECK (status IN ('waiting', 'done', 'failed'))
);

COMMENT ON COLUMN jobs.sealed IS 'The payload, encrypted: a mail holds a link that opens an account. Empty once the job ended.';

CREATE INDEX jobs_due ON jobs (run_at) WHERE status = 'waiting';
CREATE INDEX jobs_ended ON jobs (ended_at) WHERE status <> 'waiting';
