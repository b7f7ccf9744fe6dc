-- A session is a family of refresh tokens: the one in force and those it followed.
CREATE TABLE sessions (
    id            UUID         PRIMARY KEY,
    user_id       UUID         NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    client_id     VARCHAR(100) REFERENCES oauth_clients (id) ON DELETE CASCADE,
    name          VARCHAR(100),
    created_at    TIMESTAMPTZ  NOT NULL DEFAULT now(),
    last_used_at  TIMESTAMPTZ  NOT NULL DEFAULT now(),
    expires_at    TIMESTAMPTZ  NOT NULL,
    revoked_at    TIMESTAMPTZ,
    revoke_reason VARCHAR(20),
    CONSTRAINT revoked_has_reason CHECK ((revoked_at IS NULL) = (revoke_reason IS NULL))
) WITH (fillfactor = 80);

COMMENT ON COLUMN sessions.client_id IS 'The app that holds it; null after a login with a password.';
COMMENT ON COLUMN sessions.name IS 'What the client calls itself, so that its owner knows it again.';

CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_client ON sessions (client_id) WHERE client_id IS NOT NULL;
CREATE INDEX sessions_revoked ON sessions (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE refresh_tokens (
    token_hash BYTEA       PRIMARY KEY,
    session_id UUID        NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    used_at    TIMESTAMPTZ,
    CONSTRAINT is_sha256 CHECK (octet_length(token_hash) = 32)
);

COMMENT ON COLUMN refresh_tokens.used_at IS 'A token works once. One that comes again was copied, and ends its session.';

-- At most one token of a session is in force.
CREATE UNIQUE INDEX refresh_tokens_unused ON refresh_tokens (session_id) WHERE used_at IS NULL;
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id, used_at);
