CREATE TABLE one_time_tokens (
    token_hash BYTEA        PRIMARY KEY,
    user_id    UUID         NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    purpose    VARCHAR(20)  NOT NULL,
    email      VARCHAR(254) NOT NULL,
    expires_at TIMESTAMPTZ  NOT NULL,
    used_at    TIMESTAMPTZ,
    created_at TIMESTAMPTZ  NOT NULL DEFAULT now(),
    CONSTRAINT valid_purpose CHECK (purpose IN ('verify_email', 'reset_password')),
    CONSTRAINT is_sha256 CHECK (octet_length(token_hash) = 32)
);

COMMENT ON COLUMN one_time_tokens.email IS 'Where it was sent. It is worth nothing once the account has another address.';

CREATE INDEX one_time_tokens_user ON one_time_tokens (user_id, purpose);
CREATE INDEX one_time_tokens_expiry ON one_time_tokens (expires_at);
