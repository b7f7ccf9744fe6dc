CREATE TABLE audit_log (
    id           UUID         PRIMARY KEY,
    at           TIMESTAMPTZ  NOT NULL DEFAULT now(),
    action       VARCHAR(50)  NOT NULL,
    outcome      VARCHAR(10)  NOT NULL,
    actor_kind   VARCHAR(10)  NOT NULL,
    actor        VARCHAR(100),
    subject_kind VARCHAR(20),
    subject      VARCHAR(100),
    before       JSONB,
    after        JSONB,
    request_id   VARCHAR(64),
    CONSTRAINT valid_outcome CHECK (outcome IN ('done', 'refused')),
    CONSTRAINT valid_actor CHECK (actor_kind IN ('anonymous', 'user', 'operator', 'cli', 'system'))
);

COMMENT ON TABLE audit_log IS 'Who did what to whom. No client address is kept: abuse protection has its own memory.';
COMMENT ON COLUMN audit_log.actor IS 'A user''s id or an operator token''s name and id. No foreign key: the row outlives them.';

CREATE INDEX audit_log_at ON audit_log (at);
CREATE INDEX audit_log_subject ON audit_log (subject, at);
CREATE INDEX audit_log_actor ON audit_log (actor, at);
