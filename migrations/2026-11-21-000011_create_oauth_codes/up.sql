CREATE TABLE oauth_codes (
    code_hash      BYTEA        PRIMARY KEY,
    client_id      VARCHAR(100) NOT NULL REFERENCES oauth_clients (id) ON DELETE CASCADE,
    user_id        UUID         NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    redirect_uri   TEXT         NOT NULL,
    code_challenge VARCHAR(43)  NOT NULL,
    expires_at     TIMESTAMPTZ  NOT NULL,
    used_at        TIMESTAMPTZ,
    session_id     UUID         REFERENCES sessions (id) ON DELETE SET NULL,
    created_at     TIMESTAMPTZ  NOT NULL DEFAULT now(),
    CONSTRAINT is_sha256 CHECK (octet_length(code_hash) = 32)
);

COMMENT ON COLUMN oauth_codes.code_challenge IS 'Base64url of the SHA-256 of the client''s verifier.';
COMMENT ON COLUMN oauth_codes.session_id IS 'What the code was exchanged for, and what ends when it comes again.';

CREATE INDEX oauth_codes_expiry ON oauth_codes (expires_at);
CREATE INDEX oauth_codes_user ON oauth_codes (user_id);
CREATE INDEX oauth_codes_session ON oauth_codes (session_id);
