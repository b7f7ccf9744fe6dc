CREATE TABLE totp_factors (
    user_id       UUID        PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    sealed_secret BYTEA       NOT NULL,
    enabled_at    TIMESTAMPTZ,
    last_step     BIGINT      NOT NULL DEFAULT 0,
    failures      INTEGER     NOT NULL DEFAULT 0,
    locked_until  TIMESTAMPTZ,
    created_at    TIMESTAMPTZ NOT NULL DEFAULT now()
);

COMMENT ON COLUMN totp_factors.enabled_at IS 'Null until the owner proved that an authenticator has the secret.';
COMMENT ON COLUMN totp_factors.last_step IS 'The last 30 s step whose code was accepted: a code works once.';

CREATE TABLE recovery_codes (
    code_hash  BYTEA       PRIMARY KEY,
    user_id    UUID        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    used_at    TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT is_sha256 CHECK (octet_length(code_hash) = 32)
);

CREATE INDEX recovery_codes_user ON recovery_codes (user_id);
